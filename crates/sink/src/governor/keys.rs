//! The rate of each partition key. **Pure.** One key takes 1,000 units a second whatever the table has (DynamoDB developer
//! guide, partition throughput), and one that shares its partition with others takes less. A hot one must neither be
//! throttled for long nor slow the others down (law R7).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::pace::{Pace, PaceOptions, Share};

/// Part of a key's limit that is used.
const HEADROOM: f64 = 0.95;
/// A key that takes this part of its limit explains why it was throttled, where the answer does not.
const SUSPECT: f64 = 0.4;
/// For so long after an answer named its range, what is left over of a key is put down to its range.
const HOT_FOR: Duration = Duration::from_secs(10);
/// So many keys are remembered before those that were idle are forgotten, and for so long they must have been.
const MOST_KEYS: usize = 20_000;
const IDLE: Duration = Duration::from_secs(2);

/// The rates of the keys written to of late.
#[derive(Debug)]
pub struct Keys {
    options: PaceOptions,
    by_key: BTreeMap<String, Key>,
    forget_above: usize,
}

#[derive(Debug)]
struct Key {
    pace: Pace,
    used: Instant,
    /// Until when a refusal is its range's.
    hot_until: Option<Instant>,
}

impl Keys {
    /// No key is known.
    pub fn new(options: PaceOptions) -> Self {
        let options = PaceOptions { headroom: HEADROOM, ..options };
        Self { options, by_key: BTreeMap::new(), forget_above: MOST_KEYS }
    }

    /// When the last of these keys is free; `None` if all are now.
    pub fn free_at(&mut self, units: &[(String, f64)], now: Instant) -> Option<Instant> {
        let ready = units.iter().filter_map(|(key, units)| self.key_free_at(key, *units, now));
        ready.max()
    }

    /// When so many units of a key may go; `None` if now.
    pub fn key_free_at(&mut self, key: &str, units: f64, now: Instant) -> Option<Instant> {
        self.by_key.get_mut(key)?.pace.ready_at(units, now).filter(|at| *at > now)
    }

    /// Takes the tokens of an attempt.
    pub fn charge(&mut self, units: &[(String, f64)], now: Instant) {
        self.forget_idle(now);
        for (key, units) in units {
            if !self.by_key.contains_key(key) {
                let mut pace = Pace::new(self.options, now);
                pace.set_share(Some(Share { units: self.options.key_units, firm: true }), now);
                self.by_key.insert(key.clone(), Key { pace, used: now, hot_until: None });
            }
            if let Some(key) = self.by_key.get_mut(key) {
                key.pace.charge(*units, now);
                key.used = now;
            }
        }
    }

    /// Gives back what an attempt was charged that cost nothing.
    pub fn give_back(&mut self, units: &[(String, f64)], now: Instant) {
        for (key, units) in units {
            if let Some(key) = self.by_key.get_mut(key) {
                key.pace.give_back(*units, now);
            }
        }
    }

    /// Takes in what of an attempt was taken.
    pub fn consumed(&mut self, units: &[(String, f64)], now: Instant) {
        for (key, units) in units {
            if let Some(key) = self.by_key.get_mut(key) {
                key.pace.consumed(*units, *units, now);
            }
        }
    }

    /// Whether a refusal of this key is its range's: an answer named that of late, or it is written to at about its own limit.
    pub fn is_hot(&mut self, key: &str, now: Instant) -> bool {
        let suspect = self.options.key_units * SUSPECT;
        let named = |key: &Key| key.hot_until.is_some_and(|until| now < until);
        self.by_key.get_mut(key).is_some_and(|key| named(key) || key.pace.consumption(now) >= suspect)
    }

    /// The range of this key refused so many units of an attempt that was charged then; `named` if the answer said so.
    pub fn refused(&mut self, (key, units): (&str, f64), named: bool, charged: Instant, now: Instant) {
        if let Some(key) = self.by_key.get_mut(key) {
            key.pace.refused(units, charged, now);
            if named {
                key.hot_until = Some(now + HOT_FOR);
            }
        }
    }

    /// Keys whose ranges refuse, with the rate at which each is written to, the slowest first.
    pub fn hot(&mut self, most: usize, now: Instant) -> Vec<(String, f64)> {
        let hot = self.by_key.iter_mut().filter(|(_, key)| key.hot_until.is_some_and(|until| now < until));
        let mut hot: Vec<(String, f64)> = hot.map(|(name, key)| (name.clone(), key.pace.rate(now))).collect();
        hot.sort_by(|a, b| a.1.total_cmp(&b.1));
        hot.truncate(most);
        hot
    }

    /// Forgets keys that are idle, now and then: there may be as many as there are events.
    fn forget_idle(&mut self, now: Instant) {
        if self.by_key.len() > self.forget_above {
            self.by_key
                .retain(|_, key| now < key.used + IDLE || key.hot_until.is_some_and(|until| now < until));
            self.forget_above = (self.by_key.len() * 2).max(MOST_KEYS);
        }
    }
}
