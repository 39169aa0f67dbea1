//! The sink that packs: batch -> items -> table, with retries per item.
//!
//! Runs over any [`ItemWriter`], so simulation and production share it. Packing goes through [`Offload`];
//! every attempt asks the right first; how many requests are under way is bounded per sink, however many
//! batches are delivered at once, and the oldest batch goes first (`governor::turn`). Which of its items is tried when is
//! decided in `write_queue`, here it is carried out.
//!
//! ```text
//! pack (offloaded) -> queue -> [permit -> right? -> write] x n -> stored: done
//!                       ^                                      |  unprocessed, throttled, no answer: later
//!                       +--------------------------------------+  rejected: alone; alone and rejected: poison
//! ```
//! What is rejected alone can never be stored. The items of the other groups are written, and then the events at fault are
//! looked for (`poison`) and named in the answer. Under the next revision those groups are not written again (`durable`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::recurring::causes;
use sluicegate_checkpoint::{Batch, Recurring, Retry, RetryPolicy, Right};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::dead_letter::{Letter, redriven_items};
use crate::governor::pace::PaceOptions;
use crate::governor::turn::Rank;
use crate::governor::{Governor, Outcome};
use crate::item::Item;
use crate::offload::{Offload, offload};
use crate::packing::{PACKING_VERSION, PackError, Packed, pack};
use crate::sink::{DeliverError, Delivered, Sink};
use crate::store::{ItemWriter, StoreError, Written};

mod durable;
mod poison;
mod span;
mod write_queue;

use durable::{Groups, Remembered};
use poison::Rejected;
use write_queue::{Request, WriteQueue};

/// What can be set of a [`PackingSink`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackingSinkOptions {
    /// Requests under way at the same time, over all batches. Default 4, at least 1. Fewer leave bandwidth
    /// unused; each takes up to about 5 MB of memory (2 MiB of items, and their encoding).
    pub requests_in_flight: usize,
    /// How long one attempt may take. Default 10 s. Too short repeats writes that were about to succeed; too
    /// long holds a permit for a connection that is dead.
    pub attempt_timeout: Duration,
    /// A delivery in which no attempt succeeded for this long gives up; it comes again. Default 60 s.
    pub give_up_after: Duration,
    /// Delays between the attempts at one item.
    pub retry: RetryPolicy,
    /// The packing versions to make, ascending; default [`PACKING_VERSION`] alone.
    pub packing_versions: Vec<u32>,
}

impl Default for PackingSinkOptions {
    fn default() -> Self {
        Self {
            requests_in_flight: 4,
            attempt_timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(60),
            retry: RetryPolicy::AWS,
            packing_versions: vec![PACKING_VERSION],
        }
    }
}

/// Packs batches and writes their items.
pub struct PackingSink {
    writer: Arc<dyn ItemWriter>,
    pool: Arc<dyn Offload>,
    options: PackingSinkOptions,
    requests: Semaphore,
    governor: Arc<Governor>,
    /// Jitter of delays; nothing else is drawn from it.
    rng: Mutex<SmallRng>,
    /// The spread count that the table is known to hold.
    spread: AtomicU32,
    /// What is durable of batches that were found to hold poison.
    remembered: Remembered,
    /// Failed writes, for the log; times are since `begun`.
    failures: Mutex<Recurring>,
    begun: Instant,
}

/// How often failed writes are told while they go on.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// The pool dropped the packing of a batch.
#[derive(Debug, Error)]
#[error("packing did not finish: the pool dropped it")]
struct PackingDropped;

/// One attempt took too long.
#[derive(Debug, Error)]
#[error("no answer within {0:?}")]
struct AttemptTimedOut(Duration);

/// What came of one request.
enum Attempt {
    RightEnded,
    Done(Request, Result<Written, StoreError>),
}

impl PackingSink {
    /// Makes a sink over a writer. `seed` is for the jitter of delays.
    pub fn new(
        writer: Arc<dyn ItemWriter>,
        options: PackingSinkOptions,
        pool: Arc<dyn Offload>,
        seed: u64,
    ) -> Self {
        Self {
            writer,
            pool,
            requests: Semaphore::new(options.requests_in_flight.max(1)),
            governor: Arc::new(Governor::new(PaceOptions::default())),
            rng: Mutex::new(SmallRng::seed_from_u64(seed)),
            spread: AtomicU32::new(1),
            remembered: Remembered::default(),
            failures: Mutex::default(),
            begun: Instant::now(),
            options,
        }
    }

    /// Writes at the rate of this governor. Without one of its own, a sink has one without a share: the table alone sets
    /// the rate, by throttling.
    pub fn governed_by(mut self, governor: Arc<Governor>) -> Self {
        self.governor = governor;
        self
    }

    /// Records in the table over how many suffixes keys are spread, so that readers look under all of them.
    /// Called at start to find out early; a batch with a higher count raises it before anything of it is
    /// written.
    ///
    /// # Errors
    /// The table could not be written.
    pub async fn raise_spread(&self, count: u32, right: &dyn Right) -> Result<(), DeliverError> {
        if count <= self.spread.load(Ordering::Acquire) {
            return Ok(());
        }
        let (mut delays, begun) = (self.options.retry.delays(), Instant::now());
        loop {
            if !right.holds() {
                return Err(DeliverError::RightEnded);
            }
            let error = match self.timed(self.writer.raise_spread(count)).await {
                Ok(()) => break,
                Err(error) => error,
            };
            let delay = delays.after(error.retry(), &mut self.rng());
            match delay {
                Some(delay) if begun.elapsed() < self.options.give_up_after => {
                    tokio::time::sleep(delay).await
                }
                Some(_) | None => return Err(refused_or_unavailable("the spread count", error)),
            }
        }
        self.spread.fetch_max(count, Ordering::AcqRel);
        Ok(())
    }

    /// Stores the items of one event that was dead-lettered. They are the same whenever they are made, so that this
    /// can be repeated.
    ///
    /// # Errors
    /// See [`DeliverError`]; an event that the table still rejects is [`DeliverError::Refused`].
    pub async fn redrive(&self, letter: &Letter, right: &dyn Right) -> Result<f64, DeliverError> {
        let items = redriven_items(letter)
            .map_err(|error| DeliverError::Refused { what: error.to_string(), source: Box::new(error) })?;
        let id = &letter.header.id;
        let rank = Rank {
            arrival: letter.header.arrival,
            shard: id.shard.clone(),
            first: id.sequence_number.clone(),
        };
        let (write_units, rejected) = self.write_all(items, &rank, right).await?;
        match rejected.into_iter().next() {
            None => Ok(write_units),
            Some(rejected) => Err(DeliverError::Refused {
                what: format!("the table still rejects it: {}", rejected.why()),
                source: "a rejected item".into(),
            }),
        }
    }

    async fn pack(&self, batch: Arc<Batch>) -> Result<Packed, DeliverError> {
        match offload(&self.pool, move || pack(&batch)).await {
            Some(Ok(packed)) => Ok(packed),
            Some(Err(PackError::Version { wanted })) => Err(DeliverError::PackingVersion { wanted }),
            Some(Err(error)) => {
                Err(DeliverError::Refused { what: error.to_string(), source: Box::new(error) })
            }
            None => Err(DeliverError::Unavailable {
                what: "packing".to_owned(),
                source: Box::new(PackingDropped),
            }),
        }
    }

    /// Writes all items that the table takes; returns the write units that it took, and what it rejected.
    async fn write_all(
        &self,
        items: Vec<Item>,
        rank: &Rank,
        right: &dyn Right,
    ) -> Result<(f64, Vec<Rejected>), DeliverError> {
        let mut queue = WriteQueue::new(items, self.options.retry);
        let (mut write_units, mut rejected) = (0.0, Vec::new());
        // Time spent waiting for one's turn is no failure.
        let mut failing_since: Option<Instant> = None;
        let all = queue.units();
        let mut waiting = self.governor.wait_for(all);
        let mut in_flight = FuturesUnordered::new();
        loop {
            let most = self.options.requests_in_flight.max(1);
            while in_flight.len() < most {
                // The last place is for what can go: a hot key must not hold up the others of its batch.
                let fullest = in_flight.len() + 1 < most || most == 1;
                let is_free = |key: &str, units| self.governor.key_free_at(key, units).is_none();
                let Some(request) =
                    queue.take(Instant::now(), self.governor.request_units(), (&is_free, fullest))
                else {
                    break;
                };
                in_flight.push(self.attempt(request, rank, right));
            }
            // With every request under way only an answer moves things on: what is due already must not be waited
            // for, or this would spin until there is one.
            let due = queue.next_due().filter(|_| in_flight.len() < most);
            let attempt = tokio::select! {
                biased;
                Some(attempt) = in_flight.next() => attempt,
                () = sleep_until(due), if due.is_some() => continue,
                else => return Ok((write_units, rejected)),
            };
            let Attempt::Done(request, outcome) = attempt else { return Err(DeliverError::RightEnded) };
            let failure = match outcome {
                Ok(written) => {
                    write_units += written.write_units;
                    let units: f64 = request.units().iter().map(|(_key, units)| units).sum();
                    waiting.done(units - request.units_at(&written.unprocessed));
                    if written.unprocessed.len() < request.len() {
                        failing_since = None;
                    } else {
                        failing_since.get_or_insert_with(Instant::now);
                    }
                    debug!(items = request.len(), unprocessed = written.unprocessed.len(), "items written");
                    queue.left_over(request, &written.unprocessed);
                    None
                }
                Err(StoreError::Rejected(_)) if request.len() > 1 => {
                    queue.one_by_one(request);
                    None
                }
                Err(StoreError::Rejected(why)) => {
                    failing_since = None;
                    waiting.done(request.units().iter().map(|(_key, units)| units).sum());
                    for item in request.items() {
                        // The rest of its group would never be read.
                        let Some(mut found) = Rejected::of(item, why.to_string()) else { continue };
                        let given_up = queue.give_up(found.aggregate_key());
                        waiting.done(given_up);
                        found.left_units += given_up;
                        rejected.push(found);
                    }
                    None
                }
                Err(StoreError::Throttled { by, source }) => {
                    failing_since.get_or_insert_with(Instant::now);
                    let error = StoreError::Throttled { by, source };
                    self.note_failure(&error, request.len());
                    queue.refused(request);
                    Some(error)
                }
                Err(error) => {
                    failing_since.get_or_insert_with(Instant::now);
                    Some(self.failed(&mut queue, request, error)?)
                }
            };
            if failing_since.is_some_and(|since| since.elapsed() >= self.options.give_up_after) {
                let what = format!("no item was written for {:?}", self.options.give_up_after);
                return Err(unavailable(what, failure.unwrap_or_else(still_unprocessed)));
            }
        }
    }

    /// Puts what failed for now back; what failed for good ends the delivery.
    fn failed(
        &self,
        queue: &mut WriteQueue,
        request: Request,
        error: StoreError,
    ) -> Result<StoreError, DeliverError> {
        match error.retry() {
            Retry::Never => Err(refused_or_unavailable(&request.names(), error)),
            Retry::Backoff | Retry::After(_) => {
                self.note_failure(&error, request.len());
                queue.failed(request, Instant::now(), &mut self.rng());
                Ok(error)
            }
        }
    }

    /// An outage fails thousands of writes alike: they are told now and then.
    fn note_failure(&self, error: &StoreError, items: usize) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let told = failures.tell(self.begun.elapsed(), TELL_EVERY);
        match told {
            Some(since) => {
                warn!(error = causes(error), items, since, "a write failed and will be tried again");
            }
            None => debug!(error = causes(error), items, "a write failed and will be tried again"),
        }
    }

    async fn attempt(&self, request: Request, rank: &Rank, right: &dyn Right) -> Attempt {
        let (admitted, _slot) = self.governor.admit(rank, request.units(), &self.requests).await;
        if !right.holds() {
            return Attempt::RightEnded;
        }
        let outcome = self.timed(self.writer.write(request.items())).await;
        self.governor.settle(&admitted, seen(&request, &outcome));
        Attempt::Done(request, outcome)
    }

    async fn timed<T>(&self, attempt: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let limit = self.options.attempt_timeout;
        match tokio::time::timeout(limit, attempt).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(StoreError::Unavailable(Box::new(AttemptTimedOut(limit)))),
        }
    }

    fn rng(&self) -> std::sync::MutexGuard<'_, SmallRng> {
        // A generator is never half changed.
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an attempt tells the governor: a table that does not answer says nothing of the rate it takes.
fn seen(request: &Request, outcome: &Result<Written, StoreError>) -> Outcome {
    match outcome {
        Ok(written) => Outcome::Answered {
            consumed: written.write_units,
            left_over: request.units_by_key(&written.unprocessed),
        },
        Err(StoreError::Throttled { by, .. }) => Outcome::Throttled(*by),
        Err(StoreError::Rejected(_)) => Outcome::Rejected,
        Err(StoreError::Unavailable(_) | StoreError::Refused { .. } | StoreError::Item(_)) => {
            Outcome::Unknown
        }
    }
}

/// Sleeps until then, for ever if there is nothing to wait for.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Every request came back with its items unprocessed.
#[derive(Debug, Error)]
#[error("the table left the items unprocessed")]
struct Unprocessed;

fn still_unprocessed() -> StoreError {
    StoreError::throttled(Box::new(Unprocessed))
}

pub(crate) fn unavailable(what: String, error: StoreError) -> DeliverError {
    DeliverError::Unavailable { what, source: Box::new(error) }
}

pub(crate) fn refused_or_unavailable(subject: &str, error: StoreError) -> DeliverError {
    let what = match &error {
        StoreError::Refused { what, .. } => what.clone(),
        StoreError::Throttled { .. }
        | StoreError::Unavailable(_)
        | StoreError::Rejected(_)
        | StoreError::Item(_) => {
            format!("{subject}: {error}")
        }
    };
    match error.retry() {
        Retry::Never => DeliverError::Refused { what, source: Box::new(error) },
        Retry::Backoff | Retry::After(_) => unavailable(what, error),
    }
}

#[async_trait]
impl Sink for PackingSink {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        let wanted = batch.cut.packing_version;
        if !self.options.packing_versions.contains(&wanted) {
            return Err(DeliverError::PackingVersion { wanted });
        }
        if !right.holds() {
            return Err(DeliverError::RightEnded);
        }
        self.raise_spread(batch.cut.parameters.spread, right.as_ref()).await?;
        let packed = self.pack(Arc::clone(&batch)).await?;
        let items = packed.items.len() as u64;
        let (groups, durable) = (Groups::of(&packed.items), self.remembered.take(&batch.id));
        let wanting = packed.items.into_iter().filter(|item| !durable.hold(item)).collect();
        let (write_units, rejected) = self.write_all(wanting, &Rank::of(&batch), right.as_ref()).await?;
        if !rejected.is_empty() {
            let keys = rejected.iter().map(Rejected::aggregate_key).collect();
            self.remembered.keep(batch.id.clone(), groups.without(&keys));
            return Err(self.poison(&batch, rejected, write_units, right.as_ref()).await);
        }
        Ok(Delivered {
            events: packed.events,
            records: packed.records,
            filtered: packed.filtered,
            foreign: packed.foreign,
            unreadable: packed.unreadable,
            untimed: packed.untimed,
            dead_letters: packed.dead_letters,
            items,
            write_units,
            raw_bytes: packed.raw_bytes,
            stored_bytes: packed.stored_bytes,
            fallback_keys: packed.fallback_keys,
            arrivals: packed.arrivals,
            groups: packed.groups,
        })
    }

    fn packing_versions(&self) -> &[u32] {
        &self.options.packing_versions
    }
}

#[cfg(test)]
mod tests;
