//! A fleet of real workers on a stream that carries nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use sluicegate_checkpoint::{
    ArrivalMillis, HashKeyRange, LeaseState, Position, SequenceNumber, ShardId, SubSequenceNumber,
};
use sluicegate_lease::nudge::LocalNudge;
use sluicegate_lease::{Lease, LeaseStore, Shard, StreamIdentity, Throughput, WorkerId};
use sluicegate_sink::MemorySink;
use sluicegate_worker::worker::Settings;
use sluicegate_worker::{
    Distributed, Distribution, ReadFrom, RecordPage, ShardCursor, ShardListing, StreamError, StreamReader,
    Worker, WorkerError,
};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Size;
use super::count::{CountedTables, FLEET, Units};

#[expect(clippy::disallowed_types, reason = "the measurement owns the workers it kills")]
type Tasks = tokio::task::JoinSet<Result<(), WorkerError>>;

/// Epoch milliseconds at which the measurement begins.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// A stream whose shards were all read to their tip.
#[derive(Debug, Clone)]
struct QuietStream {
    shards: Arc<Vec<Shard>>,
    begun: Instant,
}

impl QuietStream {
    fn new(shards: u32) -> Self {
        let width = u128::MAX / u128::from(shards);
        let shard = |n: u32| Shard {
            id: ShardId::new(format!("shardId-{n:012}")),
            parents: [].into(),
            hash_range: HashKeyRange {
                start: width * u128::from(n),
                end: if n + 1 == shards { u128::MAX } else { width * u128::from(n + 1) - 1 },
            },
            closed: false,
        };
        Self { shards: Arc::new((0..shards).map(shard).collect()), begun: Instant::now() }
    }

    fn now(&self) -> ArrivalMillis {
        ArrivalMillis(BEGIN_MS + i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// A row as a worker leaves it that has read the shard for a while.
    fn row(&self, shard: &Shard, carries: Throughput) -> anyhow::Result<Lease> {
        let read = SequenceNumber::parse("49".repeat(28))?;
        let mut state = LeaseState::starting(None);
        state.checkpoint_arrival = Some(self.now());
        state.caught_up = Some(self.now());
        let row = Lease::unowned(shard.id.clone(), Position::At(read, SubSequenceNumber(0)), state);
        Ok(Lease { hash_range: Some(shard.hash_range), throughput: Some(carries), ..row })
    }
}

#[async_trait]
impl StreamReader for QuietStream {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        Ok(ShardListing {
            shards: self.shards.to_vec(),
            server_time: self.now(),
            stream: StreamIdentity { name: "quiet".to_owned(), created: ArrivalMillis(0) },
            retention: Duration::from_secs(24 * 3_600),
        })
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        Ok(Distributed { by: Distribution::UserPartitionKey, as_of: self.now() })
    }

    fn open(&self, _shard: &ShardId, _from: ReadFrom) -> Box<dyn ShardCursor> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl ShardCursor for QuietStream {
    async fn next_page(&mut self, _limit: u32) -> Result<RecordPage, StreamError> {
        Ok(RecordPage { as_of: self.now(), ..RecordPage::default() })
    }
}

/// The running fleet.
#[derive(Debug)]
pub struct QuietFleet {
    size: Size,
    tables: Arc<CountedTables>,
    workers: BTreeMap<WorkerId, AbortHandle>,
    tasks: Tasks,
}

impl QuietFleet {
    /// Starts all workers at once, on a table that is there already.
    ///
    /// # Errors
    /// A worker cannot be put together.
    pub async fn start(size: Size) -> anyhow::Result<Self> {
        let settings = Settings::default();
        Self::start_with(size, settings, |_| Throughput::from_kilobytes(1)).await
    }

    /// The same with other settings, and rows that say what each shard has carried.
    ///
    /// # Errors
    /// A worker cannot be put together.
    pub async fn start_with(
        size: Size,
        mut settings: Settings,
        carried: impl Fn(usize) -> Throughput,
    ) -> anyhow::Result<Self> {
        let (stream, tables) = (QuietStream::new(size.shards), Arc::new(CountedTables::default()));
        for (n, shard) in stream.shards.iter().enumerate() {
            tables.create(&stream.row(shard, carried(n))?).await?;
        }
        // How often shards are read costs no table anything, only the measurement its time.
        settings.read.idle_interval = Duration::from_secs(10);
        let nudge = Arc::new(LocalNudge::default());
        let (mut tasks, mut workers) = (Tasks::new(), BTreeMap::new());
        for n in 0..size.workers {
            // As long as the ids of pods: a host name and a UUID.
            let id = WorkerId::new(format!("sluicegate-7d9c5b8f4-{n:05}-550e8400e29b41d4a716446655440000"));
            let worker = Worker::builder(FLEET)
                .worker_id(id.clone())
                .settings(settings.clone())
                .stream(stream.clone())
                .tables(Arc::<CountedTables>::clone(&tables), Arc::<CountedTables>::clone(&tables))
                .sink(Arc::new(MemorySink::default()))
                .nudge(Arc::<LocalNudge>::clone(&nudge))
                .nudged_by(nudge.register(id.clone()))
                .epoch_seconds(Arc::new(|| BEGIN_MS / 1_000))
                .seed(u64::from(n))
                .build()?;
            workers.insert(id, tasks.spawn(worker.run(CancellationToken::new())));
        }
        Ok(Self { size, tables, workers, tasks })
    }

    /// What was counted so far.
    pub fn units(&self) -> Units<u64> {
        self.tables.units()
    }

    /// Leases and kilobytes a second of each worker.
    ///
    /// # Errors
    /// There are none.
    pub async fn loads(&self) -> anyhow::Result<BTreeMap<Option<WorkerId>, (usize, u64)>> {
        let mut loads: BTreeMap<Option<WorkerId>, (usize, u64)> = BTreeMap::new();
        for row in self.tables.all_rows().await? {
            let load = loads.entry(row.owner).or_default();
            load.0 += 1;
            load.1 += row.throughput.map_or(0, Throughput::micros) / 1_000_000;
        }
        Ok(loads)
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// A worker ends.
    pub async fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = tokio::time::sleep(time);
        tokio::pin!(until);
        loop {
            tokio::select! { biased;
                () = &mut until => return Ok(()),
                Some(ended) = self.tasks.join_next() => match ended {
                    Err(killed) if killed.is_cancelled() => {}
                    ended => bail!("a worker ended: {ended:?}"),
                },
            }
        }
    }

    /// That every lease is held, by workers within one of each other.
    ///
    /// # Errors
    /// It is not so.
    pub async fn check_balance(&self) -> anyhow::Result<()> {
        let rows = self.tables.all_rows().await?;
        let mut held: BTreeMap<&WorkerId, u32> = self.workers.keys().map(|id| (id, 0)).collect();
        for row in &rows {
            let owner = row.owner.as_ref().and_then(|owner| held.get_mut(owner));
            *owner.with_context(|| format!("{} belongs to {:?}", row.key, row.owner))? += 1;
        }
        let (least, most) = (held.values().min(), held.values().max());
        match (least, most) {
            (Some(least), Some(most)) if most - least <= 1 && !rows.is_empty() => Ok(()),
            _ => bail!("{} leases are out of balance: {held:?}", self.size.shards),
        }
    }

    /// Kills a worker, and waits until others have all its leases. Returns how long that took.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn kill_one(&mut self) -> anyhow::Result<Duration> {
        let (id, handle) = self.workers.pop_first().context("there is nobody to kill")?;
        handle.abort();
        let killed = Instant::now();
        let dead = |row: &Lease| row.owner.as_ref() == Some(&id);
        while self.tables.all_rows().await?.iter().any(dead) {
            if killed.elapsed() > Duration::from_secs(120) {
                bail!("leases of a dead worker were not taken");
            }
            self.pass(Duration::from_millis(50)).await?;
        }
        Ok(killed.elapsed())
    }
}
