//! Events that the table never takes: whether they become letters and nothing else does, how much later their batches are
//! durable, and whether a redrive brings them home.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use sluicegate_sink::DeadLetters;
use sluicegate_sink::dynamodb::DynamoDbDeadLetters;
use tokio_util::sync::CancellationToken;

use super::experiment::seen;
use super::journal::{Poisoned, Step};
use super::load::{Kind, Load, MARKER};
use super::{Comparison, Distribution, Experiment, Plan};
use crate::harness::fleet::APPLICATION;
use crate::harness::{Backend, sluicegate};

/// What is measured, and on what.
#[derive(Debug, Clone, Copy)]
pub struct PoisonPlan {
    /// The fleet; `rate` is the load's, `count` is not used.
    pub plan: Plan,
    /// For how long events are published.
    pub lasts: Duration,
    /// One event of so many can never be stored.
    pub every: u64,
    /// Aggregate keys of each shard.
    pub keys: u64,
    /// The fleet's budget and the table's capacity, in write capacity units a second.
    pub budget_wcu: u32,
    /// Whether the workers go by the product's defaults; else they close batches after half a second.
    pub defaults: bool,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Report {
    /// Events published that hold the marker.
    pub poisoned: u64,
    /// Those of them that are in the dead-letter table exactly once, as published.
    pub dead_letters: u64,
    /// Other letters.
    pub other_letters: u64,
    /// By how much later batches with poison were durable, letters and all, than they would have been without, in
    /// milliseconds.
    pub added: Distribution,
    /// Questions asked.
    pub probes: u64,
    /// The sum of that metric.
    pub unaccounted: f64,
    /// Events that the reader found before the redrive.
    pub stored: u64,
    /// Letters that the first run of the redrive and those that the second one stored.
    pub redrives: (usize, usize),
    /// Events with the marker that the reader found exactly once after both.
    pub redriven: u64,
    /// What was published against what is stored in the end.
    pub comparison: Comparison,
}

impl Report {
    /// For machines.
    pub fn json(&self, plan: &PoisonPlan) -> serde_json::Value {
        json!({
            "workers": plan.plan.workers,
            "shards": plan.plan.shards,
            "keys_each": plan.keys,
            "budget_wcu": plan.budget_wcu,
            "published": self.comparison.published,
            "poisoned": self.poisoned,
            "dead_letters": self.dead_letters,
            "other_letters": self.other_letters,
            "batches": self.added.len(),
            "added_ms": { "p50": self.added.percentile(50), "max": self.added.max() },
            "probes": self.probes,
            "unaccounted": self.unaccounted,
            "stored": self.stored,
            "redrives": [self.redrives.0, self.redrives.1],
            "redriven": self.redriven,
            "lost": self.comparison.lost,
            "duplicated": self.comparison.duplicated,
        })
    }
}

/// Runs a fleet on a table that rejects some events; `say` is told what happens.
///
/// # Errors
/// The fleet does not come together or does not finish, or what is stored cannot be read.
pub async fn run(plan: PoisonPlan, name: &str, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let backend = Backend::process().await?;
    backend.set("/limits", &format!("tables.{APPLICATION}-events.wcu = {}", plan.budget_wcu)).await?;
    backend.create_stream(plan.plan.shards).await?;
    let faults = format!("[[fault]]\ntable = \"{APPLICATION}-events\"\nreject_items_with = \"{MARKER}\"\n");
    backend.set("/faults", &faults).await?;
    let kind = Kind::Marked(plan.every);
    let load = Load::new(backend.kinesis().clone(), plan.plan.rate).await?;
    let load = load.of(kind, 0).under_keys(plan.keys);
    let mut experiment = experiment(&plan, &backend, name)?;
    let stop = CancellationToken::new();
    let writing = async {
        let _stop_with_us = stop.clone().drop_guard();
        for _ in 0..plan.plan.workers {
            experiment.join()?;
        }
        experiment.settled().await?;
        tokio::time::sleep(plan.lasts).await;
        anyhow::Ok(())
    };
    let (written, published) = tokio::join!(writing, load.run(&stop));
    written?;
    let published = published?;
    let mut report = Report {
        poisoned: (0..published).filter(|number| kind.marks(*number)).count() as u64,
        ..Report::default()
    };
    say("all is published; the rest is written");
    experiment.fleet.committed(&load.ends(), Duration::from_secs(600)).await?;
    report.unaccounted = experiment.fleet.metrics("sluicegate_records_unaccounted").await?.iter().sum();
    (report.dead_letters, report.other_letters) = letters(&backend, published, kind).await?;
    let (found, _) = seen(&backend, published, &load).await?;
    report.stored = found.iter().map(|times| u64::from(*times)).sum();
    backend.set("/faults", "").await?;
    say("the table takes everything again; the letters are redriven");
    report.redrives = (redrive(&backend).await?, redrive(&backend).await?);
    let (found, _) = seen(&backend, published, &load).await?;
    let once = (0..).zip(&found).filter(|(number, times)| kind.marks(*number) && **times == 1);
    report.redriven = once.count() as u64;
    let (comparison, journal) = experiment.finish(published, &load).await?;
    report.comparison = comparison;
    (report.added, report.probes) = added(&journal.poisoned)?;
    Ok(report)
}

fn experiment<'b>(plan: &PoisonPlan, backend: &'b Backend, name: &str) -> anyhow::Result<Experiment<'b>> {
    let mut experiment = Experiment::new(plan.plan, backend, name)?;
    let quick = [("max_batch_age", "500ms".to_owned()), ("commit_delay", "300ms".to_owned())];
    let settings = [
        ("write_budget_wcu", plan.budget_wcu.to_string()),
        ("max_item_bytes", "64KiB".to_owned()),
        // So that the marker is to be seen in every part of a group.
        ("zstd_level", "0".to_owned()),
    ];
    for (setting, value) in settings.into_iter().chain(quick.into_iter().filter(|_| !plan.defaults)) {
        experiment.fleet = experiment.fleet.set(setting, &value);
    }
    Ok(experiment)
}

/// How many marked events are in the dead-letter table exactly once, byte for byte, and how many other letters.
async fn letters(backend: &Backend, published: u64, kind: Kind) -> anyhow::Result<(u64, u64)> {
    let name = format!("{APPLICATION}-dead-letters");
    let table = DynamoDbDeadLetters::new(backend.dynamodb().clone(), &name);
    let (mut marked, mut others, mut behind) = (BTreeSet::new(), 0, None);
    loop {
        let page = table.list(behind.as_ref()).await?;
        for header in page.letters {
            let letter = table.letter(&header.id).await?.context("a letter that was listed is not there")?;
            match kind.number(&letter.data) {
                Some(number) if number < published && kind.marks(number) && marked.insert(number) => {}
                Some(_) | None => others += 1,
            }
        }
        behind = page.next;
        if behind.is_none() {
            return Ok((marked.len() as u64, others));
        }
    }
}

/// Redrives all open letters with the real program; returns how many it stored.
async fn redrive(backend: &Backend) -> anyhow::Result<usize> {
    let arguments =
        ["dead-letters", "redrive", "--all", "--json", "--embedded", "--application", APPLICATION];
    let finished = sluicegate(&backend.environment(), &arguments).await?.successful()?;
    let redriven = finished.stdout.lines().filter(|line| line.contains("\"redriven\"")).count();
    ensure!(redriven == finished.stdout.lines().count(), "not all were redriven: {finished:?}");
    Ok(redriven)
}

/// What a partition key takes of a worker, in write units a second.
const KEY_RATE: f64 = 950.0;

/// From what is logged: for each batch with poison the time from the beginning of its first search, with everything else
/// of it written, until it was durable, letters and all, less the time that the rest of the rejected group would have taken
/// without poison, at the most that its key takes; and all questions.
fn added(poisoned: &[Poisoned]) -> anyhow::Result<(Distribution, u64)> {
    let (mut searched, mut durable) = (BTreeMap::new(), BTreeMap::new());
    let mut probes = 0;
    // Of each the first: logs of several workers need not be in order.
    for Poisoned { batch, at_ms, step } in poisoned {
        match step {
            Step::Search(left) => {
                let found = searched.entry(batch).or_insert((*at_ms, *left));
                if *at_ms < found.0 {
                    *found = (*at_ms, *left);
                }
            }
            Step::Asked(questions) => probes += questions,
            Step::Durable => {
                let found = durable.entry(batch).or_insert(*at_ms);
                *found = (*found).min(*at_ms);
            }
        }
    }
    ensure!(searched.keys().eq(durable.keys()), "not the same: searched {searched:?}, durable {durable:?}");
    let times = searched.values().zip(durable.values()).map(|((from, left), to)| {
        #[expect(clippy::cast_possible_truncation, reason = "a few seconds at most")]
        let unavoidable = (left / KEY_RATE * 1_000.0) as i64;
        (to - from - unavoidable).max(0)
    });
    Ok((Distribution::new(times.collect()), probes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_from_its_first_search_until_it_is_durable_less_what_it_would_have_taken_anyway() {
        let step = |first: &str, at_ms, step| Poisoned { batch: ("s".into(), first.into()), at_ms, step };
        let mut steps = vec![
            step("1", 1_000, Step::Search(95.0)),
            step("1", 1_100, Step::Asked(7)),
            step("2", 1_200, Step::Search(0.0)),
            step("1", 1_300, Step::Search(950.0)),
            step("1", 1_350, Step::Asked(2)),
            step("1", 1_500, Step::Durable),
        ];
        assert!(added(&steps).is_err(), "the second is not durable");
        steps.push(step("2", 1_210, Step::Durable));
        assert_eq!(added(&steps).unwrap(), (Distribution::new(vec![10, 400]), 9));
    }
}
