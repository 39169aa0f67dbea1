//! Whether the shares of the write budget that are in use sum to more than the budget (F1).
//!
//! A share counts as long as its worker has the right to write: from a heartbeat that was confirmed, for the failover time
//! less the margin from its sending. A worker whose right ended begins again with nothing: what it showed before says
//! nothing until it shows something else.

use std::collections::BTreeMap;
use std::time::Duration;

use sluicegate_lease::WorkerId;

use super::script::{FAILOVER, MARGIN};

/// What is known of one worker.
#[derive(Debug, Default)]
struct Holder {
    /// The heartbeat that is being tried, and when it was first sent.
    sent: Option<(u64, Duration)>,
    /// Until when it surely has the right to write.
    until: Duration,
    /// What it showed when its right had ended.
    stale: Option<f64>,
}

/// Who may write how much.
#[derive(Debug, Default)]
pub struct Shares {
    holders: BTreeMap<WorkerId, Holder>,
    /// Whether the last look found too much.
    over: bool,
}

impl Shares {
    /// A worker sends a heartbeat of this number.
    pub fn sends(&mut self, worker: &WorkerId, heartbeat: u64, now: Duration) {
        let holder = self.holders.entry(worker.clone()).or_default();
        if holder.sent.is_none_or(|(sent, _)| sent != heartbeat) {
            holder.sent = Some((heartbeat, now));
        }
    }

    /// It was confirmed, or its row turned out to be another's (then the right does not go on); the worker shows this share.
    pub fn answered(&mut self, worker: &WorkerId, confirmed: bool, shows: f64, now: Duration) {
        let holder = self.holders.entry(worker.clone()).or_default();
        if now >= holder.until || !confirmed {
            holder.stale = Some(shows);
        }
        if let Some((_, sent)) = holder.sent.filter(|_| confirmed) {
            // Clocks are off by half a percent at most.
            holder.until = sent + (FAILOVER - MARGIN).mul_f64(0.99);
        }
    }

    /// What the shares that these workers show come to, as far as they count, if that is more than the budget and was not
    /// before.
    pub fn overdrawn(&mut self, shown: &BTreeMap<WorkerId, f64>, budget: f64, now: Duration) -> Option<f64> {
        let mut sum = 0.0;
        for (worker, shows) in shown {
            let Some(holder) = self.holders.get_mut(worker) else { continue };
            holder.stale = holder.stale.filter(|stale| stale == shows);
            if now < holder.until && holder.stale.is_none() {
                sum += shows;
            }
        }
        // A thousandth of a unit is the grain of a share.
        let over = sum > budget + 0.0005;
        let found = (over && !self.over).then_some(sum);
        self.over = over;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Both beat at 1 s, when they show nothing.
    fn beaten() -> Shares {
        let mut shares = Shares::default();
        for worker in ["a", "b"].map(WorkerId::new) {
            shares.sends(&worker, 1, at(1_000));
            shares.answered(&worker, true, 0.0, at(1_100));
        }
        shares
    }

    fn over(shares: &mut Shares, a: f64, b: f64, now: u64) -> bool {
        let shown = BTreeMap::from([(WorkerId::new("a"), a), (WorkerId::new("b"), b)]);
        shares.overdrawn(&shown, 100.0, at(now)).is_some()
    }

    #[test]
    fn shares_in_use_sum_to_at_most_the_budget() {
        let mut shares = beaten();
        assert!(!over(&mut shares, 60.0, 40.0, 1_500));
        assert!(over(&mut shares, 60.0, 41.0, 1_600));
        assert!(!over(&mut shares, 60.0, 41.0, 1_700), "each time is told once");
        assert!(!over(&mut shares, 60.0, 40.0, 1_800) && over(&mut shares, 61.0, 40.0, 1_900));
    }

    #[test]
    fn a_share_counts_as_long_as_its_worker_has_the_right_to_write() {
        let mut shares = beaten();
        shares.sends(&WorkerId::new("b"), 2, at(2_000));
        shares.sends(&WorkerId::new("b"), 2, at(3_000));
        shares.answered(&WorkerId::new("b"), true, 0.0, at(3_100));
        assert!(!over(&mut shares, 100.0, 0.0, 3_600));
        assert!(!over(&mut shares, 100.0, 100.0, 3_700), "the right of a is over");
        let mut shares = beaten();
        assert!(over(&mut shares, 100.0, 100.0, 3_600));
        assert!(!over(&mut shares, 0.0, 100.0, 4_000));
    }

    #[test]
    fn what_a_worker_showed_before_its_right_ended_says_nothing() {
        let mut shares = beaten();
        assert!(!over(&mut shares, 90.0, 10.0, 1_500));
        shares.sends(&WorkerId::new("a"), 2, at(9_000));
        shares.answered(&WorkerId::new("a"), true, 90.0, at(9_100));
        shares.sends(&WorkerId::new("b"), 2, at(9_000));
        shares.answered(&WorkerId::new("b"), true, 10.0, at(9_100));
        assert!(!over(&mut shares, 90.0, 100.0, 9_200));
        assert!(over(&mut shares, 80.0, 30.0, 9_300));
    }
}
