//! The record: one event of a shard, where it stands and what it carries.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::position::Position;
use crate::record_id::{SequenceNumber, SubSequenceNumber};

/// Arrival of a record at Kinesis, in milliseconds since the Unix epoch, rounded to the nearest.
///
/// It is part of item keys, so every decoder must give the same number: see [`ArrivalMillis::from_seconds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ArrivalMillis(pub i64);

impl ArrivalMillis {
    /// Rounds whole seconds and nanoseconds to the nearest millisecond.
    ///
    /// Truncating instead would put about half of all records one millisecond off whenever the timestamp
    /// travelled as a binary fraction of seconds (JSON), and the same batch would get two keys.
    pub fn from_seconds(seconds: i64, nanos: u32) -> Self {
        Self(seconds * 1_000 + (i64::from(nanos) + 500_000) / 1_000_000)
    }
}

/// Where a user record of an aggregated record belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashKey {
    /// Its explicit hash key, else the MD5 sum of its partition key.
    pub key: u128,
    /// Whether its producer sends it again where it belongs, should its aggregate land in another shard. Only of such a
    /// user record may a reader say that it is not of the shard: of any other this is the one copy.
    pub sent_again: bool,
}

impl HashKey {
    /// Of a user record that is sent once, wherever it lands.
    pub fn sent_once(key: u128) -> Self {
        Self { key, sent_again: false }
    }

    /// Of a user record that is sent again if it lands in another shard.
    pub fn sent_again(key: u128) -> Self {
        Self { key, sent_again: true }
    }
}

/// One event: a plain Kinesis record, or one user record of an aggregated one.
///
/// It is 32 bytes and a share of its Kinesis record: bytes, key tables, sequence number and arrival are there once for all user
/// records. So an aggregate of a million empty events takes 32 MB, and not ten times that.
#[derive(Clone)]
pub struct Record {
    origin: Arc<Origin>,
    sub_sequence_number: SubSequenceNumber,
    /// Index of its partition key, or [`OWN_KEY`].
    key: u32,
    /// Index of its explicit hash key, or [`UNTOLD`], or [`OF_KEY`].
    hash_key: u32,
    /// Where its payload begins in the bytes of its Kinesis record.
    start: u32,
    length: u32,
}

/// The partition key is that of the Kinesis record.
const OWN_KEY: u32 = u32::MAX;
/// Kinesis does not tell the hash key.
const UNTOLD: u32 = u32::MAX;
/// The hash key is that of the partition key.
const OF_KEY: u32 = u32::MAX - 1;

/// A Kinesis record.
#[derive(Debug)]
struct Origin {
    sequence_number: SequenceNumber,
    arrival: ArrivalMillis,
    partition_key: Box<str>,
    data: Bytes,
    keys: Option<Box<UserKeys>>,
}

/// The key tables of an aggregated record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserKeys {
    /// Where each partition key stands in the bytes of the Kinesis record, as UTF-8, and its hash key.
    pub partition_keys: Vec<(Range<u32>, u128)>,
    /// Explicit hash keys.
    pub explicit: Vec<u128>,
    /// See [`HashKey::sent_again`].
    pub sent_again: bool,
}

/// A user record, as places in its Kinesis record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Index of its partition key.
    pub partition_key: u32,
    /// Index of its explicit hash key, if it has one.
    pub explicit: Option<u32>,
    /// Its payload in the bytes of the Kinesis record.
    pub data: Range<u32>,
}

impl Record {
    /// A plain record.
    pub fn new(
        sequence_number: SequenceNumber,
        arrival: ArrivalMillis,
        partition_key: impl Into<Box<str>>,
        data: impl Into<Bytes>,
    ) -> Self {
        let (partition_key, data) = (partition_key.into(), data.into());
        // Kinesis gives 10 MiB at most.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let origin = Origin { sequence_number, arrival, partition_key, data, keys: None };
        Self {
            origin: Arc::new(origin),
            sub_sequence_number: SubSequenceNumber(0),
            key: OWN_KEY,
            hash_key: UNTOLD,
            start: 0,
            length,
        }
    }

    /// The user records of this Kinesis record, so many, numbered from 0. Places outside its bytes or tables are empty.
    pub fn user_records(
        &self,
        keys: UserKeys,
        count: usize,
        users: impl IntoIterator<Item = UserRecord>,
    ) -> Vec<Self> {
        let origin = Arc::new(Origin { keys: Some(Box::new(keys)), ..self.origin.copied() });
        let of = |(index, user): (u64, UserRecord)| Self {
            origin: Arc::clone(&origin),
            sub_sequence_number: SubSequenceNumber(index),
            key: user.partition_key,
            hash_key: user.explicit.unwrap_or(OF_KEY),
            start: user.data.start,
            length: user.data.end.saturating_sub(user.data.start),
        };
        let mut records = Vec::with_capacity(count);
        records.extend((0..).zip(users).map(of));
        records
    }

    /// The same, at another place in its Kinesis record.
    #[must_use]
    pub fn at_sub(&self, sub_sequence_number: u64) -> Self {
        Self { sub_sequence_number: SubSequenceNumber(sub_sequence_number), ..self.clone() }
    }

    /// The same of another Kinesis record.
    #[must_use]
    pub fn of(&self, sequence_number: SequenceNumber, arrival: ArrivalMillis) -> Self {
        let origin = Origin { keys: self.origin.keys.clone(), ..self.origin.copied() };
        Self { origin: Arc::new(Origin { sequence_number, arrival, ..origin }), ..*self }
    }

    /// The same as a user record with this hash key.
    #[must_use]
    pub fn with_hash_key(&self, hash_key: HashKey) -> Self {
        let HashKey { key, sent_again } = hash_key;
        let keys = UserKeys { partition_keys: Vec::new(), explicit: vec![key], sent_again };
        let origin = Origin { keys: Some(Box::new(keys)), ..self.origin.copied() };
        let origin = Origin { partition_key: self.partition_key().into(), ..origin };
        Self { origin: Arc::new(origin), key: OWN_KEY, hash_key: 0, ..*self }
    }

    /// The same under another partition key.
    #[must_use]
    pub fn with_key(&self, partition_key: impl Into<Box<str>>) -> Self {
        let hash_key = self.hash_key();
        let with =
            Self::new(self.sequence_number().clone(), self.arrival(), partition_key, self.data_bytes());
        let with = with.at_sub(self.sub_sequence_number.0);
        hash_key.map_or_else(|| with.clone(), |hash_key| with.with_hash_key(hash_key))
    }

    /// The same with another payload.
    #[must_use]
    pub fn with_data(&self, data: impl Into<Bytes>) -> Self {
        let with = Self::new(self.sequence_number().clone(), self.arrival(), self.partition_key(), data);
        let with = with.at_sub(self.sub_sequence_number.0);
        self.hash_key().map_or_else(|| with.clone(), |hash_key| with.with_hash_key(hash_key))
    }

    /// Sequence number of the Kinesis record.
    pub fn sequence_number(&self) -> &SequenceNumber {
        &self.origin.sequence_number
    }

    /// Index inside an aggregated record; 0 in a plain one.
    pub fn sub_sequence_number(&self) -> SubSequenceNumber {
        self.sub_sequence_number
    }

    /// When Kinesis took it.
    pub fn arrival(&self) -> ArrivalMillis {
        self.origin.arrival
    }

    /// The partition key it was published with.
    pub fn partition_key(&self) -> &str {
        if self.key == OWN_KEY {
            return &self.origin.partition_key;
        }
        self.table_key(self.key).and_then(|(text, _hash_key)| self.origin.text(text)).unwrap_or_default()
    }

    /// Where a user record of an aggregated record belongs. `None` in a plain record: Kinesis itself put that one into
    /// its shard, by a hash key that it does not tell.
    pub fn hash_key(&self) -> Option<HashKey> {
        let keys = self.origin.keys.as_ref()?;
        let key = match self.hash_key {
            UNTOLD => return None,
            OF_KEY => self.table_key(self.key)?.1,
            explicit => *keys.explicit.get(place(explicit))?,
        };
        Some(HashKey { key, sent_again: keys.sent_again })
    }

    /// The payload, exactly as published.
    pub fn data(&self) -> &[u8] {
        self.origin.data.get(self.range()).unwrap_or_default()
    }

    /// The payload, shared with the Kinesis record.
    pub fn data_bytes(&self) -> Bytes {
        if self.range().end <= self.origin.data.len() {
            self.origin.data.slice(self.range())
        } else {
            Bytes::new()
        }
    }

    /// The position of having finished this record.
    pub fn position(&self) -> Position {
        Position::At(self.sequence_number().clone(), self.sub_sequence_number)
    }

    /// Whether both are user records of one aggregated record, taken apart once.
    pub fn shares_origin(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin)
    }

    /// What it takes in memory beside what its Kinesis record does, in bytes: itself, and a place in its group while it is packed.
    pub const OWN_BYTES: usize = 32 + 8;

    /// What its Kinesis record takes in memory, in bytes.
    pub fn origin_bytes(&self) -> usize {
        let origin = &self.origin;
        let keys = origin.keys.as_ref().map_or(0, |keys| {
            keys.partition_keys.len() * size_of::<(Range<u32>, u128)>()
                + keys.explicit.len() * size_of::<u128>()
        });
        let texts = origin.partition_key.len() + origin.sequence_number.as_str().len();
        origin.data.len() + texts + keys + Self::ORIGIN_OVERHEAD_BYTES
    }

    /// The struct itself (96 bytes with its counters), and what an allocator adds to it and to its four blocks.
    const ORIGIN_OVERHEAD_BYTES: usize = 184;

    fn range(&self) -> Range<usize> {
        place(self.start)..place(self.start) + place(self.length)
    }

    fn table_key(&self, key: u32) -> Option<&(Range<u32>, u128)> {
        self.origin.keys.as_ref()?.partition_keys.get(place(key))
    }
}

/// What records that follow each other take in memory, in bytes: what they share counts once.
pub fn weight_bytes<'a>(records: impl IntoIterator<Item = &'a Record>) -> usize {
    let mut before: Option<&Record> = None;
    let weight = |record: &'a Record| {
        let shares = before.replace(record).is_some_and(|before| before.shares_origin(record));
        Record::OWN_BYTES + if shares { 0 } else { record.origin_bytes() }
    };
    records.into_iter().map(weight).sum()
}

impl Origin {
    /// The same without its tables.
    fn copied(&self) -> Self {
        Self {
            sequence_number: self.sequence_number.clone(),
            arrival: self.arrival,
            partition_key: self.partition_key.clone(),
            data: self.data.clone(),
            keys: None,
        }
    }

    fn text(&self, range: &Range<u32>) -> Option<&str> {
        std::str::from_utf8(self.data.get(place(range.start)..place(range.end))?).ok()
    }
}

fn place(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let place = |of: &Self| (of.sub_sequence_number, of.arrival(), of.hash_key());
        place(self) == place(other)
            && self.sequence_number() == other.sequence_number()
            && self.partition_key() == other.partition_key()
            && self.data() == other.data()
    }
}

impl Eq for Record {}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence_number", self.sequence_number())
            .field("sub_sequence_number", &self.sub_sequence_number)
            .field("arrival", &self.arrival())
            .field("partition_key", &self.partition_key())
            .field("hash_key", &self.hash_key())
            .field("data", &self.data_bytes())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arrival_rounds_to_the_nearest_millisecond() {
        assert_eq!(ArrivalMillis::from_seconds(1, 499_999).0, 1_000);
        assert_eq!(ArrivalMillis::from_seconds(1, 500_000).0, 1_001);
        assert_eq!(ArrivalMillis::from_seconds(1, 999_999_999).0, 2_000);
    }

    proptest! {
        /// A timestamp that went through a double of seconds, as JSON carries it, comes back the same.
        #[test]
        fn a_double_of_seconds_gives_the_same_millisecond(ms in 1_500_000_000_000i64..2_500_000_000_000) {
            #[expect(clippy::cast_precision_loss, reason = "the loss is what is tested")]
            let seconds = ms as f64 / 1e3;
            #[expect(clippy::cast_possible_truncation, reason = "whole seconds of this century")]
            let whole = seconds.trunc() as i64;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 1e9")]
            let nanos = (seconds.fract() * 1e9) as u32;
            prop_assert_eq!(ArrivalMillis::from_seconds(whole, nanos).0, ms);
        }
    }
}
