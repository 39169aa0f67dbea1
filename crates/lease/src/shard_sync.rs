//! Shard sync: shards listed -> lease rows to create, parents before children.
//!
//! The list is gathered *before* the lease rows, rows are created conditionally, each listing all its parents, and
//! no row is made for a shard that has a descendant that has begun: that one covers what its parent had.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_checkpoint::{HashKeyRange, LeaseState, Position, ShardId};

use crate::model::Lease;
use crate::registry::FixedStart;

/// A shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// Shards it came from: none, one (split) or two (merge).
    pub parents: BTreeSet<ShardId>,
    /// The hash keys it covers.
    pub hash_range: HashKeyRange,
    /// Whether it takes no more records.
    pub closed: bool,
}

/// The rows that are missing, in the order to create them.
///
/// A shard none of whose ancestors has begun starts where the application starts, as they will. A descendant of a
/// shard that has begun starts at its oldest record: its parent is read first, so nothing is skipped and nothing
/// read twice.
pub fn missing_rows(shards: &[Shard], rows: &[Lease], start: FixedStart) -> Vec<Lease> {
    let by_id: BTreeMap<&ShardId, &Shard> = shards.iter().map(|shard| (&shard.id, shard)).collect();
    let rows: BTreeMap<&ShardId, &Lease> = rows.iter().map(|row| (&row.key, row)).collect();
    let begun = ancestors_of_begun(&by_id, &rows);
    let mut missing: Vec<(usize, Lease)> = Vec::new();
    for shard in shards {
        if rows.contains_key(&shard.id) || begun.contains(&shard.id) {
            continue;
        }
        let ancestors = ancestors(&by_id, &shard.id);
        let covered = ancestors.iter().any(|ancestor| rows.get(ancestor).is_some_and(|row| has_begun(row)));
        missing.push((ancestors.len(), new_row(shard, &by_id, covered, start)));
    }
    missing.sort_by(|(depth_a, a), (depth_b, b)| depth_a.cmp(depth_b).then_with(|| a.key.cmp(&b.key)));
    missing.into_iter().map(|(_, row)| row).collect()
}

fn new_row(shard: &Shard, by_id: &BTreeMap<&ShardId, &Shard>, covered: bool, start: FixedStart) -> Lease {
    let position = if covered { Position::TrimHorizon } else { start.position() };
    let time = if covered { None } else { start.time() };
    Lease {
        parents: shard.parents.iter().filter(|parent| by_id.contains_key(parent)).cloned().collect(),
        hash_range: Some(shard.hash_range),
        ..Lease::unowned(shard.id.clone(), position, LeaseState::starting(time))
    }
}

/// All ancestors of shards whose rows have begun.
fn ancestors_of_begun(
    by_id: &BTreeMap<&ShardId, &Shard>,
    rows: &BTreeMap<&ShardId, &Lease>,
) -> BTreeSet<ShardId> {
    rows.values().filter(|row| has_begun(row)).flat_map(|row| ancestors(by_id, &row.key)).collect()
}

/// Whether anything of the shard was announced or finished.
pub fn has_begun(row: &Lease) -> bool {
    let announced = row.pending.state().is_none_or(|state| !state.cuts.is_empty());
    !row.checkpoint.is_start() || announced
}

fn ancestors(by_id: &BTreeMap<&ShardId, &Shard>, id: &ShardId) -> BTreeSet<ShardId> {
    let mut found = BTreeSet::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        for parent in by_id.get(id).iter().flat_map(|shard| &shard.parents) {
            if by_id.contains_key(parent) && found.insert(parent.clone()) {
                open.push(parent);
            }
        }
    }
    found
}

/// The rows of a finished shard's children: they begin at their oldest record, or, if the parent never began, where
/// the parent would have.
pub fn child_rows(parent: &Lease, children: &[Shard]) -> Vec<Lease> {
    let begun = !parent.checkpoint.is_start();
    let position = if begun { Position::TrimHorizon } else { parent.checkpoint.clone() };
    let state = parent.pending.state();
    let time = state.and_then(|state| state.start).filter(|_| !begun);
    let row = |child: &Shard| Lease {
        parents: child.parents.clone(),
        hash_range: Some(child.hash_range),
        ..Lease::unowned(child.id.clone(), position.clone(), LeaseState::starting(time))
    };
    children.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber, SubSequenceNumber};

    fn shard(n: u32, parents: &[u32]) -> Shard {
        let id = |n: u32| ShardId::new(format!("shardId-{n:012}"));
        Shard {
            id: id(n),
            parents: parents.iter().map(|n| id(*n)).collect(),
            hash_range: HashKeyRange { start: 0, end: u128::MAX },
            closed: false,
        }
    }

    fn keys(rows: &[Lease]) -> Vec<String> {
        rows.iter().map(|row| row.key.as_str().trim_start_matches("shardId-0000000000").to_owned()).collect()
    }

    #[test]
    fn parents_come_first_and_all_start_where_the_application_starts() {
        let shards = [shard(2, &[0, 1]), shard(3, &[2]), shard(0, &[]), shard(1, &[])];
        let start = FixedStart::AtTimestamp(ArrivalMillis(5));
        let rows = missing_rows(&shards, &[], start);
        assert_eq!(keys(&rows), ["00", "01", "02", "03"]);
        assert!(rows.iter().all(|row| row.checkpoint == Position::AtTimestamp));
        assert_eq!(rows[2].parents.len(), 2);
    }

    #[test]
    fn a_child_starts_at_its_oldest_record_once_its_parent_has_begun() {
        let start = FixedStart::AtTimestamp(ArrivalMillis(5));
        let shards = [shard(0, &[]), shard(1, &[0])];
        let parent = missing_rows(&shards[..1], &[], start).remove(0);
        assert_eq!(
            missing_rows(&shards, std::slice::from_ref(&parent), start)[0].checkpoint,
            Position::AtTimestamp
        );
        let at = Position::At(SequenceNumber::parse("7").unwrap(), SubSequenceNumber(0));
        let begun = parent.progressed(at, LeaseState::starting(None));
        assert_eq!(missing_rows(&shards, &[begun], start)[0].checkpoint, Position::TrimHorizon);
    }

    #[test]
    fn no_row_is_made_for_a_shard_whose_child_has_begun() {
        let mut child = missing_rows(&[shard(1, &[0])], &[], FixedStart::TrimHorizon).remove(0);
        child.checkpoint = Position::At(SequenceNumber::parse("7").unwrap(), SubSequenceNumber(0));
        assert!(missing_rows(&[shard(0, &[]), shard(1, &[0])], &[child], FixedStart::TrimHorizon).is_empty());
    }

    #[test]
    fn children_of_a_shard_that_never_began_inherit_its_start() {
        let parent = missing_rows(&[shard(0, &[])], &[], FixedStart::AtTimestamp(ArrivalMillis(5))).remove(0);
        let rows = child_rows(&parent, &[shard(1, &[0])]);
        assert_eq!(rows[0].checkpoint, Position::AtTimestamp);
        assert_eq!(rows[0].pending.state().unwrap().start, Some(ArrivalMillis(5)));
        let at = Position::At(SequenceNumber::parse("7").unwrap(), SubSequenceNumber(0));
        let rows = child_rows(&parent.progressed(at, LeaseState::starting(None)), &[shard(1, &[0])]);
        assert_eq!(rows[0].checkpoint, Position::TrimHorizon);
    }
}
