//! The clock of one worker. Cores receive instants; shells read time and sleep through the handle they were given.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A worker's monotonic clock: tokio's own, which tests pause; in simulation with a rate of its own, and able to
/// stand for a process that is stopped for a while. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    /// How much faster than tokio's clock it runs, in millionths.
    drift_ppm: i32,
    /// Whether the process is stopped: nothing that sleeps wakes while it is.
    stopped: Option<watch::Receiver<bool>>,
}

impl Clock {
    /// Tokio's clock.
    pub fn new() -> Self {
        Self::drifting(0)
    }

    /// A clock that gains (or, below zero, loses) so many microseconds a second. For simulation.
    pub fn drifting(drift_ppm: i32) -> Self {
        Self { origin: Instant::now(), drift_ppm, stopped: None }
    }

    /// The clock of a process that is stopped while the channel says so. For simulation: time goes on, and whoever
    /// sleeps wakes no earlier than the process does.
    #[must_use]
    pub fn stopping(self, stopped: watch::Receiver<bool>) -> Self {
        Self { stopped: Some(stopped), ..self }
    }

    /// The time now, on this clock.
    pub fn now(&self) -> Instant {
        let elapsed = self.origin.elapsed();
        self.origin + elapsed.mul_f64(self.rate())
    }

    /// Waits so long on this clock. *Cancelling it* is safe.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration.div_f64(self.rate())).await;
        self.wake().await;
    }

    /// Waits until this instant of this clock. *Cancelling it* is safe.
    pub async fn sleep_until(&self, deadline: Instant) {
        self.sleep(deadline.saturating_duration_since(self.now())).await;
    }

    /// Waits while the process is stopped. *Cancelling it* is safe.
    pub async fn wake(&self) {
        if let Some(stopped) = &self.stopped {
            // A channel that is closed stops nobody.
            drop(stopped.clone().wait_for(|stopped| !*stopped).await);
        }
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

    #[tokio::test(start_paused = true)]
    async fn nobody_wakes_while_the_process_is_stopped() {
        let (stop, stopped) = watch::channel(true);
        let clock = Clock::new().stopping(stopped);
        let begun = Instant::now();
        let sleeping = async {
            clock.sleep(Duration::from_secs(1)).await;
            begun.elapsed()
        };
        let waking = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            stop.send_replace(false);
        };
        let (slept, ()) = tokio::join!(sleeping, waking);
        assert_eq!(slept, Duration::from_secs(30));
    }
}
