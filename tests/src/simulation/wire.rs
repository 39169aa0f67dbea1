//! The second tier: workers with the real SDK and the real adapters, driven in-process against the local backend's
//! routers. Script, fleet, links, referee and oracle are those of the first tier.
//!
//! ```text
//!  worker ── lease::dynamodb, sink::dynamodb, worker::kinesis ── SDK ─┐   one thread, a paused clock
//!                                                                     │   (each worker's with its rate and offset)
//!    http.rs     the SDK's HttpClient: one request -> one message on the worker's Link
//!    link.rs     latency, lost, late, throttled, failed, partitions, frozen processes   (both tiers)
//!    refusal.rs  what the services say to that
//!    witness.rs  as a request is applied: row before and after, note it in the World, ask the Referee
//!    backend.rs  the routers of kinesis and dynamodb, called as a function
//! ```
//!
//! A request is applied and judged within one poll, so what the [`World`] says never differs from what the backend
//! holds. Rows are read back with the product's own codec; the stream's records and lineage are noted from the answers
//! that whoever publishes and reshards gets, who meets no faults.
//!
//! Determinism: retries, invocation ids and jitter of the SDK come from `fastrand`, which is seeded; time comes from
//! the paused clock; credentials are fixed and nothing is cached; no connection is ever made.

pub mod backend;
mod client;
mod http;
mod kpl;
pub mod plants;
mod refusal;
mod registry;
pub(crate) mod values;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate_checkpoint::{ArrivalMillis, HashKey, ShardId};
use sluicegate_lease::dynamodb::{DynamoLeaseStore, DynamoRegistry};
use sluicegate_lease::{Clock, WorkerId};
use sluicegate_sink::ItemSource;
use sluicegate_sink::dynamodb::{DynamoDbDeadLetters, DynamoDbItems};
use sluicegate_worker::kinesis::KinesisStream;

use super::capacity::Gives;
use super::fleet::{APPLICATION, Parts, Plant};
use super::link::Link;
use super::script::{Build, FAILOVER, Script};
use super::services::Services;
use super::world::{Inner, UserEvent, World};
use super::{Outcome, run_on};
use backend::{Backend, STREAM, items_table, letters_table, workers_table};
use client::Clients;
use registry::TwoClients;

/// How the SDK and the services are set in one simulation: what the first tier has no use for.
#[derive(Debug, Clone, Copy)]
pub struct Wiring {
    /// How long the SDK waits for the answer to a call.
    pub call_timeout: Duration,
    /// How often the SDK tries a call by itself. The product tries once.
    pub attempts: u32,
    /// How long a shard iterator can be used.
    pub iterator_lifetime: Duration,
    /// Changes what a client asks for: how a bug in an adapter is planted.
    pub bend: Option<Bend>,
}

/// Changes a request (operation, body) on its way out.
pub type Bend = fn(&str, &mut serde_json::Value);

impl Wiring {
    /// Draws what goes with the script of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x0031_7ed0);
        Self {
            // Shorter than the link's own patience, or longer: then connections die first.
            call_timeout: Duration::from_millis([600, 3_000][rng.random_range(0..2)]),
            attempts: 1,
            iterator_lifetime: Duration::from_secs([2, 300][rng.random_range(0..2)]),
            bend: None,
        }
    }
}

/// The script of a seed for this tier: the first tier's, and services that fail. Kinesis keeps records for a day.
pub fn script(seed: u64) -> Script {
    let mut script = Script::of(seed).without_lifecycle();
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x0005_0050);
    // The backend limits all keys alike, and its tables have no indexes.
    script.capacity = script.capacity.filter(|capacity| capacity.hot.is_none());
    if let Some(capacity) = &mut script.capacity {
        capacity.table = (capacity.table / capacity.toll).round().max(1.0);
        capacity.toll = 1.0;
    }
    script.rates.failed = if rng.random_bool(0.5) { rng.random_range(0..60) } else { 0 };
    script
}

/// Runs the simulation of a seed on this tier.
pub fn run_wire(seed: u64) -> Outcome {
    run_wire_script(&script(seed), &Wiring::of(seed), &super::as_it_is)
}

/// Runs a script with workers or clients that have a bug.
pub fn run_wire_script(script: &Script, wiring: &Wiring, plant: &Plant) -> Outcome {
    fastrand::seed(script.seed);
    let replay = format!("WIRE_SEED={} make simulate", script.seed);
    Outcome { replay, ..run_on(script, plant, |world| Box::new(Wire::new(world, script, *wiring))) }
}

/// The local backend, and the way to it.
#[derive(Debug)]
pub struct Wire {
    backend: Arc<Backend>,
    wiring: Wiring,
}

impl Wire {
    fn new(world: &World, script: &Script, wiring: Wiring) -> Self {
        let backend = Backend::start(script.shards, wiring.iterator_lifetime);
        world.with(|world| world.stream = backend.stream());
        if let Some(capacity) = script.capacity {
            backend.limit(capacity.table);
        }
        Self { backend: Arc::new(backend), wiring }
    }

    fn clients(&self, link: &Arc<Link>, wall_offset: i64) -> Clients {
        Clients {
            link: Arc::clone(link),
            backend: Arc::clone(&self.backend),
            wiring: self.wiring,
            wall_offset,
        }
    }
}

impl Services for Wire {
    fn parts(&self, link: &Arc<Link>, build: &Build) -> Parts {
        let clients = self.clients(link, build.wall_offset);
        let client = clients.dynamodb(self.wiring.call_timeout);
        // As in production, where the heartbeat's calls end in time.
        let beats = clients.dynamodb(FAILOVER / 6);
        Parts {
            stream: Arc::new(KinesisStream::new(clients.kinesis(), STREAM)),
            store: Arc::new(DynamoLeaseStore::new(client.clone(), APPLICATION)),
            registry: Arc::new(TwoClients {
                beats: DynamoRegistry::new(beats, workers_table(), APPLICATION),
                rest: DynamoRegistry::new(client.clone(), workers_table(), APPLICATION),
            }),
            writer: Arc::new(DynamoDbItems::new(client.clone(), items_table())),
            letters: Arc::new(DynamoDbDeadLetters::new(client, letters_table())),
            sink: Box::new(|sink| sink),
        }
    }

    fn put(&self, world: &mut Inner, events: Vec<UserEvent>, at: ArrivalMillis) {
        let Some((key, _)) = events.first().cloned() else { return };
        let (data, hash_key) = kpl::record(&events);
        let (shard, number) = self.backend.put(&key, &data);
        world.stream.stored(
            &shard,
            &number,
            events.into_iter().map(|event| (hash_key.map(HashKey::sent_once), event)),
            at,
        );
    }

    fn split(&self, world: &mut Inner, shard: &ShardId) {
        self.backend.split(&mut world.stream, shard);
    }

    fn merge(&self, world: &mut Inner, shard: &ShardId) {
        self.backend.merge(&mut world.stream, shard);
    }

    fn set_capacity(&self, world: &World, gives: Gives) {
        let now = world.now();
        let gives = world.with(|world| {
            let table = world.meter.table.as_mut()?;
            table.set(gives, now);
            Some(table.gives())
        });
        if let Some(gives) = gives {
            self.backend.limit(gives);
        }
    }

    fn items(&self, world: &Arc<World>) -> Arc<dyn ItemSource> {
        let link = Link::new(Arc::clone(world), WorkerId::new("reader"), Clock::new());
        let client = self.clients(&link, 0).dynamodb(Duration::from_secs(10));
        Arc::new(DynamoDbItems::new(client, items_table()))
    }
}
