//! The rate of each partition key. **Pure.** One key takes 1,000 units a second whatever the table has (DynamoDB developer
//! guide, partition throughput); a hot one must neither be throttled nor slow the others down.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::pace::{Pace, PaceOptions};

/// Part of a key's limit that is used.
const HEADROOM: f64 = 0.95;
/// A key that takes this part of its limit explains why it was throttled.
const SUSPECT: f64 = 0.4;
/// So many keys are remembered before those that were idle are forgotten, and for so long they must have been.
const MOST_KEYS: usize = 20_000;
const IDLE: Duration = Duration::from_secs(2);

/// The rates of the keys written to of late.
#[derive(Debug)]
pub struct Keys {
    options: PaceOptions,
    by_key: BTreeMap<String, (Pace, Instant)>,
}

impl Keys {
    /// No key is known.
    pub fn new(options: PaceOptions) -> Self {
        Self { options: PaceOptions { headroom: HEADROOM, ..options }, by_key: BTreeMap::new() }
    }

    /// When the last of these keys is free; `None` if all are now.
    pub fn free_at(&mut self, units: &[(String, f64)], now: Instant) -> Option<Instant> {
        let ready = units.iter().filter_map(|(key, units)| {
            let (pace, _) = self.by_key.get_mut(key)?;
            pace.ready_at(*units, now)
        });
        ready.max().filter(|at| *at > now)
    }

    /// Takes the tokens of an attempt.
    pub fn charge(&mut self, units: &[(String, f64)], now: Instant) {
        if self.by_key.len() > MOST_KEYS {
            self.by_key.retain(|_key, (_pace, used)| now < *used + IDLE);
        }
        for (key, units) in units {
            if !self.by_key.contains_key(key) {
                let mut pace = Pace::new(self.options, now);
                pace.set_share(Some(self.options.key_units), now);
                self.by_key.insert(key.clone(), (pace, now));
            }
            if let Some((pace, used)) = self.by_key.get_mut(key) {
                pace.charge(*units, now);
                *used = now;
            }
        }
    }

    /// Gives back what an attempt was charged that cost nothing.
    pub fn give_back(&mut self, units: &[(String, f64)], now: Instant) {
        for (key, units) in units {
            if let Some((pace, _)) = self.by_key.get_mut(key) {
                pace.give_back(*units, now);
            }
        }
    }

    /// Takes in that this part of an attempt was taken.
    pub fn consumed(&mut self, units: &[(String, f64)], part: f64, now: Instant) {
        for (key, units) in units {
            if let Some((pace, _)) = self.by_key.get_mut(key) {
                pace.consumed(units * part, units * part, now);
            }
        }
    }

    /// Whether one of these keys is so hot that a refusal is about it and not about the table; its rate falls then.
    pub fn explain(&mut self, units: &[(String, f64)], now: Instant) -> bool {
        let suspect = self.options.key_units * SUSPECT;
        let mut explained = false;
        for (key, _) in units {
            if let Some((pace, _)) = self.by_key.get_mut(key)
                && pace.consumption(now) >= suspect
            {
                pace.throttled(now);
                explained = true;
            }
        }
        explained
    }
}
