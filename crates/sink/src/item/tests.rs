use proptest::prelude::*;
use sluicegate_checkpoint::ShardId;

use super::*;

fn sequence(n: u128) -> SequenceNumber {
    SequenceNumber::parse(n.to_string()).unwrap()
}

fn sort_key(arrival: i64, shard: &str, first: u128, revision: u32, part: u32) -> SortKey {
    SortKey {
        arrival: ArrivalMillis(arrival),
        shard: ShardId::new(shard),
        epoch: 0,
        first: sequence(first),
        event: None,
        revision,
        part,
    }
}

fn item() -> Item {
    let data = Bytes::from_static(b"some data");
    let at = |n, sub| EventId { sequence_number: sequence(n), sub_sequence_number: SubSequenceNumber(sub) };
    let header = Header {
        partition: PartitionKey { aggregate_key: "job~1".to_owned(), suffix: 3 },
        sort: sort_key(1_700_000_000_000, "shardId-000000000003", 4_711, 2, 1),
        packing_version: 1,
        codec: StoredCodec::Zstd,
        count: 12,
        reduced: None,
        raw_bytes: 345,
        group_sum: 7,
        part_sum: crc32fast::hash(&data),
        arrivals: (ArrivalMillis(1_700_000_000_000), ArrivalMillis(1_700_000_000_999)),
        range: Some((at(4_711, 0), at(4_720, 9))),
        parts: 2,
        stored_bytes: 9,
        expires: Some(1_700_086_400),
    };
    Item { header, data }
}

#[test]
fn a_suffix_is_never_mistaken_for_a_key() {
    let cases = [
        ("a", 0, "a"),
        ("a", 3, "a~3"),
        ("a~3", 0, "a~~3"),
        ("a~", 3, "a~~~3"),
        ("~", 0, "~~"),
        ("7", 7, "7~7"),
    ];
    for (aggregate_key, suffix, pk) in cases {
        let key = PartitionKey { aggregate_key: aggregate_key.to_owned(), suffix };
        assert_eq!(key.to_string(), pk);
        assert_eq!(PartitionKey::parse(pk), Some(key));
    }
}

#[test]
fn reserved_and_foreign_partitions_are_nobodys_events() {
    for pk in [RESERVED_PARTITION, "", "~", "a~0", "a~03", "a~b", "a~99999999999", "~5"] {
        assert_eq!(PartitionKey::parse(pk), None, "{pk}");
    }
}

#[test]
fn sort_keys_have_the_documented_shape() {
    let key = sort_key(1_700_000_000_000, "shardId-000000000003", 4_711, 255, 16);
    assert_eq!(key.to_string(), "1700000000000#shardId-000000000003#00000000#0044711#000000ff#000010");
    assert_eq!(SortKey::parse(&key.to_string()), Some(key));
}

#[test]
fn what_is_no_sort_key_is_refused() {
    let good = "1700000000000#s#00000000#0044711#000000ff#000010";
    assert!(SortKey::parse(good).is_some());
    for (from, to) in [
        ("0044711", "0034711"),
        ("0044711", "0054711"),
        ("00ff", "00FF"),
        ("#s#", "#ü#"),
        ("#000010", ""),
        ("#000010", "#000010#"),
        ("17", "1"),
        ("0044711", "0040711"),
    ] {
        assert_eq!(SortKey::parse(&good.replacen(from, to, 1)), None, "{from} -> {to}");
    }
}

#[test]
fn an_item_reads_back_from_its_attributes() {
    let item = item();
    assert_eq!(Item::from_attributes(&item.to_attributes()), Ok(item.clone()));
    assert_eq!(item.check(), Ok(()));
    assert_eq!(item.bytes(), item.to_attributes().bytes());
}

#[test]
fn a_header_reads_back_without_the_data() {
    let header = item().header;
    assert_eq!(Header::from_attributes(&header.to_attributes()), Ok(header.clone()));
    let reduced = Header { reduced: Some(99), ..header };
    assert_eq!((reduced.events(), reduced.count), (99, 12));
    assert_eq!(reduced.to_attributes().number(names::FORMAT), Some(2));
    assert_eq!(Header::from_attributes(&reduced.to_attributes()), Ok(reduced));
}

#[test]
fn damage_names_the_item() {
    let mut damaged = item();
    damaged.data = Bytes::from_static(b"some dada");
    let error = damaged.check().unwrap_err();
    assert!(matches!(error.why, Fault::PartSum { .. }));
    assert_eq!(error.key, damaged.header.key());
    damaged.data = Bytes::from_static(b"some");
    assert!(matches!(damaged.check().unwrap_err().why, Fault::Length { found: 4, stated: 9 }));
}

#[test]
fn missing_and_newer_attributes_are_told_apart() {
    let mut attributes = item().to_attributes();
    attributes.set(names::FORMAT, Value::Number(3));
    let newer = Header::from_attributes(&attributes).unwrap_err();
    assert_eq!(newer.why, Fault::FormatVersion { found: 3 });
    let mut reduced = item();
    reduced.header.reduced = Some(99);
    for name in names::HEADER.into_iter().filter(|name| *name != names::EXPIRES) {
        let without = reduced.to_attributes().into_iter().filter(|(other, _)| other != name);
        let mut kept = Attributes::default();
        without.for_each(|(name, value)| kept.set(name, value));
        assert!(Header::from_attributes(&kept).is_err(), "without {name}");
    }
}

#[test]
fn a_part_outside_its_parts_is_refused() {
    let mut attributes = item().to_attributes();
    attributes.set(names::PARTS, Value::Number(0));
    assert_eq!(
        Header::from_attributes(&attributes).unwrap_err().why,
        Fault::Attribute { name: names::PARTS }
    );
}

proptest! {
    #[test]
    fn partition_keys_read_back_and_never_collide(
        (a, b) in ("[a~1-3]{1,6}", "[a~1-3]{1,6}"), (n, m) in (0u32..14, 0u32..14),
    ) {
        let (x, y) = (PartitionKey { aggregate_key: a, suffix: n }, PartitionKey { aggregate_key: b, suffix: m });
        prop_assert_eq!(x.to_string() == y.to_string(), x == y);
        prop_assert!(x.to_string() != RESERVED_PARTITION);
        prop_assert_eq!(PartitionKey::parse(&x.to_string()), Some(x));
    }

    #[test]
    fn text_order_of_sort_keys_is_their_order(
        (t, u) in (0i64..3, 0i64..3), (s, r) in ("[a-]{1,3}", "[a-]{1,3}"), (a, b) in (0u128..1_200, 0u128..1_200),
        (v, w) in (0u32..20, 0u32..20),
    ) {
        let (x, y) = (sort_key(t, &s, a, v, w + 1), sort_key(u, &r, b, w, v + 1));
        prop_assert_eq!(x.to_string().cmp(&y.to_string()), x.cmp(&y));
        prop_assert!(SortKey::lowest_at(x.arrival) < x.to_string() && x.to_string() < SortKey::highest_at(x.arrival));
        prop_assert_eq!(SortKey::parse(&x.to_string()), Some(x));
    }

    #[test]
    fn marks_read_back(base in any::<u128>(), n in any::<u128>(), sub in any::<u64>()) {
        let id = EventId { sequence_number: sequence(n), sub_sequence_number: SubSequenceNumber(sub) };
        let base = sequence(base);
        prop_assert_eq!(keys::parse_mark(&base, &keys::mark(&base, &id)), Some(id));
    }
}
