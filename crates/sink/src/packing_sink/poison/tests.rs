use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;
use sluicegate_checkpoint::progress::Always;
use sluicegate_checkpoint::{Codec, SequenceNumber};

use super::*;
use crate::governor::Governor;
use crate::governor::pace::PaceOptions;
use crate::governor::pace::Share;
use crate::memory::MemoryTable;
use crate::offload::Inline;
use crate::packing_sink::PackingSinkOptions;
use crate::reader::{Reader, TimeRange};
use crate::sink::{Delivered, Sink};
use crate::store::{ItemWriter, Written};
use crate::testing::{batch, event, with_parameters};

const POISON: &str = "*poison*";

fn holds_poison(item: &Item) -> Option<String> {
    let found = item.data.windows(POISON.len()).any(|window| window == POISON.as_bytes());
    found.then(|| "it holds poison".to_owned())
}

fn sink(writer: Arc<dyn ItemWriter>) -> PackingSink {
    ungoverned(PackingSink::new(writer, PackingSinkOptions::default(), Arc::new(Inline), 7))
}

/// A sink whose rate is no concern.
fn ungoverned(sink: PackingSink) -> PackingSink {
    let governor = Governor::new(PaceOptions::default());
    governor.set_share(Some(Share { units: 1e7, firm: true }));
    sink.governed_by(Arc::new(governor))
}

/// A batch of these events, key and payload, stored as they are.
fn plain(events: &[(&str, String)]) -> Batch {
    let records = (1..).zip(events).map(|(n, (key, data))| event(n, key, data.clone())).collect();
    with_parameters(batch(records), |parameters| parameters.codec = Codec::None)
}

async fn deliver(sink: &PackingSink, batch: &Batch) -> Result<Delivered, DeliverError> {
    sink.deliver(Arc::new(batch.clone()), Arc::new(Always)).await
}

fn offenders_of(outcome: Result<Delivered, DeliverError>) -> Vec<Offender> {
    match outcome {
        Err(DeliverError::Poison { offenders, .. }) => offenders,
        other => panic!("no poison: {other:?}"),
    }
}

fn ranges(offenders: &[Offender]) -> Vec<(&str, &str)> {
    offenders.iter().map(|o| (o.events.from.0.as_str(), o.events.to.0.as_str())).collect()
}

/// The batch as the consumer amends it.
fn without(batch: &Batch, offenders: &[Offender]) -> Batch {
    let mut amended = batch.clone();
    amended.cut.revision += 1;
    amended.cut.exclusions.extend(offenders.iter().map(|offender| offender.events.clone()));
    amended
}

async fn read(table: &Arc<MemoryTable>, key: &str) -> Vec<SequenceNumber> {
    let mut stream = Reader::new(table.clone(), 7).events(key, TimeRange::default()).await.unwrap();
    let mut numbers = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        numbers.push(event.sequence_number);
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn the_event_at_fault_is_named_and_without_it_the_batch_is_stored() {
    let table = Arc::new(MemoryTable::rejecting(holds_poison));
    let sink = sink(table.clone());
    let mut events: Vec<(&str, String)> = (0..100).map(|n| ("k", format!("event {n}"))).collect();
    events[41].1 = POISON.to_owned();
    let batch = plain(&events);
    let begun = Instant::now();
    let offenders = offenders_of(deliver(&sink, &batch).await);
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    assert_eq!(ranges(&offenders), [("42", "42")]);
    assert_eq!(offenders[0].why, "it holds poison");
    assert!(table.items().is_empty(), "what is asked about is not stored");
    let delivered = deliver(&sink, &without(&batch, &offenders)).await.unwrap();
    assert_eq!(delivered.events, 99);
    assert_eq!(read(&table, "k").await.len(), 99);
}

#[tokio::test(start_paused = true)]
async fn a_group_of_several_parts_is_searched_as_a_whole() {
    let table = Arc::new(MemoryTable::rejecting(holds_poison));
    let filler = |n: usize| format!("{n}").repeat(2_000);
    let mut events: Vec<(&str, String)> = (0..10).map(|n| ("k", filler(n))).collect();
    events[9].1.push_str(POISON);
    let batch = with_parameters(plain(&events), |parameters| {
        parameters.max_item_bytes = sluicegate_checkpoint::PackingParameters::MIN_ITEM_BYTES;
    });
    let sink = sink(table.clone());
    let offenders = offenders_of(deliver(&sink, &batch).await);
    assert_eq!(ranges(&offenders), [("10", "10")]);
    deliver(&sink, &without(&batch, &offenders)).await.unwrap();
    // Of the rejected revision some parts are stored; the reader passes them by.
    assert_eq!(read(&table, "k").await.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_no_item_can_have_takes_all_its_events_out_and_no_others() {
    let of_key = |item: &Item| (item.header.partition.aggregate_key == "bad").then(|| "that key".to_owned());
    let table = Arc::new(MemoryTable::rejecting(of_key));
    let sink = sink(table.clone());
    let events = ["good", "bad", "bad", "good", "bad"].map(|key| (key, "x".to_owned()));
    let batch = plain(&events);
    let offenders = offenders_of(deliver(&sink, &batch).await);
    assert_eq!(ranges(&offenders), [("2", "3"), ("5", "5")]);
    // The empty group that would hide older revisions is rejected too. It has nothing to hide.
    let delivered = deliver(&sink, &without(&batch, &offenders)).await.unwrap();
    assert_eq!(delivered.events, 2);
    assert_eq!(read(&table, "good").await.len(), 2);
}

/// How often items were written, by aggregate key, revision and part.
struct Counts {
    table: Arc<MemoryTable>,
    written: Mutex<BTreeMap<(String, u32, u32), usize>>,
}

impl Counts {
    fn new() -> Arc<Self> {
        Arc::new(Self { table: Arc::new(MemoryTable::rejecting(holds_poison)), written: Mutex::default() })
    }

    /// How many items of a key were written under a revision.
    fn of(&self, key: &str, revision: u32) -> usize {
        let written = self.written.lock().unwrap();
        written.iter().filter(|((of, at, _), _)| (of.as_str(), *at) == (key, revision)).map(|(_, n)| n).sum()
    }
}

#[async_trait::async_trait]
impl ItemWriter for Counts {
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError> {
        let answer = self.table.write(items).await?;
        for item in items {
            let name = &item.header;
            let name = (name.partition.aggregate_key.clone(), name.sort.revision, name.sort.part);
            *self.written.lock().unwrap().entry(name).or_default() += 1;
        }
        Ok(answer)
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        self.table.probe(item).await
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.table.raise_spread(count).await
    }
}

#[tokio::test(start_paused = true)]
async fn groups_that_an_exclusion_does_not_touch_are_not_written_again() {
    let counts = Counts::new();
    let ours = sink(counts.clone());
    let mut events: Vec<(&str, String)> = (0..30).map(|n| (["a", "b", "c"][n % 3], format!("{n}"))).collect();
    events[4].1 = POISON.to_owned();
    let batch = plain(&events);
    let amended = without(&batch, &offenders_of(deliver(&ours, &batch).await));
    assert_eq!(["a", "b", "c"].map(|key| counts.of(key, 0)), [1, 0, 1]);
    let delivered = deliver(&ours, &amended).await.unwrap();
    assert_eq!((delivered.events, delivered.items), (29, 3));
    assert_eq!(["a", "b", "c"].map(|key| counts.of(key, 1)), [0, 1, 0]);
    // What is excluded beside it, for the row had no more room, is taken out of what was written.
    let mut wider = without(&batch, &offenders_of(deliver(&ours, &batch).await));
    wider.cut.exclusions[0].to = (SequenceNumber::parse("6").unwrap(), wider.cut.exclusions[0].to.1);
    assert_eq!(deliver(&ours, &wider).await.unwrap().events, 28);
    assert_eq!(["a", "b", "c"].map(|key| counts.of(key, 1)), [0, 2, 1]);
    // Who knows nothing of it writes everything, and the same events are read.
    for key in ["a", "b", "c"] {
        assert_eq!(read(&counts.table, key).await.len(), if key == "a" { 10 } else { 9 });
    }
    deliver(&sink(counts.clone()), &wider).await.unwrap();
    assert_eq!(["a", "b", "c"].map(|key| counts.of(key, 1)), [1, 3, 2]);
    for key in ["a", "b", "c"] {
        assert_eq!(read(&counts.table, key).await.len(), if key == "a" { 10 } else { 9 });
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_rejected_group_no_more_is_written() {
    let counts = Counts::new();
    let mut events: Vec<(&str, String)> = (0..100).map(|n| ("k", format!("{n}").repeat(1_000))).collect();
    events[0].1.push_str(POISON);
    events.push(("other", "x".to_owned()));
    let batch = with_parameters(plain(&events), |parameters| {
        parameters.max_item_bytes = sluicegate_checkpoint::PackingParameters::MIN_ITEM_BYTES;
    });
    let options = PackingSinkOptions { requests_in_flight: 1, ..PackingSinkOptions::default() };
    let sink = ungoverned(PackingSink::new(counts.clone(), options, Arc::new(Inline), 7));
    offenders_of(deliver(&sink, &batch).await);
    assert_eq!((counts.of("k", 0), counts.of("other", 0)), (0, 1));
}

/// A table that rejects writes and accepts whatever it is asked about.
struct Wavers(MemoryTable);

#[async_trait::async_trait]
impl ItemWriter for Wavers {
    async fn write(&self, _: &[Arc<Item>]) -> Result<Written, StoreError> {
        Err(StoreError::Rejected("today".into()))
    }

    async fn probe(&self, _: &Item) -> Result<f64, StoreError> {
        Ok(1.0)
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.0.raise_spread(count).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_when_asked_about_is_delivered_again_and_not_excluded() {
    let sink = sink(Arc::new(Wavers(MemoryTable::default())));
    let outcome = deliver(&sink, &plain(&["a", "b"].map(|data| ("k", data.to_owned())))).await;
    assert!(matches!(outcome, Err(DeliverError::Unavailable { .. })), "{outcome:?}");
}

/// A table that throttles every other question and counts them.
struct Throttles {
    table: MemoryTable,
    asked: Mutex<usize>,
}

#[async_trait::async_trait]
impl ItemWriter for Throttles {
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError> {
        self.table.write(items).await
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        {
            let mut asked = self.asked.lock().unwrap();
            *asked += 1;
            if asked.is_multiple_of(2) {
                return Err(StoreError::throttled("slow down".into()));
            }
        }
        self.table.probe(item).await
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.table.raise_spread(count).await
    }
}

#[tokio::test(start_paused = true)]
async fn questions_are_repeated_while_the_table_throttles() {
    let throttles = Throttles { table: MemoryTable::rejecting(holds_poison), asked: Mutex::new(0) };
    let table = Arc::new(throttles);
    let mut events = vec![("k", String::new()); 50];
    events[7].1 = POISON.to_owned();
    let offenders = offenders_of(deliver(&sink(table.clone()), &plain(&events)).await);
    assert_eq!(ranges(&offenders), [("8", "8")]);
    assert!(*table.asked.lock().unwrap() <= 2 * 13, "1 + 2 log2(50) questions, each asked twice at most");
}

#[tokio::test(start_paused = true)]
async fn without_the_right_nothing_more_is_asked() {
    struct Ends(Mutex<usize>);
    impl Right for Ends {
        fn holds(&self) -> bool {
            let mut left = self.0.lock().unwrap();
            *left = left.saturating_sub(1);
            *left > 0
        }
    }
    let mut events = vec![("k", String::new()); 50];
    events[7].1 = POISON.to_owned();
    let sink = sink(Arc::new(MemoryTable::rejecting(holds_poison)));
    for asked in 2..9 {
        let outcome = sink.deliver(Arc::new(plain(&events)), Arc::new(Ends(Mutex::new(asked)))).await;
        assert!(matches!(outcome, Err(DeliverError::RightEnded)), "{asked}: {outcome:?}");
    }
}

/// A table that answers after 10 ms, and counts what it is asked.
struct Slow {
    table: MemoryTable,
    asked: Mutex<usize>,
}

#[async_trait::async_trait]
impl ItemWriter for Slow {
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.table.write(items).await
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        *self.asked.lock().unwrap() += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.table.probe(item).await
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.table.raise_spread(count).await
    }
}

/// Questions and time until the poison among 10,000 events of one key is named, two requests at a time as in production.
async fn cost_of(poison: impl Fn(usize) -> bool) -> (usize, usize, Duration) {
    let slow = Arc::new(Slow { table: MemoryTable::rejecting(holds_poison), asked: Mutex::new(0) });
    let options = PackingSinkOptions { requests_in_flight: 2, ..PackingSinkOptions::default() };
    let sink = ungoverned(PackingSink::new(slow.clone(), options, Arc::new(Inline), 7));
    let event = |n| if poison(n) { POISON.to_owned() } else { format!("{n}") };
    let batch = plain(&(0..10_000).map(|n| ("k", event(n))).collect::<Vec<_>>());
    let begun = Instant::now();
    let offenders = offenders_of(deliver(&sink, &batch).await);
    let asked = *slow.asked.lock().unwrap();
    (offenders.len(), asked, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn finding_poison_takes_less_than_two_seconds_however_much_there_is() {
    let (found, asked, took) = cost_of(|n| n == 7_777).await;
    assert_eq!(found, 1);
    assert!(asked <= 29 && took < Duration::from_millis(300), "{asked} questions, {took:?}");
    let (found, asked, took) = cost_of(|n| n % 1_000 == 7).await;
    assert_eq!(found, 10);
    assert!(asked <= 230 && took < Duration::from_millis(1_500), "{asked} questions, {took:?}");
    // More than can be told apart.
    let (found, asked, took) = cost_of(|n| n % 3 == 0).await;
    assert!(found > 0 && asked <= MAX_PROBES && took < Duration::from_secs(2), "{asked}, {took:?}");
}

/// How long a batch of events of 1 KB of one key takes to be stored, at 950 units a second of that key, without these events
/// once they are found.
async fn stored_after(events: usize, poison: &[usize]) -> f64 {
    let slow = Arc::new(Slow { table: MemoryTable::rejecting(holds_poison), asked: Mutex::new(0) });
    let options = PackingSinkOptions { requests_in_flight: 2, ..PackingSinkOptions::default() };
    let governor = Arc::new(Governor::new(PaceOptions::default()));
    governor.set_share(Some(Share { units: 4_000.0, firm: true }));
    let sink = PackingSink::new(slow, options, Arc::new(Inline), 7).governed_by(governor);
    let event = |n| if poison.contains(&n) { POISON.repeat(128) } else { "x".repeat(1_000) };
    let mut batch =
        with_parameters(plain(&(0..events).map(|n| ("k", event(n))).collect::<Vec<_>>()), |parameters| {
            parameters.max_item_bytes = 64 * 1_024
        });
    let begun = Instant::now();
    let mut passes = 0;
    loop {
        match deliver(&sink, &batch).await {
            Ok(delivered) => {
                assert_eq!(delivered.events, (events - poison.len()) as u64);
                return begun.elapsed().as_secs_f64();
            }
            outcome => batch = without(&batch, &offenders_of(outcome)),
        }
        passes += 1;
        assert!(passes <= MANY_EXCLUSIONS + 1, "{passes}");
    }
}

/// What poison adds is what had been written of the group when it was rejected, and a search of one item.
#[tokio::test(start_paused = true)]
async fn poison_under_one_large_key_adds_less_than_two_seconds_to_a_group_of_a_megabyte_and_a_half() {
    let without = stored_after(1_500, &[]).await;
    for at in [0, 1, 700, 1_400, 1_499] {
        let added = stored_after(1_500, &[at]).await - without;
        assert!(added < 2.0, "{added} s for event {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_six_megabytes_only_what_was_written_before_the_rejection_is_written_again() {
    let without = stored_after(6_000, &[]).await;
    assert!((6.0..7.0).contains(&without), "{without}");
    for (at, part) in [(0, 0.0), (3_000, 0.5), (5_999, 1.0)] {
        let added = stored_after(6_000, &[at]).await - without;
        assert!(added < part * without + 0.6, "{added} s for event {at}");
    }
    // However many there are, the group is begun a few times at most, and searched as a whole once, which takes the time of
    // writing it twice.
    let many: Vec<usize> = (0..6_000).step_by(750).collect();
    let added = stored_after(6_000, &many).await - without;
    assert!(added < 3.5 * without, "{added}");
}

proptest! {
    /// Whatever is poison: exactly that is named, and everything else is stored under the next revision.
    #[test]
    fn everything_but_the_poison_is_stored(shape in proptest::collection::vec((0usize..4, any::<bool>()), 1..40)) {
        let keys = ["a", "b", "c", "d"];
        // One event in two would ask for more questions than are allowed; what is tested is that none are wasted.
        let events: Vec<(&str, String)> = shape
            .iter()
            .map(|(key, poison)| (keys[*key], if *poison { POISON } else { "fine" }.to_owned()))
            .collect();
        let batch = plain(&events);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let table = Arc::new(MemoryTable::rejecting(holds_poison));
            let sink = sink(table.clone());
            let delivered = match deliver(&sink, &batch).await {
                Err(DeliverError::Poison { offenders, .. }) => {
                    let amended = without(&batch, &offenders);
                    let named: Vec<&str> = amended.excluded().map(|r| r.sequence_number().as_str()).collect();
                    let poison: Vec<String> = (1..).zip(&shape).filter(|(_, (_, p))| *p).map(|(n, _)| format!("{n}")).collect();
                    assert_eq!(named, poison);
                    deliver(&sink, &amended).await.unwrap()
                }
                other => other.unwrap(),
            };
            let fine = shape.iter().filter(|(_, poison)| !poison).count() as u64;
            assert_eq!(delivered.events, fine);
            let mut found = 0;
            for key in keys {
                found += read(&table, key).await.len() as u64;
            }
            assert_eq!(found, fine);
        });
    }
}
