use std::sync::Mutex;

use async_trait::async_trait;
use sluicegate_checkpoint::{LeaseState, Position, ShardId};

use super::*;
use crate::fleet::WorkerRow;
use crate::memory::{MemoryLeaseStore, MemoryRegistry};
use crate::nudge::LocalNudge;
use crate::store::{WriteError, Written};

/// A lease table that answers reads, and writes only after as long as a call may take, with no outcome.
struct Hanging {
    rows: MemoryLeaseStore,
    clock: Clock,
}

/// Longest that a call may take.
const CALL: Duration = Duration::from_secs(10);

#[async_trait]
impl LeaseStore for Hanging {
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        self.rows.leases().await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        self.rows.lease(key).await
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        self.rows.create(lease).await
    }

    async fn replace(&self, _: &Lease, _: &Lease) -> Result<Written<Lease>, WriteError> {
        self.clock.sleep(CALL).await;
        Err(WriteError::OutcomeUnknown { source: "no answer".into() })
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        self.rows.delete(expected).await
    }
}

/// A worker and two hundred leases in that table, free or its own, and when its loop showed that it is not stuck.
async fn hung(clock: &Clock, own: bool) -> (Coordinator, Observer, Arc<Mutex<Vec<Instant>>>) {
    let (me, failover_time) = (WorkerId::new("me"), Duration::from_secs(10));
    let store = Hanging { rows: MemoryLeaseStore::default(), clock: clock.clone() };
    for n in 0..200 {
        let row = Lease::unowned(
            ShardId::new(format!("shardId-{n:012}")),
            Position::TrimHorizon,
            LeaseState::starting(None),
        );
        let row = if own { row.taken_by(&me) } else { row };
        store.rows.create(&row).await.unwrap();
    }
    let registry = MemoryRegistry::default();
    registry.heartbeat(None, &WorkerRow::new(me.clone())).await.unwrap();
    let right = Arc::new(HeartbeatRight::new(clock.clone(), Duration::from_secs(3_600)));
    right.confirm(clock.now());
    let turns = Arc::new(Mutex::new(vec![clock.now()]));
    let (stamped, now) = (Arc::clone(&turns), clock.clone());
    let coordinator = Coordinator {
        config: CoordinatorConfig {
            me: me.clone(),
            failover_time,
            policy: PlanPolicy::default(),
            scan_budget: None,
        },
        store: Arc::new(store),
        registry: Arc::new(registry),
        clock: clock.clone(),
        right,
        status: WorkerStatus::new(WorkerRow::new(me.clone())),
        nudged: Nudges::default(),
        nudge: Arc::new(LocalNudge::default()),
        listed: watch::Sender::<Arc<Listing>>::default().subscribe(),
        listing_wanted: ListingWanted::default(),
        instructions: mpsc::channel(64).0,
        sessions: Sessions::default(),
        view: watch::Sender::default(),
        on_fleet: Box::new(|_, _| {}),
        on_view: Box::new(|_| {}),
        on_turn: Box::new(move || stamped.lock().unwrap().push(now.now())),
        failed_reads: FailedReads::default(),
    };
    (coordinator, Observer::new(me, failover_time), turns)
}

/// Probes ask for that: a table that does not answer is no reason to kill the worker.
#[tokio::test(start_paused = true)]
async fn a_round_of_many_writes_that_hang_is_no_loop_that_is_stuck() {
    let clock = Clock::new();
    let (coordinator, observer, turns) = hung(&clock, false).await;
    let stop = CancellationToken::new();
    tokio::select! {
        ended = coordinator.run(observer, stop) => panic!("it ended: {ended:?}"),
        () = clock.sleep(CALL * 20) => {}
    }
    assert_turned(&turns.lock().unwrap());
}

/// No two turns are further apart than a call may take, and there is one at the end.
fn assert_turned(turns: &[Instant]) {
    let longest = turns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest <= CALL && *turns.last().unwrap() >= turns[0] + CALL * 19, "{longest:?}");
}

/// A drain may take as long as drain_timeout says.
#[tokio::test(start_paused = true)]
async fn a_drain_that_waits_for_its_sessions_is_no_loop_that_is_stuck() {
    let clock = Clock::new();
    let (coordinator, observer, turns) = hung(&clock, false).await;
    coordinator.sessions.begin(ShardId::new("shardId-000000000000"));
    let stop = CancellationToken::new();
    stop.cancel();
    let (told, instructions) = mpsc::channel(64);
    let coordinator = Coordinator { instructions: told, ..coordinator };
    tokio::select! {
        ended = coordinator.run(observer, stop) => panic!("it ended: {ended:?}"),
        () = clock.sleep(CALL * 20) => {}
    }
    drop(instructions);
    assert_turned(&turns.lock().unwrap());
}

/// Each of them is given away by a call that hangs.
#[tokio::test(start_paused = true)]
async fn a_drain_that_gives_many_resting_leases_away_is_no_loop_that_is_stuck() {
    let clock = Clock::new();
    let (coordinator, observer, turns) = hung(&clock, true).await;
    for n in 0..200 {
        let key = ShardId::new(format!("shardId-{n:012}"));
        coordinator.sessions.begin(key.clone());
        coordinator.sessions.rest(&key);
    }
    let stop = CancellationToken::new();
    stop.cancel();
    tokio::select! {
        ended = coordinator.run(observer, stop) => panic!("it ended: {ended:?}"),
        () = clock.sleep(CALL * 20) => {}
    }
    assert_turned(&turns.lock().unwrap());
}

#[test]
fn a_read_that_failed_for_now_ends_a_round_and_not_the_worker() {
    let read = |error| Err::<(), _>(CoordinatorError::Read(error));
    assert!(matches!(unless_it_passes(Ok(7)), Ok(Ok(7))));
    let unavailable = ReadError::Unavailable { source: "no answer".into() };
    assert!(matches!(unless_it_passes(read(unavailable)), Ok(Err(ReadError::Unavailable { .. }))));
    let malformed = ReadError::Malformed { key: "s".to_owned(), why: "no counter".to_owned() };
    assert!(matches!(unless_it_passes(read(malformed)), Err(CoordinatorError::Read(_))));
    assert!(matches!(
        unless_it_passes(Err::<(), _>(CoordinatorError::Unheard)),
        Err(CoordinatorError::Unheard)
    ));
}

#[test]
fn hints_of_unknown_leases_are_read_so_many_in_a_while() {
    let (mut strangers, now, period) = (Strangers::default(), Instant::now(), Duration::from_millis(500));
    assert_eq!(strangers.allow(now, period).take(10).count(), 10);
    assert_eq!(strangers.allow(now + period / 2, period).count(), AT_ONCE - 10);
    assert_eq!(strangers.allow(now + period / 2, period).count(), 0);
    assert_eq!(strangers.allow(now + period, period).count(), AT_ONCE);
}

#[test]
fn the_next_look_comes_when_a_silence_is_due_and_never_at_once_because_of_an_old_one() {
    let now = Instant::now();
    let (period, round) = (Duration::from_millis(500), now + Duration::from_secs(5));
    assert_eq!(next_look(now, round, now + period, None), now + period);
    let soon = now + Duration::from_millis(200);
    assert_eq!(next_look(now, round, now + period, Some(soon)), soon);
    assert_eq!(next_look(soon, round, soon + period, Some(now)), soon + period);
    assert_eq!(next_look(soon, round, now, None), soon, "nudges do not put a look off");
}
