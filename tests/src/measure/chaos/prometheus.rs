//! A real Prometheus that scrapes the fleet while it is disturbed, with the alerts that are deployed: which of them fire, which
//! must, and which must not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::harness::fleet::{APPLICATION, http};
use crate::harness::{Backend, LONG, wait_for};

/// The rules that are deployed.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/monitoring/rules.yaml");
/// Time between two looks at which workers there are.
const EVERY: Duration = Duration::from_secs(1);
/// Fires when three workers fell silent, after a minute.
const WORKERS_DIE: &str = "SluicegateWorkersDie";
/// That many kills, and that long, and it must have.
const ENOUGH: (usize, Duration) = (6, Duration::from_secs(240));
/// What chaos of this kind must not lead to.
const NEVER: [&str; 7] = [
    "SluicegateConservationBroken",
    "SluicegateRecordsLost",
    "SluicegateDeadLetters",
    "SluicegateFleetAbsent",
    "SluicegateRetentionAtRisk",
    "SluicegateBacklogGrows",
    "SluicegateMixedVersions",
];

/// One that runs until it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    _process: Child,
    address: String,
    targets: PathBuf,
}

impl Prometheus {
    /// Starts the program, with its data below the folder.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (config, targets) = (folder.join("prometheus.yml"), folder.join("targets.json"));
        std::fs::write(&targets, "[]")?;
        let text = json!({
            "global": { "scrape_interval": "2s", "evaluation_interval": "2s" },
            "rule_files": [RULES],
            "scrape_configs": [{
                "job_name": "sluicegate",
                "file_sd_configs": [{ "files": [&targets], "refresh_interval": "1s" }],
            }],
        });
        // JSON is YAML.
        std::fs::write(&config, text.to_string())?;
        // It tells nobody which port it took, so it is given one that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = std::fs::File::create(folder.join("prometheus.log"))?;
        let process = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let prometheus = Self { _process: process, address, targets };
        wait_for("Prometheus", LONG, async || {
            Ok(http(&prometheus.address, "GET", "/-/ready", "").await.is_ok().then_some(()))
        })
        .await?;
        Ok(prometheus)
    }

    /// Tells it which workers answer, until stopped: in a cluster a pod that is gone is no target any more.
    ///
    /// # Errors
    /// The list cannot be written.
    pub async fn follow(&self, backend: &Backend, stop: &CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            let rows = backend.workers(APPLICATION).await.unwrap_or_default();
            let asked = rows.into_iter().filter_map(|row| row.address).map(|address| async move {
                let alive = http(&address, "GET", "/livez", "").await.is_ok();
                alive.then_some(address)
            });
            let alive: Vec<String> = futures::future::join_all(asked).await.into_iter().flatten().collect();
            if !alive.is_empty() {
                let next = self.targets.with_extension("next");
                std::fs::write(&next, json!([{ "targets": alive }]).to_string())?;
                std::fs::rename(&next, &self.targets)?;
            }
            tokio::select! { biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        Ok(())
    }

    /// The alerts that have fired so far.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn fired(&self) -> anyhow::Result<BTreeSet<String>> {
        // count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1d]))
        let query =
            "count%20by%20(alertname)%20(count_over_time(ALERTS%7Balertstate%3D%22firing%22%7D%5B1d%5D))";
        let answer = http(&self.address, "GET", &format!("/api/v1/query?query={query}"), "").await?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        let found = answer["data"]["result"].as_array().context("no result")?;
        Ok(found.iter().filter_map(|one| one["metric"]["alertname"].as_str()).map(str::to_owned).collect())
    }
}

/// Whether the alerts that fired are those that should have.
///
/// # Errors
/// Which should not have, or should have.
pub fn judge(fired: &BTreeSet<String>, kills: usize, lasted: Duration) -> anyhow::Result<()> {
    let wrong: Vec<&str> = NEVER.into_iter().filter(|never| fired.contains(*never)).collect();
    ensure!(wrong.is_empty(), "alerts that should not fire did: {}", wrong.join(", "));
    let due = kills >= ENOUGH.0 && lasted >= ENOUGH.1;
    ensure!(
        !due || fired.contains(WORKERS_DIE),
        "{kills} workers were killed, and {WORKERS_DIE} did not fire"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn killed_workers_are_told_of_and_nothing_is_said_to_be_lost() {
        let fired = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let long = Duration::from_secs(300);
        judge(&fired(&[WORKERS_DIE, "SluicegateWriteLimited"]), 9, long).unwrap();
        judge(&fired(&[]), 2, long).unwrap();
        judge(&fired(&[]), 9, Duration::from_secs(60)).unwrap();
        assert!(judge(&fired(&[]), 9, long).is_err());
        assert!(judge(&fired(&[WORKERS_DIE, NEVER[0]]), 9, long).is_err());
    }

    #[test]
    fn the_alerts_that_are_judged_are_deployed() {
        let rules = std::fs::read_to_string(RULES).unwrap();
        for name in NEVER.iter().chain([&WORKERS_DIE]) {
            assert!(rules.contains(&format!("alert: {name}\n")), "{name}");
        }
    }
}
