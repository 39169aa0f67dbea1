use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rand::SeedableRng;
use sluicegate_checkpoint::{ArrivalMillis, HashKeyRange, LeaseState, Position};
use sluicegate_lease::memory::{MemoryLeaseStore, MemoryRegistry};
use sluicegate_lease::shard_sync::has_begun;
use sluicegate_lease::{FixedStart, StreamIdentity, WorkerId, WorkerRegistry};
use sluicegate_sink::MemorySink;
use tokio::time::Instant;

use super::*;
use crate::stream::{Distributed, Distribution, ReadFrom, RecordPage, ShardCursor, ShardListing};
use crate::watch::Watches;
use crate::worker::Worker;

fn id(n: u32) -> ShardId {
    ShardId::new(format!("shardId-{n:012}"))
}

/// A stream without records, whose shards a test sets, and when it was created.
#[derive(Debug, Clone, Default)]
struct Shards(Arc<Mutex<BTreeMap<ShardId, Shard>>>, Arc<AtomicBool>, Arc<AtomicI64>);

impl Shards {
    fn of(shards: impl IntoIterator<Item = Shard>) -> Self {
        let stream = Self::default();
        for shard in shards {
            stream.add(shard);
        }
        stream
    }

    fn add(&self, shard: Shard) {
        self.locked().insert(shard.id.clone(), shard);
    }

    /// Whether no shard ends, although it is closed.
    fn hold_open(&self, hold: bool) {
        self.1.store(hold, Ordering::Relaxed);
    }

    /// Deletes it and makes it anew under the same name, later.
    fn made_anew(&self, shards: impl IntoIterator<Item = Shard>) {
        *self.locked() = shards.into_iter().map(|shard| (shard.id.clone(), shard)).collect();
        self.2.fetch_add(1, Ordering::Relaxed);
    }

    fn identity(&self) -> StreamIdentity {
        StreamIdentity { name: "stream".to_owned(), created: ArrivalMillis(self.2.load(Ordering::Relaxed)) }
    }

    fn forget(&self, n: u32) {
        self.locked().remove(&id(n));
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<ShardId, Shard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shard(n: u32, parents: &[u32], closed: bool, range: (u128, u128)) -> Shard {
    Shard {
        id: id(n),
        parents: parents.iter().map(|n| id(*n)).collect(),
        hash_range: HashKeyRange { start: range.0, end: range.1 },
        closed,
    }
}

const ALL: (u128, u128) = (0, u128::MAX);
const LEFT: (u128, u128) = (0, u128::MAX / 2);
const RIGHT: (u128, u128) = (u128::MAX / 2 + 1, u128::MAX);

#[async_trait]
impl StreamReader for Shards {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        let shards = self.locked().values().cloned().collect();
        let (stream, retention) = (self.identity(), Duration::from_secs(86_400));
        Ok(ShardListing { shards, server_time: crate::telemetry::wall_millis(), stream, retention })
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        Ok(Distributed { by: Distribution::UserPartitionKey, as_of: crate::telemetry::wall_millis() })
    }

    fn open(&self, shard: &ShardId, _from: ReadFrom) -> Box<dyn ShardCursor> {
        Box::new(Empty(self.clone(), shard.clone()))
    }
}

struct Empty(Shards, ShardId);

#[async_trait]
impl ShardCursor for Empty {
    async fn next_page(&mut self, _limit: u32) -> Result<RecordPage, StreamError> {
        let shards = self.0.locked();
        let gone = || StreamError::Gone { what: "it is not there".to_owned() };
        let shard = shards.get(&self.1).ok_or_else(gone)?;
        let children = || shards.values().filter(|child| child.parents.contains(&self.1)).cloned().collect();
        let held_open = self.0.1.load(Ordering::Relaxed);
        let end = (shard.closed && !held_open).then(children);
        Ok(RecordPage { as_of: crate::telemetry::wall_millis(), end, ..RecordPage::default() })
    }
}

/// A sync over a stream and a table.
fn sync_of(stream: &Shards, store: &Arc<MemoryLeaseStore>) -> ShardSync {
    ShardSync {
        me: WorkerId::new("w"),
        stream: Arc::new(stream.clone()),
        store: Arc::<MemoryLeaseStore>::clone(store),
        start: RecordedStart { at: FixedStart::TrimHorizon, stream: Some(stream.identity()) },
        nudged: Nudges::default(),
        listed: watch::Sender::default(),
        wanted: ListingWanted::default(),
        view: watch::channel(None).1,
        sessions: Sessions::default(),
        metrics: Metrics::new().unwrap(),
        found: Mutex::default(),
    }
}

async fn keys(store: &MemoryLeaseStore) -> Vec<ShardId> {
    store.leases().await.unwrap().into_iter().map(|row| row.key).collect()
}

fn finished(row: &Lease) -> Lease {
    row.progressed(Position::ShardEnd, LeaseState::starting(None))
}

fn count(metrics: &Metrics, name: &str) -> u64 {
    let text = String::from_utf8(metrics.text().unwrap()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("sluicegate_{name} ")));
    line.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn the_row_of_a_finished_parent_goes_when_its_child_has_begun_and_does_not_come_back() {
    let stream = Shards::of([shard(0, &[], true, ALL), shard(1, &[0], false, ALL)]);
    let store = Arc::new(MemoryLeaseStore::default());
    let sync = sync_of(&stream, &store);
    sync.sync().await.unwrap();
    assert_eq!(keys(&store).await, [id(0), id(1)]);
    let rows = store.leases().await.unwrap();
    store.replace(&rows[0], &finished(&rows[0])).await.unwrap();
    let old_listing = Shards::of(stream.locked().values().cloned());
    stream.forget(0);
    for _ in 0..3 {
        sync.sync().await.unwrap();
    }
    assert_eq!(keys(&store).await, [id(0), id(1)], "the child has not begun");
    store.replace(&rows[1], &finished(&rows[1])).await.unwrap();
    sync.sync().await.unwrap();
    assert_eq!(keys(&store).await, [id(1)]);
    // A worker whose listing is from before.
    sync_of(&old_listing, &store).sync().await.unwrap();
    assert_eq!(keys(&store).await, [id(1)]);
    assert_eq!(count(&sync.metrics, "shards_lost_total"), 0);
}

#[tokio::test]
async fn a_stream_made_anew_costs_no_row() {
    let stream = Shards::of([shard(0, &[], false, LEFT), shard(1, &[], false, RIGHT)]);
    let store = Arc::new(MemoryLeaseStore::default());
    let sync = sync_of(&stream, &store);
    sync.sync().await.unwrap();
    let before = store.leases().await.unwrap();
    stream.made_anew([shard(0, &[], false, ALL), shard(7, &[0], false, ALL)]);
    for _ in 0..3 {
        let refused = sync.sync().await;
        assert!(matches!(refused, Err(SyncError::AnotherStream(_))), "{refused:?}");
    }
    assert!(matches!(sync.create(&before[0], Vec::new()).await, Err(SyncError::AnotherStream(_))));
    assert_eq!(store.leases().await.unwrap(), before);
}

#[tokio::test]
async fn a_start_that_records_no_stream_is_taken_as_it_is() {
    let stream = Shards::of([shard(0, &[], false, ALL)]);
    let store = Arc::new(MemoryLeaseStore::default());
    let mut sync = sync_of(&stream, &store);
    sync.start.stream = None;
    stream.made_anew([shard(0, &[], false, LEFT), shard(1, &[], false, RIGHT)]);
    sync.sync().await.unwrap();
    assert_eq!(keys(&store).await, [id(0), id(1)]);
}

/// A table whose scan is from before; single rows are read as they are.
struct OldScan(Arc<MemoryLeaseStore>, Vec<Lease>);

#[async_trait]
impl LeaseStore for OldScan {
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        Ok(self.1.clone())
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        self.0.lease(key).await
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        self.0.create(lease).await
    }

    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError> {
        self.0.replace(expected, next).await
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        self.0.delete(expected).await
    }
}

#[tokio::test]
async fn what_began_since_the_scan_keeps_its_ancestors_rows_from_being_made() {
    let stream =
        Shards::of([shard(0, &[], true, ALL), shard(1, &[0], true, ALL), shard(2, &[1], false, ALL)]);
    let store = Arc::new(MemoryLeaseStore::default());
    let child = Lease::unowned(id(2), Position::TrimHorizon, LeaseState::starting(None));
    store.create(&finished(&child)).await.unwrap();
    let mut sync = sync_of(&stream, &store);
    sync.store = Arc::new(OldScan(Arc::clone(&store), vec![child]));
    sync.sync().await.unwrap();
    assert_eq!(keys(&store).await, [id(2)]);
}

#[tokio::test]
async fn a_row_that_is_made_again_is_counted() {
    let stream = Shards::of([shard(0, &[], false, LEFT), shard(1, &[], false, RIGHT)]);
    let store = Arc::new(MemoryLeaseStore::default());
    let sync = sync_of(&stream, &store);
    sync.sync().await.unwrap();
    assert_eq!(count(&sync.metrics, "lease_rows_made_again_total"), 0);
    let row = store.lease(&id(1)).await.unwrap().unwrap();
    store.delete(&row).await.unwrap();
    sync.sync().await.unwrap();
    assert_eq!(keys(&store).await, [id(0), id(1)]);
    assert_eq!(count(&sync.metrics, "lease_rows_made_again_total"), 1);
}

/// Runs a worker on a paused clock; it is dropped, as by a crash, with what this returns.
struct Running {
    store: Arc<MemoryLeaseStore>,
    metrics: Metrics,
    worker: std::pin::Pin<Box<dyn Future<Output = Result<(), crate::WorkerError>>>>,
}

impl Running {
    fn start(stream: &Shards) -> Self {
        let store = Arc::new(MemoryLeaseStore::default());
        let registry: Arc<dyn WorkerRegistry> = Arc::new(MemoryRegistry::default());
        let metrics = Metrics::new().unwrap();
        let worker = Worker::builder("test")
            .worker_id(WorkerId::new("w"))
            .stream(stream.clone())
            .tables(Arc::<MemoryLeaseStore>::clone(&store), registry)
            .sink(Arc::new(MemorySink::default()))
            .metrics(metrics.clone())
            .seed(1)
            .build()
            .unwrap();
        Self { store, metrics, worker: Box::pin(worker.run(CancellationToken::new())) }
    }

    /// Runs until something is true of the rows; returns how long it took.
    async fn until(&mut self, what: impl Fn(&BTreeMap<ShardId, Lease>) -> bool) -> Duration {
        let begun = Instant::now();
        loop {
            tokio::select! { biased;
                ended = &mut self.worker => panic!("the worker ended: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
            let rows = self.store.leases().await.unwrap();
            if what(&rows.into_iter().map(|row| (row.key.clone(), row)).collect()) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < Duration::from_secs(600), "it never came true");
        }
    }
}

fn owned(rows: &BTreeMap<ShardId, Lease>, n: u32) -> bool {
    rows.get(&id(n)).is_some_and(|row| row.owner.is_some())
}

#[tokio::test(start_paused = true)]
async fn a_row_deleted_by_hand_is_back_within_half_a_minute() {
    let stream = Shards::of([shard(0, &[], false, LEFT), shard(1, &[], false, RIGHT)]);
    let mut running = Running::start(&stream);
    running.until(|rows| owned(rows, 0) && owned(rows, 1)).await;
    // At any moment between two syncs.
    for _ in 0..5 {
        running.until(|_| true).await;
        let row = running.store.lease(&id(1)).await.unwrap().unwrap();
        let deleted = running.store.delete(&row).await.unwrap();
        assert_eq!(deleted, Written::Applied(()));
        let took = running.until(|rows| owned(rows, 1)).await;
        assert!(took < Duration::from_secs(30), "{took:?}");
        let state = running.store.lease(&id(1)).await.unwrap().unwrap().pending.state().unwrap();
        assert!(state.epoch > 0, "what is stored under it stands beside what was stored before");
    }
    assert!(count(&running.metrics, "lease_rows_made_again_total") >= 5);
}

#[tokio::test(start_paused = true)]
async fn a_parents_row_deleted_by_hand_is_made_again_before_its_child_is_read() {
    let stream = Shards::of([shard(0, &[], true, ALL), shard(1, &[0], false, ALL)]);
    stream.hold_open(true);
    let mut running = Running::start(&stream);
    running.until(|rows| owned(rows, 0)).await;
    let row = running.store.lease(&id(0)).await.unwrap().unwrap();
    running.store.delete(&row).await.unwrap();
    let took = running.until(|rows| owned(rows, 0)).await;
    assert!(took < Duration::from_secs(30), "{took:?}");
    let child = running.store.lease(&id(1)).await.unwrap().unwrap();
    assert!(!has_begun(&child), "it is not read");
    stream.hold_open(false);
    running.until(|rows| rows[&id(0)].is_finished() && owned(rows, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_not_found_is_not_finished_and_goes_only_when_two_listings_lack_it() {
    let stream = Shards::of([shard(0, &[], false, ALL)]);
    let mut running = Running::start(&stream);
    running.until(|rows| owned(rows, 0)).await;
    stream.add(shard(1, &[0], false, ALL));
    running.until(|rows| rows.contains_key(&id(1))).await;
    stream.forget(0);
    running.until(|rows| !rows.contains_key(&id(0))).await;
    assert_eq!(count(&running.metrics, "shards_lost_total"), 1);
    running.until(|rows| owned(rows, 1)).await;
    let child = running.store.lease(&id(1)).await.unwrap().unwrap();
    assert_eq!(child.checkpoint, Position::TrimHorizon, "its parent blocks nobody");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_not_found_for_a_while_keeps_its_row() {
    let stream = Shards::of([shard(0, &[], false, ALL)]);
    let mut running = Running::start(&stream);
    running.until(|rows| owned(rows, 0)).await;
    stream.forget(0);
    // One listing at most lacks it.
    let mut seen = running.metrics.clone();
    running.until(|_| count(&seen, "sessions_total{outcome=\"failed\"}") > 0).await;
    stream.add(shard(0, &[], false, ALL));
    seen = running.metrics.clone();
    for _ in 0..1_000 {
        running.until(|_| true).await;
    }
    assert_eq!(count(&seen, "shards_lost_total"), 0);
    let row = running.store.lease(&id(0)).await.unwrap().unwrap();
    assert!(row.owner.is_some() && row.checkpoint == Position::TrimHorizon);
}

#[tokio::test(start_paused = true)]
async fn the_loop_answers_a_wish_soon_and_stops() {
    let stream = Shards::of([shard(0, &[], false, ALL)]);
    let store = Arc::new(MemoryLeaseStore::default());
    let sync = Arc::new(sync_of(&stream, &store));
    let stop = CancellationToken::new();
    let stamp = Watches::new(Clock::new()).watch("shard sync", SYNC_INTERVAL);
    let run = Arc::clone(&sync).run(Clock::new(), SmallRng::seed_from_u64(1), stamp, stop.clone());
    let ask = async {
        sync.wanted.ask();
        tokio::time::sleep(Duration::from_secs(4)).await;
        stop.cancel();
    };
    tokio::join!(run, ask);
    assert_eq!(keys(&store).await, [id(0)]);
}

/// A lease table that takes as long for each new row as a call may, and a stream that no longer answers when it is told.
#[derive(Clone)]
struct Slow {
    clock: Clock,
    rows: Arc<MemoryLeaseStore>,
    shards: Shards,
    mute: Arc<AtomicBool>,
}

#[async_trait]
impl LeaseStore for Slow {
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        self.rows.leases().await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        self.rows.lease(key).await
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        self.clock.sleep(Duration::from_secs(10)).await;
        self.rows.create(lease).await
    }

    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError> {
        self.rows.replace(expected, next).await
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        self.rows.delete(expected).await
    }
}

#[async_trait]
impl StreamReader for Slow {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        if self.mute.load(Ordering::Relaxed) {
            std::future::pending().await
        }
        self.shards.shards().await
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        self.shards.distribution().await
    }

    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
        self.shards.open(shard, from)
    }
}

/// Probes ask for that: many rows that are made slowly are no loop that is stuck, nor is one that waits for its turn, which
/// takes minutes where there are thousands of shards.
#[tokio::test(start_paused = true)]
async fn a_sync_of_many_slow_steps_is_alive_and_one_that_never_ends_is_not() {
    let clock = Clock::new();
    let slow = Slow {
        clock: clock.clone(),
        rows: Arc::default(),
        shards: Shards::of((0..5_000).map(|n| shard(n, &[], false, ALL))),
        mute: Arc::default(),
    };
    let sync = sync_of(&slow.shards, &slow.rows);
    let sync = Arc::new(ShardSync { stream: Arc::new(slow.clone()), store: Arc::new(slow.clone()), ..sync });
    let watches = Watches::new(clock.clone());
    let stamp = watches.watch("shard sync", SYNC_INTERVAL);
    let stop = CancellationToken::new();
    let run = Arc::clone(&sync).run(clock.clone(), SmallRng::seed_from_u64(1), stamp, stop.clone());
    let look = async {
        for second in 0..7_200 {
            assert_eq!(watches.stuck(), [], "after {second} s");
            clock.sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(keys(&slow.rows).await.len(), 5_000);
        slow.mute.store(true, Ordering::Relaxed);
        clock.sleep(SYNC_INTERVAL * 10).await;
        assert_eq!(watches.stuck()[0].0, "shard sync");
    };
    tokio::select! { biased;
        () = run => panic!("it ended"),
        () = look => {}
    }
    assert_eq!(watches.stuck(), [], "what has ended is not stuck");
}
