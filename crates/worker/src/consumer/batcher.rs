//! Where a shard is cut: records -> batches, by size, count, age and span of arrival times (pure).
//!
//! Cutting may depend on time: the cut is remembered, so it need not be reproducible. A Kinesis record is never
//! split between batches.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::{
    Batch, Cut, PackingParameters, Position, Record, SequenceNumber, ShardId, SubSequenceNumber,
};
use tokio::time::Instant;

/// When a batch is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutPolicy {
    /// Payload bytes.
    pub max_bytes: usize,
    /// Kinesis records.
    pub max_records: u64,
    /// Time since its first record was read.
    pub max_age: Duration,
    /// Distance between arrival times; readers look back by it.
    pub max_span: Duration,
}

/// Collects the records of the open batch.
#[derive(Debug)]
pub struct Batcher {
    shard: ShardId,
    epoch: u32,
    policy: CutPolicy,
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

    /// Adds a record; returns the batch that had to be closed before it.
    pub fn push(&mut self, record: Record, now: Instant) -> Option<Batch> {
        let new_kinesis_record =
            self.open.last().is_none_or(|last| last.sequence_number != record.sequence_number);
        let closed = if new_kinesis_record && self.must_close_before(&record) { self.close() } else { None };
        if new_kinesis_record {
            self.kinesis_records += 1;
        }
        self.opened_at.get_or_insert(now);
        self.open_bytes += record.data.len();
        self.open_weight += record.weight_bytes();
        self.open.push(record);
        closed
    }

    /// The batch that is due at a page's end (full) or by its age.
    pub fn due(&mut self, now: Instant) -> Option<Batch> {
        let aged = self.deadline().is_some_and(|deadline| deadline <= now);
        if aged || self.is_full() { self.close() } else { None }
    }

    /// Closes whatever is open.
    pub fn close(&mut self) -> Option<Batch> {
        let (first, last) = (self.open.first()?, self.open.last()?);
        let behind =
            self.behind.take().filter(|(sequence_number, _)| *sequence_number == first.sequence_number);
        let cut = Cut {
            first: first.sequence_number.clone(),
            last: last.sequence_number.clone(),
            behind_sub: behind.map(|(_, sub)| sub),
            last_sub: last.sub_sequence_number,
            records: self.kinesis_records,
            parameters: Arc::clone(&self.parameters),
            packing_version: self.packing_version,
            revision: 0,
            exclusions: Vec::new(),
            dropped: false,
        };
        let arrival = first.arrival;
        self.open_bytes = 0;
        self.open_weight = 0;
        self.kinesis_records = 0;
        self.opened_at = None;
        Some(Batch {
            id: cut.id(&self.shard, self.epoch),
            cut,
            arrival,
            records: std::mem::take(&mut self.open),
        })
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

    fn is_full(&self) -> bool {
        self.open_bytes >= self.policy.max_bytes || self.kinesis_records >= self.policy.max_records
    }

    fn must_close_before(&self, record: &Record) -> bool {
        let Some(first) = self.open.first() else { return false };
        let span = record.arrival.0.saturating_sub(first.arrival.0);
        let too_wide = u128::try_from(span).is_ok_and(|ms| ms >= self.policy.max_span.as_millis());
        // Readers look back from the first record's arrival; one that arrived before it would be looked for there.
        too_wide || span < 0 || self.is_full()
    }
}

/// Whether a record lies behind a position, that is, is not finished yet.
pub fn is_behind(record: &Record, position: &Position) -> bool {
    match position {
        Position::At(sequence_number, sub) => {
            (&record.sequence_number, record.sub_sequence_number) > (sequence_number, *sub)
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
        max_records: 5,
        max_age: Duration::from_secs(5),
        max_span: Duration::from_secs(60),
    };

    fn record(n: u64, sub: u64, arrival: i64, bytes: usize) -> Record {
        Record {
            sequence_number: SequenceNumber::parse(n.to_string()).unwrap(),
            sub_sequence_number: SubSequenceNumber(sub),
            arrival: ArrivalMillis(arrival),
            partition_key: "k".into(),
            hash_key: None,
            data: Bytes::from(vec![0; bytes]),
        }
    }

    fn batcher() -> Batcher {
        Batcher::new(ShardId::new("s"), 0, POLICY, Arc::new(PackingParameters::default()), 1)
    }

    #[test]
    fn size_count_and_span_close_a_batch_before_the_next_record() {
        let now = Instant::now();
        let mut full = batcher();
        assert_eq!(full.push(record(1, 0, 0, 100), now), None);
        assert_eq!(full.push(record(2, 0, 0, 1), now).unwrap().cut.records, 1);
        let mut wide = batcher();
        wide.push(record(1, 0, 0, 1), now);
        assert_eq!(wide.push(record(2, 0, 59_999, 1), now), None);
        assert_eq!(wide.push(record(3, 0, 60_000, 1), now).unwrap().cut.records, 2);
        let mut many = batcher();
        for n in 0..5 {
            assert_eq!(many.push(record(n, 0, 0, 1), now), None);
        }
        assert_eq!(many.push(record(9, 0, 0, 1), now).unwrap().cut.records, 5);
    }

    #[test]
    fn age_closes_a_batch_of_any_size() {
        let now = Instant::now();
        let mut batcher = batcher();
        batcher.push(record(1, 0, 0, 1), now);
        assert_eq!(batcher.due(now + Duration::from_secs(4)), None);
        assert_eq!(batcher.deadline(), Some(now + Duration::from_secs(5)));
        assert!(batcher.due(now + Duration::from_secs(5)).is_some());
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
            assert_eq!(batcher.close().unwrap().cut.behind_sub, expected);
        }
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
                    batches.extend(batcher.push(record, now));
                }
                batches.extend(batcher.due(now));
            }
            batches.extend(batcher.close());
            let stored: Vec<Record> = batches.iter().flat_map(|batch| batch.records.clone()).collect();
            prop_assert_eq!(stored, pushed);
            for batch in &batches {
                let mut numbers: Vec<_> = batch.records.iter().map(|record| &record.sequence_number).collect();
                numbers.dedup();
                prop_assert_eq!(numbers.len() as u64, batch.cut.records);
                prop_assert!(batch.cut.records <= POLICY.max_records);
                let (first, last) = (batch.records.first().unwrap(), batch.records.last().unwrap());
                prop_assert!(last.arrival.0 - first.arrival.0 < 60_000);
                prop_assert_eq!((&batch.cut.first, &batch.cut.last), (&first.sequence_number, &last.sequence_number));
            }
            for pair in batches.windows(2) { prop_assert!(pair[0].cut.last < pair[1].cut.first); }
        }
    }
}
