//! Which items the simulated table takes at a moment: it gives so many write units a second, and one range of its
//! partition keys gives less. **Pure.**
//!
//! Each limit is a token bucket that holds one second. An item larger than that is taken from a full bucket and leaves it
//! in debt, so that it does not wait indefinitely.

use std::time::Duration;

/// What a table gives, before the script changes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Write units a second of the whole table.
    pub table: f64,
    /// Units that it takes for each unit of an item: indexes take theirs.
    pub toll: f64,
    /// The range of partition keys that gives less than the table.
    pub hot: Option<HotRange>,
}

/// A partition whose keys share a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HotRange {
    /// Over so many ranges the partition keys are spread.
    pub of: u64,
    /// Which of them it is.
    pub index: u64,
    /// Write units a second.
    pub units: f64,
}

impl HotRange {
    /// The range of a partition key.
    pub fn range_of(key: &str, of: u64) -> u64 {
        let mix = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let sum = key.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        (sum ^ (sum >> 32)) % of
    }

    /// Whether a partition key lies in it.
    pub fn holds(&self, key: &str) -> bool {
        Self::range_of(key, self.of) == self.index
    }
}

/// What the script makes of a capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// So many hundredths of what was drawn.
    Percent(u32),
    /// One unit a second.
    OneUnit,
}

/// Why an item is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The table has nothing left.
    Table,
    /// The range of its key has nothing left.
    KeyRange,
    /// Neither has.
    Both,
}

impl Over {
    /// The reason of two refusals.
    pub fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }
}

/// A table that gives, and how far it is used up.
#[derive(Debug)]
pub struct Limited {
    capacity: Capacity,
    table: Bucket,
    hot: Option<Bucket>,
}

impl Limited {
    /// Nothing is used.
    pub fn new(capacity: Capacity) -> Self {
        let hot = capacity.hot.map(|hot| Bucket::full(hot.units));
        Self { capacity, table: Bucket::full(capacity.table), hot }
    }

    /// Changes what the table gives. A new capacity begins without debt.
    pub fn set(&mut self, gives: Gives, now: Duration) {
        let rate = match gives {
            Gives::Percent(part) => self.capacity.table * f64::from(part) / 100.0,
            Gives::OneUnit => 1.0,
        };
        self.table.refill(now);
        self.table.rate = rate;
        self.table.tokens = self.table.tokens.clamp(0.0, rate);
    }

    /// What the table gives now, in units a second.
    pub fn gives(&self) -> f64 {
        self.table.rate
    }

    /// Whether a partition key lies in the range that gives less.
    pub fn is_hot(&self, key: &str) -> bool {
        self.capacity.hot.is_some_and(|hot| hot.holds(key))
    }

    /// Whether it has such a range.
    pub fn has_hot_range(&self) -> bool {
        self.capacity.hot.is_some()
    }

    /// What an item of so many units takes.
    pub fn cost(&self, units: f64) -> f64 {
        units * self.capacity.toll
    }

    /// Takes what an item costs, from the table and from the range of its key, or from neither.
    ///
    /// # Errors
    /// What has nothing left.
    pub fn take(&mut self, key: &str, cost: f64, now: Duration) -> Result<(), Over> {
        let mut hot = self.hot.as_mut().filter(|_| self.capacity.hot.is_some_and(|hot| hot.holds(key)));
        let table_has = self.table.has(cost, now);
        let range_has = hot.as_mut().is_none_or(|hot| hot.has(cost, now));
        match (table_has, range_has) {
            (true, true) => {
                self.table.tokens -= cost;
                if let Some(hot) = hot {
                    hot.tokens -= cost;
                }
                Ok(())
            }
            (false, true) => Err(Over::Table),
            (true, false) => Err(Over::KeyRange),
            (false, false) => Err(Over::Both),
        }
    }
}

/// Holds what one second brings.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    /// Below zero: in debt.
    tokens: f64,
    as_of: Duration,
}

impl Bucket {
    fn full(rate: f64) -> Self {
        Self { rate, tokens: rate, as_of: Duration::ZERO }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.as_of).as_secs_f64();
        self.tokens = (self.tokens + self.rate * passed).min(self.rate);
        self.as_of = self.as_of.max(now);
    }

    fn has(&mut self, cost: f64, now: Duration) -> bool {
        self.refill(now);
        // A hair's breadth is rounding.
        self.tokens + 1e-9 >= cost.min(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(table: f64, hot_units: f64) -> Limited {
        let hot = HotRange { of: 2, index: HotRange::range_of("hot", 2), units: hot_units };
        Limited::new(Capacity { table, toll: 1.0, hot: Some(hot) })
    }

    /// A key outside of the hot range.
    fn cold() -> String {
        let hot = HotRange::range_of("hot", 2);
        (0..).map(|n| format!("cold-{n}")).find(|key| HotRange::range_of(key, 2) != hot).unwrap()
    }

    #[test]
    fn a_second_is_held_and_no_more() {
        let (mut table, key) = (limited(10.0, 10.0), cold());
        let at = Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| table.take(&key, 1.0, at).is_ok()).count(), 10);
        assert_eq!(table.take(&key, 1.0, at), Err(Over::Table));
        assert_eq!(table.take(&key, 1.0, at + Duration::from_millis(100)), Ok(()));
    }

    #[test]
    fn a_hot_range_takes_nothing_from_the_table_when_it_refuses() {
        let (mut table, key) = (limited(10.0, 2.0), cold());
        let at = Duration::ZERO;
        assert_eq!([(); 3].map(|()| table.take("hot", 1.0, at)), [Ok(()), Ok(()), Err(Over::KeyRange)]);
        assert_eq!((0..20).filter(|_| table.take(&key, 1.0, at).is_ok()).count(), 8);
        assert_eq!(table.take("hot", 1.0, at), Err(Over::Both));
    }

    #[test]
    fn a_large_item_is_taken_from_a_full_bucket_and_paid_for_afterwards() {
        let (mut table, key) = (limited(2.0, 2.0), cold());
        assert_eq!(table.take(&key, 10.0, Duration::ZERO), Ok(()));
        assert_eq!(table.take(&key, 1.0, Duration::from_secs(4)), Err(Over::Table));
        assert_eq!(table.take(&key, 1.0, Duration::from_millis(4_500)), Ok(()));
    }

    #[test]
    fn a_new_capacity_begins_without_debt() {
        let (mut table, key) = (limited(100.0, 2.0), cold());
        table.set(Gives::OneUnit, Duration::ZERO);
        assert_eq!(table.take(&key, 50.0, Duration::from_secs(1)), Ok(()));
        table.set(Gives::Percent(25), Duration::from_secs(1));
        assert_eq!(table.gives(), 25.0);
        assert_eq!(table.take(&key, 25.0, Duration::from_secs(2)), Ok(()));
    }
}
