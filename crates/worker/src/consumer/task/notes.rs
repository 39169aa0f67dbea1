//! What a session counts and tells of itself while it goes on.

use std::time::Duration;

use sluicegate_checkpoint::recurring::causes;
use sluicegate_checkpoint::{Batch, Record, Recurring, SequenceNumber};

use super::shell::Shell;
use crate::consumer::delivery::Durable;
use crate::consumer::judgement::ForeignUserRecords;
use crate::consumer::state::ShardSession;
use crate::stream::{RecordPage, StreamError};
use crate::telemetry::wall_millis;

/// How often a shard's failed reads are told while they go on.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// How often it is told of a shard what became of events otherwise than somebody may think.
const HOUR: Duration = Duration::from_secs(3_600);

/// Events of one cause, told once an hour with how many there were since the last time.
#[derive(Debug, Default)]
pub(super) struct Hourly {
    told: Recurring,
    events: u64,
}

impl Hourly {
    /// Counts events in; returns how many to tell of, if it is time.
    fn tell(&mut self, now: Duration, events: u64) -> Option<u64> {
        if events == 0 {
            return None;
        }
        self.events += events;
        self.told.tell(now, HOUR).map(|_batches| std::mem::take(&mut self.events))
    }
}

impl Shell {
    /// Tells of events that filter, fields or reduction could not read as configured.
    pub(super) fn note_unread(&mut self, batch: &Batch, durable: &Durable) {
        let now = self.clock.now().saturating_duration_since(self.begun);
        let (delivered, lease_key) = (&durable.delivered, batch.id.shard.as_str());
        let sequence_number = batch.id.first.as_str();
        if let Some(events) = self.unreadable.tell(now, delivered.unreadable) {
            tracing::warn!(
                lease_key,
                sequence_number,
                events,
                "events could not be read by filter, fields or reduce and were kept as they came; the batch named is the last one with such events"
            );
        }
        let letters = u64::try_from(delivered.dead_letters.len()).unwrap_or(u64::MAX);
        if let Some(events) = self.dead_letters.tell(now, letters) {
            tracing::warn!(
                lease_key,
                sequence_number,
                events,
                "events could not be read and went to the dead letters; sluicegate dead-letters list --cause unreadable shows them"
            );
        }
        if let Some(events) = self.untimed.tell(now, delivered.untimed.events) {
            let advice = delivered.untimed.unit.map_or_else(
                || {
                    "if times lack their offset, write `in` and a time zone behind the field of reduce"
                        .to_owned()
                },
                |unit| {
                    format!(
                        "a number among them is a time in {0}: write `as {0}` behind the field of reduce",
                        unit.name()
                    )
                },
            );
            tracing::warn!(
                lease_key,
                sequence_number,
                events,
                advice,
                "events had no time that reduce can read and were summed up without a window"
            );
        }
    }

    /// Counts records that are gone and given up as configured.
    pub(super) fn note_gaps(&self, session: &mut ShardSession) {
        for gap in session.accepted_gaps() {
            self.metrics.records_lost();
            self.metrics.given_up(&gap);
            tracing::error!(lease_key = session.shard().as_str(), error = %gap, "a gap is accepted");
        }
    }

    /// Counts how full the batches are that were stored.
    pub(super) fn note_fills(&self, session: &mut ShardSession) {
        for filled in session.filled() {
            self.metrics.filled(&filled);
        }
    }

    /// Counts records that went in and did not come out (K1), or came out twice.
    pub(super) fn note_unaccounted(&self, session: &mut ShardSession) {
        for range in session.unaccounted() {
            self.metrics.unaccounted(range.difference());
            let (first, last) = (range.id.first.as_str(), range.id.to.as_str());
            let (fetched, outcomes, reasons) = (range.fetched, range.outcomes, range.reasons);
            tracing::error!(
                lease_key = session.shard().as_str(),
                first,
                last,
                fetched,
                accounted = outcomes.sum(),
                stored = outcomes.stored,
                filtered = outcomes.filtered,
                foreign = outcomes.foreign,
                dead_lettered = outcomes.dead_lettered,
                ?reasons,
                "records of a committed range are not accounted for"
            );
        }
    }

    /// Says when the first records of the session have gone to the batcher: the shard flows.
    pub(super) fn note_flow(&self, session: &ShardSession) {
        let flow = session.flow();
        if !self.metrics.flows(flow) {
            return;
        }
        tracing::info!(
            lease_key = session.shard().as_str(),
            at_ms = wall_millis().0,
            sequence_number = flow.first.as_ref().map(SequenceNumber::as_str),
            redelivered = session.batches_of_earlier_sessions(),
            "records flow"
        );
    }

    /// Warns now and then of events that were left out although no setting asks for it.
    pub(super) fn note_foreign(&mut self, batch: &Batch, foreign: u64) {
        if self.foreign_user_records == ForeignUserRecords::Drop {
            return;
        }
        let now = self.clock.now().saturating_duration_since(self.begun);
        let Some(events) = self.foreign.tell(now, foreign) else { return };
        let last = batch.id.to.as_str();
        let lease_key = batch.id.shard.as_str();
        if batch.cut.parameters.only_sent_again {
            tracing::warn!(
                lease_key,
                events,
                last,
                "user records were left out: their hash keys are not of this shard, and the KPL that aggregated them sends them again; if another library put them, set foreign_user_records = keep"
            );
        } else {
            tracing::warn!(
                lease_key,
                events,
                last,
                "user records were left out because the rule that was announced with their batch is drop: their hash keys are not of this shard, and no other producer than the native KPL sends them again"
            );
        }
    }

    /// Says once in a while that records without a partition key share one aggregate key.
    pub(super) fn note_keyless(&mut self, page: &RecordPage) {
        if !self.aggregates_by_partition_key {
            return;
        }
        // A user record has the key that it was given in its aggregate, if that is none.
        let is_keyless = |record: &&Record| record.hash_key().is_none() && record.partition_key().is_empty();
        let keyless = page.records.iter().filter(is_keyless).count();
        let now = self.clock.now().saturating_duration_since(self.begun);
        if let Some(records) = self.keyless.tell(now, u64::try_from(keyless).unwrap_or(u64::MAX)) {
            tracing::warn!(
                lease_key = self.metrics.shard().as_str(),
                records,
                "records came without a partition key and are all stored under one fallback key; set aggregate_key to a template over a field of the events"
            );
        }
    }

    /// Every shard of a stream that is away fails alike: each is told now and then.
    pub(super) fn note_failed_read(&mut self, error: &StreamError, delay: Duration) {
        let now = self.clock.now().saturating_duration_since(self.begun);
        let (shard, error) = (self.metrics.shard(), causes(error));
        match self.failed_reads.tell(now, TELL_EVERY) {
            Some(since) => tracing::warn!(lease_key = shard.as_str(), error, since, "a read is repeated"),
            None => tracing::debug!(lease_key = shard.as_str(), error, ?delay, "a read is repeated"),
        }
    }

    /// A refusal now and then is how a shard's limits are learned; the metric counts them.
    pub(super) fn note_refused_read(&self, source: &(dyn std::error::Error + 'static), wait: Duration) {
        let (shard, error) = (self.metrics.shard(), causes(source));
        tracing::debug!(
            lease_key = shard.as_str(),
            error,
            ?wait,
            "GetRecords was refused at a limit of the shard"
        );
    }
}
