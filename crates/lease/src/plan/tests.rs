use std::collections::BTreeSet;

use proptest::prelude::*;
use sluicegate_checkpoint::{LeaseState, Position, ShardId};

use super::*;
use crate::invariants;
use crate::model::{Lease, LeaseCounter};
use crate::throughput::Throughput;
use crate::view::WorkerView;

fn worker(health: Health) -> WorkerView {
    let packing_versions = BTreeSet::from([1]);
    WorkerView { health, seen_alive: true, packing_versions, state_version: 1, address: None }
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

fn by_weight() -> PlanPolicy {
    PlanPolicy { weigh_by_throughput: true, ..PlanPolicy::default() }
}

/// Lets every worker act on the view once, as the tables would change.
fn one_round(view: &FleetView, policy: &PlanPolicy) -> (FleetView, usize) {
    let mut next = view.clone();
    let mut moves = 0;
    for me in view.workers.keys() {
        let mine = FleetView { me: me.clone(), ..view.clone() };
        let alive = view.workers[me].health != Health::Silent;
        for action in if alive { plan(&mine, policy) } else { Vec::new() } {
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
fn nothing_is_handed_to_a_worker_that_may_be_long_dead_but_it_counts() {
    let workers = [("a", Health::Active), ("ghost", Health::Active)];
    let mut fleet = view("a", &workers, &[Some("a"), Some("a"), Some("a"), None]);
    fleet.workers.get_mut(&WorkerId::new("ghost")).unwrap().seen_alive = false;
    assert_eq!(plan(&fleet, &PlanPolicy::default()), [], "no second lease is taken, and none given away");
    fleet.workers.get_mut(&WorkerId::new("ghost")).unwrap().seen_alive = true;
    assert!(matches!(plan(&fleet, &PlanPolicy::default())[..], [LeaseAction::HandOver { .. }]));
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
    let full = PlanPolicy { max_leases_per_worker: Some(1), ..PlanPolicy::default() };
    assert_eq!(plan(&fleet, &full).len(), 1, "also then nobody takes more than it may hold");
}

#[test]
fn a_free_lease_that_is_anothers_calls_for_another_look() {
    let two = [("a", Health::Active), ("b", Health::Active)];
    let left = |view: &FleetView, policy: &PlanPolicy| {
        left_free(view, policy).into_iter().map(|(_, to)| to.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(left(&view("a", &two, &[None; 2]), &PlanPolicy::default()), ["b"]);
    assert_eq!(left(&view("a", &two, &[Some("a"), Some("b")]), &PlanPolicy::default()), [""; 0]);
    assert_eq!(left(&view("a", &two[..1], &[None; 2]), &PlanPolicy::default()), [""; 0]);
    let bounded = PlanPolicy { max_leases_per_worker: Some(1), ..PlanPolicy::default() };
    let full = view("a", &two[..1], &[Some("a"), None]);
    assert_eq!(left(&full, &bounded), [""; 0], "nobody may take it: no hurry");
}

#[test]
fn the_bound_on_leases_leaves_the_rest_alone() {
    let fleet = view("a", &[("a", Health::Active)], &[None; 7]);
    for weigh_by_throughput in [false, true] {
        let policy = PlanPolicy { max_leases_per_worker: Some(3), weigh_by_throughput };
        assert_eq!(plan(&fleet, &policy).len(), 3);
    }
}

#[test]
fn a_fleet_that_is_one_worker_smaller_gives_most_leases_to_the_same_workers() {
    let ids: Vec<String> = (0..50).map(|n| format!("worker-{n}")).collect();
    let workers: Vec<(&str, Health)> = ids.iter().map(|id| (id.as_str(), Health::Active)).collect();
    let all = assign(&view("worker-0", &workers, &[None; 1_000]), &PlanPolicy::default());
    let fewer = assign(&view("worker-0", &workers[1..], &[None; 1_000]), &PlanPolicy::default());
    let moved = all.iter().filter(|(key, worker)| fewer[*key] != **worker).count();
    assert!(moved < 300, "{moved} of 1,000, where 20 must");
}

fn kilobytes(kilobytes: u64) -> Option<Throughput> {
    Some(Throughput::from_kilobytes(kilobytes))
}

/// Leases with these owners and kilobytes a second.
fn weighted(workers: &[(&str, Health)], leases: &[(Option<&str>, Option<u64>)]) -> FleetView {
    let owners: Vec<Option<&str>> = leases.iter().map(|(owner, _)| *owner).collect();
    let mut fleet = view(workers[0].0, workers, &owners);
    for (lease, (_, throughput)) in fleet.leases.values_mut().zip(leases) {
        lease.row.throughput = throughput.and_then(kilobytes);
    }
    fleet
}

/// Kilobytes a second and leases of each worker.
fn loads(fleet: &FleetView) -> BTreeMap<&str, (u64, usize)> {
    let mut loads: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for lease in fleet.leases.values() {
        let load = loads.entry(lease.row.owner.as_ref().map_or("", WorkerId::as_str)).or_default();
        load.0 += lease.row.throughput.map_or(0, Throughput::micros) / 1_000_000;
        load.1 += 1;
    }
    loads
}

const TWO: [(&str, Health); 2] = [("a", Health::Active), ("b", Health::Active)];

#[test]
fn by_weight_a_hot_shard_is_alone_and_quiet_ones_are_shared_out() {
    let mut leases = vec![(None, Some(1_000)); 1];
    leases.extend([(None, Some(50)); 20]);
    let (after, _) = one_round(&weighted(&TWO, &leases), &by_weight());
    let loads = loads(&after);
    assert_eq!(loads.values().map(|load| load.0).sum::<u64>(), 2_000);
    let hot = after.leases.values().next().and_then(|lease| lease.row.owner.clone()).unwrap();
    assert!(loads[hot.as_str()].1 <= 5, "{loads:?}");
    let quiet = weighted(&TWO, &[(None, Some(0)); 21]);
    let (after, _) = one_round(&quiet, &by_weight());
    assert_eq!(invariants::b1_balanced(&after), Ok(()));
}

#[test]
fn a_lease_of_unknown_weight_weighs_as_the_mean() {
    let fleet = weighted(&TWO, &[(None, Some(10)), (None, Some(30)), (None, None)]);
    let idle = IDLE_LEASE.micros();
    let mut found: Vec<u64> =
        weights(&fleet).into_values().map(|weight| (weight - idle) / 1_000_000).collect();
    found.sort_unstable();
    assert_eq!(found, [10, 20, 30]);
    assert!(weights(&weighted(&TWO, &[(None, None); 2])).values().all(|weight| *weight == idle));
}

#[test]
fn by_weight_nothing_moves_until_a_worker_is_off_by_more_than_the_largest_lease() {
    let fleet = |a: u64| {
        let mut leases = vec![(Some("a"), Some(a)); 10];
        leases.extend([(Some("b"), Some(84)); 10]);
        weighted(&TWO, &leases)
    };
    // A lease of 84 weighs 100; b's ten weigh 1,000.
    for (a, moves) in [(84, 0), (100, 0), (104, 0), (112, 1), (184, 2)] {
        let (after, moved) = one_round(&fleet(a), &by_weight());
        assert_eq!(moved, moves, "{a}");
        assert_eq!(invariants::b1w_balanced_by_weight(&after), Ok(()));
    }
}

#[test]
fn by_weight_a_newcomer_is_handed_its_share_and_no_more() {
    let ids = ["a", "b", "c", "d", "e"].map(|id| (id, Health::Active));
    let leases: Vec<_> = (0..100).map(|n| (Some(ids[n % 4].0), Some(100))).collect();
    let (after, moved) = one_round(&weighted(&ids, &leases), &by_weight());
    assert_eq!((moved, loads(&after)["e"].1), (20, 20));
}

#[test]
fn noise_around_a_level_moves_nothing() {
    let leases: Vec<_> = (0..200u64).map(|n| (None, Some(20 + n * n % 900))).collect();
    let (mut fleet, _) = one_round(&weighted(&TWO, &leases), &by_weight());
    let levels: Vec<Throughput> = fleet.leases.values().filter_map(|lease| lease.row.throughput).collect();
    for round in 0..100u64 {
        for (n, (lease, level)) in fleet.leases.values_mut().zip(&levels).enumerate() {
            let percent = 80 + tie(&round.to_string(), &n.to_string()) % 41;
            let measured = kilobytes(level.micros() / 1_000_000 * percent / 100);
            lease.row = lease.row.clone().measured(measured);
        }
        assert_eq!(one_round(&fleet, &by_weight()).1, 0, "round {round}");
    }
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

fn any_weighted_view() -> impl Strategy<Value = FleetView> {
    let throughput = prop_oneof![
        1 => Just(None),
        2 => Just(Some(0u64)),
        4 => (0u64..200).prop_map(Some),
        1 => (0u64..2_000).prop_map(Some),
    ];
    (any_view(), proptest::collection::vec(throughput, 40)).prop_map(|(mut fleet, throughputs)| {
        for (lease, throughput) in fleet.leases.values_mut().zip(throughputs) {
            lease.row.throughput = throughput.and_then(kilobytes);
        }
        fleet
    })
}

/// How far the worker that is furthest from the mean weight is from it, as a part of what is allowed.
fn furthest_from_the_mean(fleet: &FleetView) -> f64 {
    let weights = weights(fleet);
    let float = |weight: u64| f64::from(u32::try_from(weight / 1_000).unwrap());
    let of = |id: &WorkerId| {
        let mine = fleet.leases.iter().filter(|(_, lease)| lease.row.owner.as_ref() == Some(id));
        mine.map(|(key, _)| float(weights[key])).sum::<f64>()
    };
    let active = fleet.workers.iter().filter(|(_, worker)| is_active(worker));
    let loads: Vec<f64> = active.map(|(id, _)| of(id)).collect();
    let mean = loads.iter().sum::<f64>() / f64::from(u32::try_from(loads.len()).unwrap());
    let largest = weights.values().copied().map(float).fold(0.0, f64::max);
    let off = loads.iter().map(|load| (load - mean).abs()).fold(0.0, f64::max);
    off / largest.min(mean / 4.0)
}

/// What all workers would do with the same view.
fn all_actions(fleet: &FleetView, policy: &PlanPolicy) -> Vec<(WorkerId, LeaseAction)> {
    let of = |me: &WorkerId| {
        let mine = FleetView { me: me.clone(), ..fleet.clone() };
        plan(&mine, policy).into_iter().map(|action| (me.clone(), action)).collect::<Vec<_>>()
    };
    fleet.workers.keys().flat_map(of).collect()
}

proptest! {
    /// B1w, H1: one round balances weights, the next moves nothing.
    #[test]
    fn by_weight_one_round_reaches_a_balanced_fixed_point(fleet in any_weighted_view()) {
        let (after, _) = one_round(&fleet, &by_weight());
        prop_assert_eq!(invariants::h1_nothing_given_to_the_silent_or_draining(&fleet, &after), Ok(()));
        prop_assert_eq!(invariants::b1w_balanced_by_weight(&after), Ok(()));
        prop_assert_eq!(one_round(&after, &by_weight()), (after, 0));
    }

    /// B2, by weight: what is in balance and held by the living does not move, whatever it weighs.
    #[test]
    fn by_weight_nothing_moves_that_balance_did_not_need(
        fleet in any_weighted_view(),
        percents in proptest::collection::vec(60u64..140, 40),
    ) {
        let (mut after, _) = one_round(&fleet, &by_weight());
        for (lease, percent) in after.leases.values_mut().zip(percents) {
            let noisy = |it: Throughput| kilobytes(it.micros() * percent / 100_000_000);
            lease.row.throughput = lease.row.throughput.and_then(noisy);
        }
        let (again, moves) = one_round(&after, &by_weight());
        prop_assert!(moves == 0 || furthest_from_the_mean(&after) > 1.0);
        prop_assert_eq!(invariants::b1w_balanced_by_weight(&again), Ok(()));
    }

    /// H3: two workers that see the same never want the same lease, and nobody takes from the living.
    #[test]
    fn actions_on_the_same_view_never_conflict(
        fleet in any_weighted_view(),
        weigh_by_throughput in any::<bool>(),
        max_leases_per_worker in proptest::option::of(1usize..6),
    ) {
        let policy = PlanPolicy { max_leases_per_worker, weigh_by_throughput };
        let mut seen = BTreeSet::new();
        for (me, action) in all_actions(&fleet, &policy) {
            let (LeaseAction::Take { key, .. } | LeaseAction::HandOver { key, .. }) = &action;
            prop_assert!(seen.insert(key.clone()), "{key} twice");
            let lease = &fleet.leases[key];
            match &action {
                LeaseAction::Take { .. } => prop_assert!(fleet.free(lease).is_some()),
                LeaseAction::HandOver { to, .. } => {
                    prop_assert_eq!(lease.row.owner.as_ref(), Some(&me));
                    prop_assert!(*to != me && fleet.workers[to].health == Health::Active);
                }
            }
        }
    }

    /// The bound holds for both kinds of balance, and what it leaves over is left alone.
    #[test]
    fn the_bound_holds_and_is_a_fixed_point(
        fleet in any_weighted_view(),
        weigh_by_throughput in any::<bool>(),
        most in 1usize..8,
    ) {
        let policy = PlanPolicy { max_leases_per_worker: Some(most), weigh_by_throughput };
        let (after, _) = one_round(&fleet, &policy);
        let mut held: BTreeMap<WorkerId, usize> = BTreeMap::new();
        for worker in assign(&fleet, &policy).into_values() {
            *held.entry(worker).or_default() += 1;
        }
        prop_assert!(held.values().all(|count| *count <= most), "{held:?}");
        let active = fleet.workers.values().filter(|worker| is_active(worker)).count();
        let eligible = fleet.leases.len();
        prop_assert_eq!(held.values().sum::<usize>(), eligible.min(active * most));
        prop_assert_eq!(all_actions(&after, &policy).len(), 0);
    }

    /// B1, H1: one round balances, the next moves nothing.
    #[test]
    fn one_round_reaches_a_balanced_fixed_point(fleet in any_view()) {
        let (after, moves) = one_round(&fleet, &PlanPolicy::default());
        prop_assert_eq!(invariants::h1_nothing_given_to_the_silent_or_draining(&fleet, &after), Ok(()));
        prop_assert_eq!(invariants::b1_balanced(&after), Ok(()));
        let (again, second) = one_round(&after, &PlanPolicy::default());
        prop_assert_eq!(second, 0, "the second round moved something");
        prop_assert_eq!(&again, &after);
        prop_assert!(moves <= fleet.leases.len());
    }

    /// B2: what stays with a live owner within its share is not moved.
    #[test]
    fn moves_are_as_few_as_balance_allows(fleet in any_view()) {
        let (after, moves) = one_round(&fleet, &PlanPolicy::default());
        prop_assert_eq!(invariants::b2_minimal(&fleet, &after, moves), Ok(()));
    }

    #[test]
    fn every_worker_computes_the_same_assignment(fleet in any_weighted_view()) {
        for policy in [PlanPolicy::default(), by_weight()] {
            let mine = assign(&fleet, &policy);
            for me in fleet.workers.keys() {
                let theirs = FleetView { me: me.clone(), ..fleet.clone() };
                prop_assert_eq!(&assign(&theirs, &policy), &mine);
            }
        }
    }
}
