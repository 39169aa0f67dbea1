//! The clock a worker was given: tokio's, which tests pause, or one that runs at its own rate (simulation).

use std::time::Duration;

use tokio::time::Instant;

/// A worker's monotonic clock. All waiting and all reading of time goes through it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    drift_ppm: i32,
}

impl Clock {
    /// A clock that runs as tokio's does.
    pub fn new() -> Self {
        Self::drifting(0)
    }

    /// A clock that gains (or, below zero, loses) so many microseconds a second. For simulation.
    pub fn drifting(drift_ppm: i32) -> Self {
        Self { origin: Instant::now(), drift_ppm }
    }

    /// The time now, on this clock.
    pub fn now(&self) -> Instant {
        let elapsed = self.origin.elapsed();
        self.origin + elapsed.mul_f64(self.rate())
    }

    /// Waits so long on this clock. *Cancelling it* is safe.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration.div_f64(self.rate())).await;
    }

    /// Waits until this instant of this clock. *Cancelling it* is safe.
    pub async fn sleep_until(&self, deadline: Instant) {
        self.sleep(deadline.saturating_duration_since(self.now())).await;
    }

    fn rate(&self) -> f64 {
        1.0 + f64::from(self.drift_ppm) / 1e6
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drifting_clock_agrees_with_itself() {
        let fast = Clock::drifting(100_000);
        let deadline = fast.now() + Duration::from_secs(11);
        let begun = Instant::now();
        fast.sleep_until(deadline).await;
        assert!(fast.now() >= deadline - Duration::from_millis(2));
        assert!(begun.elapsed() < Duration::from_millis(10_010), "{:?}", begun.elapsed());
    }
}
