//! What an operator may do to a lease row: move its position, or give it to nobody.
//!
//! Each decision is a function from the rows as read to the row as it will be, or to a refusal with the numbers in
//! it. The write is the same conditional write that an owner makes (rule R1), so a move races with the fleet like
//! any other write and at worst loses.
//!
//! **Why a moved row has no owner.** A session notices a foreign write only when it writes itself, and on a shard
//! without new records it writes nothing for hours. A worker that is no longer the owner is told so by its next
//! round; the lease is then free, and whoever takes it begins a new session from the moved row (rules R3 and R4).
//!
//! **Why nothing may be announced.** With batches in flight, the item of an old cut can land after the item of a
//! new cut that begins at the same record, and replace it: records are lost (docs/design.md). Without announced
//! cuts every delivery of the old session is durable, and nothing can be delivered before it is announced in a row
//! that the old session can no longer write.
//!
//! **Epoch.** A move to a lower position (law C1) raises the epoch. It is part of every item key, so what is
//! delivered again stands beside what was stored before and never replaces a part of it.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_checkpoint::{
    ArrivalMillis, LeaseState, Position, SequenceNumber, ShardId, SubSequenceNumber,
};
use thiserror::Error;

use crate::model::{Lease, LeaseKey, Pending, WorkerId};
use crate::shard_sync::has_begun;

pub mod changes;
pub mod liveness;
pub mod standing;

/// Where a row is moved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveTo {
    /// The oldest record.
    TrimHorizon,
    /// The first record that arrived at this time or later.
    Time(ArrivalMillis),
    /// The tip, as the stream's time less a second: nobody opens a LATEST iterator, which two owners would resolve
    /// differently.
    Tip(ArrivalMillis),
    /// Behind this user record: it counts as finished.
    Behind(SequenceNumber, SubSequenceNumber),
}

impl MoveTo {
    /// The checkpoint of a row that was moved there.
    pub fn position(&self) -> Position {
        match self {
            Self::TrimHorizon => Position::TrimHorizon,
            Self::Time(_) | Self::Tip(_) => Position::AtTimestamp,
            Self::Behind(sequence_number, sub) => Position::At(sequence_number.clone(), *sub),
        }
    }

    /// The time to read from, if it is one.
    pub fn time(&self) -> Option<ArrivalMillis> {
        match self {
            Self::Time(time) | Self::Tip(time) => Some(*time),
            Self::TrimHorizon | Self::Behind(..) => None,
        }
    }
}

/// What is known of the row's surroundings.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// The rows of its parents and children, as far as there are any; others do no harm.
    pub rows: BTreeMap<LeaseKey, Lease>,
    /// Workers whose sign of life was seen to stand still for the failover time. Every other owner counts as live.
    pub gone: BTreeSet<WorkerId>,
    /// Go on although the owner is live.
    pub force: bool,
}

/// Which way a row moves, as far as the row tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Nothing of the shard was finished: reading begins elsewhere, nothing is stored twice.
    Start,
    /// What lies between is never delivered.
    Forward,
    /// What lies between is delivered again, under another epoch: it may be stored twice.
    Back,
    /// The row does not say when the record at its checkpoint arrived: either of the two.
    Unknown,
}

/// A move that may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reposition {
    /// The row as it will be.
    pub next: Lease,
    /// Which way it moves.
    pub direction: Direction,
    /// The live worker whose session this ends.
    pub ends_session_of: Option<WorkerId>,
}

/// A release that may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The row as it will be.
    pub next: Lease,
    /// The owner that it had.
    pub from: WorkerId,
    /// Announced batches that go along and are delivered again, identically, by the next owner.
    pub batches: usize,
    /// The live worker whose session this ends.
    pub ends_session_of: Option<WorkerId>,
}

/// Why a row is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Batches are announced. Moving the row would let late writes of theirs replace newer items.
    #[error("{batches} announced batches ({records} records) are not committed; {what_to_do}")]
    CutsPending {
        /// How many.
        batches: usize,
        /// Kinesis records in them.
        records: u64,
        /// Who finishes them.
        what_to_do: String,
    },
    /// A child shard goes on where this one ended.
    #[error(
        "its child {child} has begun: moving the parent would read it out of order; move the child back first"
    )]
    ChildBegun {
        /// Which.
        child: ShardId,
    },
    /// Somebody may be reading a child at this moment.
    #[error(
        "its child {child} belongs to {owner}, which may be reading it: stop the fleet, or move the child first"
    )]
    ChildOwned {
        /// Which.
        child: ShardId,
        /// Its owner.
        owner: WorkerId,
    },
    /// A position behind the beginning would have the shard read before its parent's end.
    #[error("its parent {parent} is not finished, so nothing of it may be read yet: only a start can be set")]
    ParentUnfinished {
        /// Which.
        parent: ShardId,
    },
    /// The shard is read to its end, and there is nothing newer in it.
    #[error("the shard is finished: nothing newer comes in it")]
    Finished,
    /// A worker is at work on it.
    #[error("{owner} owns it and is alive, or not known to be gone: --force ends its session on this shard")]
    LiveOwner {
        /// Who.
        owner: WorkerId,
    },
    /// Its pending state is another build's, or another application's.
    #[error("its pending state cannot be read by this build: {why}")]
    Unreadable {
        /// Why.
        why: String,
    },
}

/// The row after its position was moved, owned by nobody; `None` if it stands there already.
///
/// A move to a time counts as a move to a lower position and raises the epoch, also if it goes forward in time:
/// only the stream could tell which record it means. The time up to which the shard was caught up, which loss by
/// retention is judged against, stays on the way to a later record; otherwise it is the time moved to, if it is one.
///
/// # Errors
/// See [`Refusal`].
pub fn reposition(row: &Lease, to: &MoveTo, around: &Around) -> Result<Option<Reposition>, Refusal> {
    let state = readable(row)?;
    if stands_at(row, &state, to) {
        return Ok(None);
    }
    let position = to.position();
    nothing_announced(row, &state, around)?;
    if row.is_finished() && matches!(to, MoveTo::Tip(_)) {
        return Err(Refusal::Finished);
    }
    children_untouched(row, around)?;
    if !position.is_start()
        && let Some(parent) = unfinished_parent(row, around)
    {
        return Err(Refusal::ParentUnfinished { parent });
    }
    let ends_session_of = live_owner(row, around)?;
    let direction = direction(row, &state, to);
    let keeps_caught_up = direction == Direction::Forward && !position.is_start();
    let state = LeaseState {
        epoch: if position < row.checkpoint { state.epoch.saturating_add(1) } else { state.epoch },
        start: if position.is_start() { to.time() } else { state.start },
        follows: None,
        cuts: Vec::new(),
        checkpoint_arrival: None,
        caught_up: if keeps_caught_up { state.caught_up } else { to.time() },
    };
    let next = Lease { owner: None, ..row.progressed(position, state) };
    Ok(Some(Reposition { next, direction, ends_session_of }))
}

/// The row after it was given to nobody, announced batches included (rule R5); `None` if it is free.
///
/// # Errors
/// [`Refusal::LiveOwner`].
pub fn release(row: &Lease, around: &Around) -> Result<Option<Release>, Refusal> {
    let Some(from) = row.owner.clone() else { return Ok(None) };
    let ends_session_of = live_owner(row, around)?;
    let batches = row.pending.state().map_or(0, |state| state.cuts.len());
    Ok(Some(Release { next: row.handed_over(None), from, batches, ends_session_of }))
}

/// Children before their parents: a child that was moved back to its beginning has not begun any more, and then its
/// parent can be moved as well.
pub fn children_first(rows: &BTreeMap<LeaseKey, Lease>) -> Vec<LeaseKey> {
    let mut order: Vec<(usize, &LeaseKey)> = rows.keys().map(|key| (depth(key, rows), key)).collect();
    order.sort_by(|(depth_a, a), (depth_b, b)| depth_b.cmp(depth_a).then_with(|| a.cmp(b)));
    order.into_iter().map(|(_, key)| key.clone()).collect()
}

/// Length of the longest line of ancestors. Rows that name each other in a circle end it.
fn depth(key: &LeaseKey, rows: &BTreeMap<LeaseKey, Lease>) -> usize {
    let (mut depth, mut generation, mut seen) = (0, BTreeSet::from([key]), BTreeSet::from([key]));
    loop {
        let parents = generation.iter().filter_map(|key| rows.get(*key)).flat_map(|row| &row.parents);
        let next: BTreeSet<&LeaseKey> = parents.filter(|parent| rows.contains_key(*parent)).collect();
        if next.is_empty() || next.iter().all(|key| seen.contains(key)) {
            return depth;
        }
        seen.extend(&next);
        generation = next;
        depth += 1;
    }
}

/// The children of a row, whether they have rows or not.
pub fn children<'a>(row: &'a Lease, rows: &'a BTreeMap<LeaseKey, Lease>) -> BTreeSet<&'a ShardId> {
    let named_by = rows.values().filter(|child| child.parents.contains(&row.key)).map(|child| &child.key);
    row.children.iter().chain(named_by).collect()
}

fn readable(row: &Lease) -> Result<LeaseState, Refusal> {
    match &row.pending {
        Pending::Unreadable { why, .. } => Err(Refusal::Unreadable { why: why.to_string() }),
        Pending::Ours(state) => Ok(state.clone()),
        Pending::None | Pending::Foreign { .. } => Ok(LeaseState::starting(None)),
    }
}

fn nothing_announced(row: &Lease, state: &LeaseState, around: &Around) -> Result<(), Refusal> {
    if state.cuts.is_empty() {
        return Ok(());
    }
    let what_to_do = match &row.owner {
        Some(owner) if !around.gone.contains(owner) => format!(
            "wait for {owner} to commit them (--wait 30s), or have it finish and leave: sluicegate drain {owner}"
        ),
        Some(_) | None => {
            "nobody works on them: run a worker, which delivers them first, and drain it".to_owned()
        }
    };
    let records = state.cuts.iter().map(|cut| cut.records).sum();
    Err(Refusal::CutsPending { batches: state.cuts.len(), records, what_to_do })
}

fn children_untouched(row: &Lease, around: &Around) -> Result<(), Refusal> {
    for child in children(row, &around.rows) {
        // A known child without a row was finished, and its row cleaned up.
        let Some(found) = around.rows.get(child).filter(|found| !has_begun(found)) else {
            return Err(Refusal::ChildBegun { child: child.clone() });
        };
        let owner = found.owner.as_ref().filter(|owner| !around.gone.contains(*owner));
        if let (true, Some(owner)) = (row.is_finished(), owner) {
            return Err(Refusal::ChildOwned { child: child.clone(), owner: owner.clone() });
        }
    }
    Ok(())
}

fn unfinished_parent(row: &Lease, around: &Around) -> Option<ShardId> {
    let unfinished = |parent: &&ShardId| around.rows.get(parent).is_some_and(|parent| !parent.is_finished());
    row.parents.iter().find(unfinished).cloned()
}

/// The owner whose session a write ends, if it is live; refused without `force`.
fn live_owner(row: &Lease, around: &Around) -> Result<Option<WorkerId>, Refusal> {
    match row.owner.clone().filter(|owner| !around.gone.contains(owner)) {
        Some(owner) if !around.force => Err(Refusal::LiveOwner { owner }),
        owner => Ok(owner),
    }
}

fn direction(row: &Lease, state: &LeaseState, to: &MoveTo) -> Direction {
    match to {
        MoveTo::Behind(..) if to.position() > row.checkpoint => Direction::Forward,
        _ if row.checkpoint.is_start() => Direction::Start,
        MoveTo::Behind(..) | MoveTo::TrimHorizon => Direction::Back,
        MoveTo::Time(_) | MoveTo::Tip(_) if row.is_finished() => Direction::Back,
        MoveTo::Time(time) | MoveTo::Tip(time) => match state.checkpoint_arrival {
            Some(arrival) if *time > arrival => Direction::Forward,
            Some(_) => Direction::Back,
            None => Direction::Unknown,
        },
    }
}

/// Whether the row stands there. Its recorded start counts only while the checkpoint refers to it.
fn stands_at(row: &Lease, state: &LeaseState, to: &MoveTo) -> bool {
    to.position() == row.checkpoint && to.time().is_none_or(|time| state.start == Some(time))
}

#[cfg(test)]
mod tests;
