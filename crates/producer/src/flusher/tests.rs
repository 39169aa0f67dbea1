//! The flusher on a paused clock, fed by hand.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::entry::{LineError, LineFault};
use crate::memory::{Fault, MemoryStream};
use crate::summary::Progress;
use crate::writer::{PutError, StreamWriter};

const LATENCY: Duration = Duration::from_millis(20);

fn options() -> PublishOptions {
    PublishOptions::new(SmallRng::seed_from_u64(7))
}

fn entries(numbers: std::ops::Range<usize>) -> Vec<Entry> {
    let entry = |number: usize| Entry { key: "k".to_owned(), data: Bytes::from(format!("{number}")) };
    numbers.map(entry).collect()
}

fn chunk(numbers: std::ops::Range<usize>) -> FromInput {
    FromInput::Chunk { entries: entries(numbers), seen: Summary::default() }
}

fn flusher(stream: &Arc<MemoryStream>, options: &PublishOptions) -> Flusher {
    let delivery = Delivery {
        writer: Arc::clone(stream) as Arc<dyn StreamWriter>,
        retry: options.retry,
        give_up_after: options.give_up_after,
        progress: Arc::new(Progress::default()),
        stop: CancellationToken::new(),
        abandon: CancellationToken::new(),
    };
    Flusher::new(options, delivery)
}

/// Publishes `records` records in chunks of 500, then ends the input.
async fn publish(
    stream: &Arc<MemoryStream>,
    options: &PublishOptions,
    records: usize,
    end: InputEnd,
) -> (Summary, Option<PublishFault>) {
    let (sender, receiver) = mpsc::channel(1);
    let feed = async move {
        for begin in (0..records).step_by(500) {
            sender.send(chunk(begin..records.min(begin + 500))).await.ok();
        }
        sender.send(FromInput::End(end)).await.ok();
    };
    let stop = CancellationToken::new();
    let ((), ended) = tokio::join!(feed, flusher(stream, options).run(receiver, &stop));
    ended
}

/// How often each record was stored.
fn copies(stream: &MemoryStream) -> BTreeMap<usize, usize> {
    let mut copies = BTreeMap::new();
    for entry in stream.stored() {
        let number = std::str::from_utf8(&entry.data).unwrap().parse().unwrap();
        *copies.entry(number).or_default() += 1;
    }
    copies
}

fn once_each(records: usize) -> BTreeMap<usize, usize> {
    (0..records).map(|number| (number, 1)).collect()
}

#[tokio::test(start_paused = true)]
async fn partial_failures_are_retried_until_every_record_is_stored_once() {
    let script =
        [Fault::FailEvery(2), Fault::FailEvery(3), Fault::FailEvery(1), Fault::Throttle, Fault::Unreachable];
    let stream = Arc::new(MemoryStream::new(LATENCY, script));
    let (summary, fault) = publish(&stream, &options(), 1_234, InputEnd::Finished).await;
    assert!(fault.is_none(), "{fault:?}");
    assert_eq!(copies(&stream), once_each(1_234));
    assert_eq!((summary.records, summary.retries, summary.unknown_outcomes), (1_234, 5, 0));
    let bytes: usize = entries(0..1_234).iter().map(|entry| entry.data.len()).sum();
    assert_eq!(summary.bytes, u64::try_from(bytes).unwrap());
}

#[tokio::test(start_paused = true)]
async fn lost_answers_are_counted_and_may_store_twice() {
    let stream = Arc::new(MemoryStream::new(LATENCY, [Fault::LoseAnswer, Fault::LoseRequest]));
    let (summary, fault) = publish(&stream, &options(), 1_500, InputEnd::Finished).await;
    assert!(fault.is_none(), "{fault:?}");
    assert_eq!((summary.records, summary.unknown_outcomes, summary.retries), (1_500, 2, 2));
    let copies = copies(&stream);
    assert_eq!(copies.len(), 1_500);
    assert_eq!(copies.values().filter(|count| **count == 2).count(), 500);
}

#[tokio::test(start_paused = true)]
async fn never_more_requests_are_in_flight_than_asked_for() {
    for concurrency in [1, 3] {
        let stream = Arc::new(MemoryStream::new(LATENCY, [Fault::Throttle; 5]));
        let concurrency = NonZeroUsize::new(concurrency).unwrap();
        let options = PublishOptions { concurrency, ..options() };
        publish(&stream, &options, 10_000, InputEnd::Finished).await;
        assert_eq!(stream.most_in_flight(), concurrency.get());
        assert_eq!(copies(&stream), once_each(10_000));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_stream_stops_the_reading() {
    let stream = Arc::new(MemoryStream::always(LATENCY, Fault::Throttle));
    let (sender, receiver) = mpsc::channel(2);
    let stop = CancellationToken::new();
    let feed = async {
        let mut taken = 0;
        while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(60), sender.send(chunk(0..500))).await
        {
            taken += 1;
        }
        stop.cancel();
        taken
    };
    let (taken, _) = tokio::join!(feed, flusher(&stream, &options()).run(receiver, &stop));
    // 4 in flight, 1 ready, 1 being collected, 2 in the channel.
    assert_eq!(taken, 8);
}

#[tokio::test(start_paused = true)]
async fn a_slow_input_is_published_when_it_has_lingered() {
    let stream = Arc::new(MemoryStream::new(LATENCY, []));
    let (sender, receiver) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let feed = async {
        sender.send(chunk(0..1)).await.unwrap();
        sender.send(chunk(1..3)).await.unwrap();
        tokio::time::sleep(LINGER + LATENCY * 2).await;
        assert_eq!(stream.stored().len(), 3);
        sender.send(FromInput::End(InputEnd::Finished)).await.unwrap();
    };
    tokio::join!(feed, flusher(&stream, &options()).run(receiver, &stop));
    assert_eq!(stream.request_records(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_stream_gets_full_requests() {
    let stream = Arc::new(MemoryStream::new(LINGER * 20, []));
    let (sender, receiver) = mpsc::channel(2);
    let stop = CancellationToken::new();
    let feed = async {
        for begin in (0..12_000).step_by(200) {
            sender.send(chunk(begin..begin + 200)).await.unwrap();
        }
        sender.send(FromInput::End(InputEnd::Finished)).await.unwrap();
    };
    tokio::join!(feed, flusher(&stream, &options()).run(receiver, &stop));
    assert_eq!(stream.request_records(), [500; 24]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_succeed_ends_the_publishing_at_once() {
    let stream = Arc::new(MemoryStream::new(LATENCY, [Fault::None, Fault::NotFound, Fault::Throttle]));
    let (summary, fault) = publish(&stream, &options(), 100_000, InputEnd::Finished).await;
    assert!(matches!(fault, Some(PublishFault::Put(PutError::StreamNotFound { .. }))), "{fault:?}");
    // The 2nd request failed: of those in flight by then the 3rd had no second attempt, and few came after.
    assert_eq!(summary.retries, 0);
    assert!((1_000..=2_000).contains(&summary.records), "{}", summary.records);
    assert_eq!(u64::try_from(copies(&stream).len()).unwrap(), summary.records);
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_only_when_nothing_has_been_stored_for_the_time_allowed() {
    let after = Duration::from_secs(30);
    let options = PublishOptions { give_up_after: Some(after), ..options() };
    let started = Instant::now();
    let stream = Arc::new(MemoryStream::always(LATENCY, Fault::Throttle));
    let (summary, fault) = publish(&stream, &options, 10, InputEnd::Finished).await;
    assert!(matches!(fault, Some(PublishFault::GaveUp { .. })), "{fault:?}");
    assert_eq!(summary.records, 0);
    assert!((after / 2..after * 2).contains(&started.elapsed()), "{:?}", started.elapsed());

    // A quarter of what is left is stored each time: slow, but never idle for long.
    let stream = Arc::new(MemoryStream::new(after / 3, [Fault::FailEvery(2); 9]));
    let (summary, fault) = publish(&stream, &options, 500, InputEnd::Finished).await;
    assert!(fault.is_none(), "{fault:?}");
    assert_eq!(summary.records, 500);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_attempts_in_flight_and_starts_no_others() {
    let stream = Arc::new(MemoryStream::new(Duration::from_secs(1), []));
    let stop = CancellationToken::new();
    let (sender, receiver) = mpsc::channel(1);
    let feed = async {
        for begin in (0..2_000).step_by(500) {
            sender.send(chunk(begin..begin + 500)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.cancel();
        sender.closed().await;
    };
    let ((), (summary, fault)) = tokio::join!(feed, flusher(&stream, &options()).run(receiver, &stop));
    assert!(matches!(fault, Some(PublishFault::Stopped)), "{fault:?}");
    assert_eq!((summary.records, summary.unknown_outcomes), (2_000, 0));
}

#[tokio::test(start_paused = true)]
async fn attempts_that_outlast_a_stop_are_left_and_counted_as_unknown() {
    let stream = Arc::new(MemoryStream::new(Duration::from_secs(3_600), []));
    let stop = CancellationToken::new();
    let (sender, receiver) = mpsc::channel(1);
    let feed = async {
        sender.send(chunk(0..10)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
    };
    let started = Instant::now();
    let ((), (summary, _)) = tokio::join!(feed, flusher(&stream, &options()).run(receiver, &stop));
    assert_eq!((summary.records, summary.unknown_outcomes), (0, 1));
    assert!(started.elapsed() <= Duration::from_secs(1) + STOP_GRACE);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_line_fails_only_after_everything_before_it_is_stored() {
    let stream = Arc::new(MemoryStream::new(LATENCY, [Fault::FailEvery(2)]));
    let error = LineError { line: 701, fault: LineFault::TooLong { max_bytes: 8 } };
    let (summary, fault) = publish(&stream, &options(), 700, InputEnd::Invalid(error)).await;
    assert!(matches!(fault, Some(PublishFault::Line(LineError { line: 701, .. }))), "{fault:?}");
    assert_eq!((summary.records, copies(&stream)), (700, once_each(700)));
}

#[tokio::test(start_paused = true)]
async fn a_dead_input_thread_is_an_error_and_not_an_end() {
    let stream = Arc::new(MemoryStream::new(LATENCY, []));
    let (sender, receiver) = mpsc::channel(1);
    sender.send(chunk(0..10)).await.unwrap();
    drop(sender);
    let (summary, fault) = flusher(&stream, &options()).run(receiver, &CancellationToken::new()).await;
    assert!(matches!(fault, Some(PublishFault::InputLost)), "{fault:?}");
    assert_eq!(summary.records, 10);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept() {
    let stream = Arc::new(MemoryStream::new(LATENCY, []));
    let options = PublishOptions { events_per_second: NonZeroU32::new(100), ..options() };
    let started = Instant::now();
    publish(&stream, &options, 1_000, InputEnd::Finished).await;
    assert!((9.8..10.2).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
    assert!(stream.request_records().iter().all(|records| *records == 10));
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::None),
        Just(Fault::Throttle),
        Just(Fault::Unreachable),
        Just(Fault::LoseRequest),
        (0_usize..4).prop_map(Fault::FailEvery),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_fails_every_record_is_stored_once_and_the_same_seed_does_the_same(
        script in prop::collection::vec(any_fault(), 0..40), records in 0_usize..3_000, concurrency in 1_usize..6,
    ) {
        let run = || {
            let stream = Arc::new(MemoryStream::new(LATENCY, script.clone()));
            let concurrency = NonZeroUsize::new(concurrency).unwrap();
            let options = PublishOptions { concurrency, ..options() };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let ended = runtime.block_on(publish(&stream, &options, records, InputEnd::Finished));
            (stream, ended)
        };
        let (stream, (summary, fault)) = run();
        prop_assert!(fault.is_none());
        prop_assert_eq!(copies(&stream), once_each(records));
        prop_assert_eq!(summary.records, u64::try_from(records).unwrap());
        prop_assert!(stream.most_in_flight() <= concurrency);
        let (again, (summary_again, _)) = run();
        prop_assert_eq!(stream.stored(), again.stored());
        prop_assert_eq!(summary, summary_again);
    }
}
