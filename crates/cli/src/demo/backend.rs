//! The embedded backend as a process of its own, and what it says was consumed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::metrics::http_get;
use crate::aws::Aws;

/// Where the backend answers.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Endpoints {
    pub(super) kinesis: String,
    pub(super) dynamodb: String,
}

/// What one table was used for.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct TableUse {
    pub(super) write_units: f64,
}

/// The running backend; it ends with this process, however that ends.
pub(super) struct Backend {
    child: Child,
    endpoints: Endpoints,
    aws: Aws,
    /// Kept open: the backend prints nothing more, but must not die of a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

impl Backend {
    /// Starts it on free ports and waits until it answers.
    pub(super) async fn start(logs: Option<&Path>) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "local",
            "--kinesis-port",
            "0",
            "--dynamodb-port",
            "0",
            "--json",
            "--until-stdin-closes",
        ]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file(logs, "local")?)
            .kill_on_drop(true);
        command.process_group(0);
        let mut child = command.spawn().context("the embedded backend cannot be started")?;
        let stdout = child.stdout.take().context("the embedded backend has no output")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).await?;
        let endpoints: Endpoints = serde_json::from_str(&line)
            .context("the embedded backend ended before it was ready; give --logs a folder and look there")?;
        let aws = Aws::at(endpoints.kinesis.clone(), endpoints.dynamodb.clone());
        Ok(Self { child, endpoints, aws, _stdout: stdout })
    }

    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(super) fn aws(&self) -> &Aws {
        &self.aws
    }

    /// An error if it ended by itself.
    pub(super) fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => {
                bail!("the embedded backend ended by itself ({status}); give --logs a folder and look there")
            }
            None => Ok(()),
        }
    }

    /// What requests consumed, by table, counted by the backend: a killed worker cannot take its figures along.
    pub(super) async fn ledger(&self) -> anyhow::Result<BTreeMap<String, TableUse>> {
        let text = http_get(&format!("{}/ledger", self.endpoints.dynamodb)).await?;
        serde_json::from_str(&text).context("the backend's ledger cannot be read")
    }

    pub(super) async fn stop(mut self) {
        drop(self.child.stdin.take());
        // It ends by itself now that its input is closed; dropping it would kill it otherwise.
        drop(tokio::time::timeout(std::time::Duration::from_secs(5), self.child.wait()).await);
    }
}

/// A log file in the folder, or nowhere.
pub(super) fn log_file(logs: Option<&Path>, name: &str) -> anyhow::Result<Stdio> {
    let Some(folder) = logs else { return Ok(Stdio::null()) };
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join(format!("{name}.log"));
    let file = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.into())
}
