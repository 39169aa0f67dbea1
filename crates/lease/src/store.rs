//! The LeaseStore port: the lease table as a set of rows with one kind of write.
//!
//! Every change of a row is "this row becomes that row, if owner and counter are still these" (rules R1 to R3);
//! which changes there are is decided in [`crate::model`], so that no adapter can write around the condition.

use async_trait::async_trait;
use sluicegate_checkpoint::Retry;
use thiserror::Error;

use crate::model::{Lease, LeaseKey};

/// What a conditional write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written<T> {
    /// It was applied; the row as it now is.
    Applied(T),
    /// The condition did not hold. The row as it is, if there is one.
    Lost(Option<T>),
}

/// Why rows could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Throttled, timed out or out of reach: read again.
    #[error("the table cannot be read now")]
    Unavailable {
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Will not work as things are: no such table, no right to read it, no credentials.
    #[error("{what}")]
    Refused {
        /// What is wrong and what to do.
        what: String,
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row is there but makes no sense.
    #[error("row `{key}` of the table cannot be read: {why}")]
    Malformed {
        /// Key of the row.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ReadError {
    /// What the caller should do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::Backoff,
            Self::Refused { .. } | Self::Malformed { .. } => Retry::Never,
        }
    }
}

/// Why a write is not decided, or will never be made.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The answer was lost: it may have been applied, or may still be. Settle it by rule R2.
    #[error("the outcome of the write is unknown")]
    OutcomeUnknown {
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Refused for now (throttled) and certainly not applied: write again.
    #[error("the table does not take the write now")]
    Throttled {
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Will not work as things are, and was not applied.
    #[error("{what}")]
    Refused {
        /// What is wrong and what to do.
        what: String,
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl WriteError {
    /// What the caller should do; for [`WriteError::OutcomeUnknown`] it is the very same write that is repeated.
    pub fn retry(&self) -> Retry {
        match self {
            Self::OutcomeUnknown { .. } | Self::Throttled { .. } => Retry::Backoff,
            Self::Refused { .. } => Retry::Never,
        }
    }
}

/// The lease table.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// All lease rows; rows of another `entityType` are skipped.
    ///
    /// *To be correct*: strongly consistent row by row; it is no snapshot of the table.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn leases(&self) -> Result<Vec<Lease>, ReadError>;

    /// One row, by a strongly consistent read.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError>;

    /// Puts a new row, if there is none under its key.
    ///
    /// *Repeating it*: safe; `Lost` tells that a row is there, one's own included.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError>;

    /// Makes `expected` into `next`.
    ///
    /// *To be correct*: one conditional update on owner and counter of `expected`; `next` raises the counter by
    /// one; attributes that neither row knows of stay as they are; durable before it returns. No retry of its own:
    /// a retry after a lost answer would report a lost race for our own write.
    /// *Repeating it*: safe, the condition protects it; after an unknown outcome `Lost(row)` with `row == next`
    /// means that it had been applied.
    /// *Cancelling it*: leaves the outcome unknown.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError>;

    /// Deletes the row, if owner and counter are those of `expected`.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError>;
}
