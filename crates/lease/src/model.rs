//! The lease: the row that binds one shard to one worker, and the only ways it may change.
//!
//! Each change is a pure function from the row as it was to the row as it will be, counter raised by one (rule
//! R1); the store writes it on the condition that owner and counter are still those of the row as it was.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sluicegate_checkpoint::{DecodeStateError, HashKeyRange, LeaseState, Position, ShardId};

use crate::throughput::Throughput;

/// The key of a lease row. Single-stream applications use the shard id, as KCL does.
pub type LeaseKey = ShardId;

/// Names one worker process. Unique per process start: a restart is another worker.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// Wraps an id that is already unique.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How often the row was written: the optimistic lock and fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseCounter(pub u64);

impl LeaseCounter {
    /// The counter of the next write.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What the row says of announced batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// Nothing recorded: a row that KCL made.
    None,
    /// A KCL application's own bytes, from its two-phase checkpoints. They say nothing of what is finished, the
    /// checkpoint does; so they are never parsed, and such a row is worked on like one without. They stay as they are
    /// until the first announce or commit, whose state takes their place.
    Foreign {
        /// The bytes as found.
        bytes: Bytes,
    },
    /// Written by Sluicegate and understood.
    Ours(LeaseState),
    /// A state of ours that this build cannot work with. Its bytes are kept as they are; such a row is not eligible
    /// here.
    Unreadable {
        /// The bytes as found.
        bytes: Bytes,
        /// Why they cannot be read.
        why: DecodeStateError,
    },
}

impl Pending {
    /// The state to work from; a row without one begins empty. `None` when it cannot be read.
    pub fn state(&self) -> Option<LeaseState> {
        match self {
            Self::None | Self::Foreign { .. } => Some(LeaseState::starting(None)),
            Self::Ours(state) => Some(state.clone()),
            Self::Unreadable { .. } => None,
        }
    }
}

/// One row of the lease table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which shard.
    pub key: LeaseKey,
    /// Who may announce and commit; nobody, if free.
    pub owner: Option<WorkerId>,
    /// How often the row was written.
    pub counter: LeaseCounter,
    /// How often it changed hands since the last commit: a sign of a poison record.
    pub owner_switches: u64,
    /// What is finished and durable.
    pub checkpoint: Position,
    /// Announced batches and what belongs to them.
    pub pending: Pending,
    /// Shards this one came from: one after a split, two after a merge.
    pub parents: BTreeSet<ShardId>,
    /// Shards that came from this one, once known.
    pub children: BTreeSet<ShardId>,
    /// The hash keys it covers.
    pub hash_range: Option<HashKeyRange>,
    /// KCL's mark of a hand-off in progress: read, and removed by a take.
    pub checkpoint_owner: Option<WorkerId>,
    /// How much the shard carries, once measured: for plans that weigh.
    pub throughput: Option<Throughput>,
}

impl Lease {
    /// A new row that nobody owns.
    pub fn unowned(key: LeaseKey, checkpoint: Position, state: LeaseState) -> Self {
        Self {
            key,
            owner: None,
            counter: LeaseCounter(0),
            owner_switches: 0,
            checkpoint,
            pending: Pending::Ours(state),
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            hash_range: None,
            checkpoint_owner: None,
            throughput: None,
        }
    }

    /// Whether the shard is fully read.
    pub fn is_finished(&self) -> bool {
        self.checkpoint == Position::ShardEnd
    }

    /// The row after `worker` took it.
    pub fn taken_by(&self, worker: &WorkerId) -> Self {
        let switches = self.owner_switches + u64::from(self.owner.as_ref() != Some(worker));
        Self {
            owner: Some(worker.clone()),
            owner_switches: switches,
            checkpoint_owner: None,
            counter: self.counter.next(),
            ..self.clone()
        }
    }

    /// The same row with what was measured of its throughput since, to be written along with another change.
    #[must_use]
    pub fn measured(self, measured: Option<Throughput>) -> Self {
        let recorded = measured.map(|measured| Throughput::recorded(self.throughput, measured));
        Self { throughput: recorded.or(self.throughput), ..self }
    }

    /// The row after an announce, an amendment or a commit.
    pub fn progressed(&self, checkpoint: Position, state: LeaseState) -> Self {
        let owner_switches = if checkpoint == self.checkpoint { self.owner_switches } else { 0 };
        Self {
            checkpoint,
            pending: Pending::Ours(state),
            owner_switches,
            counter: self.counter.next(),
            ..self.clone()
        }
    }

    /// The row after its owner gave it away, to a worker or to nobody. Undelivered cuts go along (rule R5).
    pub fn handed_over(&self, to: Option<WorkerId>) -> Self {
        let switches = self.owner_switches + u64::from(to.is_some());
        Self { owner: to, owner_switches: switches, counter: self.counter.next(), ..self.clone() }
    }

    /// The row after its owner committed the last of its work and gave the lease away, in one write.
    pub fn committed_and_handed_over(
        &self,
        checkpoint: Position,
        state: LeaseState,
        to: Option<WorkerId>,
    ) -> Self {
        Self { counter: self.counter.next(), ..self.progressed(checkpoint, state).handed_over(to) }
    }

    /// The row after its children became known.
    pub fn with_children(&self, children: BTreeSet<ShardId>) -> Self {
        Self { children, counter: self.counter.next(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{SequenceNumber, SubSequenceNumber};

    fn row() -> Lease {
        Lease::unowned(
            ShardId::new("shardId-000000000000"),
            Position::TrimHorizon,
            LeaseState::starting(None),
        )
    }

    #[test]
    fn every_change_raises_the_counter_by_one() {
        let row = row();
        let me = WorkerId::new("me");
        let state = LeaseState::starting(None);
        for next in [
            row.taken_by(&me),
            row.progressed(Position::TrimHorizon, state),
            row.handed_over(None),
            row.with_children(BTreeSet::new()),
            row.committed_and_handed_over(Position::TrimHorizon, LeaseState::starting(None), Some(me)),
        ] {
            assert_eq!(next.counter, LeaseCounter(1));
        }
    }

    #[test]
    fn owner_switches_count_until_a_commit() {
        let me = WorkerId::new("me");
        let taken = row().taken_by(&me);
        assert_eq!(taken.owner_switches, 1);
        assert_eq!(taken.taken_by(&me).owner_switches, 1);
        let at = Position::At(SequenceNumber::parse("7").unwrap(), SubSequenceNumber(0));
        let announced = taken.progressed(taken.checkpoint.clone(), LeaseState::starting(None));
        assert_eq!(announced.owner_switches, 1);
        assert_eq!(announced.progressed(at, LeaseState::starting(None)).owner_switches, 0);
    }

    #[test]
    fn a_take_ends_a_kcl_hand_off() {
        let row = Lease { checkpoint_owner: Some(WorkerId::new("kcl-old")), ..row() };
        assert_eq!(row.taken_by(&WorkerId::new("me")).checkpoint_owner, None);
    }
}
