//! The deterministic simulation: real workers on one thread and a paused clock, with seeded faults; first safety under
//! faults, then liveness without, then the oracle.
//!
//! Two tiers share the script, the fleet, the links with their faults, the referee and the oracle: [`services`] in
//! memory for volume ([`run`]), and [`wire`], the real SDK and adapters over the local backend's routers
//! ([`run_wire`](wire::run_wire)).
//!
//! One seed gives one history, byte for byte. Everything random is drawn from it, and everything that waits waits on
//! the paused clock.

pub mod capacity;
pub mod fleet;
pub mod history;
pub mod lifecycle;
pub mod link;
pub mod meter;
pub mod oracle;
pub mod plants;
pub mod poison;
pub mod ports;
mod pressure;
pub mod rates;
pub mod reads;
pub mod referee;
pub mod script;
pub mod services;
pub mod shares;
pub mod stream;
pub mod wire;
pub mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_lease::WorkerId;
use sluicegate_lease::invariants::Broken;
use sluicegate_worker::WorkerError;

use capacity::Gives;
use fleet::{Fleet, Parts, Plant};
use rates::{Judged, STEP};
use script::{Act, Rates, Script};
use services::{InMemory, Services};
use world::World;

/// How long a calm fleet may take to finish everything...
const PATIENCE: Duration = Duration::from_secs(150);
/// ...and where the table, or the budget, gives less than comes: a minute's worth at the capacity, at six tenths of it, in items that
/// are smaller than was reckoned with.
const PATIENCE_UNDER_PRESSURE: Duration = Duration::from_secs(300);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(250);
/// How long after it failed a worker is started anew, as Kubernetes would.
const RESTART: Duration = Duration::from_secs(1);

/// What a simulation came to.
#[derive(Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// How to run it again.
    pub replay: String,
    /// Laws that did not hold.
    pub broken: Vec<Broken>,
    /// What happened.
    pub history: String,
    /// Virtual time it took.
    pub took: Duration,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Losses that the workers counted.
    pub losses: u64,
    /// How often the laws about rates were judged.
    pub judged: Judged,
}

impl Outcome {
    /// The history and the broken laws, with how to see them again.
    pub fn report(&self) -> String {
        let laws: String =
            self.broken.iter().map(|broken| format!("  {}: {}\n", broken.law, broken.why)).collect();
        let report = format!("{}broken laws of seed {}:\n{laws}", self.history, self.seed);
        format!("{}replay: {}\n", history::readable(&report), self.replay)
    }
}

/// Runs the simulation of a seed.
pub fn run(seed: u64) -> Outcome {
    run_script(&Script::of(seed), &|parts, _, _| parts)
}

/// Runs a script with workers that are put together with a bug.
pub fn run_script(script: &Script, plant: &Plant) -> Outcome {
    let replay = format!("SIM_SEED={} make simulate", script.seed);
    Outcome { replay, ..run_on(script, plant, |_| Box::new(InMemory)) }
}

/// Runs a script on the services that are made for its world.
fn run_on(script: &Script, plant: &Plant, services: impl FnOnce(&World) -> Box<dyn Services>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { unreachable!("a runtime without I/O can be made") };
    runtime.block_on(async {
        let world = World::new(script);
        let services = services(&world);
        simulate(script, world, &*services, plant).await
    })
}

/// What is due at a moment beside the script.
enum Due {
    Thaw(WorkerId),
    Join,
    /// A step of the recording of rates.
    Step,
}

async fn simulate(script: &Script, world: Arc<World>, services: &dyn Services, plant: &Plant) -> Outcome {
    let mut stage = Stage {
        fleet: Fleet::new(script, Arc::clone(&world), services, plant),
        world: Arc::clone(&world),
        services,
        due: BTreeMap::new(),
        dues: 0,
        calm: false,
    };
    if world.with(|world| world.meter.is_on()) {
        stage.at(STEP, Due::Step);
    }
    for (at, act) in &script.acts {
        stage.until(*at).await;
        stage.act(act);
    }
    stage.until(script.calm_at).await;
    stage.settle().await;
    let mut broken = oracle::check(&world, services.items(&world)).await;
    let (of_rates, judged) = world.with(|world| world.meter.course.judge());
    broken.extend(of_rates);
    broken.dedup();
    let took = world.now();
    world.with(|world| Outcome {
        seed: script.seed,
        replay: String::new(),
        broken,
        history: world.history.text().to_owned(),
        took,
        faults: world.faults.clone(),
        losses: world.referee.lifecycle.losses(),
        judged,
    })
}

/// The running simulation.
struct Stage<'a> {
    fleet: Fleet<'a>,
    world: Arc<World>,
    services: &'a dyn Services,
    due: BTreeMap<(Duration, u32), Due>,
    dues: u32,
    calm: bool,
}

impl Stage<'_> {
    /// Lets time pass until then, and does what is due meanwhile.
    async fn until(&mut self, at: Duration) {
        loop {
            let next = self.due.keys().next().map(|(due, _)| *due).filter(|due| *due < at);
            let wait = next.unwrap_or(at).saturating_sub(self.world.now());
            tokio::select! { biased;
                (id, outcome) = self.fleet.ended() => self.on_end(id.as_str(), outcome),
                () = tokio::time::sleep(wait) => match next {
                    None => return,
                    Some(_) => self.on_due(),
                },
            }
        }
    }

    fn on_due(&mut self) {
        match self.due.pop_first() {
            Some((_, Due::Thaw(id))) => self.fleet.thaw(&id),
            Some((_, Due::Join)) => self.join(),
            Some((_, Due::Step)) => self.step(),
            None => {}
        }
    }

    fn step(&mut self) {
        let (alive, now) = (self.fleet.ids(), self.world.now());
        self.world.with(|world| world.meter_step(&alive, now));
        self.at(now + STEP, Due::Step);
    }

    /// Something is done to the fleet, and lasts until then.
    fn disturb(&self, until: Duration) {
        self.world.with(|world| world.meter.disturb(until));
    }

    fn on_end(&mut self, who: &str, outcome: Result<(), WorkerError>) {
        self.disturb(self.world.now());
        let Err(error) = outcome else { return self.world.note(who, format_args!("has stopped")) };
        self.world.note(who, format_args!("fails: {error}"));
        let by_itself = matches!(error, WorkerError::Task { .. });
        if by_itself || self.calm {
            self.world.with(|world| world.referee.broke("P1", format!("{who} failed: {error}")));
        }
        let at = self.world.now() + RESTART;
        self.at(at, Due::Join);
    }

    fn at(&mut self, at: Duration, due: Due) {
        self.dues += 1;
        self.due.insert((at, self.dues), due);
    }

    fn join(&mut self) {
        self.disturb(self.world.now());
        if let Err(error) = self.fleet.join() {
            self.world.with(|world| world.referee.broke("P1", format!("a worker cannot start: {error}")));
        }
    }

    fn act(&mut self, act: &Act) {
        let (world, now) = (Arc::clone(&self.world), self.world.now());
        if let Some(lasts) = act.disturbs() {
            self.disturb(now + lasts);
        }
        match act {
            Act::Publish(records) => {
                let at = world.stream_time();
                world.with(|world| {
                    for _ in 0..*records {
                        let events = world.draw_events();
                        self.services.put(world, events, at);
                    }
                });
            }
            Act::Split(which) | Act::Merge(which) => {
                let split = matches!(act, Act::Split(_));
                world.with(|world| {
                    let open = world.stream.open();
                    let shard = &open[*which as usize % open.len()];
                    if split {
                        self.services.split(world, shard)
                    } else {
                        self.services.merge(world, shard)
                    }
                    world.fault(if split { "split" } else { "merge" });
                });
                world.note("world", format_args!("{act:?}"));
            }
            Act::Join => self.join(),
            Act::Crash(who) => self.fleet.crash(*who),
            Act::Stop(who) => self.fleet.stop(*who),
            Act::Pause(who, length) => {
                if let Some(id) = self.fleet.freeze(*who) {
                    self.at(now + *length, Due::Thaw(id));
                }
            }
            Act::Partition(who, services, length) => self.fleet.cut_off(*who, services, now + *length),
            Act::DeleteRow(which) => world.with(|world| world.delete_by_hand(*which, now)),
            Act::Gives(gives) => {
                self.services.set_capacity(&world, *gives);
                world.note("world", format_args!("{act:?}"));
            }
            Act::SinkOutage(length) => {
                world.with(|world| {
                    world.fault("sink outage");
                    world.sink_out_until = now + *length;
                });
                world.note("world", format_args!("{act:?}"));
            }
        }
    }

    /// No more faults: everything must be finished, and then everybody must stop in good order.
    async fn settle(&mut self) {
        self.world.note("world", format_args!("all is calm"));
        self.world.with(|world| {
            world.rates = Rates::default();
            world.sink_out_until = Duration::ZERO;
        });
        self.services.set_capacity(&self.world, Gives::Percent(100));
        self.disturb(self.world.now());
        self.fleet.heal();
        // Messages and stops that are on their way may still do harm.
        self.until(self.world.now() + Duration::from_secs(10)).await;
        self.calm = true;
        while self.fleet.len() < 2 {
            self.join();
        }
        let pressed = self.world.with(|world| world.meter.table.is_some());
        let deadline = self.world.now() + if pressed { PATIENCE_UNDER_PRESSURE } else { PATIENCE };
        loop {
            self.until(self.world.now() + LOOK).await;
            let alive = self.fleet.ids();
            let now = self.world.now();
            let left = self.world.with(|world| oracle::unsettled(world, &alive, now));
            if left.is_empty() {
                break;
            }
            if self.world.now() > deadline {
                self.world
                    .with(|world| world.referee.broke("D1", format!("not settled: {}", left.join("; "))));
                return;
            }
        }
        self.world.note("world", format_args!("all is settled"));
        self.fleet.stop_all();
        let deadline = self.world.now() + Duration::from_secs(30);
        while !self.fleet.is_empty() && self.world.now() < deadline {
            self.until(self.world.now() + LOOK).await;
        }
        if !self.fleet.is_empty() {
            self.world.with(|world| world.referee.broke("P1", "workers did not stop".to_owned()));
        }
    }
}

/// The product as it is: nothing planted.
pub fn as_it_is(parts: Parts, _: &ports::Ports, _: &script::Build) -> Parts {
    parts
}
