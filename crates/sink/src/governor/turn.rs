//! Whose turn it is to write: the attempt of the oldest batch whose keys are free. **Pure.**
//!
//! *Were it the one that asked first*, all batches in flight would be written side by side, and all would be durable late:
//! eight of equal size after eight times what one takes, where one after the other they take four and a half on average.
//! Nobody starves: an older batch is finite, so that it ends, and none that arrives later comes before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate_checkpoint::{ArrivalMillis, Batch, SequenceNumber, ShardId};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How old what is written is; the lowest goes first. All revisions of a batch have the same, and so has what is asked about
/// its events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Arrival of the first record.
    pub arrival: ArrivalMillis,
    /// Its shard: any order will do between batches of one age, as long as it stays.
    pub shard: ShardId,
    /// Its sequence number.
    pub first: SequenceNumber,
}

impl Rank {
    /// The rank of a batch.
    pub fn of(batch: &Batch) -> Self {
        Self { arrival: batch.arrival, shard: batch.id.shard.clone(), first: batch.id.first.clone() }
    }
}

/// Where an attempt stands: by its rank, and among those of one batch by when it asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Rank, u64);

/// An attempt that waits.
#[derive(Debug)]
struct Waiter {
    /// What it will take, by partition key.
    units: Vec<(String, f64)>,
    called: Arc<Notify>,
}

/// The attempts that wait.
#[derive(Debug, Default)]
pub struct Line {
    waiting: BTreeMap<Place, Waiter>,
    next_number: u64,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn<'a> {
    /// Who.
    pub place: &'a Place,
    /// When its keys are free, if they are not.
    pub free_at: Option<Instant>,
}

impl Line {
    /// Joins with what an attempt will take; `called` is told when it should look whether it is its turn.
    pub fn join(&mut self, rank: Rank, units: Vec<(String, f64)>, called: Arc<Notify>) -> Place {
        self.next_number += 1;
        let place = Place(rank, self.next_number);
        self.waiting.insert(place.clone(), Waiter { units, called });
        place
    }

    /// Leaves.
    pub fn leave(&mut self, place: &Place) {
        self.waiting.remove(place);
    }

    /// Whose turn it is: the first one's whose keys are free, so that a full key holds nobody else up. If there is none it is
    /// that one's whose keys are free next.
    pub fn turn(&self, mut free_at: impl FnMut(&[(String, f64)]) -> Option<Instant>) -> Option<Turn<'_>> {
        let mut next: Option<Turn<'_>> = None;
        for (place, waiter) in &self.waiting {
            let turn = Turn { place, free_at: free_at(&waiter.units) };
            if turn.free_at.is_none() {
                return Some(turn);
            }
            if next.is_none_or(|next| turn.free_at < next.free_at) {
                next = Some(turn);
            }
        }
        next
    }

    /// Has somebody look whether it is its turn.
    pub fn call(&self, place: &Place) {
        if let Some(waiter) = self.waiting.get(place) {
            waiter.called.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rank(arrival: i64, shard: &str) -> Rank {
        let first = SequenceNumber::parse("1").unwrap();
        Rank { arrival: ArrivalMillis(arrival), shard: ShardId::new(shard), first }
    }

    fn join(line: &mut Line, arrival: i64, shard: &str, key: &str) -> Place {
        line.join(rank(arrival, shard), vec![(key.to_owned(), 1.0)], Arc::default())
    }

    fn free(_: &[(String, f64)]) -> Option<Instant> {
        None
    }

    #[test]
    fn the_oldest_goes_first_then_the_shard_then_who_asked() {
        let mut line = Line::default();
        let third = join(&mut line, 7, "s-1", "a");
        let first = join(&mut line, 5, "s-2", "a");
        let fourth = join(&mut line, 7, "s-1", "a");
        let second = join(&mut line, 7, "s-0", "a");
        for place in [first, second, third, fourth] {
            assert_eq!(line.turn(free).unwrap(), Turn { place: &place, free_at: None });
            line.leave(&place);
        }
        assert_eq!(line.turn(free), None);
    }

    #[test]
    fn a_full_key_holds_up_nobody_else_and_is_first_again_when_it_is_free() {
        let mut line = Line::default();
        let now = Instant::now();
        let hot = join(&mut line, 1, "s", "hot");
        let cold = join(&mut line, 2, "s", "cold");
        let full = |units: &[(String, f64)]| (units[0].0 == "hot").then(|| now + Duration::from_secs(1));
        assert_eq!(line.turn(full).unwrap().place, &cold);
        assert_eq!(line.turn(free).unwrap().place, &hot);
        line.leave(&cold);
        let turn = line.turn(full).unwrap();
        assert_eq!((turn.place, turn.free_at), (&hot, Some(now + Duration::from_secs(1))));
    }

    proptest! {
        /// Whoever waits and whatever keys are full: nobody older than whose turn it is could go, and somebody's it is.
        #[test]
        fn nobody_older_could_go(
            waiting in proptest::collection::vec((0i64..5, 0u8..3, 0usize..4), 1..40),
            full in proptest::collection::vec(proptest::option::of(1u64..9), 4),
        ) {
            let now = Instant::now();
            let free_at = |units: &[(String, f64)]| {
                let key: usize = units[0].0.parse().unwrap();
                full[key].map(|seconds| now + Duration::from_secs(seconds))
            };
            let mut line = Line::default();
            let mut places: Vec<(Place, Option<Instant>)> = Vec::new();
            for (arrival, shard, key) in waiting {
                let place = join(&mut line, arrival, &shard.to_string(), &key.to_string());
                places.push((place, free_at(&[(key.to_string(), 1.0)])));
            }
            while let Some(turn) = line.turn(free_at) {
                let place = turn.place.clone();
                for (other, free) in &places {
                    match turn.free_at {
                        None => prop_assert!(free.is_some() || *other >= place, "{other:?} before {place:?}"),
                        Some(at) => prop_assert!(free.is_some_and(|free| free >= at), "{other:?} goes before {at:?}"),
                    }
                }
                line.leave(&place);
                places.retain(|(other, _)| *other != place);
            }
            prop_assert!(places.is_empty(), "everybody has a turn");
        }
    }
}
