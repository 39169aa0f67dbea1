//! What the last listing of the stream told, for those who judge by it, and the wish for a new one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::shard_graph::ShardGraph;

/// The last complete listing of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Its shards.
    pub shards: ShardGraph,
    /// How long the stream keeps a record; not known before the first listing.
    pub retention: Option<Duration>,
}

/// Asks the shard sync to list the shards now. Many wishes become one listing. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ListingWanted(Arc<Notify>);

impl ListingWanted {
    /// Something is missing that a listing would tell.
    pub fn ask(&self) {
        self.0.notify_one();
    }

    /// Returns when somebody has asked since the last return. *Cancelling it* is safe: the wish stays.
    pub async fn asked(&self) {
        self.0.notified().await;
    }
}
