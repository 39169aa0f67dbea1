use rand::SeedableRng;
use sluicegate_checkpoint::{ArrivalMillis, PackingParameters, ShardId};
use sluicegate_lease::memory::MemoryLeaseStore;
use sluicegate_lease::nudge::Nudges;
use sluicegate_lease::{FixedStart, HeartbeatRight, Lease, LeaseStore, ListingWanted, Sessions, Written};
use sluicegate_sink::MemorySink;
use tokio::sync::watch;

use super::*;
use crate::consumer::batcher::CutPolicy;
use crate::memory::MemoryStream;
use crate::metrics::Metrics;
use crate::shard_sync::ShardSync;

const SHARD: &str = "shardId-000000000000";

/// A consumer of a stream with one event, and what it works on.
async fn consumer(right: &Arc<HeartbeatRight>) -> (Consumer, Arc<MemoryLeaseStore>, mpsc::Sender<Drain>) {
    consumer_from(right, Position::TrimHorizon, FixedStart::TrimHorizon).await
}

/// The same, of a row with this checkpoint and an application with this start.
async fn consumer_from(
    right: &Arc<HeartbeatRight>,
    checkpoint: Position,
    start: FixedStart,
) -> (Consumer, Arc<MemoryLeaseStore>, mpsc::Sender<Drain>) {
    let (stream, store) = (MemoryStream::new(1), Arc::new(MemoryLeaseStore::default()));
    stream.put("k", "event");
    let free = Lease::unowned(ShardId::new(SHARD), checkpoint, LeaseState::starting(None));
    store.create(&free).await.unwrap();
    let taken = store.replace(&free, &free.taken_by(&WorkerId::new("me"))).await.unwrap();
    let Written::Applied(row) = taken else { panic!("the row is free") };
    let shared: Arc<dyn LeaseStore> = Arc::<MemoryLeaseStore>::clone(&store);
    let stream: Arc<dyn StreamReader> = Arc::new(stream);
    let (requester, requests) = mpsc::channel(1);
    let rng = SmallRng::seed_from_u64(1);
    let children = ShardSync {
        me: WorkerId::new("me"),
        stream: Arc::clone(&stream),
        store: Arc::clone(&shared),
        start: FixedStart::TrimHorizon,
        nudged: Nudges::default(),
        listed: watch::Sender::default(),
        wanted: ListingWanted::default(),
        view: watch::channel(None).1,
        sessions: Sessions::default(),
        metrics: Metrics::new().unwrap(),
        found: std::sync::Mutex::default(),
    };
    let second = Duration::from_secs(1);
    let consumer = Consumer {
        held: HeldLease::new(shared, Clock::new(), row, rng.clone()),
        stream,
        sink: Arc::new(MemorySink::default()),
        right: right.session(),
        clock: Clock::new(),
        budget: ByteBudget::new(1 << 20),
        policy: SessionPolicy {
            cut: CutPolicy { max_bytes: 1 << 20, max_records: 10, max_age: second, max_span: 60 * second },
            max_in_flight: 2,
            commit_delay: second,
            parameters: Arc::new(PackingParameters::default()),
            packing_versions: vec![1],
            accept_gap: false,
            retention: None,
            parents_covered: None,
        },
        start,
        read: ReadPolicy { min_interval: second / 5, idle_interval: second, page_bytes: 1 << 16 },
        metrics: Metrics::new().unwrap().shard(&ShardId::new(SHARD)),
        since: None,
        children: Arc::new(children),
        requests,
        rng,
    };
    (consumer, store, requester)
}

async fn row(store: &MemoryLeaseStore) -> Lease {
    store.lease(&ShardId::new(SHARD)).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn without_the_right_nothing_is_started() {
    let right = Arc::new(HeartbeatRight::new(Clock::new(), Duration::from_secs(9)));
    let (consumer, store, _requester) = consumer(&right).await;
    let before = row(&store).await;
    let run = consumer.run(CancellationToken::new());
    let ended = tokio::time::timeout(Duration::from_secs(60), run).await;
    assert!(matches!(ended, Ok(Ended::Interrupted)), "{ended:?}");
    assert_eq!(row(&store).await, before, "the row was not written");
}

#[tokio::test(start_paused = true)]
async fn a_right_that_lapses_ends_the_session_although_the_lease_is_still_its_own() {
    let clock = Clock::new();
    let right = Arc::new(HeartbeatRight::new(clock.clone(), Duration::from_secs(9)));
    right.confirm(clock.now());
    let (consumer, store, _requester) = consumer(&right).await;
    let begun = clock.now();
    let run = consumer.run(CancellationToken::new());
    let ended = tokio::time::timeout(Duration::from_secs(60), run).await;
    assert!(matches!(ended, Ok(Ended::Interrupted)), "{ended:?}");
    let lasted = clock.now() - begun;
    assert!(lasted >= Duration::from_secs(9) && lasted <= Duration::from_secs(10), "{lasted:?}");
    assert_eq!(row(&store).await.checkpoint.to_string(), "1", "what came before the lapse is committed");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_kcl_left_open_is_closed_by_one_write_before_anything_is_read() {
    let clock = Clock::new();
    let right = Arc::new(HeartbeatRight::new(clock.clone(), Duration::from_secs(9)));
    right.confirm(clock.now());
    // From a time to come: nothing of the stream is behind it, so nothing but the start is written.
    let start = FixedStart::AtTimestamp(ArrivalMillis(i64::MAX / 2));
    let (consumer, store, _requester) = consumer_from(&right, Position::Latest, start).await;
    let taken = row(&store).await;
    let run = consumer.run(CancellationToken::new());
    tokio::time::timeout(Duration::from_secs(3), run).await.unwrap_err();
    let fixed = row(&store).await;
    assert_eq!((fixed.checkpoint, fixed.counter), (Position::AtTimestamp, taken.counter.next()));
    assert_eq!(fixed.pending.state().unwrap().start, start.time());
    assert_eq!(store.broken_laws(), []);

    // Somebody else's write in between ends the session before it has read anything.
    let (consumer, store, _requester) = consumer_from(&right, Position::Latest, start).await;
    let taken = row(&store).await;
    store.replace_unfaulted(&taken, &taken.taken_by(&WorkerId::new("other")));
    let ended = consumer.run(CancellationToken::new()).await;
    assert!(matches!(ended, Ended::Lost), "{ended:?}");
    assert_eq!(row(&store).await.checkpoint, Position::Latest);
}

#[tokio::test(start_paused = true)]
async fn draining_stores_what_is_open_and_frees_the_lease() {
    let clock = Clock::new();
    let right = Arc::new(HeartbeatRight::new(clock.clone(), Duration::from_secs(9)));
    right.confirm(clock.now());
    let (consumer, store, requester) = consumer(&right).await;
    let drain = async {
        clock.sleep(Duration::from_millis(500)).await;
        requester.send(Drain { to: None, within: Duration::from_secs(5) }).await.unwrap();
    };
    let (ended, ()) = tokio::join!(consumer.run(CancellationToken::new()), drain);
    assert!(matches!(ended, Ended::HandedOver { to: None, .. }), "{ended:?}");
    let left = row(&store).await;
    assert_eq!((left.owner, left.checkpoint.to_string()), (None, "1".to_owned()));
    assert!(left.pending.state().unwrap().cuts.is_empty(), "H2");
}

#[tokio::test(start_paused = true)]
async fn what_a_shard_carries_is_measured_and_recorded_with_its_commits() {
    let clock = Clock::new();
    let right = Arc::new(HeartbeatRight::new(clock.clone(), Duration::from_secs(200)));
    right.confirm(clock.now());
    let (mut consumer, store, requester) = consumer(&right).await;
    let stream = MemoryStream::new(1);
    consumer.stream = Arc::new(stream.clone());
    let publish = async {
        for second in 0..60 {
            assert!(second > 25 || row(&store).await.throughput.is_none(), "too soon to tell");
            stream.put("k", vec![0; 10 * 1_024]);
            clock.sleep(Duration::from_secs(1)).await;
        }
        requester.send(Drain { to: None, within: Duration::from_secs(5) }).await.unwrap();
    };
    let (ended, ()) = tokio::join!(consumer.run(CancellationToken::new()), publish);
    assert!(matches!(ended, Ended::HandedOver { to: None, .. }), "{ended:?}");
    let recorded = row(&store).await.throughput.unwrap().micros() / 1_000;
    assert!((9_500..=10_500).contains(&recorded), "{recorded} thousandths of a kilobyte a second");
    assert_eq!(store.broken_laws(), vec![]);
}
