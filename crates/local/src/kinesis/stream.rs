//! One stream: its shards, who is open, and resharding.
//!
//! Writers hold the stream's lock shared while they route and append, resharding holds it alone. So no record reaches a closed
//! shard, and a reader that sees a closed shard also sees its children.
//!
//! Every change takes effect at once and the stream is always `ACTIVE`. A delay (`CREATING`, `UPDATING`) would be a state here,
//! with the moment at which it ends, looked at by [`Stream::status`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::hash::HashKeyRange;
use super::reshard::{OpenShard, OpenShards, Step};
use super::sequence::ShardNumber;
use super::shard::{Horizon, Parents, Shard};
use super::token::StreamIdentity;

/// Retention of a new stream (AWS Kinesis API reference, IncreaseStreamRetentionPeriod: 24 hours by default).
const DEFAULT_RETENTION_HOURS: u32 = 24;

/// How capacity is managed; kept and shown, nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamMode {
    Provisioned,
    OnDemand,
}

impl StreamMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Provisioned => "PROVISIONED",
            Self::OnDemand => "ON_DEMAND",
        }
    }
}

/// Who decides which shard a record goes to (AWS Kinesis API reference, RecordDistributionStrategy).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// The hash key of the record's partition key, or its explicit one.
    UserPartitionKey,
    /// The service: evenly, whatever keys a record has, and it need have none.
    Auto,
}

impl Distribution {
    pub(crate) const NAMES: [&'static str; 2] = ["AUTO", "USER_PARTITION_KEY"];

    /// The strategy by its name; that of a stream which names none.
    pub(crate) fn of(name: Option<&str>) -> Self {
        if name == Some("AUTO") { Self::Auto } else { Self::UserPartitionKey }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UserPartitionKey => "USER_PARTITION_KEY",
            Self::Auto => "AUTO",
        }
    }
}

/// Distance between the hash keys of one record that the service distributes and the next, as a share of all: the golden
/// ratio, by which any number of them divides the range about evenly.
const NEXT_HASH_KEY: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) identity: StreamIdentity,
    pub(crate) arn: String,
    pub(crate) mode: StreamMode,
    /// Records that the service distributed.
    distributed: AtomicU64,
    state: RwLock<StreamState>,
}

/// What changes of a stream.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) retention_hours: u32,
    pub(crate) max_record_bytes: usize,
    pub(crate) distribution: Distribution,
    shards: BTreeMap<ShardNumber, Arc<Shard>>,
    /// The open shards in the order of their ranges.
    open: Vec<Arc<Shard>>,
    next: ShardNumber,
}

impl Stream {
    pub(crate) fn new(
        identity: StreamIdentity,
        arn: String,
        mode: StreamMode,
        shard_count: u32,
        max_record_bytes: usize,
    ) -> Self {
        let mut state = StreamState {
            retention_hours: DEFAULT_RETENTION_HOURS,
            max_record_bytes,
            distribution: Distribution::UserPartitionKey,
            shards: BTreeMap::new(),
            open: Vec::new(),
            next: ShardNumber(0),
        };
        for range in HashKeyRange::uniform(shard_count) {
            state.add(range, Parents::None, identity.created_ms);
        }
        state.find_open();
        Self { identity, arn, mode, distributed: AtomicU64::default(), state: RwLock::new(state) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.identity.name
    }

    pub(crate) fn status(&self) -> &'static str {
        "ACTIVE"
    }

    /// Where the service puts the next record of a stream that it distributes itself.
    pub(crate) fn next_hash_key(&self) -> u128 {
        let records = self.distributed.fetch_add(1, Ordering::Relaxed);
        u128::from(records).wrapping_mul(NEXT_HASH_KEY)
    }

    /// Frees the shards that retention has overtaken; looks first, so that readers rarely wait.
    pub(crate) fn forget_gone(&self, now_ms: u64) {
        let any_gone = self.state().any_gone(now_ms);
        if any_gone {
            self.state_mut().forget_gone(now_ms);
        }
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, StreamState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, StreamState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamState {
    pub(crate) fn horizon(&self, now_ms: u64) -> Horizon {
        Horizon::new(now_ms, self.retention_hours)
    }

    /// The open shard that takes records of this hash key.
    pub(crate) fn route(&self, hash_key: u128) -> Option<&Arc<Shard>> {
        self.open.get(self.open.partition_point(|shard| shard.range.last < hash_key))
    }

    /// The shard, unless retention has overtaken it.
    pub(crate) fn shard(&self, number: ShardNumber, now_ms: u64) -> Option<&Arc<Shard>> {
        self.shards.get(&number).filter(|shard| !shard.is_gone(self.horizon(now_ms)))
    }

    /// Every shard that retention has not overtaken, in the order of their numbers, behind `after`.
    pub(crate) fn shards_after(
        &self,
        after: Option<ShardNumber>,
        now_ms: u64,
    ) -> impl Iterator<Item = &Arc<Shard>> {
        let horizon = self.horizon(now_ms);
        let from = after.map_or(ShardNumber(0), ShardNumber::next);
        self.shards.range(from..).map(|(_, shard)| shard).filter(move |shard| !shard.is_gone(horizon))
    }

    pub(crate) fn children_of(&self, parent: ShardNumber) -> Vec<&Arc<Shard>> {
        let later = self.shards.range(parent..).map(|(_, shard)| shard);
        later.filter(|shard| shard.parents.numbers().any(|number| number == parent)).collect()
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The open shards as values, for planning.
    pub(crate) fn open_shards(&self) -> OpenShards {
        let shards = self.open.iter().map(|shard| OpenShard { number: shard.number, range: shard.range });
        OpenShards::new(shards.collect(), self.next)
    }

    /// Splits and merges; steps that do not fit are left out (plans are made from the same state, under the same lock).
    pub(crate) fn apply(&mut self, steps: &[Step], now_ms: u64) {
        for step in steps {
            match *step {
                Step::Split { parent, at } => self.split(parent, at, now_ms),
                Step::Merge { parent, adjacent } => self.merge(parent, adjacent, now_ms),
            };
        }
        self.find_open();
        self.forget_gone(now_ms);
    }

    /// Sets retention. What the old one had overtaken is gone for good, also when retention grows.
    pub(crate) fn set_retention(&mut self, hours: u32, now_ms: u64) {
        self.drop_overtaken(now_ms);
        self.retention_hours = hours;
        self.drop_overtaken(now_ms);
    }

    fn drop_overtaken(&mut self, now_ms: u64) {
        self.forget_gone(now_ms);
        let horizon = self.horizon(now_ms);
        for shard in self.shards.values() {
            shard.trim(horizon);
        }
    }

    fn any_gone(&self, now_ms: u64) -> bool {
        let horizon = self.horizon(now_ms);
        self.shards.values().any(|shard| shard.is_gone(horizon))
    }

    fn forget_gone(&mut self, now_ms: u64) {
        let horizon = self.horizon(now_ms);
        self.shards.retain(|_, shard| !shard.is_gone(horizon));
    }

    fn split(&mut self, parent: ShardNumber, at: u128, now_ms: u64) -> Option<()> {
        let ranges = self.shards.get(&parent)?.range.split_at(at)?;
        self.close(parent, now_ms);
        for range in ranges {
            self.add(range, Parents::One(parent), now_ms);
        }
        Some(())
    }

    fn merge(&mut self, parent: ShardNumber, adjacent: ShardNumber, now_ms: u64) -> Option<()> {
        let range = self.shards.get(&parent)?.range.join(self.shards.get(&adjacent)?.range)?;
        self.close(parent, now_ms);
        self.close(adjacent, now_ms);
        self.add(range, Parents::Two { parent, adjacent }, now_ms);
        Some(())
    }

    fn close(&self, number: ShardNumber, now_ms: u64) {
        if let Some(shard) = self.shards.get(&number) {
            shard.close(now_ms);
        }
    }

    fn add(&mut self, range: HashKeyRange, parents: Parents, now_ms: u64) {
        let number = self.next;
        self.next = number.next();
        let parents_epochs =
            parents.numbers().filter_map(|parent| self.shards.get(&parent)).map(|p| p.epoch_ms);
        let epoch_ms = parents_epochs.max().map_or(now_ms, |epoch_ms| now_ms.max(epoch_ms + 1));
        self.shards.insert(number, Arc::new(Shard::new(number, range, parents, now_ms, epoch_ms)));
    }

    fn find_open(&mut self) {
        self.open = self.shards.values().filter(|shard| shard.closed().is_none()).cloned().collect();
        self.open.sort_by_key(|shard| shard.range.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinesis::hash::hash_of_partition_key;
    use crate::kinesis::shard::RecordText;

    fn stream(shards: u32) -> Stream {
        let identity = StreamIdentity { name: "s".to_owned(), created_ms: 1_000, incarnation: 1 };
        Stream::new(identity, String::new(), StreamMode::Provisioned, shards, 1 << 20)
    }

    #[test]
    fn every_hash_key_has_its_open_shard() {
        let stream = stream(3);
        let steps = stream.state().open_shards().plan_uniform(4);
        stream.state_mut().apply(&steps, 2_000);
        let state = stream.state();
        assert_eq!(state.open_count(), 4);
        for key in [0, 1, u128::MAX / 2, u128::MAX - 1, u128::MAX, hash_of_partition_key("k")] {
            let shard = state.route(key).unwrap();
            assert!(shard.range.contains(key) && shard.closed().is_none());
        }
    }

    #[test]
    fn a_child_s_first_sequence_number_lies_above_its_parent_s_last() {
        let stream = stream(1);
        let parent = Arc::clone(stream.state().route(0).unwrap());
        let horizon = Horizon::new(1_000, 24);
        let last = parent.append(RecordText::new("k", "AAAA", &mut String::new()), horizon).0;
        // The clock stands still, and then even goes back.
        stream.state_mut().apply(&[Step::Split { parent: ShardNumber(0), at: 10 }], 900);
        let child = Arc::clone(stream.state().route(0).unwrap());
        assert_eq!(child.parents, Parents::One(ShardNumber(0)));
        assert!(child.sequence_number(0) > parent.sequence_number(last));
    }
}
