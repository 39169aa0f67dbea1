use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber, ShardId};

use super::*;

fn to(key: &str, units: f64) -> Vec<(String, f64)> {
    vec![(key.to_owned(), units)]
}

/// The rank of a batch of this age.
fn aged(arrival: i64) -> Rank {
    let first = SequenceNumber::parse("1").unwrap();
    Rank { arrival: ArrivalMillis(arrival), shard: ShardId::new("s"), first }
}

/// Asks for a batch, all of one age.
async fn admit<'s>(
    governor: &Governor,
    units: Vec<(String, f64)>,
    slots: &'s Semaphore,
) -> (Attempt, Option<SemaphorePermit<'s>>) {
    governor.admit(&aged(0), units, slots).await
}

fn slots() -> Semaphore {
    Semaphore::new(1)
}

fn answered(consumed: f64) -> Outcome {
    Outcome::Answered { consumed, left_over: Vec::new() }
}

fn firm(units: f64) -> Option<Share> {
    Some(Share { units, firm: true })
}

#[tokio::test(start_paused = true)]
async fn requests_go_at_the_rate_of_the_share_in_the_order_of_asking() {
    let governor = Governor::new(PaceOptions { key_units: 1e9, ..PaceOptions::default() });
    governor.set_share(firm(1_000.0));
    let begun = Instant::now();
    for _ in 0..100 {
        let attempt = admit(&governor, to("a", 50.0), &slots()).await.0;
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
    governor.set_share(firm(0.0));
    let slots = slots();
    let waiting = admit(&governor, to("a", 1.0), &slots);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_secs(3_600), &mut waiting).await.is_err());
    governor.set_share(firm(100.0));
    let begun = Instant::now();
    waiting.await;
    assert!(begun.elapsed() < Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_keeps_to_its_own_limit_and_others_pass_it() {
    let governor = Arc::new(Governor::new(PaceOptions::default()));
    governor.set_share(firm(100_000.0));
    let begun = Instant::now();
    let hot = async {
        for _ in 0..40 {
            let attempt = admit(&governor, to("hot", 100.0), &slots()).await.0;
            governor.settle(&attempt, answered(100.0));
        }
        begun.elapsed().as_secs_f64()
    };
    let others = async {
        for n in 0..40 {
            let attempt = admit(&governor, to(&format!("cold-{n}"), 100.0), &slots()).await.0;
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
    governor.set_share(firm(4_000.0));
    for _ in 0..9 {
        let attempt = admit(&governor, to("hot", 95.0), &slots()).await.0;
        governor.settle(&attempt, answered(95.0));
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    let attempt = admit(&governor, to("hot", 95.0), &slots()).await.0;
    governor.settle(&attempt, Outcome::Throttled(ThrottledBy::Unknown));
    assert_eq!(governor.learned_part(), 1.0);
    let attempt = admit(&governor, to("cold", 95.0), &slots()).await.0;
    governor.settle(&attempt, Outcome::Throttled(ThrottledBy::Unknown));
    assert!(governor.learned_part() < 1.0);
    let before = governor.standing().rate;
    let attempt = admit(&governor, to("cold", 1.0), &slots()).await.0;
    governor.settle(&attempt, Outcome::Unknown);
    assert!(governor.standing().rate >= before, "no answer says nothing of the rate");
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
    governor.set_share(firm(1_000.0));
    let slots = slots();
    let (_stuck, slot) = admit(&governor, to("a", 10.0), &slots).await;
    let waiting =
        futures::future::join_all((0..50).map(|n| admit(&governor, to(&format!("k{n}"), 10.0), &slots)));
    assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err());
    assert_eq!(governor.flow().attempted, 10.0);
    drop(slot);
    let begun = Instant::now();
    for n in 0..50 {
        drop(admit(&governor, to(&format!("k{n}"), 10.0), &slots).await);
    }
    assert!(begun.elapsed() >= Duration::from_millis(450), "at the rate, not at once");
}

/// Writes a batch of this age in requests of 10 units, two at a time as a delivery does; tells when it is done.
async fn write(governor: &Governor, slots: &Semaphore, arrival: i64, units: u32, begun: Instant) -> f64 {
    let rank = aged(arrival);
    let requests = futures::stream::iter(0..units / 10).map(async |_| {
        let (attempt, slot) = governor.admit(&rank, to(&format!("k{arrival}"), 10.0), slots).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(slot);
        governor.settle(&attempt, answered(10.0));
    });
    requests.buffer_unordered(2).collect::<Vec<()>>().await;
    begun.elapsed().as_secs_f64()
}

/// What item 5 is about: with a backlog the oldest are durable soon, and the last no later than before.
#[tokio::test(start_paused = true)]
async fn batches_of_a_backlog_are_written_one_after_the_other_the_oldest_first() {
    let governor = Governor::new(PaceOptions::default());
    governor.set_share(firm(500.0));
    let (slots, begun) = (Semaphore::new(2), Instant::now());
    // They do not come in the order of their age.
    let ages = [5, 2, 7, 0, 3, 6, 1, 4];
    let mut ended: Vec<(i64, f64)> = futures::future::join_all(
        ages.map(async |age| (age, write(&governor, &slots, age, 500, begun).await)),
    )
    .await;
    ended.sort_by_key(|(age, _)| *age);
    let each = write(&governor, &slots, 9, 500, Instant::now()).await;
    for ((_, at), place) in ended.iter().zip(1..) {
        let expected = each * f64::from(place);
        assert!((at - expected).abs() < 0.2, "number {place} after {at} s, not {expected}: {ended:?}");
    }
    // Side by side all of them would end at about 8 times what one takes.
    let mean = ended.iter().map(|(_, at)| at).sum::<f64>() / 8.0;
    assert!((mean / each - 4.5).abs() < 0.2, "{mean}");
}

#[tokio::test(start_paused = true)]
async fn an_older_batch_that_comes_later_goes_first_and_the_younger_one_ends_all_the_same() {
    let governor = Governor::new(PaceOptions::default());
    governor.set_share(firm(500.0));
    let (slots, begun) = (Semaphore::new(2), Instant::now());
    let younger = write(&governor, &slots, 9, 500, begun);
    let older = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        write(&governor, &slots, 1, 500, begun).await
    };
    let (younger, older) = tokio::join!(younger, older);
    assert!((1.4..1.65).contains(&older) && (2.0..2.2).contains(&younger), "{older}, {younger}");
}

/// The key of the oldest takes 950 units a second; the rest of the share is for the others, and nobody waits in vain.
#[tokio::test(start_paused = true)]
async fn the_oldest_batch_whose_key_is_full_leaves_the_rest_to_the_others() {
    let governor = Governor::new(PaceOptions::default());
    governor.set_share(firm(2_000.0));
    let (slots, begun) = (Semaphore::new(2), Instant::now());
    let oldest = write(&governor, &slots, 0, 1_900, begun);
    let others = futures::future::join_all((1..=4).map(|age| write(&governor, &slots, age, 450, begun)));
    let (oldest, others) = tokio::join!(oldest, others);
    assert!((1.9..2.2).contains(&oldest), "{oldest}");
    assert!(others.is_sorted() && others[3] < 2.0, "{others:?}");
}

/// Whose turn it is may be given up, or be somebody else's by the time there is a rate: neither may leave the others asleep.
#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_calls_the_next() {
    let governor = Governor::new(PaceOptions::default());
    governor.set_share(firm(0.0));
    let slots = Semaphore::new(1);
    let young = aged(5);
    let mut younger = Box::pin(governor.admit(&young, to("a", 1.0), &slots));
    assert!(futures::poll!(&mut younger).is_pending());
    let old = aged(1);
    let mut older = Box::pin(governor.admit(&old, to("a", 1.0), &slots));
    assert!(futures::poll!(&mut older).is_pending());
    governor.set_share(firm(100.0));
    let first = tokio::select! { biased; _ = &mut younger => 5, _ = &mut older => 1 };
    assert_eq!(first, 1);
    drop(older);
    tokio::time::timeout(Duration::from_secs(1), younger).await.unwrap();
    assert_eq!(governor.flow().attempts, 2);
    // The one whose turn it is goes away without writing.
    governor.set_share(firm(0.0));
    let mut older = Box::pin(governor.admit(&old, to("a", 1.0), &slots));
    assert!(futures::poll!(&mut older).is_pending());
    let mut younger = Box::pin(governor.admit(&young, to("a", 1.0), &slots));
    assert!(futures::poll!(&mut younger).is_pending());
    drop(older);
    governor.set_share(firm(100.0));
    tokio::time::timeout(Duration::from_secs(1), younger).await.unwrap();
}
