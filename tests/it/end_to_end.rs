//! The main job: what was published is stored, exactly once, whoever dies, stops or comes late.

use anyhow::{Context, ensure};
use sluicegate_checkpoint::Position;
use sluicegate_tests::harness::fleet::{APPLICATION, FAILOVER, cuts};
use sluicegate_tests::harness::process::Signal;
use sluicegate_tests::harness::table::of_cut;
use sluicegate_tests::harness::{Backend, Fleet, LONG, Multiset, flights, wait_for};

/// The lines, once each as often as they were published, and no item that holds what another holds.
pub(crate) async fn stored_exactly_once(backend: &Backend, lines: &[String]) -> anyhow::Result<()> {
    let table = backend.table(APPLICATION);
    lines.iter().cloned().collect::<Multiset>().equals(&table.everything().await?)?;
    let overlaps = table.overlaps().await?;
    ensure!(overlaps.is_empty(), "ranges overlap: {overlaps:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_mid_batch_loses_nothing_and_stores_nothing_twice() -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let lines = flights(1, 6_000);
    let (before, during) = lines.split_at(1_500);
    backend.publish(before, None).await?;
    let mut fleet = Fleet::new(&backend, "sigkill")?;
    for _ in 0..3 {
        fleet.start(&[])?;
    }
    let table = backend.table(APPLICATION);
    let killing = async {
        wait_for("the first stored events", LONG, async || Ok((table.stored().await? > 0).then_some(())))
            .await?;
        let killed = fleet.kill_announcing().await?;
        fleet.start(&[])?;
        anyhow::Ok((killed, table.stored().await?))
    };
    let (published, killed) = tokio::join!(backend.publish(during, Some(1_500)), killing);
    published?;
    let (killed, stored_at_kill) = killed?;
    assert!(stored_at_kill < 6_000, "nothing was left to store after the kill");

    fleet.drained(lines.len()).await?;
    stored_exactly_once(&backend, &lines).await?;
    let headers = table.headers().await?;
    for (shard, cut) in &killed.announced {
        let items = of_cut(&headers, shard, cut, 0);
        assert!(!items.is_empty(), "the batch announced on {shard} from {} is not stored", cut.first);
        let events: u64 = items.iter().filter(|item| item.sort.part == 1).map(|item| item.count).sum();
        assert_eq!(
            events, cut.records,
            "the batch on {shard} from {} is stored with other records",
            cut.first
        );
    }
    for row in fleet.leases().await? {
        assert_ne!(row.owner.as_ref(), Some(&killed.worker), "{} still belongs to the dead", row.key);
    }
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_slept_through_its_leases_changes_nothing_when_it_wakes() -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let lines = flights(9, 4_000);
    let mut fleet = Fleet::new(&backend, "sigstop")?;
    for _ in 0..2 {
        fleet.start(&[])?;
    }
    let sleeping = async {
        let (sleeper, index) = fleet.freeze_announcing().await?;
        let frozen = tokio::time::Instant::now();
        wait_for("others with the sleeper's shards", LONG, async || {
            let rows = fleet.leases().await?;
            Ok(rows.iter().all(|row| row.owner.as_ref() != Some(&sleeper)).then_some(()))
        })
        .await?;
        tokio::time::sleep_until(frozen + FAILOVER * 3).await;
        fleet.worker(index).signal(Signal::CONT)
    };
    let (published, slept) = tokio::join!(backend.publish(&lines, Some(1_000)), sleeping);
    published?;
    slept?;
    fleet.drained(lines.len()).await?;
    stored_exactly_once(&backend, &lines).await?;
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_finishes_commits_frees_the_leases_and_exits_with_0() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let lines = flights(2, 3_000);
    let (before, after) = lines.split_at(1_500);
    backend.publish(before, None).await?;
    // Pages of 500 records make full batches of 70 and an open one, which would wait for a minute: only the drain
    // closes it.
    let fleet = Fleet::new(&backend, "sigterm")?;
    let mut fleet = fleet.set("max_batch_records", "70").set("max_batch_age", "60s");
    let worker = fleet.start(&[])?;
    let table = backend.table(APPLICATION);
    wait_for("the first stored events", LONG, async || Ok((table.stored().await? > 0).then_some(()))).await?;
    fleet.worker(worker).signal(Signal::TERM)?;
    let status = fleet.worker(worker).ended().await?;
    assert_eq!(status.code(), Some(0), "{}", fleet.worker(worker).log()?);

    let rows = fleet.leases().await?;
    assert_eq!(rows.len(), 2);
    let headers = table.headers().await?;
    let mut stored = Vec::new();
    for row in &rows {
        assert_eq!(row.owner, None, "{} is not free", row.key);
        assert!(cuts(row).is_empty(), "{} has announced batches left", row.key);
        let of_shard: Vec<_> = headers.iter().filter(|header| header.sort.shard == row.key).collect();
        for header in &of_shard {
            let (_, last) = header.range.clone().context("a group without events")?;
            let end = Position::At(last.sequence_number, last.sub_sequence_number);
            assert!(end <= row.checkpoint, "{end} on {} is stored and not committed", row.key);
        }
        stored.push(of_shard.iter().map(|header| header.count).sum::<u64>());
    }
    assert!(stored.iter().any(|events| events % 70 != 0), "open batches were left behind: {stored:?}");
    assert!(backend.workers(APPLICATION).await?.is_empty(), "its row is still there");

    backend.publish(after, None).await?;
    let mut next = Fleet::new(&backend, "sigterm-next")?;
    next.start(&[])?;
    next.drained(lines.len()).await?;
    stored_exactly_once(&backend, &lines).await?;
    next.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_later_gets_its_share_and_nothing_is_stored_twice() -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let lines = flights(3, 3_000);
    let mut fleet = Fleet::new(&backend, "balance")?;
    fleet.start(&[])?;
    let shares = async |backend: &Backend| {
        let mut owners = std::collections::BTreeMap::new();
        for owner in backend.leases(APPLICATION).await?.into_iter().filter_map(|row| row.owner) {
            *owners.entry(owner).or_insert(0) += 1;
        }
        anyhow::Ok(owners.into_values().collect::<Vec<usize>>())
    };
    let joining = async {
        wait_for("four shards with the first worker", LONG, async || {
            Ok((shares(&backend).await? == [4]).then_some(()))
        })
        .await?;
        fleet.start(&[])?;
        wait_for("two shards with each worker", LONG, async || {
            Ok((shares(&backend).await? == [2, 2]).then_some(()))
        })
        .await
    };
    // Events keep coming while shards change hands.
    let (published, joined) = tokio::join!(backend.publish(&lines, Some(1_000)), joining);
    published?;
    joined?;
    fleet.drained(lines.len()).await?;
    stored_exactly_once(&backend, &lines).await?;
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_are_in_no_log_whatever_is_logged() -> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    let lines = [format!(r#"{{"customer":"c","secret":"{}"}}"#, "x".repeat(300))];
    backend.publish(&lines, None).await?;
    let mut fleet = Fleet::new(&backend, "trace")?.set("log", "trace");
    let index = fleet.start(&[])?;
    fleet.drained(lines.len()).await?;
    let said = fleet.worker(index).log()?;
    fleet.stop().await?;
    ensure!(said.contains("aws_smithy_runtime"), "the SDK logs nothing at all");
    // As it is, and in base64, as Kinesis answers it.
    for secret in ["xxxxxxxxxxxx", "eHh4eHh4eHh4"] {
        let line = said.lines().find(|line| line.contains(secret)).unwrap_or_default();
        let beginning: String = line.chars().take(300).collect();
        ensure!(line.is_empty(), "a payload was logged: {beginning}");
    }
    Ok(())
}
