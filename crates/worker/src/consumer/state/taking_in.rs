//! What each event changes: records go to the replay or the batcher, writes and deliveries to the tracker.

use std::sync::Arc;

use sluicegate_checkpoint::record::weight_bytes;
use sluicegate_checkpoint::{ArrivalMillis, Batch, BatchId, Position, Record};
use sluicegate_sink::GroupSizes;
use tokio::time::Instant;

use super::{Delivery, Filled, PendingWrite, ShardSession};
use crate::consumer::batcher::{ClosedBy, is_behind};
use crate::consumer::replay::{RecordsLost, Replayed};
use crate::distribution::Judgement;
use crate::stream::RecordPage;

impl ShardSession {
    pub(super) fn on_page(&mut self, page: RecordPage, now: Instant) {
        self.reading = false;
        self.starved = false;
        if self.is_overtaken(&page) {
            return;
        }
        let begun_at = self.checkpoint.clone();
        let last = page.records.last().map(|record| record.sequence_number().clone());
        self.first_arrival =
            self.first_arrival.or_else(|| page.records.first().map(|record| record.arrival()));
        let before = self.flow.records;
        let mut records = page.records;
        if self.is_one_new_record(&records, &begun_at) {
            self.on_new_record(std::mem::take(&mut records), now);
        }
        for record in records {
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
        let next = page.records.first().map(|record| record.sequence_number());
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

    /// Whether these are the user records of one Kinesis record, and all are still to be stored.
    fn is_one_new_record(&self, records: &[Record], begun_at: &Position) -> bool {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return false };
        records.len() > 1
            && first.sequence_number() == last.sequence_number()
            && is_behind(first, begun_at)
            && self.replay.is_done()
    }

    fn on_new_record(&mut self, records: Vec<Record>, now: Instant) {
        let count = records.len();
        if let Some(first) = records.first() {
            self.flow.first.get_or_insert_with(|| first.sequence_number().clone());
        }
        self.flow.records += u64::try_from(count).unwrap_or(u64::MAX);
        let closed = self.batcher.push_all(records, now);
        self.keep(closed);
        // Behind what they closed: they are the first of the next batch then.
        (0..count).for_each(|_| self.conservation.fetched());
    }

    fn on_record(&mut self, record: Record, now: Instant) -> Result<(), RecordsLost> {
        match self.replay.push(record)? {
            Replayed::Kept => self.conservation.fetched(),
            Replayed::Passed => {}
            Replayed::Batch(batch) => {
                self.conservation.fetched();
                self.conservation.closed(batch.id.clone());
                self.weights.insert(batch.id.clone(), weight_bytes(&batch.records));
                self.note_arrival(&batch);
                self.ready.push_back(Arc::new(*batch));
            }
            Replayed::New(record) => {
                self.flow.first.get_or_insert_with(|| record.sequence_number().clone());
                self.flow.records += 1;
                let closed = self.batcher.push(*record, now);
                self.keep(closed);
                // Behind what it closed: it is the first of the next batch then.
                self.conservation.fetched();
            }
        }
        Ok(())
    }

    /// Decides what is left out of the closed batches that waited for it. What arrived later than was asked for waits on.
    pub(super) fn on_judged(&mut self, arrived: ArrivalMillis, judgement: Judgement) {
        self.asking = false;
        for batch in &mut self.closed {
            let Some((id, newest)) = self.unjudged.front() else { break };
            if *id != batch.id {
                continue;
            }
            if *newest > arrived {
                break;
            }
            if judgement == Judgement::LeftOut {
                self.judging.leave_out(Arc::make_mut(batch));
            }
            self.unjudged.pop_front();
        }
    }

    pub(super) fn on_recorded(&mut self) {
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

    pub(super) fn on_delivered(&mut self, id: &BatchId, revision: u32, groups: GroupSizes) {
        self.weights.remove(id);
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
        if delivery.parameters.without_judgement() == **self.batcher.parameters() {
            self.fill.learn(delivery.payload_bytes, groups);
            self.aim();
        }
    }
}
