//! Whether a limited table is used and every worker gets its part (law R6), and whether a hot key range slows other keys
//! (law R7). **Pure**, over a recorded history.
//!
//! *R6.* Steps count while the script does nothing to the fleet but publish, while the capacity does not rise, and while at
//! least one second's worth of it waits: of the whole capacity for the table, of an equal part for a worker. The first
//! [`FOUND_WITHIN`] of such a stretch are for finding the capacity. After those, over each 10 s, the table must take half of
//! its capacity, and each worker must get half of an equal part: the capacity divided by the workers that have anything to
//! write at that step. A write budget below the capacity takes its place. One item of the largest size may be missing, since
//! items straddle the ends of the 10 s; if 10 s bring less than [`LARGE_ITEMS`] of them, nothing is judged.
//!
//! *R7.* The table has room for everything, and one range of its partition keys gives less than arrives for it. Every item of
//! another range is durable within [`WAITS`] after the delivery of its batch began, unless the script did something to the
//! fleet in the [`FOUND_WITHIN`] before or since.

use std::collections::BTreeMap;
use std::time::Duration;

use sluicegate_lease::WorkerId;
use sluicegate_lease::invariants::Broken;

/// Time from one step to the next.
pub const STEP: Duration = Duration::from_millis(250);
/// How long the law lets a table go unused, or a worker unserved.
pub const FOUND_WITHIN: Duration = Duration::from_secs(10);
/// Use is a mean over this time.
const MEAN_OVER: Duration = Duration::from_secs(10);
/// The part of what is given that must be taken.
const PART: f64 = 0.5;
/// So many of the largest items must be due in the time that a mean is over: of fewer, half are missing by chance.
const LARGE_ITEMS: f64 = 16.0;
/// Longest that an item waits whose key range has room, in a table that has room.
pub const WAITS: Duration = Duration::from_secs(3);

/// What was seen of one worker in one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Seen {
    /// Units that the table took from it in the step.
    pub taken: f64,
    /// Units that it refused.
    pub refused: f64,
    /// Units that wait at the end of the step: in batches that are being delivered, and not durable. Those that wait for
    /// a key range do not count.
    pub waiting: f64,
}

/// One step of a history.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// When it ended.
    pub at: Duration,
    /// What the fleet could write, in units a second.
    pub gives: f64,
    /// Whether nothing was done to the fleet meanwhile.
    pub quiet: bool,
    /// Each worker that runs.
    pub workers: BTreeMap<WorkerId, Seen>,
}

impl Step {
    /// Workers that have anything to write.
    fn busy(&self) -> f64 {
        let busy = self.workers.values().filter(|seen| seen.waiting > 0.0 || seen.taken > 0.0).count();
        f64::from(u32::try_from(busy).unwrap_or(u32::MAX).max(1))
    }
}

/// How long an item waited whose key range had room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// At which worker.
    pub worker: WorkerId,
    /// When the delivery of its batch began.
    pub begun: Duration,
    /// When it was durable, or given up.
    pub until: Duration,
    /// Since when nothing had been done to the fleet, at its end.
    pub quiet_since: Duration,
}

/// Everything recorded of a history.
#[derive(Debug, Default)]
pub struct Course {
    /// Step by step.
    pub steps: Vec<Step>,
    /// Units of the largest item.
    pub largest: f64,
    /// Waits of items, where some key range gives less than the table.
    pub waits: Vec<Wait>,
}

/// How much of a history was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Judged {
    /// Means over the table's use.
    pub table: u64,
    /// Means over one worker's.
    pub workers: u64,
    /// Waits.
    pub waits: u64,
}

impl Judged {
    /// Adds what was judged elsewhere.
    pub fn add(&mut self, other: Self) {
        self.table += other.table;
        self.workers += other.workers;
        self.waits += other.waits;
    }
}

/// One step, from the side of whoever is to be served.
#[derive(Debug, Clone, Copy)]
struct Point {
    at: Duration,
    /// Whether enough waits, and nothing disturbs.
    counts: bool,
    /// What the table gives.
    gives: f64,
    /// Units due in this step.
    due: f64,
    used: f64,
}

impl Course {
    /// Both laws; and how much there was to judge.
    pub fn judge(&self) -> (Vec<Broken>, Judged) {
        let mut judged = Judged::default();
        let mut broken = Vec::new();
        let points: Vec<Point> = self.steps.iter().map(table_point).collect();
        let (found, means) = self.starved(&points);
        judged.table = means;
        broken.extend(found.map(|why| Broken { law: "R6", why: format!("the table is left unused: {why}") }));
        let workers: std::collections::BTreeSet<&WorkerId> =
            self.steps.iter().flat_map(|step| step.workers.keys()).collect();
        for worker in workers {
            let points: Vec<Point> = self.steps.iter().map(|step| worker_point(step, worker)).collect();
            let (found, means) = self.starved(&points);
            judged.workers += means;
            broken.extend(
                found.map(|why| Broken { law: "R6", why: format!("{worker} is left behind: {why}") }),
            );
        }
        let of_quiet = self.waits.iter().filter(|wait| wait.begun >= wait.quiet_since + FOUND_WITHIN);
        let mut worst: Option<&Wait> = None;
        for wait in of_quiet {
            judged.waits += 1;
            if worst.is_none_or(|worst| wait.until - wait.begun > worst.until - worst.begun) {
                worst = Some(wait);
            }
        }
        broken.extend(worst.filter(|wait| wait.until - wait.begun > WAITS).map(|wait| {
            let Wait { worker, begun, until, .. } = wait;
            let why = format!(
                "an item at {worker} whose key range has room waits from {begun:?} to {until:?} while another range refuses"
            );
            Broken { law: "R7", why }
        }));
        (broken, judged)
    }

    /// The first mean that is too low, and how many there were.
    fn starved(&self, points: &[Point]) -> (Option<String>, u64) {
        let (mut means, mut begun, mut gave) = (0, None::<usize>, f64::INFINITY);
        for (index, point) in points.iter().enumerate() {
            let rises = point.gives > gave;
            gave = point.gives;
            if !point.counts || rises {
                begun = point.counts.then_some(index);
                continue;
            }
            let first = *begun.get_or_insert(index);
            let from = points[first].at + FOUND_WITHIN;
            let Some(from) = point.at.checked_sub(MEAN_OVER).filter(|at| *at >= from) else { continue };
            let inside = points[first..=index].iter().filter(|point| point.at > from);
            let (due, used) =
                inside.fold((0.0, 0.0), |(due, used), point| (due + point.due, used + point.used));
            if due < self.largest * LARGE_ITEMS {
                continue;
            }
            means += 1;
            if used + self.largest < due * PART {
                let to = point.at;
                return (Some(format!("{used:.1} units of {due:.1} from {from:?} to {to:?}")), means);
            }
        }
        (None, means)
    }
}

fn table_point(step: &Step) -> Point {
    let sum = |of: fn(&Seen) -> f64| step.workers.values().map(of).sum::<f64>();
    Point {
        at: step.at,
        counts: step.quiet && sum(|seen| seen.waiting) >= step.gives,
        gives: step.gives,
        due: step.gives * STEP.as_secs_f64(),
        used: sum(|seen| seen.taken),
    }
}

fn worker_point(step: &Step, worker: &WorkerId) -> Point {
    let seen = step.workers.get(worker).copied();
    let part = step.gives / step.busy();
    Point {
        at: step.at,
        counts: step.quiet && seen.is_some_and(|seen| seen.waiting >= part),
        gives: step.gives,
        due: part * STEP.as_secs_f64(),
        used: seen.unwrap_or_default().taken,
    }
}

#[cfg(test)]
mod tests;
