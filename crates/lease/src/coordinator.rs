//! The coordinator of one worker: observe -> plan -> act, for ever, then hand everything over.
//!
//! A round reads the lease rows, then the worker rows that explain their owners, plans, takes what the plan gives
//! this worker, and tells the supervisor what to begin and what to hand over. It holds no authority: everything it
//! does is a conditional write, or an instruction to a session that makes one.
//!
//! Rounds come every `failover_time / 2`, and at once when a worker joins, drains, leaves or falls silent, or when
//! somebody nudges; soon again while a free lease is left to another worker. Where scans cost much ([`crate::pace`]) they
//! come less often, a worker that joins or falls silent makes each plan from the rows it knows, and who scans tells
//! those to whom it leaves a free lease. Worker rows are looked at every `failover_time / 20`, and once more exactly
//! when the next heartbeat would have stood still for long enough.

mod acting;
mod draining;
mod failures;
mod instruction;
mod sessions;
mod taking;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::failures::FailedReads;
pub use self::instruction::{GivenFor, Instruction, Interruption};
pub use self::sessions::Sessions;
use crate::clock::Clock;
use crate::heartbeat::WorkerStatus;
use crate::listing::{Listing, ListingWanted};
use crate::model::{Lease, LeaseKey, Pending, WorkerId};
use crate::nudge::{Nudge, Nudged, Nudges};
use crate::pace::{Pace, ScanBudget};
use crate::plan::{PlanPolicy, left_free, plan};
use crate::registry::{FleetRows, WorkerRegistry};
use crate::right::HeartbeatRight;
use crate::store::{LeaseStore, ReadError};
use crate::view::{FleetView, Health, Look, Observer};

/// Shown each view before it is acted on.
pub type OnView = Box<dyn Fn(&FleetView) + Send + Sync>;

/// Shown the worker rows of a strongly consistent read.
pub type OnFleet = Box<dyn Fn(&FleetRows, Look) + Send + Sync>;

/// Times and bounds of a coordinator.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Who this is.
    pub me: WorkerId,
    /// How long a heartbeat must stand still before its worker is presumed dead.
    pub failover_time: Duration,
    /// Bounds for the plan.
    pub policy: PlanPolicy,
    /// What the fleet's scans may cost. None: this worker cannot be nudged, so it must find everything by itself, and
    /// scans as in a small fleet.
    pub scan_budget: Option<ScanBudget>,
}

/// What a coordinator works with.
pub struct Coordinator {
    /// Times and bounds.
    pub config: CoordinatorConfig,
    /// The lease table.
    pub store: Arc<dyn LeaseStore>,
    /// The worker table.
    pub registry: Arc<dyn WorkerRegistry>,
    /// The worker's clock.
    pub clock: Clock,
    /// The worker's right to act.
    pub right: Arc<HeartbeatRight>,
    /// What the heartbeat says of this worker.
    pub status: WorkerStatus,
    /// "Look now".
    pub nudged: Nudges,
    /// Tells other workers.
    pub nudge: Arc<dyn Nudge>,
    /// The last complete listing of the stream.
    pub listed: watch::Receiver<Arc<Listing>>,
    /// Asked for another when a parent's row is missing.
    pub listing_wanted: ListingWanted,
    /// To the supervisor.
    pub instructions: mpsc::Sender<Instruction>,
    /// The sessions of this worker; the supervisor ends them.
    pub sessions: Sessions,
    /// The last view, for metrics and probes.
    pub view: watch::Sender<Option<Arc<FleetView>>>,
    /// Shown the worker rows of each look, before anything is decided by them.
    pub on_fleet: OnFleet,
    /// Shown each view, before anything is done by it.
    pub on_view: OnView,
    /// Called with each turn of the loop, and with each step of a long one: the sign that it is not stuck.
    pub on_turn: Box<dyn Fn() + Send + Sync>,
    /// For the log.
    pub failed_reads: FailedReads,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why a coordinator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The tables refuse to be read.
    #[error("the lease or worker table cannot be read")]
    Read(#[from] ReadError),
    /// The supervisor is gone.
    #[error("nobody listens to the coordinator")]
    Unheard,
}

/// When to look at the worker rows next: when a period is over, before that if a heartbeat would then have stood
/// still for long enough, and not before now. A silence that is due already was not seen because the rows could not be
/// read; it must not make the loop spin until they can.
fn next_look(now: Instant, next_round: Instant, period_over: Instant, silence: Option<Instant>) -> Instant {
    let regular = next_round.min(period_over).max(now);
    silence.filter(|at| *at > now).map_or(regular, |at| at.min(regular))
}

/// What a look at the worker rows told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    Changed,
    Unchanged,
    NotRead,
}

/// Anybody may nudge, and a hint costs a read of the row it names. Of leases that this worker has not seen yet so many are
/// read in a look's time; the others make a plain nudge, and are found by the next round.
#[derive(Debug, Default)]
struct Strangers {
    since: Option<Instant>,
    read: usize,
}

impl Strangers {
    /// As many as may be read now; whoever takes one reads it.
    fn allow(&mut self, now: Instant, period: Duration) -> impl Iterator<Item = ()> {
        if self.since.is_none_or(|since| now >= since + period) {
            *self = Self { since: Some(now), read: 0 };
        }
        std::iter::from_fn(|| {
            self.read += 1;
            (self.read <= AT_ONCE).then_some(())
        })
    }
}

/// What ended a wait.
enum Woken {
    Time,
    Nudged,
    Hinted,
}

/// How many rows are read or taken at a time.
const AT_ONCE: usize = 16;
/// How much sooner than a look's time a round follows one that left a free lease to another worker; each further one
/// takes twice as long, up to a look's time.
const SOONER: u32 = 8;

/// How often a plan is made anew at once because the fleet changed meanwhile.
const MOST_REPLANS: u32 = 3;

/// What was done, or the failure of a read that passes.
fn unless_it_passes<T>(done: Result<T, CoordinatorError>) -> Result<Result<T, ReadError>, CoordinatorError> {
    match done {
        Ok(done) => Ok(Ok(done)),
        Err(CoordinatorError::Read(error @ ReadError::Unavailable { .. })) => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

impl Coordinator {
    /// Looks, plans and acts, from what `observer` has seen so far, until `drain` is cancelled, by its owner or because an
    /// operator's request asks this worker to leave (then it is cancelled here); then has every session handed over and
    /// returns when all have ended. *Cancelling it* (dropping) leaves sessions to the supervisor.
    ///
    /// # Errors
    /// The tables refuse for good.
    pub async fn run(self, mut observer: Observer, drain: CancellationToken) -> Result<(), CoordinatorError> {
        let (look_every, round_every) = (self.config.failover_time / 20, self.config.failover_time / 2);
        let mut pace = Pace::new(self.config.failover_time, self.config.scan_budget);
        let mut last_view: Option<Arc<FleetView>> = None;
        let mut next_round = self.clock.now();
        let mut last_round = next_round;
        let mut looked_at = next_round;
        let mut again_after = look_every / SOONER;
        let mut strangers = Strangers::default();
        while !drain.is_cancelled() {
            (self.on_turn)();
            if self.clock.now() >= next_round {
                let mut rest = round_every;
                // A view that was only half acted on is no base for plans: what was learned of its rows is forgotten.
                last_view =
                    self.unless_unavailable(self.round(&mut observer, &mut pace, last_round, &drain).await)?;
                if let Some(view) = &last_view {
                    let left = left_free(view, &self.config.policy);
                    if self.right.holds_now() {
                        rest = pace.rest(&self.config.me);
                    }
                    if left.is_empty() {
                        again_after = look_every / SOONER;
                    } else if pace.scans_at_events() {
                        rest = again_after;
                        again_after = (again_after * 2).min(look_every);
                    } else {
                        self.tell(left, view).await;
                    }
                }
                last_round = self.clock.now();
                looked_at = last_round;
                next_round = last_round + rest;
            }
            let period_over = looked_at + look_every;
            let until = next_look(self.clock.now(), next_round, period_over, observer.next_silence());
            let look_round = match self.wait(&drain, until).await {
                Woken::Time => false,
                Woken::Nudged => true,
                Woken::Hinted => {
                    let adopted = self.adopt_hinted(&mut observer, &pace, &mut strangers, &drain).await;
                    !self.unless_unavailable(adopted)?.unwrap_or(false)
                }
            };
            if look_round {
                next_round = next_round.min(last_round + pace.nudged_apart()).max(self.clock.now());
                continue;
            }
            let now = self.clock.now();
            if now < next_round && now >= until {
                looked_at = now;
                if self.look(&mut observer, &drain).await == Looked::Changed {
                    match last_view.take().filter(|_| !pace.scans_at_events()) {
                        None => next_round = self.clock.now(),
                        Some(view) => {
                            let replanned = self.replan(view, &mut observer, last_round, &drain).await;
                            last_view = self.unless_unavailable(replanned)?;
                        }
                    }
                }
            }
        }
        let last_seen = self.view.borrow().clone();
        self.drain(&drain, &mut observer, last_seen).await
    }

    /// What was done, or nothing if a table could not be read meanwhile: then the next round does it.
    fn unless_unavailable<T>(
        &self,
        done: Result<T, CoordinatorError>,
    ) -> Result<Option<T>, CoordinatorError> {
        let tell = |error: ReadError| self.failed_reads.round(&error, self.clock.now());
        Ok(unless_it_passes(done)?.map_err(tell).ok())
    }

    /// Waits for the next look, or until somebody nudges.
    async fn wait(&self, drain: &CancellationToken, until: Instant) -> Woken {
        tokio::select! { biased;
            () = drain.cancelled() => Woken::Time,
            nudged = self.nudged.arrived() => match nudged {
                Nudged::Hinted => Woken::Hinted,
                Nudged::Plain => Woken::Nudged,
            },
            () = self.clock.sleep_until(until) => Woken::Time,
        }
    }

    /// Begins sessions on leases that were handed to this worker, as nudges said. The rows decide: a hint only says
    /// which to read. Returns whether every one of them was ours; otherwise a round must tell, or, where rounds cost
    /// much, a lease that is free is taken: that is what another worker's round has told.
    async fn adopt_hinted(
        &self,
        observer: &mut Observer,
        pace: &Pace,
        strangers: &mut Strangers,
        drain: &CancellationToken,
    ) -> Result<bool, CoordinatorError> {
        let (mut hinted, now) = (self.nudged.take_hints(), self.clock.now());
        if !self.right.holds_now() {
            return Ok(false);
        }
        let named = hinted.len();
        let mut strangers = strangers.allow(now, self.config.failover_time / 20);
        hinted.retain(|key, _| self.knows(key) || strangers.next().is_some());
        let all_read = hinted.len() == named;
        let unknown = hinted.into_iter().filter(|(key, _)| !self.sessions.contains(key));
        let read = |(key, unread): (LeaseKey, Option<Duration>)| async move {
            let right = self.right.session();
            (self.store.lease(&key).await, right, unread.and_then(|unread| now.checked_sub(unread)))
        };
        let mut rows = stream::iter(unknown.map(read)).buffer_unordered(AT_ONCE);
        let (mut all_ours, mut others) = (all_read, Vec::new());
        while let Some((row, right, last_read)) = rows.next().await {
            (self.on_turn)();
            match row {
                Ok(Some(row)) if self.may_begin(&row) => {
                    observer.learn(row.clone());
                    self.begin(row, right, last_read.map(|at| (Interruption::Handoff, at))).await?;
                }
                Ok(Some(row)) if !pace.scans_at_events() => others.push(row),
                Ok(_) | Err(ReadError::Unavailable { .. }) => all_ours = false,
                Err(error) => return Err(error.into()),
            }
        }
        drop(rows);
        let fleet_changed = self.take_found(others, observer, drain).await?;
        Ok(all_ours && !fleet_changed)
    }

    /// Whether there is such a lease, or a shard for one, as far as this worker has seen.
    fn knows(&self, key: &LeaseKey) -> bool {
        let has_row = self.view.borrow().as_ref().is_some_and(|view| view.leases.contains_key(key));
        has_row || self.listed.borrow().shards.contains(key)
    }

    /// Whether a row just read is ours, unfinished, and can be read.
    fn may_begin(&self, row: &Lease) -> bool {
        let readable = !matches!(row.pending, Pending::Unreadable { .. });
        row.owner.as_ref() == Some(&self.config.me) && readable && !row.is_finished()
    }

    /// Looks at the worker rows.
    async fn look(&self, observer: &mut Observer, drain: &CancellationToken) -> Looked {
        let asked = self.clock.now();
        match self.registry.fleet().await {
            Ok(rows) => {
                self.heed_request(&rows, drain);
                let look = Look { asked, answered: self.clock.now() };
                (self.on_fleet)(&rows, look);
                let changes = observer.see_workers(rows.workers, look);
                for (worker_id, before, after) in &changes {
                    let [before, after] = [before, after].map(|health| health.map(Health::label));
                    tracing::info!(%worker_id, before, after, "the fleet changed");
                }
                if changes.is_empty() { Looked::Unchanged } else { Looked::Changed }
            }
            Err(error) => {
                self.failed_reads.look(&error, self.clock.now());
                Looked::NotRead
            }
        }
    }

    /// One round. Leases are read before workers: an owner that joined in between is then known, not mistaken for
    /// one without a row.
    async fn round(
        &self,
        observer: &mut Observer,
        pace: &mut Pace,
        last_round: Instant,
        drain: &CancellationToken,
    ) -> Result<Arc<FleetView>, CoordinatorError> {
        let leases_asked = self.clock.now();
        let leases = self.store.leases().await?;
        let asked = self.clock.now();
        let rows = self.registry.fleet().await?;
        self.heed_request(&rows, drain);
        let answered = self.clock.now();
        (self.on_fleet)(&rows, Look { asked, answered });
        observer.see_workers(rows.workers, Look { asked, answered });
        let view = Arc::new(observer.see_leases(leases, Look { asked: leases_asked, answered }));
        for lease_key in observer.newly_foreign() {
            tracing::warn!(%lease_key, "the row holds a pending checkpoint state of another application; it is not read, and gives way to the first announce");
        }
        for life in observer.newly_alive() {
            tracing::error!(worker_id = %life.owner, lease_key = %life.lease_key, counter = life.to.0, "a KCL application is at work on the lease table: its leases are left alone while their counters move; stop it, or stop this fleet");
        }
        pace.scanned(&view);
        let missed = self.act_on(&view, observer, last_round, drain).await?;
        if !pace.scans_at_events() && self.take_found(missed, observer, drain).await? {
            return self.replan(view, observer, last_round, drain).await;
        }
        Ok(view)
    }

    /// Plans and acts on the rows that this worker knows and the workers as it has just seen them, and again if that
    /// changes meanwhile.
    async fn replan(
        &self,
        mut view: Arc<FleetView>,
        observer: &mut Observer,
        last_round: Instant,
        drain: &CancellationToken,
    ) -> Result<Arc<FleetView>, CoordinatorError> {
        for _ in 0..MOST_REPLANS {
            view = Arc::new(observer.with_workers_now(&view));
            let missed = self.act_on(&view, observer, last_round, drain).await?;
            if !self.take_found(missed, observer, drain).await? {
                break;
            }
        }
        Ok(view)
    }

    /// Plans and acts on a view. Returns rows that it could not take because they had been written to: what they say now.
    async fn act_on(
        &self,
        view: &Arc<FleetView>,
        observer: &mut Observer,
        last_round: Instant,
        drain: &CancellationToken,
    ) -> Result<Vec<Lease>, CoordinatorError> {
        let mut missed = Vec::new();
        (self.on_view)(view);
        let before = self.view.send_replace(Some(Arc::clone(view)));
        if self.right.holds_now() && !drain.is_cancelled() {
            self.adopt(view, before.as_deref(), last_round).await?;
            let actions = plan(view, &self.config.policy).into_iter();
            let acts = actions.map(|action| self.act(action, view, observer));
            let acts = stream::iter(acts).buffer_unordered(AT_ONCE).inspect(|_done| (self.on_turn)());
            for done in acts.collect::<Vec<_>>().await {
                missed.extend(done?.into_iter().flat_map(|taken| taken.learned_by(observer)));
            }
        }
        let held = u64::try_from(self.sessions.len()).unwrap_or(u64::MAX);
        self.status.update(|row| row.leases = held);
        Ok(missed)
    }
}

#[cfg(test)]
mod tests;
