//! Chunks -> requests -> at most so many deliveries in flight. The one place of this crate that spawns tasks.
//!
//! Everything in memory has a bound: the requests in flight, the requests that one chunk completed while all of
//! those were busy (nothing more is received until they have left), the request being collected, and the channel.
//! A request that is not full leaves when it has lingered, no more records are waiting and a place is free, so that
//! a slow input is published promptly and a slow stream gets full requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::delivery::{Delivered, Delivery};
use crate::entry::Entry;
use crate::input::{FromInput, InputEnd};
use crate::pace::Pace;
use crate::publisher::{PublishFault, PublishOptions};
use crate::requests::{Request, RequestBuilder};
use crate::summary::Summary;

/// How long a request waits for more records while it is not full.
const LINGER: Duration = Duration::from_millis(100);

/// How long attempts in flight may still take after a stop, so that what was stored is counted as stored.
const STOP_GRACE: Duration = Duration::from_secs(5);

#[expect(
    clippy::disallowed_types,
    reason = "the flusher is the producer's supervisor: it owns and awaits its tasks"
)]
type Tasks = tokio::task::JoinSet<Delivered>;

/// Publishes what the input thread hands on.
pub(crate) struct Flusher {
    delivery: Arc<Delivery>,
    concurrency: usize,
    rng: SmallRng,
    pace: Pace,
    builder: RequestBuilder,
    ready: VecDeque<Request>,
    linger_until: Option<Instant>,
    input_ended: bool,
    tasks: Tasks,
    counts: Summary,
    fault: Option<PublishFault>,
}

impl Flusher {
    pub(crate) fn new(options: &PublishOptions, delivery: Delivery) -> Self {
        let pace = Pace::new(options.events_per_second);
        Self {
            delivery: Arc::new(delivery),
            concurrency: options.concurrency.get(),
            rng: options.rng.clone(),
            builder: RequestBuilder::new(pace.records_per_request()),
            pace,
            ready: VecDeque::new(),
            linger_until: None,
            input_ended: false,
            tasks: Tasks::new(),
            counts: Summary::default(),
            fault: None,
        }
    }

    /// Runs until the input has ended and everything is stored, or until a stop or a fault. Returns what was
    /// counted, and why something may be left. Not cancel-safe: dropping it abandons the deliveries in flight.
    pub(crate) async fn run(
        mut self,
        mut input: mpsc::Receiver<FromInput>,
        stop: &CancellationToken,
    ) -> (Summary, Option<PublishFault>) {
        loop {
            let now = Instant::now();
            self.launch(now, !input.is_empty());
            if self.input_ended && self.ready.is_empty() && self.builder.is_empty() && self.tasks.is_empty() {
                return (self.counts, self.fault);
            }
            let wake = self.next_deadline(now);
            let wants_input = !self.input_ended && self.ready.is_empty();
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.fault = Some(PublishFault::Stopped);
                    break;
                }
                Some(finished) = self.tasks.join_next() => {
                    if let Some(fault) = self.absorb(finished) {
                        self.fault = Some(fault);
                        break;
                    }
                }
                // Before the timer: while more is waiting, a request does not leave for having lingered.
                received = input.recv(), if wants_input => self.on_input(received),
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
        drop(input);
        self.wind_up().await;
        (self.counts, self.fault)
    }

    /// Starts deliveries while there are requests, places and time for them.
    fn launch(&mut self, now: Instant, more_waits: bool) {
        while self.tasks.len() < self.concurrency && self.pace.wait_until(now).is_none() {
            let Some(request) = self.next_request(now, more_waits) else { return };
            self.pace.charge(request.entries.len(), now);
            let (delivery, rng) = (Arc::clone(&self.delivery), SmallRng::from_rng(&mut self.rng));
            self.tasks.spawn(async move { delivery.deliver(request, rng).await });
        }
    }

    fn next_request(&mut self, now: Instant, more_waits: bool) -> Option<Request> {
        let complete = self.ready.pop_front();
        let has_lingered = !more_waits && self.linger_until.is_some_and(|until| until <= now);
        if complete.is_none() && (has_lingered || self.input_ended) {
            return self.builder.take();
        }
        complete
    }

    /// When [`Flusher::launch`] can do more, if time is all that it waits for.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.tasks.len() >= self.concurrency {
            return None;
        }
        let paced = self.pace.wait_until(now);
        if !self.ready.is_empty() || (self.input_ended && !self.builder.is_empty()) {
            return paced;
        }
        let lingers_until = self.linger_until.filter(|_| !self.builder.is_empty())?;
        Some(paced.map_or(lingers_until, |paced| paced.max(lingers_until)))
    }

    fn on_input(&mut self, received: Option<FromInput>) {
        match received {
            Some(FromInput::Chunk { entries, seen }) => {
                self.counts.add(seen);
                self.collect(entries);
            }
            Some(FromInput::End(end)) => {
                self.input_ended = true;
                self.fault = match end {
                    InputEnd::Finished => None,
                    InputEnd::Invalid(error) => Some(PublishFault::Line(error)),
                    InputEnd::Unreadable { after_line, source } => {
                        Some(PublishFault::Unreadable { after_line, source })
                    }
                };
            }
            None => {
                self.input_ended = true;
                self.fault = Some(PublishFault::InputLost);
            }
        }
    }

    fn collect(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if self.builder.is_empty() {
                self.linger_until = Some(Instant::now() + LINGER);
            }
            if let Some(complete) = self.builder.add(entry) {
                self.ready.push_back(complete);
                self.linger_until = Some(Instant::now() + LINGER);
            }
        }
    }

    fn absorb(&mut self, finished: Result<Delivered, JoinError>) -> Option<PublishFault> {
        match finished {
            Ok(Delivered { counts, fault }) => {
                self.counts.add(counts);
                fault
            }
            Err(source) => Some(PublishFault::Task { source }),
        }
    }

    /// Lets attempts in flight end, without new ones, and leaves them when they take too long.
    async fn wind_up(&mut self) {
        self.delivery.stop.cancel();
        let deadline = Instant::now() + STOP_GRACE;
        while !self.tasks.is_empty() {
            tokio::select! {
                biased;
                Some(finished) = self.tasks.join_next() => drop(self.absorb(finished)),
                () = sleep_until(deadline), if !self.delivery.abandon.is_cancelled() => {
                    self.delivery.abandon.cancel();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
