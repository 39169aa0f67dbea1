//! Which histories press on the table: what it gives, what is published beside, and the write budget. **Pure.**
//!
//! Capacities are small, so that a few hundred records take a minute to be written: the time of a history is real, its
//! volume is not. In half of the histories with a limited table nothing is done to the fleet but that, so that the laws
//! about rates can be judged while the capacity changes; in the others all faults go on until all is calm, and a backlog is
//! left to be written then.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate_lease::InitialPosition;

use super::capacity::{Capacity, Gives, HotRange};
use super::script::{Act, Build, Rates, Script};

/// Partition keys of a hot history's table are spread over so many ranges.
const RANGES: u64 = 8;
/// Events of a record, on average.
const EVENTS: f64 = 1.4;

impl Script {
    /// In one history of four the table is limited, in one of five of the others the fleet has a budget that it does not
    /// need.
    pub(super) fn draw_pressure(&mut self) {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ 0x00ca_9a11);
        match rng.random_range(0..12u32) {
            0 | 1 => self.press(&mut rng),
            2 => self.heat(&mut rng),
            3 | 4 => self.budget = Some(rng.random_range(40..400)),
            _ => {}
        }
    }

    /// The table gives less than comes.
    pub fn press(&mut self, rng: &mut SmallRng) {
        self.without_what_ends_records();
        self.without_other_readers();
        self.filler = rng.random_range(200..4_000);
        for build in &mut self.builds {
            feed(build, rng);
        }
        let records = rng.random_range(200..350);
        let units = f64::from(records) * (0.9 + EVENTS * filler_units(self.filler));
        let lasts = if rng.random_bool(0.5) {
            self.press_quietly(records, rng)
        } else {
            self.press_beside_faults(records, rng)
        };
        let toll = [1.0, 1.0, 2.0, 10.0][rng.random_range(0..4)];
        let table = (units / lasts.as_secs_f64() * toll).round().max(4.0);
        self.capacity = Some(Capacity { table, toll, hot: None });
        let parts = [None, None, Some(0.6), Some(1.0), Some(4.0)];
        self.budget = parts[rng.random_range(0..parts.len())].map(|part: f64| whole(part * table));
    }

    /// Nothing happens but an outage that ends, and a change; returns in what time everything should be written at the
    /// capacity as drawn.
    fn press_quietly(&mut self, records: u32, rng: &mut SmallRng) -> Duration {
        self.calm_down(records, rng);
        let outage = rng.random_range(12_000..18_000);
        let lift = outage + rng.random_range(3_000..9_000);
        let change = lift + 23_000;
        let calm = change + 23_000;
        let gives = if rng.random_bool(0.5) { Gives::Percent(5) } else { Gives::OneUnit };
        let (percent, part) = if rng.random_bool(0.5) { (200, 2.0) } else { (25, 0.25) };
        for (at, gives) in [(outage, gives), (lift, Gives::Percent(100)), (change, Gives::Percent(percent))] {
            self.acts.push((Duration::from_millis(at), Act::Gives(gives)));
        }
        self.calm_at = Duration::from_millis(calm);
        let lasts = Duration::from_millis(outage) + Duration::from_secs(23).mul_f64(1.0 + part);
        lasts + Duration::from_secs(12)
    }

    /// The drawn faults, an outage that is lifted, and much to write when all is calm.
    fn press_beside_faults(&mut self, records: u32, rng: &mut SmallRng) -> Duration {
        let calm = u64::try_from(self.calm_at.as_millis()).unwrap_or(u64::MAX);
        let outage = rng.random_range(4_000..calm);
        let lift = outage + rng.random_range(2_000..10_000);
        let percent = [5, 25, 200][rng.random_range(0..3)];
        let acts = [(outage, Gives::Percent(percent)), (lift, Gives::Percent(100))];
        self.acts.extend(acts.map(|(at, gives)| (Duration::from_millis(at), Act::Gives(gives))));
        self.acts.push((Duration::from_millis(calm - 1_000), Act::Publish(records)));
        self.acts.retain(|(at, _)| *at <= self.calm_at);
        self.acts.sort_by_key(|(at, _)| *at);
        Duration::from_secs(60)
    }

    /// The table gives enough, but for one range of keys.
    pub fn heat(&mut self, rng: &mut SmallRng) {
        self.without_what_ends_records();
        self.without_other_readers();
        let (aggregate_key, hot, keys) =
            if rng.random_bool(0.5) { ("partition-key", "key-3", 12.0) } else { ("{/k}", "k2", 5.0) };
        for build in &mut self.builds {
            feed(build, rng);
            build.aggregate_key = aggregate_key;
        }
        if rng.random_bool(0.5) {
            self.calm_down(6, rng);
        }
        let calm = u64::try_from(self.calm_at.as_millis()).unwrap_or(u64::MAX);
        let published = (2..calm / 500).map(|n| (Duration::from_millis(500 * n), Act::Publish(3)));
        self.acts.extend(published);
        self.acts.sort_by_key(|(at, _)| *at);
        // What comes for one of the keys, or a little less: others may lie in the same range.
        let units = 6.0 * EVENTS / keys * rng.random_range(0.4..0.8);
        let hot = HotRange { of: RANGES, index: HotRange::range_of(hot, RANGES), units };
        self.capacity = Some(Capacity { table: 40_000.0, toll: 1.0, hot: Some(hot) });
        self.budget = [None, Some(1_000)][rng.random_range(0..2)];
    }

    /// What is to be written must be read in time, which is not what these histories are about.
    fn without_other_readers(&mut self) {
        self.reads = None;
    }

    /// A few workers, records at the beginning, and nothing else.
    fn calm_down(&mut self, records: u32, rng: &mut SmallRng) {
        self.rates = Rates::default();
        self.shards = self.shards.max(2);
        self.acts = vec![(Duration::from_millis(100), Act::Publish(records))];
        for _ in 0..rng.random_range(2..=3u32) {
            self.acts.push((Duration::from_millis(rng.random_range(0..2_000)), Act::Join));
        }
        self.acts.sort_by_key(|(at, _)| *at);
    }

    /// While much waits to be written nothing may expire, and nothing is rejected.
    fn without_what_ends_records(&mut self) {
        self.acts.retain(|(_, act)| !matches!(act, Act::DeleteRow(_)));
        (self.retention, self.accept_gap, self.poison) = (None, false, None);
        self.initial = InitialPosition::TrimHorizon;
    }
}

/// Many records are read before the first is written.
fn feed(build: &mut Build, rng: &mut SmallRng) {
    build.filter = None;
    build.max_bytes = 16 << 20;
    build.max_item_bytes = 4_096;
    build.max_records = rng.random_range(3..=10);
    build.max_in_flight = rng.random_range(2..=4);
    build.max_age = build.max_age.min(Duration::from_secs(1));
    build.buffer_bytes = 1 << 20;
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred units")]
fn whole(units: f64) -> u64 {
    units.round().max(1.0) as u64
}

/// Units of a filler of at most so many bytes, on average.
fn filler_units(most: usize) -> f64 {
    f64::from(u32::try_from(most).unwrap_or(u32::MAX)) / 2_048.0
}
