//! Percentiles of measured times, exact (nearest rank), and how they are spread (pure).

use std::fmt::Write;

/// Measured times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    sorted: Vec<i64>,
}

/// Rows of a histogram.
const ROWS: i64 = 12;
/// Characters of its longest bar.
const BAR: usize = 50;

impl Distribution {
    /// Of these times.
    pub fn new(mut times: Vec<i64>) -> Self {
        times.sort_unstable();
        Self { sorted: times }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The smallest time that at least so many percent do not exceed; 0 of nothing.
    pub fn percentile(&self, percent: usize) -> i64 {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).copied().unwrap_or(0)
    }

    /// The longest; 0 of nothing.
    pub fn max(&self) -> i64 {
        self.sorted.last().copied().unwrap_or(0)
    }

    /// A text histogram with rows of equal width.
    pub fn histogram(&self) -> String {
        let (Some(min), Some(max)) = (self.sorted.first(), self.sorted.last()) else { return String::new() };
        let width = nice((max - min) / ROWS + 1);
        let (mut text, mut from) = (String::new(), min / width * width);
        let count = |from: i64| self.sorted.iter().filter(|at| (from..from + width).contains(at)).count();
        let rows = (max - from) / width;
        let most = (0..=rows).map(|row| count(from + row * width)).max().unwrap_or(1).max(1);
        while from <= *max {
            let here = count(from);
            let bar = "#".repeat((here * BAR).div_ceil(most));
            // Writing to a string cannot fail.
            writeln!(text, "{from:>7} to {:>6} ms  {here:>4}  {bar}", from + width).unwrap_or(());
            from += width;
        }
        text
    }
}

/// The next width of 1, 2 or 5 times a power of ten.
fn nice(width: i64) -> i64 {
    let mut power = 1;
    loop {
        for step in [1, 2, 5] {
            if step * power >= width {
                return step * power;
            }
        }
        power *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_at_their_nearest_rank() {
        let hundred = Distribution::new((1..=100).rev().collect());
        assert_eq!([50, 99, 100].map(|percent| hundred.percentile(percent)), [50, 99, 100]);
        let few = Distribution::new(vec![30, 10, 20]);
        assert_eq!((few.percentile(50), few.percentile(99), few.max()), (20, 30, 30));
        assert_eq!(Distribution::default().percentile(99), 0);
    }

    #[test]
    fn the_histogram_counts_every_sample_once() {
        let times = Distribution::new(vec![101, 102, 180, 999]);
        let counts: usize = times
            .histogram()
            .lines()
            .map(|line| line.split_whitespace().nth(4).unwrap().parse::<usize>().unwrap())
            .sum();
        assert_eq!(counts, 4);
    }
}
