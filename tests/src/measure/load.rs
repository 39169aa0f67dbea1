//! A steady load on every shard: numbered events, so that lost and repeated ones are known by their number.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
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
    /// Events after which it ends by itself.
    most: u64,
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
    /// About 800 bytes of JSON such as websites send: names and choices that repeat, ids and numbers that do not.
    Visit,
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
            Self::Visit => visit(number).into_bytes(),
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
            Self::Json | Self::Noise | Self::Visit => false,
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
            Self::Visit => {
                let number = claimed(data)?;
                (visit(number).as_bytes() == data).then_some(number)
            }
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
            most: u64::MAX,
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

    /// With so many events, after which it ends by itself.
    pub fn of_at_most(self, most: u64) -> Self {
        Self { most, ..self }
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

    /// Publishes until stopped or done; returns how many events, numbered from 0, are in the stream. One that falls behind
    /// catches up in full requests.
    ///
    /// # Errors
    /// A request failed: how much is in the stream would then be unknown.
    pub async fn run(&self, stop: &CancellationToken) -> anyhow::Result<u64> {
        let begun = tokio::time::Instant::now();
        let mut published: u64 = 0;
        while !stop.is_cancelled() && published < self.most {
            let elapsed = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let due = (self.head_start + elapsed * u64::from(self.rate) / 1_000).min(self.most);
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
        let shard = number % shards;
        let key = self.keys.map_or_else(|| key(0, 0), |keys| key_of(number, shards, keys));
        let entry = PutRecordsRequestEntry::builder()
            .data(Blob::new(self.kind.event(number)))
            .partition_key(key)
            .explicit_hash_key(&self.shards[usize::try_from(shard)?]);
        Ok(entry.build()?)
    }
}

/// The aggregate key of an event, where those of each shard have so many.
pub(super) fn key_of(number: u64, shards: u64, keys: u64) -> String {
    key(number % shards, number / shards % keys)
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
    let number = claimed(data)?;
    (event(number).as_bytes() == data).then_some(number)
}

/// The number that an event begins with.
fn claimed(data: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(data).ok()?;
    text.strip_prefix("{\"number\":")?.split(',').next()?.parse().ok()
}

/// A visit to a page. Two ids of 16 random bytes and a dozen random choices are what a compressor cannot guess.
fn visit(number: u64) -> String {
    const BROWSERS: [&str; 4] = [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile",
        "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 14.5; rv:127.0) Gecko/20100101 Firefox/127.0",
    ];
    const KINDS: [&str; 5] = ["page_view", "search", "add_to_cart", "product_click", "scroll"];
    const PLACES: [&str; 6] = ["Berlin", "Lisbon", "Toronto", "Osaka", "Nairobi", "Valencia"];
    let mut rng = SmallRng::seed_from_u64(number);
    let (event, session): (u128, u128) = (rng.random(), rng.random());
    let kind = KINDS[rng.random_range(0..KINDS.len())];
    let browser = BROWSERS[rng.random_range(0..BROWSERS.len())];
    let place = PLACES[rng.random_range(0..PLACES.len())];
    let (product, category) = (rng.random_range(10_000..100_000), rng.random_range(1..40));
    let (visitor, cents) = (rng.random_range(1_000_000..9_999_999), rng.random_range(100..50_000));
    let (x, y, scrolled) =
        (rng.random_range(0..1_920), rng.random_range(0..9_999), rng.random_range(0..=100));
    let (loaded, stayed) = (rng.random_range(80..4_000), rng.random_range(500..90_000));
    let (variant, minute, millis) = (rng.random_range(0..3), number / 240_000 % 60, number / 4 % 60_000);
    format!(
        "{{\"number\":{number},\"event_id\":\"{event:032x}\",\"session_id\":\"{session:032x}\",\"event_type\":\"{kind}\",\
         \"occurred_at\":\"2025-11-28T09:{minute:02}:{:02}.{:03}Z\",\"schema\":\"web.events.visit/v7\",\
         \"visitor\":{{\"id\":{visitor},\"returning\":{},\"city\":\"{place}\",\"consent\":[\"necessary\",\"statistics\"]}},\
         \"page\":{{\"url\":\"https://shop.example/catalogue/category-{category}/product-{product}\",\"title\":\"Product {product}\",\
         \"referrer\":\"https://shop.example/catalogue/category-{category}\"}},\
         \"product\":{{\"id\":{product},\"category\":{category},\"price_cents\":{cents},\"currency\":\"EUR\"}},\
         \"pointer\":{{\"x\":{x},\"y\":{y},\"scrolled_percent\":{scrolled}}},\
         \"timing\":{{\"loaded_ms\":{loaded},\"stayed_ms\":{stayed}}},\
         \"experiments\":[{{\"name\":\"new-checkout\",\"variant\":{variant}}}],\"user_agent\":\"{browser}\"}}",
        millis / 1_000,
        millis % 1_000,
        visitor % 2 == 0,
    )
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
        let visit = Kind::Visit.event(1_234_567);
        assert!(serde_json::from_slice::<serde_json::Value>(&visit).is_ok());
        assert_eq!(Kind::Visit.number(&visit), Some(1_234_567));
        assert_eq!(Kind::Json.number(&visit), None);
        let mut visit = visit;
        visit[100] ^= 1;
        assert_eq!(Kind::Visit.number(&visit), None);
    }

    /// An item of its own costs one write unit, name, keys and all; and it is no smaller than what is said of it.
    #[test]
    fn a_visit_is_about_800_bytes() {
        let lengths: Vec<usize> = (0..2_000).map(|number| Kind::Visit.event(number * 117).len()).collect();
        let mean = lengths.iter().sum::<usize>() / lengths.len();
        assert!((780..820).contains(&mean), "{mean}");
        assert!(lengths.iter().max() < Some(&980));
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
