//! The Nudge port: "look now", without authority. Losing one only costs time: the next round finds it.
//!
//! A nudge may name a lease that was just handed over. The receiver then reads that row first, and goes by the row: a
//! false hint costs one read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::model::{LeaseKey, WorkerId};

/// What a nudge may say beside "look now".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// A lease that was just handed to the worker.
    pub lease: LeaseKey,
    /// How long its records have not been read, as of sending: for a metric of the receiver's.
    pub unread: Option<Duration>,
}

/// What became of a nudge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The worker looks.
    Looking,
    /// The worker is about to end and begins nothing.
    Leaving,
    /// Nobody answered in time, or there is no address.
    Unanswered,
}

/// Tells another worker to look at the tables now.
#[async_trait]
pub trait Nudge: Send + Sync + 'static {
    /// Best effort and coalesced: many nudges may become one round. Never waits long, never fails.
    async fn look_now(&self, worker: &WorkerId, address: Option<&str>, hint: Option<&Hint>) -> Heard;
}

/// What a worker was nudged about and did not look at yet: whoever nudges it calls [`Nudges::put`] or
/// [`Nudges::look_now`], its coordinator waits. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Nudges {
    inbox: Arc<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    plain: Notify,
    hinted: Notify,
    hints: Mutex<BTreeMap<LeaseKey, Option<Duration>>>,
}

/// Which kind of nudge there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nudged {
    /// To look at the tables.
    Plain,
    /// To read the rows that [`Nudges::take_hints`] names.
    Hinted,
}

/// Most hints that wait; each is one read of a row. Without room a nudge is a plain one.
const MOST_HINTS: usize = 1_000;

impl Nudges {
    /// A plain nudge.
    pub fn look_now(&self) {
        self.inbox.plain.notify_one();
    }

    /// A nudge that may name a lease. Without room for the hint it is a plain one.
    pub fn put(&self, hint: Option<Hint>) {
        let Some(hint) = hint else { return self.look_now() };
        let mut hints = self.hints();
        if hints.len() >= MOST_HINTS && !hints.contains_key(&hint.lease) {
            return self.look_now();
        }
        hints.insert(hint.lease, hint.unread);
        self.inbox.hinted.notify_one();
    }

    /// Returns when there may be a nudge; hints come first. *Cancelling it* is safe.
    pub async fn arrived(&self) -> Nudged {
        tokio::select! { biased;
            () = self.inbox.hinted.notified() => Nudged::Hinted,
            () = self.inbox.plain.notified() => Nudged::Plain,
        }
    }

    /// All leases named so far, each with how long its records had not been read, if that was told.
    pub fn take_hints(&self) -> BTreeMap<LeaseKey, Option<Duration>> {
        std::mem::take(&mut *self.hints())
    }

    fn hints(&self) -> MutexGuard<'_, BTreeMap<LeaseKey, Option<Duration>>> {
        self.inbox.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nudges workers of the same process.
#[derive(Debug, Default)]
pub struct LocalNudge {
    workers: Mutex<BTreeMap<WorkerId, Weak<Inbox>>>,
}

impl LocalNudge {
    /// Registers a worker, until the last clone of what is returned is dropped.
    pub fn register(&self, worker: WorkerId) -> Nudges {
        let nudges = Nudges::default();
        self.workers().insert(worker, Arc::downgrade(&nudges.inbox));
        nudges
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Weak<Inbox>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Nudge for LocalNudge {
    async fn look_now(&self, worker: &WorkerId, _address: Option<&str>, hint: Option<&Hint>) -> Heard {
        let Some(inbox) = self.workers().get(worker).and_then(Weak::upgrade) else {
            return Heard::Unanswered;
        };
        Nudges { inbox }.put(hint.cloned());
        Heard::Looking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn hint(n: usize) -> Hint {
        Hint { lease: LeaseKey::new(format!("s-{n}")), unread: Some(Duration::from_secs(2)) }
    }

    #[tokio::test]
    async fn hints_are_coalesced_come_first_and_are_bounded() {
        let nudges = Nudges::default();
        nudges.look_now();
        nudges.put(Some(hint(0)));
        nudges.put(Some(hint(0)));
        assert_eq!((nudges.arrived().await, nudges.arrived().await), (Nudged::Hinted, Nudged::Plain));
        assert_eq!(nudges.take_hints().into_values().collect::<Vec<_>>(), [Some(Duration::from_secs(2))]);
        assert_eq!(nudges.arrived().now_or_never(), None);
        (0..MOST_HINTS).for_each(|n| nudges.put(Some(hint(n))));
        assert_eq!(nudges.arrived().await, Nudged::Hinted);
        nudges.put(Some(hint(MOST_HINTS)));
        assert_eq!(nudges.arrived().now_or_never(), Some(Nudged::Plain), "no room");
        assert_eq!(nudges.take_hints().len(), MOST_HINTS);
    }

    #[tokio::test]
    async fn a_worker_of_this_process_hears_until_it_is_gone() {
        let (local, me) = (LocalNudge::default(), WorkerId::new("me"));
        assert_eq!(local.look_now(&me, None, None).await, Heard::Unanswered);
        let nudges = local.register(me.clone());
        assert_eq!(local.look_now(&me, None, Some(&hint(1))).await, Heard::Looking);
        assert_eq!(nudges.take_hints().len(), 1);
        drop(nudges);
        assert_eq!(local.look_now(&me, None, None).await, Heard::Unanswered);
    }
}
