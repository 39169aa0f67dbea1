//! Shard sync: shards listed -> lease rows to create, parents before children.
//!
//! The list is gathered *before* the lease rows, rows are created conditionally, each listing all its parents, and
//! no row is made for a shard that has a descendant that has begun (law S3): that one covers what its parent had.
//! What this file finds missing in rows that were scanned is checked once more just before it is created, by a
//! strongly consistent read of each descendant.
//!
//! **Rows that are made again.** Nobody can tell whether a shard without a row had one before. So every row made
//! here begins an epoch of its own: what is delivered under it stands beside what was stored before, and a late
//! write of an old session can never replace a part of it. Its counter begins above that of any earlier row, so that
//! no late write to the old one finds its condition met. A shard whose row was deleted by hand starts like one
//! that never had a row, at its oldest record or where the application started: nothing is skipped, and what was
//! stored already is stored again.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_checkpoint::{ArrivalMillis, HashKeyRange, LeaseState, Position, ShardId};

use crate::model::{Lease, LeaseCounter, LeaseKey, WorkerId};
use crate::plan::tie;
use crate::registry::FixedStart;
use crate::shard_graph::ShardGraph;

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

/// When and for which application rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Making {
    /// Where the application starts.
    pub start: FixedStart,
    /// The stream's own time.
    pub now: ArrivalMillis,
    /// The epoch of the rows: no two makings share one ([`epoch_of`]).
    pub epoch: u32,
}

/// The rows that are missing, in the order to create them.
///
/// A shard none of whose ancestors has begun starts where the application starts, as they will, or did, and found
/// nothing. A descendant of a shard of which something was read starts at its oldest record: its parent is read first,
/// so nothing is skipped and nothing read twice.
pub fn missing_rows(listed: &ShardGraph, rows: &[Lease], making: Making) -> Vec<Lease> {
    let rows: BTreeMap<&ShardId, &Lease> = rows.iter().map(|row| (&row.key, row)).collect();
    let covered = covered_by_descendants(listed, &rows);
    let lacks_row = |shard: &&Shard| !rows.contains_key(&shard.id) && !covered.contains(&shard.id);
    let mut missing: Vec<&Shard> = listed.shards().filter(lacks_row).collect();
    missing.sort_by_cached_key(|shard| (listed.ancestors(&shard.id).len(), shard.id.clone()));
    let mut made: BTreeMap<&ShardId, Lease> = BTreeMap::new();
    for shard in &missing {
        // Also of parents that the stream has forgotten, as long as their rows are there.
        let row_of =
            |parent: &ShardId| rows.get(parent).copied().or_else(|| made.get(parent)).and_then(covered_to);
        let parents_covered = shard.parents.iter().filter_map(row_of).min();
        let row = new_row(shard, listed, &rows, parents_covered, making);
        made.insert(&shard.id, row);
    }
    missing.into_iter().filter_map(|shard| made.remove(&shard.id)).collect()
}

/// The missing rows in runs without a parent and its child in one: those of a run can be made at the same time.
pub fn generations(missing: &[Lease]) -> Vec<&[Lease]> {
    let mut runs = Vec::new();
    let mut from = 0;
    for (at, row) in missing.iter().enumerate() {
        if missing[from..at].iter().any(|earlier| row.parents.contains(&earlier.key)) {
            runs.push(&missing[from..at]);
            from = at;
        }
    }
    runs.push(&missing[from..]);
    runs
}

/// Ancestors of shards that have begun, by the listing and by what the rows say of their parents: a listing may be older
/// than the rows.
fn covered_by_descendants(listed: &ShardGraph, rows: &BTreeMap<&ShardId, &Lease>) -> BTreeSet<ShardId> {
    let mut covered = BTreeSet::new();
    let mut open: Vec<&ShardId> = rows.values().filter(|row| has_begun(row)).map(|row| &row.key).collect();
    while let Some(id) = open.pop() {
        let told = rows.get(id).into_iter().flat_map(|row| &row.parents);
        for parent in listed.parents(id).chain(told) {
            if covered.insert(parent.clone()) {
                open.push(parent);
            }
        }
    }
    covered
}

fn new_row(
    shard: &Shard,
    listed: &ShardGraph,
    rows: &BTreeMap<&ShardId, &Lease>,
    parents_covered: Option<ArrivalMillis>,
    making: Making,
) -> Lease {
    let read = |ancestor: &ShardId| rows.get(ancestor).is_some_and(|row| was_open_at_the_start(row));
    let behind_parents = listed.ancestors(&shard.id).iter().any(read);
    let time = making.start.time().filter(|_| !behind_parents);
    let state = LeaseState {
        epoch: making.epoch,
        caught_up: parents_covered.or(time).or(Some(making.now)),
        ..LeaseState::starting(time)
    };
    let position = if behind_parents { Position::TrimHorizon } else { making.start.position() };
    Lease {
        counter: counter_of(making.now),
        parents: listed.parents(&shard.id).cloned().collect(),
        hash_range: Some(shard.hash_range),
        ..Lease::unowned(shard.id.clone(), position, state)
    }
}

/// The epoch of the rows that a worker makes with so many puts before them. A put that is late may land after another
/// worker's row was made, read from and deleted; by this hash of 31 bits the two do not share an epoch.
pub fn epoch_of(maker: &WorkerId, puts: u64) -> u32 {
    u32::try_from(tie(maker.as_str(), &puts.to_string()) >> 33).unwrap_or(1).max(1)
}

/// The counter of a row made now: milliseconds since 1970, faster than any row is written.
fn counter_of(now: ArrivalMillis) -> LeaseCounter {
    LeaseCounter(u64::try_from(now.0).unwrap_or_default())
}

/// Whether a shard that lacks its row surely or probably had one: this worker saw it, or its parents are finished,
/// which they are only after their children's rows are made, or it has no parents and others are at work already.
pub fn had_a_row(row: &Lease, rows: &[Lease], known: &BTreeSet<LeaseKey>) -> bool {
    let find = |key: &ShardId| rows.iter().find(|row| row.key == *key);
    let parents_finished = row.parents.iter().all(|parent| find(parent).is_some_and(Lease::is_finished));
    known.contains(&row.key)
        || if row.parents.is_empty() { rows.iter().any(has_begun) } else { parents_finished }
}

/// Whether anything of the shard was announced or finished.
pub fn has_begun(row: &Lease) -> bool {
    let announced = row.pending.state().is_none_or(|state| !state.cuts.is_empty());
    !row.checkpoint.is_start() || announced
}

/// Whether records of the shard were read or are announced, so that it was open when the application started, and
/// everything in its descendants came later. One that was closed before then is finished without any.
fn was_open_at_the_start(row: &Lease) -> bool {
    let nothing_read = |state: LeaseState| state.start.is_some() && state.checkpoint_arrival.is_none();
    let unread = row.is_finished() && row.pending.state().is_some_and(nothing_read);
    has_begun(row) && !unread
}

/// What arrived before this time was read and is durable, as far as the row tells.
pub fn covered_to(row: &Lease) -> Option<ArrivalMillis> {
    row.pending.state().and_then(|state| state.covered_to())
}

/// The rows of a finished shard's children: they begin at their oldest record, or, if the parent never began, where
/// the parent would have. Nothing arrived in them before the parent was last seen open.
pub fn child_rows(parent: &Lease, children: &[Shard], epoch: u32) -> Vec<Lease> {
    let begun = !parent.checkpoint.is_start();
    let position = if begun { Position::TrimHorizon } else { parent.checkpoint.clone() };
    let of_parent = parent.pending.state().unwrap_or_else(|| LeaseState::starting(None));
    let time = of_parent.start.filter(|_| !begun);
    let state = LeaseState { epoch, caught_up: of_parent.covered_to(), ..LeaseState::starting(time) };
    let row = |child: &Shard| Lease {
        counter: parent.counter,
        parents: child.parents.clone(),
        hash_range: Some(child.hash_range),
        ..Lease::unowned(child.id.clone(), position.clone(), state.clone())
    };
    children.iter().map(row).collect()
}

#[cfg(test)]
mod tests;
