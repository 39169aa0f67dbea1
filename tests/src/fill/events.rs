//! What is measured with: events of a file under a key, such as flights made up, and such as no compressor makes smaller.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use md5::{Digest, Md5};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use sluicegate_checkpoint::KeyTemplate;
use sluicegate_producer::Progress;
use sluicegate_producer::lines::{Line, Lines};

/// An event and the key it is published with, which is its aggregate key too.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its key.
    pub key: String,
    /// Its payload.
    pub data: Bytes,
}

impl Event {
    /// The shard that Kinesis puts it into, if hash keys are divided evenly.
    pub fn shard_of(&self, shards: u32) -> u32 {
        let hash = u128::from_be_bytes(Md5::digest(self.key.as_bytes()).into());
        let width = u128::MAX / u128::from(shards.max(1));
        u32::try_from(hash / width).unwrap_or(u32::MAX).min(shards.saturating_sub(1))
    }
}

/// The lines of a file: newline-delimited JSON, plain or compressed.
///
/// # Errors
/// It cannot be read.
pub fn lines_of(path: &Path) -> anyhow::Result<Vec<Bytes>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut lines = Lines::open(file, 1 << 20, Arc::new(Progress::default()))?;
    let mut events = Vec::new();
    while let Some(line) = lines.next_line()? {
        match line {
            Line::Text(text) => events.push(Bytes::copy_from_slice(text)),
            Line::Empty | Line::TooLong => {}
        }
    }
    Ok(events)
}

/// Lines under the key that a template gives; without one each has its own, as `sluicegate produce` does it.
///
/// # Errors
/// The template is none, or a line is no JSON.
pub fn keyed(lines: &[Bytes], template: Option<&str>) -> anyhow::Result<Vec<Event>> {
    let template = template.map(KeyTemplate::parse).transpose()?;
    let keyed = |(number, data): (usize, &Bytes)| {
        let key = match &template {
            Some(template) => template.render(&sluicegate_event::Event::parse(data)?).into_text(),
            None => format!("event-{number}"),
        };
        Ok(Event { key, data: data.clone() })
    };
    lines.iter().enumerate().map(keyed).collect()
}

/// Events of `bytes` bytes that no compressor makes smaller, all under one key; the same ones for the same seed.
pub fn incompressible(seed: u64, count: usize, bytes: usize) -> Vec<Event> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let event = |_| {
        let mut data = vec![0; bytes];
        rng.fill_bytes(&mut data);
        Event { key: "noise".to_owned(), data: data.into() }
    };
    (0..count).map(event).collect()
}

/// Events such as flights, under the three airports that they leave from; the same ones for the same seed.
pub fn flights(seed: u64, count: usize) -> Vec<Event> {
    const AIRPORTS: [&str; 3] = ["EWR", "JFK", "LGA"];
    let mut rng = SmallRng::seed_from_u64(seed);
    let event = |number: usize| {
        // 36, 33 and 31 of a hundred, as in 2013.
        let at = match rng.random_range(0..100) {
            0..36 => 0,
            36..69 => 1,
            _ => 2,
        };
        let (planned, delay, flight) =
            (rng.random_range(300..1_400), rng.random_range(-15..90), rng.random_range(1..6_000));
        let (day, tail, dest) = (number / 900, rng.random_range(100..999), rng.random_range(10..99));
        let data = format!(
            "{{\"year\":2013,\"month\":{},\"day\":{},\"dep_time\":{},\"sched_dep_time\":{planned},\"dep_delay\":{delay},\
             \"carrier\":\"UA\",\"flight\":{flight},\"tailnum\":\"N{tail}UA\",\"origin\":\"{}\",\"dest\":\"X{dest}\",\
             \"air_time\":{},\"distance\":{},\"hour\":{},\"minute\":{}}}",
            1 + day / 30 % 12,
            1 + day % 30,
            planned + delay,
            AIRPORTS[at],
            dest * 4,
            dest * 25,
            planned / 60,
            planned % 60,
        );
        Event { key: AIRPORTS[at].to_owned(), data: data.into() }
    };
    (0..count).map(event).collect()
}
