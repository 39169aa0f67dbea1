//! The StreamReader port: a sharded, ordered, replayable stream of records.

use std::time::Duration;

use async_trait::async_trait;
use sluicegate_checkpoint::{ArrivalMillis, Record, Retry, SequenceNumber, ShardId};
use sluicegate_lease::{Shard, StreamIdentity};
use thiserror::Error;

/// Where reading of a shard begins. There is no "at the tip": two owners would resolve it differently and skip what
/// arrived in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// The oldest record.
    TrimHorizon,
    /// The first record that arrived at this time or later.
    AtTimestamp(ArrivalMillis),
    /// This record.
    At(SequenceNumber),
    /// The record behind this one.
    After(SequenceNumber),
}

/// What a page takes of a shard's read limit: its Kinesis records, before they are taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// How many.
    pub records: usize,
    /// Their bytes, partition keys counted.
    pub bytes: usize,
}

impl Fetched {
    /// Of Kinesis records as they come.
    pub fn of(records: &[Record]) -> Self {
        let bytes = records.iter().map(|record| record.data().len() + record.partition_key().len()).sum();
        Self { records: records.len(), bytes }
    }
}

/// Records of one read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordPage {
    /// In shard order. A reader gives Kinesis records as they are; sessions read through
    /// [`deaggregate::cursor`](crate::deaggregate::cursor), which puts all user records of an aggregate in its place, and a
    /// page in portions.
    pub records: Vec<Record>,
    /// Distance to the tip of the shard after this page.
    pub behind_latest: Duration,
    /// The stream's own time when it answered.
    pub as_of: ArrivalMillis,
    /// What the page took of the shard's read limit. A reader need not fill it in: the cursor that sessions read through does.
    pub fetched: Fetched,
    /// Set when the closed shard is read to its end: its children, as far as the answer names them.
    pub end: Option<Vec<Shard>>,
}

impl RecordPage {
    /// How many Kinesis records the events of the page came in; one that held no event is not counted.
    pub fn kinesis_records(&self) -> usize {
        let of_one = |a: &Record, b: &Record| a.sequence_number() == b.sequence_number();
        self.records.chunk_by(of_one).count()
    }
}

/// The shards of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardListing {
    /// All of them, from all pages of one listing.
    pub shards: Vec<Shard>,
    /// The stream's own time when it answered.
    pub server_time: ArrivalMillis,
    /// Which stream it is, as asked before the listing began.
    pub stream: StreamIdentity,
    /// How long it keeps a record.
    pub retention: Duration,
}

/// Who decides which shard a record goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Distribution {
    /// The hash key of its partition key, or its explicit one.
    #[default]
    UserPartitionKey,
    /// The service, by rules of its own: keys say nothing of where a record is.
    Auto,
}

/// Who distributes the records of a stream, as of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distributed {
    /// Who.
    pub by: Distribution,
    /// The stream's own time when it answered.
    pub as_of: ArrivalMillis,
}

/// Why a stream was not read.
#[derive(Debug, Error)]
pub enum StreamError {
    /// A limit of the stream or of the shard is used up, by this reader or by others: read again, later and less.
    #[error("the stream or the shard is read at its limit")]
    Throttled {
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is larger than the memory that was held for it, and was not read: read again with so much.
    #[error("the answer takes {needed} bytes of memory, which are not free now")]
    TooLarge {
        /// Bytes that its records take.
        needed: usize,
    },
    /// Timed out or out of reach: read again.
    #[error("the stream cannot be read now")]
    Unavailable {
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stream or the shard is not there (any more). That is not the end of the shard.
    #[error("{what}")]
    Gone {
        /// What is not there, and what to do.
        what: String,
    },
    /// Will not work as things are.
    #[error("{what}")]
    Refused {
        /// What is wrong, and what to do.
        what: String,
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StreamError {
    /// What the caller should do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Throttled { .. } | Self::TooLarge { .. } | Self::Unavailable { .. } => Retry::Backoff,
            Self::Gone { .. } | Self::Refused { .. } => Retry::Never,
        }
    }
}

/// A stream.
#[async_trait]
pub trait StreamReader: Send + Sync + 'static {
    /// Lists all shards, open and closed.
    ///
    /// *To be correct*: complete (all pages of one listing), or an error.
    ///
    /// # Errors
    /// See [`StreamError`].
    async fn shards(&self) -> Result<ShardListing, StreamError>;

    /// Says who distributes the stream's records over its shards.
    ///
    /// *To be correct*: `as_of` is a time of the stream's own clock at which the answer held, never a later one.
    ///
    /// # Errors
    /// See [`StreamError`].
    async fn distribution(&self) -> Result<Distributed, StreamError>;

    /// Opens a shard. The first read tells whether that works.
    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor>;
}

/// A place in a shard that moves forward.
#[async_trait]
pub trait ShardCursor: Send {
    /// Reads the next page, of at most `limit` Kinesis records; it may be empty.
    ///
    /// *To be correct*: no record is skipped and none comes twice, whatever happened to earlier reads; an expired
    /// iterator is renewed from the position without the caller noticing.
    /// *Repeating it* after an error: continues where the last page ended.
    /// *Cancelling it* is safe: the place does not move.
    ///
    /// # Errors
    /// See [`StreamError`].
    async fn next_page(&mut self, limit: u32) -> Result<RecordPage, StreamError>;
}
