//! Bugs that only this tier can show: in what a client asks for, in how an answer is decoded, in what an error means.
//!
//! Three kinds: a [`Bend`](super::Bend) changes requests on their way out, as an adapter that asks for the wrong thing
//! would; other [`Wiring`](super::Wiring) sets the SDK as it must not be set; and decorators read answers as an adapter
//! that misunderstands them would.

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_kinesis::primitives::DateTime;
use serde_json::{Value, json};
use sluicegate_checkpoint::{ArrivalMillis, Record, ShardId};
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{Lease, LeaseKey, LeaseStore, Written};
use sluicegate_sink::item::Item;
use sluicegate_sink::{ItemWriter, StoreError, store};
use sluicegate_worker::{
    Distributed, ReadFrom, RecordPage, ShardCursor, ShardListing, StreamError, StreamReader,
};

use super::super::fleet::Parts;
use super::super::ports::Ports;
use super::super::script::Build;

/// Lease writes go without their condition.
pub fn without_condition(operation: &str, request: &mut Value) {
    if operation == "UpdateItem"
        && let Some(request) = request.as_object_mut()
    {
        request.remove("ConditionExpression");
        // The service refuses names and values that nothing uses.
        for unused in ["#owner", "#counter", ":owner", ":counter"] {
            for map in ["ExpressionAttributeNames", "ExpressionAttributeValues"] {
                let map = request.get_mut(map).and_then(Value::as_object_mut);
                map.map(|map| map.remove(unused));
            }
        }
    }
}

/// Rows are read as they may have been a while ago.
pub fn without_strong_reads(operation: &str, request: &mut Value) {
    if matches!(operation, "GetItem" | "Query" | "Scan") {
        request["ConsistentRead"] = json!(false);
    }
}

/// An iterator behind a record is taken at the tip of the shard, as if nothing could have come meanwhile.
pub fn goes_on_at_the_tip(operation: &str, request: &mut Value) {
    if operation == "GetShardIterator" && request["ShardIteratorType"] == json!("AFTER_SEQUENCE_NUMBER") {
        request["ShardIteratorType"] = json!("LATEST");
        request["StartingSequenceNumber"] = Value::Null;
    }
}

/// An answer of 500 or above counts as a refusal, after which nothing was written.
pub fn failure_is_a_refusal(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { store: Arc::new(FailureRefuses(Arc::clone(&parts.store))), ..parts }
}

struct FailureRefuses(Arc<dyn LeaseStore>);

/// Whether the service answered, whatever it said.
fn has_answered(source: &(dyn Error + 'static)) -> bool {
    let error = source.downcast_ref::<SdkError<UpdateItemError, HttpResponse>>();
    matches!(error, Some(SdkError::ServiceError(_)))
}

#[async_trait]
impl LeaseStore for FailureRefuses {
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        self.0.leases().await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        self.0.lease(key).await
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        self.0.create(lease).await
    }

    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError> {
        match self.0.replace(expected, next).await {
            Err(WriteError::OutcomeUnknown { source }) if has_answered(&*source) => {
                Err(WriteError::Throttled { source })
            }
            written => written,
        }
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        self.0.delete(expected).await
    }
}

/// Items that come back unprocessed count as stored.
pub fn unprocessed_is_stored(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { writer: Arc::new(AllStored(Arc::clone(&parts.writer))), ..parts }
}

struct AllStored(Arc<dyn ItemWriter>);

#[async_trait]
impl ItemWriter for AllStored {
    async fn write(&self, items: &[Arc<Item>]) -> Result<store::Written, StoreError> {
        let written = self.0.write(items).await?;
        Ok(store::Written { unprocessed: Vec::new(), ..written })
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        self.0.probe(item).await
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.0.raise_spread(count).await
    }
}

/// Arrival times are cut off at the millisecond and not rounded: the wire carries binary fractions of seconds.
pub fn truncates_arrivals(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { stream: Arc::new(Truncating(Arc::clone(&parts.stream))), ..parts }
}

struct Truncating(Arc<dyn StreamReader>);

#[async_trait]
impl StreamReader for Truncating {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        self.0.shards().await
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        self.0.distribution().await
    }

    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
        Box::new(TruncatingCursor(self.0.open(shard, from)))
    }
}

struct TruncatingCursor(Box<dyn ShardCursor>);

#[async_trait]
impl ShardCursor for TruncatingCursor {
    async fn next_page(&mut self, limit: u32) -> Result<RecordPage, StreamError> {
        let page = self.0.next_page(limit).await?;
        let cut_off =
            |record: Record| record.of(record.sequence_number().clone(), truncated(record.arrival()));
        Ok(RecordPage { records: page.records.into_iter().map(cut_off).collect(), ..page })
    }
}

/// The time as the SDK decodes it from JSON, cut off at the millisecond.
#[expect(clippy::cast_precision_loss, reason = "what JSON does to it")]
fn truncated(arrival: ArrivalMillis) -> ArrivalMillis {
    let on_the_wire = DateTime::from_secs_f64(arrival.0 as f64 / 1e3);
    ArrivalMillis(on_the_wire.secs() * 1_000 + i64::from(on_the_wire.subsec_nanos() / 1_000_000))
}
