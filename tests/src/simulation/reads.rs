//! What other consumers of the stream leave of each shard's reads, in some histories, and the law of who is refused (Q1).

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate_checkpoint::{Record, ShardId};

/// What a shard leaves, a second. It keeps unused what one second brings; a page may be larger, and is then owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Calls.
    pub calls: u32,
    /// Bytes of data and partition keys.
    pub bytes: u32,
}

impl ReadLimits {
    /// Those of a seed: in one history of four, other consumers read along.
    pub fn of(seed: u64) -> Option<Self> {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x4ead);
        let shared = rng.random_bool(0.25);
        shared.then(|| Self { calls: rng.random_range(1..=3), bytes: rng.random_range(2_000..20_000) })
    }
}

/// How far they are used up. In thousandths of a unit, so that a millisecond brings a whole number of them.
#[derive(Debug, Default)]
pub struct SharedReads {
    limits: Option<ReadLimits>,
    shards: BTreeMap<ShardId, Left>,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    calls_milli: i64,
    bytes_milli: i64,
    at: Duration,
}

impl SharedReads {
    /// Nothing used yet.
    pub fn new(limits: Option<ReadLimits>) -> Self {
        Self { limits, shards: BTreeMap::new() }
    }

    /// Takes a call, unless there were too many or the bytes of those before are still owed.
    pub fn admits(&mut self, shard: &ShardId, now: Duration) -> bool {
        let Some(limits) = self.limits else { return true };
        let (calls, bytes) = (i64::from(limits.calls) * 1_000, i64::from(limits.bytes) * 1_000);
        let full = Left { calls_milli: calls, bytes_milli: bytes, at: now };
        let left = self.shards.entry(shard.clone()).or_insert(full);
        let elapsed = i64::try_from(now.saturating_sub(left.at).as_millis()).unwrap_or(i64::MAX);
        left.at = now;
        left.calls_milli = (left.calls_milli + i64::from(limits.calls) * elapsed).min(calls);
        left.bytes_milli = (left.bytes_milli + i64::from(limits.bytes) * elapsed).min(bytes);
        let admitted = left.calls_milli >= 1_000 && left.bytes_milli >= 0;
        left.calls_milli -= if admitted { 1_000 } else { 0 };
        admitted
    }

    /// A page was read.
    pub fn took(&mut self, shard: &ShardId, page: &[Record]) {
        let bytes: usize = page.iter().map(|record| record.data().len() + record.partition_key().len()).sum();
        if let Some(left) = self.shards.get_mut(shard) {
            left.bytes_milli -= i64::try_from(bytes).unwrap_or(i64::MAX / 1_000) * 1_000;
        }
    }
}

/// The least that a session waits before it repeats a refused read: half of the time between the calls that are there in any
/// case, and its clock may run fast.
const LEAST_WAIT: Duration = Duration::from_millis(500);

/// Law Q1: a read that was refused at a limit is not repeated at once, from when it was sent. Says what is wrong.
pub fn repeated_too_soon(refused: Option<Duration>, sent: Duration) -> Option<String> {
    let waited = sent.saturating_sub(refused?);
    (waited < LEAST_WAIT).then(|| format!("a refused read is repeated after {} ms", waited.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_gives_what_is_left_and_no_more() {
        let mut reads = SharedReads::new(Some(ReadLimits { calls: 2, bytes: 1_000 }));
        let (shard, ms) = (ShardId::new("s"), Duration::from_millis);
        let admitted = [0, 0, 0, 500, 600].map(|at| reads.admits(&shard, ms(at)));
        assert_eq!(admitted, [true, true, false, true, false]);
        assert!(SharedReads::default().admits(&shard, ms(0)));
    }

    #[test]
    fn who_waits_for_half_a_second_waits_long_enough() {
        let ms = Duration::from_millis;
        assert_eq!(repeated_too_soon(None, ms(0)), None);
        assert_eq!(repeated_too_soon(Some(ms(0)), ms(500)), None);
        assert!(repeated_too_soon(Some(ms(0)), ms(499)).is_some());
    }
}
