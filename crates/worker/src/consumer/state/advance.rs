//! What is due now: the next row write, deliveries, the next read, the end of the session.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::{Batch, Cut, LeaseState, Position};
use tokio::time::Instant;

use super::{Command, Delivery, Finish, PendingWrite, ShardSession};
use crate::consumer::batcher::ClosedBy;
use crate::consumer::exclusion::{excluding, leaves_room};
use crate::consumer::replay::RecordsLost;

/// How stale the recorded caught-up time may get before it is written by itself: a quarter of the shortest
/// retention a stream can have (24 h, Kinesis quotas page), because a longer one may be shortened at any time.
const CAUGHT_UP_EVERY: Duration = Duration::from_secs(6 * 3_600);
impl ShardSession {
    pub(super) fn advance(&mut self, now: Instant) -> Vec<Command> {
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
        if let (false, Some(arrived)) = (self.asking, self.unjudged.iter().map(|(_, arrived)| *arrived).max())
        {
            self.asking = true;
            commands.push(Command::Judge { arrived });
        }
        commands.extend(self.next_write(now));
        while self.delivering.len() < self.policy.max_in_flight {
            let Some(batch) = self.ready.pop_front() else { break };
            self.conservation.hands_on(&batch);
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
        let wanted = if self.drain_deadline_passed(now) { 0 } else { self.room().min(self.judged()) };
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
    pub(super) fn is_idle(&self) -> bool {
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

    pub(super) fn note_arrival(&mut self, batch: &Batch) {
        if let Some(last) = batch.records.last() {
            self.last_arrivals.insert(batch.id.clone(), last.arrival());
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

    pub(super) fn finish(&mut self, finish: Finish) -> Vec<Command> {
        self.finished = true;
        vec![Command::Finish(finish)]
    }
}
