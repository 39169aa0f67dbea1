use proptest::prelude::*;
use sluicegate_checkpoint::key_template::FALLBACK_KEY;
use sluicegate_checkpoint::transform::Unit;
use sluicegate_checkpoint::{
    AggregateKey, Exclusion, HashKey, HashKeyRange, KeyTemplate, LeaseState, PackingParameters, Position,
    ShardId,
};

use super::*;
use crate::testing::{NOON, batch, event, items_of, sequence, with_parameters};

/// Groups by key, taken apart again.
fn unpacked(packed: &Packed) -> Vec<(String, Vec<Unpacked>)> {
    let mut groups: Vec<(String, Header, Vec<Bytes>)> = Vec::new();
    for item in &packed.items {
        item.check().unwrap();
        let key = item.header.partition.aggregate_key.clone();
        match groups.last_mut() {
            Some((last, _, parts)) if *last == key => parts.push(item.data.clone()),
            _ => groups.push((key, item.header.clone(), vec![item.data.clone()])),
        }
    }
    groups.into_iter().map(|(key, header, parts)| (key, unpack(&header, &parts).unwrap())).collect()
}

fn with_version(mut batch: Batch, version: u32) -> Batch {
    batch.cut.packing_version = version;
    batch
}

fn keyed_by(batch: Batch, template: &str) -> Batch {
    let template = KeyTemplate::parse(template).unwrap();
    with_parameters(batch, |parameters| parameters.aggregate_key = AggregateKey::Template(template))
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 99u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn records_are_grouped_by_partition_key() {
    let packed = pack(&batch(vec![event(1, "b", "x"), event(2, "a", "y"), event(3, "b", "z")])).unwrap();
    let groups = unpacked(&packed);
    let shape: Vec<(&str, usize)> = groups.iter().map(|(key, events)| (key.as_str(), events.len())).collect();
    assert_eq!(shape, [("a", 1), ("b", 2)]);
    assert_eq!((packed.events, packed.records, packed.raw_bytes, packed.fallback_keys), (3, 3, 3, 0));
}

#[test]
fn records_without_a_usable_key_go_to_the_fallback_key_and_are_counted() {
    let long = format!(r#"{{"job":"{}"}}"#, "ä".repeat(257));
    let records = vec![
        event(1, "p", r#"{"job":"j"}"#),
        event(2, "p", r#"{"other":1}"#),
        event(3, "p", r#"{"job":""}"#),
        event(4, "p", long),
        event(5, "p", &b"\xff no json"[..]),
    ];
    let packed = pack(&keyed_by(batch(records), "{/job}")).unwrap();
    let groups = unpacked(&packed);
    let shape: Vec<(&str, usize)> = groups.iter().map(|(key, events)| (key.as_str(), events.len())).collect();
    assert_eq!(shape, [("j", 1), (FALLBACK_KEY, 4)]);
    assert_eq!((packed.events, packed.fallback_keys), (5, 4));
}

#[test]
fn keys_do_not_depend_on_exclusions_or_the_packing_version() {
    let plain = with_parameters(batch(vec![event(1, "k", "x"), event(2, "k", "y")]), |parameters| {
        parameters.spread = 7
    });
    let mut amended = with_version(plain.clone(), 2);
    let place = (sequence(1), SubSequenceNumber(0));
    amended.cut.exclusions.push(Exclusion { from: place.clone(), to: place });
    let key = |batch: &Batch| items_of(batch)[0].header.key();
    assert_eq!(key(&plain), key(&amended));
}

#[test]
fn a_group_that_exclusions_leave_empty_is_one_item_with_count_0() {
    for version in PACKING_VERSIONS {
        let mut batch = with_version(batch(vec![event(1, "k", "x"), event(2, "other", "y")]), *version);
        let place = (sequence(1), SubSequenceNumber(0));
        batch.cut.exclusions.push(Exclusion { from: place.clone(), to: place });
        let packed = pack(&batch).unwrap();
        let empty = &packed.items[0].header;
        assert_eq!(empty.partition.aggregate_key, "k");
        assert_eq!((empty.count, empty.sort.part, empty.parts, &empty.range), (0, 1, 1, &None));
        assert_eq!(unpacked(&packed)[0].1, []);
        assert_eq!((packed.events, packed.records), (1, 1));
    }
}

#[test]
fn an_event_larger_than_an_item_is_stored_in_parts() {
    for version in PACKING_VERSIONS {
        let large = with_parameters(
            batch(vec![event(1, "k", "x"), event(2, "k", noise(50_000)), event(3, "k", "y")]),
            |parameters| parameters.max_item_bytes = PackingParameters::MIN_ITEM_BYTES,
        );
        let packed = pack(&with_version(large.clone(), *version)).unwrap();
        assert!(packed.items.len() > 12, "{} parts", packed.items.len());
        assert!(packed.items.iter().all(|item| item.bytes() <= PackingParameters::MIN_ITEM_BYTES as usize));
        assert_eq!(unpacked(&packed)[0].1[1].data, large.records[1].data());
    }
}

#[test]
fn what_a_kcl_position_covers_already_is_left_out() {
    let mut batch = batch(vec![event(1, "k", "old"), event(1, "k", "new"), event(2, "k", "next")]);
    batch.records[1] = batch.records[1].at_sub(1);
    batch.cut.behind_sub = Some(SubSequenceNumber(0));
    let packed = pack(&batch).unwrap();
    assert_eq!((packed.events, packed.records), (2, 2));
}

#[test]
fn user_records_of_another_shard_are_left_out_and_counted_whoever_packs() {
    let mut batch = batch(vec![event(1, "ours", "a"), event(1, "theirs", "b"), event(2, "plain", "c")]);
    batch.cut.records = 2;
    batch.records[1] = batch.records[1].at_sub(1);
    batch.records[0] = batch.records[0].with_hash_key(HashKey::sent_once(7));
    batch.records[1] = batch.records[1].with_hash_key(HashKey::sent_once(8));
    assert_eq!(pack(&batch).unwrap().foreign, 0, "no range is recorded");
    let range = HashKeyRange { start: 0, end: 7 };
    let mut batch = with_parameters(batch, |parameters| parameters.hash_range = Some(range));
    let packed = pack(&batch).unwrap();
    assert_eq!((packed.events, packed.records, packed.foreign, packed.filtered), (2, 2, 1, 0));
    let keys: Vec<_> = packed.items.iter().map(|item| item.header.partition.aggregate_key.as_str()).collect();
    assert_eq!(keys, ["ours", "plain"], "the group of foreign events alone has no item");
    assert_eq!(
        (batch.stored().count(), batch.foreign(), batch.filtered()),
        (2, 1, 0),
        "other sinks leave out the same"
    );

    batch.records.truncate(2);
    batch.records[0] = batch.records[0].with_hash_key(HashKey::sent_once(9));
    let packed = pack(&batch).unwrap();
    assert_eq!((packed.items.len(), packed.events, packed.foreign), (0, 0, 2));

    // The newer rule: only what is sent again.
    batch.records[1] = batch.records[1].with_hash_key(HashKey::sent_again(8));
    let batch = with_parameters(batch, |parameters| {
        parameters.only_sent_again = true;
        *parameters = parameters.clone().with_needed_decoding_version();
    });
    let packed = pack(&batch).unwrap();
    assert_eq!((packed.events, packed.foreign, packed.filtered), (1, 1, 0));
    assert_eq!((batch.stored().count(), batch.foreign()), (1, 1));
}

fn transformed(batch: Batch, [filter, fields, reduce]: [&str; 3]) -> Batch {
    with_parameters(batch, |parameters| {
        let set = PackingParameters {
            filter: (!filter.is_empty()).then(|| filter.parse().unwrap()),
            fields: (!fields.is_empty()).then(|| fields.parse().unwrap()),
            reduce: (!reduce.is_empty()).then(|| reduce.parse().unwrap()),
            ..parameters.clone()
        };
        *parameters = set.with_needed_decoding_version();
    })
}

fn payloads(packed: &Packed) -> Vec<(String, Vec<String>)> {
    let text = |event: &Unpacked| String::from_utf8(event.data.to_vec()).unwrap();
    unpacked(packed).into_iter().map(|(key, events)| (key, events.iter().map(text).collect())).collect()
}

#[test]
fn what_the_filter_does_not_keep_is_left_out_and_what_it_cannot_judge_is_stored_and_counted() {
    let records = vec![
        event(1, "a", r#"{"delay":20}"#),
        event(2, "b", r#"{"delay":1}"#),
        event(3, "a", "no json"),
        event(4, "a", "{}"),
    ];
    let batch = transformed(batch(records), ["/delay > 15", "", ""]);
    let packed = pack(&batch).unwrap();
    assert_eq!(
        payloads(&packed),
        [("a".to_owned(), vec![r#"{"delay":20}"#.to_owned(), "no json".to_owned()])]
    );
    assert_eq!((packed.events, packed.records, packed.filtered, packed.unreadable), (2, 2, 2, 1));
    assert_eq!((batch.stored().count(), batch.filtered()), (2, 2), "other sinks leave out the same");
}

#[test]
fn keys_come_from_the_event_as_published_and_only_the_named_fields_are_stored() {
    let records = vec![event(1, "p", r#"{"job":"j","n": 1.50,"x":[1]}"#), event(2, "p", "no json")];
    let batch = transformed(keyed_by(batch(records), "{/job}"), ["", "/n", ""]);
    let packed = pack(&batch).unwrap();
    let group = |key: &str, data: &str| (key.to_owned(), vec![data.to_owned()]);
    assert_eq!(payloads(&packed), [group("j", r#"{"n":1.50}"#), group(FALLBACK_KEY, "no json")]);
    assert_eq!((packed.events, packed.unreadable, packed.raw_bytes), (2, 1, 36));
}

#[test]
fn a_reduction_stores_one_record_for_each_key_and_window() {
    let flight = |n, key, hour, delay: &str| {
        event(n, key, format!(r#"{{"at":"2013-01-01T{hour}:10:00Z","delay":{delay}}}"#))
    };
    let records = vec![
        flight(1, "UA", 11, "2.5"),
        flight(2, "UA", 10, "-4"),
        flight(3, "AA", 10, "1"),
        flight(4, "UA", 11, "null"),
        event(5, "UA", "no json"),
    ];
    let batch = transformed(batch(records), ["", "", "/delay per 1h by /at"]);
    let packed = pack(&batch).unwrap();
    let line = |key: &str, hour: &str, events: u32, unreadable: u32, delay: &str| {
        let window =
            if hour.is_empty() { "null".to_owned() } else { format!("\"2013-01-01T{hour}:00:00Z\"") };
        format!(
            r#"{{"key":"{key}","window":{window},"reduce":"/delay per 1h by /at","events":{events},"unreadable":{unreadable},"fields":{{"/delay":{{{delay}}}}}}}"#
        )
    };
    let none = r#""count":0,"sum":0,"min":null,"max":null"#;
    let wanted = [
        ("AA".to_owned(), vec![line("AA", "10", 1, 0, r#""count":1,"sum":1,"min":1,"max":1"#)]),
        (
            "UA".to_owned(),
            vec![
                line("UA", "11", 2, 0, r#""count":1,"sum":2.5,"min":2.5,"max":2.5"#),
                line("UA", "10", 1, 0, r#""count":1,"sum":-4,"min":-4,"max":-4"#),
                line("UA", "", 1, 1, none),
            ],
        ),
    ];
    assert_eq!(payloads(&packed), wanted);
    assert_eq!((packed.events, packed.records, packed.unreadable), (5, 5, 1));
    let header = &packed.items[1].header;
    assert_eq!((header.count, header.reduced, header.events()), (3, Some(4), 4));
    let range = header
        .range
        .as_ref()
        .map(|(first, last)| (first.sequence_number.as_str(), last.sequence_number.as_str()));
    assert_eq!(range, Some(("1", "5")), "first and last event, for the check that no event is stored twice");
    let places: Vec<String> =
        unpacked(&packed)[1].1.iter().map(|one| one.sequence_number.to_string()).collect();
    assert_eq!(places, ["1", "2", "5"], "a window stands where its first event stood");
}

#[test]
fn events_without_a_time_are_counted_and_the_unit_that_would_make_sense_is_named() {
    let events = [
        r#"{"t":"2013-01-01T10:00:00+0000"}"#,
        r#"{"t":1357034400}"#,
        r#"{"t":"2013-01-01T10:00:00"}"#,
        "no json",
    ];
    let records: Vec<Record> = (1..).zip(events).map(|(n, data)| event(n, "k", data)).collect();
    let packed = pack(&transformed(batch(records.clone()), ["", "", "per 1h by /t"])).unwrap();
    assert_eq!(packed.untimed, Untimed { events: 2, unit: Some(Unit::Seconds) });
    assert_eq!((packed.events, packed.unreadable), (4, 1));
    let packed = pack(&transformed(batch(records), ["", "", "per 1h by /t as seconds in UTC"])).unwrap();
    assert_eq!(packed.untimed, Untimed::default());
    let windows = payloads(&packed).remove(0).1;
    assert!(
        windows[0].contains(r#""window":"2013-01-01T10:00:00Z""#) && windows[0].contains(r#""events":3"#)
    );
}

#[test]
fn a_reduction_that_exclusions_leave_empty_is_one_item_with_count_0() {
    let mut batch = transformed(batch(vec![event(1, "k", "{}")]), ["", "", "per 1h"]);
    let place = (sequence(1), SubSequenceNumber(0));
    batch.cut.exclusions.push(Exclusion { from: place.clone(), to: place });
    let items = items_of(&batch);
    assert_eq!((items.len(), items[0].header.count, items[0].header.reduced), (1, 0, Some(0)));
}

#[test]
fn a_dropped_cut_has_no_items() {
    let mut batch = batch(vec![event(1, "k", "x")]);
    batch.cut.dropped = true;
    assert_eq!(pack(&batch).unwrap(), Packed::default());
}

#[test]
fn items_expire_days_after_the_cut_arrived() {
    let batch = with_parameters(batch(vec![event(1, "k", "x")]), |parameters| parameters.ttl_days = Some(30));
    assert_eq!(items_of(&batch)[0].header.expires, Some(NOON / 1_000 + 30 * 86_400));
}

#[test]
fn what_cannot_be_packed_is_named() {
    let good = batch(vec![event(1, "k", "x")]);
    assert!(matches!(pack(&with_version(good.clone(), 3)), Err(PackError::Version { wanted: 3 })));
    let small = with_parameters(good.clone(), |parameters| parameters.max_item_bytes = 1);
    assert!(matches!(pack(&small), Err(PackError::Parameters(_))));
    let mut odd = good;
    odd.id.shard = ShardId::new("stream#shard");
    assert!(matches!(pack(&odd), Err(PackError::Shard { .. })));
}

#[test]
fn versions_differ_in_framing_and_splitting() {
    let large = with_parameters(batch(vec![event(1, "k", noise(9_000)), event(2, "k", "y")]), |parameters| {
        parameters.max_item_bytes = PackingParameters::MIN_ITEM_BYTES;
        parameters.codec = Codec::None;
    });
    let sizes = |version| -> Vec<usize> {
        items_of(&with_version(large.clone(), version)).iter().map(|item| item.data.len()).collect()
    };
    let (full, equal) = (sizes(1), sizes(2));
    assert!(full[0] == full[1] && full[2] < full[1], "{full:?}");
    assert!(equal[0] - equal[equal.len() - 1] <= 1, "{equal:?}");
}

/// What was announced under a version may be packed again by another build, so its bytes may never change. If
/// this fails after an upgrade of the compressor, the upgrade needs a packing version of its own.
#[test]
fn the_bytes_of_each_version_never_change() {
    let line = |n: u32| {
        format!(r#"{{"job_id":"job-{}","n":{n},"state":"done","rows":{}}}"#, n % 3, n * 7_919 % 1_000)
    };
    let records = |count: u32| (1..=count).map(|n| event(n, &format!("job-{}", n % 3), line(n))).collect();
    let sum = |version, codec| {
        let mut sum = crc32fast::Hasher::new();
        for count in [1, 50, 20_000] {
            let batch = with_parameters(with_version(batch(records(count)), version), |parameters| {
                parameters.codec = codec;
            });
            items_of(&batch).iter().for_each(|item| sum.update(&item.data));
        }
        sum.finalize()
    };
    let codecs = [Codec::None, Codec::Zstd(1), Codec::Zstd(3), Codec::Zstd(9)];
    let sums = [1, 2].map(|version| codecs.map(|codec| sum(version, codec)));
    assert_eq!(sums, FIXED_SUMS, "{sums:#010x?}");
}

/// The same for what filter, projection and reduction make of events: a change of their meaning needs another decoding
/// version.
#[test]
fn the_bytes_of_each_transform_never_change() {
    let line = |n: u32| {
        let (day, delay) = (n % 28 + 1, f64::from(n * 7_919 % 1_000) / 8.0 - 60.0);
        format!(
            r#"{{ "day":"2013-01-{day:02}T{:02}:30:00Z", "delay": {delay}, "tail":"N{}", "legs":[{{"km":{n}e-1}}]}}"#,
            n % 24,
            n % 9
        )
    };
    let records: Vec<Record> = (1..=2_000).map(|n| event(n, &format!("k{}", n % 3), line(n))).collect();
    let sum = |transform| {
        let mut sum = crc32fast::Hasher::new();
        let batch = with_parameters(transformed(batch(records.clone()), transform), |parameters| {
            parameters.codec = Codec::None
        });
        items_of(&batch).iter().for_each(|item| sum.update(&item.data));
        sum.finalize()
    };
    let sums = [
        sum([r#"/delay > -1.5e1 and not (/tail == "N3" or /legs/0/km >= 150)"#, "", ""]),
        sum(["exists /legs/0", "/delay /legs/0/km", ""]),
        sum(["/tail != \"N1\"", "", "/delay /legs/0/km per 6h by /day"]),
        sum(["", "", "/delay per 1s"]),
    ];
    assert_eq!(sums, FIXED_TRANSFORMS, "{sums:#010x?}");
}

const FIXED_TRANSFORMS: [u32; 4] = [0x1095_7680, 0xb17c_e489, 0x7818_116d, 0x726c_5090];

const FIXED_SUMS: [[u32; 4]; 2] = [
    [0x22ac_17ca, 0x88e2_e831, 0x4ba3_bfff, 0xe242_096b],
    [0xbe34_613d, 0xd104_6c7a, 0xceb0_6403, 0x664c_c8ab],
];

#[test]
fn damage_behind_sound_items_is_told() {
    let items = items_of(&batch(vec![event(1, "k", "some text")]));
    let (header, parts) = (&items[0].header, [items[0].data.clone()]);
    let change = |change: fn(&mut Header)| {
        let mut header = header.clone();
        change(&mut header);
        unpack(&header, &parts).unwrap_err()
    };
    assert!(matches!(change(|header| header.group_sum ^= 1), UnpackError::GroupSum { .. }));
    assert!(matches!(change(|header| header.count += 1), UnpackError::Count { .. }));
    assert!(matches!(change(|header| header.raw_bytes += 1), UnpackError::Decompress(_)));
    assert!(matches!(change(|header| header.raw_bytes -= 1), UnpackError::Decompress(_)));
    assert!(matches!(change(|header| header.packing_version = 9), UnpackError::Version { found: 9 }));
}

fn any_record() -> impl Strategy<Value = Record> {
    let place =
        (any::<u128>(), prop_oneof![0u64..4, any::<u64>()], prop_oneof![NOON..NOON + 90_000, any::<i64>()]);
    let body = ("[ab~0-9]{0,3}", proptest::collection::vec(any::<u8>(), 0..200));
    (place, body).prop_map(|((n, sub, arrival), (key, data))| {
        Record::new(sequence(n % 1_000_000_007), ArrivalMillis(arrival), key, data).at_sub(sub)
    })
}

fn any_transform() -> impl Strategy<Value = [&'static str; 3]> {
    let filter = prop_oneof![Just(""), Just("/delay > 0"), Just("not exists /tail or /delay <= -1.25")];
    let shape = prop_oneof![
        Just(["", ""]),
        Just(["/delay", ""]),
        Just(["", "per 1s"]),
        Just(["", "/delay /tail per 1h by /at"]),
    ];
    (filter, shape).prop_map(|(filter, [fields, reduce])| [filter, fields, reduce])
}

prop_compose! {
    pub(crate) fn any_batch()(
        records in proptest::collection::vec(any_record(), 1..40),
        codec in prop_oneof![Just(Codec::None), (1i32..6).prop_map(Codec::Zstd)],
        max_item_bytes in 4_096u32..9_000, spread in 1u32..5, ttl_days in proptest::option::of(0u32..400),
        version in 1u32..3, revision in any::<u32>(), epoch in any::<u32>(),
        excluded in proptest::option::of(0usize..40),
    ) -> Batch {
        let mut batch = with_parameters(with_version(batch(records), version), |parameters| {
            *parameters = PackingParameters { codec, max_item_bytes, spread, ttl_days, ..parameters.clone() };
        });
        batch.cut.revision = revision;
        batch.id.epoch = epoch;
        if let Some(poison) = excluded.and_then(|index| batch.records.get(index)) {
            let place = (poison.sequence_number().clone(), poison.sub_sequence_number());
            batch.cut.exclusions.push(Exclusion { from: place.clone(), to: place });
        }
        batch
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn packing_then_unpacking_is_the_identity(batch in any_batch()) {
        let packed = pack(&batch).unwrap();
        let limit = batch.cut.parameters.max_item_bytes as usize;
        prop_assert!(packed.items.iter().all(|item| item.bytes() <= limit));
        let total: usize = packed.items.iter().map(Item::bytes).sum();
        prop_assert_eq!(packed.stored_bytes, total as u64);
        prop_assert_eq!(packed.groups.stored_bytes(), packed.stored_bytes);
        prop_assert_eq!(packed.groups.items(), packed.items.len() as u64);
        let mut events = 0;
        for (key, group) in unpacked(&packed) {
            let of_key = batch.records.iter().filter(|record| {
                !batch.cut.excludes(record.sequence_number(), record.sub_sequence_number())
                    && (record.partition_key() == key || record.partition_key().is_empty() && key == FALLBACK_KEY)
            });
            let wanted: Vec<Unpacked> = of_key.map(|record| Unpacked {
                sequence_number: record.sequence_number().clone(),
                sub_sequence_number: record.sub_sequence_number(),
                arrival: record.arrival(),
                data: record.data_bytes(),
            }).collect();
            events += group.len() as u64;
            prop_assert_eq!(group, wanted);
        }
        prop_assert_eq!(packed.events, events);
    }

    #[test]
    fn the_same_batch_and_parameters_give_the_same_bytes(batch in any_batch()) {
        let again = batch.clone();
        prop_assert_eq!(pack(&batch).unwrap(), pack(&again).unwrap());
    }

    /// Whatever a worker is configured with, the recorded parameters make the items (D3).
    #[test]
    fn a_redelivery_makes_the_same_items_of_the_recorded_transform(
        events in proptest::collection::vec((0u8..3, -5i32..5, 0u8..3), 1..40), transform in any_transform(),
    ) {
        let data = |(_, delay, kind): &(u8, i32, u8)| match kind {
            0 => format!("text {delay}"),
            1 => format!(r#"{{"delay":{delay}}}"#),
            _ => format!(r#"{{"at":{},"delay":{delay}.25,"tail":"x"}}"#, i64::from(*delay) * 1_800_000),
        };
        let records: Vec<Record> =
            (1..).zip(&events).map(|(n, event)| self::event(n, ["a", "b", "c"][event.0 as usize], data(event))).collect();
        let batch = transformed(batch(records.clone()), transform);
        let packed = pack(&batch).unwrap();
        // Conservation (K1): what was read is packed or filtered.
        prop_assert_eq!(packed.events + packed.filtered, records.len() as u64);
        prop_assert_eq!(packed.events, batch.stored().count() as u64);
        let by_headers = packed.items.iter().filter(|item| item.header.sort.part == 1).map(|item| item.header.events());
        prop_assert_eq!(by_headers.sum::<u64>(), packed.events);
        // As another worker gets it: the cut went through a lease row, the records were read again.
        let mut state = LeaseState::starting(None);
        state.follows = Some(Position::TrimHorizon);
        state.cuts = vec![batch.cut.clone()];
        let read = LeaseState::decode(&state.encode().unwrap()).unwrap();
        let again = Batch { cut: read.cuts[0].clone(), ..batch };
        prop_assert_eq!(pack(&again).unwrap(), packed);
    }

    #[test]
    fn decoding_never_panics(version in 1u32..3, raw in proptest::collection::vec(any::<u8>(), 0..60)) {
        let (version, first) = (PackingVersion::of(version).unwrap(), sequence(7));
        let base = frame::Place::of_cut(&first, ArrivalMillis(0));
        drop(frame::decode(version, &base, &Bytes::from(raw)));
    }
}
