//! Assignment by count: every worker within one lease of every other (law B1), with as few moves as that allows (B2).

use std::cmp::Reverse;

use super::ring::Ring;
use super::{Board, tie};

/// Gives every lease a worker, as far as their bound allows.
pub(super) fn assign(board: &mut Board<'_>, most: usize) {
    let mut held = board.held();
    let quotas = quotas(board, &held, most);
    board.give_up_surplus(&mut held, |worker| quotas[worker]);
    let room = held.iter().zip(&quotas).map(|(held, quota)| quota.saturating_sub(held.len())).collect();
    let homeless = board.homeless();
    if homeless.is_empty() {
        return;
    }
    let mut ring = Ring::new(&board.workers, room);
    for at in homeless {
        let seat = &mut board.seats[at];
        seat.target = ring.take(tie("", seat.key.as_str()));
    }
}

/// How many leases each worker should hold: within one of each other, the larger shares to those who hold most
/// now, so that as little as possible moves.
fn quotas(board: &Board<'_>, held: &[Vec<usize>], most: usize) -> Vec<usize> {
    let (leases, workers) = (board.seats.len(), board.workers.len());
    let mut by_holdings: Vec<usize> = (0..workers).collect();
    by_holdings.sort_by_cached_key(|worker| {
        (Reverse(held[*worker].len()), tie(board.workers[*worker].as_str(), ""))
    });
    let mut quotas = vec![0; workers];
    for (rank, worker) in by_holdings.into_iter().enumerate() {
        quotas[worker] = (leases / workers + usize::from(rank < leases % workers)).min(most);
    }
    quotas
}
