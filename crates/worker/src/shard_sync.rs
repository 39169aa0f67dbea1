//! Keeps the lease rows in step with the shards of the stream: at start, every minute, and at each shard's end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::ShardId;
use sluicegate_lease::nudge::Nudges;
use sluicegate_lease::shard_sync::{child_rows, missing_rows};
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{Clock, FixedStart, Lease, LeaseStore, Shard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::stream::{StreamError, StreamReader};

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

/// Lists shards and creates the rows that are missing.
pub struct ShardSync {
    /// The stream.
    pub stream: Arc<dyn StreamReader>,
    /// The lease table.
    pub store: Arc<dyn LeaseStore>,
    /// Where the application started.
    pub start: FixedStart,
    /// Told when there are new rows to look at.
    pub nudged: Nudges,
    /// The shards of the last listing.
    pub listed: watch::Sender<Arc<BTreeSet<ShardId>>>,
}

impl std::fmt::Debug for ShardSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardSync").field("start", &self.start).finish_non_exhaustive()
    }
}

/// Time between two listings (KCL: 120 s, three times, for a hole).
const SYNC_INTERVAL: Duration = Duration::from_secs(60);

impl ShardSync {
    /// Brings rows and shards in step once. The list is gathered before the rows.
    ///
    /// # Errors
    /// See [`SyncError`].
    pub async fn sync(&self) -> Result<(), SyncError> {
        let listing = self.stream.shards().await?;
        let rows = self.store.leases().await?;
        let missing = missing_rows(&listing.shards, &rows, self.start);
        for row in &missing {
            self.store.create(row).await?;
            tracing::info!(lease_key = %row.key, checkpoint = %row.checkpoint, "created a lease row");
        }
        self.listed.send_replace(Arc::new(listing.shards.into_iter().map(|shard| shard.id).collect()));
        if !missing.is_empty() {
            self.nudged.look_now();
        }
        Ok(())
    }

    /// Syncs every minute, seldomer where there are more than a thousand shards, with jitter, until stopped. A failed sync is tried again with the next one.
    pub async fn run(self: Arc<Self>, clock: Clock, mut rng: SmallRng, stop: CancellationToken) {
        loop {
            let wait =
                SYNC_INTERVAL.mul_f64(rng.random_range(0.5..1.0)) * stretch(self.listed.borrow().len());
            tokio::select! { biased;
                () = stop.cancelled() => return,
                () = clock.sleep(wait) => {}
            }
            if let Err(error) = self.sync().await {
                tracing::warn!(%error, "shards and lease rows were not compared");
            }
        }
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
            let listing = self.stream.shards().await?;
            listing.shards.into_iter().filter(|shard| shard.parents.contains(&parent.key)).collect()
        } else {
            named
        };
        if children.is_empty() {
            return Err(SyncError::NoChildren(parent.key.clone()));
        }
        for row in child_rows(parent, &children) {
            self.store.create(&row).await?;
            tracing::info!(lease_key = %row.key, parent = %parent.key, "created the lease row of a child shard");
        }
        self.nudged.look_now();
        Ok(children.into_iter().map(|child| child.id).collect())
    }
}
