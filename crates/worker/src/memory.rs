//! A stream in memory: for tests, simulation and examples.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sluicegate_checkpoint::{ArrivalMillis, HashKeyRange, Record, SequenceNumber, ShardId};
use sluicegate_lease::{Shard, StreamIdentity};

use crate::stream::{
    Distributed, Distribution, ReadFrom, RecordPage, ShardCursor, ShardListing, StreamError, StreamReader,
};

/// A stream with a fixed number of shards.
#[derive(Debug, Clone)]
pub struct MemoryStream {
    shards: Arc<Mutex<BTreeMap<ShardId, Vec<Record>>>>,
}

impl MemoryStream {
    /// So many empty shards.
    pub fn new(shards: usize) -> Self {
        let ids = (0..shards).map(|n| (ShardId::new(format!("shardId-{n:012}")), Vec::new()));
        Self { shards: Arc::new(Mutex::new(ids.collect())) }
    }

    /// Publishes one event; the shard follows from the partition key.
    pub fn put(&self, partition_key: &str, data: impl Into<Bytes>) {
        let mut shards = self.locked();
        let count = shards.len().max(1);
        let shard =
            partition_key.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
                % count;
        let Some((_, records)) = shards.iter_mut().nth(shard) else { return };
        let number = u128::try_from(records.len()).unwrap_or(u128::MAX) + 1;
        let Ok(sequence_number) = SequenceNumber::parse(number.to_string()) else { return };
        records.push(Record::new(sequence_number, crate::telemetry::wall_millis(), partition_key, data));
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<ShardId, Vec<Record>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StreamReader for MemoryStream {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        let shard = |id: &ShardId| Shard {
            id: id.clone(),
            parents: std::collections::BTreeSet::new(),
            hash_range: HashKeyRange { start: 0, end: u128::MAX },
            closed: false,
        };
        let shards = self.locked().keys().map(shard).collect();
        let server_time = crate::telemetry::wall_millis();
        let stream = StreamIdentity { name: "memory".to_owned(), created: ArrivalMillis(0) };
        Ok(ShardListing { shards, server_time, stream, retention: Duration::MAX })
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        Ok(Distributed { by: Distribution::UserPartitionKey, as_of: crate::telemetry::wall_millis() })
    }

    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
        let first = |records: &[Record]| match &from {
            ReadFrom::TrimHorizon => 0,
            ReadFrom::AtTimestamp(time) => {
                records.iter().take_while(|record| record.arrival() < *time).count()
            }
            ReadFrom::At(number) => {
                records.iter().take_while(|record| record.sequence_number() < number).count()
            }
            ReadFrom::After(number) => {
                records.iter().take_while(|record| record.sequence_number() <= number).count()
            }
        };
        let next = self.locked().get(shard).map_or(0, |records| first(records));
        Box::new(MemoryCursor { stream: self.clone(), shard: shard.clone(), next })
    }
}

#[derive(Debug)]
struct MemoryCursor {
    stream: MemoryStream,
    shard: ShardId,
    next: usize,
}

#[async_trait]
impl ShardCursor for MemoryCursor {
    async fn next_page(&mut self, limit: u32) -> Result<RecordPage, StreamError> {
        let shards = self.stream.locked();
        let gone = || StreamError::Gone { what: format!("shard {} is not there", self.shard) };
        let records = shards.get(&self.shard).ok_or_else(gone)?;
        let to = (self.next + usize::try_from(limit).unwrap_or(usize::MAX)).min(records.len());
        let page = records[self.next..to].to_vec();
        self.next = to;
        let behind_latest = if to == records.len() { Duration::ZERO } else { Duration::from_millis(1) };
        Ok(RecordPage {
            records: page,
            behind_latest,
            as_of: crate::telemetry::wall_millis(),
            ..RecordPage::default()
        })
    }
}
