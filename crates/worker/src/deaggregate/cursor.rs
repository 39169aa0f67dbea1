//! Reading with deaggregation: the one place through which sessions open a shard, whatever the stream is.
//!
//! The cursor below keeps its own place by Kinesis records and its limits count them; only what it returned is taken
//! apart, so all user records of a Kinesis record are in one page.

use async_trait::async_trait;
use sluicegate_checkpoint::ShardId;

use super::deaggregate_all;
use crate::stream::{Fetched, ReadFrom, RecordPage, ShardCursor, StreamError, StreamReader};

/// Opens a shard of a stream; pages hold events.
pub fn open(stream: &dyn StreamReader, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
    Box::new(Deaggregating(stream.open(shard, from)))
}

struct Deaggregating(Box<dyn ShardCursor>);

#[async_trait]
impl ShardCursor for Deaggregating {
    async fn next_page(&mut self, limit: u32) -> Result<RecordPage, StreamError> {
        let page = self.0.next_page(limit).await?;
        let fetched = Fetched::of(&page.records);
        Ok(RecordPage { fetched, records: deaggregate_all(page.records), ..page })
    }
}
