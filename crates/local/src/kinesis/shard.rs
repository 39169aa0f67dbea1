//! One shard: its records behind one lock.
//!
//! Index and arrival time of a record are given out under that lock, in the same breath as the record becomes readable. So a
//! reader can never pass over a record that was acknowledged: whatever is appended after a page was read has a higher index
//! than the place where the page ends. The lock is held for a push or for copying pointers, never while text is written, and
//! never across an await.
//!
//! Records older than retention go lazily, at the next use of the shard. This file gives out no errors: a position that retention
//! has overtaken reads from the oldest record on, as at AWS.

use std::collections::VecDeque;
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::base64_text;
use super::hash::HashKeyRange;
use super::meter::Meter;
use super::sequence::{SequenceNumber, ShardNumber};

/// Most that one GetRecords returns, in bytes of data and partition keys (AWS Kinesis API reference, GetRecords: 10 MiB).
pub(crate) const RESPONSE_CAP_BYTES: usize = 10 << 20;

/// A stored record: one allocation, shared with the pages that are being written out.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) arrived_ms: u64,
    key_len: u32,
    /// The partition key, then the data in base64 as it came.
    text: Arc<str>,
}

impl Record {
    pub(crate) fn partition_key(&self) -> &str {
        self.text.get(..self.key_len as usize).unwrap_or_default()
    }

    pub(crate) fn data(&self) -> &str {
        self.text.get(self.key_len as usize..).unwrap_or_default()
    }

    /// Bytes of data and partition key.
    pub(crate) fn size_bytes(&self) -> usize {
        self.key_len as usize + base64_text::decoded_len_of_checked(self.data())
    }
}

/// A record's text, made before the lock is taken.
#[derive(Debug)]
pub(crate) struct RecordText {
    key_len: u32,
    text: Arc<str>,
}

impl RecordText {
    /// `scratch` is only there to be used again for the next record.
    pub(crate) fn new(partition_key: &str, data: &str, scratch: &mut String) -> Self {
        scratch.clear();
        scratch.push_str(partition_key);
        scratch.push_str(data);
        let key_len = u32::try_from(partition_key.len()).unwrap_or_default();
        Self { key_len, text: Arc::from(scratch.as_str()) }
    }
}

/// Whose children a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parents {
    /// Made with its stream.
    None,
    /// Half of a split.
    One(ShardNumber),
    /// Of a merge.
    Two { parent: ShardNumber, adjacent: ShardNumber },
}

impl Parents {
    pub(crate) fn numbers(self) -> impl Iterator<Item = ShardNumber> {
        let (first, second) = match self {
            Self::None => (None, None),
            Self::One(parent) => (Some(parent), None),
            Self::Two { parent, adjacent } => (Some(parent), Some(adjacent)),
        };
        first.into_iter().chain(second)
    }
}

/// Retention, as seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Horizon {
    pub(crate) now_ms: u64,
    /// What arrived before this is gone.
    pub(crate) oldest_ms: u64,
}

impl Horizon {
    pub(crate) fn new(now_ms: u64, retention_hours: u32) -> Self {
        Self { now_ms, oldest_ms: now_ms.saturating_sub(u64::from(retention_hours) * 3_600_000) }
    }
}

/// One shard, open or closed.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) number: ShardNumber,
    pub(crate) range: HashKeyRange,
    pub(crate) parents: Parents,
    pub(crate) created_ms: u64,
    /// Leading part of its sequence numbers: above that of every parent.
    pub(crate) epoch_ms: u64,
    /// How far its limits are used up.
    pub(crate) meter: Meter,
    log: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    records: VecDeque<Record>,
    /// Index of the first record kept; the rest follow without a gap.
    first_index: u64,
    latest_ms: u64,
    closed: Option<Closed>,
}

/// When and where a shard ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) at_ms: u64,
    /// Above the index of every record.
    pub(crate) end_index: u64,
}

/// What one read found.
#[derive(Debug)]
pub(crate) struct Page {
    /// Index of the first record.
    pub(crate) first_index: u64,
    pub(crate) records: Vec<Record>,
    /// Where the next read begins.
    pub(crate) next_index: u64,
    /// How long ago the oldest record arrived that is still unread; 0 when none is.
    pub(crate) behind_ms: u64,
    /// The shard is closed and this page reaches its end.
    pub(crate) at_end: bool,
}

/// A place in a shard, before it is resolved to an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    TrimHorizon,
    Latest,
    At(u64),
    AtTime(u64),
}

impl Shard {
    pub(crate) fn new(
        number: ShardNumber,
        range: HashKeyRange,
        parents: Parents,
        created_ms: u64,
        epoch_ms: u64,
    ) -> Self {
        let log = Log { records: VecDeque::new(), first_index: 1, latest_ms: created_ms, closed: None };
        Self { number, range, parents, created_ms, epoch_ms, meter: Meter::default(), log: Mutex::new(log) }
    }

    pub(crate) fn sequence_number(&self, index: u64) -> SequenceNumber {
        SequenceNumber { epoch_ms: self.epoch_ms, shard: self.number, index }
    }

    /// Stores a record and gives its index and when it arrived. The caller knows that the shard is open: it holds the stream's lock.
    pub(crate) fn append(&self, text: RecordText, horizon: Horizon) -> (u64, u64) {
        let mut log = self.log();
        log.trim(horizon);
        log.latest_ms = log.latest_ms.max(horizon.now_ms);
        let record = Record { arrived_ms: log.latest_ms, key_len: text.key_len, text: text.text };
        log.records.push_back(record);
        (log.next_index() - 1, log.latest_ms)
    }

    /// Reads up to `limit` records from `index` on, as many as the cap allows.
    pub(crate) fn read(&self, index: u64, limit: usize, horizon: Horizon) -> Page {
        let mut log = self.log();
        log.trim(horizon);
        let first_index = index.max(log.first_index).min(log.next_index());
        let skipped = offset(first_index, log.first_index);
        let unread = log.records.range(skipped..);
        let count = page_len(unread.clone().map(Record::size_bytes), limit, RESPONSE_CAP_BYTES);
        let records: Vec<Record> = unread.take(count).cloned().collect();
        let next = log.records.get(skipped + records.len());
        let behind_ms = next.map_or(0, |next| horizon.now_ms.saturating_sub(next.arrived_ms).max(1));
        Page {
            first_index,
            next_index: first_index + records.len() as u64,
            behind_ms,
            at_end: next.is_none() && log.closed.is_some(),
            records,
        }
    }

    /// The index at which reading from `place` begins.
    pub(crate) fn resolve(&self, place: Place, horizon: Horizon) -> u64 {
        let mut log = self.log();
        log.trim(horizon);
        match place {
            Place::TrimHorizon => log.first_index,
            Place::Latest => log.next_index(),
            Place::At(index) => index,
            Place::AtTime(ms) => {
                let earlier = log.records.partition_point(|record| record.arrived_ms < ms);
                log.first_index + earlier as u64
            }
        }
    }

    /// Index of the next record to come.
    pub(crate) fn next_index(&self) -> u64 {
        self.log().next_index()
    }

    pub(crate) fn closed(&self) -> Option<Closed> {
        self.log().closed
    }

    /// Ends the shard; nothing may be appended after.
    pub(crate) fn close(&self, at_ms: u64) {
        let mut log = self.log();
        let end_index = log.next_index();
        log.closed.get_or_insert(Closed { at_ms, end_index });
    }

    /// Drops what retention has overtaken.
    pub(crate) fn trim(&self, horizon: Horizon) {
        self.log().trim(horizon);
    }

    /// Closed for longer than retention: nothing in it can be read any more.
    pub(crate) fn is_gone(&self, horizon: Horizon) -> bool {
        self.closed().is_some_and(|closed| closed.at_ms < horizon.oldest_ms)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing under this lock panics half-way through a change.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn next_index(&self) -> u64 {
        self.first_index + self.records.len() as u64
    }

    fn trim(&mut self, horizon: Horizon) {
        while self.records.front().is_some_and(|record| record.arrived_ms < horizon.oldest_ms) {
            self.records.pop_front();
            self.first_index += 1;
        }
    }
}

fn offset(index: u64, first_index: u64) -> usize {
    usize::try_from(index.saturating_sub(first_index)).unwrap_or(usize::MAX)
}

/// How many of the next records one answer takes: up to `limit`, and while they sum to `cap_bytes` at most, but always one.
fn page_len(sizes: impl Iterator<Item = usize>, limit: usize, cap_bytes: usize) -> usize {
    let totals = sizes.scan(0, |total, size| {
        *total += size;
        Some(*total)
    });
    let fitting =
        iter::zip(1.., totals).take(limit).take_while(|(count, total)| *count == 1 || *total <= cap_bytes);
    fitting.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn shard() -> Shard {
        Shard::new(ShardNumber(0), HashKeyRange::ALL, Parents::None, 0, 0)
    }

    fn append(shard: &Shard, data: &str, now_ms: u64) -> u64 {
        shard.append(RecordText::new("key", data, &mut String::new()), Horizon::new(now_ms, 24)).0
    }

    fn data(page: &Page) -> Vec<&str> {
        page.records.iter().map(Record::data).collect()
    }

    #[test]
    fn a_page_ends_at_its_limit_or_before_its_cap() {
        let sizes = [4, 4, 4, 4];
        assert_eq!(page_len(sizes.into_iter(), 3, 100), 3);
        assert_eq!(page_len(sizes.into_iter(), 10, 100), 4);
        assert_eq!(page_len(sizes.into_iter(), 10, 8), 2);
        assert_eq!(page_len(sizes.into_iter(), 10, 11), 2);
        assert_eq!(page_len(sizes.into_iter(), 10, 3), 1);
        assert_eq!(page_len([].into_iter(), 10, 3), 0);
    }

    #[test]
    fn reading_goes_on_where_the_last_page_ended() {
        let shard = shard();
        for data in ["AAAA", "BBBB", "CCCC"] {
            append(&shard, data, 1_000);
        }
        let page = shard.read(0, 2, Horizon::new(1_500, 24));
        assert_eq!((data(&page), page.next_index, page.behind_ms), (vec!["AAAA", "BBBB"], 3, 500));
        let page = shard.read(page.next_index, 2, Horizon::new(1_500, 24));
        assert_eq!((data(&page), page.next_index, page.behind_ms, page.at_end), (vec!["CCCC"], 4, 0, false));
        shard.close(1_600);
        assert!(shard.read(4, 2, Horizon::new(1_700, 24)).at_end);
    }

    #[test]
    fn arrival_times_never_go_back_with_the_clock() {
        let shard = shard();
        append(&shard, "AAAA", 5_000);
        append(&shard, "BBBB", 4_000);
        let times: Vec<u64> = shard
            .read(0, 9, Horizon::new(6_000, 24))
            .records
            .iter()
            .map(|record| record.arrived_ms)
            .collect();
        assert_eq!(times, [5_000, 5_000]);
    }

    #[test]
    fn what_retention_overtook_is_skipped_without_an_error() {
        let shard = shard();
        append(&shard, "AAAA", HOUR_MS);
        append(&shard, "BBBB", 2 * HOUR_MS);
        let late = Horizon::new(25 * HOUR_MS + 1, 24);
        assert_eq!(data(&shard.read(1, 9, late)), ["BBBB"]);
        assert_eq!(shard.resolve(Place::TrimHorizon, late), 2);
        assert_eq!(shard.resolve(Place::AtTime(0), late), 2);
        assert_eq!(append(&shard, "CCCC", 40 * HOUR_MS), 3);
    }

    #[test]
    fn a_time_resolves_to_the_first_record_not_before_it() {
        let shard = shard();
        for (data, ms) in [("AAAA", 100), ("BBBB", 200), ("CCCC", 200), ("DDDD", 301)] {
            append(&shard, data, ms);
        }
        let now = Horizon::new(400, 24);
        for (ms, index) in [(0, 1), (100, 1), (101, 2), (200, 2), (201, 4), (301, 4), (302, 5)] {
            assert_eq!(shard.resolve(Place::AtTime(ms), now), index, "at {ms}");
        }
        assert_eq!(shard.resolve(Place::Latest, now), 5);
    }
}
