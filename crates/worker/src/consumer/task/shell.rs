//! Starts what the state machine asks for, and turns what came of it into its events, or into another attempt.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use rand::RngCore;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::recurring::causes;
use sluicegate_checkpoint::retry::Delays;
use sluicegate_checkpoint::{
    AggregateKey, Batch, LeaseState, Position, Progress, Recurring, RetryPolicy, Right,
};
use sluicegate_lease::{Clock, Interruption, SessionRight, ThroughputMeter, WorkerId};
use sluicegate_sink::DeliverError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::notes::Hourly;
use super::{Came, Consumer, Drain, Ended, Happened, Work, failed};
use crate::consumer::delivery::{Delivery, Durable};
use crate::consumer::judgement::ForeignUserRecords;
use crate::consumer::pace;
use crate::consumer::state::{Command, Event, Finish, ShardSession};
use crate::distribution::DistributionBook;
use crate::kinesis::answer_gate::Admission;
use crate::metrics::ShardMetrics;
use crate::stream::{RecordPage, StreamError};
use crate::watch::Stamp;

/// What stays the same during a session.
pub(super) struct Shell {
    pub(super) delivery: Delivery,
    pub(super) right: SessionRight,
    pub(super) clock: Clock,
    pub(super) metrics: ShardMetrics,
    pub(super) throughput: ThroughputMeter,
    pub(super) since: Option<(Interruption, Instant)>,
    pub(super) distribution: Arc<DistributionBook>,
    pub(super) children: Arc<dyn crate::shard_sync::ChildRows>,
    pub(super) rng: SmallRng,
    pub(super) read_delays: Delays,
    pub(super) delivery_delays: Delays,
    /// For the log; times are since `begun`.
    pub(super) failed_reads: Recurring,
    pub(super) unreadable: Hourly,
    pub(super) untimed: Hourly,
    pub(super) dead_letters: Hourly,
    pub(super) begun: Instant,
    /// What is done with user records of other shards, and those that were left out.
    pub(super) foreign_user_records: ForeignUserRecords,
    pub(super) foreign: Hourly,
    /// Whether events are grouped by their partition key, which some may not have.
    pub(super) aggregates_by_partition_key: bool,
    pub(super) keyless: Hourly,
}

/// How often the right is asked while nothing happens.
const RIGHT_CHECK: Duration = Duration::from_millis(500);

impl Shell {
    pub(super) fn from(consumer: Consumer, work: &mut Work) -> Self {
        let me = consumer.held.row().owner.clone().unwrap_or_else(|| WorkerId::new("nobody"));
        work.held = Some(consumer.held);
        Self {
            delivery: Delivery::new(consumer.sink, consumer.letters, me, consumer.letter_ttl_days),
            right: consumer.right,
            throughput: ThroughputMeter::new(consumer.clock.now()),
            failed_reads: Recurring::default(),
            unreadable: Hourly::default(),
            untimed: Hourly::default(),
            dead_letters: Hourly::default(),
            begun: consumer.clock.now(),
            foreign_user_records: consumer.policy.foreign_user_records,
            foreign: Hourly::default(),
            aggregates_by_partition_key: consumer.policy.parameters.aggregate_key
                == AggregateKey::PartitionKey,
            keyless: Hourly::default(),
            clock: consumer.clock,
            metrics: consumer.metrics,
            since: consumer.since,
            distribution: consumer.distribution,
            children: consumer.children,
            rng: consumer.rng,
            read_delays: RetryPolicy::AWS.delays(),
            delivery_delays: RetryPolicy::AWS.delays(),
        }
    }

    /// Starts what the state machine asked for; returns how the session ends, if it does.
    pub(super) fn start(
        &mut self,
        commands: Vec<Command>,
        work: &mut Work,
        session: &ShardSession,
    ) -> Option<Finish> {
        for command in commands {
            match command {
                Command::Finish(finish) => return Some(finish),
                Command::Read => {
                    work.replaying = session.is_replaying();
                    work.starved = !self.start_read(work, Duration::ZERO);
                }
                Command::Write { checkpoint, state } => self.start_write(work, checkpoint, *state),
                Command::Judge { arrived } => {
                    let book = Arc::clone(&self.distribution);
                    work.judging = Some(async move { (arrived, book.judged(arrived).await) }.boxed());
                }
                Command::Deliver(batch) => self.start_delivery(work, batch, Duration::ZERO),
            }
        }
        self.account(work, session);
        None
    }

    /// Starts a read, or takes the next events out of what was read; returns false if it must wait for the budget of bytes.
    fn start_read(&self, work: &mut Work, after: Duration) -> bool {
        let Some(mut place) = work.place.take() else { return true };
        let replaying = work.replaying;
        place.page.settle(place.events.held_bytes());
        if !place.events.is_empty() {
            let portion = place.events.portion(pace::portion_bytes(place.page.free()));
            let granted = place.page.try_grow(portion.more_bytes);
            let closing = work.closing.clone();
            let take = async move {
                if !granted {
                    let room = place.wait_for_room(portion.more_bytes, replaying);
                    tokio::select! { biased;
                        () = closing.cancelled() => std::future::pending().await,
                        () = room => {}
                    }
                }
                let page = place.events.take(portion);
                (place, Ok(Came::Taken(page)))
            };
            work.reading = Some(take.boxed());
            return granted;
        }
        let clock = self.clock.clone();
        let wait = work.pace.wait(clock.now()).max(after);
        let wanted = work.pace.request(clock.now(), place.page.free());
        let memory_bytes = wanted.memory_bytes.max(work.known_bytes);
        let granted = place.page.try_grow(memory_bytes);
        let closing = work.closing.clone();
        let read = async move {
            let turn = async {
                if !granted {
                    place.wait_for_room(memory_bytes, replaying).await;
                }
                clock.sleep(wait).await;
            };
            tokio::select! { biased;
                () = closing.cancelled() => std::future::pending().await,
                () = turn => {}
            }
            let asked_at = clock.now();
            let admission = Admission::new(place.page.held(), place.page.another());
            let came = admission.during(place.events.fetch(wanted.records)).await;
            // Before what was held for the answer is given back.
            place.page.settle(place.events.held_bytes());
            drop(admission);
            let came = came.map(|answer| Came::Fetched(asked_at, answer)).map_err(|error| (asked_at, error));
            (place, came)
        };
        work.reading = Some(read.boxed());
        granted
    }

    fn start_write(&mut self, work: &mut Work, checkpoint: Position, state: LeaseState) {
        let Some(mut held) = work.held.take() else { return };
        held.measured(self.throughput.throughput(self.clock.now()));
        let write = async move {
            let outcome = held.write(checkpoint, state).await;
            (Box::new(held), outcome)
        };
        work.writing = Some(write.boxed());
    }

    fn start_delivery(&mut self, work: &mut Work, batch: Arc<Batch>, after: Duration) {
        let clock = self.clock.clone();
        let right: Arc<dyn Right> = Arc::new(self.right.clone());
        // Only letters need one.
        let seed = if batch.cut.exclusions.is_empty() { 0 } else { self.rng.next_u64() };
        let deliver = self.delivery.deliver(&batch, right, seed);
        let delivery = async move {
            clock.sleep(after).await;
            (batch, deliver.await)
        };
        work.deliveries.push(delivery.boxed());
    }

    /// Waits for the next thing to happen. *Cancelling it* is safe: what is under way stays where it is.
    pub(super) async fn next(
        &self,
        work: &mut Work,
        session: &ShardSession,
        requests: &mut mpsc::Receiver<Drain>,
        stamp: &Stamp,
    ) -> Happened {
        let deadline = session.next_deadline();
        let wait_deadline = async {
            match deadline {
                Some(deadline) => self.clock.sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let requested = work.drain_to.is_some();
        tokio::select! { biased;
            request = requests.recv(), if !requested => Happened::Request(request),
            done = poll_slot(&mut work.writing) => Happened::Wrote(done),
            done = poll_slot(&mut work.judging) => Happened::Judged(done),
            Some(done) = work.deliveries.next() => Happened::Delivered(done),
            done = poll_slot(&mut work.reading) => Happened::Read(done),
            () = wait_deadline => Happened::Deadline,
            () = self.right_over(stamp) => Happened::RightOver,
        }
    }

    async fn right_over(&self, stamp: &Stamp) {
        while self.right.holds() {
            stamp.stamp();
            self.clock.sleep(RIGHT_CHECK).await;
        }
    }

    /// Turns what happened into an event, or starts a retry, or ends the session.
    pub(super) fn take_in(
        &mut self,
        happened: Happened,
        work: &mut Work,
    ) -> Result<Option<Event>, Box<Ended>> {
        match happened {
            Happened::Request(None) => Err(Box::new(Ended::Interrupted)),
            Happened::Request(Some(drain)) => {
                let deadline = self.clock.now() + drain.within;
                work.closing.cancel();
                work.drain_to = Some(drain);
                Ok(Some(Event::Drain { deadline }))
            }
            Happened::Wrote((held, outcome)) => {
                work.held = Some(*held);
                outcome
                    .map(|announced| Some(Event::Written(announced)))
                    .map_err(|error| Box::new(failed(error)))
            }
            Happened::Judged((arrived, judgement)) => Ok(Some(Event::Judged { arrived, judgement })),
            Happened::Delivered((batch, outcome)) => self.on_delivery(work, batch, outcome),
            Happened::Read((place, outcome)) => {
                work.place = Some(place);
                self.on_read(work, outcome)
            }
            Happened::Deadline => Ok(Some(Event::Tick)),
            // Asked for before anything is started.
            Happened::RightOver => Ok(None),
        }
    }

    fn on_delivery(
        &mut self,
        work: &mut Work,
        batch: Arc<Batch>,
        outcome: Result<Durable, DeliverError>,
    ) -> Result<Option<Event>, Box<Ended>> {
        match outcome {
            Ok(durable) => {
                self.delivery_delays.reset();
                self.delivery.done(&batch);
                self.metrics.delivered(&batch, &durable);
                self.note_foreign(&batch, durable.delivered.foreign);
                self.note_unread(&batch, &durable);
                let (id, revision) = (batch.id.clone(), batch.cut.revision);
                let (outcomes, groups) = (durable.outcomes(), durable.delivered.groups);
                Ok(Some(Event::Delivered { id, revision, groups, outcomes }))
            }
            Err(DeliverError::Poison { offenders, write_units }) => {
                self.metrics.poisoned(write_units);
                let events = offenders.iter().map(|offender| offender.events.clone()).collect();
                self.delivery.rejected(&batch, offenders);
                Ok(Some(Event::Poisoned { batch, events }))
            }
            Err(DeliverError::RightEnded) => Err(Box::new(Ended::Interrupted)),
            Err(error) => match self.delivery_delays.after(error.retry(), &mut self.rng) {
                None => Err(Box::new(failed(error))),
                Some(delay) => {
                    tracing::warn!(error = causes(&error), ?delay, "a batch is delivered again");
                    self.metrics.delivery_failed();
                    self.start_delivery(work, batch, delay);
                    Ok(None)
                }
            },
        }
    }

    fn on_read(
        &mut self,
        work: &mut Work,
        outcome: Result<Came, (Instant, StreamError)>,
    ) -> Result<Option<Event>, Box<Ended>> {
        match outcome {
            Ok(Came::Fetched(asked_at, answer)) => {
                self.read_delays.reset();
                if let Some((why, since)) = self.since.take() {
                    self.metrics.gap(why, self.clock.now().saturating_duration_since(since));
                }
                work.known_bytes = 0;
                work.pace.seen(&answer, asked_at);
                self.throughput.read(answer.fetched.bytes);
                // Nothing to take is an answer too: it says where the shard stands.
                let Some(place) = work.place.as_mut().filter(|place| place.events.is_empty()) else {
                    work.starved = !self.start_read(work, Duration::ZERO);
                    return Ok(None);
                };
                Ok(Some(self.took(place.events.take(place.events.portion(0)))))
            }
            Ok(Came::Taken(page)) => Ok(Some(self.took(page))),
            Err((asked_at, StreamError::Throttled { source })) => {
                work.pace.refused(asked_at);
                self.note_refused_read(&*source, work.pace.wait(self.clock.now()));
                self.metrics.read_refused();
                work.starved = !self.start_read(work, Duration::ZERO);
                Ok(None)
            }
            Err((_asked_at, StreamError::TooLarge { needed })) => {
                work.known_bytes = needed;
                work.starved = !self.start_read(work, Duration::ZERO);
                Ok(None)
            }
            Err((_asked_at, error)) => match self.read_delays.after(error.retry(), &mut self.rng) {
                None => Err(Box::new(failed(error))),
                Some(delay) => {
                    self.note_failed_read(&error, delay);
                    self.metrics.read_failed();
                    work.starved = !self.start_read(work, delay);
                    Ok(None)
                }
            },
        }
    }

    fn took(&mut self, page: RecordPage) -> Event {
        self.metrics.read(&page);
        self.note_keyless(&page);
        Event::Page(page)
    }

    /// Holds exactly the bytes that the session's records take. A read under way holds a page more on an account of
    /// its own, so that what deliveries free is free while the read waits for room.
    pub(super) fn account(&self, work: &mut Work, session: &ShardSession) {
        let weight = session.weight_bytes();
        work.records.settle(weight);
        if let Some(place) = &mut work.place {
            place.page.settle(place.events.held_bytes());
            if !session.is_replaying() {
                place.overdraw = None;
            }
        }
        self.metrics.buffered(weight);
        self.metrics.at_risk(session.at_risk_since());
    }
}

/// Waits for the work in a slot and empties it; an empty slot never comes.
async fn poll_slot<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(work) => {
            let done = work.await;
            *slot = None;
            done
        }
        None => std::future::pending().await,
    }
}
