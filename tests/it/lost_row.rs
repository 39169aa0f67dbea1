//! A lease row that somebody deletes by hand while real processes work, and what a listing says of its stream.

use std::time::Duration;

use anyhow::{Context, ensure};
use sluicegate_lease::{Lease, Written};
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::fleet::APPLICATION;
use sluicegate_tests::harness::{Backend, Fleet, LONG, Multiset, flights, wait_for};
use sluicegate_worker::StreamReader;
use tokio::time::Instant;

fn epoch(row: &Lease) -> anyhow::Result<u32> {
    Ok(row.pending.state().context("unreadable")?.epoch)
}

/// Deletes the row of a shard, whatever its owner writes meanwhile; returns it as it was.
async fn delete_row(backend: &Backend, of: &Lease) -> anyhow::Result<Lease> {
    let store = backend.lease_store(APPLICATION);
    loop {
        let row = store.lease(&of.key).await?.context("the row is gone already")?;
        if store.delete(&row).await? == Written::Applied(()) {
            return Ok(row);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_deleted_by_hand_under_load_is_back_within_half_a_minute_and_nothing_is_lost()
-> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let (before, after) = (flights(41, 300), flights(42, 300));
    backend.publish(&before, None).await?;
    let mut fleet = Fleet::new(&backend, "lost-row")?;
    fleet.start(&[])?;
    fleet.drained(before.len()).await?;

    let rows = fleet.leases().await?;
    let old = delete_row(&backend, rows.last().context("no rows")?).await?;
    let begun = Instant::now();
    backend.publish(&after, None).await?;
    let new = wait_for("the row", LONG, async || {
        fleet.check_alive()?;
        let row = backend.lease_store(APPLICATION).lease(&old.key).await?;
        Ok(row.filter(|row| row.owner.is_some()))
    })
    .await?;
    ensure!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    ensure!(epoch(&new)? != epoch(&old)? && new.counter > old.counter, "{new:?} after {old:?}");

    let all: Multiset = before.iter().chain(&after).cloned().collect();
    let table = backend.table(APPLICATION);
    wait_for("every event", LONG, async || {
        fleet.check_alive()?;
        Ok((all.missing_in(&table.everything().await?) == 0).then_some(()))
    })
    .await?;
    let overlaps = table.overlaps().await?;
    ensure!(overlaps.iter().all(|overlap| overlap.a.epoch != overlap.b.epoch), "{overlaps:?}");
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_says_how_long_its_stream_keeps_records_and_which_stream_it_is() -> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    let stream = backend.stream(STREAM);
    let first = stream.shards().await?;
    assert_eq!(first.retention, Duration::from_secs(24 * 3_600));
    assert!(first.stream.created.0 > 0 && first.stream.created.0 <= first.server_time.0 + 1_000, "{first:?}");
    let longer = backend.kinesis().increase_stream_retention_period().stream_name(STREAM);
    longer.retention_period_hours(48).send().await?;
    let second = stream.shards().await?;
    assert_eq!((second.retention, second.stream), (Duration::from_secs(48 * 3_600), first.stream));
    Ok(())
}
