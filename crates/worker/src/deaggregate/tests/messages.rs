//! The message of an aggregated record as prost makes it: what the reading in place is held against.

use bytes::Bytes;
use prost::Message;

/// The user records of one Kinesis record; keys are in tables, so that a shared one is sent once.
#[derive(Clone, PartialEq, Message)]
pub(in crate::deaggregate) struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    pub partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub records: Vec<UserRecord>,
}

/// One user record.
#[derive(Clone, PartialEq, Message)]
pub(in crate::deaggregate) struct UserRecord {
    /// Required.
    #[prost(uint64, optional, tag = "1")]
    pub partition_key_index: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub explicit_hash_key_index: Option<u64>,
    /// Required.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub data: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    pub tags: Vec<Tag>,
}

/// A tag, which nothing reads.
#[derive(Clone, PartialEq, Message)]
pub(in crate::deaggregate) struct Tag {
    /// Required.
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}
