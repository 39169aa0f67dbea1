//! What is counted of writing to the table: the budget, this worker's share of it, and what the governor saw.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Counter, Gauge, IntCounter, Registry};
use sluicegate_sink::governor::Flow;

use super::added;

#[derive(Debug, Clone)]
pub(super) struct WriteMetrics {
    budget: Gauge,
    share: Gauge,
    rate: Gauge,
    demand: Gauge,
    attempted: Counter,
    throttled: Counter,
    attempts: IntCounter,
    throttled_attempts: IntCounter,
    /// What the counters show.
    shown: Arc<Mutex<Flow>>,
}

impl WriteMetrics {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| added(r, Gauge::new(format!("sluicegate_{name}"), help));
        let units = |name: &str, help: &str| added(r, Counter::new(format!("sluicegate_{name}"), help));
        let count = |name: &str, help: &str| added(r, IntCounter::new(format!("sluicegate_{name}"), help));
        Ok(Self {
            budget: gauge(
                "write_budget_units_per_second",
                "Write capacity units a second that the whole fleet may use; 0 where there is no budget.",
            )?,
            share: gauge(
                "write_share_units_per_second",
                "This worker's share of the budget, as it may be used now.",
            )?,
            rate: gauge(
                "write_rate_units_per_second",
                "Rate at which this worker writes at most: its share, or what the table does not throttle; +Inf while nothing limits it.",
            )?,
            demand: gauge(
                "write_demand_units_per_second",
                "What this worker writes and what waits, spread over two seconds. Far above the share: the budget is what limits.",
            )?,
            attempted: units(
                "write_units_attempted_total",
                "Estimated write capacity units of all attempts, retries included.",
            )?,
            throttled: units(
                "write_units_throttled_total",
                "Estimated write capacity units that the table refused. If it rises: the table has less than the budget, or a key is hot (raise spread).",
            )?,
            attempts: count("write_attempts_total", "Write requests.")?,
            throttled_attempts: count(
                "write_attempts_throttled_total",
                "Write requests of which the table refused something.",
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
        self.attempted.inc_by((flow.attempted - shown.attempted).max(0.0));
        self.throttled.inc_by((flow.throttled - shown.throttled).max(0.0));
        self.attempts.inc_by(flow.attempts.saturating_sub(shown.attempts));
        self.throttled_attempts.inc_by(flow.throttled_attempts.saturating_sub(shown.throttled_attempts));
        *shown = flow;
    }
}
