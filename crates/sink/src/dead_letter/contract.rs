//! The contract suite: what every dead-letter table must pass. Each case uses a shard of its own, and so runs on a table
//! that others have used; [`run_all`] runs them one after another. A case that fails panics, as a test does.

use bytes::Bytes;
use sluicegate_checkpoint::{ArrivalMillis, Codec, SequenceNumber, ShardId, SubSequenceNumber};

use super::{DeadLetters, Letter, LetterCause, LetterHeader, LetterId, LetterPacking};

/// Runs every case.
///
/// # Panics
/// When the table breaks the contract.
pub async fn run_all(table: &dyn DeadLetters) {
    a_letter_comes_back_as_it_was_put(table).await;
    the_first_letter_of_an_event_stays(table).await;
    two_workers_put_one_letter(table).await;
    a_payload_larger_than_an_item_comes_back_whole(table).await;
    letters_are_listed_page_by_page_without_their_payloads(table).await;
    a_letter_is_marked_once_and_stays(table).await;
    the_cause_and_the_expiry_of_a_letter_are_kept(table).await;
    a_letter_that_is_deleted_is_gone_and_may_be_put_again(table).await;
}

/// Everything of a letter is kept, also an empty payload and one that is no text.
///
/// # Panics
/// When the table breaks the contract.
pub async fn a_letter_comes_back_as_it_was_put(table: &dyn DeadLetters) {
    let bytes: Vec<u8> = (0..=u8::MAX).collect();
    for (index, data) in [Bytes::from(bytes), Bytes::new()].into_iter().enumerate() {
        let mut put = letter("whole", index as u64, data);
        put.header.packing.ttl_days = (index == 0).then_some(7);
        put.header.packing.codec = if index == 0 { Codec::Zstd(3) } else { Codec::None };
        assert!(new(table, &put).await);
        assert_eq!(found(table, &put.header.id).await, Some(put));
    }
    assert_eq!(found(table, &letter("whole", 9, Bytes::new()).header.id).await, None);
}

/// Whoever comes later, with whatever to say of the event, changes nothing.
///
/// # Panics
/// When the table breaks the contract.
pub async fn the_first_letter_of_an_event_stays(table: &dyn DeadLetters) {
    let first = letter("first", 1, Bytes::from_static(b"x"));
    let mut later = first.clone();
    later.header.why = "something else".to_owned();
    later.header.worker = "another".to_owned();
    assert!(new(table, &first).await);
    for put in [&first, &later] {
        assert!(!new(table, put).await, "there is one already");
    }
    assert_eq!(found(table, &first.header.id).await, Some(first));
}

/// Two workers that put a letter at the same time make one, whole.
///
/// # Panics
/// When the table breaks the contract.
pub async fn two_workers_put_one_letter(table: &dyn DeadLetters) {
    let one = letter("race", 1, scrambled(900_000));
    let mut other = one.clone();
    other.header.worker = "another".to_owned();
    let (a, b) = futures::join!(new(table, &one), new(table, &other));
    assert!(a != b, "one of them was first");
    let kept = found(table, &one.header.id).await;
    assert!(kept == Some(one) || kept == Some(other));
}

/// The largest record that Kinesis takes (10 MiB) comes back byte for byte.
///
/// # Panics
/// When the table breaks the contract.
pub async fn a_payload_larger_than_an_item_comes_back_whole(table: &dyn DeadLetters) {
    let put = letter("large", 1, scrambled(10 << 20));
    assert!(new(table, &put).await);
    assert!(!new(table, &put).await);
    let back = found(table, &put.header.id).await;
    assert!(back == Some(put), "the payload is another");
}

/// Each letter is listed once, whatever its number of items.
///
/// # Panics
/// When the table breaks the contract.
pub async fn letters_are_listed_page_by_page_without_their_payloads(table: &dyn DeadLetters) {
    let mut put = Vec::new();
    for n in 0..120 {
        let data = if n % 50 == 0 { scrambled(500_000) } else { Bytes::from(format!("{n}")) };
        let letter = letter("list", n, data);
        assert!(new(table, &letter).await);
        put.push(letter.header);
    }
    let (mut listed, mut behind) = (Vec::new(), None);
    loop {
        let page = table.list(behind.as_ref()).await;
        assert!(page.is_ok(), "{page:?}");
        let page = page.unwrap_or_default();
        listed.extend(page.letters);
        let Some(next) = page.next else { break };
        behind = Some(next);
    }
    listed.retain(|header| header.id.shard == put[0].id.shard);
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    assert!(listed == put, "{} letters are listed, {} were put", listed.len(), put.len());
}

/// A mark is set once, and no later put takes it or anything else away.
///
/// # Panics
/// When the table breaks the contract.
pub async fn a_letter_is_marked_once_and_stays(table: &dyn DeadLetters) {
    let put = letter("mark", 1, Bytes::from_static(b"x"));
    assert!(!marked(table, &put.header.id, 5).await, "it is not there");
    assert_eq!(found(table, &put.header.id).await, None);
    new(table, &put).await;
    assert!(marked(table, &put.header.id, 5).await);
    assert!(!marked(table, &put.header.id, 6).await, "it was marked before");
    assert!(!new(table, &put).await);
    let mut expected = put.clone();
    expected.header.redriven_at = Some(ArrivalMillis(5));
    assert_eq!(found(table, &put.header.id).await, Some(expected));
}

/// Letters of unreadable events say so, in the list too.
///
/// # Panics
/// When the table breaks the contract.
pub async fn the_cause_and_the_expiry_of_a_letter_are_kept(table: &dyn DeadLetters) {
    let mut put = letter("cause", 1, scrambled(500_000));
    put.header.cause = LetterCause::Unreadable;
    put.header.expires = Some(4_000_000_000);
    assert!(new(table, &put).await);
    assert_eq!(found(table, &put.header.id).await, Some(put));
}

/// Nothing of it is left, however many items it took.
///
/// # Panics
/// When the table breaks the contract.
pub async fn a_letter_that_is_deleted_is_gone_and_may_be_put_again(table: &dyn DeadLetters) {
    let (gone, stays) = (letter("delete", 1, scrambled(900_000)), letter("delete", 2, Bytes::new()));
    for letter in [&gone, &stays] {
        assert!(new(table, letter).await);
    }
    for is_there in [true, false] {
        let deleted = table.delete(&gone.header.id).await;
        assert!(deleted.as_ref().is_ok_and(|deleted| *deleted == is_there), "{deleted:?}");
        assert_eq!(found(table, &gone.header.id).await, None);
    }
    assert_eq!(found(table, &stays.header.id).await, Some(stays));
    assert!(new(table, &gone).await);
    assert_eq!(found(table, &gone.header.id).await, Some(gone));
}

async fn new(table: &dyn DeadLetters, letter: &Letter) -> bool {
    let put = table.put(letter).await;
    assert!(put.is_ok(), "the letter was not put: {put:?}");
    put.unwrap_or_default()
}

async fn found(table: &dyn DeadLetters, id: &LetterId) -> Option<Letter> {
    let found = table.letter(id).await;
    assert!(found.is_ok(), "the letter cannot be read: {:?}", found.err());
    found.unwrap_or_default()
}

async fn marked(table: &dyn DeadLetters, id: &LetterId, at: i64) -> bool {
    let marked = table.mark_redriven(id, ArrivalMillis(at)).await;
    assert!(marked.is_ok(), "the letter cannot be marked: {marked:?}");
    marked.unwrap_or_default()
}

fn letter(case: &str, n: u64, data: Bytes) -> Letter {
    /// The size of Kinesis sequence numbers.
    const FIRST: u128 = 49_590_338_271_490_256_608_559_692_538_361_571_095;
    let number = |n: u64| {
        let number = SequenceNumber::parse((FIRST + u128::from(n)).to_string());
        assert!(number.is_ok());
        number.into_iter().next()
    };
    let (Some(sequence_number), Some(batch_first), Some(batch_last)) = (number(n / 2), number(0), number(n))
    else {
        unreachable!("digits are a number")
    };
    Letter {
        header: LetterHeader {
            id: LetterId {
                shard: ShardId::new(format!("shardId-letters-{case}")),
                sequence_number,
                sub_sequence_number: SubSequenceNumber(n % 2),
            },
            epoch: 3,
            batch_first,
            batch_last,
            arrival: ArrivalMillis(1_700_000_000_000),
            partition_key: "a key~".to_owned(),
            aggregate_key: "another".to_owned(),
            cause: LetterCause::Rejected,
            why: "ValidationException: so it is".to_owned(),
            worker: "me".to_owned(),
            put_at: ArrivalMillis(1_700_000_000_123),
            packing: LetterPacking {
                version: 1,
                codec: Codec::Zstd(3),
                max_item_bytes: 65_536,
                ttl_days: None,
            },
            data_bytes: data.len() as u64,
            data_sum: crc32fast::hash(&data),
            redriven_at: None,
            expires: None,
        },
        data,
    }
}

/// Bytes of no pattern, the same each time (a linear congruential generator with Knuth's MMIX constants).
fn scrambled(length: usize) -> Bytes {
    let mut state = 11u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
