//! The lineage of a stream's shards as one listing told it, and which hash keys nobody's row covers (pure).

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_checkpoint::{HashKeyRange, ShardId};

use crate::model::Lease;
use crate::shard_sync::Shard;

/// The shards of one complete listing. A parent that the listing does not name is not part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardGraph {
    shards: BTreeMap<ShardId, Shard>,
    children: BTreeMap<ShardId, BTreeSet<ShardId>>,
}

impl ShardGraph {
    /// The lineage of these shards.
    pub fn new(shards: impl IntoIterator<Item = Shard>) -> Self {
        let shards: BTreeMap<ShardId, Shard> =
            shards.into_iter().map(|shard| (shard.id.clone(), shard)).collect();
        let mut children: BTreeMap<ShardId, BTreeSet<ShardId>> = BTreeMap::new();
        for shard in shards.values() {
            for parent in shard.parents.iter().filter(|parent| shards.contains_key(parent)) {
                children.entry(parent.clone()).or_default().insert(shard.id.clone());
            }
        }
        Self { shards, children }
    }

    /// How many it names.
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Whether the listing names it.
    pub fn contains(&self, id: &ShardId) -> bool {
        self.shards.contains_key(id)
    }

    /// What the listing says of it.
    pub fn get(&self, id: &ShardId) -> Option<&Shard> {
        self.shards.get(id)
    }

    /// All of them, in the order of their ids.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    /// Its parents, as far as the listing names them.
    pub fn parents(&self, id: &ShardId) -> impl Iterator<Item = &ShardId> {
        let parents = self.shards.get(id).into_iter().flat_map(|shard| &shard.parents);
        parents.filter(|parent| self.contains(parent))
    }

    /// Its children.
    pub fn children(&self, id: &ShardId) -> impl Iterator<Item = &ShardId> {
        self.children.get(id).into_iter().flatten()
    }

    /// Its parents, their parents, and so on.
    pub fn ancestors(&self, id: &ShardId) -> BTreeSet<ShardId> {
        reachable(id, |id| self.parents(id).cloned().collect())
    }

    /// Its children, their children, and so on.
    pub fn descendants(&self, id: &ShardId) -> BTreeSet<ShardId> {
        reachable(id, |id| self.children(id).cloned().collect())
    }
}

fn reachable(from: &ShardId, next: impl Fn(&ShardId) -> Vec<ShardId>) -> BTreeSet<ShardId> {
    let mut found = BTreeSet::new();
    let mut open = next(from);
    while let Some(id) = open.pop() {
        if !found.contains(&id) {
            open.extend(next(&id));
            found.insert(id);
        }
    }
    found
}

/// The hash keys that no unfinished row covers (law S2), in order. A finished row's are its children's to cover:
/// their rows are made before it is finished.
///
/// A row without a hash key range, which an old KCL left, has that of the listing. Where neither says one, nothing
/// can be told, and there is no hole.
pub fn holes<'a>(rows: impl IntoIterator<Item = &'a Lease>, listed: &ShardGraph) -> Vec<HashKeyRange> {
    let mut covered = Vec::new();
    for row in rows.into_iter().filter(|row| !row.is_finished()) {
        match row.hash_range.or_else(|| listed.get(&row.key).map(|shard| shard.hash_range)) {
            Some(range) => covered.push(range),
            None => return Vec::new(),
        }
    }
    covered.sort_by_key(|range| range.start);
    let mut holes = Vec::new();
    // The lowest hash key that is not known to be covered; none if all are.
    let mut next = Some(0);
    for range in covered {
        let Some(from) = next else { break };
        if range.start > from {
            holes.push(HashKeyRange { start: from, end: range.start - 1 });
        }
        next = range.end.checked_add(1).map(|behind| behind.max(from));
    }
    holes.extend(next.map(|start| HashKeyRange { start, end: u128::MAX }));
    holes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sluicegate_checkpoint::{LeaseState, Position};

    fn id(n: u32) -> ShardId {
        ShardId::new(format!("shardId-{n:012}"))
    }

    fn shard(n: u32, parents: &[u32]) -> Shard {
        Shard {
            id: id(n),
            parents: parents.iter().map(|n| id(*n)).collect(),
            hash_range: HashKeyRange::ALL,
            closed: false,
        }
    }

    fn row(n: u32, range: Option<(u128, u128)>) -> Lease {
        let hash_range = range.map(|(start, end)| HashKeyRange { start, end });
        Lease { hash_range, ..Lease::unowned(id(n), Position::TrimHorizon, LeaseState::starting(None)) }
    }

    fn ids(of: &[u32]) -> BTreeSet<ShardId> {
        of.iter().map(|n| id(*n)).collect()
    }

    #[test]
    fn lineage_goes_over_splits_and_merges_and_ends_where_the_listing_ends() {
        // 9 has expired; 0 came from it, 1 and 2 are its halves, 3 merges them, 4 is alone.
        let graph = ShardGraph::new([
            shard(0, &[9]),
            shard(1, &[0]),
            shard(2, &[0]),
            shard(3, &[1, 2]),
            shard(4, &[]),
        ]);
        assert_eq!(graph.ancestors(&id(3)), ids(&[0, 1, 2]));
        assert_eq!(graph.descendants(&id(0)), ids(&[1, 2, 3]));
        assert_eq!(graph.parents(&id(0)).count(), 0);
        assert!(graph.descendants(&id(9)).is_empty() && graph.ancestors(&id(4)).is_empty());
    }

    #[test]
    fn unfinished_rows_must_cover_all_hash_keys() {
        let half = u128::MAX / 2;
        let (left, right) = (row(0, Some((0, half))), row(1, Some((half + 1, u128::MAX))));
        let graph = ShardGraph::default();
        assert_eq!(holes([&left, &right], &graph), []);
        assert_eq!(holes([&right], &graph), [HashKeyRange { start: 0, end: half }]);
        assert_eq!(holes([&left], &graph), [HashKeyRange { start: half + 1, end: u128::MAX }]);
        assert_eq!(holes([], &graph), [HashKeyRange::ALL]);
        let finished = Lease { checkpoint: Position::ShardEnd, ..left };
        assert_eq!(holes([&finished, &right], &graph).len(), 1, "its children are missing");
    }

    #[test]
    fn a_row_without_a_range_has_that_of_the_listing_or_nothing_can_be_told() {
        let old = row(0, None);
        assert_eq!(holes([&old], &ShardGraph::new([shard(0, &[])])), []);
        assert_eq!(holes([&old], &ShardGraph::default()), []);
    }

    proptest! {
        /// Against a naive model on few hash keys: exactly the keys between 0 and the highest that nobody covers.
        #[test]
        fn holes_are_exactly_what_is_not_covered(ranges in proptest::collection::vec((0u128..20, 0u128..8), 0..6)) {
            let mut rows: Vec<Lease> = (0u32..).zip(&ranges)
                .map(|(n, (start, length))| row(n, Some((*start, start + length))))
                .collect();
            rows.push(row(99, Some((27, u128::MAX))));
            let found = holes(&rows, &ShardGraph::default());
            for key in 0..30u128 {
                let covered = rows.iter().filter_map(|row| row.hash_range)
                    .any(|range| range.start <= key && key <= range.end);
                let hole = found.iter().any(|hole| hole.start <= key && key <= hole.end);
                prop_assert_eq!(covered, !hole, "{}", key);
            }
        }
    }
}
