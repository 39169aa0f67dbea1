use proptest::prelude::*;
use serde_json::Value;
use sluicegate_checkpoint::{ArrivalMillis, HashKey, SequenceNumber};

use bytes::Bytes;
use prost::Message;

use self::messages::{AggregatedRecord, Tag, UserRecord};
use super::*;

mod messages;

pub(super) fn kinesis_record(data: impl Into<Bytes>) -> Record {
    Record::new(
        SequenceNumber::parse("495900").unwrap(),
        ArrivalMillis(1_700_000_000_000),
        "of the whole",
        data,
    )
}

/// What goes into an aggregate: partition key, explicit hash key, payload.
pub(super) type Event = (String, Option<u128>, Vec<u8>);

/// An encoder for tests: keys in the order of their first use, each once.
pub(super) fn aggregate(events: &[Event]) -> AggregatedRecord {
    fn place<T: PartialEq>(table: &mut Vec<T>, value: T) -> u64 {
        let found = table.iter().position(|known| *known == value);
        let place = found.unwrap_or(table.len());
        if found.is_none() {
            table.push(value);
        }
        place as u64
    }
    let mut made = AggregatedRecord::default();
    for (key, hash_key, data) in events {
        made.records.push(UserRecord {
            partition_key_index: Some(place(&mut made.partition_key_table, key.clone())),
            explicit_hash_key_index: hash_key
                .map(|hash_key| place(&mut made.explicit_hash_key_table, hash_key.to_string())),
            data: Some(data.clone().into()),
            tags: Vec::new(),
        });
    }
    made
}

pub(super) fn sealed(aggregate: &AggregatedRecord) -> Vec<u8> {
    let message = aggregate.encode_to_vec();
    [MAGIC.as_slice(), &message, Md5::digest(&message).as_slice()].concat()
}

pub(super) fn event(key: &str, hash_key: Option<u128>, data: &str) -> Event {
    (key.to_owned(), hash_key, data.as_bytes().to_vec())
}

fn why(aggregate: &AggregatedRecord) -> Whole {
    let record = kinesis_record(sealed(aggregate));
    assert_eq!(deaggregate(record.clone()), std::slice::from_ref(&record), "it passes as one event");
    assert!(is_kept_whole(&record));
    user_records(&record).unwrap_err()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn what_other_encoders_aggregate_comes_apart_again() {
    let vectors: Value = serde_json::from_str(include_str!("../../testdata/kpl/vectors.json")).unwrap();
    let mut encoders = std::collections::BTreeSet::new();
    for vector in vectors.as_array().unwrap() {
        let name = &vector["name"];
        let record = kinesis_record(from_hex(vector["aggregated"]["data"].as_str().unwrap()));
        let found = deaggregate(record.clone());
        let wanted = vector["records"].as_array().unwrap();
        assert_eq!(found.len(), wanted.len(), "{name}");
        for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            let key = wanted["partition_key"].as_str().unwrap();
            let explicit = wanted["explicit_hash_key"].as_str().map(|text| text.parse().unwrap());
            let data = from_hex(wanted["data"].as_str().unwrap());
            let wanted = record.with_key(key).with_data(data).at_sub(index as u64);
            let wanted =
                wanted.with_hash_key(HashKey::sent_once(explicit.unwrap_or_else(|| hash_key_of(key))));
            assert_eq!(*found, wanted, "{name}, user record {index}");
        }
        encoders.extend(vector["encoders"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()));
    }
    assert_eq!(encoders.into_iter().collect::<Vec<_>>(), ["npm", "pypi"]);
}

#[test]
fn the_hash_key_of_a_partition_key_is_its_md5_sum() {
    // RFC 1321, A.5: the sums of "" and "a".
    assert_eq!(hash_key_of(""), 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e);
    assert_eq!(hash_key_of("a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
}

#[test]
fn payloads_are_not_copied() {
    let record = kinesis_record(sealed(&aggregate(&[event("a", None, "one"), event("a", None, "two")])));
    let whole = record.data().as_ptr_range();
    for user in deaggregate(record) {
        assert!(whole.contains(&user.data().as_ptr()));
    }
}

#[test]
fn a_page_keeps_its_order_and_plain_records() {
    let plain = kinesis_record("plain");
    let aggregated = kinesis_record(sealed(&aggregate(&[event("a", None, "0"), event("b", None, "1")])));
    let events = deaggregate_all(vec![plain.clone(), aggregated, plain]);
    let seen: Vec<_> = events.iter().map(|event| (event.sub_sequence_number().0, event.data())).collect();
    assert_eq!(seen, [(0, &b"plain"[..]), (0, b"0"), (1, b"1"), (0, b"plain")]);
}

#[test]
fn what_is_too_short_to_be_an_aggregate_is_plain() {
    let empty = sealed(&AggregatedRecord::default());
    assert_eq!(empty.len(), MAGIC.len() + SUM_BYTES);
    for data in [&b""[..], &MAGIC[..3], &MAGIC, &empty] {
        assert_eq!(user_records(&kinesis_record(data.to_vec())), Err(Whole::Plain));
    }
}

#[test]
fn keys_without_user_records_are_one_event() {
    let keys = AggregatedRecord { partition_key_table: vec!["a".into()], ..AggregatedRecord::default() };
    assert_eq!(why(&keys), Whole::Empty);
    assert!(is_empty_aggregate(&kinesis_record(sealed(&keys))));
    let mut damaged = sealed(&keys);
    damaged[5] ^= 1;
    for other in [damaged, sealed(&aggregate(&[event("a", None, "0")])), b"plain".to_vec()] {
        assert!(!is_empty_aggregate(&kinesis_record(other)));
    }
}

#[test]
fn only_what_the_native_library_aggregates_is_sent_again() {
    let sent_again = |record_key: &str, events: &[Event]| {
        let partition_key = record_key.to_owned();
        let record = kinesis_record(sealed(&aggregate(events))).with_key(partition_key);
        let found: Vec<bool> = deaggregate(record)
            .iter()
            .map(|event| event.hash_key().is_some_and(|key| key.sent_again))
            .collect();
        assert_eq!(found.len(), events.len());
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "all of an aggregate, or none");
        found[0]
    };
    let of = |key: &str| event(key, None, "data");
    let explicit = |key: &str| event(key, Some(7), "data");
    // The native library: under `a`, whatever is in it.
    assert!(sent_again("a", &[of("x"), of("y")]));
    assert!(sent_again("a", &[explicit("x"), explicit("y")]), "an explicit hash key changes nothing");
    assert!(sent_again("a", &[of("x"), of("a")]), "a key `a` behind the first tells nothing");
    // Other libraries and log agents: under the first user record's key, or under one of their own.
    assert!(!sent_again("x", &[of("x"), of("y")]));
    assert!(!sent_again("x", &[explicit("x"), explicit("y")]));
    assert!(!sent_again("a", &[of("a"), of("y")]), "their first key may be `a`");
    assert!(!sent_again("agent-7", &[of("x"), of("y")]));
    assert!(!sent_again("", &[of("x"), of("y")]), "a stream that distributes by itself tells no key");
    // An aggregate of one.
    assert!(!sent_again("x", &[of("x")]));
    assert!(!sent_again("a", &[of("a")]));
    assert!(sent_again("a", &[of("x")]));
}

#[test]
fn a_message_that_does_not_decode_is_one_event() {
    let seal = |message: &[u8]| [MAGIC.as_slice(), message, Md5::digest(message).as_slice()].concat();
    for message in [&b"no protobuf"[..], &[0x0a, 0xff], &[0x1a, 0x02, 0x08]] {
        let record = kinesis_record(seal(message));
        assert!(matches!(user_records(&record), Err(Whole::Message(_))), "{message:?}");
        assert_eq!(deaggregate(record.clone()), [record]);
    }
}

#[test]
fn fields_that_the_format_requires_are_not_assumed() {
    let good = aggregate(&[event("a", None, "0")]);
    let without = |change: fn(&mut UserRecord)| {
        let mut aggregate = good.clone();
        change(&mut aggregate.records[0]);
        why(&aggregate)
    };
    assert!(matches!(without(|user| user.data = None), Whole::Message(_)));
    assert!(matches!(without(|user| user.partition_key_index = None), Whole::Message(_)));
    assert!(matches!(without(|user| user.tags.push(Tag::default())), Whole::Message(_)));
}

#[test]
fn nothing_is_lost_where_one_user_record_makes_no_sense() {
    let good = aggregate(&[event("a", Some(1), "0"), event("b", Some(2), "1"), event("c", None, "2")]);
    let with = |change: fn(&mut AggregatedRecord)| {
        let mut aggregate = good.clone();
        change(&mut aggregate);
        why(&aggregate)
    };
    assert_eq!(with(|all| all.records[2].partition_key_index = Some(3)), Whole::Key { index: 2 });
    assert_eq!(with(|all| all.records[1].partition_key_index = Some(u64::MAX)), Whole::Key { index: 1 });
    assert_eq!(with(|all| all.records[0].explicit_hash_key_index = Some(2)), Whole::Key { index: 0 });
    for text in ["", "-1", "abc", "340282366920938463463374607431768211456"] {
        let mut aggregate = good.clone();
        aggregate.explicit_hash_key_table[1] = text.to_owned();
        assert_eq!(why(&aggregate), Whole::HashKey(text.to_owned()));
    }
    assert_eq!(with(|all| all.partition_key_table[0] = "ß".repeat(257)), Whole::LongKey);
    let mut longest = good.clone();
    longest.partition_key_table[0] = "ß".repeat(256);
    assert_eq!(deaggregate(kinesis_record(sealed(&longest))).len(), 3);
}

#[test]
fn what_a_user_record_holds_is_not_taken_apart_again() {
    let inner = sealed(&aggregate(&[event("a", None, "0"), event("b", None, "1")]));
    let outer = kinesis_record(sealed(&aggregate(&[("k".to_owned(), None, inner.clone())])));
    let once = deaggregate_all(vec![outer]);
    assert_eq!(once.len(), 1);
    assert_eq!(once[0].data(), inner);
    assert_eq!(deaggregate_all(once.clone()), once);
    assert!(!is_kept_whole(&once[0]));
}

fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let event =
        ("[ab鍵]{1,2}", proptest::option::of(any::<u128>()), proptest::collection::vec(any::<u8>(), 0..20));
    proptest::collection::vec(event, 1..20)
}

/// Partition key, hash key and payload of each user record, as prost's messages make them; `None` where the record is one event.
fn by_prost(record: &Record) -> Option<Vec<Event>> {
    let data = record.data_bytes();
    let aggregate = AggregatedRecord::decode(data.slice(MAGIC.len()..data.len() - SUM_BYTES)).ok()?;
    if aggregate.partition_key_table.iter().any(|key| key.chars().count() > MAX_KEY_CHARS) {
        return None;
    }
    let at = |index: u64| usize::try_from(index).unwrap_or(usize::MAX);
    let user = |user: &UserRecord| {
        if user.tags.iter().any(|tag| tag.key.is_none()) {
            return None;
        }
        let key = aggregate.partition_key_table.get(at(user.partition_key_index?))?;
        let hash_key = match user.explicit_hash_key_index {
            Some(index) => aggregate.explicit_hash_key_table.get(at(index))?.parse().ok()?,
            None => hash_key_of(key),
        };
        Some((key.clone(), Some(hash_key), user.data.as_ref()?.to_vec()))
    };
    let users: Vec<Event> = aggregate.records.iter().map(user).collect::<Option<_>>()?;
    (!users.is_empty()).then_some(users)
}

proptest! {
    /// Deaggregate after aggregate is the identity.
    #[test]
    fn what_was_aggregated_comes_apart(events in any_events()) {
        let apart: Vec<Event> = deaggregate(kinesis_record(sealed(&aggregate(&events))))
            .into_iter()
            .enumerate()
            .map(|(index, record)| {
                assert_eq!(record.sub_sequence_number().0, index as u64);
                let (hash_key, hashed) =
                    (record.hash_key().map(|at| at.key), hash_key_of(record.partition_key()));
                (record.partition_key().to_owned(), hash_key.filter(|key| *key != hashed), record.data().to_vec())
            })
            .collect();
        prop_assert_eq!(apart, events);
    }

    /// A damaged aggregate is one event, never other events than were aggregated.
    #[test]
    fn a_flipped_bit_leaves_the_record_whole(events in any_events(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut data = sealed(&aggregate(&events));
        let at = at.index(data.len());
        data[at] ^= 1 << bit;
        let record = kinesis_record(data);
        prop_assert_eq!(deaggregate(record.clone()), [record]);
    }

    /// The reading in place gives what prost's messages give, whatever became of some bytes of the message.
    #[test]
    fn a_message_is_read_as_prost_reads_it(
        events in any_events(),
        tags in any::<bool>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut made = aggregate(&events);
        if tags {
            made.records[0].tags.push(Tag { key: Some("k".into()), value: Some("v".into()) });
        }
        let mut message = made.encode_to_vec();
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        let sum = Md5::digest(&message);
        let record = kinesis_record([MAGIC.as_slice(), &message, &sum].concat());
        let apart = user_records(&record).ok().map(|users| {
            let event = |user: &Record| {
                (user.partition_key().to_owned(), user.hash_key().map(|at| at.key), user.data().to_vec())
            };
            users.iter().map(event).collect::<Vec<Event>>()
        });
        if let (Some(users), Ok(shape)) = (&apart, shape(&record)) {
            prop_assert_eq!(shape.users, users.len());
        }
        prop_assert_eq!(apart, by_prost(&record));
    }

    /// Whatever the bytes are: no panic, and nothing disappears.
    #[test]
    fn any_bytes_behind_the_magic_give_an_answer(message in proptest::collection::vec(any::<u8>(), 1..60)) {
        let data = [MAGIC.as_slice(), &message, Md5::digest(&message).as_slice()].concat();
        let record = kinesis_record(data);
        let events = deaggregate(record.clone());
        match user_records(&record) {
            Ok(users) => prop_assert!(!users.is_empty() && events == users),
            Err(_) => prop_assert_eq!(events, [record]),
        }
    }
}
