//! The usual way without Sluicegate: a producer that puts every event into the table as an item of its own.
//!
//! Events wait in a queue with a bound; what finds it full is dropped. A number of senders take 25 of them each, the most
//! that a BatchWriteItem may hold, and repeat what is throttled or comes back unprocessed until all 25 are stored, however
//! long that takes. Between two attempts they wait at random up to 50 ms, doubled each time, 20 s at most.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::{Context, bail};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, Select, WriteRequest};
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_sink::dynamodb::ensure_table;
use tokio::time::Instant;

use super::course::{Course, Sample};
use super::{BurstPlan, KIND, Outcome, second_over};
use crate::harness::Backend;
use crate::harness::fleet::APPLICATION;
use crate::measure::budget::seconds;
use crate::measure::load::key_of;

/// Most items of a BatchWriteItem.
const AT_ONCE: usize = 25;
const SENDERS: usize = 32;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Time between two looks of somebody who has nothing to do.
const TICK: Duration = Duration::from_millis(20);

/// Events by their number, with the moment at which they came. **Pure.**
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<u64>,
    kept: BTreeMap<u64, Instant>,
    offered: u64,
    stored: u64,
    dropped: u64,
    closed: bool,
}

impl Queue {
    fn offer(&mut self, bound: usize, now: Instant) {
        if self.kept.len() < bound {
            self.waiting.push_back(self.offered);
            self.kept.insert(self.offered, now);
        } else {
            self.dropped += 1;
        }
        self.offered += 1;
    }

    fn take(&mut self) -> Vec<u64> {
        let count = self.waiting.len().min(AT_ONCE);
        self.waiting.drain(..count).collect()
    }

    fn stored(&mut self, number: u64) {
        self.stored += u64::from(self.kept.remove(&number).is_some());
    }

    fn done(&self) -> bool {
        self.closed && self.kept.is_empty()
    }

    fn sample(&self, second: u64, now: Instant) -> Sample {
        let oldest = self.kept.first_key_value().map_or(now, |(_, came)| *came);
        let age = now.saturating_duration_since(oldest).as_secs_f64();
        Sample { second, offered: self.offered, stored: self.stored, dropped: self.dropped, age }
    }
}

struct Producer<'p> {
    plan: &'p BurstPlan,
    client: Client,
    table: String,
    queue: RefCell<Queue>,
}

/// Plays the burst; returns when all that was not dropped is stored.
pub(super) async fn run(plan: &BurstPlan, say: &impl Fn(&str)) -> anyhow::Result<Outcome> {
    let backend = Backend::process().await?;
    let table = format!("{APPLICATION}-events");
    backend.set("/limits", &format!("burst_seconds = 1\ntables.{table}.wcu = {}", plan.table_wcu)).await?;
    ensure_table(backend.dynamodb(), &table, true).await?;
    let client = backend.dynamodb().clone();
    let producer = Producer { plan, client, table, queue: RefCell::default() };
    let senders = (0..SENDERS).map(|sender| producer.send(SmallRng::seed_from_u64(sender as u64)));
    let (samples, (), sent) =
        tokio::join!(producer.watch(say), producer.offer(), futures::future::try_join_all(senders));
    sent?;
    let from = samples.first().context("nothing was counted")?.second;
    let before = samples.last().context("nothing was counted")?.second + 1;
    let course = Course::new(&samples, &seconds(&backend, from, before).await?);
    let stored = producer.count().await?;
    let queue = producer.queue.into_inner();
    Ok(Outcome { offered: queue.offered, stored, dropped: queue.dropped, duplicated: 0, course })
}

impl Producer<'_> {
    async fn offer(&self) {
        tokio::time::sleep(self.plan.lead).await;
        let begun = Instant::now();
        while !self.offer_due(begun, Instant::now()) {
            tokio::time::sleep(TICK).await;
        }
    }

    /// Offers what is due, and tells whether that was all.
    fn offer_due(&self, begun: Instant, now: Instant) -> bool {
        let elapsed = now.duration_since(begun).min(self.plan.lasts);
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let due = millis * u64::from(self.plan.rate()) / 1_000;
        let mut queue = self.queue.borrow_mut();
        while queue.offered < due {
            queue.offer(self.plan.queue, now);
        }
        queue.closed = elapsed == self.plan.lasts;
        queue.closed
    }

    async fn watch(&self, say: &impl Fn(&str)) -> Vec<Sample> {
        let mut samples = Vec::new();
        loop {
            let second = second_over().await;
            let sample = self.queue.borrow().sample(second, Instant::now());
            samples.push(sample);
            if self.queue.borrow().done() {
                return samples;
            }
            if samples.len().is_multiple_of(10) {
                say(&format!(
                    "{} s  offered {}  stored {}  dropped {}  oldest {:.1} s",
                    samples.len(),
                    sample.offered,
                    sample.stored,
                    sample.dropped,
                    sample.age,
                ));
            }
        }
    }

    async fn send(&self, mut rng: SmallRng) -> anyhow::Result<()> {
        while !self.queue.borrow().done() {
            let mut batch = self.queue.borrow_mut().take();
            if batch.is_empty() {
                tokio::time::sleep(TICK).await;
            }
            let mut wait = FIRST_WAIT;
            while !batch.is_empty() {
                batch = self.attempt(batch).await?;
                if !batch.is_empty() {
                    tokio::time::sleep(wait.mul_f64(rng.random())).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
        Ok(())
    }

    /// One request; returns what is not stored.
    async fn attempt(&self, batch: Vec<u64>) -> anyhow::Result<Vec<u64>> {
        let requests = batch.iter().map(|number| self.put(*number)).collect::<anyhow::Result<_>>()?;
        let request = self.client.batch_write_item().request_items(&self.table, requests);
        let rest = match request.send().await {
            Ok(answer) => {
                answer.unprocessed_items.unwrap_or_default().remove(&self.table).unwrap_or_default()
            }
            Err(error) => match error.code() {
                Some("ProvisionedThroughputExceededException" | "ThrottlingException") => return Ok(batch),
                Some(_) | None => return Err(error).context("events were not written"),
            },
        };
        let rest: Vec<u64> = rest.iter().map(number_of).collect::<anyhow::Result<_>>()?;
        let mut queue = self.queue.borrow_mut();
        batch.iter().filter(|number| !rest.contains(number)).for_each(|number| queue.stored(*number));
        Ok(rest)
    }

    fn put(&self, number: u64) -> anyhow::Result<WriteRequest> {
        let text = |text: String| AttributeValue::S(text);
        let key = key_of(number, self.plan.shards as u64, self.plan.keys_per_shard);
        let put = PutRequest::builder()
            .item("pk", text(key))
            .item("sk", text(format!("{number:012}")))
            .item("event", AttributeValue::B(Blob::new(KIND.event(number))));
        Ok(WriteRequest::builder().put_request(put.build()?).build())
    }

    /// Items in the table.
    async fn count(&self) -> anyhow::Result<u64> {
        let mut pages =
            self.client.scan().table_name(&self.table).select(Select::Count).into_paginator().send();
        let mut count = 0;
        while let Some(page) = pages.next().await {
            count += u64::try_from(page?.count())?;
        }
        Ok(count)
    }
}

fn number_of(request: &WriteRequest) -> anyhow::Result<u64> {
    let sort = request.put_request().and_then(|put| put.item().get("sk"));
    match sort {
        Some(AttributeValue::S(number)) => Ok(number.parse()?),
        other => bail!("an item that was never sent: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_drops_what_comes_and_the_oldest_counts() {
        let mut queue = Queue::default();
        let begun = Instant::now();
        (0..30).for_each(|_| queue.offer(28, begun));
        assert_eq!((queue.offered, queue.dropped), (30, 2));
        let taken = queue.take();
        assert_eq!((taken.len(), queue.take(), queue.take()), (25, vec![25, 26, 27], vec![]));
        queue.offer(28, begun);
        assert_eq!(queue.dropped, 3);
        taken.into_iter().for_each(|number| queue.stored(number));
        let now = begun + Duration::from_secs(4);
        queue.offer(28, now);
        assert_eq!(queue.sample(7, now), Sample { second: 7, offered: 32, stored: 25, dropped: 3, age: 4.0 });
        [25, 26, 27].into_iter().for_each(|number| queue.stored(number));
        assert_eq!(queue.sample(7, now).age, 0.0);
        queue.closed = true;
        assert!(!queue.done());
        queue.stored(31);
        queue.stored(31);
        assert_eq!((queue.done(), queue.stored), (true, 29));
    }
}
