//! The record: one event of a shard, where it stands and what it carries.

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Sequence number of the Kinesis record.
    pub sequence_number: SequenceNumber,
    /// Index inside an aggregated record; 0 in a plain one.
    pub sub_sequence_number: SubSequenceNumber,
    /// When Kinesis took it.
    pub arrival: ArrivalMillis,
    /// The partition key it was published with.
    pub partition_key: String,
    /// Where a user record of an aggregated record belongs. `None` in a plain record: Kinesis itself put that one into
    /// its shard, by a hash key that it does not tell.
    pub hash_key: Option<HashKey>,
    /// The payload, exactly as published.
    pub data: Bytes,
}

impl Record {
    /// The position of having finished this record.
    pub fn position(&self) -> Position {
        Position::At(self.sequence_number.clone(), self.sub_sequence_number)
    }

    /// What the record weighs in memory, in bytes: payload, keys and a fixed overhead.
    pub fn weight_bytes(&self) -> usize {
        self.data.len()
            + self.partition_key.len()
            + self.sequence_number.as_str().len()
            + Self::OVERHEAD_BYTES
    }

    /// Allocator and struct overhead counted per record by [`Record::weight_bytes`]: the struct itself (128
    /// bytes) and three small heap blocks.
    const OVERHEAD_BYTES: usize = 176;
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
