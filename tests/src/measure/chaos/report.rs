//! What came of a run: for machines, for the eye, and as evidence. **Pure**, but for writing the files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::json;
use sluicegate_lease::invariants::Broken;

use super::course::Done;
use super::gaps::Gap;
use super::laws::JUDGED;
use super::{ChaosPlan, lengths, prometheus};
use crate::measure::burst::svg::{Column, Picture, Series, Style};

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// What was planned.
    pub plan: ChaosPlan,
    /// When the script began, in epoch milliseconds.
    pub began_ms: i64,
    /// Records in the stream, by the backend's journal.
    pub published: u64,
    /// Events that the reader finds.
    pub stored: u64,
    /// Published more often than stored.
    pub lost: u64,
    /// Stored more often than published.
    pub duplicated: u64,
    /// Records that a producer's retry put there once more.
    pub producer_duplicates: u64,
    /// Requests of producers whose outcome was unknown.
    pub unknown_outcomes: u64,
    /// Records of committed ranges that workers could not account for.
    pub unaccounted: f64,
    /// Workers that were asked for that, and answered.
    pub asked: usize,
    /// Writes of lease rows that were judged.
    pub lease_writes: usize,
    /// Takes from workers that were presumed dead.
    pub taken: usize,
    /// Hand-overs from one worker to another.
    pub given: usize,
    /// Changes of a worker's share of the write budget.
    pub shares: usize,
    /// Laws that the history breaks.
    pub broken: Vec<Broken>,
    /// One gap a kill.
    pub failovers: Vec<Gap>,
    /// One gap a shard that was handed over.
    pub handoffs: Vec<Gap>,
    /// The alerts that fired, if a Prometheus watched.
    pub fired: Option<BTreeSet<String>>,
    /// What was done.
    pub done: Done,
    /// Where the journal and the logs are.
    pub folder: PathBuf,
}

/// Broken laws that are told by name, each once.
const TOLD: usize = 20;
const RED: &str = "#cf222e";
const BLUE: &str = "#0969da";

impl Report {
    /// For machines.
    pub fn json(&self) -> serde_json::Value {
        let (failover, handoff) = (lengths(&self.failovers), lengths(&self.handoffs));
        json!({
            "seed": self.plan.seed,
            "seconds": self.plan.lasts.as_secs(),
            "published": self.published,
            "stored": self.stored,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "producer_duplicates": self.producer_duplicates,
            "unaccounted": self.unaccounted,
            "kills": self.done.kills.len(),
            "stops": self.done.freezes.len(),
            "partitions": self.done.partitions.len(),
            "leaves": self.done.leaves,
            "joins": self.done.joins,
            "reshards": self.done.reshards,
            "troubles": self.done.troubles,
            "failovers": failover.len(),
            "failover_p50_ms": failover.percentile(50),
            "failover_p99_ms": failover.percentile(99),
            "handoffs": handoff.len(),
            "handoff_p50_ms": handoff.percentile(50),
            "handoff_p99_ms": handoff.percentile(99),
            "lease_writes": self.lease_writes,
            "laws_judged": JUDGED,
            "laws_broken": self.broken.len(),
            "alerts_fired": self.fired,
        })
    }

    /// Whether everything is as it must be.
    ///
    /// # Errors
    /// What is not, the seed, and where to look.
    pub fn verdict(&self) -> anyhow::Result<()> {
        let Self { lost, duplicated, unaccounted, folder, .. } = self;
        let laws: Vec<String> =
            self.broken.iter().take(TOLD).map(|broken| format!("\n{}: {}", broken.law, broken.why)).collect();
        ensure!(
            *lost == 0 && *duplicated == 0 && *unaccounted == 0.0 && laws.is_empty() && self.published > 0,
            "seed {}: of {} published, {lost} are lost and {duplicated} are too many; {unaccounted} are not accounted for; {} \
             laws are broken; the journal and the workers' logs are in {}{}",
            self.plan.seed,
            self.published,
            self.broken.len(),
            folder.display(),
            laws.concat()
        );
        ensure!(self.asked > 0, "seed {}: no worker told what it could not account for", self.plan.seed);
        // A kill may hit a worker without shards, or come at the very end.
        let (kills, failovers, handoffs) = (self.done.kills.len(), self.failovers.len(), self.handoffs.len());
        ensure!(
            failovers * 2 >= kills && (self.done.leaves == 0 || handoffs > 0),
            "seed {}: {kills} kills and {} that left show as {failovers} failovers and {handoffs} hand-overs: the logs do not say what \
             is measured",
            self.plan.seed,
            self.done.leaves
        );
        if let Some(fired) = &self.fired {
            prometheus::judge(fired, self.done.kills.len(), self.plan.lasts)
                .with_context(|| format!("seed {}", self.plan.seed))?;
        }
        Ok(())
    }

    /// Writes `chaos.txt` and `chaos.svg` into a folder.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_evidence(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let write = |name: &str, content: String| {
            let path = folder.join(name);
            std::fs::write(&path, content).with_context(|| path.display().to_string())
        };
        write("chaos.txt", self.text())?;
        write("chaos.svg", self.picture().svg())
    }

    fn text(&self) -> String {
        let plan = &self.plan;
        let mut text = format!("$ {}\n\n", plan.command());
        let told = [
            ("workers, after each kill replaced by another", plan.workers.to_string()),
            ("shards at the beginning", plan.shards.to_string()),
            ("failover_time", format!("{:?}", plan.failover_time)),
            ("seconds of chaos", plan.lasts.as_secs().to_string()),
            ("records published, by the backend's journal", self.published.to_string()),
            ("events stored, byte for byte the same", (self.stored - self.duplicated).to_string()),
            ("lost", self.lost.to_string()),
            ("duplicated", self.duplicated.to_string()),
            ("copies by producers that repeated an unknown outcome", self.producer_duplicates.to_string()),
            ("requests of producers with an unknown outcome", self.unknown_outcomes.to_string()),
            ("records of committed ranges not accounted for", self.unaccounted.to_string()),
            ("workers that told so", self.asked.to_string()),
            ("SIGKILL", self.done.kills.len().to_string()),
            ("SIGSTOP, for up to three failover times", self.done.freezes.len().to_string()),
            ("workers cut off from DynamoDB, for as long", self.done.partitions.len().to_string()),
            ("SIGTERM", self.done.leaves.to_string()),
            ("workers that joined", self.done.joins.to_string()),
            ("splits and merges", self.done.reshards.to_string()),
            ("faults and limits of the backend, the outage among them", self.done.troubles.to_string()),
            ("writes of lease rows that were judged", self.lease_writes.to_string()),
            ("takes from workers presumed dead", self.taken.to_string()),
            ("hand-overs from one worker to another", self.given.to_string()),
            ("changes of a worker's share of the write budget", self.shares.to_string()),
            ("laws judged (docs/design.md)", JUDGED.len().to_string()),
            ("laws broken", self.broken.len().to_string()),
        ];
        for (what, count) in told {
            text.push_str(&format!("{count:>10}  {what}\n"));
        }
        if let Some(fired) = &self.fired {
            let names: Vec<&str> = fired.iter().map(String::as_str).collect();
            text.push_str(&format!(
                "\nalerts that fired, asked of a Prometheus that scraped the fleet: {}\n",
                names.join(", ")
            ));
        }
        let shown = [
            ("SIGKILL to the first records of the last of the worker's shards elsewhere", &self.failovers),
            (
                "after a hand-over: last records read (or the arrival of the next, if later) to the first read again",
                &self.handoffs,
            ),
        ];
        for (what, gaps) in shown {
            let gaps = lengths(gaps);
            let (p50, p99, max) = (gaps.percentile(50), gaps.percentile(99), gaps.max());
            text.push_str(&format!(
                "\n{what}: {} times, median {p50} ms, p99 {p99} ms, longest {max} ms\n",
                gaps.len()
            ));
            text.push_str(&gaps.histogram());
        }
        text.push_str(&format!("\n{}\n", self.json()));
        text
    }

    fn picture(&self) -> Picture {
        let since = |at_ms: i64| seconds(at_ms - self.began_ms);
        let dots = |gaps: &[Gap], name: String, colour| Series {
            name,
            colour,
            style: Style::Dots,
            points: gaps.iter().map(|gap| (since(gap.at_ms).max(0.0), seconds(gap.lasted_ms))).collect(),
        };
        let told = |what: &str, gaps: &[Gap]| {
            let gaps = lengths(gaps);
            let (p50, p99) = (seconds(gaps.percentile(50)), seconds(gaps.percentile(99)));
            format!("{} {what}: median {p50:.2} s, p99 {p99:.2} s", gaps.len())
        };
        let outage = self.done.outage.map_or((0.0, 0.0), |(from, to)| (since(from), since(to)));
        Picture {
            title: format!("{:.0} minutes of chaos", self.plan.lasts.as_secs_f64() / 60.0),
            subtitle: format!(
                "{} workers, {} shards: {} killed, {} frozen, {} cut off, {} told to leave; {} reshards, {} troubles; {} of {} events stored once",
                self.plan.workers,
                self.plan.shards,
                self.done.kills.len(),
                self.done.freezes.len(),
                self.done.partitions.len(),
                self.done.leaves,
                self.done.reshards,
                self.done.troubles,
                self.stored - self.duplicated,
                self.published,
            ),
            columns: vec![Column {
                title: "How long shards stood still".to_owned(),
                panels: vec![
                    vec![dots(&self.failovers, told("kills", &self.failovers), RED)],
                    vec![dots(&self.handoffs, told("shards", &self.handoffs), BLUE)],
                ],
            }],
            rows: vec![
                "After a kill, until the last shard flows again, in seconds".to_owned(),
                "After a hand-over, in seconds".to_owned(),
            ],
            shaded: (outage.0, outage.1, "table out".to_owned()),
            notes: vec![format!(
                "Seed {}, failover_time {:?}. Each dot stands where its gap ended.",
                self.plan.seed, self.plan.failover_time
            )],
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a run of hours at most")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report() -> Report {
        let plan = ChaosPlan {
            lasts: Duration::from_secs(60),
            seed: 7,
            workers: 6,
            shards: 16,
            failover_time: Duration::from_secs(3),
            rate: 300,
        };
        Report {
            plan,
            began_ms: 1_000,
            published: 10,
            stored: 10,
            lost: 0,
            duplicated: 0,
            producer_duplicates: 1,
            unknown_outcomes: 2,
            unaccounted: 0.0,
            asked: 9,
            lease_writes: 30,
            taken: 2,
            given: 3,
            shares: 4,
            broken: Vec::new(),
            failovers: vec![Gap { at_ms: 9_000, lasted_ms: 3_200 }],
            handoffs: vec![Gap { at_ms: 9_000, lasted_ms: 120 }, Gap { at_ms: 9_100, lasted_ms: 90 }],
            fired: None,
            done: Done { kills: vec![(1, 5_800)], outage: Some((2_000, 12_000)), ..Done::default() },
            folder: PathBuf::from("there"),
        }
    }

    #[test]
    fn a_run_passes_only_if_nothing_is_wrong() {
        report().verdict().unwrap();
        let broken = vec![Broken { law: "D5", why: "a gap".to_owned() }];
        let wrong = [
            Report { lost: 1, ..report() },
            Report { duplicated: 1, ..report() },
            Report { unaccounted: 1.0, ..report() },
            Report { published: 0, ..report() },
            Report { asked: 0, ..report() },
            Report { failovers: Vec::new(), ..report() },
            Report { broken, ..report() },
        ];
        for report in wrong {
            let told = report.verdict().unwrap_err().to_string();
            assert!(told.contains("seed 7"), "{told}");
        }
    }

    #[test]
    fn numbers_are_told_to_machines_and_in_the_evidence() {
        let json = report().json();
        assert_eq!(
            (&json["published"], &json["kills"], &json["laws_broken"]),
            (&10.into(), &1.into(), &0.into())
        );
        assert_eq!((&json["failover_p50_ms"], &json["handoff_p99_ms"]), (&3_200.into(), &120.into()));
        let folder = tempfile::tempdir().unwrap();
        report().write_evidence(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("chaos.txt")).unwrap();
        let command = "sluicegate-measure chaos --minutes 1 --seed 7 --workers 6 --shards 16 --failover-time 3s --rate 300";
        assert!(text.starts_with(&format!("$ {command}\n")) && text.contains("1  SIGKILL\n"), "{text}");
        let picture = std::fs::read_to_string(folder.path().join("chaos.svg")).unwrap();
        assert_eq!(picture.matches("<circle").count(), 3);
    }
}
