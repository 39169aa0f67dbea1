//! The plan: who should hold which lease. Every worker computes it from the same rows and acts on its own part.
//!
//! Pure and deterministic: order comes from `BTreeMap`s, ties from a hash of worker and lease. It starts from current
//! ownership, so moves are few (law B2), brings counts within one of each other (B1) or, if asked, weights within the
//! largest single lease of their mean (B1w), takes the whole deficit at once, and gives nothing to the silent or the
//! draining (H1), nor to who was not seen alive yet: such a worker counts, so that one that has just started does not take
//! the shares of all others, but it is waited for. Its cost grows with the number of leases and workers, not with their product.

mod by_count;
mod by_weight;
mod ring;

use std::collections::BTreeMap;

pub use by_weight::{IDLE_LEASE, weights};

use crate::model::{LeaseKey, WorkerId};
use crate::view::{FleetView, Free, Health, LeaseView};

/// What a plan is told beside the view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanPolicy {
    /// Most leases one worker holds; none sets no bound.
    pub max_leases_per_worker: Option<usize>,
    /// Balance what leases weigh, by the throughput in their rows, instead of counting them.
    pub weigh_by_throughput: bool,
}

/// Something this worker should do now, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAction {
    /// Take a lease that nobody live holds.
    Take {
        /// Which.
        key: LeaseKey,
        /// Why it is free.
        why: Free,
    },
    /// Hand a lease over to the worker that should have it.
    HandOver {
        /// Which.
        key: LeaseKey,
        /// To whom.
        to: WorkerId,
    },
}

/// After so many rounds a free lease may be taken by any eligible worker that has room for it: the one that the plan
/// names does not come.
const ROUNDS_BEFORE_ANYBODY_TAKES: u32 = 2;

/// What this worker should do, given what it sees.
pub fn plan(view: &FleetView, policy: &PlanPolicy) -> Vec<LeaseAction> {
    let board = Board::assigned(view, policy);
    let me = board.workers.binary_search(&&view.me).ok();
    let mine = board.seats.iter().filter(|seat| me.is_some() && seat.target == me).count();
    let mut spare = policy.max_leases_per_worker.unwrap_or(usize::MAX).saturating_sub(mine);
    let mut actions = Vec::new();
    for seat in &board.seats {
        let Some(target) = seat.target else { continue };
        let (key, mine) = (seat.key, Some(target) == me);
        let waited = seat.lease.free_rounds > ROUNDS_BEFORE_ANYBODY_TAKES && me.is_some();
        match seat.free {
            Some(why) if mine => actions.push(LeaseAction::Take { key: key.clone(), why }),
            Some(why) if waited && spare > 0 => {
                spare -= 1;
                actions.push(LeaseAction::Take { key: key.clone(), why });
            }
            None if !mine && seat.lease.row.owner.as_ref() == Some(&view.me) => {
                let to = board.workers[target];
                if view.workers.get(to).is_some_and(|to| to.seen_alive) {
                    actions.push(LeaseAction::HandOver { key: key.clone(), to: to.clone() });
                }
            }
            Some(_) | None => {}
        }
    }
    actions
}

/// Who should hold each eligible lease. Leases that no worker can be given are not in it.
pub fn assign(view: &FleetView, policy: &PlanPolicy) -> BTreeMap<LeaseKey, WorkerId> {
    let board = Board::assigned(view, policy);
    let assigned = |seat: &Seat<'_>| Some((seat.key.clone(), board.workers[seat.target?].clone()));
    board.seats.iter().filter_map(assigned).collect()
}

/// Free leases that the plan gives to other workers, with whom. Such a worker may have planned from an older view, in
/// which the lease was somebody else's, so this one should look again soon, or tell it.
pub fn left_free(view: &FleetView, policy: &PlanPolicy) -> Vec<(LeaseKey, WorkerId)> {
    if !view.leases.values().any(|lease| view.is_eligible(lease) && view.free(lease).is_some()) {
        return Vec::new();
    }
    let board = Board::assigned(view, policy);
    let left = |seat: &Seat<'_>| {
        let target = board.workers[seat.free.and(seat.target)?];
        (*target != view.me).then(|| (seat.key.clone(), target.clone()))
    };
    board.seats.iter().filter_map(left).collect()
}

/// The eligible leases and the workers that may hold them: what an assignment works on, by index.
#[derive(Debug)]
struct Board<'a> {
    /// Active workers, in the order of their ids.
    workers: Vec<&'a WorkerId>,
    /// Leases that can be assigned, in the order of their keys.
    seats: Vec<Seat<'a>>,
}

/// One lease of a [`Board`].
#[derive(Debug)]
struct Seat<'a> {
    key: &'a LeaseKey,
    lease: &'a LeaseView,
    /// Why nobody live holds it, if nobody does.
    free: Option<Free>,
    /// The active worker that holds it, and in the end the one that should; nobody, if there is no room.
    target: Option<usize>,
}

impl<'a> Board<'a> {
    fn assigned(view: &'a FleetView, policy: &PlanPolicy) -> Self {
        let mut board = Self::new(view);
        if board.workers.is_empty() {
            return board;
        }
        let most = policy.max_leases_per_worker.unwrap_or(usize::MAX);
        if policy.weigh_by_throughput {
            by_weight::assign(&mut board, most);
        } else {
            by_count::assign(&mut board, most);
        }
        board
    }

    /// Current ownership. Free leases, and those of a worker that is draining and will hand them over, are nobody's. A
    /// lease whose owner has no row but is not known to be gone stays where it is, so it is left out.
    fn new(view: &'a FleetView) -> Self {
        let active = |(id, worker): (&'a WorkerId, _)| is_active(worker).then_some(id);
        let workers: Vec<&WorkerId> = view.workers.iter().filter_map(active).collect();
        let mut seats = Vec::with_capacity(view.leases.len());
        for (key, lease) in view.leases.iter().filter(|(_, lease)| view.is_eligible(lease)) {
            let holder = lease.row.owner.as_ref().and_then(|owner| workers.binary_search(&owner).ok());
            let free = if holder.is_some() { None } else { view.free(lease) };
            let draining = || lease.row.owner.as_ref().is_some_and(|owner| view.workers.contains_key(owner));
            if holder.is_some() || free.is_some() || draining() {
                seats.push(Seat { key, lease, free, target: holder });
            }
        }
        Self { workers, seats }
    }

    /// Which seats each worker holds.
    fn held(&self) -> Vec<Vec<usize>> {
        let mut held = vec![Vec::new(); self.workers.len()];
        for (at, seat) in self.seats.iter().enumerate() {
            if let Some(holder) = seat.target {
                held[holder].push(at);
            }
        }
        held
    }

    /// Takes away what each worker holds beyond its bound, the same leases whoever computes it.
    fn give_up_surplus(&mut self, held: &mut [Vec<usize>], most: impl Fn(usize) -> usize) {
        for (worker, seats) in held.iter_mut().enumerate() {
            let most = most(worker);
            if seats.len() > most {
                let id = self.workers[worker].as_str();
                seats.sort_by_cached_key(|at| tie(id, self.seats[*at].key.as_str()));
                for at in seats.drain(most..) {
                    self.seats[at].target = None;
                }
            }
        }
    }

    /// Seats that nobody holds.
    fn homeless(&self) -> Vec<usize> {
        (0..self.seats.len()).filter(|at| self.seats[*at].target.is_none()).collect()
    }
}

fn is_active(worker: &crate::view::WorkerView) -> bool {
    worker.health == Health::Active
}

/// A hash of (worker, lease) that is the same in every build and process: FNV-1a, then a final mix so that names
/// that differ in one digit do not stay neighbours.
pub(crate) fn tie(worker: &str, lease: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in worker.bytes().chain([0]).chain(lease.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mixed(hash)
}

fn mixed(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests;
