//! How often a worker scans the lease table, and whether an event is worth a scan: decided from what a scan costs and
//! how many workers make one (pure).
//!
//! Scans grow with leases times workers, and nothing else that a quiet fleet does grows like that. So the fleet has a
//! budget for them. A fleet that stays within it scans every half of the failover time and at every event. A larger one
//! stretches the period, so that all its workers together stay within the budget, and spreads the scans, so that
//! somewhere a worker still scans every few seconds. That worker tells the others what they would find.
//!
//! ```text
//! 100 leases on 4 workers     10 units a scan     every  5 s each    somewhere every 1.3 s      8 units/s
//! 1,000 on 10                100 units            every 10 s         every 1 s                100 units/s
//! 10,000 on 100            1,000 units            every 48 s         every 0.5 s            2,083 units/s
//! ```
//! (Failover time 10 s. A unit is a strongly consistent read of 4 KB.)

use std::time::Duration;

use crate::model::{Lease, Pending, WorkerId};
use crate::plan::tie;
use crate::view::{FleetView, Health};

/// What the scans of a whole fleet may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanBudget {
    /// Read units a minute for regular scans, as long as that leaves rests below [`LONGEST_REST`].
    pub per_minute: u32,
    /// Read units that all workers may spend at once when something happens. Beyond it they plan from what they know.
    /// (One partition of a table gives 3,000 a second.)
    pub at_once: u32,
}

impl Default for ScanBudget {
    fn default() -> Self {
        Self { per_minute: 6_000, at_once: 1_000 }
    }
}

/// A worker finds at the latest after this time what it was not told: a lease that was handed to it and whose nudge was
/// lost.
pub const LONGEST_REST: Duration = Duration::from_secs(60);
/// Somewhere in the fleet a worker scans at least this often: a hole must be found and repaired within 30 s.
const FLEET_SCANS_EVERY: Duration = Duration::from_secs(10);

/// Shortest time between two rounds, however often somebody nudges, where scans cost next to nothing.
const NUDGED_APART: Duration = Duration::from_millis(20);
/// The same where they cost most: the children of a finished shard begin within 2 s.
const NUDGED_APART_AT_MOST: Duration = Duration::from_secs(1);
/// Read units a second that a fleet whose workers are all nudged may spend.
const NUDGED_PER_SECOND: u64 = 4_000;

/// Bytes of a strongly consistent read unit (DynamoDB developer guide, read capacity units).
const READ_UNIT_BYTES: u64 = 4_096;
/// About what a row takes in the table beside what [`row_bytes`] counts: attribute names, numbers, hash keys, an empty
/// state.
const BARE_ROW_BYTES: usize = 330;
/// About what an announced cut takes in it.
const CUT_BYTES: usize = 150;

/// How fast this worker looks at the lease table.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    failover_time: Duration,
    budget: Option<ScanBudget>,
    scans: u64,
    /// Units that a scan by every worker takes.
    all_units: u64,
    workers: u32,
}

impl Pace {
    /// Before the first scan: nothing is known of its cost.
    pub fn new(failover_time: Duration, budget: Option<ScanBudget>) -> Self {
        Self { failover_time, budget, scans: 0, all_units: 1, workers: 1 }
    }

    /// Takes in what a scan found.
    pub fn scanned(&mut self, view: &FleetView) {
        let bytes: usize = view.leases.values().map(|lease| row_bytes(&lease.row)).sum();
        let scanning = view.workers.values().filter(|worker| worker.health != Health::Silent).count();
        self.workers = u32::try_from(scanning.max(1)).unwrap_or(u32::MAX);
        let units = u64::try_from(bytes).unwrap_or(u64::MAX).div_ceil(READ_UNIT_BYTES).max(1);
        self.all_units = units.saturating_mul(u64::from(self.workers));
        self.scans += 1;
    }

    /// Time from one regular scan of a worker to its next, on average.
    pub fn period(&self) -> Duration {
        let Some(budget) = self.budget else { return self.failover_time / 2 };
        let within_budget = Duration::from_secs(self.all_units.saturating_mul(60)) / budget.per_minute.max(1);
        let longest = (LONGEST_REST * 4 / 5).min(FLEET_SCANS_EVERY * self.workers);
        within_budget.min(longest).max(self.failover_time / 2)
    }

    /// Whether periods are longer than in a small fleet.
    fn is_stretched(&self) -> bool {
        self.period() > self.failover_time / 2
    }

    /// Time to a worker's next regular scan. Stretched periods differ by worker and time: workers that began together
    /// do not go on scanning together.
    pub fn rest(&self, me: &WorkerId) -> Duration {
        let period = self.period();
        if !self.is_stretched() {
            return period;
        }
        let parts = tie(me.as_str(), &self.scans.to_string()) % 1_000;
        let share = if self.scans <= 1 { parts } else { 750 + parts / 2 };
        let rest = period * u32::try_from(share).unwrap_or(1_000) / 1_000;
        rest.max(self.failover_time / 20)
    }

    /// Whether all workers may scan at once, because one joined, left, fell silent or drains. Otherwise each plans from
    /// the rows that it knows.
    pub fn scans_at_events(&self) -> bool {
        self.budget.is_none_or(|budget| self.all_units <= u64::from(budget.at_once))
    }

    /// Shortest time between two scans, however often somebody nudges.
    pub fn nudged_apart(&self) -> Duration {
        let fair = Duration::from_millis(self.all_units.saturating_mul(1_000) / NUDGED_PER_SECOND);
        fair.clamp(NUDGED_APART, NUDGED_APART_AT_MOST)
    }
}

/// What a quiet fleet takes of its lease table and worker table, in units a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AtRest {
    /// Heartbeats.
    pub writes: f64,
    /// Scans of the lease table, and looks at the worker rows.
    pub reads: f64,
}

/// About what a row of a quiet shard, and of a worker, takes in a read (docs/cost.md).
const QUIET_LEASE_BYTES: f64 = 455.0;
const WORKER_BYTES: f64 = 240.0;
/// How often a worker looks for shards without a row, on average, in a stream of few; with a thousand shards half as often.
const SHARD_SYNC_SECONDS: f64 = 45.0;

/// Forecasts it for so many leases and workers.
pub fn at_rest(leases: u32, workers: u32, failover_time: Duration, budget: Option<ScanBudget>) -> AtRest {
    let unit = f64::from(u32::try_from(READ_UNIT_BYTES).unwrap_or(u32::MAX));
    let scan = (f64::from(leases) * QUIET_LEASE_BYTES / unit).ceil().max(1.0);
    let all_scans = scan * f64::from(workers);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let all_units = all_scans as u64;
    let period = Pace { all_units, workers, ..Pace::new(failover_time, budget) }.period();
    let syncs = all_scans / SHARD_SYNC_SECONDS / (1.0 + f64::from(leases) / 1_000.0);
    let (look, failover) =
        ((f64::from(workers) * WORKER_BYTES / unit).ceil().max(1.0), failover_time.as_secs_f64());
    AtRest {
        writes: f64::from(workers) * 3.0 / failover,
        reads: all_scans / period.as_secs_f64() + syncs + f64::from(workers) * look * 20.0 / failover,
    }
}

/// About how many bytes of a scan a row is.
fn row_bytes(row: &Lease) -> usize {
    let related: usize = row.parents.iter().chain(&row.children).map(|shard| shard.as_str().len() + 8).sum();
    let owner = row.owner.as_ref().map_or(0, |owner| owner.as_str().len());
    let cuts = match &row.pending {
        Pending::Ours(state) => state.cuts.len(),
        Pending::None | Pending::Foreign { .. } | Pending::Unreadable { .. } => 0,
    };
    BARE_ROW_BYTES + row.key.as_str().len() + owner + related + cuts * CUT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamodb::lease_bytes;
    use proptest::prelude::*;
    use sluicegate_checkpoint::{
        ArrivalMillis, HashKeyRange, LeaseState, Position, SequenceNumber, ShardId, SubSequenceNumber,
    };

    const FAILOVER: Duration = Duration::from_secs(10);

    fn pace(units: u64, workers: u32) -> Pace {
        let all_units = units * u64::from(workers);
        Pace { workers, all_units, ..Pace::new(FAILOVER, Some(ScanBudget::default())) }
    }

    #[test]
    fn small_fleets_scan_as_they_always_did_and_large_ones_stay_within_the_budget() {
        let seconds = |units, workers| pace(units, workers).period().as_secs();
        assert_eq!(seconds(1, 2), 5);
        assert_eq!(seconds(10, 4), 5);
        assert_eq!(seconds(100, 10), 10);
        assert_eq!(seconds(300, 10), 30);
        assert_eq!(seconds(1_000, 100), 48, "what a worker was not told it finds within a minute");
        assert_eq!(seconds(10_000, 1), 10, "somebody must look for holes");
        assert!(pace(100, 10).scans_at_events() && !pace(1_000, 100).scans_at_events());
        assert_eq!(pace(1, 3).nudged_apart(), Duration::from_millis(20));
        assert_eq!(pace(100, 10).nudged_apart(), Duration::from_millis(250));
        assert_eq!(pace(1_000, 100).nudged_apart(), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn periods_keep_every_bound(units in 1u64..20_000, workers in 1u32..1_000, failover in 1u64..300) {
            let failover = Duration::from_secs(failover);
            let pace = Pace { failover_time: failover, ..pace(units, workers) };
            let period = pace.period();
            prop_assert!(period >= failover / 2);
            prop_assert!(period <= LONGEST_REST.max(failover / 2));
            prop_assert!(period / workers <= FLEET_SCANS_EVERY.max(failover / 2));
            let rate = units * u64::from(workers) * 1_000 / u64::try_from(period.as_millis()).unwrap();
            let bounded = period >= LONGEST_REST * 4 / 5 || period >= FLEET_SCANS_EVERY * workers;
            prop_assert!(bounded || rate <= 100, "{rate} units/s");
            let me = WorkerId::new("me");
            for scans in 1..20 {
                let rest = Pace { scans, ..pace }.rest(&me);
                prop_assert!(rest <= LONGEST_REST.max(failover / 2));
                prop_assert!(rest <= period * 5 / 4 && (scans == 1 || rest >= period * 3 / 4));
            }
        }
    }

    #[test]
    fn workers_that_begin_together_spread_their_scans() {
        let pace = pace(1_000, 100);
        let mut at: Vec<Duration> = Vec::new();
        for worker in 0..100 {
            let me = WorkerId::new(format!("sluicegate-{worker}"));
            let mut due = Duration::ZERO;
            for scans in 1.. {
                due += Pace { scans, ..pace }.rest(&me);
                if due >= Duration::from_secs(600) {
                    break;
                }
                at.push(due);
            }
        }
        at.sort();
        let apart = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(apart < Duration::from_secs(5), "{apart:?} without a scan");
        assert!(at.len() < 100 * (600 / 48 + 2), "{} scans", at.len());
    }

    #[test]
    fn a_rows_size_is_guessed_well_enough() {
        let number = SequenceNumber::parse("49".repeat(28)).unwrap();
        let state =
            LeaseState { caught_up: Some(ArrivalMillis(1_700_000_000_000)), ..LeaseState::starting(None) };
        let id = ShardId::new("shardId-000000000123");
        let row = Lease::unowned(id.clone(), Position::At(number, SubSequenceNumber(0)), state);
        let row = Lease {
            hash_range: Some(HashKeyRange { start: u128::MAX / 3, end: u128::MAX / 2 }),
            parents: [id].into(),
            ..row.taken_by(&WorkerId::new("sluicegate-7d9c5b8f4-abcde-550e8400e29b41d4a716446655440000"))
        };
        let (guess, exact) = (row_bytes(&row), lease_bytes(&row));
        assert!((exact * 8 / 10..exact * 12 / 10).contains(&guess), "{guess} for {exact}");
    }
}
