//! A worker that dies in the middle of a batch, and one of another build that takes over: the announced cut is
//! amended to the packing version that the other makes, and its events replace whatever the first had written.
//!
//! The crash is exact: the first worker runs in this process on a sink whose table takes a part of the first
//! writes and then never answers; dropping the worker's future is what SIGKILL is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use sluicegate_checkpoint::{Cut, ShardId};
use sluicegate_lease::{Clock, WorkerId, dynamodb::ensure_tables};
use sluicegate_sink::dynamodb::{DynamoDbItems, ensure_table};
use sluicegate_sink::item::Item;
use sluicegate_sink::store::{MAX_WRITE_ITEMS, Written};
use sluicegate_sink::{ItemWriter, PackingSink, PackingSinkOptions, StoreError};
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::fleet::{APPLICATION, cuts};
use sluicegate_tests::harness::table::of_cut;
use sluicegate_tests::harness::{Backend, Fleet, LONG, Multiset, flights};
use sluicegate_worker::Worker;
use sluicegate_worker::offload::BlockingPool;
use sluicegate_worker::worker::Settings;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How much of each write reaches the table before the worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaches {
    Nothing,
    Half,
    Everything,
}

/// A table that takes a part of each write and then never answers.
struct NeverAnswers {
    table: DynamoDbItems,
    reaches: Reaches,
    /// Items that were sent and are still on their way.
    under_way: Mutex<Vec<Arc<Item>>>,
    written: Notify,
}

#[async_trait]
impl ItemWriter for NeverAnswers {
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError> {
        let (now, later) = items.split_at(match self.reaches {
            Reaches::Nothing => 0,
            Reaches::Half => items.len() / 2,
            Reaches::Everything => items.len(),
        });
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).extend(later.iter().cloned());
        if !now.is_empty() {
            self.table.write(now).await?;
        }
        self.written.notify_one();
        std::future::pending().await
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        self.table.probe(item).await
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.table.raise_spread(count).await
    }
}

/// What a crash left behind.
struct Crash {
    announced: Vec<(ShardId, Cut)>,
    under_way: Vec<Arc<Item>>,
}

/// Runs a worker of the older build until its first write has reached the table as far as it will, and drops it.
async fn crash_mid_batch(backend: &Backend, reaches: Reaches) -> anyhow::Result<Crash> {
    let table = backend.table(APPLICATION);
    ensure_tables(backend.dynamodb(), Clock::new(), APPLICATION, true).await?;
    ensure_table(backend.dynamodb(), table.name(), true).await?;
    let writer = Arc::new(NeverAnswers {
        table: DynamoDbItems::new(backend.dynamodb().clone(), table.name()),
        reaches,
        under_way: Mutex::default(),
        written: Notify::new(),
    });
    let options = PackingSinkOptions { packing_versions: vec![1], ..PackingSinkOptions::default() };
    let sink =
        PackingSink::new(Arc::<NeverAnswers>::clone(&writer), options, Arc::new(BlockingPool::new(1)), 1);
    let mut settings = Settings { failover_time: Duration::from_secs(2), ..Settings::default() };
    settings.cut.max_age = Duration::from_millis(100);
    let worker = Worker::builder(APPLICATION)
        .worker_id(WorkerId::new("older-build"))
        .settings(settings)
        .stream(backend.stream(STREAM))
        .tables(backend.lease_store(APPLICATION), backend.registry(APPLICATION))
        .sink(Arc::new(sink))
        .build()?;
    let mut running = Box::pin(worker.run(CancellationToken::new()));
    let written = async { tokio::time::timeout(LONG, writer.written.notified()).await };
    tokio::select! { biased;
        ended = &mut running => ended.context("the older worker ended by itself")?,
        written = written => written.context("the older worker delivers nothing")?,
    }
    drop(running);
    let mut announced = Vec::new();
    for row in backend.leases(APPLICATION).await? {
        announced.extend(cuts(&row).into_iter().map(|cut| (row.key.clone(), cut)));
    }
    let under_way = std::mem::take(&mut *writer.under_way.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Crash { announced, under_way })
}

/// A worker of the newer build takes over from a crash; returns what the table then holds.
async fn the_next_version_takes_over(reaches: Reaches) -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let lines = flights(4, 1_500);
    let (before, after) = lines.split_at(1_000);
    backend.publish(before, None).await?;
    let crash = crash_mid_batch(&backend, reaches).await?;
    ensure!(!crash.announced.is_empty(), "the crash left nothing announced");
    for (shard, cut) in &crash.announced {
        ensure!((cut.packing_version, cut.revision) == (1, 0), "{shard}: {cut:?}");
    }
    let table = backend.table(APPLICATION);
    let left = table.headers().await?.len();
    ensure!((left > 0) == (reaches != Reaches::Nothing), "the dead worker left {left} items");
    ensure!(crash.under_way.is_empty() == (reaches == Reaches::Everything));

    let mut fleet = Fleet::new(&backend, &format!("packing-versions-{reaches:?}"))?;
    fleet.start(&["--packing-versions", "2"])?;
    backend.publish(after, None).await?;
    fleet.drained(lines.len()).await?;
    let published: Multiset = lines.iter().cloned().collect();
    published.equals(&table.everything().await?)?;
    let headers = table.headers().await?;
    for (shard, cut) in &crash.announced {
        let amended = of_cut(&headers, shard, cut, 1);
        ensure!(!amended.is_empty(), "the cut of {shard} from {} was not amended", cut.first);
        ensure!(amended.iter().all(|item| item.packing_version == 2), "{amended:?}");
    }
    let versions_of_others = |version| {
        let others = headers.iter().filter(|header| header.sort.revision == 0);
        others.filter(|header| header.packing_version == version).count()
    };
    ensure!(versions_of_others(1) == left, "the older items are neither kept nor added to");
    ensure!(versions_of_others(2) > 0, "new cuts have the newer version");
    fleet.stop().await?;

    // What the dead worker had sent may land at any later time.
    let items = DynamoDbItems::new(backend.dynamodb().clone(), table.name());
    for late in crash.under_way.chunks(MAX_WRITE_ITEMS) {
        items.write(late).await?;
    }
    published.equals(&table.everything().await?)?;
    ensure!(table.overlaps().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_packing_version_takes_over_an_announced_cut_of_which_nothing_is_written()
-> anyhow::Result<()> {
    the_next_version_takes_over(Reaches::Nothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_packing_version_takes_over_a_cut_that_is_half_written() -> anyhow::Result<()> {
    the_next_version_takes_over(Reaches::Half).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_packing_version_takes_over_a_cut_that_is_written_and_not_committed() -> anyhow::Result<()> {
    the_next_version_takes_over(Reaches::Everything).await
}
