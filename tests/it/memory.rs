//! Law M1 with a real process: memory stays within its formula when answers turn out large. `make memory` plays all loads.

use std::time::Duration;

use sluicegate_tests::measure::memory::{self, Load, MemoryPlan};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stays_within_its_memory_though_every_page_is_twenty_times_what_was_asked_for()
-> anyhow::Result<()> {
    let plan = MemoryPlan {
        loads: vec![Load::Megabytes],
        buffers_mib: vec![32],
        shards: Some(20),
        within: Duration::from_secs(180),
    };
    let outcomes = memory::run(&plan, "memory", |_| ()).await?;
    assert_eq!(outcomes.len(), 1);
    for outcome in outcomes {
        assert!(outcome.ratio() <= 1.0, "{outcome}");
    }
    Ok(())
}
