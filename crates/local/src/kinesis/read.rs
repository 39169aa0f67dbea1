//! GetShardIterator and GetRecords.
//!
//! An iterator holds an index, resolved when it is given out. A position older than retention is no error: reading begins at the
//! oldest record. At the end of a closed shard the answer that carries the last record has no `NextShardIterator` and names
//! the children.

use serde::Serialize;

use super::Kinesis;
use super::error::{ErrorKind, KinesisError};
use super::json;
use super::list::HashKeyRangeAnswer;
use super::request::{GetRecords, GetShardIterator};
use super::sequence::{SequenceNumber, ShardNumber, looks_like_sequence_number};
use super::shard::{Page, Place, Record, Shard};
use super::stream::{Stream, StreamState};
use super::token::ShardIterator;
use super::validate::Violations;
use crate::ledger::StreamUse;
use crate::time::Moment;

/// Records of one GetRecords, and the default (AWS Kinesis API reference, GetRecords: 10,000).
const MAX_RECORDS: usize = 10_000;
/// JSON around one record of an answer, generously.
const ANSWER_RECORD_BYTES: usize = 180;
const ITERATOR_TYPES: [&str; 5] =
    ["AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShardIteratorAnswer {
    shard_iterator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ChildShard {
    shard_id: String,
    parent_shards: Vec<String>,
    hash_key_range: HashKeyRangeAnswer,
}

impl Kinesis {
    pub(super) fn shard_iterator(&self, request: &GetShardIterator) -> Result<String, KinesisError> {
        check_iterator_request(request)?;
        let now_ms = self.now_ms();
        let stream = self.stream(&request.stream)?;
        let shard = self.shard(&stream, request.shard_id.as_deref().unwrap_or_default(), now_ms)?;
        let place = self.place(request, &stream, &shard, now_ms)?;
        KinesisError::unless_dry_run(request.dry_run)?;
        let iterator = ShardIterator {
            stream: stream.identity.clone(),
            shard: shard.number,
            index: shard.resolve(place, stream.state().horizon(now_ms)),
            issued_ms: now_ms,
        };
        json::encode(&ShardIteratorAnswer { shard_iterator: iterator.encode() })
    }

    fn place(
        &self,
        request: &GetShardIterator,
        stream: &Stream,
        shard: &Shard,
        now_ms: u64,
    ) -> Result<Place, KinesisError> {
        match request.shard_iterator_type.as_deref() {
            Some("LATEST") => Ok(Place::Latest),
            Some("AT_TIMESTAMP") => place_at_time(request.timestamp, now_ms),
            Some("AT_SEQUENCE_NUMBER") => self.index_given(request, stream, shard).map(Place::At),
            Some("AFTER_SEQUENCE_NUMBER") => {
                self.index_given(request, stream, shard).map(|index| Place::At(index + 1))
            }
            _ => Ok(Place::TrimHorizon),
        }
    }

    /// The index in `StartingSequenceNumber`, which must have been given out by this very shard.
    fn index_given(
        &self,
        request: &GetShardIterator,
        stream: &Stream,
        shard: &Shard,
    ) -> Result<u64, KinesisError> {
        let text = request.starting_sequence_number.as_deref().ok_or_else(|| {
            KinesisError::invalid(
                "Must either specify timestamp or StartingSequenceNumber for this iterator type.",
            )
        })?;
        let given = SequenceNumber::parse(text);
        if let Some(given) = given.filter(|given| given.shard != shard.number) {
            return Err(KinesisError::invalid(format!(
                "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {}",
                given.shard, shard.number
            )));
        }
        let ends_before = match shard.closed() {
            Some(closed) => closed.end_index + 1, // a closed shard's EndingSequenceNumber may be used
            None => shard.next_index(),
        };
        given
            .filter(|given| given.epoch_ms == shard.epoch_ms && given.index < ends_before)
            .map(|given| given.index)
            .ok_or_else(|| {
                KinesisError::invalid(format!(
                    "StartingSequenceNumber {text} used in GetShardIterator on shard {} in stream {} under account {} \
                     is invalid because it did not come from this stream.",
                    shard.number,
                    stream.name(),
                    self.account()
                ))
            })
    }

    pub(super) fn get_records(&self, request: &GetRecords) -> Result<String, KinesisError> {
        let mut violations = Violations::default();
        violations.required("shardIterator", request.shard_iterator.as_ref());
        violations.range("limit", request.limit, 1..=10_000);
        violations.finish()?;
        let limit = request.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MAX_RECORDS);
        let now_ms = self.now_ms();
        let iterator = self.live_iterator(request.shard_iterator.as_deref().unwrap_or_default(), now_ms)?;
        let stream = self.stream_of_token(&iterator.stream)?;
        if request.stream_arn.as_ref().is_some_and(|arn| *arn != stream.arn) {
            return Err(KinesisError::invalid("ShardIterator and StreamARN name different streams."));
        }
        KinesisError::unless_dry_run(request.dry_run)?;
        let limits = self.limits_of(&stream);
        let (shard, page, children) = {
            let state = stream.state();
            let found = state.shard(iterator.shard, now_ms).cloned();
            let shard = found.ok_or_else(|| self.shard_not_found(&stream, &iterator.shard.to_string()))?;
            if !shard.meter.admit_read(&limits, now_ms) {
                let refused = StreamUse { refused_reads: 1, ..StreamUse::default() };
                self.inner.ledger.enter(stream.name(), now_ms, refused);
                return Err(self.rate_exceeded(shard.number, &stream));
            }
            let page = shard.read(iterator.index, limit, state.horizon(now_ms));
            let children = if page.at_end { children(&state, shard.number) } else { Vec::new() };
            (shard, page, children)
        };
        let read_bytes: usize = page.records.iter().map(Record::size_bytes).sum();
        shard.meter.owe_read(read_bytes, &limits, now_ms);
        let used = StreamUse { reads: 1, read_bytes: read_bytes as u64, ..StreamUse::default() };
        self.inner.ledger.enter(stream.name(), now_ms, used);
        let next = (!page.at_end)
            .then(|| ShardIterator { index: page.next_index, issued_ms: now_ms, ..iterator }.encode());
        write_page(&shard, &page, next.as_deref(), &children)
    }

    fn live_iterator(&self, text: &str, now_ms: u64) -> Result<ShardIterator, KinesisError> {
        let iterator =
            ShardIterator::decode(text).ok_or_else(|| KinesisError::invalid("Invalid ShardIterator."))?;
        let lifetime_ms = self.token_lifetime_ms();
        if now_ms.saturating_sub(iterator.issued_ms) <= lifetime_ms {
            return Ok(iterator);
        }
        let message = format!(
            "Iterator expired. The iterator was created at time {} while right now it is {} which is further in the \
             future than the tolerated delay of {lifetime_ms} milliseconds.",
            Moment::from_ms(iterator.issued_ms).prose(),
            Moment::from_ms(now_ms).prose()
        );
        Err(KinesisError::new(ErrorKind::ExpiredIterator, message))
    }
}

fn check_iterator_request(request: &GetShardIterator) -> Result<(), KinesisError> {
    let mut violations = Violations::default();
    violations.shard_id("shardId", request.shard_id.as_ref());
    violations.required("shardIteratorType", request.shard_iterator_type.as_ref());
    violations.one_of("shardIteratorType", request.shard_iterator_type.as_deref(), &ITERATOR_TYPES);
    let starting = request.starting_sequence_number.as_deref();
    violations.pattern("startingSequenceNumber", starting, r"0|([1-9]\d{0,128})", looks_like_sequence_number);
    violations.finish()
}

fn place_at_time(timestamp: Option<f64>, now_ms: u64) -> Result<Place, KinesisError> {
    let missing = "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current \
                   request has no timestamp parameter.";
    let at_ms = Moment::from_epoch_seconds(timestamp.ok_or_else(|| KinesisError::invalid(missing))?).ms();
    if at_ms > now_ms {
        return Err(KinesisError::invalid(format!(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
             timestampInMillis: {at_ms}, currentTimestampInMillis: {now_ms}"
        )));
    }
    Ok(Place::AtTime(at_ms))
}

fn children(state: &StreamState, parent: ShardNumber) -> Vec<ChildShard> {
    let described = state.children_of(parent).into_iter().map(|child| ChildShard {
        shard_id: child.number.to_string(),
        parent_shards: child.parents.numbers().map(|number| number.to_string()).collect(),
        hash_key_range: child.range.into(),
    });
    described.collect()
}

fn write_page(
    shard: &Shard,
    page: &Page,
    next: Option<&str>,
    children: &[ChildShard],
) -> Result<String, KinesisError> {
    let texts_bytes: usize = page.records.iter().map(|record| record.data().len()).sum();
    let mut out = String::with_capacity(texts_bytes + page.records.len() * ANSWER_RECORD_BYTES + 1024);
    out.push_str(r#"{"Records":["#);
    for (index, record) in (page.first_index..).zip(&page.records) {
        if index > page.first_index {
            out.push(',');
        }
        json::push(&mut out, format_args!(r#"{{"SequenceNumber":"{}""#, shard.sequence_number(index)));
        out.push_str(r#","ApproximateArrivalTimestamp":"#);
        json::push_seconds(&mut out, record.arrived_ms);
        // A key has at least one character; without one the member is left out, as at AWS.
        if !record.partition_key().is_empty() {
            out.push_str(r#","PartitionKey":"#);
            json::push_string(&mut out, record.partition_key());
        }
        out.push_str(r#","Data":""#);
        out.push_str(record.data());
        out.push_str(r#""}"#);
    }
    json::push(&mut out, format_args!(r#"],"MillisBehindLatest":{}"#, page.behind_ms));
    if let Some(next) = next {
        json::push(&mut out, format_args!(r#","NextShardIterator":"{next}""#));
    }
    if !children.is_empty() {
        json::push(&mut out, format_args!(r#","ChildShards":{}"#, json::encode(&children)?));
    }
    out.push('}');
    Ok(out)
}
