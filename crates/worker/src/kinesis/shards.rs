//! Shards as Kinesis describes them -> shards as leases know them.

use std::collections::BTreeSet;

use aws_sdk_kinesis::types::{ChildShard, HashKeyRange as SdkRange, Shard as SdkShard};
use sluicegate_checkpoint::{HashKeyRange, ShardId};
use sluicegate_lease::Shard;

/// Reads one entry of ListShards; `None` if it lacks its hash key range.
pub(super) fn listed(shard: &SdkShard) -> Option<Shard> {
    let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
    let parents: BTreeSet<ShardId> = parents.into_iter().flatten().map(ShardId::new).collect();
    let closed = shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_some());
    let hash_range = range(shard.hash_key_range()?)?;
    Some(Shard { id: ShardId::new(shard.shard_id()), parents, hash_range, closed })
}

/// Reads a child that GetRecords names at a shard's end.
pub(super) fn child(shard: &ChildShard) -> Option<Shard> {
    let parents = shard.parent_shards().iter().map(|parent| ShardId::new(parent.as_str())).collect();
    let hash_range = range(shard.hash_key_range()?)?;
    Some(Shard { id: ShardId::new(shard.shard_id()), parents, hash_range, closed: false })
}

fn range(range: &SdkRange) -> Option<HashKeyRange> {
    let start = range.starting_hash_key().parse().ok()?;
    let end = range.ending_hash_key().parse().ok()?;
    Some(HashKeyRange { start, end })
}
