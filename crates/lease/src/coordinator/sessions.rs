//! The book of sessions of one worker: the coordinator begins them, the supervisor ends them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::LeaseKey;

/// What stands in the book of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// A session works on it.
    Works,
    /// Its session failed; it is begun again after a while.
    Rests,
}

/// Which leases of this worker have a session. The coordinator begins them, the supervisor ends them.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    book: Arc<Mutex<BTreeMap<LeaseKey, Entry>>>,
    ended: Arc<Notify>,
}

impl Sessions {
    /// A session of this lease has ended.
    pub fn end(&self, key: &LeaseKey) {
        self.locked().remove(key);
        self.ended.notify_one();
    }

    /// The session of this lease failed, and the lease rests until [`Sessions::end_rest`].
    pub fn rest(&self, key: &LeaseKey) {
        self.locked().insert(key.clone(), Entry::Rests);
    }

    /// Ends the rest of this lease; false if it does not rest, because it was given away meanwhile.
    pub fn end_rest(&self, key: &LeaseKey) -> bool {
        let mut book = self.locked();
        let rests = book.get(key) == Some(&Entry::Rests);
        if rests {
            book.remove(key);
            self.ended.notify_one();
        }
        rests
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
        let mut book = self.locked();
        let free = !book.contains_key(&key);
        if free {
            book.insert(key, Entry::Works);
        }
        free
    }

    /// Whether this lease has one, or rests after one that failed.
    pub fn contains(&self, key: &LeaseKey) -> bool {
        self.locked().contains_key(key)
    }

    pub(super) fn keys(&self) -> Vec<LeaseKey> {
        self.locked().keys().cloned().collect()
    }

    /// Returns when there is none. *Cancelling it* is safe.
    pub(super) async fn all_ended(&self) {
        while !self.is_empty() {
            self.ended.notified().await;
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<LeaseKey, Entry>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::ShardId;

    #[test]
    fn a_lease_rests_once_and_has_one_session_at_a_time() {
        let (sessions, key) = (Sessions::default(), ShardId::new("s-0"));
        assert!(!sessions.end_rest(&key));
        assert!(sessions.begin(key.clone()) && !sessions.begin(key.clone()));
        assert!(!sessions.end_rest(&key), "it works");
        sessions.rest(&key);
        assert!(sessions.contains(&key) && !sessions.begin(key.clone()), "it rests");
        assert!(sessions.end_rest(&key) && !sessions.end_rest(&key));
        assert!(sessions.is_empty() && sessions.begin(key));
    }
}
