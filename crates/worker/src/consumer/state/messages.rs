//! What a session is told, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::{
    Announced, ArrivalMillis, Batch, BatchId, Exclusion, LeaseState, PackingParameters, Position,
    SequenceNumber,
};
use sluicegate_lease::Shard;
use sluicegate_sink::GroupSizes;
use thiserror::Error;
use tokio::time::Instant;

use crate::consumer::batcher::{ClosedBy, CutPolicy};
use crate::consumer::conservation::Outcomes;
use crate::consumer::judgement::ForeignUserRecords;
use crate::consumer::replay::RecordsLost;
use crate::consumer::retention::Overtaken;
use crate::distribution::Judgement;
use crate::stream::RecordPage;

/// What a session is told of its surroundings.
#[derive(Debug, Clone)]
pub struct SessionPolicy {
    /// When batches are closed.
    pub cut: CutPolicy,
    /// Most batches announced and not committed; 1 gives strict order.
    pub max_in_flight: usize,
    /// How long a commit waits for an announce to ride on.
    pub commit_delay: Duration,
    /// What new batches are packed with, but for the hash key range: that is the row's, where something is left out for it.
    pub parameters: Arc<PackingParameters>,
    /// What is done with user records whose hash key is not of the shard.
    pub foreign_user_records: ForeignUserRecords,
    /// Packing versions the sink makes, ascending; the last is for new cuts.
    pub packing_versions: Vec<u32>,
    /// Give up records that are gone, counted, instead of stopping.
    pub accept_gap: bool,
    /// How long the stream keeps records; without it no loss by retention is judged.
    pub retention: Option<Duration>,
    /// What arrived before this time was the parents', which are read: for a shard that has not begun.
    pub parents_covered: Option<ArrivalMillis>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A read gave this.
    Page(RecordPage),
    /// The outstanding row write was decided.
    Written(Announced),
    /// A batch is durable under a revision.
    Delivered {
        /// Which batch.
        id: BatchId,
        /// Under which revision.
        revision: u32,
        /// How it was stored.
        groups: GroupSizes,
        /// What became of its records.
        outcomes: Outcomes,
    },
    /// What becomes of user records that are not of the shard and arrived up to then.
    Judged {
        /// As it was asked.
        arrived: ArrivalMillis,
        /// What becomes of them.
        judgement: Judgement,
    },
    /// Events of a batch can never be stored.
    Poisoned {
        /// The batch.
        batch: Arc<Batch>,
        /// Which events; none that its cut excludes already.
        events: Vec<Exclusion>,
    },
    /// Finish, and hand over at the latest at this time.
    Drain {
        /// When to stop waiting for deliveries.
        deadline: Instant,
    },
    /// The next read waits for memory: what is open is better delivered than held.
    Starved,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Read the next page.
    Read,
    /// Write the row: one at a time.
    Write {
        /// The checkpoint to record.
        checkpoint: Position,
        /// The state to record.
        state: Box<LeaseState>,
    },
    /// Ask whether user records that are not of the shard, and arrived up to then, are left out: one question at a time.
    Judge {
        /// When the last of them arrived.
        arrived: ArrivalMillis,
    },
    /// Deliver an announced batch.
    Deliver(Arc<Batch>),
    /// The session is over; nothing more comes.
    Finish(Finish),
}

/// How a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// Drained: the lease can be given away, with whatever is still announced.
    HandOver {
        /// What the same write commits, if anything is left to commit.
        commit: Option<Box<(Position, LeaseState)>>,
    },
    /// The closed shard is read and durable; these are the children that its last page named.
    ShardEnd {
        /// As far as the stream named them.
        children: Vec<Shard>,
    },
    /// Somebody else owns the lease.
    Lost,
    /// Begin again from the row: a gap was accepted.
    Restart,
    /// Announced records are gone.
    RecordsLost(RecordsLost),
    /// Retention has passed the place up to which the shard was read.
    Overtaken(Overtaken),
}

/// Records that are given up as configured.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AcceptedGap {
    /// Those that retention took in front of a page.
    #[error(transparent)]
    Overtaken(#[from] Overtaken),
    /// Those of an announced cut, which is dropped.
    #[error(transparent)]
    RecordsLost(#[from] RecordsLost),
}

/// How full the items of a stored batch are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filled {
    /// Why the batch was closed; none if an earlier session closed it.
    pub closed_by: Option<ClosedBy>,
    /// Bytes of its items.
    pub stored_bytes: u64,
    /// Bytes that as many full items have.
    pub room_bytes: u64,
}

impl Filled {
    /// Stored bytes by room; none of a sink that fills no items.
    pub fn ratio(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "bytes of a batch are far below 2^53")]
        let ratio = (self.room_bytes > 0).then(|| self.stored_bytes as f64 / self.room_bytes as f64);
        ratio
    }
}

/// What a session has given to its batcher: announced batches that are read again are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow {
    /// The first record.
    pub first: Option<SequenceNumber>,
    /// The last record.
    pub last: Option<SequenceNumber>,
    /// How many user records there were.
    pub records: u64,
}
