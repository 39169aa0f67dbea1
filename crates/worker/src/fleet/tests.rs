use std::collections::BTreeMap;
use std::time::Duration;

use sluicegate_checkpoint::{ArrivalMillis, LeaseState, Position, ShardId};
use sluicegate_lease::view::{FleetView, Look, Observer};
use sluicegate_lease::{Behind, Lease, WorkerId, WorkerRow, WorkerState};
use tokio::time::Instant;

use super::moves::{MOST_MOVES, Why};
use super::picture::{Frame, Picture, ShardPicture, ShardState};
use super::tracker::{FleetTracker, Now, OwnShard};

const FAILOVER: Duration = Duration::from_secs(10);
const WALL: i64 = 1_700_000_000_000;

/// One observer, what it sees, and the time.
struct World {
    start: Instant,
    ms: u64,
    observer: Observer,
    tracker: FleetTracker,
    workers: Vec<WorkerRow>,
    leases: Vec<Lease>,
    frame: Frame,
}

fn shard(n: usize) -> ShardId {
    ShardId::new(format!("shardId-{n:012}"))
}

fn lease(n: usize, owner: Option<&str>) -> Lease {
    let state = LeaseState { caught_up: Some(ArrivalMillis(WALL)), ..LeaseState::starting(None) };
    Lease { owner: owner.map(WorkerId::new), ..Lease::unowned(shard(n), Position::TrimHorizon, state) }
}

impl World {
    fn new(workers: &[&str], leases: Vec<Lease>) -> Self {
        let me = WorkerId::new("me");
        let rows = workers.iter().map(|id| WorkerRow { heartbeat: 1, ..WorkerRow::new(WorkerId::new(*id)) });
        let retention = Some(Duration::from_secs(86_400));
        let start = Instant::now();
        let mut world = Self {
            start,
            ms: 0,
            observer: Observer::new(me.clone(), FAILOVER),
            tracker: FleetTracker::new(me, FAILOVER, start),
            workers: rows.collect(),
            leases,
            frame: Frame { retention, ..Frame::default() },
        };
        world.look();
        world.scan();
        world
    }

    fn now(&self) -> Now {
        let wall = ArrivalMillis(WALL + i64::try_from(self.ms).unwrap());
        Now { at: self.start + Duration::from_millis(self.ms), wall }
    }

    fn look(&mut self) {
        let at = self.now().at;
        self.observer.see_workers(self.workers.clone(), Look::from(at));
        self.tracker.see_workers(&self.workers, Look::from(at));
    }

    fn scan(&mut self) -> FleetView {
        let now = self.now();
        let view = self.observer.see_leases(self.leases.clone(), Look::from(now.at));
        self.tracker.see_view(&view, now);
        view
    }

    /// So much time passes, and these workers' heartbeats with it; looks come all the while.
    fn pass(&mut self, seconds: u64, alive: &[&str]) {
        for _ in 0..seconds * 2 {
            self.ms += 500;
            if self.ms.is_multiple_of(3_000) {
                for row in &mut self.workers {
                    row.heartbeat += u64::from(alive.contains(&row.worker_id.as_str()));
                }
            }
            self.look();
        }
    }

    /// So much time passes, and this worker reads nothing; these workers' heartbeats go on.
    fn cut_off(&mut self, seconds: u64, alive: &[&str]) {
        self.ms += seconds * 1_000;
        for row in &mut self.workers {
            row.heartbeat += if alive.contains(&row.worker_id.as_str()) { seconds / 3 } else { 0 };
        }
    }

    fn begin(&mut self, n: usize) {
        let now = self.now();
        self.tracker.begun(&self.leases[n], now);
    }

    fn row(&mut self, worker: &str) -> &mut WorkerRow {
        self.workers.iter_mut().find(|row| row.worker_id.as_str() == worker).unwrap()
    }

    fn give(&mut self, n: usize, owner: Option<&str>) {
        let row = &mut self.leases[n];
        row.owner = owner.map(WorkerId::new);
        row.counter = row.counter.next();
    }

    fn picture(&mut self) -> Picture {
        let now = self.now();
        self.tracker.picture(&self.frame, now)
    }

    fn shard(&mut self, n: usize) -> ShardPicture {
        self.picture().shards.remove(n)
    }

    fn says_behind(&mut self, worker: &str, n: usize, age_ms: u64) {
        self.row(worker).behind.push(Behind { shard: shard(n), age_ms, lag_ms: age_ms / 2 });
    }
}

fn near(value: f64, wanted: f64) -> bool {
    (value - wanted).abs() <= 1.0
}

#[test]
fn an_idle_shard_of_a_living_owner_is_fresh_for_ever() {
    let mut world = World::new(&["me", "a"], vec![lease(0, Some("a"))]);
    world.pass(7_200, &["me", "a"]);
    let seen = world.shard(0);
    assert_eq!((seen.state, seen.freshness_seconds), (ShardState::Fresh, 0.0));
    let totals = world.picture().totals;
    assert_eq!((totals.freshness_max_seconds, totals.until_data_loss_seconds), (0.0, None));
    assert_eq!(totals.ages, [1; 11]);
}

#[test]
fn a_dead_owners_shards_grow_old_from_its_last_word_and_are_without_an_owner() {
    let mut world = World::new(&["me", "a"], vec![lease(0, Some("a")), lease(1, Some("me"))]);
    world.pass(60, &["me", "a"]);
    world.pass(400, &["me"]);
    world.scan();
    let seen = world.shard(0);
    assert_eq!((seen.state, seen.lag_seconds), (ShardState::Unowned, None), "nobody says where reading is");
    assert!(near(seen.freshness_seconds, 400.0), "{seen:?}");
    let totals = world.picture().totals;
    assert_eq!((totals.shards_late, totals.shards_unowned, totals.workers_silent), (1, 1, 1));
    assert!(near(totals.until_data_loss_seconds.unwrap(), 86_400.0 - 400.0));
}

#[test]
fn a_worker_that_is_cut_off_tells_how_old_its_view_is_and_calls_nobody_silent_for_it() {
    let mut world = World::new(&["me", "a", "dead"], vec![lease(0, Some("a")), lease(1, Some("me"))]);
    world.pass(20, &["me", "a"]);
    assert_eq!(world.picture().last_read_seconds, 0.0);
    world.cut_off(43, &["a"]);
    let picture = world.picture();
    assert_eq!(picture.last_read_seconds, 43.0);
    let states: Vec<(&str, &str)> =
        picture.workers.iter().map(|worker| (worker.worker.as_str(), worker.state)).collect();
    assert_eq!(states, [("a", "active"), ("dead", "silent"), ("me", "active")], "as of the last read");
    assert!(picture.workers.iter().all(|worker| worker.last_seen_seconds >= 43.0));
    assert_eq!(picture.shards[0].lag_seconds, None, "its owner's last word is too old");
    let text = crate::Metrics::new().unwrap().text_with(Some(&picture)).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("\nsluicegate_fleet_view_age_seconds 43\n"));
    // Then it reads again: the others are there, and its own heartbeat has stood still.
    world.look();
    let picture = world.picture();
    let states: Vec<&str> = picture.workers.iter().map(|worker| worker.state).collect();
    assert_eq!((picture.last_read_seconds, states), (0.0, vec!["active", "silent", "silent"]));
    world.pass(6, &["me", "a"]);
    assert_eq!(world.picture().totals.workers_active, 2);
}

#[test]
fn a_read_that_took_long_tells_of_no_later_time_than_it_was_asked_at() {
    let mut world = World::new(&["me", "a"], vec![lease(0, Some("a"))]);
    world.pass(6, &["me", "a"]);
    let asked = world.now().at;
    world.ms += 30_000;
    world.tracker.see_workers(&world.workers, Look { asked, answered: world.now().at });
    let picture = world.picture();
    assert_eq!((picture.last_read_seconds, picture.totals.workers_silent), (30.0, 0));
}

#[test]
fn a_view_that_was_never_read_is_as_old_as_the_worker() {
    let start = Instant::now();
    let mut tracker = FleetTracker::new(WorkerId::new("me"), FAILOVER, start);
    let now = Now { at: start + Duration::from_secs(12), wall: ArrivalMillis(WALL) };
    assert_eq!(tracker.picture(&Frame::default(), now).last_read_seconds, 12.0);
}

#[test]
fn what_others_took_while_this_worker_was_cut_off_was_no_balance() {
    let mut world = World::new(&["me", "a"], (0..3).map(|n| lease(n, Some("me"))).collect());
    (0..3).for_each(|n| world.begin(n));
    world.pass(20, &["me", "a"]);
    world.give(2, Some("a"));
    world.scan();
    assert_eq!(world.picture().moves[0].why, Why::Balance);
    // Its heartbeat goes out before it reads again.
    world.cut_off(43, &["me", "a"]);
    world.look();
    world.give(0, Some("a"));
    world.pass(3, &["me", "a"]);
    world.scan();
    let picture = world.picture();
    let last = &picture.moves[0];
    assert_eq!((last.from.as_deref(), last.why), (Some("me"), Why::Failover));
    assert_eq!(picture.totals.orphaned_shard_seconds, 0.0, "those who took it know for how long");
    // Nobody had taken the other one: it is worked on again, and moves for balance.
    world.begin(1);
    world.pass(3, &["me", "a"]);
    world.give(1, Some("a"));
    world.scan();
    assert_eq!(world.picture().moves[0].why, Why::Balance);
    // And so does one that came back since, and one that is worked on again before its own heartbeat is read.
    world.give(0, Some("me"));
    world.scan();
    world.give(0, Some("a"));
    world.scan();
    assert_eq!(world.picture().moves[0].why, Why::Balance);
    world.give(1, Some("me"));
    world.scan();
    world.cut_off(43, &["a"]);
    world.look();
    world.begin(1);
    world.pass(30, &["me", "a"]);
    world.give(1, Some("a"));
    world.scan();
    assert_eq!(world.picture().moves[0].why, Why::Balance);
    // What it sent before the others gave up on it may arrive all together when the way is mended.
    world.give(1, Some("me"));
    world.scan();
    world.ms += 4_000;
    let asked = world.now().at;
    world.cut_off(39, &["me", "a"]);
    world.tracker.see_workers(&world.workers, Look { asked, answered: world.now().at });
    world.give(1, Some("a"));
    world.scan();
    assert_eq!(world.picture().moves[0].why, Why::Failover);
}

#[test]
fn what_an_owner_says_counts_until_it_says_otherwise() {
    let mut world = World::new(&["me", "a"], vec![lease(0, Some("a")), lease(1, Some("a"))]);
    world.ms = 600_000;
    world.pass(10, &["me", "a"]);
    world.says_behind("a", 1, 320_000);
    world.pass(3, &["me", "a"]);
    let seen = world.shard(1);
    assert_eq!(
        (seen.state, seen.freshness_seconds, seen.lag_seconds),
        (ShardState::Late, 320.0, Some(160.0))
    );
    assert_eq!(world.shard(0).freshness_seconds, 0.0);
    assert_eq!(world.picture().worst(), [(shard(1).as_str(), 320.0)]);
    assert_eq!(world.picture().workers[0].freshness_max_seconds, 320.0);
    world.row("a").behind.clear();
    world.pass(3, &["me", "a"]);
    assert_eq!(world.shard(1).freshness_seconds, 0.0);
}

#[test]
fn silence_of_a_new_owner_says_nothing_until_its_second_heartbeat() {
    let mut world = World::new(&["me", "a", "b"], vec![lease(0, Some("a"))]);
    world.ms = 1_000_000;
    world.says_behind("a", 0, 500_000);
    world.pass(3, &["me", "a", "b"]);
    world.give(0, Some("b"));
    world.scan();
    world.pass(3, &["me", "a", "b"]);
    assert_eq!(world.shard(0).freshness_seconds, 500.0, "this row may have been on its way");
    world.pass(4, &["me", "a", "b"]);
    assert_eq!(world.shard(0).freshness_seconds, 0.0);
}

#[test]
fn a_shard_that_a_full_list_leaves_out_is_at_most_as_old_as_the_least_listed() {
    let leases = (0..60).map(|n| lease(n, Some("a"))).collect();
    let mut world = World::new(&["me", "a"], leases);
    world.ms = 10_000_000;
    for n in 0..WorkerRow::MOST_BEHIND {
        world.says_behind("a", n, 400_000 + n as u64 * 1_000);
    }
    world.pass(7, &["me", "a"]);
    assert_eq!(world.shard(55).freshness_seconds, 400.0);
    assert_eq!(world.picture().totals.shards_late, 60);
    // A commit that a scan finds says more.
    let committed = ArrivalMillis(world.now().wall.0 - 20_000);
    let state = LeaseState { checkpoint_arrival: Some(committed), ..LeaseState::starting(None) };
    world.leases[55] = world.leases[55].progressed(Position::TrimHorizon, state);
    world.scan();
    assert_eq!(world.shard(55).freshness_seconds, 20.0);
}

#[test]
fn a_heartbeat_tells_the_fifty_oldest_in_the_order_of_their_ids() {
    let leases = (0..80).map(|n| lease(n, Some("me"))).collect();
    let mut world = World::new(&["me"], leases);
    world.ms = 1_000_000;
    let durable = |n: usize| ArrivalMillis(world.now().wall.0 - 1_000 * n as i64);
    let own: BTreeMap<ShardId, OwnShard> = (0..80)
        .map(|n| {
            let said = OwnShard { durable_to: durable(n), caught_up: false, lag: Duration::from_secs(1) };
            (shard(n), said)
        })
        .collect();
    world.tracker.own(&own, FAILOVER, world.now());
    let told = world.tracker.tell(world.now());
    let wanted: Vec<ShardId> = (30..80).map(shard).collect();
    assert_eq!(told.iter().map(|behind| behind.shard.clone()).collect::<Vec<_>>(), wanted);
    assert!(told.iter().all(|behind| behind.lag_ms == 1_000 && behind.age_ms >= 30_000));
}

#[test]
fn a_shard_at_its_tip_is_fresh_while_reads_go_on_and_grows_old_when_they_stop() {
    let mut world = World::new(&["me"], vec![lease(0, Some("me"))]);
    world.ms = 1_000_000;
    let read_at = world.now().wall;
    let own = [(shard(0), OwnShard { durable_to: read_at, caught_up: true, lag: Duration::ZERO })].into();
    world.ms += 5_000;
    world.tracker.own(&own, FAILOVER, world.now());
    assert_eq!(world.shard(0).freshness_seconds, 0.0);
    assert_eq!(world.tracker.tell(world.now()), []);
    world.ms += 60_000;
    world.tracker.own(&own, FAILOVER, world.now());
    assert_eq!(world.shard(0).freshness_seconds, 65.0, "Kinesis has not answered for that long");
    assert_eq!(world.tracker.tell(world.now())[0].age_ms, 65_000);
}

#[test]
fn a_lease_without_a_session_goes_on_from_what_was_known_of_it() {
    let mut world = World::new(&["me", "a"], vec![lease(0, Some("a"))]);
    world.pass(30, &["me", "a"]);
    world.pass(20, &["me"]);
    world.give(0, Some("me"));
    world.scan();
    let told = world.tracker.tell(world.now());
    assert!(near(Duration::from_millis(told[0].age_ms).as_secs_f64(), 20.0), "{told:?}");
}

#[test]
fn orphaned_time_is_counted_from_the_last_sign_of_life_to_the_new_owner() {
    let mut world = World::new(&["me", "a", "b"], vec![lease(0, Some("a")), lease(1, Some("a"))]);
    world.pass(30, &["me", "a", "b"]);
    world.pass(12, &["me", "b"]);
    world.scan();
    assert!(near(world.picture().totals.orphaned_shard_seconds, 24.0), "both shards, while nobody has them");
    // This worker takes one; the other's new owner is seen at the next scan.
    let mine = world.leases[0].taken_by(&WorkerId::new("me"));
    world.leases[0] = mine.clone();
    let now = world.now();
    world.tracker.begun(&mine, now);
    world.pass(1, &["me", "b"]);
    world.give(1, Some("b"));
    world.scan();
    world.pass(60, &["me", "b"]);
    let counted = world.picture().totals.orphaned_shard_seconds;
    assert!(near(counted, 25.0), "{counted}");
}

#[test]
fn a_failover_that_a_scan_finds_done_is_counted_from_the_last_sign_of_life_all_the_same() {
    let mut world = World::new(&["me", "a", "b"], vec![lease(0, Some("a"))]);
    world.pass(30, &["me", "a", "b"]);
    // The others saw its last heartbeat earlier and have acted before this worker counts it as silent.
    world.pass(9, &["me", "b"]);
    world.give(0, Some("b"));
    world.scan();
    let picture = world.picture();
    assert_eq!(picture.moves[0].why, Why::Failover);
    assert!(near(picture.totals.orphaned_shard_seconds, 9.0), "{}", picture.totals.orphaned_shard_seconds);
}

#[test]
fn shards_that_wait_for_their_parents_or_are_finished_are_neither_late_nor_orphaned() {
    let mut child = lease(1, None);
    child.parents = [shard(0)].into();
    let finished = Lease { checkpoint: Position::ShardEnd, ..lease(2, None) };
    let mut world = World::new(&["me", "a"], vec![lease(0, Some("a")), child, finished]);
    world.pass(1_000, &["me", "a"]);
    let picture = world.picture();
    let states: Vec<ShardState> = picture.shards.iter().map(|shard| shard.state).collect();
    assert_eq!(states, [ShardState::Fresh, ShardState::Waiting, ShardState::Finished]);
    let totals = &picture.totals;
    assert_eq!((totals.shards, totals.shards_waiting, totals.shards_finished), (2, 1, 1));
    assert_eq!((totals.shards_late, totals.orphaned_shard_seconds), (0, 0.0));
}

#[test]
fn moves_are_told_with_their_reasons_newest_first() {
    let mut world = World::new(&["me", "a", "b", "c"], (0..5).map(|n| lease(n, Some("a"))).collect());
    let all = ["me", "a", "b", "c"];
    world.pass(3, &all);
    world.give(0, Some("b"));
    world.scan();
    world.give(1, None);
    world.scan();
    world.give(1, Some("c"));
    world.scan();
    world.row("b").state = WorkerState::Draining;
    world.pass(3, &all);
    world.give(0, Some("c"));
    world.scan();
    world.pass(13, &["me", "b", "c"]);
    world.give(2, Some("b"));
    world.scan();
    world.workers.retain(|row| row.worker_id.as_str() != "c");
    world.pass(1, &["me", "b"]);
    world.give(0, Some("me"));
    world.scan();
    let moves = world.picture().moves;
    let whys: Vec<Why> = moves.iter().map(|moved| moved.why).collect();
    assert_eq!(
        whys,
        [Why::OwnerLeft, Why::Failover, Why::OwnerLeft, Why::WasFree, Why::Released, Why::Balance]
    );
    assert_eq!((moves[1].from.as_deref(), moves[1].to.as_deref()), (Some("a"), Some("b")));
    assert!(moves.windows(2).all(|pair| pair[0].at_ms >= pair[1].at_ms));
}

#[test]
fn a_hundred_moves_are_remembered_and_an_older_scan_is_none() {
    let mut world = World::new(&["me", "a", "b"], vec![lease(0, Some("a"))]);
    for n in 0..150 {
        world.give(0, Some(if n % 2 == 0 { "b" } else { "a" }));
        world.scan();
    }
    assert_eq!(world.picture().moves.len(), MOST_MOVES);
    let before = world.picture().moves;
    let newer = world.leases[0].clone();
    world.leases[0] = lease(0, Some("b"));
    world.scan();
    assert_eq!(world.picture().moves, before, "its counter is lower");
    world.leases[0] = newer;
    world.scan();
    assert_eq!(world.picture().moves, before);
}

#[test]
fn ten_thousand_shards_have_fifty_series_and_the_page_has_them_all() {
    let leases: Vec<Lease> = (0..10_000).map(|n| lease(n, Some("a"))).collect();
    let mut world = World::new(&["me", "a"], leases);
    world.ms = 3_600_000;
    world.scan();
    let picture = world.picture();
    assert_eq!((picture.shards.len(), picture.worst().len()), (10_000, 50));
    let metrics = crate::Metrics::new().unwrap();
    for n in 0..10_000 {
        let session = metrics.shard(&shard(n));
        session.buffered(n);
        session.read(&crate::RecordPage::default());
        std::mem::forget(session);
    }
    let text = String::from_utf8(metrics.text_with(Some(&picture)).unwrap()).unwrap();
    let series = |metric: &str| {
        text.lines().filter(|line| line.starts_with(&format!("sluicegate_{metric}{{"))).count()
    };
    for metric in ["fleet_freshness_seconds", "buffered_bytes", "behind_latest_seconds"] {
        assert_eq!(series(metric), 50, "{metric}");
    }
    assert!(text.contains("sluicegate_buffered_bytes{shard=\"shardId-000000009999\"} 9999"));
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(lines < 700, "{lines} series");
}
