//! Carries one session out: reads, writes the row, delivers, and tells the state machine what came of it.
//!
//! At most one read and one row write are under way, and as many deliveries as the state machine asked for. Before
//! anything new is started the worker's right is asked.

mod finish;
mod notes;
mod shell;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::{Announced, ArrivalMillis, Batch, ProgressError, Right};
use sluicegate_lease::{
    Clock, FixedStart, HeldLease, Interruption, Lease, SessionRight, WorkerId, open_start,
};
use sluicegate_sink::{DeadLetters, DeliverError, Sink};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::shell::Shell;
use super::delivery::Durable;
use super::pace::{Pace, ReadPolicy};
use super::state::{Event, SessionPolicy, ShardSession};
use crate::budget::{Account, ByteBudget, Overdraw};
use crate::deaggregate::cursor::{Answer, EventCursor};
use crate::distribution::{DistributionBook, Judgement};
use crate::metrics::ShardMetrics;
use crate::stream::{RecordPage, StreamError, StreamReader};
use crate::watch::Watches;

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

/// Longest that a session waits without a look at its right and its deadlines, with room for a machine under load.
const TURN: Duration = Duration::from_secs(10);

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
    /// Days after which letters expire; none keeps them.
    pub letter_ttl_days: Option<u32>,
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
    /// Who says whether hash keys may be judged.
    pub distribution: Arc<DistributionBook>,
    /// Where its loop is watched.
    pub watches: Arc<Watches>,
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

/// The place, and what came of a read that was asked for then.
type ReadDone = (Place, Result<Came, (Instant, StreamError)>);

/// What came of a read.
#[derive(Debug)]
enum Came {
    /// A page of Kinesis records, asked for then; events of it are still to be taken.
    Fetched(Instant, Answer),
    /// Events.
    Taken(RecordPage),
}

type WriteDone = (Box<HeldLease>, Result<Announced, ProgressError>);
type DeliveryDone = (Arc<Batch>, Result<Durable, DeliverError>);

/// The place in the shard, and what a page that is being read, or taken apart, holds of the budget.
struct Place {
    events: EventCursor,
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
            self.page.settle(self.page.held() + bytes);
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
    /// Memory that the next page is known to take, for it was left unread.
    known_bytes: usize,
    /// What the session's records hold of the budget.
    records: Account,
    reading: Option<BoxFuture<'static, ReadDone>>,
    writing: Option<BoxFuture<'static, WriteDone>>,
    judging: Option<BoxFuture<'static, (ArrivalMillis, Judgement)>>,
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
    Judged((ArrivalMillis, Judgement)),
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
        // On the heap: what waits for all that a session waits for is large.
        Box::pin(self.work(session, stop)).await
    }

    async fn work(mut self, mut session: ShardSession, stop: CancellationToken) -> Ended {
        let events = EventCursor::open(&*self.stream, &self.held.row().key, session.read_from());
        let mut work = Work {
            held: None,
            place: Some(Place { events, page: self.budget.account(), overdraw: None }),
            replaying: false,
            starved: false,
            known_bytes: 0,
            records: self.budget.account(),
            reading: None,
            writing: None,
            judging: None,
            deliveries: FuturesUnordered::new(),
            pace: Pace::new(self.read),
            drain_to: None,
            closing: CancellationToken::new(),
        };
        let (placeholder, requests) = mpsc::channel(1);
        drop(placeholder);
        let mut requests = std::mem::replace(&mut self.requests, requests);
        let stamp = self.watches.watch(format!("the session of {}", self.held.row().key), TURN);
        let mut shell = Shell::from(self, &mut work);
        let mut commands = session.on(Event::Tick, shell.clock.now());
        loop {
            stamp.stamp();
            if !shell.right.holds() {
                tracing::warn!("the right to work on the shard lapsed; beginning again from the row");
                return Ended::Interrupted;
            }
            if let Some(finish) = shell.start(commands, &mut work, &session) {
                // What is left is calls, each of which ends.
                drop(stamp);
                return shell.finish(finish, work).await;
            }
            if std::mem::take(&mut work.starved) {
                commands = session.on(Event::Starved, shell.clock.now());
                continue;
            }
            let happened = tokio::select! { biased;
                () = stop.cancelled() => return Ended::Lost,
                happened = shell.next(&mut work, &session, &mut requests, &stamp) => happened,
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
            StreamError::Throttled { .. }
            | StreamError::TooLarge { .. }
            | StreamError::Unavailable { .. }
            | StreamError::Refused { .. } => Self::Stream(error),
        }
    }
}

fn failed(error: impl Into<ConsumerError>) -> Ended {
    Ended::Failed(error.into())
}

#[cfg(test)]
mod tests;
