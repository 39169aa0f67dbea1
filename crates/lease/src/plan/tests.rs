use std::collections::BTreeSet;

use proptest::prelude::*;
use sluicegate_checkpoint::{LeaseState, Position, ShardId};

use super::*;
use crate::invariants;
use crate::model::{Lease, LeaseCounter};
use crate::view::WorkerView;

fn worker(health: Health) -> WorkerView {
    WorkerView { health, packing_versions: BTreeSet::from([1]), state_version: 1, address: None }
}

fn view(me: &str, workers: &[(&str, Health)], owners: &[Option<&str>]) -> FleetView {
    let workers = workers.iter().map(|(id, health)| (WorkerId::new(*id), worker(*health))).collect();
    let leases = owners.iter().enumerate().map(|(n, owner)| {
        let key = ShardId::new(format!("shardId-{n:012}"));
        let row = Lease::unowned(key.clone(), Position::TrimHorizon, LeaseState::starting(None));
        let row = Lease { owner: owner.map(WorkerId::new), counter: LeaseCounter(1), ..row };
        (key, LeaseView { row, owner_gone: false, free_rounds: 1 })
    });
    FleetView { me: WorkerId::new(me), leases: leases.collect(), workers }
}

/// Lets every worker act on the view once, as the tables would change.
fn one_round(view: &FleetView) -> (FleetView, usize) {
    let mut next = view.clone();
    let mut moves = 0;
    for me in view.workers.keys() {
        let mine = FleetView { me: me.clone(), ..view.clone() };
        let alive = view.workers[me].health != Health::Silent;
        for action in if alive { plan(&mine, &PlanPolicy::default()) } else { Vec::new() } {
            moves += 1;
            let (key, owner) = match action {
                LeaseAction::Take { key, .. } => (key, me.clone()),
                LeaseAction::HandOver { key, to } => (key, to),
            };
            if let Some(lease) = next.leases.get_mut(&key) {
                lease.row.owner = Some(owner);
            }
        }
    }
    (next, moves)
}

#[test]
fn one_worker_takes_everything_that_is_free() {
    let view = view("a", &[("a", Health::Active)], &[None; 4]);
    assert_eq!(plan(&view, &PlanPolicy::default()).len(), 4);
}

#[test]
fn a_silent_owner_loses_its_leases_and_a_draining_one_hands_over_itself() {
    let workers = [("a", Health::Active), ("b", Health::Silent), ("c", Health::Draining)];
    let fleet = view("a", &workers, &[Some("b"), Some("c")]);
    let key = |n: usize| ShardId::new(format!("shardId-{n:012}"));
    assert_eq!(
        plan(&fleet, &PlanPolicy::default()),
        vec![LeaseAction::Take { key: key(0), why: Free::Silent }]
    );
    let draining = FleetView { me: WorkerId::new("c"), ..fleet };
    let to = WorkerId::new("a");
    assert_eq!(plan(&draining, &PlanPolicy::default()), vec![LeaseAction::HandOver { key: key(1), to }]);
}

#[test]
fn a_newcomer_is_handed_its_share_and_no_more_moves_than_needed() {
    let fleet = view("a", &[("a", Health::Active), ("b", Health::Active)], &[Some("a"); 5]);
    let handed = plan(&fleet, &PlanPolicy::default());
    assert_eq!(handed.len(), 2, "{handed:?}");
    let newcomer = FleetView { me: WorkerId::new("b"), ..fleet };
    assert!(plan(&newcomer, &PlanPolicy::default()).is_empty(), "the live owner's leases are not taken");
}

#[test]
fn an_owner_without_a_row_keeps_its_lease_until_it_is_known_to_be_gone() {
    let mut fleet = view("a", &[("a", Health::Active)], &[Some("kcl")]);
    assert!(plan(&fleet, &PlanPolicy::default()).is_empty());
    fleet.leases.values_mut().for_each(|lease| lease.owner_gone = true);
    assert_eq!(plan(&fleet, &PlanPolicy::default()).len(), 1);
}

#[test]
fn a_lease_that_its_worker_does_not_fetch_is_anybodys_after_a_while() {
    let mut fleet = view("a", &[("a", Health::Active), ("b", Health::Active)], &[None; 2]);
    assert_eq!(plan(&fleet, &PlanPolicy::default()).len(), 1);
    fleet.leases.values_mut().for_each(|lease| lease.free_rounds = ROUNDS_BEFORE_ANYBODY_TAKES + 1);
    assert_eq!(plan(&fleet, &PlanPolicy::default()).len(), 2);
}

#[test]
fn a_free_lease_that_is_anothers_calls_for_another_look() {
    let two = [("a", Health::Active), ("b", Health::Active)];
    assert!(leaves_free(&view("a", &two, &[None; 2]), &PlanPolicy::default()));
    assert!(!leaves_free(&view("a", &two, &[Some("a"), Some("b")]), &PlanPolicy::default()));
    assert!(!leaves_free(&view("a", &two[..1], &[None; 2]), &PlanPolicy::default()));
    let bounded = PlanPolicy { max_leases_per_worker: Some(1) };
    assert!(
        !leaves_free(&view("a", &two[..1], &[Some("a"), None]), &bounded),
        "nobody may take it: no hurry"
    );
}

#[test]
fn the_bound_on_leases_leaves_the_rest_alone() {
    let fleet = view("a", &[("a", Health::Active)], &[None; 7]);
    let policy = PlanPolicy { max_leases_per_worker: Some(3) };
    assert_eq!(plan(&fleet, &policy).len(), 3);
}

fn any_view() -> impl Strategy<Value = FleetView> {
    let health =
        prop_oneof![3 => Just(Health::Active), 1 => Just(Health::Draining), 1 => Just(Health::Silent)];
    let workers = proptest::collection::vec(health, 0..8);
    let owners = proptest::collection::vec(proptest::option::of(0usize..9), 0..40);
    (workers, owners).prop_map(|(healths, owners)| {
        let ids: Vec<String> = (0..9).map(|n| format!("worker-{n}")).collect();
        let mut workers: Vec<(&str, Health)> =
            healths.iter().enumerate().map(|(n, health)| (ids[n].as_str(), *health)).collect();
        workers.push((ids[8].as_str(), Health::Active));
        let owners: Vec<Option<&str>> = owners.iter().map(|owner| owner.map(|n| ids[n].as_str())).collect();
        let mut fleet = view("worker-8", &workers, &owners);
        fleet.leases.values_mut().for_each(|lease| lease.owner_gone = true);
        fleet
    })
}

proptest! {
    /// B1, H1: one round balances, the next moves nothing.
    #[test]
    fn one_round_reaches_a_balanced_fixed_point(fleet in any_view()) {
        let (after, moves) = one_round(&fleet);
        prop_assert_eq!(invariants::h1_nothing_given_to_the_silent_or_draining(&fleet, &after), Ok(()));
        prop_assert_eq!(invariants::b1_balanced(&after), Ok(()));
        let (again, second) = one_round(&after);
        prop_assert_eq!(second, 0, "the second round moved something");
        prop_assert_eq!(&again, &after);
        prop_assert!(moves <= fleet.leases.len());
    }

    /// B2: what stays with a live owner within its share is not moved.
    #[test]
    fn moves_are_as_few_as_balance_allows(fleet in any_view()) {
        let (after, moves) = one_round(&fleet);
        prop_assert_eq!(invariants::b2_minimal(&fleet, &after, moves), Ok(()));
    }

    #[test]
    fn every_worker_computes_the_same_assignment(fleet in any_view()) {
        let mine = assign(&fleet, &PlanPolicy::default());
        for me in fleet.workers.keys() {
            let theirs = FleetView { me: me.clone(), ..fleet.clone() };
            prop_assert_eq!(&assign(&theirs, &PlanPolicy::default()), &mine);
        }
    }
}
