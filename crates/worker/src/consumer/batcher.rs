//! Where a shard is cut: records -> batches, by size, count, age and span of arrival times (pure).
//!
//! The size at which a batch is full is told from outside ([`Batcher::aim_at`], decided in `fill`).
//! Cutting may depend on time: the cut is remembered, so it need not be reproducible. A Kinesis record is never
//! split between batches.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::record::weight_bytes;
use sluicegate_checkpoint::{
    Batch, PackingParameters, Position, Record, SequenceNumber, ShardId, SubSequenceNumber,
};
use tokio::time::Instant;

/// When a batch is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutPolicy {
    /// Payload bytes, at most; what is aimed at may be less.
    pub max_bytes: usize,
    /// Memory, in bytes: events without payload take some too.
    pub max_weight: usize,
    /// Kinesis records.
    pub max_records: u64,
    /// Time since its first record was read.
    pub max_age: Duration,
    /// Distance between arrival times; readers look back by it.
    pub max_span: Duration,
}

/// Why a batch was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClosedBy {
    /// It has the bytes that are aimed at.
    Size,
    /// It is the first of its session, and has enough bytes to tell how large the next ones should be.
    First,
    /// It has as many Kinesis records as it may have.
    Records,
    /// It has been open for long enough.
    Age,
    /// The next record arrived too long after its first, or before it.
    Span,
    /// The next read waits for memory.
    Memory,
    /// Retention took what would have followed.
    Gap,
    /// The lease is given away.
    Drain,
    /// The shard is finished.
    ShardEnd,
}

impl ClosedBy {
    /// The reason in a word, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::First => "first",
            Self::Records => "records",
            Self::Age => "age",
            Self::Span => "span",
            Self::Memory => "memory",
            Self::Gap => "gap",
            Self::Drain => "drain",
            Self::ShardEnd => "shard_end",
        }
    }
}

/// A batch, and why it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The batch.
    pub batch: Batch,
    /// Why it was closed.
    pub by: ClosedBy,
}

/// Collects the records of the open batch.
#[derive(Debug)]
pub struct Batcher {
    shard: ShardId,
    epoch: u32,
    policy: CutPolicy,
    /// Payload bytes at which the open batch is full, and what that is called.
    aim: (usize, ClosedBy),
    parameters: Arc<PackingParameters>,
    packing_version: u32,
    open: Vec<Record>,
    open_bytes: usize,
    open_weight: usize,
    kinesis_records: u64,
    opened_at: Option<Instant>,
    /// User records of the next batch's first Kinesis record that are already stored.
    behind: Option<(SequenceNumber, SubSequenceNumber)>,
}

impl Batcher {
    /// Starts behind `from`.
    pub fn new(
        shard: ShardId,
        epoch: u32,
        policy: CutPolicy,
        parameters: Arc<PackingParameters>,
        packing_version: u32,
    ) -> Self {
        Self {
            shard,
            epoch,
            aim: (policy.max_bytes, ClosedBy::Size),
            policy,
            parameters,
            packing_version,
            open: Vec::new(),
            open_bytes: 0,
            open_weight: 0,
            kinesis_records: 0,
            opened_at: None,
            behind: None,
        }
    }

    /// The user records of this Kinesis record, up to this one, are already stored; the next batch may begin with
    /// the rest of them.
    pub fn begin_behind(&mut self, sequence_number: SequenceNumber, sub: SubSequenceNumber) {
        self.behind = Some((sequence_number, sub));
    }

    /// Closes batches at this size from now on, or at the largest that the policy allows.
    pub fn aim_at(&mut self, bytes: usize, by: ClosedBy) {
        self.aim = (bytes.min(self.policy.max_bytes), by);
    }

    /// What batches are packed with.
    pub fn parameters(&self) -> &Arc<PackingParameters> {
        &self.parameters
    }

    /// Adds a record; returns the batch that had to be closed before it.
    pub fn push(&mut self, record: Record, now: Instant) -> Option<Closed> {
        let new_kinesis_record =
            self.open.last().is_none_or(|last| last.sequence_number() != record.sequence_number());
        let by = if new_kinesis_record { self.must_close_before(&record) } else { None };
        let closed = by.and_then(|by| self.close(by));
        if new_kinesis_record {
            self.kinesis_records += 1;
        }
        self.opened_at.get_or_insert(now);
        self.open_bytes += record.data().len();
        let shares = self.open.last().is_some_and(|last| last.shares_origin(&record));
        self.open_weight += Record::OWN_BYTES + if shares { 0 } else { record.origin_bytes() };
        self.open.push(record);
        closed
    }

    /// Adds all user records of one Kinesis record, as [`push`](Self::push) does one by one, but without a copy of them where
    /// none is open: a record of ten megabytes may hold more than a million.
    pub fn push_all(&mut self, records: Vec<Record>, now: Instant) -> Option<Closed> {
        let first = records.first()?;
        let closed = self.must_close_before(first).and_then(|by| self.close(by));
        if !self.open.is_empty() {
            records.into_iter().for_each(|record| drop(self.push(record, now)));
            return closed;
        }
        self.kinesis_records = 1;
        self.opened_at = Some(now);
        self.open_bytes = records.iter().map(|record| record.data().len()).sum();
        self.open_weight = weight_bytes(&records);
        self.open = records;
        closed
    }

    /// The batch that is full at a page's end.
    pub fn full(&mut self) -> Option<Closed> {
        self.is_full().and_then(|by| self.close(by))
    }

    /// The batch that has been open for long enough.
    pub fn aged(&mut self, now: Instant) -> Option<Closed> {
        let aged = self.deadline().is_some_and(|deadline| deadline <= now);
        if aged { self.close(ClosedBy::Age) } else { None }
    }

    /// Closes whatever is open.
    pub fn close(&mut self, by: ClosedBy) -> Option<Closed> {
        let records = std::mem::take(&mut self.open);
        let parameters = Arc::clone(&self.parameters);
        let mut batch = Batch::of((&self.shard, self.epoch), records, parameters, self.packing_version)?;
        let behind = self.behind.take().filter(|(sequence_number, _)| *sequence_number == batch.cut.first);
        batch.cut.behind_sub = behind.map(|(_, sub)| sub);
        self.open_bytes = 0;
        self.open_weight = 0;
        self.kinesis_records = 0;
        self.opened_at = None;
        Some(Closed { batch, by })
    }

    /// When the open batch must be closed by age.
    pub fn deadline(&self) -> Option<Instant> {
        self.opened_at.map(|at| at + self.policy.max_age)
    }

    /// Memory that the open batch takes, in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.open_weight
    }

    /// Whether no record is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn is_full(&self) -> Option<ClosedBy> {
        let (bytes, by) = self.aim;
        if self.open_bytes >= bytes {
            return Some(by);
        }
        if self.open_weight >= self.policy.max_weight {
            return Some(ClosedBy::Memory);
        }
        (self.kinesis_records >= self.policy.max_records).then_some(ClosedBy::Records)
    }

    fn must_close_before(&self, record: &Record) -> Option<ClosedBy> {
        let first = self.open.first()?;
        let span = record.arrival().0.saturating_sub(first.arrival().0);
        let too_wide = u128::try_from(span).is_ok_and(|ms| ms >= self.policy.max_span.as_millis());
        // Readers look back from the first record's arrival; one that arrived before it would be looked for there.
        self.is_full().or_else(|| (too_wide || span < 0).then_some(ClosedBy::Span))
    }
}

/// Whether a record lies behind a position, that is, is not finished yet.
pub fn is_behind(record: &Record, position: &Position) -> bool {
    match position {
        Position::At(sequence_number, sub) => {
            (record.sequence_number(), record.sub_sequence_number()) > (sequence_number, *sub)
        }
        Position::ShardEnd => false,
        Position::AtTimestamp | Position::TrimHorizon | Position::Latest => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use sluicegate_checkpoint::ArrivalMillis;

    const POLICY: CutPolicy = CutPolicy {
        max_bytes: 100,
        max_weight: 1 << 20,
        max_records: 5,
        max_age: Duration::from_secs(5),
        max_span: Duration::from_secs(60),
    };

    fn record(n: u64, sub: u64, arrival: i64, bytes: usize) -> Record {
        Record::new(
            SequenceNumber::parse(n.to_string()).unwrap(),
            ArrivalMillis(arrival),
            "k",
            Bytes::from(vec![0; bytes]),
        )
        .at_sub(sub)
    }

    fn batcher() -> Batcher {
        Batcher::new(ShardId::new("s"), 0, POLICY, Arc::new(PackingParameters::default()), 1)
    }

    #[test]
    fn size_count_and_span_close_a_batch_before_the_next_record() {
        let now = Instant::now();
        let mut full = batcher();
        assert_eq!(full.push(record(1, 0, 0, 100), now), None);
        let closed = full.push(record(2, 0, 0, 1), now).unwrap();
        assert_eq!((closed.batch.cut.records, closed.by), (1, ClosedBy::Size));
        let mut wide = batcher();
        wide.push(record(1, 0, 0, 1), now);
        assert_eq!(wide.push(record(2, 0, 59_999, 1), now), None);
        let closed = wide.push(record(3, 0, 60_000, 1), now).unwrap();
        assert_eq!((closed.batch.cut.records, closed.by), (2, ClosedBy::Span));
        let mut many = batcher();
        for n in 0..5 {
            assert_eq!(many.push(record(n, 0, 0, 1), now), None);
        }
        let closed = many.push(record(9, 0, 0, 1), now).unwrap();
        assert_eq!((closed.batch.cut.records, closed.by), (5, ClosedBy::Records));
    }

    #[test]
    fn a_batch_is_full_at_the_size_that_is_aimed_at_and_never_above_the_largest() {
        let now = Instant::now();
        for (aim, full_at) in [(40, 40), (1_000, 100)] {
            let mut batcher = batcher();
            batcher.aim_at(aim, ClosedBy::Size);
            batcher.push(record(1, 0, 0, full_at - 1), now);
            assert_eq!(batcher.full(), None);
            batcher.push(record(2, 0, 0, 1), now);
            assert_eq!(batcher.full().unwrap().by, ClosedBy::Size);
        }
    }

    #[test]
    fn age_closes_a_batch_of_any_size() {
        let now = Instant::now();
        let mut batcher = batcher();
        batcher.push(record(1, 0, 0, 1), now);
        assert_eq!(batcher.aged(now + Duration::from_secs(4)), None);
        assert_eq!(batcher.deadline(), Some(now + Duration::from_secs(5)));
        assert_eq!(batcher.aged(now + Duration::from_secs(5)).unwrap().by, ClosedBy::Age);
        assert!(batcher.is_empty() && batcher.weight_bytes() == 0);
    }

    #[test]
    fn only_a_batch_that_begins_inside_an_aggregated_record_says_so() {
        let now = Instant::now();
        let stored = |n: u64| (SequenceNumber::parse(n.to_string()).unwrap(), SubSequenceNumber(2));
        for (begins_at, expected) in [(7, Some(SubSequenceNumber(2))), (8, None)] {
            let mut batcher = batcher();
            let (number, sub) = stored(7);
            batcher.begin_behind(number, sub);
            batcher.push(record(begins_at, 3, 0, 1), now);
            assert_eq!(batcher.close(ClosedBy::Drain).unwrap().batch.cut.behind_sub, expected);
        }
    }

    #[test]
    fn many_at_once_are_what_they_are_one_by_one() {
        let now = Instant::now();
        let users = |n: u64| -> Vec<Record> { (0..3).map(|sub| record(n, sub, 0, 30)).collect() };
        let (mut one_by_one, mut at_once) = (batcher(), batcher());
        for n in 1..6 {
            let closed: Vec<Closed> =
                users(n).into_iter().filter_map(|record| one_by_one.push(record, now)).collect();
            assert_eq!(at_once.push_all(users(n), now), closed.first().cloned());
            assert_eq!(at_once.weight_bytes(), one_by_one.weight_bytes());
        }
        assert_eq!(at_once.close(ClosedBy::Drain), one_by_one.close(ClosedBy::Drain));
    }

    proptest! {
        /// D5 at the source: batches tile what was pushed, and no Kinesis record is in two of them.
        #[test]
        fn batches_tile_the_records(shape in proptest::collection::vec((1u64..4, 0i64..30_000, 0usize..60), 1..60)) {
            let now = Instant::now();
            let (mut batcher, mut batches, mut pushed) = (batcher(), Vec::new(), Vec::new());
            let mut arrival = 0;
            for (n, (subs, wait, bytes)) in shape.into_iter().enumerate() {
                arrival += wait;
                for sub in 0..subs {
                    let record = record(n as u64, sub, arrival, bytes);
                    pushed.push(record.clone());
                    batches.extend(batcher.push(record, now).map(|closed| closed.batch));
                }
                batches.extend(batcher.full().map(|closed| closed.batch));
            }
            batches.extend(batcher.close(ClosedBy::ShardEnd).map(|closed| closed.batch));
            let stored: Vec<Record> = batches.iter().flat_map(|batch| batch.records.clone()).collect();
            prop_assert_eq!(stored, pushed);
            for batch in &batches {
                let mut numbers: Vec<_> = batch.records.iter().map(|record| record.sequence_number()).collect();
                numbers.dedup();
                prop_assert_eq!(numbers.len() as u64, batch.cut.records);
                prop_assert!(batch.cut.records <= POLICY.max_records);
                let (first, last) = (batch.records.first().unwrap(), batch.records.last().unwrap());
                prop_assert!(last.arrival().0 - first.arrival().0 < 60_000);
                prop_assert_eq!((&batch.cut.first, &batch.cut.last), (first.sequence_number(), last.sequence_number()));
            }
            for pair in batches.windows(2) { prop_assert!(pair[0].cut.last < pair[1].cut.first); }
        }
    }
}
