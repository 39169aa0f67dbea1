//! The book of sessions of one worker: the coordinator begins them, the supervisor ends them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::LeaseKey;

/// Which leases of this worker have a session. The coordinator begins them, the supervisor ends them.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    keys: Arc<Mutex<BTreeSet<LeaseKey>>>,
    ended: Arc<Notify>,
}

impl Sessions {
    /// A session of this lease has ended.
    pub fn end(&self, key: &LeaseKey) {
        self.locked().remove(key);
        self.ended.notify_one();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.locked().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    /// Takes note of a session that begins; false if there is one already (rule R4: one at a time).
    pub(super) fn begin(&self, key: LeaseKey) -> bool {
        self.locked().insert(key)
    }

    /// Whether this lease has one, or rests after one that failed.
    pub fn contains(&self, key: &LeaseKey) -> bool {
        self.locked().contains(key)
    }

    pub(super) fn keys(&self) -> Vec<LeaseKey> {
        self.locked().iter().cloned().collect()
    }

    /// Returns when there is none. *Cancelling it* is safe.
    pub(super) async fn all_ended(&self) {
        while !self.is_empty() {
            self.ended.notified().await;
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeSet<LeaseKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
