use std::sync::Arc;

use proptest::prelude::*;
use sluicegate_checkpoint::{Cut, PackingParameters};

use super::*;
use crate::invariants;
use crate::model::LeaseCounter;

fn seq(n: u64) -> SequenceNumber {
    SequenceNumber::parse(n.to_string()).unwrap()
}

fn at(n: u64) -> Position {
    Position::At(seq(n), SubSequenceNumber(0))
}

fn behind(n: u64) -> MoveTo {
    MoveTo::Behind(seq(n), SubSequenceNumber(0))
}

fn cut(first: u64, last: u64) -> Cut {
    Cut {
        first: seq(first),
        last: seq(last),
        behind_sub: None,
        last_sub: SubSequenceNumber(0),
        records: last - first + 1,
        parameters: Arc::new(PackingParameters::default()),
        packing_version: 1,
        revision: 0,
        exclusions: Vec::new(),
        dropped: false,
    }
}

fn row(key: &str, checkpoint: Position) -> Lease {
    let state = LeaseState { caught_up: Some(ArrivalMillis(50)), ..LeaseState::starting(None) };
    Lease { counter: LeaseCounter(7), ..Lease::unowned(ShardId::new(key), checkpoint, state) }
}

fn with_state(row: Lease, change: impl FnOnce(&mut LeaseState)) -> Lease {
    let mut state = row.pending.state().unwrap();
    change(&mut state);
    Lease { pending: Pending::Ours(state), ..row }
}

fn owned(row: Lease) -> Lease {
    Lease { owner: Some(WorkerId::new("w")), ..row }
}

fn child_of(parent: &Lease, checkpoint: Position) -> Lease {
    Lease { parents: [parent.key.clone()].into(), ..row("child", checkpoint) }
}

fn around(rows: &[&Lease]) -> Around {
    let rows = rows.iter().map(|row| (row.key.clone(), (*row).clone())).collect();
    Around { rows, ..Around::default() }
}

fn moved(row: &Lease, to: &MoveTo) -> Reposition {
    reposition(row, to, &Around::default()).unwrap().unwrap()
}

#[test]
fn going_back_raises_the_epoch_and_going_forward_to_a_record_does_not() {
    let row = row("s", at(10));
    for (to, direction, epoch) in [
        (behind(4), Direction::Back, 1),
        (MoveTo::TrimHorizon, Direction::Back, 1),
        (behind(20), Direction::Forward, 0),
        (MoveTo::Time(ArrivalMillis(5)), Direction::Unknown, 1),
    ] {
        let moved = moved(&row, &to);
        let state = moved.next.pending.state().unwrap();
        assert_eq!((moved.direction, state.epoch), (direction, epoch), "{to:?}");
        assert_eq!((moved.next.counter, &moved.next.checkpoint), (LeaseCounter(8), &to.position()));
    }
}

#[test]
fn a_time_is_before_or_behind_the_checkpoint_as_far_as_the_row_knows_its_arrival() {
    let row = with_state(row("s", at(10)), |state| state.checkpoint_arrival = Some(ArrivalMillis(100)));
    assert_eq!(moved(&row, &MoveTo::Time(ArrivalMillis(100))).direction, Direction::Back);
    let tip = moved(&row, &MoveTo::Tip(ArrivalMillis(101)));
    assert_eq!(tip.direction, Direction::Forward);
    let state = tip.next.pending.state().unwrap();
    assert_eq!((state.start, state.epoch), (Some(ArrivalMillis(101)), 1), "its cuts cannot meet older ones");
    assert_eq!(state.checkpoint_arrival, None);
}

#[test]
fn what_the_shard_was_caught_up_to_stays_only_on_the_way_to_a_later_record() {
    let caught_up = |to: &MoveTo| moved(&row("s", at(10)), to).next.pending.state().unwrap().caught_up;
    assert_eq!(caught_up(&behind(11)), Some(ArrivalMillis(50)));
    assert_eq!(caught_up(&behind(9)), None);
    assert_eq!(caught_up(&MoveTo::TrimHorizon), None);
    assert_eq!(caught_up(&MoveTo::Time(ArrivalMillis(60))), Some(ArrivalMillis(60)));
}

#[test]
fn a_row_that_stands_there_is_left_alone() {
    let none = Around::default();
    assert_eq!(reposition(&row("s", at(10)), &behind(10), &none), Ok(None));
    assert_eq!(reposition(&row("s", Position::TrimHorizon), &MoveTo::TrimHorizon, &none), Ok(None));
    let timed = with_state(row("s", Position::AtTimestamp), |state| state.start = Some(ArrivalMillis(5)));
    assert_eq!(reposition(&timed, &MoveTo::Time(ArrivalMillis(5)), &none), Ok(None));
    let moved = moved(&timed, &MoveTo::Time(ArrivalMillis(6)));
    assert_eq!((moved.direction, moved.next.pending.state().unwrap().epoch), (Direction::Start, 0));
}

#[test]
fn announced_batches_are_counted_and_named_with_who_finishes_them() {
    let pending = with_state(owned(row("s", at(3))), |state| state.cuts = vec![cut(4, 6), cut(7, 7)]);
    let force = Around { force: true, ..Around::default() };
    let refusal = reposition(&pending, &behind(1), &force).unwrap_err();
    let text = refusal.to_string();
    assert!(
        text.contains("2 announced batches (4 records)") && text.contains("sluicegate drain w"),
        "{text}"
    );
    let gone = Around { gone: [WorkerId::new("w")].into(), ..Around::default() };
    let text = reposition(&pending, &behind(1), &gone).unwrap_err().to_string();
    assert!(text.contains("nobody works on them"), "{text}");
}

#[test]
fn a_live_owner_is_moved_only_by_force_and_then_owns_the_row_no_more() {
    let row = owned(row("s", at(3)));
    let live = Refusal::LiveOwner { owner: WorkerId::new("w") };
    assert_eq!(reposition(&row, &behind(9), &Around::default()), Err(live));
    let force = Around { force: true, ..Around::default() };
    let moved = reposition(&row, &behind(9), &force).unwrap().unwrap();
    assert_eq!((moved.next.owner, moved.ends_session_of), (None, Some(WorkerId::new("w"))));
    let gone = Around { gone: [WorkerId::new("w")].into(), ..Around::default() };
    assert_eq!(reposition(&row, &behind(9), &gone).unwrap().unwrap().ends_session_of, None);
}

#[test]
fn a_parent_stays_where_it_is_once_a_child_has_begun_or_may_be_being_read() {
    let parent = row("parent", Position::ShardEnd);
    let begun = child_of(&parent, at(3));
    let child = begun.key.clone();
    let refusal = reposition(&parent, &MoveTo::TrimHorizon, &around(&[&begun]));
    assert_eq!(refusal, Err(Refusal::ChildBegun { child: child.clone() }));
    let taken = owned(child_of(&parent, Position::TrimHorizon));
    let refusal = reposition(&parent, &MoveTo::TrimHorizon, &around(&[&taken]));
    assert_eq!(refusal, Err(Refusal::ChildOwned { child, owner: WorkerId::new("w") }));
    let waiting = child_of(&parent, Position::TrimHorizon);
    let moved = reposition(&parent, &MoveTo::TrimHorizon, &around(&[&waiting])).unwrap().unwrap();
    assert_eq!((moved.direction, moved.next.pending.state().unwrap().epoch), (Direction::Back, 1));
    let cleaned_up = Lease { children: [ShardId::new("gone")].into(), ..parent };
    let refusal = reposition(&cleaned_up, &MoveTo::TrimHorizon, &Around::default());
    assert_eq!(refusal, Err(Refusal::ChildBegun { child: ShardId::new("gone") }));
}

#[test]
fn nothing_newer_comes_in_a_finished_shard() {
    let ended = row("s", Position::ShardEnd);
    let tip = MoveTo::Tip(ArrivalMillis(9));
    assert_eq!(reposition(&ended, &tip, &Around::default()), Err(Refusal::Finished));
}

#[test]
fn a_child_is_never_given_a_position_before_its_parents_end() {
    let parent = row("parent", at(3));
    let child = child_of(&parent, Position::TrimHorizon);
    let around = around(&[&parent, &child]);
    let refusal = reposition(&child, &behind(9), &around);
    assert_eq!(refusal, Err(Refusal::ParentUnfinished { parent: parent.key }));
    assert!(reposition(&child, &MoveTo::Time(ArrivalMillis(1)), &around).unwrap().is_some());
}

#[test]
fn what_this_build_cannot_read_is_left_alone() {
    let why = sluicegate_checkpoint::DecodeStateError::Foreign;
    let theirs =
        Lease { pending: Pending::Unreadable { bytes: bytes::Bytes::new(), why }, ..row("s", at(1)) };
    assert!(matches!(reposition(&theirs, &behind(9), &Around::default()), Err(Refusal::Unreadable { .. })));
    let theirs = owned(theirs);
    let force = Around { force: true, ..Around::default() };
    let released = release(&theirs, &force).unwrap().unwrap();
    assert_eq!(released.next.pending, theirs.pending, "a release keeps the bytes");
}

#[test]
fn a_release_carries_the_announced_batches_along() {
    let pending = with_state(owned(row("s", at(3))), |state| state.cuts = vec![cut(4, 6)]);
    assert!(matches!(release(&pending, &Around::default()), Err(Refusal::LiveOwner { .. })));
    let gone = Around { gone: [WorkerId::new("w")].into(), ..Around::default() };
    let released = release(&pending, &gone).unwrap().unwrap();
    assert_eq!((released.next.owner, released.batches), (None, 1));
    assert_eq!((released.next.counter, released.next.pending), (LeaseCounter(8), pending.pending));
    assert_eq!(release(&row("s", at(3)), &Around::default()), Ok(None));
}

#[test]
fn children_come_before_their_parents_and_a_circle_does_not_hang() {
    let line = |key: &str, parents: &[&str]| Lease {
        parents: parents.iter().map(|parent| ShardId::new(*parent)).collect(),
        ..row(key, Position::TrimHorizon)
    };
    let rows = [line("a", &[]), line("b", &[]), line("c", &["a", "b"]), line("d", &["c"]), line("e", &["b"])];
    let order = children_first(&rows.into_iter().map(|row| (row.key.clone(), row)).collect());
    assert_eq!(order.iter().map(ShardId::as_str).collect::<Vec<_>>(), ["d", "c", "e", "a", "b"]);
    let circle = [line("x", &["y"]), line("y", &["x"])];
    assert_eq!(children_first(&circle.into_iter().map(|row| (row.key.clone(), row)).collect()).len(), 2);
}

fn any_checkpoint() -> impl Strategy<Value = Position> {
    prop_oneof![
        Just(Position::AtTimestamp),
        Just(Position::TrimHorizon),
        Just(Position::Latest),
        Just(Position::ShardEnd),
        (0u64..20).prop_map(at),
    ]
}

fn any_target() -> impl Strategy<Value = MoveTo> {
    prop_oneof![
        Just(MoveTo::TrimHorizon),
        (0i64..20).prop_map(|ms| MoveTo::Time(ArrivalMillis(ms))),
        (0i64..20).prop_map(|ms| MoveTo::Tip(ArrivalMillis(ms))),
        (0u64..20).prop_map(behind),
    ]
}

prop_compose! {
    fn any_row()(
        checkpoint in any_checkpoint(),
        cuts in 0u64..3,
        arrival in proptest::option::of(0i64..20),
        start in proptest::option::of(0i64..20),
        epoch in 0u32..3,
        has_owner in any::<bool>(),
        counter in any::<u32>(),
        from_kcl in any::<bool>(),
    ) -> Lease {
        let state = LeaseState {
            epoch,
            cuts: (0..cuts).map(|n| cut(100 + n, 100 + n)).collect(),
            checkpoint_arrival: arrival.map(ArrivalMillis),
            ..LeaseState::starting(start.map(ArrivalMillis))
        };
        let pending = if from_kcl { Pending::None } else { Pending::Ours(state) };
        let row = Lease { counter: LeaseCounter(u64::from(counter)), pending, ..row("s", checkpoint) };
        if has_owner { owned(row) } else { row }
    }
}

proptest! {
    #[test]
    fn a_move_keeps_the_laws(
        row in any_row(),
        to in any_target(),
        force in any::<bool>(),
        gone in any::<bool>(),
        child in proptest::option::of(any_row()),
    ) {
        let mut around = Around { force, ..Around::default() };
        if gone {
            around.gone.insert(WorkerId::new("w"));
        }
        if let Some(child) = child {
            let child = Lease { key: ShardId::new("c"), parents: [row.key.clone()].into(), ..child };
            around.rows.insert(child.key.clone(), child);
        }
        let Ok(Some(moved)) = reposition(&row, &to, &around) else { return Ok(()) };
        let (before, after) = (row.pending.state().unwrap(), moved.next.pending.state().unwrap());
        prop_assert_eq!(invariants::l3_counter_raised_by_one(&row, &moved.next), Ok(()));
        prop_assert_eq!(invariants::c1_checkpoint_never_goes_back(&row, &moved.next), Ok(()));
        prop_assert!(before.cuts.is_empty() && after.cuts.is_empty());
        prop_assert!(after.epoch >= before.epoch);
        prop_assert_eq!(after.check_cuts(&moved.next.checkpoint), Ok(()));
        prop_assert_eq!(&moved.next.owner, &None);
        prop_assert_eq!(&moved.next.checkpoint, &to.position());
        prop_assert!(moved.next.checkpoint != Position::Latest);
        prop_assert!(around.rows.values().all(|child| !has_begun(child)));
        let live = row.owner.clone().filter(|_| !gone);
        prop_assert!(live.is_none() || force);
        prop_assert_eq!(&moved.ends_session_of, &live);
        let same = |lease: &Lease| (lease.parents.clone(), lease.children.clone(), lease.hash_range);
        prop_assert_eq!(same(&moved.next), same(&row));
    }

    /// What late writes of an old session could replace: an item of another batch under the same key. Keys hold
    /// (shard, epoch, first record), so no two cuts ever made may agree in these.
    #[test]
    fn no_two_batches_ever_begin_at_the_same_record_of_the_same_epoch(
        steps in proptest::collection::vec(prop_oneof![
            (1u64..5).prop_map(Err),
            any_target().prop_map(Ok),
        ], 1..40),
    ) {
        let mut row = row("s", Position::TrimHorizon);
        let mut made = BTreeSet::new();
        for step in steps {
            match step {
                Ok(to) => {
                    if let Ok(Some(moved)) = reposition(&row, &to, &Around::default()) {
                        row = moved.next;
                    }
                }
                Err(records) => {
                    let state = row.pending.state().unwrap();
                    // Record n arrived at n; records begin at 1.
                    let first = match &row.checkpoint {
                        Position::At(done, _) => done.as_str().parse::<u64>().unwrap() + 1,
                        Position::AtTimestamp => u64::try_from(state.start.unwrap().0).unwrap().max(1),
                        Position::TrimHorizon | Position::Latest | Position::ShardEnd => 1,
                    };
                    prop_assert!(made.insert((state.epoch, first)), "epoch {} from {first}", state.epoch);
                    let arrival = i64::try_from(first + records - 1).unwrap();
                    let state = LeaseState { checkpoint_arrival: Some(ArrivalMillis(arrival)), ..state };
                    row = row.progressed(at(first + records - 1), state);
                }
            }
        }
    }
}
