//! What the workers might write together, by their own word (F1). **Pure.**
//!
//! Each says so whenever its share of the write budget changes. It counts as long as the worker has the right to write at all: for
//! `failover_time` after its last heartbeat that landed, less a little, and no longer than it has a row: the last thing that a
//! worker does is to delete it. A worker that has lost the right begins again with nothing: until it says so, neither a heartbeat
//! that lands late nor what it still makes of an old share revives it.

use std::collections::BTreeMap;

use sluicegate_lease::WorkerId;
use sluicegate_lease::invariants::Broken;

use crate::measure::chaos::history::History;

/// A worker's share changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Whose.
    pub worker: WorkerId,
    /// When, in epoch milliseconds.
    pub at_ms: i64,
    /// From now on, in thousandths of a write unit a second.
    pub milli: u64,
}

/// Times of the journal and of the logs are rounded to milliseconds by themselves.
const CLOCKS_MS: i64 = 5;

/// Shares in use never sum above the budget (F1): once for each time in which they do.
pub fn overdrawn(history: &History, shares: &[Share], budget_milli: u64, failover_ms: i64) -> Vec<Broken> {
    let mut beats: BTreeMap<&WorkerId, Vec<i64>> = BTreeMap::new();
    let mut gone: BTreeMap<&WorkerId, i64> = BTreeMap::new();
    for write in history.worker_writes() {
        match (&write.before, &write.after) {
            (_, Some(row)) => beats.entry(&row.worker_id).or_default().push(write.at_ms),
            (Some(row), None) => drop(gone.insert(&row.worker_id, write.at_ms)),
            (None, None) => {}
        }
    }
    let mut of_workers: BTreeMap<&WorkerId, Vec<&Share>> = BTreeMap::new();
    for share in shares {
        of_workers.entry(&share.worker).or_default().push(share);
    }
    let mut changes: Vec<(i64, i128)> = Vec::new();
    for (worker, shares) in of_workers {
        let beats = beats.get(worker).map_or(&[][..], Vec::as_slice);
        let (mut stale, mut last) = (false, None);
        for (at, share) in shares.iter().enumerate() {
            let lost = last.is_some_and(|(milli, until)| milli > 0 && until < share.at_ms);
            stale = (stale || lost) && share.milli > 0;
            last = Some((share.milli, right_until(beats, share.at_ms, failover_ms)));
            if stale {
                continue;
            }
            let ends = [gone.get(worker).copied(), shares.get(at + 1).map(|next| next.at_ms)];
            let until = right_until(beats, share.at_ms, failover_ms);
            let until = ends.into_iter().flatten().fold(until, i64::min);
            if until > share.at_ms {
                changes.push((share.at_ms, share.milli.into()));
                changes.push((until, -i128::from(share.milli)));
            }
        }
    }
    // What one gives up another may use in the same millisecond.
    changes.sort_unstable();
    let (mut sum, mut over, mut broken) = (0, false, Vec::new());
    for (at_ms, change) in changes {
        sum += change;
        let now = sum > i128::from(budget_milli);
        if now && !over {
            let why = format!("shares of {sum} thousandths are in use at {at_ms}, of {budget_milli}");
            broken.push(Broken { law: "F1", why });
        }
        over = now;
    }
    broken
}

/// Until when a right that holds at a moment is renewed without a gap; that moment, if none holds.
fn right_until(beats: &[i64], at_ms: i64, failover_ms: i64) -> i64 {
    let lasts_ms = failover_ms - CLOCKS_MS;
    let landed = beats.partition_point(|beat| *beat <= at_ms);
    let Some(last) = landed.checked_sub(1) else { return at_ms };
    let mut until = beats[last] + lasts_ms;
    for beat in &beats[landed..] {
        if *beat > until {
            break;
        }
        until = beat + lasts_ms;
    }
    until.max(at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::chaos::history::{Entry, Write};
    use sluicegate_lease::WorkerRow;

    /// Both beat at 1, 2 and 3 s; a never again, b at 4 to 9 s as well.
    fn history() -> History {
        let mut history = History::default();
        for (id, last) in [("a", 3), ("b", 9)] {
            for second in 1..=last {
                let heartbeat = u64::try_from(second).unwrap();
                let after = Some(WorkerRow { heartbeat, ..WorkerRow::new(WorkerId::new(id)) });
                let write = Write { at_ms: second * 1_000, by: None, conditional: true, before: None, after };
                history.entries.push(Entry::Worker(Box::new(write)));
            }
        }
        history
    }

    fn broken(history: &History, shares: &[(&str, i64, u64)]) -> usize {
        let share = |(worker, at_ms, milli): &(&str, i64, u64)| Share {
            worker: WorkerId::new(*worker),
            at_ms: *at_ms,
            milli: *milli,
        };
        let shares: Vec<Share> = shares.iter().map(share).collect();
        overdrawn(history, &shares, 100, 3_000).len()
    }

    #[test]
    fn shares_in_use_never_sum_above_the_budget() {
        let history = history();
        assert_eq!(broken(&history, &[("a", 1_100, 50), ("b", 1_100, 50)]), 0);
        assert_eq!(broken(&history, &[("a", 1_100, 60), ("a", 2_000, 40), ("b", 2_000, 60)]), 0);
        assert_eq!(broken(&history, &[("a", 1_100, 60), ("a", 2_000, 40), ("b", 1_999, 60)]), 1);
        assert_eq!(
            broken(&history, &[("a", 1_100, 60), ("b", 1_200, 60), ("b", 1_300, 40), ("b", 1_400, 41)]),
            2,
            "each time by itself"
        );
    }

    #[test]
    fn a_share_counts_as_long_as_its_worker_has_the_right_to_write() {
        let history = history();
        assert_eq!(broken(&history, &[("a", 1_100, 100), ("b", 5_900, 100)]), 1);
        assert_eq!(broken(&history, &[("a", 1_100, 100), ("b", 6_000, 100)]), 0, "a is silent by then");
        assert_eq!(broken(&history, &[("a", 900, 100), ("b", 950, 100)]), 0, "before its first heartbeat");
    }

    #[test]
    fn what_a_worker_leaves_behind_with_its_row_is_free() {
        let mut history = history();
        let before = Some(WorkerRow { heartbeat: 3, ..WorkerRow::new(WorkerId::new("a")) });
        let left = Write { at_ms: 3_500, by: None, conditional: true, before, after: None };
        history.entries.push(Entry::Worker(Box::new(left)));
        assert_eq!(broken(&history, &[("a", 1_100, 100), ("b", 3_499, 100)]), 1);
        assert_eq!(broken(&history, &[("a", 1_100, 100), ("b", 3_500, 100)]), 0);
    }

    #[test]
    fn a_late_heartbeat_revives_no_share() {
        let mut history = history();
        let after = Some(WorkerRow { heartbeat: 4, ..WorkerRow::new(WorkerId::new("a")) });
        let late = Write { at_ms: 7_000, by: None, conditional: true, before: None, after };
        history.entries.push(Entry::Worker(Box::new(late)));
        assert_eq!(broken(&history, &[("a", 1_100, 100), ("b", 6_100, 100)]), 0);
        let lowered = [("a", 1_100, 100), ("b", 6_100, 100), ("a", 7_010, 90)];
        assert_eq!(broken(&history, &lowered), 0, "it has not noticed yet");
        let again = [("a", 1_100, 100), ("b", 6_100, 100), ("a", 7_010, 0), ("a", 7_020, 90)];
        assert_eq!(broken(&history, &again), 1);
    }
}
