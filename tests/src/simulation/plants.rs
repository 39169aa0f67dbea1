//! Bugs to plant: each one weakens a rule of the protocol in a decorator around a port, and the laws must catch it.
//!
//! Most are bugs of real consumers; the rest are the weak variants that model checking found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_checkpoint::{Batch, LeaseState, Position, Right, SequenceNumber, ShardId, SubSequenceNumber};
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{
    FleetRows, Lease, LeaseKey, LeaseStore, Pending, RecordedStart, WorkerId, WorkerRegistry, WorkerRow,
    Written,
};
use sluicegate_sink::{DeliverError, Delivered, Sink};
use sluicegate_worker::{Distributed, ReadFrom, ShardCursor, ShardListing, StreamError, StreamReader};

use super::fleet::Parts;
use super::ports::Ports;
use super::script::{BEGIN_MS, Build, FAILOVER};

mod outcomes;
mod poison;
mod pressure;
mod reads;

pub use outcomes::{
    foreign_is_filtered, foreign_is_nothing, hash_keys_are_always_judged, whatever_lies_outside_is_left_out,
};
pub use poison::{a_record_leaks, halves_are_stored, letters_are_not_put};
pub use pressure::{crawls_after_a_refusal, takes_more_than_its_share, the_table_is_blamed_for_a_key_range};
pub use reads::refused_reads_repeated_at_once;

type Inner = Arc<dyn LeaseStore>;

/// A weakened lease table. What it does not weaken it passes on.
#[async_trait]
trait Weak: Send + Sync + 'static {
    async fn leases(&self, inner: &Inner) -> Result<Vec<Lease>, ReadError> {
        inner.leases().await
    }

    async fn lease(&self, inner: &Inner, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        inner.lease(key).await
    }

    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        inner.replace(expected, next).await
    }
}

struct Weakened<W> {
    inner: Inner,
    weak: W,
}

#[async_trait]
impl<W: Weak> LeaseStore for Weakened<W> {
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        self.weak.leases(&self.inner).await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        self.weak.lease(&self.inner, key).await
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        self.inner.create(lease).await
    }

    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError> {
        self.weak.replace(&self.inner, expected, next).await
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        self.inner.delete(expected).await
    }
}

fn weaken<W: Weak>(parts: Parts, weak: W) -> Parts {
    Parts { store: Arc::new(Weakened { inner: Arc::clone(&parts.store), weak }), ..parts }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a write is progress of the owner, and not a change of hands.
fn keeps_owner(expected: &Lease, next: &Lease) -> bool {
    expected.owner == next.owner
}

fn cuts(row: &Lease) -> usize {
    row.pending.state().map_or(0, |state| state.cuts.len())
}

fn with_state(row: &Lease, change: impl FnOnce(&mut LeaseState)) -> Lease {
    let Some(mut state) = row.pending.state() else { return row.clone() };
    change(&mut state);
    Lease { pending: Pending::Ours(state), ..row.clone() }
}

/// Progress is written whoever owns the row. So that a worker is robbed that still has its right, silence is misjudged.
pub fn unconditional_commit(parts: Parts, ports: &Ports, build: &Build) -> Parts {
    weaken(expiry_by_wall_clock(parts, ports, build), Unconditional)
}

struct Unconditional;

#[async_trait]
impl Weak for Unconditional {
    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        let written = inner.replace(expected, next).await?;
        let Written::Lost(Some(found)) = &written else { return Ok(written) };
        if !keeps_owner(expected, next) {
            return Ok(written);
        }
        let forced = found.progressed(
            next.checkpoint.clone(),
            next.pending.state().unwrap_or_else(|| LeaseState::starting(None)),
        );
        inner.replace(found, &forced).await
    }
}

/// An announce counts as recorded while it is still on its way.
pub fn delivery_before_announce(parts: Parts, _: &Ports, _: &Build) -> Parts {
    weaken(parts, WriteBehind)
}

struct WriteBehind;

#[async_trait]
impl Weak for WriteBehind {
    #[expect(clippy::disallowed_methods, reason = "the bug is a write that nobody waits for")]
    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        if !keeps_owner(expected, next) || cuts(next) <= cuts(expected) {
            return inner.replace(expected, next).await;
        }
        let (inner, expected, later) = (Arc::clone(inner), expected.clone(), next.clone());
        drop(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(400)).await;
            inner.replace(&expected, &later).await
        }));
        Ok(Written::Applied(next.clone()))
    }
}

/// Of the two parents of a merged shard one is forgotten.
pub fn one_parent(parts: Parts, _: &Ports, _: &Build) -> Parts {
    weaken(parts, OneParent)
}

struct OneParent;

impl OneParent {
    fn bend(row: Lease) -> Lease {
        let first = row.parents.first().cloned();
        Lease { parents: first.into_iter().collect(), ..row }
    }
}

#[async_trait]
impl Weak for OneParent {
    async fn leases(&self, inner: &Inner) -> Result<Vec<Lease>, ReadError> {
        Ok(inner.leases().await?.into_iter().map(Self::bend).collect())
    }

    async fn lease(&self, inner: &Inner, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        Ok(inner.lease(key).await?.map(Self::bend))
    }
}

/// Silence is judged by the wall time in a row, not by a counter that stands still.
pub fn expiry_by_wall_clock(parts: Parts, ports: &Ports, build: &Build) -> Parts {
    let registry = Arc::clone(&parts.registry);
    weaken(parts, WallClock { registry, ports: ports.clone(), offset: build.wall_offset })
}

struct WallClock {
    registry: Arc<dyn WorkerRegistry>,
    ports: Ports,
    offset: i64,
}

impl WallClock {
    async fn silent(&self) -> Result<BTreeSet<WorkerId>, ReadError> {
        let elapsed = i64::try_from(self.ports.0.world.now().as_secs()).unwrap_or(i64::MAX);
        let now = BEGIN_MS / 1_000 + elapsed + self.offset;
        let failover = i64::try_from(FAILOVER.as_secs()).unwrap_or(i64::MAX);
        // A row expires an hour after its heartbeat.
        let silent = |row: &WorkerRow| row.expires - 3_600 + failover < now;
        let rows = self.registry.workers().await?;
        Ok(rows.into_iter().filter(silent).map(|row| row.worker_id).collect())
    }
}

#[async_trait]
impl Weak for WallClock {
    async fn leases(&self, inner: &Inner) -> Result<Vec<Lease>, ReadError> {
        let silent = self.silent().await?;
        let mut rows = inner.leases().await?;
        let me = &self.ports.0.worker;
        for row in &mut rows {
            row.owner = row.owner.take().filter(|owner| owner == me || !silent.contains(owner));
        }
        Ok(rows)
    }

    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        if expected.owner.is_none()
            && let Ok(Some(row)) = inner.lease(&expected.key).await
        {
            return inner.replace(&row, &row.taken_by(&self.ports.0.worker)).await;
        }
        inner.replace(expected, next).await
    }
}

/// A lost race counts as won: the worker goes on with a lease that is somebody else's, and cuts anew. So that a
/// worker is robbed that still has its right, silence is misjudged.
pub fn goes_on_after_a_loss(parts: Parts, ports: &Ports, build: &Build) -> Parts {
    weaken(expiry_by_wall_clock(parts, ports, build), GoesOn)
}

struct GoesOn;

#[async_trait]
impl Weak for GoesOn {
    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        match inner.replace(expected, next).await? {
            Written::Lost(_) if keeps_owner(expected, next) => Ok(Written::Applied(next.clone())),
            written @ (Written::Applied(_) | Written::Lost(_)) => Ok(written),
        }
    }
}

/// The heartbeat is written by the loop that delivers: it waits for deliveries.
pub fn heartbeat_in_the_processing_loop(parts: Parts, _: &Ports, _: &Build) -> Parts {
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    let registry = InLoop { inner: Arc::clone(&parts.registry), turn: Arc::clone(&turn) };
    Parts {
        registry: Arc::new(registry),
        sink: Box::new(|inner| Arc::new(OneAtATime { inner, turn })),
        ..parts
    }
}

struct InLoop {
    inner: Arc<dyn WorkerRegistry>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[async_trait]
impl WorkerRegistry for InLoop {
    async fn fix_start(&self, start: &RecordedStart) -> Result<RecordedStart, WriteError> {
        self.inner.fix_start(start).await
    }

    async fn fleet(&self) -> Result<FleetRows, ReadError> {
        self.inner.fleet().await
    }

    async fn workers(&self) -> Result<Vec<WorkerRow>, ReadError> {
        self.inner.workers().await
    }

    async fn ask_to_leave(&self, worker: &WorkerId, expires: i64) -> Result<(), WriteError> {
        self.inner.ask_to_leave(worker, expires).await
    }

    async fn withdraw_request(&self, worker: &WorkerId) -> Result<(), WriteError> {
        self.inner.withdraw_request(worker).await
    }

    async fn heartbeat(
        &self,
        expected: Option<u64>,
        row: &WorkerRow,
    ) -> Result<Written<WorkerRow>, WriteError> {
        let _turn = self.turn.lock().await;
        self.inner.heartbeat(expected, row).await
    }

    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError> {
        self.inner.retire(row).await
    }
}

struct OneAtATime {
    inner: Arc<dyn Sink>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[async_trait]
impl Sink for OneAtATime {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        let _turn = self.turn.lock().await;
        self.inner.deliver(batch, right).await
    }

    fn packing_versions(&self) -> &[u32] {
        self.inner.packing_versions()
    }
}

/// A position is resumed at its last record, not behind it.
pub fn resumes_at_the_last_record(parts: Parts, _: &Ports, _: &Build) -> Parts {
    weaken(parts, Resume { bend: at_the_record, real: Mutex::default() })
}

/// A position inside an aggregated record loses the place in it.
pub fn loses_the_sub_sequence(parts: Parts, _: &Ports, _: &Build) -> Parts {
    weaken(parts, Resume { bend: without_sub, real: Mutex::default() })
}

fn at_the_record(position: &Position) -> Position {
    let Position::At(number, _) = position else { return position.clone() };
    let before = number.as_str().parse::<u64>().unwrap_or(1).saturating_sub(1);
    SequenceNumber::parse(before.to_string())
        .map_or_else(|_| position.clone(), |before| Position::At(before, SubSequenceNumber(0)))
}

fn without_sub(position: &Position) -> Position {
    let Position::At(number, _) = position else { return position.clone() };
    Position::At(number.clone(), SubSequenceNumber(0))
}

struct Resume {
    bend: fn(&Position) -> Position,
    real: Mutex<BTreeMap<LeaseKey, (Position, Position)>>,
}

impl Resume {
    fn bent(&self, row: Lease) -> Lease {
        let bent = (self.bend)(&row.checkpoint);
        if cuts(&row) > 0 || bent == row.checkpoint {
            return row;
        }
        locked(&self.real).insert(row.key.clone(), (bent.clone(), row.checkpoint.clone()));
        let row = with_state(&row, |state| state.follows = Some(bent.clone()));
        Lease { checkpoint: bent, ..row }
    }

    fn straight(&self, row: &Lease) -> Lease {
        let Some((bent, real)) = locked(&self.real).get(&row.key).cloned() else { return row.clone() };
        let mut row = with_state(row, |state| {
            if state.follows.as_ref() == Some(&bent) {
                state.follows = Some(real.clone());
            }
        });
        if row.checkpoint == bent {
            row.checkpoint = real;
        }
        row
    }
}

#[async_trait]
impl Weak for Resume {
    async fn lease(&self, inner: &Inner, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        Ok(inner.lease(key).await?.map(|row| self.bent(row)))
    }

    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        let written = inner.replace(expected, &self.straight(next)).await?;
        match written {
            Written::Applied(row) if !keeps_owner(expected, next) => Ok(Written::Applied(self.bent(row))),
            Written::Applied(_) => Ok(Written::Applied(next.clone())),
            Written::Lost(found) => Ok(Written::Lost(found)),
        }
    }
}

/// After an unknown outcome the row's owner and counter are looked at, and not what it says.
pub fn unknown_outcome_by_counter(parts: Parts, ports: &Ports, _: &Build) -> Parts {
    weaken(parts, ByCounter { me: ports.0.worker.clone() })
}

struct ByCounter {
    me: WorkerId,
}

#[async_trait]
impl Weak for ByCounter {
    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        match inner.replace(expected, next).await {
            // It does not repeat the write: it looks again, finds nothing changed, and cuts anew.
            Err(WriteError::OutcomeUnknown { .. }) if keeps_owner(expected, next) => Ok(Written::Lost(None)),
            Ok(Written::Lost(Some(found)))
                if keeps_owner(expected, next)
                    && found.owner.as_ref() == Some(&self.me)
                    && found.counter == next.counter =>
            {
                Ok(Written::Applied(next.clone()))
            }
            written => written,
        }
    }
}

/// A commit without an announce leaves the counter as it is.
pub fn lone_commit_keeps_the_counter(parts: Parts, _: &Ports, _: &Build) -> Parts {
    weaken(parts, CounterStays)
}

struct CounterStays;

#[async_trait]
impl Weak for CounterStays {
    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        let lone_commit = keeps_owner(expected, next) && cuts(next) < cuts(expected);
        let counter = if lone_commit { expected.counter } else { next.counter };
        inner.replace(expected, &Lease { counter, ..next.clone() }).await
    }
}

/// Acknowledgements are remembered by place in the list of batches, whatever session they came from.
pub fn acknowledgements_outlive_the_session(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { sink: Box::new(|inner| Arc::new(OldAcks { inner, shards: Mutex::default() })), ..parts }
}

struct OldAcks {
    inner: Arc<dyn Sink>,
    shards: Mutex<BTreeMap<ShardId, Slots>>,
}

#[derive(Default)]
struct Slots {
    last: Option<SequenceNumber>,
    acked: usize,
    carried: usize,
}

#[async_trait]
impl Sink for OldAcks {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        let acked = {
            let mut shards = locked(&self.shards);
            let slots = shards.entry(batch.id.shard.clone()).or_default();
            // A batch that comes again is a new session's.
            if slots.last.as_ref().is_some_and(|last| batch.id.first <= *last) {
                slots.carried = std::mem::take(&mut slots.acked);
            }
            slots.last = Some(batch.id.first.clone());
            let acked = slots.carried > 0;
            slots.carried = slots.carried.saturating_sub(1);
            acked
        };
        if acked {
            return Ok(Delivered::default());
        }
        let shard = batch.id.shard.clone();
        let delivered = self.inner.deliver(batch, right).await?;
        locked(&self.shards).entry(shard).or_default().acked += 1;
        Ok(delivered)
    }

    fn packing_versions(&self) -> &[u32] {
        self.inner.packing_versions()
    }
}

/// Whoever takes a lease works from what the scan showed, not from what the take returned.
pub fn works_from_the_view(parts: Parts, _: &Ports, _: &Build) -> Parts {
    weaken(parts, FromView { scanned: Mutex::default() })
}

struct FromView {
    scanned: Mutex<BTreeMap<LeaseKey, Lease>>,
}

impl FromView {
    /// The row's owner and counter, and everything else as it was scanned.
    fn stale(&self, row: Lease) -> Lease {
        match locked(&self.scanned).get(&row.key) {
            Some(old) => Lease { owner: row.owner, counter: row.counter, ..old.clone() },
            None => row,
        }
    }
}

#[async_trait]
impl Weak for FromView {
    async fn leases(&self, inner: &Inner) -> Result<Vec<Lease>, ReadError> {
        let rows = inner.leases().await?;
        *locked(&self.scanned) = rows.iter().map(|row| (row.key.clone(), row.clone())).collect();
        Ok(rows)
    }

    async fn lease(&self, inner: &Inner, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        Ok(inner.lease(key).await?.map(|row| self.stale(row)))
    }

    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        let written = inner.replace(expected, next).await?;
        let Written::Lost(Some(found)) = &written else { return Ok(written) };
        let me = next.owner.as_ref().filter(|_| !keeps_owner(expected, next));
        // The row moved on since the scan: it takes what is there, and believes what it saw.
        let Some(me) = me.filter(|_| found.owner == expected.owner) else { return Ok(written) };
        match inner.replace(found, &found.taken_by(me)).await? {
            Written::Applied(row) => Ok(Written::Applied(self.stale(row))),
            lost => Ok(lost),
        }
    }
}

/// A hand-over leaves undelivered cuts behind.
pub fn hand_over_drops_cuts(parts: Parts, _: &Ports, _: &Build) -> Parts {
    weaken(parts, DropsCuts)
}

struct DropsCuts;

#[async_trait]
impl Weak for DropsCuts {
    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        if keeps_owner(expected, next) {
            return inner.replace(expected, next).await;
        }
        inner.replace(expected, &with_state(next, |state| state.cuts.clear())).await
    }
}

/// Announced batches are packed with the parameters of today.
pub fn todays_parameters(parts: Parts, _: &Ports, build: &Build) -> Parts {
    weaken(parts, Today { settings: super::fleet::parameters(build) })
}

struct Today {
    settings: sluicegate_checkpoint::PackingParameters,
}

impl Today {
    fn bend(&self, row: &Lease) -> Lease {
        let today = Arc::new(self.settings.clone());
        with_state(row, |state| {
            for cut in &mut state.cuts {
                cut.parameters = Arc::clone(&today);
            }
        })
    }
}

#[async_trait]
impl Weak for Today {
    async fn lease(&self, inner: &Inner, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        Ok(inner.lease(key).await?.map(|row| self.bend(&row)))
    }

    async fn replace(
        &self,
        inner: &Inner,
        expected: &Lease,
        next: &Lease,
    ) -> Result<Written<Lease>, WriteError> {
        match inner.replace(expected, next).await? {
            Written::Applied(row) if !keeps_owner(expected, next) => Ok(Written::Applied(self.bend(&row))),
            written @ (Written::Applied(_) | Written::Lost(_)) => Ok(written),
        }
    }
}

/// A parent that the last scan did not show counts as gone.
pub fn parent_gone_by_a_scan(parts: Parts, _: &Ports, _: &Build) -> Parts {
    weaken(parts, GoneByScan { scanned: Mutex::default() })
}

struct GoneByScan {
    scanned: Mutex<BTreeSet<LeaseKey>>,
}

impl GoneByScan {
    fn bend(&self, mut row: Lease) -> Lease {
        let scanned = locked(&self.scanned);
        row.parents.retain(|parent| scanned.contains(parent));
        row
    }
}

#[async_trait]
impl Weak for GoneByScan {
    async fn leases(&self, inner: &Inner) -> Result<Vec<Lease>, ReadError> {
        let rows = inner.leases().await?;
        *locked(&self.scanned) = rows.iter().map(|row| row.key.clone()).collect();
        Ok(rows.into_iter().map(|row| self.bend(row)).collect())
    }

    async fn lease(&self, inner: &Inner, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        Ok(inner.lease(key).await?.map(|row| self.bend(row)))
    }
}

/// LATEST is resolved by whoever opens the shard.
pub fn latest_opened_by_its_owner(parts: Parts, ports: &Ports, _: &Build) -> Parts {
    let stream = OpensLatest { inner: Arc::clone(&parts.stream), ports: ports.clone() };
    Parts { stream: Arc::new(stream), ..parts }
}

struct OpensLatest {
    inner: Arc<dyn StreamReader>,
    ports: Ports,
}

#[async_trait]
impl StreamReader for OpensLatest {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        self.inner.shards().await
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        self.inner.distribution().await
    }

    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
        let from = match from {
            ReadFrom::AtTimestamp(_) => ReadFrom::AtTimestamp(self.ports.0.world.stream_time()),
            ReadFrom::TrimHorizon | ReadFrom::At(_) | ReadFrom::After(_) => from,
        };
        self.inner.open(shard, from)
    }
}

/// Shards are listed once and kept, and the rows' own lineage is not looked at: whoever started before a shard had
/// children makes its row again after somebody has deleted it. Every other worker lists as it should.
pub fn deleted_row_made_again(parts: Parts, ports: &Ports, _: &Build) -> Parts {
    if !ports.0.worker.as_str().ends_with(['1', '3', '5', '7', '9']) {
        return parts;
    }
    let stream = KeptListing { inner: Arc::clone(&parts.stream), kept: tokio::sync::OnceCell::new() };
    let parts = Parts { stream: Arc::new(stream), ..parts };
    weaken(parts, NoParents)
}

struct KeptListing {
    inner: Arc<dyn StreamReader>,
    kept: tokio::sync::OnceCell<ShardListing>,
}

#[async_trait]
impl StreamReader for KeptListing {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        let now = self.inner.shards().await?;
        let kept = self.kept.get_or_init(|| async { now.clone() }).await;
        Ok(ShardListing { server_time: now.server_time, ..kept.clone() })
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        self.inner.distribution().await
    }

    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
        self.inner.open(shard, from)
    }
}

struct NoParents;

#[async_trait]
impl Weak for NoParents {
    async fn leases(&self, inner: &Inner) -> Result<Vec<Lease>, ReadError> {
        let rows = inner.leases().await?;
        Ok(rows.into_iter().map(|row| Lease { parents: BTreeSet::new(), ..row }).collect())
    }
}
