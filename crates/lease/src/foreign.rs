//! Owners without a worker row, and whether they are at work: a KCL application that runs on the same table. **Pure.**
//!
//! KCL has no worker rows; it raises the counter of each lease it holds every third of its failover time. A worker of
//! ours that has left can have one write on its way, which raises a counter once more, never twice: one write per row at
//! a time, and each is conditional on the one before. So an owner that never had a worker row is at work when one of
//! its leases was written twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::WorkerRow;
use crate::model::{Lease, LeaseCounter, LeaseKey, WorkerId};

/// The stream that a row of a multi-stream KCL application is of: its key is `account:stream:created:shard` (KCL,
/// `MultiStreamLease`), and no shard has such an id.
pub fn multi_stream(key: &LeaseKey) -> Option<&str> {
    let mut parts = key.as_str().split(':');
    let (_account, stream, _created) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().map(|_shard| stream)
}

/// What shows that an owner without a worker row is at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignLife {
    /// The owner.
    pub owner: WorkerId,
    /// A lease that it writes.
    pub lease_key: LeaseKey,
    /// The counter when it was first seen with this owner.
    pub from: LeaseCounter,
    /// The counter now.
    pub to: LeaseCounter,
}

/// Watches the counters of leases whose owners have no worker row.
#[derive(Debug, Default)]
pub struct ForeignOwners {
    /// Ids that ever had a worker row: workers of ours, also after they have left.
    ours: BTreeSet<WorkerId>,
    /// Owner and counter of each lease, as first seen with this owner.
    first_seen: BTreeMap<LeaseKey, (WorkerId, LeaseCounter)>,
    /// Owners that were told of and still own something.
    told: BTreeSet<WorkerId>,
}

impl ForeignOwners {
    /// Takes in worker rows. They must have been read once before the first lease rows are: a worker of ours may write
    /// its leases and leave between the two reads.
    pub fn see_workers(&mut self, rows: &[WorkerRow]) {
        for row in rows {
            if !self.ours.contains(&row.worker_id) {
                self.ours.insert(row.worker_id.clone());
            }
        }
    }

    /// Takes in lease rows, after the worker rows that explain their owners, and tells of owners that turned out to be
    /// at work: of each once, as long as it owns a lease.
    pub fn see_leases(&mut self, rows: &[Lease]) -> Vec<ForeignLife> {
        let mut seen = BTreeMap::new();
        let mut alive = Vec::new();
        for row in rows {
            let Some(owner) = row.owner.as_ref().filter(|owner| !self.ours.contains(*owner)) else {
                continue;
            };
            let first = self.first_seen.get(&row.key).filter(|(before, _)| before == owner);
            let from = first.map_or(row.counter, |(_, counter)| *counter);
            if row.counter.0 >= from.0.saturating_add(WRITES_OF_THE_LIVING) {
                alive.push(ForeignLife {
                    owner: owner.clone(),
                    lease_key: row.key.clone(),
                    from,
                    to: row.counter,
                });
            }
            seen.insert(row.key.clone(), (owner.clone(), from));
        }
        self.told.retain(|owner| seen.values().any(|(known, _)| known == owner));
        self.first_seen = seen;
        alive.retain(|life| self.told.insert(life.owner.clone()));
        alive
    }
}

/// So many writes of one row are more than one that was on its way.
const WRITES_OF_THE_LIVING: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};

    fn lease(key: &str, owner: Option<&str>, counter: u64) -> Lease {
        let row = Lease::unowned(ShardId::new(key), Position::TrimHorizon, LeaseState::starting(None));
        Lease { owner: owner.map(WorkerId::new), counter: LeaseCounter(counter), ..row }
    }

    #[test]
    fn an_owner_that_never_had_a_row_and_writes_a_lease_twice_is_at_work_and_told_of_once() {
        let mut owners = ForeignOwners::default();
        assert_eq!(owners.see_leases(&[lease("a", Some("kcl"), 5), lease("b", Some("kcl"), 9)]), []);
        assert_eq!(owners.see_leases(&[lease("a", Some("kcl"), 6), lease("b", Some("kcl"), 10)]), []);
        let told = owners.see_leases(&[lease("a", Some("kcl"), 7), lease("b", Some("kcl"), 11)]);
        let life = ForeignLife {
            owner: WorkerId::new("kcl"),
            lease_key: ShardId::new("a"),
            from: LeaseCounter(5),
            to: LeaseCounter(7),
        };
        assert_eq!(told, [life]);
        assert_eq!(owners.see_leases(&[lease("a", Some("kcl"), 8)]), []);
        assert_eq!(owners.see_leases(&[lease("a", Some("me"), 9)]), []);
        owners.see_leases(&[lease("a", Some("kcl"), 10)]);
        assert_eq!(owners.see_leases(&[lease("a", Some("kcl"), 12)]).len(), 1, "it was gone, and came back");
    }

    #[test]
    fn one_late_write_a_change_of_owner_and_standing_still_are_no_life() {
        let mut owners = ForeignOwners::default();
        for rows in [
            [lease("a", Some("left"), 5)],
            [lease("a", Some("left"), 6)],
            [lease("a", Some("left"), 6)],
            [lease("a", Some("other"), 9)],
            [lease("a", None, 12)],
            [lease("a", Some("left"), 20)],
        ] {
            assert_eq!(owners.see_leases(&rows), []);
        }
    }

    #[test]
    fn a_worker_of_ours_is_none_even_after_its_row_is_gone() {
        let mut owners = ForeignOwners::default();
        owners.see_workers(&[WorkerRow::new(WorkerId::new("w"))]);
        for counter in [5, 9, 14] {
            assert_eq!(owners.see_leases(&[lease("a", Some("w"), counter)]), []);
        }
        owners.see_workers(&[]);
        assert_eq!(owners.see_leases(&[lease("a", Some("w"), 40)]), []);
    }
}
