//! When and how much to read of a shard: intervals between reads, and record limits that follow the size of records
//! (pure).

use std::time::Duration;

use sluicegate_checkpoint::Record;
use tokio::time::Instant;

use crate::stream::RecordPage;

/// How fast and how much is read at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPolicy {
    /// Shortest time between two reads of a shard.
    pub min_interval: Duration,
    /// Time between two reads of a shard that is caught up.
    pub idle_interval: Duration,
    /// Bytes a page should have; the record limit of a read follows from the records seen so far.
    pub page_bytes: usize,
}

/// When and how much to read.
#[derive(Debug)]
pub struct Pace {
    policy: ReadPolicy,
    last_read: Option<Instant>,
    idle: bool,
    /// Payload bytes that the next page should have at most. A shard at its tip reserves little: hundreds of them would
    /// otherwise spend the budget on pages that come back empty.
    reach: usize,
    /// Payload bytes of a Kinesis record, averaged over pages.
    record_bytes: usize,
    /// Memory that a page takes, in percent of what it would take were each of its Kinesis records one event; averaged.
    /// User records weigh more than the aggregate that they came in.
    expansion: usize,
}

/// Most records one GetRecords returns (Kinesis quotas page).
const MAX_RECORDS: usize = 10_000;
/// Records of the first page, before their size is known.
const FIRST_RECORDS: usize = 500;
/// Most that is reserved for a page because of aggregates, in times the wanted bytes: a reservation near the whole budget
/// would wait until every other shard holds nothing.
const MAX_EXPANSION: usize = 4;
/// A shard at its tip asks for at least this part of a page; a page that does not reach the tip doubles what is asked for next.
const SMALLEST_PART: usize = 16;

impl Pace {
    /// Bytes to reserve for the next page: what a page should have, and what its user records weigh beyond that.
    pub fn page_bytes(&self) -> usize {
        (self.reach.saturating_mul(self.expansion) / 100).max(self.reach)
    }

    /// Nothing read yet.
    pub fn new(policy: ReadPolicy) -> Self {
        let record_bytes = policy.page_bytes / FIRST_RECORDS;
        Self { policy, last_read: None, idle: false, reach: policy.page_bytes, record_bytes, expansion: 100 }
    }

    /// Kinesis records to ask for, so that a page has about the wanted bytes.
    pub fn limit(&self) -> u32 {
        let records = (self.reach / self.record_bytes.max(1)).clamp(1, MAX_RECORDS);
        u32::try_from(records).unwrap_or(u32::MAX)
    }

    /// How long the next read should wait.
    pub fn wait(&self, now: Instant) -> Duration {
        let interval = if self.idle { self.policy.idle_interval } else { self.policy.min_interval };
        self.last_read.map_or(Duration::ZERO, |last| (last + interval).saturating_duration_since(now))
    }

    /// Takes in what a read gave.
    pub fn seen(&mut self, page: &RecordPage, now: Instant) {
        self.last_read = Some(now);
        self.idle = page.behind_latest.is_zero() && page.records.is_empty();
        let payload: usize = page.records.iter().map(|record| record.data.len()).sum();
        let wanted = if page.behind_latest.is_zero() { payload * 2 } else { self.reach * 2 };
        let least = (self.policy.page_bytes / SMALLEST_PART).max(1);
        self.reach = wanted.clamp(least, self.policy.page_bytes.max(least));
        if !page.records.is_empty() {
            let (events, records) = (page.records.len(), page.kinesis_records());
            let bytes = payload;
            self.record_bytes = (self.record_bytes + bytes / records) / 2;
            let weight: usize = page.records.iter().map(Record::weight_bytes).sum();
            let of_one = (weight - bytes) / events;
            let expansion = weight.saturating_mul(100) / (bytes + of_one * records).max(1);
            self.expansion = ((self.expansion + expansion) / 2).min(100 * MAX_EXPANSION);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber, SubSequenceNumber};

    #[test]
    fn the_room_for_a_page_follows_what_aggregates_weigh() {
        let page_bytes = 1 << 20;
        let interval = Duration::from_millis(200);
        let policy = ReadPolicy { min_interval: interval, idle_interval: interval, page_bytes };
        let page = |user_records: u64| RecordPage {
            records: (0..user_records)
                .map(|sub| Record {
                    sequence_number: SequenceNumber::parse("1").unwrap(),
                    sub_sequence_number: SubSequenceNumber(sub),
                    arrival: ArrivalMillis(1),
                    partition_key: "k".into(),
                    hash_key: None,
                    data: bytes::Bytes::from(vec![0; 24_000 / usize::try_from(user_records).unwrap()]),
                })
                .collect(),
            behind_latest: interval,
            ..RecordPage::default()
        };
        let mut pace = Pace::new(policy);
        pace.seen(&page(1), Instant::now());
        assert_eq!(pace.page_bytes(), page_bytes, "plain records change nothing");
        for _ in 0..10 {
            pace.seen(&page(100), Instant::now());
        }
        // 240 bytes of payload and about 180 beside them.
        assert!(
            (page_bytes * 16 / 10..page_bytes * 19 / 10).contains(&pace.page_bytes()),
            "{}",
            pace.page_bytes()
        );
        assert!((40..=44).contains(&pace.limit()), "limits count Kinesis records: {}", pace.limit());
        for _ in 0..10 {
            pace.seen(&page(6_000), Instant::now());
        }
        assert_eq!(pace.page_bytes() / (page_bytes / 100), 100 * MAX_EXPANSION);
    }

    #[test]
    fn pages_keep_to_the_wanted_bytes_and_idle_shards_are_read_less_often() {
        let policy = ReadPolicy {
            min_interval: Duration::from_millis(200),
            idle_interval: Duration::from_secs(1),
            page_bytes: 1 << 20,
        };
        let mut pace = Pace::new(policy);
        assert_eq!(pace.limit(), 500);
        let now = Instant::now();
        assert_eq!(pace.wait(now), Duration::ZERO);
        pace.seen(&RecordPage { behind_latest: Duration::from_secs(1), ..RecordPage::default() }, now);
        assert_eq!(pace.wait(now), Duration::from_millis(200));
        pace.seen(&RecordPage::default(), now);
        assert_eq!(pace.wait(now), Duration::from_secs(1));
        pace.reach = 1 << 20;
        pace.record_bytes = 10;
        assert_eq!(pace.limit(), 10_000);
        pace.record_bytes = 10 << 20;
        assert_eq!(pace.limit(), 1);
    }

    #[test]
    fn a_shard_at_its_tip_reserves_little_and_one_with_a_backlog_a_page_again_soon() {
        let page_bytes = 1 << 20;
        let interval = Duration::from_millis(200);
        let policy = ReadPolicy { min_interval: interval, idle_interval: interval, page_bytes };
        let mut pace = Pace::new(policy);
        assert_eq!(pace.page_bytes(), page_bytes, "there may be a backlog");
        pace.seen(&RecordPage::default(), Instant::now());
        assert_eq!((pace.page_bytes(), pace.limit()), (page_bytes / 16, 31));
        let behind = RecordPage { behind_latest: interval, ..RecordPage::default() };
        for reads in 1..=4 {
            pace.seen(&behind, Instant::now());
            assert_eq!(pace.page_bytes(), (page_bytes / 16) << reads);
        }
        pace.seen(&behind, Instant::now());
        assert_eq!(pace.page_bytes(), page_bytes, "never more than a page");
    }
}
