use crate::stream::ShardCursor;
use rand::SeedableRng;
use sluicegate_checkpoint::{ArrivalMillis, LeaseState, PackingParameters, Position, ShardId};
use sluicegate_lease::memory::MemoryLeaseStore;
use sluicegate_lease::nudge::Nudges;
use sluicegate_lease::{
    FixedStart, HeartbeatRight, Lease, LeaseStore, ListingWanted, RecordedStart, Sessions, Written,
};
use sluicegate_sink::dead_letter::LetterPage;
use sluicegate_sink::item::ItemKey;
use sluicegate_sink::offload::Inline;
use sluicegate_sink::{
    Delivered, Letter, LetterId, MemoryDeadLetters, MemorySink, MemoryTable, PackingSink, PackingSinkOptions,
    Reader, StoreError, TimeRange,
};
use tokio::sync::watch;

use super::*;
use crate::consumer::batcher::CutPolicy;
use crate::consumer::judgement::ForeignUserRecords;
use crate::distribution::DistributionBook;
use crate::memory::MemoryStream;
use crate::metrics::Metrics;
use crate::shard_sync::ShardSync;
use crate::stream::{Distributed, ReadFrom, ShardListing};

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
        start: RecordedStart { at: FixedStart::TrimHorizon, stream: None },
        nudged: Nudges::default(),
        listed: watch::Sender::default(),
        wanted: ListingWanted::default(),
        view: watch::channel(None).1,
        sessions: Sessions::default(),
        metrics: Metrics::new().unwrap(),
        found: std::sync::Mutex::default(),
    };
    let second = Duration::from_secs(1);
    let distribution = Arc::new(DistributionBook::new(Arc::clone(&stream), Clock::new()));
    let consumer = Consumer {
        distribution,
        held: HeldLease::new(shared, Clock::new(), row, rng.clone()),
        stream,
        sink: Arc::new(MemorySink::default()),
        letters: Arc::new(MemoryDeadLetters::default()),
        letter_ttl_days: None,
        right: right.session(),
        clock: Clock::new(),
        budget: ByteBudget::new(1 << 20),
        policy: SessionPolicy {
            cut: CutPolicy {
                max_bytes: 1 << 20,
                max_weight: 8 << 20,
                max_records: 10,
                max_age: second,
                max_span: 60 * second,
            },
            max_in_flight: 2,
            commit_delay: second,
            parameters: Arc::new(PackingParameters::default()),
            foreign_user_records: ForeignUserRecords::Auto,
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
        watches: Watches::new(Clock::new()),
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

/// A stream that never answers.
struct Mute;

#[async_trait::async_trait]
impl StreamReader for Mute {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        std::future::pending().await
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        std::future::pending().await
    }

    fn open(&self, _: &ShardId, _: ReadFrom) -> Box<dyn ShardCursor> {
        Box::new(Self)
    }
}

#[async_trait::async_trait]
impl ShardCursor for Mute {
    async fn next_page(&mut self, _: u32) -> Result<RecordPage, StreamError> {
        std::future::pending().await
    }
}

/// Probes ask for that: what others do not answer is no reason to kill a worker; a session that nobody runs is one.
#[tokio::test(start_paused = true)]
async fn a_session_that_waits_is_alive_and_one_that_does_not_run_is_named() {
    let clock = Clock::new();
    let right = Arc::new(HeartbeatRight::new(clock.clone(), Duration::from_secs(86_400)));
    right.confirm(clock.now());
    let (consumer, _store, _requester) = consumer(&right).await;
    let watches = Watches::new(clock.clone());
    let consumer = Consumer { stream: Arc::new(Mute), watches: Arc::clone(&watches), ..consumer };
    let mut run = Box::pin(consumer.run(CancellationToken::new()));
    let look = async {
        for second in 0..600 {
            assert_eq!(watches.stuck(), [], "after {second} s");
            clock.sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! { biased;
        ended = &mut run => panic!("it ended: {ended:?}"),
        () = look => {}
    }
    clock.sleep(TURN * 4).await;
    let named: Vec<_> = watches.stuck().into_iter().map(|(name, _)| name).collect();
    assert_eq!(named, [format!("the session of {SHARD}")]);
    drop(run);
    assert_eq!(watches.stuck(), []);
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

/// Drops one record of each batch on the way to the sink.
struct Leaks(Arc<MemorySink>);

#[async_trait::async_trait]
impl Sink for Leaks {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        let mut leaking = Arc::unwrap_or_clone(batch);
        leaking.records.pop();
        self.0.deliver(Arc::new(leaking), right).await
    }

    fn packing_versions(&self) -> &[u32] {
        self.0.packing_versions()
    }
}

/// Runs a consumer of a stream with these events until nothing is left; returns its metrics.
async fn run_over(
    events: &[(&str, &str)],
    change: impl FnOnce(&mut Consumer),
) -> (String, Arc<MemoryLeaseStore>) {
    let clock = Clock::new();
    let right = Arc::new(HeartbeatRight::new(clock.clone(), Duration::from_secs(200)));
    right.confirm(clock.now());
    let (mut consumer, store, requester) = consumer(&right).await;
    let stream = MemoryStream::new(1);
    for (key, data) in events {
        stream.put(key, (*data).to_owned());
    }
    consumer.stream = Arc::new(stream);
    let metrics = Metrics::new().unwrap();
    consumer.metrics = metrics.shard(&ShardId::new(SHARD));
    change(&mut consumer);
    let drain = async {
        clock.sleep(Duration::from_secs(20)).await;
        requester.send(Drain { to: None, within: Duration::from_secs(5) }).await.unwrap();
    };
    let (ended, ()) = tokio::join!(Box::pin(consumer.run(CancellationToken::new())), drain);
    assert!(matches!(ended, Ended::HandedOver { to: None, .. }), "{ended:?}");
    assert_eq!(store.broken_laws(), vec![]);
    (String::from_utf8(metrics.text().unwrap()).unwrap(), store)
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_dropped_inside_the_pipeline_is_seen() {
    let events = [("k", "a"), ("k", "b"), ("k", "c")];
    let (text, _) = run_over(&events, |_| {}).await;
    assert!(text.contains("\nsluicegate_records_unaccounted 0\n"), "{text}");
    let (text, store) = run_over(&events, |consumer| consumer.sink = Arc::new(Leaks(Arc::default()))).await;
    assert!(text.contains("\nsluicegate_records_unaccounted 1\n"), "{text}");
    assert_eq!(row(&store).await.checkpoint.to_string(), "3", "it is seen at the commit");
}

/// A packing sink over a table that never takes an item with this in it.
fn picky(table: &Arc<MemoryTable>) -> Arc<dyn Sink> {
    Arc::new(PackingSink::new(table.clone(), PackingSinkOptions::default(), Arc::new(Inline), 1))
}

fn table_without(poison: &'static str) -> Arc<MemoryTable> {
    Arc::new(MemoryTable::rejecting(move |item| {
        let found = item.data.windows(poison.len()).any(|window| window == poison.as_bytes());
        found.then(|| "no poison here".to_owned())
    }))
}

fn plain(consumer: &mut Consumer) {
    let parameters =
        PackingParameters { codec: sluicegate_checkpoint::Codec::None, ..PackingParameters::default() };
    consumer.policy.parameters = Arc::new(parameters);
}

async fn read(table: &Arc<MemoryTable>, key: &str) -> Vec<bytes::Bytes> {
    let mut stream = Reader::new(table.clone(), 7).events(key, TimeRange::default()).await.unwrap();
    let mut found = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        found.push(event.data);
    }
    found
}

#[tokio::test(start_paused = true)]
async fn poison_goes_to_the_dead_letters_and_the_shard_goes_on() {
    let (table, letters) = (table_without("poison"), Arc::new(MemoryDeadLetters::default()));
    let mut events = vec![("k", "fine"); 25];
    events[3].1 = "poison";
    events[17] = ("other", "poison too");
    let (text, store) = run_over(&events, |consumer| {
        plain(consumer);
        consumer.sink = picky(&table);
        consumer.letters = letters.clone();
    })
    .await;
    assert_eq!(read(&table, "k").await, vec![bytes::Bytes::from_static(b"fine"); 23]);
    assert_eq!(read(&table, "other").await, Vec::<bytes::Bytes>::new());
    let kept = letters.all().unwrap();
    let found: Vec<_> = kept.iter().map(|l| (l.header.id.sequence_number.as_str(), &l.data[..])).collect();
    assert_eq!(found, [("4", &b"poison"[..]), ("18", &b"poison too"[..])]);
    assert_eq!((kept[0].header.why.as_str(), kept[0].header.worker.as_str()), ("no poison here", "me"));
    let left = row(&store).await;
    assert_eq!((left.checkpoint.to_string(), left.owner), ("25".to_owned(), None));
    for line in [
        "sluicegate_dead_letters_total 2",
        "sluicegate_records_unaccounted 0",
        "sluicegate_events_stored_total 23",
        "sluicegate_batches_total{outcome=\"poisoned\"} 2",
        "sluicegate_batches_total{outcome=\"delivered\"} 3",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
}

/// A dead-letter table that cannot be reached for a while.
struct Out {
    inner: Arc<MemoryDeadLetters>,
    until: Instant,
}

#[async_trait::async_trait]
impl DeadLetters for Out {
    async fn put(&self, letter: &Letter) -> Result<bool, StoreError> {
        if Instant::now() < self.until {
            return Err(StoreError::Unavailable("out".into()));
        }
        self.inner.put(letter).await
    }

    async fn list(&self, behind: Option<&ItemKey>) -> Result<LetterPage, StoreError> {
        self.inner.list(behind).await
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<Letter>, StoreError> {
        self.inner.letter(id).await
    }

    async fn mark_redriven(&self, id: &LetterId, at: ArrivalMillis) -> Result<bool, StoreError> {
        self.inner.mark_redriven(id, at).await
    }

    async fn delete(&self, id: &LetterId) -> Result<bool, StoreError> {
        self.inner.delete(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_before_its_letters_are_durable_and_the_next_owner_puts_them() {
    let clock = Clock::new();
    let right = Arc::new(HeartbeatRight::new(clock.clone(), Duration::from_secs(200)));
    right.confirm(clock.now());
    let (table, letters) = (table_without("poison"), Arc::new(MemoryDeadLetters::default()));
    let stream = MemoryStream::new(1);
    for data in ["fine", "poison", "fine"] {
        stream.put("k", data);
    }
    let (mut first, store, _requester) = consumer(&right).await;
    plain(&mut first);
    first.stream = Arc::new(stream.clone());
    first.sink = picky(&table);
    let never = clock.now() + Duration::from_secs(1_000);
    first.letters = Arc::new(Out { inner: letters.clone(), until: never });
    // A crash: the exclusion is recorded, the letter is not there.
    tokio::time::timeout(Duration::from_secs(30), first.run(CancellationToken::new())).await.unwrap_err();
    let crashed = row(&store).await;
    assert_eq!(crashed.checkpoint, Position::TrimHorizon);
    assert_eq!(crashed.pending.state().unwrap().cuts[0].exclusions.len(), 1);
    assert!(letters.all().unwrap().is_empty());

    let (mut second, _, requester) = consumer(&right).await;
    plain(&mut second);
    let taken = store.replace(&crashed, &crashed.taken_by(&WorkerId::new("other"))).await.unwrap();
    let Written::Applied(taken) = taken else { panic!("nobody else wrote it") };
    let shared: Arc<dyn LeaseStore> = Arc::<MemoryLeaseStore>::clone(&store);
    second.held = HeldLease::new(shared, clock.clone(), taken, SmallRng::seed_from_u64(2));
    second.stream = Arc::new(stream);
    second.sink = picky(&table);
    second.letters = letters.clone();
    let drain = async {
        clock.sleep(Duration::from_secs(9)).await;
        requester.send(Drain { to: None, within: Duration::from_secs(5) }).await.unwrap();
    };
    let (ended, ()) = tokio::join!(second.run(CancellationToken::new()), drain);
    assert!(matches!(ended, Ended::HandedOver { .. }), "{ended:?}");
    let kept = letters.all().unwrap();
    assert_eq!((kept.len(), kept[0].header.worker.as_str()), (1, "other"));
    assert_eq!(read(&table, "k").await.len(), 2);
    assert_eq!(row(&store).await.checkpoint.to_string(), "3");
}
