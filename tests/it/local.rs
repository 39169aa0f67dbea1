//! `sluicegate local`: the embedded backend as a process.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use sluicegate_sink::dynamodb::ensure_table;
use sluicegate_tests::harness::backend::{dynamodb_at, kinesis_at};
use sluicegate_tests::harness::command::bare;
use sluicegate_tests::harness::process::{Signal, signal};
use sluicegate_tests::harness::{Backend, Finished, LONG, sluicegate};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_refuses_and_fails_as_it_is_told_to() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let faults = folder.path().join("faults.toml");
    std::fs::write(&faults, "[[fault]]\nservice = 'kinesis'\nerrors = { rate = 1.0, with = 'internal' }\n")?;
    let faults = faults.to_str().context("no text")?;
    let limits = ["--table-wcu", "events=3", "--burst-seconds", "0"];
    let backend =
        Backend::process_with(&[&limits[..], &["--faults", faults, "--seed", "7"]].concat()).await?;
    let failed = backend
        .kinesis()
        .list_streams()
        .send()
        .await
        .map_err(|error| error.raw_response().map(|raw| raw.status().as_u16()));
    assert_eq!(failed.err(), Some(Some(500)));
    ensure_table(backend.dynamodb(), "events", true).await?;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = || {
        let put =
            backend.dynamodb().put_item().table_name("events").item("pk", text("a")).item("sk", text("b"));
        put.item("v", text(&"x".repeat(100_000))).send()
    };
    put().await?; // larger than the bucket, which was full; it is paid for in half a minute
    let refused = put().await.map_err(SdkError::into_service_error);
    assert!(refused.as_ref().is_err_and(PutItemError::is_throttling_exception), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_fault_script_that_makes_no_sense_is_a_mistake_in_the_configuration() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let faults = folder.path().join("faults.toml");
    std::fs::write(&faults, "[[fault]]\noutage = 'a bit'\n")?;
    let faults = faults.to_str().context("no text")?;
    let Finished { code, stderr, .. } = sluicegate(&[], &["local", "--faults", faults]).await?;
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("fault 1 of the script: outage is \"a bit\": write refuse"), "{stderr}");
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
