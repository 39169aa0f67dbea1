//! How soon a table that gives again is used, whether every worker has its part of it, and how much was refused. **Pure.**
//!
//! Law R6: while there is work, no worker stays below half of an equal part of what the table gives, and no table that gives is
//! left unused, for longer than 10 s.

use super::super::budget::{Second, ratio_of};

/// Seconds over which a rate is taken.
pub const WINDOW: u32 = 3;
/// Seconds after which law R6 wants everything to be as it should, and over which a share is taken.
pub const WITHIN: u32 = 10;
/// The part of a rate that counts as the whole of it: a governor leaves a little unused.
pub const ENOUGH: f64 = 0.9;
/// The part of an equal part below which a worker starves.
const STARVING: f64 = 0.5;

/// What one worker has written by a moment, by its own count.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Written {
    /// Units that the table took.
    pub accepted: f64,
    /// Units a second that it wants to write.
    pub demand: f64,
}

/// All workers at a moment; one that does not answer yet has written nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Seconds since the Unix epoch.
    pub at: f64,
    /// In the same order in each sample.
    pub workers: Vec<Written>,
}

/// Seconds from `from` to the first [`WINDOW`] that takes [`ENOUGH`] of a rate; none if there is none.
pub fn seconds_to_enough(seconds: &[Second], from: u64, rate: f64) -> Option<u64> {
    let enough = |window: &&[Second]| mean(window) >= ENOUGH * rate;
    let window = seconds.windows(WINDOW as usize).filter(|window| window[0].second >= from).find(enough)?;
    Some(window[0].second - from)
}

/// Units a second that the table took.
pub fn mean(seconds: &[Second]) -> f64 {
    ratio_of(seconds.iter().map(|second| second.accepted).sum(), seconds.len())
}

/// The part of all attempted units that the table refused.
pub fn refused_part(seconds: &[Second]) -> f64 {
    let refused: f64 = seconds.iter().map(|second| second.refused).sum();
    let accepted: f64 = seconds.iter().map(|second| second.accepted).sum();
    if refused == 0.0 { 0.0 } else { refused / (accepted + refused) }
}

/// The seconds of a span.
pub fn between(seconds: &[Second], from: u64, before: u64) -> Vec<Second> {
    seconds.iter().filter(|second| (from..before).contains(&second.second)).copied().collect()
}

/// The least part of `equal_part` that a worker wrote in a window of [`WITHIN`] in which it always had work; none if there is
/// no such window.
pub fn worst_share(samples: &[Sample], from: f64, equal_part: f64) -> Option<f64> {
    let rates = rates(samples, from, f64::from(WITHIN)).into_iter().flatten();
    rates.filter(|rate| rate.had_work(equal_part)).map(|rate| rate.units / equal_part).min_by(f64::total_cmp)
}

/// The longest time for which a worker wrote less than half of `equal_part` in every [`WINDOW`], although it had work.
pub fn longest_starved(samples: &[Sample], from: f64, equal_part: f64) -> f64 {
    let rates = rates(samples, from, f64::from(WINDOW));
    let workers = rates.first().map_or(0, Vec::len);
    let of_worker = |worker: usize| {
        let (mut since, mut longest) = (None, 0.0_f64);
        for rate in rates.iter().map(|rates| rates[worker]) {
            let starves = rate.had_work(equal_part) && rate.units < STARVING * equal_part;
            since = since.or(Some(rate.from)).filter(|_| starves);
            // The first and the last of these windows hold no more than a second of it.
            longest = longest.max(since.map_or(0.0, |since| rate.until - since - f64::from(WINDOW - 1)));
        }
        longest
    };
    (0..workers).map(of_worker).fold(0.0, f64::max)
}

/// What a worker wrote in a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// When the window begins and ends, in seconds since the Unix epoch.
    pub from: f64,
    /// See `from`.
    pub until: f64,
    /// Units a second.
    pub units: f64,
    /// The least that it wanted to write meanwhile, units a second.
    least_demand: f64,
}

impl Rate {
    fn had_work(&self, equal_part: f64) -> bool {
        self.least_demand >= STARVING * equal_part
    }
}

/// By window, one from each sample on, and by worker.
pub fn rates(samples: &[Sample], from: f64, lasts: f64) -> Vec<Vec<Rate>> {
    let later = samples.iter().enumerate().filter(|(_, sample)| sample.at >= from);
    let window = |(at, first): (usize, &Sample)| {
        let length = samples[at..].iter().position(|sample| sample.at - first.at >= lasts)?;
        let window = &samples[at..=at + length];
        let last = window.last()?;
        let rate = |worker: usize| Rate {
            from: first.at,
            until: last.at,
            units: (last.workers[worker].accepted - first.workers[worker].accepted) / (last.at - first.at),
            least_demand: window
                .iter()
                .map(|sample| sample.workers[worker].demand)
                .fold(f64::INFINITY, f64::min),
        };
        Some((0..first.workers.len()).map(rate).collect())
    };
    later.filter_map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64, accepted: f64, refused: f64) -> Second {
        Second { second, accepted, refused, items: (0, 0) }
    }

    /// A sample a second of workers that write so many units in each.
    fn samples(by_second: &[&[f64]]) -> Vec<Sample> {
        let mut accepted = vec![0.0; by_second[0].len()];
        let mut samples = Vec::new();
        for (at, units) in (100_u32..).zip(by_second) {
            let worker = |accepted: &f64| Written { accepted: *accepted, demand: 1_000.0 };
            samples.push(Sample { at: f64::from(at), workers: accepted.iter().map(worker).collect() });
            for (sum, units) in accepted.iter_mut().zip(*units) {
                *sum += units;
            }
        }
        samples
    }

    #[test]
    fn enough_is_nine_tenths_over_three_seconds() {
        let course = [0.0, 0.0, 100.0, 80.0, 90.0, 100.0, 100.0];
        let seconds: Vec<Second> =
            (10..).zip(course).map(|(at, accepted)| second(at, accepted, 0.0)).collect();
        assert_eq!(seconds_to_enough(&seconds, 10, 100.0), Some(2));
        assert_eq!(seconds_to_enough(&seconds, 13, 100.0), Some(0));
        assert_eq!(seconds_to_enough(&seconds, 10, 120.0), None);
        assert_eq!(seconds_to_enough(&seconds[..2], 10, 1.0), None, "too short");
        assert_eq!(mean(&between(&seconds, 12, 14)), 90.0);
    }

    #[test]
    fn the_refused_part_is_of_all_that_was_attempted() {
        assert_eq!(refused_part(&[second(1, 80.0, 0.0), second(2, 0.0, 20.0)]), 0.2);
        assert_eq!(refused_part(&[]), 0.0);
    }

    #[test]
    fn a_share_is_that_of_the_worker_with_the_least_in_ten_seconds() {
        let mut course = vec![[100.0, 100.0]; 25];
        for starved in &mut course[3..9] {
            starved[1] = 0.0;
        }
        let course: Vec<&[f64]> = course.iter().map(<[f64; 2]>::as_slice).collect();
        let samples = samples(&course);
        assert_eq!(worst_share(&samples, 0.0, 100.0), Some(0.4));
        assert_eq!(worst_share(&samples, 106.0, 100.0), Some(0.7));
        assert_eq!(worst_share(&samples, 120.0, 100.0), None, "no window is so late");
        assert_eq!(longest_starved(&samples, 0.0, 100.0), 6.0);
        assert_eq!(longest_starved(&samples, 109.0, 100.0), 0.0);
    }

    #[test]
    fn a_worker_without_work_does_not_starve() {
        let mut samples = samples(&[[0.0].as_slice(); 20]);
        samples[15].workers[0].demand = 0.0;
        assert_eq!(worst_share(&samples, 110.0, 100.0), None);
        assert_eq!(worst_share(&samples, 100.0, 100.0), Some(0.0));
        assert_eq!(longest_starved(&samples, 100.0, 100.0), 12.0);
    }

    #[test]
    fn rates_are_taken_over_whole_windows() {
        let rates = rates(&samples(&[&[30.0], &[30.0], &[60.0], &[0.0], &[0.0]]), 101.0, 3.0);
        assert_eq!(rates.iter().map(|rates| rates[0].units).collect::<Vec<_>>(), [30.0]);
        assert_eq!((rates[0][0].from, rates[0][0].until), (101.0, 104.0));
    }
}
