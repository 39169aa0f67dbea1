//! After a hand-over: tells the new owner, and frees the lease again if that worker has left meanwhile.
//!
//! The worker that a lease is given to was chosen from rows that may be a moment old. If it has ended since, the row
//! would name a worker that is not there, and stand still for `failover_time`. So a giver whose nudge is not heard
//! looks at the worker rows, and frees the lease by a write that is conditional on the hand-over as it wrote it: if
//! the new owner has written to the row, it keeps it; if it has not, its session finds the lease lost and anybody,
//! also that worker, takes it from there.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_lease::nudge::{Heard, Hint};
use sluicegate_lease::{Lease, LeaseStore, Nudge, WorkerId, WorkerRegistry, WorkerRow, WorkerState, Written};

/// Longest that telling, looking and freeing may take: a worker that ends waits for it.
const WITHIN: Duration = Duration::from_secs(2);

/// A lease that was given away.
pub(crate) struct HandedOver {
    pub(crate) nudge: Arc<dyn Nudge>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) registry: Arc<dyn WorkerRegistry>,
    /// The row as the hand-over wrote it.
    pub(crate) row: Lease,
    /// To whom.
    pub(crate) to: WorkerId,
    /// Where that worker can be nudged.
    pub(crate) address: Option<String>,
    /// How long its records have not been read.
    pub(crate) unread: Option<Duration>,
}

impl HandedOver {
    /// Tells the new owner. Best effort: whoever does not hear of it finds the row with the next round.
    pub(crate) async fn tell(self) {
        if tokio::time::timeout(WITHIN, self.tell_or_free()).await.is_err() {
            tracing::warn!(lease_key = %self.row.key, to = %self.to, "the new owner was not told in time");
        }
    }

    async fn tell_or_free(&self) {
        let hint = Hint { lease: self.row.key.clone(), unread: self.unread };
        if self.nudge.look_now(&self.to, self.address.as_deref(), Some(&hint)).await == Heard::Looking {
            return;
        }
        let workers = match self.registry.workers().await {
            Ok(workers) => workers,
            Err(error) => {
                tracing::warn!(lease_key = %self.row.key, to = %self.to, %error, "a new owner was not found");
                return;
            }
        };
        let active = |row: &&WorkerRow| row.state == WorkerState::Active;
        if workers.iter().filter(active).any(|row| row.worker_id == self.to) {
            return;
        }
        match self.store.replace(&self.row, &self.row.handed_over(None)).await {
            Ok(Written::Applied(_)) => {
                tracing::info!(lease_key = %self.row.key, to = %self.to, "freed a lease: its new owner has left");
                for row in workers.iter().filter(active) {
                    self.nudge.look_now(&row.worker_id, row.address.as_deref(), None).await;
                }
            }
            Ok(Written::Lost(_)) => {}
            Err(error) => tracing::warn!(lease_key = %self.row.key, %error, "a lease was not freed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};
    use sluicegate_lease::memory::{MemoryLeaseStore, MemoryRegistry};
    use sluicegate_lease::nudge::LocalNudge;

    /// Hands a lease to `to`, among workers with these rows; returns who owns it in the end.
    async fn handed_to(to: &str, rows: &[(&str, WorkerState)], heard: bool) -> Option<WorkerId> {
        let (store, registry) = (Arc::new(MemoryLeaseStore::default()), Arc::new(MemoryRegistry::default()));
        let nudge = Arc::new(LocalNudge::default());
        let _told = heard.then(|| nudge.register(WorkerId::new(to)));
        for (id, state) in rows {
            let row = WorkerRow { state: *state, ..WorkerRow::new(WorkerId::new(*id)) };
            registry.heartbeat(None, &row).await.unwrap();
        }
        let free = Lease::unowned(ShardId::new("s-0"), Position::TrimHorizon, LeaseState::starting(None));
        let row = free.taken_by(&WorkerId::new("me")).handed_over(Some(WorkerId::new(to)));
        store.create(&row).await.unwrap();
        let shared: Arc<dyn LeaseStore> = Arc::<MemoryLeaseStore>::clone(&store);
        let to = WorkerId::new(to);
        HandedOver { nudge, store: shared, registry, row, to, address: None, unread: None }.tell().await;
        assert_eq!(store.broken_laws(), vec![]);
        store.lease(&ShardId::new("s-0")).await.unwrap().unwrap().owner
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_given_to_a_worker_that_has_left_or_is_leaving_is_freed() {
        use WorkerState::{Active, Draining};
        let b = Some(WorkerId::new("b"));
        assert_eq!(handed_to("b", &[("b", Active)], true).await, b);
        assert_eq!(handed_to("b", &[("b", Active)], false).await, b, "its next round finds the lease");
        assert_eq!(handed_to("b", &[("c", Active)], false).await, None);
        assert_eq!(handed_to("b", &[("b", Draining), ("c", Active)], false).await, None);
    }
}
