//! Flow control with real processes, in small: the budget, outages, a table that stands still, a hot key. The whole thing is
//! `make budget`, `make capacity`, `make outage`, `make stalled` and `make hotkey`; here nothing is timed.

use std::time::Duration;

use sluicegate_tests::measure::budget::{self, BudgetPlan};
use sluicegate_tests::measure::capacity::{self, CapacityPlan};
use sluicegate_tests::measure::hardship::{self, Hardship, Trouble};
use sluicegate_tests::measure::{Comparison, Plan};

/// Batches close early, for the experiments are short.
const BATCH_AGE: Option<Duration> = Some(Duration::from_millis(500));

fn plan(workers: usize, shards: usize, rate: u32) -> Plan {
    Plan { count: 0, workers, shards, failover_time: Duration::from_secs(3), rate, seed: 1 }
}

fn whole(comparison: &Comparison) {
    assert!(comparison.published > 0);
    assert_eq!((comparison.lost, comparison.duplicated), (0, 0), "{comparison:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_keeps_to_its_budget() {
    let plan = BudgetPlan {
        plan: plan(2, 4, 0),
        budget_wcu: 400,
        lasts: Duration::from_secs(10),
        churn: None,
        batch_age: BATCH_AGE,
    };
    let report = budget::run(plan, "flow-budget", |_| {}).await.unwrap();
    whole(&report.comparison);
    assert_eq!(report.seconds.len(), 9, "each second is told");
    let over: Vec<_> = report.seconds.iter().filter(|second| second.accepted > 1.05 * 400.0 + 64.0).collect();
    assert!(over.is_empty(), "an item of 64 KB is coarse at this budget: {over:?}");
    assert!(report.seconds.iter().any(|second| second.accepted > 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_follows_the_capacity_of_its_table() {
    let plan = CapacityPlan {
        plan: plan(2, 4, 0),
        budget_wcu: 800,
        phase: Duration::from_secs(5),
        batch_age: BATCH_AGE,
    };
    let report = capacity::run(plan, "flow-capacity", |_| {}).await.unwrap();
    whole(&report.comparison);
    for phase in [&report.cut, &report.again, &report.doubled] {
        assert!(phase.seconds.iter().any(|second| second.accepted > 0.0), "{phase:?}");
    }
    assert!(report.cut.throttled_ratio(0) > 0.0, "the table said so: {:?}", report.cut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_refuses_writes_for_a_while_loses_nothing() {
    let report = hardship_of(Trouble::Outage, plan(2, 4, 300), 4).await;
    assert!(report.seconds.iter().all(|second| second.accepted == 0.0), "nothing was let in meanwhile");
    assert!(
        report.samples.iter().any(|sample| sample.until_data_loss.is_finite()),
        "what may be lost is told"
    );
    whole(&report.comparison);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_answer_delays_no_heartbeat_and_loses_nothing() {
    let formula = hardship(Trouble::Stall, plan(2, 16, 300), 5).resident_mib();
    let report = hardship_of(Trouble::Stall, plan(2, 16, 300), 5).await;
    assert_eq!(report.taken_for_dead, 0);
    let highest = report.samples.iter().map(|sample| sample.rss_mib).fold(0.0, f64::max);
    assert!(highest > 0.0 && highest <= 1.1 * formula, "{highest} MiB resident, {formula} expected at most");
    whole(&report.comparison);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_events_of_one_key_are_found_under_all_suffixes() {
    let report = hardship_of(Trouble::HotKey, plan(2, 4, 400), 4).await;
    assert!(report.spread > 1, "one partition would not take the budget");
    whole(&report.comparison);
}

fn hardship(trouble: Trouble, plan: Plan, seconds: u64) -> Hardship {
    let lasts = Duration::from_secs(seconds);
    Hardship { plan, trouble, lasts, budget_wcu: 1_000, buffer_mib: 32, batch_age: BATCH_AGE }
}

async fn hardship_of(trouble: Trouble, plan: Plan, seconds: u64) -> hardship::Report {
    let name = format!("flow-{trouble:?}").to_lowercase();
    hardship::run(hardship(trouble, plan, seconds), &name, |_| {}).await.unwrap()
}
