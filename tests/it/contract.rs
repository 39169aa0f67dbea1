//! The contract suites on the adapters that production uses, over sockets to the embedded backend. The memory
//! adapters run the same suites beside their code.

use std::sync::Arc;

use anyhow::anyhow;
use async_trait::async_trait;
use aws_sdk_dynamodb::types::TimeToLiveStatus;
use sluicegate_lease::{Clock, contract as leases, dynamodb::ensure_tables};
use sluicegate_sink::contract::{Subject, run_all};
use sluicegate_sink::dead_letter::contract as letters;
use sluicegate_sink::dynamodb::{DynamoDbDeadLetters, dynamodb_sink, ensure_letters_table, ensure_table};
use sluicegate_sink::{Event, PackingSinkOptions, Sink};
use sluicegate_tests::harness::{Backend, Table};
use sluicegate_worker::offload::BlockingPool;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_table_in_dynamodb_keeps_every_promise() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    ensure_tables(backend.dynamodb(), Clock::new(), "suite", true).await?;
    leases::lease_store(backend.lease_store("suite")).await.map_err(|violation| anyhow!(violation))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_table_in_dynamodb_keeps_every_promise() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    ensure_tables(backend.dynamodb(), Clock::new(), "suite", true).await?;
    leases::worker_registry(backend.registry("suite")).await.map_err(|violation| anyhow!(violation))
}

/// Whoever creates a table is the only one to give it its time to live: no answer that is missing in between may lose it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_created_get_their_time_to_live_whatever_fails_in_between() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    let client = backend.dynamodb();
    backend
        .set(
            "/faults",
            "[[fault]]\noperations = ['DescribeTable']\nerrors = { rate = 0.7, with = 'internal' }\n",
        )
        .await?;
    for n in 0..8 {
        let name = format!("suite{n}");
        while ensure_tables(client, Clock::new(), &name, true).await.is_err() {}
        while ensure_table(client, &format!("{name}-events"), true).await.is_err() {}
        for table in [format!("{name}-workers"), format!("{name}-events")] {
            let described = client.describe_time_to_live().table_name(&table).send().await?;
            let status = described.time_to_live_description.and_then(|told| told.time_to_live_status);
            assert_eq!(status, Some(TimeToLiveStatus::Enabled), "{table}");
        }
    }
    Ok(())
}

struct OnDynamoDb {
    client: aws_sdk_dynamodb::Client,
    table: Table,
}

#[async_trait]
impl Subject for OnDynamoDb {
    fn sink(&self, packing_versions: &[u32]) -> Arc<dyn Sink> {
        let options = PackingSinkOptions {
            packing_versions: packing_versions.to_vec(),
            ..PackingSinkOptions::default()
        };
        let pool = Arc::new(BlockingPool::new(2));
        Arc::new(dynamodb_sink(self.client.clone(), self.table.name(), options, pool, 1))
    }

    async fn events(&self, aggregate_key: &str) -> Vec<Event> {
        self.table.events(aggregate_key).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dynamodb_sink_keeps_every_promise() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    let client = backend.dynamodb().clone();
    ensure_table(&client, "suite-events", true).await?;
    run_all(&OnDynamoDb { client, table: backend.table("suite") }).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_letter_table_in_dynamodb_keeps_every_promise() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    let client = backend.dynamodb().clone();
    ensure_letters_table(&client, "suite-dead-letters", true).await?;
    letters::run_all(&DynamoDbDeadLetters::new(client, "suite-dead-letters")).await;
    Ok(())
}
