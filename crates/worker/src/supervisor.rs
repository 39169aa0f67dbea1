//! Starts, watches and stops every task of a worker.
//!
//! ```text
//! coordinator --instructions--> supervisor --begins, drains, cancels--> one consumer a shard
//! heartbeat (own thread) -> right                shard sync, admin server
//! ```
//! The first failure of a task that must not fail cancels the rest and is the worker's result. Only a consumer is
//! begun again, after a while, as long as its lease is held. Stopping: no more leases, every session handed over,
//! and the heartbeat last, because the right must live while work drains.

mod prepare;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::recurring::causes;
use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber};
use sluicegate_lease::nudge::Nudges;
use sluicegate_lease::{
    FleetView, GivenFor, HeartbeatRight, HeldLease, Instruction, Interruption, Lease, LeaseKey, Listing,
    ListingWanted, SessionRight, Sessions, WorkerId, WorkerRow, WorkerStatus,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::budget::ByteBudget;
use crate::consumer::state::SessionPolicy;
use crate::consumer::task::{Consumer, ConsumerError, Drain, Ended};
use crate::distribution::DistributionBook;
use crate::fleet::{FleetParts, FleetWatch};
use crate::handed_over::HandedOver;
use crate::metrics::{Reading, ShardMetrics};
use crate::readiness::Readiness;
use crate::shard_sync::ShardSync;
use crate::telemetry::wall_millis;
use crate::watch::Watches;
use crate::worker::{Worker, WorkerError};
use crate::write_flow::{BudgetSource, WriteFlow, WriteFlowParts};

/// Longest that the supervisor waits without a look around: the sign that it is not stuck.
const TURN: Duration = Duration::from_secs(5);
/// Longest that one call to a table takes before it counts as unanswered: a loop that waits for one is not stuck.
const LONGEST_CALL: Duration = Duration::from_secs(10);
/// How long a shard rests after its session failed.
const COOL_DOWN: Duration = Duration::from_secs(5);

#[expect(clippy::disallowed_types, reason = "the supervisor is where tasks are owned")]
type Tasks<T> = tokio::task::JoinSet<T>;

type TaskEnd = (&'static str, Result<(), WorkerError>);

/// One running worker.
pub struct Supervisor {
    worker: Worker,
    right: Arc<HeartbeatRight>,
    status: WorkerStatus,
    sessions: Sessions,
    nudged: Nudges,
    listed: watch::Sender<Arc<Listing>>,
    listing_wanted: ListingWanted,
    view: watch::Sender<Option<Arc<FleetView>>>,
    budget: Arc<ByteBudget>,
    distribution: Arc<DistributionBook>,
    write_flow: Option<Arc<WriteFlow>>,
    fleet: Arc<FleetWatch>,
    readiness: Arc<Readiness>,
    watches: Arc<Watches>,
    consumers: Tasks<(LeaseKey, Ended)>,
    running: BTreeMap<LeaseKey, Running>,
    cooling: Tasks<LeaseKey>,
    nudges: Tasks<()>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// What a session is told of its beginning: its right, since when nobody has read the shard, and up to when its records
/// were its parents'.
type Beginning = (SessionRight, Option<(Interruption, Instant)>, Option<ArrivalMillis>);

/// The handles of one session.
struct Running {
    requests: mpsc::Sender<Drain>,
    stop: CancellationToken,
    /// Where the worker that the lease is handed to can be nudged.
    address: Option<String>,
    /// Why it is handed over.
    given_for: Option<GivenFor>,
    metrics: ShardMetrics,
}

impl Supervisor {
    /// Prepares to run a worker.
    ///
    /// # Errors
    /// The admin server's address cannot be told.
    pub fn new(worker: Worker) -> Result<Self, WorkerError> {
        let settings = &worker.settings;
        let lasts = settings.failover_time.saturating_sub(settings.safety_margin);
        let right = Arc::new(HeartbeatRight::new(worker.clock.clone(), lasts));
        let mut row = WorkerRow::new(worker.id.clone());
        row.packing_versions = worker.sink.packing_versions().to_vec();
        if let Some(listener) = &worker.admin {
            let address = listener.local_addr().map_err(|error| WorkerError::Setup(error.to_string()))?;
            // Nobody can reach "any address": then only a named one is told.
            let bound = (!address.ip().is_unspecified()).then(|| address.to_string());
            row.address = worker.advertise.clone().or(bound);
            if row.address.is_none() {
                tracing::warn!(%address, "the admin server listens on every address, and --advertise does not say at which one others reach it: nobody nudges this worker, so what is handed to it waits for its next look");
            }
        }
        let status = WorkerStatus::new(row);
        let write_flow = worker.governor.as_ref().map(|governor| {
            Arc::new(WriteFlow::new(WriteFlowParts {
                governor: Arc::clone(governor),
                status: status.clone(),
                metrics: worker.metrics.clone(),
                me: worker.id.clone(),
                budget: settings.write_budget,
                failover_time: settings.failover_time,
                epoch_seconds: Arc::clone(&worker.epoch_seconds),
            }))
        });
        let (listed, budget) = (watch::Sender::default(), ByteBudget::new(settings.buffer_bytes));
        let distribution = DistributionBook::new(Arc::clone(&worker.stream), worker.clock.clone());
        let distribution = Arc::new(distribution);
        let fleet = FleetWatch::new(FleetParts {
            application: worker.application.clone(),
            me: worker.id.clone(),
            failover_time: settings.failover_time,
            write_budget: {
                let flow = write_flow.clone();
                Box::new(move || flow.as_ref().map_or((None, BudgetSource::None), |flow| flow.budget()))
            },
            idle_interval: settings.read.idle_interval,
            clock: worker.clock.clone(),
            epoch_seconds: Arc::clone(&worker.epoch_seconds),
            listed: listed.subscribe(),
            metrics: worker.metrics.clone(),
            status: status.clone(),
            budget: Arc::clone(&budget),
        });
        Ok(Self {
            right,
            status,
            write_flow,
            fleet: Arc::new(fleet),
            readiness: Arc::default(),
            sessions: Sessions::default(),
            nudged: worker.nudged.clone(),
            listed,
            listing_wanted: ListingWanted::default(),
            view: watch::Sender::default(),
            budget,
            distribution,
            watches: Watches::new(worker.clock.clone()),
            consumers: Tasks::new(),
            running: BTreeMap::new(),
            cooling: Tasks::new(),
            nudges: Tasks::new(),
            worker,
        })
    }

    /// Runs the worker until `stop`, then drains it.
    ///
    /// # Errors
    /// See [`Worker::run`].
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WorkerError> {
        // The coordinator cancels it when an operator asks this worker to leave; the caller's may be shared.
        let stop = stop.child_token();
        let everything = CancellationToken::new();
        let mut tasks: Tasks<TaskEnd> = Tasks::new();
        // Before anything else: probes are answered however long the tables take.
        self.start_admin(&mut tasks, stop.clone(), everything.clone());
        let (shard_sync, observer) = tokio::select! { biased;
            () = stop.cancelled() => return Ok(()),
            prepared = self.prepare() => prepared?,
        };
        self.readiness.prepared();
        let shard_sync = Arc::new(shard_sync);
        let heart = CancellationToken::new();
        self.start_heartbeat(&mut tasks, heart.clone())?;
        let (instruct, mut instructions) = mpsc::channel(64);
        self.start_coordinator(&mut tasks, observer, stop.clone(), instruct);
        self.start_sync(&mut tasks, &shard_sync, everything.clone());
        self.start_capacity_watch(&mut tasks, everything.clone());

        let outcome = self.supervise(&mut tasks, &mut instructions, &shard_sync, &stop).await;
        everything.cancel();
        // The new owners of what was handed over are told before this process is gone; each nudge has a deadline.
        while self.nudges.join_next().await.is_some() {}
        self.consumers.abort_all();
        heart.cancel();
        self.end_tasks(tasks).await;
        outcome
    }

    /// Follows the coordinator's instructions until it has ended.
    async fn supervise(
        &mut self,
        tasks: &mut Tasks<TaskEnd>,
        instructions: &mut mpsc::Receiver<Instruction>,
        sync: &Arc<ShardSync>,
        stop: &CancellationToken,
    ) -> Result<(), WorkerError> {
        let clock = self.worker.clock.clone();
        let drain_timeout = self.worker.settings.drain_timeout;
        let drained_too_long = async {
            stop.cancelled().await;
            clock.sleep(drain_timeout).await;
        };
        tokio::pin!(drained_too_long);
        let stamp = self.watches.watch("supervisor", TURN);
        loop {
            stamp.stamp();
            tokio::select! { biased;
                Some(ended) = self.consumers.join_next() => self.on_consumer_end(ended, sync)?,
                Some(cooled) = self.cooling.join_next() => self.on_cooled(cooled),
                Some(_nudged) = self.nudges.join_next() => {}
                Some(ended) = tasks.join_next() => match task_end(ended)? {
                    "coordinator" if stop.is_cancelled() => return Ok(()),
                    task => return Err(WorkerError::Task { task, why: "it ended by itself".to_owned() }),
                },
                Some(instruction) = instructions.recv() => self.follow(instruction, sync),
                () = &mut drained_too_long => return Err(WorkerError::DrainTimeout(drain_timeout)),
                () = clock.sleep(TURN) => {}
            }
            self.worker.metrics.leases_held(self.sessions.len());
        }
    }

    fn follow(&mut self, instruction: Instruction, sync: &Arc<ShardSync>) {
        match instruction {
            Instruction::Begin { row, right, since, parents_covered } => {
                self.begin(*row, (right, since, parents_covered), sync);
            }
            Instruction::HandOver { key, to, address, why } => {
                let settings = &self.worker.settings;
                // With nobody to take over there is nothing to hurry for.
                let within =
                    if to.is_some() { settings.handoff_deadline } else { settings.drain_timeout / 2 };
                let Some(running) = self.running.get_mut(&key) else {
                    // Its session has just failed. A worker that drains gives the lease away when none is left.
                    self.sessions.end_rest(&key);
                    return;
                };
                running.address = address;
                running.given_for.get_or_insert(why);
                // A session that is draining already keeps its first request.
                if running.requests.try_send(Drain { to, within }).is_err() {
                    tracing::debug!(lease_key = %key, "the session is handing over already");
                }
            }
            Instruction::Abandon { key } => {
                if let Some(running) = self.running.get(&key) {
                    running.stop.cancel();
                }
            }
        }
    }

    fn begin(&mut self, row: Lease, (right, since, parents_covered): Beginning, sync: &Arc<ShardSync>) {
        let key = row.key.clone();
        self.fleet.begun(&row);
        let settings = &self.worker.settings;
        let (requests, receiver) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let policy = SessionPolicy {
            cut: settings.cut,
            max_in_flight: settings.max_in_flight,
            commit_delay: settings.commit_delay,
            parameters: Arc::new(settings.parameters.clone()),
            foreign_user_records: settings.foreign_user_records,
            packing_versions: self.worker.sink.packing_versions().to_vec(),
            accept_gap: settings.accept_gap,
            retention: self.listed.borrow().retention,
            parents_covered,
        };
        let read = settings.read;
        let (held_rng, rng) = (self.next_rng(), self.next_rng());
        let metrics = self.worker.metrics.shard(&key);
        let consumer = Consumer {
            held: HeldLease::new(Arc::clone(&self.worker.store), self.worker.clock.clone(), row, held_rng),
            stream: Arc::clone(&self.worker.stream),
            sink: Arc::clone(&self.worker.sink),
            letters: Arc::clone(&self.worker.letters),
            letter_ttl_days: self.worker.settings.dead_letter_ttl_days,
            right,
            clock: self.worker.clock.clone(),
            budget: Arc::clone(&self.budget),
            policy,
            start: sync.start.at,
            read,
            metrics: metrics.clone(),
            since,
            children: Arc::<ShardSync>::clone(sync),
            distribution: Arc::clone(&self.distribution),
            watches: Arc::clone(&self.watches),
            requests: receiver,
            rng,
        };
        let running = Running { requests, stop: stop.clone(), address: None, given_for: None, metrics };
        self.running.insert(key.clone(), running);
        self.consumers.spawn(async move { (key, consumer.run(stop).await) });
    }

    fn on_consumer_end(
        &mut self,
        ended: Result<(LeaseKey, Ended), tokio::task::JoinError>,
        sync: &ShardSync,
    ) -> Result<(), WorkerError> {
        let (key, ended) =
            ended.map_err(|error| WorkerError::Task { task: "consumer", why: error.to_string() })?;
        let running = self.running.remove(&key);
        if let Some(running) = &running {
            log_end(&key, &ended, running.given_for, &running.metrics.reading());
        }
        self.worker.metrics.session_ended(ended.outcome());
        // Children may begin; an interrupted or lost lease may be ours or free (an operator released it).
        let look_again = !matches!(ended, Ended::HandedOver { .. });
        match ended {
            Ended::HandedOver { to, row } => {
                if let (Some(to), Some(running)) = (to, running) {
                    let handed_over = HandedOver {
                        nudge: Arc::clone(&self.worker.nudge),
                        store: Arc::clone(&self.worker.store),
                        registry: Arc::clone(&self.worker.registry),
                        row: *row,
                        to,
                        address: running.address,
                        unread: running.metrics.reading().unread(wall_millis()),
                    };
                    self.nudges.spawn(handed_over.tell());
                }
            }
            Ended::ShardEnd | Ended::Interrupted | Ended::Lost => {}
            Ended::Failed(error) => {
                if matches!(error, ConsumerError::ShardNotFound(_)) {
                    sync.not_found(&key);
                }
                tracing::error!(lease_key = %key, error = causes(&error), cool_down = ?COOL_DOWN, "a shard cannot be worked on; it is tried again");
                let clock = self.worker.clock.clone();
                self.sessions.rest(&key);
                self.cooling.spawn(async move {
                    clock.sleep(COOL_DOWN).await;
                    key
                });
                return Ok(());
            }
        }
        self.sessions.end(&key);
        if look_again {
            self.nudged.look_now();
        }
        Ok(())
    }

    fn on_cooled(&mut self, cooled: Result<LeaseKey, tokio::task::JoinError>) {
        if let Ok(key) = cooled
            && self.sessions.end_rest(&key)
        {
            self.nudged.look_now();
        }
    }

    /// Waits for the tasks that were told to end; the heartbeat deletes its row.
    async fn end_tasks(&self, mut tasks: Tasks<TaskEnd>) {
        let ending = async { while tasks.join_next().await.is_some() {} };
        let patience = self.worker.settings.failover_time / 3;
        if tokio::time::timeout(patience, ending).await.is_err() {
            tracing::warn!("tasks did not end in time and are dropped");
        }
    }

    fn next_rng(&mut self) -> SmallRng {
        SmallRng::from_rng(&mut self.worker.rng)
    }
}

/// The one line of a session's end. With the line of its first records it tells how long a shard stood still.
fn log_end(key: &LeaseKey, ended: &Ended, given_for: Option<GivenFor>, reading: &Reading) {
    let to = match ended {
        Ended::HandedOver { to, .. } => to.as_ref().map(WorkerId::as_str),
        Ended::ShardEnd | Ended::Lost | Ended::Interrupted | Ended::Failed(_) => None,
    };
    let why = match ended {
        Ended::HandedOver { .. } => given_for.map(GivenFor::label),
        Ended::ShardEnd => Some("all of it is stored"),
        Ended::Lost => Some("another worker owns it"),
        Ended::Interrupted => Some("the right lapsed, or the row must be read again"),
        // The error has a line of its own.
        Ended::Failed(_) => None,
    };
    tracing::info!(
        lease_key = %key,
        outcome = ended.outcome(),
        to,
        why,
        last_read_ms = reading.last_read.map(|at| at.0),
        sequence_number = reading.flow.last.as_ref().map(SequenceNumber::as_str),
        records = reading.flow.records,
        "session ended"
    );
}

fn task_end(ended: Result<TaskEnd, tokio::task::JoinError>) -> Result<&'static str, WorkerError> {
    match ended {
        Ok((task, Ok(()))) => Ok(task),
        Ok((task, Err(error))) => {
            tracing::error!(task, error = causes(&error), "a task failed");
            Err(error)
        }
        Err(error) => Err(WorkerError::Task { task: "unknown", why: error.to_string() }),
    }
}
