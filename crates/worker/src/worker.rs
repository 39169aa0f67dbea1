//! One worker, put together from components: what to read, where leases live, where batches go.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use sluicegate_checkpoint::{PackingParameters, Unreadable};
use sluicegate_lease::heartbeat::EpochSeconds;
use sluicegate_lease::nudge::{LocalNudge, Nudges};
use sluicegate_lease::registry::StartInFuture;
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{
    Clock, CoordinatorError, ForeignLife, InitialPosition, LeaseKey, LeaseStore, Nudge, PlanPolicy,
    ScanBudget, WorkerId, WorkerRegistry,
};
use sluicegate_sink::dead_letter::NoDeadLetters;
use sluicegate_sink::{CapacitySource, DeadLetters, Governor, Sink};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::AdminToken;
use crate::consumer::batcher::CutPolicy;
use crate::consumer::judgement::ForeignUserRecords;
use crate::consumer::pace::ReadPolicy;
use crate::metrics::Metrics;
use crate::shard_sync::SyncError;
use crate::stream::{StreamError, StreamReader};
use crate::supervisor::Supervisor;
use crate::tables::{TableCheck, TablesUnfit};
use crate::telemetry::wall_clock;
use crate::write_flow::BudgetChoice;

/// Everything about a worker that is a value.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the application starts, the first time.
    pub initial_position: InitialPosition,
    /// How long a heartbeat stands still before its worker is presumed dead.
    pub failover_time: Duration,
    /// How much earlier a worker counts its own right as over.
    pub safety_margin: Duration,
    /// Most leases held; none sets no bound.
    pub max_leases_per_worker: Option<usize>,
    /// Balance leases by what their shards carry, not by count.
    pub weigh_by_throughput: bool,
    /// What the fleet's scans of the lease table may cost before they are made less often.
    pub scan_budget: ScanBudget,
    /// Longest a planned hand-over waits for deliveries.
    pub handoff_deadline: Duration,
    /// Longest a stop takes.
    pub drain_timeout: Duration,
    /// How shards are read.
    pub read: ReadPolicy,
    /// When batches are closed.
    pub cut: CutPolicy,
    /// Most batches of a shard announced and not committed.
    pub max_in_flight: usize,
    /// How long a commit waits for an announce to ride on.
    pub commit_delay: Duration,
    /// What new batches are packed with.
    pub parameters: PackingParameters,
    /// What is done with user records whose hash key is not of their shard.
    pub foreign_user_records: ForeignUserRecords,
    /// Bytes of records held at a time.
    pub buffer_bytes: usize,
    /// Give up records that are gone, counted, instead of stopping the shard.
    pub accept_gap: bool,
    /// Days after which dead letters expire; none keeps them.
    pub dead_letter_ttl_days: Option<u32>,
    /// What the whole fleet may write to the table.
    pub write_budget: BudgetChoice,
}

impl Default for Settings {
    fn default() -> Self {
        crate::config::Config::default().settings
    }
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A component is missing.
    #[error("a worker needs {0}")]
    Missing(&'static str),
    /// Unreadable events are to become dead letters, and there is no place for them.
    #[error(
        "unreadable is dead-letter, the default with fields or reduce, and there is no dead-letter table: give the worker one, or set unreadable = keep, which stores events that cannot be read as they come, whole"
    )]
    NoLetterStore,
    /// The stream cannot be read.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Shards and lease rows cannot be brought in step.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The application cannot start where it is told to.
    #[error(transparent)]
    Start(#[from] StartInFuture),
    /// A table is not there, or does not fit.
    #[error(transparent)]
    Tables(#[from] TablesUnfit),
    /// The lease or worker table cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The worker table cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A KCL application is running on the lease table.
    #[error(
        "a KCL application is running on this lease table: its worker `{owner}` raised the counter of lease `{lease_key}` from {from} to {to} and is no worker of this fleet. Stop that application and start this worker again: it goes on where KCL stopped. Or give this fleet an --application of its own", owner = .0.owner, lease_key = .0.lease_key, from = .0.from.0, to = .0.to.0
    )]
    KclRunning(ForeignLife),
    /// The lease table is that of a KCL application that reads many streams.
    #[error(
        "this lease table is that of a KCL application that reads many streams: its lease `{0}` names another shard than any of this stream, and cannot be gone on with. Give this fleet an --application of its own, and start it at the time at which that application stops: --initial-position AT_TIMESTAMP:<time>"
    )]
    MultiStream(LeaseKey),
    /// The coordinator ended.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// A task failed that must not.
    #[error("task `{task}` ended unexpectedly: {why}")]
    Task {
        /// Its name.
        task: &'static str,
        /// How it ended.
        why: String,
    },
    /// A thread or a metric could not be made.
    #[error("{0}")]
    Setup(String),
    /// The drain took too long; what was left goes to the next owner.
    #[error("draining took longer than {0:?}; the leases that are left will be taken over")]
    DrainTimeout(Duration),
}

/// A worker, ready to run.
pub struct Worker {
    pub(crate) application: String,
    pub(crate) id: WorkerId,
    pub(crate) settings: Settings,
    pub(crate) stream: Arc<dyn StreamReader>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) registry: Arc<dyn WorkerRegistry>,
    pub(crate) table_check: Option<Arc<dyn TableCheck>>,
    pub(crate) heartbeat: HeartbeatOn,
    pub(crate) nudge: Arc<dyn Nudge>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) governor: Option<Arc<Governor>>,
    pub(crate) capacity: Option<Arc<dyn CapacitySource>>,
    pub(crate) letters: Arc<dyn DeadLetters>,
    pub(crate) metrics: Metrics,
    pub(crate) admin: Option<TcpListener>,
    pub(crate) advertise: Option<String>,
    pub(crate) admin_token: Option<AdminToken>,
    pub(crate) clock: Clock,
    pub(crate) epoch_seconds: EpochSeconds,
    pub(crate) nudged: Nudges,
    /// Whether workers of the same process can nudge this one.
    pub(crate) nudged_in_process: bool,
    pub(crate) rng: SmallRng,
}

/// Makes the registry that the heartbeat's own thread uses, on that thread.
pub type RegistryFactory = Box<dyn FnOnce() -> Arc<dyn WorkerRegistry> + Send + Sync>;

/// Where the heartbeat runs.
pub enum HeartbeatOn {
    /// On a thread and runtime of its own, with a client of its own: nothing the worker does can delay it.
    Thread(RegistryFactory),
    /// Among the worker's other tasks: for tests on a paused clock and for simulation.
    SameRuntime,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Worker");
        debug.field("application", &self.application).field("id", &self.id).field("settings", &self.settings);
        debug.finish_non_exhaustive()
    }
}

impl Worker {
    /// Begins to put a worker together. Workers of the same application share its leases.
    pub fn builder(application: impl Into<String>) -> WorkerBuilder {
        WorkerBuilder {
            application: application.into(),
            id: None,
            settings: Settings::default(),
            stream: None,
            store: None,
            registry: None,
            table_check: None,
            heartbeat: HeartbeatOn::SameRuntime,
            nudge: None,
            sink: None,
            governor: None,
            capacity: None,
            letters: None,
            metrics: None,
            admin: None,
            advertise: None,
            admin_token: None,
            clock: Clock::new(),
            epoch_seconds: Arc::new(|| i64::try_from(wall_clock().as_secs()).unwrap_or(i64::MAX)),
            nudged: None,
            seed: None,
        }
    }

    /// Works until `stop` is cancelled, then finishes, commits and hands every lease over.
    ///
    /// *Cancelling it* (dropping the future) is what a crash is: others take over after the failover time.
    ///
    /// # Errors
    /// The first failure of any of its tasks; [`WorkerError::KclRunning`], [`WorkerError::MultiStream`] or
    /// [`SyncError::AnotherStream`] before it has begun anything.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        Supervisor::new(self)?.run(stop).await
    }
}

/// Puts a worker together.
pub struct WorkerBuilder {
    application: String,
    id: Option<WorkerId>,
    settings: Settings,
    stream: Option<Arc<dyn StreamReader>>,
    store: Option<Arc<dyn LeaseStore>>,
    registry: Option<Arc<dyn WorkerRegistry>>,
    table_check: Option<Arc<dyn TableCheck>>,
    heartbeat: HeartbeatOn,
    nudge: Option<Arc<dyn Nudge>>,
    sink: Option<Arc<dyn Sink>>,
    governor: Option<Arc<Governor>>,
    capacity: Option<Arc<dyn CapacitySource>>,
    letters: Option<Arc<dyn DeadLetters>>,
    metrics: Option<Metrics>,
    admin: Option<TcpListener>,
    advertise: Option<String>,
    admin_token: Option<AdminToken>,
    clock: Clock,
    epoch_seconds: EpochSeconds,
    nudged: Option<Nudges>,
    seed: Option<u64>,
}

impl std::fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerBuilder").field("application", &self.application).finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    /// Names this process; it must be unique per process start. Default: the application's name and a UUID.
    pub fn worker_id(mut self, id: WorkerId) -> Self {
        self.id = Some(id);
        self
    }

    /// Settings other than the defaults.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// What to read. Required.
    pub fn stream(mut self, stream: impl StreamReader) -> Self {
        self.stream = Some(Arc::new(stream));
        self
    }

    /// Where leases and worker rows live. Required.
    pub fn tables(mut self, store: Arc<dyn LeaseStore>, registry: Arc<dyn WorkerRegistry>) -> Self {
        self.store = Some(store);
        self.registry = Some(registry);
        self
    }

    /// What makes sure of the tables, before anything is read: then a worker waits for tables that do not answer yet, and
    /// its probes are answered meanwhile. Default: they are there.
    pub fn table_check(mut self, check: Arc<dyn TableCheck>) -> Self {
        self.table_check = Some(check);
        self
    }

    /// Runs the heartbeat on a thread of its own, with the registry that this makes there. For production.
    pub fn heartbeat_thread(mut self, registry: RegistryFactory) -> Self {
        self.heartbeat = HeartbeatOn::Thread(registry);
        self
    }

    /// Where batches go. Required.
    pub fn sink(mut self, sink: Arc<dyn Sink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// The governor of the sink, to be given this worker's share of the write budget. Default: the sink sets its own rate.
    pub fn governor(mut self, governor: Arc<Governor>) -> Self {
        self.governor = Some(governor);
        self
    }

    /// What says how much the sink's table gives: the write budget of a fleet whose setting leaves it to the table. Default:
    /// nothing does, and such a fleet has no budget.
    pub fn capacity(mut self, capacity: Arc<dyn CapacitySource>) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Where events go that the sink never takes. Default: nowhere, so that a batch with such events stops its shard, and
    /// `unreadable = dead-letter` is refused.
    pub fn dead_letters(mut self, letters: Arc<dyn DeadLetters>) -> Self {
        self.letters = Some(letters);
        self
    }

    /// How other workers are told to look now. Default: not at all.
    pub fn nudge(mut self, nudge: Arc<dyn Nudge>) -> Self {
        self.nudge = Some(nudge);
        self
    }

    /// Where to count. Default: metrics nobody sees.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Serves probes, metrics, the fleet page and `/nudge` here; other workers find the address in the worker table.
    pub fn admin(mut self, listener: TcpListener) -> Self {
        self.admin = Some(listener);
        self
    }

    /// Where other workers reach the admin server (`host:port`), if not at the address it is bound to.
    pub fn advertise(mut self, address: Option<String>) -> Self {
        self.advertise = address;
        self
    }

    /// The token that the admin server asks for. The [`Nudge`] of other workers must bear it. Default: none.
    pub fn admin_token(mut self, token: Option<AdminToken>) -> Self {
        self.admin_token = token;
        self
    }

    /// The clock to go by: for simulation.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Wall time, for the expiry of the worker row only. Default: the system's.
    pub fn epoch_seconds(mut self, epoch_seconds: EpochSeconds) -> Self {
        self.epoch_seconds = epoch_seconds;
        self
    }

    /// Another way to be nudged, beside `POST /nudge`: what [`LocalNudge::register`] returns, for workers of one
    /// process.
    pub fn nudged_by(mut self, nudged: Nudges) -> Self {
        self.nudged = Some(nudged);
        self
    }

    /// Seeds all jitter. Default: from the operating system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The worker.
    ///
    /// # Errors
    /// A required component is missing.
    pub fn build(self) -> Result<Worker, WorkerError> {
        if self.letters.is_none() && self.settings.parameters.unreadable == Unreadable::DeadLetter {
            return Err(WorkerError::NoLetterStore);
        }
        let seed = self.seed.unwrap_or_else(|| SmallRng::from_os_rng().next_u64());
        let id = self.id.unwrap_or_else(|| unique_id(&self.application));
        let metrics = match self.metrics {
            Some(metrics) => metrics,
            None => Metrics::new().map_err(|error| WorkerError::Setup(error.to_string()))?,
        };
        tracing::debug!(worker_id = %id, seed, "worker built");
        Ok(Worker {
            application: self.application,
            id,
            settings: self.settings,
            stream: self.stream.ok_or(WorkerError::Missing("a stream"))?,
            store: self.store.ok_or(WorkerError::Missing("a lease table"))?,
            registry: self.registry.ok_or(WorkerError::Missing("a worker table"))?,
            table_check: self.table_check,
            heartbeat: self.heartbeat,
            nudge: self.nudge.unwrap_or_else(|| Arc::new(LocalNudge::default())),
            sink: self.sink.ok_or(WorkerError::Missing("a sink"))?,
            governor: self.governor,
            capacity: self.capacity,
            letters: self.letters.unwrap_or_else(|| Arc::new(NoDeadLetters)),
            metrics,
            admin: self.admin,
            advertise: self.advertise,
            admin_token: self.admin_token,
            clock: self.clock,
            epoch_seconds: self.epoch_seconds,
            nudged_in_process: self.nudged.is_some(),
            nudged: self.nudged.unwrap_or_default(),
            rng: SmallRng::seed_from_u64(seed),
        })
    }
}

/// A worker id that no other process start has: a name for people and a UUID.
pub fn unique_id(name: &str) -> WorkerId {
    WorkerId::new(format!("{name}-{}", uuid::Uuid::new_v4().simple()))
}

impl Settings {
    /// Bounds for the plan.
    pub(crate) fn plan_policy(&self) -> PlanPolicy {
        PlanPolicy {
            max_leases_per_worker: self.max_leases_per_worker,
            weigh_by_throughput: self.weigh_by_throughput,
        }
    }
}
