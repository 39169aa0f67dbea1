//! What a worker counts, for Prometheus. Names and help are the interface; `docs/` and alerts build on them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{Counter, Encoder, Gauge, TextEncoder};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use sluicegate_checkpoint::{ArrivalMillis, Batch, ShardId};
use sluicegate_lease::Interruption;
use sluicegate_sink::governor::{Flow as WriteFlow, RateStanding};
use tokio::time::Instant;

use crate::consumer::batcher::ClosedBy;
use crate::consumer::delivery::Durable;
use crate::consumer::state::{AcceptedGap, Filled, Flow};
use crate::deaggregate::is_kept_whole;
use crate::fleet::{OwnShard, Picture};
use crate::stream::RecordPage;
use crate::telemetry::wall_millis;
use crate::write_flow::BudgetSource;

mod catalogue;
mod fleet;
mod sessions;
mod write;

use catalogue::Catalogue;
pub use catalogue::Described;

/// All metrics of one worker, in a registry of their own.
#[derive(Debug, Clone)]
pub struct Metrics {
    catalogue: Catalogue,
    /// One scrape at a time: series that are made anew for each are whole in each.
    scrape: Arc<Mutex<()>>,
    availability: Histogram,
    records_read: IntCounter,
    events_read: IntCounter,
    aggregates_kept_whole: IntCounter,
    bytes_read: IntCounter,
    reads_failed: IntCounter,
    reads_refused: IntCounter,
    events_stored: IntCounter,
    events_filtered: IntCounter,
    events_foreign: IntCounterVec,
    given_up: IntCounterVec,
    events_unreadable: IntCounter,
    events_untimed: IntCounter,
    raw_bytes: IntCounter,
    stored_bytes: IntCounter,
    items_written: IntCounter,
    write_units: Counter,
    fallback_keys: IntCounter,
    dead_letters: IntCounter,
    unaccounted: IntGauge,
    batches: IntCounterVec,
    batch_fill: HistogramVec,
    sessions: IntCounterVec,
    records_lost: IntCounter,
    shards_lost: IntCounter,
    rows_made_again: IntCounter,
    holes: IntGauge,
    leases_held: IntGauge,
    heartbeats: IntCounter,
    ready: IntGauge,
    buffer_used: IntGauge,
    buffer_limit: IntGauge,
    table_requests: IntCounterVec,
    failover_gap: Histogram,
    handoff_gap: Histogram,
    until_data_loss: Gauge,
    book: sessions::SessionBook,
    fleet: fleet::FleetMetrics,
    write: write::WriteMetrics,
}

/// Buckets of the availability histogram in seconds: 20 a decade from 10 ms to 1,000 s, so that a quantile read off
/// them is within 6 % of the true one; and the promise.
fn availability_buckets() -> Vec<f64> {
    let mut buckets: Vec<f64> =
        (0..=100).map(|step| 0.01 * 10f64.powf(f64::from(step) / 20.0)).chain([300.0]).collect();
    buckets.sort_by(f64::total_cmp);
    buckets
}

/// Buckets of the gap histograms in seconds: 10 a decade from 10 ms to 100 s.
fn gap_buckets() -> Vec<f64> {
    (0..=40).map(|step| 0.01 * 10f64.powf(f64::from(step) / 10.0)).collect()
}

/// Buckets of the fill histogram: shares of the room that full items would have.
fn fill_buckets() -> Vec<f64> {
    (1..=20).map(|step| f64::from(step) / 20.0).collect()
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// Two metrics of one name: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let catalogue = Catalogue::default();
        let r = &catalogue;
        r.process()?;
        r.count("process_id", "Process id of the worker. A change without a rollout: it was started again; see its last log line.")?.set(i64::from(std::process::id()));
        let version = env!("CARGO_PKG_VERSION");
        let build = r.counts("build_info", "1, with the version of the build. More than one version for longer than a rollout: look for workers that were left behind.", &["version"])?;
        build.with_label_values(&[version]).set(1);
        let outcome = &["outcome"];
        // There from the beginning: a rate knows nothing of what was counted before a series was first seen.
        let all = |counters: IntCounterVec, outcomes: &[&str]| {
            outcomes.iter().for_each(|outcome| drop(counters.with_label_values(&[outcome])));
            counters
        };
        Ok(Self {
            availability: r.histogram(
                "availability_seconds",
                "Time from an event's arrival at Kinesis until it is durable in the sink. The promise is 300 s; a bucket ends there.",
                availability_buckets(),
            )?,
            records_read: r.counter("records_read_total", "Kinesis records read from the stream. Still, while the stream has traffic: see sluicegate_leases_held and the log.")?,
            events_read: r.counter(
                "events_read_total",
                "Events read: plain records, and user records of aggregated ones. Compare its rate with events_stored_total: a gap that lasts is a backlog.",
            )?,
            aggregates_kept_whole: r.counter(
                "aggregates_kept_whole_total",
                "Records that begin as an aggregate, cannot be taken apart, and count as one event. If it rises: a producer writes damaged aggregates.",
            )?,
            bytes_read: r.counter("bytes_read_total", "Payload bytes read from the stream. By sluicegate_records_read_total the size of a record, for sizing.")?,
            reads_failed: r.counter(
                "reads_failed_total",
                "Reads that failed and were repeated, those refused at a limit not counted. A steady rise: Kinesis is not reached; the log says why, once in 30 seconds for each shard.",
            )?,
            reads_refused: r.counter(
                "reads_refused_total",
                "Reads that were refused because a shard's 5 calls or 2 MiB a second were used up. One or two in a hundred is how a worker learns what other consumers leave; more: other consumers take nearly everything.",
            )?,
            events_stored: r.counter(
                "events_stored_total",
                "Events made durable; redelivered ones count again. If it stands still while sluicegate_fleet_freshness_max_seconds rises: see the log, nothing is stored.",
            )?,
            events_filtered: r.counter(
                "events_filtered_total",
                "Events left out because the filter does not keep them; redelivered ones count again.",
            )?,
            events_foreign: all(r.counters(
                "events_foreign_total",
                "User records left out because their hash key is not of their shard, by cause: sent_again (of an aggregate that the native KPL put, which sends them again), outside (foreign_user_records = drop, or a batch of an older build, whoever put them). Redelivered ones count again. A few after a split are right; a share that lasts: see what foreign_user_records should be in docs/guarantees.md.",
                &["cause"],
            )?, &["sent_again", "outside"]),
            given_up: all(r.counters(
                "given_up_total",
                "What accept_gap gave up, by what is counted: records (Kinesis records of announced batches that were gone), ranges (stretches of a shard that retention took before they were read, of which nobody knows how much they held). On any increase: events are lost; raise the stream's retention.",
                &["counted"],
            )?, &["records", "ranges"]),
            events_unreadable: r.counter(
                "events_unreadable_total",
                "Events that are no JSON for a filter, projection or reduction: kept as they are, or counted as such; redelivered ones count again. If it rises: see what is published.",
            )?,
            events_untimed: r.counter(
                "events_untimed_total",
                "Events without a time that reduce could read: counted and summed in the window null; redelivered ones count again. If it rises: the log names the unit of `reduce ... by FIELD as UNIT`.",
            )?,
            raw_bytes: r.counter(
                "raw_bytes_total",
                "Bytes of stored events as published; by sluicegate_stored_bytes_total it is the compression ratio.",
            )?,
            stored_bytes: r.counter("stored_bytes_total", "Bytes of the items written. By sluicegate_items_written_total well below max_item_bytes: docs/batching.md.")?,
            items_written: r.counter("items_written_total", "Items written to the sink. Events by items: how many share one; if it falls, see what aggregate_key names.")?,
            write_units: r.sum("write_units_total", "Write capacity units that durable batches consumed, retries included. By sluicegate_events_stored_total it is what an event costs.")?,
            fallback_keys: r.counter(
                "fallback_keys_total",
                "Events stored under the fallback key. If it rises: events lack what aggregate_key names.",
            )?,
            dead_letters: r.counter(
                "dead_letters_total",
                "Events that can never be stored and went to the dead letters; a redelivered one counts once. On any increase: sluicegate dead-letters list.",
            )?,
            unaccounted: r.count(
                "records_unaccounted",
                "Records of committed ranges by which what was counted at fetch differs from what was stored, filtered, foreign and dead-lettered (K1), or that came to one of these without a reason in what was recorded with them (K2). Anything but 0 is a bug in Sluicegate: keep the log and the stream's records.",
            )?,
            batches: all(r.counters(
                "batches_total",
                "Batches by outcome: delivered, redelivered, failed, poisoned (delivered again without some events), dropped. Failed ones that go on: the log says why.",
                outcome,
            )?, &["delivered", "redelivered", "failed", "poisoned", "dropped"]),
            batch_fill: r.histograms(
                "batch_fill_ratio",
                "Bytes of a stored batch's items by max_item_bytes for each, by why the batch was closed. Low: docs/batching.md.",
                fill_buckets(),
                &["closed_by"],
            )?,
            sessions: all(r.counters(
                "sessions_total",
                "Sessions on shards by how they ended: handed_over, shard_end, lost (another worker owns the lease), interrupted (the right lapsed; begun again), failed (the log names the shard and why).",
                outcome,
            )?, &["handed_over", "shard_end", "lost", "interrupted", "failed"]),
            records_lost: r.counter(
                "records_lost_total",
                "Announced batches whose records were gone, and times that retention had passed the place up to which a shard was read; each attempt counts. On any increase: raise the stream's retention, then decide on accept_gap.",
            )?,
            shards_lost: r.counter(
                "shards_lost_total",
                "Shards that the stream had forgotten before they were finished: what they held is lost. Any: find out why reading was later than the retention, and raise that.",
            )?,
            rows_made_again: r.counter(
                "lease_rows_made_again_total",
                "Lease rows that were missing and made again: what they had recorded is lost, and records may be stored twice. Find out who deletes rows.",
            )?,
            holes: r.count(
                "uncovered_hash_key_ranges",
                "Ranges of hash keys that no unfinished lease row covers, as of the last scan. Above 0 for a minute: rows are missing and are not made again; see the log.",
            )?,
            leases_held: r.count("leases_held", "Leases with a session here. 0 is right for a spare worker.")?,
            heartbeats: r.counter(
                "heartbeats_total",
                "Confirmed heartbeats. If it stands still: the worker table is not reached, and others take the shards over.",
            )?,
            ready: r.count(
                "ready",
                "What /readyz answers: 1 once the configuration, the credentials and the tables were good, 0 before and while the worker drains.",
            )?,
            buffer_used: r.count(
                "buffer_used_bytes",
                "Memory that the records of all shards of this worker take, from fetch to durable. Pages being read count as well. Near sluicegate_buffer_limit_bytes: reading waits for writing.",
            )?,
            buffer_limit: r.count("buffer_limit_bytes", "Most memory that records may take (buffer_bytes). If sluicegate_buffer_used_bytes stays near it while the table keeps up: raise buffer_bytes.")?,
            table_requests: r.counters(
                "table_requests_total",
                "Requests to DynamoDB by table (lease, worker, analytics, dead-letter), operation and outcome: ok, condition-failed (a lost race, normal on lease and worker), throttled (raise the table's capacity, or lower write_budget_wcu), error (see the log).",
                &["table", "operation", "outcome"],
            )?,
            failover_gap: r.histogram(
                "failover_gap_seconds",
                "From the last sign of life of a shard's silent owner, as this worker saw it, until the shard's first read here. Near failover_time is normal.",
                gap_buckets(),
            )?,
            handoff_gap: r.histogram(
                "handoff_gap_seconds",
                "From the last read by the worker that handed a shard over (told with the nudge; without one, from when it was last seen there) until its first read here. Seconds: workers do not reach each other's admin server.",
                gap_buckets(),
            )?,
            until_data_loss: r.gauge(
                "until_data_loss_seconds",
                "Time until retention takes the first record that this worker has not made durable; +Inf while all is. If it falls: see what holds up writing, or raise the stream's retention.",
            )?,
            book: sessions::SessionBook::new(r)?,
            fleet: fleet::FleetMetrics::new(r)?,
            write: write::WriteMetrics::new(r)?,
            scrape: Arc::default(),
            catalogue,
        })
    }

    /// How each metric is described, by name.
    pub fn described(&self) -> Vec<Described> {
        self.catalogue.described()
    }

    /// The metrics in Prometheus' text format, with the fleet as in the last picture.
    ///
    /// # Errors
    /// Encoding failed: a mistake in this file.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        self.text_with(None)
    }

    /// The metrics in Prometheus' text format, with the fleet as in this picture.
    ///
    /// # Errors
    /// Encoding failed: a mistake in this file.
    pub fn text_with(&self, picture: Option<&Picture>) -> prometheus::Result<Vec<u8>> {
        let _one_at_a_time = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.until_data_loss.set(self.book.until_data_loss(wall_millis()));
        self.book.show();
        if let Some(picture) = picture {
            self.fleet.show(picture);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.catalogue.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// What the sessions say of their shards.
    pub fn own_shards(&self) -> BTreeMap<ShardId, OwnShard> {
        self.book.own()
    }

    /// What `/readyz` answers.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// So many bytes of records are held of so many.
    pub fn buffer(&self, used: usize, limit: usize) {
        self.buffer_used.set(signed(used));
        self.buffer_limit.set(signed(limit));
    }

    /// A request to a table ended like this.
    pub fn table_request(&self, table: &str, operation: &str, outcome: &str) {
        self.table_requests.with_label_values(&[table, operation, outcome]).inc();
    }

    /// The metrics of one shard's session; dropped series vanish with it.
    pub fn shard(&self, shard: &ShardId) -> ShardMetrics {
        ShardMetrics(Arc::new(Shard { metrics: self.clone(), shard: shard.clone(), state: Mutex::default() }))
    }

    /// A session ended like this.
    pub fn session_ended(&self, outcome: &str) {
        self.sessions.with_label_values(&[outcome]).inc();
    }

    /// So many sessions run.
    pub fn leases_held(&self, count: usize) {
        self.leases_held.set(signed(count));
    }

    /// A shard was forgotten by the stream before it was finished.
    pub fn shard_lost(&self) {
        self.shards_lost.inc();
    }

    /// A lease row was missing and made again.
    pub fn row_made_again(&self) {
        self.rows_made_again.inc();
    }

    /// So many ranges of hash keys are covered by no unfinished row.
    pub fn holes(&self, count: usize) {
        self.holes.set(signed(count));
    }

    /// The fleet's write budget and this worker's share of it, in units per second, and where it comes from.
    pub fn write_budget(&self, total: f64, share: f64, source: BudgetSource) {
        self.write.budget(total, share, source);
    }

    /// The share of the write budget that was last set.
    pub fn write_share(&self) -> f64 {
        self.write.share()
    }

    /// What the governor saw so far, at which rate it writes and why, and the demand in units per second.
    pub fn write_flow(&self, seen: &WriteFlow, standing: &RateStanding, demand: f64, now: Instant) {
        self.write.flow(*seen, standing, demand, now);
    }

    /// A heartbeat was confirmed.
    pub fn heartbeat(&self) {
        self.heartbeats.inc();
    }
}

fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What one session counts.
#[derive(Debug, Clone)]
pub struct ShardMetrics(Arc<Shard>);

#[derive(Debug)]
struct Shard {
    metrics: Metrics,
    shard: ShardId,
    state: Mutex<SessionCounts>,
}

#[derive(Debug, Default)]
struct SessionCounts {
    redeliveries_left: usize,
    reading: Reading,
}

/// What a session has read, for the line that is logged at its end.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Wall time of the last page that held records.
    pub last_read: Option<ArrivalMillis>,
    /// Wall time of the last page, with or without any.
    pub last_asked: Option<ArrivalMillis>,
    /// What went to the batcher.
    pub flow: Flow,
}

impl Reading {
    /// For how long nobody has asked for records: what a shard stands still for begins there, not with its last record.
    pub fn unread(&self, now: ArrivalMillis) -> Option<Duration> {
        let asked = self.last_asked?;
        u64::try_from(now.0 - asked.0).ok().map(Duration::from_millis)
    }
}

impl ShardMetrics {
    /// Which shard.
    pub fn shard(&self) -> &ShardId {
        &self.0.shard
    }

    /// A session began, with so many batches of earlier sessions to deliver again.
    pub fn session_began(&self, redeliveries: usize) {
        self.counts().redeliveries_left = redeliveries;
    }

    /// A page was read and given to the batcher.
    pub fn read(&self, page: &RecordPage) {
        let metrics = &self.0.metrics;
        metrics.records_read.inc_by(unsigned(page.kinesis_records()));
        metrics.events_read.inc_by(unsigned(page.records.len()));
        let kept_whole = page.records.iter().filter(|record| is_kept_whole(record)).count();
        metrics.aggregates_kept_whole.inc_by(unsigned(kept_whole));
        metrics.bytes_read.inc_by(unsigned(page.records.iter().map(|record| record.data().len()).sum()));
        metrics.book.update(&self.0.shard, |entry| {
            entry.read = Some((page.behind_latest, page.as_of));
            entry.first_read.get_or_insert_with(wall_millis);
        });
        let (mut counts, now) = (self.counts(), wall_millis());
        counts.reading.last_asked = Some(now);
        if !page.records.is_empty() {
            counts.reading.last_read = Some(now);
        }
    }

    /// What the session has given to its batcher; returns whether these were its first records.
    pub fn flows(&self, flow: &Flow) -> bool {
        let mut counts = self.counts();
        let first = counts.reading.flow.records == 0 && flow.records > 0;
        if counts.reading.flow.records != flow.records {
            counts.reading.flow = flow.clone();
        }
        first
    }

    /// What the session has read so far.
    pub fn reading(&self) -> Reading {
        self.counts().reading.clone()
    }

    /// The shard's records flow again, so long after its owner before was silent or read for the last time.
    pub fn gap(&self, why: Interruption, gap: Duration) {
        let histogram = match why {
            Interruption::Failover => &self.0.metrics.failover_gap,
            Interruption::Handoff => &self.0.metrics.handoff_gap,
        };
        histogram.observe(gap.as_secs_f64());
    }

    /// A read failed.
    pub fn read_failed(&self) {
        self.0.metrics.reads_failed.inc();
    }

    /// A read was refused at a limit of the shard.
    pub fn read_refused(&self) {
        self.0.metrics.reads_refused.inc();
    }

    /// A batch is durable.
    pub fn delivered(&self, batch: &Batch, durable: &Durable) {
        let (metrics, delivered) = (&self.0.metrics, &durable.delivered);
        metrics.dead_letters.inc_by(durable.posted.new);
        let now = wall_millis();
        let availability = metrics.availability.local();
        for (arrival, events) in delivered.arrivals.iter() {
            let waited = Duration::from_millis(u64::try_from(now.0 - arrival.0).unwrap_or(0)).as_secs_f64();
            (0..events).for_each(|_| availability.observe(waited));
        }
        availability.flush();
        metrics.events_stored.inc_by(delivered.events);
        metrics.events_filtered.inc_by(delivered.filtered);
        let cause = if batch.cut.parameters.only_sent_again { "sent_again" } else { "outside" };
        metrics.events_foreign.with_label_values(&[cause]).inc_by(delivered.foreign);
        metrics.events_unreadable.inc_by(delivered.unreadable);
        metrics.events_untimed.inc_by(delivered.untimed.events);
        metrics.raw_bytes.inc_by(delivered.raw_bytes);
        metrics.stored_bytes.inc_by(delivered.stored_bytes);
        metrics.items_written.inc_by(delivered.items);
        metrics.write_units.inc_by(delivered.write_units.max(0.0));
        metrics.fallback_keys.inc_by(delivered.fallback_keys);
        let mut counts = self.counts();
        let outcome = if counts.redeliveries_left > 0 { "redelivered" } else { "delivered" };
        counts.redeliveries_left = counts.redeliveries_left.saturating_sub(1);
        metrics.batches.with_label_values(&[outcome]).inc();
    }

    /// How full the items of a batch are.
    pub fn filled(&self, filled: &Filled) {
        let Some(fill) = filled.ratio() else { return };
        let closed_by = filled.closed_by.map_or("earlier_session", ClosedBy::label);
        self.0.metrics.batch_fill.with_label_values(&[closed_by]).observe(fill);
    }

    /// Events of a batch can never be stored; it took so many write units to find them.
    pub fn poisoned(&self, write_units: f64) {
        self.0.metrics.write_units.inc_by(write_units.max(0.0));
        self.0.metrics.batches.with_label_values(&["poisoned"]).inc();
    }

    /// So many records of a committed range did not come out, or came out twice.
    pub fn unaccounted(&self, records: u64) {
        self.0.metrics.unaccounted.add(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// A delivery failed and is repeated.
    pub fn delivery_failed(&self) {
        self.0.metrics.batches.with_label_values(&["failed"]).inc();
    }

    /// Announced records were gone, or retention had passed the place up to which the shard was read.
    pub fn records_lost(&self) {
        self.0.metrics.records_lost.inc();
    }

    /// Records, or a stretch that nobody knows the records of, are given up as configured.
    pub fn given_up(&self, gap: &AcceptedGap) {
        let counters = &self.0.metrics.given_up;
        match gap {
            AcceptedGap::RecordsLost(lost) => counters.with_label_values(&["records"]).inc_by(lost.announced),
            AcceptedGap::Overtaken(_) => counters.with_label_values(&["ranges"]).inc(),
        }
    }

    /// An announced batch whose records were gone is marked as dropped.
    pub fn batch_dropped(&self) {
        self.0.metrics.batches.with_label_values(&["dropped"]).inc();
    }

    /// Up to when everything of the shard is durable, and how long the stream keeps what came then; none while all is.
    pub fn at_risk(&self, since: Option<(ArrivalMillis, Duration)>) {
        self.0.metrics.book.update(&self.0.shard, |entry| entry.at_risk = since);
    }

    /// So much memory is held.
    pub fn buffered(&self, bytes: usize) {
        self.0.metrics.book.update(&self.0.shard, |entry| entry.buffered = bytes);
    }

    fn counts(&self) -> MutexGuard<'_, SessionCounts> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.metrics.book.forget(&self.shard);
    }
}

fn unsigned(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_series_vanish_with_it() {
        let metrics = Metrics::new().unwrap();
        let shard = metrics.shard(&ShardId::new("shardId-000000000007"));
        shard.read(&RecordPage::default());
        let text = |metrics: &Metrics| String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text(&metrics).contains("shardId-000000000007"));
        drop(shard);
        assert!(!text(&metrics).contains("shardId-000000000007"));
    }

    #[test]
    fn a_shard_on_which_nothing_comes_is_read_all_the_while() {
        let shard = Metrics::new().unwrap().shard(&ShardId::new("a"));
        assert_eq!(shard.reading().unread(wall_millis()), None, "nobody has asked");
        shard.read(&RecordPage::default());
        let reading = shard.reading();
        let asked = reading.last_asked.unwrap();
        assert_eq!((reading.last_read, reading.flow.records), (None, 0));
        assert_eq!(reading.unread(ArrivalMillis(asked.0 + 250)), Some(Duration::from_millis(250)));
        assert_eq!(reading.unread(ArrivalMillis(asked.0 - 1)), None, "the clock was set back");
    }

    #[test]
    fn the_shard_that_is_next_to_lose_data_counts_until_it_is_durable() {
        let metrics = Metrics::new().unwrap();
        let (a, b) = (metrics.shard(&ShardId::new("a")), metrics.shard(&ShardId::new("b")));
        let now = ArrivalMillis(100_000);
        assert_eq!(metrics.book.until_data_loss(now), f64::INFINITY);
        a.at_risk(Some((ArrivalMillis(40_000), Duration::from_secs(3_600))));
        b.at_risk(Some((ArrivalMillis(90_000), Duration::from_secs(3_600))));
        assert_eq!(metrics.book.until_data_loss(now), 3_540.0);
        a.at_risk(None);
        assert_eq!(metrics.book.until_data_loss(now), 3_590.0);
        drop(b);
        assert_eq!(metrics.book.until_data_loss(now), f64::INFINITY);
    }
}
