//! The way through Sluicegate: events are published to a stream, and workers with a write budget store them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, ensure};
use sluicegate_checkpoint::ArrivalMillis;
use sluicegate_sink::item::{Header, PartitionKey, SortKey};
use tokio_util::sync::CancellationToken;

use super::course::{Course, Sample};
use super::{BurstPlan, KIND, Outcome, now_seconds, second_over};
use crate::harness::backend::STREAM;
use crate::harness::fleet::APPLICATION;
use crate::harness::{Backend, wait_for};
use crate::measure::budget::seconds;
use crate::measure::load::Load;
use crate::measure::{Experiment, Plan};

/// Plays the burst; returns when everything is stored.
pub(super) async fn run(plan: &BurstPlan, name: &str, say: &impl Fn(&str)) -> anyhow::Result<Outcome> {
    let backend = Backend::process().await?;
    let limits = format!("burst_seconds = 1\ntables.{APPLICATION}-events.wcu = {}", plan.table_wcu);
    backend.set("/limits", &limits).await?;
    backend.create_stream(plan.shards).await?;
    let load = Load::new(backend.kinesis().clone(), plan.rate())
        .await?
        .of(KIND, 0)
        .of_at_most(plan.events())
        .under_keys(plan.keys_per_shard);
    let fleet = Plan {
        count: 0,
        workers: plan.workers,
        shards: plan.shards,
        failover_time: Duration::from_secs(10),
        rate: plan.rate(),
        seed: 1,
    };
    let mut experiment = Experiment::new(fleet, &backend, name)?;
    experiment.fleet = experiment.fleet.set("write_budget_wcu", &plan.table_wcu.to_string());
    for (setting, value) in &plan.settings {
        experiment.fleet = experiment.fleet.set(setting, value);
    }
    for _ in 0..plan.workers {
        experiment.join()?;
    }
    divided(&mut experiment).await?;
    let published = Cell::new(None);
    let playing = async {
        tokio::time::sleep(plan.lead).await;
        let events = load.run(&CancellationToken::new()).await?;
        published.set(Some(events));
        anyhow::Ok(())
    };
    let from = now_seconds();
    let (sightings, played) = tokio::join!(watch(&mut experiment, &backend, &published, say), playing);
    played?;
    let sightings = sightings?;
    let offered = published.get().context("nothing was published")?;
    let last = sightings.values().map(|(second, _)| *second).max().context("nothing was stored")?;
    let samples = samples(from..=last, &readable(&sightings), &arrivals(&backend).await?);
    let table = seconds(&backend, from, last + 1).await?;
    let (comparison, _) = experiment.finish(offered, &load).await?;
    Ok(Outcome {
        offered,
        stored: comparison.published - comparison.lost,
        dropped: 0,
        duplicated: comparison.duplicated,
        course: Course::new(&samples, &table),
    })
}

/// Waits until every shard has an owner and the shards are balanced.
async fn divided(experiment: &mut Experiment<'_>) -> anyhow::Result<()> {
    let patience = experiment.patience();
    wait_for("balanced shards", patience, async || {
        experiment.fleet.check_alive()?;
        let Some(holdings) = experiment.holdings().await? else { return Ok(None) };
        let counts: Vec<usize> = holdings.values().map(Vec::len).collect();
        let balanced = counts.iter().max() <= counts.iter().min().map(|least| least + 1).as_ref();
        Ok(balanced.then_some(()))
    })
    .await
}

/// When each item was first seen in the table, and its header.
type Sightings = BTreeMap<(PartitionKey, SortKey), (u64, Header)>;

/// Looks into the table once a second, until everything published is there.
async fn watch(
    experiment: &mut Experiment<'_>,
    backend: &Backend,
    published: &Cell<Option<u64>>,
    say: &impl Fn(&str),
) -> anyhow::Result<Sightings> {
    let table = backend.table(APPLICATION);
    let (mut sightings, mut looks, mut grew_at) = (Sightings::new(), 0u32, now_seconds());
    loop {
        second_over().await;
        experiment.fleet.check_alive()?;
        let headers = table.headers().await?;
        // What was found while looking is counted for when the look was over.
        let now = now_seconds();
        if headers.len() > sightings.len() || published.get().is_none() {
            grew_at = now;
        }
        for header in headers {
            sightings.entry((header.partition.clone(), header.sort.clone())).or_insert((now, header));
        }
        let stored: u64 = readable(&sightings).iter().map(|group| group.events).sum();
        if published.get().is_some_and(|events| stored >= events) {
            return Ok(sightings);
        }
        ensure!(now - grew_at < 120, "nothing was stored for two minutes: {stored} events are");
        looks += 1;
        if looks.is_multiple_of(10) {
            say(&format!("stored {stored}"));
        }
    }
}

/// Events that a reader finds, all their parts being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Readable {
    /// From which second on.
    since: u64,
    events: u64,
    /// Of the first of them.
    arrival: ArrivalMillis,
}

fn readable(sightings: &Sightings) -> Vec<Readable> {
    let mut groups: BTreeMap<(&PartitionKey, SortKey), (u32, Readable)> = BTreeMap::new();
    for ((partition, sort), (second, header)) in sightings {
        let new = Readable { since: *second, events: header.events(), arrival: header.arrivals.0 };
        let group =
            groups.entry((partition, SortKey { part: 1, ..sort.clone() })).or_insert((header.parts, new));
        group.0 = group.0.saturating_sub(1);
        group.1.since = group.1.since.max(*second);
    }
    groups.into_values().filter(|(missing, _)| *missing == 0).map(|(_, group)| group).collect()
}

/// What a reader found at the end of each second, and how old the oldest event was that it did not find.
fn samples(seconds: RangeInclusive<u64>, groups: &[Readable], arrivals: &BTreeMap<u64, u64>) -> Vec<Sample> {
    let sample = |second: u64| {
        let end = ArrivalMillis(i64::try_from((second + 1) * 1_000).unwrap_or(i64::MAX));
        let waits = |group: &&Readable| group.since > second && group.arrival < end;
        let oldest = groups.iter().filter(waits).map(|group| group.arrival).min().unwrap_or(end);
        Sample {
            second,
            offered: arrivals.range(..=second).map(|(_, events)| events).sum(),
            stored: groups.iter().filter(|group| group.since <= second).map(|group| group.events).sum(),
            dropped: 0,
            age: Duration::from_millis(u64::try_from(end.0 - oldest.0).unwrap_or(0)).as_secs_f64(),
        }
    };
    seconds.map(sample).collect()
}

/// Events of each second, by the stream's own account.
async fn arrivals(backend: &Backend) -> anyhow::Result<BTreeMap<u64, u64>> {
    let ledger = backend.kinesis_admin("/ledger").await?;
    let windows = ledger[STREAM]["windows"].as_array().context("the ledger does not know the stream")?;
    let arrived =
        |window: &serde_json::Value| Some((window["second"].as_u64()?, window["records"].as_u64()?));
    Ok(windows.iter().filter_map(arrived).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_event_that_a_reader_does_not_find_counts() {
        let group = |since, events, arrival| Readable { since, events, arrival: ArrivalMillis(arrival) };
        let groups = [group(12, 30, 10_500), group(14, 20, 11_000), group(13, 50, 12_250)];
        let arrivals = BTreeMap::from([(10, 40), (11, 40), (12, 20)]);
        let samples = samples(9..=14, &groups, &arrivals);
        let of = |get: fn(&Sample) -> u64| samples.iter().map(get).collect::<Vec<_>>();
        assert_eq!(of(|sample| sample.offered), [0, 40, 80, 100, 100, 100]);
        assert_eq!(of(|sample| sample.stored), [0, 0, 0, 30, 80, 100]);
        let ages: Vec<f64> = samples.iter().map(|sample| sample.age).collect();
        assert_eq!(ages, [0.0, 0.5, 1.5, 2.0, 3.0, 0.0]);
    }
}
