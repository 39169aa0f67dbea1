//! How a lease stands, for people: who works on it, or why nobody does.

use std::collections::BTreeMap;

use sluicegate_checkpoint::ShardId;

use crate::model::{Lease, LeaseKey, Pending, WorkerId};

/// How a lease stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Read to its end.
    Finished,
    /// Its parent is not finished, so nothing of it may be read.
    Blocked(ShardId),
    /// Another build or another application wrote what this build cannot read.
    Unreadable,
    /// Nobody owns it.
    Free,
    /// Its owner works on it, or is gone.
    Owned(WorkerId),
}

impl Standing {
    /// One word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Blocked(_) => "blocked",
            Self::Unreadable => "unreadable",
            Self::Free => "free",
            Self::Owned(_) => "active",
        }
    }
}

/// How a row stands among the others.
pub fn standing(row: &Lease, rows: &BTreeMap<LeaseKey, Lease>) -> Standing {
    let unfinished = |parent: &&ShardId| rows.get(parent).is_some_and(|parent| !parent.is_finished());
    if row.is_finished() {
        Standing::Finished
    } else if let Some(parent) = row.parents.iter().find(unfinished) {
        Standing::Blocked(parent.clone())
    } else if matches!(row.pending, Pending::Unreadable { .. }) {
        Standing::Unreadable
    } else {
        row.owner.clone().map_or(Standing::Free, Standing::Owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position};

    #[test]
    fn a_lease_is_finished_blocked_free_or_owned() {
        let row =
            |key: &str, checkpoint| Lease::unowned(ShardId::new(key), checkpoint, LeaseState::starting(None));
        let parent = row("p", Position::TrimHorizon);
        let child = Lease { parents: [parent.key.clone()].into(), ..row("c", Position::TrimHorizon) };
        let owned = Lease { owner: Some(WorkerId::new("w")), ..row("o", Position::TrimHorizon) };
        let mut rows: BTreeMap<_, _> =
            [&parent, &child, &owned].map(|row| (row.key.clone(), row.clone())).into();
        assert_eq!(standing(&child, &rows), Standing::Blocked(parent.key.clone()));
        assert_eq!(standing(&parent, &rows), Standing::Free);
        assert_eq!(standing(&owned, &rows), Standing::Owned(WorkerId::new("w")));
        let ended = row("p", Position::ShardEnd);
        rows.insert(ended.key.clone(), ended.clone());
        assert_eq!(standing(&ended, &rows), Standing::Finished);
        assert_eq!(standing(&child, &rows), Standing::Free);
    }
}
