//! Keeps the lease rows in step with the shards of the stream: at start, every minute, and at once when a row is
//! missing or a shard was not found.
//!
//! One sync: list -> read the rows -> make the missing ones, parents first -> delete those of forgotten shards. The
//! list comes before the rows. Each missing row is checked once more by strongly consistent reads just before it is
//! put, because the rows may have moved on since they were scanned (law S3).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use rand::Rng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::ShardId;
use sluicegate_checkpoint::recurring::causes;
use sluicegate_lease::forgotten::{Absences, Deletion, deletions};
use sluicegate_lease::nudge::Nudges;
use sluicegate_lease::parents::any_begun;
use sluicegate_lease::shard_graph::holes;
use sluicegate_lease::shard_sync::{Making, child_rows, epoch_of, generations, had_a_row, missing_rows};
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::view::LeaseView;
use sluicegate_lease::{
    AnotherStream, Clock, FleetView, Lease, LeaseKey, LeaseStore, Listing, ListingWanted, RecordedStart,
    Sessions, Shard, ShardGraph, WorkerId, Written,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::stream::{ShardListing, StreamError, StreamReader};
use crate::watch::Stamp;

/// Why rows were not brought in step.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The stream was not listed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The lease rows were not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A row was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The rows are of another stream's shards.
    #[error(transparent)]
    AnotherStream(#[from] AnotherStream),
    /// A shard is at its end, and the stream names no children.
    #[error("shard {0} has ended, but the stream does not name its children yet")]
    NoChildren(ShardId),
}

/// Makes the rows of a finished shard's children.
#[async_trait]
pub trait ChildRows: Send + Sync + 'static {
    /// Creates a row for each child and returns the children's ids. `named` is what the stream's last answer named;
    /// if it named none, the stream is listed.
    ///
    /// *Repeating it*: safe.
    ///
    /// # Errors
    /// See [`SyncError`].
    async fn create(&self, parent: &Lease, named: Vec<Shard>) -> Result<BTreeSet<ShardId>, SyncError>;
}

/// Lists shards, creates the rows that are missing, and deletes those of forgotten shards.
pub struct ShardSync {
    /// Who makes rows here.
    pub me: WorkerId,
    /// The stream.
    pub stream: Arc<dyn StreamReader>,
    /// The lease table.
    pub store: Arc<dyn LeaseStore>,
    /// Where the application started, and of which stream.
    pub start: RecordedStart,
    /// Told when there are new rows to look at.
    pub nudged: Nudges,
    /// The last listing.
    pub listed: watch::Sender<Arc<Listing>>,
    /// Asks for a listing now.
    pub wanted: ListingWanted,
    /// What the coordinator last saw of the fleet.
    pub view: Views,
    /// The sessions of this worker.
    pub sessions: Sessions,
    /// Where to count.
    pub metrics: Metrics,
    /// What the syncs before this one found.
    pub found: Mutex<Found>,
}

/// What a worker remembers from sync to sync.
#[derive(Debug, Default)]
pub struct Found {
    absences: Absences,
    /// Rows that were there at some time.
    seen: BTreeSet<LeaseKey>,
    /// Shards of this worker that a session did not find, so that none works on them.
    not_there: BTreeSet<LeaseKey>,
    /// How often rows were made here.
    puts: u64,
}

impl std::fmt::Debug for ShardSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardSync").field("start", &self.start).finish_non_exhaustive()
    }
}

/// The views of the fleet, one after the other.
type Views = watch::Receiver<Option<Arc<FleetView>>>;

/// Time between two listings (KCL: 120 s, three times, for a hole).
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(60);
/// The same while an unfinished shard was missing from the last one: the next one tells that it is gone.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between two listings, however often somebody asks. Kinesis answers 20 DescribeStreamSummary a second
/// per account (AWS Kinesis API reference, DescribeStreamSummary).
const SYNCS_APART: Duration = Duration::from_secs(2);
/// How many rows are made at a time.
const AT_ONCE: usize = 16;

impl ShardSync {
    /// Brings rows and shards in step once. The list is gathered before the rows.
    ///
    /// # Errors
    /// See [`SyncError`].
    pub async fn sync(&self) -> Result<(), SyncError> {
        self.sync_in_steps(&|| {}).await
    }

    /// The same; `turned` is called after each step, of which a large stream needs many.
    async fn sync_in_steps(&self, turned: &(dyn Fn() + Send + Sync)) -> Result<(), SyncError> {
        let listing = self.list().await?;
        turned();
        let graph = ShardGraph::new(listing.shards);
        let gone = self.found().absences.listed(listing.stream.created, &graph);
        let rows = self.store.leases().await?;
        turned();
        let retention = Some(listing.retention);
        self.listed.send_replace(Arc::new(Listing { shards: graph.clone(), retention }));
        let making = Making { start: self.start.at, now: listing.server_time, epoch: self.next_epoch() };
        let missing = missing_rows(&graph, &rows, making);
        self.found().absences.rows_read(&rows);
        let mut made = false;
        for generation in generations(&missing) {
            let making = generation.iter().cloned().map(|row| {
                let again = had_a_row(&row, &rows, &self.found().seen);
                self.make(row, &graph, again)
            });
            let mut making = stream::iter(making).buffer_unordered(AT_ONCE);
            while let Some(done) = making.next().await {
                made |= done?;
                turned();
            }
        }
        self.found().seen.extend(rows.iter().chain(&missing).map(|row| row.key.clone()));
        for deletion in deletions(&rows, &gone, &graph, |row| self.is_idle(row)) {
            self.delete(deletion).await?;
            made = true;
            turned();
        }
        if made {
            self.nudged.look_now();
        }
        Ok(())
    }

    /// Lists the shards of the application's own stream; of any other's no row may be made, and none deleted for it.
    async fn list(&self) -> Result<ShardListing, SyncError> {
        let listing = self.stream.shards().await?;
        self.start.check(&listing.stream)?;
        Ok(listing)
    }

    /// Makes a row that was missing, unless a descendant has begun meanwhile; returns whether it was made here.
    async fn make(&self, row: Lease, graph: &ShardGraph, again: bool) -> Result<bool, SyncError> {
        if any_begun(&*self.store, graph.descendants(&row.key)).await? {
            tracing::debug!(lease_key = %row.key, "no row is made: a descendant has begun");
            return Ok(false);
        }
        if matches!(self.store.create(&row).await?, Written::Lost(_)) {
            return Ok(false);
        }
        if again {
            self.metrics.row_made_again();
            tracing::warn!(lease_key = %row.key, checkpoint = %row.checkpoint, "a lease row was missing and is made again; how far it was read is lost with the old one, so records may be stored twice");
        } else {
            tracing::info!(lease_key = %row.key, checkpoint = %row.checkpoint, "created a lease row");
        }
        Ok(true)
    }

    /// Deletes the row of a forgotten shard, if it is still as it was read. An unknown outcome is settled by the
    /// same deletion.
    async fn delete(&self, deletion: Deletion) -> Result<(), SyncError> {
        let row = &deletion.row;
        let mut unknown = false;
        let gone = loop {
            match self.store.delete(row).await {
                Ok(Written::Applied(())) => break true,
                Ok(Written::Lost(found)) => break unknown && found.is_none(),
                Err(WriteError::OutcomeUnknown { .. }) if !unknown => unknown = true,
                Err(error) => return Err(error.into()),
            }
        };
        if !gone {
            return Ok(());
        }
        self.found().not_there.remove(&row.key);
        if deletion.lost {
            self.metrics.shard_lost();
            tracing::error!(lease_key = %row.key, checkpoint = %row.checkpoint, "records lost: the stream has forgotten a shard that was not finished; its lease row is deleted");
        } else {
            tracing::info!(lease_key = %row.key, "deleted the lease row of a shard that the stream has forgotten");
        }
        Ok(())
    }

    /// Whether nobody can be working on a row: its owner is not there, or is this worker and has no session on it, or
    /// one that did not find the shard.
    fn is_idle(&self, row: &Lease) -> bool {
        let view = self.view.borrow().clone();
        let Some(view) = view else { return row.owner.is_none() };
        let owner_gone = view.leases.get(&row.key).is_some_and(|seen| {
            seen.owner_gone && (&seen.row.owner, seen.row.counter) == (&row.owner, row.counter)
        });
        let mine = row.owner.as_ref() == Some(&view.me);
        let free = view.free(&LeaseView { row: row.clone(), owner_gone, free_rounds: 0 }).is_some();
        let at_work = self.sessions.contains(&row.key) && !self.found().not_there.contains(&row.key);
        free || (mine && !at_work)
    }

    /// A session of this worker did not find its shard. That is not the end of the shard; a listing tells.
    pub fn not_found(&self, shard: &ShardId) {
        self.found().not_there.insert(shard.clone());
        self.wanted.ask();
    }

    /// Hash keys that no unfinished row covers, as the last round saw the rows (law S2).
    fn holes(&self) -> usize {
        let (view, listed) = (self.view.borrow().clone(), Arc::clone(&self.listed.borrow()));
        let Some(view) = view else { return 0 };
        let holes = holes(view.leases.values().map(|lease| &lease.row), &listed.shards);
        self.metrics.holes(holes.len());
        if let Some(hole) = holes.first() {
            tracing::warn!(
                start = hole.start,
                end = hole.end,
                "no lease row covers these hash keys; the shards are listed"
            );
        }
        holes.len()
    }

    /// Whether a shard whose row is unfinished was missing from the last listing.
    fn is_unsure(&self) -> bool {
        let view = self.view.borrow().clone();
        let Some(view) = view else { return false };
        let unfinished = view.leases.values().map(|lease| &lease.row).filter(|row| !row.is_finished());
        self.found().absences.lacks_any_of(unfinished)
    }

    /// Syncs every minute, seldomer where there are more than a thousand shards, with jitter, and soon after somebody
    /// asked or a hole was seen, until stopped. A failed sync is tried again with the next one.
    pub async fn run(
        self: Arc<Self>,
        clock: Clock,
        mut rng: SmallRng,
        stamp: Stamp,
        stop: CancellationToken,
    ) {
        let mut views = self.view.clone();
        let mut last = clock.now();
        loop {
            let due = self.due(&clock, last, &mut views, &mut rng);
            tokio::select! { biased;
                () = stop.cancelled() => return,
                () = stamp.while_waiting(due) => {}
            }
            last = clock.now();
            if let Err(error) = self.sync_in_steps(&|| stamp.stamp()).await {
                tracing::warn!(error = causes(&error), "shards and lease rows were not compared");
            }
        }
    }

    /// Returns when it is time for the sync after the last one. *Cancelling it* is safe.
    async fn due(&self, clock: &Clock, last: Instant, views: &mut Views, rng: &mut SmallRng) {
        let regular = SYNC_INTERVAL * stretch(self.listed.borrow().shards.len());
        let period = if self.is_unsure() { CONFIRM_INTERVAL } else { regular };
        let next = last + period.mul_f64(rng.random_range(0.5..1.0));
        let wanted = async {
            tokio::select! { biased;
                () = self.wanted.asked() => {}
                () = self.hole_seen(views) => {}
            }
        };
        tokio::select! { biased;
            () = wanted => {
                // All workers see the same hole at about the same time: the first one repairs it.
                let soon = clock.now() + SYNCS_APART.mul_f64(rng.random_range(0.0..0.5));
                clock.sleep_until(soon.max(last + SYNCS_APART)).await;
            }
            () = clock.sleep_until(next) => {}
        }
    }

    /// Returns when a round has seen a hole. *Cancelling it* is safe.
    async fn hole_seen(&self, views: &mut Views) {
        while views.changed().await.is_ok() {
            if self.holes() > 0 {
                return;
            }
        }
        std::future::pending().await
    }

    /// An epoch that no other put has.
    fn next_epoch(&self) -> u32 {
        let mut found = self.found();
        found.puts += 1;
        epoch_of(&self.me, found.puts)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much less often a large stream is compared with its rows: each time is a scan of the lease table by each worker.
fn stretch(shards: usize) -> u32 {
    u32::try_from(shards / 1_000).unwrap_or(u32::MAX).saturating_add(1)
}

#[async_trait]
impl ChildRows for ShardSync {
    async fn create(&self, parent: &Lease, named: Vec<Shard>) -> Result<BTreeSet<ShardId>, SyncError> {
        let children = if named.is_empty() {
            let listing = self.list().await?;
            listing.shards.into_iter().filter(|shard| shard.parents.contains(&parent.key)).collect()
        } else {
            named
        };
        if children.is_empty() {
            return Err(SyncError::NoChildren(parent.key.clone()));
        }
        for row in child_rows(parent, &children, self.next_epoch()) {
            self.store.create(&row).await?;
            tracing::info!(lease_key = %row.key, parent = %parent.key, "created the lease row of a child shard");
        }
        self.nudged.look_now();
        Ok(children.into_iter().map(|child| child.id).collect())
    }
}

#[cfg(test)]
mod tests;
