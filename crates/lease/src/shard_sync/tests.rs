use proptest::prelude::*;
use sluicegate_checkpoint::{SequenceNumber, SubSequenceNumber};

use super::*;

fn id(n: u32) -> ShardId {
    ShardId::new(format!("shardId-{n:012}"))
}

fn shard(n: u32, parents: &[u32]) -> Shard {
    Shard {
        id: id(n),
        parents: parents.iter().map(|n| id(*n)).collect(),
        hash_range: HashKeyRange::ALL,
        closed: false,
    }
}

fn keys(rows: &[Lease]) -> Vec<u32> {
    rows.iter().map(|row| row.key.as_str().trim_start_matches("shardId-").parse().unwrap()).collect()
}

const NOW: ArrivalMillis = ArrivalMillis(1_700_000_000_000);
const T: ArrivalMillis = ArrivalMillis(1_600_000_000_000);
const AT_T: Making = Making { start: FixedStart::AtTimestamp(T), now: NOW, epoch: 1 };
const OLDEST: Making = Making { start: FixedStart::TrimHorizon, now: NOW, epoch: 1 };

fn missing(shards: &[Shard], rows: &[Lease], making: Making) -> Vec<Lease> {
    missing_rows(&ShardGraph::new(shards.iter().cloned()), rows, making)
}

fn at(n: u64) -> Position {
    Position::At(SequenceNumber::parse(n.to_string()).unwrap(), SubSequenceNumber(0))
}

/// The row after something of it was finished.
fn begun(row: &Lease) -> Lease {
    row.progressed(at(7), row.pending.state().unwrap())
}

fn state(row: &Lease) -> LeaseState {
    row.pending.state().unwrap()
}

#[test]
fn parents_come_first_and_all_start_where_the_application_starts() {
    // A stream resharded before the first start: both parents of a merge, and a child of that.
    let shards = [shard(2, &[0, 1]), shard(3, &[2]), shard(0, &[]), shard(1, &[])];
    let rows = missing(&shards, &[], AT_T);
    assert_eq!(keys(&rows), [0, 1, 2, 3]);
    assert!(rows.iter().all(|row| row.checkpoint == Position::AtTimestamp && state(row).start == Some(T)));
    assert_eq!(rows[2].parents, BTreeSet::from([id(0), id(1)]));
    let rows = missing(&shards, &[], OLDEST);
    assert!(rows.iter().all(|row| row.checkpoint == Position::TrimHorizon && state(row).start.is_none()));
}

#[test]
fn a_parent_that_has_expired_is_not_waited_for() {
    let rows = missing(&[shard(2, &[0, 1]), shard(1, &[])], &[], AT_T);
    assert_eq!(keys(&rows), [1, 2]);
    assert_eq!(rows[1].parents, BTreeSet::from([id(1)]));
}

#[test]
fn a_child_starts_at_its_oldest_record_once_its_parent_has_begun() {
    let shards = [shard(0, &[]), shard(1, &[0])];
    let parent = missing(&shards[..1], &[], AT_T).remove(0);
    let untouched = missing(&shards, std::slice::from_ref(&parent), AT_T).remove(0);
    assert_eq!(untouched.checkpoint, Position::AtTimestamp);
    let child = missing(&shards, &[begun(&parent)], AT_T).remove(0);
    assert_eq!((child.checkpoint.clone(), state(&child).start), (Position::TrimHorizon, None));
}

#[test]
fn a_child_of_a_shard_that_was_closed_before_the_start_holds_what_came_before_it_too() {
    let shards = [shard(0, &[]), shard(1, &[0])];
    let parent = missing(&shards[..1], &[], AT_T).remove(0);
    let empty = Lease { checkpoint: Position::ShardEnd, ..parent.clone() };
    let child = missing(&shards, &[empty], AT_T).remove(0);
    assert_eq!((child.checkpoint.clone(), state(&child).start), (Position::AtTimestamp, Some(T)));
    let read = LeaseState { checkpoint_arrival: Some(NOW), ..state(&parent) };
    let finished = parent.progressed(Position::ShardEnd, read);
    assert_eq!(missing(&shards, &[finished], AT_T)[0].checkpoint, Position::TrimHorizon);
    let kcl = Lease { pending: crate::model::Pending::None, checkpoint: Position::ShardEnd, ..parent };
    assert_eq!(missing(&shards, &[kcl], AT_T)[0].checkpoint, Position::TrimHorizon, "as KCL does");
}

#[test]
fn no_row_is_made_for_a_shard_with_a_descendant_that_has_begun() {
    let shards = [shard(0, &[]), shard(1, &[0]), shard(2, &[1]), shard(3, &[0])];
    let last = missing(&shards[2..3], &[], OLDEST).remove(0);
    assert_eq!(
        keys(&missing(&shards, &[begun(&last)], OLDEST)),
        [3],
        "its sibling's lineage is another matter"
    );
    let finished = Lease { checkpoint: Position::ShardEnd, ..last.clone() };
    assert_eq!(keys(&missing(&shards, &[finished], OLDEST)), [3]);
    assert_eq!(keys(&missing(&shards, &[last], OLDEST)), [0, 1, 3], "a row alone is no beginning");
}

#[test]
fn a_listing_that_is_older_than_the_rows_makes_no_row_of_what_they_cover() {
    let child = missing(&[shard(0, &[]), shard(1, &[0])], &[], OLDEST).remove(1);
    let old = [shard(0, &[])];
    assert_eq!(keys(&missing(&old, &[begun(&child)], OLDEST)), [0u32; 0]);
    assert_eq!(keys(&missing(&old, &[child], OLDEST)), [0]);
}

#[test]
fn a_row_is_born_with_the_time_that_loss_is_judged_by() {
    let shards = [shard(0, &[]), shard(1, &[0])];
    let born = |rows: &[Lease], making| state(missing(&shards, rows, making).last().unwrap()).caught_up;
    assert_eq!(born(&[], AT_T), Some(T));
    assert_eq!(born(&[], OLDEST), Some(NOW));
    let parent = missing(&shards[..1], &[], AT_T).remove(0);
    let read = LeaseState { checkpoint_arrival: Some(ArrivalMillis(T.0 + 5)), ..state(&parent) };
    assert_eq!(born(&[parent.progressed(at(7), read)], AT_T), Some(ArrivalMillis(T.0 + 5)), "its parent's");
    let kcl = Lease { pending: crate::model::Pending::None, checkpoint: at(7), ..parent.clone() };
    assert_eq!(born(&[kcl], AT_T), Some(NOW), "what a KCL row covers is not known");
    let forgotten = [shard(1, &[0]), shard(2, &[1])];
    let rows = missing(&forgotten, &[parent], OLDEST);
    assert_eq!(
        (state(&rows[0]).caught_up, state(&rows[1]).caught_up),
        (Some(T), Some(T)),
        "also of one that the stream has forgotten, and handed on"
    );
}

#[test]
fn a_row_that_is_made_again_has_another_counter() {
    let first = missing(&[shard(0, &[])], &[], OLDEST).remove(0);
    let later = Making { now: ArrivalMillis(NOW.0 + 2_000), epoch: 2, ..OLDEST };
    let again = missing(&[shard(0, &[])], &[], later).remove(0);
    assert_eq!((state(&first).epoch, state(&again).epoch), (1, 2));
    assert!(again.counter > begun(&first).counter, "a late write to the first finds no row to change");
    assert_eq!(state(&child_rows(&again, &[shard(1, &[0])], 3)[0]).epoch, 3);
}

#[test]
fn no_two_puts_share_an_epoch() {
    let makers = (0..20).map(|n| WorkerId::new(format!("host-{n}")));
    let epochs: Vec<u32> = makers.flat_map(|maker| (0..50).map(move |puts| epoch_of(&maker, puts))).collect();
    assert_eq!(epochs.iter().collect::<BTreeSet<_>>().len(), epochs.len());
    assert!(
        epochs.iter().all(|epoch| (1..=u32::MAX / 2).contains(epoch)),
        "room for an operator's moves back"
    );
}

#[test]
fn a_missing_row_is_told_from_one_that_never_was() {
    let rows = missing(&[shard(0, &[]), shard(1, &[0]), shard(2, &[])], &[], OLDEST);
    let (parent, child, root) = (&rows[0], &rows[2], &rows[1]);
    let nobody = BTreeSet::new();
    assert!(!had_a_row(child, std::slice::from_ref(parent), &nobody), "a split that was just seen");
    let finished = Lease { checkpoint: Position::ShardEnd, ..parent.clone() };
    assert!(had_a_row(child, &[finished], &nobody));
    assert!(!had_a_row(root, std::slice::from_ref(parent), &nobody), "an application that starts");
    assert!(had_a_row(root, &[begun(parent)], &nobody));
    assert!(had_a_row(root, &[], &BTreeSet::from([root.key.clone()])));
}

#[test]
fn children_of_a_shard_that_never_began_inherit_its_start() {
    let parent = missing(&[shard(0, &[])], &[], AT_T).remove(0);
    let rows = child_rows(&parent, &[shard(1, &[0])], 1);
    assert_eq!(rows[0].checkpoint, Position::AtTimestamp);
    assert_eq!((state(&rows[0]).start, state(&rows[0]).caught_up), (Some(T), Some(T)));
    let read = LeaseState { checkpoint_arrival: Some(NOW), ..state(&parent) };
    let rows = child_rows(&parent.progressed(at(7), read), &[shard(1, &[0])], 1);
    assert_eq!((&rows[0].checkpoint, state(&rows[0]).caught_up), (&Position::TrimHorizon, Some(NOW)));
}

proptest! {
    /// Over random lineages and any set of rows, some of which have begun: what is made is exactly what lacks a row
    /// and has no descendant that has begun, each after its parents.
    #[test]
    fn what_is_missing_is_made_parents_first(
        lineage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..3), 1..12),
        rows in proptest::collection::vec(0u8..3, 12),
    ) {
        let mut shards: Vec<Shard> = Vec::new();
        for (n, (first, second, parents)) in (0u32..).zip(&lineage) {
            let mut of = Vec::new();
            if n > 0 && *parents > 0 { of.push(u32::try_from(first.index(n as usize)).unwrap()); }
            if n > 0 && *parents > 1 { of.push(u32::try_from(second.index(n as usize)).unwrap()); }
            shards.push(shard(n, &of));
        }
        let graph = ShardGraph::new(shards.iter().cloned());
        let all = missing(&shards, &[], AT_T);
        prop_assert_eq!(all.len(), shards.len());
        let there: Vec<Lease> = all.iter().zip(&rows)
            .filter(|(_, kind)| **kind > 0)
            .map(|(row, kind)| if *kind == 2 { begun(row) } else { row.clone() })
            .collect();
        let made = missing_rows(&graph, &there, AT_T);
        for shard in &shards {
            let has_row = there.iter().any(|row| row.key == shard.id);
            let covered = graph.descendants(&shard.id).iter()
                .any(|child| there.iter().any(|row| row.key == *child && has_begun(row)));
            prop_assert_eq!(made.iter().any(|row| row.key == shard.id), !has_row && !covered);
        }
        for (index, row) in made.iter().enumerate() {
            prop_assert!(!made[index..].iter().any(|later| row.parents.contains(&later.key)));
            let behind = graph.ancestors(&row.key).iter()
                .any(|parent| there.iter().any(|row| row.key == *parent && has_begun(row)));
            prop_assert_eq!(row.checkpoint == Position::TrimHorizon, behind);
        }
        let runs = generations(&made);
        prop_assert_eq!(&runs.concat(), &made);
        for run in runs {
            prop_assert!(!run.iter().any(|row| run.iter().any(|other| row.parents.contains(&other.key))));
        }
    }
}
