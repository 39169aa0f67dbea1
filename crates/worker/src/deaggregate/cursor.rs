//! Reading with deaggregation: the one place through which sessions read a shard, whatever the stream is.
//!
//! A page of Kinesis records is fetched, and its events are taken out of it bit by bit: what each Kinesis record will weigh is
//! known beforehand ([`shape`]), so that no more of them are made than there is memory for. All user records of
//! a Kinesis record come out together, for a record is never split between batches.

use std::collections::VecDeque;
use std::time::Duration;

use sluicegate_checkpoint::record::weight_bytes;
use sluicegate_checkpoint::{Record, ShardId};

use super::{Shape, Whole, apart, shape};
use crate::stream::{Fetched, ReadFrom, RecordPage, ShardCursor, StreamError, StreamReader};

/// A shard's events.
pub struct EventCursor {
    cursor: Box<dyn ShardCursor>,
    /// Kinesis records that were fetched and not yet taken apart.
    rest: VecDeque<Unopened>,
    /// The page they came in, without them.
    page: RecordPage,
}

/// A Kinesis record, and what is known of its events.
struct Unopened {
    record: Record,
    /// None if it is one event.
    shape: Option<Shape>,
    /// Memory that it takes, and that its events will take with it, in bytes.
    closed_bytes: usize,
    open_bytes: usize,
}

/// What was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// What it took of the shard's limits.
    pub fetched: Fetched,
    /// Distance to the tip of the shard behind it.
    pub behind_latest: Duration,
}

/// Memory for the next events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Of how many Kinesis records they are.
    records: usize,
    /// What they take beyond what their Kinesis records take already, in bytes.
    pub more_bytes: usize,
}

impl EventCursor {
    /// Opens a shard of a stream.
    pub fn open(stream: &dyn StreamReader, shard: &ShardId, from: ReadFrom) -> Self {
        Self { cursor: stream.open(shard, from), rest: VecDeque::new(), page: RecordPage::default() }
    }

    /// Fetches a page of at most `limit` Kinesis records; it may be empty. What was not taken before is kept.
    ///
    /// *Cancelling it* is as safe as it is for the reader's own cursor.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub async fn fetch(&mut self, limit: u32) -> Result<Answer, StreamError> {
        let mut page = self.cursor.next_page(limit).await?;
        page.fetched = Fetched::of(&page.records);
        let answer = Answer { fetched: page.fetched, behind_latest: page.behind_latest };
        self.rest.extend(std::mem::take(&mut page.records).into_iter().map(Unopened::of));
        self.page = page;
        Ok(answer)
    }

    /// Whether everything that was fetched was taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Memory that the Kinesis records take which are not taken apart yet, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.rest.iter().map(|unopened| unopened.closed_bytes).sum()
    }

    /// As many whole Kinesis records as fit into so many bytes once they are taken apart; at least one, if any is left.
    pub fn portion(&self, bytes: usize) -> Portion {
        let mut portion = Portion { records: 0, more_bytes: 0 };
        let mut open_bytes = 0usize;
        for unopened in &self.rest {
            open_bytes = open_bytes.saturating_add(unopened.open_bytes);
            if portion.records > 0 && open_bytes > bytes {
                break;
            }
            portion.records += 1;
            portion.more_bytes += unopened.open_bytes - unopened.closed_bytes;
        }
        portion
    }

    /// The events of the next Kinesis records. The last ones of what was fetched say where the shard stands.
    pub fn take(&mut self, portion: Portion) -> RecordPage {
        let count = portion.records.min(self.rest.len());
        let records = self.rest.drain(..count).flat_map(Unopened::open).collect();
        if self.rest.is_empty() {
            return RecordPage { records, ..std::mem::take(&mut self.page) };
        }
        // What follows is there, so this is not the tip.
        let behind_latest = self.page.behind_latest.max(Duration::from_millis(1));
        RecordPage { records, behind_latest, as_of: self.page.as_of, ..RecordPage::default() }
    }
}

impl Unopened {
    fn of(record: Record) -> Self {
        let closed_bytes = weight_bytes([&record]);
        let shape = match shape(&record) {
            Ok(shape) => Some(shape),
            Err(Whole::Plain) => None,
            Err(why) => {
                tracing::trace!(sequence_number = %record.sequence_number(), %why, "an aggregated record stays whole");
                None
            }
        };
        let open_bytes = shape.map_or(closed_bytes, |shape| shape.weight_bytes(&record).max(closed_bytes));
        Self { record, shape, closed_bytes, open_bytes }
    }

    fn open(self) -> Vec<Record> {
        let Some(shape) = self.shape else { return vec![self.record] };
        apart(&self.record, &shape).unwrap_or_else(|why| {
            let sequence_number = self.record.sequence_number();
            tracing::trace!(%sequence_number, %why, "an aggregated record stays whole");
            vec![self.record]
        })
    }
}

#[cfg(test)]
mod tests;
