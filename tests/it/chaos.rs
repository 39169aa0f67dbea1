//! Chaos with real processes, in short. The whole thing is `make chaos MINUTES=n SEED=s`.

use std::time::Duration;

use sluicegate_tests::measure::chaos::{self, ChaosPlan};

/// Time enough for every kind of act to come once.
const LASTS: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_stored_once_whatever_is_done_to_workers_shards_and_tables() {
    let plan = ChaosPlan {
        lasts: LASTS,
        seed: 11,
        workers: 4,
        shards: 8,
        failover_time: Duration::from_secs(3),
        rate: 200,
    };
    let report = chaos::run(plan, "chaos", None, |line| println!("{line}")).await.unwrap();
    report.verdict().unwrap();
    let done = &report.done;
    let cut_off = done.partitions.len();
    let counts = [
        done.kills.len(),
        done.freezes.len(),
        cut_off,
        done.leaves,
        done.joins,
        done.reshards,
        done.troubles,
    ];
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert!(report.taken > 0 && !report.failovers.is_empty() && report.asked >= plan.workers, "{report:?}");
}
