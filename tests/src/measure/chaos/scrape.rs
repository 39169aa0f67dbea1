//! Asks every worker, again and again, how many records of committed ranges are not accounted for. A worker that is killed has
//! told it until shortly before.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
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

/// Asks until stopped, and once more then.
///
/// # Errors
/// A worker answers without the metric.
pub async fn unaccounted(backend: &Backend, stop: &CancellationToken) -> anyhow::Result<Unaccounted> {
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
            let Ok(scrape) = answer else { continue };
            let value =
                value_of(&scrape, UNACCOUNTED).with_context(|| format!("the metrics of {address}"))?;
            let known = most.entry(address).or_default();
            *known = known.max(value.abs());
        }
        if last {
            return Ok(most);
        }
        tokio::select! { biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
