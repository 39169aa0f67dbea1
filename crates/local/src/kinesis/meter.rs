//! How far the limits of one shard are used up.
//!
//! Beside the shard's log, behind a lock of its own that is held for arithmetic only. A shard keeps what one second brings.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bucket::{Bucket, Rate};
use crate::limits::ShardLimits;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    write_bytes: Option<Bucket>,
    write_records: Option<Bucket>,
    read_bytes: Option<Bucket>,
    read_calls: Option<Bucket>,
}

impl Meter {
    /// Takes a record of this size from both limits of writes, or from neither.
    pub(crate) fn admit_record(&self, bytes: usize, limits: &ShardLimits, now_ms: u64) -> bool {
        if limits.write_bytes.is_none() && limits.write_records.is_none() {
            return true;
        }
        let mut buckets = self.buckets();
        if !take(&mut buckets.write_records, limits.write_records, 1, now_ms) {
            return false;
        }
        if take(&mut buckets.write_bytes, limits.write_bytes, bytes as u64, now_ms) {
            return true;
        }
        if let (Some(per_second), Some(bucket)) = (limits.write_records, &mut buckets.write_records) {
            bucket.give_back(1, Rate::keeping(per_second, 1), now_ms);
        }
        false
    }

    /// Takes a call, unless there were too many or the bytes of those before are not paid for.
    pub(crate) fn admit_read(&self, limits: &ShardLimits, now_ms: u64) -> bool {
        if limits.read_bytes.is_none() && limits.read_calls.is_none() {
            return true;
        }
        let mut buckets = self.buckets();
        take(&mut buckets.read_bytes, limits.read_bytes, 0, now_ms)
            && take(&mut buckets.read_calls, limits.read_calls, 1, now_ms)
    }

    /// The answer had so many bytes.
    pub(crate) fn owe_read(&self, bytes: usize, limits: &ShardLimits, now_ms: u64) {
        let Some(per_second) = limits.read_bytes else { return };
        if let Some(bucket) = &mut self.buckets().read_bytes {
            bucket.owe(bytes as u64, Rate::keeping(per_second, 1), now_ms);
        }
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(bucket: &mut Option<Bucket>, per_second: Option<u64>, units: u64, now_ms: u64) -> bool {
    let Some(per_second) = per_second else { return true };
    let rate = Rate::keeping(per_second, 1);
    bucket.get_or_insert_with(|| Bucket::at_start(rate, now_ms)).take(units, rate, now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_limited_by_count_and_by_bytes() {
        let (meter, limits) = (Meter::default(), ShardLimits::AWS);
        let admitted = |bytes, now_ms| meter.admit_record(bytes, &limits, now_ms);
        assert_eq!((0..1_100).filter(|_| admitted(100, 0)).count(), 1_000);
        assert_eq!((0..1_100).filter(|_| admitted(100, 250)).count(), 250);
        assert_eq!((0..11).filter(|_| admitted(100 << 10, 10_000)).count(), 10);
        assert!(admitted(24 << 10, 10_000), "24 KiB were left");
        assert!(!admitted(1, 10_000));
        assert!(admitted(1, 10_001));
    }

    #[test]
    fn a_record_that_its_bytes_keep_out_takes_no_record() {
        let limits = ShardLimits { write_bytes: Some(100), write_records: Some(2), ..ShardLimits::NONE };
        let meter = Meter::default();
        assert!(meter.admit_record(60, &limits, 0));
        assert!((0..5).all(|_| !meter.admit_record(60, &limits, 0)));
        assert!(meter.admit_record(40, &limits, 0));
    }

    #[test]
    fn five_reads_a_second_and_after_a_large_answer_none_until_it_is_paid_for() {
        let (meter, limits) = (Meter::default(), ShardLimits::AWS);
        assert_eq!((0..20).filter(|_| meter.admit_read(&limits, 0)).count(), 5);
        assert!(!meter.admit_read(&limits, 199) && meter.admit_read(&limits, 200));
        // 10 MiB are 5 s of reading; 2 MiB of it were there.
        meter.owe_read(10 << 20, &limits, 10_000);
        assert!(!meter.admit_read(&limits, 13_999));
        assert!(meter.admit_read(&limits, 14_000));
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let meter = Meter::default();
        assert!((0..2_000).all(|_| meter.admit_record(1 << 20, &ShardLimits::NONE, 0)));
        assert!((0..20).all(|_| meter.admit_read(&ShardLimits::NONE, 0)));
    }
}
