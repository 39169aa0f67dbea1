//! One run of the program to its end.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::binary;

/// How a run ended and what it printed.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The last line of standard output as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn last_json(&self) -> anyhow::Result<serde_json::Value> {
        let line = self.stdout.lines().last().context("nothing was printed")?;
        serde_json::from_str(line).with_context(|| format!("the last line is no JSON: {line}"))
    }

    /// This, if it ended with 0.
    ///
    /// # Errors
    /// It did not; the error shows all of it.
    pub fn successful(self) -> anyhow::Result<Self> {
        ensure!(self.code == Some(0), "it failed: {self:#?}");
        Ok(self)
    }
}

/// How long a run of [`sluicegate_with`] may take.
const AT_MOST: Duration = Duration::from_secs(120);

/// The program with an environment of its own: nothing of the caller's clouds, settings or home.
///
/// # Errors
/// It cannot be built.
pub fn bare(home: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(binary::sluicegate()?);
    command.env_clear().env("HOME", home).env("AWS_EC2_METADATA_DISABLED", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// Runs the program on a backend; `stdin` is what it reads.
///
/// # Errors
/// It could not be started, or did not end in time.
pub async fn sluicegate_with<A: AsRef<OsStr>>(
    environment: &[(String, String)],
    arguments: &[A],
    stdin: &[u8],
) -> anyhow::Result<Finished> {
    let home = tempfile::tempdir()?;
    let mut command = bare(home.path())?;
    command.envs(environment.iter().map(|(name, value)| (name, value))).args(arguments);
    command.stdin(Stdio::piped());
    finish(command, stdin).await
}

/// Runs the program on a backend, with nothing to read.
///
/// # Errors
/// It could not be started, or did not end in time.
pub async fn sluicegate(environment: &[(String, String)], arguments: &[&str]) -> anyhow::Result<Finished> {
    sluicegate_with(environment, arguments, &[]).await
}

/// Runs a command to its end.
///
/// # Errors
/// It could not be started, or did not end within two minutes.
pub async fn finish(mut command: Command, stdin: &[u8]) -> anyhow::Result<Finished> {
    let mut child = command.spawn().context("it cannot be started")?;
    let input = child.stdin.take();
    let write = async {
        if let Some(mut input) = input {
            // It may end without reading all, and that is its right.
            drop(input.write_all(stdin).await);
        }
    };
    let ended = async { tokio::join!(write, child.wait_with_output()).1 };
    let output = tokio::time::timeout(AT_MOST, ended).await.context("it does not end")??;
    Ok(Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).context("standard output is not UTF-8")?,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
