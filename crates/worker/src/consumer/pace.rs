//! When and how much to read of a shard: intervals between reads, and record limits that follow the size of records
//! (pure).

use std::time::Duration;

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
    /// Bytes of a record, averaged over pages.
    record_bytes: usize,
}

/// Most records one GetRecords returns (Kinesis quotas page).
const MAX_RECORDS: usize = 10_000;
/// Records of the first page, before their size is known.
const FIRST_RECORDS: usize = 500;

impl Pace {
    /// Bytes a page should have.
    pub fn page_bytes(&self) -> usize {
        self.policy.page_bytes
    }

    /// Nothing read yet.
    pub fn new(policy: ReadPolicy) -> Self {
        Self { policy, last_read: None, idle: false, record_bytes: policy.page_bytes / FIRST_RECORDS }
    }

    /// Records to ask for, so that a page has about the wanted bytes.
    pub fn limit(&self) -> u32 {
        let records = (self.policy.page_bytes / self.record_bytes.max(1)).clamp(1, MAX_RECORDS);
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
        if !page.records.is_empty() {
            let bytes: usize = page.records.iter().map(|record| record.data.len()).sum();
            self.record_bytes = (self.record_bytes + bytes / page.records.len()) / 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        pace.record_bytes = 10;
        assert_eq!(pace.limit(), 10_000);
        pace.record_bytes = 10 << 20;
        assert_eq!(pace.limit(), 1);
    }
}
