//! What stands outside the workers, and how they reach it: ports in memory (the first tier), or the services behind
//! the SDK ([`wire`](super::wire), the second).

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_checkpoint::{ArrivalMillis, ShardId};
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{FixedStart, FleetRows, WorkerId, WorkerRegistry, WorkerRow, Written};
use sluicegate_sink::{ItemSource, MemoryTable};

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
    async fn fix_start(&self, start: FixedStart) -> Result<FixedStart, WriteError> {
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
        world.with(|world| world.referee.beat_begins(worker, began));
        let written = self.inner.heartbeat(expected, row).await;
        let ended = world.now();
        world.with(|world| world.referee.beat_ends(worker, ended));
        written
    }

    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError> {
        self.inner.retire(row).await
    }
}
