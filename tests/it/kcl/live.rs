//! A KCL application that is still running, or comes back, and rows whose start it left open.

use sluicegate_checkpoint::{ArrivalMillis, Position};
use sluicegate_lease::{FixedStart, Lease, RecordedStart};
use sluicegate_tests::harness::fleet::FAILOVER;
use sluicegate_tests::harness::{LONG, flights, wait_for};
use tokio_util::sync::CancellationToken;

use super::*;

const OTHER: &str = "shardId-000000000001";
const KCL: &str = "kcl-worker-1";

/// What KCL does as long as it runs: raises the counter of each lease it holds, on the condition that it holds it.
/// Returns how often, once it is stopped; an error if somebody took a lease from it.
async fn renew(backend: &Backend, leases: &[&str], stop: &CancellationToken) -> anyhow::Result<u32> {
    for times in 0.. {
        for lease in leases {
            let update = backend.dynamodb().update_item().table_name(APPLICATION).key("leaseKey", s(lease));
            let update = update
                .update_expression("SET leaseCounter = leaseCounter + :one")
                .condition_expression("leaseOwner = :me")
                .expression_attribute_values(":one", n(1))
                .expression_attribute_values(":me", s(KCL));
            update.send().await.with_context(|| format!("KCL lost {lease} after {times} renewals"))?;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(times + 1),
            () = tokio::time::sleep(FAILOVER / 6) => {}
        }
    }
    unreachable!("it renews for ever")
}

/// A row as KCL 2.x makes it when it takes a shard for the first time.
fn begun(key: &str, checkpoint: &str) -> Row {
    row([
        ("leaseKey", s(key)),
        ("leaseOwner", s(KCL)),
        ("leaseCounter", n(17)),
        ("ownerSwitchesSinceCheckpoint", n(0)),
        ("checkpoint", s(checkpoint)),
        ("checkpointSubSequenceNumber", n(0)),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_refuses_to_start_beside_a_running_kcl_application_and_starts_when_it_has_stopped()
-> anyhow::Result<()> {
    let backend = Backend::with_stream(3).await?;
    let lines = flights(61, 200);
    backend.publish(&lines, None).await?;
    // The third shard has no row: a worker that started would make one.
    kcl_table(&backend, [begun(PARENT, "TRIM_HORIZON"), begun(OTHER, "TRIM_HORIZON")]).await?;
    let stop = CancellationToken::new();
    let refusing = async {
        let mut fleet = Fleet::new(&backend, "kcl-running")?;
        let index = fleet.start(&[])?;
        // Waiting for its end closes its input, which is a way to stop it.
        wait_for("the end of the worker", LONG, async || fleet.ended()).await?;
        let status = fleet.worker(index).ended().await?;
        let said = fleet.worker(index).log()?;
        stop.cancel();
        anyhow::Ok((status, said))
    };
    let leases = [PARENT, OTHER];
    let (refused, renewed) = tokio::join!(refusing, renew(&backend, &leases, &stop));
    let (status, said) = refused?;
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.lines().last().context("it said nothing")?;
    for part in ["a KCL application is running", KCL, PARENT, "Stop that application"] {
        assert!(last.contains(part), "no `{part}` in: {last}");
    }
    assert!(renewed? >= 2);
    let rows = raw_rows(&backend).await?;
    assert_eq!(rows.len(), 2, "nothing was made");
    for row in rows.values() {
        assert_eq!((row.get("leaseOwner"), row.get("checkpoint")), (Some(&s(KCL)), Some(&s("TRIM_HORIZON"))));
    }
    let registry = backend.registry(APPLICATION);
    assert_eq!(registry.fleet().await?.workers, [], "it never joined");
    let other = RecordedStart { at: FixedStart::AtTimestamp(ArrivalMillis(5)), stream: None };
    // What is put first stays: had the worker fixed a start, it would be TRIM_HORIZON.
    assert_eq!(registry.fix_start(&other).await?, other, "it fixed no start");
    forget_start(&backend).await?;

    let mut fleet = Fleet::new(&backend, "kcl-stopped")?;
    fleet.start(&[])?;
    fleet.drained(lines.len()).await?;
    fleet.stop().await?;
    let events: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
    stored_exactly(&backend, &events).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_refuses_to_start_on_the_table_of_an_application_of_many_streams() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let of = |stream: &str| {
        let mut row = begun(&format!("111122223333:{stream}:1700000000:{PARENT}"), "TRIM_HORIZON");
        row.insert("streamName".to_owned(), s(&format!("111122223333:{stream}:1700000000")));
        row.insert("shardId".to_owned(), s(PARENT));
        row
    };
    kcl_table(&backend, [of(STREAM), of("other")]).await?;
    let before = raw_rows(&backend).await?;
    let mut fleet = Fleet::new(&backend, "kcl-multi-stream")?;
    let index = fleet.start(&[])?;
    wait_for("the end of the worker", LONG, async || fleet.ended()).await?;
    let status = fleet.worker(index).ended().await?;
    let said = fleet.worker(index).log()?;
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.lines().last().context("it said nothing")?;
    for part in ["reads many streams", PARENT, "--application of its own"] {
        assert!(last.contains(part), "no `{part}` in: {last}");
    }
    assert_eq!(raw_rows(&backend).await?, before, "no row was made, written or deleted");
    Ok(())
}

/// Removes the start that the test itself put.
async fn forget_start(backend: &Backend) -> anyhow::Result<()> {
    let table = sluicegate_lease::dynamodb::worker_table_name(APPLICATION);
    let delete = backend.dynamodb().delete_item().table_name(table);
    delete.key("fleet", s(APPLICATION)).key("workerId", s("~start")).send().await?;
    Ok(())
}

/// Takes a lease as KCL 2.x steals one: on the condition of its counter alone.
async fn steal(backend: &Backend, lease: &str) -> anyhow::Result<()> {
    wait_for("a steal that does not lose", LONG, async || {
        let found = raw_rows(backend).await?.remove(lease).context("no row")?;
        let counter: u64 = found["leaseCounter"].as_n().ok().context("no number")?.parse()?;
        let update = backend.dynamodb().update_item().table_name(APPLICATION).key("leaseKey", s(lease));
        let update = update
            .update_expression("SET leaseOwner = :me, leaseCounter = :next")
            .condition_expression("leaseCounter = :counter")
            .expression_attribute_values(":me", s(KCL))
            .expression_attribute_values(":counter", n(counter))
            .expression_attribute_values(":next", n(counter + 1));
        match update.send().await {
            Ok(_) => Ok(Some(())),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_conditional_check_failed_exception()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kcl_application_takes_later_is_left_to_it_until_it_stops() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let (before, during) = (flights(62, 200), flights(63, 400));
    backend.publish(&before, None).await?;
    let mut fleet = Fleet::new(&backend, "kcl-comes")?;
    let index = fleet.start(&[])?;
    fleet.drained(before.len()).await?;
    steal(&backend, PARENT).await?;
    let stop = CancellationToken::new();
    let watching = async {
        backend.publish(&during, None).await?;
        wait_for("the worker to notice", LONG, async || {
            let told =
                fleet.worker(index).log()?.lines().any(|line| line.contains("a KCL application is at work"));
            Ok(told.then_some(()))
        })
        .await?;
        // Long enough for a worker that goes by time alone to take it.
        tokio::time::sleep(FAILOVER * 2).await;
        fleet.check_alive()?;
        stop.cancel();
        anyhow::Ok(())
    };
    let (watched, renewed) = tokio::join!(watching, renew(&backend, &[PARENT], &stop));
    watched?;
    assert!(renewed? >= 6, "nobody took it from the living");
    // It never checkpointed, so all that came to the shard meanwhile is still to be read.
    fleet.drained(before.len() + during.len()).await?;
    fleet.stop().await?;
    let events: Vec<Vec<u8>> = before.into_iter().chain(during).map(String::into_bytes).collect();
    stored_exactly(&backend, &events).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_kcl_left_open_becomes_the_start_of_the_application() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let (old, new, newer) = (flights(64, 100), flights(65, 200), flights(66, 100));
    backend.publish(&old, None).await?;
    let published = backend.stream(STREAM).shards().await?.server_time;
    // LATEST is recorded as the time less a second, told in whole seconds.
    wait_for("a later time", LONG, async || {
        let now = backend.stream(STREAM).shards().await?.server_time;
        Ok((now.0 > published.0 + 3_000).then_some(()))
    })
    .await?;
    kcl_table(&backend, [begun(PARENT, "LATEST"), begun(OTHER, "AT_TIMESTAMP")]).await?;
    let fleet = Fleet::new(&backend, "kcl-open-start")?;
    let mut fleet = fleet.set("initial_position", "LATEST");
    fleet.start(&[])?;
    let rows = wait_for("rows at the fixed start", LONG, async || {
        fleet.check_alive()?;
        let rows = fleet.leases().await?;
        let fixed = |row: &Lease| row.pending.state().is_some_and(|state| state.start.is_some());
        Ok(rows.iter().all(fixed).then_some(rows))
    })
    .await?;
    let registry = backend.registry(APPLICATION);
    let wanted = RecordedStart { at: FixedStart::TrimHorizon, stream: None };
    let start = registry.fix_start(&wanted).await?.at.time().context("the start is no time")?;
    for row in &rows {
        let state = row.pending.state().context("no state")?;
        assert_eq!((&row.checkpoint, state.start, state.epoch), (&Position::AtTimestamp, Some(start), 0));
        assert!(row.counter.0 >= 19, "a take and the start, each one write: {row:?}");
    }
    backend.publish(&new, None).await?;
    fleet.drained(new.len()).await?;
    fleet.stop().await?;
    backend.publish(&newer, None).await?;
    let mut next = Fleet::new(&backend, "kcl-open-start-next")?;
    next.start(&[])?;
    next.drained(new.len() + newer.len()).await?;
    next.stop().await?;
    let events: Vec<Vec<u8>> = new.into_iter().chain(newer).map(String::into_bytes).collect();
    stored_exactly(&backend, &events).await
}
