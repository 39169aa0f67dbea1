//! What happened in each second, from what was counted and from the table's ledger. **Pure.**

use super::number;
use crate::measure::budget::Second;

/// What had happened by the end of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sample {
    /// Since the Unix epoch.
    pub second: u64,
    /// Events that were to be stored, since the start.
    pub offered: u64,
    /// Events that are stored.
    pub stored: u64,
    /// Events that there was no room for.
    pub dropped: u64,
    /// Age of the oldest event that waits, in seconds; 0 if none does.
    pub age: f64,
}

/// One second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Seconds since the first one.
    pub at: f64,
    /// Events that came.
    pub offered: u64,
    /// Events that became durable.
    pub stored: u64,
    /// Write units that the table accepted.
    pub accepted: f64,
    /// Write units that it refused.
    pub throttled: f64,
    /// Events that wait at its end.
    pub backlog: u64,
    /// Events dropped so far.
    pub dropped: u64,
    /// Age of the oldest one that waits at its end, in seconds.
    pub age: f64,
}

/// All seconds, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Course(pub Vec<Moment>);

impl Course {
    /// Puts the two accounts together; a second in which nobody counted is as the one before.
    pub(super) fn new(samples: &[Sample], seconds: &[Second]) -> Self {
        let mut before = Sample::default();
        let mut moments = Vec::new();
        for (at, second) in (0u32..).zip(seconds) {
            let counted = samples.iter().find(|sample| sample.second == second.second);
            let now = counted.copied().unwrap_or(before);
            moments.push(Moment {
                at: f64::from(at),
                offered: now.offered - before.offered,
                stored: now.stored.saturating_sub(before.stored),
                accepted: second.accepted,
                throttled: second.refused,
                backlog: (now.offered - now.dropped).saturating_sub(now.stored),
                dropped: now.dropped,
                age: now.age,
            });
            before = now;
        }
        Self(moments)
    }

    /// Events that were to be stored.
    pub fn offered(&self) -> u64 {
        self.0.iter().map(|moment| moment.offered).sum()
    }

    /// Write units that the table accepted.
    pub fn write_units(&self) -> f64 {
        self.0.iter().map(|moment| moment.accepted).sum()
    }

    /// Write units that it refused.
    pub fn throttled_units(&self) -> f64 {
        self.0.iter().map(|moment| moment.throttled).sum()
    }

    /// Most events that waited.
    pub fn max_backlog(&self) -> u64 {
        self.0.iter().map(|moment| moment.backlog).max().unwrap_or(0)
    }

    /// How old the oldest event became that waited.
    pub fn max_age(&self) -> f64 {
        self.0.iter().map(|moment| moment.age).fold(0.0, f64::max)
    }

    /// The second of the first event.
    pub fn begins(&self) -> f64 {
        self.0.iter().find(|moment| moment.offered > 0).map_or(0.0, |moment| moment.at)
    }

    /// The end of the second in which the last event was stored.
    pub fn drained_at(&self) -> f64 {
        self.0.iter().rev().find(|moment| moment.stored > 0).map_or(0.0, |moment| moment.at + 1.0)
    }

    /// A value of each second, as the mean of it and up to `over - 1` seconds before.
    pub fn means(&self, over: usize, of: impl Fn(&Moment) -> f64) -> Vec<(f64, f64)> {
        let values: Vec<f64> = self.0.iter().map(of).collect();
        let mean = |(at, moment): (usize, &Moment)| {
            let last = &values[(at + 1).saturating_sub(over)..=at];
            (moment.at + 1.0, last.iter().sum::<f64>() / number(last.len() as u64))
        };
        self.0.iter().enumerate().map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_are_put_together_by_the_second() {
        let sample = |second, offered, stored, dropped, age| Sample { second, offered, stored, dropped, age };
        let second = |second, accepted, refused| Second { second, accepted, refused, items: (0, 0) };
        let samples = [sample(100, 0, 0, 0, 0.0), sample(101, 50, 10, 5, 0.5), sample(103, 50, 45, 5, 0.0)];
        let seconds =
            [second(100, 0.0, 0.0), second(101, 10.0, 30.0), second(102, 20.0, 2.0), second(103, 15.0, 0.0)];
        let course = Course::new(&samples, &seconds);
        assert_eq!((course.offered(), course.write_units(), course.throttled_units()), (50, 45.0, 32.0));
        assert_eq!((course.begins(), course.drained_at()), (1.0, 4.0));
        assert_eq!((course.max_backlog(), course.max_age()), (35, 0.5));
        let backlog: Vec<u64> = course.0.iter().map(|moment| moment.backlog).collect();
        assert_eq!(backlog, [0, 35, 35, 0]);
        assert_eq!(
            course.means(2, |moment| number(moment.stored)),
            [(1.0, 0.0), (2.0, 5.0), (3.0, 5.0), (4.0, 17.5)]
        );
    }
}
