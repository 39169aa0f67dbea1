//! How soon real workers use what a table gives, and whom a hot key slows. R6: while there is work, no table that gives is left
//! unused, and no worker stays below half of an equal part of it, for longer than 10 s, whatever was refused before. R7: a
//! refusal by key range slows the keys that it names and no others. In full: `make lift`.

use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::fleet::APPLICATION;
use sluicegate_tests::harness::{Backend, Fleet, LONG, wait_for};
use sluicegate_tests::measure::budget::{now_seconds, seconds};
use sluicegate_tests::measure::lift::verdict::{
    ENOUGH, Sample, WINDOW, Written, mean, rates, seconds_to_enough,
};
use sluicegate_tests::measure::load::{Kind, Load};
use tokio_util::sync::CancellationToken;

/// What the table takes, in units a second.
const CAPACITY: u32 = 1_500;
/// Seconds in which law R6 wants all to be as it should.
const WITHIN: u64 = 10;
/// As old as events may become in shards that nothing should hold up, in seconds.
const FRESH: f64 = 5.0;

fn limits(wcu: u32) -> String {
    format!("burst_seconds = 1\ntables.{APPLICATION}-events.wcu = {wcu}")
}

/// Items of about eight units, so that a debug build keeps up with the table.
fn writers<'b>(backend: &'b Backend, name: &str) -> anyhow::Result<Fleet<'b>> {
    let fleet = Fleet::new(backend, name)?.set("log_format", "json");
    Ok(fleet.set("max_item_bytes", "8KiB").set("zstd_level", "0").set("max_batch_records", "400"))
}

/// A backlog of so many events of a kilobyte, the same in every shard.
async fn backlog(backend: &Backend, events: u64) -> anyhow::Result<()> {
    let load = Load::new(backend.kinesis().clone(), 1).await?.under_keys(50);
    let load = load.of(Kind::Noise, events).of_at_most(events);
    load.run(&CancellationToken::new()).await.map(drop)
}

/// The second in which the table refuses something for the first time.
async fn first_refusal(backend: &Backend, fleet: &mut Fleet<'_>, since: u64) -> anyhow::Result<u64> {
    wait_for("a refusal", LONG, async || {
        fleet.check_alive()?;
        let seconds = seconds(backend, since, now_seconds() + 1).await?;
        Ok(seconds.iter().find(|second| second.refused > 0.0).map(|second| second.second))
    })
    .await
}

async fn three_seconds_since(second: u64) -> anyhow::Result<()> {
    wait_for("three seconds", LONG, async || Ok((now_seconds() >= second + 3).then_some(()))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_a_worker_whose_first_requests_are_refused_uses_the_table_soon_after_it_gives()
-> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    backend.set("/limits", &limits(1)).await?;
    backlog(&backend, 30_000).await?;
    let mut fleet = writers(&backend, "rates-refused")?;
    let begun = now_seconds();
    fleet.start(&[])?;
    let refused = first_refusal(&backend, &mut fleet, begun).await?;
    wait_for("three seconds of refusals", LONG, async || Ok((now_seconds() >= refused + 3).then_some(())))
        .await?;
    backend.set("/limits", &limits(CAPACITY)).await?;
    let lifted = now_seconds();
    wait_for(
        "nine tenths of what the table takes",
        Duration::from_secs(WITHIN + u64::from(WINDOW)),
        async || {
            let seconds = seconds(&backend, lifted, now_seconds()).await?;
            Ok(seconds_to_enough(&seconds, lifted, f64::from(CAPACITY)).filter(|after| *after <= WITHIN))
        },
    )
    .await
    .map(drop)
    .with_context(|| format!("after {WITHIN} s less than {ENOUGH} of {CAPACITY} units a second are used"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_a_worker_that_joins_while_the_table_refuses_gets_its_part_soon_after() -> anyhow::Result<()> {
    // So little that a debug build uses all of it.
    let capacity = CAPACITY / 5;
    let backend = Backend::with_stream(8).await?;
    backend.set("/limits", &limits(capacity)).await?;
    backlog(&backend, 16_000).await?;
    let mut fleet = writers(&backend, "rates-joins")?;
    let begun = now_seconds();
    fleet.start(&[])?;
    first_refusal(&backend, &mut fleet, begun).await?;
    backend.set("/limits", &limits(1)).await?;
    fleet.start(&[])?;
    wait_for("a refusal of each worker", LONG, async || {
        fleet.check_alive()?;
        let throttled = fleet.metrics("sluicegate_write_units_throttled_total").await?;
        Ok((throttled.len() == 2 && throttled.iter().all(|units| *units > 0.0)).then_some(()))
    })
    .await?;
    three_seconds_since(now_seconds()).await?;
    backend.set("/limits", &limits(capacity)).await?;
    let half = f64::from(capacity) / 2.0 / 2.0;
    let (lifted, mut samples) = (tokio::time::Instant::now(), Vec::new());
    wait_for(
        "half an equal part for each worker",
        Duration::from_secs(WITHIN + u64::from(WINDOW)),
        async || {
            fleet.check_alive()?;
            let accepted = fleet.metrics("sluicegate_write_units_accepted_total").await?;
            if accepted.len() < 2 {
                return Ok(None);
            }
            let workers = accepted.into_iter().map(|accepted| Written { accepted, demand: f64::INFINITY });
            samples.push(Sample { at: lifted.elapsed().as_secs_f64(), workers: workers.collect() });
            let rates = rates(&samples, 0.0, f64::from(WINDOW));
            let latest = rates.last().is_some_and(|latest| latest.iter().all(|rate| rate.units >= half));
            Ok(latest.then_some(()))
        },
    )
    .await
    .with_context(|| format!("half an equal part is {half} units a second; {:?}", samples.last()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_a_hot_key_slows_no_other_without_a_budget() -> anyhow::Result<()> {
    others_stay_fresh("rates-hot", "0").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_a_hot_key_slows_no_other_with_a_budget() -> anyhow::Result<()> {
    others_stay_fresh("rates-hot-budget", "5000").await
}

/// A backlog of one key, whose partition takes 300 units a second, in the first shard; a steady trickle of others beside it.
async fn others_stay_fresh(name: &str, budget: &str) -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let limits = format!("burst_seconds = 1\ntables.{APPLICATION}-events.partition_key_wcu = 300");
    backend.set("/limits", &limits).await?;
    let shards = Shards::of(&backend).await?;
    for at in 0..30 {
        shards.put(0, (0..500).map(|n| ("hot".to_owned(), Kind::Noise.event(at * 500 + n)))).await?;
    }
    let mut fleet = writers(&backend, name)?.set("write_budget_wcu", budget).set("spread", "1");
    let begun = now_seconds();
    fleet.start(&[])?;
    first_refusal(&backend, &mut fleet, begun).await?;
    let cold = tokio::time::Instant::now();
    let mut number = 0;
    while cold.elapsed() < Duration::from_secs(WITHIN + 2) {
        for shard in 1..4 {
            let events = (0..50).map(|n| (format!("cold-{n}"), Kind::Json.event(number + n)));
            shards.put(shard, events).await?;
            number += 50;
        }
        fleet.check_alive()?;
        let freshness = fleet.scrapes().await?.into_values().next().context("the worker does not answer")?;
        for (shard, seconds) in freshness_by_shard(&freshness)? {
            let held_up = shard != shards.names[0] && seconds > FRESH;
            ensure!(!held_up, "{shard} is {seconds} s behind, held up by the hot key of another shard");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let seconds = seconds(&backend, begun, now_seconds()).await?;
    let hot = &seconds[seconds.len().saturating_sub(5)..];
    ensure!(mean(hot) >= ENOUGH * 300.0, "the hot key is written as fast as its partition takes it: {hot:?}");
    Ok(())
}

/// The shards of the stream: which events go to which is the test's choice.
struct Shards<'b> {
    backend: &'b Backend,
    names: Vec<String>,
    first_hash_keys: Vec<String>,
}

impl<'b> Shards<'b> {
    async fn of(backend: &'b Backend) -> anyhow::Result<Self> {
        let listed = backend.kinesis().list_shards().stream_name(STREAM).send().await?;
        let names = listed.shards().iter().map(|shard| shard.shard_id().to_owned()).collect();
        let hash_keys = listed.shards().iter().filter_map(|shard| shard.hash_key_range());
        let first_hash_keys = hash_keys.map(|range| range.starting_hash_key().to_owned()).collect();
        Ok(Self { backend, names, first_hash_keys })
    }

    /// Puts events, at most 500, each with its key.
    async fn put(&self, shard: usize, events: impl Iterator<Item = (String, Vec<u8>)>) -> anyhow::Result<()> {
        let entry = |(key, data): (String, Vec<u8>)| {
            let entry = PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data));
            entry.explicit_hash_key(&self.first_hash_keys[shard]).build()
        };
        let entries = events.map(entry).collect::<Result<_, _>>()?;
        let put = self.backend.kinesis().put_records().stream_name(STREAM).set_records(Some(entries));
        let answer = put.send().await?;
        ensure!(answer.failed_record_count().unwrap_or(0) == 0, "not all events were stored");
        Ok(())
    }
}

/// Seconds that each shard is behind, those that are named.
fn freshness_by_shard(scrape: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let rows = scrape.lines().filter_map(|line| line.strip_prefix("sluicegate_fleet_freshness_seconds{"));
    let row = |row: &str| {
        let (labels, seconds) = row.split_once("} ").context("no value")?;
        let shard = labels.split('"').nth(1).context("no shard")?;
        Ok((shard.to_owned(), seconds.trim().parse()?))
    };
    rows.map(row).collect()
}
