//! The laws of leases, as functions: unit, property and simulation tests call the same ones.

use std::collections::BTreeMap;

use crate::model::{Lease, WorkerId};
use crate::plan::weights;
use crate::shard_sync::has_begun;
use crate::view::{FleetView, Health};

/// A law that does not hold, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Id of the law.
    pub law: &'static str,
    /// What shows it.
    pub why: String,
}

fn broken(law: &'static str, why: String) -> Result<(), Broken> {
    Err(Broken { law, why })
}

/// L2 and L3 of one applied write: the counter goes up by exactly one, and the key stays.
///
/// # Errors
/// The law that does not hold.
pub fn l3_counter_raised_by_one(before: &Lease, after: &Lease) -> Result<(), Broken> {
    if after.counter != before.counter.next() || after.key != before.key {
        return broken("L3", format!("{} went from {:?} to {:?}", before.key, before.counter, after.counter));
    }
    Ok(())
}

/// C1 of one applied write: the checkpoint never goes back while the epoch stays. Between two starts nothing does:
/// nothing was finished.
///
/// # Errors
/// The law that does not hold.
pub fn c1_checkpoint_never_goes_back(before: &Lease, after: &Lease) -> Result<(), Broken> {
    let epoch = |lease: &Lease| lease.pending.state().map(|state| state.epoch);
    if has_begun(before) && after.checkpoint < before.checkpoint && epoch(before) == epoch(after) {
        return broken(
            "C1",
            format!("{} went from {} to {}", before.key, before.checkpoint, after.checkpoint),
        );
    }
    Ok(())
}

/// H1: a lease that changed hands went to a worker that was active.
///
/// # Errors
/// The law that does not hold.
pub fn h1_nothing_given_to_the_silent_or_draining(
    before: &FleetView,
    after: &FleetView,
) -> Result<(), Broken> {
    for (key, lease) in &after.leases {
        let old = before.leases.get(key).and_then(|lease| lease.row.owner.as_ref());
        let Some(owner) = lease.row.owner.as_ref().filter(|owner| Some(*owner) != old) else { continue };
        if before.workers.get(owner).is_none_or(|worker| worker.health != Health::Active) {
            return broken("H1", format!("{key} was given to {owner}"));
        }
    }
    Ok(())
}

/// B1: every eligible lease has an active owner, and their counts differ by at most one.
///
/// # Errors
/// The law that does not hold.
pub fn b1_balanced(view: &FleetView) -> Result<(), Broken> {
    let counts = counts(view);
    let eligible = view.leases.values().filter(|lease| view.is_eligible(lease)).count();
    if counts.is_empty() {
        return Ok(());
    }
    if counts.values().sum::<usize>() != eligible {
        return broken("B1", format!("{counts:?} of {eligible} leases"));
    }
    let (least, most) = (counts.values().min(), counts.values().max());
    match (least, most) {
        (Some(least), Some(most)) if most - least > 1 => broken("B1", format!("{counts:?}")),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

/// B1w: every eligible lease has an active owner, and what each of them holds weighs as much as the mean, give or take
/// the largest single lease.
///
/// # Errors
/// The law that does not hold.
pub fn b1w_balanced_by_weight(view: &FleetView) -> Result<(), Broken> {
    let weights = weights(view);
    let active = view.workers.iter().filter(|(_, worker)| worker.health == Health::Active);
    let mut loads: BTreeMap<&WorkerId, u128> = active.map(|(id, _)| (id, 0)).collect();
    if loads.is_empty() {
        return Ok(());
    }
    for (key, weight) in &weights {
        let owner = view.leases.get(key).and_then(|lease| lease.row.owner.as_ref());
        match owner.and_then(|owner| loads.get_mut(owner)) {
            Some(load) => *load += u128::from(*weight),
            None => return broken("B1w", format!("{key} belongs to {owner:?}")),
        }
    }
    let workers = u128::try_from(loads.len()).unwrap_or(u128::MAX);
    let total: u128 = loads.values().sum();
    let largest = weights.values().copied().max().map_or(0, u128::from);
    match loads.iter().find(|(_, load)| (**load * workers).abs_diff(total) > largest * workers) {
        Some((id, load)) => broken("B1w", format!("{id} has {load} of {total}, the largest is {largest}")),
        None => Ok(()),
    }
}

/// B2: no more moves than leases without an active owner plus what exceeds the larger share.
///
/// # Errors
/// The law that does not hold.
pub fn b2_minimal(before: &FleetView, after: &FleetView, moves: usize) -> Result<(), Broken> {
    let (old, new) = (counts(before), counts(after));
    let homeless = before.leases.len() - old.values().sum::<usize>();
    let surplus: usize =
        old.iter().map(|(id, count)| count.saturating_sub(new.get(id).copied().unwrap_or(0))).sum();
    if moves > homeless + surplus {
        return broken("B2", format!("{moves} moves, {homeless} homeless, {surplus} surplus"));
    }
    Ok(())
}

fn counts(view: &FleetView) -> BTreeMap<&WorkerId, usize> {
    let active = view.workers.iter().filter(|(_, worker)| worker.health == Health::Active);
    let mut counts: BTreeMap<&WorkerId, usize> = active.map(|(id, _)| (id, 0)).collect();
    for lease in view.leases.values().filter(|lease| view.is_eligible(lease)) {
        if let Some(count) = lease.row.owner.as_ref().and_then(|owner| counts.get_mut(owner)) {
            *count += 1;
        }
    }
    counts
}
