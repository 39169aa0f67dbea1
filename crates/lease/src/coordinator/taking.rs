//! Takes leases: those that the plan gives to this worker, those that it finds free by their rows, and, where scans come
//! seldom, those of which another worker tells it.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use sluicegate_checkpoint::recurring::causes;
use tokio_util::sync::CancellationToken;
use tracing::field::display;

use super::{AT_ONCE, Coordinator, CoordinatorError, Interruption, Looked};
use crate::model::{Lease, LeaseKey, Pending, WorkerId};
use crate::nudge::Hint;
use crate::store::Written;
use crate::view::{FleetView, Free, Observer};

/// How often a row that was missed is taken as it was found, while it is free: a plan may go by rows that are old.
const TAKE_ATTEMPTS: u32 = 3;
/// Most free leases of which a round tells others, and the longest that may take.
const MOST_TOLD: usize = 200;
const TELLING: Duration = Duration::from_millis(500);

/// What came of a take.
pub(super) enum Taken {
    /// The row as it was written.
    Ours(Lease),
    /// The row as it was found, if it was.
    Missed(Option<Lease>),
}

impl Taken {
    /// Has the row remembered, and returns it if it was missed.
    pub(super) fn learned_by(self, observer: &mut Observer) -> Option<Lease> {
        let (row, missed) = match self {
            Self::Ours(row) => (Some(row), false),
            Self::Missed(row) => (row, true),
        };
        let row = row?;
        observer.learn(row.clone());
        missed.then_some(row)
    }
}

/// Why a row that was read by itself can be taken, if it can. Its parents are asked before its first read.
fn free_to_work_on(row: &Lease, observer: &Observer) -> Option<Free> {
    let readable = !matches!(row.pending, Pending::Unreadable { .. });
    observer.free(row).filter(|_| readable && !row.is_finished())
}

impl Coordinator {
    /// Takes a lease on the condition that its row is still this one.
    pub(super) async fn take(
        &self,
        row: Lease,
        why: Free,
        observer: &Observer,
    ) -> Result<Taken, CoordinatorError> {
        let right = self.right.session();
        let written = self.store.replace(&row, &row.taken_by(&self.config.me)).await;
        (self.on_turn)();
        match written {
            Ok(Written::Applied(taken)) => {
                let from = row.owner.as_ref().map(display);
                tracing::info!(lease_key = %row.key, why = why.label(), from, "took a lease");
                let silent = row.owner.as_ref().filter(|_| why == Free::Silent);
                let since = silent.and_then(|owner| observer.still_since(owner));
                let since = since.map(|since| (Interruption::Failover, since));
                self.begin(taken.clone(), right, since).await?;
                Ok(Taken::Ours(taken))
            }
            Ok(Written::Lost(found)) => {
                tracing::debug!(lease_key = %row.key, "the lease was written to by somebody else");
                Ok(Taken::Missed(found))
            }
            Err(error) => {
                // If it was applied, the next round finds the row to be ours and adopts it.
                tracing::warn!(lease_key = %row.key, error = causes(&error), "a take is undecided");
                Ok(Taken::Missed(None))
            }
        }
    }

    /// Takes those of these rows, just read, that nobody live holds. The workers are looked at after the rows were read,
    /// as in a round: an owner that has come back to life is seen. Returns whether the fleet was found to have changed.
    pub(super) async fn take_found(
        &self,
        mut found: Vec<Lease>,
        observer: &mut Observer,
        drain: &CancellationToken,
    ) -> Result<bool, CoordinatorError> {
        let mut changed = false;
        for _ in 0..TAKE_ATTEMPTS {
            found.retain(|row| free_to_work_on(row, observer).is_some());
            if found.is_empty() {
                break;
            }
            match self.look(observer, drain).await {
                Looked::NotRead => break,
                Looked::Changed => changed = true,
                Looked::Unchanged => {}
            }
            if !self.right.holds_now() || drain.is_cancelled() {
                break;
            }
            let free = found.into_iter().filter_map(|row| Some((free_to_work_on(&row, observer)?, row)));
            let takes = free.map(|(why, row)| self.take(row, why, observer));
            let takes = stream::iter(takes).buffer_unordered(AT_ONCE).inspect(|_taken| (self.on_turn)());
            let taken = takes.collect::<Vec<_>>().await;
            found = Vec::new();
            for taken in taken {
                found.extend(taken?.learned_by(observer));
            }
        }
        Ok(changed)
    }

    /// Tells workers of the free leases that the plan gives to them: they would find them with their own next scan.
    pub(super) async fn tell(&self, left: Vec<(LeaseKey, WorkerId)>, view: &FleetView) {
        let told = left.into_iter().take(MOST_TOLD).map(|(lease, to)| async move {
            let address = view.workers.get(&to).and_then(|worker| worker.address.as_deref());
            self.nudge.look_now(&to, address, Some(&Hint { lease, unread: None })).await;
        });
        tokio::select! { biased;
            () = stream::iter(told).buffer_unordered(AT_ONCE).for_each(|()| std::future::ready(())) => {}
            () = self.clock.sleep(TELLING) => tracing::debug!("not everybody was told of free leases in time"),
        }
    }
}
