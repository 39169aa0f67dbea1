//! How the fleet's write budget is divided, and how much of it this worker may use now. Law F1: what all workers use
//! never sums above the budget.
//!
//! Everybody divides the same rows in the same way, so the parts sum to exactly the budget ([`shares`]). But rows are
//! read at different moments, so a part is not used at once:
//!
//! ```text
//! lower: used falls at once ........................ the lower grant is published with the next heartbeat
//! raise: the higher grant is published ... a later strong read: used rises to what the others' grants leave free
//! ```
//! A worker never uses more than the lowest of its grants that the table holds or may come to hold, and raises only by
//! what the others' published grants leave free in a read that showed its own newest row. The last raise of anybody
//! therefore saw a sum of at most the budget, and since then uses have only fallen. A silent worker's grant counts until
//! its right is over, judged on the counter in the very row that this read returned; a worker whose right ended, or
//! that starts, uses nothing until it has raised.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::WorkerRow;
use crate::model::WorkerId;
use crate::view::Look;

/// What is divided. Units are thousandths of a write capacity unit per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteBudget {
    /// What the whole fleet may write.
    pub total_milli: u64,
    /// What each worker gets whatever its demand, so that a burst finds something to begin with.
    pub floor_milli: u64,
}

impl WriteBudget {
    /// A budget in write capacity units per second, with a floor of a two-hundredth of it.
    pub fn of_units(units: u64) -> Self {
        let total_milli = units.saturating_mul(1_000);
        Self { total_milli, floor_milli: total_milli / 200 }
    }

    /// The whole budget in write capacity units per second.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 thousandths of a unit")]
    pub fn units(self) -> f64 {
        self.total_milli as f64 / 1_000.0
    }
}

/// What a worker is sure of if it asks for it, in tenths of an equal part. *Were everything divided by demand*, one with a
/// little to write beside others with much would wait for it for as long as they do (law R6).
const EQUAL_TENTHS: u64 = 6;

/// Divides a budget among workers: to each what it asks for, up to six tenths of an equal part, and the floor at least (none,
/// if there are too many for it); the rest in proportion to demand, or equally where nobody has any; rounded down, and what
/// rounding left to the first in order. The parts sum to exactly the budget.
pub fn shares(budget: WriteBudget, demands: &BTreeMap<WorkerId, u64>) -> BTreeMap<WorkerId, u64> {
    let count = u64::try_from(demands.len()).unwrap_or(u64::MAX);
    if count == 0 {
        return BTreeMap::new();
    }
    let floors = count.checked_mul(budget.floor_milli).filter(|floors| *floors <= budget.total_milli);
    let floor = if floors.is_some() { budget.floor_milli } else { 0 };
    let sure = (budget.total_milli / 10 * EQUAL_TENTHS / count).max(floor);
    let base = |demand: u64| demand.clamp(floor, sure);
    let bases: u64 = demands.values().map(|demand| base(*demand)).sum();
    let rest = u128::from(budget.total_milli.saturating_sub(bases));
    let all: u128 = demands.values().map(|demand| u128::from(*demand)).sum();
    let part = |demand: u64| match all {
        0 => rest / u128::from(count),
        all => rest * u128::from(demand) / all,
    };
    let mut left = rest - demands.values().map(|demand| part(*demand)).sum::<u128>();
    let mut shares = BTreeMap::new();
    for (worker, demand) in demands {
        let extra = u128::from(left > 0);
        left -= extra;
        let share = u64::try_from(part(*demand) + extra).unwrap_or(u64::MAX);
        shares.insert(worker.clone(), base(*demand).saturating_add(share));
    }
    shares
}

/// Called with what may be used, whenever that changes.
pub type OnUse = Box<dyn Fn(u64) + Send + Sync>;

/// This worker's grant: shared by the heartbeat, which publishes it, and whoever reads the fleet's rows.
pub struct Grant {
    state: Mutex<State>,
    on_use: OnUse,
}

#[derive(Debug, Default)]
struct State {
    /// What may be used.
    used: u64,
    /// What the next heartbeat publishes; never below `used`.
    wanted: u64,
    /// The newest heartbeat that was sent, with its grant.
    sent: Option<(u64, u64)>,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Grant").field(&self.state()).finish()
    }
}

impl Grant {
    /// A grant of nothing.
    pub fn new(on_use: OnUse) -> Self {
        on_use(0);
        Self { state: Mutex::default(), on_use }
    }

    /// What may be used now.
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// What a heartbeat that is about to be sent publishes.
    pub fn publish(&self, heartbeat: u64) -> u64 {
        let mut state = self.state();
        state.sent = Some((heartbeat, state.wanted));
        state.wanted
    }

    /// The right of this worker ended, or its row was gone: others may have counted its grant as free.
    pub fn lapse(&self) {
        let mut state = self.state();
        state.wanted = 0;
        self.use_now(&mut state, 0);
    }

    /// Takes in what a read showed: this worker's own row, what the others' grants leave free, and the part that is due.
    /// Returns whether there is something new to publish.
    fn settle(&self, own: (u64, u64), free: u64, due: u64) -> bool {
        let mut state = self.state();
        state.wanted = due;
        let mut used = state.used.min(due);
        // A heartbeat that is still on its way may publish less than this row does.
        if state.sent == Some(own) {
            used = used.max(own.1.min(due).min(free));
        }
        self.use_now(&mut state, used);
        state.sent.is_none_or(|(_, published)| published != due)
    }

    fn use_now(&self, state: &mut State, used: u64) {
        if state.used != used {
            state.used = used;
            (self.on_use)(used);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a read of the worker rows came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divided {
    /// The part of the budget that is due to this worker.
    pub due_milli: u64,
    /// Workers that the budget is divided among.
    pub workers: usize,
    /// Whether the others wait to see a new grant of this worker: it is worth a heartbeat of its own.
    pub publish: bool,
}

/// The workers among which the budget is divided, as of one read: those that are not silent.
#[derive(Debug, Clone, Default)]
pub struct Counted<'r> {
    /// This worker's own row, if it has one yet.
    pub own: Option<&'r WorkerRow>,
    /// The others, in the order of their ids.
    pub others: Vec<&'r WorkerRow>,
}

/// Divides the budget anew with each strongly consistent read of the worker rows.
#[derive(Debug)]
pub struct Division {
    budget: Option<WriteBudget>,
    me: WorkerId,
    failover_time: Duration,
    /// Heartbeats, and since when each was seen to stand still.
    seen: BTreeMap<WorkerId, (u64, Instant)>,
}

impl Division {
    /// Nothing is seen yet.
    pub fn new(budget: Option<WriteBudget>, me: WorkerId, failover_time: Duration) -> Self {
        Self { budget, me, failover_time, seen: BTreeMap::new() }
    }

    /// What is divided, from the next read on. While workers know different budgets, what all use never sums above the largest.
    pub fn set_budget(&mut self, budget: Option<WriteBudget>) {
        self.budget = budget;
    }

    /// Takes in rows, and says whose count.
    pub fn count<'r>(&mut self, rows: &'r [WorkerRow], look: Look) -> Counted<'r> {
        let before = std::mem::take(&mut self.seen);
        for row in rows {
            let since = before.get(&row.worker_id).filter(|(heartbeat, _)| *heartbeat == row.heartbeat);
            let since = since.map_or(look.answered, |(_, since)| *since);
            self.seen.insert(row.worker_id.clone(), (row.heartbeat, since));
        }
        let own = rows.iter().find(|row| row.worker_id == self.me);
        let others = rows.iter().filter(|row| row.worker_id != self.me && !self.is_silent(row, look));
        let mut others: Vec<&WorkerRow> = others.collect();
        others.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        Counted { own, others }
    }

    /// Settles the grant by what was counted, and says what came of it; nothing without a budget, or before this worker has a
    /// row.
    pub fn divide(&self, counted: &Counted<'_>, grant: &Grant) -> Option<Divided> {
        let (budget, own) = (self.budget?, counted.own?);
        let granted = counted.others.iter().fold(0_u64, |sum, row| sum.saturating_add(row.write_grant_milli));
        let rows = counted.others.iter().copied().chain([own]);
        let demands = rows.map(|row| (row.worker_id.clone(), row.write_demand_milli)).collect();
        let due_milli = shares(budget, &demands).get(&self.me).copied()?;
        let free = budget.total_milli.saturating_sub(granted);
        let publish = grant.settle((own.heartbeat, own.write_grant_milli), free, due_milli);
        Some(Divided { due_milli, workers: counted.others.len() + 1, publish })
    }

    fn is_silent(&self, row: &WorkerRow, look: Look) -> bool {
        let still =
            self.seen.get(&row.worker_id).map(|(_, since)| look.asked.saturating_duration_since(*since));
        still.is_some_and(|still| still >= self.failover_time)
    }
}

#[cfg(test)]
mod tests;
