//! The worker's right to act, from its confirmed heartbeats.
//!
//! It ends at `sent_at(last confirmed heartbeat) + failover_time - margin`, counted from *sending*: nobody can
//! have seen the heartbeat stand still for `failover_time` before that. It saves useless work; safety rests on the
//! conditional writes. A right that lapsed once ends every session that began before: each shard is worked on
//! again only from a row that was read after the lapse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluicegate_checkpoint::Right;
use tokio::time::Instant;

use crate::clock::Clock;

/// Shared between the heartbeat, which extends it, and everything that asks.
#[derive(Debug)]
pub struct HeartbeatRight {
    clock: Clock,
    origin: Instant,
    lasts: Duration,
    /// End of the right in nanoseconds since `origin`; 0 before the first heartbeat.
    until: AtomicU64,
    /// How often it had lapsed when a heartbeat was confirmed.
    lapses: AtomicU64,
}

impl HeartbeatRight {
    /// A right that does not hold yet. Each confirmed heartbeat makes it last `lasts` from its sending.
    pub fn new(clock: Clock, lasts: Duration) -> Self {
        Self { origin: clock.now(), clock, lasts, until: AtomicU64::new(0), lapses: AtomicU64::new(0) }
    }

    /// A heartbeat sent at this time was confirmed. Called by one task.
    pub fn confirm(&self, sent_at: Instant) {
        let before = self.until.load(Ordering::Acquire);
        if before != 0 && self.nanos(self.clock.now()) >= before {
            self.lapses.fetch_add(1, Ordering::AcqRel);
        }
        self.until.fetch_max(self.nanos(sent_at + self.lasts), Ordering::AcqRel);
    }

    /// Whether the right holds now.
    pub fn holds_now(&self) -> bool {
        self.nanos(self.clock.now()) < self.until.load(Ordering::Acquire)
    }

    /// The right of a session that begins now: over once the worker's right lapses, even if it is won again.
    pub fn session(self: &Arc<Self>) -> SessionRight {
        SessionRight { right: Arc::clone(self), lapses: self.lapses.load(Ordering::Acquire) }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The right of one tenure of one lease.
#[derive(Debug, Clone)]
pub struct SessionRight {
    right: Arc<HeartbeatRight>,
    lapses: u64,
}

impl SessionRight {
    /// Whether the right lapsed since the session began: it must then start again from the row.
    pub fn is_over(&self) -> bool {
        self.right.lapses.load(Ordering::Acquire) != self.lapses
    }
}

impl Right for SessionRight {
    fn holds(&self) -> bool {
        !self.is_over() && self.right.holds_now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_counted_from_sending_and_a_lapse_ends_sessions() {
        let clock = Clock::new();
        let right = Arc::new(HeartbeatRight::new(clock.clone(), Duration::from_secs(9)));
        assert!(!right.holds_now(), "no heartbeat, no right");
        let sent_at = clock.now();
        clock.sleep(Duration::from_secs(2)).await;
        right.confirm(sent_at);
        let session = right.session();
        assert!(session.holds());
        clock.sleep(Duration::from_secs(7)).await;
        assert!(!session.holds());
        right.confirm(clock.now());
        assert!(right.holds_now());
        assert!(session.is_over() && !session.holds(), "won again, but not for this session");
        assert!(right.session().holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_confirmation_never_shortens_it() {
        let clock = Clock::new();
        let right = HeartbeatRight::new(clock.clone(), Duration::from_secs(9));
        let early = clock.now();
        clock.sleep(Duration::from_secs(1)).await;
        right.confirm(clock.now());
        right.confirm(early);
        clock.sleep(Duration::from_millis(8_500)).await;
        assert!(right.holds_now());
    }
}
