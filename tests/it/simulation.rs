//! The simulation: seeds pass, one seed gives one history, and each planted bug is caught by the law that it breaks.

use std::time::Duration;

use sluicegate_tests::simulation::fleet::Plant;
use sluicegate_tests::simulation::poison::Poison;
use sluicegate_tests::simulation::rates::Judged;
use sluicegate_tests::simulation::script::{Act, Rates, Script};
use sluicegate_tests::simulation::{as_it_is, plants, run, run_script};

/// Seeds that the gate runs.
const SEEDS: u64 = 200;

#[test]
fn every_law_holds_in_every_history() {
    let mut judged = Judged::default();
    for seed in 0..SEEDS {
        let outcome = run(seed);
        assert!(outcome.broken.is_empty(), "{}", outcome.report());
        judged.add(outcome.judged);
    }
    // Nothing is proved by laws that are never judged.
    assert!(judged.table > 1_000 && judged.workers > 1_000 && judged.waits > 500, "{judged:?}");
}

#[test]
fn one_seed_gives_one_history() {
    for seed in [3, 17, 1_000_003] {
        let (first, second) = (run(seed), run_script(&Script::of(seed), &as_it_is));
        assert!(first.history.len() > 1_000, "{}", first.history);
        assert_eq!(first.history, second.history);
    }
}

/// A session that failed, whose lease was handed over before it had rested, began again; when the rest would have been
/// over, a second one began beside it. Each heard of the other's writes (R2).
#[test]
fn a_lease_has_one_session_at_a_time() {
    for seed in [39_692, 95_299] {
        let outcome = run_script(&Script::without_pressure(seed), &as_it_is);
        assert!(outcome.broken.is_empty(), "{}", outcome.report());
    }
}

/// The planted bug must break this law in one of the gate's seeds.
fn caught(law: &str, plant: &Plant) {
    caught_in(law, plant, |_| ());
}

/// The same, with scripts that give the bug its chance more often.
fn caught_in(law: &str, plant: &Plant, change: fn(&mut Script)) {
    let mut others = Vec::new();
    let found = (0..SEEDS).any(|seed| {
        let mut script = Script::of(seed);
        change(&mut script);
        let outcome = run_script(&script, plant);
        let found = outcome.broken.iter().any(|broken| broken.law == law);
        others.extend(outcome.broken.into_iter().map(|broken| (seed, broken)));
        found
    });
    assert!(found, "no seed below {SEEDS} breaks {law}; broken were {others:?}");
}

#[test]
fn q1_catches_a_refused_read_that_is_repeated_at_once() {
    caught("Q1", &plants::refused_reads_repeated_at_once);
}

#[test]
fn l1_catches_an_unconditional_commit() {
    caught("L1", &plants::unconditional_commit);
}

#[test]
fn d2_catches_a_delivery_before_its_announce() {
    caught("D2", &plants::delivery_before_announce);
}

#[test]
fn s1_catches_a_child_started_with_one_parent_unfinished() {
    caught("S1", &plants::one_parent);
}

#[test]
fn h3_catches_expiry_by_wall_clock() {
    caught("H3", &plants::expiry_by_wall_clock);
}

#[test]
fn d2_catches_a_worker_that_goes_on_after_losing_its_lease() {
    caught("D2", &plants::goes_on_after_a_loss);
}

#[test]
fn h4_catches_a_heartbeat_in_the_processing_loop() {
    caught("H4", &plants::heartbeat_in_the_processing_loop);
}

#[test]
fn d5_catches_a_position_resumed_at_its_last_record() {
    caught("D5", &plants::resumes_at_the_last_record);
}

#[test]
fn d5_catches_a_lost_sub_sequence() {
    caught("D5", &plants::loses_the_sub_sequence);
}

#[test]
fn d3_catches_an_unknown_outcome_judged_by_the_counter() {
    caught_in("D3", &plants::unknown_outcome_by_counter, cut_anew);
}

/// Many late requests, and batches that stay open for long: what is cut anew is another batch.
fn cut_anew(script: &mut Script) {
    script.rates.late = 200;
    for build in &mut script.builds {
        build.max_age = Duration::from_secs(3);
        build.max_records = 100;
    }
    let steadily = (0..60).map(|n| (Duration::from_millis(500 * n), Act::Publish(2)));
    script.acts.extend(steadily);
    script.acts.sort_by_key(|(at, _)| *at);
}

#[test]
fn l3_catches_a_commit_that_keeps_the_counter() {
    caught("L3", &plants::lone_commit_keeps_the_counter);
}

#[test]
fn c2_catches_acknowledgements_kept_over_an_adoption() {
    caught("C2", &plants::acknowledgements_outlive_the_session);
}

#[test]
fn c1_catches_a_taker_that_works_from_its_view() {
    caught("C1", &plants::works_from_the_view);
}

#[test]
fn d5_catches_a_hand_over_that_drops_cuts() {
    caught("D5", &plants::hand_over_drops_cuts);
}

#[test]
fn d5_catches_latest_opened_by_its_owner() {
    caught("D5", &plants::latest_opened_by_its_owner);
}

#[test]
fn s1_catches_a_parent_judged_gone_by_a_scan() {
    // A scan must take long enough for a parent's row and its child's to be made meanwhile.
    caught_in("S1", &plants::parent_gone_by_a_scan, |script| {
        script.latency = Duration::from_millis(400);
        let resharding = (0..40).map(|n| (Duration::from_millis(700 * u64::from(n)), Act::Merge(n)));
        let splitting = (0..40).map(|n| (Duration::from_millis(700 * u64::from(n) + 350), Act::Split(n)));
        script.acts.extend(resharding.chain(splitting));
        script.acts.sort_by_key(|(at, _)| *at);
    });
}

#[test]
fn d3_catches_redelivery_with_todays_parameters() {
    caught("D3", &plants::todays_parameters);
}

/// The same, where builds differ in their filters alone.
#[test]
fn d3_catches_redelivery_under_todays_filter() {
    caught_in("D3", &plants::todays_parameters, |script| {
        for (index, build) in script.builds.iter_mut().enumerate() {
            (build.aggregate_key, build.max_item_bytes) = ("partition-key", 4_096);
            build.filter = [None, Some("/n != 1"), Some("/n == 1 or /id < 50")][index % 3];
        }
    });
}

#[test]
fn s3_catches_a_deleted_row_made_again() {
    // Shards come and go, and rows of the old ones are deleted.
    caught_in("S3", &plants::deleted_row_made_again, |script| {
        let every = |ms: u64, act: fn(u32) -> Act| {
            (0..45u32).map(move |n| (Duration::from_millis(ms * u64::from(n)), act(n)))
        };
        script.acts.extend(every(3_000, Act::Split).chain(every(1_100, Act::DeleteRow)));
        script.acts.sort_by_key(|(at, _)| *at);
    });
}

/// A table that takes one event in ten never, and none of some keys.
fn poisoned(script: &mut Script) {
    script.poison = Some(Poison { seed: script.seed, one_event_in: 10, one_key_in: script.seed % 2 * 5 });
}

#[test]
fn every_law_holds_where_the_table_rejects_many_events() {
    let mut letters = 0;
    for seed in 0..60 {
        let mut script = Script::without_pressure(seed);
        poisoned(&mut script);
        let outcome = run_script(&script, &as_it_is);
        assert!(outcome.broken.is_empty(), "{}", outcome.report());
        letters += outcome.history.matches("puts the letter").count();
    }
    assert!(letters > 500, "{letters} letters");
}

#[test]
fn c2_catches_a_commit_before_its_letters() {
    caught_in("C2", &plants::letters_are_not_put, poisoned);
}

#[test]
fn d2_catches_halves_that_are_stored() {
    caught_in("D2", &plants::halves_are_stored, poisoned);
}

#[test]
fn k1_catches_a_record_that_leaks() {
    caught("K1", &plants::a_record_leaks);
}

#[test]
fn k2_catches_foreign_user_records_counted_as_nothing() {
    caught("K2", &plants::foreign_is_nothing);
}

#[test]
fn k2_catches_foreign_user_records_counted_as_filtered() {
    caught("K2", &plants::foreign_is_filtered);
}

#[test]
fn k2_catches_user_records_left_out_that_nobody_sends_again() {
    caught("K2", &plants::whatever_lies_outside_is_left_out);
}

#[test]
fn k2_catches_hash_keys_judged_on_a_stream_that_does_not_go_by_them() {
    caught("K2", &plants::hash_keys_are_always_judged);
}

#[test]
fn r6_catches_a_worker_that_crawls_after_a_refusal() {
    caught("R6", &plants::crawls_after_a_refusal);
}

#[test]
fn r7_catches_a_key_range_for_which_the_table_is_blamed() {
    caught("R7", &plants::the_table_is_blamed_for_a_key_range);
}

#[test]
fn f1_catches_a_worker_that_takes_more_than_its_share() {
    caught("F1", &plants::takes_more_than_its_share);
}

/// A fleet that nothing is done to, on a stream that keeps records for a few seconds.
fn quiet(seed: u64) -> Script {
    let mut script = Script::without_pressure(seed);
    script.retention = Some(Duration::from_secs(10));
    script.accept_gap = false;
    script.rates = Rates::default();
    script.calm_at = Duration::from_secs(60);
    script.acts = vec![
        (Duration::ZERO, Act::Publish(6)),
        (Duration::from_secs(1), Act::Join),
        (Duration::from_secs(1), Act::Join),
        (Duration::from_secs(5), Act::Publish(9)),
        (Duration::from_secs(20), Act::Split(0)),
        (Duration::from_secs(40), Act::Merge(0)),
    ];
    script
}

#[test]
fn a_quiet_shard_is_no_loss_and_forgotten_shards_leave_no_rows() {
    for seed in 0..10 {
        let outcome = run_script(&quiet(seed), &as_it_is);
        assert!(outcome.broken.is_empty(), "{}", outcome.report());
        assert!(!outcome.history.contains("records lost"), "{}", outcome.history);
        assert_eq!(outcome.losses, 0, "{}", outcome.history);
    }
}
