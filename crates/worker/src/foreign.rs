//! Before the first round: is a KCL application at work on the lease table? Then this worker must not start.
//!
//! A table whose owners all have a worker row is looked at once. Otherwise the owners without one are watched until each
//! has stood still for the failover time, before which nobody may take their leases anyway, or one shows that it is at
//! work. What was seen goes on into the rounds, so nothing is waited for twice.

use std::time::Duration;

use sluicegate_lease::foreign::multi_stream;
use sluicegate_lease::store::ReadError;
use sluicegate_lease::{Clock, FleetView, ForeignLife, LeaseKey, LeaseStore, Observer, WorkerRegistry};

/// The tables to look at, and by which clock.
pub(crate) struct Look<'a> {
    pub(crate) store: &'a dyn LeaseStore,
    pub(crate) registry: &'a dyn WorkerRegistry,
    pub(crate) clock: &'a Clock,
    pub(crate) failover_time: Duration,
}

/// Whose the lease table is, if this worker must not start on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// A KCL application's that is at work.
    Running(ForeignLife),
    /// A KCL application's that reads many streams; this is one of its rows.
    MultiStream(LeaseKey),
}

impl Look<'_> {
    /// Watches owners without a worker row; returns the first that is at work, or a row that no worker of ours could
    /// work on. *Cancelling it* is safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(crate) async fn watch(&self, observer: &mut Observer) -> Result<Option<Foreign>, ReadError> {
        // Once before any lease: a worker of ours may write its leases and leave between the two reads.
        observer.see_workers(self.registry.workers().await?, self.clock.now());
        let mut told = false;
        loop {
            let view = self.look(observer).await?;
            // Running or not: its rows are no shards of the stream, and would be deleted as those of forgotten ones.
            if let Some(key) = view.leases.keys().find(|key| multi_stream(key).is_some()) {
                return Ok(Some(Foreign::MultiStream(key.clone())));
            }
            if let Some(life) = observer.newly_alive().first() {
                return Ok(Some(Foreign::Running(life.clone())));
            }
            let undecided = view.undecided_owners();
            if undecided.is_empty() {
                return Ok(None);
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!(owners = ?undecided, failover_time = ?self.failover_time, "these owners of leases have no worker row; they are watched before the start, for a KCL application may be running");
            }
            self.clock.sleep(self.failover_time / LOOKS).await;
        }
    }

    /// Lease rows, then the worker rows that explain their owners.
    async fn look(&self, observer: &mut Observer) -> Result<FleetView, ReadError> {
        let leases = self.store.leases().await?;
        let workers = self.registry.workers().await?;
        let now = self.clock.now();
        observer.see_workers(workers, now);
        Ok(observer.see_leases(leases, now))
    }
}

/// Looks in one failover time: each is a scan of the lease table. KCL writes each lease three times in it.
const LOOKS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use sluicegate_checkpoint::{LeaseState, Position, ShardId};
    use sluicegate_lease::memory::{MemoryLeaseStore, MemoryRegistry};
    use sluicegate_lease::{Lease, WorkerId, WorkerRow, Written};
    use tokio::time::Instant;

    const FAILOVER: Duration = Duration::from_secs(10);

    /// A table with one lease of this owner.
    async fn table(owner: Option<&str>) -> (Arc<MemoryLeaseStore>, MemoryRegistry, Lease) {
        let store = Arc::new(MemoryLeaseStore::default());
        let row = Lease::unowned(ShardId::new("s-0"), Position::TrimHorizon, LeaseState::starting(None));
        let row = Lease { owner: owner.map(WorkerId::new), ..row };
        store.create(&row).await.unwrap();
        (store, MemoryRegistry::default(), row)
    }

    async fn watched(
        store: &MemoryLeaseStore,
        registry: &MemoryRegistry,
    ) -> (Option<Foreign>, Duration, Observer) {
        let mut observer = Observer::new(WorkerId::new("me"), FAILOVER);
        let begun = Instant::now();
        let look = Look { store, registry, clock: &Clock::new(), failover_time: FAILOVER };
        let found = look.watch(&mut observer).await.unwrap();
        (found, begun.elapsed(), observer)
    }

    /// Raises the counter of a lease so many times, as KCL renews it.
    async fn renew(store: &MemoryLeaseStore, mut row: Lease, times: u32) {
        for _ in 0..times {
            tokio::time::sleep(FAILOVER / 3).await;
            let next = row.taken_by(row.owner.as_ref().unwrap());
            let Written::Applied(written) = store.replace(&row, &next).await.unwrap() else {
                panic!("nobody else writes it")
            };
            row = written;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_without_owners_or_with_workers_of_ours_is_looked_at_once() {
        let (store, registry, _) = table(None).await;
        let (found, took, _) = watched(&store, &registry).await;
        assert_eq!((found, took), (None, Duration::ZERO));
        let (store, registry, _) = table(Some("w")).await;
        registry.heartbeat(None, &WorkerRow::new(WorkerId::new("w"))).await.unwrap();
        let (found, took, _) = watched(&store, &registry).await;
        assert_eq!((found, took), (None, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_without_a_row_that_writes_is_found_within_the_failover_time() {
        let (store, registry, row) = table(Some("kcl")).await;
        let ((found, took, _), ()) = tokio::join!(watched(&store, &registry), renew(&store, row, 3));
        let Some(Foreign::Running(life)) = found else { panic!("it is at work: {found:?}") };
        assert_eq!((life.owner.as_str(), life.lease_key.as_str()), ("kcl", "s-0"));
        assert!(took <= FAILOVER, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_of_a_multi_stream_application_is_found_at_once_whether_it_runs_or_not() {
        for owner in [None, Some("kcl")] {
            let (store, registry, row) = table(owner).await;
            let key = LeaseKey::new("111122223333:orders:1700000000:shardId-000000000000");
            store.create(&Lease { key: key.clone(), ..row }).await.unwrap();
            let (found, took, _) = watched(&store, &registry).await;
            assert_eq!((found, took), (Some(Foreign::MultiStream(key)), Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_is_gone_costs_one_failover_time_and_its_lease_is_free_in_the_first_round() {
        let (store, registry, row) = table(Some("kcl")).await;
        let (found, took, mut observer) = watched(&store, &registry).await;
        assert_eq!(found, None);
        assert!((FAILOVER..=FAILOVER + FAILOVER / LOOKS).contains(&took), "{took:?}");
        let view = observer.see_leases(vec![row.clone()], Instant::now());
        assert_eq!(view.free(&view.leases[&row.key]), Some(sluicegate_lease::view::Free::Gone));
        // One write that was still on its way is no life, but it is waited out.
        let ((found, took, _), ()) = tokio::join!(watched(&store, &registry), renew(&store, row, 1));
        assert_eq!(found, None);
        assert!(took >= FAILOVER + FAILOVER / 3, "{took:?}");
    }
}
