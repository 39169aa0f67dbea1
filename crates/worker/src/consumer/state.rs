//! The state machine of one session on one shard: events in, commands out, no clock and no I/O.
//!
//! ```text
//!            amend cuts of a packing version this build lacks
//! new(row) ---------------------------------------------------> Amending --Written--+
//!    |                                                                              v
//!    +--------------------------------------------------------------------------> Working --Finish--> Over
//!
//! Working:  Read -> Page -> replay | batcher -> closed --Write--> announced --Deliver--> acknowledged --Write--> committed
//!                                                                    ^          | Poisoned
//!                                                                    +--Write---+ events excluded, next revision
//! ```
//! One row write at a time, and no delivery of a batch before the write that announced it was confirmed (law D2).
//! A commit is the longest acknowledged prefix (C2). What is announced and not committed when the session ends goes
//! with the row (R5).

mod advance;
mod messages;
mod taking_in;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::record::weight_bytes;
use sluicegate_checkpoint::{
    Announced, ArrivalMillis, Batch, BatchId, Cut, LeaseState, PackingParameters, Position, ShardId, Tracker,
};
use sluicegate_lease::{Lease, Shard};
use tokio::time::Instant;

pub use self::messages::{AcceptedGap, Command, Event, Filled, Finish, Flow, SessionPolicy};
use super::batcher::{Batcher, Closed, ClosedBy};
use super::conservation::{Conservation, Unaccounted};
use super::exclusion::Poisoned;
use super::fill::FillTarget;
use super::judgement::Judging;
use super::replay::{RecordsLost, Replay};
use super::retention::{Overtaken, RetentionWatch};
use crate::stream::ReadFrom;

/// A batch that the sink works on.
#[derive(Debug)]
struct Delivery {
    payload_bytes: usize,
    /// What it is packed with.
    parameters: Arc<PackingParameters>,
}

/// A row write that is not decided yet.
#[derive(Debug)]
enum PendingWrite {
    /// Cuts amended before anything of them is read.
    Amend,
    /// A cut marked as dropped.
    Drop,
    /// Events excluded from the first so many poisoned batches.
    Exclude { batches: usize },
    /// Batches announced, batches committed.
    Progress { announced: usize, committed: usize },
}

/// One session on one shard.
#[derive(Debug)]
pub struct ShardSession {
    shard: ShardId,
    policy: SessionPolicy,
    /// What the row says, as this session last read or wrote it.
    checkpoint: Position,
    state: LeaseState,
    /// What the row will say when the pending write is confirmed.
    pending: Option<(PendingWrite, Position, LeaseState)>,
    flow: Flow,
    /// Announced batches that the session found in its row.
    inherited: usize,
    /// An amendment that must be confirmed before anything is read.
    amendment: Option<LeaseState>,
    replay: Replay,
    batcher: Batcher,
    /// How large batches should be.
    fill: FillTarget,
    /// Why each batch of this session that is not stored yet was closed.
    closed_by: BTreeMap<BatchId, ClosedBy>,
    /// To be counted.
    filled: Vec<Filled>,
    tracker: Tracker,
    /// Closed, not announced.
    closed: VecDeque<Arc<Batch>>,
    /// Which user records are left out of them.
    judging: Judging,
    /// Closed batches of which nobody said yet whether something is left out, in order, and when the last such user
    /// record arrived: neither these nor what follows them is announced.
    unjudged: VecDeque<(BatchId, ArrivalMillis)>,
    /// Whether that is being asked.
    asking: bool,
    /// Announced, not yet handed to the sink.
    ready: VecDeque<Arc<Batch>>,
    /// The batches the sink works on.
    delivering: BTreeMap<BatchId, Delivery>,
    /// Announced, and not to be delivered again before some events are excluded.
    poisoned: Vec<Poisoned>,
    conservation: Conservation,
    /// Memory that each batch takes that is not durable yet, in bytes.
    weights: BTreeMap<BatchId, usize>,
    /// Arrival of the last record of each announced batch.
    last_arrivals: BTreeMap<BatchId, ArrivalMillis>,
    commit_due: Option<Instant>,
    caught_up: Option<ArrivalMillis>,
    /// Whether the last page ended at the tip, and the arrival of the first record of all.
    at_tip: bool,
    first_arrival: Option<ArrivalMillis>,
    reading: bool,
    /// Whether the read under way waits for memory.
    starved: bool,
    end: Option<Vec<Shard>>,
    draining: Option<Instant>,
    lost: Option<RecordsLost>,
    retention: RetentionWatch,
    /// Records that retention took: the end of the session, or a gap to be counted.
    overtaken: Option<Overtaken>,
    gaps: Vec<AcceptedGap>,
    restart: bool,
    finished: bool,
}

impl ShardSession {
    /// Begins from a row, which must be readable and have cuts that tile (checked by the caller).
    pub fn new(row: &Lease, state: LeaseState, policy: SessionPolicy) -> Self {
        let shard = row.key.clone();
        let newest = policy.packing_versions.last().copied().unwrap_or_default();
        let judging = Judging::of(policy.foreign_user_records, &policy.parameters, row.hash_range);
        let parameters = Arc::clone(judging.plain());
        let mut batcher = Batcher::new(shard.clone(), state.epoch, policy.cut, parameters, newest);
        let fill = FillTarget::new(policy.cut.max_bytes, policy.parameters.max_item_bytes);
        batcher.aim_at(fill.first(), ClosedBy::First);
        let covered_to = state.covered_to().max(policy.parents_covered);
        let resumes_at = match (state.cuts.first(), &row.checkpoint) {
            (Some(cut), _) => Some(cut.first.clone()),
            (None, Position::At(sequence_number, _)) => Some(sequence_number.clone()),
            (None, _) => None,
        };
        let retention = RetentionWatch::new(policy.retention, covered_to, resumes_at);
        let mut session = Self {
            fill,
            closed_by: BTreeMap::new(),
            filled: Vec::new(),
            replay: Replay::new(shard.clone(), state.epoch, []),
            batcher,
            checkpoint: row.checkpoint.clone(),
            amendment: amended(&state, &policy.packing_versions),
            shard,
            policy,
            state,
            pending: None,
            flow: Flow::default(),
            inherited: 0,
            tracker: Tracker::default(),
            closed: VecDeque::new(),
            judging,
            unjudged: VecDeque::new(),
            asking: false,
            ready: VecDeque::new(),
            delivering: BTreeMap::new(),
            poisoned: Vec::new(),
            conservation: Conservation::default(),
            weights: BTreeMap::new(),
            last_arrivals: BTreeMap::new(),
            commit_due: None,
            caught_up: None,
            at_tip: false,
            first_arrival: None,
            reading: false,
            starved: false,
            end: None,
            draining: None,
            lost: None,
            retention,
            overtaken: None,
            gaps: Vec::new(),
            restart: false,
            finished: false,
        };
        session.inherited = session.batches_to_redeliver();
        if session.amendment.is_none() {
            session.expect_announced();
        }
        session
    }

    /// Where to open the shard.
    pub fn read_from(&self) -> ReadFrom {
        if let Some(cut) = self.state.cuts.first() {
            return ReadFrom::At(cut.first.clone());
        }
        match &self.checkpoint {
            // AT, not AFTER: a sub-sequence position lies inside the record. What is finished is passed over.
            Position::At(sequence_number, _) => ReadFrom::At(sequence_number.clone()),
            Position::AtTimestamp => self.state.start.map_or(ReadFrom::TrimHorizon, ReadFrom::AtTimestamp),
            // No session begins at LATEST (`lease::open_start`); nothing is skipped if one does.
            Position::TrimHorizon | Position::Latest | Position::ShardEnd => ReadFrom::TrimHorizon,
        }
    }

    /// Memory that this session's records take, in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.weights.values().sum::<usize>() + self.batcher.weight_bytes() + self.replay.weight_bytes()
    }

    /// How many announced batches of earlier sessions are still to be delivered again.
    pub fn batches_to_redeliver(&self) -> usize {
        self.state.cuts.iter().filter(|cut| !cut.dropped).count()
    }

    /// What the row says, as this session last read or wrote it.
    pub fn checkpoint(&self) -> &Position {
        &self.checkpoint
    }

    /// Which shard this is.
    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// How many announced batches the session found in its row, to be delivered again.
    pub fn batches_of_earlier_sessions(&self) -> usize {
        self.inherited
    }

    /// What it has given to its batcher so far.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Arrival up to which everything is durable, while something is not, and how long the stream keeps what arrived then.
    pub fn at_risk_since(&self) -> Option<(ArrivalMillis, Duration)> {
        if self.at_tip && self.is_idle() && self.replay.is_done() {
            return None;
        }
        let durable_to = self.caught_up.max(self.state.covered_to()).or(self.first_arrival)?;
        Some((durable_to, self.policy.retention?))
    }

    /// Whether announced batches are being read again.
    pub fn is_replaying(&self) -> bool {
        !self.replay.is_done()
    }

    /// Gaps that were accepted since this was last asked: to be counted.
    pub fn accepted_gaps(&mut self) -> Vec<AcceptedGap> {
        std::mem::take(&mut self.gaps)
    }

    /// How full the batches are that were stored since this was last asked: to be counted.
    pub fn filled(&mut self) -> Vec<Filled> {
        std::mem::take(&mut self.filled)
    }

    /// Committed ranges of which not every record came out, since this was last asked (K1): none, ever.
    pub fn unaccounted(&mut self) -> Vec<Unaccounted> {
        self.conservation.take_unaccounted()
    }

    /// When [`ShardSession::on`] wants to be called with [`Event::Tick`].
    pub fn next_deadline(&self) -> Option<Instant> {
        // While a row write is outstanding its answer is what moves things on.
        let idle = self.pending.is_none();
        let commit = self.commit_due.filter(|_| idle && self.draining.is_none());
        let drain = self.draining.filter(|_| idle);
        let age = self.batcher.deadline().filter(|_| self.could_announce());
        [age, commit, drain].into_iter().flatten().min()
    }

    /// Takes in what happened and says what to do.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Command> {
        if self.finished {
            return Vec::new();
        }
        match event {
            Event::Page(page) => self.on_page(page, now),
            Event::Written(Announced::Recorded) => self.on_recorded(),
            Event::Written(Announced::Lost) => return self.finish(Finish::Lost),
            Event::Judged { arrived, judgement } => self.on_judged(arrived, judgement),
            Event::Delivered { id, revision, groups, outcomes } => {
                self.conservation.accounted(id.clone(), outcomes);
                self.on_delivered(&id, revision, groups);
            }
            Event::Poisoned { batch, events } => {
                self.delivering.remove(&batch.id);
                self.poisoned.push((batch, events));
            }
            Event::Drain { deadline } => self.draining = Some(deadline),
            Event::Starved => self.starved = true,
            Event::Tick => {}
        }
        let full = self.batcher.full();
        self.keep(full);
        if self.could_announce() {
            let aged = self.batcher.aged(now);
            self.keep(aged);
        }
        let undelivered = !self.ready.is_empty() || !self.delivering.is_empty() || !self.poisoned.is_empty();
        if self.starved && self.closed.is_empty() && !undelivered {
            self.close_open(ClosedBy::Memory);
        }
        self.advance(now)
    }

    fn close_open(&mut self, by: ClosedBy) {
        let closed = self.batcher.close(by);
        self.keep(closed);
    }

    /// Queues a batch that was closed, to be announced.
    fn keep(&mut self, closed: Option<Closed>) {
        let Some(Closed { mut batch, by }) = closed else { return };
        Judging::settle_version(&mut batch);
        if let Some(arrived) = self.judging.newest_foreign(&batch) {
            self.unjudged.push_back((batch.id.clone(), arrived));
        }
        self.closed_by.insert(batch.id.clone(), by);
        self.conservation.closed(batch.id.clone());
        self.weights.insert(batch.id.clone(), weight_bytes(&batch.records));
        self.aim();
        self.closed.push_back(Arc::new(batch));
    }

    fn aim(&mut self) {
        let by = if self.fill.is_sampling() { ClosedBy::First } else { ClosedBy::Size };
        self.batcher.aim_at(self.fill.target(), by);
    }

    /// How many batches more may be announced now, apart from those that are closed already.
    fn room(&self) -> usize {
        self.policy.max_in_flight.saturating_sub(self.tracker.len() - self.tracker.committable())
    }

    /// How many closed batches can be announced: all before the first that waits to be judged.
    fn judged(&self) -> usize {
        let first = self.unjudged.front();
        let waits = |batch: &Arc<Batch>| first.is_some_and(|(id, _)| *id == batch.id);
        self.closed.iter().position(waits).unwrap_or(self.closed.len())
    }

    /// Whether a batch that is closed now would be announced at once. While it would wait for others it had better grow:
    /// it is not stored a moment later for that.
    fn could_announce(&self) -> bool {
        self.closed.is_empty() && self.room() > 0
    }

    /// Takes the row's cuts as this session's work: their records come first.
    fn expect_announced(&mut self) {
        self.replay = Replay::new(self.shard.clone(), self.state.epoch, self.state.cuts.iter().cloned());
        for cut in &self.state.cuts {
            let id = cut.id(&self.shard, self.state.epoch);
            self.tracker.announce(id.clone(), cut.revision);
            if cut.dropped {
                self.tracker.acknowledge(&id, cut.revision);
            }
        }
        if let (Position::At(sequence_number, sub), true) = (&self.checkpoint, self.state.cuts.is_empty()) {
            self.batcher.begin_behind(sequence_number.clone(), *sub);
        }
    }
}

/// The state with every cut brought to a packing version that this build makes; `None` if all are.
fn amended(state: &LeaseState, versions: &[u32]) -> Option<LeaseState> {
    let newest = *versions.last()?;
    let lacks = |cut: &Cut| !cut.dropped && !versions.contains(&cut.packing_version);
    if !state.cuts.iter().any(lacks) {
        return None;
    }
    let amend = |cut: &Cut| if lacks(cut) { cut.amended_to_packing_version(newest) } else { cut.clone() };
    Some(LeaseState { cuts: state.cuts.iter().map(amend).collect(), ..state.clone() })
}

impl Delivery {
    fn of(batch: &Batch) -> Self {
        Self {
            payload_bytes: batch.records.iter().map(|record| record.data().len()).sum(),
            parameters: Arc::clone(&batch.cut.parameters),
        }
    }
}

#[cfg(test)]
mod tests;
