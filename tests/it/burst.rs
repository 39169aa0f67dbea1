//! A burst of twenty times what the table takes, in small: on both ways nothing is lost that was accepted, and packed events
//! cost several times fewer write units.

use std::time::Duration;

use sluicegate_tests::measure::burst::{BurstPlan, Outcome, run};

fn plan() -> BurstPlan {
    BurstPlan {
        table_wcu: 50,
        times: 20,
        lead: Duration::ZERO,
        lasts: Duration::from_secs(3),
        shards: 2,
        keys_per_shard: 2,
        workers: 2,
        queue: 100,
        settings: [("max_item_bytes", "64KiB"), ("max_batch_age", "1s"), ("idle_read_interval", "100ms")]
            .map(|(name, value)| (name, value.to_owned()))
            .to_vec(),
    }
}

fn assert_adds_up(outcome: &Outcome) {
    assert_eq!(outcome.offered, 3_000, "{outcome:?}");
    assert_eq!(outcome.stored + outcome.dropped, outcome.offered, "{outcome:?}");
    assert_eq!((outcome.lost(), outcome.duplicated), (0, 0), "{outcome:?}");
    assert_eq!(outcome.course.offered(), outcome.offered, "{outcome:?}");
    assert_eq!(outcome.course.0.last().map(|moment| (moment.backlog, moment.age)), Some((0, 0.0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_stored_whole_at_a_fraction_of_the_write_units() -> anyhow::Result<()> {
    let plan = plan();
    let report = run(&plan, "burst", |_| ()).await?;
    assert_adds_up(&report.without);
    assert_adds_up(&report.with);
    assert_eq!(report.with.dropped, 0);

    // An event costs a unit where it is an item of its own, and the table throttles what comes too fast.
    let (without, with) = (&report.without.course, &report.with.course);
    let units = |outcome: &Outcome| {
        anyhow::Ok(outcome.course.write_units() / f64::from(u32::try_from(outcome.stored)?))
    };
    assert!(report.without.dropped > 0 && without.throttled_units() > 0.0, "{without:?}");
    assert!((units(&report.without)? - 1.0).abs() < 0.01, "{without:?}");
    assert!(units(&report.with)? < 0.25, "{with:?}");

    let picture = report.picture(&plan);
    for text in
        ["Straight to the table", "With Sluicegate in between", "A burst of 20 times", "3,000 JSON events"]
    {
        assert!(picture.contains(text), "{text}");
    }
    let json = report.json(&plan);
    assert_eq!(json["with"]["stored"], 3_000);
    assert_eq!(json["without"]["dropped"], report.without.dropped);
    Ok(())
}
