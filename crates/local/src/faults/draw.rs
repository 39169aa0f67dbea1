//! Random numbers that follow from a seed, a fault and how often it was asked: the same script, seed and requests give the
//! same faults. Pure.

use std::f64::consts::TAU;

/// A sequence of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draws(u64);

impl Draws {
    /// Those for the `nth` request that a fault is asked about.
    pub(crate) fn of(seed: u64, fault: u64, nth: u64) -> Self {
        Self(mix(mix(mix(seed).wrapping_add(fault)).wrapping_add(nth)))
    }

    /// From 0 to just below 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let high = u32::try_from(mix(self.0) >> 32).unwrap_or_default();
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }

    /// True in this share of draws.
    pub(crate) fn hits(&mut self, rate: f64) -> bool {
        self.fraction() < rate
    }

    /// Normally distributed, mean 0, deviation 1 (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.fraction(), self.fraction());
        (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
    }
}

/// 2^64 divided by the golden ratio, odd: successive sums are spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(nth: u64) -> f64 {
        Draws::of(7, 1, nth).fraction()
    }

    #[test]
    fn the_same_question_gives_the_same_numbers_and_another_gives_others() {
        assert_eq!(Draws::of(7, 1, 3), Draws::of(7, 1, 3));
        for other in [Draws::of(8, 1, 3), Draws::of(7, 2, 3), Draws::of(7, 1, 4)] {
            assert_ne!(other, Draws::of(7, 1, 3));
        }
    }

    #[test]
    fn numbers_are_spread_over_their_range() {
        let mean = (0..10_000).map(first).sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "{mean}");
        let hits: u32 = (0..10_000).map(|nth| u32::from(Draws::of(7, 1, nth).hits(0.02))).sum();
        assert!((150..250).contains(&hits), "{hits}");
        assert!(!Draws::of(7, 1, 1).hits(0.0) && Draws::of(7, 1, 1).hits(1.0));
    }

    #[test]
    fn a_normal_draw_has_its_mean_and_deviation() {
        let draws: Vec<f64> = (0..10_000).map(|nth| Draws::of(7, 1, nth).normal()).collect();
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 10_000.0;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
