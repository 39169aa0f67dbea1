//! Producers whose every event is known beforehand: numbered, its bytes a function of seed and number. A request whose
//! outcome is unknown is repeated, as any producer must, so the stream may hold copies; the backend's journal tells.

use std::time::Duration;

use anyhow::{Context, bail};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::put_records::PutRecordsError;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::harness::backend::STREAM;

/// Partition keys of all events together.
const KEYS: u64 = 96;
/// Time between two requests of a producer.
const TICK: Duration = Duration::from_millis(100);
/// Most records of a request (Kinesis API reference, PutRecords).
const MAX_ENTRIES: u64 = 500;
/// Wait before a request is repeated.
const BACKOFF: Duration = Duration::from_millis(200);
/// How long one request is repeated.
const PATIENCE: Duration = Duration::from_secs(180);

/// The events of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// The seed of the run.
    pub seed: u64,
}

impl Events {
    /// The event of a number: 150 to 450 bytes of JSON, half of which a compressor can guess.
    pub fn data(self, number: u64) -> Vec<u8> {
        const WORDS: [&str; 8] =
            ["boarding", "delayed", "cancelled", "landed", "gate", "crew", "fuel", "weather"];
        let mut rng = SmallRng::seed_from_u64(self.seed.rotate_left(32) ^ number);
        let mut text = format!(
            "{{\"number\":{number},\"run\":{},\"flight\":\"{:016x}\"",
            self.seed,
            rng.random::<u64>()
        );
        for field in 0..rng.random_range(5..14) {
            let word = WORDS[rng.random_range(0..WORDS.len())];
            text.push_str(&format!(",\"{word}_{field}\":{}", rng.random_range(0..1_000_000_000_u32)));
        }
        text.push('}');
        text.into_bytes()
    }

    /// The partition key of an event, which is its aggregate key.
    pub fn key(number: u64) -> String {
        // Far apart for neighbours, so that the events of a second have many keys.
        key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32)
    }

    /// All of them.
    pub fn keys() -> Vec<String> {
        (0..KEYS).map(key).collect()
    }

    /// The number of an event, if it is one of these, unchanged.
    pub fn number(self, data: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(data).ok()?;
        let number = text.strip_prefix("{\"number\":")?.split(',').next()?.parse().ok()?;
        (self.data(number) == data).then_some(number)
    }
}

fn key(of: u64) -> String {
    format!("route-{:02}", of % KEYS)
}

/// What the producers did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Events that the stream confirmed, numbered from 0 but for what a producer had not come to.
    pub confirmed: u64,
    /// Requests whose outcome stayed unknown.
    pub unknown: u64,
}

/// One of several producers, which share the numbers out.
#[derive(Debug)]
pub struct Producer {
    /// A client of its own.
    pub client: Client,
    /// What it publishes.
    pub events: Events,
    /// Which of them it is, and how many there are.
    pub place: (u64, u64),
    /// Events a second.
    pub rate: f64,
}

impl Producer {
    /// Publishes until stopped, and then what is under way.
    ///
    /// # Errors
    /// A request is refused as wrong, or not taken for minutes.
    pub async fn run(&self, stop: &CancellationToken) -> anyhow::Result<Sent> {
        let begun = Instant::now();
        let (mut sent, mut next) = (Sent::default(), 0u64);
        while !stop.is_cancelled() {
            let due = due(begun.elapsed(), self.rate).min(next + MAX_ENTRIES);
            if due > next {
                let entries: anyhow::Result<Vec<_>> = (next..due).map(|at| self.entry(at)).collect();
                sent.unknown += self.put(entries?).await?;
                sent.confirmed += due - next;
                next = due;
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(sent)
    }

    /// The number of its event so and so.
    fn number(&self, at: u64) -> u64 {
        at * self.place.1 + self.place.0
    }

    fn entry(&self, at: u64) -> anyhow::Result<PutRecordsRequestEntry> {
        let number = self.number(at);
        let entry = PutRecordsRequestEntry::builder().data(Blob::new(self.events.data(number)));
        Ok(entry.partition_key(Events::key(number)).build()?)
    }

    /// Repeats until all are confirmed; how many requests had an unknown outcome.
    async fn put(&self, mut entries: Vec<PutRecordsRequestEntry>) -> anyhow::Result<u64> {
        let (begun, mut unknown) = (Instant::now(), 0);
        while !entries.is_empty() {
            let request = self.client.put_records().stream_name(STREAM).set_records(Some(entries.clone()));
            match request.send().await {
                Ok(answer) => {
                    let refused = |at: &usize| {
                        answer.records().get(*at).is_none_or(|record| record.error_code().is_some())
                    };
                    entries = (0..entries.len()).filter(refused).map(|at| entries[at].clone()).collect();
                }
                Err(error) => match outcome(&error) {
                    Outcome::Unknown => unknown += 1,
                    Outcome::Refused => {}
                    Outcome::Wrong => return Err(error).context("events were refused"),
                },
            }
            if !entries.is_empty() {
                if begun.elapsed() > PATIENCE {
                    bail!("the stream did not take {} events within {PATIENCE:?}", entries.len());
                }
                tokio::time::sleep(BACKOFF).await;
            }
        }
        Ok(unknown)
    }
}

/// How many events are due.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
fn due(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate) as u64
}

/// What is known of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing of it was stored.
    Refused,
    /// It may have been stored.
    Unknown,
    /// It never will be.
    Wrong,
}

fn outcome(error: &SdkError<PutRecordsError>) -> Outcome {
    match error.raw_response().map(|response| response.status().as_u16()) {
        None | Some(500..) => Outcome::Unknown,
        Some(_) if error.code() == Some("ProvisionedThroughputExceededException") => Outcome::Refused,
        Some(_) => Outcome::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_event_is_known_by_its_number_and_a_changed_one_is_not() {
        let events = Events { seed: 7 };
        let data = events.data(123);
        assert!(serde_json::from_slice::<serde_json::Value>(&data).is_ok());
        assert_eq!((events.number(&data), Events { seed: 8 }.number(&data)), (Some(123), None));
        let mut changed = data;
        changed[60] ^= 1;
        assert_eq!(events.number(&changed), None);
    }

    #[test]
    fn events_are_of_the_sizes_and_keys_that_are_told() {
        let lengths: Vec<usize> = (0..2_000).map(|number| Events { seed: 1 }.data(number).len()).collect();
        assert!(lengths.iter().all(|length| (100..500).contains(length)), "{:?}", lengths.iter().max());
        let mean = lengths.iter().sum::<usize>() / lengths.len();
        assert!((200..350).contains(&mean), "{mean}");
        let used: BTreeSet<String> = (0..2_000).map(Events::key).collect();
        assert_eq!(used, Events::keys().into_iter().collect());
    }
}
