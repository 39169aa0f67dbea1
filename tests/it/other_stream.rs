//! An application that is pointed at a stream that is not its own: it refuses to start, and its rows stay.

use anyhow::{Context, ensure};
use sluicegate_lease::Lease;
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::fleet::APPLICATION;
use sluicegate_tests::harness::{Backend, Fleet, LONG, flights, wait_for};

use crate::end_to_end::stored_exactly_once;

/// Starts a worker that is to refuse; returns the last line that it logged.
async fn refused(fleet: &mut Fleet<'_>, arguments: &[&str]) -> anyhow::Result<String> {
    let index = fleet.start(arguments)?;
    let number = fleet.worker(index).number();
    // Waiting for its end closes its input, which is a way to stop it.
    wait_for("the end of the worker", LONG, async || fleet.ended()).await?;
    let mut worker = fleet.part(number)?;
    let (status, said) = (worker.ended().await?, worker.log()?);
    ensure!(status.code() == Some(1), "{status}: {said}");
    Ok(said.lines().last().context("it said nothing")?.to_owned())
}

/// An application of four shards that has read so many events and was stopped, and its rows.
async fn application(backend: &Backend, name: &str, lines: &[String]) -> anyhow::Result<Vec<Lease>> {
    backend.publish(lines, None).await?;
    let mut fleet = Fleet::new(backend, name)?;
    fleet.start(&[])?;
    fleet.drained(lines.len()).await?;
    fleet.stop().await?;
    let rows = backend.leases(APPLICATION).await?;
    ensure!(rows.len() == 4, "{rows:?}");
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_on_another_stream_refuses_to_start_and_the_right_one_goes_on() -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let lines = flights(91, 400);
    let before = application(&backend, "other-stream", &lines[..200]).await?;
    backend.kinesis().create_stream().stream_name("other").shard_count(2).send().await?;
    let mut fleet = Fleet::new(&backend, "other-stream-wrong")?;
    let last = refused(&mut fleet, &["--stream", "other"]).await?;
    for part in ["reads stream `flights`", "pointed at stream `other`", "--stream flights", "--application"] {
        assert!(last.contains(part), "no `{part}` in: {last}");
    }
    assert_eq!(fleet.leases().await?, before, "no row was written or deleted");

    // By its ARN it is the same stream.
    let described = backend.kinesis().describe_stream_summary().stream_name(STREAM).send().await?;
    let arn = described.stream_description_summary().context("no description")?.stream_arn();
    fleet.start(&["--stream", arn])?;
    backend.publish(&lines[200..], None).await?;
    fleet.drained(lines.len()).await?;
    stored_exactly_once(&backend, &lines).await?;
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_anew_under_the_same_name_is_another_one() -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let before = application(&backend, "made-anew", &flights(92, 200)).await?;
    backend.kinesis().delete_stream().stream_name(STREAM).send().await?;
    wait_for("a stream made anew", LONG, async || Ok(backend.create_stream(2).await.ok())).await?;
    let mut fleet = Fleet::new(&backend, "made-anew-again")?;
    let last = refused(&mut fleet, &[]).await?;
    for part in ["stream `flights` is not the one", "made anew", "--application of its own"] {
        assert!(last.contains(part), "no `{part}` in: {last}");
    }
    assert_eq!(fleet.leases().await?, before, "no row was written or deleted");
    Ok(())
}
