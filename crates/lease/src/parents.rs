//! Whether a child shard may be read (law S1): each parent's row by a strongly consistent read, just before.
//!
//! A scan is no snapshot, so what it showed of parents does not count. A parent without a row is done only if the
//! stream has forgotten it or a descendant of it has begun; otherwise its row is missing, and must be made first.

use sluicegate_checkpoint::{ArrivalMillis, ShardId};

use crate::model::Lease;
use crate::shard_graph::ShardGraph;
use crate::shard_sync::{covered_to, has_begun};
use crate::store::{LeaseStore, ReadError};

/// What stands between a child and its first read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing. What arrived before this time is its parents', and they are read.
    Clear {
        /// The earliest of the times that the parents' rows tell.
        covered_to: Option<ArrivalMillis>,
    },
    /// This parent is not finished.
    Waits(ShardId),
    /// This parent's row is missing, or the last listing is too old to tell.
    RowMissing(ShardId),
}

/// Looks at the parents of a row.
///
/// # Errors
/// A row was not read.
pub async fn standing(
    store: &dyn LeaseStore,
    row: &Lease,
    listed: &ShardGraph,
) -> Result<Standing, ReadError> {
    if has_begun(row) {
        return Ok(Standing::Clear { covered_to: None });
    }
    let mut covered = None;
    for parent in &row.parents {
        match store.lease(parent).await? {
            Some(parent) if parent.is_finished() => {
                covered = [covered, covered_to(&parent)].into_iter().flatten().min();
            }
            Some(_) => return Ok(Standing::Waits(parent.clone())),
            None if is_forgotten(&row.key, parent, listed) => {}
            None if any_begun(store, listed.descendants(parent)).await? => {}
            None => return Ok(Standing::RowMissing(parent.clone())),
        }
    }
    Ok(Standing::Clear { covered_to: covered })
}

/// Whether a listing shows that the stream has forgotten a parent: it names the child, so it is not older than the
/// parent.
fn is_forgotten(child: &ShardId, parent: &ShardId, listed: &ShardGraph) -> bool {
    listed.contains(child) && !listed.contains(parent)
}

/// Whether any of these shards has begun, by strongly consistent reads.
///
/// # Errors
/// A row was not read.
pub async fn any_begun(
    store: &dyn LeaseStore,
    shards: impl IntoIterator<Item = ShardId>,
) -> Result<bool, ReadError> {
    for shard in shards {
        if store.lease(&shard).await?.is_some_and(|row| has_begun(&row)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use sluicegate_checkpoint::{HashKeyRange, LeaseState, Position};

    use crate::memory::MemoryLeaseStore;
    use crate::shard_sync::Shard;

    fn id(n: u32) -> ShardId {
        ShardId::new(format!("shardId-{n:012}"))
    }

    fn ids(of: &[u32]) -> BTreeSet<ShardId> {
        of.iter().map(|n| id(*n)).collect()
    }

    /// Shard 1 and 2 came from 0; 3 merges 1 and 2.
    fn listed(of: &[u32]) -> ShardGraph {
        let parents: [&[u32]; 4] = [&[], &[0], &[0], &[1, 2]];
        let shard = |n: &u32| Shard {
            id: id(*n),
            parents: ids(parents[*n as usize]),
            hash_range: HashKeyRange::ALL,
            closed: false,
        };
        ShardGraph::new(of.iter().map(shard))
    }

    fn row(n: u32, parents: &[u32], checkpoint: Position) -> Lease {
        let state =
            LeaseState { caught_up: Some(ArrivalMillis(i64::from(n) * 10)), ..LeaseState::starting(None) };
        Lease { parents: ids(parents), ..Lease::unowned(id(n), checkpoint, state) }
    }

    async fn stands(rows: &[Lease], child: &Lease, listed: &ShardGraph) -> Standing {
        let store = MemoryLeaseStore::default();
        for row in rows {
            store.create(row).await.unwrap();
        }
        standing(&store, child, listed).await.unwrap()
    }

    #[tokio::test]
    async fn a_child_waits_for_both_parents_of_a_merge_and_takes_the_earlier_time() {
        let child = row(3, &[1, 2], Position::TrimHorizon);
        let (one, two) = (row(1, &[], Position::ShardEnd), row(2, &[], Position::TrimHorizon));
        let all = listed(&[0, 1, 2, 3]);
        assert_eq!(stands(&[one.clone(), two.clone()], &child, &all).await, Standing::Waits(id(2)));
        let two = Lease { checkpoint: Position::ShardEnd, ..two };
        let clear = Standing::Clear { covered_to: Some(ArrivalMillis(10)) };
        assert_eq!(stands(&[one, two], &child, &all).await, clear);
    }

    #[tokio::test]
    async fn a_parent_without_a_row_is_done_only_if_it_is_forgotten_or_a_child_of_it_has_begun() {
        let child = row(1, &[0], Position::TrimHorizon);
        let clear = Standing::Clear { covered_to: None };
        assert_eq!(stands(&[], &child, &listed(&[0, 1, 2])).await, Standing::RowMissing(id(0)));
        assert_eq!(stands(&[], &child, &listed(&[1, 2])).await, clear, "forgotten");
        assert_eq!(
            stands(&[], &child, &listed(&[])).await,
            Standing::RowMissing(id(0)),
            "a listing older than the child"
        );
        let sibling = row(2, &[0], Position::ShardEnd);
        assert_eq!(stands(&[sibling], &child, &listed(&[0, 1, 2])).await, clear, "its sibling has begun");
    }

    #[tokio::test]
    async fn a_child_that_has_begun_asks_nobody() {
        let child = row(1, &[0], Position::ShardEnd);
        let parent = row(0, &[], Position::TrimHorizon);
        let clear = Standing::Clear { covered_to: None };
        assert_eq!(stands(&[parent], &child, &listed(&[0, 1])).await, clear);
    }
}
