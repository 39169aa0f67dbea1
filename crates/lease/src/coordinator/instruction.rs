//! What a coordinator tells the supervisor, and why.

use sluicegate_checkpoint::ArrivalMillis;
use tokio::time::Instant;

use crate::model::{Lease, LeaseKey, WorkerId};
use crate::right::SessionRight;

/// What the supervisor is told to do.
#[derive(Debug, Clone)]
pub enum Instruction {
    /// Begin a session from this row: it was just taken, or it is ours and nobody works on it (rule R4).
    Begin {
        /// The row, as a take returned it or a strongly consistent read gave it.
        row: Box<Lease>,
        /// The right as it was before that row was read: a lapse since then ends the session.
        right: SessionRight,
        /// Since when nobody has read the shard, if somebody did before: for metrics.
        since: Option<(Interruption, Instant)>,
        /// For a shard that has not begun: what arrived before this time was its parents', as their rows tell.
        parents_covered: Option<ArrivalMillis>,
    },
    /// Finish the session and give the lease to this worker, or to nobody.
    HandOver {
        /// Which.
        key: LeaseKey,
        /// To whom.
        to: Option<WorkerId>,
        /// Where the new owner can be nudged.
        address: Option<String>,
        /// Why.
        why: GivenFor,
    },
    /// Somebody else owns the lease: end the session at once.
    Abandon {
        /// Which.
        key: LeaseKey,
    },
}

/// Why a shard changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// Its owner fell silent.
    Failover,
    /// Its owner handed it over.
    Handoff,
}

/// Why a worker gives a lease away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenFor {
    /// The plan gives it to another worker.
    Balance,
    /// The worker leaves.
    Leaving,
}

impl GivenFor {
    /// The word for it, in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::Leaving => "leaving",
        }
    }
}
