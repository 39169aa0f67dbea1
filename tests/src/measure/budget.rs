//! The write budget: what the table accepted in each second, told by the backend's own ledger, while workers are killed
//! and join under a backlog that never ends.

use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use serde_json::json;
use sluicegate_worker::telemetry::wall_millis;
use tokio_util::sync::CancellationToken;

use super::load::{Kind, Load};
use super::{Comparison, Experiment, Plan};
use crate::harness::Backend;
use crate::harness::fleet::APPLICATION;

/// What is measured, and on what.
#[derive(Debug, Clone, Copy)]
pub struct BudgetPlan {
    /// The fleet; `count` is not used.
    pub plan: Plan,
    /// The fleet's budget and the table's capacity, in write capacity units a second.
    pub budget_wcu: u32,
    /// How long, after the fleet has come together.
    pub lasts: Duration,
    /// Time between two changes of the fleet; none for a fleet that stays as it is.
    pub churn: Option<Duration>,
    /// The workers' `max_batch_age`, if not the default.
    pub batch_age: Option<Duration>,
}

/// One second of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Second {
    /// Since the Unix epoch.
    pub second: u64,
    /// Write capacity units that were accepted.
    pub accepted: f64,
    /// Those that were refused.
    pub refused: f64,
    /// Items that were written, and those that were refused.
    pub items: (u64, u64),
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// The seconds measured.
    pub seconds: Vec<Second>,
    /// Seconds in which the fleet changed.
    pub changes: Vec<Change>,
    /// What was published against what is stored.
    pub comparison: Comparison,
}

/// A change of the fleet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// When.
    pub second: u64,
    /// Seconds until the budget should be divided anew.
    pub lasts: u64,
}

/// Seconds that a worker takes from its start to its first heartbeat, and a look.
const STARTS_WITHIN: u64 = 2;

impl Report {
    /// For machines. A ratio is to the budget.
    pub fn json(&self, plan: &BudgetPlan) -> serde_json::Value {
        let budget = f64::from(plan.budget_wcu);
        let between: Vec<Second> =
            self.seconds.iter().filter(|second| self.is_between(second)).copied().collect();
        let over = self.seconds.iter().filter(|second| second.accepted > 1.05 * budget).count();
        let written: u64 = self.seconds.iter().map(|second| second.items.0).sum();
        let refused: u64 = self.seconds.iter().map(|second| second.items.1).sum();
        json!({
            "budget_wcu": plan.budget_wcu,
            "workers": plan.plan.workers,
            "seconds": self.seconds.len(),
            "changes": self.changes.len(),
            "mean_ratio": round(mean(&self.seconds) / budget),
            "mean_ratio_between_changes": round(mean(&between) / budget),
            "max_ratio": round(self.seconds.iter().map(|second| second.accepted).fold(0.0, f64::max) / budget),
            "windows_over_1_05": round(ratio(over, self.seconds.len())),
            "throttled_ratio": round(ratio(refused, written + refused)),
            "published": self.comparison.published,
            "lost": self.comparison.lost,
            "duplicated": self.comparison.duplicated,
        })
    }

    fn is_between(&self, second: &Second) -> bool {
        let disturbed =
            |change: &Change| (change.second..=change.second + change.lasts).contains(&second.second);
        !self.changes.iter().any(disturbed)
    }
}

fn mean(seconds: &[Second]) -> f64 {
    ratio_of(seconds.iter().map(|second| second.accepted).sum(), seconds.len())
}

/// The part of a whole; 0 of nothing.
pub(super) fn ratio(part: impl TryInto<u32>, whole: impl TryInto<u32>) -> f64 {
    let number = |number: Option<u32>| f64::from(number.unwrap_or(u32::MAX));
    let whole = number(whole.try_into().ok());
    if whole == 0.0 { 0.0 } else { number(part.try_into().ok()) / whole }
}

/// A mean; 0 of nothing.
pub(super) fn ratio_of(sum: f64, count: usize) -> f64 {
    sum / f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX))
}

/// To four places.
pub(super) fn round(ratio: f64) -> f64 {
    (ratio * 10_000.0).round() / 10_000.0
}

/// Runs a fleet against a table of the budget's capacity; `say` is told of each change.
///
/// # Errors
/// The fleet does not come together, or what is stored cannot be read.
pub async fn run(plan: BudgetPlan, name: &str, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let backend = Backend::process().await?;
    backend.set("/limits", &format!("tables.{APPLICATION}-events.wcu = {}", plan.budget_wcu)).await?;
    backend.create_stream(plan.plan.shards).await?;
    let budget = u64::from(plan.budget_wcu);
    // Never less than the fleet can write, and a head start that lasts.
    let rate = plan.budget_wcu + plan.budget_wcu / 20;
    let load = Load::new(backend.kinesis().clone(), rate)
        .await?
        .of(Kind::Noise, budget * plan.lasts.as_secs().min(20));
    let mut experiment =
        Experiment::new(plan.plan, &backend, name)?.budgeted(plan.budget_wcu, plan.batch_age);
    let stop = CancellationToken::new();
    let writing = async {
        let _stop_with_us = stop.clone().drop_guard();
        for _ in 0..plan.plan.workers {
            experiment.join()?;
        }
        experiment.settled().await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let begun = now_seconds();
        let changes = experiment.churn(&plan, &say).await?;
        let seconds = seconds(&backend, begun + 1, now_seconds()).await?;
        anyhow::Ok((seconds, changes))
    };
    let (measured, published) = tokio::join!(writing, load.run(&stop));
    let (seconds, changes) = measured?;
    say("all is published; the rest is written");
    let (comparison, _) = experiment.finish(published?, &load).await?;
    Ok(Report { seconds, changes, comparison })
}

impl Experiment<'_> {
    /// Kills a worker or lets one join, at random, for as long as planned.
    async fn churn(&mut self, plan: &BudgetPlan, say: &impl Fn(&str)) -> anyhow::Result<Vec<Change>> {
        let ends = tokio::time::Instant::now() + plan.lasts;
        let mut changes = Vec::new();
        while let Some(every) = plan.churn {
            if tokio::time::Instant::now() + every >= ends {
                break;
            }
            tokio::time::sleep(every).await;
            self.fleet.check_alive()?;
            let alive = self.fleet.numbers();
            let kill = match alive.len() {
                few if few < plan.plan.workers => false,
                many if many > plan.plan.workers => true,
                _ => self.rng.random(),
            };
            let second = now_seconds();
            if kill {
                let victim = alive[self.rng.random_range(0..alive.len())];
                self.fleet.kill(victim).await?;
                say(&format!("worker {victim} killed, {} left", alive.len() - 1));
            } else {
                let joined = self.join()?;
                say(&format!("worker {joined} joins, {} then", alive.len() + 1));
            }
            let heartbeats = (plan.plan.failover_time * 2 / 3).as_secs_f64().ceil();
            let lasts = Duration::from_secs_f64(heartbeats).as_secs();
            let found = if kill { plan.plan.failover_time.as_secs() } else { STARTS_WITHIN };
            changes.push(Change { second, lasts: lasts + found });
        }
        tokio::time::sleep_until(ends).await;
        Ok(changes)
    }
}

/// Whole seconds since the Unix epoch.
pub fn now_seconds() -> u64 {
    u64::try_from(wall_millis().0 / 1_000).unwrap_or(0)
}

/// What the backend says of each second; nothing happened in those that it leaves out.
///
/// # Errors
/// It says nothing.
pub async fn seconds(backend: &Backend, from: u64, before: u64) -> anyhow::Result<Vec<Second>> {
    seconds_of(backend, &format!("{APPLICATION}-events"), from, before).await
}

/// The same of another table.
///
/// # Errors
/// It says nothing.
pub async fn seconds_of(
    backend: &Backend,
    table: &str,
    from: u64,
    before: u64,
) -> anyhow::Result<Vec<Second>> {
    let ledger = backend.dynamodb_admin(&format!("/ledger?since={from}")).await?;
    // A table that nothing was asked of is not in it.
    let nothing = Vec::new();
    let told = match ledger.get(table) {
        Some(table) => table["windows"].as_array().context("no windows")?,
        None => &nothing,
    };
    let find = |second: u64| {
        let window = told.iter().find(|window| window["second"].as_u64() == Some(second));
        let number = |name: &str| window.and_then(|window| window[name].as_f64()).unwrap_or(0.0);
        let count = |name: &str| window.and_then(|window| window[name].as_u64()).unwrap_or(0);
        Second {
            second,
            accepted: number("write_units"),
            refused: number("refused_units"),
            items: (count("written_items"), count("refused_items")),
        }
    };
    Ok((from..before).map(find).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_budget_and_changes_leave_seconds_out() {
        let second = |second, accepted| Second { second, accepted, refused: 0.0, items: (9, 1) };
        let report = Report {
            seconds: vec![second(10, 1_000.0), second(11, 500.0), second(12, 1_100.0), second(13, 1_000.0)],
            changes: vec![Change { second: 11, lasts: 0 }],
            comparison: Comparison { published: 4, lost: 0, duplicated: 0 },
        };
        let plan =
            Plan { count: 0, workers: 1, shards: 1, failover_time: Duration::from_secs(3), rate: 0, seed: 0 };
        let plan = BudgetPlan {
            plan,
            budget_wcu: 1_000,
            lasts: Duration::from_secs(4),
            churn: None,
            batch_age: None,
        };
        let json = report.json(&plan);
        assert_eq!(json["mean_ratio"], 0.9);
        assert_eq!(json["mean_ratio_between_changes"], 1.0333);
        assert_eq!(json["windows_over_1_05"], 0.25);
        assert_eq!(json["throttled_ratio"], 0.1);
    }
}
