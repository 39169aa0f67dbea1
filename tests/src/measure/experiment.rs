//! A fleet under load: started, settled, stopped, and compared with what was published.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_lease::WorkerId;

use super::journal::Journal;
use super::load::Load;
use crate::harness::fleet::APPLICATION;
use crate::harness::{Backend, Fleet, wait_for};

/// What is measured, and on what.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Kills, or moves.
    pub count: usize,
    /// Workers between two disturbances.
    pub workers: usize,
    /// Shards.
    pub shards: usize,
    /// The workers' `failover_time`.
    pub failover_time: Duration,
    /// Events a second, all shards together.
    pub rate: u32,
    /// Chooses who is disturbed, and when.
    pub seed: u64,
}

/// What was published against what is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Events published.
    pub published: u64,
    /// Numbers that are not stored.
    pub lost: u64,
    /// Events stored beyond the first of each number, and events that were never published.
    pub duplicated: u64,
}

/// A running fleet and what its logs say.
#[derive(Debug)]
pub struct Experiment<'b> {
    /// What is measured.
    pub plan: Plan,
    /// The workers.
    pub fleet: Fleet<'b>,
    /// Their logs.
    pub journal: Journal,
    /// Chances.
    pub rng: SmallRng,
    backend: &'b Backend,
}

/// How much longer than `failover_time` anything may take before the experiment gives up.
const PATIENCE: Duration = Duration::from_secs(90);

impl<'b> Experiment<'b> {
    /// With a write budget, small items that nothing compresses, and batches of another age if one is given.
    pub fn budgeted(mut self, budget_wcu: u32, batch_age: Option<Duration>) -> Self {
        let age = batch_age.map(|age| ("max_batch_age", format!("{}ms", age.as_millis())));
        let settings = [
            ("write_budget_wcu", budget_wcu.to_string()),
            ("max_item_bytes", "64KiB".to_owned()),
            ("zstd_level", "0".to_owned()),
        ];
        for (setting, value) in settings.into_iter().chain(age) {
            self.fleet = self.fleet.set(setting, &value);
        }
        self
    }

    /// No workers yet, which will go by the product's defaults, all but `failover_time`.
    ///
    /// # Errors
    /// There is no place for logs.
    pub fn new(plan: Plan, backend: &'b Backend, name: &str) -> anyhow::Result<Self> {
        let fleet = Fleet::with_defaults(backend, name)?
            .set("failover_time", &format!("{}ms", plan.failover_time.as_millis()))
            .set("log_format", "json");
        let rng = SmallRng::seed_from_u64(plan.seed);
        Ok(Self { plan, fleet, journal: Journal::default(), rng, backend })
    }

    /// How long anything may take.
    pub fn patience(&self) -> Duration {
        self.plan.failover_time * 3 + PATIENCE
    }

    /// Starts a worker, and returns its number.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn join(&mut self) -> anyhow::Result<usize> {
        self.fleet.start(&[])?;
        Ok(self.fleet.started())
    }

    /// The shards of each worker that is alive, by its number. `None` while somebody else, or nobody, has one.
    ///
    /// # Errors
    /// Rows or logs cannot be read.
    pub async fn holdings(&mut self) -> anyhow::Result<Option<BTreeMap<usize, Vec<String>>>> {
        self.journal.read(&self.fleet)?;
        let mut holdings: BTreeMap<usize, Vec<String>> =
            self.fleet.numbers().into_iter().map(|number| (number, Vec::new())).collect();
        let rows = self.fleet.leases().await?;
        if rows.len() < self.plan.shards {
            return Ok(None);
        }
        for row in rows {
            let owner = row.owner.as_ref().map(WorkerId::as_str).and_then(|id| self.journal.number_of(id));
            let Some(shards) = owner.and_then(|number| holdings.get_mut(&number)) else { return Ok(None) };
            shards.push(row.key.to_string());
        }
        Ok(Some(holdings))
    }

    /// Waits until every shard flows at its owner and the shards are balanced.
    ///
    /// # Errors
    /// That does not come to pass, or a worker has ended by itself.
    pub async fn settled(&mut self) -> anyhow::Result<BTreeMap<usize, Vec<String>>> {
        let patience = self.patience();
        wait_for("balanced shards that flow", patience, async || {
            self.fleet.check_alive()?;
            let Some(holdings) = self.holdings().await? else { return Ok(None) };
            let counts: Vec<usize> = holdings.values().map(Vec::len).collect();
            let balanced = counts.iter().max() <= counts.iter().min().map(|least| least + 1).as_ref();
            let flows = |(worker, shards): (&usize, &Vec<String>)| {
                shards.iter().all(|shard| self.journal.flows(shard, *worker))
            };
            Ok((balanced && holdings.iter().all(flows)).then_some(holdings))
        })
        .await
    }

    /// Waits until everything published is stored and committed, stops the fleet, reads all logs to their ends, and
    /// compares.
    ///
    /// # Errors
    /// That does not come to pass.
    pub async fn finish(self, published: u64, load: &Load) -> anyhow::Result<(Comparison, Journal)> {
        let Self { mut fleet, mut journal, backend, .. } = self;
        fleet.committed(&load.ends(), Duration::from_secs(600)).await?;
        for number in fleet.numbers() {
            fleet.leave(number).await?;
        }
        journal.read(&fleet)?;
        Ok((compare(backend, published, load).await?, journal))
    }
}

async fn compare(backend: &Backend, published: u64, load: &Load) -> anyhow::Result<Comparison> {
    let (seen, unknown) = seen(backend, published, load).await?;
    let lost = seen.iter().filter(|times| **times == 0).count() as u64;
    let repeated: u64 = seen.iter().map(|times| u64::from(times.saturating_sub(1))).sum();
    Ok(Comparison { published, lost, duplicated: repeated + unknown })
}

/// How often the reader finds each event by its number, and how many it finds that were not published.
///
/// # Errors
/// They cannot be read.
pub async fn seen(backend: &Backend, published: u64, load: &Load) -> anyhow::Result<(Vec<u32>, u64)> {
    let table = backend.table(APPLICATION);
    let mut seen = vec![0u32; usize::try_from(published)?];
    let mut unknown = 0u64;
    for key in &load.keys() {
        let count = |data: &[u8]| {
            let at = load.kind().number(data).and_then(|number| usize::try_from(number).ok());
            match at.and_then(|at| seen.get_mut(at)) {
                Some(times) => *times += 1,
                None => unknown += 1,
            }
        };
        table.for_each_event(key, count).await.with_context(|| format!("the events of {key}"))?;
    }
    Ok((seen, unknown))
}
