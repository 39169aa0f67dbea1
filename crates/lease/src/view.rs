//! What was read of the tables, and since when this worker's own clock has seen each sign of life stand still.
//!
//! Silence is judged by a counter standing still for `failover_time`, counted from the first sight of it, never by
//! a stored wall time (law H1 rests on it).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::{WorkerRow, WorkerState};
use crate::foreign::{ForeignLife, ForeignOwners};
use crate::model::{Lease, LeaseCounter, LeaseKey, Pending, WorkerId};
use crate::shard_sync::has_begun;

/// How a worker looks from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Its heartbeat moves and it takes leases.
    Active,
    /// Its heartbeat moves; it hands over by itself and is given nothing.
    Draining,
    /// Its heartbeat has stood still for the failover time.
    Silent,
}

impl Health {
    /// The word for it, in logs, metrics and pictures.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Silent => "silent",
        }
    }
}

/// A worker as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Whether it can be given leases.
    pub health: Health,
    /// Whether it lived while this worker watched: its heartbeat was seen to move, or its row to appear. A worker that has
    /// just started takes every row that it finds for active, also those of workers that are long dead.
    pub seen_alive: bool,
    /// Packing versions it makes (a worker amends what it lacks, so this does not limit eligibility).
    pub packing_versions: BTreeSet<u32>,
    /// Version of the state encoding it reads.
    pub state_version: u32,
    /// Where its admin server listens.
    pub address: Option<String>,
}

/// A lease as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// The row as read; a plan's action names it, the write is conditional on it.
    pub row: Lease,
    /// Its owner has no worker row and its counter has stood still for the failover time.
    pub owner_gone: bool,
    /// In how many rounds in a row it was seen free; rounds that follow each other faster than others look count once.
    pub free_rounds: u32,
}

/// Everything a plan depends on, as owned values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetView {
    /// Who is planning.
    pub me: WorkerId,
    /// All lease rows.
    pub leases: BTreeMap<LeaseKey, LeaseView>,
    /// All workers with a row, and me.
    pub workers: BTreeMap<WorkerId, WorkerView>,
}

/// Why nobody live holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Free {
    /// It has no owner.
    Unowned,
    /// Its owner's heartbeat stands still.
    Silent,
    /// Its owner has no row, and the lease's counter stands still.
    Gone,
}

impl Free {
    /// The word for it, in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unowned => "unowned",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }
}

impl FleetView {
    /// Why a lease is free to take, if it is.
    pub fn free(&self, lease: &LeaseView) -> Option<Free> {
        let Some(owner) = &lease.row.owner else { return Some(Free::Unowned) };
        match self.workers.get(owner) {
            Some(worker) if worker.health == Health::Silent => Some(Free::Silent),
            Some(_) => None,
            None => lease.owner_gone.then_some(Free::Gone),
        }
    }

    /// Owners of unfinished leases that have no worker row and are not known to be gone.
    pub fn undecided_owners(&self) -> BTreeSet<&WorkerId> {
        let unfinished = self.leases.values().filter(|lease| !lease.row.is_finished() && !lease.owner_gone);
        let owners = unfinished.filter_map(|lease| lease.row.owner.as_ref());
        owners.filter(|owner| !self.workers.contains_key(*owner)).collect()
    }

    /// Whether a lease can be worked on now: unfinished, readable, and begun already, or every parent finished or gone
    /// from the view. (Absence is checked again by a strongly consistent read before the first record is read. Of a
    /// shard that has begun no parent is asked: a parent's row that was made again by mistake must not block it.)
    pub fn is_eligible(&self, lease: &LeaseView) -> bool {
        let readable = !matches!(lease.row.pending, Pending::Unreadable { .. });
        let parents_done = lease
            .row
            .parents
            .iter()
            .all(|parent| self.leases.get(parent).is_none_or(|parent| parent.row.is_finished()));
        !lease.row.is_finished() && readable && (parents_done || has_begun(&lease.row))
    }

    /// The fleet that this worker leaves behind: it drains itself, and if any worker that takes leases was seen alive, only
    /// such are left.
    pub fn without_me(mut self) -> Self {
        if let Some(me) = self.workers.get_mut(&self.me) {
            me.health = Health::Draining;
        }
        let me = &self.me;
        let is_sure = |id: &WorkerId, worker: &WorkerView| {
            worker.seen_alive && worker.health == Health::Active && id != me
        };
        if self.workers.iter().any(|(id, worker)| is_sure(id, worker)) {
            self.workers.retain(|id, worker| id == me || worker.seen_alive);
        }
        self
    }
}

/// Remembers since when each counter has stood still.
#[derive(Debug)]
pub struct Observer {
    me: WorkerId,
    failover_time: Duration,
    workers: BTreeMap<WorkerId, SeenWorker>,
    /// When worker rows were read last.
    looked_at: Option<Instant>,
    /// Health of each worker as of the last look.
    healths: BTreeMap<WorkerId, Health>,
    leases: BTreeMap<LeaseKey, SeenLease>,
    /// Rows that were read or written by themselves since the leases were.
    learned: BTreeMap<LeaseKey, Lease>,
    /// Leases that were found with a pending state of another application, ever.
    foreign: BTreeSet<LeaseKey>,
    newly_foreign: Vec<LeaseKey>,
    foreign_owners: ForeignOwners,
    newly_alive: Vec<ForeignLife>,
}

#[derive(Debug)]
struct SeenWorker {
    row: WorkerRow,
    since: Instant,
    seen_alive: bool,
}

#[derive(Debug, Clone, Copy)]
struct SeenLease {
    counter: LeaseCounter,
    since: Instant,
    free_rounds: u32,
    /// When the last of these rounds was.
    free_at: Instant,
}

/// A worker that joined (no health before), left (none after) or changed its health between two looks.
pub type HealthChange = (WorkerId, Option<Health>, Option<Health>);

/// When rows were asked for, and when they were there. They were read at some moment in between, which may be long ago if
/// the process stood still meanwhile: a counter is known to have stood still from the first answer to the last asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Before the first request for them was sent.
    pub asked: Instant,
    /// After the last answer came.
    pub answered: Instant,
}

impl From<Instant> for Look {
    /// A look that takes no time.
    fn from(now: Instant) -> Self {
        Self { asked: now, answered: now }
    }
}

impl Observer {
    /// Has seen nothing yet.
    pub fn new(me: WorkerId, failover_time: Duration) -> Self {
        Self {
            me,
            failover_time,
            workers: BTreeMap::new(),
            looked_at: None,
            healths: BTreeMap::new(),
            leases: BTreeMap::new(),
            learned: BTreeMap::new(),
            foreign: BTreeSet::new(),
            newly_foreign: Vec::new(),
            foreign_owners: ForeignOwners::default(),
            newly_alive: Vec::new(),
        }
    }

    /// Takes in worker rows that a look found. Any change calls for a round at once.
    pub fn see_workers(&mut self, rows: Vec<WorkerRow>, look: impl Into<Look>) -> Vec<HealthChange> {
        let look = look.into();
        self.foreign_owners.see_workers(&rows);
        // What happened since an older look may be as old, and its worker dead by now.
        let watched = self.looked_at.replace(look.answered);
        let watched = watched.is_some_and(|at| look.asked.saturating_duration_since(at) < self.failover_time);
        let mut seen = BTreeMap::new();
        for row in rows {
            let still = self.workers.get(&row.worker_id).filter(|old| old.row.heartbeat == row.heartbeat);
            let since = still.map_or(look.answered, |old| old.since);
            let seen_alive = still.map_or(watched, |old| old.seen_alive);
            seen.insert(row.worker_id.clone(), SeenWorker { row, since, seen_alive });
        }
        self.workers = seen;
        let healths: BTreeMap<WorkerId, Health> =
            self.workers.iter().map(|(id, worker)| (id.clone(), self.health(worker, look.asked))).collect();
        let before = std::mem::replace(&mut self.healths, healths);
        let ids: BTreeSet<&WorkerId> = before.keys().chain(self.healths.keys()).collect();
        ids.into_iter()
            .map(|id| (id.clone(), before.get(id).copied(), self.healths.get(id).copied()))
            .filter(|(_, old, new)| old != new)
            .collect()
    }

    /// Takes in lease rows that a look found, after the worker rows that explain their owners were read, and gives the
    /// view that a round works on.
    pub fn see_leases(&mut self, rows: Vec<Lease>, look: impl Into<Look>) -> FleetView {
        let look = look.into();
        let now = look.answered;
        let mut view =
            FleetView { me: self.me.clone(), leases: BTreeMap::new(), workers: self.worker_views() };
        let mut seen = BTreeMap::new();
        self.newly_foreign.clear();
        self.newly_alive = self.foreign_owners.see_leases(&rows);
        self.learned.clear();
        for row in rows {
            if matches!(row.pending, Pending::Foreign { .. }) && self.foreign.insert(row.key.clone()) {
                self.newly_foreign.push(row.key.clone());
            }
            let old = self.leases.get(&row.key).copied();
            let still = old.filter(|old| old.counter == row.counter);
            let since = still.map_or(now, |old| old.since);
            let owner_gone = look.asked.saturating_duration_since(since) >= self.failover_time;
            let mut lease = LeaseView { row, owner_gone, free_rounds: 0 };
            let mut free_at = now;
            if view.free(&lease).is_some() {
                let before = old.filter(|old| old.free_rounds > 0);
                let too_soon = before.filter(|old| now < old.free_at + self.failover_time / 20);
                lease.free_rounds = before.map_or(0, |old| old.free_rounds) + u32::from(too_soon.is_none());
                free_at = too_soon.map_or(now, |old| old.free_at);
            }
            let (counter, free_rounds) = (lease.row.counter, lease.free_rounds);
            let now_seen = SeenLease { counter, since, free_rounds, free_at };
            seen.insert(lease.row.key.clone(), now_seen);
            view.leases.insert(lease.row.key.clone(), lease);
        }
        self.leases = seen;
        view
    }

    /// Leases that the last look found with a pending state of another application, and no look before it.
    pub fn newly_foreign(&self) -> &[LeaseKey] {
        &self.newly_foreign
    }

    /// Owners without a worker row that the last look found at work, and no look before it: another application's.
    pub fn newly_alive(&self) -> &[ForeignLife] {
        &self.newly_alive
    }

    /// When the next worker would fall silent if it stays still: the time of the extra read.
    pub fn next_silence(&self) -> Option<Instant> {
        let alive = self.workers.values().filter(|worker| {
            worker.row.worker_id != self.me
                && self.healths.get(&worker.row.worker_id) != Some(&Health::Silent)
        });
        alive.map(|worker| worker.since + self.failover_time).min()
    }

    /// Takes in a row that was read or written by itself, after the leases of the last view were read.
    pub fn learn(&mut self, row: Lease) {
        self.learned.insert(row.key.clone(), row);
    }

    /// A view of the same leases with the workers as they were seen last, and with the rows learned since.
    pub fn with_workers_now(&self, view: &FleetView) -> FleetView {
        let mut view = FleetView { workers: self.worker_views(), ..view.clone() };
        for (key, row) in &self.learned {
            let lease = LeaseView { row: row.clone(), owner_gone: false, free_rounds: 0 };
            view.leases.insert(key.clone(), lease);
        }
        view
    }

    /// Why a row that was read by itself is free to take, if nobody live holds it. An owner without a row is not judged:
    /// that takes more than one look.
    pub fn free(&self, row: &Lease) -> Option<Free> {
        let Some(owner) = &row.owner else { return Some(Free::Unowned) };
        (self.healths.get(owner) == Some(&Health::Silent)).then_some(Free::Silent)
    }

    /// Since when a worker's heartbeat has stood still, as this worker saw it.
    pub fn still_since(&self, worker: &WorkerId) -> Option<Instant> {
        self.workers.get(worker).map(|seen| seen.since)
    }

    /// Health as of the last look. One's own worker is never silent to itself: the right decides that.
    fn health(&self, worker: &SeenWorker, asked: Instant) -> Health {
        let still = asked.saturating_duration_since(worker.since);
        if worker.row.worker_id != self.me && still >= self.failover_time {
            return Health::Silent;
        }
        match worker.row.state {
            WorkerState::Active => Health::Active,
            WorkerState::Draining => Health::Draining,
        }
    }

    fn worker_views(&self) -> BTreeMap<WorkerId, WorkerView> {
        let view = |(id, worker): (&WorkerId, &SeenWorker)| {
            let seen = WorkerView {
                health: self.healths.get(id).copied().unwrap_or(Health::Active),
                seen_alive: worker.seen_alive,
                packing_versions: worker.row.packing_versions.iter().copied().collect(),
                state_version: worker.row.state_version,
                address: worker.row.address.clone(),
            };
            (id.clone(), seen)
        };
        self.workers.iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};

    const FAILOVER: Duration = Duration::from_secs(10);

    fn worker(name: &str, heartbeat: u64) -> WorkerRow {
        WorkerRow { heartbeat, ..WorkerRow::new(WorkerId::new(name)) }
    }

    fn lease(owner: Option<&str>, counter: u64) -> Lease {
        let row = Lease::unowned(ShardId::new("s-0"), Position::TrimHorizon, LeaseState::starting(None));
        Lease { owner: owner.map(WorkerId::new), counter: LeaseCounter(counter), ..row }
    }

    #[test]
    fn a_heartbeat_that_stands_still_for_the_failover_time_is_silence() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let start = Instant::now();
        let joined = observer.see_workers(vec![worker("a", 5), worker("me", 1)], start);
        assert_eq!(joined.len(), 2);
        assert_eq!(observer.next_silence(), Some(start + FAILOVER));
        assert!(
            observer
                .see_workers(
                    vec![worker("a", 5), worker("me", 1)],
                    start + FAILOVER - Duration::from_millis(1)
                )
                .is_empty()
        );
        let silent = observer.see_workers(vec![worker("a", 5), worker("me", 1)], start + FAILOVER);
        assert_eq!(silent, vec![(WorkerId::new("a"), Some(Health::Active), Some(Health::Silent))]);
        let heard = observer.see_workers(vec![worker("a", 6), worker("me", 1)], start + FAILOVER * 2);
        assert_eq!(heard, vec![(WorkerId::new("a"), Some(Health::Silent), Some(Health::Active))]);
        let left = observer.see_workers(vec![worker("me", 1)], start + FAILOVER * 2);
        assert_eq!(left, vec![(WorkerId::new("a"), Some(Health::Active), None)]);
    }

    #[test]
    fn a_worker_is_seen_alive_when_its_heartbeat_moves_or_its_row_appears() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let start = Instant::now();
        let mut look_at = |seconds, rows| {
            let now = start + Duration::from_secs(seconds);
            observer.see_workers(rows, now);
            let view = observer.see_leases(Vec::new(), now);
            let alive = view.workers.iter().filter(|(_, worker)| worker.seen_alive);
            alive.map(|(id, _)| id.to_string()).collect::<Vec<_>>()
        };
        let mut look = |rows| look_at(0, rows);
        assert_eq!(look(vec![worker("ghost", 5), worker("old", 7)]), [] as [&str; 0]);
        assert_eq!(look(vec![worker("ghost", 5), worker("old", 8), worker("young", 1)]), ["old", "young"]);
        assert_eq!(look(vec![worker("ghost", 5), worker("old", 8), worker("young", 1)]), ["old", "young"]);
        // After a while without a look, who beat meanwhile may be dead again.
        assert_eq!(look_at(60, vec![worker("old", 30), worker("new", 1)]), [] as [&str; 0]);
        assert_eq!(look_at(61, vec![worker("old", 31), worker("new", 1)]), ["old"]);
    }

    #[test]
    fn who_leaves_counts_on_those_it_saw_alive_if_there_are_any() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let start = Instant::now();
        let mut left = |rows| {
            observer.see_workers(rows, start);
            let view = observer.see_leases(Vec::new(), start).without_me();
            assert!(view.workers.get(&WorkerId::new("me")).is_none_or(|me| me.health == Health::Draining));
            view.workers.keys().map(WorkerId::to_string).collect::<Vec<_>>()
        };
        assert_eq!(left(vec![worker("ghost", 5), worker("me", 1)]), ["ghost", "me"]);
        assert_eq!(left(vec![worker("ghost", 5), worker("me", 2)]), ["ghost", "me"], "only this one lives");
        assert_eq!(left(vec![worker("ghost", 5), worker("me", 2), worker("young", 1)]), ["me", "young"]);
    }

    /// A process may stand still while an answer is on its way to it: others beat meanwhile.
    #[test]
    fn silence_lasts_until_the_rows_were_asked_for_and_not_until_they_came() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        observer.see_workers(vec![worker("a", 5)], Look { asked: ms(0), answered: ms(100) });
        observer.see_leases(vec![lease(Some("kcl"), 3)], Look { asked: ms(0), answered: ms(100) });
        for (asked, silent) in [(10_099, false), (10_100, true)] {
            let look = Look { asked: ms(asked), answered: ms(60_000) };
            let changes = observer.see_workers(vec![worker("a", 5)], look);
            assert_eq!(!changes.is_empty(), silent, "asked after {asked} ms");
            let view = observer.see_leases(vec![lease(Some("kcl"), 3)], look);
            assert_eq!(view.leases[&ShardId::new("s-0")].owner_gone, silent, "asked after {asked} ms");
        }
    }

    #[test]
    fn an_owner_without_a_row_is_gone_only_when_its_counter_stands_still() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let start = Instant::now();
        let view = observer.see_leases(vec![lease(Some("kcl"), 3)], start);
        assert_eq!(view.free(&view.leases[&ShardId::new("s-0")]), None);
        let view = observer.see_leases(vec![lease(Some("kcl"), 4)], start + FAILOVER);
        assert_eq!(view.free(&view.leases[&ShardId::new("s-0")]), None);
        let view = observer.see_leases(vec![lease(Some("kcl"), 4)], start + FAILOVER * 2);
        assert_eq!(view.free(&view.leases[&ShardId::new("s-0")]), Some(Free::Gone));
    }

    #[test]
    fn an_owner_without_a_row_is_undecided_until_it_shows_life_or_stands_still() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let start = Instant::now();
        let finished =
            Lease { key: ShardId::new("s-1"), checkpoint: Position::ShardEnd, ..lease(Some("old"), 1) };
        let kcl = |counter| vec![lease(Some("kcl"), counter), finished.clone()];
        observer.see_workers(vec![worker("me", 1)], start);
        let view = observer.see_leases(kcl(3), start);
        assert_eq!(view.undecided_owners(), [&WorkerId::new("kcl")].into(), "nobody writes a finished lease");
        observer.see_leases(kcl(5), start + FAILOVER / 3);
        assert_eq!(observer.newly_alive().len(), 1);
        observer.see_leases(kcl(6), start + FAILOVER / 2);
        assert_eq!(observer.newly_alive(), [], "it is told once");
        let view = observer.see_leases(kcl(6), start + FAILOVER * 2);
        assert_eq!(view.undecided_owners(), [].into());
    }

    #[test]
    fn rows_learned_by_themselves_count_until_all_are_read_again() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let (key, now) = (ShardId::new("s-0"), Instant::now());
        observer.see_workers(vec![worker("a", 1)], now);
        let view = observer.see_leases(vec![lease(Some("a"), 1)], now);
        observer.learn(lease(Some("me"), 2));
        assert_eq!(observer.with_workers_now(&view).leases[&key].row.owner, Some(WorkerId::new("me")));
        let view = observer.see_leases(vec![lease(Some("b"), 3)], now);
        assert_eq!(observer.with_workers_now(&view), view);
    }

    #[test]
    fn a_row_read_by_itself_is_free_if_nobody_or_a_silent_worker_owns_it() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let now = Instant::now();
        observer.see_workers(vec![worker("a", 1), worker("b", 1)], now);
        observer.see_workers(vec![worker("a", 1), worker("b", 2)], now + FAILOVER);
        let free = |owner| observer.free(&lease(owner, 1));
        assert_eq!((free(None), free(Some("a"))), (Some(Free::Unowned), Some(Free::Silent)));
        assert_eq!((free(Some("b")), free(Some("kcl"))), (None, None));
    }

    #[test]
    fn free_rounds_count_rounds_in_a_row() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let mut now = Instant::now();
        let mut seen =
            |now| observer.see_leases(vec![lease(None, 0)], now).leases[&ShardId::new("s-0")].free_rounds;
        for round in 1..4 {
            assert_eq!(seen(now), round);
            assert_eq!(seen(now + FAILOVER / 40), round, "nobody else may have looked since");
            now += FAILOVER / 20;
        }
        observer.see_workers(vec![worker("a", 1)], now);
        let view = observer.see_leases(vec![lease(Some("a"), 1)], now);
        assert_eq!(view.leases[&ShardId::new("s-0")].free_rounds, 0);
    }

    #[test]
    fn a_child_waits_for_its_parents_and_unreadable_rows_are_nobodys_here() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let child =
            Lease { key: ShardId::new("s-1"), parents: [ShardId::new("s-0")].into(), ..lease(None, 0) };
        let view = observer.see_leases(vec![lease(None, 0), child.clone()], Instant::now());
        assert!(!view.is_eligible(&view.leases[&child.key]));
        let ended = Lease { checkpoint: Position::ShardEnd, ..lease(None, 1) };
        let view = observer.see_leases(vec![ended, child.clone()], Instant::now());
        assert!(view.is_eligible(&view.leases[&child.key]));
        let why = sluicegate_checkpoint::DecodeStateError::Version { found: 9 };
        let newer =
            Lease { pending: Pending::Unreadable { bytes: bytes::Bytes::new(), why }, ..lease(None, 0) };
        let view = observer.see_leases(vec![newer], Instant::now());
        assert!(!view.is_eligible(&view.leases[&ShardId::new("s-0")]));
    }

    #[test]
    fn bytes_of_another_application_are_no_obstacle_and_are_told_of_once() {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let foreign = |counter| {
            let pending = Pending::Foreign { bytes: bytes::Bytes::from_static(b"theirs") };
            Lease { pending, ..lease(None, counter) }
        };
        let key = ShardId::new("s-0");
        let view = observer.see_leases(vec![foreign(0)], Instant::now());
        assert!(view.is_eligible(&view.leases[&key]));
        assert_eq!(observer.newly_foreign(), [key]);
        for rows in [vec![foreign(1)], vec![], vec![lease(None, 2)], vec![foreign(3)]] {
            observer.see_leases(rows, Instant::now());
            assert_eq!(observer.newly_foreign(), []);
        }
    }
}
