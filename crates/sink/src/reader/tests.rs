use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use proptest::prelude::*;
use sluicegate_checkpoint::{Batch, Codec, PackingParameters, Record, Reduce};

use super::*;
use crate::item::{Fault, Item, Value, names};
use crate::memory::MemoryTable;
use crate::packing::{UnpackError, pack};
use crate::reduction::Reduction;
use crate::store::{ItemWriter, Page, Query};
use crate::testing::{NOON, batch, event, items_of, sequence, with_parameters};

async fn store(table: &MemoryTable, batch: &Batch) {
    for item in items_of(batch) {
        table.write(&[Arc::new(item)]).await.unwrap();
    }
    table.raise_spread(batch.cut.parameters.spread).await.unwrap();
}

async fn read(table: &Arc<MemoryTable>, key: &str, range: TimeRange) -> Result<Vec<Event>, ReadError> {
    let mut stream = Reader::new(table.clone(), 7).events(key, range).await?;
    let mut events = Vec::new();
    while let Some(event) = stream.next().await? {
        events.push(event);
    }
    Ok(events)
}

async fn read_all(table: &Arc<MemoryTable>, key: &str) -> Vec<Event> {
    read(table, key, TimeRange::default()).await.unwrap()
}

fn numbers(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.sequence_number.as_str()).collect()
}

fn at(ms: i64) -> Option<ArrivalMillis> {
    Some(ArrivalMillis(NOON + ms))
}

/// A batch of one group in several parts.
fn in_parts() -> Batch {
    let data: Vec<u8> = (0..9_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    with_parameters(batch(vec![event(1, "k", data), event(2, "k", "tail")]), |parameters| {
        parameters.codec = Codec::None;
        parameters.max_item_bytes = PackingParameters::MIN_ITEM_BYTES;
    })
}

#[tokio::test]
async fn events_of_several_batches_and_shards_come_in_the_order_of_arrival() {
    let table = Arc::new(MemoryTable::default());
    let mut other = batch(vec![event(2, "k", "b"), event(5, "k", "e")]);
    other.id.shard = ShardId::new("shardId-000000000001");
    store(&table, &batch(vec![event(1, "k", "a"), event(4, "k", "d")])).await;
    store(&table, &batch(vec![event(6, "k", "f")])).await;
    store(&table, &other).await;
    store(&table, &batch(vec![event(3, "else", "-")])).await;
    assert_eq!(numbers(&read_all(&table, "k").await), ["1", "2", "4", "5", "6"]);
    assert_eq!(read_all(&table, "nothing").await, []);
}

#[tokio::test]
async fn a_range_is_judged_by_each_events_own_arrival() {
    let table = Arc::new(MemoryTable::default());
    store(&table, &batch(vec![event(1, "k", "a"), event(50_000, "k", "b"), event(60_001, "k", "c")])).await;
    store(&table, &batch(vec![event(60_002, "k", "d"), event(120_000, "k", "e")])).await;
    let within = |from, to| TimeRange { from: at(from), to: at(to) };
    let found = read(&table, "k", within(50_000, 120_000)).await.unwrap();
    assert_eq!(numbers(&found), ["50000", "60001", "60002"]);
    assert_eq!(read(&table, "k", within(2, 50_000)).await.unwrap(), []);
    let open = TimeRange { from: at(60_002), to: None };
    assert_eq!(numbers(&read(&table, "k", open).await.unwrap()), ["60002", "120000"]);
}

#[tokio::test]
async fn arrivals_that_do_not_ascend_are_still_yielded_in_order() {
    let table = Arc::new(MemoryTable::default());
    let mut late = batch(vec![event(10_000, "k", "x"), event(10_001, "k", "y")]);
    late.records[1] = late.records[1].of(late.records[1].sequence_number().clone(), ArrivalMillis(NOON + 3));
    store(&table, &late).await;
    store(&table, &batch(vec![event(5, "k", "a")])).await;
    assert_eq!(numbers(&read_all(&table, "k").await), ["10001", "5", "10000"]);
    // Its item lies behind the range, but it does not.
    let range = TimeRange { from: at(0), to: at(4) };
    assert_eq!(numbers(&read(&table, "k", range).await.unwrap()), ["10001"]);
}

#[tokio::test]
async fn the_highest_complete_revision_counts() {
    let table = Arc::new(MemoryTable::default());
    let mut amended = in_parts();
    amended.cut.revision = 1;
    amended.cut.packing_version = 2;
    amended.records[1] = amended.records[1].with_data(Bytes::from_static(b"told apart by this"));
    store(&table, &in_parts()).await;
    store(&table, &amended).await;
    assert_eq!(read_all(&table, "k").await[1].data, amended.records[1].data());
    // The amended delivery is only half done: what was there before is read.
    table.remove(&items_of(&amended)[1].header.key()).unwrap();
    assert_eq!(read_all(&table, "k").await[1].data, in_parts().records[1].data());
}

#[tokio::test]
async fn a_missing_part_is_named() {
    let table = Arc::new(MemoryTable::default());
    store(&table, &in_parts()).await;
    let second = items_of(&in_parts())[1].header.key();
    table.remove(&second).unwrap();
    let error = read(&table, "k", TimeRange::default()).await.unwrap_err();
    assert!(matches!(&error, ReadError::MissingPart { key, part: 2, parts: 3 } if *key == second), "{error}");
    // It is of no concern to whoever asks for another time.
    let later = TimeRange { from: at(10), to: None };
    assert_eq!(read(&table, "k", later).await.unwrap(), []);
}

#[tokio::test]
async fn a_missing_last_part_is_named_too() {
    let table = Arc::new(MemoryTable::default());
    store(&table, &in_parts()).await;
    table.remove(&items_of(&in_parts())[2].header.key()).unwrap();
    let error = read(&table, "k", TimeRange::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::MissingPart { part: 3, parts: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_item_is_named() {
    let table = Arc::new(MemoryTable::default());
    let items = items_of(&in_parts());
    store(&table, &in_parts()).await;
    let mut attributes = items[1].to_attributes();
    let mut data = items[1].data.to_vec();
    data[17] ^= 1;
    attributes.set(names::DATA, Value::Bytes(data.into()));
    table.put(items[1].header.key(), attributes);
    let error = read(&table, "k", TimeRange::default()).await.unwrap_err();
    let ReadError::Item(item) = error else { panic!("{error}") };
    assert!(matches!(item.why, Fault::PartSum { .. }));
    assert_eq!(item.key, items[1].header.key());
}

#[tokio::test]
async fn parts_that_contradict_each_other_are_refused() {
    let table = Arc::new(MemoryTable::default());
    store(&table, &in_parts()).await;
    let mut other = items_of(&in_parts())[1].clone();
    other.header.group_sum ^= 1;
    table.write(&[Arc::new(other)]).await.unwrap();
    let error = read(&table, "k", TimeRange::default()).await.unwrap_err();
    assert!(
        matches!(&error, ReadError::Item(item) if item.why == Fault::Contradiction { other: 1 }),
        "{error}"
    );
}

#[tokio::test]
async fn every_spread_suffix_is_read() {
    let table = Arc::new(MemoryTable::default());
    for n in 1..40 {
        // The count grew from 1 to 5: what was stored before stays where it is.
        let spread = if n < 10 { 1 } else { 5 };
        store(
            &table,
            &with_parameters(batch(vec![event(n, "k", "x")]), |parameters| parameters.spread = spread),
        )
        .await;
    }
    let partitions: std::collections::BTreeSet<String> =
        table.items().into_keys().map(|key| key.pk).collect();
    assert_eq!(partitions.into_iter().collect::<Vec<_>>(), ["k", "k~1", "k~2", "k~3", "k~4"]);
    let wanted: Vec<String> = (1..40).map(|n| n.to_string()).collect();
    assert_eq!(numbers(&read_all(&table, "k").await), wanted);
}

#[tokio::test]
async fn headers_of_the_whole_table_come_page_by_page() {
    let table = Arc::new(MemoryTable::default());
    for n in 1..250 {
        store(&table, &batch(vec![event(n, "k", "x")])).await;
    }
    store(&table, &in_parts()).await;
    let headers = Reader::new(table.clone(), 7).all_headers().await.unwrap();
    // The group in parts takes the place of the first small one, and has two more.
    assert_eq!(headers.len(), 251);
    assert_eq!(crate::overlaps(&headers).len(), 1);
}

/// A source that throttles each call so many times, and counts.
struct Throttling {
    table: MemoryTable,
    each: usize,
    calls: AtomicUsize,
}

impl Throttling {
    fn answer(&self) -> Result<(), StoreError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if call % (self.each + 1) < self.each {
            Err(StoreError::throttled("slow down".into()))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl ItemSource for Throttling {
    async fn query(&self, query: &Query) -> Result<Page, StoreError> {
        self.answer()?;
        self.table.query(query).await
    }

    async fn spread(&self) -> Result<u32, StoreError> {
        self.answer()?;
        self.table.spread().await
    }

    async fn scan(&self, behind: Option<&ItemKey>) -> Result<HeaderPage, StoreError> {
        self.answer()?;
        self.table.scan(behind).await
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_reads_are_tried_again_and_given_up_in_the_end() {
    let source =
        |each| Arc::new(Throttling { table: MemoryTable::default(), each, calls: AtomicUsize::new(0) });
    let patient = Reader::new(source(3), 7);
    let mut stream = patient.events("k", TimeRange::default()).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), None);
    let hopeless = Reader::new(source(1_000), 7).events("k", TimeRange::default()).await;
    assert!(matches!(hopeless, Err(ReadError::Store(StoreError::Throttled { .. }))));
}

async fn read_reduced(
    table: &Arc<MemoryTable>,
    key: &str,
    range: TimeRange,
) -> Result<Vec<Reduction>, ReadError> {
    let mut stream = Reader::new(table.clone(), 7).events(key, range).await?;
    while stream.next().await?.is_some() {}
    Ok(stream.into_reductions())
}

fn reducing(batch: Batch, reduce: &str) -> Batch {
    with_parameters(batch, |parameters| {
        let set = PackingParameters { reduce: Some(reduce.parse().unwrap()), ..parameters.clone() };
        *parameters = set.with_needed_decoding_version();
    })
}

/// What a reader should find: all events of a key reduced at once.
fn directly(reduce: &str, key: &str, records: &[&Record]) -> Vec<Reduction> {
    let reduce: Reduce = reduce.parse().unwrap();
    let mut windows: Vec<Reduction> = Vec::new();
    for record in records {
        let event = sluicegate_event::Event::parse(record.data()).ok();
        let window = reduce.window(record.arrival(), event.as_ref(), 3).begins();
        let known = windows.iter().position(|one| one.window == window);
        let at = known.unwrap_or_else(|| {
            windows.push(Reduction::new(key, &reduce, window));
            windows.len() - 1
        });
        windows[at].add(&reduce, event.as_ref());
    }
    windows.sort_by_key(|one| (one.window.is_none(), one.window));
    windows
}

#[tokio::test]
async fn reductions_are_merged_over_batches_and_stand_beside_the_events_of_another_configuration() {
    let table = Arc::new(MemoryTable::default());
    let first =
        reducing(batch(vec![event(1, "k", r#"{"n":1}"#), event(2, "k", r#"{"n":2.5}"#)]), "/n per 1h");
    let second = reducing(batch(vec![event(3, "k", r#"{"n":-4}"#), event(4, "k", "text")]), "/n per 1h");
    for batch in [&first, &second, &first] {
        store(&table, batch).await;
    }
    store(&table, &reducing(batch(vec![event(5, "k", r#"{"n":9}"#)]), "/n per 1d")).await;
    store(&table, &batch(vec![event(6, "k", r#"{"n":7}"#)])).await;
    let lines: Vec<String> = read_reduced(&table, "k", TimeRange::default())
        .await
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    let wanted = [
        r#"{"key":"k","window":"2023-11-14T00:00:00Z","reduce":"/n per 1d","events":1,"unreadable":0,"fields":{"/n":{"count":1,"sum":9,"min":9,"max":9}}}"#,
        r#"{"key":"k","window":"2023-11-14T22:00:00Z","reduce":"/n per 1h","events":4,"unreadable":1,"fields":{"/n":{"count":3,"sum":-0.5,"min":-4,"max":2.5}}}"#,
    ];
    assert_eq!(lines, wanted);
    assert_eq!(numbers(&read_all(&table, "k").await), ["6"], "the events of a batch that was not reduced");
}

#[tokio::test]
async fn a_group_of_reductions_that_holds_none_is_an_error() {
    let table = Arc::new(MemoryTable::default());
    let mut item = items_of(&batch(vec![event(1, "k", "{}")])).remove(0);
    item.header.reduced = Some(1);
    table.write(&[Arc::new(item)]).await.unwrap();
    let error = read_reduced(&table, "k", TimeRange::default()).await.unwrap_err();
    let malformed = UnpackError::Reduction { why: "is malformed" }.to_string();
    assert!(
        matches!(&error, ReadError::Group { source, .. } if source.to_string() == malformed),
        "{error:?}"
    );
}

fn any_batches() -> impl Strategy<Value = Vec<Batch>> {
    let record = (1u32..4, 0i64..30_000, "[kl]", proptest::collection::vec(any::<u8>(), 0..60));
    let one = (proptest::collection::vec(record, 1..12), 0u8..3, 1u32..3, 1u32..4, any::<bool>());
    proptest::collection::vec(one, 1..8).prop_map(|batches| {
        let mut next = 0u128;
        let shape = |(records, shard, version, spread, plain)| {
            let records: Vec<(u32, i64, String, Vec<u8>)> = records;
            let begin = NOON + i64::try_from(next).unwrap() * 700;
            let mut made = Vec::new();
            for (step, offset, key, data) in records {
                next += u128::from(step);
                made.push(Record::new(sequence(next), ArrivalMillis(begin + offset), key, data));
            }
            let mut batch = with_parameters(batch(made), |parameters| {
                parameters.spread = spread;
                parameters.codec = if plain { Codec::None } else { Codec::Zstd(1) };
            });
            batch.cut.packing_version = version;
            let shard: u8 = shard;
            batch.id.shard = ShardId::new(format!("shardId-{shard}"));
            batch
        };
        batches.into_iter().map(shape).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Against a naive model: all events of the key and range, sorted.
    #[test]
    fn reading_gives_what_was_packed(batches in any_batches(), from in 0i64..60_000, length in 0i64..60_000) {
        let range = TimeRange { from: at(from), to: at(from + length) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (all, some) = runtime.block_on(async {
            let table = Arc::new(MemoryTable::default());
            for batch in &batches {
                store(&table, batch).await;
            }
            (read_all(&table, "k").await, read(&table, "k", range).await.unwrap())
        });
        let mut wanted: Vec<Event> = Vec::new();
        for batch in &batches {
            wanted.extend(batch.records.iter().filter(|record| record.partition_key() == "k").map(|record| Event {
                shard: batch.id.shard.clone(),
                epoch: 0,
                sequence_number: record.sequence_number().clone(),
                sub_sequence_number: record.sub_sequence_number(),
                arrival: record.arrival(),
                data: record.data_bytes(),
            }));
        }
        wanted.sort_by(Event::order);
        prop_assert_eq!(&all, &wanted);
        wanted.retain(|event| range.contains(event.arrival));
        prop_assert_eq!(some, wanted);
    }

    /// Over batches, shards and suffixes, and for a range of whole windows (D4).
    #[test]
    fn merged_reductions_are_those_of_all_events(
        events in proptest::collection::vec((0u8..4, -50i32..50), 1..60), cuts in proptest::collection::vec(1usize..20, 1..8),
        spread in 1u32..4, shape in 0usize..3, (from, length) in (0i64..8, 0i64..8),
    ) {
        let reduce = ["/n per 1s", "/n /m per 1h by /at", "per 2s"][shape];
        let data = |n: i64, (kind, value): (u8, i32)| match kind {
            0 => "text".to_owned(),
            1 => format!(r#"{{"n":{value}}}"#),
            2 => format!(r#"{{"n":{value}.{n:03},"m":1e-{n},"at":{}}}"#, n * 999_999),
            _ => format!(r#"{{"n":"{value}","at":"2013-01-01T0{}:59:59Z"}}"#, n % 10),
        };
        let records: Vec<Record> = (1u32..).zip(&events).map(|(n, kind)| {
            let arrival = ArrivalMillis(NOON + i64::from(n) * 170);
            Record::new(sequence(u128::from(n)), arrival, "k", data(i64::from(n), *kind))
        }).collect();
        let mut left = &records[..];
        let mut batches = Vec::new();
        for cut in cuts.iter().cycle() {
            let (one, rest) = left.split_at((*cut).min(left.len()));
            let mut batch = with_parameters(reducing(batch(one.to_vec()), reduce), |parameters| parameters.spread = spread);
            batch.id.shard = ShardId::new(format!("shardId-{}", batches.len() % 2));
            batches.push(batch);
            left = rest;
            if left.is_empty() {
                break;
            }
        }
        let range = TimeRange { from: at(from * 2_000), to: at((from + length) * 2_000) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (all, some) = runtime.block_on(async {
            let table = Arc::new(MemoryTable::default());
            for batch in &batches {
                store(&table, batch).await;
            }
            let all = read_reduced(&table, "k", TimeRange::default()).await.unwrap();
            (all, read_reduced(&table, "k", range).await.unwrap())
        });
        prop_assert_eq!(all, directly(reduce, "k", &records.iter().collect::<Vec<_>>()));
        if shape != 1 {
            let inside: Vec<&Record> = records.iter().filter(|record| range.contains(record.arrival())).collect();
            prop_assert_eq!(some, directly(reduce, "k", &inside));
        }
    }

    /// Any bytes under a good key: an error perhaps, never a panic.
    #[test]
    fn damaged_groups_never_panic(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut items: Vec<Item> = pack(&batch(vec![event(1, "k", "some text"), event(2, "k", "more")])).unwrap().items;
        let mut data = items[0].data.to_vec();
        for (index, byte) in flips {
            let at = index.index(data.len());
            data[at] = byte;
        }
        items[0].data = data.into();
        items[0].header.part_sum = crc32fast::hash(&items[0].data);
        drop(crate::packing::unpack(&items[0].header, &[items[0].data.clone()]));
    }
}
