//! Wires a worker together; with `commands`, the only file that names adapters.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use sluicegate_checkpoint::ArrivalMillis;
use sluicegate_lease::dynamodb::{DynamoLeaseStore, DynamoRegistry, ensure_tables, worker_table_name};
use sluicegate_lease::{Clock, LeaseStore, WorkerRegistry};
use sluicegate_sink::dynamodb::{
    DynamoDbDeadLetters, DynamoDbItems, dynamodb_sink, ensure_letters_table, ensure_table,
};
use sluicegate_sink::governor::pace::PaceOptions;
use sluicegate_sink::{
    CapacitySource, DeadLetters, Governor, Offload, PackingSink, PackingSinkOptions, Reader, Sink, StdoutSink,
};
use sluicegate_worker::kinesis::KinesisStream;
use sluicegate_worker::nudge::HttpNudge;
use sluicegate_worker::offload::BlockingPool;
use sluicegate_worker::worker::unique_id;
use sluicegate_worker::{Config, Metrics, StreamReader, TableCheck, TablesUnfit, Worker};

use crate::aws::Aws;

/// Where batches go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SinkKind {
    /// Compressed items in a DynamoDB table.
    Dynamodb,
    /// Events as lines on standard output, at least once.
    Stdout,
}

/// What a worker is told beside its configuration.
#[derive(Debug, Clone)]
pub(crate) struct WorkerArgs {
    pub(crate) stream: String,
    pub(crate) application: String,
    pub(crate) table: String,
    pub(crate) dead_letters: String,
    pub(crate) sink: SinkKind,
    pub(crate) admin: SocketAddr,
    pub(crate) advertise: Option<String>,
    pub(crate) create_tables: bool,
    pub(crate) packing_versions: Option<Vec<u32>>,
}

/// The analytics table of an application, unless another is named.
pub(crate) fn default_table(application: &str) -> String {
    format!("{application}-events")
}

/// The dead-letter table of an application, unless another is named.
pub(crate) fn default_dead_letters(application: &str) -> String {
    format!("{application}-dead-letters")
}

/// The tables of a worker, to be looked at before it begins.
struct WorkerTables {
    clock: Clock,
    leases: aws_sdk_dynamodb::Client,
    /// Of the sink, if it writes to a table: that, and the one of dead letters.
    analytics: Option<aws_sdk_dynamodb::Client>,
    args: WorkerArgs,
}

#[async_trait]
impl TableCheck for WorkerTables {
    async fn check(&self) -> Result<(), TablesUnfit> {
        let args = &self.args;
        ensure_tables(&self.leases, self.clock.clone(), &args.application, args.create_tables)
            .await
            .map_err(|error| TablesUnfit::new(error.retry(), error))?;
        let Some(client) = &self.analytics else { return Ok(()) };
        let unfit = |error: sluicegate_sink::dynamodb::TableError| TablesUnfit::new(error.retry(), error);
        ensure_table(client, &args.table, args.create_tables).await.map_err(unfit)?;
        ensure_letters_table(client, &args.dead_letters, args.create_tables).await.map_err(unfit)
    }
}

/// Puts a worker together; it looks at its tables, or creates them, once it runs.
pub(crate) async fn worker(aws: &Aws, config: &Config, args: WorkerArgs) -> anyhow::Result<Worker> {
    let clock = Clock::new();
    let seed = config.seed.unwrap_or_else(|| SmallRng::from_os_rng().next_u64());
    tracing::info!(seed, "jitter is seeded");
    let metrics = Metrics::new().context("metrics")?;
    let leases = aws.dynamodb_for("lease", &metrics);
    let governor = Arc::new(Governor::new(PaceOptions::default()));
    let analytics = aws.dynamodb_for("analytics", &metrics);
    let analytics = (args.sink == SinkKind::Dynamodb).then_some(analytics);
    let sink = sink(analytics.clone(), &args, seed, Arc::clone(&governor));
    let workers_table = worker_table_name(&args.application);
    let workers = aws.dynamodb_for("worker", &metrics);
    let registry = Arc::new(DynamoRegistry::new(workers, &workers_table, &args.application));
    let store = Arc::new(DynamoLeaseStore::new(leases.clone(), &args.application));
    let admin = sluicegate_worker::admin::bind(args.admin)
        .await
        .with_context(|| format!("cannot listen on {}: choose another --admin address", args.admin))?;
    tracing::info!(address = %admin.local_addr()?, "admin server listens");
    let beats = DynamoRegistry::new(
        aws.dynamodb_alone(config.settings.failover_time / 6, "worker", &metrics),
        &workers_table,
        &args.application,
    );
    let letters = DynamoDbDeadLetters::new(aws.dynamodb_for("dead-letter", &metrics), &args.dead_letters);
    let capacity = analytics
        .clone()
        .map(|client| Arc::new(DynamoDbItems::new(client, &args.table)) as Arc<dyn CapacitySource>);
    let tables = WorkerTables { clock: clock.clone(), leases, analytics, args: args.clone() };
    let mut worker = Worker::builder(&args.application)
        .worker_id(unique_id(&hostname()))
        .settings(config.settings.clone())
        .stream(KinesisStream::new(aws.kinesis(), &args.stream))
        .tables(store, registry)
        .table_check(Arc::new(tables))
        .heartbeat_thread(Box::new(move || Arc::new(beats) as Arc<dyn WorkerRegistry>))
        .nudge(HttpNudge::new(config.admin_token.as_ref()))
        .sink(sink)
        .governor(governor)
        .dead_letters(Arc::new(letters))
        .metrics(metrics)
        .admin(admin)
        .advertise(args.advertise)
        .admin_token(config.admin_token.clone())
        .clock(clock)
        .seed(seed);
    if let Some(capacity) = capacity {
        worker = worker.capacity(capacity);
    }
    Ok(worker.build()?)
}

/// Writes to the analytics table by this client, or to standard output without one.
fn sink(
    client: Option<aws_sdk_dynamodb::Client>,
    args: &WorkerArgs,
    seed: u64,
    governor: Arc<Governor>,
) -> Arc<dyn Sink> {
    let Some(client) = client else { return Arc::new(StdoutSink::new(std::io::stdout())) };
    // Two requests of 2 MiB under way fill any link; each more would cost 5 MB of memory.
    let mut options = PackingSinkOptions { requests_in_flight: 2, ..PackingSinkOptions::default() };
    if let Some(versions) = &args.packing_versions {
        options.packing_versions.clone_from(versions);
    }
    let pool: Arc<dyn Offload> = Arc::new(BlockingPool::new(packing_threads()));
    Arc::new(dynamodb_sink(client, &args.table, options, pool, seed).governed_by(governor))
}

/// The lease table and the worker table of an application, which must be there.
pub(crate) fn tables(aws: &Aws, application: &str) -> (Arc<dyn LeaseStore>, Arc<dyn WorkerRegistry>) {
    let client = aws.dynamodb();
    let registry = DynamoRegistry::new(client.clone(), worker_table_name(application), application);
    (Arc::new(DynamoLeaseStore::new(client, application)), Arc::new(registry))
}

/// A stream's own time.
pub(crate) async fn stream_time(aws: &Aws, stream: &str) -> anyhow::Result<ArrivalMillis> {
    Ok(KinesisStream::new(aws.kinesis(), stream).shards().await?.server_time)
}

/// A reader of an analytics table.
pub(crate) fn reader(aws: &Aws, table: &str) -> Reader {
    Reader::new(Arc::new(DynamoDbItems::new(aws.dynamodb(), table)), SmallRng::from_os_rng().next_u64())
}

/// The dead letters of an application.
pub(crate) fn dead_letters(aws: &Aws, table: &str) -> Arc<dyn DeadLetters> {
    Arc::new(DynamoDbDeadLetters::new(aws.dynamodb(), table))
}

/// A sink for single events that are redriven.
pub(crate) fn redriving_sink(aws: &Aws, table: &str) -> PackingSink {
    let pool: Arc<dyn Offload> = Arc::new(BlockingPool::new(1));
    let seed = SmallRng::from_os_rng().next_u64();
    dynamodb_sink(aws.dynamodb(), table, PackingSinkOptions::default(), pool, seed)
}

/// One for each processor: packing is pure computation.
fn packing_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// The machine's name, for people who look at the worker table.
fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "worker".to_owned() } else { name }
}
