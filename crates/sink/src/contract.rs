//! The contract suite: what every sink that stores batches must pass, whatever it stores them in.
//!
//! A [`Subject`] is a sink and a way to read back what it stored. Each case is a function of its own, uses
//! aggregate keys and shards of its own, and so runs on a subject that others have used; [`run_all`] runs
//! them one after another. A case that fails panics, as a test does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sluicegate_checkpoint::progress::Always;
use sluicegate_checkpoint::{
    ArrivalMillis, Batch, Exclusion, HashKey, HashKeyRange, PackingParameters, Record, Right, SequenceNumber,
    ShardId,
};

use crate::reader::Event;
use crate::sink::{DeliverError, Delivered, Sink};

/// A sink under test, and a way to read back.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Another sink over the same storage that makes these packing versions if it packs at all: another
    /// worker.
    fn sink(&self, packing_versions: &[u32]) -> Arc<dyn Sink>;

    /// The stored events of an aggregate key, in the reader's order.
    async fn events(&self, aggregate_key: &str) -> Vec<Event>;
}

/// Runs every case.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn run_all(subject: &dyn Subject) {
    what_was_delivered_is_stored_in_order(subject).await;
    redelivery_changes_nothing(subject).await;
    concurrent_deliveries_store_once(subject).await;
    an_exclusion_under_a_new_revision_takes_the_event_out(subject).await;
    a_late_delivery_of_an_old_revision_changes_nothing(subject).await;
    a_group_that_exclusions_leave_empty_yields_nothing(subject).await;
    user_records_of_another_shard_are_left_out(subject).await;
    another_packing_version_takes_over(subject).await;
    a_packing_version_that_is_not_made_is_refused(subject).await;
    nothing_is_written_without_the_right(subject).await;
    a_right_that_ends_midway_stops_the_delivery_or_comes_too_late(subject).await;
    a_dropped_cut_stores_nothing(subject).await;
    payloads_come_back_as_published(subject).await;
    large_and_small_events_are_stored(subject).await;
    several_keys_in_one_batch_are_kept_apart(subject).await;
    what_was_delivered_is_counted(subject).await;
}

/// Events come back in the order of the shard, with their places, arrivals and payloads, also those of one
/// aggregated record.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn what_was_delivered_is_stored_in_order(subject: &dyn Subject) {
    let mut case = Case::new("order");
    case.add("first").add("second").add("third");
    case.records[2] =
        case.records[2].of(case.records[1].sequence_number().clone(), case.records[2].arrival());
    case.records[2] = case.records[2].at_sub(1);
    case.records[2] =
        case.records[2].of(case.records[2].sequence_number().clone(), case.records[1].arrival());
    let batch = case.batch();
    deliver(subject, &batch).await;
    case.expect(subject, &batch.records).await;
}

/// The same batch again, by the same and by another worker, stores nothing twice.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn redelivery_changes_nothing(subject: &dyn Subject) {
    let mut case = Case::new("redelivery");
    let batch = case.add("a").add("b").batch();
    let sink = subject.sink(&[1]);
    for _ in 0..2 {
        assert_delivered(sink.deliver(Arc::clone(&batch), always()).await);
    }
    deliver(subject, &batch).await;
    case.expect(subject, &batch.records).await;
}

/// Two workers that deliver a batch at the same time store it once.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn concurrent_deliveries_store_once(subject: &dyn Subject) {
    let mut case = Case::new("concurrent");
    let batch = case.add("a").add("b").batch();
    let (one, other) = (subject.sink(&[1]), subject.sink(&[1]));
    let (a, b) = futures::join!(
        one.deliver(Arc::clone(&batch), always()),
        other.deliver(Arc::clone(&batch), always())
    );
    assert_delivered(a);
    assert_delivered(b);
    case.expect(subject, &batch.records).await;
}

/// A new revision replaces the old one, without the event that it excludes.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn an_exclusion_under_a_new_revision_takes_the_event_out(subject: &dyn Subject) {
    let mut case = Case::new("exclusion");
    let batch = case.add("kept").add("poison").add("kept too").batch();
    deliver(subject, &batch).await;
    deliver(subject, &excluding(&batch, 1)).await;
    case.expect(subject, &[batch.records[0].clone(), batch.records[2].clone()]).await;
}

/// A worker that slept through an amendment and wakes in the middle of its delivery changes nothing.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn a_late_delivery_of_an_old_revision_changes_nothing(subject: &dyn Subject) {
    let mut case = Case::new("zombie");
    let batch = case.add("poison").add("kept").batch();
    deliver(subject, &excluding(&batch, 0)).await;
    deliver(subject, &batch).await;
    case.expect(subject, &[batch.records[1].clone()]).await;
}

/// When every event of a group is excluded, what an older revision stored of it is not read again.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn a_group_that_exclusions_leave_empty_yields_nothing(subject: &dyn Subject) {
    let mut case = Case::new("empty");
    let batch = case.add("poison").batch();
    deliver(subject, &batch).await;
    let emptied = excluding(&batch, 0);
    deliver(subject, &emptied).await;
    deliver(subject, &batch).await;
    case.expect(subject, &[]).await;
}

/// User records whose hash key lies outside the recorded range are not stored, and are counted; the others of their
/// Kinesis record and plain records are.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn user_records_of_another_shard_are_left_out(subject: &dyn Subject) {
    let mut case = Case::new("filter");
    case.add("ours").add("theirs").add("plain");
    case.records[0] = case.records[0].with_hash_key(HashKey::sent_once(9));
    case.records[1] = case.records[1].with_hash_key(HashKey::sent_once(10));
    case.records[1] =
        case.records[1].of(case.records[0].sequence_number().clone(), case.records[1].arrival());
    case.records[1] = case.records[1].at_sub(1);
    let mut batch = Arc::unwrap_or_clone(case.batch());
    let range = HashKeyRange { start: 0, end: 9 };
    batch.cut.parameters =
        Arc::new(PackingParameters { hash_range: Some(range), ..PackingParameters::default() });
    let delivered = subject.sink(&[1]).deliver(Arc::new(batch), always()).await;
    assert!(delivered.is_ok(), "not delivered: {delivered:?}");
    let counts = delivered.map(|delivered| (delivered.events, delivered.foreign)).unwrap_or_default();
    assert_eq!(counts, (2, 1));
    case.expect(subject, &[case.records[0].clone(), case.records[2].clone()]).await;
}

/// A worker with another packing version amends the cut and delivers; its events replace the other's. A sink
/// that does not pack has nothing to show here.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn another_packing_version_takes_over(subject: &dyn Subject) {
    let newer = subject.sink(&[2]);
    if newer.packing_versions() != [2] {
        return;
    }
    let mut case = Case::new("versions");
    let batch = case.add("a").add("b").batch();
    deliver(subject, &batch).await;
    let amended = Arc::new(Batch { cut: batch.cut.amended_to_packing_version(2), ..Batch::clone(&batch) });
    assert_delivered(newer.deliver(Arc::clone(&amended), always()).await);
    case.expect(subject, &batch.records).await;
    let both = subject.sink(&[1, 2]);
    assert_delivered(both.deliver(batch.clone(), always()).await);
    assert_delivered(both.deliver(amended, always()).await);
    case.expect(subject, &batch.records).await;
}

/// A cut under a packing version that the sink lacks is refused, and nothing of it is stored.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn a_packing_version_that_is_not_made_is_refused(subject: &dyn Subject) {
    let older = subject.sink(&[1]);
    if subject.sink(&[2]).packing_versions() != [2] {
        return;
    }
    let mut case = Case::new("lacking");
    let batch = case.add("a").batch();
    let newer = Batch { cut: batch.cut.amended_to_packing_version(2), ..Batch::clone(&batch) };
    let refused = older.deliver(Arc::new(newer), always()).await;
    assert!(matches!(refused, Err(DeliverError::PackingVersion { wanted: 2 })), "{refused:?}");
    case.expect(subject, &[]).await;
}

/// A worker whose right is over writes nothing.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn nothing_is_written_without_the_right(subject: &dyn Subject) {
    let mut case = Case::new("no-right");
    let batch = case.add("a").batch();
    let refused = subject.sink(&[1]).deliver(batch, Arc::new(HoldsFor::asked(0))).await;
    assert!(matches!(refused, Err(DeliverError::RightEnded)), "{refused:?}");
    case.expect(subject, &[]).await;
}

/// A right that ends while a batch is delivered either stops it or comes too late; a repetition mends either.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn a_right_that_ends_midway_stops_the_delivery_or_comes_too_late(subject: &dyn Subject) {
    let mut case = Case::new("midway");
    // Incompressible, so that a sink which packs needs several requests.
    let large = scrambled(12 << 20);
    let batch = case.add(large).add("tail").batch();
    for asked in 1..4 {
        let outcome = subject.sink(&[1]).deliver(Arc::clone(&batch), Arc::new(HoldsFor::asked(asked))).await;
        assert!(matches!(outcome, Ok(_) | Err(DeliverError::RightEnded)), "{outcome:?}");
    }
    deliver(subject, &batch).await;
    case.expect(subject, &batch.records).await;
}

/// A cut whose records were lost delivers nothing.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn a_dropped_cut_stores_nothing(subject: &dyn Subject) {
    let mut case = Case::new("dropped");
    let mut batch = Batch::clone(&case.add("a").batch());
    batch.cut.dropped = true;
    batch.cut.revision = 1;
    deliver(subject, &Arc::new(batch)).await;
    case.expect(subject, &[]).await;
}

/// Payloads need be neither text nor anything else: they come back byte for byte.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn payloads_come_back_as_published(subject: &dyn Subject) {
    let mut case = Case::new("bytes");
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    case.add(Bytes::from(every_byte)).add("").add("\r\n\0").add(Bytes::from_static(&[0xff, 0xfe, 0x80]));
    let batch = case.batch();
    deliver(subject, &batch).await;
    case.expect(subject, &batch.records).await;
}

/// An event of one byte and one of 5 MiB, more than any item holds, are stored side by side.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn large_and_small_events_are_stored(subject: &dyn Subject) {
    let mut case = Case::new("sizes");
    let batch = case.add("x").add(scrambled(5 << 20)).add("y").batch();
    deliver(subject, &batch).await;
    case.expect(subject, &batch.records).await;
}

/// Events of one batch under several keys are read under their own.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn several_keys_in_one_batch_are_kept_apart(subject: &dyn Subject) {
    let mut case = Case::new("keys");
    case.add("one").add("two").add("three");
    let other = format!("{}~1", case.key);
    case.records[1] = case.records[1].with_key(other.as_str());
    let batch = case.batch();
    deliver(subject, &batch).await;
    case.expect(subject, &[batch.records[0].clone(), batch.records[2].clone()]).await;
    case.key = other;
    case.expect(subject, &[batch.records[1].clone()]).await;
}

/// The sink counts what it stored, by itself.
///
/// # Panics
/// When the subject breaks the contract.
pub async fn what_was_delivered_is_counted(subject: &dyn Subject) {
    let mut case = Case::new("counts");
    case.add("abc").add("de").add("poison");
    case.records[1] =
        case.records[1].of(case.records[0].sequence_number().clone(), case.records[1].arrival());
    case.records[1] = case.records[1].at_sub(1);
    let batch = excluding(&case.batch(), 2);
    let delivered = deliver(subject, &batch).await;
    assert_eq!((delivered.events, delivered.records, delivered.raw_bytes), (2, 1, 5));
    assert!(delivered.items > 0 && delivered.stored_bytes > 0);
    assert_eq!(delivered.fallback_keys, 0);
}

/// A right that holds for so many questions.
struct HoldsFor(AtomicUsize);

impl HoldsFor {
    fn asked(times: usize) -> Self {
        Self(AtomicUsize::new(times))
    }
}

impl Right for HoldsFor {
    fn holds(&self) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

fn always() -> Arc<dyn Right> {
    Arc::new(Always)
}

async fn deliver(subject: &dyn Subject, batch: &Arc<Batch>) -> Delivered {
    assert_delivered(subject.sink(&[1]).deliver(Arc::clone(batch), always()).await)
}

fn assert_delivered(outcome: Result<Delivered, DeliverError>) -> Delivered {
    assert!(outcome.is_ok(), "the delivery failed: {outcome:?}");
    outcome.unwrap_or_default()
}

/// The next revision of a batch, without one of its events.
fn excluding(batch: &Batch, index: usize) -> Arc<Batch> {
    let mut amended = batch.clone();
    let poison = &batch.records[index];
    let place = (poison.sequence_number().clone(), poison.sub_sequence_number());
    amended.cut.exclusions.push(Exclusion { from: place.clone(), to: place });
    amended.cut.revision += 1;
    Arc::new(amended)
}

/// Bytes that no compressor can make smaller, the same each time (a linear congruential generator with
/// Knuth's MMIX constants).
fn scrambled(length: usize) -> Bytes {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// A case's own key, shard and records.
struct Case {
    key: String,
    shard: ShardId,
    records: Vec<Record>,
}

impl Case {
    fn new(name: &str) -> Self {
        Self {
            key: format!("contract-{name}"),
            shard: ShardId::new(format!("shardId-{name}")),
            records: Vec::new(),
        }
    }

    /// Adds an event behind the others, a millisecond later.
    fn add(&mut self, data: impl Into<Bytes>) -> &mut Self {
        /// The size of Kinesis sequence numbers.
        const FIRST: u128 = 49_590_338_271_490_256_608_559_692_538_361_571_095;
        let n = self.records.len();
        let sequence_number = SequenceNumber::parse((FIRST + 977 * n as u128).to_string());
        assert!(sequence_number.is_ok());
        self.records.extend(sequence_number.map(|sequence_number| {
            Record::new(
                sequence_number,
                ArrivalMillis(1_700_000_000_000 + i64::try_from(n).unwrap_or_default()),
                self.key.clone(),
                data,
            )
        }));
        self
    }

    /// A batch of all events so far.
    #[expect(clippy::expect_used, reason = "a law adds events before it asks for their batch")]
    fn batch(&self) -> Arc<Batch> {
        let batch = Batch::of((&self.shard, 0), self.records.clone(), Arc::default(), 1);
        Arc::new(batch.expect("events were added"))
    }

    async fn expect(&self, subject: &dyn Subject, records: &[Record]) {
        let event = |record: &Record| Event {
            shard: self.shard.clone(),
            epoch: 0,
            sequence_number: record.sequence_number().clone(),
            sub_sequence_number: record.sub_sequence_number(),
            arrival: record.arrival(),
            data: record.data_bytes(),
        };
        let wanted: Vec<Event> = records.iter().map(event).collect();
        let found = subject.events(&self.key).await;
        let places = |events: &[Event]| -> Vec<_> {
            events.iter().map(|e| (e.sequence_number.clone(), e.sub_sequence_number, e.data.len())).collect()
        };
        assert!(found == wanted, "{}: found {:?}, wanted {:?}", self.key, places(&found), places(&wanted));
    }
}
