//! The fleet at one moment, for `/fleet`, the page and the metrics (pure). No payload of an event is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sluicegate_checkpoint::ShardId;
use sluicegate_lease::WritePace;

use super::moves::Move;
use super::tracker::{FleetTracker, Now, SeenShard, SeenWorker};

/// Events are to be readable within this time of their arrival.
pub const PROMISE: Duration = Duration::from_secs(300);
/// A shard younger than this is shown as fresh: a batch may stay open for a while.
const FRESH: Duration = Duration::from_secs(60);
/// Upper bounds of the ages by which shards are counted, in seconds; the last counts all.
pub const AGES: [f64; 11] =
    [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, f64::INFINITY];
/// How many of the oldest shards have a series of their own.
pub const WORST: usize = 50;

/// What the picture needs beside what was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// Name of the application.
    pub application: String,
    /// How long the stream keeps a record, once known.
    pub retention: Option<Duration>,
    /// The write budget of the fleet in units a second, if there is one.
    pub write_budget: Option<f64>,
    /// Where it comes from, in a word.
    pub write_budget_source: &'static str,
}

/// The fleet as this worker sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Picture {
    /// Name of the application.
    pub application: String,
    /// Who sees it so.
    pub seen_by: String,
    /// When: wall time in milliseconds.
    pub at_ms: i64,
    /// How long ago this worker last read the worker rows, or started if it has not yet: workers are shown as of then.
    pub last_read_seconds: f64,
    /// After how long a silence a worker is presumed dead.
    pub failover_seconds: f64,
    /// How long the stream keeps a record.
    pub retention_seconds: Option<f64>,
    /// Sums over all.
    pub totals: Totals,
    /// All workers with a row.
    pub workers: Vec<WorkerPicture>,
    /// All shards with a row.
    pub shards: Vec<ShardPicture>,
    /// The last changes of ownership, newest first.
    pub moves: Vec<Move>,
}

/// Sums over the fleet.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Workers that take leases.
    pub workers_active: usize,
    /// Workers that hand their leases over.
    pub workers_draining: usize,
    /// Workers whose heartbeat stands still.
    pub workers_silent: usize,
    /// Unfinished shards.
    pub shards: usize,
    /// Those that could be worked on and have no live owner.
    pub shards_unowned: usize,
    /// Those that wait for their parents.
    pub shards_waiting: usize,
    /// Those with something older than five minutes that is not durable.
    pub shards_late: usize,
    /// Shards that are read to their end.
    pub shards_finished: usize,
    /// Age of the oldest that is not durable.
    pub freshness_max_seconds: f64,
    /// How many shards are at most as old as each of [`AGES`].
    #[serde(skip)]
    pub ages: [usize; AGES.len()],
    /// Time until retention takes something that is not durable; none if all is.
    pub until_data_loss_seconds: Option<f64>,
    /// Shard-seconds without a live owner, since this worker started.
    pub orphaned_shard_seconds: f64,
    /// Memory of the live workers for records from fetch to durable, pages that are being read included.
    pub backlog_bytes: u64,
    /// The budget in write units a second.
    pub write_budget_units: Option<f64>,
    /// Where it comes from: `setting`, what the table says (`provisioned`, `on_demand_maximum`, `warm_throughput`), `none`, or
    /// `untold` where the table does not say.
    pub write_budget_source: &'static str,
    /// What the workers want to write, in units a second.
    pub write_demand_units: f64,
    /// What they were granted.
    pub write_grant_units: f64,
    /// What they write.
    pub write_used_units: f64,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerPicture {
    /// Its id.
    pub worker: String,
    /// `active`, `draining` or `silent`.
    pub state: &'static str,
    /// How long its heartbeat has stood still.
    pub last_seen_seconds: f64,
    /// Leases that name it as owner.
    pub leases: usize,
    /// Age of the oldest that is not durable in its shards.
    pub freshness_max_seconds: f64,
    /// What it wants to write, in units a second.
    pub write_demand_units: f64,
    /// Its share of the budget.
    pub write_grant_units: f64,
    /// The rate that throttling has taught it, if it has.
    pub write_rate_units: Option<f64>,
    /// What it writes.
    pub write_used_units: f64,
    /// At which rate it writes at most, and why; none of a build that does not tell.
    pub write_pace: Option<PacePicture>,
    /// Memory that it keeps for records from fetch to durable, pages that are being read included.
    pub backlog_bytes: u64,
    /// Where its admin server is.
    pub address: Option<String>,
    /// Version of its build.
    pub version: String,
}

/// At which rate a worker writes at most.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PacePicture {
    /// In units a second.
    pub rate_units: f64,
    /// Why: `share`, `beyond_share`, `searching`, `refused`, `told`, `shut` or `reopened`.
    pub reason: String,
    /// Since when that is the reason: wall time in milliseconds.
    pub since_ms: i64,
    /// Keys whose partitions refuse.
    pub hot_keys: u64,
}

impl PacePicture {
    fn of(pace: &WritePace) -> Self {
        Self {
            rate_units: units(pace.rate_milli),
            reason: pace.reason.clone(),
            since_ms: pace.since.saturating_mul(1_000),
            hot_keys: pace.hot_keys,
        }
    }
}

/// How a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardState {
    /// Nothing that is older than a minute waits.
    Fresh,
    /// Something older than a minute waits.
    Behind,
    /// Something older than the promise waits.
    Late,
    /// It could be worked on, and no live worker has it.
    Unowned,
    /// Its parents are not read to their end.
    Waiting,
    /// It is read to its end.
    Finished,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardPicture {
    /// Its id.
    pub shard: String,
    /// Who has its lease.
    pub owner: Option<String>,
    /// How it is.
    pub state: ShardState,
    /// Age of the oldest that is not durable; 0 if all is.
    pub freshness_seconds: f64,
    /// Distance of reading from the tip, if its owner has said so.
    pub lag_seconds: Option<f64>,
    /// Time until retention takes something that is not durable.
    pub until_data_loss_seconds: Option<f64>,
    /// Arrival of the last committed record, wall time in milliseconds.
    pub committed_arrival_ms: Option<i64>,
    /// Batches announced and not committed.
    pub announced: usize,
    /// Kilobytes a second that it carries, as its row tells.
    pub throughput_kbps: Option<String>,
    /// How often it changed hands since its last commit.
    pub owner_switches: u64,
}

impl FleetTracker {
    /// The fleet at this moment.
    pub fn picture(&mut self, frame: &Frame, now: Now) -> Picture {
        let orphaned = self.orphaned(now.at);
        let shards: Vec<ShardPicture> =
            self.shards.iter().map(|(key, shard)| self.shard(key, shard, frame, now)).collect();
        let workers = self.worker_pictures(&shards, now);
        let mut totals = totals(&shards, &workers);
        totals.orphaned_shard_seconds = orphaned.as_secs_f64();
        totals.write_budget_units = frame.write_budget;
        totals.write_budget_source = frame.write_budget_source;
        Picture {
            application: frame.application.clone(),
            seen_by: self.me.to_string(),
            at_ms: now.wall.0,
            last_read_seconds: now.at.saturating_duration_since(self.last_read).as_secs_f64(),
            failover_seconds: self.failover_time.as_secs_f64(),
            retention_seconds: frame.retention.map(|retention| retention.as_secs_f64()),
            totals,
            workers,
            shards,
            moves: self.moves.newest_first(),
        }
    }

    fn shard(&self, key: &ShardId, shard: &SeenShard, frame: &Frame, now: Now) -> ShardPicture {
        let counts = !shard.row.finished && shard.row.startable;
        let age = if counts { self.age(shard, now) } else { Duration::ZERO };
        let state = match () {
            () if shard.row.finished => ShardState::Finished,
            () if !shard.row.startable => ShardState::Waiting,
            () if shard.orphan_since.is_some() => ShardState::Unowned,
            () if age > PROMISE => ShardState::Late,
            () if age > FRESH => ShardState::Behind,
            () => ShardState::Fresh,
        };
        let at_risk = frame.retention.filter(|_| !age.is_zero());
        ShardPicture {
            shard: key.to_string(),
            owner: shard.owner.as_ref().map(ToString::to_string),
            state,
            freshness_seconds: age.as_secs_f64(),
            lag_seconds: self.lag(shard, now).filter(|_| counts).map(|lag| lag.as_secs_f64()),
            until_data_loss_seconds: at_risk.map(|kept| kept.as_secs_f64() - age.as_secs_f64()),
            committed_arrival_ms: shard.row.arrival.map(|at| at.0),
            announced: shard.row.announced,
            throughput_kbps: shard.row.throughput.clone(),
            owner_switches: shard.row.owner_switches,
        }
    }

    fn worker_pictures(&self, shards: &[ShardPicture], now: Now) -> Vec<WorkerPicture> {
        let mut held: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        for shard in shards.iter().filter(|shard| shard.state != ShardState::Finished) {
            let Some(owner) = &shard.owner else { continue };
            let (leases, oldest) = held.entry(owner).or_default();
            *leases += 1;
            *oldest = oldest.max(shard.freshness_seconds);
        }
        let picture = |worker: &SeenWorker| {
            let row = &worker.row;
            let (leases, oldest) = held.get(row.worker_id.as_str()).copied().unwrap_or_default();
            WorkerPicture {
                worker: row.worker_id.to_string(),
                state: self.health(worker).label(),
                last_seen_seconds: now.at.saturating_duration_since(worker.since).as_secs_f64(),
                leases,
                freshness_max_seconds: oldest,
                write_demand_units: units(row.write_demand_milli),
                write_grant_units: units(row.write_grant_milli),
                write_rate_units: (row.write_rate_milli > 0).then(|| units(row.write_rate_milli)),
                write_used_units: units(row.write_used_milli),
                write_pace: row.write_pace.as_deref().map(PacePicture::of),
                backlog_bytes: row.backlog_bytes,
                address: row.address.clone(),
                version: row.version.clone(),
            }
        };
        self.workers.values().map(picture).collect()
    }
}

impl Picture {
    /// The oldest shards with their ages in seconds, oldest first; those that are caught up are not among them.
    pub fn worst(&self) -> Vec<(&str, f64)> {
        let behind = self.shards.iter().filter(|shard| shard.freshness_seconds > 0.0);
        let mut ages: Vec<(&str, f64)> =
            behind.map(|shard| (shard.shard.as_str(), shard.freshness_seconds)).collect();
        ages.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        ages.truncate(WORST);
        ages
    }
}

fn totals(shards: &[ShardPicture], workers: &[WorkerPicture]) -> Totals {
    let in_state = |state| shards.iter().filter(|shard| shard.state == state).count();
    let startable =
        || shards.iter().filter(|shard| !matches!(shard.state, ShardState::Finished | ShardState::Waiting));
    let of_workers = |state| workers.iter().filter(|worker| worker.state == state).count();
    let live = || workers.iter().filter(|worker| worker.state != "silent");
    let finished = in_state(ShardState::Finished);
    Totals {
        workers_active: of_workers("active"),
        workers_draining: of_workers("draining"),
        workers_silent: of_workers("silent"),
        shards: shards.len() - finished,
        shards_unowned: in_state(ShardState::Unowned),
        shards_waiting: in_state(ShardState::Waiting),
        shards_late: startable().filter(|shard| shard.freshness_seconds > PROMISE.as_secs_f64()).count(),
        shards_finished: finished,
        freshness_max_seconds: startable().map(|shard| shard.freshness_seconds).fold(0.0, f64::max),
        ages: AGES.map(|bound| startable().filter(|shard| shard.freshness_seconds <= bound).count()),
        until_data_loss_seconds: startable()
            .filter_map(|shard| shard.until_data_loss_seconds)
            .min_by(f64::total_cmp),
        orphaned_shard_seconds: 0.0,
        backlog_bytes: live().map(|worker| worker.backlog_bytes).sum(),
        write_budget_units: None,
        write_budget_source: "none",
        write_demand_units: live().map(|worker| worker.write_demand_units).sum(),
        write_grant_units: live().map(|worker| worker.write_grant_units).sum(),
        write_used_units: live().map(|worker| worker.write_used_units).sum(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 thousandths of a unit")]
fn units(milli: u64) -> f64 {
    milli as f64 / 1_000.0
}
