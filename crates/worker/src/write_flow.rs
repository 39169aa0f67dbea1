//! Carries write demand from the sink into the heartbeat, and this worker's share of the fleet's write budget back.
//!
//! With every look at the worker rows the budget is divided anew ([`sluicegate_lease::grants`]); the rate of writing is the
//! governor's ([`sluicegate_sink::governor`]). Without a budget the demand and the rate are told all the same, for
//! operators.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluicegate_lease::view::Look;
use sluicegate_lease::{
    Division, FleetRows, Grant, LearnedRate, WorkerId, WorkerRow, WorkerStatus, WriteBudget,
};
use sluicegate_sink::Governor;
use sluicegate_sink::governor::pace::Begin;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Told demand follows the true one when that has moved by this part of it: every change moves everybody's share, and what
/// one gives up is used by another only after two looks.
const MOVES: f64 = 0.25;

/// What connects one governor with one fleet.
pub(crate) struct WriteFlow {
    governor: Arc<Governor>,
    status: WorkerStatus,
    metrics: Metrics,
    me: WorkerId,
    budget: Option<Budgeted>,
    used: Mutex<UsedRate>,
}

struct Budgeted {
    total: WriteBudget,
    grant: Arc<Grant>,
    division: Mutex<Division>,
}

impl WriteFlow {
    /// Connects them. With a budget the share is nothing until the fleet's rows allow some.
    pub(crate) fn new(
        governor: Arc<Governor>,
        status: WorkerStatus,
        metrics: Metrics,
        (me, budget, failover_time): (WorkerId, Option<WriteBudget>, Duration),
    ) -> Self {
        let budget = budget.map(|total| {
            let governed = Arc::clone(&governor);
            let grant = Grant::new(Box::new(move |milli| {
                governed.set_share(Some(units(milli)));
                tracing::debug!(share_milli = milli, "the share of the write budget changed");
            }));
            let division = Mutex::new(Division::new(total, me.clone(), failover_time));
            Budgeted { total, grant: Arc::new(grant), division }
        });
        Self { governor, status, metrics, me, budget, used: Mutex::default() }
    }

    /// This worker's grant, for the heartbeat.
    pub(crate) fn grant(&self) -> Option<Arc<Grant>> {
        self.budget.as_ref().map(|budget| Arc::clone(&budget.grant))
    }

    /// Takes in the worker rows of a strongly consistent read.
    pub(crate) fn on_fleet(&self, rows: &FleetRows, look: Look) {
        let demand = milli(self.governor.demand());
        let learned = self.governor.learned_part();
        let mut rate = self.governor.rate().map_or(0, milli);
        if let Some(budget) = &self.budget {
            let mut division = budget.division.lock().unwrap_or_else(PoisonError::into_inner);
            if division.see(&rows.workers, look, &budget.grant).is_some_and(|divided| divided.publish) {
                self.status.say_now();
            }
            rate = if learned < 1.0 { milli(units(budget.grant.used()) * learned) } else { 0 };
            self.metrics.write_budget(units(budget.total.total_milli), units(budget.grant.used()));
        }
        if let Some(begin) = learned_of(rows, &self.me, self.budget.is_some()) {
            self.governor.begin_at(begin);
        }
        let flow = self.governor.flow();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let used = used.see(flow.consumed, look.answered);
        self.status.update(|row| {
            row.write_used_milli = milli(used);
            row.write_demand_milli = told_demand(row.write_demand_milli, demand);
            row.write_rate_milli = rate;
        });
        self.metrics.write_flow(&flow, self.governor.rate(), self.governor.demand());
    }
}

/// Units a second over the last few seconds, of a sum that grows.
#[derive(Debug, Default)]
struct UsedRate {
    /// The sum, and when it was that.
    last: Option<(f64, Instant)>,
    rate: f64,
}

/// After this time a change of the rate shows by two thirds.
const SMOOTHED_OVER: f64 = 5.0;

impl UsedRate {
    fn see(&mut self, sum: f64, at: Instant) -> f64 {
        let Some((before, then)) = self.last else {
            self.last = Some((sum, at));
            return self.rate;
        };
        let seconds = at.saturating_duration_since(then).as_secs_f64();
        if seconds > 0.0 {
            let weight = 1.0 - (-seconds / SMOOTHED_OVER).exp();
            self.rate += ((sum - before).max(0.0) / seconds - self.rate) * weight;
            self.last = Some((sum, at));
        }
        self.rate
    }
}

/// What is told of a demand, after what was told before.
fn told_demand(told: u64, demand: u64) -> u64 {
    let moved = units(told.abs_diff(demand)) > units(told) * MOVES;
    if moved || demand == 0 { demand } else { told }
}

/// What the table accepts of other workers, as far as throttling has taught them: live ones or not, for a restart goes on
/// where the last process was. Of a fleet that has left in good order, what its last worker left behind. With a budget it is
/// a part of the share; without one, the rate of one worker.
fn learned_of(fleet: &FleetRows, me: &WorkerId, budgeted: bool) -> Option<Begin> {
    let others = fleet.workers.iter().filter(|row| row.worker_id != *me);
    let told: Vec<LearnedRate> = others.filter_map(WorkerRow::learned).collect();
    let told = if told.is_empty() { fleet.learned.into_iter().collect() } else { told };
    let alike: Vec<LearnedRate> =
        told.into_iter().filter(|rate| (rate.grant_milli > 0) == budgeted).collect();
    let sum = |of: fn(&LearnedRate) -> u64| units(alike.iter().map(of).sum());
    let (rates, grants) = (sum(|rate| rate.rate_milli), sum(|rate| rate.grant_milli));
    let count = f64::from(u32::try_from(alike.len()).unwrap_or(u32::MAX));
    match (alike.is_empty(), budgeted) {
        (true, _) => None,
        (false, true) => Some(Begin::PartOfShare(rates / grants)),
        (false, false) => Some(Begin::Rate(rates / count)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 thousandths of a unit")]
fn units(milli: u64) -> f64 {
    milli as f64 / 1_000.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn milli(units: f64) -> u64 {
    (units * 1_000.0).clamp(0.0, 9e15) as u64
}

#[cfg(test)]
mod tests {
    use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber, ShardId};
    use sluicegate_sink::governor::Outcome;
    use sluicegate_sink::governor::turn::Rank;
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn the_used_rate_follows_within_seconds_and_falls_to_nothing() {
        let (mut used, start) = (UsedRate::default(), Instant::now());
        assert_eq!(used.see(1_000.0, start), 0.0, "what was before says nothing of the rate");
        let at = |seconds| start + Duration::from_secs(seconds);
        let last = (1..=30u32).map(|s| used.see(1_000.0 + 50.0 * f64::from(s), at(u64::from(s)))).last();
        assert!(last.is_some_and(|rate| (rate - 50.0).abs() < 1.0), "{last:?}");
        let idle = (31..=60).map(|s| used.see(2_500.0, at(s))).last();
        assert!(idle.is_some_and(|rate| rate < 0.2), "{idle:?}");
    }

    #[test]
    fn told_demand_stands_still_while_the_true_one_moves_little() {
        assert_eq!(told_demand(0, 5), 5);
        assert_eq!((told_demand(1_000, 1_200), told_demand(1_000, 800)), (1_000, 1_000));
        assert_eq!((told_demand(1_000, 1_300), told_demand(1_000, 700)), (1_300, 700));
        assert_eq!(told_demand(1_000, 0), 0);
    }

    #[test]
    fn a_rate_is_learned_from_those_whom_the_table_has_taught() {
        let row = |name: &str, grant, rate| WorkerRow {
            write_grant_milli: grant,
            write_rate_milli: rate,
            ..WorkerRow::new(WorkerId::new(name))
        };
        let fleet = |workers: &[WorkerRow]| FleetRows { workers: workers.to_vec(), ..FleetRows::default() };
        let me = WorkerId::new("me");
        let learned = |workers: &[WorkerRow]| learned_of(&fleet(workers), &me, true);
        assert_eq!(learned(&[row("me", 1_000, 100), row("a", 1_000, 0)]), None);
        let taught = [row("a", 1_000, 250), row("b", 3_000, 750), row("c", 500, 0)];
        assert_eq!(learned(&taught), Some(Begin::PartOfShare(0.25)));
        assert_eq!(learned(&[row("a", 200, 250)]), None, "its grant was lowered since");
        assert_eq!(
            learned_of(&fleet(&taught), &me, false),
            None,
            "parts of a budget say nothing without one"
        );
        let rates = fleet(&[row("a", 0, 250_000), row("b", 0, 350_000)]);
        assert_eq!(learned_of(&rates, &me, false), Some(Begin::Rate(300.0)));
        let left = Some(LearnedRate { rate_milli: 500, grant_milli: 1_000 });
        let all_gone = FleetRows { learned: left, ..FleetRows::default() };
        assert_eq!(learned_of(&all_gone, &me, true), Some(Begin::PartOfShare(0.5)));
        let beside = FleetRows { learned: left, ..fleet(&taught) };
        assert_eq!(learned_of(&beside, &me, true), Some(Begin::PartOfShare(0.25)), "the living know better");
    }

    /// A worker alone, with a budget of 4,000, after two looks and the heartbeat between them.
    fn alone(learned: Option<LearnedRate>) -> (Arc<Governor>, Arc<Grant>) {
        let me = WorkerId::new("me");
        let status = WorkerStatus::new(WorkerRow::new(me.clone()));
        let governor = Arc::new(Governor::new(Default::default()));
        let budget = Some(WriteBudget::of_units(4_000));
        let about = (me.clone(), budget, Duration::from_secs(10));
        let flow = WriteFlow::new(Arc::clone(&governor), status, Metrics::new().unwrap(), about);
        let grant = flow.grant().unwrap();
        assert_eq!(governor.rate(), Some(0.0));
        let now = Instant::now();
        for heartbeat in 1..=2 {
            let row = WorkerRow {
                heartbeat,
                write_grant_milli: grant.publish(heartbeat),
                ..WorkerRow::new(me.clone())
            };
            let fleet = FleetRows { workers: vec![row], learned, ..FleetRows::default() };
            flow.on_fleet(&fleet, now.into());
        }
        (governor, grant)
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_alone_gets_the_whole_budget_after_it_has_published_it() {
        let (governor, grant) = alone(None);
        assert_eq!(grant.used(), 4_000_000);
        assert!(governor.rate().is_some_and(|rate| (3_900.0..=4_000.0).contains(&rate)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_starts_again_begins_at_the_rate_that_was_learned() {
        let (governor, grant) = alone(Some(LearnedRate { rate_milli: 250_000, grant_milli: 1_000_000 }));
        assert_eq!(grant.used(), 4_000_000);
        assert!(
            governor.rate().is_some_and(|rate| (950.0..=1_050.0).contains(&rate)),
            "{:?}",
            governor.rate()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_answer_is_not_told_as_written() {
        let (me, status) = (WorkerId::new("me"), WorkerStatus::new(WorkerRow::new(WorkerId::new("me"))));
        let governor = Arc::new(Governor::new(Default::default()));
        let about = (me, None, Duration::from_secs(10));
        let flow = WriteFlow::new(Arc::clone(&governor), status.clone(), Metrics::new().unwrap(), about);
        let rank = Rank {
            arrival: ArrivalMillis(0),
            shard: ShardId::new("s"),
            first: SequenceNumber::parse("1").unwrap(),
        };
        let slots = Semaphore::new(1);
        let mut told = Vec::new();
        for outcome in [Outcome::Unknown, Outcome::Answered { consumed: 7.0, unprocessed: 0.0 }] {
            flow.on_fleet(&FleetRows::default(), Instant::now().into());
            let (attempt, _slot) = governor.admit(&rank, vec![("key".to_owned(), 5.0)], &slots).await;
            governor.settle(&attempt, outcome);
            tokio::time::advance(Duration::from_secs(1)).await;
            flow.on_fleet(&FleetRows::default(), Instant::now().into());
            told.push(status.row().write_used_milli);
        }
        assert!(told[0] == 0 && told[1] > 0, "{told:?}");
    }
}
