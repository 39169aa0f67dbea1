//! Streams: create, describe, list, delete; retention and record size.

use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;

use super::Kinesis;
use super::error::{ErrorKind, KinesisError};
use super::json;
use super::list::{ShardAnswer, parse_shard_id};
use super::request::{
    CreateStream, DescribeStream, ListStreams, RetentionPeriod, StreamRef, UpdateDistribution,
    UpdateMaxRecordSize,
};
use super::stream::{Distribution, Stream, StreamMode};
use super::token::StreamIdentity;
use super::validate::Violations;
use crate::time::Moment;

/// Open shards of a stream (AWS Kinesis developer guide, quotas: 20,000 shards per account in the largest regions).
pub(super) const MAX_SHARDS: usize = 20_000;
/// Shards of a new stream that names no number: on-demand streams begin with 4 (the same guide, on-demand mode), provisioned
/// ones have no default at AWS; one is the least.
const DEFAULT_SHARDS_ON_DEMAND: u32 = 4;
const DEFAULT_SHARDS_PROVISIONED: u32 = 1;
/// `MaxRecordSizeInKiB`: 1 MiB by default, up to 10 MiB (AWS Kinesis API reference, CreateStream).
const RECORD_KIB: std::ops::RangeInclusive<i64> = 1_024..=10_240;
/// Retention in hours (AWS Kinesis API reference, IncreaseStreamRetentionPeriod: 24 to 8,760, which is 365 days).
const MIN_RETENTION_HOURS: i64 = 24;
const MAX_RETENTION_HOURS: i64 = 8_760;
/// Streams of one ListStreams, and the default (AWS Kinesis API reference, ListStreams).
const DEFAULT_STREAMS: usize = 100;
/// Shards of one DescribeStream, and the default (AWS Kinesis API reference, DescribeStream).
const DEFAULT_SHARDS_DESCRIBED: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamModeAnswer {
    stream_mode: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MonitoringAnswer {
    shard_level_metrics: [&'static str; 0],
}

/// What all descriptions of a stream share.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeAnswer,
    stream_creation_timestamp: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Details {
    #[serde(flatten)]
    summary: Summary,
    retention_period_hours: u32,
    enhanced_monitoring: [MonitoringAnswer; 1],
    encryption_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescriptionSummary {
    #[serde(flatten)]
    details: Details,
    open_shard_count: usize,
    consumer_count: u32,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size_in_kib: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_distribution_strategy: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescriptionSummaryAnswer {
    stream_description_summary: DescriptionSummary,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    #[serde(flatten)]
    details: Details,
    shards: Vec<ShardAnswer>,
    has_more_shards: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescriptionAnswer {
    stream_description: Description,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListStreamsAnswer {
    stream_names: Vec<String>,
    has_more_streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    stream_summaries: Vec<Summary>,
}

impl Summary {
    fn of(stream: &Stream) -> Self {
        Self {
            stream_name: stream.name().to_owned(),
            stream_arn: stream.arn.clone(),
            stream_status: stream.status(),
            stream_mode_details: StreamModeAnswer { stream_mode: stream.mode.name() },
            stream_creation_timestamp: Moment::from_ms(stream.identity.created_ms).epoch_seconds(),
        }
    }
}

impl Details {
    fn of(stream: &Stream) -> Self {
        Self {
            summary: Summary::of(stream),
            retention_period_hours: stream.state().retention_hours,
            enhanced_monitoring: [MonitoringAnswer { shard_level_metrics: [] }],
            encryption_type: "NONE",
        }
    }
}

impl Kinesis {
    pub(super) fn create_stream(&self, request: &CreateStream) -> Result<String, KinesisError> {
        let mode = request.stream_mode_details.as_ref().and_then(|details| details.stream_mode.as_deref());
        let mut violations = Violations::default();
        violations.required("streamName", request.stream_name.as_ref());
        violations.stream_name(request.stream_name.as_deref());
        violations.range("shardCount", request.shard_count, 1..=i64::from(u32::MAX));
        violations.one_of("streamModeDetails.streamMode", mode, &["PROVISIONED", "ON_DEMAND"]);
        violations.range("maxRecordSizeInKiB", request.max_record_size_in_kib, RECORD_KIB);
        let distribution = request.record_distribution_strategy.as_deref();
        violations.one_of("recordDistributionStrategy", distribution, &Distribution::NAMES);
        violations.finish()?;
        let (mode, default_shards) = match mode {
            Some("ON_DEMAND") => (StreamMode::OnDemand, DEFAULT_SHARDS_ON_DEMAND),
            _ => (StreamMode::Provisioned, DEFAULT_SHARDS_PROVISIONED),
        };
        let distribution = Distribution::of(distribution);
        check_distribution(mode, distribution)?;
        let shard_count = request.shard_count.and_then(|count| u32::try_from(count).ok());
        let shard_count = shard_count.unwrap_or(default_shards);
        self.check_shard_limit(shard_count as usize)?;

        let name = request.stream_name.clone().unwrap_or_default();
        let mut streams = self.streams_mut();
        if streams.contains_key(&name) {
            let message = format!("Stream {name} under account {} already exists.", self.account());
            return Err(KinesisError::new(ErrorKind::ResourceInUse, message));
        }
        let identity = StreamIdentity {
            name: name.clone(),
            created_ms: self.now_ms(),
            incarnation: self.next_incarnation(),
        };
        let max_record_bytes = record_bytes(request.max_record_size_in_kib);
        let stream = Stream::new(identity, self.arn(&name), mode, shard_count, max_record_bytes);
        stream.state_mut().distribution = distribution;
        streams.insert(name, Arc::new(stream));
        Ok(String::new())
    }

    pub(super) fn delete_stream(&self, request: &StreamRef) -> Result<String, KinesisError> {
        let stream = self.stream(request)?;
        self.streams_mut().remove(stream.name());
        Ok(String::new())
    }

    pub(super) fn describe_stream_summary(&self, request: &StreamRef) -> Result<String, KinesisError> {
        let stream = self.stream(request)?;
        let details = Details::of(&stream);
        let state = stream.state();
        json::encode(&DescriptionSummaryAnswer {
            stream_description_summary: DescriptionSummary {
                details,
                open_shard_count: state.open_count(),
                consumer_count: 0,
                max_record_size_in_kib: state.max_record_bytes >> 10,
                // Told of streams whose capacity is on demand alone, as at AWS.
                record_distribution_strategy: (stream.mode == StreamMode::OnDemand)
                    .then(|| state.distribution.name()),
            },
        })
    }

    pub(super) fn describe_stream(&self, request: &DescribeStream) -> Result<String, KinesisError> {
        let mut violations = Violations::default();
        violations.range("limit", request.limit, 1..=10_000);
        violations.finish()?;
        let after = request.exclusive_start_shard_id.as_deref().map(parse_shard_id).transpose()?;
        let stream = self.stream(&request.stream)?;
        let details = Details::of(&stream);
        let state = stream.state();
        let mut shards = state.shards_after(after, self.now_ms()).map(|shard| ShardAnswer::of(shard));
        let listed: Vec<_> =
            shards.by_ref().take(page_size(request.limit, DEFAULT_SHARDS_DESCRIBED)).collect();
        let has_more_shards = shards.next().is_some();
        let stream_description = Description { details, shards: listed, has_more_shards };
        json::encode(&DescriptionAnswer { stream_description })
    }

    pub(super) fn list_streams(&self, request: &ListStreams) -> Result<String, KinesisError> {
        let mut violations = Violations::default();
        violations.range("limit", request.limit, 1..=10_000);
        violations.finish()?;
        let after = request.next_token.as_ref().or(request.exclusive_start_stream_name.as_ref());
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let streams = self.streams();
        let mut behind = streams.range((from, Bound::Unbounded)).map(|(_, stream)| stream);
        let listed: Vec<_> = behind.by_ref().take(page_size(request.limit, DEFAULT_STREAMS)).collect();
        let has_more_streams = behind.next().is_some();
        let stream_names: Vec<_> = listed.iter().map(|stream| stream.name().to_owned()).collect();
        let next_token = stream_names.last().filter(|_| has_more_streams).cloned();
        let stream_summaries = listed.iter().map(|stream| Summary::of(stream)).collect();
        json::encode(&ListStreamsAnswer { stream_names, has_more_streams, next_token, stream_summaries })
    }

    pub(super) fn increase_retention(&self, request: &RetentionPeriod) -> Result<String, KinesisError> {
        self.change_retention(request, |stream, current, hours| {
            (hours < current).then(|| {
                format!(
                    "Requested retention period ({hours} hours) for stream {stream} can not be shorter than existing \
                     retention period ({current} hours). Use DecreaseRetentionPeriod API."
                )
            })
        })
    }

    pub(super) fn decrease_retention(&self, request: &RetentionPeriod) -> Result<String, KinesisError> {
        self.change_retention(request, |stream, current, hours| {
            (hours > current).then(|| {
                format!(
                    "Requested retention period ({hours} hours) for stream {stream} can not be longer than existing \
                     retention period ({current} hours). Use IncreaseRetentionPeriod API."
                )
            })
        })
    }

    /// `objection` gets the stream's name, its retention, and the one asked for.
    fn change_retention(
        &self,
        request: &RetentionPeriod,
        objection: impl FnOnce(&str, u32, u32) -> Option<String>,
    ) -> Result<String, KinesisError> {
        let mut violations = Violations::default();
        violations.required("retentionPeriodHours", request.retention_period_hours.as_ref());
        violations.finish()?;
        let hours = retention_hours(request.retention_period_hours.unwrap_or_default())?;
        let stream = self.stream(&request.stream)?;
        let mut state = stream.state_mut();
        if let Some(message) = objection(stream.name(), state.retention_hours, hours) {
            return Err(KinesisError::invalid(message));
        }
        state.set_retention(hours, self.now_ms());
        Ok(String::new())
    }

    pub(super) fn update_distribution(&self, request: &UpdateDistribution) -> Result<String, KinesisError> {
        let given = request.record_distribution_strategy.as_ref();
        let mut violations = Violations::default();
        violations.required("recordDistributionStrategy", given);
        violations.one_of("recordDistributionStrategy", given.map(String::as_str), &Distribution::NAMES);
        violations.finish()?;
        let stream = self.stream(&request.stream)?;
        let distribution = Distribution::of(given.map(String::as_str));
        check_distribution(stream.mode, distribution)?;
        stream.state_mut().distribution = distribution;
        Ok(String::new())
    }

    pub(super) fn update_max_record_size(
        &self,
        request: &UpdateMaxRecordSize,
    ) -> Result<String, KinesisError> {
        let mut violations = Violations::default();
        violations.required("maxRecordSizeInKiB", request.max_record_size_in_kib.as_ref());
        violations.range("maxRecordSizeInKiB", request.max_record_size_in_kib, RECORD_KIB);
        violations.finish()?;
        let stream = self.stream(&request.stream)?;
        stream.state_mut().max_record_bytes = record_bytes(request.max_record_size_in_kib);
        Ok(String::new())
    }
}

/// Only a stream whose capacity is on demand can leave distribution to the service.
fn check_distribution(mode: StreamMode, distribution: Distribution) -> Result<(), KinesisError> {
    if mode == StreamMode::Provisioned && distribution == Distribution::Auto {
        return Err(KinesisError::invalid(
            "RecordDistributionStrategy AUTO is only supported for streams in the ON_DEMAND mode.",
        ));
    }
    Ok(())
}

fn page_size(limit: Option<i64>, default: usize) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default)
}

fn record_bytes(kib: Option<i64>) -> usize {
    usize::try_from(kib.unwrap_or(*RECORD_KIB.start())).unwrap_or_default() << 10
}

fn retention_hours(hours: i64) -> Result<u32, KinesisError> {
    if hours < MIN_RETENTION_HOURS {
        return Err(KinesisError::invalid(format!(
            "Minimum allowed retention period is {MIN_RETENTION_HOURS} hours. Requested retention period ({hours} \
             hours) is too short."
        )));
    }
    u32::try_from(hours).ok().filter(|_| hours <= MAX_RETENTION_HOURS).ok_or_else(|| {
        KinesisError::invalid(format!(
            "Maximum allowed retention period is {MAX_RETENTION_HOURS} hours. Requested retention period ({hours} \
             hours) is too long."
        ))
    })
}
