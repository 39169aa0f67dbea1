//! What an operator does to a fleet: sees it, takes leases, moves positions, has workers leave. With the real program
//! throughout.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::Value;
use sluicegate_checkpoint::{
    ArrivalMillis, Cut, LeaseState, PackingParameters, Position, SequenceNumber, ShardId, SubSequenceNumber,
};
use sluicegate_lease::dynamodb::ensure_tables;
use sluicegate_lease::{Clock, Lease, Pending, WorkerId};
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::command::bare;
use sluicegate_tests::harness::fleet::APPLICATION;
use sluicegate_tests::harness::process::{Signal, signal};
use sluicegate_tests::harness::{Backend, Finished, Fleet, LONG, Multiset, flights, sluicegate, wait_for};
use sluicegate_worker::{ReadFrom, StreamReader};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// A command on the test's application, on the embedded backend.
async fn run(backend: &Backend, arguments: &[&str]) -> anyhow::Result<Finished> {
    let all = [arguments, &["--embedded", "--application", APPLICATION]].concat();
    sluicegate(&backend.environment(), &all).await
}

/// The lines of standard output, each as JSON.
fn json_lines(finished: &Finished) -> anyhow::Result<Vec<Value>> {
    let parse = |line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
    finished.stdout.lines().map(parse).collect()
}

/// That a command ended so and says all of this on standard error.
fn fails(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished:#?}");
    assert!(!finished.stderr.contains("panicked"), "{finished:#?}");
    for part in parts {
        assert!(finished.stderr.contains(part), "no `{part}` in: {}", finished.stderr);
    }
}

/// Every shard with an owner.
async fn owned(backend: &Backend) -> anyhow::Result<Vec<Lease>> {
    wait_for("an owner for every shard", LONG, async || {
        let rows = backend.leases(APPLICATION).await?;
        let owned = !rows.is_empty() && rows.iter().all(|row| row.owner.is_some());
        Ok(owned.then_some(rows))
    })
    .await
}

/// Waits until so many events are stored, those stored again counted again.
async fn stored(backend: &Backend, events: usize) -> anyhow::Result<()> {
    let table = backend.table(APPLICATION);
    wait_for(&format!("{events} stored events"), LONG, async || {
        Ok((table.stored().await? >= events as u64).then_some(()))
    })
    .await
}

/// The lines so often each.
fn times(parts: &[(usize, &[String])]) -> Multiset {
    let all = parts.iter().flat_map(|(times, lines)| std::iter::repeat_n(*lines, *times).flatten());
    all.cloned().collect()
}

/// What the reader yields is exactly this, and items of one epoch hold nothing twice.
async fn holds(backend: &Backend, expected: &Multiset) -> anyhow::Result<()> {
    let table = backend.table(APPLICATION);
    expected.equals(&table.everything().await?)?;
    let overlaps = table.overlaps().await?;
    let within_an_epoch: Vec<_> =
        overlaps.iter().filter(|overlap| overlap.a.epoch == overlap.b.epoch).collect();
    ensure!(within_an_epoch.is_empty(), "ranges of one epoch overlap: {within_an_epoch:?}");
    Ok(())
}

/// The tables without a fleet, with these rows.
async fn tables(backend: &Backend, rows: &[Lease]) -> anyhow::Result<()> {
    ensure_tables(backend.dynamodb(), Clock::new(), APPLICATION, true).await?;
    let store = backend.lease_store(APPLICATION);
    for row in rows {
        store.create(row).await?;
    }
    Ok(())
}

fn row(key: &str, checkpoint: Position) -> Lease {
    Lease::unowned(ShardId::new(key), checkpoint, LeaseState::starting(None))
}

fn at(number: u64) -> Position {
    Position::At(SequenceNumber::parse(number.to_string()).unwrap(), SubSequenceNumber(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_shows_the_leases_workers_and_totals_of_a_live_fleet() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let lines = flights(21, 200);
    backend.publish(&lines, None).await?;
    let mut fleet = Fleet::new(&backend, "operator-list")?;
    fleet.start(&[])?;
    fleet.drained(lines.len()).await?;
    let rows = owned(&backend).await?;
    let owner = rows[0].owner.clone().context("no owner")?;

    let arguments = ["leases", "list", "--json", "--liveness", "--failover-time", "2s"];
    let listing = run(&backend, &arguments).await?.successful()?.last_json()?;
    assert_eq!(listing["totals"]["active"], 2, "{listing}");
    assert_eq!(listing["workers"][0]["worker"], owner.as_str());
    assert_eq!(listing["workers"][0]["liveness"], "live");
    for (lease, row) in listing["leases"].as_array().context("no leases")?.iter().zip(&rows) {
        assert_eq!(lease["shard"], row.key.as_str());
        let epoch = row.pending.state().context("unreadable")?.epoch;
        assert_eq!((lease["state"].as_str(), lease["epoch"].as_u64()), (Some("active"), Some(epoch.into())));
        assert_eq!(lease["checkpoint"], row.checkpoint.as_column());
        assert!(lease["checkpoint_arrival"].is_string(), "{lease}");
    }
    let text = run(&backend, &["leases", "list"]).await?.successful()?;
    for part in [rows[1].key.as_str(), owner.as_str(), "2 leases: 2 active", "1 worker;"] {
        assert!(text.stdout.contains(part), "no `{part}` in {}", text.stdout);
    }
    assert_eq!(text.stderr, "");
    let got = json_lines(&run(&backend, &["checkpoint", "get", "1", "--json"]).await?.successful()?)?;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0]["checkpoint"], rows[1].checkpoint.as_column());
    fleet.stop().await
}

/// A watch in a process of its own.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _home: tempfile::TempDir,
}

impl Watching {
    fn start(backend: &Backend) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let mut command = bare(home.path())?;
        command.args(["leases", "watch", "--embedded", "--application", APPLICATION, "--json"]);
        command.args(["--interval", "50ms", "--failover-time", "30s"]).envs(backend.environment());
        let mut child = command.stderr(Stdio::inherit()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        Ok(Self { child, lines, _home: home })
    }

    /// Reads on until each of these events was seen, and returns all that came.
    async fn until(&mut self, wanted: &[(&str, usize)]) -> anyhow::Result<Vec<Value>> {
        let mut seen: Vec<Value> = Vec::new();
        let count = |seen: &[Value], event: &str| seen.iter().filter(|line| line["event"] == event).count();
        while !wanted.iter().all(|(event, times)| count(&seen, event) >= *times) {
            let next = tokio::time::timeout(LONG, self.lines.next_line()).await;
            let line = next.with_context(|| format!("{wanted:?} did not come; seen: {seen:?}"))??;
            seen.push(serde_json::from_str(&line.context("the watch ended")?)?);
        }
        Ok(seen)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_sees_a_worker_leave_on_request_and_another_take_its_leases() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let mut fleet = Fleet::new(&backend, "operator-watch")?;
    fleet.start(&[])?;
    let first = owned(&backend).await?[0].owner.clone().context("no owner")?;
    let mut watching = Watching::start(&backend)?;
    watching.until(&[("watching", 1)]).await?;

    let dry =
        run(&backend, &["drain", first.as_str(), "--dry-run", "--json"]).await?.successful()?.last_json()?;
    assert_eq!((dry["outcome"].as_str(), dry["leases"].as_u64()), (Some("would_ask"), Some(2)));
    assert_eq!(dry["shards"], serde_json::json!(["shardId-000000000000", "shardId-000000000001"]));
    assert!(backend.registry(APPLICATION).fleet().await?.asked_to_leave.is_empty(), "a dry run asks nothing");

    // The host's name alone is enough of a name for the only worker.
    let (name, _) = first.as_str().rsplit_once('-').context("no UUID")?;
    let drained = run(&backend, &["drain", name, "--json", "--failover-time", "30s"]).await?.successful()?;
    let report = drained.last_json()?;
    assert_eq!((report["worker"].as_str(), report["outcome"].as_str()), (Some(first.as_str()), Some("left")));
    assert!(drained.stderr.contains("no other active worker"), "{}", drained.stderr);
    fleet.left(0).await?;
    assert!(
        backend.registry(APPLICATION).fleet().await?.asked_to_leave.is_empty(),
        "its request is still there"
    );

    let seen = watching.until(&[("released", 2), ("left", 1)]).await?;
    let released: BTreeSet<&str> = seen
        .iter()
        .filter(|line| line["event"] == "released")
        .filter_map(|line| line["shard"].as_str())
        .collect();
    assert_eq!(released.len(), 2, "{seen:?}");
    fleet.start(&[])?;
    let seen = watching.until(&[("joined", 1), ("taken", 2)]).await?;
    let second = owned(&backend).await?[0].owner.clone().context("no owner")?;
    let takers = seen.iter().filter(|line| line["event"] == "taken").map(|line| line["to"].as_str());
    assert!(takers.clone().all(|to| to == Some(second.as_str())), "{seen:?}");

    signal(watching.child.id().context("the watch has ended")?, Signal::INT)?;
    let ended = tokio::time::timeout(LONG, watching.child.wait()).await??;
    assert_eq!(ended.code(), Some(0), "ctrl-c is how a watch ends");
    let brief = run(&backend, &["leases", "watch", "--for", "100ms"]).await?.successful()?;
    assert!(brief.stdout.contains("watching 2 leases, 2 owned"), "{}", brief.stdout);
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_worker_hands_its_leases_to_the_others_and_exits_with_0() -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let lines = flights(22, 3_000);
    let mut fleet = Fleet::new(&backend, "operator-drain")?;
    for _ in 0..2 {
        fleet.start(&[])?;
    }
    let draining = async {
        let leaver = wait_for("two workers with two shards each", LONG, async || {
            let rows = backend.leases(APPLICATION).await?;
            let owners: Vec<WorkerId> = rows.into_iter().filter_map(|row| row.owner).collect();
            let of = |id: &WorkerId| owners.iter().filter(|owner| *owner == id).count();
            let shared = owners.len() == 4 && owners.iter().all(|owner| of(owner) == 2);
            Ok(shared.then(|| owners[0].clone()))
        })
        .await?;
        let drained = run(&backend, &["drain", leaver.as_str()]).await?.successful()?;
        anyhow::Ok((leaver, drained))
    };
    // Events keep coming while it leaves.
    let (published, drained) = tokio::join!(backend.publish(&lines, Some(1_000)), draining);
    published?;
    let (leaver, drained) = drained?;
    assert!(drained.stdout.contains("has left") && drained.stdout.contains("it had 2 leases"), "{drained:?}");
    assert!(
        drained.stderr.contains("draining") || drained.stderr.contains("active, 2 leases"),
        "{drained:?}"
    );
    // Which process it was is told by which one has ended.
    let index = wait_for("the end of the process", LONG, async || fleet.ended()).await?;
    fleet.left(index).await?;
    fleet.drained(lines.len()).await?;
    holds(&backend, &times(&[(1, &lines)])).await?;
    for row in owned(&backend).await? {
        assert_ne!(row.owner.as_ref(), Some(&leaver));
    }
    let nobody = run(&backend, &["drain", "nobody"]).await?;
    fails(&nobody, 1, &["no worker `nobody`", "there are "]);
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_owners_lease_is_released_only_by_force_and_nothing_is_stored_twice() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let lines = flights(23, 2_000);
    let mut fleet = Fleet::new(&backend, "operator-release")?;
    fleet.start(&[])?;
    let rows = owned(&backend).await?;
    let owner = rows[0].owner.clone().context("no owner")?;
    let refused = run(&backend, &["leases", "release", "0", "--failover-time", "2s"]).await?;
    fails(&refused, 1, &["shardId-000000000000 was left as it is", owner.as_str(), "--force"]);

    let releasing = async {
        stored(&backend, 1).await?;
        let dry = ["leases", "release", "0", "--force", "--dry-run"];
        let dry = run(&backend, &dry).await?.successful()?;
        assert!(dry.stdout.contains("would change") && dry.stdout.contains("-> nobody"), "{}", dry.stdout);
        let arguments = ["leases", "release", "--all-of", owner.as_str(), "--force", "--json"];
        json_lines(&run(&backend, &arguments).await?.successful()?)
    };
    let (published, released) = tokio::join!(backend.publish(&lines, Some(1_000)), releasing);
    published?;
    let released = released?;
    assert_eq!(released.len(), 2);
    for report in &released {
        assert_eq!(report["outcome"], "changed", "{report}");
        assert_eq!(report["ends_session_of"], owner.as_str());
        assert_eq!(report["before"]["checkpoint"], report["after"]["checkpoint"]);
        assert_eq!(report["before"]["announced_batches"], report["after"]["announced_batches"]);
    }
    fleet.drained(lines.len()).await?;
    holds(&backend, &times(&[(1, &lines)])).await?;
    let unknown = run(&backend, &["leases", "release", "77", "--force"]).await?;
    fails(&unknown, 1, &["no lease row for shard `77`", "shardId-000000000001"]);
    fleet.stop().await
}

/// The last record of each shard.
async fn last_records(backend: &Backend) -> anyhow::Result<Vec<(ShardId, SequenceNumber, ArrivalMillis)>> {
    let stream = backend.stream(STREAM);
    let mut found = Vec::new();
    for shard in stream.shards().await?.shards {
        let mut cursor = stream.open(&shard.id, ReadFrom::TrimHorizon);
        let mut last = None;
        loop {
            let page = cursor.next_page(10_000).await?;
            last = page
                .records
                .last()
                .map(|record| (record.sequence_number().clone(), record.arrival()))
                .or(last);
            if page.behind_latest.is_zero() {
                break;
            }
        }
        let (sequence_number, arrival) = last.context("an empty shard")?;
        found.push((shard.id, sequence_number, arrival));
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_fleet_goes_on_behind_the_record_it_was_set_to() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let (before, skipped, after) = (flights(24, 200), flights(25, 200), flights(26, 200));
    backend.publish(&before, None).await?;
    let mut fleet = Fleet::new(&backend, "operator-forward")?;
    fleet.start(&[])?;
    fleet.drained(before.len()).await?;
    fleet.stop().await?;

    backend.publish(&skipped, None).await?;
    let unchanged = backend.leases(APPLICATION).await?;
    for (shard, last, _) in last_records(&backend).await? {
        let dry = ["checkpoint", "set", shard.as_str(), last.as_str(), "--dry-run"];
        let dry = run(&backend, &dry).await?.successful()?;
        let row = unchanged.iter().find(|row| row.key == shard).context("no row")?;
        let difference = format!("checkpoint         {} -> {last}", row.checkpoint);
        assert!(dry.stdout.contains(&difference) && dry.stdout.contains("never delivered"), "{}", dry.stdout);
        assert!(!dry.stdout.contains("epoch "), "a way forward keeps the epoch: {}", dry.stdout);
        assert_eq!(backend.leases(APPLICATION).await?, unchanged, "a dry run changes nothing");
    }
    for (shard, last, _) in last_records(&backend).await? {
        let set = run(&backend, &["checkpoint", "set", shard.as_str(), last.as_str(), "--json"]).await?;
        let report = set.successful()?.last_json()?;
        assert_eq!((report["kind"].as_str(), report["outcome"].as_str()), (Some("forward"), Some("changed")));
        let again = run(&backend, &["checkpoint", "set", shard.as_str(), last.as_str(), "--json"]).await?;
        assert_eq!(again.successful()?.last_json()?["outcome"], "unchanged");
    }
    backend.publish(&after, None).await?;
    let mut next = Fleet::new(&backend, "operator-forward-next")?;
    next.start(&[])?;
    next.drained(before.len() + after.len()).await?;
    holds(&backend, &times(&[(1, &before), (1, &after)])).await?;
    next.stop().await
}

/// The epoch of each row.
async fn epochs(backend: &Backend) -> anyhow::Result<BTreeMap<ShardId, u32>> {
    let rows = backend.leases(APPLICATION).await?.into_iter();
    rows.map(|row| Ok((row.key, row.pending.state().context("unreadable")?.epoch))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_fleet_that_is_reset_to_a_time_stores_what_came_since_once_more() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let (old, new) = (flights(27, 200), flights(28, 200));
    backend.publish(&old, None).await?;
    let last = last_records(&backend).await?.into_iter().map(|(.., arrival)| arrival).max();
    let time = ArrivalMillis(last.context("no records")?.0 + 1);
    wait_for("a later time", LONG, async || {
        Ok((backend.stream(STREAM).shards().await?.server_time > ArrivalMillis(time.0 + 1_000)).then_some(()))
    })
    .await?;
    backend.publish(&new, None).await?;
    let mut fleet = Fleet::new(&backend, "operator-back")?;
    fleet.start(&[])?;
    fleet.drained(old.len() + new.len()).await?;
    fleet.stop().await?;

    let to = time.0.to_string();
    let epochs = epochs(&backend).await?;
    let reset = run(&backend, &["checkpoint", "reset", "--all", "--to", &to]).await?.successful()?;
    assert_eq!(reset.stdout.matches("may be stored twice").count(), 2, "{}", reset.stdout);
    for row in backend.leases(APPLICATION).await? {
        let state = row.pending.state().context("unreadable")?;
        let (before, after) = (epochs[&row.key], epochs[&row.key] + 1);
        assert!(
            reset.stdout.contains(&format!("epoch              {before} -> {after}")),
            "{}",
            reset.stdout
        );
        assert_eq!((row.checkpoint, state.start, state.epoch), (Position::AtTimestamp, Some(time), after));
    }
    let mut next = Fleet::new(&backend, "operator-back-next")?;
    next.start(&[])?;
    next.drained(old.len() + 2 * new.len()).await?;
    holds(&backend, &times(&[(1, &old), (2, &new)])).await?;
    next.stop().await?;

    // And to the tip: a second before the stream's own time, so that nothing that comes from now on is skipped.
    let reset = ["checkpoint", "reset", "0", "--to", "latest", "--stream", STREAM, "--json"];
    let report = run(&backend, &reset).await?.successful()?.last_json()?;
    assert_eq!(report["after"]["checkpoint"], "AT_TIMESTAMP", "nobody ever opens a LATEST iterator");
    let starts = humantime::parse_rfc3339(report["after"]["starts_at"].as_str().context("no start")?)?;
    let server = backend.stream(STREAM).shards().await?.server_time.0;
    let starts = i64::try_from(starts.duration_since(std::time::UNIX_EPOCH)?.as_millis())?;
    let long = i64::try_from(LONG.as_millis())?;
    assert!((1_000..=long).contains(&(server - starts)), "{report} at {server}");
    let first = epochs.values().next().context("no rows")?;
    assert_eq!(report["after"]["epoch"], first + 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_fleet_that_is_reset_by_force_goes_back_and_readers_get_the_range_twice() -> anyhow::Result<()>
{
    let backend = Backend::with_stream(2).await?;
    let (old, new) = (flights(29, 400), flights(30, 1_000));
    backend.publish(&old, None).await?;
    let mut fleet = Fleet::new(&backend, "operator-live")?;
    for _ in 0..2 {
        fleet.start(&[])?;
    }
    fleet.drained(old.len()).await?;
    let before = owned(&backend).await?;
    let refused =
        run(&backend, &["checkpoint", "reset", "--all", "--to", "trim-horizon", "--failover-time", "2s"])
            .await?;
    fails(&refused, 1, &["2 of 2 shards were left as they are", "--force", "watching the signs of life"]);

    // The sessions are idle: they write nothing, and learn of the move from their next round.
    let reset =
        ["checkpoint", "reset", "--all", "--to", "trim-horizon", "--force", "--wait", "30s", "--json"];
    let reports = json_lines(&run(&backend, &reset).await?.successful()?)?;
    assert_eq!(reports.len(), 2);
    for report in &reports {
        assert_eq!((report["kind"].as_str(), report["outcome"].as_str()), (Some("back"), Some("changed")));
        let owner = before.iter().find(|row| report["shard"] == row.key.as_str());
        let owner = owner.and_then(|row| row.owner.as_ref()).context("it had no owner")?;
        assert_eq!(report["ends_session_of"], owner.as_str());
    }
    fleet.drained(2 * old.len()).await?;
    // While the fleet is at work, too: batches are announced now and then, and the command waits for a gap.
    let resetting = async {
        stored(&backend, 2 * old.len() + 1).await?;
        run(&backend, &["checkpoint", "set", "0", "1", "--force", "--dry-run"]).await
    };
    let (published, looked) = tokio::join!(backend.publish(&new, Some(500)), resetting);
    published?;
    let looked = looked?;
    assert!(looked.code == Some(0) || looked.stderr.contains("announced batches"), "{looked:?}");
    fleet.drained(2 * old.len() + new.len()).await?;
    holds(&backend, &times(&[(2, &old), (1, &new)])).await?;

    let customer: Value = serde_json::from_str(&old[0])?;
    let key = customer["customer"].as_str().context("no customer")?;
    let read = run(&backend, &["read", "--key", key]).await?.successful()?;
    let of_customer = |line: &&String| line.contains(&format!("\"customer\":\"{key}\""));
    let expected = times(&[(2, &old), (1, &new)]);
    let mine: Vec<String> = old.iter().chain(&old).chain(&new).filter(of_customer).cloned().collect();
    mine.iter().cloned().collect::<Multiset>().equals(&read.stdout.lines().map(str::as_bytes).collect())?;
    assert_eq!(expected.len(), (2 * old.len() + new.len()) as u64);
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_all_takes_children_before_parents_and_reads_a_resharded_stream_again()
-> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    let (old, new) = (flights(31, 200), flights(32, 200));
    backend.publish(&old, None).await?;
    let reshard = backend.kinesis().update_shard_count().stream_name(STREAM).target_shard_count(2);
    reshard.scaling_type(aws_sdk_kinesis::types::ScalingType::UniformScaling).send().await?;
    wait_for("an open child", LONG, async || {
        Ok((backend.stream(STREAM).shards().await?.shards.len() == 3).then_some(()))
    })
    .await?;
    backend.publish(&new, None).await?;
    let mut fleet = Fleet::new(&backend, "operator-reshard")?;
    fleet.start(&[])?;
    fleet.drained(old.len() + new.len()).await?;
    wait_for("a finished parent", LONG, async || {
        let rows = backend.leases(APPLICATION).await?;
        Ok(rows.iter().any(Lease::is_finished).then_some(()))
    })
    .await?;
    fleet.stop().await?;

    let parent = run(&backend, &["checkpoint", "reset", "0", "--to", "trim-horizon"]).await?;
    fails(&parent, 1, &["its child shardId-00000000000", "has begun"]);
    let all = ["checkpoint", "reset", "--all", "--to", "trim-horizon"];
    let dry = run(&backend, &[&all[..], &["--dry-run", "--json"]].concat()).await?.successful()?;
    let order: Vec<Value> = json_lines(&dry)?.into_iter().map(|report| report["shard"].clone()).collect();
    assert_eq!(order, ["shardId-000000000001", "shardId-000000000002", "shardId-000000000000"]);
    run(&backend, &all).await?.successful()?;
    let mut next = Fleet::new(&backend, "operator-reshard-next")?;
    next.start(&[])?;
    next.drained(2 * (old.len() + new.len())).await?;
    holds(&backend, &times(&[(2, &old), (2, &new)])).await?;
    next.stop().await
}

fn announced(row: Lease) -> Lease {
    let mut state = LeaseState::starting(None);
    state.follows = Some(row.checkpoint.clone());
    let (first, last) = (SequenceNumber::parse("11").unwrap(), SequenceNumber::parse("13").unwrap());
    state.cuts.push(Cut {
        first,
        last,
        behind_sub: None,
        last_sub: SubSequenceNumber(0),
        records: 3,
        parameters: std::sync::Arc::new(PackingParameters::default()),
        packing_version: 1,
        revision: 0,
        exclusions: Vec::new(),
        dropped: false,
    });
    Lease { pending: Pending::Ours(state), ..row }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_whose_move_would_lose_or_reorder_events_is_refused_and_left_as_it_is() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    let parent = row("shardId-000000000000", Position::ShardEnd);
    let child = Lease { parents: [parent.key.clone()].into(), ..row("shardId-000000000001", at(5)) };
    let open = row("shardId-000000000002", at(10));
    let waiting =
        Lease { parents: [open.key.clone()].into(), ..row("shardId-000000000003", Position::TrimHorizon) };
    let pending =
        announced(Lease { owner: Some(WorkerId::new("dead")), ..row("shardId-000000000004", at(10)) });
    let rows = [parent, child, open, waiting, pending];
    tables(&backend, &rows).await?;

    let begun = run(&backend, &["checkpoint", "reset", "0", "--to", "trim-horizon", "--force"]).await?;
    fails(&begun, 1, &["its child shardId-000000000001 has begun"]);
    let blocked = run(&backend, &["checkpoint", "set", "3", "99", "--force"]).await?;
    fails(&blocked, 1, &["its parent shardId-000000000002 is not finished"]);
    // By force it is told at once; otherwise it is seen first that the owner is gone.
    let pending = run(&backend, &["checkpoint", "set", "4", "1", "--force"]).await?;
    fails(&pending, 1, &["1 announced batches (3 records)", "sluicegate drain dead"]);
    let pending = run(&backend, &["checkpoint", "set", "4", "1", "--failover-time", "500ms"]).await?;
    fails(&pending, 1, &["1 announced batches (3 records)", "nobody works on them"]);
    let finished = ["checkpoint", "reset", "0", "--to", "latest", "--force"];
    fails(&run(&backend, &finished).await?, 64, &["--to latest needs --stream"]);
    assert_eq!(backend.leases(APPLICATION).await?, rows, "a refused row is left as it is");

    // One refusal keeps nobody else from being moved, and tells by the exit code. Moving a row that is in nobody's
    // way is done at once: nobody owns it.
    let all =
        run(&backend, &["checkpoint", "set", "--all", "7", "--failover-time", "500ms", "--json"]).await?;
    fails(&all, 1, &["3 of 5 shards were left as they are"]);
    let mut outcomes: Vec<(String, String)> = json_lines(&all)?
        .iter()
        .map(|report| (report["shard"].to_string(), report["outcome"].to_string()))
        .collect();
    outcomes.sort();
    let words: Vec<&str> = outcomes.iter().map(|(_, outcome)| outcome.trim_matches('"')).collect();
    assert_eq!(words, ["refused", "changed", "changed", "refused", "refused"], "{outcomes:?}");

    // What is announced goes along with a release.
    let released =
        run(&backend, &["leases", "release", "4", "--failover-time", "500ms"]).await?.successful()?;
    assert!(released.stdout.contains("1 announced batch goes along"), "{}", released.stdout);
    let row = backend.lease_store(APPLICATION).lease(&rows[4].key).await?.context("no row")?;
    assert_eq!(
        (row.owner, row.counter, row.pending),
        (None, rows[4].counter.next(), rows[4].pending.clone())
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_is_named_with_what_there_is() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    let missing = run(&backend, &["leases", "list"]).await?;
    fails(&missing, 1, &["`billing` does not exist"]);
    tables(&backend, &[row("shardId-000000000000", at(3))]).await?;
    for (arguments, code, parts) in [
        (
            &["checkpoint", "set", "0", "TRIM_HORIZON"][..],
            64,
            &["no sequence number", "checkpoint reset --to"][..],
        ),
        (&["checkpoint", "set", "9", "1"], 1, &["no lease row for shard `9`", "shardId-000000000000"]),
        (&["checkpoint", "set", "1"], 64, &["SHARD"]),
        (&["checkpoint", "reset", "0", "--to", "tomorrow"], 64, &["--to is `tomorrow`", "trim-horizon"]),
        (&["checkpoint", "reset", "--to", "latest"], 64, &["<SHARD"]),
        (&["checkpoint", "reset", "0", "--all", "--to", "latest"], 64, &["cannot be used with"]),
        (&["checkpoint", "reset", "0", "--to", "2999-01-01T00:00:00Z"], 64, &["still to come"]),
        (&["leases", "release"], 64, &["SHARD"]),
        (&["leases", "release", "--all-of", "pod-x"], 1, &["no worker `pod-x`; there are none"]),
        (&["drain", "pod-x"], 1, &["no worker `pod-x`; there are none"]),
    ] {
        fails(&run(&backend, arguments).await?, code, parts);
    }
    Ok(())
}
