//! The simulated workers: the product's own, started, killed and frozen on one runtime.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use sluicegate_checkpoint::{AggregateKey, Codec, PackingParameters};
use sluicegate_lease::clock::Freeze;
use sluicegate_lease::nudge::{Heard, Hint, LocalNudge};
use sluicegate_lease::{Clock, LeaseStore, Nudge, ScanBudget, WorkerId, WorkerRegistry, WriteBudget};
use sluicegate_sink::governor::pace::PaceOptions;
use sluicegate_sink::offload::Inline;
use sluicegate_sink::{DeadLetters, Governor, ItemWriter, PackingSink, PackingSinkOptions, Sink};
use sluicegate_worker::BudgetChoice;
use sluicegate_worker::metrics::Metrics;
use sluicegate_worker::worker::Settings;
use sluicegate_worker::{StreamReader, Worker, WorkerError};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::meter::MeteredSink;
use super::ports::Ports;
use super::script::{BEGIN_MS, Build, FAILOVER, MARGIN, Script};
use super::services::{Services, Watched, WatchedStore};
use super::world::World;

#[expect(clippy::disallowed_types, reason = "the simulation owns the workers it kills")]
type Tasks = tokio::task::JoinSet<(WorkerId, Result<(), WorkerError>)>;

/// The name of every simulated application.
pub const APPLICATION: &str = "simulation";

/// Wraps a sink in another.
pub type WrapSink = Box<dyn FnOnce(Arc<dyn Sink>) -> Arc<dyn Sink> + Send>;

/// What a worker is put together from. A test that plants a bug wraps one of them.
pub struct Parts {
    /// Reads the stream.
    pub stream: Arc<dyn StreamReader>,
    /// The lease table.
    pub store: Arc<dyn LeaseStore>,
    /// The worker table.
    pub registry: Arc<dyn WorkerRegistry>,
    /// Writes items.
    pub writer: Arc<dyn ItemWriter>,
    /// The dead-letter table.
    pub letters: Arc<dyn DeadLetters>,
    /// Wraps the sink over the writer.
    pub sink: WrapSink,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// Changes what a worker is put together from: how a bug is planted.
pub type Plant = dyn Fn(Parts, &Ports, &Build) -> Parts;

/// One worker and what can be done to it.
#[derive(Debug)]
struct Member {
    id: WorkerId,
    link: Arc<Link>,
    stop: CancellationToken,
    frozen: Arc<Freeze>,
    /// Whether its process stands still, and was told to stop meanwhile: a signal waits until it goes on.
    still: bool,
    told: bool,
    abort: AbortHandle,
}

impl Member {
    fn tell_to_stop(&mut self) {
        self.told = true;
        if !self.still {
            self.stop.cancel();
        }
    }
}

/// All workers of a simulation.
pub struct Fleet<'a> {
    script: &'a Script,
    world: Arc<World>,
    services: &'a dyn Services,
    plant: &'a Plant,
    nudge: Arc<LocalNudge>,
    members: Vec<Member>,
    tasks: Tasks,
    started: u32,
}

impl std::fmt::Debug for Fleet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("members", &self.members).finish_non_exhaustive()
    }
}

impl<'a> Fleet<'a> {
    /// Nobody yet.
    pub fn new(script: &'a Script, world: Arc<World>, services: &'a dyn Services, plant: &'a Plant) -> Self {
        let nudge = Arc::new(LocalNudge::default());
        Self { script, world, services, plant, nudge, members: Vec::new(), tasks: Tasks::new(), started: 0 }
    }

    /// How many run, frozen ones included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody runs.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Ids of those that run.
    pub fn ids(&self) -> Vec<WorkerId> {
        self.members.iter().map(|member| member.id.clone()).collect()
    }

    /// Starts a worker.
    ///
    /// # Errors
    /// It cannot be put together.
    pub fn join(&mut self) -> Result<(), WorkerError> {
        let build = &self.script.builds[self.started as usize % self.script.builds.len()];
        self.started += 1;
        let id = WorkerId::new(format!("w{}", self.started));
        let frozen = Arc::new(Freeze::default());
        let clock = Clock::drifting(build.drift_ppm).freezing(Arc::clone(&frozen));
        let link = Link::new(Arc::clone(&self.world), id.clone(), clock.clone());
        let mut parts = self.services.parts(&link, build);
        parts.registry = Arc::new(Watched { inner: parts.registry, link: Arc::clone(&link) });
        let mut parts = (self.plant)(parts, &Ports(Arc::clone(&link)), build);
        // The registry is watched as its adapter has it, the store as the worker has it.
        parts.store = Arc::new(WatchedStore {
            inner: parts.store,
            link: Arc::clone(&link),
            undecided: Mutex::default(),
        });
        let seed = self.script.seed.wrapping_mul(1_000).wrapping_add(u64::from(self.started));
        let options = PackingSinkOptions {
            packing_versions: build.packing_versions.clone(),
            ..PackingSinkOptions::default()
        };
        let governor = Arc::new(Governor::new(PaceOptions::default()));
        let sink = PackingSink::new(parts.writer, options, Arc::new(Inline), seed);
        let sink = (parts.sink)(Arc::new(sink.governed_by(Arc::clone(&governor))));
        let sink = Arc::new(MeteredSink { inner: sink, link: Arc::clone(&link) });
        let (world, offset) = (Arc::clone(&self.world), build.wall_offset);
        let elapsed = move || i64::try_from(world.now().as_secs()).unwrap_or(i64::MAX);
        let nudge = LossyNudge { link: Arc::clone(&link), to: Arc::clone(&self.nudge) };
        let metrics = Metrics::new().map_err(|error| WorkerError::Setup(error.to_string()))?;
        self.world.with(|world| world.referee.lifecycle.counts(&id, metrics.clone()));
        let worker = Worker::builder(APPLICATION)
            .worker_id(id.clone())
            .settings(settings(self.script, build))
            .stream(Shared(parts.stream))
            .tables(parts.store, parts.registry)
            .sink(sink)
            .dead_letters(parts.letters)
            .metrics(metrics)
            .nudge(Arc::new(nudge))
            .nudged_by(self.nudge.register(id.clone()))
            .clock(clock)
            .epoch_seconds(Arc::new(move || BEGIN_MS / 1_000 + offset + elapsed()))
            .seed(seed);
        // Where nothing limits the table, fleets without shares and without what others have learned are simulated, too.
        let worker = if self.script.is_governed() { worker.governor(governor) } else { worker }.build()?;
        let stop = CancellationToken::new();
        let (name, stopping) = (id.clone(), stop.clone());
        let abort = self.tasks.spawn(async move { (name, worker.run(stopping).await) });
        self.world.note(id.as_str(), format_args!("starts"));
        self.members.push(Member { id, link, stop, frozen, still: false, told: false, abort });
        Ok(())
    }

    /// Kills a worker: what it has on the way still lands.
    pub fn crash(&mut self, who: u32) {
        let Some(at) = self.pick(who) else { return };
        let member = self.members.remove(at);
        member.abort.abort();
        self.fault("crash", &member.id, format_args!("is killed"));
    }

    /// Tells a worker to stop.
    pub fn stop(&mut self, who: u32) {
        let Some(at) = self.pick(who) else { return };
        self.members[at].tell_to_stop();
        self.fault("stop", &self.members[at].id, format_args!("is told to stop"));
    }

    /// Tells all workers to stop.
    pub fn stop_all(&mut self) {
        for member in &mut self.members {
            member.tell_to_stop();
            self.world.note(member.id.as_str(), format_args!("is told to stop"));
        }
    }

    /// Freezes a worker's process, and says which.
    pub fn freeze(&mut self, who: u32) -> Option<WorkerId> {
        let at = self.pick(who)?;
        let member = &mut self.members[at];
        member.still = true;
        member.frozen.freeze();
        let id = member.id.clone();
        self.fault("pause", &id, format_args!("stands still"));
        Some(id)
    }

    /// A worker's process goes on, if it still is there.
    pub fn thaw(&mut self, id: &WorkerId) {
        let Some(member) = self.members.iter_mut().find(|member| member.id == *id) else { return };
        let now = self.world.now();
        self.world.with(|world| world.referee.thawed(id, now));
        self.world.note(id.as_str(), format_args!("goes on"));
        member.still = false;
        member.frozen.thaw();
        if member.told {
            member.stop.cancel();
        }
    }

    /// Cuts a worker off from services until then.
    pub fn cut_off(&self, who: u32, services: &[super::script::Service], until: Duration) {
        let Some(at) = self.pick(who) else { return };
        self.members[at].link.cut_off(services, until);
        self.fault(
            "cut off",
            &self.members[at].id,
            format_args!("cannot reach {services:?} until {until:?}"),
        );
    }

    /// Ends every freeze and partition.
    pub fn heal(&mut self) {
        for id in self.ids() {
            self.thaw(&id);
        }
        for member in &self.members {
            member.link.heal();
        }
    }

    /// Waits until a worker ends by itself. *Cancelling it* is safe.
    pub async fn ended(&mut self) -> (WorkerId, Result<(), WorkerError>) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((id, outcome))) => {
                    self.members.retain(|member| member.id != id);
                    return (id, outcome);
                }
                // One that was killed.
                Some(Err(error)) if error.is_cancelled() => {}
                Some(Err(error)) => {
                    let why = error.to_string();
                    return (WorkerId::new("?"), Err(WorkerError::Task { task: "worker", why }));
                }
                None => std::future::pending().await,
            }
        }
    }

    fn pick(&self, who: u32) -> Option<usize> {
        (!self.members.is_empty()).then(|| who as usize % self.members.len())
    }

    fn fault(&self, kind: &'static str, who: &WorkerId, what: std::fmt::Arguments<'_>) {
        self.world.with(|world| world.fault(kind));
        self.world.note(who.as_str(), what);
    }
}

fn settings(script: &Script, build: &Build) -> Settings {
    let mut settings = Settings {
        initial_position: script.initial,
        failover_time: FAILOVER,
        safety_margin: MARGIN,
        drain_timeout: Duration::from_secs(8),
        max_in_flight: build.max_in_flight,
        commit_delay: build.commit_delay,
        buffer_bytes: build.buffer_bytes,
        parameters: parameters(build),
        accept_gap: script.accept_gap,
        write_budget: script
            .budget
            .map_or(BudgetChoice::None, |units| BudgetChoice::Fixed(WriteBudget::of_units(units))),
        ..Settings::default()
    };
    // In some fleets scans cost too much: they come seldom, and workers plan from the rows they know.
    if script.seed % 4 == 3 {
        settings.scan_budget = ScanBudget { per_minute: 6, at_once: 0 };
    }
    settings.read.min_interval = Duration::from_millis(200);
    settings.read.idle_interval = Duration::from_millis(700);
    settings.read.page_bytes = 1_000;
    settings.cut.max_records = build.max_records;
    settings.cut.max_bytes = build.max_bytes;
    settings.cut.max_age = build.max_age;
    settings
}

/// What a build packs new batches with.
pub fn parameters(build: &Build) -> PackingParameters {
    let parameters = PackingParameters {
        aggregate_key: AggregateKey::try_from(build.aggregate_key.to_owned()).unwrap_or_default(),
        max_item_bytes: build.max_item_bytes,
        codec: Codec::None,
        filter: build.filter.and_then(|filter| filter.parse().ok()),
        ..Settings::default().parameters
    };
    parameters.with_needed_decoding_version()
}

/// A reader that is shared: the builder takes it by value.
struct Shared(Arc<dyn StreamReader>);

#[async_trait]
impl StreamReader for Shared {
    async fn shards(&self) -> Result<sluicegate_worker::ShardListing, sluicegate_worker::StreamError> {
        self.0.shards().await
    }

    async fn distribution(&self) -> Result<sluicegate_worker::Distributed, sluicegate_worker::StreamError> {
        self.0.distribution().await
    }

    fn open(
        &self,
        shard: &sluicegate_checkpoint::ShardId,
        from: sluicegate_worker::ReadFrom,
    ) -> Box<dyn sluicegate_worker::ShardCursor> {
        self.0.open(shard, from)
    }
}

/// Nudges on the way of one worker; under faults a third of them is lost.
struct LossyNudge {
    link: Arc<Link>,
    to: Arc<LocalNudge>,
}

#[async_trait]
impl Nudge for LossyNudge {
    async fn look_now(&self, worker: &WorkerId, address: Option<&str>, hint: Option<&Hint>) -> Heard {
        self.link.clock.wake().await;
        let lost = self.link.world.with(|world| world.rates.request_lost > 0 && world.rng.random_bool(0.3));
        if lost { Heard::Unanswered } else { self.to.look_now(worker, address, hint).await }
    }
}
