//! The embedded Kinesis Data Streams: in memory, exact where a consumer depends on it.
//!
//! ```text
//! http.rs      operation's name -> request -> operation -> answer
//!   write.rs   PutRecord, PutRecords            ┐ hot: borrow from the body, write JSON by hand
//!   read.rs    GetShardIterator, GetRecords     ┘
//!   manage.rs  streams: create, describe, list, delete, retention
//!   list.rs    ListShards, its filter and pages
//!   scale.rs   SplitShard, MergeShards, UpdateShardCount
//! stream.rs    one stream: who is open; resharding
//!   shard.rs   one shard: records behind one lock
//!   meter.rs   how far its limits are used up
//! hash.rs, sequence.rs, reshard.rs, token.rs, validate.rs, base64_text.rs   pure
//! ```
//!
//! Order of locks: all streams, then one stream, then one shard; none is held across an await, because no operation awaits.
//!
//! Limits are asked by `write.rs` before each append and by `read.rs` before each page; both enter what they let in into the
//! [`Ledger`], which `GET /ledger` shows. Faults come in `http.rs`, between the operation's name and the operation.
//!
//! Not here yet: *enhanced fan-out*. Consumers belong to a `Stream`; SubscribeToShard is a stream of `Shard::read` pages, woken by
//! appends, and so the first operation that awaits.

mod base64_text;
mod error;
mod hash;
mod http;
mod json;
mod list;
mod manage;
mod meter;
mod read;
mod request;
mod reshard;
mod scale;
mod sequence;
mod shard;
mod stream;
mod token;
mod validate;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::aws_json::Stamp;
use crate::clock::Clock;
use crate::faults::Faults;
use crate::journal::Journal;
use crate::ledger::{Ledger, StreamUse};
use crate::limits::{KinesisLimits, ShardLimits};
use error::{ErrorKind, KinesisError};
pub use http::kinesis_router;
use request::StreamRef;
use sequence::ShardNumber;
use shard::Shard;
use stream::Stream;
use token::StreamIdentity;
use validate::Violations;

/// Settings of the embedded Kinesis.
#[derive(Debug, Clone)]
pub struct KinesisConfig {
    /// Region in the streams' ARNs. Default `us-east-1`.
    pub region: String,
    /// Account in the streams' ARNs, twelve digits. Default `000000000000`.
    pub account: String,
    /// How long a shard iterator or a ListShards token can be used. Default 5 minutes (AWS Kinesis API reference,
    /// GetShardIterator and ListShards: 300 seconds).
    pub token_lifetime: Duration,
}

impl Default for KinesisConfig {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            token_lifetime: Duration::from_secs(300),
        }
    }
}

/// A handle on one embedded Kinesis; clones share it.
#[derive(Clone)]
pub struct Kinesis {
    inner: Arc<Inner>,
    faults: Faults,
    journal: Option<Journal>,
}

struct Inner {
    config: KinesisConfig,
    clock: Arc<dyn Clock>,
    stamp: Stamp,
    incarnations: AtomicU64,
    streams: RwLock<Streams>,
    limits: RwLock<KinesisLimits>,
    ledger: Ledger<StreamUse>,
}

type Streams = BTreeMap<String, Arc<Stream>>;

/// Kinesis speaks AWS JSON 1.1 (and CBOR, which is not offered here).
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

impl fmt::Debug for Kinesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kinesis").finish_non_exhaustive() // not the records
    }
}

impl Kinesis {
    /// An empty Kinesis. All times come from `clock`.
    pub fn new(config: KinesisConfig, clock: Arc<dyn Clock>) -> Self {
        let stamp = Stamp::new(Arc::clone(&clock), CONTENT_TYPE);
        let faults = Faults::none(Arc::clone(&clock));
        let inner = Inner {
            config,
            clock,
            stamp,
            incarnations: AtomicU64::new(0),
            streams: RwLock::default(),
            limits: RwLock::default(),
            ledger: Ledger::default(),
        };
        Self { inner: Arc::new(inner), faults, journal: None }
    }

    /// With faults that are shared with others; by itself a Kinesis has faults of its own, of which there are none yet.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// With a journal of the records that are stored.
    #[must_use]
    pub fn with_journal(self, journal: Option<Journal>) -> Self {
        Self { journal, ..self }
    }

    /// The faults that are injected into requests.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What requests used, by stream.
    pub fn ledger(&self) -> &Ledger<StreamUse> {
        &self.inner.ledger
    }

    /// What shards are held to now.
    pub fn limits(&self) -> KinesisLimits {
        self.inner.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Holds shards to something else from now on.
    pub fn set_limits(&self, limits: KinesisLimits) {
        *self.inner.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn limits_of(&self, stream: &Stream) -> ShardLimits {
        self.inner.limits.read().unwrap_or_else(PoisonError::into_inner).of_stream(stream.name())
    }

    /// The refusal of what a shard cannot take or give now, in the service's words.
    fn rate_exceeded(&self, shard: ShardNumber, stream: &Stream) -> KinesisError {
        let (name, account) = (stream.name(), self.account());
        let message = format!("Rate exceeded for shard {shard} in stream {name} under account {account}.");
        KinesisError::new(ErrorKind::ThroughputExceeded, message)
    }

    fn now_ms(&self) -> u64 {
        self.inner.clock.now_ms()
    }

    fn account(&self) -> &str {
        &self.inner.config.account
    }

    fn streams(&self) -> RwLockReadGuard<'_, Streams> {
        self.inner.streams.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams_mut(&self) -> RwLockWriteGuard<'_, Streams> {
        self.inner.streams.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_incarnation(&self) -> u64 {
        self.inner.incarnations.fetch_add(1, Ordering::Relaxed)
    }

    fn token_lifetime_ms(&self) -> u64 {
        u64::try_from(self.inner.config.token_lifetime.as_millis()).unwrap_or(u64::MAX)
    }

    fn arn(&self, name: &str) -> String {
        format!("arn:aws:kinesis:{}:{}:stream/{name}", self.inner.config.region, self.inner.config.account)
    }

    fn stream(&self, stream: &StreamRef) -> Result<Arc<Stream>, KinesisError> {
        self.stream_by(stream.stream_name.as_deref(), stream.stream_arn.as_deref())
    }

    /// Finds a stream by its name, its ARN, or both if they agree.
    fn stream_by(&self, name: Option<&str>, arn: Option<&str>) -> Result<Arc<Stream>, KinesisError> {
        let name = named_stream(name, arn)?;
        let stream = self.streams().get(name).cloned();
        stream
            .filter(|stream| arn.is_none_or(|arn| arn == stream.arn))
            .ok_or_else(|| self.stream_not_found(name))
    }

    /// Finds the very stream that a token was made for, not one that was made later under its name.
    fn stream_of_token(&self, identity: &StreamIdentity) -> Result<Arc<Stream>, KinesisError> {
        let stream = self.streams().get(&identity.name).cloned();
        stream
            .filter(|stream| stream.identity == *identity)
            .ok_or_else(|| self.stream_not_found(&identity.name))
    }

    fn stream_not_found(&self, name: &str) -> KinesisError {
        KinesisError::not_found(format!("Stream {name} under account {} not found.", self.account()))
    }

    /// Finds a shard that retention has not overtaken.
    fn shard(&self, stream: &Stream, id: &str, now_ms: u64) -> Result<Arc<Shard>, KinesisError> {
        let shard = ShardNumber::parse(id).and_then(|number| stream.state().shard(number, now_ms).cloned());
        shard.ok_or_else(|| self.shard_not_found(stream, id))
    }

    fn shard_not_found(&self, stream: &Stream, id: &str) -> KinesisError {
        let (name, account) = (stream.name(), self.account());
        KinesisError::not_found(format!("Shard {id} in stream {name} under account {account} does not exist"))
    }
}

/// The name meant by a name, an ARN or both.
fn named_stream<'a>(name: Option<&'a str>, arn: Option<&'a str>) -> Result<&'a str, KinesisError> {
    let mut violations = Violations::default();
    violations.stream_name(name);
    let pattern = r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+";
    violations.pattern("streamARN", arn, pattern, |arn| name_in_arn(arn).is_some());
    violations.finish()?;
    match (name, arn.and_then(name_in_arn)) {
        (Some(name), Some(other)) if name != other => Err(KinesisError::invalid(format!(
            "StreamName {name} and StreamARN of stream {other} do not match."
        ))),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Err(KinesisError::invalid("Either StreamName or StreamARN must be provided.")),
    }
}

fn name_in_arn(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(6, ':');
    let (scheme, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (_region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let twelve_digits = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let kinesis = scheme == "arn" && partition.starts_with("aws") && service == "kinesis" && twelve_digits;
    resource.strip_prefix("stream/").filter(|name| kinesis && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_meant_by_name_or_arn_or_both_if_they_agree() {
        let arn = Some("arn:aws:kinesis:us-east-1:000000000000:stream/orders");
        assert_eq!(named_stream(Some("orders"), None).unwrap(), "orders");
        assert_eq!(named_stream(None, arn).unwrap(), "orders");
        assert_eq!(named_stream(Some("orders"), arn).unwrap(), "orders");
        named_stream(Some("other"), arn).unwrap_err();
        named_stream(None, None).unwrap_err();
        named_stream(None, Some("arn:aws:sqs:us-east-1:000000000000:stream/orders")).unwrap_err();
    }
}
