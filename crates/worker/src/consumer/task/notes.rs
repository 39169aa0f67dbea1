//! What a session counts and tells of itself while it goes on.

use std::time::Duration;

use sluicegate_checkpoint::recurring::causes;
use sluicegate_checkpoint::{Batch, SequenceNumber};

use super::shell::Shell;
use crate::consumer::judgement::ForeignUserRecords;
use crate::consumer::state::ShardSession;
use crate::stream::{RecordPage, StreamError};
use crate::telemetry::wall_millis;

/// How often a shard's failed reads are told while they go on.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// How often it is told of a shard that events are left out that nobody asked to leave out.
const LEFT_OUT_EVERY: Duration = Duration::from_secs(3_600);

impl Shell {
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
        if foreign == 0 || self.foreign_user_records == ForeignUserRecords::Drop {
            return;
        }
        self.foreign_untold += foreign;
        let now = self.clock.now().saturating_duration_since(self.begun);
        if self.foreign_told.tell(now, LEFT_OUT_EVERY).is_none() {
            return;
        }
        let events = std::mem::take(&mut self.foreign_untold);
        let last = batch.id.to.as_str();
        tracing::warn!(
            lease_key = batch.id.shard.as_str(),
            events,
            last,
            "user records were left out: their hash keys are not of this shard, and the KPL that aggregated them sends them again; if another library put them, set foreign_user_records = keep"
        );
    }

    /// Says once in a while that records without a partition key share one aggregate key.
    pub(super) fn note_keyless(&mut self, page: &RecordPage) {
        if !self.aggregates_by_partition_key {
            return;
        }
        let keyless = page.records.iter().filter(|record| record.partition_key().is_empty()).count();
        if keyless == 0 {
            return;
        }
        let now = self.clock.now().saturating_duration_since(self.begun);
        if let Some(pages) = self.keyless_told.tell(now, LEFT_OUT_EVERY) {
            tracing::warn!(
                lease_key = self.metrics.shard().as_str(),
                records = keyless,
                pages_since = pages,
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
