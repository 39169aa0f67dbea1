//! The Nudge port: "look now", without authority. Losing one only costs time: the next round finds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::model::WorkerId;

/// Tells another worker to look at the tables now.
#[async_trait]
pub trait Nudge: Send + Sync + 'static {
    /// Best effort and coalesced: many nudges may become one round. Never waits long, never fails.
    async fn look_now(&self, worker: &WorkerId, address: Option<&str>);
}

/// Nudges workers of the same process.
#[derive(Debug, Default)]
pub struct LocalNudge {
    workers: Mutex<BTreeMap<WorkerId, Arc<Notify>>>,
}

impl LocalNudge {
    /// Registers a worker; the handle is told of every nudge.
    pub fn register(&self, worker: WorkerId) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, Arc::clone(&notify));
        notify
    }
}

#[async_trait]
impl Nudge for LocalNudge {
    async fn look_now(&self, worker: &WorkerId, _address: Option<&str>) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = workers.get(worker) {
            notify.notify_one();
        }
    }
}
