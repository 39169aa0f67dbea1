//! What is counted of writing to the table: the budget, this worker's share of it, and what the governor saw.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Counter, Gauge, IntCounter, IntGauge};
use sluicegate_sink::governor::Flow;

use super::catalogue::Catalogue;

#[derive(Debug, Clone)]
pub(super) struct WriteMetrics {
    budget: Gauge,
    share: Gauge,
    rate: Gauge,
    demand: Gauge,
    limited: IntGauge,
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
                "Write capacity units a second that the whole fleet may use; 0 where there is no budget. Different on two workers: set write_budget_wcu alike.",
            )?,
            share: r.gauge(
                "write_share_units_per_second",
                "This worker's share of the budget, as it may be used now. 0 for long with demand: its heartbeats do not arrive, or others do not give up theirs.",
            )?,
            rate: r.gauge(
                "write_rate_units_per_second",
                "Rate at which this worker writes at most: its share, or what the table does not throttle; +Inf while nothing limits it.",
            )?,
            demand: r.gauge(
                "write_demand_units_per_second",
                "What this worker writes and what waits, spread over two seconds. Far above the share: the budget is what limits.",
            )?,
            limited: r.count(
                "write_limited",
                "1 while the table, or the write budget, is what limits this worker, or the table takes nothing: more workers do not help, more capacity does. 0: scale out, or see what else holds it up.",
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

    pub(super) fn budget(&self, total: f64, share: f64) {
        self.budget.set(total);
        self.share.set(share);
    }

    pub(super) fn flow(&self, flow: Flow, rate: Option<f64>, demand: f64) {
        self.rate.set(rate.unwrap_or(f64::INFINITY));
        self.demand.set(demand);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let fruitless = demand > 0.0 && flow.consumed <= shown.flow.consumed;
        shown.fruitless = if fruitless { shown.fruitless.saturating_add(1) } else { 0 };
        self.limited.set(i64::from(limited(rate, demand, shown.fruitless)));
        let Shown { flow: shown, .. } = &mut *shown;
        self.attempted.inc_by((flow.attempted - shown.attempted).max(0.0));
        self.accepted.inc_by((flow.consumed - shown.consumed).max(0.0));
        self.throttled.inc_by((flow.throttled - shown.throttled).max(0.0));
        self.attempts.inc_by(flow.attempts.saturating_sub(shown.attempts));
        self.throttled_attempts.inc_by(flow.throttled_attempts.saturating_sub(shown.throttled_attempts));
        *shown = flow;
    }
}

/// Whether what wants to be written exceeds what may be, or the table takes nothing of it.
fn limited(rate: Option<f64>, demand: f64, fruitless: u32) -> bool {
    let exceeds = rate.is_some_and(|rate| demand > 0.0 && demand >= rate * NEARLY);
    exceeds || fruitless >= FRUITLESS
}

/// Looks come every twentieth of failover_time: half of that without a unit taken is an outage.
const FRUITLESS: u32 = 10;

/// A governor leaves a little of its rate unused.
const NEARLY: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_is_limited_when_there_is_more_to_write_than_may_be_written() {
        assert!(limited(Some(100.0), 99.0, 0) && limited(Some(0.0), 1.0, 0));
        assert!(!limited(Some(100.0), 50.0, 0) && !limited(None, 1e9, 9) && !limited(Some(0.0), 0.0, 0));
    }

    #[test]
    fn writing_is_limited_while_the_table_takes_nothing_although_nothing_sets_a_rate() {
        let metrics = WriteMetrics::new(&Catalogue::default()).unwrap();
        let look = |consumed: f64, demand: f64| {
            metrics.flow(Flow { consumed, ..Flow::default() }, None, demand);
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
