//! Law R7 on the sink as it is, over a table with partitions.
//!
//! *A refusal by key range slows the keys that it names and nobody else*; and a key's rate is learned like the table's (R6).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sluicegate_checkpoint::progress::Always;
use sluicegate_checkpoint::{Batch, Codec, ShardId};
use tokio::time::Instant;

use super::super::Governor;
use super::super::pace::{PaceOptions, RateReason, Share};
use super::super::units_of;
use crate::item::Item;
use crate::offload::Inline;
use crate::packing_sink::{PackingSink, PackingSinkOptions};
use crate::sink::Sink;
use crate::store::{ItemWriter, StoreError, ThrottledBy, Written};
use crate::testing::{batch, event, with_parameters};

/// What a limit gives, and keeps for a second.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: f64,
    left: f64,
    as_of: Instant,
}

impl Bucket {
    fn new(rate: f64) -> Self {
        Self { rate, left: rate, as_of: Instant::now() }
    }

    fn holds(&mut self, units: f64) -> bool {
        let now = Instant::now();
        let gained = self.rate * (now - self.as_of).as_secs_f64();
        self.left = (self.left + gained).min(self.rate);
        self.as_of = now;
        self.left >= units.min(self.rate)
    }
}

/// A table of partitions, each with a limit of its own; keys that no partition is named for have none.
struct Partitioned {
    table: Mutex<Bucket>,
    partitions: Mutex<Vec<(Vec<&'static str>, Bucket)>>,
    taken: Mutex<Vec<(Instant, String, f64)>>,
}

impl Partitioned {
    fn new(table: f64, partitions: &[(&[&'static str], f64)]) -> Arc<Self> {
        let partitions = partitions.iter().map(|(keys, rate)| (keys.to_vec(), Bucket::new(*rate))).collect();
        Arc::new(Self {
            table: Mutex::new(Bucket::new(table)),
            partitions: Mutex::new(partitions),
            taken: Mutex::default(),
        })
    }

    /// Takes an item, or says whose limit it is over.
    fn take(&self, key: &str, units: f64) -> Result<(), ThrottledBy> {
        let (mut table, mut partitions) = (self.table.lock().unwrap(), self.partitions.lock().unwrap());
        let mut partition =
            partitions.iter_mut().find(|(keys, _)| keys.contains(&key)).map(|(_, bucket)| bucket);
        let over_key = partition.as_mut().is_some_and(|bucket| !bucket.holds(units));
        match (!table.holds(units), over_key) {
            (true, true) => return Err(ThrottledBy::Both),
            (true, false) => return Err(ThrottledBy::Table),
            (false, true) => return Err(ThrottledBy::KeyRange),
            (false, false) => {}
        }
        table.left -= units;
        if let Some(bucket) = partition {
            bucket.left -= units;
        }
        self.taken.lock().unwrap().push((Instant::now(), key.to_owned(), units));
        Ok(())
    }

    fn cools(&self, key: &'static str, rate: f64) {
        for (keys, bucket) in self.partitions.lock().unwrap().iter_mut() {
            if keys.contains(&key) {
                bucket.rate = rate;
            }
        }
    }

    /// Units a second of keys that begin so, between two times.
    fn rate(&self, keys: &str, from: Instant, to: Instant) -> f64 {
        let taken = self.taken.lock().unwrap();
        let within = taken.iter().filter(|(at, key, _)| *at >= from && *at < to && key.starts_with(keys));
        within.map(|(_, _, units)| units).sum::<f64>() / (to - from).as_secs_f64()
    }
}

#[async_trait]
impl ItemWriter for Partitioned {
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (mut written, mut reasons) = (Written::default(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            let units = units_of(item.bytes());
            match self.take(&item.header.partition.aggregate_key, units) {
                Ok(()) => written.write_units += units,
                Err(by) => {
                    reasons.push(by);
                    written.unprocessed.push(index);
                }
            }
        }
        if written.unprocessed.len() < items.len() {
            return Ok(written);
        }
        let by = match reasons.as_slice() {
            [first, rest @ ..] if rest.iter().all(|by| by == first) => *first,
            _ => ThrottledBy::Both,
        };
        Err(StoreError::Throttled { by, source: "over a limit".into() })
    }

    async fn probe(&self, _item: &Item) -> Result<f64, StoreError> {
        Ok(1.0)
    }

    async fn raise_spread(&self, _count: u32) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A batch of one small event for each key; or of large ones.
fn of_keys(shard: &str, first: u32, keys: &[&str], bytes: usize) -> Arc<Batch> {
    let events = (first..).zip(keys).map(|(n, key)| event(n, key, vec![b'x'; bytes])).collect();
    let mut batch = with_parameters(batch(events), |parameters| {
        parameters.codec = Codec::None;
        parameters.max_item_bytes = 4_096;
    });
    batch.id.shard = ShardId::new(shard);
    Arc::new(batch)
}

/// A worker that writes hot keys as fast as it may, oldest of all, and so many small events a second of other keys beside them.
struct Run {
    governor: Arc<Governor>,
    sink: Arc<PackingSink>,
    begun: Instant,
    /// How long each of the small events took.
    latencies: Mutex<Vec<(Instant, Duration)>>,
}

impl Run {
    fn new(table: &Arc<Partitioned>, share: Option<f64>) -> Self {
        let governor = Arc::new(Governor::new(PaceOptions::default()));
        governor.set_share(share.map(|units| Share { units, firm: true }));
        let writer: Arc<dyn ItemWriter> = table.clone();
        let sink = PackingSink::new(writer, PackingSinkOptions::default(), Arc::new(Inline), 7);
        let sink = Arc::new(sink.governed_by(Arc::clone(&governor)));
        Self { governor, sink, begun: Instant::now(), latencies: Mutex::default() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.begun + Duration::from_secs(seconds)
    }

    /// Batches of 20 KB under one key, four at a time, as a shard has them in flight.
    async fn hot(&self, key: &'static str, until: Instant) {
        let one = async |lane: u32| {
            let mut n = 0;
            while Instant::now() < until {
                n += 1;
                let batch = of_keys(&format!("hot-{key}"), lane * 1_000_000 + n, &[key], 20_000);
                let delivered =
                    tokio::time::timeout_at(until, self.sink.deliver(batch, Arc::new(Always))).await;
                assert!(matches!(delivered, Ok(Ok(_)) | Err(_)), "{delivered:?}");
            }
        };
        tokio::join!(one(0), one(1), one(2), one(3));
    }

    /// So many small events a second, each a batch and a key of its own among a hundred.
    async fn cold(&self, a_second: u32, until: Instant) {
        let (mut under_way, mut n) = (FuturesUnordered::new(), 0);
        while Instant::now() < until {
            n += 1;
            let name = format!("cold-{}", n % 100);
            let batch = of_keys("cold", 900_000_000 + n, &[&name], 200);
            under_way.push(async {
                let asked = Instant::now();
                self.sink.deliver(batch, Arc::new(Always)).await.unwrap();
                self.latencies.lock().unwrap().push((asked, asked.elapsed()));
            });
            let next = Instant::now() + Duration::from_secs(1) / a_second;
            while tokio::time::timeout_at(next, under_way.next()).await.is_ok_and(|done| done.is_some()) {}
            tokio::time::sleep_until(next).await;
        }
        while under_way.next().await.is_some() {}
    }

    fn slowest_after(&self, from: Instant) -> Duration {
        let latencies = self.latencies.lock().unwrap();
        latencies.iter().filter(|(asked, _)| *asked >= from).map(|(_, took)| *took).max().unwrap()
    }

    /// Nothing that a key range refused has lowered the rate of the worker.
    fn table_is_not_blamed(&self) {
        let standing = self.governor.standing();
        assert!(
            matches!(standing.reason, RateReason::Searching | RateReason::Share),
            "the table was blamed: {standing:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_hot_key_is_written_at_what_its_partition_takes_and_nobody_waits_for_it() {
    for share in [None, Some(5_000.0)] {
        let table = Partitioned::new(1e9, &[(&["hot"], 300.0)]);
        let run = Run::new(&table, share);
        let until = run.at(30);
        tokio::join!(run.hot("hot", until), run.cold(100, until));
        run.table_is_not_blamed();
        let hot = table.rate("hot", run.at(10), run.at(30));
        assert!(hot >= 0.8 * 300.0, "{hot} units a second of the hot key, {share:?}");
        let slowest = run.slowest_after(run.at(5));
        assert!(slowest < Duration::from_secs(1), "{slowest:?} for a small event, {share:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_keys_of_one_partition_share_it() {
    let table = Partitioned::new(1e9, &[(&["hot-a", "hot-b"], 300.0)]);
    let run = Run::new(&table, Some(5_000.0));
    let until = run.at(40);
    tokio::join!(run.hot("hot-a", until), run.hot("hot-b", until), run.cold(100, until));
    run.table_is_not_blamed();
    let rate = |key| table.rate(key, run.at(10), run.at(40));
    assert!(rate("hot") >= 0.8 * 300.0, "{}", rate("hot"));
    // They are one worker's, the older batches first, so that there is no law of equal parts between them.
    assert!(rate("hot-a").min(rate("hot-b")) >= 30.0, "{} and {}", rate("hot-a"), rate("hot-b"));
    assert!(run.slowest_after(run.at(5)) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_warm_keys_slow_nobody_down() {
    let names: Vec<&'static str> =
        (0..100).map(|n| &*Box::leak(format!("cold-{n}").into_boxed_str())).collect();
    let partitions: Vec<(&[&'static str], f64)> = names.chunks(10).map(|keys| (keys, 25.0)).collect();
    let table = Partitioned::new(1e9, &partitions);
    let run = Run::new(&table, None);
    run.cold(200, run.at(20)).await;
    run.table_is_not_blamed();
    let slowest = run.slowest_after(run.at(5));
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_that_cools_is_followed() {
    let table = Partitioned::new(1e9, &[(&["hot"], 50.0)]);
    let run = Run::new(&table, Some(5_000.0));
    let cools = async {
        tokio::time::sleep_until(run.at(20)).await;
        table.cools("hot", 900.0);
    };
    tokio::join!(run.hot("hot", run.at(45)), cools);
    let rate = |from, to| table.rate("hot", run.at(from), run.at(to));
    assert!(rate(10, 20) >= 0.7 * 50.0, "{}", rate(10, 20));
    assert!(rate(30, 40) >= 0.5 * 900.0, "{} ten seconds later", rate(30, 40));
}

/// A table at its own limit beside a hot key: the table's refusals slow everybody, the key's its own.
#[tokio::test(start_paused = true)]
async fn a_hot_key_leaves_what_the_table_has_left_to_the_others() {
    for share in [None, Some(5_000.0)] {
        let table = Partitioned::new(400.0, &[(&["hot"], 100.0)]);
        let run = Run::new(&table, share);
        let until = run.at(40);
        tokio::join!(run.hot("hot", until), run.hot("warm", until), run.cold(50, until));
        let rate = |keys: &str| table.rate(keys, run.at(10), run.at(40));
        let all = rate("hot") + rate("warm") + rate("cold");
        assert!(all >= 0.85 * 400.0, "the table is used at {all}, {share:?}");
        assert!(rate("hot") >= 0.5 * 100.0, "the hot key has {}, {share:?}", rate("hot"));
        let by_key: BTreeMap<&str, f64> = ["hot", "warm", "cold"].map(|keys| (keys, rate(keys))).into();
        assert!(by_key["warm"] >= 0.8 * (400.0 - 100.0 - 50.0), "{by_key:?}, {share:?}");
    }
}
