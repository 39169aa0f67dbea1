//! Progress watches: each loop stamps one per turn; `/livez` fails when one is silent for three times its period.
//!
//! A loop that has ended is not watched any more: its stamp went with it, and its end is the supervisor's matter.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluicegate_lease::Clock;
use tokio::time::Instant;

/// All watches of a worker.
#[derive(Debug)]
pub struct Watches {
    clock: Clock,
    origin: Instant,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    begun: u64,
    loops: BTreeMap<u64, Watch>,
}

#[derive(Debug)]
struct Watch {
    name: String,
    period: Duration,
    last_ms: Arc<AtomicU64>,
}

/// The stamp of one loop, watched as long as it is kept.
#[derive(Debug)]
pub struct Stamp {
    watches: Arc<Watches>,
    id: u64,
    period: Duration,
    last_ms: Arc<AtomicU64>,
}

/// How many periods of silence mean that a loop is stuck.
const PERIODS_OF_SILENCE: u32 = 3;

impl Watches {
    /// No watches yet.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { origin: clock.now(), clock, watched: Mutex::default() })
    }

    /// Adds a loop that turns at least once a period, stamped now. Several may have one name.
    pub fn watch(self: &Arc<Self>, name: impl Into<String>, period: Duration) -> Stamp {
        let last_ms = Arc::new(AtomicU64::new(self.now_ms()));
        let watch = Watch { name: name.into(), period, last_ms: Arc::clone(&last_ms) };
        let mut watched = self.watched();
        watched.begun += 1;
        let id = watched.begun;
        watched.loops.insert(id, watch);
        drop(watched);
        Stamp { watches: Arc::clone(self), id, period, last_ms }
    }

    /// The loops that are stuck, with how long they have been silent, the longest first.
    pub fn stuck(&self) -> Vec<(String, Duration)> {
        let now = self.now_ms();
        let silent =
            |watch: &Watch| Duration::from_millis(now.saturating_sub(watch.last_ms.load(Ordering::Relaxed)));
        let is_stuck = |watch: &&Watch| silent(watch) > watch.period * PERIODS_OF_SILENCE;
        let watched = self.watched();
        let stuck = watched.loops.values().filter(is_stuck);
        let mut stuck: Vec<_> = stuck.map(|watch| (watch.name.clone(), silent(watch))).collect();
        drop(watched);
        stuck.sort_by_key(|(_, silent)| std::cmp::Reverse(*silent));
        stuck
    }

    fn now_ms(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.origin).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    /// The loop has turned.
    pub fn stamp(&self) {
        self.last_ms.store(self.watches.now_ms(), Ordering::Relaxed);
    }

    /// Waits for what may rightly take longer than a period. *Cancelling it* is safe if it is for `waiting`.
    pub async fn while_waiting<T>(&self, waiting: impl Future<Output = T>) -> T {
        let turning = async {
            loop {
                self.stamp();
                self.watches.clock.sleep(self.period).await;
            }
        };
        tokio::select! { biased;
            done = waiting => done,
            () = turning => unreachable!("it turns for ever"),
        }
    }
}

impl Drop for Stamp {
    fn drop(&mut self) {
        self.watches.watched().loops.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(watches: &Watches) -> Vec<String> {
        watches.stuck().into_iter().map(|(name, _)| name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_turn_is_named() {
        let clock = Clock::new();
        let watches = Watches::new(clock.clone());
        let stamp = watches.watch("coordinator", SECOND);
        clock.sleep(2 * SECOND).await;
        assert!(watches.stuck().is_empty());
        clock.sleep(2 * SECOND).await;
        assert_eq!(watches.stuck(), [("coordinator".to_owned(), 4 * SECOND)]);
        stamp.stamp();
        assert!(watches.stuck().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_loops_with_one_name_each_is_watched_until_it_ends() {
        let clock = Clock::new();
        let watches = Watches::new(clock.clone());
        let (first, second) = (watches.watch("session", SECOND), watches.watch("session", SECOND));
        clock.sleep(4 * SECOND).await;
        second.stamp();
        assert_eq!(names(&watches), ["session"], "the other one turned");
        clock.sleep(4 * SECOND).await;
        assert_eq!(watches.stuck()[0].1, 8 * SECOND, "the longest silence comes first");
        assert_eq!(names(&watches).len(), 2);
        drop(first);
        second.stamp();
        assert!(watches.stuck().is_empty(), "what has ended is not stuck");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_waits_for_long_turns_meanwhile_and_one_that_nobody_polls_does_not() {
        let clock = Clock::new();
        let watches = Watches::new(clock.clone());
        let stamp = watches.watch("shard sync", SECOND);
        let waiting = stamp.while_waiting(clock.sleep(600 * SECOND));
        tokio::pin!(waiting);
        tokio::select! { biased;
            () = &mut waiting => panic!("it is not time yet"),
            () = clock.sleep(60 * SECOND) => {}
        }
        assert!(watches.stuck().is_empty());
        clock.sleep(4 * SECOND).await;
        assert_eq!(names(&watches), ["shard sync"], "nobody polled it");
        waiting.await;
        assert!(watches.stuck().is_empty());
    }
}
