//! Whether the owners of leases are alive, judged by somebody who has just come: by watching their signs of life.
//!
//! A worker with a row shows a heartbeat; one without (a KCL worker, or one that was killed long ago) shows the
//! counters of its leases. A sign that moves is life at once; one that stands still for `failover_time` on the
//! observer's own clock, counted from first sight, is its absence. Until then nothing is known, and an owner of
//! whom nothing is known counts as live.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::WorkerRow;
use crate::model::{Lease, LeaseCounter, LeaseKey, WorkerId};

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Not watched for long enough.
    Unknown,
    /// Its sign of life moved.
    Live,
    /// It stood still for the failover time, or nothing of it is left.
    Gone,
}

/// What shows that an owner is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sign {
    Heartbeat(u64),
    Counters(BTreeMap<LeaseKey, LeaseCounter>),
}

#[derive(Debug)]
struct Seen {
    sign: Sign,
    since: Instant,
    liveness: Liveness,
}

/// Watches a set of owners.
#[derive(Debug)]
pub struct OwnerWatch {
    failover_time: Duration,
    owners: BTreeMap<WorkerId, Option<Seen>>,
}

impl OwnerWatch {
    /// Will judge these owners; has seen nothing yet.
    pub fn new(owners: impl IntoIterator<Item = WorkerId>, failover_time: Duration) -> Self {
        Self { failover_time, owners: owners.into_iter().map(|owner| (owner, None)).collect() }
    }

    /// Takes in rows that were read just now.
    pub fn see(&mut self, workers: &[WorkerRow], leases: &[Lease], now: Instant) {
        for (owner, seen) in &mut self.owners {
            let sign = sign_of(owner, workers, leases);
            *seen = Some(judged(seen.take(), sign, now, self.failover_time));
        }
    }

    /// What is known of an owner.
    pub fn liveness(&self, owner: &WorkerId) -> Liveness {
        match self.owners.get(owner) {
            Some(Some(seen)) => seen.liveness,
            Some(None) | None => Liveness::Unknown,
        }
    }

    /// Owners that are known to be gone.
    pub fn gone(&self) -> BTreeSet<WorkerId> {
        self.with(Liveness::Gone)
    }

    /// Owners of whom nothing is known yet.
    pub fn undecided(&self) -> BTreeSet<WorkerId> {
        self.with(Liveness::Unknown)
    }

    fn with(&self, liveness: Liveness) -> BTreeSet<WorkerId> {
        self.owners.keys().filter(|owner| self.liveness(owner) == liveness).cloned().collect()
    }
}

fn sign_of(owner: &WorkerId, workers: &[WorkerRow], leases: &[Lease]) -> Sign {
    if let Some(row) = workers.iter().find(|row| row.worker_id == *owner) {
        return Sign::Heartbeat(row.heartbeat);
    }
    let owned = leases.iter().filter(|lease| lease.owner.as_ref() == Some(owner));
    Sign::Counters(owned.map(|lease| (lease.key.clone(), lease.counter)).collect())
}

fn judged(before: Option<Seen>, sign: Sign, now: Instant, failover_time: Duration) -> Seen {
    let nothing_left = sign == Sign::Counters(BTreeMap::new());
    let Some(before) = before else {
        let liveness = if nothing_left { Liveness::Gone } else { Liveness::Unknown };
        return Seen { sign, since: now, liveness };
    };
    let same_kind = matches!(
        (&before.sign, &sign),
        (Sign::Heartbeat(_), Sign::Heartbeat(_)) | (Sign::Counters(_), Sign::Counters(_))
    );
    if nothing_left {
        Seen { sign, since: now, liveness: Liveness::Gone }
    } else if !same_kind {
        // It joined or left while it was watched: from here on something else shows its life.
        Seen { sign, since: now, liveness: Liveness::Unknown }
    } else if before.sign != sign && moved(&before.sign, &sign) {
        Seen { sign, since: now, liveness: Liveness::Live }
    } else {
        let still = now.saturating_duration_since(before.since) >= failover_time;
        let liveness = if still { Liveness::Gone } else { before.liveness };
        Seen { sign, liveness, ..before }
    }
}

/// A lease that an owner lost, or one that was given to it, is no sign of its life.
fn moved(before: &Sign, after: &Sign) -> bool {
    match (before, after) {
        (Sign::Counters(before), Sign::Counters(after)) => {
            after.iter().any(|(key, counter)| before.get(key).is_some_and(|old| old != counter))
        }
        (before, after) => before != after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};

    const FAILOVER: Duration = Duration::from_secs(10);

    fn worker(heartbeat: u64) -> WorkerRow {
        WorkerRow { heartbeat, ..WorkerRow::new(WorkerId::new("w")) }
    }

    fn lease(key: &str, owner: Option<&str>, counter: u64) -> Lease {
        let row = Lease::unowned(ShardId::new(key), Position::TrimHorizon, LeaseState::starting(None));
        Lease { owner: owner.map(WorkerId::new), counter: LeaseCounter(counter), ..row }
    }

    fn watch() -> OwnerWatch {
        OwnerWatch::new([WorkerId::new("w")], FAILOVER)
    }

    #[test]
    fn a_heartbeat_that_moves_is_life_at_once_and_one_that_stands_still_is_its_absence() {
        let (start, me) = (Instant::now(), WorkerId::new("w"));
        let mut moving = watch();
        moving.see(&[worker(4)], &[], start);
        assert_eq!(moving.undecided(), [me.clone()].into());
        moving.see(&[worker(5)], &[], start + Duration::from_secs(3));
        assert_eq!(moving.liveness(&me), Liveness::Live);
        let mut still = watch();
        still.see(&[worker(4)], &[], start);
        still.see(&[worker(4)], &[], start + FAILOVER - Duration::from_millis(1));
        assert_eq!(still.liveness(&me), Liveness::Unknown);
        still.see(&[worker(4)], &[], start + FAILOVER);
        assert_eq!(still.gone(), [me].into());
    }

    #[test]
    fn without_a_row_the_counters_of_its_leases_tell() {
        let (start, me) = (Instant::now(), WorkerId::new("w"));
        let mut kcl = watch();
        kcl.see(&[], &[lease("s-0", Some("w"), 1), lease("s-1", Some("w"), 7)], start);
        kcl.see(&[], &[lease("s-0", None, 2), lease("s-1", Some("w"), 7)], start + FAILOVER / 2);
        assert_eq!(kcl.liveness(&me), Liveness::Unknown, "a lease taken from it says nothing of it");
        kcl.see(&[], &[lease("s-1", Some("w"), 8)], start + FAILOVER / 2);
        assert_eq!(kcl.liveness(&me), Liveness::Live);
        let mut dead = watch();
        dead.see(&[], &[lease("s-0", Some("w"), 1)], start);
        dead.see(&[], &[lease("s-0", Some("w"), 1)], start + FAILOVER);
        assert_eq!(dead.liveness(&me), Liveness::Gone);
    }

    #[test]
    fn of_whom_nothing_is_left_is_gone_and_a_change_of_signs_begins_anew() {
        let (start, me) = (Instant::now(), WorkerId::new("w"));
        let mut watch = watch();
        assert_eq!(watch.liveness(&me), Liveness::Unknown);
        watch.see(&[worker(4)], &[lease("s-0", Some("w"), 1)], start);
        watch.see(&[], &[lease("s-0", Some("w"), 1)], start + FAILOVER);
        assert_eq!(watch.liveness(&me), Liveness::Unknown);
        watch.see(&[], &[lease("s-0", None, 2)], start + FAILOVER);
        assert_eq!(watch.liveness(&me), Liveness::Gone);
        assert_eq!(watch.liveness(&WorkerId::new("other")), Liveness::Unknown);
    }
}
