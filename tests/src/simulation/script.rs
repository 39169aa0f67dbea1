//! What a seed stands for: the stream, the workers and everything that will be done to them. **Pure.**

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate_checkpoint::ArrivalMillis;
use sluicegate_lease::InitialPosition;

use super::capacity::{Capacity, Gives};
use super::poison::Poison;
use super::reads::ReadLimits;

/// Epoch milliseconds at which every simulation begins.
pub const BEGIN_MS: i64 = 1_700_000_000_000;
/// How much earlier a worker counts its own right as over.
pub const MARGIN: Duration = Duration::from_millis(300);
/// The failover time of every simulated fleet.
pub const FAILOVER: Duration = Duration::from_secs(3);

/// Something done to the world at a moment.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// So many Kinesis records are put.
    Publish(u32),
    /// A shard is split, chosen by this number.
    Split(u32),
    /// A shard is merged with its neighbour.
    Merge(u32),
    /// A worker starts.
    Join,
    /// A worker is killed.
    Crash(u32),
    /// A worker is told to stop.
    Stop(u32),
    /// A worker's process stands still for so long.
    Pause(u32, Duration),
    /// A worker cannot reach these services for so long.
    Partition(u32, Vec<Service>, Duration),
    /// The table of items takes nothing for so long.
    SinkOutage(Duration),
    /// Somebody deletes a lease row by hand.
    DeleteRow(u32),
    /// The table of items gives more or less, if it is limited.
    Gives(Gives),
}

impl Act {
    /// How long it disturbs the fleet; nothing if it is no more than what comes and what the table gives.
    pub fn disturbs(&self) -> Option<Duration> {
        match self {
            Self::Publish(_) | Self::Gives(_) => None,
            Self::Pause(_, lasts) | Self::Partition(_, _, lasts) | Self::SinkOutage(lasts) => Some(*lasts),
            Self::Split(_)
            | Self::Merge(_)
            | Self::Join
            | Self::Crash(_)
            | Self::Stop(_)
            | Self::DeleteRow(_) => Some(Duration::ZERO),
        }
    }
}

/// What a worker talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The lease table.
    Leases,
    /// The worker table.
    Workers,
    /// The stream.
    Stream,
    /// The analytics table.
    Items,
}

/// All services.
pub const SERVICES: [Service; 4] = [Service::Leases, Service::Workers, Service::Stream, Service::Items];

/// How often, in thousandths, a call meets a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// The request is lost; the caller waits for its time-out.
    pub request_lost: u32,
    /// It is applied and the answer is lost.
    pub answer_lost: u32,
    /// The caller's time-out passes, and the request lands later.
    pub late: u32,
    /// It is refused for now.
    pub throttled: u32,
    /// The service fails, after or before it was applied. Only the second tier has it.
    pub failed: u32,
}

/// How a worker of the simulation is set.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// How much faster its clock runs, in millionths.
    pub drift_ppm: i32,
    /// How far its wall clock is off, in seconds.
    pub wall_offset: i64,
    /// Packing versions it makes.
    pub packing_versions: Vec<u32>,
    /// Its aggregate key, as configuration says it.
    pub aggregate_key: &'static str,
    /// Its filter, as configuration says it.
    pub filter: Option<&'static str>,
    /// Its largest items.
    pub max_item_bytes: u32,
    /// Kinesis records of a batch.
    pub max_records: u64,
    /// Payload bytes of a batch at most: small ones are closed where their items are full.
    pub max_bytes: usize,
    /// Age of a batch.
    pub max_age: Duration,
    /// Batches announced and not committed.
    pub max_in_flight: usize,
    /// Wait of a commit for an announce.
    pub commit_delay: Duration,
    /// Budget of bytes.
    pub buffer_bytes: usize,
}

/// One simulation, before it is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// Its seed.
    pub seed: u64,
    /// Shards at the beginning.
    pub shards: u32,
    /// Where the application starts.
    pub initial: InitialPosition,
    /// Builds that workers are made of, by turns.
    pub builds: Vec<Build>,
    /// Fault rates while there are faults.
    pub rates: Rates,
    /// Longest way of a request or an answer.
    pub latency: Duration,
    /// What is done when, in order of time.
    pub acts: Vec<(Duration, Act)>,
    /// When all faults end.
    pub calm_at: Duration,
    /// How long the stream keeps records, if shorter than the simulation.
    pub retention: Option<Duration>,
    /// Whether workers go on behind records that retention took.
    pub accept_gap: bool,
    /// What the table of items never takes.
    pub poison: Option<Poison>,
    /// What other consumers leave of each shard's reads.
    pub reads: Option<ReadLimits>,
    /// What the table of items gives, if it is limited.
    pub capacity: Option<Capacity>,
    /// The fleet's write budget, in units a second.
    pub budget: Option<u64>,
    /// Bytes that make an event larger, at most.
    pub filler: usize,
    /// Whether Kinesis records with several events are aggregates, whose events need not be of the shard.
    pub aggregated: bool,
    /// From when until when the stream distributes records itself, if ever: then no hash key says anything.
    pub auto: Option<(Duration, Duration)>,
}

impl Script {
    /// Draws the script of a seed.
    pub fn of(seed: u64) -> Self {
        let mut script = Self::without_pressure(seed);
        script.draw_pressure();
        script
    }

    /// Whether its workers divide a budget, or tell each other what the table gives.
    pub fn is_governed(&self) -> bool {
        self.capacity.is_some() || self.budget.is_some()
    }

    /// The script of a seed with a table that takes everything, and without a write budget.
    pub fn without_pressure(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let calm_at = Duration::from_millis(rng.random_range(12_000..45_000));
        let builds = (0..rng.random_range(1..=3)).map(|_| build(&mut rng)).collect();
        let mut script = Self {
            seed,
            shards: rng.random_range(1..=4),
            initial: InitialPosition::TrimHorizon,
            builds,
            rates: rates(&mut rng),
            latency: Duration::from_millis(rng.random_range(2..60)),
            acts: Vec::new(),
            calm_at,
            retention: None,
            accept_gap: false,
            poison: None,
            reads: ReadLimits::of(seed),
            capacity: None,
            budget: None,
            filler: 200,
            aggregated: false,
            auto: None,
        };
        script.draw_acts(&mut rng);
        script.initial = script.draw_initial(&mut rng);
        script.draw_lifecycle();
        script.draw_poison();
        script.draw_aggregates();
        script
    }

    /// In one history of four the table rejects some events for good.
    fn draw_poison(&mut self) {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ 0x0dead);
        if rng.random_bool(0.25) {
            self.poison = Some(Poison {
                seed: rng.random(),
                one_event_in: rng.random_range(5..60),
                one_key_in: if rng.random_bool(0.3) { 5 } else { 0 },
            });
        }
    }

    /// In one history of three the events of a Kinesis record are an aggregate's, of the native library's or of others';
    /// in some of these the stream distributes records itself for a while.
    fn draw_aggregates(&mut self) {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ 0xa99e);
        self.aggregated = rng.random_bool(0.34);
        if self.aggregated && rng.random_bool(0.5) {
            let calm_ms = u64::try_from(self.calm_at.as_millis()).unwrap_or(u64::MAX);
            let from = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..calm_ms) };
            let until =
                if rng.random_bool(0.5) { u64::from(u32::MAX) } else { rng.random_range(from..=calm_ms) };
            self.auto = Some((Duration::from_millis(from), Duration::from_millis(until)));
        }
    }

    /// In a few histories records and shards expire, or rows are deleted by hand: what may then be lost or stored twice
    /// weakens the other laws, so most have neither.
    fn draw_lifecycle(&mut self) {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ 0x11fe);
        if rng.random_bool(0.125) {
            self.retention = Some(Duration::from_millis(rng.random_range(6_000..25_000)));
            self.accept_gap = rng.random_bool(0.5);
        }
        if rng.random_bool(0.125) {
            let calm_ms = u64::try_from(self.calm_at.as_millis()).unwrap_or(u64::MAX);
            for _ in 0..rng.random_range(1..5) {
                let at = Duration::from_millis(rng.random_range(3_000..calm_ms));
                self.acts.push((at, Act::DeleteRow(rng.random())));
            }
            self.acts.sort_by_key(|(at, _)| *at);
        }
    }

    /// The same without what only a stream and a table in memory can do: a retention of seconds, rows deleted by hand.
    pub fn without_lifecycle(mut self) -> Self {
        self.acts.retain(|(_, act)| !matches!(act, Act::DeleteRow(_)));
        Self { retention: None, accept_gap: false, ..self }
    }

    /// A time must have come when the first worker starts: Kinesis refuses one in the future.
    fn draw_initial(&self, rng: &mut SmallRng) -> InitialPosition {
        let first_join = self.acts.iter().find(|(_, act)| *act == Act::Join).map(|(at, _)| *at);
        let first_join = i64::try_from(first_join.unwrap_or_default().as_millis()).unwrap_or_default();
        match rng.random_range(0..3) {
            0 => InitialPosition::TrimHorizon,
            1 => InitialPosition::Latest,
            _ => InitialPosition::AtTimestamp(ArrivalMillis(BEGIN_MS + rng.random_range(-500..=first_join))),
        }
    }

    fn draw_acts(&mut self, rng: &mut SmallRng) {
        let calm_ms = u64::try_from(self.calm_at.as_millis()).unwrap_or(u64::MAX);
        // Before the first worker: records, and sometimes a stream that was resharded already.
        self.acts.push((Duration::ZERO, Act::Publish(rng.random_range(0..6))));
        for _ in 0..rng.random_range(0..3u32) {
            let act = if rng.random_bool(0.5) { Act::Split(rng.random()) } else { Act::Merge(rng.random()) };
            self.acts.push((Duration::from_millis(rng.random_range(0..3_000)), act));
        }
        for _ in 0..rng.random_range(1..=3u32) {
            self.acts.push((Duration::from_millis(rng.random_range(0..4_000)), Act::Join));
        }
        for _ in 0..rng.random_range(2..14u32) {
            let at = Duration::from_millis(rng.random_range(500..calm_ms));
            let act = draw_act(rng);
            self.acts.push((at, act));
        }
        let mut at = 0;
        while at < calm_ms {
            at += rng.random_range(50..2_500);
            self.acts.push((Duration::from_millis(at), Act::Publish(rng.random_range(1..8))));
        }
        self.acts.sort_by_key(|(at, _)| *at);
    }
}

fn draw_act(rng: &mut SmallRng) -> Act {
    let who = rng.random();
    match rng.random_range(0..14u32) {
        0 | 1 => Act::Crash(who),
        2 => Act::Stop(who),
        3 | 4 => Act::Join,
        5 | 6 => Act::Pause(who, Duration::from_millis(rng.random_range(100..12_000))),
        7 | 8 => {
            let all = rng.random_bool(0.4);
            let service = SERVICES[rng.random_range(0..SERVICES.len())];
            let services = if all { SERVICES.to_vec() } else { vec![service] };
            Act::Partition(who, services, Duration::from_millis(rng.random_range(300..12_000)))
        }
        9 => Act::SinkOutage(Duration::from_millis(rng.random_range(500..15_000))),
        10 | 11 => Act::Split(who),
        _ => Act::Merge(who),
    }
}

fn rates(rng: &mut SmallRng) -> Rates {
    let mut rate = || if rng.random_bool(0.5) { rng.random_range(0..60) } else { 0 };
    Rates { request_lost: rate(), answer_lost: rate(), late: rate(), throttled: rate(), failed: 0 }
}

fn build(rng: &mut SmallRng) -> Build {
    let versions = [vec![1], vec![1, 2], vec![2]];
    let keys = ["partition-key", "{/k}", "{/n}"];
    let drift_ppm = rng.random_range(-5_000..5_000);
    Build {
        drift_ppm,
        // Not drawn, so that a seed gives the history that it gave before there were filters.
        filter: (drift_ppm % 4 == 0).then_some("/n != 1"),
        wall_offset: rng.random_range(-120..120),
        packing_versions: versions[rng.random_range(0..versions.len())].clone(),
        aggregate_key: keys[rng.random_range(0..keys.len())],
        max_item_bytes: [4_096, 65_536][rng.random_range(0..2)],
        max_records: rng.random_range(1..12),
        max_bytes: [400, 1_500, 16 << 20][rng.random_range(0..3)],
        max_age: Duration::from_millis(rng.random_range(200..3_000)),
        max_in_flight: rng.random_range(1..=4),
        commit_delay: Duration::from_millis(rng.random_range(0..1_500)),
        buffer_bytes: [12_000, 1 << 20][rng.random_range(0..2)],
    }
}
