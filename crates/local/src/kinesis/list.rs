//! ListShards: filters and pages; and how a shard is described.

use serde::Serialize;

use super::Kinesis;
use super::error::{ErrorKind, KinesisError};
use super::hash::HashKeyRange;
use super::json;
use super::request::{self, ListShards};
use super::sequence::ShardNumber;
use super::shard::{Parents, Shard};
use super::stream::Stream;
use super::token::ListToken;
use super::validate::Violations;
use crate::time::Moment;

/// Shards of one page, and the default; a larger MaxResults counts as this (AWS Kinesis API reference, ListShards).
const MAX_PAGE: usize = 1_000;
/// Largest MaxResults taken (the same page).
const MAX_RESULTS: i64 = 10_000;
const FILTER_TYPES: [&str; 6] =
    ["AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP", "FROM_TIMESTAMP"];

/// A shard, as ListShards and DescribeStream tell it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShardAnswer {
    shard_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_shard_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjacent_parent_shard_id: Option<String>,
    hash_key_range: HashKeyRangeAnswer,
    sequence_number_range: SequenceNumberRange,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HashKeyRangeAnswer {
    starting_hash_key: String,
    ending_hash_key: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRange {
    starting_sequence_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending_sequence_number: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListShardsAnswer {
    shards: Vec<ShardAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl From<HashKeyRange> for HashKeyRangeAnswer {
    fn from(range: HashKeyRange) -> Self {
        Self { starting_hash_key: range.first.to_string(), ending_hash_key: range.last.to_string() }
    }
}

impl ShardAnswer {
    pub(super) fn of(shard: &Shard) -> Self {
        let (parent, adjacent) = match shard.parents {
            Parents::None => (None, None),
            Parents::One(parent) => (Some(parent), None),
            Parents::Two { parent, adjacent } => (Some(parent), Some(adjacent)),
        };
        let ending = shard.closed().map(|closed| shard.sequence_number(closed.end_index).to_string());
        Self {
            shard_id: shard.number.to_string(),
            parent_shard_id: parent.map(|number| number.to_string()),
            adjacent_parent_shard_id: adjacent.map(|number| number.to_string()),
            hash_key_range: shard.range.into(),
            sequence_number_range: SequenceNumberRange {
                starting_sequence_number: shard.sequence_number(0).to_string(),
                ending_sequence_number: ending,
            },
        }
    }
}

/// Which shards are asked for. Shards that retention has overtaken are never listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShardFilter {
    /// Everything that is left: FROM_TRIM_HORIZON, AFTER_SHARD_ID (which is a place to start from), no filter.
    All,
    /// Open now.
    AtLatest,
    /// Open at the trim horizon: the beginning of retention, or of the stream if that is later.
    AtTrimHorizon,
    /// Open at this time.
    AtTime(u64),
    /// Open at this time or later.
    FromTime(u64),
}

impl ShardFilter {
    fn lets_through(self, shard: &Shard, trim_horizon_ms: u64) -> bool {
        let open_at = |ms: u64| shard.created_ms <= ms && open_from(shard, ms);
        match self {
            Self::All => true,
            Self::AtLatest => shard.closed().is_none(),
            Self::AtTrimHorizon => open_at(trim_horizon_ms),
            Self::AtTime(ms) => open_at(ms.max(trim_horizon_ms)),
            Self::FromTime(ms) => open_from(shard, ms),
        }
    }

    /// As numbers, for a token.
    fn encode(self) -> (u64, u64) {
        match self {
            Self::All => (0, 0),
            Self::AtLatest => (1, 0),
            Self::AtTrimHorizon => (2, 0),
            Self::AtTime(ms) => (3, ms),
            Self::FromTime(ms) => (4, ms),
        }
    }

    fn decode(code: (u64, u64)) -> Option<Self> {
        match code {
            (0, _) => Some(Self::All),
            (1, _) => Some(Self::AtLatest),
            (2, _) => Some(Self::AtTrimHorizon),
            (3, ms) => Some(Self::AtTime(ms)),
            (4, ms) => Some(Self::FromTime(ms)),
            _ => None,
        }
    }
}

/// Closed at `ms` at the earliest, or never.
fn open_from(shard: &Shard, ms: u64) -> bool {
    shard.closed().is_none_or(|closed| closed.at_ms >= ms)
}

/// One page asked for.
struct Query {
    after: Option<ShardNumber>,
    filter: ShardFilter,
    page: usize,
}

impl Kinesis {
    pub(super) fn list_shards(&self, request: &ListShards) -> Result<String, KinesisError> {
        check(request)?;
        let now_ms = self.now_ms();
        let page =
            request.max_results.and_then(|max| usize::try_from(max).ok()).unwrap_or(MAX_PAGE).min(MAX_PAGE);
        if let Some(text) = &request.next_token {
            let token = self.live_token(text, now_ms)?;
            let stream = self.stream_of_token(&token.stream)?;
            let filter = ShardFilter::decode(token.filter).ok_or_else(invalid_token)?;
            return answer(&stream, &Query { after: Some(token.after), filter, page }, now_ms);
        }
        let stream = self.stream(&request.stream)?;
        let created = request.stream_creation_timestamp.map(|time| Moment::from_epoch_seconds(time).ms());
        if created.is_some_and(|created_ms| created_ms != stream.identity.created_ms) {
            return Err(self.stream_not_found(stream.name()));
        }
        let (filter, after) = wanted(request)?;
        answer(&stream, &Query { after, filter, page }, now_ms)
    }

    fn live_token(&self, text: &str, now_ms: u64) -> Result<ListToken, KinesisError> {
        let token = ListToken::decode(text).ok_or_else(invalid_token)?;
        if now_ms.saturating_sub(token.issued_ms) > self.token_lifetime_ms() {
            let message = "The NextToken has expired. List the shards again from the beginning.";
            return Err(KinesisError::new(ErrorKind::ExpiredNextToken, message));
        }
        Ok(token)
    }
}

fn invalid_token() -> KinesisError {
    KinesisError::invalid("Invalid NextToken.")
}

fn answer(stream: &Stream, query: &Query, now_ms: u64) -> Result<String, KinesisError> {
    stream.forget_gone(now_ms);
    let state = stream.state();
    let trim_horizon_ms = state.horizon(now_ms).oldest_ms.max(stream.identity.created_ms);
    let mut matching = state
        .shards_after(query.after, now_ms)
        .filter(|shard| query.filter.lets_through(shard, trim_horizon_ms))
        .peekable();
    let listed: Vec<_> = matching.by_ref().take(query.page).collect();
    let last = listed.last().filter(|_| matching.peek().is_some());
    let next_token = last.map(|last| {
        let (stream, filter) = (stream.identity.clone(), query.filter.encode());
        ListToken { stream, after: last.number, issued_ms: now_ms, filter }.encode()
    });
    let shards = listed.iter().map(|shard| ShardAnswer::of(shard)).collect();
    json::encode(&ListShardsAnswer { shards, next_token })
}

fn check(request: &ListShards) -> Result<(), KinesisError> {
    let mut violations = Violations::default();
    violations.range("maxResults", request.max_results, 1..=MAX_RESULTS);
    if let Some(filter) = &request.shard_filter {
        violations.required("shardFilter.type", filter.kind.as_ref());
        violations.one_of("shardFilter.type", filter.kind.as_deref(), &FILTER_TYPES);
    }
    violations.finish()?;
    if request.next_token.is_none() {
        return Ok(());
    }
    for (given, member) in [
        (request.stream.stream_name.is_some(), "StreamName"),
        (request.stream_creation_timestamp.is_some(), "StreamCreationTimestamp"),
        (request.exclusive_start_shard_id.is_some(), "ExclusiveStartShardId"),
    ] {
        if given {
            return Err(KinesisError::invalid(format!(
                "NextToken and {member} cannot be provided together."
            )));
        }
    }
    Ok(())
}

/// The filter and the shard to start behind.
fn wanted(request: &ListShards) -> Result<(ShardFilter, Option<ShardNumber>), KinesisError> {
    let exclusive_start = request.exclusive_start_shard_id.as_deref();
    let after = exclusive_start.map(parse_shard_id).transpose()?;
    let Some(filter) = &request.shard_filter else { return Ok((ShardFilter::All, after)) };
    if after.is_some() {
        return Err(KinesisError::invalid(
            "ShardFilter and ExclusiveStartShardId cannot be provided together.",
        ));
    }
    match filter.kind.as_deref() {
        Some("AT_LATEST") => Ok((ShardFilter::AtLatest, None)),
        Some("AT_TRIM_HORIZON") => Ok((ShardFilter::AtTrimHorizon, None)),
        Some("AT_TIMESTAMP") => Ok((ShardFilter::AtTime(time_of(filter)?), None)),
        Some("FROM_TIMESTAMP") => Ok((ShardFilter::FromTime(time_of(filter)?), None)),
        Some("AFTER_SHARD_ID") => {
            let missing = || KinesisError::invalid("ShardFilter of type AFTER_SHARD_ID needs a ShardId.");
            let id = filter.shard_id.as_deref().ok_or_else(missing)?;
            Ok((ShardFilter::All, Some(parse_shard_id(id)?)))
        }
        _ => Ok((ShardFilter::All, None)),
    }
}

fn time_of(filter: &request::ShardFilter) -> Result<u64, KinesisError> {
    let missing = || {
        let kind = filter.kind.as_deref().unwrap_or_default();
        KinesisError::invalid(format!("ShardFilter of type {kind} needs a Timestamp."))
    };
    filter.timestamp.map(|time| Moment::from_epoch_seconds(time).ms()).ok_or_else(missing)
}

/// The shard need not exist any more: listing goes on behind where it was.
pub(super) fn parse_shard_id(id: &str) -> Result<ShardNumber, KinesisError> {
    ShardNumber::parse(id).ok_or_else(|| KinesisError::invalid(format!("Invalid shard id: {id}")))
}
