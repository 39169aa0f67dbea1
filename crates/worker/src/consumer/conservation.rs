//! Law K1: what was counted at fetch of a committed range is what came out of the pipeline for it (pure).
//!
//! Two counts that do not know of each other. One is made here, record by record, as records are handed to the batcher
//! or to the batches that are read again. The other comes with each delivery: what the sink packed and filtered, and the
//! letters that were stored. They are compared when the range is committed. A dropped batch counts on neither side.

use std::collections::BTreeMap;

use sluicegate_checkpoint::BatchId;

/// A committed range for which the counts differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unaccounted {
    /// The range.
    pub id: BatchId,
    /// Records counted at fetch.
    pub fetched: u64,
    /// Records packed, filtered or dead-lettered.
    pub accounted: u64,
}

impl Unaccounted {
    /// How many records the counts are apart: zero, always.
    pub fn difference(&self) -> u64 {
        self.fetched.abs_diff(self.accounted)
    }
}

/// The counts of one session's ranges that are not committed.
#[derive(Debug, Default)]
pub struct Conservation {
    /// Records handed on since the last range was closed.
    open: u64,
    fetched: BTreeMap<BatchId, u64>,
    accounted: BTreeMap<BatchId, u64>,
    unaccounted: Vec<Unaccounted>,
}

impl Conservation {
    /// A record was fetched and handed on.
    pub fn fetched(&mut self) {
        self.open += 1;
    }

    /// What was handed on since the last range is the range of this batch.
    pub fn closed(&mut self, id: BatchId) {
        self.fetched.insert(id, std::mem::take(&mut self.open));
    }

    /// A batch is durable: so many records came out. A later revision replaces an earlier one.
    pub fn accounted(&mut self, id: BatchId, records: u64) {
        self.accounted.insert(id, records);
    }

    /// The range is committed: compares. Of a dropped batch neither side knows anything.
    pub fn committed(&mut self, id: &BatchId) {
        let fetched = self.fetched.remove(id).unwrap_or_default();
        let accounted = self.accounted.remove(id).unwrap_or_default();
        if fetched != accounted {
            self.unaccounted.push(Unaccounted { id: id.clone(), fetched, accounted });
        }
    }

    /// Committed ranges with a difference, since this was last asked.
    pub fn take_unaccounted(&mut self) -> Vec<Unaccounted> {
        std::mem::take(&mut self.unaccounted)
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_checkpoint::{SequenceNumber, ShardId};

    use super::*;

    fn id(n: u32) -> BatchId {
        let number = |n: u32| SequenceNumber::parse(n.to_string()).unwrap();
        BatchId { shard: ShardId::new("s"), epoch: 0, first: number(n), to: number(n + 9) }
    }

    #[test]
    fn a_record_more_or_less_than_was_fetched_is_a_difference_of_that_range() {
        let mut counts = Conservation::default();
        for (n, accounted) in [(0, 3), (10, 2), (20, 4)] {
            (0..3).for_each(|_| counts.fetched());
            counts.closed(id(n));
            counts.accounted(id(n), accounted);
        }
        // Nothing is compared before the commit, and a dropped batch has nothing to compare.
        assert_eq!(counts.take_unaccounted(), []);
        for n in [0, 10, 20, 30] {
            counts.committed(&id(n));
        }
        let found = counts.take_unaccounted();
        let differences: Vec<_> = found.iter().map(|found| (found.id.clone(), found.difference())).collect();
        assert_eq!(differences, [(id(10), 1), (id(20), 1)]);
        assert_eq!(counts.take_unaccounted(), []);
    }

    #[test]
    fn the_last_revision_of_a_batch_counts() {
        let mut counts = Conservation::default();
        counts.fetched();
        counts.closed(id(0));
        counts.accounted(id(0), 5);
        counts.accounted(id(0), 1);
        counts.committed(&id(0));
        assert_eq!(counts.take_unaccounted(), []);
    }
}
