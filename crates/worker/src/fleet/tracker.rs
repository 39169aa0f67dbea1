//! Keeps what was last said of each shard and worker, and since when (pure).

use std::collections::BTreeMap;
use std::time::Duration;

use sluicegate_checkpoint::{ArrivalMillis, ShardId};
use sluicegate_lease::view::{FleetView, Health, LeaseView, Look};
use sluicegate_lease::{Behind, Lease, LeaseCounter, Pending, WorkerId, WorkerRow, WorkerState};
use tokio::time::Instant;

use super::moves::{LastKnown, Moves, Why, why};

/// A moment, as the monotonic clock and as the wall tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// What lasts is measured by this one.
    pub at: Instant,
    /// What arrived is compared with this one.
    pub wall: ArrivalMillis,
}

/// What a session of this worker says of its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnShard {
    /// What arrived before this time is durable.
    pub durable_to: ArrivalMillis,
    /// Whether that was all there was when the shard was last read.
    pub caught_up: bool,
    /// Distance of reading from the tip.
    pub lag: Duration,
}

/// What was last said of a shard's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) age: Duration,
    pub(super) lag: Option<Duration>,
    at: Instant,
}

/// A shard as it was last seen.
#[derive(Debug, Clone)]
pub(super) struct SeenShard {
    pub(super) owner: Option<WorkerId>,
    counter: LeaseCounter,
    /// Since when its owner has had it, or has worked on it anew if that is this worker.
    held_since: Instant,
    /// Heartbeat of the owner from which on its row says by silence that the shard is caught up: a row that was on its way
    /// when the lease changed hands knows nothing of it.
    tells_from: u64,
    statement: Statement,
    covered_to: Option<ArrivalMillis>,
    pub(super) row: RowFacts,
    /// Since when the time without a live owner is not counted yet; none while it has one, or cannot be worked on.
    pub(super) orphan_since: Option<Instant>,
}

/// What a lease row says beside its owner.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RowFacts {
    pub(super) finished: bool,
    /// Whether it can be worked on now: unfinished, and no parent stands before it.
    pub(super) startable: bool,
    pub(super) announced: usize,
    pub(super) arrival: Option<ArrivalMillis>,
    pub(super) throughput: Option<String>,
    pub(super) owner_switches: u64,
}

/// A worker as it was last seen.
#[derive(Debug, Clone)]
pub(super) struct SeenWorker {
    pub(super) row: WorkerRow,
    /// Since when its heartbeat stands still.
    pub(super) since: Instant,
}

/// What this worker knows of the fleet.
#[derive(Debug)]
pub struct FleetTracker {
    pub(super) me: WorkerId,
    pub(super) failover_time: Duration,
    /// When the worker rows were last asked for of those looks that were answered; when this worker started, before the
    /// first. What is known of workers is as of then.
    pub(super) last_read: Instant,
    /// From when on others last had to count this worker as silent.
    silent_from: Option<Instant>,
    pub(super) workers: BTreeMap<WorkerId, SeenWorker>,
    /// What was last known of owners.
    known: BTreeMap<WorkerId, LastKnown>,
    pub(super) shards: BTreeMap<ShardId, SeenShard>,
    pub(super) moves: Moves,
    orphaned: Duration,
}

/// Shards younger than this are not told of in the heartbeat: they are as good as caught up.
const WORTH_TELLING: Duration = Duration::from_secs(1);

impl FleetTracker {
    /// Has seen nothing yet.
    pub fn new(me: WorkerId, failover_time: Duration, started: Instant) -> Self {
        Self {
            me,
            failover_time,
            last_read: started,
            silent_from: None,
            workers: BTreeMap::new(),
            known: BTreeMap::new(),
            shards: BTreeMap::new(),
            moves: Moves::default(),
            orphaned: Duration::ZERO,
        }
    }

    /// Takes in the worker rows of a look. A heartbeat that moved is a new statement on each shard of its worker.
    pub fn see_workers(&mut self, rows: &[WorkerRow], look: Look) {
        let at = look.answered;
        self.last_read = look.asked;
        if let Some(me) = self.workers.get(&self.me).filter(|me| self.stands_still(me, at)) {
            self.silent_from = Some(me.since + self.failover_time);
        }
        let mut seen = BTreeMap::new();
        let mut told: BTreeMap<&WorkerId, Told<'_>> = BTreeMap::new();
        for row in rows {
            let still = self.workers.get(&row.worker_id).filter(|old| old.row.heartbeat == row.heartbeat);
            let since = still.map_or(at, |old| old.since);
            if still.is_none() {
                told.insert(&row.worker_id, Told::of(row));
            }
            seen.insert(row.worker_id.clone(), SeenWorker { row: row.clone(), since });
        }
        self.workers = seen;
        for (id, seen) in &self.workers {
            let health = self.health(seen);
            self.known.insert(id.clone(), LastKnown { health, gone: false });
        }
        for (id, known) in &mut self.known {
            known.gone = !self.workers.contains_key(id);
        }
        for (key, shard) in &mut self.shards {
            let Some(told) = shard.owner.as_ref().and_then(|owner| told.get(owner)) else { continue };
            if let Some((age, lag)) = told.of_shard(key, shard.tells_from) {
                shard.statement = Statement { age, lag, at };
            }
        }
    }

    /// Takes in a view, as a scan found it or as takes changed it.
    pub fn see_view(&mut self, view: &FleetView, now: Now) {
        self.shards.retain(|key, _| view.leases.contains_key(key));
        for (key, lease) in &view.leases {
            let free = view.free(lease).is_some();
            let startable = is_startable(view, lease);
            self.see_row(key, &lease.row, startable, free, now);
        }
        let owners: std::collections::BTreeSet<&WorkerId> =
            self.shards.values().filter_map(|shard| shard.owner.as_ref()).collect();
        let workers = &self.workers;
        self.known.retain(|id, _| workers.contains_key(id) || owners.contains(id));
    }

    /// Takes in a row of this worker's own: it begins to work on the shard.
    pub fn begun(&mut self, row: &Lease, now: Now) {
        self.see_row(&row.key, row, true, false, now);
        if let Some(shard) = self.shards.get_mut(&row.key) {
            shard.held_since = now.at;
        }
    }

    /// Takes in what this worker's sessions say. A shard that was at its tip when it was last read is fresh for as long as
    /// reads usually take.
    pub fn own(&mut self, own: &BTreeMap<ShardId, OwnShard>, usual: Duration, now: Now) {
        for (key, own) in own {
            let Some(shard) = self.shards.get_mut(key) else { continue };
            if shard.owner.as_ref() != Some(&self.me) {
                continue;
            }
            let age = since(own.durable_to, now.wall);
            let age = if own.caught_up && age < usual { Duration::ZERO } else { age };
            shard.statement = Statement { age, lag: Some(own.lag), at: now.at };
        }
    }

    /// What the next heartbeat tells of this worker's shards: the oldest, in the order of their ids.
    pub fn tell(&self, now: Now) -> Vec<Behind> {
        let mine = self.shards.iter().filter(|(_, shard)| {
            shard.owner.as_ref() == Some(&self.me) && !shard.row.finished && shard.row.startable
        });
        let behind = |(key, shard): (&ShardId, &SeenShard)| {
            let age = self.age(shard, now);
            let lag_ms = shard.statement.lag.map_or(0, millis);
            (age >= WORTH_TELLING).then(|| Behind { shard: key.clone(), age_ms: millis(age), lag_ms })
        };
        let mut behind: Vec<Behind> = mine.filter_map(behind).collect();
        behind.sort_by(|a, b| b.age_ms.cmp(&a.age_ms).then_with(|| a.shard.cmp(&b.shard)));
        behind.truncate(WorkerRow::MOST_BEHIND);
        behind.sort_by(|a, b| a.shard.as_str().cmp(b.shard.as_str()));
        behind
    }

    /// How long shards that could be worked on have been without a live owner, all together, as far as this worker saw it.
    pub fn orphaned(&mut self, at: Instant) -> Duration {
        for shard in self.shards.values_mut() {
            if let Some(since) = shard.orphan_since.as_mut() {
                self.orphaned += at.saturating_duration_since(*since);
                *since = (*since).max(at);
            }
        }
        self.orphaned
    }

    /// How old what is not durable of a shard may be.
    pub(super) fn age(&self, shard: &SeenShard, now: Now) -> Duration {
        let still = now.at.saturating_duration_since(shard.statement.at);
        let stated = shard.statement.age;
        let age = if still < self.failover_time { stated } else { stated + still };
        // A commit that a scan found says more than an old statement.
        shard.covered_to.map_or(age, |to| age.min(since(to, now.wall)))
    }

    /// Distance of reading from the tip, if somebody has said so who may still be there.
    pub(super) fn lag(&self, shard: &SeenShard, now: Now) -> Option<Duration> {
        let still = now.at.saturating_duration_since(shard.statement.at);
        shard.statement.lag.filter(|_| still < self.failover_time)
    }

    /// Whether a heartbeat stood still at this time for so long that its worker counts as dead.
    fn stands_still(&self, worker: &SeenWorker, at: Instant) -> bool {
        at.saturating_duration_since(worker.since) >= self.failover_time
    }

    /// Health as of the last look: of what came later nothing is known.
    pub(super) fn health(&self, worker: &SeenWorker) -> Health {
        match worker.row.state {
            _ if self.stands_still(worker, self.last_read) => Health::Silent,
            WorkerState::Active => Health::Active,
            WorkerState::Draining => Health::Draining,
        }
    }

    /// What is known of an owner whose lease somebody else has now. One that has missed two heartbeats is as good as silent:
    /// others may have seen its last one earlier than this worker has. And this worker was silent itself if it has been cut
    /// off since it began to work on the shard: it handed nothing over then.
    fn last_known(&self, owner: &WorkerId, held_since: Instant) -> Option<LastKnown> {
        let known = self.known.get(owner).copied()?;
        let was_cut_off = *owner == self.me && self.silent_from.is_some_and(|from| from >= held_since);
        let missed = self.workers.get(owner).is_some_and(|seen| {
            seen.row.state == WorkerState::Active
                && self.last_read.saturating_duration_since(seen.since) >= self.failover_time * 2 / 3
        });
        Some(if missed || was_cut_off { LastKnown { health: Health::Silent, ..known } } else { known })
    }

    fn see_row(&mut self, key: &ShardId, row: &Lease, startable: bool, free: bool, now: Now) {
        let state = row.pending.state();
        let covered_to = state.as_ref().and_then(|state| state.covered_to());
        let facts = RowFacts {
            finished: row.is_finished(),
            startable,
            announced: state.as_ref().map_or(0, |state| state.cuts.len()),
            arrival: state.and_then(|state| state.checkpoint_arrival),
            throughput: row.throughput.map(|throughput| throughput.to_string()),
            owner_switches: row.owner_switches,
        };
        // Nobody has said anything of a new shard yet: then its row alone tells.
        let unsaid = Statement {
            age: covered_to.map_or(Duration::ZERO, |to| since(to, now.wall)),
            lag: None,
            at: now.at,
        };
        // A scan may have passed the row before this worker wrote it.
        if self.shards.get(key).is_some_and(|seen| row.counter < seen.counter) {
            return;
        }
        let before = self.shards.remove(key);
        let (owner, had_row) = (row.owner.clone(), before.is_some());
        let before = before.unwrap_or_else(|| SeenShard {
            owner: owner.clone(),
            counter: row.counter,
            held_since: now.at,
            tells_from: 0,
            statement: unsaid,
            covered_to,
            row: facts.clone(),
            orphan_since: None,
        });
        let moved = before.owner != owner;
        if moved {
            let from = before.owner.as_ref().and_then(|owner| self.last_known(owner, before.held_since));
            let why = why(from, before.owner.is_some(), owner.is_some());
            self.moves.push(now.wall, key, [before.owner.as_ref(), owner.as_ref()], why);
            if why == Why::Failover
                && before.orphan_since.is_none()
                && before.owner.as_ref() != Some(&self.me)
            {
                // Others were faster: the shard was never seen without an owner. For how long this worker's own shards had
                // none while it was cut off, those know who took them.
                let silent = before.owner.as_ref().and_then(|owner| self.workers.get(owner));
                self.orphaned +=
                    silent.map_or(Duration::ZERO, |seen| now.at.saturating_duration_since(seen.since));
            }
        }
        let beat = |owner: &WorkerId| self.workers.get(owner).map_or(0, |worker| worker.row.heartbeat);
        let tells_from = if moved || !had_row {
            owner.as_ref().map_or(0, |owner| beat(owner) + 2)
        } else {
            before.tells_from
        };
        let orphan = free && startable && !facts.finished;
        let orphan_since = self.orphan_since(&before, owner.as_ref(), orphan, now.at);
        let statement = if facts.finished {
            Statement { age: Duration::ZERO, lag: None, at: now.at }
        } else {
            before.statement
        };
        let counter = row.counter;
        let held_since = if moved { now.at } else { before.held_since };
        let row = facts;
        let seen =
            SeenShard { owner, counter, held_since, tells_from, statement, covered_to, row, orphan_since };
        self.shards.insert(key.clone(), seen);
    }

    /// Since when a shard is without a live owner; what is over is counted.
    fn orphan_since(
        &mut self,
        before: &SeenShard,
        owner: Option<&WorkerId>,
        orphan: bool,
        at: Instant,
    ) -> Option<Instant> {
        match (before.orphan_since, orphan) {
            (Some(since), true) => Some(since),
            (Some(since), false) => {
                self.orphaned += at.saturating_duration_since(since);
                None
            }
            // From its owner's last sign of life.
            (None, true) => {
                Some(owner.and_then(|owner| self.workers.get(owner)).map_or(at, |seen| seen.since))
            }
            (None, false) => None,
        }
    }
}

/// Whether a lease can be worked on, by whatever build.
fn is_startable(view: &FleetView, lease: &LeaseView) -> bool {
    let unreadable = matches!(lease.row.pending, Pending::Unreadable { .. });
    view.is_eligible(lease) || (unreadable && !lease.row.is_finished())
}

/// What one row tells of its worker's shards.
struct Told<'a> {
    heartbeat: u64,
    listed: BTreeMap<&'a ShardId, &'a Behind>,
    /// Oldest that a shard which is not listed can be.
    others: Duration,
}

impl<'a> Told<'a> {
    fn of(row: &'a WorkerRow) -> Self {
        let least = row.behind.iter().map(|behind| behind.age_ms).min().unwrap_or(0);
        let full = row.behind.len() >= WorkerRow::MOST_BEHIND;
        Self {
            heartbeat: row.heartbeat,
            listed: row.behind.iter().map(|behind| (&behind.shard, behind)).collect(),
            others: Duration::from_millis(if full { least } else { 0 }),
        }
    }

    fn of_shard(&self, shard: &ShardId, tells_from: u64) -> Option<(Duration, Option<Duration>)> {
        if let Some(behind) = self.listed.get(shard) {
            let lag = Duration::from_millis(behind.lag_ms);
            return Some((Duration::from_millis(behind.age_ms), Some(lag)));
        }
        (self.heartbeat >= tells_from)
            .then_some((self.others, self.others.is_zero().then_some(Duration::ZERO)))
    }
}

pub(super) fn since(then: ArrivalMillis, wall: ArrivalMillis) -> Duration {
    Duration::from_millis(u64::try_from(wall.0.saturating_sub(then.0)).unwrap_or(0))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
