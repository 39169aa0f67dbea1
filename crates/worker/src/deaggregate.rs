//! One Kinesis record -> its user records, as the Kinesis Producer Library aggregates them. **Pure**, and total: what is
//! not an aggregate passes as it is.
//!
//! ```text
//! F3 89 9A C2 | AggregatedRecord (protobuf): key table, hash key table, user records | MD5 of the message, 16 bytes
//! ```
//! KCL's rules hold (`AggregatorUtil` of KCL 3.5), so that both give a user record the same index and a checkpoint of
//! either means the same to the other: a record without the magic, with another sum, or whose message does not decode is
//! one event. Where KCL would lose events this does not:
//! - An aggregate with a right sum and no user record in it is nothing to KCL. Here it is one event, whole.
//! - A user record that names a key that is not in the tables, or a hash key that is no number of 128 bits, ends the
//!   record for KCL, and what follows it is lost. Here the whole Kinesis record passes as one event.
//! - A user record whose hash key is not of the shard makes KCL drop all of its Kinesis record. Here every user record
//!   comes with its hash key, and with whether its producer sends it again if it landed in another shard: packing leaves
//!   out just those, counted ([`Cut::is_foreign`](sluicegate_checkpoint::Cut::is_foreign)).
//!
//! The native Kinesis Producer Library alone sends such a user record again, and it puts every aggregate of two or more
//! under the partition key [`NATIVE_KEY`] (`aws/kinesis/core/kinesis_record.cc` of awslabs/amazon-kinesis-producer).
//! Other libraries and log agents put an aggregate under its first user record's key, and send it once: what they put
//! into it is there and nowhere else. A first key that is [`NATIVE_KEY`] itself tells nothing; then all is kept, and at
//! worst some of it comes twice.
//!
//! A key longer than Kinesis allows passes the whole record as well: an aggregate names a key once and may use it in
//! each of its user records, so that a few long ones could fill the memory.

use std::str::FromStr;

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;
use sluicegate_checkpoint::{HashKey, Record, SubSequenceNumber};
use thiserror::Error;

pub mod cursor;
mod wire;

use wire::{AggregatedRecord, UserRecord};

/// What an aggregated record begins with.
pub const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
/// Bytes of the MD5 sum behind the message.
const SUM_BYTES: usize = 16;
/// Most characters of a partition key (Kinesis API reference, `PutRecord`).
const MAX_KEY_CHARS: usize = 256;

/// The partition key of every aggregate that the native Kinesis Producer Library makes.
pub const NATIVE_KEY: &str = "a";

/// Why a record is one event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Whole {
    /// It is a plain record.
    #[error("it does not begin as an aggregated record")]
    Plain,
    /// Its last 16 bytes are not the MD5 sum of what stands before them: damaged, or plain after all.
    #[error("the sum behind the message is not its MD5 sum")]
    Sum,
    /// The message does not decode.
    #[error("the message does not decode: {0}")]
    Message(String),
    /// A user record names a key that is not in the tables.
    #[error("user record {index} names a key that is not there")]
    Key {
        /// Of the user record.
        index: usize,
    },
    /// A partition key has more characters than Kinesis allows.
    #[error("a partition key has more than {MAX_KEY_CHARS} characters")]
    LongKey,
    /// It is whole, and there is no user record in it.
    #[error("there is no user record in it")]
    Empty,
    /// An explicit hash key is no number of 128 bits.
    #[error("`{0}` is no hash key")]
    HashKey(String),
}

/// The events of a page of Kinesis records, in order: plain records as they are, user records of aggregated ones in
/// their place.
pub fn deaggregate_all(records: Vec<Record>) -> Vec<Record> {
    // Most streams have no aggregates: then nothing moves.
    if !records.iter().any(begins_as_aggregate) {
        return records;
    }
    records.into_iter().flat_map(deaggregate).collect()
}

/// The user records of a Kinesis record, with its sequence number and arrival, numbered from 0; the record itself if it
/// is no aggregate, or one of no user records.
pub fn deaggregate(record: Record) -> Vec<Record> {
    match user_records(&record) {
        Ok(records) => records,
        Err(Whole::Plain) => vec![record],
        Err(why) => {
            tracing::trace!(sequence_number = %record.sequence_number, %why, "an aggregated record stays whole");
            vec![record]
        }
    }
}

/// Whether a record begins as an aggregate does and yet is one event: a damaged aggregate, as a rule.
pub fn is_kept_whole(record: &Record) -> bool {
    record.hash_key.is_none() && begins_as_aggregate(record)
}

/// Whether a record is an aggregate with a right sum and no user record in it. Decoding versions before
/// [`EVENT_DECODING_VERSION`](sluicegate_checkpoint::parameters::EVENT_DECODING_VERSION) had no event for it.
pub fn is_empty_aggregate(record: &Record) -> bool {
    begins_as_aggregate(record) && user_records(record) == Err(Whole::Empty)
}

/// Whether the user records of an aggregate are sent again if they landed in another shard, by the partition key of its
/// Kinesis record and that of its first user record.
pub fn is_sent_again(record_key: &str, first_user_key: &str) -> bool {
    record_key == NATIVE_KEY && first_user_key != NATIVE_KEY
}

fn begins_as_aggregate(record: &Record) -> bool {
    // What already is a user record is not taken apart again.
    record.hash_key.is_none() && record.data.starts_with(&MAGIC)
}

/// The user records of an aggregated record.
///
/// # Errors
/// Why it is to be taken as one event.
pub fn user_records(record: &Record) -> Result<Vec<Record>, Whole> {
    // KCL wants at least one byte between magic and sum.
    if !begins_as_aggregate(record) || record.data.len() <= MAGIC.len() + SUM_BYTES {
        return Err(Whole::Plain);
    }
    let message = record.data.slice(MAGIC.len()..record.data.len() - SUM_BYTES);
    if record.data[record.data.len() - SUM_BYTES..] != Md5::digest(&message)[..] {
        return Err(Whole::Sum);
    }
    // Payloads are slices of the record's bytes, not copies.
    let aggregate = AggregatedRecord::decode(message).map_err(|error| Whole::Message(error.to_string()))?;
    let mut keys = Keys::of(&aggregate)?;
    let (first_key, _, _) = keys.of_user_record(0, aggregate.records.first().ok_or(Whole::Empty)?)?;
    let sent_again = is_sent_again(&record.partition_key, first_key);
    let mut records = Vec::with_capacity(aggregate.records.len());
    for (index, user) in aggregate.records.iter().enumerate() {
        let (partition_key, key, data) = keys.of_user_record(index, user)?;
        records.push(Record {
            sequence_number: record.sequence_number.clone(),
            sub_sequence_number: SubSequenceNumber(u64::try_from(index).unwrap_or(u64::MAX)),
            arrival: record.arrival,
            partition_key: partition_key.to_owned(),
            hash_key: Some(HashKey { key, sent_again }),
            data,
        });
    }
    Ok(records)
}

/// The hash key that Kinesis gives a partition key: its MD5 sum as a number.
pub fn hash_key_of(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key).into())
}

/// The key tables of one aggregate.
struct Keys<'a> {
    partition_keys: &'a [String],
    /// Hash keys of the partition keys, each made when it is first needed.
    hashes: Vec<Option<u128>>,
    explicit: &'a [String],
}

impl<'a> Keys<'a> {
    fn of(aggregate: &'a AggregatedRecord) -> Result<Self, Whole> {
        // A text has at least as many bytes as characters, so most keys need no count.
        let is_long = |key: &String| key.len() > MAX_KEY_CHARS && key.chars().count() > MAX_KEY_CHARS;
        if aggregate.partition_key_table.iter().any(is_long) {
            return Err(Whole::LongKey);
        }
        Ok(Self {
            partition_keys: &aggregate.partition_key_table,
            hashes: vec![None; aggregate.partition_key_table.len()],
            explicit: &aggregate.explicit_hash_key_table,
        })
    }

    /// Partition key, hash key and payload of a user record.
    fn of_user_record(&mut self, index: usize, user: &UserRecord) -> Result<(&'a str, u128, Bytes), Whole> {
        let missing = |field: &str| Whole::Message(format!("user record {index} has no {field}"));
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
        let data = user.data.clone().ok_or_else(|| missing("data"))?;
        if user.tags.iter().any(|tag| tag.key.is_none()) {
            return Err(missing("key of a tag"));
        }
        let place = at(user.partition_key_index.ok_or_else(|| missing("partition key index"))?);
        let key = self.partition_keys.get(place).ok_or(Whole::Key { index })?;
        let hash_key = match user.explicit_hash_key_index {
            Some(explicit) => {
                explicit_hash_key(self.explicit.get(at(explicit)).ok_or(Whole::Key { index })?)?
            }
            None => *self.hashes[place].get_or_insert_with(|| hash_key_of(key)),
        };
        Ok((key, hash_key, data))
    }
}

fn explicit_hash_key(text: &str) -> Result<u128, Whole> {
    u128::from_str(text).map_err(|_no_number| Whole::HashKey(text.chars().take(40).collect()))
}

#[cfg(test)]
mod tests;
