//! When to try again: what an error says of it, and a capped exponential sequence of delays with jitter.
//!
//! The `backoff` crate supplies the interval sequence alone; jitter comes from the caller's seeded generator, and
//! nothing here looks at a clock.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use rand::Rng;
use rand::rngs::SmallRng;

/// What the caller of a failed operation should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Try again after the next delay of a [`RetryPolicy`].
    Backoff,
    /// Try again after this time.
    After(Duration),
    /// Trying again cannot help.
    Never,
}

/// A capped exponential sequence of delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Longest first delay.
    pub initial: Duration,
    /// Longest delay.
    pub max: Duration,
}

impl RetryPolicy {
    /// For calls to AWS: 50 ms doubling to 5 s. The SDK's standard mode starts at 1 s, which is too slow for a
    /// lease write that holds up a batch.
    pub const AWS: Self = Self { initial: Duration::from_millis(50), max: Duration::from_secs(5) };

    /// Begins a sequence.
    pub fn delays(&self) -> Delays {
        let intervals = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.initial)
            .with_max_interval(self.max)
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        Delays { intervals, max: self.max }
    }
}

/// The delays of one operation, each longer than the one before up to the cap.
#[derive(Debug)]
pub struct Delays {
    intervals: ExponentialBackoff,
    max: Duration,
}

impl Delays {
    /// The next delay: between half of the interval and the whole of it, so that workers that failed together do
    /// not come back together.
    pub fn next_delay(&mut self, rng: &mut SmallRng) -> Duration {
        let interval = self.intervals.next_backoff().unwrap_or(self.max);
        interval.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// The next delay after an error, or `None` when it says that trying again cannot help.
    pub fn after(&mut self, retry: Retry, rng: &mut SmallRng) -> Option<Duration> {
        match retry {
            Retry::Backoff => Some(self.next_delay(rng)),
            Retry::After(delay) => Some(delay),
            Retry::Never => None,
        }
    }

    /// Starts over: the operation succeeded.
    pub fn reset(&mut self) {
        self.intervals.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn delays_double_up_to_the_cap_and_keep_half_of_it() {
        let policy = RetryPolicy { initial: Duration::from_millis(100), max: Duration::from_millis(400) };
        let (mut delays, mut rng) = (policy.delays(), SmallRng::seed_from_u64(7));
        for whole in [100, 200, 400, 400, 400] {
            let delay = delays.next_delay(&mut rng);
            assert!(
                delay <= Duration::from_millis(whole) && delay >= Duration::from_millis(whole / 2),
                "{delay:?}"
            );
        }
        delays.reset();
        assert!(delays.next_delay(&mut rng) <= Duration::from_millis(100));
    }

    #[test]
    fn never_means_never() {
        let (mut delays, mut rng) = (RetryPolicy::AWS.delays(), SmallRng::seed_from_u64(7));
        assert_eq!(delays.after(Retry::Never, &mut rng), None);
        assert_eq!(
            delays.after(Retry::After(Duration::from_secs(3)), &mut rng),
            Some(Duration::from_secs(3))
        );
    }
}
