//! Rows that KCL left at a start which is no place in the shard: LATEST, and AT_TIMESTAMP without the time. **Pure.**
//!
//! KCL keeps what they mean in its own configuration and resolves them anew each time it opens the shard. Two owners
//! would resolve them differently and skip what arrived in between, so the first owner here makes such a row begin where
//! the application does, by one conditional write, before it reads anything.

use sluicegate_checkpoint::{LeaseState, Position};

use crate::model::{Lease, Pending};
use crate::registry::FixedStart;

/// The row with the application's start in place of an open one; `None` if its start is no open one, or if its state
/// cannot be read here.
pub fn closed(row: &Lease, start: FixedStart) -> Option<Lease> {
    let state = row.pending.state()?;
    let is_open = match row.checkpoint {
        Position::Latest => true,
        Position::AtTimestamp => state.start.is_none(),
        Position::TrimHorizon | Position::At(..) | Position::ShardEnd => false,
    };
    if !is_open || !state.cuts.is_empty() {
        return None;
    }
    let caught_up = state.caught_up.or_else(|| start.time());
    let state = LeaseState { start: start.time(), caught_up, ..state };
    Some(Lease {
        checkpoint: start.position(),
        pending: Pending::Ours(state),
        counter: row.counter.next(),
        ..row.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::{c1_checkpoint_never_goes_back, l3_counter_raised_by_one};
    use crate::model::WorkerId;
    use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber, ShardId, SubSequenceNumber};

    const T: ArrivalMillis = ArrivalMillis(7);

    fn kcl_row(checkpoint: Position) -> Lease {
        let row = Lease::unowned(ShardId::new("s"), checkpoint, LeaseState::starting(None));
        Lease { owner: Some(WorkerId::new("me")), pending: Pending::None, owner_switches: 3, ..row }
    }

    #[test]
    fn latest_and_a_time_that_only_kcl_knows_become_the_start_of_the_application() {
        for checkpoint in [Position::Latest, Position::AtTimestamp] {
            let row = kcl_row(checkpoint);
            let next = closed(&row, FixedStart::AtTimestamp(T)).unwrap();
            assert_eq!(next.checkpoint, Position::AtTimestamp);
            let state = next.pending.state().unwrap();
            assert_eq!((state.start, state.caught_up), (Some(T), Some(T)));
            assert_eq!((&next.owner, next.owner_switches), (&row.owner, 3));
            assert_eq!(l3_counter_raised_by_one(&row, &next), Ok(()));
            assert_eq!(c1_checkpoint_never_goes_back(&row, &next), Ok(()));
            assert_eq!(closed(&next, FixedStart::AtTimestamp(ArrivalMillis(9))), None, "it is fixed once");
            let next = closed(&row, FixedStart::TrimHorizon).unwrap();
            assert_eq!((next.checkpoint, next.pending.state().unwrap().start), (Position::TrimHorizon, None));
        }
    }

    #[test]
    fn a_place_in_the_shard_and_a_start_of_ours_stay() {
        let at = Position::At(SequenceNumber::parse("5").unwrap(), SubSequenceNumber(0));
        for checkpoint in [Position::TrimHorizon, at, Position::ShardEnd] {
            assert_eq!(closed(&kcl_row(checkpoint), FixedStart::AtTimestamp(T)), None);
        }
        let ours =
            Lease { pending: Pending::Ours(LeaseState::starting(Some(T))), ..kcl_row(Position::AtTimestamp) };
        assert_eq!(closed(&ours, FixedStart::TrimHorizon), None);
    }
}
