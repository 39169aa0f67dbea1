//! The port to the dead-letter table.

use async_trait::async_trait;
use sluicegate_checkpoint::ArrivalMillis;

use super::{Letter, LetterHeader, LetterId};
use crate::item::ItemKey;
use crate::store::StoreError;

/// Keeps letters. Adapters: memory ([`MemoryDeadLetters`](super::MemoryDeadLetters)) and DynamoDB
/// ([`DynamoDbDeadLetters`](crate::dynamodb::DynamoDbDeadLetters)); the suite is `dead_letter::contract`.
/// None of them retries.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Stores a letter unless there is one of its name; returns whether it is new.
    ///
    /// *To be correct*: when it returns, a letter of that name is durable, whole. One that is there stays as it is.
    /// *Repeating it*: harmless; after an unknown outcome it may say of its own letter that it was there.
    /// *Cancelling it*: the letter is stored whole or is not there.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn put(&self, letter: &Letter) -> Result<bool, StoreError>;

    /// A page of all letters, from behind the given place; those of a shard in its order.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list(&self, behind: Option<&ItemKey>) -> Result<LetterPage, StoreError>;

    /// One letter with its payload.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn letter(&self, id: &LetterId) -> Result<Option<Letter>, StoreError>;

    /// Notes that a letter was redriven; returns false if it was marked before or is not there. Nothing else of it
    /// changes, and nothing takes the mark away.
    ///
    /// *Repeating it*: harmless, the first time stays.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn mark_redriven(&self, id: &LetterId, at: ArrivalMillis) -> Result<bool, StoreError>;

    /// Deletes a letter; returns false if there is none. While a batch that it belongs to is announced, it may be put again.
    ///
    /// *To be correct*: when it returns, nothing of the letter is left, and until then it is listed.
    /// *Repeating it*: harmless. *Cancelling it*: some of it may be gone; repeat it.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn delete(&self, id: &LetterId) -> Result<bool, StoreError>;
}

/// Some letters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LetterPage {
    /// Without their payloads.
    pub letters: Vec<LetterHeader>,
    /// Ask again behind this place; none when there are no more.
    pub next: Option<ItemKey>,
}

/// For a worker whose sink never rejects an event: no letter can be kept, so none is lost.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDeadLetters;

fn nowhere<T>() -> Result<T, StoreError> {
    Err(StoreError::Refused {
        what: "this worker has no dead-letter table".to_owned(),
        source: "events were excluded from a batch, and a worker without dead letters cannot deliver it"
            .into(),
    })
}

#[async_trait]
impl DeadLetters for NoDeadLetters {
    async fn put(&self, _: &Letter) -> Result<bool, StoreError> {
        nowhere()
    }

    async fn list(&self, _: Option<&ItemKey>) -> Result<LetterPage, StoreError> {
        Ok(LetterPage::default())
    }

    async fn letter(&self, _: &LetterId) -> Result<Option<Letter>, StoreError> {
        Ok(None)
    }

    async fn mark_redriven(&self, _: &LetterId, _: ArrivalMillis) -> Result<bool, StoreError> {
        nowhere()
    }

    async fn delete(&self, _: &LetterId) -> Result<bool, StoreError> {
        Ok(false)
    }
}
