//! SplitShard, MergeShards, UpdateShardCount: checks; the planning is in [`super::reshard`], the doing in [`super::stream`].

use std::sync::Arc;

use serde::Serialize;

use super::Kinesis;
use super::error::{ErrorKind, KinesisError};
use super::hash::parse_hash_key;
use super::json;
use super::manage::MAX_SHARDS;
use super::request::{MergeShards, SplitShard, UpdateShardCount};
use super::reshard::Step;
use super::sequence::ShardNumber;
use super::shard::Shard;
use super::stream::{Stream, StreamMode, StreamState};
use super::validate::Violations;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateShardCountAnswer<'a> {
    stream_name: &'a str,
    #[serde(rename = "StreamARN")]
    stream_arn: &'a str,
    current_shard_count: usize,
    target_shard_count: u32,
}

impl Kinesis {
    pub(super) fn split_shard(&self, request: &SplitShard) -> Result<String, KinesisError> {
        let mut violations = Violations::default();
        violations.shard_id("shardToSplit", request.shard_to_split.as_ref());
        let hash_key = request.new_starting_hash_key.as_deref();
        violations.required("newStartingHashKey", hash_key.as_ref());
        violations.pattern("newStartingHashKey", hash_key, r"0|([1-9]\d{0,38})", |text| {
            parse_hash_key(text).is_some()
        });
        violations.finish()?;
        let at = hash_key.and_then(parse_hash_key).unwrap_or_default();
        let now_ms = self.now_ms();
        let stream = self.stream(&request.stream)?;
        let mut state = stream.state_mut();
        let parent = self.open_shard(&stream, &state, request.shard_to_split.as_deref(), now_ms)?;
        let range = parent.range;
        if at <= range.first.saturating_add(1) || at >= range.last {
            return Err(KinesisError::invalid(format!(
                "NewStartingHashKey {at} used in SplitShard() on shard {} in stream {} under account {} is not both \
                 greater than one plus the shard's StartingHashKey {} and less than the shard's EndingHashKey {}.",
                parent.number,
                stream.name(),
                self.account(),
                range.first,
                range.last - 1
            )));
        }
        self.check_shard_limit(state.open_count() + 1)?;
        state.apply(&[Step::Split { parent: parent.number, at }], now_ms);
        Ok(String::new())
    }

    pub(super) fn merge_shards(&self, request: &MergeShards) -> Result<String, KinesisError> {
        let mut violations = Violations::default();
        violations.shard_id("shardToMerge", request.shard_to_merge.as_ref());
        violations.shard_id("adjacentShardToMerge", request.adjacent_shard_to_merge.as_ref());
        violations.finish()?;
        let now_ms = self.now_ms();
        let stream = self.stream(&request.stream)?;
        let mut state = stream.state_mut();
        let parent = self.open_shard(&stream, &state, request.shard_to_merge.as_deref(), now_ms)?;
        let adjacent =
            self.open_shard(&stream, &state, request.adjacent_shard_to_merge.as_deref(), now_ms)?;
        if parent.range.join(adjacent.range).is_none() {
            return Err(KinesisError::invalid(format!(
                "Shards {} and {} in stream {} under account {} are not an adjacent pair of shards eligible for merging",
                parent.number,
                adjacent.number,
                stream.name(),
                self.account()
            )));
        }
        state.apply(&[Step::Merge { parent: parent.number, adjacent: adjacent.number }], now_ms);
        Ok(String::new())
    }

    pub(super) fn update_shard_count(&self, request: &UpdateShardCount) -> Result<String, KinesisError> {
        let mut violations = Violations::default();
        violations.required("targetShardCount", request.target_shard_count.as_ref());
        violations.range("targetShardCount", request.target_shard_count, 1..=i64::from(u32::MAX));
        violations.required("scalingType", request.scaling_type.as_ref());
        violations.one_of("scalingType", request.scaling_type.as_deref(), &["UNIFORM_SCALING"]);
        violations.finish()?;
        let target = request.target_shard_count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
        let stream = self.stream(&request.stream)?;
        if stream.mode == StreamMode::OnDemand {
            let message = "UpdateShardCount is not supported for streams in on-demand mode.";
            return Err(KinesisError::new(ErrorKind::Validation, message));
        }
        let mut state = stream.state_mut();
        let current = state.open_count();
        self.check_target(current, target)?;
        let steps = state.open_shards().plan_uniform(target);
        state.apply(&steps, self.now_ms());
        json::encode(&UpdateShardCountAnswer {
            stream_name: stream.name(),
            stream_arn: &stream.arn,
            current_shard_count: current,
            target_shard_count: target,
        })
    }

    /// At most double, at least half, within the account's limit (AWS Kinesis API reference, UpdateShardCount).
    fn check_target(&self, current: usize, target: u32) -> Result<(), KinesisError> {
        let wanted = target as usize;
        let counts = format!("Current open shard count: {current} Target shard count: {target}");
        if wanted > current * 2 {
            let rule = "UpdateShardCount cannot scale up over double your current open shard count.";
            return Err(KinesisError::invalid(format!("{rule} {counts}")));
        }
        if wanted * 2 < current {
            let rule = "UpdateShardCount cannot scale down below half your current open shard count.";
            return Err(KinesisError::invalid(format!("{rule} {counts}")));
        }
        self.check_shard_limit(wanted)
    }

    /// A stream may have as many open shards as an account.
    pub(super) fn check_shard_limit(&self, open_shards: usize) -> Result<(), KinesisError> {
        if open_shards <= MAX_SHARDS {
            return Ok(());
        }
        let message = format!(
            "This request would exceed the shard limit for the account {} in {}. Requested open shard \
             count: {open_shards}. Limit: {MAX_SHARDS}.",
            self.account(),
            self.inner.config.region
        );
        Err(KinesisError::new(ErrorKind::LimitExceeded, message))
    }

    fn open_shard(
        &self,
        stream: &Stream,
        state: &StreamState,
        id: Option<&str>,
        now_ms: u64,
    ) -> Result<Arc<Shard>, KinesisError> {
        let (id, name, account) = (id.unwrap_or_default(), stream.name(), self.account());
        let not_found = || {
            KinesisError::not_found(format!(
                "Could not find shard {id} in stream {name} under account {account}."
            ))
        };
        let shard =
            ShardNumber::parse(id).and_then(|number| state.shard(number, now_ms)).ok_or_else(not_found)?;
        if shard.closed().is_some() {
            return Err(KinesisError::invalid(format!(
                "Shard {id} in stream {name} under account {account} has already been merged or split, and thus is \
                 not eligible for merging or splitting."
            )));
        }
        Ok(Arc::clone(shard))
    }
}
