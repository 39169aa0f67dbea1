//! A token bucket: how much of a limit may be used at a moment. Pure.
//!
//! The law, for every interval of time: what was taken is at most rate x interval + depth; or + the largest taking, if that
//! is larger than the depth. For what is larger than the bucket is let through when the bucket is full, and leaves it in
//! debt: it would otherwise wait for ever.

/// Thousandths of a unit in a unit: with a rate in units a second they are what one millisecond brings, so nothing is rounded.
const MILLI: i64 = 1000;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Units that flow in each second.
    pub(crate) per_second: u64,
    /// Units that it holds when full.
    pub(crate) depth: u64,
}

impl Rate {
    /// A limit that keeps what so many seconds left unused; never less than one second of it.
    pub(crate) fn keeping(per_second: u64, seconds: u32) -> Self {
        Self { per_second, depth: per_second.saturating_mul(u64::from(seconds.max(1))) }
    }
}

/// A bucket as it was when it was last used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Below zero: in debt.
    balance_milli: i64,
    at_ms: u64,
}

impl Bucket {
    /// Holds so many units.
    pub(crate) fn holding(units: u64, now_ms: u64) -> Self {
        Self { balance_milli: milli(units), at_ms: now_ms }
    }

    /// Holds what one second brings: at the start no credit has been saved up.
    pub(crate) fn at_start(rate: Rate, now_ms: u64) -> Self {
        Self::holding(rate.per_second.min(rate.depth), now_ms)
    }

    /// Takes the units if they are there.
    pub(crate) fn take(&mut self, units: u64, rate: Rate, now_ms: u64) -> bool {
        self.refill(rate, now_ms);
        let holds = self.balance_milli >= milli(units.min(rate.depth));
        if holds {
            self.balance_milli = self.balance_milli.saturating_sub(milli(units));
        }
        holds
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give_back(&mut self, units: u64, rate: Rate, now_ms: u64) {
        self.balance_milli = self.balance_milli.saturating_add(milli(units));
        self.refill(rate, now_ms);
    }

    /// Takes what has been used already, into debt if need be.
    pub(crate) fn owe(&mut self, units: u64, rate: Rate, now_ms: u64) {
        self.refill(rate, now_ms);
        self.balance_milli = self.balance_milli.saturating_sub(milli(units));
    }

    /// Whether it need not be remembered: a new one would be the same.
    pub(crate) fn is_full(mut self, rate: Rate, now_ms: u64) -> bool {
        self.refill(rate, now_ms);
        self.balance_milli >= milli(rate.depth)
    }

    /// A clock that goes back brings nothing, and what it brings when it comes forward again it brings once.
    fn refill(&mut self, rate: Rate, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        let gained = i64::try_from(rate.per_second.saturating_mul(elapsed_ms)).unwrap_or(i64::MAX);
        self.balance_milli = self.balance_milli.saturating_add(gained).min(milli(rate.depth));
        self.at_ms = self.at_ms.max(now_ms);
    }
}

fn milli(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX).saturating_mul(MILLI)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_gives_what_it_holds_and_fills_with_time() {
        let rate = Rate { per_second: 100, depth: 200 };
        let mut bucket = Bucket::at_start(rate, 5_000);
        assert!(bucket.take(60, rate, 5_000));
        assert!(!bucket.take(41, rate, 5_000));
        assert!(bucket.take(40, rate, 5_000));
        assert!(!bucket.take(1, rate, 5_009));
        assert!(bucket.take(1, rate, 5_010));
        assert!(bucket.take(200, rate, 60_000), "what was left unused was kept");
        assert!(!bucket.take(1, rate, 60_000), "but not more than the depth");
    }

    #[test]
    fn what_is_larger_than_the_bucket_waits_until_it_is_full_and_leaves_a_debt() {
        let rate = Rate { per_second: 100, depth: 100 };
        let mut bucket = Bucket::holding(99, 0);
        assert!(!bucket.take(400, rate, 0));
        assert!(bucket.take(400, rate, 10));
        assert!(!bucket.take(1, rate, 3_000));
        assert!(bucket.take(1, rate, 3_020));
    }

    #[test]
    fn what_is_owed_is_paid_before_more_is_taken_and_what_is_given_back_is_there_again() {
        let rate = Rate { per_second: 10, depth: 10 };
        let mut bucket = Bucket::holding(10, 0);
        bucket.owe(20, rate, 0);
        assert!(!bucket.take(1, rate, 1_000));
        assert!(bucket.take(1, rate, 1_100));
        bucket.give_back(1, rate, 1_100);
        assert!(bucket.take(1, rate, 1_100));
        bucket.give_back(100, rate, 1_100);
        assert!(bucket.is_full(rate, 1_100));
        assert!(!bucket.take(1, rate, 1_100) || bucket.take(9, rate, 1_100), "the depth is never passed");
        assert!(!bucket.take(1, rate, 1_100));
    }

    #[test]
    fn a_lower_rate_takes_effect_at_once() {
        let mut bucket = Bucket::holding(4_000, 0);
        let lower = Rate::keeping(1_000, 0);
        assert!(!bucket.take(1_001, lower, 0) || !bucket.take(1_000, lower, 0));
    }

    #[test]
    fn a_clock_that_goes_back_brings_nothing() {
        let rate = Rate::keeping(1, 1);
        let mut bucket = Bucket::holding(0, 10_000);
        assert!(!bucket.take(1, rate, 0));
        assert!(!bucket.take(1, rate, 10_999));
        assert!(bucket.take(1, rate, 11_000));
    }

    /// One try: milliseconds since the one before, and units wanted.
    fn tries() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0..700_u64, 1..500_u64), 1..80)
    }

    proptest! {
        #[test]
        fn no_interval_ever_gets_more_than_rate_by_time_and_depth(
            tries in tries(), per_second in 1..2_000_u64, seconds in 0..4_u32
        ) {
            let rate = Rate::keeping(per_second, seconds);
            let mut bucket = Bucket::at_start(rate, 0);
            let mut now_ms = 0;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (wait_ms, units) in tries {
                now_ms += wait_ms;
                if bucket.take(units, rate, now_ms) {
                    taken.push((now_ms, units));
                }
            }
            for from in 0..taken.len() {
                let (mut sum, mut largest) = (0, 0);
                for &(at_ms, units) in &taken[from..] {
                    sum += units;
                    largest = largest.max(units);
                    let allowed = per_second * (at_ms - taken[from].0) + rate.depth.max(largest) * 1_000;
                    prop_assert!(sum * 1_000 <= allowed, "{sum} units from {from}, allowed {allowed}");
                }
            }
        }

        #[test]
        fn what_is_wanted_slower_than_the_rate_is_always_given(units in 1..500_u64, per_second in 1..2_000_u64) {
            let rate = Rate::keeping(per_second, 1);
            let mut bucket = Bucket::at_start(rate, 0);
            for turn in 1..20 {
                prop_assert!(bucket.take(units, rate, turn * (units * 1_000).div_ceil(per_second).max(1_000)));
            }
        }

        #[test]
        fn a_rate_that_changes_still_bounds_what_is_taken(
            tries in prop::collection::vec((0..700_u64, 1..500_u64, 1..2_000_u64), 1..80)
        ) {
            let (mut bucket, mut now_ms) = (Bucket::holding(0, 0), 0);
            let (mut flowed_milli, mut taken, mut largest) = (0, 0, 0);
            for (wait_ms, units, per_second) in tries {
                let rate = Rate::keeping(per_second, 1);
                now_ms += wait_ms;
                flowed_milli += per_second * wait_ms;
                if bucket.take(units, rate, now_ms) {
                    taken += units;
                    largest = largest.max(units);
                }
                prop_assert!(taken * 1_000 <= flowed_milli + largest * 1_000);
            }
        }
    }
}
