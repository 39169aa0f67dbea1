//! Events that can never be stored -> the exclusions of their cuts, so that the row still holds them (pure).
//!
//! One amendment takes all events that were found in a pass and raises the revision of each of their cuts by one.
//! Ranges between which nothing lies become one. Where the row's state would pass its bound, the two ranges with the
//! fewest events between them become one, and again, until it fits; what lies between is left out too. A cut keeps at
//! least one range: room for that is set aside for every cut, when it is announced and when another one grows
//! ([`leaves_room`]).

use std::cmp::Ordering;
use std::sync::Arc;

use sluicegate_checkpoint::{Batch, Cut, Exclusion, LeaseState};

/// An announced batch and the events of it that can never be stored.
pub type Poisoned = (Arc<Batch>, Vec<Exclusion>);

/// The state with these events excluded.
pub fn excluding(state: &LeaseState, poisoned: &[Poisoned]) -> LeaseState {
    let mut state = state.clone();
    for (batch, events) in poisoned {
        let Some(cut) = cut_of(&mut state, batch) else { continue };
        cut.revision += 1;
        cut.exclusions.extend(events.iter().cloned());
        join_touching(cut, batch);
    }
    while !leaves_room(&state) {
        let nearest = poisoned.iter().filter_map(|(batch, _)| {
            let cut = cut_of(&mut state, batch)?;
            let gaps = cut.exclusions.windows(2).map(|pair| between(&pair[0], &pair[1], batch));
            let (at, gap) = gaps.enumerate().min_by_key(|(_, gap)| *gap)?;
            Some((gap, batch, at))
        });
        let Some((_, batch, at)) = nearest.min_by_key(|(gap, ..)| *gap) else { break };
        if let Some(cut) = cut_of(&mut state, batch) {
            join(cut, at);
        }
    }
    state
}

/// Whether the row has room for a state in which every cut has excluded something.
pub fn leaves_room(state: &LeaseState) -> bool {
    let with_one = |cut: &Cut| {
        let mut cut = cut.clone();
        if cut.exclusions.is_empty() {
            let id = |number: &_| (Clone::clone(number), cut.last_sub);
            cut.exclusions.push(Exclusion { from: id(&cut.first), to: id(&cut.last) });
        }
        cut
    };
    LeaseState { cuts: state.cuts.iter().map(with_one).collect(), ..state.clone() }.encode().is_ok()
}

fn cut_of<'a>(state: &'a mut LeaseState, batch: &Batch) -> Option<&'a mut Cut> {
    state.cuts.iter_mut().find(|cut| cut.first == batch.cut.first)
}

/// Brings the exclusions into the order of the shard and joins those between which no event lies.
fn join_touching(cut: &mut Cut, batch: &Batch) {
    cut.exclusions.sort_by(|a, b| a.from.cmp(&b.from));
    let mut at = 0;
    while let Some([before, next]) = cut.exclusions.get(at..at + 2) {
        if between(before, next, batch) == 0 {
            join(cut, at);
        } else {
            at += 1;
        }
    }
}

/// Makes one range of two that follow each other.
fn join(cut: &mut Cut, at: usize) {
    let next = cut.exclusions.remove(at + 1);
    if let Some(range) = cut.exclusions.get_mut(at)
        && range.to.cmp(&next.to) == Ordering::Less
    {
        range.to = next.to;
    }
}

/// How many events of the batch lie between two ranges.
fn between(before: &Exclusion, next: &Exclusion, batch: &Batch) -> usize {
    let place = |record: &sluicegate_checkpoint::Record| {
        (record.sequence_number().clone(), record.sub_sequence_number())
    };
    let behind = batch.records.partition_point(|record| place(record) <= before.to);
    let up_to = batch.records.partition_point(|record| place(record) < next.from);
    up_to.saturating_sub(behind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluicegate_checkpoint::{ArrivalMillis, Record, SequenceNumber, ShardId, SubSequenceNumber};

    use super::*;

    /// Sequence numbers as long as those of Kinesis.
    fn seq(n: usize) -> SequenceNumber {
        SequenceNumber::parse(format!("{}{:018}", "4".repeat(38), n)).unwrap()
    }

    fn id(n: usize) -> (SequenceNumber, SubSequenceNumber) {
        (seq(n), SubSequenceNumber(0))
    }

    fn range(from: usize, to: usize) -> Exclusion {
        Exclusion { from: id(from), to: id(to) }
    }

    fn batch(numbers: std::ops::Range<usize>) -> Arc<Batch> {
        let records: Vec<Record> =
            numbers.map(|n| Record::new(seq(n), ArrivalMillis(1), "k", bytes::Bytes::new())).collect();
        Arc::new(Batch::of((&ShardId::new("s"), 0), records, Arc::default(), 1).unwrap())
    }

    fn state(batches: &[&Arc<Batch>]) -> LeaseState {
        let cuts = batches.iter().map(|batch| batch.cut.clone()).collect();
        LeaseState { cuts, ..LeaseState::starting(None) }
    }

    #[test]
    fn all_that_was_found_goes_into_one_revision_and_neighbours_into_one_range() {
        let (one, two) = (batch(0..100), batch(100..200));
        let before = state(&[&one, &two]);
        let after = excluding(&before, &[(one.clone(), vec![range(7, 7), range(3, 3), range(4, 5)])]);
        assert_eq!(after.cuts[0].exclusions, [range(3, 5), range(7, 7)]);
        assert_eq!((after.cuts[0].revision, &after.cuts[1]), (1, &two.cut));
        let again = excluding(&after, &[(one, vec![range(6, 6)]), (two, vec![range(150, 150)])]);
        assert_eq!(again.cuts[0].exclusions, [range(3, 7)]);
        assert_eq!(again.cuts[1].exclusions, [range(150, 150)]);
        assert_eq!((again.cuts[0].revision, again.cuts[1].revision), (2, 1));
    }

    #[test]
    fn where_the_row_has_no_room_the_nearest_ranges_become_one() {
        let batch = batch(0..10_000);
        // Two events apart at the beginning, a hundred and more behind.
        let mut events: Vec<Exclusion> = (0..30).map(|n| range(3 * n, 3 * n)).collect();
        events.extend((1..20).map(|n| range(n * 500, n * 500)));
        let after = excluding(&state(&[&batch]), &[(batch.clone(), events)]);
        assert!(after.encode().is_ok());
        let exclusions = &after.cuts[0].exclusions;
        assert!(exclusions.len() > 25, "{}", exclusions.len());
        assert!(
            (1..20).all(|n| exclusions.contains(&range(n * 500, n * 500))),
            "the far ones are kept apart"
        );
    }

    proptest! {
        /// Whatever is found: the state fits, every event found is excluded, exclusions only grow, and they ascend.
        #[test]
        fn it_fits_and_covers(
            passes in proptest::collection::vec(
                (0usize..2, proptest::collection::vec((0usize..300, 0usize..4), 1..60)), 1..4,
            ),
        ) {
            let batches = [batch(0..300), batch(300..600)];
            let mut state = state(&[&batches[0], &batches[1]]);
            prop_assert!(leaves_room(&state));
            for (which, events) in passes {
                let batch = &batches[which];
                let first = 300 * which;
                let events: Vec<Exclusion> = events
                    .into_iter()
                    .map(|(n, more)| range(first + n, first + (n + more).min(299)))
                    .collect();
                let next = excluding(&state, &[(batch.clone(), events.clone())]);
                prop_assert!(next.encode().is_ok());
                prop_assert_eq!(next.cuts[which].revision, state.cuts[which].revision + 1);
                prop_assert_eq!(&next.cuts[1 - which], &state.cuts[1 - which]);
                let cut = &next.cuts[which];
                for record in &batch.records {
                    let excludes = |cut: &Cut| cut.excludes(record.sequence_number(), record.sub_sequence_number());
                    let found = events.iter().any(|range| range.covers(record.sequence_number(), record.sub_sequence_number()));
                    prop_assert!(excludes(cut) || !(found || excludes(&state.cuts[which])));
                }
                for pair in cut.exclusions.windows(2) {
                    prop_assert!(pair[0].to < pair[1].from);
                    prop_assert!(between(&pair[0], &pair[1], batch) > 0);
                }
                state = next;
            }
        }
    }
}
