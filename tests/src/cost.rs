//! What a quiet fleet costs: the reads and writes of its lease and worker table, counted in the units that DynamoDB
//! bills, with real workers on a paused clock and tables in memory.

pub mod count;
pub mod fleet;

use std::time::Duration;

use count::Units;
use fleet::QuietFleet;

/// A size of fleet to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Shards of the stream, and so leases.
    pub shards: u32,
    /// Workers.
    pub workers: u32,
}

/// What a fleet of a size costs.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// The size.
    pub size: Size,
    /// Units a second while nothing happens.
    pub quiet: Units<f64>,
    /// Units from the death of a worker until its leases are taken.
    pub failover: Units<u64>,
    /// How long that took from its death. It had last been heard of up to a third of the failover time before.
    pub taken_after: Duration,
}

/// How long a fleet is given to find its balance.
const SETTLING: Duration = Duration::from_secs(90);

/// Starts a fleet on rows that are there already, lets it settle, counts for so long, and kills a worker.
///
/// # Errors
/// A worker fails.
pub async fn measure(size: Size, window: Duration) -> anyhow::Result<Cost> {
    let mut fleet = QuietFleet::start(size).await?;
    fleet.pass(SETTLING).await?;
    fleet.check_balance().await?;
    let before = fleet.units();
    fleet.pass(window).await?;
    let quiet = fleet.units().since(before).per_second(window);
    let before = fleet.units();
    let taken_after = fleet.kill_one().await?;
    let failover = fleet.units().since(before);
    fleet.pass(SETTLING).await?;
    fleet.check_balance().await?;
    Ok(Cost { size, quiet, failover, taken_after })
}

/// KCL's writes a second that renew so many leases: each every third of 10 s, less 25 ms.
pub fn kcl_renewals(shards: u32) -> f64 {
    f64::from(shards) / 3.308
}
