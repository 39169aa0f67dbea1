//! PutRecord and PutRecords.
//!
//! A request is checked as a whole before its first record is stored, so a refused one leaves nothing behind. The entries of one
//! request that share a shard keep their order. Where shards are limited, an entry that its shard cannot take is refused by itself,
//! and the others are stored. `SequenceNumberForOrdering` is checked for its form and has no other effect:
//! sequence numbers rise strictly within a shard anyway.

use std::fmt::Display;
use std::sync::Arc;

use super::Kinesis;
use super::base64_text;
use super::error::{ErrorKind, KinesisError};
use super::hash::{hash_of_partition_key, parse_hash_key};
use super::json;
use super::request::{PutEntry, PutRecord, PutRecords, Text};
use super::sequence::looks_like_sequence_number;
use super::shard::{RecordText, Shard};
use super::stream::{Distribution, Stream, StreamState};
use super::validate::Violations;
use crate::journal::Line;
use crate::ledger::StreamUse;
use crate::limits::ShardLimits;

/// Entries of one PutRecords (AWS Kinesis API reference, PutRecords: up to 500).
const MAX_ENTRIES: usize = 500;
/// Data and partition keys of one PutRecords, in bytes (the same page: 10 MiB for the entire request; 5 MiB before records
/// larger than 1 MiB were introduced).
const MAX_REQUEST_BYTES: usize = 10 << 20;
/// Characters of a partition key (the same page).
const PARTITION_KEY_CHARS: std::ops::RangeInclusive<usize> = 1..=256;
/// JSON around one entry of an answer.
const ANSWER_ENTRY_BYTES: usize = 120;

/// A checked entry.
struct Checked<'a> {
    partition_key: &'a str,
    data: &'a str,
    /// None where the service chooses.
    hash_key: Option<u128>,
    size_bytes: usize,
}

/// What became of an entry.
enum Put<'a> {
    Stored { shard: &'a Arc<Shard>, index: u64 },
    Refused(KinesisError),
}

impl Kinesis {
    pub(super) fn put_records(&self, request: &PutRecords<'_>) -> Result<String, KinesisError> {
        let stream = self.stream_by(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
        let entries = checked_count(request.records.as_deref())?;
        let (max_record_bytes, keyed) = {
            let state = stream.state();
            (state.max_record_bytes, state.distribution == Distribution::UserPartitionKey)
        };
        let member = |index: usize, member: &str| format!("records.{}.member.{member}", index + 1);
        let mut checked = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            checked.push(check(entry, max_record_bytes, keyed, |name| member(index, name))?);
        }
        if checked.iter().map(|entry| entry.size_bytes).sum::<usize>() > MAX_REQUEST_BYTES {
            let limit = MAX_REQUEST_BYTES >> 20;
            return Err(KinesisError::invalid(format!("Records size exceeds {limit} MB limit")));
        }
        KinesisError::unless_dry_run(request.dry_run)?;
        self.store_all(&stream, &checked)
    }

    fn store_all(&self, stream: &Stream, entries: &[Checked<'_>]) -> Result<String, KinesisError> {
        let mut out = String::with_capacity(64 + entries.len() * ANSWER_ENTRY_BYTES);
        out.push_str(r#"{"Records":["#);
        let mut scratch = String::new();
        let (limits, now_ms) = (self.limits_of(stream), self.now_ms());
        let mut used = StreamUse::default();
        let state = stream.state();
        for (index, entry) in entries.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            let put = self.put(stream, &state, entry, &limits, &mut scratch)?;
            used += put.used(entry.size_bytes);
            match put {
                Put::Stored { shard, index } => push_stored(&mut out, shard, index),
                Put::Refused(error) => push_refused(&mut out, &error)?,
            }
        }
        json::push(&mut out, format_args!(r#"],"FailedRecordCount":{}}}"#, used.refused_records));
        self.inner.ledger.enter(stream.name(), now_ms, used);
        Ok(out)
    }

    pub(super) fn put_record(&self, request: PutRecord<'_>) -> Result<String, KinesisError> {
        let stream = self.stream_by(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
        let mut violations = Violations::default();
        let earlier = request.sequence_number_for_ordering.as_deref();
        violations.pattern(
            "sequenceNumberForOrdering",
            earlier,
            r"0|([1-9]\d{0,128})",
            looks_like_sequence_number,
        );
        violations.finish()?;
        let entry = PutEntry {
            partition_key: request.partition_key,
            data: request.data,
            explicit_hash_key: request.explicit_hash_key,
        };
        let state = stream.state();
        let keyed = state.distribution == Distribution::UserPartitionKey;
        let checked = check(&entry, state.max_record_bytes, keyed, str::to_owned)?;
        KinesisError::unless_dry_run(request.dry_run)?;
        let (limits, now_ms) = (self.limits_of(&stream), self.now_ms());
        let put = self.put(&stream, &state, &checked, &limits, &mut String::new())?;
        self.inner.ledger.enter(stream.name(), now_ms, put.used(checked.size_bytes));
        match put {
            Put::Stored { shard, index } => {
                let mut out = String::with_capacity(ANSWER_ENTRY_BYTES);
                push_stored(&mut out, shard, index);
                Ok(out)
            }
            Put::Refused(error) => Err(error),
        }
    }

    /// Routes, asks the shard's limits, and appends. The clock is read per record, so that arrival times tell the truth within a long request too.
    fn put<'a>(
        &self,
        stream: &Stream,
        state: &'a StreamState,
        entry: &Checked<'_>,
        limits: &ShardLimits,
        scratch: &mut String,
    ) -> Result<Put<'a>, KinesisError> {
        let nobody = || KinesisError::new(ErrorKind::InternalFailure, "no open shard takes this hash key");
        let hash_key = entry.hash_key.unwrap_or_else(|| stream.next_hash_key());
        let shard = state.route(hash_key).ok_or_else(nobody)?;
        let now_ms = self.now_ms();
        if !shard.meter.admit_record(entry.size_bytes, limits, now_ms) {
            return Ok(Put::Refused(self.rate_exceeded(shard.number, stream)));
        }
        let text = RecordText::new(entry.partition_key, entry.data, scratch);
        let (index, arrived_ms) = shard.append(text, state.horizon(now_ms));
        if let Some(journal) = &self.journal {
            journal.open().write(&Line::Record {
                stream: stream.name(),
                shard: shard.number.to_string(),
                sequence_number: shard.sequence_number(index).to_string(),
                arrival_ms: arrived_ms,
                partition_key: entry.partition_key,
                data: entry.data,
            });
        }
        Ok(Put::Stored { shard, index })
    }
}

impl Put<'_> {
    fn used(&self, size_bytes: usize) -> StreamUse {
        let bytes = size_bytes as u64;
        match self {
            Self::Stored { .. } => StreamUse { records: 1, bytes, ..StreamUse::default() },
            Self::Refused(_) => {
                StreamUse { refused_records: 1, refused_bytes: bytes, ..StreamUse::default() }
            }
        }
    }
}

fn push_stored(out: &mut String, shard: &Shard, index: u64) {
    let (number, shard) = (shard.sequence_number(index), shard.number);
    json::push(out, format_args!(r#"{{"SequenceNumber":"{number}","ShardId":"{shard}"}}"#));
}

fn push_refused(out: &mut String, error: &KinesisError) -> Result<(), KinesisError> {
    let (code, message) = (error.name(), json::encode(&error.message)?);
    json::push(out, format_args!(r#"{{"ErrorCode":"{code}","ErrorMessage":{message}}}"#));
    Ok(())
}

fn checked_count<'a, 'b>(entries: Option<&'a [PutEntry<'b>]>) -> Result<&'a [PutEntry<'b>], KinesisError> {
    let mut violations = Violations::default();
    violations.required("records", entries.as_ref());
    let count = entries.map_or(1, <[_]>::len);
    violations.size("records", count, 1..=MAX_ENTRIES, || format!("[{count} records]"));
    violations.finish()?;
    Ok(entries.unwrap_or_default())
}

fn check<'a>(
    entry: &'a PutEntry<'_>,
    max_record_bytes: usize,
    keyed: bool,
    member: impl Fn(&str) -> String,
) -> Result<Checked<'a>, KinesisError> {
    if let (false, None, Some(Text(data))) = (keyed, &entry.partition_key, &entry.data) {
        // Checked with a key of one byte, which is not stored.
        let size_bytes = checked_size("-", data, max_record_bytes, member)? - 1;
        return Ok(Checked { partition_key: "", data, hash_key: None, size_bytes });
    }
    let (Some(Text(partition_key)), Some(Text(data))) = (&entry.partition_key, &entry.data) else {
        let mut violations = Violations::default();
        if keyed {
            violations.required(&member("partitionKey"), entry.partition_key.as_ref());
        }
        violations.required(&member("data"), entry.data.as_ref());
        return Err(finish_or_internal(violations));
    };
    let size_bytes = checked_size(partition_key, data, max_record_bytes, member)?;
    let hash_key = match &entry.explicit_hash_key {
        _ if !keyed => None,
        Some(text) => Some(parse_hash_key(text).ok_or_else(|| bad_hash_key(text))?),
        None => Some(hash_of_partition_key(partition_key)),
    };
    Ok(Checked { partition_key, data, hash_key, size_bytes })
}

/// Bytes of key and data, if both are within bounds, by themselves and together.
fn checked_size(
    partition_key: &str,
    data: &str,
    max_record_bytes: usize,
    member: impl Fn(&str) -> String,
) -> Result<usize, KinesisError> {
    let Some(data_bytes) = base64_text::decoded_len(data) else {
        let message = format!("{} is not valid base64", member("data"));
        return Err(KinesisError::new(ErrorKind::Serialization, message));
    };
    let key_fits_without_counting = (1..=*PARTITION_KEY_CHARS.end()).contains(&partition_key.len());
    if data_bytes > max_record_bytes || !key_fits_without_counting {
        let shown = || "java.nio.HeapByteBuffer".to_owned(); // as the service shows data
        let mut violations = Violations::default();
        violations.size(&member("data"), data_bytes, 0..=max_record_bytes, shown);
        violations.length(&member("partitionKey"), Some(partition_key), PARTITION_KEY_CHARS);
        violations.finish()?;
    }
    let size_bytes = data_bytes + partition_key.len();
    if size_bytes > max_record_bytes {
        return Err(KinesisError::invalid(format!(
            "{}: data and partition key together have {size_bytes} bytes, which exceeds the stream's maximum record \
             size of {max_record_bytes} bytes",
            member("data")
        )));
    }
    Ok(size_bytes)
}

fn finish_or_internal(violations: Violations) -> KinesisError {
    let nothing_found = || KinesisError::new(ErrorKind::InternalFailure, "a member is missing");
    violations.finish().err().unwrap_or_else(nothing_found)
}

fn bad_hash_key(text: &dyn Display) -> KinesisError {
    KinesisError::invalid(format!(
        "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
    ))
}
