//! What is counted of writing to the table: the budget, this worker's share of it, and what the governor saw.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Counter, Gauge, GaugeVec, IntCounter, IntGauge};
use sluicegate_sink::governor::pace::RateReason;
use sluicegate_sink::governor::{Flow, RateStanding};
use tokio::time::Instant;

use super::catalogue::Catalogue;
use crate::write_flow::BudgetSource;

#[derive(Debug, Clone)]
pub(super) struct WriteMetrics {
    budget: Gauge,
    share: Gauge,
    rate: Gauge,
    demand: Gauge,
    limited: IntGauge,
    source: GaugeVec,
    reason: GaugeVec,
    reason_age: Gauge,
    waiting: Gauge,
    hot_keys: IntGauge,
    throttled_by_key: Counter,
    attempted: Counter,
    accepted: Counter,
    throttled: Counter,
    attempts: IntCounter,
    throttled_attempts: IntCounter,
    /// What the counters show.
    shown: Arc<Mutex<Shown>>,
}

#[derive(Debug, Default)]
struct Shown {
    flow: Flow,
    /// Looks in a row at which something waited and nothing had been taken since the one before.
    fruitless: u32,
}

impl WriteMetrics {
    pub(super) fn new(r: &Catalogue) -> prometheus::Result<Self> {
        Ok(Self {
            budget: r.gauge(
                "write_budget_units_per_second",
                "Write capacity units a second that the whole fleet may use; 0 where there is no budget. Different on two workers for long: set write_budget_wcu alike.",
            )?,
            share: r.gauge(
                "write_share_units_per_second",
                "This worker's share of the budget, as it may be used now. 0 for long with demand: its heartbeats do not arrive, or others do not give up theirs.",
            )?,
            rate: r.gauge(
                "write_rate_units_per_second",
                "Rate at which this worker writes at most: its share, or what the table does not refuse. sluicegate_write_rate_reason says which.",
            )?,
            demand: r.gauge(
                "write_demand_units_per_second",
                "What this worker writes and what waits, spread over two seconds. Far above the share: the budget is what limits.",
            )?,
            limited: r.count(
                "write_limited",
                "1 while the table, or the write budget, is what limits this worker, or the table takes nothing: more workers do not help, more capacity does. 0: scale out, or see what else holds it up.",
            )?,
            source: r.gauges(
                "write_budget_source",
                "1 for where the write budget comes from: setting, what the table says (provisioned, on_demand_maximum, warm_throughput), none where it is 0, untold where the table does not say or may not be asked.",
                &["source"],
            )?,
            reason: r.gauges(
                "write_rate_reason",
                "1 for why this worker writes at the rate that it does: share, beyond_share (the table takes more), searching (nothing was refused yet), refused (what it took when it last refused), told (by other workers), shut (it takes nothing), reopened.",
                &["reason"],
            )?,
            reason_age: r.gauge(
                "write_rate_reason_age_seconds",
                "How long that has been the reason.",
            )?,
            waiting: r.gauge(
                "write_waiting_units",
                "Estimated write capacity units of items that are packed and wait to become durable.",
            )?,
            hot_keys: r.count(
                "write_hot_keys",
                "Keys whose partitions refused within the last ten seconds, five at most. They are written at what their partitions take, and nobody waits for them; raise spread if it is one key.",
            )?,
            throttled_by_key: r.sum(
                "write_units_throttled_by_key_total",
                "Those of sluicegate_write_units_throttled_total that were put down to partitions: they slow down their keys alone.",
            )?,
            attempted: r.sum(
                "write_units_attempted_total",
                "Estimated write capacity units of all attempts, retries included. Far above sluicegate_write_units_accepted_total: the table refuses, or does not answer.",
            )?,
            accepted: r.sum(
                "write_units_accepted_total",
                "Write capacity units that the table says were consumed, request by request; sluicegate_write_units_total has them once their batch is durable. If it stands still while the demand does not: the table takes nothing.",
            )?,
            throttled: r.sum(
                "write_units_throttled_total",
                "Estimated write capacity units that the table refused. If it rises: the table has less than the budget, or a key is hot (raise spread).",
            )?,
            attempts: r.counter("write_attempts_total", "Write requests. Still, while sluicegate_write_demand_units_per_second is not: nothing may be written; see the share.")?,
            throttled_attempts: r.counter(
                "write_attempts_throttled_total",
                "Write requests of which the table refused something. Some are normal where no budget is set; many: set write_budget_wcu to what the table takes.",
            )?,
            shown: Arc::default(),
        })
    }

    pub(super) fn budget(&self, total: f64, share: f64, source: BudgetSource) {
        self.budget.set(total);
        self.share.set(share);
        for each in BudgetSource::ALL {
            self.source.with_label_values(&[each.as_str()]).set(f64::from(u8::from(each == source)));
        }
    }

    pub(super) fn share(&self) -> f64 {
        self.share.get()
    }

    pub(super) fn flow(&self, flow: Flow, standing: &RateStanding, demand: f64, now: Instant) {
        self.rate.set(standing.rate);
        self.demand.set(demand);
        self.waiting.set(standing.waiting);
        self.hot_keys.set(i64::try_from(standing.hot_keys.len()).unwrap_or(i64::MAX));
        for each in RateReason::ALL {
            self.reason.with_label_values(&[each.as_str()]).set(f64::from(u8::from(each == standing.reason)));
        }
        self.reason_age.set(now.saturating_duration_since(standing.since).as_secs_f64());
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let fruitless = demand > 0.0 && flow.consumed <= shown.flow.consumed;
        shown.fruitless = if fruitless { shown.fruitless.saturating_add(1) } else { 0 };
        self.limited.set(i64::from(limited(standing, demand, shown.fruitless)));
        let Shown { flow: shown, .. } = &mut *shown;
        self.attempted.inc_by((flow.attempted - shown.attempted).max(0.0));
        self.accepted.inc_by((flow.consumed - shown.consumed).max(0.0));
        self.throttled.inc_by((flow.throttled - shown.throttled).max(0.0));
        self.throttled_by_key.inc_by((flow.throttled_by_key - shown.throttled_by_key).max(0.0));
        self.attempts.inc_by(flow.attempts.saturating_sub(shown.attempts));
        self.throttled_attempts.inc_by(flow.throttled_attempts.saturating_sub(shown.throttled_attempts));
        *shown = flow;
    }
}

/// Whether what wants to be written exceeds what may be, or the table takes nothing of it. A rate that is still being searched
/// for limits nothing for long.
fn limited(standing: &RateStanding, demand: f64, fruitless: u32) -> bool {
    let searching = standing.reason == RateReason::Searching;
    let exceeds = !searching && demand > 0.0 && demand >= standing.rate * NEARLY;
    exceeds || fruitless >= FRUITLESS
}

/// Looks come every twentieth of failover_time: half of that without a unit taken is an outage.
const FRUITLESS: u32 = 10;

/// A governor leaves a little of its rate unused.
const NEARLY: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(rate: f64, reason: RateReason) -> RateStanding {
        RateStanding { rate, reason, since: Instant::now(), waiting: 0.0, hot_keys: Vec::new() }
    }

    #[test]
    fn writing_is_limited_when_there_is_more_to_write_than_may_be_written() {
        let at = |rate| standing(rate, RateReason::Share);
        assert!(limited(&at(100.0), 99.0, 0) && limited(&at(0.0), 1.0, 0));
        assert!(!limited(&at(100.0), 50.0, 0) && !limited(&at(0.0), 0.0, 0));
        assert!(!limited(&standing(100.0, RateReason::Searching), 1e9, 9), "it is on its way up");
    }

    #[test]
    fn writing_is_limited_while_the_table_takes_nothing_although_nothing_sets_a_rate() {
        let metrics = WriteMetrics::new(&Catalogue::default()).unwrap();
        let look = |consumed: f64, demand: f64| {
            let (flow, standing) =
                (Flow { consumed, ..Flow::default() }, standing(100.0, RateReason::Searching));
            metrics.flow(flow, &standing, demand, Instant::now());
            metrics.limited.get()
        };
        assert_eq!(look(100.0, 500.0), 0);
        let outage: Vec<i64> = (0..12).map(|_| look(100.0, 500.0)).collect();
        assert_eq!((outage[0], outage[8], outage[9], outage[11]), (0, 0, 1, 1));
        assert_eq!(look(101.0, 500.0), 0, "it takes something again");
        for _ in 0..12 {
            assert_eq!(look(101.0, 0.0), 0, "nothing waits");
        }
    }
}
