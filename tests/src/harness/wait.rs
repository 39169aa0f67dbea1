//! Waiting for a condition, instead of for a time.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

/// How long anything may take that should take seconds: two busy cores and a debug build are slow.
pub const LONG: Duration = Duration::from_secs(60);

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks again and again until `condition` gives something.
///
/// # Errors
/// It failed, or gave nothing within the time; the error says what was waited for.
pub async fn wait_for<T>(
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition().await.with_context(|| format!("waiting for {what}"))? {
            return Ok(found);
        }
        if begun.elapsed() > within {
            bail!("waited {within:?} in vain for {what}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
