//! `sluicegate demo`: it shows what it says, and leaves nothing running, however it ends.

use std::process::Stdio;

use anyhow::Context;
use sluicegate_tests::harness::command::{bare, finish};
use sluicegate_tests::harness::process::{MARK, Signal, marked, signal};
use sluicegate_tests::harness::{LONG, binary, wait_for};
use tokio::process::Child;

/// The demo, itself and all that it starts with a mark.
fn demo(mark: &str, home: &std::path::Path) -> anyhow::Result<tokio::process::Command> {
    let mut command = bare(home)?;
    command.env(MARK, mark).args(["demo", "--json", "--failover-time", "2s", "--logs"]);
    // One folder for each test, not for each run.
    command.arg(binary::scratch(mark.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-'))?);
    Ok(command)
}

async fn nothing_is_left(mark: &str) -> anyhow::Result<()> {
    wait_for("the end of all its processes", LONG, async || Ok(marked(mark)?.is_empty().then_some(()))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_loses_nothing_stores_nothing_twice_and_leaves_nothing_running() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let mark = format!("demo-{}", std::process::id());
    let ended = finish(demo(&mark, home.path())?, &[]).await?.successful()?;
    assert_eq!(marked(&mark)?, [0u32; 0], "processes are left");
    let report = ended.last_json()?;
    let number = |name: &str| report[name].as_f64().with_context(|| format!("no `{name}` in {report}"));
    for (name, wanted) in [
        ("published", 10_000.0),
        ("stored", 10_000.0),
        ("lost", 0.0),
        ("duplicated", 0.0),
        ("overlapping_ranges", 0.0),
        ("workers_killed", 1.0),
    ] {
        assert_eq!(number(name)?, wanted, "{name} in {report}");
    }
    assert!(number("stored_percent_at_kill")? < 60.0, "{report}");
    assert!(number("redelivered_batches")? >= 1.0, "{report}");
    assert!(number("wcu_one_item_per_event")? > 10.0 * number("wcu")?, "{report}");
    for name in [
        "items",
        "compression_ratio",
        "availability_p50_ms",
        "availability_p99_ms",
        "failover_ms",
        "elapsed_ms",
        "lease_wcu",
    ] {
        assert!(number(name)? > 0.0, "{name} in {report}");
    }
    assert!(number("producer_unknown_outcomes")? >= 0.0);
    Ok(())
}

/// Starts a demo and waits until the backend and three workers run.
async fn under_way(mark: &str, home: &std::path::Path) -> anyhow::Result<Child> {
    let child = demo(mark, home)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_for("five processes", LONG, async || Ok((marked(mark)?.len() >= 5).then_some(()))).await?;
    Ok(child)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_leaves_nothing_running() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let mark = format!("demo-sigint-{}", std::process::id());
    let mut child = under_way(&mark, home.path()).await?;
    signal(child.id().context("it has ended")?, Signal::INT)?;
    let status = tokio::time::timeout(LONG, child.wait()).await??;
    assert_eq!(status.code(), Some(1), "an interrupted demo has shown nothing");
    nothing_is_left(&mark).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_even_sigkill_leaves_anything_running() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let mark = format!("demo-sigkill-{}", std::process::id());
    let mut child = under_way(&mark, home.path()).await?;
    signal(child.id().context("it has ended")?, Signal::KILL)?;
    child.wait().await?;
    nothing_is_left(&mark).await
}
