//! A table whose capacity is cut to a quarter and doubled again, under a backlog: how soon the fleet writes no more than it
//! takes, how soon it uses what is added, and that a fleet that was stopped and started again remembers.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::budget::{Second, now_seconds, ratio, round, seconds};
use super::load::{Kind, Load};
use super::{Comparison, Experiment, Plan};
use crate::harness::Backend;
use crate::harness::fleet::APPLICATION;

/// What is measured, and on what.
#[derive(Debug, Clone, Copy)]
pub struct CapacityPlan {
    /// The fleet; `count` and `rate` are not used.
    pub plan: Plan,
    /// The table's capacity at first, and the fleet's budget all along, in write capacity units a second.
    pub budget_wcu: u32,
    /// How long each of the three later phases lasts.
    pub phase: Duration,
    /// The workers' `max_batch_age`, if not the default.
    pub batch_age: Option<Duration>,
}

/// The seconds of one phase, and what the table took in each.
#[derive(Debug, Clone)]
pub struct Phase {
    /// Write capacity units a second.
    pub capacity: f64,
    /// From the first whole second on.
    pub seconds: Vec<Second>,
}

impl Phase {
    /// From which second on nothing above twice the capacity was attempted.
    pub fn below_twice_after(&self) -> usize {
        let above = |second: &Second| second.accepted + second.refused > 2.0 * self.capacity;
        self.seconds.iter().rposition(above).map_or(0, |last| last + 1)
    }

    /// From which second on five in a row took nine tenths of the capacity on average; none never did.
    pub fn at_nine_tenths_after(&self) -> Option<usize> {
        let enough =
            |five: &[Second]| five.iter().map(|second| second.accepted).sum::<f64>() >= 4.5 * self.capacity;
        self.seconds.windows(5).position(enough)
    }

    /// Part of the attempted items that were refused, from a second on.
    pub fn throttled_ratio(&self, from: usize) -> f64 {
        let seconds = self.seconds.iter().skip(from);
        let (written, refused) = seconds
            .fold((0, 0), |(written, refused), second| (written + second.items.0, refused + second.items.1));
        ratio(refused, written + refused)
    }

    fn mean_ratio(&self, from: usize) -> f64 {
        let sum: f64 = self.seconds.iter().skip(from).map(|second| second.accepted).sum();
        let count = u32::try_from(self.seconds.len().saturating_sub(from).max(1)).unwrap_or(u32::MAX);
        sum / f64::from(count) / self.capacity
    }
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// At a quarter of the capacity.
    pub cut: Phase,
    /// The same, after the whole fleet was stopped in good order and started again.
    pub again: Phase,
    /// At twice that.
    pub doubled: Phase,
    /// What was published against what is stored.
    pub comparison: Comparison,
}

impl Report {
    /// For machines.
    pub fn json(&self, plan: &CapacityPlan) -> serde_json::Value {
        let begun = self.again.seconds.iter().position(|second| second.accepted > 0.0).unwrap_or(0);
        json!({
            "budget_wcu": plan.budget_wcu,
            "workers": plan.plan.workers,
            "cut_to_wcu": self.cut.capacity,
            "cut_below_twice_after_seconds": self.cut.below_twice_after(),
            "cut_mean_ratio": round(self.cut.mean_ratio(5)),
            "cut_throttled_ratio": round(self.cut.throttled_ratio(5)),
            "restarted_first_write_after_seconds": begun,
            "restarted_below_twice_after_seconds": self.again.below_twice_after(),
            "restarted_mean_ratio": round(self.again.mean_ratio(begun)),
            "restarted_throttled_ratio": round(self.again.throttled_ratio(0)),
            "doubled_to_wcu": self.doubled.capacity,
            "doubled_at_nine_tenths_after_seconds": self.doubled.at_nine_tenths_after(),
            "doubled_throttled_ratio": round(self.doubled.throttled_ratio(0)),
            "published": self.comparison.published,
            "lost": self.comparison.lost,
            "duplicated": self.comparison.duplicated,
        })
    }
}

/// Runs a fleet through it; `say` is told what happens.
///
/// # Errors
/// The fleet does not come together, or what is stored cannot be read.
pub async fn run(plan: CapacityPlan, name: &str, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let backend = Backend::process().await?;
    let capacity = async |wcu: u32| {
        say(&format!("the table takes {wcu} units a second"));
        // No credit of what was not used: a table that has some takes the old rate for seconds after the cut.
        let limits = format!("burst_seconds = 0\ntables.{APPLICATION}-events.wcu = {wcu}");
        backend.set("/limits", &limits).await
    };
    capacity(plan.budget_wcu).await?;
    backend.create_stream(plan.plan.shards).await?;
    // As much as is written until the end, and some: most of it before the fleet begins.
    let phases = u64::from(plan.budget_wcu) * plan.phase.as_secs();
    let load = Load::new(backend.kinesis().clone(), plan.budget_wcu).await?.of(Kind::Noise, phases / 4);
    let mut experiment =
        Experiment::new(plan.plan, &backend, name)?.budgeted(plan.budget_wcu, plan.batch_age);
    let stop = CancellationToken::new();
    let writing = async {
        let _stop_with_us = stop.clone().drop_guard();
        let start = async |experiment: &mut Experiment<'_>| {
            for _ in 0..plan.plan.workers {
                experiment.join()?;
            }
            experiment.settled().await
        };
        let phase = async |capacity: u32| {
            let from = now_seconds();
            tokio::time::sleep(plan.phase).await;
            let seconds = seconds(&backend, from + 1, now_seconds()).await?;
            anyhow::Ok(Phase { capacity: f64::from(capacity), seconds })
        };
        start(&mut experiment).await?;
        tokio::time::sleep(plan.phase / 3).await;
        let (quarter, half) = (plan.budget_wcu / 4, plan.budget_wcu / 2);
        capacity(quarter).await?;
        let cut = phase(quarter).await?;
        say("the whole fleet stops in good order, and starts again");
        for number in experiment.fleet.numbers() {
            experiment.fleet.leave(number).await?;
        }
        let from = now_seconds();
        start(&mut experiment).await?;
        tokio::time::sleep(plan.phase).await;
        let again = Phase {
            capacity: f64::from(quarter),
            seconds: seconds(&backend, from + 1, now_seconds()).await?,
        };
        capacity(half).await?;
        let doubled = phase(half).await?;
        capacity(plan.budget_wcu).await?;
        anyhow::Ok((cut, again, doubled))
    };
    let (measured, published) = tokio::join!(writing, load.run(&stop));
    let (cut, again, doubled) = measured?;
    say("all is published; the rest is written");
    let (comparison, _) = experiment.finish(published?, &load).await?;
    Ok(Report { cut, again, doubled, comparison })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_count_until_the_last_that_was_too_many_and_use_when_it_lasts() {
        let second = |accepted, refused| Second { second: 0, accepted, refused, items: (3, 1) };
        let seconds = vec![second(100.0, 500.0), second(50.0, 0.0), second(95.0, 110.0), second(90.0, 0.0)];
        let cut = Phase { capacity: 100.0, seconds };
        assert_eq!(cut.below_twice_after(), 3);
        assert_eq!(cut.at_nine_tenths_after(), None, "four seconds are not five");
        assert_eq!((cut.throttled_ratio(0), cut.mean_ratio(3)), (0.25, 0.9));
        let climbing = (0..8).map(|n| second(f64::from(n) * 20.0, 0.0)).collect();
        let doubled = Phase { capacity: 100.0, seconds: climbing };
        assert_eq!((doubled.below_twice_after(), doubled.at_nine_tenths_after()), (0, Some(3)));
    }
}
