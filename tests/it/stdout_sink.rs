//! `run --sink stdout`: every event is printed, at least once.

use sluicegate_tests::harness::process::Signal;
use sluicegate_tests::harness::{Backend, Fleet, LONG, Multiset, flights};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_printed_at_least_once() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let lines = flights(11, 500);
    backend.publish(&lines, None).await?;
    let mut fleet = Fleet::new(&backend, "stdout-sink")?;
    let index = fleet.start(&["--sink", "stdout"])?;
    let worker = fleet.worker(index);
    let stdout = worker.take_stdout().ok_or_else(|| anyhow::anyhow!("no standard output"))?;
    let mut printed = BufReader::new(stdout).lines();
    let (wanted, mut seen) = (lines.into_iter().collect::<Multiset>(), Multiset::default());
    let all = async {
        while wanted.missing_in(&seen) > 0 {
            match printed.next_line().await? {
                Some(line) => seen.add(line),
                None => anyhow::bail!("it ended; {} are missing", wanted.missing_in(&seen)),
            }
        }
        Ok(())
    };
    tokio::time::timeout(LONG, all).await??;
    worker.signal(Signal::TERM)?;
    assert_eq!(worker.ended().await?.code(), Some(0), "{}", worker.log()?);
    // Nothing but events: what else is printed by a program that writes data to standard output?
    assert_eq!(seen.missing_in(&wanted), 0);
    Ok(())
}
