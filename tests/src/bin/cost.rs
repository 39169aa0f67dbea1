//! Prints what quiet fleets of several sizes cost, as the table of docs/cost.md.

use std::time::Duration;

use sluicegate_tests::cost::{Size, kcl_renewals, measure};

const SIZES: [(u32, u32); 6] = [(10, 2), (100, 4), (1_000, 10), (1_000, 50), (10_000, 20), (10_000, 100)];
/// Long enough for the longest period several times over.
const WINDOW: Duration = Duration::from_secs(300);

#[expect(clippy::print_stdout, reason = "the results of a program that a person started")]
fn main() -> anyhow::Result<()> {
    println!(
        "| shards | workers | writes/s | of KCL's | reads/s | lease scans | worker rows | failover: reads | writes | all taken after |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (shards, workers) in SIZES {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let cost = runtime.block_on(measure(Size { shards, workers }, WINDOW))?;
        let (quiet, failover) = (cost.quiet, cost.failover);
        println!(
            "| {shards} | {workers} | {:.2} | {:.1}% | {:.1} | {:.1} | {:.1} | {} | {} | {:.2} s |",
            quiet.writes(),
            100.0 * quiet.writes() / kcl_renewals(shards),
            quiet.reads(),
            quiet.lease_scans,
            quiet.worker_queries,
            failover.reads(),
            failover.writes(),
            cost.taken_after.as_secs_f64(),
        );
    }
    Ok(())
}
