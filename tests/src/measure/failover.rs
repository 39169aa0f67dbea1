//! Failover: SIGKILL to a random worker, until the first new records of the last of its shards are read and given to
//! another worker's batcher.

use anyhow::Context;
use rand::Rng;
use serde_json::json;
use sluicegate_worker::telemetry::wall_millis;
use tokio_util::sync::CancellationToken;

use super::{Comparison, Distribution, Experiment, Plan, load::Load};
use crate::harness::{Backend, wait_for};

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// From each kill to the last of its shards.
    pub gaps: Distribution,
    /// What was published against what is stored.
    pub comparison: Comparison,
}

impl Report {
    /// For machines.
    pub fn json(&self, plan: &Plan) -> serde_json::Value {
        json!({
            "kills": self.gaps.len(),
            "failover_time_ms": u64::try_from(plan.failover_time.as_millis()).unwrap_or(u64::MAX),
            "p50_ms": self.gaps.percentile(50),
            "p99_ms": self.gaps.percentile(99),
            "max_ms": self.gaps.max(),
            "published": self.comparison.published,
            "lost": self.comparison.lost,
            "duplicated": self.comparison.duplicated,
        })
    }
}

/// Kills workers under load; `say` is told of each kill.
///
/// # Errors
/// The fleet does not recover, or what is stored cannot be read.
pub async fn run(plan: Plan, name: &str, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let backend = Backend::process().await?;
    backend.create_stream(plan.shards).await?;
    let load = Load::new(backend.kinesis().clone(), plan.rate).await?;
    let mut experiment = Experiment::new(plan, &backend, name)?;
    let stop = CancellationToken::new();
    let killing = async {
        let _stop_with_us = stop.clone().drop_guard();
        for _ in 0..plan.workers {
            experiment.join()?;
        }
        let mut gaps = Vec::new();
        for kill in 1..=plan.count {
            let (gap, shards) = experiment.kill_one().await.with_context(|| format!("kill {kill}"))?;
            say(&format!("kill {kill} of {}: {shards} shards, flowing again after {gap} ms", plan.count));
            gaps.push(gap);
            experiment.join()?;
        }
        experiment.settled().await?;
        anyhow::Ok(gaps)
    };
    let (gaps, published) = tokio::join!(killing, load.run(&stop));
    let gaps = Distribution::new(gaps?);
    let (comparison, _) = experiment.finish(published?, &load).await?;
    Ok(Report { gaps, comparison })
}

impl Experiment<'_> {
    /// Kills one worker of a settled fleet at a random point between two heartbeats. Returns the milliseconds until
    /// the last of its shards flowed again, and how many it had.
    async fn kill_one(&mut self) -> anyhow::Result<(i64, usize)> {
        let holdings = self.settled().await?;
        let holders: Vec<usize> =
            holdings.iter().filter(|(_, shards)| !shards.is_empty()).map(|(worker, _)| *worker).collect();
        let victim =
            *holders.get(self.rng.random_range(0..holders.len().max(1))).context("nobody holds a shard")?;
        tokio::time::sleep(self.plan.failover_time.mul_f64(self.rng.random::<f64>() / 3.0)).await;
        // What it held may have changed while we waited: what counts is what it held when it died.
        let killed_at = wall_millis().0;
        self.fleet.kill(victim).await?;
        let mut shards = Vec::new();
        for row in self.fleet.leases().await? {
            if row.owner.is_some_and(|owner| self.journal.number_of(owner.as_str()) == Some(victim)) {
                shards.push(row.key.to_string());
            }
        }
        let patience = self.patience();
        let last = wait_for("the killed worker's shards to flow", patience, async || {
            self.fleet.check_alive()?;
            self.journal.read(&self.fleet)?;
            let again =
                |shard: &String| self.journal.flows_again(shard, killed_at, victim).map(|began| began.at_ms);
            let all: Option<Vec<i64>> = shards.iter().map(again).collect();
            Ok(all.map(|all| all.into_iter().max().unwrap_or(killed_at)))
        })
        .await?;
        Ok((last - killed_at, shards.len()))
    }
}
