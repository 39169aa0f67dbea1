//! The example of a sink of one's own runs to its end, and is as short as it is said to be.

use std::process::Stdio;

use sluicegate_tests::harness::binary;
use sluicegate_tests::harness::command::finish;
use tokio::process::Command;

#[tokio::test]
async fn a_custom_sink_sees_every_event() -> anyhow::Result<()> {
    let mut command = Command::new(binary::example("custom_sink")?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ended = finish(command, &[]).await?.successful()?;
    assert_eq!(ended.stdout, "counted 1000 events\n");
    Ok(())
}

#[test]
fn building_a_worker_with_a_custom_sink_takes_fewer_than_40_lines() {
    let source = include_str!("../../crates/worker/examples/custom_sink.rs");
    let code = |line: &&str| !(line.is_empty() || line.starts_with("//") || line.starts_with("use "));
    let lines = source.lines().map(str::trim).filter(code).count();
    assert!(lines < 40, "{lines} lines of code");
}
