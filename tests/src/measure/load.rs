//! A steady load on every shard: numbered events, so that lost and repeated ones are known by their number.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use sluicegate_checkpoint::{SequenceNumber, ShardId};
use tokio_util::sync::CancellationToken;

use crate::harness::backend::STREAM;

/// Publishes events to all shards in turn.
#[derive(Debug)]
pub struct Load {
    client: Client,
    /// The first hash key of each shard: what aims at it.
    shards: Vec<String>,
    /// Events a second, all shards together.
    rate: u32,
    kind: Kind,
    /// Events that are published at once.
    head_start: u64,
    /// How many keys the events of each shard have; `None` for one that all shards share.
    keys: Option<u64>,
    /// The last record that was put into each shard.
    ends: Mutex<BTreeMap<ShardId, SequenceNumber>>,
}

/// What events look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// About 120 bytes of JSON.
    Json,
    /// 1,000 bytes that nothing compresses.
    Noise,
    /// The same, and one of so many holds [`MARKER`], wherever an item begins or ends in it.
    Marked(u64),
}

/// What the events of [`Kind::Marked`] that are to be rejected hold, and no others.
pub const MARKER: &str = "*never-to-be-stored*";
/// Where: apart, so that the ends of items cannot cut all of them.
const MARKED_AT: [usize; 3] = [100, 400, 700];

impl Kind {
    /// The event of a number.
    pub fn event(self, number: u64) -> Vec<u8> {
        match self {
            Self::Json => event(number).into_bytes(),
            Self::Marked(_) if self.marks(number) => {
                let mut data = Self::Noise.event(number);
                for at in MARKED_AT {
                    data[at..at + MARKER.len()].copy_from_slice(MARKER.as_bytes());
                }
                data
            }
            Self::Noise | Self::Marked(_) => {
                let mut data = vec![0; 1_000];
                let (head, noise) = data.split_at_mut(8);
                head.copy_from_slice(&number.to_be_bytes());
                SmallRng::seed_from_u64(number).fill_bytes(noise);
                data
            }
        }
    }

    /// Whether the event of this number holds [`MARKER`]: one in each run of so many, somewhere in it.
    pub fn marks(self, number: u64) -> bool {
        match self {
            Self::Json | Self::Noise => false,
            Self::Marked(every) => {
                let run = number / every.max(1);
                number % every.max(1) == SmallRng::seed_from_u64(run).next_u64() % every.max(1)
            }
        }
    }

    /// The number of an event, if it is one of these, unchanged.
    pub fn number(self, data: &[u8]) -> Option<u64> {
        match self {
            Self::Json => number(data),
            Self::Noise | Self::Marked(_) => {
                let number = u64::from_be_bytes(data.first_chunk().copied()?);
                (self.event(number) == data).then_some(number)
            }
        }
    }
}

/// Time between two requests.
const TICK: Duration = Duration::from_millis(50);
/// Most records of a request (Kinesis API reference, PutRecords).
const MAX_ENTRIES: u64 = 500;

impl Load {
    /// A load on the stream of a backend.
    ///
    /// # Errors
    /// The shards cannot be listed.
    pub async fn new(client: Client, rate: u32) -> anyhow::Result<Self> {
        let listed = client.list_shards().stream_name(STREAM).send().await?;
        let first = |shard: &aws_sdk_kinesis::types::Shard| {
            Some(shard.hash_key_range()?.starting_hash_key().to_owned())
        };
        let shards = listed.shards().iter().map(first).collect::<Option<_>>().context("no hash keys")?;
        Ok(Self {
            client,
            shards,
            rate,
            kind: Kind::Json,
            head_start: 0,
            keys: Some(1),
            ends: Mutex::default(),
        })
    }

    /// What its events look like.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// With other events, the first of them published at once.
    pub fn of(self, kind: Kind, head_start: u64) -> Self {
        Self { kind, head_start, ..self }
    }

    /// The last record of each shard.
    pub fn ends(&self) -> BTreeMap<ShardId, SequenceNumber> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, put: &PutRecordsResultEntry) {
        let number = put.sequence_number().and_then(|number| SequenceNumber::parse(number).ok());
        if let (Some(shard), Some(number)) = (put.shard_id(), number) {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            let end = ends.entry(ShardId::new(shard)).or_insert_with(|| number.clone());
            if *end < number {
                *end = number;
            }
        }
    }

    /// With one aggregate key for all events, on all shards.
    pub fn under_one_key(self) -> Self {
        Self { keys: None, ..self }
    }

    /// With so many aggregate keys for the events of each shard, in turn.
    pub fn under_keys(self, each_shard: u64) -> Self {
        Self { keys: Some(each_shard.max(1)), ..self }
    }

    /// The aggregate keys of the events.
    pub fn keys(&self) -> Vec<String> {
        let keys = self.keys.unwrap_or(1);
        let shards = if self.keys.is_some() { self.shards.len() as u64 } else { 1 };
        (0..shards).flat_map(|shard| (0..keys).map(move |at| key(shard, at))).collect()
    }

    /// Publishes until stopped; returns how many events, numbered from 0, are in the stream. One that falls behind
    /// catches up in full requests.
    ///
    /// # Errors
    /// A request failed: how much is in the stream would then be unknown.
    pub async fn run(&self, stop: &CancellationToken) -> anyhow::Result<u64> {
        let begun = tokio::time::Instant::now();
        let mut published: u64 = 0;
        while !stop.is_cancelled() {
            let elapsed = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let due = self.head_start + elapsed * u64::from(self.rate) / 1_000;
            let upto = due.min(published + MAX_ENTRIES);
            if upto > published {
                self.put((published..upto).map(|number| self.entry(number)).collect::<anyhow::Result<_>>()?)
                    .await?;
                published = upto;
            }
            if due == upto {
                tokio::time::sleep(TICK).await;
            }
        }
        Ok(published)
    }

    async fn put(&self, mut entries: Vec<PutRecordsRequestEntry>) -> anyhow::Result<()> {
        while !entries.is_empty() {
            let request = self.client.put_records().stream_name(STREAM).set_records(Some(entries.clone()));
            let answer = request.send().await.context("events were not published")?;
            answer.records().iter().for_each(|put| self.note(put));
            let refused =
                |at: &usize| answer.records().get(*at).is_none_or(|record| record.error_code().is_some());
            entries = (0..entries.len()).filter(refused).map(|at| entries[at].clone()).collect();
            if answer.records().is_empty() {
                bail!("the stream answered for no event");
            }
        }
        Ok(())
    }

    fn entry(&self, number: u64) -> anyhow::Result<PutRecordsRequestEntry> {
        let shards = self.shards.len() as u64;
        let (shard, turn) = (number % shards, number / shards);
        let key = self.keys.map_or_else(|| key(0, 0), |keys| key(shard, turn % keys));
        let entry = PutRecordsRequestEntry::builder()
            .data(Blob::new(self.kind.event(number)))
            .partition_key(key)
            .explicit_hash_key(&self.shards[usize::try_from(shard)?]);
        Ok(entry.build()?)
    }
}

fn key(shard: u64, at: u64) -> String {
    if at == 0 { format!("shard-{shard:02}") } else { format!("shard-{shard:02}-{at}") }
}

/// The event of a number, about 120 bytes.
pub fn event(number: u64) -> String {
    let mix = |n: u64| n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    let (a, b, c) = (mix(number), mix(mix(number)), mix(mix(mix(number))));
    format!(
        "{{\"number\":{number},\"kind\":\"measured\",\"a\":\"{a:016x}\",\"b\":\"{b:016x}\",\"c\":\"{c:016x}\"}}"
    )
}

/// The number of an event, if it is one of these, unchanged.
pub fn number(data: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(data).ok()?;
    let digits = text.strip_prefix("{\"number\":")?.split(',').next()?;
    let number = digits.parse().ok()?;
    (event(number) == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_its_number_and_a_changed_one_is_not() {
        let text = event(1_234_567);
        assert_eq!(number(text.as_bytes()), Some(1_234_567));
        assert_eq!(number(text.replace("measured", "measures").as_bytes()), None);
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        let mut noise = Kind::Noise.event(7);
        assert_eq!((noise.len(), Kind::Noise.number(&noise)), (1_000, Some(7)));
        noise[999] ^= 1;
        assert_eq!(Kind::Noise.number(&noise), None);
    }

    #[test]
    fn one_event_of_each_run_is_marked_and_known_all_the_same() {
        let kind = Kind::Marked(50);
        let marked: Vec<u64> = (0..500).filter(|number| kind.marks(*number)).collect();
        assert_eq!(marked.iter().map(|number| number / 50).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        for number in 0..500 {
            let event = kind.event(number);
            let holds = event.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
            assert_eq!((kind.number(&event), holds), (Some(number), marked.contains(&number)));
        }
    }
}
