//! What changed in the lease table between two looks, for people who watch it.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_checkpoint::Position;

use crate::model::{Lease, LeaseKey, WorkerId};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    /// A row came.
    Created {
        /// Which.
        key: LeaseKey,
        /// Whose it is by now.
        owner: Option<WorkerId>,
    },
    /// A row went.
    Deleted {
        /// Which.
        key: LeaseKey,
    },
    /// It changed hands.
    Owner {
        /// Which.
        key: LeaseKey,
        /// Whose it was.
        from: Option<WorkerId>,
        /// Whose it is.
        to: Option<WorkerId>,
    },
    /// The shard is read to its end.
    Finished {
        /// Which.
        key: LeaseKey,
    },
    /// An operator moved it: the epoch changed.
    Moved {
        /// Which.
        key: LeaseKey,
        /// The checkpoint before.
        from: Position,
        /// The checkpoint now.
        to: Position,
        /// The epoch now.
        epoch: u32,
    },
}

/// What changed from one look to the next, in the order of keys. Commits and announces are no changes.
pub fn lease_changes(
    before: &BTreeMap<LeaseKey, Lease>,
    after: &BTreeMap<LeaseKey, Lease>,
) -> Vec<LeaseChange> {
    let keys: BTreeSet<&LeaseKey> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    for key in keys {
        match (before.get(key), after.get(key)) {
            (Some(before), Some(after)) => changes_of(before, after, &mut changes),
            (None, Some(after)) => {
                changes.push(LeaseChange::Created { key: key.clone(), owner: after.owner.clone() });
            }
            (Some(_), None) => changes.push(LeaseChange::Deleted { key: key.clone() }),
            (None, None) => {}
        }
    }
    changes
}

fn changes_of(before: &Lease, after: &Lease, changes: &mut Vec<LeaseChange>) {
    let key = after.key.clone();
    let epoch = |row: &Lease| row.pending.state().map(|state| state.epoch);
    if let (Some(old), Some(epoch)) = (epoch(before), epoch(after))
        && old != epoch
    {
        let (from, to) = (before.checkpoint.clone(), after.checkpoint.clone());
        changes.push(LeaseChange::Moved { key: key.clone(), from, to, epoch });
    }
    if after.is_finished() && !before.is_finished() {
        changes.push(LeaseChange::Finished { key: key.clone() });
    }
    if before.owner != after.owner {
        changes.push(LeaseChange::Owner { key, from: before.owner.clone(), to: after.owner.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, ShardId};

    fn table(rows: &[Lease]) -> BTreeMap<LeaseKey, Lease> {
        rows.iter().map(|row| (row.key.clone(), row.clone())).collect()
    }

    #[test]
    fn owners_ends_moves_and_rows_are_told_and_commits_are_not() {
        let row =
            |key: &str| Lease::unowned(ShardId::new(key), Position::TrimHorizon, LeaseState::starting(None));
        let (a, b, worker) = (row("a"), row("b"), WorkerId::new("w"));
        let committed = a.progressed(Position::TrimHorizon, LeaseState::starting(None));
        assert_eq!(lease_changes(&table(std::slice::from_ref(&a)), &table(&[committed])), vec![]);
        let ended = a.taken_by(&worker).progressed(Position::ShardEnd, LeaseState::starting(None));
        assert_eq!(
            lease_changes(&table(&[a.clone(), b.clone()]), &table(&[ended, row("c")])),
            vec![
                LeaseChange::Finished { key: a.key.clone() },
                LeaseChange::Owner { key: a.key.clone(), from: None, to: Some(worker) },
                LeaseChange::Deleted { key: b.key },
                LeaseChange::Created { key: ShardId::new("c"), owner: None },
            ]
        );
        let mut state = LeaseState::starting(None);
        state.epoch = 1;
        let moved = a.progressed(Position::TrimHorizon, state);
        let expected = LeaseChange::Moved {
            key: a.key.clone(),
            from: Position::TrimHorizon,
            to: Position::TrimHorizon,
            epoch: 1,
        };
        assert_eq!(lease_changes(&table(&[a]), &table(&[moved])), vec![expected]);
    }
}
