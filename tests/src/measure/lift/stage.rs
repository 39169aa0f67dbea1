//! One configuration: its stream, its tables, a backlog that never ends, and fleets of workers that are watched.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ProvisionedThroughput, ScalarAttributeType,
};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use sluicegate_worker::telemetry::wall_millis;
use tokio::time::Instant;

use super::super::budget::now_seconds;
use super::super::hardship::value_of;
use super::report::Outcome;
use super::verdict::{Sample, Written};
use super::{Budget, LiftPlan};
use crate::harness::{Backend, Fleet, wait_for};

/// Seconds of the table's capacity by which the backlog is ahead of what is written: a worker that is faster than the others
/// does not run out of work soon.
const AHEAD: u64 = 60;
/// Keys of events: more than records in a batch, so that every event is an item of its own.
const KEYS: u64 = 9_973;
/// Bytes of an event that nothing compresses, and units of its item. Items of one unit cost the backend three times as much
/// of the processor, which all configurations share; larger ones more of its memory.
const EVENT_BYTES: usize = 2_100;
/// See [`EVENT_BYTES`].
const EVENT_UNITS: u64 = 3;
/// Time between two looks at the backlog.
const REFILL_EVERY: Duration = Duration::from_millis(250);
/// Most records of a request (Kinesis API reference, PutRecords).
const MAX_ENTRIES: u64 = 500;

/// One configuration.
pub(super) struct Stage<'b> {
    pub(super) backend: &'b Backend,
    pub(super) plan: &'b LiftPlan,
    pub(super) workers: usize,
    pub(super) budget: Budget,
    pub(super) say: &'b dyn Fn(&str),
}

/// A fleet of an application of its own, and what was seen of it.
pub(super) struct Troupe<'b> {
    pub(super) fleet: Fleet<'b>,
    pub(super) table: String,
    /// The second in which what the table takes changed last, or the workers began.
    pub(super) steady_since: u64,
    /// What each worker has written by a moment, by its address.
    looks: Vec<(f64, BTreeMap<String, Written>)>,
}

impl<'b> Stage<'b> {
    /// Lets everything happen to it, and takes it down.
    pub(super) async fn play(&self) -> anyhow::Result<Vec<Outcome>> {
        let stream = self.name();
        let kinesis = self.backend.kinesis();
        let shards = i32::try_from(self.workers * self.plan.shards_per_worker)?;
        kinesis.create_stream().stream_name(&stream).shard_count(shards).send().await?;
        let outcomes = tokio::select! {
            outcomes = self.act() => outcomes?,
            failed = self.keep_backlog() => match failed? {},
        };
        // What the next configuration needs of the backend's memory.
        kinesis.delete_stream().stream_name(&stream).send().await?;
        for application in self.applications() {
            drop(self.backend.dynamodb().delete_table().table_name(table_of(&application)).send().await);
        }
        Ok(outcomes)
    }

    /// Of the stream and of what it tells.
    pub(super) fn name(&self) -> String {
        format!("lift-{}-{}", self.workers, self.budget.name())
    }

    /// The application that starts into refusals, and the one to which all else happens.
    pub(super) fn applications(&self) -> [String; 2] {
        ["refused", "steady"].map(|which| format!("{}-{which}", self.name()))
    }

    /// A fleet without workers, and its table.
    pub(super) async fn troupe(&self, application: &str) -> anyhow::Result<Troupe<'b>> {
        let table = table_of(application);
        self.create_table(&table).await?;
        let failover_time = format!("{}ms", self.plan.failover_time.as_millis());
        let budget = self.budget.setting(self.plan.capacity);
        let mut fleet = Fleet::with_defaults(self.backend, application)?.of(application);
        for (setting, value) in [
            ("write_budget_wcu", budget.as_str()),
            ("failover_time", failover_time.as_str()),
            // Small batches: many are under way, and each worker's work is told apart soon.
            ("max_batch_records", "500"),
            ("max_batch_age", "200ms"),
            ("buffer_bytes", "32MiB"),
            ("zstd_level", "0"),
            ("log_format", "json"),
        ] {
            fleet = fleet.set(setting, value);
        }
        Ok(Troupe { fleet, table, steady_since: 0, looks: Vec::new() })
    }

    async fn create_table(&self, table: &str) -> anyhow::Result<()> {
        let mut create = self.backend.dynamodb().create_table().table_name(table);
        for (name, kind) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            let attribute = attribute.attribute_type(ScalarAttributeType::S).build()?;
            let key = KeySchemaElement::builder().attribute_name(name).key_type(kind).build()?;
            create = create.attribute_definitions(attribute).key_schema(key);
        }
        let create = create.billing_mode(BillingMode::Provisioned);
        create.provisioned_throughput(throughput(self.plan.capacity)?).send().await?;
        self.override_limit(table, self.plan.capacity).await
    }

    /// What the table takes from now on, whatever it says.
    pub(super) async fn override_limit(&self, table: &str, wcu: u32) -> anyhow::Result<()> {
        self.backend.set("/limits", &format!("tables.{table}.wcu = {wcu}")).await
    }

    /// What the table takes from now on, and says that it takes.
    pub(super) async fn change_capacity(&self, troupe: &mut Troupe<'b>, wcu: u32) -> anyhow::Result<()> {
        let update = self.backend.dynamodb().update_table().table_name(&troupe.table);
        update.provisioned_throughput(throughput(wcu)?).send().await?;
        troupe.steady_since = now_seconds();
        self.override_limit(&troupe.table, wcu).await
    }

    /// Starts a worker.
    pub(super) fn start(&self, troupe: &mut Troupe<'_>) -> anyhow::Result<()> {
        troupe.fleet.start(&["--stream", &self.name()]).map(drop)
    }

    /// Publishes as much as is written, and [`AHEAD`] more.
    async fn keep_backlog(&self) -> anyhow::Result<Infallible> {
        let listed = self.backend.kinesis().list_shards().stream_name(self.name()).send().await?;
        let hash_keys = listed.shards().iter().filter_map(|shard| shard.hash_key_range());
        let hash_keys: Vec<_> = hash_keys.map(|range| range.starting_hash_key().to_owned()).collect();
        let ahead = u64::from(self.plan.capacity) * AHEAD / EVENT_UNITS;
        let mut published = 0;
        loop {
            let written = self.written().await? / EVENT_UNITS;
            while published < written + ahead {
                self.put(&hash_keys, published).await?;
                published += MAX_ENTRIES;
            }
            tokio::time::sleep(REFILL_EVERY).await;
        }
    }

    /// Units that the table of the application that is further has taken.
    async fn written(&self) -> anyhow::Result<u64> {
        let ledger = self.backend.dynamodb_admin(&format!("/ledger?since={}", u32::MAX)).await?;
        let units = |application: String| ledger[table_of(&application)]["write_units"].as_f64();
        let most = self.applications().into_iter().filter_map(units).fold(0.0, f64::max);
        Ok(Duration::try_from_secs_f64(most)?.as_secs())
    }

    async fn put(&self, hash_keys: &[String], first: u64) -> anyhow::Result<()> {
        let entry = |number: u64| {
            let shard = usize::try_from(number).unwrap_or_default() % hash_keys.len();
            let entry = PutRecordsRequestEntry::builder().partition_key(format!("key-{}", number % KEYS));
            let mut data = vec![0; EVENT_BYTES];
            SmallRng::seed_from_u64(number).fill_bytes(&mut data);
            entry.data(Blob::new(data)).explicit_hash_key(&hash_keys[shard]).build()
        };
        let entries = (first..first + MAX_ENTRIES).map(entry).collect::<Result<_, _>>()?;
        let put = self.backend.kinesis().put_records().stream_name(self.name());
        let answer = put.set_records(Some(entries)).send().await?;
        ensure!(answer.failed_record_count().unwrap_or(0) == 0, "not all events were published");
        Ok(())
    }
}

impl Troupe<'_> {
    /// Looks at every worker once a second until then.
    pub(super) async fn watch(&mut self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            let next = Instant::now() + Duration::from_secs(1);
            self.fleet.check_alive()?;
            let at = now();
            let scrapes = self.fleet.scrapes().await?;
            let written = |(address, scrape): (String, String)| {
                let accepted = value_of(&scrape, "sluicegate_write_units_accepted_total")?;
                let demand = value_of(&scrape, "sluicegate_write_demand_units_per_second")?;
                anyhow::Ok((address, Written { accepted, demand }))
            };
            self.looks.push((at, scrapes.into_iter().map(written).collect::<anyhow::Result<_>>()?));
            tokio::time::sleep_until(next.min(until)).await;
        }
        Ok(())
    }

    /// Watches until nothing has changed for so many seconds.
    pub(super) async fn steady_for(&mut self, seconds: u64) -> anyhow::Result<()> {
        let left = (self.steady_since + seconds).saturating_sub(now_seconds());
        self.watch(Instant::now() + Duration::from_secs(left)).await
    }

    /// What was seen of all workers that were ever seen, in the order of their addresses.
    pub(super) fn samples(&self) -> Vec<Sample> {
        samples(&self.looks)
    }

    /// Waits until the workers answer, all of them.
    pub(super) async fn assembled(&mut self, workers: usize) -> anyhow::Result<()> {
        wait_for("the workers to answer", Duration::from_secs(120), async || {
            self.fleet.check_alive()?;
            Ok((self.fleet.scrapes().await?.len() == workers).then_some(()))
        })
        .await
    }

    /// Ends all workers.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        for number in self.fleet.numbers() {
            self.fleet.kill(number).await?;
        }
        Ok(())
    }
}

/// A worker that did not answer a look has written what it had, and wants nothing.
fn samples(looks: &[(f64, BTreeMap<String, Written>)]) -> Vec<Sample> {
    let mut known: BTreeMap<&str, Written> = BTreeMap::new();
    known
        .extend(looks.iter().flat_map(|(_, look)| look.keys()).map(|key| (key.as_str(), Written::default())));
    let mut samples = Vec::with_capacity(looks.len());
    for (at, look) in looks {
        for (address, written) in &mut known {
            let silent = Written { accepted: written.accepted, demand: 0.0 };
            *written = look.get(*address).copied().unwrap_or(silent);
        }
        samples.push(Sample { at: *at, workers: known.values().copied().collect() });
    }
    samples
}

fn throughput(wcu: u32) -> anyhow::Result<ProvisionedThroughput> {
    let throughput = ProvisionedThroughput::builder().read_capacity_units(100);
    throughput.write_capacity_units(i64::from(wcu)).build().context("no throughput")
}

fn table_of(application: &str) -> String {
    format!("{application}-events")
}

/// Seconds since the Unix epoch.
fn now() -> f64 {
    let millis = u64::try_from(wall_millis().0).unwrap_or(0);
    Duration::from_millis(millis).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_answer_has_written_what_it_had() {
        let look = |at: f64, seen: &[(&str, f64)]| {
            let written = |(address, accepted): &(&str, f64)| {
                ((*address).to_owned(), Written { accepted: *accepted, demand: 9.0 })
            };
            (at, seen.iter().map(written).collect())
        };
        let looks =
            [look(1.0, &[("b", 5.0)]), look(2.0, &[("a", 3.0)]), look(3.0, &[("a", 4.0), ("b", 8.0)])];
        let samples = samples(&looks);
        let seen = |at: usize| samples[at].workers.iter().map(|w| (w.accepted, w.demand)).collect::<Vec<_>>();
        assert_eq!(seen(0), [(0.0, 0.0), (5.0, 9.0)]);
        assert_eq!(seen(1), [(3.0, 9.0), (5.0, 0.0)]);
        assert_eq!(seen(2), [(4.0, 9.0), (8.0, 9.0)]);
    }
}
