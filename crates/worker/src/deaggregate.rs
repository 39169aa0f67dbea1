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
//! A key longer than Kinesis allows passes the whole record as well.
//!
//! Of a few megabytes can come a million events, so what they will take is known before there are any ([`shape`]), and they
//! share the bytes and the keys of their Kinesis record.

use std::str::FromStr;

use md5::{Digest, Md5};
use sluicegate_checkpoint::Record;
use sluicegate_checkpoint::record::{UserKeys, UserRecord};
use thiserror::Error;

pub mod cursor;
mod wire;

use wire::{Fields, Table};

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
            tracing::trace!(sequence_number = %record.sequence_number(), %why, "an aggregated record stays whole");
            vec![record]
        }
    }
}

/// Whether a record begins as an aggregate does and yet is one event: a damaged aggregate, as a rule.
pub fn is_kept_whole(record: &Record) -> bool {
    begins_as_aggregate(record)
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
    record.hash_key().is_none() && record.data().starts_with(&MAGIC)
}

/// How much an aggregated record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// User records.
    pub users: usize,
    /// Partition keys in its table.
    pub partition_keys: usize,
    /// Explicit hash keys in its table.
    pub explicit: usize,
}

impl Shape {
    /// Most memory that the events of this Kinesis record take, with what they share, in bytes.
    pub fn weight_bytes(&self, record: &Record) -> usize {
        let keys = self.partition_keys.saturating_mul(PARTITION_KEY_BYTES) + self.explicit.saturating_mul(16);
        let users = self.users.max(1).saturating_mul(Record::OWN_BYTES);
        record.origin_bytes().saturating_add(keys).saturating_add(users)
    }
}

/// What a partition key in the table takes: its place and hash key, and while the table is made, whether the latter is known.
const PARTITION_KEY_BYTES: usize = 33;

/// How much comes of a Kinesis record. It allocates nothing.
///
/// # Errors
/// Why it is to be taken as one event.
pub fn shape(record: &Record) -> Result<Shape, Whole> {
    let mut shape = Shape::default();
    for field in Fields::of(message(record)?) {
        match field?.0 {
            Table::PartitionKeys => shape.partition_keys += 1,
            Table::ExplicitHashKeys => shape.explicit += 1,
            Table::UserRecords => shape.users += 1,
        }
    }
    Ok(shape)
}

/// The message of an aggregated record.
fn message(record: &Record) -> Result<&[u8], Whole> {
    let data = record.data();
    // KCL wants at least one byte between magic and sum.
    if !begins_as_aggregate(record) || data.len() <= MAGIC.len() + SUM_BYTES {
        return Err(Whole::Plain);
    }
    let (message, sum) = data[MAGIC.len()..].split_at(data.len() - MAGIC.len() - SUM_BYTES);
    if *sum != Md5::digest(message)[..] {
        return Err(Whole::Sum);
    }
    Ok(message)
}

/// The user records of an aggregated record.
///
/// # Errors
/// Why it is to be taken as one event.
pub fn user_records(record: &Record) -> Result<Vec<Record>, Whole> {
    let shape = shape(record)?;
    apart(record, &shape)
}

/// The user records of an aggregated record of this shape.
///
/// # Errors
/// Why it is to be taken as one event.
pub fn apart(record: &Record, shape: &Shape) -> Result<Vec<Record>, Whole> {
    let data = record.data();
    let message = data.get(MAGIC.len()..data.len().saturating_sub(SUM_BYTES)).ok_or(Whole::Plain)?;
    let keys = Keys::of(message, shape)?.used_by(message, record.partition_key())?;
    if shape.users == 0 {
        return Err(Whole::Empty);
    }
    // Looked through above: there is no error left.
    let users = wire::users(message).flatten().filter_map(|user| {
        let place = |index: u64| u32::try_from(index).unwrap_or(u32::MAX);
        Some(UserRecord {
            partition_key: place(user.partition_key_index?),
            explicit: user.explicit_hash_key_index.map(place),
            data: in_record(user.data?),
        })
    });
    Ok(record.user_records(keys, shape.users, users))
}

/// The hash key that Kinesis gives a partition key: its MD5 sum as a number.
pub fn hash_key_of(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key).into())
}

/// A place in the message as one in the record: Kinesis gives 10 MiB at most.
fn in_record(range: std::ops::Range<usize>) -> std::ops::Range<u32> {
    let place = |at: usize| u32::try_from(at + MAGIC.len()).unwrap_or(u32::MAX);
    place(range.start)..place(range.end)
}

/// The key tables of one aggregate, as written.
struct Keys<'a> {
    partition_keys: Vec<(std::ops::Range<u32>, u128)>,
    /// Whether the hash key beside a partition key was made.
    hashed: Vec<bool>,
    explicit: Vec<u128>,
    /// Explicit hash keys that are none, with their index: an error once one is used.
    wrong: Vec<(usize, &'a str)>,
    message: &'a [u8],
}

impl<'a> Keys<'a> {
    fn of(message: &'a [u8], shape: &Shape) -> Result<Self, Whole> {
        let mut keys = Self {
            partition_keys: Vec::with_capacity(shape.partition_keys),
            hashed: vec![false; shape.partition_keys],
            explicit: Vec::with_capacity(shape.explicit),
            wrong: Vec::new(),
            message,
        };
        for field in Fields::of(message) {
            let (table, range) = field?;
            match table {
                Table::UserRecords => {}
                Table::PartitionKeys => {
                    let text = wire::text(message, range.clone())?;
                    // A text has at least as many bytes as characters, so most keys need no count.
                    if text.len() > MAX_KEY_CHARS && text.chars().count() > MAX_KEY_CHARS {
                        return Err(Whole::LongKey);
                    }
                    keys.partition_keys.push((in_record(range), 0));
                }
                Table::ExplicitHashKeys => {
                    let text = wire::text(message, range)?;
                    let hash_key = u128::from_str(text);
                    if hash_key.is_err() {
                        keys.wrong.push((keys.explicit.len(), text));
                    }
                    keys.explicit.push(hash_key.unwrap_or_default());
                }
            }
        }
        Ok(keys)
    }

    /// With the hash keys that the user records need.
    fn used_by(mut self, message: &[u8], record_key: &str) -> Result<UserKeys, Whole> {
        let mut sent_again = false;
        for (index, user) in wire::users(message).enumerate() {
            let user = user?;
            let missing = |field: &str| Whole::Message(format!("user record {index} has no {field}"));
            if user.data.is_none() {
                return Err(missing("data"));
            }
            let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
            let key = at(user.partition_key_index.ok_or_else(|| missing("partition key index"))?);
            let (range, hash_key) = self.partition_keys.get_mut(key).ok_or(Whole::Key { index })?;
            let of_message = |place: u32| usize::try_from(place).unwrap_or(usize::MAX) - MAGIC.len();
            let text = || wire::text(self.message, of_message(range.start)..of_message(range.end));
            if index == 0 {
                sent_again = is_sent_again(record_key, text()?);
            }
            match user.explicit_hash_key_index.map(at) {
                Some(explicit) if explicit >= self.explicit.len() => return Err(Whole::Key { index }),
                Some(explicit) => {
                    if let Some((_at, text)) = self.wrong.iter().find(|(at, _)| *at == explicit) {
                        return Err(Whole::HashKey(text.chars().take(40).collect()));
                    }
                }
                None if self.hashed[key] => {}
                None => {
                    *hash_key = hash_key_of(text()?);
                    self.hashed[key] = true;
                }
            }
        }
        Ok(UserKeys { partition_keys: self.partition_keys, explicit: self.explicit, sent_again })
    }
}

#[cfg(test)]
mod tests;
