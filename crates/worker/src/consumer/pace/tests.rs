use proptest::prelude::*;

use super::model::{Model, Others, Outcome, Spell};
use super::*;
use crate::stream::Fetched;

const POLICY: ReadPolicy = ReadPolicy {
    min_interval: Duration::from_millis(200),
    idle_interval: Duration::from_secs(1),
    page_bytes: 512 << 10,
};
const PLENTY: usize = 1 << 30;

fn behind(bytes: usize) -> Answer {
    Answer { fetched: Fetched { records: 1, bytes }, behind_latest: Duration::from_secs(1) }
}

#[test]
fn room_is_held_for_bytes_and_for_what_records_take_beside_them() {
    let mut pace = Pace::new(POLICY);
    let began = Instant::now();
    for read in 0..20 {
        pace.seen(&behind(24_000), began + Duration::from_secs(10 * read));
    }
    let asked = pace.request(began + Duration::from_secs(200), PLENTY);
    assert_eq!(asked.memory_bytes, usize::try_from(asked.records).unwrap() * (24_000 + BESIDE_RECORD));
}

#[test]
fn the_first_page_is_small_and_pages_follow_the_size_of_records() {
    let mut pace = Pace::new(POLICY);
    let now = Instant::now();
    assert_eq!(pace.wait(now), Duration::ZERO);
    assert_eq!(pace.request(now, PLENTY).records, 51);
    pace.seen(&behind(10), now);
    assert_eq!(pace.wait(now), POLICY.min_interval);
    assert_eq!(pace.request(now, PLENTY).records, 10_000);
    pace.seen(&behind(10 << 20), now + Duration::from_secs(1));
    assert_eq!(pace.request(now, PLENTY).records, 1, "larger records count at once");
    let paid = pace.wait(now + Duration::from_secs(1));
    assert!((5.0..5.1).contains(&paid.as_secs_f64()), "10 MiB are paid for in 5 s: {paid:?}");
}

#[test]
fn a_shard_at_its_tip_is_read_once_an_idle_interval_and_reserves_little() {
    let mut pace = Pace::new(POLICY);
    let now = Instant::now();
    for records in [0, 1] {
        let fetched = Fetched { records, bytes: 300 * records };
        pace.seen(&Answer { fetched, behind_latest: Duration::ZERO }, now);
        assert_eq!(pace.wait(now), POLICY.idle_interval);
        let asked = pace.request(now, PLENTY);
        let bytes = asked.memory_bytes - usize::try_from(asked.records).unwrap() * BESIDE_RECORD;
        assert!(bytes <= POLICY.page_bytes / SMALLEST_PART + (10 << 10), "beside what each record takes");
    }
    pace.refused(now + POLICY.idle_interval);
    assert_eq!(pace.wait(now + POLICY.idle_interval), POLICY.idle_interval);
    pace.seen(&behind(30_000), now + 2 * POLICY.idle_interval);
    assert!(pace.wait(now + 2 * POLICY.idle_interval) <= POLICY.min_interval, "a backlog is read on at once");
    let mut reach = 0;
    for read in 0..6 {
        pace.seen(&behind(30_000), now + Duration::from_secs(10 + read));
        reach = pace.request(now + Duration::from_secs(10 + read), PLENTY).memory_bytes;
    }
    assert!(reach >= POLICY.page_bytes, "and its pages are whole ones soon: {reach}");
}

#[test]
fn little_free_memory_makes_small_pages() {
    let mut pace = Pace::new(POLICY);
    let now = Instant::now();
    pace.seen(&behind(300), now);
    for (free, at_most) in [(PLENTY, 10 << 20), (1 << 20, 256 << 10), (0, 128 << 10)] {
        assert!(pace.request(now, free).memory_bytes <= at_most + 300, "{free}");
    }
}

#[test]
fn a_refused_read_waits_twice_as_long_as_it_waited_before() {
    let mut pace = Pace::new(POLICY);
    let mut now = Instant::now();
    for _ in 0..20 {
        pace.request(now, PLENTY);
        pace.seen(&behind(500 << 10), now);
        now += pace.wait(now);
    }
    for _ in 0..4 {
        let waited = pace.last_read.map(|last| now - last).unwrap();
        pace.refused(now);
        assert!(pace.wait(now) >= waited.min(Duration::from_secs(10)) - Duration::from_millis(1));
        now += pace.wait(now);
    }
}

/// How much is read of what is left, and what is refused.
#[derive(Debug)]
struct Law {
    mean: f64,
    least: f64,
    /// In a hundred reads.
    refused: f64,
}

impl Law {
    fn of(outcomes: &[Outcome]) -> Self {
        let parts = || outcomes.iter().map(|outcome| outcome.part);
        let refused: u32 = outcomes.iter().map(|outcome| outcome.refused).sum();
        let answered: u32 = outcomes.iter().map(|outcome| outcome.answered).sum();
        Self {
            // What is read of the others' part makes up for nothing.
            mean: parts().map(|part| part.min(1.0)).sum::<f64>() / float(outcomes.len()),
            least: parts().fold(f64::INFINITY, f64::min),
            refused: 100.0 * f64::from(refused) / f64::from(refused + answered),
        }
    }

    /// Of minutes 3 to 8, for each of these calls and parts of the bytes that others take.
    fn when_settled(
        others: Others,
        record_bytes: usize,
        free: usize,
        taken: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        let outcome = |(calls, bytes)| {
            let mut model = Model::new(POLICY, others, record_bytes, free, 7);
            let spell = |seconds| Spell { seconds, calls, bytes };
            model.read(0.0, spell(120.0), 0.0);
            model.read(120.0, spell(360.0), 0.0)
        };
        Self::of(&taken.into_iter().map(outcome).collect::<Vec<_>>())
    }

    fn holds(&self, mean: f64, least: f64, refused: f64) -> bool {
        self.mean >= mean && self.least >= least && self.refused <= refused
    }
}

const SIZES: [usize; 5] = [60, 350, 5_000, 40_000, 300_000];

#[test]
fn what_is_left_is_read_where_calls_are_scarce() {
    for (others, size) in
        [Others::Apart, Others::Polling].into_iter().flat_map(|o| SIZES.map(|size| (o, size)))
    {
        let law = Law::when_settled(others, size, PLENTY, [1.0, 2.0, 3.0, 4.0].map(|calls| (calls, 0.0)));
        assert!(law.holds(0.96, 0.92, 1.3), "{others:?} {size}: {law:?}");
    }
}

#[test]
fn what_is_left_is_read_where_bytes_are_scarce() {
    for size in SIZES {
        let taken = [0.1, 0.3, 0.5, 0.7, 0.8, 0.9].map(|bytes| (0.0, bytes));
        let law = Law::when_settled(Others::Apart, size, PLENTY, taken);
        assert!(law.holds(0.98, 0.95, 1.6), "{size}: {law:?}");
    }
}

#[test]
fn what_is_left_is_read_beside_others_that_poll() {
    for size in SIZES {
        let taken = [0.1, 0.3, 0.5, 0.7].map(|bytes| (4.0, bytes));
        let law = Law::when_settled(Others::Polling, size, PLENTY, taken);
        assert!(law.holds(0.95, 0.95, 2.5), "{size}: {law:?}");
    }
}

#[test]
fn what_is_left_is_read_where_both_are_scarce_and_memory_is_too() {
    for (size, free) in SIZES.into_iter().flat_map(|size| [PLENTY, 4 << 20, 1 << 20].map(|free| (size, free)))
    {
        let calls = [1.0, 2.0, 3.0, 4.0].into_iter();
        let taken = calls.flat_map(|calls| [0.2, 0.5, 0.8].map(|bytes| (calls, bytes)));
        let law = Law::when_settled(Others::Apart, size, free, taken);
        assert!(law.holds(0.9, 0.6, 2.0), "{size} {free}: {law:?}");
    }
}

#[test]
fn what_is_left_is_read_while_it_changes() {
    for others in [Others::Apart, Others::Polling] {
        let mut outcomes = Vec::new();
        for seed in 0..40u32 {
            let mut model = Model::new(POLICY, others, 350, PLENTY, u64::from(seed));
            for turn in 0..6u32 {
                let dice = (seed * 7919 + turn * 104_729) % 1000;
                let (calls, bytes) = (f64::from(dice % 5), f64::from(dice % 91) / 100.0);
                let alone = others == Others::Polling && calls == 0.0;
                let spell = Spell { seconds: 120.0, calls, bytes: if alone { 0.0 } else { bytes } };
                outcomes.push(model.read(120.0 * f64::from(turn), spell, 20.0));
            }
        }
        let law = Law::of(&outcomes);
        assert!(law.holds(0.95, 0.0, 2.0), "{others:?}: {law:?}");
    }
}

proptest! {
    #[test]
    fn no_more_memory_is_asked_for_than_is_allowed(
        record_bytes in 1usize..10 << 20, free in 0usize..256 << 20, calls in 0u32..5, bytes in 0.0f64..0.9, seed in 0u64..1000,
    ) {
        let mut model = Model::new(POLICY, Others::Apart, record_bytes, free, seed);
        let outcome = model.read(0.0, Spell { seconds: 60.0, calls: f64::from(calls), bytes }, 0.0);
        let allowed = (free / PART_OF_FREE).max(POLICY.page_bytes / PART_OF_PAGE).max(record_bytes + BESIDE_RECORD);
        prop_assert!(outcome.memory <= allowed, "{} of {allowed}", outcome.memory);
    }
}
