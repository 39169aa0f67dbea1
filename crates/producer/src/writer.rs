//! The port through which records reach a stream.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use sluicegate_checkpoint::Retry;
use thiserror::Error;

use crate::entry::Entry;

/// A stream's name or ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamName(String);

impl StreamName {
    /// Takes a name, or an ARN that begins with `arn:`. The service checks it.
    pub fn new(name_or_arn: impl Into<String>) -> Self {
        Self(name_or_arn.into())
    }

    /// The name or ARN as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of one record of an answered request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// Stored durably.
    Stored,
    /// Not stored: its shard takes no more at the moment.
    Throttled,
    /// Not stored for an internal reason of the service.
    Failed,
}

/// Why a whole request was not answered as it should be.
#[derive(Debug, Error)]
pub enum PutError {
    /// Refused for now; nothing was stored.
    #[error("the stream takes no more at the moment")]
    Throttled {
        /// What the service said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No connection came about; nothing was stored.
    #[error("Kinesis cannot be reached at the moment: check the network, the region and the endpoint")]
    Unreachable {
        /// What the connector said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer was lost or made no sense: the records may or may not be stored, all or some of them.
    #[error("the answer to a request was lost, its records may be stored or not")]
    OutcomeUnknown {
        /// How it was lost.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no such stream; nothing was stored.
    #[error("{what}")]
    StreamNotFound {
        /// Which, where, and what to do.
        what: String,
        /// What the service said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Credentials are missing or lack a right; nothing was stored.
    #[error("{what}")]
    Denied {
        /// What is missing and what to do.
        what: String,
        /// What the service or the SDK said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The service will not take this request, whenever it is sent; nothing was stored.
    #[error("{what}")]
    Invalid {
        /// What it does not take.
        what: String,
        /// What the service or the SDK said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl PutError {
    /// What the caller should do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Throttled { .. } | Self::Unreachable { .. } | Self::OutcomeUnknown { .. } => Retry::Backoff,
            Self::StreamNotFound { .. } | Self::Denied { .. } | Self::Invalid { .. } => Retry::Never,
        }
    }
}

/// Puts records into one stream.
#[async_trait]
pub trait StreamWriter: Send + Sync + 'static {
    /// Sends one request with these records, at most what [`crate::requests`] allows.
    ///
    /// *To be correct*: the answer has one outcome for each record, in order; `Stored` means durable. No retries of
    /// its own: it would hide lost answers from the count of unknown outcomes.
    ///
    /// *Repeating it* stores the records again: a stream does not know them. So repeat it for records that are not
    /// stored, and after [`PutError::OutcomeUnknown`] knowing that some may come twice.
    ///
    /// *Cancelling it*: as a lost answer.
    ///
    /// # Errors
    /// When the request as a whole got no usable answer; see [`PutError::retry`].
    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<PutOutcome>, PutError>;
}
