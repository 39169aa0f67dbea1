//! What stands outside the workers, and how they reach it: ports in memory (the first tier), or the services behind
//! the SDK ([`wire`](super::wire), the second).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sluicegate_checkpoint::{ArrivalMillis, ShardId};
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{
    FleetRows, Lease, LeaseKey, LeaseStore, RecordedStart, WorkerId, WorkerRegistry, WorkerRow, Written,
};
use sluicegate_sink::{ItemSource, MemoryTable};

use super::capacity::Gives;
use super::fleet::Parts;
use super::link::Link;
use super::ports::Ports;
use super::script::Build;
use super::world::{Inner, UserEvent, World};

/// The stream and the tables of one simulation. Whatever is done to them is noted in the [`World`], which the referee
/// and the oracle look at.
pub trait Services {
    /// What a worker at the end of this link is put together from.
    fn parts(&self, link: &Arc<Link>, build: &Build) -> Parts;

    /// Publishes one Kinesis record with these events, all under the hash key of the first one's partition key.
    fn put(&self, world: &mut Inner, events: Vec<UserEvent>, at: ArrivalMillis);

    /// Splits an open shard in the middle, if it is wide enough.
    fn split(&self, world: &mut Inner, shard: &ShardId);

    /// Merges an open shard with its right neighbour, if it has one.
    fn merge(&self, world: &mut Inner, shard: &ShardId);

    /// Changes what the analytics table gives, if it is limited.
    fn set_capacity(&self, world: &World, gives: Gives);

    /// The analytics table, as a reader without any faults sees it.
    fn items(&self, world: &Arc<World>) -> Arc<dyn ItemSource>;
}

/// The first tier: the world itself is the stream and the tables.
#[derive(Debug, Clone, Copy)]
pub struct InMemory;

impl Services for InMemory {
    fn parts(&self, link: &Arc<Link>, _: &Build) -> Parts {
        let ports = Arc::new(Ports(Arc::clone(link)));
        Parts {
            stream: Arc::clone(&ports) as _,
            store: Arc::clone(&ports) as _,
            registry: Arc::clone(&ports) as _,
            letters: Arc::clone(&ports) as _,
            writer: ports,
            sink: Box::new(|sink| sink),
        }
    }

    fn put(&self, world: &mut Inner, events: Vec<UserEvent>, at: ArrivalMillis) {
        world.stream.put(events, at);
    }

    fn split(&self, world: &mut Inner, shard: &ShardId) {
        world.stream.split(shard);
    }

    fn merge(&self, world: &mut Inner, shard: &ShardId) {
        world.stream.merge(shard);
    }

    fn set_capacity(&self, world: &World, gives: Gives) {
        let now = world.now();
        world.with(|world| {
            if let Some(table) = &mut world.meter.table {
                table.set(gives, now);
            }
        });
    }

    fn items(&self, world: &Arc<World>) -> Arc<dyn ItemSource> {
        let table = Arc::new(MemoryTable::default());
        world.with(|world| {
            for (key, attributes) in &world.items {
                table.put(key.clone(), attributes.clone());
            }
        });
        table
    }
}

/// Tells the referee when a worker hears that it lost a race against itself (R2): an answer that never came must reach it
/// as an outcome that it does not know.
pub struct WatchedStore {
    /// The lease table, as the worker has it.
    pub inner: Arc<dyn LeaseStore>,
    /// Whose way to it.
    pub link: Arc<Link>,
    /// Writes without an answer, or given up before one came.
    pub undecided: Mutex<BTreeMap<LeaseKey, Vec<Lease>>>,
}

impl std::fmt::Debug for WatchedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchedStore").field("link", &self.link).finish_non_exhaustive()
    }
}

impl WatchedStore {
    /// Changes the undecided writes of a row.
    fn undecided<T>(&self, key: &LeaseKey, change: impl FnOnce(&mut Vec<Lease>) -> T) -> T {
        let mut undecided = self.undecided.lock().unwrap_or_else(PoisonError::into_inner);
        change(undecided.entry(key.clone()).or_default())
    }
}

#[async_trait]
impl LeaseStore for WatchedStore {
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        self.inner.leases().await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        self.inner.lease(key).await
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        self.inner.create(lease).await
    }

    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError> {
        let was_undecided = self.undecided(&next.key, |undecided| {
            let was = undecided.contains(next);
            undecided.push(next.clone());
            was
        });
        let written = self.inner.replace(expected, next).await;
        self.undecided(&next.key, |undecided| match written {
            Ok(_) => undecided.retain(|write| write != next),
            // Refused: this try, and not those before it.
            Err(WriteError::Throttled { .. } | WriteError::Refused { .. }) => {
                let this = undecided.iter().rposition(|write| write == next);
                if let Some(this) = this {
                    undecided.remove(this);
                }
            }
            Err(WriteError::OutcomeUnknown { .. }) => {}
        });
        if let Ok(Written::Lost(Some(found))) = &written
            && found == next
            && !was_undecided
            // A take by the receiver of a hand-over writes what the hand-over would have written.
            && self.link.world.with(|world| world.referee.wrote(&self.link.worker, found))
        {
            let Link { world, worker, .. } = &*self.link;
            let (now, key, counter) = (world.now(), &next.key, next.counter.0);
            let why =
                format!("{worker} is told that its own write #{counter} of {key} lost a race, at {now:?}");
            world.with(|world| world.referee.broke("R2", why));
        }
        written
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        self.inner.delete(expected).await
    }
}

/// Tells the referee when a worker tries to write its heartbeat (H4).
pub struct Watched {
    /// The worker table.
    pub inner: Arc<dyn WorkerRegistry>,
    /// Whose way to it.
    pub link: Arc<Link>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("link", &self.link).finish_non_exhaustive()
    }
}

#[async_trait]
impl WorkerRegistry for Watched {
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
        let Link { world, worker, .. } = &*self.link;
        let began = world.now();
        world.with(|world| {
            world.referee.beat_begins(worker, began);
            world.meter.shares.sends(worker, row.heartbeat, began);
        });
        let written = self.inner.heartbeat(expected, row).await;
        let ended = world.now();
        let confirmed = match &written {
            Ok(Written::Applied(_)) => Some(true),
            Ok(Written::Lost(found)) => Some(found.as_ref() == Some(row)),
            Err(_) => None,
        };
        world.with(|world| {
            world.referee.beat_ends(worker, ended);
            if let Some(confirmed) = confirmed {
                let shows = world.referee.lifecycle.share(worker);
                world.meter.shares.answered(worker, confirmed, shows, ended);
            }
        });
        written
    }

    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError> {
        self.inner.retire(row).await
    }
}
