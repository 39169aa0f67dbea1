//! Carries one session out: reads, writes the row, delivers, and tells the state machine what came of it.
//!
//! At most one read and one row write are under way, and as many deliveries as the state machine asked for. Before
//! anything new is started the worker's right is asked.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use rand::RngCore;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::recurring::causes;
use sluicegate_checkpoint::retry::Delays;
use sluicegate_checkpoint::{
    Announced, Batch, LeaseState, Position, Progress, ProgressError, Recurring, RetryPolicy, Right,
    SequenceNumber,
};
use sluicegate_lease::{
    Clock, FixedStart, HeldLease, Interruption, Lease, SessionRight, ThroughputMeter, WorkerId, open_start,
};
use sluicegate_sink::{DeadLetters, DeliverError, Sink};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, Durable};
use super::pace::{Pace, ReadPolicy};
use super::state::{Command, Event, Finish, SessionPolicy, ShardSession};
use crate::budget::{Account, ByteBudget, Overdraw};
use crate::deaggregate::cursor;
use crate::metrics::ShardMetrics;
use crate::stream::{RecordPage, ShardCursor, StreamError, StreamReader};
use crate::telemetry::wall_millis;

/// A request to a running session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Who gets the lease; nobody frees it.
    pub to: Option<WorkerId>,
    /// Time to finish in; what is announced then goes with the row.
    pub within: Duration,
}

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// The lease was given away.
    HandedOver {
        /// To whom.
        to: Option<WorkerId>,
        /// The row as the hand-over wrote it.
        row: Box<Lease>,
    },
    /// The shard is finished: its checkpoint says so.
    ShardEnd,
    /// Somebody else owns the lease.
    Lost,
    /// The right lapsed, or the row must be read again: begin anew if the lease is still ours.
    Interrupted,
    /// It could not go on.
    Failed(ConsumerError),
}

impl Ended {
    /// The end in a word, for logs and metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::HandedOver { .. } => "handed_over",
            Self::ShardEnd => "shard_end",
            Self::Lost => "lost",
            Self::Interrupted => "interrupted",
            Self::Failed(_) => "failed",
        }
    }
}

/// Why a session could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The row's cuts make no sense, or cannot be read.
    #[error("the lease row cannot be worked on: {0}")]
    Row(String),
    /// Announced records are gone.
    #[error(transparent)]
    RecordsLost(#[from] super::replay::RecordsLost),
    /// Retention took records before they were read.
    #[error(transparent)]
    Overtaken(#[from] super::retention::Overtaken),
    /// The stream does not know the shard. That is not its end.
    #[error("the shard was not found, which is not its end; the shards are listed again ({0})")]
    ShardNotFound(StreamError),
    /// The stream refuses.
    #[error(transparent)]
    Stream(StreamError),
    /// The sink refuses.
    #[error(transparent)]
    Sink(#[from] DeliverError),
    /// The row refuses.
    #[error("the lease row was not written")]
    Progress(#[from] ProgressError),
    /// The rows of child shards were not written.
    #[error("the rows of child shards were not written")]
    Children(#[from] crate::shard_sync::SyncError),
}

/// What a session works with.
pub struct Consumer {
    /// The tenure of the lease.
    pub held: HeldLease,
    /// Where records come from.
    pub stream: Arc<dyn StreamReader>,
    /// Where batches go.
    pub sink: Arc<dyn Sink>,
    /// Where events go that the sink never takes.
    pub letters: Arc<dyn DeadLetters>,
    /// The worker's right, as of the session's beginning.
    pub right: SessionRight,
    /// The worker's clock.
    pub clock: Clock,
    /// The worker's budget of bytes.
    pub budget: Arc<ByteBudget>,
    /// What the session is told of its surroundings.
    pub policy: SessionPolicy,
    /// Where the application started: what becomes of a row that KCL left at LATEST or AT_TIMESTAMP.
    pub start: FixedStart,
    /// How it reads.
    pub read: ReadPolicy,
    /// What it counts.
    pub metrics: ShardMetrics,
    /// Since when nobody has read the shard, if somebody did before.
    pub since: Option<(Interruption, Instant)>,
    /// Makes the rows of a finished shard's children.
    pub children: Arc<dyn crate::shard_sync::ChildRows>,
    /// Requests.
    pub requests: mpsc::Receiver<Drain>,
    /// Jitter of retries.
    pub rng: SmallRng,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("held", &self.held).finish_non_exhaustive()
    }
}

type ReadDone = (Place, Result<RecordPage, StreamError>);

type WriteDone = (Box<HeldLease>, Result<Announced, ProgressError>);
type DeliveryDone = (Arc<Batch>, Result<Durable, DeliverError>);

/// The place in the shard, and what a page that is being read holds of the budget.
struct Place {
    cursor: Box<dyn ShardCursor>,
    page: Account,
    /// Kept while announced batches are read again, if it was needed.
    overdraw: Option<Overdraw>,
}

impl Place {
    async fn wait_for_room(&mut self, bytes: usize, replaying: bool) {
        if !replaying {
            self.page.grow(bytes).await;
        } else if self.overdraw.is_none() {
            self.overdraw = self.page.grow_or_overdraw(bytes).await;
        } else {
            self.page.settle(bytes);
        }
    }
}

/// What is under way, and what is kept for the next of its kind.
struct Work {
    held: Option<HeldLease>,
    place: Option<Place>,
    /// Whether the read under way is for announced batches.
    replaying: bool,
    /// Whether that read waits for the budget of bytes.
    starved: bool,
    /// What the session's records hold of the budget.
    records: Account,
    reading: Option<BoxFuture<'static, ReadDone>>,
    writing: Option<BoxFuture<'static, WriteDone>>,
    deliveries: FuturesUnordered<BoxFuture<'static, DeliveryDone>>,
    pace: Pace,
    drain_to: Option<Drain>,
    /// Cancelled by a drain: a read that still waits for its turn never begins.
    closing: CancellationToken,
}

/// Something that came to pass.
enum Happened {
    Request(Option<Drain>),
    Wrote(WriteDone),
    Delivered(DeliveryDone),
    Read(ReadDone),
    Deadline,
    RightOver,
}

impl Consumer {
    /// Works on the shard until the session ends. *Cancelling it* through `stop` ends it at once; the row keeps
    /// what was announced.
    pub async fn run(mut self, stop: CancellationToken) -> Ended {
        if let Some(next) = open_start::closed(self.held.row(), self.start) {
            tracing::info!(lease_key = %next.key, from = %self.held.row().checkpoint, start = %self.start, "a start that KCL left open becomes the application's");
            let written = tokio::select! { biased;
                () = stop.cancelled() => return Ended::Lost,
                written = self.held.replace(next) => written,
            };
            match written {
                Ok(Announced::Recorded) => {}
                Ok(Announced::Lost) => return Ended::Lost,
                Err(error) => return failed(error),
            }
        }
        let row = self.held.row().clone();
        let Some(state) = row.pending.state() else {
            return failed(ConsumerError::Row("its pending state cannot be read by this build".to_owned()));
        };
        if let Err(broken) = state.check_cuts(&row.checkpoint) {
            return failed(ConsumerError::Row(broken.to_string()));
        }
        let session = ShardSession::new(&row, state, self.policy.clone());
        self.metrics.session_began(session.batches_to_redeliver());
        self.work(session, stop).await
    }

    async fn work(mut self, mut session: ShardSession, stop: CancellationToken) -> Ended {
        let cursor = cursor::open(&*self.stream, &self.held.row().key, session.read_from());
        let mut work = Work {
            held: None,
            place: Some(Place { cursor, page: self.budget.account(), overdraw: None }),
            replaying: false,
            starved: false,
            records: self.budget.account(),
            reading: None,
            writing: None,
            deliveries: FuturesUnordered::new(),
            pace: Pace::new(self.read),
            drain_to: None,
            closing: CancellationToken::new(),
        };
        let (placeholder, requests) = mpsc::channel(1);
        drop(placeholder);
        let mut requests = std::mem::replace(&mut self.requests, requests);
        let mut shell = Shell::from(self, &mut work);
        let mut commands = session.on(Event::Tick, shell.clock.now());
        loop {
            if !shell.right.holds() {
                tracing::warn!("the right to work on the shard lapsed; beginning again from the row");
                return Ended::Interrupted;
            }
            if let Some(finish) = shell.start(commands, &mut work, &session) {
                return shell.finish(finish, work).await;
            }
            if std::mem::take(&mut work.starved) {
                commands = session.on(Event::Starved, shell.clock.now());
                continue;
            }
            let happened = tokio::select! { biased;
                () = stop.cancelled() => return Ended::Lost,
                happened = shell.next(&mut work, &session, &mut requests) => happened,
            };
            let event = match shell.take_in(happened, &mut work) {
                Ok(Some(event)) => event,
                Ok(None) => {
                    commands = Vec::new();
                    continue;
                }
                Err(ended) => return *ended,
            };
            commands = session.on(event, shell.clock.now());
            shell.note_gaps(&mut session);
            shell.note_fills(&mut session);
            shell.note_unaccounted(&mut session);
            shell.note_flow(&session);
            shell.account(&mut work, &session);
        }
    }
}

impl From<StreamError> for ConsumerError {
    fn from(error: StreamError) -> Self {
        match &error {
            StreamError::Gone { .. } => Self::ShardNotFound(error),
            StreamError::Unavailable { .. } | StreamError::Refused { .. } => Self::Stream(error),
        }
    }
}

fn failed(error: impl Into<ConsumerError>) -> Ended {
    Ended::Failed(error.into())
}

/// What stays the same during a session.
struct Shell {
    delivery: Delivery,
    right: SessionRight,
    clock: Clock,
    metrics: ShardMetrics,
    throughput: ThroughputMeter,
    since: Option<(Interruption, Instant)>,
    children: Arc<dyn crate::shard_sync::ChildRows>,
    rng: SmallRng,
    read_delays: Delays,
    delivery_delays: Delays,
    /// For the log; times are since `begun`.
    failed_reads: Recurring,
    begun: Instant,
}

/// How often a shard's failed reads are told while they go on.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// How often the right is asked while nothing happens.
const RIGHT_CHECK: Duration = Duration::from_millis(500);

impl Shell {
    fn from(consumer: Consumer, work: &mut Work) -> Self {
        let me = consumer.held.row().owner.clone().unwrap_or_else(|| WorkerId::new("nobody"));
        work.held = Some(consumer.held);
        Self {
            delivery: Delivery::new(consumer.sink, consumer.letters, me),
            right: consumer.right,
            throughput: ThroughputMeter::new(consumer.clock.now()),
            failed_reads: Recurring::default(),
            begun: consumer.clock.now(),
            clock: consumer.clock,
            metrics: consumer.metrics,
            since: consumer.since,
            children: consumer.children,
            rng: consumer.rng,
            read_delays: RetryPolicy::AWS.delays(),
            delivery_delays: RetryPolicy::AWS.delays(),
        }
    }

    /// Starts what the state machine asked for; returns how the session ends, if it does.
    fn start(&mut self, commands: Vec<Command>, work: &mut Work, session: &ShardSession) -> Option<Finish> {
        for command in commands {
            match command {
                Command::Finish(finish) => return Some(finish),
                Command::Read => {
                    work.replaying = session.is_replaying();
                    work.starved = !self.start_read(work, Duration::ZERO);
                }
                Command::Write { checkpoint, state } => self.start_write(work, checkpoint, *state),
                Command::Deliver(batch) => self.start_delivery(work, batch, Duration::ZERO),
            }
        }
        self.account(work, session);
        None
    }

    /// Starts a read; returns false if it must wait for the budget of bytes.
    fn start_read(&self, work: &mut Work, after: Duration) -> bool {
        let Some(mut place) = work.place.take() else { return true };
        let (clock, limit, replaying) = (self.clock.clone(), work.pace.limit(), work.replaying);
        let wait = work.pace.wait(clock.now()).max(after);
        let page_bytes = work.pace.page_bytes();
        place.page.settle(0);
        let granted = place.page.try_grow(page_bytes);
        let closing = work.closing.clone();
        let read = async move {
            let turn = async {
                if !granted {
                    place.wait_for_room(page_bytes, replaying).await;
                }
                clock.sleep(wait).await;
            };
            tokio::select! { biased;
                () = closing.cancelled() => std::future::pending().await,
                () = turn => {}
            }
            let page = place.cursor.next_page(limit).await;
            (place, page)
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
    async fn next(
        &self,
        work: &mut Work,
        session: &ShardSession,
        requests: &mut mpsc::Receiver<Drain>,
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
            Some(done) = work.deliveries.next() => Happened::Delivered(done),
            done = poll_slot(&mut work.reading) => Happened::Read(done),
            () = wait_deadline => Happened::Deadline,
            () = self.right_over() => Happened::RightOver,
        }
    }

    async fn right_over(&self) {
        while self.right.holds() {
            self.clock.sleep(RIGHT_CHECK).await;
        }
    }

    /// Turns what happened into an event, or starts a retry, or ends the session.
    fn take_in(&mut self, happened: Happened, work: &mut Work) -> Result<Option<Event>, Box<Ended>> {
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
                let (id, revision) = (batch.id.clone(), batch.cut.revision);
                let (accounted, groups) = (durable.accounted(), durable.delivered.groups);
                Ok(Some(Event::Delivered { id, revision, groups, accounted }))
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
                    tracing::warn!(%error, ?delay, "a batch is delivered again");
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
        outcome: Result<RecordPage, StreamError>,
    ) -> Result<Option<Event>, Box<Ended>> {
        match outcome {
            Ok(page) => {
                self.read_delays.reset();
                if let Some((why, since)) = self.since.take() {
                    self.metrics.gap(why, self.clock.now().saturating_duration_since(since));
                }
                work.pace.seen(&page, self.clock.now());
                self.metrics.read(&page);
                self.throughput.read(page.records.iter().map(|record| record.data.len()).sum());
                Ok(Some(Event::Page(page)))
            }
            Err(error) => match self.read_delays.after(error.retry(), &mut self.rng) {
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

    /// Holds exactly the bytes that the session's records take. A read under way holds a page more on an account of
    /// its own, so that what deliveries free is free while the read waits for room.
    fn account(&self, work: &mut Work, session: &ShardSession) {
        let weight = session.weight_bytes();
        work.records.settle(weight);
        if let Some(place) = &mut work.place {
            place.page.settle(0);
            if !session.is_replaying() {
                place.overdraw = None;
            }
        }
        self.metrics.buffered(weight);
        self.metrics.at_risk(session.at_risk_since());
    }

    /// Counts records that are gone and given up as configured.
    fn note_gaps(&self, session: &mut ShardSession) {
        for gap in session.accepted_gaps() {
            self.metrics.records_lost();
            tracing::error!(lease_key = session.shard().as_str(), error = %gap, "a gap is accepted");
        }
    }

    /// Counts how full the batches are that were stored.
    fn note_fills(&self, session: &mut ShardSession) {
        for filled in session.filled() {
            self.metrics.filled(&filled);
        }
    }

    /// Counts records that went in and did not come out (K1), or came out twice.
    fn note_unaccounted(&self, session: &mut ShardSession) {
        for range in session.unaccounted() {
            self.metrics.unaccounted(range.difference());
            let (first, last) = (range.id.first.as_str(), range.id.to.as_str());
            let (fetched, accounted) = (range.fetched, range.accounted);
            tracing::error!(
                lease_key = session.shard().as_str(),
                first,
                last,
                fetched,
                accounted,
                "records of a committed range are not accounted for"
            );
        }
    }

    /// Says when the first records of the session have gone to the batcher: the shard flows.
    fn note_flow(&self, session: &ShardSession) {
        let flow = session.flow();
        if !self.metrics.flows(flow) {
            return;
        }
        tracing::info!(
            lease_key = session.shard().as_str(),
            at_ms = wall_millis().0,
            sequence_number = flow.first.as_ref().map(SequenceNumber::as_str),
            redelivered = session.batches_of_earlier_sessions(),
            "records flow"
        );
    }

    /// Every shard of a stream that is away fails alike: each is told now and then.
    fn note_failed_read(&mut self, error: &StreamError, delay: Duration) {
        let now = self.clock.now().saturating_duration_since(self.begun);
        let (shard, error) = (self.metrics.shard(), causes(error));
        match self.failed_reads.tell(now, TELL_EVERY) {
            Some(since) => tracing::warn!(lease_key = shard.as_str(), error, since, "a read is repeated"),
            None => tracing::debug!(lease_key = shard.as_str(), error, ?delay, "a read is repeated"),
        }
    }

    /// Carries the end of a session out.
    async fn finish(mut self, finish: Finish, work: Work) -> Ended {
        // What is not polled any more must not keep a place in front of other shards' writes.
        drop(work.deliveries);
        let Some(mut held) = work.held else { return Ended::Interrupted };
        held.measured(self.throughput.throughput(self.clock.now()));
        match finish {
            Finish::Lost => Ended::Lost,
            Finish::Restart => {
                self.metrics.batch_dropped();
                Ended::Interrupted
            }
            Finish::RecordsLost(lost) => {
                self.metrics.records_lost();
                failed(lost)
            }
            Finish::Overtaken(overtaken) => {
                self.metrics.records_lost();
                failed(overtaken)
            }
            Finish::HandOver { commit } => {
                let to = work.drain_to.and_then(|drain| drain.to);
                let written = match commit.map(|commit| *commit) {
                    Some((checkpoint, state)) => {
                        held.commit_and_hand_over(checkpoint, state, to.clone()).await
                    }
                    None => held.hand_over(to.clone()).await,
                };
                match written {
                    Ok(Announced::Recorded) => Ended::HandedOver { to, row: Box::new(held.row().clone()) },
                    Ok(Announced::Lost) => Ended::Lost,
                    Err(error) => failed(error),
                }
            }
            Finish::ShardEnd { children } => match self.end_shard(&mut held, children).await {
                Ok(Announced::Recorded) => Ended::ShardEnd,
                Ok(Announced::Lost) => Ended::Lost,
                Err(error) => failed(error),
            },
        }
    }

    /// Children's rows, then `childShardIds`, then SHARD_END: each step can be repeated, and a crash between any
    /// two is safe.
    async fn end_shard(
        &self,
        held: &mut HeldLease,
        children: Vec<sluicegate_lease::Shard>,
    ) -> Result<Announced, ConsumerError> {
        let ids = self.children.create(held.row(), children).await?;
        if held.row().children != ids {
            let next = held.row().with_children(ids);
            if held.replace(next).await? == Announced::Lost {
                return Ok(Announced::Lost);
            }
        }
        let mut state = held.row().pending.state().unwrap_or_else(|| LeaseState::starting(None));
        if held.row().checkpoint.is_start() {
            // Nothing was read in it: the time that the row was born with says nothing of when its children began.
            state.caught_up = None;
        }
        Ok(held.write(Position::ShardEnd, state).await?)
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

#[cfg(test)]
mod tests;
