//! A ring of workers with room: each lease goes to the next place behind its hash. Views that differ by a worker or a
//! few leases give most leases to the same workers, and nobody looks at every worker for every lease.

use super::{mixed, tie};
use crate::model::WorkerId;

/// Places of one worker: what one that is full or gone leaves is spread over several others.
const PLACES: u64 = 8;

/// Workers with room on a ring of hashes.
#[derive(Debug)]
pub(super) struct Ring {
    /// Hash and worker of each place, ascending.
    places: Vec<(u64, usize)>,
    /// For each place one at or behind it; no place between the two has room.
    next: Vec<usize>,
    /// How many more leases each worker takes.
    room: Vec<usize>,
    left: usize,
}

impl Ring {
    /// Workers that take so many leases more.
    pub(super) fn new(workers: &[&WorkerId], room: Vec<usize>) -> Self {
        let open = (0..workers.len()).filter(|worker| room[*worker] > 0);
        let mut places: Vec<(u64, usize)> = open
            .flat_map(|worker| {
                let hash = tie(workers[worker].as_str(), "");
                (0..PLACES).map(move |place| (mixed(hash.wrapping_add(place)), worker))
            })
            .collect();
        places.sort_unstable();
        let left = room.iter().fold(0, |sum: usize, room| sum.saturating_add(*room));
        Self { next: (0..places.len()).collect(), places, room, left }
    }

    /// The worker that takes a lease of this hash; nobody, if there is no room.
    pub(super) fn take(&mut self, hash: u64) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let begin = self.places.partition_point(|(place, _)| *place < hash) % self.places.len();
        let place = self.with_room(begin);
        let worker = self.places[place].1;
        self.room[worker] -= 1;
        self.left -= 1;
        Some(worker)
    }

    /// The first place with room at or behind this one; there is one. Full places are passed over once, not every time.
    fn with_room(&mut self, begin: usize) -> usize {
        let mut at = begin;
        while self.room[self.places[at].1] == 0 {
            if self.next[at] == at {
                self.next[at] = (at + 1) % self.places.len();
            }
            at = self.next[at];
        }
        let mut passed = begin;
        while passed != at {
            passed = std::mem::replace(&mut self.next[passed], at);
        }
        at
    }
}
