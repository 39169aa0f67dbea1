//! Batches in flight -> the highest position below which all is durable (law C2).
//!
//! Intervals: `(..committable]` is durable, behind it lies what is announced and not yet acknowledged.

use std::collections::VecDeque;

use crate::batch::BatchId;

/// Follows the announced batches of one session, in cut order. A new session starts with a new tracker: an
/// acknowledgement of an earlier one means nothing here (rule R4).
#[derive(Debug, Default, Clone)]
pub struct Tracker {
    batches: VecDeque<Tracked>,
}

#[derive(Debug, Clone)]
struct Tracked {
    id: BatchId,
    revision: u32,
    acknowledged: bool,
}

impl Tracker {
    /// Adds the next announced batch, behind all others.
    pub fn announce(&mut self, id: BatchId, revision: u32) {
        self.batches.push_back(Tracked { id, revision, acknowledged: false });
    }

    /// Raises the revision of an announced batch: what was acknowledged under the old one no longer counts.
    /// Returns whether the batch is there.
    pub fn amend(&mut self, id: &BatchId, revision: u32) -> bool {
        let Some(tracked) = self.batches.iter_mut().find(|tracked| tracked.id == *id) else { return false };
        tracked.revision = revision;
        tracked.acknowledged = false;
        true
    }

    /// Notes that a batch is durable under a revision. Returns false when it says nothing about this session:
    /// another revision, or a batch that is not in flight.
    pub fn acknowledge(&mut self, id: &BatchId, revision: u32) -> bool {
        let found = self.batches.iter_mut().find(|tracked| tracked.id == *id && tracked.revision == revision);
        found.map(|tracked| tracked.acknowledged = true).is_some()
    }

    /// How many batches from the front are durable without a gap.
    pub fn committable(&self) -> usize {
        self.batches.iter().take_while(|tracked| tracked.acknowledged).count()
    }

    /// Drops the first `count` batches: the commit of them is confirmed.
    pub fn commit(&mut self, count: usize) {
        self.batches.drain(..count.min(self.batches.len()));
    }

    /// How many batches are announced and not committed.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_id::{SequenceNumber, ShardId};
    use proptest::prelude::*;

    fn id(n: usize) -> BatchId {
        let number = |k: usize| SequenceNumber::parse(k.to_string()).unwrap();
        BatchId { shard: ShardId::new("s"), epoch: 0, first: number(10 * n + 1), to: number(10 * n + 9) }
    }

    #[test]
    fn an_acknowledgement_of_another_revision_does_not_count() {
        let mut tracker = Tracker::default();
        tracker.announce(id(0), 0);
        assert!(tracker.amend(&id(0), 1));
        assert!(!tracker.acknowledge(&id(0), 0));
        assert_eq!(tracker.committable(), 0);
        assert!(tracker.acknowledge(&id(0), 1));
        assert_eq!(tracker.committable(), 1);
    }

    #[test]
    fn amending_takes_back_an_acknowledgement() {
        let mut tracker = Tracker::default();
        tracker.announce(id(0), 0);
        assert!(tracker.acknowledge(&id(0), 0));
        assert!(tracker.amend(&id(0), 1));
        assert_eq!(tracker.committable(), 0);
    }

    proptest! {
        /// Against a naive model: a list of flags, committed from the front.
        #[test]
        fn it_commits_exactly_the_durable_prefix(steps in proptest::collection::vec((0u8..3, 0usize..12), 0..60)) {
            let mut tracker = Tracker::default();
            let (mut model, mut base) = (Vec::<bool>::new(), 0usize);
            for (step, n) in steps {
                match step {
                    0 => { tracker.announce(id(base + model.len()), 0); model.push(false); }
                    1 => {
                        let known = n >= base && n - base < model.len();
                        prop_assert_eq!(tracker.acknowledge(&id(n), 0), known);
                        if known { model[n - base] = true; }
                    }
                    _ => {
                        let durable = model.iter().take_while(|durable| **durable).count();
                        prop_assert_eq!(tracker.committable(), durable);
                        tracker.commit(durable);
                        model.drain(..durable);
                        base += durable;
                    }
                }
                prop_assert_eq!(tracker.len(), model.len());
            }
        }
    }
}
