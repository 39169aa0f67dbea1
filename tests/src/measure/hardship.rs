//! A fleet whose table is taken away, stands still, refuses events, or is written to under one key: what it holds in memory
//! meanwhile, how it goes on, and that nothing is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use sluicegate_worker::budget::resident_bytes;
use tokio_util::sync::CancellationToken;

use super::budget::{Second, now_seconds, round, seconds};
use super::load::{Kind, Load};
use super::{Comparison, Experiment, Plan};
use crate::harness::Backend;
use crate::harness::fleet::APPLICATION;

/// What is done to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Every write to it is refused.
    Outage,
    /// No write to it is answered.
    Stall,
    /// Nothing, but all events are of one key.
    HotKey,
}

impl Trouble {
    fn faults(self) -> Option<String> {
        let outage = match self {
            Self::Outage => "refuse",
            Self::Stall => "silence",
            Self::HotKey => return None,
        };
        Some(format!("[[fault]]\ntable = \"{APPLICATION}-events\"\noutage = \"{outage}\"\n"))
    }
}

/// What is measured, and on what.
#[derive(Debug, Clone, Copy)]
pub struct Hardship {
    /// The fleet; `rate` is the load's.
    pub plan: Plan,
    /// What happens.
    pub trouble: Trouble,
    /// For how long.
    pub lasts: Duration,
    /// The fleet's budget and the table's capacity, in write capacity units a second.
    pub budget_wcu: u32,
    /// Bytes each worker may hold.
    pub buffer_mib: u32,
    /// The workers' `max_batch_age`, if not the default.
    pub batch_age: Option<Duration>,
}

impl Hardship {
    /// What a worker should keep in memory at most, when all share the shards.
    pub fn resident_mib(&self) -> f64 {
        let shards = self.plan.shards.div_ceil(self.plan.workers.max(1));
        let buffer = usize::try_from(u64::from(self.buffer_mib) << 20).unwrap_or(usize::MAX);
        let kib = u32::try_from(resident_bytes(buffer, shards) >> 10).unwrap_or(u32::MAX);
        f64::from(kib) / 1024.0
    }
}

/// One look at a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Since the trouble began.
    pub after: Duration,
    /// Memory, in MiB, of the largest worker.
    pub rss_mib: f64,
    /// Time until retention takes something, of the worker where that is shortest.
    pub until_data_loss: f64,
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// The seconds of the trouble.
    pub seconds: Vec<Second>,
    /// Memory meanwhile.
    pub samples: Vec<Sample>,
    /// Workers that were taken for dead.
    pub taken_for_dead: usize,
    /// From the end of the trouble until everything published by then was stored.
    pub drained_in: Duration,
    /// What the table accepted meanwhile, as a part of the budget.
    pub drained_at: f64,
    /// Suffixes over which each aggregate key is spread.
    pub spread: u32,
    /// What was published against what is stored.
    pub comparison: Comparison,
}

impl Report {
    /// For machines.
    pub fn json(&self, hardship: &Hardship) -> serde_json::Value {
        let budget = f64::from(hardship.budget_wcu);
        let sum = |of: fn(&Second) -> f64| self.seconds.iter().map(of).sum::<f64>();
        let (accepted, refused) = (sum(|second| second.accepted), sum(|second| second.refused));
        let count = f64::from(u32::try_from(self.seconds.len().max(1)).unwrap_or(u32::MAX));
        let late: Vec<Sample> =
            self.samples.iter().filter(|sample| sample.after > hardship.lasts / 2).copied().collect();
        let highest = self.samples.iter().map(|sample| sample.rss_mib).fold(0.0, f64::max);
        let formula = hardship.resident_mib();
        let shortest = self.samples.iter().map(|sample| sample.until_data_loss).fold(f64::INFINITY, f64::min);
        json!({
            "trouble_seconds": hardship.lasts.as_secs(),
            "shards": hardship.plan.shards,
            "workers": hardship.plan.workers,
            "budget_wcu": hardship.budget_wcu,
            "buffer_mib": hardship.buffer_mib,
            "mean_ratio": round(accepted / count / budget),
            "throttled_ratio": round(refused / (accepted + refused).max(1.0)),
            "rss_max_mib": round(highest),
            "rss_formula_mib": round(formula),
            "rss_to_formula": round(highest / formula),
            "rss_slope_mib_per_minute": round(slope_per_minute(&late)),
            "until_data_loss_min_seconds": if shortest.is_finite() { json!(round(shortest)) } else { json!(null) },
            "spread": self.spread,
            "taken_for_dead": self.taken_for_dead,
            "drained_in_seconds": self.drained_in.as_secs(),
            "drained_at_ratio": round(self.drained_at),
            "published": self.comparison.published,
            "lost": self.comparison.lost,
            "duplicated": self.comparison.duplicated,
        })
    }
}

/// Growth of memory by least squares.
fn slope_per_minute(samples: &[Sample]) -> f64 {
    let count = f64::from(u32::try_from(samples.len().max(1)).unwrap_or(u32::MAX));
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let minutes = |sample: &Sample| sample.after.as_secs_f64() / 60.0;
    let (mid, level) = (mean(minutes), mean(|sample| sample.rss_mib));
    let spread: f64 = samples.iter().map(|sample| (minutes(sample) - mid).powi(2)).sum();
    let together: f64 = samples.iter().map(|sample| (minutes(sample) - mid) * (sample.rss_mib - level)).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}

/// Runs a fleet through it; `say` is told what happens.
///
/// # Errors
/// The fleet does not come together or does not recover, or what is stored cannot be read.
pub async fn run(hardship: Hardship, name: &str, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let backend = Backend::process().await?;
    backend.set("/limits", &format!("tables.{APPLICATION}-events.wcu = {}", hardship.budget_wcu)).await?;
    backend.create_stream(hardship.plan.shards).await?;
    // Of one hot key there is always more than the table takes.
    let rate = match hardship.trouble {
        Trouble::HotKey => hardship.plan.rate.max(hardship.budget_wcu + hardship.budget_wcu / 20),
        Trouble::Outage | Trouble::Stall => hardship.plan.rate,
    };
    let mut load = Load::new(backend.kinesis().clone(), rate).await?.of(Kind::Noise, 0);
    if hardship.trouble == Trouble::HotKey {
        load = load
            .under_one_key()
            .of(Kind::Noise, u64::from(hardship.budget_wcu) * hardship.lasts.as_secs().min(20));
    }
    let mut experiment =
        Experiment::new(hardship.plan, &backend, name)?.budgeted(hardship.budget_wcu, hardship.batch_age);
    for (setting, value) in [
        ("max_batch_bytes", format!("{}MiB", (hardship.buffer_mib / 8).clamp(1, 16))),
        ("buffer_bytes", format!("{}MiB", hardship.buffer_mib)),
    ] {
        experiment.fleet = experiment.fleet.set(setting, &value);
    }
    let stop = CancellationToken::new();
    let troubled = async {
        let _stop_with_us = stop.clone().drop_guard();
        for _ in 0..hardship.plan.workers {
            experiment.join()?;
        }
        experiment.settled().await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        if let Some(faults) = hardship.trouble.faults() {
            backend.set("/faults", &faults).await?;
            say("the trouble begins");
        }
        let from = now_seconds();
        let samples = experiment.endure(&hardship).await?;
        let seconds = seconds(&backend, from + 1, now_seconds()).await?;
        backend.set("/faults", "").await?;
        say("the trouble is over");
        anyhow::Ok((seconds, samples))
    };
    let (troubled, published) = tokio::join!(troubled, load.run(&stop));
    let ((troubled, samples), published) = (troubled?, published?);
    let (began, from) = (tokio::time::Instant::now(), now_seconds());
    let patience = hardship.lasts * 4 + Duration::from_secs(120);
    experiment.fleet.committed(&load.ends(), patience).await?;
    let drained_in = began.elapsed();
    let drained = seconds(&backend, from, now_seconds().max(from + 1)).await?;
    let accepted: f64 = drained.iter().map(|second| second.accepted).sum();
    let lasted = f64::from(u32::try_from(drained.len()).unwrap_or(u32::MAX));
    let spread = backend.table(APPLICATION).spread().await?;
    let (comparison, journal) = experiment.finish(published, &load).await?;
    Ok(Report {
        seconds: troubled,
        samples,
        taken_for_dead: journal.taken_for_dead(),
        spread,
        drained_in,
        drained_at: accepted / lasted / f64::from(hardship.budget_wcu),
        comparison,
    })
}

impl Experiment<'_> {
    /// Looks at every worker once a second.
    async fn endure(&mut self, hardship: &Hardship) -> anyhow::Result<Vec<Sample>> {
        let begun = tokio::time::Instant::now();
        let mut samples = Vec::new();
        while begun.elapsed() < hardship.lasts {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.fleet.check_alive()?;
            let after = begun.elapsed();
            let rss_kib = self.fleet.resident_bytes()?.into_iter().max().unwrap_or_default() >> 10;
            let rss_mib = f64::from(u32::try_from(rss_kib).unwrap_or(u32::MAX)) / 1_024.0;
            let metrics = self.fleet.metrics("sluicegate_until_data_loss_seconds").await?;
            let until_data_loss = metrics.into_iter().fold(f64::INFINITY, f64::min);
            samples.push(Sample { after, rss_mib, until_data_loss });
        }
        Ok(samples)
    }
}

/// The value of a metric without labels in a scrape.
///
/// # Errors
/// It is not there, or is no number.
pub fn value_of(scrape: &str, name: &str) -> anyhow::Result<f64> {
    let values: BTreeMap<&str, &str> = scrape.lines().filter_map(|line| line.split_once(' ')).collect();
    let value = values.get(name).with_context(|| format!("{name} is not there"))?;
    value.trim().replace("+Inf", "inf").parse().with_context(|| format!("{name} is {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_found_and_values_are_read() {
        let sample =
            |after, rss_mib| Sample { after: Duration::from_secs(after), rss_mib, until_data_loss: 1.0 };
        let rising = [sample(0, 100.0), sample(60, 110.0), sample(120, 120.0)];
        assert!((slope_per_minute(&rising) - 10.0).abs() < 1e-9);
        assert_eq!(slope_per_minute(&[sample(5, 1.0)]), 0.0);
        assert_eq!(value_of("# HELP a b\na_b +Inf\nc 2.5\n", "a_b").unwrap(), f64::INFINITY);
        assert_eq!(value_of("c 2.5\n", "c").unwrap(), 2.5);
        assert!(value_of("c 2.5\n", "d").is_err());
    }
}
