//! The lease and worker tables of one application, as the operator commands use them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::{Announced, Retry, RetryPolicy};
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{Clock, FleetRows, HeldLease, Lease, LeaseKey, LeaseStore, WorkerId, WorkerRegistry};
use sluicegate_worker::telemetry::{LogFormat, start_logging};

use crate::app;
use crate::aws::{Aws, AwsArgs};
use crate::aws_names;

/// Which application.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FleetArgs {
    /// Name of the application: its lease table
    #[arg(long, value_parser = aws_names::application)]
    pub(crate) application: String,
    #[command(flatten)]
    pub(crate) aws: AwsArgs,
}

/// The tables of one application.
pub(crate) struct Tables {
    pub(crate) aws: Aws,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) registry: Arc<dyn WorkerRegistry>,
    pub(crate) clock: Clock,
}

/// Both tables at one moment; no snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    pub(crate) leases: BTreeMap<LeaseKey, Lease>,
    pub(crate) fleet: FleetRows,
}

/// How often a call that cannot be made now is tried, over about ten seconds.
const CALLS: u32 = 8;

impl Tables {
    /// Reaches the tables; whether they are there is told by the first read.
    pub(crate) async fn open(args: &FleetArgs) -> anyhow::Result<Self> {
        start_logging("warn", LogFormat::Text);
        let aws = Aws::load(&args.aws).await?;
        let (store, registry) = app::tables(&aws, &args.application);
        Ok(Self { aws, store, registry, clock: Clock::new() })
    }

    /// Lease rows first, then the worker rows that explain their owners.
    pub(crate) async fn look(&self) -> anyhow::Result<Look> {
        let leases = patiently(self.clock.clone(), || self.store.leases(), ReadError::retry)
            .await
            .context("the lease table was not read")?;
        let fleet = patiently(self.clock.clone(), || self.registry.fleet(), ReadError::retry)
            .await
            .context("the worker table was not read")?;
        Ok(Look { leases: leases.into_iter().map(|row| (row.key.clone(), row)).collect(), fleet })
    }

    /// One row, strongly consistent.
    pub(crate) async fn lease(&self, key: &LeaseKey) -> anyhow::Result<Option<Lease>> {
        patiently(self.clock.clone(), || self.store.lease(key), ReadError::retry)
            .await
            .context("the lease table was not read")
    }

    /// Makes a row into another, as an owner does (rules R1 and R2). False: somebody else has written it.
    pub(crate) async fn replace(&self, row: &Lease, next: Lease) -> anyhow::Result<bool> {
        let mut held =
            HeldLease::new(Arc::clone(&self.store), self.clock.clone(), row.clone(), SmallRng::from_os_rng());
        let written = held.replace(next).await.context("the lease row was not written")?;
        Ok(written == Announced::Recorded)
    }

    /// Asks a worker to leave; `expires` is in epoch seconds.
    pub(crate) async fn ask_to_leave(&self, worker: &WorkerId, expires: i64) -> anyhow::Result<()> {
        let ask = || self.registry.ask_to_leave(worker, expires);
        patiently(self.clock.clone(), ask, WriteError::retry).await.context("the request was not written")
    }

    /// Removes the request that a worker leave.
    pub(crate) async fn withdraw_request(&self, worker: &WorkerId) -> anyhow::Result<()> {
        let withdraw = || self.registry.withdraw_request(worker);
        patiently(self.clock.clone(), withdraw, WriteError::retry)
            .await
            .context("the request was not removed")
    }
}

/// Repeats a call that may be repeated while it cannot be made now.
async fn patiently<T, E, F>(clock: Clock, call: impl Fn() -> F, retry: fn(&E) -> Retry) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let (mut delays, mut rng) = (RetryPolicy::AWS.delays(), SmallRng::from_os_rng());
    for _ in 1..CALLS {
        let error = match call().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Some(delay) = delays.after(retry(&error), &mut rng) else { return Err(error) };
        clock.sleep(delay).await;
    }
    call().await
}
