//! Asks every worker, again and again, how many records of committed ranges are not accounted for. A worker that is killed has
//! told it until shortly before.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::harness::Backend;
use crate::harness::fleet::{APPLICATION, http};
use crate::measure::hardship::value_of;

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(2);
/// What is asked for.
const UNACCOUNTED: &str = "sluicegate_records_unaccounted";

/// The most that each worker told, by its address.
pub type Unaccounted = BTreeMap<String, f64>;

/// Asks until stopped, and once more then. Who does not answer is left out.
pub async fn unaccounted(backend: &Backend, stop: &CancellationToken) -> Unaccounted {
    let mut most = Unaccounted::new();
    loop {
        let last = stop.is_cancelled();
        // Faults concern these reads too; then the next round tells.
        let rows = backend.workers(APPLICATION).await.unwrap_or_default();
        let addresses = rows.into_iter().filter_map(|row| row.address);
        let asked = addresses.map(|address| async move {
            let answer = http(&address, "GET", "/metrics", "").await;
            (address, answer)
        });
        for (address, answer) in futures::future::join_all(asked).await {
            // Somebody else may listen by now where a dead worker did.
            let Some(value) = answer.ok().and_then(|scrape| value_of(&scrape, UNACCOUNTED).ok()) else {
                continue;
            };
            let known = most.entry(address).or_default();
            *known = known.max(value.abs());
        }
        if last {
            return most;
        }
        tokio::select! { biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
