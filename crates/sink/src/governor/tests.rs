use std::sync::Arc;
use std::time::Duration;

use super::*;

fn to(key: &str, units: f64) -> Vec<(String, f64)> {
    vec![(key.to_owned(), units)]
}

fn slots() -> Semaphore {
    Semaphore::new(1)
}

fn answered(consumed: f64) -> Outcome {
    Outcome::Answered { consumed, unprocessed: 0.0 }
}

#[tokio::test(start_paused = true)]
async fn requests_go_at_the_rate_of_the_share_in_the_order_of_asking() {
    let governor = Governor::new(PaceOptions { key_units: 1e9, ..PaceOptions::default() });
    governor.set_share(Some(1_000.0));
    let begun = Instant::now();
    for _ in 0..100 {
        let attempt = governor.admit(to("a", 50.0), &slots()).await.0;
        governor.settle(&attempt, answered(50.0));
    }
    let took = begun.elapsed().as_secs_f64();
    assert!((4.9..=5.2).contains(&took), "{took} seconds for 5,000 units");
    let flow = governor.flow();
    assert_eq!((flow.attempted, flow.consumed, flow.throttled_attempts), (5_000.0, 5_000.0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_nothing_stops_and_a_new_one_wakes_who_waits() {
    let governor = Arc::new(Governor::new(PaceOptions::default()));
    governor.set_share(Some(0.0));
    let slots = slots();
    let waiting = governor.admit(to("a", 1.0), &slots);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_secs(3_600), &mut waiting).await.is_err());
    governor.set_share(Some(100.0));
    let begun = Instant::now();
    waiting.await;
    assert!(begun.elapsed() < Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_keeps_to_its_own_limit_and_others_pass_it() {
    let governor = Arc::new(Governor::new(PaceOptions::default()));
    governor.set_share(Some(100_000.0));
    let begun = Instant::now();
    let hot = async {
        for _ in 0..40 {
            let attempt = governor.admit(to("hot", 100.0), &slots()).await.0;
            governor.settle(&attempt, answered(100.0));
        }
        begun.elapsed().as_secs_f64()
    };
    let others = async {
        for n in 0..40 {
            let attempt = governor.admit(to(&format!("cold-{n}"), 100.0), &slots()).await.0;
            governor.settle(&attempt, answered(100.0));
        }
        begun.elapsed().as_secs_f64()
    };
    let (hot, others) = tokio::join!(hot, others);
    assert!((4.0..4.5).contains(&hot), "{hot} seconds for 4,000 units of one key");
    assert!(others < 0.2, "{others}");
}

#[tokio::test(start_paused = true)]
async fn what_throttles_a_hot_key_does_not_lower_the_rate_of_the_table() {
    let governor = Governor::new(PaceOptions::default());
    governor.set_share(Some(4_000.0));
    for _ in 0..9 {
        let attempt = governor.admit(to("hot", 95.0), &slots()).await.0;
        governor.settle(&attempt, answered(95.0));
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    let attempt = governor.admit(to("hot", 95.0), &slots()).await.0;
    governor.settle(&attempt, Outcome::Throttled);
    assert_eq!(governor.learned_part(), 1.0);
    let attempt = governor.admit(to("cold", 95.0), &slots()).await.0;
    governor.settle(&attempt, Outcome::Throttled);
    assert!(governor.learned_part() < 1.0);
    let before = governor.rate();
    let attempt = governor.admit(to("cold", 1.0), &slots()).await.0;
    governor.settle(&attempt, Outcome::Unknown);
    assert!(governor.rate() >= before, "no answer says nothing of the rate");
}

#[tokio::test(start_paused = true)]
async fn demand_is_what_is_consumed_and_what_waits() {
    let governor = Governor::new(PaceOptions::default());
    assert_eq!(governor.demand(), 0.0);
    let mut waiting = governor.wait_for(1_000.0);
    assert_eq!(governor.demand(), 500.0);
    waiting.done(400.0);
    assert_eq!(governor.demand(), 300.0);
    drop(waiting);
    assert_eq!(governor.demand(), 0.0);
}

/// While the table does not answer, all slots are taken, and what waits must not be charged: it would all be written at once
/// when the table is back.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_table_that_stands_still_is_not_charged() {
    let governor = Governor::new(PaceOptions::default());
    governor.set_share(Some(1_000.0));
    let slots = slots();
    let (_stuck, slot) = governor.admit(to("a", 10.0), &slots).await;
    let waiting =
        futures::future::join_all((0..50).map(|n| governor.admit(to(&format!("k{n}"), 10.0), &slots)));
    assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err());
    assert_eq!(governor.flow().attempted, 10.0);
    drop(slot);
    let begun = Instant::now();
    for n in 0..50 {
        drop(governor.admit(to(&format!("k{n}"), 10.0), &slots).await);
    }
    assert!(begun.elapsed() >= Duration::from_millis(450), "at the rate, not at once");
}
