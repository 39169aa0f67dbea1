use proptest::prelude::*;

use super::*;

fn firm(units: f64) -> Option<Share> {
    Some(Share { units, firm: true })
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A table that takes so many units a second, with little to spare, and a worker that always has more to write.
struct Table {
    capacity: f64,
    left: f64,
    now: Instant,
    pace: Pace,
}

/// What one second saw.
#[derive(Debug, Default, Clone, Copy)]
struct Second {
    accepted: f64,
    attempts: u32,
    throttled: u32,
}

impl Table {
    fn new(capacity: f64, share: f64) -> Self {
        let now = Instant::now();
        let mut pace = Pace::new(PaceOptions::default(), now);
        pace.set_share(firm(share), now);
        Self { capacity, left: 0.0, now, pace }
    }

    /// One second of writing items of 64 units, with an answer after 5 ms.
    fn second(&mut self) -> Second {
        let (end, mut seen) = (self.now + ms(1_000), Second::default());
        while self.now < end {
            let Some(at) = self.pace.ready_at(64.0, self.now) else { return seen };
            if at > self.now {
                self.pass(at.min(end));
                continue;
            }
            self.pace.charge(64.0, self.now);
            seen.attempts += 1;
            if self.left > 0.0 {
                self.left -= 64.0;
                seen.accepted += 64.0;
                self.pace.consumed(64.0, 64.0, self.now);
            } else {
                seen.throttled += 1;
                self.pace.refused(64.0, self.now, self.now);
            }
        }
        seen
    }

    fn pass(&mut self, to: Instant) {
        let passed = (to - self.now).as_secs_f64();
        self.left = (self.left + self.capacity * passed).min(self.capacity * 0.1);
        self.now = to;
    }

    fn seconds(&mut self, count: usize) -> Vec<Second> {
        (0..count).map(|_| self.second()).collect()
    }
}

fn mean(seconds: &[Second]) -> f64 {
    let count = f64::from(u32::try_from(seconds.len()).unwrap());
    seconds.iter().map(|second| second.accepted).sum::<f64>() / count
}

fn throttled_ratio(seconds: &[Second]) -> f64 {
    let throttled: u32 = seconds.iter().map(|second| second.throttled).sum();
    f64::from(throttled) / f64::from(seconds.iter().map(|second| second.attempts).sum::<u32>())
}

#[test]
fn a_table_with_the_capacity_of_the_share_is_used_to_the_unit_and_never_throttles() {
    let mut table = Table::new(4_000.0, 4_000.0);
    let seconds = table.seconds(60);
    assert!(mean(&seconds) >= 0.97 * 4_000.0, "{}", mean(&seconds));
    assert!(seconds.iter().all(|second| second.accepted <= 1.05 * 4_000.0));
    assert_eq!(throttled_ratio(&seconds), 0.0);
}

#[test]
fn a_capacity_cut_to_a_quarter_is_found_within_seconds_and_a_doubled_one_again() {
    let mut table = Table::new(4_000.0, 4_000.0);
    table.seconds(20);
    table.capacity = 1_000.0;
    let cut = table.seconds(5);
    let attempted = f64::from(cut[4].attempts) * 64.0;
    assert!(attempted <= 2_000.0, "{attempted} attempted in the fifth second");
    let settled = table.seconds(60);
    assert!(mean(&settled) >= 0.93 * 1_000.0, "{}", mean(&settled));
    // The table gave more before, so it is asked more often than one that did not whether it gives that again: 0.7 s of a
    // minute's refusals at items of 64 ms each.
    assert!(throttled_ratio(&settled) <= 0.03, "{}", throttled_ratio(&settled));
    table.capacity = 2_000.0;
    let raised = table.seconds(30);
    assert!(raised[29].accepted >= 0.9 * 2_000.0, "{:?}", raised[29]);
}

#[test]
fn a_table_that_takes_nothing_is_asked_once_a_second_and_noticed_when_it_is_back() {
    let mut table = Table::new(4_000.0, 4_000.0);
    table.seconds(3);
    table.capacity = 0.0;
    let out = table.seconds(60);
    assert!(out[10..].iter().all(|second| second.attempts <= 40), "{:?}", out[59]);
    table.capacity = 4_000.0;
    let back = table.seconds(30);
    assert!(back[29].accepted >= 0.9 * 4_000.0, "{:?}", back[29]);
}

#[test]
fn what_was_learned_goes_along_with_another_share_and_to_another_worker() {
    let mut table = Table::new(1_000.0, 4_000.0);
    table.seconds(10);
    let part = table.pace.learned_part();
    assert!((0.2..=0.3).contains(&part), "{part}");
    table.pace.set_share(firm(2_000.0), table.now);
    let rate = table.pace.rate(table.now);
    assert!((rate - 2_000.0 * part).abs() < 60.0, "{rate} and {part}");
    table.pace.set_share(firm(0.0), table.now);
    assert_eq!(table.pace.rate(table.now), 0.0);
    assert_eq!(table.pace.ready_at(1.0, table.now), None);

    let mut other = Table::new(1_000.0, 4_000.0);
    other.pace.begin_at(Begin::Rate(7.0), other.now);
    assert_eq!(other.pace.learned_part(), 1.0, "with a share, another's rate says nothing");
    other.pace.begin_at(Begin::PartOfShare(part), other.now);
    let first = other.seconds(3);
    assert!(throttled_ratio(&first) <= 0.03, "{first:?}");
    other.pace.begin_at(Begin::PartOfShare(1.0), other.now);
    assert!(other.pace.learned_part() < 0.5, "it knows better by now");
}

#[test]
fn without_a_share_the_rate_doubles_while_it_is_used_until_the_table_refuses() {
    let mut table = Table::new(1_500.0, 1_500.0);
    table.pace = Pace::new(PaceOptions::default(), table.now);
    assert_eq!(table.pace.reason().0, RateReason::Searching);
    let begun = table.now;
    let idle = table.pace.rate(begun + ms(60_000));
    assert!((100.0..120.0).contains(&idle), "nobody asked for more: {idle}");
    table.now = begun + ms(60_000);
    let seconds = table.seconds(10);
    assert!(mean(&seconds[6..]) >= 0.85 * 1_500.0, "{seconds:?}");
    assert_eq!(table.pace.reason().0, RateReason::Refused);

    let now = Instant::now();
    let mut other = Pace::new(PaceOptions::default(), now);
    other.begin_at(Begin::PartOfShare(0.5), now);
    assert_eq!((other.rate(now), other.learned()), (100.0, None), "a part of no share is nothing");
    other.begin_at(Begin::Rate(700.0), now);
    assert_eq!((other.rate(now), other.reason().0), (700.0, RateReason::Told));
}

#[test]
fn an_index_that_doubles_what_items_take_is_learned() {
    let now = Instant::now();
    let mut pace = Pace::new(PaceOptions::default(), now);
    pace.set_share(firm(1_000.0), now);
    let (mut at, mut consumed) = (now, 0.0);
    while at < now + ms(20_000) {
        match pace.ready_at(10.0, at) {
            Some(ready) if ready <= at => {
                pace.charge(10.0, at);
                pace.consumed(10.0, 20.0, at);
                consumed += 20.0;
            }
            Some(ready) => at = ready,
            None => break,
        }
    }
    assert!((18_800.0..=20_200.0).contains(&consumed), "{consumed} in 20 seconds at 1,000");
}

proptest! {
    /// Whatever the sizes and the moments of requests: no second holds more than the share and one request.
    #[test]
    fn no_second_takes_more_than_the_share_and_a_request(
        requests in prop::collection::vec((1_u32..200, 0_u64..80), 1..300), share in 100.0_f64..5_000.0
    ) {
        let now = Instant::now();
        let mut pace = Pace::new(PaceOptions::default(), now);
        pace.set_share(firm(share), now);
        let (mut at, mut taken) = (now, Vec::new());
        for (units, idle) in requests {
            let units = f64::from(units);
            at += ms(idle);
            let ready = pace.ready_at(units, at).unwrap().max(at);
            at = ready;
            prop_assert_eq!(pace.ready_at(units, at), Some(at), "ready is ready");
            pace.charge(units, at);
            pace.consumed(units, units, at);
            taken.push((at, units));
        }
        for (index, (from, first)) in taken.iter().enumerate() {
            let within = taken[index..].iter().take_while(|(at, _)| *at < *from + ms(1_000));
            let sum: f64 = within.map(|(_, units)| units).sum();
            prop_assert!(sum <= share * 1.02 + first + 200.0, "{sum} in a second at {share}");
        }
    }
}
