//! Kinesis records as the Kinesis Producer Library makes them: several events in one.

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;
use sluicegate_worker::deaggregate::MAGIC;

use super::super::world::UserEvent;

/// `AggregatedRecord` of the library's `messages.proto`.
#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<UserRecord>,
}

/// `Record` of it.
#[derive(Clone, PartialEq, Message)]
struct UserRecord {
    #[prost(uint64, required, tag = "1")]
    partition_key_index: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", required, tag = "3")]
    data: Bytes,
}

/// The payload of one Kinesis record that holds these events, and the hash key that each of them names: one event as
/// it is, several as an aggregate, all with the hash key of the first one's partition key.
pub(super) fn record(events: &[UserEvent]) -> (Bytes, Option<u128>) {
    let [(key, _), _, ..] = events else {
        return (events.first().map(|(_, data)| data.clone()).unwrap_or_default(), None);
    };
    let hash_key = u128::from_be_bytes(Md5::digest(key).into());
    let records = (0..).zip(events).map(|(index, (_, data))| UserRecord {
        partition_key_index: index,
        explicit_hash_key_index: Some(0),
        data: data.clone(),
    });
    let message = AggregatedRecord {
        partition_key_table: events.iter().map(|(key, _)| key.clone()).collect(),
        explicit_hash_key_table: vec![hash_key.to_string()],
        records: records.collect(),
    };
    let message = message.encode_to_vec();
    let sum = Md5::digest(&message);
    ([MAGIC.as_slice(), &message, &sum].concat().into(), Some(hash_key))
}
