//! The protobuf message inside an aggregated record, as the Kinesis Producer Library defines it (proto2).
//!
//! Fields that proto2 requires are optional here, because KCL takes a message without one as undecodable and the decoder
//! would silently take the default.

use bytes::Bytes;
use prost::Message;

/// The user records of one Kinesis record; keys are in tables, so that a shared one is sent once.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    pub partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub records: Vec<UserRecord>,
}

/// One user record.
#[derive(Clone, PartialEq, Message)]
pub(super) struct UserRecord {
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
pub(super) struct Tag {
    /// Required.
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}
