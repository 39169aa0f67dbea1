//! When and how much to read of a shard (pure): what it leaves to us, how large its records are, what memory allows.
//!
//! While a backlog is drained a page has `page_bytes` and follows when it is paid for. Where calls are what is scarce pages
//! are larger, up to [`MOST_GROWTH`] times; where bytes are, smaller; and never larger than memory allows. A shard that
//! is caught up is read once in `idle_interval`.

mod recent;
mod share;

use std::time::Duration;

use tokio::time::Instant;

use self::recent::Answered;
use self::share::{Quota, ShardShare};
use crate::deaggregate::cursor::Answer;

/// How fast and how much is read at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPolicy {
    /// Shortest time between two reads of a shard.
    pub min_interval: Duration,
    /// Time between two reads of a shard that is caught up.
    pub idle_interval: Duration,
    /// Bytes a page should have where nothing is scarce; the record limit of a read follows from the records seen so far.
    pub page_bytes: usize,
}

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// Kinesis records.
    pub records: u32,
    /// Memory to reserve for them.
    pub memory_bytes: usize,
}

/// When and how much to read.
#[derive(Debug)]
pub struct Pace {
    policy: ReadPolicy,
    share: Box<ShardShare>,
    last_read: Option<Instant>,
    caught_up: bool,
    /// Bytes that the next page should have at most. A shard at its tip reserves little: hundreds of them would
    /// otherwise spend the budget on pages that come back empty.
    reach: usize,
    /// The largest page that could have been asked for last.
    largest: usize,
    /// Bytes of a Kinesis record, averaged over pages.
    record_bytes: usize,
}

/// Bytes that a shard gives a second to all its consumers together, how far apart the calls are that it gives, and most
/// records and bytes that one GetRecords returns (Kinesis quotas page: 2 MiB, 5 calls, 10,000, 10 MiB).
const SHARD_BYTES: f64 = 2.0 * 1_048_576.0;
const SHARD_INTERVAL: Duration = Duration::from_millis(200);
const MOST_RECORDS: usize = 10_000;
const MOST_BYTES: usize = 10 << 20;
/// What is asked for of a shard that nobody else reads, because its clock is not ours.
const OF_QUOTA: f64 = 0.99;
/// What is made of the calls: as many again are not worth a page that is a tenth smaller.
const OF_CALLS: f64 = 0.9;
/// A page grows to so many times `page_bytes` at most.
const MOST_GROWTH: usize = 20;
/// A page takes at most this part of the memory that is free, so that other shards' pages have room beside it; but this
/// part of `page_bytes` is always asked for, and waited for.
const PART_OF_FREE: usize = 4;
const PART_OF_PAGE: usize = 4;
/// Records of the first page, before their size is known: if they are large it takes seconds until they are paid for.
const FIRST_RECORDS: usize = 50;
/// Events are taken out of a page in portions of at least so many bytes.
const LEAST_PORTION: usize = 256 << 10;
/// What a Kinesis record takes in memory beside its bytes (`Record::origin_bytes`, `Record::OWN_BYTES`).
const BESIDE_RECORD: usize = 280;
/// A shard at its tip asks for at least this part of a page; a page that does not reach the tip doubles what is asked for next.
const SMALLEST_PART: usize = 16;

impl Quota {
    /// What Kinesis gives; or, where calls closer together are configured than Kinesis answers, as much more as they are.
    fn of(policy: &ReadPolicy) -> Self {
        let interval = policy.min_interval.max(Duration::from_millis(1));
        let calls = 1.0 / interval.as_secs_f64();
        let more = SHARD_INTERVAL.as_secs_f64() / interval.min(SHARD_INTERVAL).as_secs_f64();
        let bytes = OF_QUOTA * SHARD_BYTES * more;
        Self { bytes, calls, usual_calls: (bytes / float(policy.page_bytes)).min(OF_CALLS * calls) }
    }
}

impl Pace {
    /// Nothing read yet.
    pub fn new(policy: ReadPolicy) -> Self {
        let share = Box::new(ShardShare::new(Quota::of(&policy)));
        let page = policy.page_bytes;
        let record_bytes = page / FIRST_RECORDS;
        let (last_read, caught_up) = (None, false);
        Self { policy, share, last_read, caught_up, reach: page, largest: page, record_bytes }
    }

    /// What to ask for, with so much memory free.
    pub fn request(&mut self, now: Instant, free: usize) -> PageRequest {
        let record_bytes = self.record_bytes.max(1);
        let room = (free / PART_OF_FREE).max(self.policy.page_bytes / PART_OF_PAGE);
        let room = room / (record_bytes + BESIDE_RECORD) * record_bytes;
        let largest = self.policy.page_bytes.saturating_mul(MOST_GROWTH).min(MOST_BYTES).min(room);
        self.largest = largest.min(record_bytes.saturating_mul(MOST_RECORDS)).max(1);
        let wanted = whole(self.share.page(now + self.wait(now))).min(self.reach).clamp(1, self.largest);
        // One more than fit rather than one less: what is too much is paid for by time.
        let rounded = wanted.div_ceil(record_bytes);
        let records = if rounded * record_bytes > self.largest { wanted / record_bytes } else { rounded };
        let records = records.clamp(1, MOST_RECORDS);
        let bytes = wanted.max(records * record_bytes);
        let memory_bytes = bytes + records * BESIDE_RECORD;
        PageRequest { records: u32::try_from(records).unwrap_or(u32::MAX), memory_bytes }
    }

    /// How long the next read should wait.
    pub fn wait(&self, now: Instant) -> Duration {
        let interval = if self.caught_up { self.policy.idle_interval } else { self.policy.min_interval };
        let allowed = self.last_read.map(|last| last + interval);
        let due = allowed.max(self.share.due());
        due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// Takes in what a read gave that was asked for at this time.
    pub fn seen(&mut self, page: &Answer, asked_at: Instant) {
        self.caught_up = page.behind_latest.is_zero();
        let read = Answered { at: asked_at, bytes: float(page.fetched.bytes) };
        self.share.answered(read, float(self.largest.min(self.reach)));
        let wanted = if self.caught_up { page.fetched.bytes * 2 } else { self.reach.saturating_mul(2) };
        let least = (self.policy.page_bytes / SMALLEST_PART).max(1);
        self.reach = wanted.clamp(least, MOST_BYTES.max(least));
        self.record_bytes = match page.fetched.bytes.checked_div(page.fetched.records) {
            Some(bytes) if self.last_read.is_none() => bytes,
            // Larger ones at once: what is asked for too much is not reserved.
            Some(bytes) => bytes.max((self.record_bytes + bytes) / 2),
            None => self.record_bytes,
        };
        self.last_read = Some(asked_at);
    }

    /// Takes in that a read was refused for a limit of the shard.
    pub fn refused(&mut self, asked_at: Instant) {
        self.last_read = Some(asked_at);
        self.share.refused(asked_at, float(self.largest.min(self.reach)));
    }
}

/// Memory for the events that are taken out of a page at a time, with so much free.
pub fn portion_bytes(free: usize) -> usize {
    (free / PART_OF_FREE).max(LEAST_PORTION)
}

fn float(bytes: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "bytes of a page are far below 2^53")]
    let float = bytes as f64;
    float
}

fn whole(bytes: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from a float saturates, which is what a page wants"
    )]
    let whole = bytes as usize;
    whole
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
