//! Which owners are gone, as seen by a command that has just started: it watches their signs of life.

use std::collections::BTreeSet;
use std::time::Duration;

use sluicegate_lease::operator::liveness::OwnerWatch;
use sluicegate_lease::{Lease, WorkerId};

use super::fleet::Tables;
use crate::output;

/// Watches owners until each has shown life or stood still for the failover time. Says so on standard error first,
/// if that takes a while.
pub(crate) async fn judged(
    tables: &Tables,
    owners: BTreeSet<WorkerId>,
    failover_time: Duration,
) -> anyhow::Result<OwnerWatch> {
    let count = owners.len();
    let mut watch = OwnerWatch::new(owners, failover_time);
    let mut told = false;
    loop {
        let look = tables.look().await?;
        let leases: Vec<Lease> = look.leases.into_values().collect();
        watch.see(&look.fleet.workers, &leases, tables.clock.now());
        if watch.undecided().is_empty() {
            return Ok(watch);
        }
        if !std::mem::replace(&mut told, true) {
            output::note(&format!(
                "watching the signs of life of {count} {} for up to {}",
                if count == 1 { "worker" } else { "workers" },
                humantime::format_duration(failover_time)
            ));
        }
        tables.clock.sleep((failover_time / 20).max(SHORTEST_PAUSE)).await;
    }
}

/// Between two reads, however short the failover time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
