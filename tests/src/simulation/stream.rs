//! The stream of a simulation as a value: shards, their lineage, their records. No port, no time of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluicegate_checkpoint::{ArrivalMillis, HashKey, HashKeyRange, Record, SequenceNumber, ShardId};
use sluicegate_lease::Shard;
use sluicegate_worker::{Distribution, ReadFrom};

use super::world::UserEvent;

/// A shard with everything that was ever put into it.
#[derive(Debug, Clone)]
pub struct SimShard {
    /// As a listing shows it.
    pub listed: Shard,
    /// User records in order; those of one Kinesis record follow each other. Those that retention took are still here.
    pub records: Vec<Record>,
    /// When it took its last record.
    pub closed_at: Option<ArrivalMillis>,
}

/// All shards of the stream.
#[derive(Debug, Default)]
pub struct SimStream {
    shards: BTreeMap<ShardId, SimShard>,
    next_shard: u32,
    next_number: u64,
    /// The stream's own time.
    pub now: ArrivalMillis,
    /// How long it keeps records, if shorter than a simulation.
    pub retention: Option<Duration>,
    /// Whether several events of one Kinesis record are an aggregate's.
    pub aggregated: bool,
    /// From when until when it distributes records itself.
    pub auto: Option<(ArrivalMillis, ArrivalMillis)>,
}

impl SimStream {
    /// So many open shards that divide the hash keys evenly, and how long records are kept.
    pub fn new(shards: u32, retention: Option<Duration>) -> Self {
        let mut stream = Self { retention, ..Self::default() };
        let width = u128::MAX / u128::from(shards.max(1));
        for n in 0..shards {
            let start = width * u128::from(n);
            let end = if n + 1 == shards { u128::MAX } else { start + width - 1 };
            stream.add(HashKeyRange { start, end }, BTreeSet::new());
        }
        stream
    }

    /// Who distributes records over its shards now.
    pub fn distribution(&self) -> Distribution {
        let auto = self.auto.is_some_and(|(from, until)| from <= self.now && self.now < until);
        if auto { Distribution::Auto } else { Distribution::UserPartitionKey }
    }

    /// Whether it distributed records itself from then until now, without a break.
    pub fn was_auto_since(&self, time: ArrivalMillis) -> bool {
        self.auto.is_some_and(|(from, until)| from <= time && self.now < until)
    }

    /// Whether retention has taken a record.
    pub fn is_trimmed(&self, record: &Record) -> bool {
        self.has_passed(record.arrival())
    }

    /// Whether the stream has forgotten a shard: everything in it is older than retention.
    pub fn is_gone(&self, id: &ShardId) -> bool {
        self.shards.get(id).and_then(|shard| shard.closed_at).is_some_and(|at| self.has_passed(at))
    }

    fn has_passed(&self, time: ArrivalMillis) -> bool {
        let length = self.retention.map(|length| i64::try_from(length.as_millis()).unwrap_or(i64::MAX));
        length.is_some_and(|length| time.0.saturating_add(length) < self.now.0)
    }

    /// What a listing shows.
    pub fn listing(&self) -> Vec<Shard> {
        let known = self.shards.values().map(|shard| &shard.listed);
        known.filter(|shard| !self.is_gone(&shard.id)).cloned().collect()
    }

    /// Children, their children, and so on, forgotten ones included.
    pub fn descendants(&self, id: &ShardId) -> BTreeSet<ShardId> {
        let mut found = BTreeSet::new();
        let mut open = vec![id.clone()];
        while let Some(id) = open.pop() {
            let children = self.shards.values().filter(|shard| shard.listed.parents.contains(&id));
            for child in children {
                if found.insert(child.listed.id.clone()) {
                    open.push(child.listed.id.clone());
                }
            }
        }
        found
    }

    /// All shards that there ever were, in the order of their ids.
    pub fn shards(&self) -> &BTreeMap<ShardId, SimShard> {
        &self.shards
    }

    /// Puts one Kinesis record with these user records (partition key, payload), all under the first key's hash. Of an
    /// aggregate each has a hash key of its own; every other aggregate is the native library's, which would send again
    /// what is not of the shard.
    pub fn put(&mut self, users: Vec<UserEvent>, arrival: ArrivalMillis) {
        let Some((key, _)) = users.first() else { return };
        let hash = hash_key(key);
        let number = self.next_number();
        let open = self.shards.values().map(|shard| &shard.listed).find(|shard| {
            let range = shard.hash_range;
            !shard.closed && range.start <= hash && hash <= range.end
        });
        let Some(id) = open.map(|shard| shard.id.clone()) else { return };
        let aggregated = self.aggregated && users.len() > 1;
        let sent_again = self.next_number.is_multiple_of(2);
        let hashed = |user: UserEvent| {
            let key = aggregated.then(|| HashKey { key: hash_key(&user.0), sent_again });
            (key, user)
        };
        self.stored(&id, &number, users.into_iter().map(hashed), arrival);
    }

    /// Notes a Kinesis record that was stored under this number, with the hash key and the event of each user record.
    pub fn stored(
        &mut self,
        shard: &ShardId,
        number: &SequenceNumber,
        users: impl Iterator<Item = (Option<HashKey>, UserEvent)>,
        arrival: ArrivalMillis,
    ) {
        let Some(shard) = self.shards.get_mut(shard) else { return };
        for (sub, (hash_key, (partition_key, data))) in (0u64..).zip(users) {
            let plain = Record::new(number.clone(), arrival, partition_key, data).at_sub(sub);
            shard
                .records
                .push(hash_key.map_or_else(|| plain.clone(), |hash_key| plain.with_hash_key(hash_key)));
        }
    }

    /// Notes a shard as a listing shows it.
    pub fn listed(&mut self, shard: Shard) {
        match self.shards.get_mut(&shard.id) {
            Some(known) => known.listed = shard,
            None => {
                drop(self.shards.insert(
                    shard.id.clone(),
                    SimShard { listed: shard, records: Vec::new(), closed_at: None },
                ))
            }
        }
    }

    /// The shard that holds the record of this number.
    pub fn shard_of(&self, number: &SequenceNumber) -> Option<&SimShard> {
        let holds = |shard: &&SimShard| {
            shard.records.binary_search_by(|record| record.sequence_number().cmp(number)).is_ok()
        };
        self.shards.values().find(holds)
    }

    /// Ids of the open shards, in the order of their hash keys.
    pub fn open(&self) -> Vec<ShardId> {
        let mut open: Vec<&Shard> =
            self.shards.values().map(|shard| &shard.listed).filter(|shard| !shard.closed).collect();
        open.sort_by_key(|shard| shard.hash_range.start);
        open.into_iter().map(|shard| shard.id.clone()).collect()
    }

    /// Splits an open shard in the middle; does nothing if it is too narrow or closed.
    pub fn split(&mut self, id: &ShardId) {
        let Some(shard) = self.shards.get_mut(id).filter(|shard| !shard.listed.closed) else { return };
        let range = shard.listed.hash_range;
        if range.end - range.start < 2 {
            return;
        }
        shard.listed.closed = true;
        shard.closed_at = Some(self.now);
        let middle = range.start + (range.end - range.start) / 2;
        let parents = BTreeSet::from([id.clone()]);
        self.add(HashKeyRange { start: range.start, end: middle }, parents.clone());
        self.add(HashKeyRange { start: middle + 1, end: range.end }, parents);
    }

    /// Merges an open shard with its right neighbour, if there is one.
    pub fn merge(&mut self, id: &ShardId) {
        let open = self.open();
        let Some(at) = open.iter().position(|open| open == id) else { return };
        let Some(neighbour) = open.get(at + 1) else { return };
        let (left, right) = (self.close(id), self.close(neighbour));
        if let (Some(left), Some(right)) = (left, right) {
            let parents = BTreeSet::from([id.clone(), neighbour.clone()]);
            self.add(HashKeyRange { start: left.start, end: right.end }, parents);
        }
    }

    /// The children of a shard, as its last page names them.
    pub fn children(&self, id: &ShardId) -> Vec<Shard> {
        self.listing().into_iter().filter(|shard| shard.parents.contains(id)).collect()
    }

    /// How many user records of a shard retention has taken.
    pub fn trimmed(&self, id: &ShardId) -> usize {
        let Some(shard) = self.shards.get(id) else { return 0 };
        shard.records.iter().take_while(|record| self.is_trimmed(record)).count()
    }

    /// Index of the first user record at or behind a place.
    pub fn place(&self, id: &ShardId, from: &ReadFrom) -> usize {
        let Some(shard) = self.shards.get(id) else { return 0 };
        let before = |record: &Record| match from {
            ReadFrom::TrimHorizon => false,
            ReadFrom::AtTimestamp(time) => record.arrival() < *time,
            ReadFrom::At(number) => record.sequence_number() < number,
            ReadFrom::After(number) => record.sequence_number() <= number,
        };
        shard.records.iter().take_while(|record| before(record)).count()
    }

    fn close(&mut self, id: &ShardId) -> Option<HashKeyRange> {
        let shard = self.shards.get_mut(id)?;
        shard.listed.closed = true;
        shard.closed_at = Some(self.now);
        Some(shard.listed.hash_range)
    }

    fn add(&mut self, hash_range: HashKeyRange, parents: BTreeSet<ShardId>) {
        let id = ShardId::new(format!("shardId-{:012}", self.next_shard));
        self.next_shard += 1;
        let listed = Shard { id: id.clone(), parents, hash_range, closed: false };
        self.shards.insert(id, SimShard { listed, records: Vec::new(), closed_at: None });
    }

    fn next_number(&mut self) -> SequenceNumber {
        // Of different lengths, so that an order as text would show.
        self.next_number += 7;
        SequenceNumber::parse(self.next_number.to_string())
            .unwrap_or_else(|_digits| unreachable!("a number is digits"))
    }
}

/// Where a partition key lies: any even spread will do.
fn hash_key(key: &str) -> u128 {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for byte in key.bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    hash ^ (hash << 64)
}
