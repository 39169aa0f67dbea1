//! The plan: who should hold which lease. Every worker computes it from the same rows and acts on its own part.
//!
//! Pure and deterministic: order comes from `BTreeMap`s, ties from a hash of (worker, lease). It starts from
//! current ownership, so moves are minimal (law B2), brings counts within one of each other (B1), takes the whole
//! deficit at once, and gives nothing to the silent or the draining (H1).

use std::collections::BTreeMap;

use crate::model::{LeaseKey, WorkerId};
use crate::view::{FleetView, Free, Health, LeaseView};

/// What a plan is told beside the view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanPolicy {
    /// Most leases one worker holds; none sets no bound.
    pub max_leases_per_worker: Option<usize>,
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

/// After so many rounds a free lease may be taken by any eligible worker: the one that the plan names does not
/// come.
const ROUNDS_BEFORE_ANYBODY_TAKES: u32 = 2;

/// What this worker should do, given what it sees.
pub fn plan(view: &FleetView, policy: &PlanPolicy) -> Vec<LeaseAction> {
    let assignment = assign(view, policy);
    let mut actions = Vec::new();
    for (key, lease) in &view.leases {
        let Some(target) = assignment.get(key) else { continue };
        match view.free(lease) {
            Some(why)
                if *target == view.me
                    || lease.free_rounds > ROUNDS_BEFORE_ANYBODY_TAKES && may_take(view) =>
            {
                actions.push(LeaseAction::Take { key: key.clone(), why });
            }
            None if lease.row.owner.as_ref() == Some(&view.me) && *target != view.me => {
                actions.push(LeaseAction::HandOver { key: key.clone(), to: target.clone() });
            }
            Some(_) | None => {}
        }
    }
    actions
}

/// Who should hold each eligible lease. Leases that no worker can be given are not in it.
pub fn assign(view: &FleetView, policy: &PlanPolicy) -> BTreeMap<LeaseKey, WorkerId> {
    let workers: Vec<&WorkerId> =
        view.workers.iter().filter(|(_, worker)| worker.health == Health::Active).map(|(id, _)| id).collect();
    let mut held: BTreeMap<&WorkerId, Vec<&LeaseKey>> = workers.iter().map(|id| (*id, Vec::new())).collect();
    let mut homeless: Vec<&LeaseKey> = Vec::new();
    for (key, lease) in view.leases.iter().filter(|(_, lease)| view.is_eligible(lease)) {
        match live_owner(view, lease).and_then(|owner| held.get_mut(owner)) {
            Some(leases) => leases.push(key),
            None if is_movable(view, lease) => homeless.push(key),
            None => {}
        }
    }
    let quotas = quotas(&held, homeless.len(), policy);
    give_up_surplus(&mut held, &quotas, &mut homeless);
    place(&mut held, &quotas, homeless);
    held.into_iter()
        .flat_map(|(id, leases)| leases.into_iter().map(|key| (key.clone(), id.clone())))
        .collect()
}

/// Whether the plan leaves a free lease to another worker. That one may have planned from an older view, in which the
/// lease was somebody else's, so this worker should look again soon.
pub fn leaves_free(view: &FleetView, policy: &PlanPolicy) -> bool {
    let assignment = assign(view, policy);
    let left = |(key, lease): (&LeaseKey, &LeaseView)| {
        view.free(lease).is_some() && assignment.get(key).is_some_and(|target| *target != view.me)
    };
    view.leases.iter().any(left)
}

fn may_take(view: &FleetView) -> bool {
    view.workers.get(&view.me).is_some_and(|me| me.health == Health::Active)
}

/// The owner, if it is active.
fn live_owner<'a>(view: &FleetView, lease: &'a LeaseView) -> Option<&'a WorkerId> {
    let owner = lease.row.owner.as_ref()?;
    view.workers.get(owner).filter(|worker| worker.health == Health::Active).map(|_| owner)
}

/// Free, or held by a worker that is draining and will hand it over. A lease whose owner has no row but is not
/// known to be gone stays where it is.
fn is_movable(view: &FleetView, lease: &LeaseView) -> bool {
    let draining =
        |owner: &WorkerId| view.workers.get(owner).is_some_and(|worker| worker.health == Health::Draining);
    view.free(lease).is_some() || lease.row.owner.as_ref().is_some_and(draining)
}

/// How many leases each worker should hold: within one of each other, the larger shares to those who hold most
/// now, so that as little as possible moves.
fn quotas<'a>(
    held: &BTreeMap<&'a WorkerId, Vec<&LeaseKey>>,
    homeless: usize,
    policy: &PlanPolicy,
) -> BTreeMap<&'a WorkerId, usize> {
    let leases = homeless + held.values().map(Vec::len).sum::<usize>();
    let mut by_holdings: Vec<&WorkerId> = held.keys().copied().collect();
    by_holdings.sort_by_key(|id| (std::cmp::Reverse(held[*id].len()), tie(id.as_str(), "")));
    let workers = by_holdings.len().max(1);
    let bound = policy.max_leases_per_worker.unwrap_or(usize::MAX);
    let share = |rank: usize| (leases / workers + usize::from(rank < leases % workers)).min(bound);
    by_holdings.into_iter().enumerate().map(|(rank, id)| (id, share(rank))).collect()
}

fn give_up_surplus<'a>(
    held: &mut BTreeMap<&'a WorkerId, Vec<&'a LeaseKey>>,
    quotas: &BTreeMap<&WorkerId, usize>,
    homeless: &mut Vec<&'a LeaseKey>,
) {
    for (id, leases) in held {
        if leases.len() > quotas[*id] {
            leases.sort_by_key(|key| tie(id.as_str(), key.as_str()));
            homeless.extend(leases.drain(quotas[*id]..));
        }
    }
}

/// Gives each homeless lease to a worker below its quota: the one with the lowest tie for that lease.
fn place<'a>(
    held: &mut BTreeMap<&'a WorkerId, Vec<&'a LeaseKey>>,
    quotas: &BTreeMap<&'a WorkerId, usize>,
    mut homeless: Vec<&'a LeaseKey>,
) {
    homeless.sort();
    let mut open: Vec<&WorkerId> =
        quotas.iter().filter(|(id, quota)| held[*id].len() < **quota).map(|(id, _)| *id).collect();
    for key in homeless {
        let Some(nearest) = (0..open.len()).min_by_key(|at| tie(open[*at].as_str(), key.as_str())) else {
            return;
        };
        let id = open[nearest];
        if let Some(leases) = held.get_mut(id) {
            leases.push(key);
            if leases.len() >= quotas[id] {
                open.swap_remove(nearest);
                open.sort();
            }
        }
    }
}

/// A hash of (worker, lease) that is the same in every build and process: FNV-1a, then a final mix so that names
/// that differ in one digit do not stay neighbours.
fn tie(worker: &str, lease: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in worker.bytes().chain([0]).chain(lease.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests;
