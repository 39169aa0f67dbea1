//! The simulation's second tier, with the real SDK and adapters: seeds pass, one seed gives one history, and bugs that
//! only this tier can show are caught by the law that they break.

use std::time::Duration;

use sluicegate_tests::simulation::as_it_is;
use sluicegate_tests::simulation::fleet::Plant;
use sluicegate_tests::simulation::poison::Poison;
use sluicegate_tests::simulation::wire::{Bend, Wiring, plants, run_wire, run_wire_script, script};

/// Seeds that the gate runs.
const SEEDS: u64 = 6;
/// Seeds within which a planted bug must be caught.
const PLANTED_SEEDS: u64 = 40;

#[test]
fn every_law_holds_over_the_wire() {
    let failed = (0..SEEDS).map(run_wire).find(|outcome| !outcome.broken.is_empty());
    if let Some(outcome) = failed {
        panic!("{}", outcome.report());
    }
}

#[test]
fn every_law_holds_over_the_wire_where_the_table_rejects_many_events() {
    let mut letters = 0;
    for seed in 0..3 {
        let mut script = script(seed);
        script.poison = Some(Poison { seed, one_event_in: 8, one_key_in: 0 });
        let outcome = run_wire_script(&script, &Wiring::of(seed), &as_it_is);
        assert!(outcome.broken.is_empty(), "{}", outcome.report());
        letters += outcome.history.matches("puts the letter").count();
    }
    assert!(letters > 10, "{letters} letters");
}

/// A worker whose listing is older than a split must not take the new shard for one that is gone.
#[test]
fn a_parent_that_an_old_listing_does_not_name_is_not_gone() {
    let outcome = run_wire(13);
    assert!(outcome.broken.is_empty(), "{}", outcome.report());
}

/// Rows that were on their way while the reader stood still say nothing of the time since they were asked for.
#[test]
fn a_worker_that_wakes_judges_silence_by_when_it_asked() {
    let outcome = run_wire(51);
    assert!(outcome.broken.is_empty(), "{}", outcome.report());
}

#[test]
fn one_seed_gives_one_history_over_the_wire_on_any_thread() {
    let first = run_wire(3);
    let again = run_wire(3);
    let Ok(elsewhere) = std::thread::spawn(|| run_wire(3)).join() else { panic!("it ended") };
    assert!(first.history.len() > 1_000, "{}", first.history);
    assert_eq!(first.history, again.history);
    assert_eq!(first.history, elsewhere.history);
    assert_eq!((first.took, first.faults), (elsewhere.took, elsewhere.faults));
}

/// The planted bug must break this law in one of a few seeds.
fn caught(law: &str, change: fn(Wiring) -> Wiring, plant: &Plant) {
    let mut others = Vec::new();
    let found = (0..PLANTED_SEEDS).any(|seed| {
        let outcome = run_wire_script(&script(seed), &change(Wiring::of(seed)), plant);
        let found = outcome.broken.iter().any(|broken| broken.law == law);
        others.extend(outcome.broken.into_iter().map(|broken| (seed, broken)));
        found
    });
    assert!(found, "no seed below {PLANTED_SEEDS} breaks {law}; broken were {others:?}");
}

fn caught_plant(law: &str, plant: &Plant) {
    caught(law, |wiring| wiring, plant);
}

fn bent(wiring: Wiring, bend: Bend) -> Wiring {
    Wiring { bend: Some(bend), ..wiring }
}

#[test]
fn r2_catches_retries_of_the_sdk_that_hide_an_unknown_outcome() {
    caught("R2", |wiring| Wiring { attempts: 3, ..wiring }, &as_it_is);
}

#[test]
fn r2_catches_a_failure_of_the_service_that_counts_as_a_refusal() {
    caught_plant("R2", &plants::failure_is_a_refusal);
}

#[test]
fn r3_catches_reads_that_are_not_strongly_consistent() {
    caught("R3", |wiring| bent(wiring, plants::without_strong_reads), &as_it_is);
}

#[test]
fn l3_catches_lease_writes_without_their_condition() {
    caught("L3", |wiring| bent(wiring, plants::without_condition), &as_it_is);
}

#[test]
fn d5_catches_an_iterator_that_goes_on_at_the_tip() {
    /// Iterators expire between two reads of an idle shard, so that many are taken anew.
    fn expiring(wiring: Wiring) -> Wiring {
        let wiring = Wiring { iterator_lifetime: Duration::from_millis(500), ..wiring };
        bent(wiring, plants::goes_on_at_the_tip)
    }
    caught("D5", expiring, &as_it_is);
}

#[test]
fn d2_catches_arrival_times_that_are_cut_off() {
    caught_plant("D2", &plants::truncates_arrivals);
}

#[test]
fn c2_catches_unprocessed_items_that_count_as_stored() {
    caught_plant("C2", &plants::unprocessed_is_stored);
}
