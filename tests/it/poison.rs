//! Events that the table never takes: found through the SDK, dead-lettered, and brought home with the real program.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use sluicegate_checkpoint::{Codec, PackingParameters};
use sluicegate_lease::{Clock, WorkerId, dynamodb::ensure_tables};
use sluicegate_sink::dynamodb::{DynamoDbDeadLetters, DynamoDbItems, ensure_letters_table, ensure_table};
use sluicegate_sink::item::{Item, SortKey};
use sluicegate_sink::store::Written;
use sluicegate_sink::{ItemWriter, PackingSink, PackingSinkOptions, StoreError};
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::fleet::APPLICATION;
use sluicegate_tests::harness::{Backend, Finished, LONG, Multiset, flights, sluicegate, wait_for};
use sluicegate_tests::measure::poison::PoisonPlan;
use sluicegate_tests::measure::{self, Comparison, Plan};
use sluicegate_worker::offload::BlockingPool;
use sluicegate_worker::worker::Settings;
use sluicegate_worker::{Metrics, Worker};
use tokio_util::sync::CancellationToken;

const LETTERS: &str = "poison-dead-letters";
const POISON: &str = "*poison*";

/// A table that takes no item with [`POISON`] in it, asked or written.
struct Picky(DynamoDbItems);

impl Picky {
    fn check(item: &Item) -> Result<(), StoreError> {
        let found = item.data.windows(POISON.len()).any(|window| window == POISON.as_bytes());
        if found { Err(StoreError::Rejected("ValidationException: poison".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl ItemWriter for Picky {
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError> {
        items.iter().try_for_each(|item| Self::check(item))?;
        self.0.write(items).await
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        Self::check(item)?;
        self.0.probe(item).await
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.0.raise_spread(count).await
    }
}

fn worker(backend: &Backend, metrics: &Metrics) -> anyhow::Result<Worker> {
    let table = backend.table(APPLICATION);
    let writer = Picky(DynamoDbItems::new(backend.dynamodb().clone(), table.name()));
    let pool = Arc::new(BlockingPool::new(1));
    let sink = PackingSink::new(Arc::new(writer), PackingSinkOptions::default(), pool, 1);
    let mut settings = Settings { failover_time: Duration::from_secs(2), ..Settings::default() };
    settings.cut.max_age = Duration::from_millis(300);
    settings.parameters = PackingParameters { codec: Codec::None, ..PackingParameters::default() };
    Ok(Worker::builder(APPLICATION)
        .worker_id(WorkerId::new("picky"))
        .settings(settings)
        .stream(backend.stream(STREAM))
        .tables(backend.lease_store(APPLICATION), backend.registry(APPLICATION))
        .sink(Arc::new(sink))
        .dead_letters(Arc::new(DynamoDbDeadLetters::new(backend.dynamodb().clone(), LETTERS)))
        .metrics(metrics.clone())
        .build()?)
}

async fn dead_letters(backend: &Backend, arguments: &[&str]) -> anyhow::Result<Finished> {
    let tables = ["--embedded", "--application", APPLICATION, "--dead-letters", LETTERS];
    sluicegate(&backend.environment(), &[&["dead-letters"], arguments, &tables].concat()).await
}

fn json_lines(finished: &Finished) -> anyhow::Result<Vec<Value>> {
    ensure!(finished.code == Some(0), "{finished:#?}");
    let parse = |line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
    finished.stdout.lines().map(parse).collect()
}

/// Runs a worker until nothing is left to store; returns what it counted.
async fn stored_all_but(backend: &Backend, metrics: &Metrics, stored: usize) -> anyhow::Result<String> {
    let stop = CancellationToken::new();
    let running = worker(backend, metrics)?.run(stop.clone());
    let table = backend.table(APPLICATION);
    let watch = async {
        let done = wait_for("everything but the poison", LONG, async || {
            Ok((table.stored().await? >= stored as u64).then_some(()))
        });
        done.await?;
        stop.cancel();
        anyhow::Ok(())
    };
    let (ended, watched) = tokio::join!(running, watch);
    watched?;
    ended?;
    Ok(String::from_utf8(metrics.text()?)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_dead_lettered_and_redriven_into_its_place() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    ensure_tables(backend.dynamodb(), Clock::new(), APPLICATION, true).await?;
    let table = backend.table(APPLICATION);
    ensure_table(backend.dynamodb(), table.name(), true).await?;
    ensure_letters_table(backend.dynamodb(), LETTERS, true).await?;
    let mut lines = flights(5, 2_000);
    for at in [700, 1_400] {
        lines[at].insert_str(1, &format!("\"note\":\"{POISON}\","));
    }
    let poison = [lines[700].clone(), lines[1_400].clone()];
    let fine: Vec<String> = lines.iter().filter(|line| !poison.contains(line)).cloned().collect();
    backend.publish(&lines, None).await?;
    let metrics = Metrics::new()?;
    let text = stored_all_but(&backend, &metrics, fine.len()).await?;
    for line in ["sluicegate_dead_letters_total 2", "sluicegate_records_unaccounted 0"] {
        ensure!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
    fine.iter().cloned().collect::<Multiset>().equals(&table.everything().await?)?;

    // Seen.
    let listed = json_lines(&dead_letters(&backend, &["list", "--json", "--open"]).await?)?;
    ensure!(listed.len() == 2, "{listed:?}");
    let names: Vec<String> =
        listed.iter().map(|letter| letter["letter"].as_str().unwrap_or_default().to_owned()).collect();
    let mut payloads = Vec::new();
    for (letter, name) in listed.iter().zip(&names) {
        ensure!(letter["why"] == "ValidationException: poison" && letter["worker"] == "picky", "{letter}");
        let shown = json_lines(&dead_letters(&backend, &["show", name, "--json"]).await?)?.remove(0);
        payloads.push(shown["payload"].as_str().unwrap_or_default().to_owned());
        let whole = dead_letters(&backend, &["show", name, "--payload"]).await?;
        ensure!(payloads.last() == Some(&whole.stdout), "{whole:?}");
    }
    payloads.sort();
    let mut expected = poison.to_vec();
    expected.sort();
    ensure!(payloads == expected, "{payloads:?}");
    let text = dead_letters(&backend, &["list"]).await?;
    ensure!(text.stdout.contains("2 letters: 2 open, 0 redriven"), "{text:?}");

    // A dry run stores nothing; a redrive stores once, however often.
    let dry = json_lines(&dead_letters(&backend, &["redrive", "--all", "--dry-run", "--json"]).await?)?;
    ensure!(dry.iter().all(|letter| letter["outcome"] == "would_redrive") && dry.len() == 2, "{dry:?}");
    fine.iter().cloned().collect::<Multiset>().equals(&table.everything().await?)?;
    let one = json_lines(&dead_letters(&backend, &["redrive", &names[0], "--json"]).await?)?;
    ensure!(one[0]["outcome"] == "redriven", "{one:?}");
    let again = json_lines(&dead_letters(&backend, &["redrive", &names[0], "--json"]).await?)?;
    ensure!(again[0]["outcome"] == "redriven_before", "{again:?}");
    let rest = json_lines(&dead_letters(&backend, &["redrive", "--all", "--json"]).await?)?;
    ensure!(rest.len() == 1 && rest[0]["letter"] == names[1].as_str(), "{rest:?}");
    lines.iter().cloned().collect::<Multiset>().equals(&table.everything().await?)?;
    ensure!(table.overlaps().await?.is_empty());
    let left = json_lines(&dead_letters(&backend, &["list", "--json"]).await?)?;
    ensure!(left.iter().all(|letter| letter["state"] == "redriven") && left.len() == 2, "{left:?}");

    // What is no letter.
    for (arguments, code) in [
        (["redrive", "shardId-000000000000:1"], 1),
        (["show", "shardId-000000000000:1"], 1),
        (["show", "nonsense"], 64),
    ] {
        let finished = dead_letters(&backend, &arguments).await?;
        ensure!(finished.code == Some(code) && !finished.stderr.contains("panicked"), "{finished:?}");
    }
    Ok(())
}

/// The measurement of `make poison`, in short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_stores_all_but_the_poison_and_a_redrive_brings_it_home() -> anyhow::Result<()> {
    let plan =
        Plan { count: 0, workers: 2, shards: 4, failover_time: Duration::from_secs(3), rate: 500, seed: 1 };
    let lasts = Duration::from_secs(3);
    let plan = PoisonPlan { plan, lasts, every: 100, keys: 5, budget_wcu: 4_000, defaults: false };
    let report = measure::poison::run(plan, "poison-in-short", |_| {}).await?;
    let json = report.json(&plan);
    println!("{json}");
    ensure!(report.poisoned >= 10 && !report.added.is_empty() && report.probes > 0, "{json}");
    let published = report.comparison.published;
    ensure!(report.comparison == Comparison { published, lost: 0, duplicated: 0 }, "{json}");
    ensure!((report.dead_letters, report.other_letters) == (report.poisoned, 0), "{json}");
    ensure!((report.stored, report.unaccounted) == (published - report.poisoned, 0.0), "{json}");
    let poisoned = usize::try_from(report.poisoned)?;
    ensure!(report.redrives == (poisoned, 0) && report.redriven == report.poisoned, "{json}");
    Ok(())
}

/// DynamoDB checks an item before the condition, so that a put whose condition never holds tells whether it would be
/// stored, and stores nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_is_asked_about_and_not_stored() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    let table = backend.table(APPLICATION);
    ensure_table(backend.dynamodb(), table.name(), true).await?;
    let items = DynamoDbItems::new(backend.dynamodb().clone(), table.name());
    let item = |bytes: usize, text: &str| {
        let sort = SortKey::parse(&format!("1700000000000#{text}#00000000#0011#00000000#000001"))?;
        let data = Bytes::from(vec![7; bytes]);
        Some(Item { header: header_of(sort, &data), data })
    };
    let good = item(1_000, "shardId-000000000000").context("a sort key")?;
    ensure!(items.probe(&good).await.is_ok());
    ensure!(table.headers().await?.is_empty(), "nothing is stored");
    // Over an item that is there nothing changes either.
    items.write(&[Arc::new(good.clone())]).await?;
    let other = Item { data: Bytes::from_static(b"another"), ..good.clone() };
    ensure!(items.probe(&other).await.is_ok());
    ensure!(table.headers().await? == [good.header]);
    let large = item(500_000, "shardId-000000000001").context("a sort key")?;
    let answer = items.probe(&large).await;
    ensure!(matches!(answer, Err(StoreError::Rejected(_))), "{answer:?}");
    ensure!(table.headers().await?.len() == 1);
    Ok(())
}

fn header_of(sort: SortKey, data: &Bytes) -> sluicegate_sink::item::Header {
    sluicegate_sink::item::Header {
        partition: sluicegate_sink::item::PartitionKey { aggregate_key: "k".to_owned(), suffix: 0 },
        arrivals: (sort.arrival, sort.arrival),
        sort,
        packing_version: 1,
        codec: sluicegate_sink::item::StoredCodec::None,
        count: 0,
        raw_bytes: data.len() as u64,
        group_sum: 0,
        part_sum: 0,
        range: None,
        parts: 1,
        stored_bytes: data.len() as u64,
        expires: None,
        reduced: None,
    }
}
