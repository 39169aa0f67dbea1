//! The clock of one worker. Cores receive instants; shells read time and sleep through the handle they were given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A worker's monotonic clock: tokio's own, which tests pause; in simulation with a rate of its own, and able to
/// stand for a process that is stopped for a while. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    /// How much faster than tokio's clock it runs, in millionths.
    drift_ppm: i32,
    /// Whether the process stands still: nothing that sleeps wakes while it does.
    freeze: Option<Arc<Freeze>>,
}

/// Makes a process stand still for a while. For simulation.
#[derive(Debug, Default)]
pub struct Freeze {
    frozen: AtomicBool,
    thawed: Notify,
}

impl Freeze {
    /// Whoever sleeps on a clock of this process stays asleep from now on.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    /// The process goes on; sleepers wake in the order in which they would have woken.
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::Release);
        self.thawed.notify_waiters();
    }

    /// Waits while the process stands still. *Cancelling it* is safe.
    async fn wait(&self) {
        loop {
            let thawed = self.thawed.notified();
            if !self.frozen.load(Ordering::Acquire) {
                return;
            }
            thawed.await;
        }
    }
}

impl Clock {
    /// Tokio's clock.
    pub fn new() -> Self {
        Self::drifting(0)
    }

    /// A clock that gains (or, below zero, loses) so many microseconds a second. For simulation.
    pub fn drifting(drift_ppm: i32) -> Self {
        Self { origin: Instant::now(), drift_ppm, freeze: None }
    }

    /// The clock of a process that can be made to stand still. For simulation: time goes on meanwhile, and whoever
    /// sleeps wakes no earlier than the process does.
    #[must_use]
    pub fn freezing(self, freeze: Arc<Freeze>) -> Self {
        Self { freeze: Some(freeze), ..self }
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

    /// Waits while the process stands still. *Cancelling it* is safe.
    pub async fn wake(&self) {
        if let Some(freeze) = &self.freeze {
            freeze.wait().await;
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
    async fn nobody_wakes_while_the_process_stands_still() {
        let freeze = Arc::new(Freeze::default());
        freeze.freeze();
        let clock = Clock::new().freezing(Arc::clone(&freeze));
        let begun = Instant::now();
        let sleeping = async {
            clock.sleep(Duration::from_secs(1)).await;
            begun.elapsed()
        };
        let waking = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            freeze.thaw();
        };
        let (slept, ()) = tokio::join!(sleeping, waking);
        assert_eq!(slept, Duration::from_secs(30));
    }
}
