use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::progress::Always;
use sluicegate_checkpoint::{Exclusion, HashKey, HashKeyRange, PackingParameters};

use super::*;
use sluicegate_checkpoint::Unreadable;

use crate::item::{Item, ItemKey};
use crate::memory::MemoryTable;
use crate::offload::Inline;
use crate::packing::pack;
use crate::packing_sink::{PackingSink, PackingSinkOptions};
use crate::reader::{Reader, TimeRange};
use crate::sink::{DeliverError, Sink};
use crate::store::StoreError;
use crate::testing::{batch, event, items_of, with_parameters};

fn excluding(mut batch: Batch, indices: &[usize]) -> Batch {
    for index in indices {
        let record = &batch.records[*index];
        let id = (record.sequence_number().clone(), record.sub_sequence_number());
        batch.cut.exclusions.push(Exclusion { from: id.clone(), to: id });
    }
    batch.cut.revision += 1;
    batch
}

fn letters(batch: &Batch, offenders: &[Offender]) -> Vec<Letter> {
    let postmark = Postmark { worker: "me".to_owned(), now: ArrivalMillis(42), ttl_days: None };
    letters_of(batch, offenders, &batch.unreadable(), &postmark).collect()
}

#[test]
fn there_is_a_letter_for_each_excluded_event_and_for_no_other() {
    let mut full = batch((1..=5).map(|n| event(n, "k", format!("payload {n}"))).collect());
    full.records[2] = full.records[2].with_hash_key(HashKey::sent_once(9));
    let full = with_parameters(full, |parameters| {
        parameters.hash_range = Some(HashKeyRange { start: 0, end: 5 });
        parameters.ttl_days = Some(3);
    });
    let amended = excluding(full, &[1, 2, 4]);
    let second = amended.cut.exclusions[0].clone();
    let found = letters(&amended, &[Offender { events: second, why: "no".repeat(2_000) }]);
    let names: Vec<String> = found.iter().map(|letter| letter.header.id.to_string()).collect();
    assert_eq!(names, ["shardId-000000000000:2", "shardId-000000000000:5"], "what is foreign is no letter");
    assert_eq!(found[0].header.why.len(), MAX_WHY_CHARS);
    assert_eq!(found[1].header.why, WHY_NOT_SEEN);
    assert_eq!(found[1].data, "payload 5");
    let header = &found[1].header;
    assert_eq!((header.batch_first.as_str(), header.batch_last.as_str()), ("1", "5"));
    assert_eq!(
        (header.worker.as_str(), header.put_at, header.packing.ttl_days),
        ("me", ArrivalMillis(42), Some(3))
    );
    let dropped =
        Batch { cut: sluicegate_checkpoint::Cut { dropped: true, ..amended.cut.clone() }, ..amended };
    assert_eq!(letters(&dropped, &[]), []);
}

#[test]
fn a_letters_name_reads_back() {
    for text in ["shardId-000000000003:4711", "shardId-000000000003:4711.17"] {
        assert_eq!(text.parse::<LetterId>().unwrap().to_string(), text);
    }
    for text in ["", "4711", ":4711", "shard:", "shard:x", "shard:1.x", "shard:1.2.3"] {
        assert!(text.parse::<LetterId>().is_err(), "{text}");
    }
}

#[test]
fn letters_stand_in_the_order_of_the_shard() {
    let id = |number: &str, sub: u64| LetterId {
        shard: ShardId::new("s"),
        sequence_number: SequenceNumber::parse(number).unwrap(),
        sub_sequence_number: SubSequenceNumber(sub),
    };
    let ascending = [id("9", 0), id("9", 1), id("9", 200), id("10", 0), id("100", 3)];
    let keys: Vec<String> = ascending.iter().flat_map(|id| [id.sort_key(1), id.sort_key(300)]).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    for id in ascending {
        assert_eq!(LetterId::of_key(&id.head_key()), Some(id));
    }
}

#[test]
fn a_damaged_letter_is_an_error_and_never_a_guess() {
    let letter = letters(&excluding(batch(vec![event(1, "k", vec![7; 900_000])]), &[0]), &[]).remove(0);
    let items = letter.to_items();
    assert_eq!(items.len(), 3);
    assert_eq!(Letter::from_items(&items), Ok(letter));
    assert!(Letter::from_items(&items[..2]).is_err(), "a part is missing");
    assert!(Letter::from_items(&items[1..]).is_err(), "the first part is missing");
    let mut damaged = items.clone();
    damaged[1].set(names::DATA, crate::item::Value::Bytes(vec![8; PART].into()));
    assert!(Letter::from_items(&damaged).is_err());
    let mut newer = items;
    newer[0].set(names::VERSION, crate::item::Value::Number(3));
    assert!(Letter::from_items(&newer).unwrap_err().why.contains("newer build"));
}

const PART: usize = format::PART_BYTES;

#[test]
fn every_item_of_the_largest_letter_fits() {
    let mut large = event(1, &"~\u{1F600}".repeat(128), vec![7; 10 << 20]);
    large = large.at_sub(u64::MAX);
    let events = Exclusion {
        from: (large.sequence_number().clone(), SubSequenceNumber(0)),
        to: (large.sequence_number().clone(), SubSequenceNumber(u64::MAX)),
    };
    let offender = Offender { events, why: "\u{1F600}".repeat(5_000) };
    let letter = letters(&excluding(batch(vec![large]), &[0]), &[offender]).remove(0);
    for item in letter.to_items() {
        assert!(item.bytes() <= 409_600, "{} bytes", item.bytes());
    }
}

type Failure = fn(crate::store::Cause) -> StoreError;

/// A table that fails by script, then works.
struct Scripted {
    answers: Mutex<VecDeque<Failure>>,
    inner: MemoryDeadLetters,
}

#[async_trait]
impl DeadLetters for Scripted {
    async fn put(&self, letter: &Letter) -> Result<bool, StoreError> {
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(kind) => Err(kind("as scripted".into())),
            None => self.inner.put(letter).await,
        }
    }

    async fn list(&self, behind: Option<&ItemKey>) -> Result<LetterPage, StoreError> {
        self.inner.list(behind).await
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<Letter>, StoreError> {
        self.inner.letter(id).await
    }

    async fn mark_redriven(&self, id: &LetterId, at: ArrivalMillis) -> Result<bool, StoreError> {
        self.inner.mark_redriven(id, at).await
    }

    async fn delete(&self, id: &LetterId) -> Result<bool, StoreError> {
        self.inner.delete(id).await
    }
}

#[test]
fn an_unreadable_event_becomes_one_letter_the_same_whoever_packs_it_and_is_in_no_item() {
    let events = [r#"{"a":1,"secret":2}"#, r#""secret""#, r#"["secret"]"#, "secret", "{}"];
    let full = batch((1..).zip(events).map(|(n, data)| event(n, "k", data)).collect());
    let set = |unreadable, filter: Option<&str>| {
        with_parameters(full.clone(), |parameters| {
            parameters.fields = Some("/a".parse().unwrap());
            parameters.filter = filter.map(|filter| filter.parse().unwrap());
            parameters.unreadable = unreadable;
            *parameters = parameters.clone().with_needed_decoding_version();
        })
    };
    let batch = set(Unreadable::DeadLetter, None);
    let packed = pack(&batch).unwrap();
    assert_eq!((&packed.dead_letters, &batch.unreadable()), (&vec![1, 2, 3], &vec![1, 2, 3]));
    assert_eq!((packed.events, packed.unreadable, packed.filtered), (2, 0, 0));
    assert_eq!((batch.stored().count(), batch.excluded().count()), (2, 0));
    let found = letters(&batch, &[]);
    let whys: Vec<(LetterCause, &str)> =
        found.iter().map(|letter| (letter.header.cause, letter.header.why.as_str())).collect();
    let no_fields = "the event is not an object, so that it has no fields to choose from";
    assert_eq!(
        whys,
        [
            (LetterCause::Unreadable, no_fields),
            (LetterCause::Unreadable, no_fields),
            (LetterCause::Unreadable, "the event is not JSON: expected value at byte 0"),
        ]
    );
    // Excluded as well, for another reason: there is one letter all the same.
    let excluded = excluding(batch, &[0, 1]);
    let ids = |letters: &[Letter]| -> Vec<String> {
        letters.iter().map(|letter| letter.header.id.to_string()).collect()
    };
    assert_eq!(ids(&letters(&excluded, &[])).len(), 4);
    // What the filter leaves out is left out, and what is kept when asked for is stored whole.
    let filtered = pack(&set(Unreadable::DeadLetter, Some("exists /a"))).unwrap();
    assert_eq!((filtered.dead_letters, filtered.filtered, filtered.events), (vec![3], 3, 1));
    let kept = pack(&set(Unreadable::Keep, None)).unwrap();
    assert_eq!((kept.events, kept.unreadable, kept.dead_letters), (5, 3, vec![]));
}

#[tokio::test(start_paused = true)]
async fn letters_are_put_until_they_are_durable_and_counted_once() {
    let answers = [StoreError::throttled as Failure, StoreError::Unavailable, StoreError::throttled];
    let table = Scripted { answers: Mutex::new(answers.into()), inner: MemoryDeadLetters::default() };
    let amended = excluding(batch((1..=20).map(|n| event(n, "k", "x")).collect()), &[0, 7, 19]);
    let mut rng = SmallRng::seed_from_u64(1);
    let found = letters(&amended, &[]);
    let posted = post(&table, found.iter().cloned(), &Always, &mut rng).await.unwrap();
    assert_eq!(posted, post::Posted { letters: 3, new: 3 });
    let again = post(&table, found.iter().cloned(), &Always, &mut rng).await.unwrap();
    assert_eq!(again, post::Posted { letters: 3, new: 0 });
    assert_eq!(table.inner.all().unwrap(), found);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_refuses_ends_the_delivery_and_so_does_the_right() {
    struct Never;
    impl sluicegate_checkpoint::Right for Never {
        fn holds(&self) -> bool {
            false
        }
    }
    let found = letters(&excluding(batch(vec![event(1, "k", "x")]), &[0]), &[]);
    let mut rng = SmallRng::seed_from_u64(1);
    let refused = post(&NoDeadLetters, found.iter().cloned(), &Always, &mut rng).await;
    assert!(matches!(refused, Err(DeliverError::Refused { .. })), "{refused:?}");
    let table = MemoryDeadLetters::default();
    let ended = post(&table, found.iter().cloned(), &Never, &mut rng).await;
    assert!(matches!(ended, Err(DeliverError::RightEnded)), "{ended:?}");
    assert_eq!(table.all().unwrap(), []);
}

fn sink(table: &Arc<MemoryTable>) -> PackingSink {
    PackingSink::new(table.clone(), PackingSinkOptions::default(), Arc::new(Inline), 7)
}

async fn read(table: &Arc<MemoryTable>, key: &str) -> Vec<Bytes> {
    let mut stream = Reader::new(table.clone(), 7).events(key, TimeRange::default()).await.unwrap();
    let mut found = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        found.push(event.data);
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_redriven_event_is_read_in_its_place_and_once_however_often_it_is_redriven() {
    let table = Arc::new(MemoryTable::default());
    let mut full = batch((1..=4).map(|n| event(n, "k", format!("payload {n}"))).collect());
    // Two events of one Kinesis record, the first of the cut: told apart by their index alone.
    full.records[1] =
        full.records[1].of(full.records[0].sequence_number().clone(), full.records[1].arrival());
    full.records[1] = full.records[1].at_sub(1);
    full.records[1] =
        full.records[1].of(full.records[1].sequence_number().clone(), full.records[0].arrival());
    let full = with_parameters(full, |parameters| parameters.spread = 4);
    let amended = excluding(full.clone(), &[0, 1, 3]);
    let sink = sink(&table);
    sink.deliver(Arc::new(amended.clone()), Arc::new(Always)).await.unwrap();
    assert_eq!(read(&table, "k").await, ["payload 3"]);
    for _ in 0..2 {
        for letter in letters(&amended, &[]) {
            sink.redrive(&letter, &Always).await.unwrap();
        }
        assert_eq!(read(&table, "k").await, ["payload 1", "payload 2", "payload 3", "payload 4"]);
    }
    // A late delivery of the revision that held them all, and the last one again: nothing changes.
    for late in [full, amended] {
        sink.deliver(Arc::new(late), Arc::new(Always)).await.unwrap();
        assert_eq!(read(&table, "k").await.len(), 4);
    }
    let headers = Reader::new(table, 7).all_headers().await.unwrap();
    assert_eq!(crate::overlaps(&headers), []);
}

#[tokio::test(start_paused = true)]
async fn what_the_table_still_rejects_stays_a_letter() {
    let table = Arc::new(MemoryTable::rejecting(|_| Some("never".to_owned())));
    let letter = letters(&excluding(batch(vec![event(1, "k", "x")]), &[0]), &[]).remove(0);
    let error = sink(&table).redrive(&letter, &Always).await.unwrap_err();
    assert!(error.to_string().contains("still rejects it: never"), "{error}");
}

proptest! {
    /// The items of a redriven event are no batch's, whatever the batch; they fit, and the sort keys read back.
    #[test]
    fn redriven_items_have_a_class_of_their_own(
        n in 1u32..1_000, sub in any::<u64>(), bytes in 0usize..20_000, key in "[a-z~]{1,9}", epoch in any::<u32>(),
    ) {
        let mut record = event(n, &key, (0..=u8::MAX).cycle().take(bytes).collect::<Vec<u8>>());
        record = record.at_sub(sub);
        let mut full = with_parameters(batch(vec![record]), |parameters| {
            parameters.codec = Codec::None;
            parameters.max_item_bytes = PackingParameters::MIN_ITEM_BYTES + 200;
        });
        full.id.epoch = epoch;
        let letter = letters(&excluding(full.clone(), &[0]), &[]).remove(0);
        let items = redriven_items(&letter).unwrap();
        prop_assert_eq!(&items, &redriven_items(&letter).unwrap());
        let of_batch: Vec<ItemKey> = items_of(&full).iter().map(|item| item.header.key()).collect();
        for item in &items {
            prop_assert!(item.bytes() <= (PackingParameters::MIN_ITEM_BYTES + 200) as usize);
            prop_assert!(!of_batch.contains(&item.header.key()));
            prop_assert_eq!(&Item::from_attributes(&item.to_attributes()).unwrap(), item);
        }
    }
}
