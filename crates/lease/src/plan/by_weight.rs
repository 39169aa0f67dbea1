//! Assignment by weight: every worker within the largest single lease of the mean (law B1w).
//!
//! A lease weighs what its row says of its throughput, and [`IDLE_LEASE`] beside it. Two things keep noise from moving
//! anything: the number in a row is smoothed and changes in steps only (`Throughput::recorded`), and while no
//! worker is further from the mean than the largest lease, or a quarter of the mean if that is less, nothing that has a
//! live owner moves. Once one is, leases move until all are within half of that, so that a little more does not move
//! them again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Board, tie};
use crate::model::LeaseKey;
use crate::throughput::Throughput;
use crate::view::{FleetView, LeaseView};

/// What a lease costs its worker beside its records: the reads, the memory, the lease itself. Leases of a quiet stream
/// all weigh this and are balanced by count.
pub const IDLE_LEASE: Throughput = Throughput::from_kilobytes(16);

/// What each eligible lease weighs, in the unit of [`Throughput`].
pub fn weights(view: &FleetView) -> BTreeMap<LeaseKey, u64> {
    let eligible: Vec<(&LeaseKey, &LeaseView)> =
        view.leases.iter().filter(|(_, lease)| view.is_eligible(lease)).collect();
    let weights = weigh(eligible.iter().map(|(_, lease)| lease.row.throughput));
    eligible.into_iter().map(|(key, _)| key.clone()).zip(weights).collect()
}

/// A lease whose row says nothing of its throughput weighs as the mean of the others.
fn weigh(throughputs: impl Iterator<Item = Option<Throughput>>) -> Vec<u64> {
    let all: Vec<Option<u64>> = throughputs.map(|known| known.map(Throughput::micros)).collect();
    let known = || all.iter().flatten();
    let count = u128::try_from(known().count()).unwrap_or(u128::MAX);
    let mean = known().map(|micros| u128::from(*micros)).sum::<u128>() / count.max(1);
    let mean = u64::try_from(mean).unwrap_or(u64::MAX);
    all.iter().map(|micros| micros.unwrap_or(mean).saturating_add(IDLE_LEASE.micros())).collect()
}

/// Gives every lease a worker, as far as the bound on counts allows.
pub(super) fn assign(board: &mut Board<'_>, most: usize) {
    let weights = weigh(board.seats.iter().map(|seat| seat.lease.row.throughput));
    let mut held = board.held();
    board.give_up_surplus(&mut held, |_| most);
    let mut loads = Loads::new(board, &weights, most);
    let mut homeless = board.homeless();
    homeless.sort_by_cached_key(|at| (Reverse(weights[*at]), tie("", board.seats[*at].key.as_str())));
    for at in homeless {
        let Some(lightest) = loads.lightest() else { break };
        loads.give(lightest, weights[at]);
        board.seats[at].target = Some(lightest);
    }
    loads.level(board, &weights);
}

/// What one worker holds.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    weight: u64,
    leases: usize,
}

/// What all workers hold, while leases are moved about.
#[derive(Debug)]
struct Loads {
    most: usize,
    of: Vec<Load>,
    /// A hash of each worker, for ties.
    ties: Vec<u64>,
    /// All workers, lightest first.
    ranked: BTreeSet<Rank>,
    /// Those of them with room.
    open: BTreeSet<Rank>,
}

/// Where a worker stands among the others: weight, leases, tie, index.
type Rank = (u64, usize, u64, usize);

/// A lease among those of its worker, lightest first: weight, tie, index.
type Held = BTreeSet<(u64, u64, usize)>;

impl Loads {
    fn new(board: &Board<'_>, weights: &[u64], most: usize) -> Self {
        let mut of = vec![Load::default(); board.workers.len()];
        for (seat, weight) in board.seats.iter().zip(weights) {
            if let Some(holder) = seat.target {
                of[holder].weight = of[holder].weight.saturating_add(*weight);
                of[holder].leases += 1;
            }
        }
        let ties = board.workers.iter().map(|id| tie(id.as_str(), "")).collect();
        let mut loads = Self { most, of, ties, ranked: BTreeSet::new(), open: BTreeSet::new() };
        for worker in 0..loads.of.len() {
            loads.enter(worker);
        }
        loads
    }

    fn rank(&self, worker: usize) -> Rank {
        (self.of[worker].weight, self.of[worker].leases, self.ties[worker], worker)
    }

    fn enter(&mut self, worker: usize) {
        let rank = self.rank(worker);
        self.ranked.insert(rank);
        if self.of[worker].leases < self.most {
            self.open.insert(rank);
        }
    }

    fn leave(&mut self, worker: usize) {
        let rank = self.rank(worker);
        self.ranked.remove(&rank);
        self.open.remove(&rank);
    }

    fn lightest(&self) -> Option<usize> {
        self.open.first().map(|(.., worker)| *worker)
    }

    fn heaviest(&self) -> Option<usize> {
        self.ranked.last().map(|(.., worker)| *worker)
    }

    fn give(&mut self, worker: usize, weight: u64) {
        self.leave(worker);
        self.of[worker].weight = self.of[worker].weight.saturating_add(weight);
        self.of[worker].leases += 1;
        self.enter(worker);
    }

    fn take(&mut self, worker: usize, weight: u64) {
        self.leave(worker);
        self.of[worker].weight = self.of[worker].weight.saturating_sub(weight);
        self.of[worker].leases -= 1;
        self.enter(worker);
    }

    /// Moves leases from the heaviest to the lightest worker, if one is too far from the mean, until none is. Whoever
    /// has none to give that would bring the two closer (a hot shard alone, say) is left out of account: the others are
    /// balanced among themselves. In the end all are within the largest lease of the lightest, so also of the mean.
    fn level(&mut self, board: &mut Board<'_>, weights: &[u64]) {
        let mut workers = u128::try_from(self.of.len()).unwrap_or(u128::MAX);
        let mut total: u128 = self.of.iter().map(|load| u128::from(load.weight)).sum();
        let assigned = board.seats.iter().zip(weights).filter(|(seat, _)| seat.target.is_some());
        let largest = assigned.map(|(_, weight)| u128::from(*weight)).max().unwrap_or_default();
        let (mut held, mut moving): (Vec<Held>, _) = (Vec::new(), false);
        for _ in 0..2 * board.seats.len() + self.of.len() {
            let (Some(heaviest), Some(lightest)) = (self.heaviest(), self.lightest()) else { return };
            let (high, low) = (self.of[heaviest].weight, self.of[lightest].weight);
            let allowed = allowed(largest * workers, total) / if moving { 2 } else { 1 };
            let off = |weight: u64| (u128::from(weight) * workers).abs_diff(total);
            if off(high) <= allowed && off(low) <= allowed {
                return;
            }
            if held.is_empty() {
                held = sorted(board, weights);
            }
            let Some(seat) = closer(&held[heaviest], high.saturating_sub(low)) else {
                self.ranked.pop_last();
                (workers, total) = (workers - 1, total - u128::from(high));
                continue;
            };
            moving = true;
            held[heaviest].remove(&seat);
            held[lightest].insert(seat);
            self.take(heaviest, seat.0);
            self.give(lightest, seat.0);
            board.seats[seat.2].target = Some(lightest);
        }
    }
}

/// How far from the mean a worker may be before leases move: the largest lease, and no more than a quarter of the mean.
/// (All three in the same unit.)
fn allowed(largest: u128, mean: u128) -> u128 {
    largest.min(mean / 4)
}

fn sorted(board: &Board<'_>, weights: &[u64]) -> Vec<Held> {
    let mut held = vec![Held::new(); board.workers.len()];
    for (at, seat) in board.seats.iter().enumerate() {
        if let Some(holder) = seat.target {
            held[holder].insert((weights[at], tie("", seat.key.as_str()), at));
        }
    }
    held
}

/// The lease to move over such a gap: the heaviest that does not turn it round, else one that narrows it.
fn closer(held: &Held, gap: u64) -> Option<(u64, u64, usize)> {
    let fits = held.range(..=(gap / 2, u64::MAX, usize::MAX)).next_back();
    fits.or_else(|| held.first().filter(|seat| seat.0 < gap)).copied()
}
