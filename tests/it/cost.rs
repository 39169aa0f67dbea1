//! What a quiet fleet costs stays within its bounds.

use std::time::Duration;

use sluicegate_lease::Throughput;
use sluicegate_lease::pace::{ScanBudget, at_rest};
use sluicegate_tests::cost::fleet::QuietFleet;
use sluicegate_tests::cost::{Size, kcl_renewals, measure};
use sluicegate_worker::worker::Settings;

#[tokio::test(start_paused = true)]
async fn a_quiet_fleet_of_ten_with_a_thousand_leases_costs_a_tenth_of_kcls_writes() -> anyhow::Result<()> {
    let size = Size { shards: 1_000, workers: 10 };
    let cost = measure(size, Duration::from_secs(60)).await?;
    assert!(cost.quiet.writes() <= kcl_renewals(size.shards) / 10.0, "{cost:?}");
    assert!(cost.quiet.worker_writes >= 2.9, "ten heartbeats every third of 10 s: {cost:?}");
    assert!(cost.quiet.reads() <= 300.0, "{cost:?}");
    let told = at_rest(size.shards, size.workers, Duration::from_secs(10), Some(ScanBudget::default()));
    assert!(
        (0.9..1.1).contains(&(told.writes / cost.quiet.writes())),
        "`check` forecasts {told:?}, {cost:?}"
    );
    assert!(
        (0.75..1.25).contains(&(told.reads / cost.quiet.reads())),
        "`check` forecasts {told:?}, {cost:?}"
    );
    assert!(cost.quiet.lease_scans >= 50.0, "leases are looked at: {cost:?}");
    assert!(cost.taken_after <= Duration::from_secs(11), "failover_time and a second: {cost:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_weighs_gives_a_hot_shard_few_others_and_then_rests() -> anyhow::Result<()> {
    let size = Size { shards: 40, workers: 4 };
    let settings = Settings { weigh_by_throughput: true, ..Settings::default() };
    let carried = |n: usize| Throughput::from_kilobytes(if n == 7 { 900 } else { 30 });
    let mut fleet = QuietFleet::start_with(size, settings, carried).await?;
    fleet.pass(Duration::from_secs(30)).await?;
    let loads = fleet.loads().await?;
    // The hot one weighs 916, each other 46: the mean is 678 and a half, or 598 among those without it.
    let hot = loads.values().find(|(_, kilobytes)| *kilobytes >= 900);
    assert!(loads.len() == 4 && hot.is_some_and(|(leases, _)| *leases <= 2), "{loads:?}");
    assert!(loads.values().all(|(leases, _)| *leases <= 2 || (11..=15).contains(leases)), "{loads:?}");
    let before = fleet.units();
    fleet.pass(Duration::from_secs(120)).await?;
    assert_eq!(fleet.units().since(before).lease_writes, 0);
    Ok(())
}

/// Scans cost more than all workers may spend at once, so they plan from the rows they know.
#[tokio::test(start_paused = true)]
async fn a_fleet_whose_scans_cost_much_scans_seldom_and_takes_over_as_fast() -> anyhow::Result<()> {
    let size = Size { shards: 400, workers: 40 };
    let cost = measure(size, Duration::from_secs(60)).await?;
    let scan = 400.0 * 450.0 / 4_096.0;
    assert!(cost.quiet.lease_scans <= 2.0 * 100.0, "the budget, and shard syncs beside it: {cost:?}");
    assert!(cost.quiet.lease_scans >= scan, "somebody looks every second: {cost:?}");
    let told = at_rest(size.shards, size.workers, Duration::from_secs(10), Some(ScanBudget::default()));
    assert!(
        (0.75..1.25).contains(&(told.reads / cost.quiet.reads())),
        "`check` forecasts {told:?}, {cost:?}"
    );
    assert!(cost.taken_after <= Duration::from_secs(11), "failover_time and a second: {cost:?}");
    assert!(cost.failover.lease_scans < 40 * 44, "not everybody scans: {cost:?}");
    Ok(())
}
