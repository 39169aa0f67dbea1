//! Bugs in what becomes of user records whose hash key is not of their shard, and in counting them.

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_checkpoint::{Batch, PackingParameters, Right, ShardId};
use sluicegate_sink::{DeliverError, Delivered, Sink};
use sluicegate_worker::{
    Distributed, Distribution, ReadFrom, ShardCursor, ShardListing, StreamError, StreamReader,
};

use super::super::fleet::Parts;
use super::super::ports::Ports;
use super::super::script::Build;

/// Foreign user records are left out and counted as nothing.
pub fn foreign_is_nothing(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts {
        sink: Box::new(|sink| Arc::new(Miscounting(sink, |_, foreign| Delivered { foreign: 0, ..foreign }))),
        ..parts
    }
}

/// Foreign user records are counted as what the user's filter left out.
pub fn foreign_is_filtered(parts: Parts, _: &Ports, _: &Build) -> Parts {
    let as_filtered =
        |_: &Batch, done: Delivered| Delivered { filtered: done.filtered + done.foreign, foreign: 0, ..done };
    Parts { sink: Box::new(move |sink| Arc::new(Miscounting(sink, as_filtered))), ..parts }
}

struct Miscounting(Arc<dyn Sink>, fn(&Batch, Delivered) -> Delivered);

#[async_trait]
impl Sink for Miscounting {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        let delivered = self.0.deliver(Arc::clone(&batch), right).await?;
        Ok(self.1(&batch, delivered))
    }

    fn packing_versions(&self) -> &[u32] {
        self.0.packing_versions()
    }
}

/// Whatever lies outside the shard's hash keys is left out with what the native library sends again.
pub fn whatever_lies_outside_is_left_out(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { sink: Box::new(|sink| Arc::new(Strict(sink))), ..parts }
}

struct Strict(Arc<dyn Sink>);

#[async_trait]
impl Sink for Strict {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        let mut strict = Arc::unwrap_or_clone(batch);
        let parameters = PackingParameters { only_sent_again: false, ..(*strict.cut.parameters).clone() };
        strict.cut.parameters = Arc::new(parameters);
        self.0.deliver(Arc::new(strict), right).await
    }

    fn packing_versions(&self) -> &[u32] {
        self.0.packing_versions()
    }
}

/// The stream is not asked how it distributes records: hash keys are judged on any.
pub fn hash_keys_are_always_judged(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { stream: Arc::new(NeverAuto(Arc::clone(&parts.stream))), ..parts }
}

struct NeverAuto(Arc<dyn StreamReader>);

#[async_trait]
impl StreamReader for NeverAuto {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        self.0.shards().await
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        let answer = self.0.distribution().await?;
        Ok(Distributed { by: Distribution::UserPartitionKey, ..answer })
    }

    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
        self.0.open(shard, from)
    }
}
