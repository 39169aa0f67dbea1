//! Events to publish, and what was published against what was read.

use std::collections::BTreeMap;

use anyhow::bail;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How many customers there are: as many aggregate keys under `{/customer}`.
pub const CUSTOMERS: u32 = 30;

/// So many events of 500 to 600 bytes with 30 fields each, the same ones for the same seed. Every tenth line
/// repeats the one before it.
pub fn flights(seed: u64, count: usize) -> Vec<String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut lines: Vec<String> = Vec::with_capacity(count);
    for n in 0..count {
        let line = match lines.last() {
            Some(last) if n % 10 == 9 => last.clone(),
            Some(_) | None => event(&mut rng, seed, n),
        };
        lines.push(line);
    }
    lines
}

fn event(rng: &mut SmallRng, seed: u64, n: usize) -> String {
    let customer = rng.random_range(0..CUSTOMERS);
    let mut line = format!("{{\"customer\":\"c-{customer:02}\",\"number\":{n},\"run\":{seed}");
    for field in 0..27 {
        match field % 3 {
            0 => line.push_str(&format!(",\"minutes_{field:02}\":{}", rng.random_range(-90..900))),
            1 => line.push_str(&format!(",\"place_{field:02}\":\"Pläce {:04}\"", rng.random_range(0..99))),
            _ => line.push_str(&format!(",\"share_{field:02}\":{:.6}", rng.random::<f64>())),
        }
    }
    line.push('}');
    line
}

/// How often each line is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Multiset(BTreeMap<Vec<u8>, u64>);

impl Multiset {
    /// Adds a line.
    pub fn add(&mut self, line: impl Into<Vec<u8>>) {
        *self.0.entry(line.into()).or_default() += 1;
    }

    /// All lines, repeated ones counted.
    pub fn len(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many lines of this are missing in `other`.
    pub fn missing_in(&self, other: &Self) -> u64 {
        let there = |line| other.0.get(line).copied().unwrap_or(0);
        self.0.iter().map(|(line, count)| count.saturating_sub(there(line))).sum()
    }

    /// That `read` holds exactly these lines.
    ///
    /// # Errors
    /// How many are lost and how many are there too often, with one of each.
    pub fn equals(&self, read: &Self) -> anyhow::Result<()> {
        let (lost, duplicated) = (self.missing_in(read), read.missing_in(self));
        if lost == 0 && duplicated == 0 {
            return Ok(());
        }
        let differs = |(line, _): &(&Vec<u8>, &u64)| self.0.get(*line) != read.0.get(*line);
        let example =
            self.0.iter().chain(&read.0).find(differs).map(|(line, _)| String::from_utf8_lossy(line));
        bail!(
            "{lost} lines are lost and {duplicated} are too many, of {} published; one is {}",
            self.len(),
            example.unwrap_or_default()
        )
    }
}

impl<L: Into<Vec<u8>>> FromIterator<L> for Multiset {
    fn from_iter<I: IntoIterator<Item = L>>(lines: I) -> Self {
        let mut set = Self::default();
        lines.into_iter().for_each(|line| set.add(line));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_valid_and_some_of_them_are_repeated() {
        let lines = flights(7, 100);
        assert_eq!(lines, flights(7, 100));
        for line in &lines {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event.as_object().unwrap().len(), 30);
        }
        assert_eq!(lines[8], lines[9]);
        assert!(lines.iter().map(String::len).sum::<usize>() > 50_000);
    }

    #[test]
    fn a_lost_line_and_one_too_many_are_told_apart() {
        let published = Multiset::from_iter(["a", "b", "b"]);
        assert!(published.equals(&Multiset::from_iter(["b", "a", "b"])).is_ok());
        let error = published.equals(&Multiset::from_iter(["a", "a", "b"])).unwrap_err().to_string();
        assert!(error.contains("1 lines are lost and 1 are too many, of 3"), "{error}");
    }
}
