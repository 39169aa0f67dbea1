//! Starts the tasks of a worker: heartbeat, coordinator, shard sync, admin server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate_lease::coordinator::FailedReads;
use sluicegate_lease::store::WriteError;
use sluicegate_lease::{Beat, Coordinator, CoordinatorConfig, Heartbeat, Instruction, Observer};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{LONGEST_CALL, Supervisor, TaskEnd, Tasks};
use crate::admin::{Admin, Limits};
use crate::shard_sync::{SYNC_INTERVAL, ShardSync};
use crate::worker::{HeartbeatOn, RegistryFactory, WorkerError};
use crate::write_flow::{BudgetChoice, capacity};

/// How long a worker row outlives its worker before DynamoDB may delete it.
const ROW_LIVES: Duration = Duration::from_secs(3_600);

impl Supervisor {
    pub(super) fn start_heartbeat(
        &mut self,
        tasks: &mut Tasks<TaskEnd>,
        stop: CancellationToken,
    ) -> Result<(), WorkerError> {
        let interval = self.worker.settings.failover_time / 3;
        let stamp = self.watches.watch("heartbeat", interval);
        let (metrics, nudged) = (self.worker.metrics.clone(), self.nudged.clone());
        let readiness = Arc::clone(&self.readiness);
        let first = std::sync::Once::new();
        let heartbeat = Heartbeat {
            registry: Arc::clone(&self.worker.registry),
            clock: self.worker.clock.clone(),
            right: Arc::clone(&self.right),
            status: self.status.clone(),
            grant: self.write_flow.as_ref().and_then(|flow| flow.grant()),
            interval,
            row_lives: ROW_LIVES,
            epoch_seconds: Arc::clone(&self.worker.epoch_seconds),
            rng: self.next_rng(),
            on_beat: Box::new(move |beat| {
                stamp.stamp();
                if beat == Beat::Confirmed {
                    metrics.heartbeat();
                    readiness.heartbeat();
                    // Nothing may be taken before the first heartbeat: look at once when it is there.
                    first.call_once(|| nudged.look_now());
                }
            }),
        };
        match std::mem::replace(&mut self.worker.heartbeat, HeartbeatOn::SameRuntime) {
            HeartbeatOn::SameRuntime => {
                tasks.spawn(
                    async move { ("heartbeat", heartbeat.run(stop).await.map_err(WorkerError::from)) },
                );
            }
            HeartbeatOn::Thread(registry) => {
                let ended = heartbeat_thread(heartbeat, registry, stop)?;
                tasks.spawn(async move {
                    let vanished =
                        |_| WorkerError::Task { task: "heartbeat", why: "its thread panicked".to_owned() };
                    (
                        "heartbeat",
                        ended.await.map_err(vanished).and_then(|outcome| outcome.map_err(WorkerError::from)),
                    )
                });
            }
        }
        Ok(())
    }

    pub(super) fn start_coordinator(
        &self,
        tasks: &mut Tasks<TaskEnd>,
        observer: Observer,
        stop: CancellationToken,
        instructions: mpsc::Sender<Instruction>,
    ) {
        let failover_time = self.worker.settings.failover_time;
        let stamp = self.watches.watch("coordinator", failover_time.max(LONGEST_CALL));
        let coordinator = Coordinator {
            config: CoordinatorConfig {
                me: self.worker.id.clone(),
                failover_time,
                policy: self.worker.settings.plan_policy(),
                scan_budget: self.can_be_nudged().then_some(self.worker.settings.scan_budget),
            },
            store: Arc::clone(&self.worker.store),
            registry: Arc::clone(&self.worker.registry),
            clock: self.worker.clock.clone(),
            right: Arc::clone(&self.right),
            status: self.status.clone(),
            nudged: self.nudged.clone(),
            nudge: Arc::clone(&self.worker.nudge),
            listed: self.listed.subscribe(),
            listing_wanted: self.listing_wanted.clone(),
            instructions,
            sessions: self.sessions.clone(),
            view: self.view.clone(),
            on_fleet: {
                let (flow, fleet) = (self.write_flow.clone(), Arc::clone(&self.fleet));
                Box::new(move |rows, look| {
                    if let Some(flow) = &flow {
                        flow.on_fleet(rows, look);
                    }
                    fleet.on_workers(&rows.workers, look);
                })
            },
            on_view: {
                let fleet = Arc::clone(&self.fleet);
                Box::new(move |view| fleet.on_view(view))
            },
            on_turn: Box::new(move || stamp.stamp()),
            failed_reads: FailedReads::default(),
        };
        tasks.spawn(async move {
            ("coordinator", coordinator.run(observer, stop).await.map_err(WorkerError::from))
        });
    }

    /// Whether others can tell this worker to look now. One whom nobody can tell must look often by itself.
    fn can_be_nudged(&self) -> bool {
        self.worker.nudged_in_process || self.status.row().address.is_some()
    }

    pub(super) fn start_sync(
        &mut self,
        tasks: &mut Tasks<TaskEnd>,
        sync: &Arc<ShardSync>,
        stop: CancellationToken,
    ) {
        let (sync, clock, rng) = (Arc::clone(sync), self.worker.clock.clone(), self.next_rng());
        // A step is a listing or a scan of many pages, each of which may take as long as a call may.
        let stamp = self.watches.watch("shard sync", SYNC_INTERVAL);
        tasks.spawn(async move {
            sync.run(clock, rng, stamp, stop).await;
            ("shard sync", Ok(()))
        });
    }

    /// Asks the table what it gives, where that is the write budget.
    pub(super) fn start_capacity_watch(&self, tasks: &mut Tasks<TaskEnd>, stop: CancellationToken) {
        let (Some(flow), Some(source)) = (&self.write_flow, &self.worker.capacity) else { return };
        if self.worker.settings.write_budget != BudgetChoice::Auto {
            return;
        }
        let watch = capacity::watch(Arc::clone(source), Arc::clone(flow), self.worker.clock.clone(), stop);
        tasks.spawn(async move {
            watch.await;
            ("write budget", Ok(()))
        });
    }

    pub(super) fn start_admin(
        &mut self,
        tasks: &mut Tasks<TaskEnd>,
        drain: CancellationToken,
        stop: CancellationToken,
    ) {
        let Some(listener) = self.worker.admin.take() else { return };
        let admin = Arc::new(Admin {
            metrics: self.worker.metrics.clone(),
            watches: Arc::clone(&self.watches),
            readiness: Arc::clone(&self.readiness),
            fleet: Arc::clone(&self.fleet),
            nudged: self.nudged.clone(),
            drain,
            token: self.worker.admin_token.clone(),
            clock: self.worker.clock.clone(),
            answered: Mutex::default(),
        });
        tasks.spawn(async move {
            admin.serve(listener, Limits::default(), stop).await;
            ("admin", Ok(()))
        });
    }
}

/// Runs the heartbeat on a thread and runtime of its own.
fn heartbeat_thread(
    mut heartbeat: Heartbeat,
    registry: RegistryFactory,
    stop: CancellationToken,
) -> Result<oneshot::Receiver<Result<(), WriteError>>, WorkerError> {
    let (done, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| WorkerError::Setup(format!("no runtime for the heartbeat: {error}")))?;
    let beat = move || {
        heartbeat.registry = registry();
        // The supervisor is gone if nobody listens; then there is nothing to tell.
        drop(done.send(runtime.block_on(heartbeat.run(stop))));
    };
    let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beat);
    thread.map(|_detached| ended).map_err(|error| WorkerError::Setup(format!("no heartbeat thread: {error}")))
}
