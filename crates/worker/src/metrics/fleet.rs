//! The whole fleet as this worker sees it: the same from every worker, so that nothing vanishes with a dead one.
//!
//! Combine them over workers by `max`, never by `sum`.

use prometheus::{Counter, Gauge, GaugeVec, IntGauge, IntGaugeVec};

use super::catalogue::Catalogue;
use crate::fleet::Picture;
use crate::fleet::picture::AGES;

#[derive(Debug, Clone)]
pub(super) struct FleetMetrics {
    workers: IntGaugeVec,
    shards: IntGauge,
    unowned: IntGauge,
    late: IntGauge,
    freshness_max: Gauge,
    freshness_shards: IntGaugeVec,
    freshness: GaugeVec,
    until_data_loss: Gauge,
    orphaned: Counter,
    view_age: Gauge,
}

impl FleetMetrics {
    pub(super) fn new(r: &Catalogue) -> prometheus::Result<Self> {
        Ok(Self {
            workers: r.counts(
                "fleet_workers",
                "Workers of the fleet by state, as this worker sees them: active, draining, or silent (its heartbeat has stood still for failover_time). Silent ones: find out why the process died; their shards are taken over by themselves.",
                &["state"],
            )?,
            shards: r.count("fleet_shards", "Unfinished shards of the whole fleet.")?,
            unowned: r.count(
                "fleet_shards_unowned",
                "Unfinished shards that could be worked on and have no live owner. Above 0 for longer than failover_time and a few seconds: no worker has room (max_leases_per_worker), or none is there; start more.",
            )?,
            late: r.count(
                "fleet_shards_late",
                "Shards with something that arrived more than 300 s ago and is not durable, of the whole fleet. Above 0: see sluicegate_write_limited and sluicegate_fleet_shards_unowned for what holds it up.",
            )?,
            freshness_max: r.gauge(
                "fleet_freshness_max_seconds",
                "Age of the oldest that is not durable, over all shards of the fleet; 0 if all are caught up. The promise is 300; above it: `sluicegate leases list` shows which shards, and whether they have an owner.",
            )?,
            freshness_shards: r.counts(
                "fleet_freshness_shards",
                "How many shards of the fleet have nothing older than at_most seconds that is not durable: a snapshot, cumulative.",
                &["at_most"],
            )?,
            freshness: r.gauges(
                "fleet_freshness_seconds",
                "Age of the oldest that is not durable in a shard, of the 50 worst shards of the fleet; none of those that are caught up.",
                &["shard"],
            )?,
            until_data_loss: r.gauge(
                "fleet_until_data_loss_seconds",
                "Least time until retention takes something that is not durable, over the whole fleet; +Inf if all is durable. If it falls below a few hours: raise the stream's retention at once, then see what holds up writing.",
            )?,
            orphaned: r.sum(
                "orphaned_shard_seconds_total",
                "Shard-seconds without a live owner as this worker saw them, from the owner's last sign of life to a new owner. A jump at each kill is what failover costs; a steady rise: shards that nobody takes.",
            )?,
            view_age: r.gauge(
                "fleet_view_age_seconds",
                "Time since this worker last read the worker rows: its fleet metrics tell of workers as of then. Above failover_time: it does not reach its tables, and others take its shards over; believe another worker, and look at its log and its way to DynamoDB. On all workers at once: DynamoDB itself, or who may read the tables.",
            )?,
        })
    }

    /// Shows a picture: only while one scrape at a time is made.
    pub(super) fn show(&self, picture: &Picture) {
        let totals = &picture.totals;
        for (state, count) in [
            ("active", totals.workers_active),
            ("draining", totals.workers_draining),
            ("silent", totals.workers_silent),
        ] {
            self.workers.with_label_values(&[state]).set(super::signed(count));
        }
        self.shards.set(super::signed(totals.shards));
        self.unowned.set(super::signed(totals.shards_unowned));
        self.late.set(super::signed(totals.shards_late));
        self.freshness_max.set(totals.freshness_max_seconds);
        for (bound, count) in AGES.iter().zip(totals.ages) {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            self.freshness_shards.with_label_values(&[bound.as_str()]).set(super::signed(count));
        }
        self.freshness.reset();
        for (shard, age) in picture.worst() {
            self.freshness.with_label_values(&[shard]).set(age);
        }
        self.until_data_loss.set(totals.until_data_loss_seconds.unwrap_or(f64::INFINITY));
        self.view_age.set(picture.last_read_seconds);
        self.orphaned.inc_by((totals.orphaned_shard_seconds - self.orphaned.get()).max(0.0));
    }
}
