//! The rate, as a function of what was asked, what was taken and the time. **Pure**: time comes in as an argument.
//!
//! ```text
//!  share ------------------------------------------------------------- x headroom: never above
//!   ______   throttled: at once to what was accepted             ___/ faster and faster: the table
//!         |                                              ______/      gives more than it did
//!         |        ______/|                ______/
//!         |_______/       |_______________/  slowly around what it accepted when it last throttled
//! ```
//! Tokens may go into debt by one request, so that an item larger than what has gathered is written all the same, and the
//! next one waits the longer.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Time in which what waits should be written: what a worker asks of the fleet's budget.
pub const CLEARED_WITHIN: Duration = Duration::from_secs(2);
/// Consumption is counted in slots of this length.
const SLOT: Duration = Duration::from_millis(100);
/// Over so many slots.
const SLOTS: usize = 10;
/// Tokens gather for so long, and requests are no larger: small beside the second in which a table counts.
const DEPTH_SECONDS: f64 = 0.02;
/// A throttled rate falls to this part of what was accepted of late...
const FALL: f64 = 0.97;
/// ...but to no less than this part of what it was: what is accepted while it climbs, or begins, says too little.
const STEEPEST: f64 = 0.7;
/// Then it rises slowly, by this part of what was accepted each second...
const SLOW: f64 = 0.004;
/// ...up to this part of it; beyond that the table gives more than it did...
const PLATEAU: f64 = 1.02;
/// ...and each second beyond adds this part of the share to what the rate gains in a second.
const FASTER: f64 = 0.01;
/// Falls come no closer: answers that are on their way tell of the rate before the last one.
const FALLS_APART: Duration = Duration::from_millis(250);
/// Lowest rate, in units per second: one small item, so that it is noticed when the table takes writes again.
const LEAST: f64 = 1.0;

/// Where a rate begins that was learned elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Begin {
    /// At this part of the share, if there is one.
    PartOfShare(f64),
    /// At so many units per second, if there is no share.
    Rate(f64),
}

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceOptions {
    /// Part of the share that is used: the rest is for the unevenness of many workers in one second.
    pub headroom: f64,
    /// Most units per second of one partition key (DynamoDB: 1,000).
    pub key_units: f64,
}

impl Default for PaceOptions {
    fn default() -> Self {
        Self { headroom: 0.985, key_units: 1_000.0 }
    }
}

/// The rate of one worker.
#[derive(Debug, Clone)]
pub struct Pace {
    options: PaceOptions,
    share: Option<f64>,
    /// Units per second; infinite where nothing limits it.
    rate: f64,
    /// What the table accepted when it last throttled; forgotten when it takes more.
    ceiling: Option<f64>,
    /// Seconds since it rose above that.
    beyond: f64,
    tokens: f64,
    as_of: Instant,
    last_fall: Option<Instant>,
    /// Consumed units in slots, the newest last.
    slots: VecDeque<f64>,
    slot_begun: Instant,
    /// Consumed units for each estimated one.
    scale: f64,
}

impl Pace {
    /// Without a share, and nothing learned.
    pub fn new(options: PaceOptions, now: Instant) -> Self {
        Self {
            options,
            share: None,
            rate: f64::INFINITY,
            ceiling: None,
            beyond: 0.0,
            tokens: 0.0,
            as_of: now,
            last_fall: None,
            slots: VecDeque::from([0.0]),
            slot_begun: now,
            scale: 1.0,
        }
    }

    /// Another share. What was learned of the table goes along: a rate that was a part of the old share is the same part of
    /// the new one.
    pub fn set_share(&mut self, share: Option<f64>, now: Instant) {
        self.refill(now);
        let limits = (self.limit(), limit_of(share, self.options.headroom));
        let part = match limits {
            // From nothing and to nothing, it stays as it was.
            (before, after) if before > 0.0 && before.is_finite() && after > 0.0 && after.is_finite() => {
                after / before
            }
            _ => 1.0,
        };
        self.share = share;
        self.ceiling = self.ceiling.map(|ceiling| ceiling * part);
        let learned = self.ceiling.map_or(f64::INFINITY, |ceiling| (self.rate * part).max(ceiling * FALL));
        self.rate = learned.min(self.limit());
        self.tokens = self.tokens.min(self.depth());
    }

    /// Begins at what was learned elsewhere. Does nothing once something was learned here.
    pub fn begin_at(&mut self, begin: Begin, now: Instant) {
        self.refill(now);
        if self.ceiling.is_some() || self.last_fall.is_some() {
            return;
        }
        let learned = match (begin, self.limit().is_finite()) {
            (Begin::PartOfShare(part), true) if part < 1.0 && self.limit() > 0.0 => {
                (self.limit() * part).max(LEAST)
            }
            (Begin::Rate(rate), false) => rate.max(LEAST),
            (Begin::PartOfShare(_) | Begin::Rate(_), _) => return,
        };
        self.ceiling = Some(learned);
        self.rate = learned;
    }

    /// Units per second now.
    pub fn rate(&mut self, now: Instant) -> f64 {
        self.refill(now);
        self.rate
    }

    /// The part of the share that the table accepts.
    pub fn learned_part(&self) -> f64 {
        let limit = self.limit();
        if self.ceiling.is_none() || limit <= 0.0 || !limit.is_finite() {
            return 1.0;
        }
        (self.rate / limit).min(1.0)
    }

    /// Units consumed per second of late.
    pub fn consumption(&mut self, now: Instant) -> f64 {
        self.turn_slots(now);
        let whole = SLOT * u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX);
        let seen = whole + now.saturating_duration_since(self.slot_begun);
        self.slots.iter().sum::<f64>() / seen.max(SLOT).as_secs_f64()
    }

    /// Most estimated units for one request.
    pub fn request_units(&mut self, now: Instant) -> Option<f64> {
        self.refill(now);
        self.rate.is_finite().then(|| (self.depth() / self.scale).max(1.0))
    }

    /// When a request of so many estimated units may go; `None` if not before the rate changes.
    pub fn ready_at(&mut self, units: f64, now: Instant) -> Option<Instant> {
        self.refill(now);
        if self.rate.is_infinite() {
            return Some(now);
        }
        if self.rate <= 0.0 {
            return None;
        }
        let missing = (units * self.scale).min(self.depth()) - self.tokens;
        // A hair's breadth is rounding.
        if missing <= 1e-6 {
            return Some(now);
        }
        Some(now + Duration::from_secs_f64((missing / self.rate).min(3_600.0)) + Duration::from_micros(1))
    }

    /// Takes the tokens of an attempt.
    pub fn charge(&mut self, units: f64, now: Instant) {
        self.refill(now);
        if self.rate.is_finite() {
            self.tokens -= units * self.scale;
        }
    }

    /// Gives back what an attempt was charged that cost nothing.
    pub fn give_back(&mut self, units: f64, now: Instant) {
        self.refill(now);
        if self.rate.is_finite() {
            self.tokens = (self.tokens + units * self.scale).min(self.depth());
        }
    }

    /// Takes in what an attempt consumed: the estimated units that were taken, and what those consumed in truth. What was
    /// refused stays charged.
    pub fn consumed(&mut self, taken: f64, consumed: f64, now: Instant) {
        self.refill(now);
        self.turn_slots(now);
        if let Some(slot) = self.slots.back_mut() {
            *slot += consumed;
        }
        if taken > 0.0 {
            if self.rate.is_finite() {
                self.tokens = (self.tokens + taken * self.scale - consumed).min(self.depth());
            }
            let found = (consumed / taken).clamp(0.1, 100.0);
            self.scale += (found - self.scale) * 0.2;
        }
    }

    /// The table refused: the rate falls at once to what it accepted.
    pub fn throttled(&mut self, now: Instant) {
        self.refill(now);
        if self.last_fall.is_some_and(|last| now < last + FALLS_APART) {
            return;
        }
        self.last_fall = Some(now);
        let lowest = if self.rate.is_finite() { self.rate * STEEPEST } else { 0.0 };
        let ceiling = self.consumption(now).max(lowest).max(LEAST).min(self.rate);
        self.ceiling = Some(ceiling);
        self.beyond = 0.0;
        self.rate = (ceiling * FALL).max(LEAST).min(self.limit());
        self.tokens = self.tokens.min(0.0);
    }

    fn limit(&self) -> f64 {
        limit_of(self.share, self.options.headroom)
    }

    fn depth(&self) -> f64 {
        if self.rate.is_finite() { (self.rate * DEPTH_SECONDS).max(1.0) } else { f64::MAX }
    }

    /// Lets time pass: tokens gather, the rate climbs.
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.as_of).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        self.as_of = now;
        // The climb comes first: the depth that tokens fill up must be the one that requests are measured by.
        self.climb(passed);
        if self.rate.is_finite() {
            self.tokens = (self.tokens + self.rate * passed).min(self.depth());
        }
    }

    fn climb(&mut self, mut seconds: f64) {
        let limit = self.limit();
        let Some(ceiling) = self.ceiling else {
            self.rate = limit;
            return;
        };
        let room = (ceiling * PLATEAU - self.rate).max(0.0);
        let slow = ceiling * SLOW;
        if room >= slow * seconds {
            self.rate += slow * seconds;
        } else {
            self.rate += room;
            seconds -= room / slow;
            let gain = FASTER * if limit.is_finite() { limit } else { ceiling * 2.0 };
            self.rate += gain * seconds * (self.beyond + seconds / 2.0);
            self.beyond += seconds;
        }
        if self.rate >= limit {
            self.rate = limit;
            self.ceiling = None;
        }
    }

    fn turn_slots(&mut self, now: Instant) {
        let gone = now.saturating_duration_since(self.slot_begun).as_nanos() / SLOT.as_nanos();
        let gone = usize::try_from(gone).unwrap_or(usize::MAX).min(SLOTS + 1);
        if gone > SLOTS {
            self.slots.clear();
            self.slots.push_back(0.0);
            self.slot_begun = now;
            return;
        }
        for _slot in 0..gone {
            self.slots.push_back(0.0);
            self.slot_begun += SLOT;
        }
        while self.slots.len() > SLOTS {
            self.slots.pop_front();
        }
    }
}

fn limit_of(share: Option<f64>, headroom: f64) -> f64 {
    share.map_or(f64::INFINITY, |share| share * headroom)
}

#[cfg(test)]
mod tests;
