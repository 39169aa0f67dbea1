//! A bug of reading.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_checkpoint::ShardId;
use sluicegate_worker::{
    Distributed, ReadFrom, RecordPage, ShardCursor, ShardListing, StreamError, StreamReader,
};

use super::{Build, Parts, Ports};

/// The client repeats what is throttled by itself, as an SDK does whose own retries are on.
pub fn refused_reads_repeated_at_once(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { stream: Arc::new(Impatient(parts.stream)), ..parts }
}

struct Impatient(Arc<dyn StreamReader>);

#[async_trait]
impl StreamReader for Impatient {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        self.0.shards().await
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        self.0.distribution().await
    }

    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
        Box::new(ImpatientCursor(self.0.open(shard, from)))
    }
}

struct ImpatientCursor(Box<dyn ShardCursor>);

/// How often a call is made, and how long it waits in between.
const CALLS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);

#[async_trait]
impl ShardCursor for ImpatientCursor {
    async fn next_page(&mut self, limit: u32) -> Result<RecordPage, StreamError> {
        let mut read = self.0.next_page(limit).await;
        for _ in 1..CALLS {
            if !matches!(read, Err(StreamError::Throttled { .. })) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            read = self.0.next_page(limit).await;
        }
        read
    }
}
