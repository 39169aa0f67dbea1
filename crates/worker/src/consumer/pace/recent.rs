//! The reads that were answered since the last refusal, and what they prove of a rate (pure).
//!
//! A shard's limits are token buckets that keep what one second brings, and a read is answered only while nothing is owed.
//! So between two answered reads no more can have been taken than flowed in, and one second of it beside; and when a read is
//! refused, more was taken since any answered read than flowed in since then. The first gives the least that the rate can
//! be, the second the most, as long as the bucket did not overflow in between.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Reads that are remembered: more than there are between two attempts to raise a rate.
const REMEMBERED: usize = 96;
/// What a bucket keeps, in seconds of its rate.
const KEPT_SECONDS: f64 = 1.0;
/// Where the rate changed between two reads, what is known of it is that it lies below the last one: by so much at most.
const CHANGED: f64 = 0.7;
/// A read that took less than this part of the least rate let the bucket fill.
const FILLING: f64 = 0.98;
/// The least rate counts for so much against the most one: too low costs a little until the next attempt, too high a refusal.
const TRUST_IN_LEAST: f64 = 0.65;

/// An answered read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    /// When it was asked for.
    pub(super) at: Instant,
    /// Bytes of its records, as the shard's limit counts them.
    pub(super) bytes: f64,
}

/// What a rate can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Between {
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Between {
    /// The rate to go on with.
    pub(super) fn estimate(self) -> f64 {
        self.least.max(self.most / 2.0).powf(TRUST_IN_LEAST) * self.most.powf(1.0 - TRUST_IN_LEAST)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RecentReads(VecDeque<Answered>);

impl RecentReads {
    pub(super) fn add(&mut self, read: Answered) {
        self.0.push_back(read);
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What the bytes a second are, now that a read is refused for them.
    pub(super) fn bytes(&self, refused_at: Instant) -> Option<Between> {
        self.between(refused_at, |read| read.bytes)
    }

    /// What the calls a second are, now that a read is refused for them.
    pub(super) fn calls(&self, refused_at: Instant) -> Option<Between> {
        self.between(refused_at, |_| 1.0)
    }

    fn between(&self, refused_at: Instant, taken: impl Fn(&Answered) -> f64) -> Option<Between> {
        let last = self.0.back()?;
        let mut least: f64 = 0.0;
        let mut before_last = -taken(last);
        for read in self.0.iter().rev() {
            before_last += taken(read);
            least = least.max(before_last / (seconds(last.at, read.at) + KEPT_SECONDS));
        }
        let mut most = taken(last) / seconds(refused_at, last.at);
        if most < least {
            return Some(Between { least: most * CHANGED, most });
        }
        let (mut all, mut next) = (0.0, refused_at);
        for read in self.0.iter().rev() {
            if taken(read) / seconds(next, read.at) < least * FILLING {
                break;
            }
            next = read.at;
            all += taken(read);
            most = most.min((all / seconds(refused_at, read.at)).max(least));
        }
        Some(Between { least, most })
    }
}

/// Seconds from one time to a later one; never 0, which would make a rate of everything.
fn seconds(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).max(Duration::from_millis(1)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(began: Instant, every: f64, bytes: impl IntoIterator<Item = f64>) -> RecentReads {
        let mut recent = RecentReads::default();
        for (index, bytes) in (0u32..).zip(bytes) {
            let at = began + Duration::from_secs_f64(every * f64::from(index));
            recent.add(Answered { at, bytes });
        }
        recent
    }

    #[test]
    fn a_refusal_bounds_the_rate_from_both_sides() {
        let began = Instant::now();
        assert_eq!(RecentReads::default().bytes(began), None);
        // 110 a second for 20 s where 100 flow in: what was kept is used up.
        let recent = reads(began, 0.5, [55.0; 40]);
        let refused_at = began + Duration::from_secs(20);
        let between = recent.bytes(refused_at).unwrap();
        assert!(between.least <= 105.0 && between.most >= 100.0, "{between:?}");
        assert!((100.0..=110.0).contains(&between.estimate()), "{between:?}");
        let calls = recent.calls(refused_at).unwrap();
        assert!((1.8..=2.0).contains(&calls.estimate()), "{calls:?}");
    }

    #[test]
    fn a_rate_that_fell_in_between_lies_below_the_last_read() {
        let began = Instant::now();
        let recent = reads(began, 0.5, [50.0; 40]);
        // The last page was not paid for within 5 s: less than 10 a second.
        let between = recent.bytes(began + Duration::from_millis(24_500)).unwrap();
        assert_eq!(between, Between { least: 7.0, most: 10.0 });
    }

    #[test]
    fn reads_that_let_the_bucket_fill_say_nothing_of_the_most() {
        let began = Instant::now();
        let slow_then_fast = (0..40).map(|read| if read < 30 { 5.0 } else { 80.0 });
        let recent = reads(began, 0.5, slow_then_fast);
        let between = recent.bytes(began + Duration::from_secs(20)).unwrap();
        assert!(between.least > 100.0 && between.most > 120.0, "{between:?}");
    }
}
