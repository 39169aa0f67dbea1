//! Shows the tracker what the coordinator reads and what the sessions say, and tells the heartbeat of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluicegate_checkpoint::ArrivalMillis;
use sluicegate_lease::heartbeat::EpochSeconds;
use sluicegate_lease::view::Look;
use sluicegate_lease::{Clock, FleetView, Lease, Listing, WorkerId, WorkerRow, WorkerStatus};
use tokio::sync::watch;

use super::picture::{Frame, Picture};
use super::tracker::{FleetTracker, Now};
use crate::budget::ByteBudget;
use crate::metrics::Metrics;
use crate::write_flow::BudgetSource;

/// What the watch works with.
pub(crate) struct FleetParts {
    pub(crate) application: String,
    pub(crate) me: WorkerId,
    pub(crate) failover_time: Duration,
    /// Says the write budget of the fleet, in units a second, and where it comes from.
    pub(crate) write_budget: Box<dyn Fn() -> (Option<f64>, BudgetSource) + Send + Sync>,
    /// Longest time between two reads of a shard that is caught up.
    pub(crate) idle_interval: Duration,
    pub(crate) clock: Clock,
    pub(crate) epoch_seconds: EpochSeconds,
    pub(crate) listed: watch::Receiver<Arc<Listing>>,
    pub(crate) metrics: Metrics,
    pub(crate) status: WorkerStatus,
    pub(crate) budget: Arc<ByteBudget>,
}

/// Keeps what this worker knows of the fleet.
pub(crate) struct FleetWatch {
    parts: FleetParts,
    tracker: Mutex<FleetTracker>,
}

impl FleetWatch {
    pub(crate) fn new(parts: FleetParts) -> Self {
        let tracker = Mutex::new(FleetTracker::new(parts.me.clone(), parts.failover_time, parts.clock.now()));
        Self { parts, tracker }
    }

    /// Takes in the worker rows of a look, and has the next heartbeat tell how this worker's shards are.
    pub(crate) fn on_workers(&self, rows: &[WorkerRow], look: Look) {
        let mut tracker = self.tracker();
        tracker.see_workers(rows, look);
        let now = self.now();
        self.see_own(&mut tracker, now);
        let behind = tracker.tell(now);
        drop(tracker);
        let backlog = u64::try_from(self.parts.budget.used()).unwrap_or(u64::MAX);
        self.parts.status.update(|row| {
            row.behind = behind;
            row.backlog_bytes = backlog;
        });
    }

    /// Takes in a view.
    pub(crate) fn on_view(&self, view: &FleetView) {
        self.tracker().see_view(view, self.now());
    }

    /// This worker begins to work on a shard.
    pub(crate) fn begun(&self, row: &Lease) {
        self.tracker().begun(row, self.now());
    }

    /// The fleet as this worker sees it now.
    pub(crate) fn picture(&self) -> Picture {
        let (write_budget, write_budget_source) = (self.parts.write_budget)();
        let frame = Frame {
            application: self.parts.application.clone(),
            retention: self.parts.listed.borrow().retention,
            write_budget,
            write_budget_source: write_budget_source.as_str(),
        };
        let now = self.now();
        let mut tracker = self.tracker();
        self.see_own(&mut tracker, now);
        tracker.picture(&frame, now)
    }

    /// Bytes of records that this worker holds, and how many it may hold.
    pub(crate) fn buffer(&self) -> (usize, usize) {
        (self.parts.budget.used(), self.parts.budget.total())
    }

    fn see_own(&self, tracker: &mut FleetTracker, now: Now) {
        let usual = self.parts.failover_time.max(self.parts.idle_interval * 3);
        tracker.own(&self.parts.metrics.own_shards(), usual, now);
    }

    fn now(&self) -> Now {
        let wall = ArrivalMillis((self.parts.epoch_seconds)().saturating_mul(1_000));
        Now { at: self.parts.clock.now(), wall }
    }

    fn tracker(&self) -> MutexGuard<'_, FleetTracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
