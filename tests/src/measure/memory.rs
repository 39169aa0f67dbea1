//! Whether a worker's memory stays within its formula whatever the stream holds (law M1): a worker with the default settings, or
//! another `buffer_bytes`, on a backlog of one kind of records, or of all kinds, until everything is stored.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use md5::{Digest, Md5};
use prost::encoding::encode_varint;
use serde_json::json;
use sluicegate_worker::budget::resident_bytes;
use sluicegate_worker::deaggregate::MAGIC;

use crate::harness::backend::STREAM;
use crate::harness::{Backend, Fleet};

/// What is measured.
#[derive(Debug, Clone)]
pub struct MemoryPlan {
    /// Kinds of records.
    pub loads: Vec<Load>,
    /// The workers' `buffer_bytes`, in MiB.
    pub buffers_mib: Vec<usize>,
    /// Shards, where the load does not say.
    pub shards: Option<usize>,
    /// Longest that a worker may take to store everything.
    pub within: Duration,
}

/// A kind of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// 48 shards of 520 events of 20 KB.
    Large,
    /// 32 shards of 10 events of 1 MB.
    Megabytes,
    /// 16 shards of 200 aggregates of 50 KB, of events of 20 bytes.
    SmallUserRecords,
    /// 8 shards of an aggregate of 10 MB, of empty events.
    EmptyUserRecords,
    /// 4 shards of 5 aggregates of 1 MB, all of whose events have one key of 256 characters of four bytes.
    LongKeys,
    /// 10 shards of all of these.
    Mixed,
}

/// What came of one load.
#[derive(Debug, Clone)]
pub struct Outcome {
    load: Load,
    buffer_mib: usize,
    shards: usize,
    events: u64,
    stored: u64,
    peak_bytes: u64,
    formula_bytes: u64,
    seconds: f64,
}

impl Load {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::Large,
        Self::Megabytes,
        Self::SmallUserRecords,
        Self::EmptyUserRecords,
        Self::LongKeys,
        Self::Mixed,
    ];

    /// As arguments and the report name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Megabytes => "megabytes",
            Self::SmallUserRecords => "small-user-records",
            Self::EmptyUserRecords => "empty-user-records",
            Self::LongKeys => "long-keys",
            Self::Mixed => "mixed",
        }
    }

    fn shards(self) -> usize {
        match self {
            Self::Large => 48,
            Self::Megabytes => 32,
            Self::SmallUserRecords => 16,
            Self::EmptyUserRecords => 8,
            Self::LongKeys => 4,
            Self::Mixed => 10,
        }
    }

    /// The Kinesis records of a shard, with the number of events in each.
    fn records(self, hash_key: u128, part: usize) -> Vec<(Vec<u8>, u64)> {
        let many = |count: usize, record: (Vec<u8>, u64)| vec![record; (count / part).max(1)];
        match self {
            Self::Large => many(520, (vec![b'x'; 20_000], 1)),
            Self::Megabytes => many(10, (vec![b'x'; 1_000_000], 1)),
            Self::SmallUserRecords => {
                many(200, aggregate("sensor-1", hash_key, br#"{"t":1,"v":77777777}"#, 50_000))
            }
            Self::EmptyUserRecords => many(1, aggregate("k", hash_key, b"", 10_000_000)),
            Self::LongKeys => many(5, aggregate(&"\u{1F6B0}".repeat(256), hash_key, b"{\"v\":1}", 1_000_000)),
            Self::Mixed => Self::ALL
                .iter()
                .filter(|load| **load != Self::Mixed)
                .flat_map(|load| load.records(hash_key, 5))
                .collect(),
        }
    }
}

impl FromStr for Load {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|load| load.name() == text);
        let Some(found) = found else {
            bail!("unknown load `{text}`: expected {}", Self::ALL.map(Self::name).join(", "))
        };
        Ok(found)
    }
}

/// An aggregate of so many bytes, of events that are all the same, and how many they are.
fn aggregate(key: &str, hash_key: u128, data: &[u8], bytes: usize) -> (Vec<u8>, u64) {
    fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_varint(number << 3 | 2, &mut out);
        encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    }
    // Partition key 0, explicit hash key 0.
    let user = field(3, &[&[8, 0, 16, 0], &field(3, data)[..]].concat());
    let tables = [field(1, key.as_bytes()), field(2, hash_key.to_string().as_bytes())].concat();
    let count = bytes.saturating_sub(tables.len() + MAGIC.len() + 16) / user.len();
    let message = [tables, user.repeat(count)].concat();
    let sum = Md5::digest(&message);
    ([MAGIC.as_slice(), &message, &sum].concat(), count as u64)
}

/// Measures every load with every buffer; `say` is told what happens.
///
/// # Errors
/// A worker dies, or does not store everything in time.
pub async fn run(plan: &MemoryPlan, name: &str, say: impl Fn(&str)) -> anyhow::Result<Vec<Outcome>> {
    say("load                 buffer  shards   events  peak MiB  formula  ratio  seconds");
    let mut outcomes = Vec::new();
    for load in &plan.loads {
        for buffer_mib in &plan.buffers_mib {
            let outcome = measure(plan, *load, *buffer_mib, name).await?;
            say(&outcome.to_string());
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

async fn measure(plan: &MemoryPlan, load: Load, buffer_mib: usize, name: &str) -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().to_str().context("the folder's name is not UTF-8")?;
    let backend = Backend::process_with(&["--dir", dir]).await?;
    let shards = plan.shards.unwrap_or_else(|| load.shards());
    let create = backend.kinesis().create_stream().stream_name(STREAM).shard_count(i32::try_from(shards)?);
    create.max_record_size_in_kib(10 << 10).send().await?;
    let mut events = 0;
    let part = shards.div_ceil(load.shards());
    for shard in 0..shards {
        let hash_key = u128::MAX / shards as u128 * shard as u128 + 1;
        for (data, count) in load.records(hash_key, part) {
            events += count;
            let entry =
                PutRecordsRequestEntry::builder().partition_key("k").explicit_hash_key(hash_key.to_string());
            let entry = entry.data(Blob::new(data)).build()?;
            let put = backend.kinesis().put_records().stream_name(STREAM).records(entry);
            ensure!(put.send().await?.failed_record_count() == Some(0), "a record was not stored");
        }
    }
    let mut fleet = Fleet::with_defaults(&backend, name)?.set("buffer_bytes", &format!("{buffer_mib}MiB"));
    fleet.start(&[])?;
    let begun = tokio::time::Instant::now();
    let mut outcome = Outcome {
        load,
        buffer_mib,
        shards,
        events,
        stored: 0,
        peak_bytes: 0,
        formula_bytes: resident_bytes(buffer_mib << 20, shards),
        seconds: 0.0,
    };
    while outcome.stored < events {
        fleet.check_alive()?;
        ensure!(
            begun.elapsed() < plan.within,
            "{} of {events} events after {:?}",
            outcome.stored,
            plan.within
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        let stored = fleet.metrics("sluicegate_events_stored_total").await.unwrap_or_default();
        outcome.stored = whole(stored.iter().sum());
        outcome.peak_bytes = fleet.peak_bytes()?.into_iter().max().unwrap_or_default();
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    ensure!(outcome.stored == events, "{} events were stored, {events} were put", outcome.stored);
    fleet.stop().await?;
    Ok(outcome)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of events")]
fn whole(count: f64) -> u64 {
    count as u64
}

impl Outcome {
    /// Peak by formula.
    pub fn ratio(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^53")]
        let ratio = self.peak_bytes as f64 / self.formula_bytes as f64;
        ratio
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (load, buffer, shards, events) = (self.load.name(), self.buffer_mib, self.shards, self.events);
        let (peak, formula, ratio) = (self.peak_bytes >> 20, self.formula_bytes >> 20, self.ratio());
        let seconds = self.seconds;
        write!(
            f,
            "{load:<20} {buffer:>6} {shards:>7} {events:>8} {peak:>9} {formula:>8} {ratio:>6.2} {seconds:>8.1}"
        )
    }
}

/// For machines.
pub fn json(outcomes: &[Outcome]) -> serde_json::Value {
    let one = |outcome: &Outcome| {
        json!({
            "load": outcome.load.name(),
            "buffer_mib": outcome.buffer_mib,
            "shards": outcome.shards,
            "events": outcome.events,
            "peak_mib": outcome.peak_bytes >> 20,
            "formula_mib": outcome.formula_bytes >> 20,
            "ratio": (outcome.ratio() * 1_000.0).round() / 1_000.0,
            "seconds": (outcome.seconds * 10.0).round() / 10.0,
        })
    };
    let worst = outcomes.iter().map(Outcome::ratio).fold(0.0, f64::max);
    json!({ "worst_ratio": (worst * 1_000.0).round() / 1_000.0, "outcomes": outcomes.iter().map(one).collect::<Vec<_>>() })
}
