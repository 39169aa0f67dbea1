//! Progress watches: each loop stamps one per turn; `/livez` fails when one is silent for three times its period.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluicegate_lease::Clock;
use tokio::time::Instant;

/// All watches of a worker.
#[derive(Debug)]
pub struct Watches {
    clock: Clock,
    origin: Instant,
    watches: Mutex<BTreeMap<&'static str, Watch>>,
}

#[derive(Debug, Clone)]
struct Watch {
    period: Duration,
    last_ms: Arc<AtomicU64>,
}

/// Stamps one watch.
#[derive(Debug, Clone)]
pub struct Stamp {
    clock: Clock,
    origin: Instant,
    last_ms: Arc<AtomicU64>,
}

/// How many periods of silence mean that a loop is stuck.
const PERIODS_OF_SILENCE: u32 = 3;

impl Watches {
    /// No watches yet.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { origin: clock.now(), clock, watches: Mutex::new(BTreeMap::new()) })
    }

    /// Adds a loop that turns at least once a period, stamped now.
    pub fn watch(&self, name: &'static str, period: Duration) -> Stamp {
        let last_ms = Arc::new(AtomicU64::new(0));
        let stamp = Stamp { clock: self.clock.clone(), origin: self.origin, last_ms: Arc::clone(&last_ms) };
        stamp.stamp();
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.insert(name, Watch { period, last_ms });
        stamp
    }

    /// The loops that are stuck, with how long they have been silent.
    pub fn stuck(&self) -> Vec<(&'static str, Duration)> {
        let now = self.clock.now().saturating_duration_since(self.origin);
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let silent =
            |watch: &Watch| now.saturating_sub(Duration::from_millis(watch.last_ms.load(Ordering::Relaxed)));
        let stuck =
            watches.iter().map(|(name, watch)| (*name, silent(watch), watch.period * PERIODS_OF_SILENCE));
        stuck.filter(|(_, silent, bound)| silent > bound).map(|(name, silent, _)| (name, silent)).collect()
    }
}

impl Stamp {
    /// The loop has turned.
    pub fn stamp(&self) {
        let now = self.clock.now().saturating_duration_since(self.origin).as_millis();
        self.last_ms.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_turn_is_named() {
        let clock = Clock::new();
        let watches = Watches::new(clock.clone());
        let stamp = watches.watch("coordinator", Duration::from_secs(1));
        clock.sleep(Duration::from_secs(2)).await;
        assert!(watches.stuck().is_empty());
        clock.sleep(Duration::from_secs(2)).await;
        assert_eq!(watches.stuck()[0].0, "coordinator");
        stamp.stamp();
        assert!(watches.stuck().is_empty());
    }
}
