//! Carries write demand from the sink into the heartbeat, and this worker's share of the fleet's write budget back.
//!
//! With every look at the worker rows the budget is divided anew ([`sluicegate_lease::grants`]); the rate of writing is the
//! governor's ([`sluicegate_sink::governor`]). Without a budget the demand and the rate are told all the same: others go by
//! them when the table refuses, and operators look for them. The budget is what the setting says, or what the table says of
//! itself, read again and again ([`capacity`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluicegate_lease::grants::Counted;
use sluicegate_lease::heartbeat::EpochSeconds;
use sluicegate_lease::view::Look;
use sluicegate_lease::{
    Division, FleetRows, Grant, LearnedRate, WorkerId, WorkerRow, WorkerStatus, WriteBudget, WritePace,
};
use sluicegate_sink::Governor;
use sluicegate_sink::governor::RateStanding;
use sluicegate_sink::governor::fair::{Told, advice};
use sluicegate_sink::governor::pace::{Begin, RateReason, Share};
use sluicegate_sink::store::TableCapacity;
use tokio::time::Instant;

use crate::metrics::Metrics;

pub(crate) mod capacity;
mod source;

pub use source::{BudgetChoice, BudgetSource};

/// Told demand follows the true one when that has moved by this part of it: every change moves everybody's share, and what
/// one gives up is used by another only after two looks.
const MOVES: f64 = 0.25;
/// While the table refuses, what a worker writes is told early when it has moved by that part, but no more often than this.
const SAID_APART: Duration = Duration::from_secs(1);
/// A change of why the rate is what it is, is logged no more often than this, unless the table takes nothing.
const LOGGED_APART: Duration = Duration::from_secs(10);

/// What a write flow connects.
pub(crate) struct WriteFlowParts {
    pub(crate) governor: Arc<Governor>,
    pub(crate) status: WorkerStatus,
    pub(crate) metrics: Metrics,
    pub(crate) me: WorkerId,
    pub(crate) budget: BudgetChoice,
    pub(crate) failover_time: Duration,
    /// Wall time, for operators only.
    pub(crate) epoch_seconds: EpochSeconds,
}

/// What connects one governor with one fleet.
pub(crate) struct WriteFlow {
    parts: WriteFlowParts,
    budget: Arc<Mutex<Budget>>,
    /// This worker's grant, where there is a budget or may come to be one.
    grant: Option<Arc<Grant>>,
    division: Mutex<Division>,
    used: Mutex<UsedRate>,
    said: Mutex<Said>,
}

/// The budget as it is known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    total: Option<WriteBudget>,
    source: BudgetSource,
}

impl Budget {
    fn share(&self, milli: u64) -> Option<Share> {
        self.total.map(|_| Share { units: units(milli), firm: self.source.is_firm() })
    }
}

/// What was told last.
#[derive(Debug, Default)]
struct Said {
    /// Units written a second, early.
    used: Option<(f64, Instant)>,
    /// Why the rate is what it is, in the log.
    reason: Option<(RateReason, Instant)>,
}

impl WriteFlow {
    /// Connects them. With a budget the share is nothing until the fleet's rows allow some.
    pub(crate) fn new(parts: WriteFlowParts) -> Self {
        let budget = Budget { total: parts.budget.fixed(), source: parts.budget.source() };
        let division = Mutex::new(Division::new(budget.total, parts.me.clone(), parts.failover_time));
        let budget = Arc::new(Mutex::new(budget));
        let grant = (parts.budget != BudgetChoice::None).then(|| {
            let (governed, budget) = (Arc::clone(&parts.governor), Arc::clone(&budget));
            Arc::new(Grant::new(Box::new(move |milli| {
                let share = locked(&budget).share(milli);
                if share.is_some() {
                    governed.set_share(share);
                    tracing::debug!(share_milli = milli, "the share of the write budget changed");
                }
            })))
        });
        Self { parts, budget, grant, division, used: Mutex::default(), said: Mutex::default() }
    }

    /// This worker's grant, for the heartbeat.
    pub(crate) fn grant(&self) -> Option<Arc<Grant>> {
        self.grant.clone()
    }

    /// The fleet's budget in units a second, if there is one, and where it comes from.
    pub(crate) fn budget(&self) -> (Option<f64>, BudgetSource) {
        let budget = *locked(&self.budget);
        (budget.total.map(WriteBudget::units), budget.source)
    }

    /// Takes in what the table says that it gives. Does nothing unless the budget is the table's.
    pub(crate) fn on_capacity(&self, capacity: Option<TableCapacity>) {
        let Some(grant) = self.grant.as_ref().filter(|_| self.parts.budget == BudgetChoice::Auto) else {
            return;
        };
        let next = Budget {
            total: capacity.map(|capacity| WriteBudget::of_units(capacity.units)),
            source: BudgetSource::of_table(capacity),
        };
        let before = std::mem::replace(&mut *locked(&self.budget), next);
        if before == next {
            return;
        }
        let (units_per_second, source) = self.budget();
        tracing::info!(
            units_per_second,
            source = source.as_str(),
            "the write budget is what the table gives"
        );
        locked(&self.division).set_budget(next.total);
        self.parts.governor.set_share(next.share(grant.used()));
        self.parts.status.say_now();
    }

    /// Takes in the worker rows of a strongly consistent read.
    pub(crate) fn on_fleet(&self, rows: &FleetRows, look: Look) {
        let governor = &self.parts.governor;
        let demand = governor.demand();
        let flow = governor.flow();
        let used = locked(&self.used).see(flow.consumed, look.answered);
        let mut division = locked(&self.division);
        let counted = division.count(&rows.workers, look);
        let divided = self.grant.as_ref().and_then(|grant| division.divide(&counted, grant));
        drop(division);
        governor.advise(self.advice(&counted, Told { used, demand }));
        let (total, source) = self.budget();
        if let Some(begin) = learned_of(rows, &self.parts.me, total.is_some()) {
            governor.begin_at(begin);
        }
        let standing = governor.standing();
        let rate = self.learned(total.is_some());
        let pace = self.pace(&standing, look);
        self.parts.status.update(|row| {
            row.write_used_milli = milli(used);
            row.write_demand_milli = told_demand(row.write_demand_milli, milli(demand));
            row.write_rate_milli = rate;
            row.write_pace = Some(Box::new(pace));
        });
        let early = self.says_early(&standing, used, &counted, look.answered);
        if early || divided.is_some_and(|divided| divided.publish) {
            self.parts.status.say_now();
        }
        self.log(&standing, look.answered);
        let share = total.and(self.grant.as_ref()).map_or(0.0, |grant| units(grant.used()));
        self.parts.metrics.write_budget(total.unwrap_or(0.0), share, source);
        self.parts.metrics.write_flow(&flow, &standing, demand, look.answered);
    }

    /// What an equal part comes to, of those that write or have something to write.
    fn advice(&self, counted: &Counted<'_>, mine: Told) -> Option<sluicegate_sink::governor::fair::Advice> {
        let told = |row: &&WorkerRow| Told {
            used: units(row.write_used_milli),
            demand: units(row.write_demand_milli),
        };
        let others: Vec<Told> = counted.others.iter().map(told).filter(|told| told.writes()).collect();
        let first = |row: &&&WorkerRow| row.worker_id < self.parts.me;
        let before = counted.others.iter().filter(first).map(told).filter(|told| told.presses()).count();
        advice(mine, &others, u32::try_from(before).unwrap_or(u32::MAX))
    }

    /// What the table accepts, for those that start: of the share the part that it accepts, or without one the rate.
    fn learned(&self, budgeted: bool) -> u64 {
        let governor = &self.parts.governor;
        match (&self.grant, budgeted) {
            (Some(grant), true) => {
                let part = governor.learned_part();
                if part < 1.0 { milli(units(grant.used()) * part) } else { 0 }
            }
            (Some(_) | None, _) => governor.learned().map_or(0, milli),
        }
    }

    /// What operators are told.
    fn pace(&self, standing: &RateStanding, look: Look) -> WritePace {
        let ago = look.answered.saturating_duration_since(standing.since).as_secs();
        WritePace {
            rate_milli: milli(standing.rate),
            reason: standing.reason.as_str().to_owned(),
            since: (self.parts.epoch_seconds)().saturating_sub_unsigned(ago),
            hot_keys: u64::try_from(standing.hot_keys.len()).unwrap_or(u64::MAX),
        }
    }

    /// Whether the others should hear now what this worker writes: they go by it while the table refuses.
    fn says_early(&self, standing: &RateStanding, used: f64, counted: &Counted<'_>, now: Instant) -> bool {
        let at_the_table = match standing.reason {
            RateReason::Share | RateReason::Searching => false,
            RateReason::BeyondShare
            | RateReason::Refused
            | RateReason::Told
            | RateReason::Shut
            | RateReason::Reopened => true,
        };
        if !at_the_table || counted.others.is_empty() {
            return false;
        }
        let mut said = locked(&self.said);
        let early = said
            .used
            .is_none_or(|(told, at)| now >= at + SAID_APART && (told - used).abs() > told.max(used) * MOVES);
        if early {
            said.used = Some((used, now));
        }
        early
    }

    /// Logs why the rate is what it is when that changes.
    fn log(&self, standing: &RateStanding, now: Instant) {
        let mut said = locked(&self.said);
        let before = said.reason.map(|(reason, _)| reason);
        let soon = said.reason.is_some_and(|(_, at)| now < at + LOGGED_APART);
        let shut = standing.reason == RateReason::Shut || before == Some(RateReason::Shut);
        if before == Some(standing.reason) || (soon && !shut) {
            return;
        }
        said.reason = Some((standing.reason, now));
        let (reason, units_per_second) = (standing.reason.as_str(), standing.rate);
        let (waiting_units, hot_keys) = (standing.waiting, standing.hot_keys.len());
        if standing.reason == RateReason::Shut {
            tracing::warn!(waiting_units, "the table takes nothing: a little is tried all the time");
        } else {
            tracing::info!(
                units_per_second,
                reason,
                waiting_units,
                hot_keys,
                "the write rate has another reason"
            );
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Units a second over the last few seconds, of a sum that grows.
#[derive(Debug, Default)]
struct UsedRate {
    /// The sum, and when it was that.
    last: Option<(f64, Instant)>,
    rate: f64,
}

/// After this time a change of the rate shows by two thirds.
const SMOOTHED_OVER: f64 = 2.0;

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
    use sluicegate_sink::store::CapacityKind;
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

    fn parts(governor: &Arc<Governor>, status: WorkerStatus, budget: BudgetChoice) -> WriteFlowParts {
        WriteFlowParts {
            governor: Arc::clone(governor),
            me: status.row().worker_id,
            status,
            metrics: Metrics::new().unwrap(),
            budget,
            failover_time: Duration::from_secs(10),
            epoch_seconds: Arc::new(|| 1_700_000_000),
        }
    }

    /// A worker alone, with a budget of 4,000, after two looks and the heartbeat between them.
    fn alone(learned: Option<LearnedRate>) -> (Arc<Governor>, Arc<Grant>) {
        let me = WorkerId::new("me");
        let status = WorkerStatus::new(WorkerRow::new(me.clone()));
        let governor = Arc::new(Governor::new(Default::default()));
        let budget = WriteBudget::of_units(4_000);
        let flow = WriteFlow::new(parts(&governor, status, BudgetChoice::Fixed(budget)));
        let grant = flow.grant().unwrap();
        assert_eq!(governor.standing().rate, 0.0);
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
        assert!((3_900.0..=4_000.0).contains(&governor.standing().rate));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_starts_again_begins_at_the_rate_that_was_learned() {
        let (governor, grant) = alone(Some(LearnedRate { rate_milli: 250_000, grant_milli: 1_000_000 }));
        assert_eq!(grant.used(), 4_000_000);
        let rate = governor.standing().rate;
        assert!((950.0..=1_050.0).contains(&rate), "{rate}");
    }

    /// Looks at this worker's row alone, twice, with a heartbeat between them.
    fn looks(flow: &WriteFlow, heartbeats: std::ops::RangeInclusive<u64>) {
        let grant = flow.grant().unwrap();
        for heartbeat in heartbeats {
            let row = WorkerRow {
                heartbeat,
                write_grant_milli: grant.publish(heartbeat),
                ..WorkerRow::new(WorkerId::new("me"))
            };
            let fleet = FleetRows { workers: vec![row], ..FleetRows::default() };
            flow.on_fleet(&fleet, Instant::now().into());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_s_own_capacity_is_the_budget_and_followed_when_it_changes() {
        let status = WorkerStatus::new(WorkerRow::new(WorkerId::new("me")));
        let governor = Arc::new(Governor::new(Default::default()));
        let flow = WriteFlow::new(parts(&governor, status.clone(), BudgetChoice::Auto));
        assert_eq!(flow.budget(), (None, BudgetSource::Untold));
        assert_eq!(governor.standing().reason, RateReason::Searching, "until it is told there is none");
        let told = |units, kind| Some(TableCapacity { units, kind });
        flow.on_capacity(told(1_500, CapacityKind::Provisioned));
        looks(&flow, 1..=2);
        assert_eq!(flow.budget(), (Some(1_500.0), BudgetSource::Provisioned));
        assert_eq!(governor.standing().rate, 1_500.0 * 0.985);
        flow.on_capacity(told(3_000, CapacityKind::Provisioned));
        looks(&flow, 3..=4);
        assert_eq!(governor.standing().rate, 3_000.0 * 0.985);
        flow.on_capacity(None);
        assert_eq!(flow.budget(), (None, BudgetSource::Untold));
        assert!(governor.standing().rate > 2_000.0, "what it wrote at is where it goes on");
        let pace = status.row().write_pace.unwrap();
        assert_eq!((pace.reason.as_str(), pace.since), ("share", 1_700_000_000));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_answer_is_not_told_as_written() {
        let status = WorkerStatus::new(WorkerRow::new(WorkerId::new("me")));
        let governor = Arc::new(Governor::new(Default::default()));
        let flow = WriteFlow::new(parts(&governor, status.clone(), BudgetChoice::None));
        let rank = Rank {
            arrival: ArrivalMillis(0),
            shard: ShardId::new("s"),
            first: SequenceNumber::parse("1").unwrap(),
        };
        let slots = Semaphore::new(1);
        let mut told = Vec::new();
        for outcome in [Outcome::Unknown, Outcome::Answered { consumed: 7.0, left_over: Vec::new() }] {
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
