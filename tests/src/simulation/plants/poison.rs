//! Bugs in what becomes of events that the table never takes, and in counting them.

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_checkpoint::{ArrivalMillis, Batch, Right};
use sluicegate_sink::dead_letter::{LetterPage, NoDeadLetters};
use sluicegate_sink::item::{Item, ItemKey};
use sluicegate_sink::store::Written as ItemsWritten;
use sluicegate_sink::{DeadLetters, DeliverError, Delivered, ItemWriter, Letter, LetterId, Sink, StoreError};

use super::super::fleet::Parts;
use super::super::ports::Ports;
use super::super::script::Build;

/// Letters count as durable and are not put.
pub fn letters_are_not_put(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { letters: Arc::new(LostLetters), ..parts }
}

struct LostLetters;

#[async_trait]
impl DeadLetters for LostLetters {
    async fn put(&self, _: &Letter) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn list(&self, behind: Option<&ItemKey>) -> Result<LetterPage, StoreError> {
        NoDeadLetters.list(behind).await
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<Letter>, StoreError> {
        NoDeadLetters.letter(id).await
    }

    async fn mark_redriven(&self, id: &LetterId, at: ArrivalMillis) -> Result<bool, StoreError> {
        NoDeadLetters.mark_redriven(id, at).await
    }

    async fn delete(&self, id: &LetterId) -> Result<bool, StoreError> {
        NoDeadLetters.delete(id).await
    }
}

/// What is asked about is stored.
pub fn halves_are_stored(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { writer: Arc::new(Storing(Arc::clone(&parts.writer))), ..parts }
}

struct Storing(Arc<dyn ItemWriter>);

#[async_trait]
impl ItemWriter for Storing {
    async fn write(&self, items: &[Arc<Item>]) -> Result<ItemsWritten, StoreError> {
        self.0.write(items).await
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        self.0.write(&[Arc::new(item.clone())]).await.map(|written| written.write_units)
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.0.raise_spread(count).await
    }
}

/// The last record of a batch is dropped on the way to the sink.
pub fn a_record_leaks(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { sink: Box::new(|sink| Arc::new(Leaking(sink))), ..parts }
}

struct Leaking(Arc<dyn Sink>);

#[async_trait]
impl Sink for Leaking {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        let mut leaking = Arc::unwrap_or_clone(batch);
        leaking.records.pop();
        self.0.deliver(Arc::new(leaking), right).await
    }

    fn packing_versions(&self) -> &[u32] {
        self.0.packing_versions()
    }
}
