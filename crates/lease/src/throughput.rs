//! How much a shard carries: smoothed, and recorded in steps, so that a plan which weighs does not follow noise.
//!
//! The number is KCL's `throughputKBps`: kilobytes (of 1,024 bytes) a second with six decimals. It is written with
//! whatever a session writes to its row anyway, so the row of a shard that has fallen quiet keeps the last one until
//! its next write.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

/// Payload that a shard carries, in millionths of a kilobyte a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Throughput(u64);

/// Millionths of a kilobyte.
const MICROS: u64 = 1_000_000;
/// More than any shard carries; keeps sums of many far from overflow.
const MOST_KILOBYTES: u64 = 1_000_000_000;

impl Throughput {
    /// So many kilobytes a second.
    pub const fn from_kilobytes(kilobytes: u64) -> Self {
        Self(if kilobytes < MOST_KILOBYTES { kilobytes } else { MOST_KILOBYTES } * MICROS)
    }

    /// So many bytes a second.
    fn from_bytes(bytes: f64) -> Self {
        Self::from_kilobytes_f64(bytes / 1_024.0)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped to a range in which both conversions are exact"
    )]
    fn from_kilobytes_f64(kilobytes: f64) -> Self {
        Self((kilobytes.clamp(0.0, MOST_KILOBYTES as f64) * MICROS as f64).round() as u64)
    }

    /// In millionths of a kilobyte a second.
    pub fn micros(self) -> u64 {
        self.0
    }

    /// What a row should say, given what it says: the same, while what was measured is within a quarter of it, or a
    /// kilobyte. So a number that only wavers never changes.
    pub fn recorded(before: Option<Self>, measured: Self) -> Self {
        match before {
            Some(before) if before.0.abs_diff(measured.0) <= (before.0 / 4).max(MICROS) => before,
            Some(_) | None => measured,
        }
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / MICROS, self.0 % MICROS)
    }
}

/// Not a number of kilobytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no number of kilobytes a second")]
pub struct InvalidThroughput;

impl FromStr for Throughput {
    type Err = InvalidThroughput;

    /// Reads what DynamoDB returns for a number, exponents included.
    fn from_str(text: &str) -> Result<Self, InvalidThroughput> {
        let kilobytes: f64 = text.parse().map_err(|_no_number| InvalidThroughput)?;
        let valid = kilobytes.is_finite() && kilobytes >= 0.0;
        valid.then(|| Self::from_kilobytes_f64(kilobytes)).ok_or(InvalidThroughput)
    }
}

/// After so long a change of the throughput shows by about two thirds.
const SMOOTHED_OVER: Duration = Duration::from_secs(60);
/// What is measured over less than this says little.
const MEASURED_FOR: Duration = Duration::from_secs(30);

/// Measures the throughput of one shard: an exponential moving average over what has been read.
#[derive(Debug, Clone)]
pub struct ThroughputMeter {
    since: Instant,
    /// Up to when `average` counts.
    until: Instant,
    /// Bytes a second, falling off with [`SMOOTHED_OVER`].
    average: f64,
    /// How much of `average` has been measured; the rest is the zero that it began with.
    measured: f64,
    /// Bytes since `until`.
    bytes: f64,
}

impl ThroughputMeter {
    /// Nothing measured yet.
    pub fn new(now: Instant) -> Self {
        Self { since: now, until: now, average: 0.0, measured: 0.0, bytes: 0.0 }
    }

    /// So many bytes were read.
    #[expect(clippy::cast_precision_loss, reason = "a page is far below 2^53 bytes")]
    pub fn read(&mut self, bytes: usize) {
        self.bytes += bytes as f64;
    }

    /// What was measured, once that says something.
    pub fn throughput(&mut self, now: Instant) -> Option<Throughput> {
        let passed = now.saturating_duration_since(self.until).as_secs_f64();
        if passed > 0.0 {
            let kept = (-passed / SMOOTHED_OVER.as_secs_f64()).exp();
            self.average = self.average * kept + self.bytes / passed * (1.0 - kept);
            self.measured = self.measured * kept + (1.0 - kept);
            (self.until, self.bytes) = (now, 0.0);
        }
        let enough = now.saturating_duration_since(self.since) >= MEASURED_FOR;
        enough.then(|| Throughput::from_bytes(self.average / self.measured))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_reads_back_exactly(micros in 0..=MOST_KILOBYTES * MICROS) {
            let throughput = Throughput(micros);
            prop_assert_eq!(throughput.to_string().parse(), Ok(throughput));
            let trimmed = throughput.to_string().trim_end_matches('0').trim_end_matches('.').to_owned();
            prop_assert_eq!(trimmed.parse(), Ok(throughput), "as DynamoDB returns it");
        }

        /// Noise of a fifth around a level never changes what is recorded of it.
        #[test]
        fn noise_is_not_recorded(level in 1u64..1_000_000, noise in proptest::collection::vec(90u64..=110, 1..50)) {
            let first = Throughput(level * 100);
            let mut recorded = first;
            for percent in noise {
                recorded = Throughput::recorded(Some(recorded), Throughput(level * percent));
            }
            prop_assert_eq!(recorded, first);
        }
    }

    #[test]
    fn numbers_of_kcl_are_read_and_nonsense_is_not() {
        assert_eq!("1.5E-2".parse(), Ok(Throughput(15_000)));
        assert_eq!("12".parse(), Ok(Throughput::from_kilobytes(12)));
        for nonsense in ["-1", "NaN", "inf", "many", ""] {
            assert_eq!(nonsense.parse::<Throughput>(), Err(InvalidThroughput), "{nonsense}");
        }
    }

    #[test]
    fn a_change_is_recorded_when_it_is_more_than_a_quarter() {
        let kb = Throughput::from_kilobytes;
        assert_eq!(Throughput::recorded(None, kb(7)), kb(7));
        assert_eq!(Throughput::recorded(Some(kb(100)), kb(125)), kb(100));
        assert_eq!(Throughput::recorded(Some(kb(100)), kb(126)), kb(126));
        assert_eq!(Throughput::recorded(Some(kb(100)), kb(74)), kb(74));
        assert_eq!(Throughput::recorded(Some(kb(0)), kb(1)), kb(0));
        assert_eq!(Throughput::recorded(Some(kb(0)), kb(2)), kb(2));
    }

    #[test]
    fn the_meter_says_nothing_at_first_then_the_rate_and_follows_a_change_slowly() {
        let start = Instant::now();
        let mut meter = ThroughputMeter::new(start);
        let second = |n: u64| start + Duration::from_secs(n);
        for n in 1..=120 {
            meter.read(1 << 20);
            let throughput = meter.throughput(second(n));
            let expected = (n >= 30).then_some(1_024);
            assert_eq!(throughput.map(|it| (it.micros() + MICROS / 2) / MICROS), expected, "after {n} s");
        }
        let after = meter.throughput(second(180)).unwrap().micros() / MICROS;
        assert!((300..450).contains(&after), "a minute without records: {after}");
    }
}
