use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;

use sluicegate_checkpoint::progress::Always;
use sluicegate_checkpoint::{Exclusion, PackingParameters, SubSequenceNumber};

use super::*;
use crate::governor::pace::Share;
use crate::memory::MemoryTable;
use crate::offload::Inline;
use crate::sink::Offender;
use crate::store::Cause;
use crate::testing::{Switch, batch, event, sequence, with_parameters};

/// What a scripted table answers next.
enum Answer {
    Unprocessed(Vec<usize>),
    Fail(fn(Cause) -> StoreError),
    After(Duration),
    Never,
}

/// A table that answers by script, then takes everything; it notes when it was asked for what.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    poison: Option<&'static str>,
    asked: Mutex<Vec<(Instant, Vec<String>)>>,
    spread_asked: Mutex<Vec<u32>>,
    stored: MemoryTable,
}

impl Scripted {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    fn requests(&self) -> Vec<Vec<String>> {
        self.asked.lock().unwrap().iter().map(|(_, keys)| keys.clone()).collect()
    }
}

#[async_trait]
impl ItemWriter for Scripted {
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError> {
        let keys: Vec<String> = items.iter().map(|item| item.header.partition.to_string()).collect();
        self.asked.lock().unwrap().push((Instant::now(), keys.clone()));
        if keys.iter().any(|key| Some(key.as_str()) == self.poison) {
            return Err(StoreError::Rejected("no".into()));
        }
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(Answer::Fail(kind)) => return Err(kind("as scripted".into())),
            Some(Answer::Never) => std::future::pending().await,
            Some(Answer::Unprocessed(unprocessed)) => {
                let taken = (0..).zip(items).filter(|(index, _)| !unprocessed.contains(index));
                let taken: Vec<Arc<Item>> = taken.map(|(_, item)| Arc::clone(item)).collect();
                let written = self.stored.write(&taken).await?;
                return Ok(Written { unprocessed, ..written });
            }
            Some(Answer::After(delay)) => tokio::time::sleep(delay).await,
            None => {}
        }
        self.stored.write(items).await
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        let key = item.header.partition.to_string();
        if Some(key.as_str()) == self.poison { Err(StoreError::Rejected("no".into())) } else { Ok(1.0) }
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.spread_asked.lock().unwrap().push(count);
        self.stored.raise_spread(count).await
    }
}

/// A sink whose rate is no concern.
fn sink_with(table: &Arc<Scripted>, options: PackingSinkOptions) -> PackingSink {
    let writer: Arc<dyn ItemWriter> = table.clone();
    let governor = Governor::new(PaceOptions::default());
    governor.set_share(Some(Share { units: 1e7, firm: true }));
    PackingSink::new(writer, options, Arc::new(Inline), 7).governed_by(Arc::new(governor))
}

fn sink_over(table: &Arc<Scripted>) -> PackingSink {
    sink_with(table, PackingSinkOptions::default())
}

/// A batch of one small group for each key.
fn keys(keys: &[&str]) -> Arc<Batch> {
    Arc::new(batch((1..).zip(keys).map(|(n, key)| event(n, key, "x")).collect()))
}

async fn deliver(table: &Arc<Scripted>, batch: Arc<Batch>) -> Result<Delivered, DeliverError> {
    sink_over(table).deliver(batch, Arc::new(Always)).await
}

fn refused(source: Cause) -> StoreError {
    StoreError::Refused { what: "no such table".to_owned(), source }
}

#[tokio::test(start_paused = true)]
async fn only_what_was_left_over_is_tried_again_and_at_once() {
    let table = Scripted::answering([Answer::Unprocessed(vec![1]), Answer::Unprocessed(vec![0])]);
    let begun = Instant::now();
    let delivered = deliver(&table, keys(&["a", "b", "c"])).await.unwrap();
    assert_eq!(table.requests(), [vec!["a", "b", "c"], vec!["b"], vec!["b"]]);
    assert_eq!((delivered.items, delivered.write_units), (3, 3.0));
    assert!(
        begun.elapsed() < Duration::from_millis(50),
        "when is the governor's to say: {:?}",
        begun.elapsed()
    );
}

/// So that a refusal of one of them says whose limit it was.
#[tokio::test(start_paused = true)]
async fn what_was_left_over_is_tried_again_key_by_key() {
    let table = Scripted::answering([Answer::Unprocessed(vec![0, 1, 2])]);
    deliver(&table, keys(&["a", "b", "c"])).await.unwrap();
    assert_eq!(table.requests()[1..], [vec!["a"], vec!["b"], vec!["c"]]);
}

#[tokio::test(start_paused = true)]
async fn throttling_silence_and_failure_are_tried_again() {
    let table = Scripted::answering([
        Answer::Fail(StoreError::throttled),
        Answer::Never,
        Answer::Fail(StoreError::Unavailable),
    ]);
    deliver(&table, keys(&["a"])).await.unwrap();
    assert_eq!(table.requests().len(), 4);
    assert_eq!(table.stored.items().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_takes_nothing_is_given_up() {
    let table = Scripted::answering((0..1_000).map(|_| Answer::Unprocessed(vec![0])));
    let writer: Arc<dyn ItemWriter> = table.clone();
    let sink = PackingSink::new(writer, PackingSinkOptions::default(), Arc::new(Inline), 7);
    let begun = Instant::now();
    let error = sink.deliver(keys(&["a"]), Arc::new(Always)).await.unwrap_err();
    assert!(matches!(error, DeliverError::Unavailable { .. }), "{error}");
    assert!(begun.elapsed() >= Duration::from_secs(60) && begun.elapsed() < Duration::from_secs(70));
}

#[tokio::test(start_paused = true)]
async fn progress_puts_off_giving_up() {
    let names: Vec<String> = (0..250).map(|n| format!("k{n:03}")).collect();
    let table = Scripted::answering((0..10).map(|_| Answer::After(Duration::from_secs(9))));
    let options = PackingSinkOptions { requests_in_flight: 1, ..PackingSinkOptions::default() };
    let sink = sink_with(&table, options);
    let begun = Instant::now();
    let batch = keys(&names.iter().map(String::as_str).collect::<Vec<_>>());
    sink.deliver(batch, Arc::new(Always)).await.unwrap();
    let took = begun.elapsed();
    assert!((90..91).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_table_is_refused_at_once() {
    let table = Scripted::answering([Answer::Fail(refused)]);
    let error = deliver(&table, keys(&["a"])).await.unwrap_err();
    assert!(matches!(&error, DeliverError::Refused { what, .. } if what == "no such table"), "{error}");
    assert_eq!(table.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_item_is_searched_for_and_its_event_named_and_the_others_are_stored() {
    let table = Arc::new(Scripted { poison: Some("c"), ..Scripted::default() });
    let options = PackingSinkOptions { requests_in_flight: 1, ..PackingSinkOptions::default() };
    let sink = sink_with(&table, options);
    let error = sink.deliver(keys(&["a", "b", "c", "d"]), Arc::new(Always)).await.unwrap_err();
    let DeliverError::Poison { offenders, .. } = error else { panic!("{error}") };
    let place = (sequence(3), SubSequenceNumber(0));
    let events = Exclusion { from: place.clone(), to: place };
    assert_eq!(offenders, [Offender { events, why: "no".to_owned() }]);
    assert_eq!(table.requests(), [vec!["a", "b", "c", "d"], vec!["a"], vec!["b"], vec!["c"], vec!["d"]]);
    assert_eq!(table.stored.items().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_right_is_asked_before_every_attempt() {
    let table = Scripted::answering([Answer::Fail(StoreError::throttled)]);
    let right = Arc::new(Switch(AtomicBool::new(true)));
    let sink = sink_over(&table);
    let delivery = sink.deliver(keys(&["a"]), right.clone());
    let end = async {
        // The first attempt is made at once, the second some 50 ms later.
        tokio::time::sleep(Duration::from_millis(1)).await;
        right.0.store(false, Ordering::SeqCst);
    };
    let (outcome, ()) = tokio::join!(delivery, end);
    assert!(matches!(outcome, Err(DeliverError::RightEnded)), "{outcome:?}");
    assert_eq!(table.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_hold_at_most_25_items_and_2_mib() {
    let names: Vec<String> = (0..60).map(|n| format!("k{n:02}")).collect();
    let table = Scripted::answering([]);
    deliver(&table, keys(&names.iter().map(String::as_str).collect::<Vec<_>>())).await.unwrap();
    assert_eq!(table.requests().iter().map(Vec::len).collect::<Vec<_>>(), [25, 25, 10]);

    let table = Scripted::answering([]);
    let large = with_parameters(batch(vec![event(1, "k", vec![7u8; 5 << 20])]), |parameters| {
        parameters.codec = sluicegate_checkpoint::Codec::None;
        parameters.max_item_bytes = PackingParameters::DEFAULT_ITEM_BYTES;
    });
    deliver(&table, Arc::new(large)).await.unwrap();
    assert_eq!(table.requests().iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 3]);
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_are_bounded_over_all_batches() {
    let table = Scripted::answering((0..100).map(|_| Answer::Never));
    let options = PackingSinkOptions { requests_in_flight: 2, ..PackingSinkOptions::default() };
    let sink = sink_with(&table, options);
    let deliveries = (0..5).map(|_| sink.deliver(keys(&["a"]), Arc::new(Always)));
    let all = futures::future::join_all(deliveries);
    assert!(tokio::time::timeout(Duration::from_secs(1), all).await.is_err());
    assert_eq!(table.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_spread_count_is_recorded_before_anything_is_written_under_it() {
    let table = Scripted::answering([]);
    let sink = sink_over(&table);
    let spread = |count| {
        Arc::new(with_parameters(batch(vec![event(1, "a", "x")]), |parameters| parameters.spread = count))
    };
    for count in [1, 4, 2, 4, 9] {
        sink.deliver(spread(count), Arc::new(Always)).await.unwrap();
    }
    assert_eq!(*table.spread_asked.lock().unwrap(), [4, 9]);
}

/// A pool that drops what it is given.
struct Dropping;

#[async_trait]
impl Offload for Dropping {
    async fn run(&self, work: crate::offload::Work) {
        drop(work);
    }
}

#[tokio::test(start_paused = true)]
async fn packing_that_does_not_finish_comes_again() {
    let sink = PackingSink::new(
        Arc::new(MemoryTable::default()),
        PackingSinkOptions::default(),
        Arc::new(Dropping),
        7,
    );
    let error = sink.deliver(keys(&["a"]), Arc::new(Always)).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff);
}

/// With a loop that spins, a paused clock would never move on.
#[tokio::test(start_paused = true)]
async fn more_items_than_requests_may_hold_wait_for_an_answer() {
    let table = Scripted::answering((0..4).map(|_| Answer::After(Duration::from_secs(3))));
    let names: Vec<String> = (0..130).map(|n| format!("k{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let delivered = deliver(&table, keys(&names)).await.unwrap();
    assert_eq!((delivered.items, table.requests().len()), (130, 6));
}
