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

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::{
    Announced, ArrivalMillis, Batch, BatchId, Cut, Exclusion, HashKeyRange, LeaseState, PackingParameters,
    Position, Record, SequenceNumber, ShardId, Tracker,
};
use sluicegate_lease::{Lease, Shard};
use sluicegate_sink::GroupSizes;
use thiserror::Error;
use tokio::time::Instant;

use super::batcher::{Batcher, Closed, ClosedBy, CutPolicy, is_behind};
use super::conservation::{Conservation, Unaccounted};
use super::exclusion::{Poisoned, excluding, leaves_room};
use super::fill::FillTarget;
use super::replay::{RecordsLost, Replay, Replayed};
use super::retention::{Overtaken, RetentionWatch};
use crate::stream::{ReadFrom, RecordPage};

/// What a session is told of its surroundings.
#[derive(Debug, Clone)]
pub struct SessionPolicy {
    /// When batches are closed.
    pub cut: CutPolicy,
    /// Most batches announced and not committed; 1 gives strict order.
    pub max_in_flight: usize,
    /// How long a commit waits for an announce to ride on.
    pub commit_delay: Duration,
    /// What new batches are packed with, but for the hash key range: that is the row's.
    pub parameters: Arc<PackingParameters>,
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
        /// Records that came out of it: packed, filtered or dead-lettered.
        accounted: u64,
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

/// A batch that the sink works on.
#[derive(Debug)]
struct Delivery {
    /// Memory that it takes.
    weight: usize,
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
    /// Announced, not yet handed to the sink.
    ready: VecDeque<Arc<Batch>>,
    /// The batches the sink works on.
    delivering: BTreeMap<BatchId, Delivery>,
    /// Announced, and not to be delivered again before some events are excluded.
    poisoned: Vec<Poisoned>,
    conservation: Conservation,
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

/// How stale the recorded caught-up time may get before it is written by itself: a quarter of the shortest
/// retention a stream can have (24 h, Kinesis quotas page), because a longer one may be shortened at any time.
const CAUGHT_UP_EVERY: Duration = Duration::from_secs(6 * 3_600);

impl ShardSession {
    /// Begins from a row, which must be readable and have cuts that tile (checked by the caller).
    pub fn new(row: &Lease, state: LeaseState, policy: SessionPolicy) -> Self {
        let shard = row.key.clone();
        let newest = policy.packing_versions.last().copied().unwrap_or_default();
        let parameters = of_shard(&policy.parameters, row);
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
            ready: VecDeque::new(),
            delivering: BTreeMap::new(),
            poisoned: Vec::new(),
            conservation: Conservation::default(),
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
        let poisoned = self.poisoned.iter().map(|(batch, _)| batch);
        let queued = self.closed.iter().chain(&self.ready).chain(poisoned);
        let queued = queued.map(|batch| weight(batch)).sum::<usize>();
        queued
            + self.delivering.values().map(|delivery| delivery.weight).sum::<usize>()
            + self.batcher.weight_bytes()
            + self.replay.weight_bytes()
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
            Event::Delivered { id, revision, groups, accounted } => {
                self.conservation.accounted(id.clone(), accounted);
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

    fn on_page(&mut self, page: RecordPage, now: Instant) {
        self.reading = false;
        self.starved = false;
        if self.is_overtaken(&page) {
            return;
        }
        let begun_at = self.checkpoint.clone();
        let last = page.records.last().map(|record| record.sequence_number.clone());
        self.first_arrival = self.first_arrival.or_else(|| page.records.first().map(|record| record.arrival));
        let before = self.flow.records;
        for record in page.records {
            if is_behind(&record, &begun_at)
                && let Err(lost) = self.on_record(record, now)
            {
                self.lost = Some(lost);
                return;
            }
        }
        if self.flow.records > before {
            self.flow.last = last;
        }
        self.at_tip = page.behind_latest.is_zero() || page.end.is_some();
        if self.at_tip {
            if let Err(lost) = self.replay.caught_up() {
                self.lost = Some(lost);
                return;
            }
            // Of a closed shard it would not say when its children began.
            if self.is_idle() && page.end.is_none() {
                self.caught_up = Some(page.as_of);
            }
        }
        self.end = page.end;
    }

    /// Whether retention took records in front of this page, and the session must not go on. Announced cuts are
    /// checked record by record; of dropped ones nothing is, and what retention took behind them shows here alone.
    fn is_overtaken(&mut self, page: &RecordPage) -> bool {
        let next = page.records.first().map(|record| &record.sequence_number);
        let overtaken = self.retention.see(page).filter(|_| self.replay.is_passed_by(next));
        let Some(overtaken) = overtaken else { return false };
        if !self.policy.accept_gap {
            self.overtaken = Some(overtaken);
            return true;
        }
        // No batch spans a gap: its count would not be that of its range.
        self.close_open(ClosedBy::Gap);
        self.caught_up = self.caught_up.max(Some(overtaken.kept_from));
        self.gaps.push(overtaken.into());
        false
    }

    fn on_record(&mut self, record: Record, now: Instant) -> Result<(), RecordsLost> {
        match self.replay.push(record)? {
            Replayed::Kept => self.conservation.fetched(),
            Replayed::Passed => {}
            Replayed::Batch(batch) => {
                self.conservation.fetched();
                self.conservation.closed(batch.id.clone());
                self.note_arrival(&batch);
                self.ready.push_back(Arc::new(*batch));
            }
            Replayed::New(record) => {
                self.flow.first.get_or_insert_with(|| record.sequence_number.clone());
                self.flow.records += 1;
                let closed = self.batcher.push(*record, now);
                self.keep(closed);
                // Behind what it closed: it is the first of the next batch then.
                self.conservation.fetched();
            }
        }
        Ok(())
    }

    fn on_recorded(&mut self) {
        let Some((write, checkpoint, state)) = self.pending.take() else { return };
        self.checkpoint = checkpoint;
        self.state = state;
        match write {
            PendingWrite::Amend => self.expect_announced(),
            PendingWrite::Drop => self.restart = true,
            PendingWrite::Exclude { batches } => self.deliver_amended(batches),
            PendingWrite::Progress { announced, committed } => {
                self.tracker.commit(committed);
                for batch in self.closed.drain(..announced) {
                    self.tracker.announce(batch.id.clone(), batch.cut.revision);
                    self.ready.push_back(batch);
                }
                self.commit_due = None;
            }
        }
    }

    /// The exclusions are recorded: their batches are delivered under the new revision, before any other.
    fn deliver_amended(&mut self, batches: usize) {
        for (batch, _) in self.poisoned.drain(..batches).rev() {
            let Some(cut) = self.state.cuts.iter().find(|cut| cut.first == batch.cut.first) else { continue };
            let amended = self.tracker.amend(&batch.id, cut.revision);
            debug_assert!(amended, "a batch that is not durable is tracked: {:?}", batch.id);
            let batch = Batch { cut: cut.clone(), ..Arc::unwrap_or_clone(batch) };
            self.ready.push_front(Arc::new(batch));
        }
    }

    fn on_delivered(&mut self, id: &BatchId, revision: u32, groups: GroupSizes) {
        if let Some(delivery) = self.delivering.remove(id) {
            self.note_fill(id, &delivery, groups);
        }
        let acknowledged = self.tracker.acknowledge(id, revision);
        debug_assert!(acknowledged, "a delivery of this session is tracked: {id:?}");
    }

    /// Counts how full a batch is, and aims at fuller ones. What other parameters made of a batch says nothing of how
    /// new ones will be stored.
    fn note_fill(&mut self, id: &BatchId, delivery: &Delivery, groups: GroupSizes) {
        let (item_bytes, closed_by) = (delivery.parameters.max_item_bytes, self.closed_by.remove(id));
        let room_bytes = groups.items() * u64::from(item_bytes);
        self.filled.push(Filled { closed_by, stored_bytes: groups.stored_bytes(), room_bytes });
        if delivery.parameters == *self.batcher.parameters() {
            self.fill.learn(delivery.payload_bytes, groups);
            self.aim();
        }
    }

    fn close_open(&mut self, by: ClosedBy) {
        let closed = self.batcher.close(by);
        self.keep(closed);
    }

    /// Queues a batch that was closed, to be announced.
    fn keep(&mut self, closed: Option<Closed>) {
        let Some(Closed { batch, by }) = closed else { return };
        self.closed_by.insert(batch.id.clone(), by);
        self.conservation.closed(batch.id.clone());
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

    fn advance(&mut self, now: Instant) -> Vec<Command> {
        if let Some(lost) = self.lost.clone() {
            return if self.pending.is_none() { self.on_lost(lost) } else { Vec::new() };
        }
        if let Some(overtaken) = self.overtaken.clone().filter(|_| self.pending.is_none()) {
            return self.finish(Finish::Overtaken(overtaken));
        }
        let mut commands = Vec::new();
        if self.is_closing() {
            let by = match (&self.end, &self.overtaken) {
                (Some(_), _) => ClosedBy::ShardEnd,
                (None, Some(_)) => ClosedBy::Gap,
                (None, None) => ClosedBy::Drain,
            };
            self.close_open(by);
        }
        self.note_commit_due(now);
        commands.extend(self.next_write(now));
        while self.delivering.len() < self.policy.max_in_flight {
            let Some(batch) = self.ready.pop_front() else { break };
            self.delivering.insert(batch.id.clone(), Delivery::of(&batch));
            commands.push(Command::Deliver(batch));
        }
        if let Some(finish) = self.finish_due(now) {
            commands.extend(self.finish(finish));
            return commands;
        }
        if self.wants_to_read() {
            self.reading = true;
            commands.push(Command::Read);
        }
        commands
    }

    /// Whether nothing more is read: what is open is closed whatever its size.
    fn is_closing(&self) -> bool {
        self.draining.is_some() || self.end.is_some() || self.overtaken.is_some()
    }

    fn wants_to_read(&self) -> bool {
        let waiting = self.closed.len() + self.delivering.len() + self.poisoned.len();
        let replaying = !self.replay.is_done();
        let amending = matches!(self.pending, Some((PendingWrite::Amend, ..)));
        !self.reading
            && !self.is_closing()
            && !amending
            && (replaying || waiting <= self.policy.max_in_flight)
    }

    fn note_commit_due(&mut self, now: Instant) {
        if self.tracker.committable() > 0 && self.commit_due.is_none() {
            self.commit_due = Some(now + self.policy.commit_delay);
        }
    }

    /// The next row write, if one is due and none is outstanding.
    fn next_write(&mut self, now: Instant) -> Option<Command> {
        if self.pending.is_some() {
            return None;
        }
        if let Some(state) = self.amendment.take() {
            return Some(self.write(PendingWrite::Amend, self.checkpoint.clone(), state));
        }
        if !self.poisoned.is_empty() && !self.drain_deadline_passed(now) {
            let state = excluding(&self.state, &self.poisoned);
            let batches = self.poisoned.len();
            return Some(self.write(PendingWrite::Exclude { batches }, self.checkpoint.clone(), state));
        }
        let committed = self.tracker.committable();
        let wanted = if self.drain_deadline_passed(now) { 0 } else { self.room().min(self.closed.len()) };
        let announced = self.fitting(wanted, committed);
        // A session that drains commits with its last write, the hand-over.
        let commit_due = self.commit_due.is_some_and(|due| due <= now) || self.end.is_some();
        let due_now = commit_due && self.draining.is_none();
        let commit_now = committed > 0 && (due_now || announced < wanted);
        if announced == 0 && !commit_now && !self.caught_up_is_stale() {
            return None;
        }
        let (checkpoint, state) = self.progress(announced, committed);
        Some(self.write(PendingWrite::Progress { announced, committed }, checkpoint, state))
    }

    /// How many closed batches can be announced so that the state stays within its bound. Cuts of earlier sessions carry
    /// their own parameters, and several sets of them fill a row; what does not fit waits until cuts are committed.
    fn fitting(&self, wanted: usize, committed: usize) -> usize {
        let left = self.state.cuts.get(committed..).unwrap_or_default();
        let fits = |announced: &usize| {
            let new = self.closed.iter().take(*announced).map(|batch| &batch.cut);
            let cuts = left.iter().chain(new).cloned().collect();
            leaves_room(&LeaseState { cuts, ..self.state.clone() })
        };
        // A single cut always fits. Should it not, its write says so.
        let least = usize::from(left.is_empty()).min(wanted);
        (least + 1..=wanted).rev().find(fits).unwrap_or(least)
    }

    /// What the row says after announcing the first `announced` closed batches and committing `committed`.
    fn progress(&mut self, announced: usize, committed: usize) -> (Position, LeaseState) {
        for index in 0..announced {
            let batch = Arc::clone(&self.closed[index]);
            self.note_arrival(&batch);
        }
        let mut state = self.state.clone();
        let done: Vec<Cut> = state.cuts.drain(..committed).collect();
        let checkpoint = done.last().map_or_else(|| self.checkpoint.clone(), Cut::end);
        for cut in &done {
            let id = cut.id(&self.shard, state.epoch);
            self.conservation.committed(&id);
            let arrival = self.last_arrivals.remove(&id);
            state.checkpoint_arrival = arrival.or(state.checkpoint_arrival);
        }
        if !done.is_empty() && self.checkpoint.is_start() && state.checkpoint_arrival.is_some() {
            // The time that the row was born with may be later than what it holds: its records tell from now on. Of
            // dropped batches none is known.
            state.caught_up = None;
        }
        state.cuts.extend(self.closed.iter().take(announced).map(|batch| batch.cut.clone()));
        state.follows = Some(checkpoint.clone());
        state.caught_up = self.caught_up.or(state.caught_up);
        (checkpoint, state)
    }

    /// Whether everything that was read is durable and committed.
    fn is_idle(&self) -> bool {
        self.batcher.is_empty() && self.closed.is_empty() && self.tracker.is_empty()
    }

    fn caught_up_is_stale(&self) -> bool {
        let recorded = self.state.covered_to().map_or(0, |at| at.0);
        let every = self.policy.retention.map_or(CAUGHT_UP_EVERY, |length| CAUGHT_UP_EVERY.min(length / 4));
        let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
        self.caught_up.is_some_and(|now| now.0 - recorded > every)
    }

    fn write(&mut self, write: PendingWrite, checkpoint: Position, state: LeaseState) -> Command {
        let command = Command::Write { checkpoint: checkpoint.clone(), state: Box::new(state.clone()) };
        self.pending = Some((write, checkpoint, state));
        command
    }

    fn note_arrival(&mut self, batch: &Batch) {
        if let Some(last) = batch.records.last() {
            self.last_arrivals.insert(batch.id.clone(), last.arrival);
        }
    }

    fn drain_deadline_passed(&self, now: Instant) -> bool {
        self.draining.is_some_and(|deadline| deadline <= now)
    }

    fn finish_due(&mut self, now: Instant) -> Option<Finish> {
        if self.pending.is_some() {
            return None;
        }
        if self.restart {
            return Some(Finish::Restart);
        }
        let undelivered = !self.ready.is_empty() || !self.delivering.is_empty() || !self.poisoned.is_empty();
        let working = !self.closed.is_empty() || undelivered;
        let committable = self.tracker.committable();
        if self.draining.is_some() && (!working || self.drain_deadline_passed(now)) {
            let commit = (committable > 0).then(|| Box::new(self.progress(0, committable)));
            return Some(Finish::HandOver { commit });
        }
        if working || committable > 0 {
            return None;
        }
        let children = self.end.clone()?;
        self.tracker.is_empty().then_some(Finish::ShardEnd { children })
    }

    /// Announced records are gone: stop, or mark the cut as dropped by one conditional write and begin again.
    fn on_lost(&mut self, lost: RecordsLost) -> Vec<Command> {
        if !self.policy.accept_gap {
            return self.finish(Finish::RecordsLost(lost));
        }
        // Counted now: a session that is interrupted while it writes never hears that its cut is dropped.
        self.gaps.push(lost.clone().into());
        self.lost = None;
        let mut state = self.state.clone();
        for cut in &mut state.cuts {
            if cut.first == lost.first && !cut.dropped {
                cut.dropped = true;
                cut.revision += 1;
            }
        }
        if let Some(passed) = self.retention.passed() {
            // Retention is known to have passed the batch, whatever time the row was born with.
            state.caught_up = Some(state.caught_up.map_or(passed, |time| time.min(passed)));
        }
        let write = self.write(PendingWrite::Drop, self.checkpoint.clone(), state);
        vec![write]
    }

    fn finish(&mut self, finish: Finish) -> Vec<Command> {
        self.finished = true;
        vec![Command::Finish(finish)]
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

/// What new batches of a shard are packed with: the configured parameters and the hash keys that the row covers. The
/// whole range leaves nothing out and is not worth its bytes in the row.
fn of_shard(parameters: &Arc<PackingParameters>, row: &Lease) -> Arc<PackingParameters> {
    let hash_range = row.hash_range.filter(|range| *range != HashKeyRange::ALL);
    if hash_range == parameters.hash_range {
        return Arc::clone(parameters);
    }
    Arc::new(PackingParameters { hash_range, ..PackingParameters::clone(parameters) })
}

impl Delivery {
    fn of(batch: &Batch) -> Self {
        Self {
            weight: weight(batch),
            payload_bytes: batch.records.iter().map(|record| record.data.len()).sum(),
            parameters: Arc::clone(&batch.cut.parameters),
        }
    }
}

fn weight(batch: &Batch) -> usize {
    batch.records.iter().map(Record::weight_bytes).sum()
}

#[cfg(test)]
mod tests;
