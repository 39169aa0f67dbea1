//! `sluicegate local`: the embedded backend as a process.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use sluicegate_sink::dynamodb::ensure_table;
use sluicegate_tests::harness::backend::{dynamodb_at, kinesis_at};
use sluicegate_tests::harness::command::bare;
use sluicegate_tests::harness::process::{Signal, signal};
use sluicegate_tests::harness::{Finished, LONG, sluicegate};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

/// Starts it on a folder and returns its endpoints, Kinesis first.
async fn start(folder: &Path) -> anyhow::Result<(Child, String, String)> {
    let mut command = bare(folder)?;
    command.args([
        "local",
        "--kinesis-port",
        "0",
        "--dynamodb-port",
        "0",
        "--json",
        "--until-stdin-closes",
        "--dir",
    ]);
    let mut child = command.arg(folder.join("data")).stdin(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("no output")?;
    tokio::time::timeout(LONG, BufReader::new(stdout).read_line(&mut line)).await??;
    let endpoints: serde_json::Value = serde_json::from_str(&line)?;
    let text = |name: &str| endpoints[name].as_str().map(str::to_owned).context("no endpoint");
    Ok((child, text("kinesis")?, text("dynamodb")?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_answers_where_it_says_ends_on_sigterm_and_keeps_tables_in_a_folder() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut child, kinesis, dynamodb) = start(folder.path()).await?;
    assert!(kinesis_at(&kinesis).list_streams().send().await?.stream_names().is_empty());
    ensure_table(&dynamodb_at(&dynamodb), "kept", true).await?;
    signal(child.id().context("it has ended")?, Signal::TERM)?;
    assert_eq!(tokio::time::timeout(LONG, child.wait()).await??.code(), Some(0));

    let (mut child, _, dynamodb) = start(folder.path()).await?;
    ensure_table(&dynamodb_at(&dynamodb), "kept", false).await?;
    // It ends with whoever started it.
    drop(child.stdin.take());
    assert_eq!(tokio::time::timeout(LONG, child.wait()).await??.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_named() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let Finished { code, stderr, .. } =
        sluicegate(&[], &["local", "--kinesis-port", &port, "--dynamodb-port", "0"]).await?;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("error: port {port} for the local kinesis is in use")), "{stderr}");
    Ok(())
}
