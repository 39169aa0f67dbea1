//! The ports to the table of items: `ItemWriter` for one attempt at a write, `ItemSource` for one page of a
//! read.
//!
//! Neither retries: that is for [`PackingSink`](crate::PackingSink) and [`Reader`](crate::Reader), which know
//! deadlines and rights. Adapters: memory ([`MemoryTable`](crate::MemoryTable)) and DynamoDB
//! ([`DynamoDbItems`](crate::dynamodb::DynamoDbItems)).

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_checkpoint::Retry;
use thiserror::Error;

use crate::item::{Header, Item, ItemError, ItemKey};

/// A cause, for the operator.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Most items of one write (DynamoDB quotas page, BatchWriteItem: 25 put or delete requests).
pub const MAX_WRITE_ITEMS: usize = 25;

/// Writes items.
#[async_trait]
pub trait ItemWriter: Send + Sync + 'static {
    /// Tries once to store up to [`MAX_WRITE_ITEMS`] items with different keys, each over whatever has its
    /// key.
    ///
    /// *To be correct*: every item that is not named as unprocessed is durable.
    /// *Repeating it*: harmless, the items are the same.
    /// *Cancelling it*: any of the items may still be stored.
    ///
    /// # Errors
    /// See [`StoreError`]; after one, any of the items may be stored all the same.
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError>;

    /// Asks once whether the table would ever store an item, and stores nothing.
    ///
    /// *To be correct*: what the table checks of a write it checks here, and in no case is anything stored, also if
    /// something is stored under the item's key.
    /// *Repeating it*, *cancelling it*: harmless.
    ///
    /// Returns the write capacity units consumed.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] if it would never store it; the others say nothing about the item.
    async fn probe(&self, item: &Item) -> Result<f64, StoreError>;

    /// Raises the spread count that readers go by to at least this; it never falls.
    ///
    /// *Repeating it*, *cancelling it*: harmless.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn raise_spread(&self, count: u32) -> Result<(), StoreError>;
}

/// What one write came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Written {
    /// Which items, by index, were not taken and should come again.
    pub unprocessed: Vec<usize>,
    /// Write capacity units consumed.
    pub write_units: f64,
}

/// Tells what a table gives.
#[async_trait]
pub trait CapacitySource: Send + Sync + 'static {
    /// What the table gives now, as it says itself; none if it does not say.
    ///
    /// *Repeating it*, *cancelling it*: harmless.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn capacity(&self) -> Result<Option<TableCapacity>, StoreError>;
}

/// What a table gives, in write capacity units a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableCapacity {
    /// How much.
    pub units: u64,
    /// What says so.
    pub kind: CapacityKind,
}

/// What a table's capacity is (DynamoDB API reference, `TableDescription`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapacityKind {
    /// Provisioned.
    Provisioned,
    /// On demand, the maximum that was set.
    OnDemandMaximum,
    /// On demand, what it takes at once. Under load it comes to take more.
    WarmThroughput,
}

impl CapacityKind {
    /// Whether the table gives no more than that.
    pub fn is_firm(self) -> bool {
        match self {
            Self::Provisioned | Self::OnDemandMaximum => true,
            Self::WarmThroughput => false,
        }
    }
}

/// Reads items, strongly consistently: a group that was delivered is seen.
#[async_trait]
pub trait ItemSource: Send + Sync + 'static {
    /// One page of the items of a partition, in the order of their sort keys.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn query(&self, query: &Query) -> Result<Page, StoreError>;

    /// The spread count recorded in the table; 1 when none is.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn spread(&self) -> Result<u32, StoreError>;

    /// One page of all headers in the table, in no order, from behind the given key. Reserved rows are left
    /// out.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn scan(&self, behind: Option<&ItemKey>) -> Result<HeaderPage, StoreError>;
}

/// A page of one partition is asked for by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Partition key.
    pub pk: String,
    /// Lowest sort key, included.
    pub from: String,
    /// Highest sort key, included.
    pub to: String,
    /// Go on behind this sort key.
    pub behind: Option<String>,
    /// Most items in the page; the adapter may give fewer.
    pub limit: u32,
}

/// Some items of a partition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The items, ascending.
    pub items: Vec<Item>,
    /// Ask again behind this sort key; none when there are no more.
    pub next: Option<String>,
}

/// Some headers of the table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderPage {
    /// The headers.
    pub headers: Vec<Header>,
    /// Ask again behind this key; none when there are no more.
    pub next: Option<ItemKey>,
}

/// Which limit a request was over, as the answer says (DynamoDB developer guide, "Throttling reasons").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottledBy {
    /// The table's, an index's or the account's: all keys alike.
    Table,
    /// That of the partitions of the keys that were written to.
    KeyRange,
    /// Both.
    Both,
    /// The answer does not say.
    Unknown,
}

impl ThrottledBy {
    fn told(self) -> &'static str {
        match self {
            Self::Table => ": its own limit",
            Self::KeyRange => ": the limit of a partition",
            Self::Both => ": its own limit and that of a partition",
            Self::Unknown => "",
        }
    }
}

/// Why the table did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// More was asked than it is provisioned for, or than a partition gives.
    #[error("the table throttles{}", by.told())]
    Throttled {
        /// Which limit it was.
        by: ThrottledBy,
        /// The answer.
        #[source]
        source: Cause,
    },
    /// No answer, or a failure that passes. The outcome is unknown.
    #[error("the table does not answer")]
    Unavailable(#[source] Cause),
    /// These items can never be stored as they are.
    #[error("the table rejects an item")]
    Rejected(#[source] Cause),
    /// Nothing can be stored or read as things are: a missing table, a missing right.
    #[error("{what}")]
    Refused {
        /// What is wrong and what to do, for the operator.
        what: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// A stored item does not follow the format.
    #[error(transparent)]
    Item(#[from] ItemError),
}

impl StoreError {
    /// Throttled, by an answer that does not say which limit it was.
    pub fn throttled(source: Cause) -> Self {
        Self::Throttled { by: ThrottledBy::Unknown, source }
    }

    /// What the caller should do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Throttled { .. } | Self::Unavailable(_) => Retry::Backoff,
            Self::Rejected(_) | Self::Refused { .. } | Self::Item(_) => Retry::Never,
        }
    }
}
