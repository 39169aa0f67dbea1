//! What came out, as a table, as one JSON object and as evidence.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Value, json};
use sluicegate_worker::telemetry::wall_millis;

use super::super::budget::round;
use super::{Budget, LiftPlan, Scenario};

/// What came out of one scenario of one configuration.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Workers of the fleet.
    pub workers: usize,
    /// Its write budget.
    pub budget: Budget,
    /// What happened.
    pub scenario: Scenario,
    /// Seconds from the lift to nine tenths of what is to be reached; none if that was not reached.
    pub seconds_to_enough: Option<u64>,
    /// Seconds after the lift that were watched.
    pub watched_seconds: u64,
    /// The part of what the table gave that was used, from ten seconds after the lift on.
    pub used: f64,
    /// The least part of an equal part that a worker with work wrote in any ten seconds of these.
    pub worst_share: Option<f64>,
    /// The longest time after the lift for which a worker with work wrote less than half of an equal part.
    pub starved_seconds: f64,
    /// The part of all attempted units that was refused.
    pub refused_part: f64,
    /// Units a second in windows of three seconds after the lift, by worker.
    pub windows: Vec<Vec<f64>>,
}

/// Above the lines of outcomes.
pub const HEADINGS: &str =
    "scenario         budget  workers  s to 90%  used  worst share  starved, s  refused";

impl Outcome {
    /// A row under [`HEADINGS`].
    pub fn line(&self) -> String {
        let soon = self
            .seconds_to_enough
            .map_or_else(|| format!("> {}", self.watched_seconds), |seconds| seconds.to_string());
        let share = self.worst_share.map_or_else(|| "-".to_owned(), |share| format!("{share:.2}"));
        format!(
            "{:<16} {:<7} {:>7}  {soon:>8}  {:>4.2}  {share:>11}  {:>10.0}  {:>7.4}",
            self.scenario.name(),
            self.budget.name(),
            self.workers,
            self.used,
            self.starved_seconds,
            self.refused_part,
        )
    }

    /// Units a second of each worker, a line for each window.
    pub fn windows_text(&self) -> String {
        let mut text = format!("{} {} {} workers\n", self.scenario.name(), self.budget.name(), self.workers);
        for (at, window) in (0_usize..).step_by(3).zip(&self.windows) {
            let units: Vec<String> = window.iter().map(|units| format!("{units:.0}")).collect();
            let sum: f64 = window.iter().sum();
            text.push_str(&format!("{at:>4} s {sum:>7.0}  {}\n", units.join(" ")));
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "scenario": self.scenario.name(),
            "budget": self.budget.name(),
            "workers": self.workers,
            "seconds_to_90_percent": self.seconds_to_enough,
            "used": round(self.used),
            "worst_share": self.worst_share.map(round),
            "starved_seconds": round(self.starved_seconds),
            "refused_part": round(self.refused_part),
        })
    }
}

/// What came out of all.
#[derive(Debug)]
pub struct Report {
    /// What was planned.
    pub plan: LiftPlan,
    /// By scenario and size of the fleet.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// A table for people.
    pub fn table(&self) -> String {
        let lines: Vec<String> = self.outcomes.iter().map(Outcome::line).collect();
        format!("{HEADINGS}\n{}\n", lines.join("\n"))
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let all = || self.outcomes.iter();
        let reached = all().filter_map(|outcome| outcome.seconds_to_enough);
        let refused = |outcome: &&Outcome| outcome.scenario == Scenario::Outage;
        json!({
            "capacity": self.plan.capacity,
            "not_reached": all().filter(|outcome| outcome.seconds_to_enough.is_none()).count(),
            "worst_seconds_to_90_percent": reached.max(),
            "worst_used": all().map(|outcome| outcome.used).min_by(f64::total_cmp).map(round),
            "worst_share": all().filter_map(|outcome| outcome.worst_share).min_by(f64::total_cmp).map(round),
            "worst_starved_seconds": all().map(|outcome| outcome.starved_seconds).max_by(f64::total_cmp).map(round),
            "worst_refused_part_of_outage":
                all().filter(refused).map(|outcome| outcome.refused_part).max_by(f64::total_cmp).map(round),
            "outcomes": all().map(Outcome::json).collect::<Vec<_>>(),
        })
    }

    /// Writes `lift.txt` into a folder: the command, when and where it ran, the table and the JSON object.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_evidence(&self, folder: &Path) -> anyhow::Result<()> {
        let millis = u64::try_from(wall_millis().0).unwrap_or(0);
        let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(millis));
        let text = format!(
            "$ {}\n{date}, {}\n\n{}\n{}\n",
            self.plan.command(),
            machine(),
            self.table(),
            self.json()
        );
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join("lift.txt");
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }
}

impl LiftPlan {
    /// The command that does it again.
    fn command(&self) -> String {
        let workers: Vec<String> = self.workers.iter().map(usize::to_string).collect();
        let budgets: Vec<&str> = self.budgets.iter().map(|budget| budget.name()).collect();
        let scenarios: Vec<&str> = self.scenarios.iter().map(|scenario| scenario.name()).collect();
        format!(
            "sluicegate-measure lift --workers {} --budgets {} --scenarios {} --capacity {} \
             --shards-per-worker {} --failover-time {} --at-once {}",
            workers.join(","),
            budgets.join(","),
            scenarios.join(","),
            self.capacity,
            self.shards_per_worker,
            humantime::format_duration(self.failover_time),
            self.at_once,
        )
    }
}

/// Cores and memory of this machine, and how busy it is.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let gib = kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let load = read("/proc/loadavg");
    let load = load.split(' ').nth(2).unwrap_or("?");
    format!("{cores} cores, {gib} GiB of memory, mean load of the last 15 minutes {load}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(scenario: Scenario, seconds_to_enough: Option<u64>, worst_share: Option<f64>) -> Outcome {
        Outcome {
            workers: 2,
            budget: Budget::None,
            scenario,
            seconds_to_enough,
            watched_seconds: 40,
            used: 0.97,
            worst_share,
            starved_seconds: 2.0,
            refused_part: 0.0123,
            windows: vec![vec![700.0, 750.4]],
        }
    }

    fn report() -> Report {
        let plan = LiftPlan {
            workers: vec![2],
            budgets: vec![Budget::None],
            scenarios: vec![Scenario::Outage, Scenario::Doubling],
            capacity: 1_500,
            shards_per_worker: 4,
            failover_time: Duration::from_secs(10),
            at_once: 40,
        };
        let outcomes =
            vec![outcome(Scenario::Outage, Some(4), Some(0.9)), outcome(Scenario::Doubling, None, None)];
        Report { plan, outcomes }
    }

    #[test]
    fn the_worst_of_all_is_told_and_what_was_not_reached_is_counted() {
        let json = report().json();
        assert_eq!((&json["worst_seconds_to_90_percent"], &json["not_reached"]), (&4.into(), &1.into()));
        assert_eq!((&json["worst_share"], &json["worst_used"]), (&0.9.into(), &0.97.into()));
        assert_eq!(json["worst_refused_part_of_outage"], 0.0123);
        assert_eq!(json["outcomes"][1]["seconds_to_90_percent"], Value::Null);
    }

    #[test]
    fn evidence_holds_the_command_the_table_and_the_json() {
        let folder = tempfile::tempdir().unwrap();
        report().write_evidence(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("lift.txt")).unwrap();
        let command = "sluicegate-measure lift --workers 2 --budgets none --scenarios outage,doubling --capacity 1500 \
                       --shards-per-worker 4 --failover-time 10s --at-once 40";
        assert!(text.starts_with(&format!("$ {command}\n")) && text.contains(" cores, "), "{text}");
        assert!(text.contains("outage           none          2         4  0.97         0.90"), "{text}");
        assert!(text.contains("doubling         none          2      > 40  0.97            -"), "{text}");
        assert!(serde_json::from_str::<Value>(text.lines().last().unwrap()).is_ok());
        assert!(report().outcomes[0].windows_text().ends_with("\n   0 s    1450  700 750\n"));
    }
}
