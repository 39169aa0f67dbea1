//! The reader: a key and a time range -> its events, in order.
//!
//! Of each group (key, shard, epoch, first sequence number of the cut) the highest complete revision counts,
//! the others are ignored; no complete one is an error that names the missing part. Events are filtered by
//! their own arrival and yielded in the order of arrival, shard, sequence number, sub-sequence number, epoch.
//!
//! Memory is bounded by time, not by the range asked for: an item's sort key holds the arrival of its cut's
//! first record, and no event of a cut arrived more than [`MAX_BATCH_SPAN`] from it, so an event may be
//! yielded once all items up to that much later were seen. Groups wait compressed until their first event is
//! due.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::{ArrivalMillis, RetryPolicy, SequenceNumber, ShardId, SubSequenceNumber};
use thiserror::Error;

use crate::item::{Header, ItemError, ItemKey};
use crate::packing::UnpackError;
use crate::store::{HeaderPage, ItemSource, StoreError};

mod lane;
mod merge;

pub use merge::EventStream;

/// Furthest that an event's arrival may lie from that of its cut's first record. It is the highest value of
/// the setting `max_batch_span`: readers look back by it without knowing how the worker was set. They look
/// ahead by it too, because Kinesis calls its arrival timestamps approximate and does not say that they
/// ascend.
pub const MAX_BATCH_SPAN: Duration = Duration::from_secs(60);

/// Attempts at one page before a read gives up.
const ATTEMPTS: u32 = 8;

/// One event as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The shard it came from.
    pub shard: ShardId,
    /// How often that shard's row had been moved back by an operator when the event was stored.
    pub epoch: u32,
    /// Sequence number of its Kinesis record.
    pub sequence_number: SequenceNumber,
    /// Its index in that record.
    pub sub_sequence_number: SubSequenceNumber,
    /// When Kinesis took it.
    pub arrival: ArrivalMillis,
    /// The payload, exactly as published.
    pub data: Bytes,
}

impl Event {
    /// The order that the reader yields events in.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        let by_time = self.arrival.cmp(&other.arrival).then_with(|| self.shard.cmp(&other.shard));
        let by_place = by_time.then_with(|| self.sequence_number.cmp(&other.sequence_number));
        by_place.then_with(|| {
            (self.sub_sequence_number, self.epoch).cmp(&(other.sub_sequence_number, other.epoch))
        })
    }
}

/// Arrivals `[from, to)`: the beginning included, the end not. The default is all of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeRange {
    /// The earliest arrival wanted.
    pub from: Option<ArrivalMillis>,
    /// The first arrival no longer wanted.
    pub to: Option<ArrivalMillis>,
}

impl TimeRange {
    /// Whether it holds an arrival.
    pub fn contains(&self, arrival: ArrivalMillis) -> bool {
        self.from.is_none_or(|from| from <= arrival) && self.to.is_none_or(|to| arrival < to)
    }

    /// Whether it holds any arrival between these two, both included.
    fn meets(&self, (earliest, latest): (ArrivalMillis, ArrivalMillis)) -> bool {
        self.from.is_none_or(|from| from <= latest) && self.to.is_none_or(|to| earliest < to)
    }
}

/// Why events cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// No revision of a group is complete: a delivery is under way, or an item was lost.
    #[error("part {part} of {parts} is missing: {key}")]
    MissingPart {
        /// Key of the item that is not there.
        key: ItemKey,
        /// Which part it would be.
        part: u32,
        /// How many the group has.
        parts: u32,
    },
    /// An item is damaged or from a newer build.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// All parts are there and sound, but the group they make is not.
    #[error("the group that begins with item {key} is not readable")]
    Group {
        /// Key of its first part.
        key: ItemKey,
        /// What is wrong with it.
        #[source]
        source: UnpackError,
    },
    /// The table cannot be read.
    #[error("the table cannot be read")]
    Store(#[source] StoreError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Item(item) => Self::Item(item),
            StoreError::Throttled { .. }
            | StoreError::Unavailable(_)
            | StoreError::Rejected(_)
            | StoreError::Refused { .. } => Self::Store(error),
        }
    }
}

/// Reads a table of items.
pub struct Reader {
    source: Retrying,
}

impl Reader {
    /// Makes a reader over a source. `seed` is for the jitter of retries.
    pub fn new(source: Arc<dyn ItemSource>, seed: u64) -> Self {
        Self { source: Retrying { source, rng: Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))) } }
    }

    /// Begins to read the events of an aggregate key, over all its spread suffixes.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn events(&self, aggregate_key: &str, range: TimeRange) -> Result<EventStream, ReadError> {
        let spread = self.source.call(|source| async move { source.spread().await }).await?;
        Ok(EventStream::new(&self.source, aggregate_key, spread, range))
    }

    /// One page of all headers in the table, for checks over everything and for finding keys. It examines the
    /// whole table over time, so it is dear.
    ///
    /// # Errors
    /// The table cannot be read, or an item in it cannot.
    pub async fn headers(&self, behind: Option<ItemKey>) -> Result<HeaderPage, ReadError> {
        let behind = behind.as_ref();
        self.source.call(|source| async move { source.scan(behind).await }).await
    }

    /// All headers in the table.
    ///
    /// # Errors
    /// The table cannot be read, or an item in it cannot.
    pub async fn all_headers(&self) -> Result<Vec<Header>, ReadError> {
        let (mut all, mut behind) = (Vec::new(), None);
        loop {
            let page = self.headers(behind).await?;
            all.extend(page.headers);
            let Some(next) = page.next else { return Ok(all) };
            behind = Some(next);
        }
    }
}

/// A source whose passing failures are tried again.
#[derive(Clone)]
struct Retrying {
    source: Arc<dyn ItemSource>,
    rng: Arc<Mutex<SmallRng>>,
}

impl Retrying {
    async fn call<'a, T, F>(
        &'a self,
        mut attempt: impl FnMut(&'a dyn ItemSource) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut delays = RetryPolicy::AWS.delays();
        for _ in 1..ATTEMPTS {
            let error = match attempt(self.source.as_ref()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let delay = {
                // A generator is never half changed.
                let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
                delays.after(error.retry(), &mut rng)
            };
            let Some(delay) = delay else { return Err(error.into()) };
            tokio::time::sleep(delay).await;
        }
        attempt(self.source.as_ref()).await.map_err(ReadError::from)
    }
}

#[cfg(test)]
mod tests;
