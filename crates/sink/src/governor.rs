//! The governor: at which rate a worker writes to the table, and who writes next.
//!
//! One per worker, shared by all its deliveries. Every attempt is charged before it is made (retries too), with what its
//! items will take; what the table says it took corrects that afterwards, and teaches what an item takes in truth
//! (indexes and replicas take more). The decisions are in [`pace`] (how fast), [`keys`] (how fast each key), `blame` (whom a
//! refusal slows down), [`fair`] (what an equal part is) and [`turn`] (who is next); here callers wait their turn, the oldest
//! batch first.
//!
//! ```text
//! request -> turn -> tokens there? -> slot -> write -> answer: consumed, left over, refused
//!              ^        |  no: until then, or until the rate changes
//!              +--------+
//! ```
//! Nobody sleeps for longer than its tokens take, and a rate that rises wakes whose turn it is. Only that one waits for time:
//! whoever leaves the line calls the next one, and who finds that it is another's turn calls that one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

mod blame;
pub mod fair;
pub mod keys;
pub mod pace;
pub mod turn;

use crate::store::ThrottledBy;
use blame::{Refusal, TableLimit};
use fair::Advice;
use keys::Keys;
use pace::{Begin, Pace, PaceOptions, RateReason, Share};
use turn::{Line, Place, Rank};

/// What an attempt came to, for the governor.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The table answered: so many units consumed, and so many of the estimated ones left over.
    Answered {
        /// Write capacity units consumed, as the table tells it; 0 if it does not.
        consumed: f64,
        /// Estimated units of the items that were not taken, by partition key.
        left_over: Vec<(String, f64)>,
    },
    /// The whole request was throttled.
    Throttled(ThrottledBy),
    /// The table rejects it for good, which costs nothing.
    Rejected,
    /// No answer, or a failure: it may have been taken, and says nothing of the rate.
    Unknown,
}

/// What the governor has seen since it began.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flow {
    /// Units that were asked for, retries included.
    pub attempted: f64,
    /// Units that the table says were consumed.
    pub consumed: f64,
    /// Estimated units that it refused.
    pub throttled: f64,
    /// Those of them that were put down to key ranges, not to the table.
    pub throttled_by_key: f64,
    /// Attempts.
    pub attempts: u64,
    /// Attempts of which something was refused.
    pub throttled_attempts: u64,
}

/// At which rate is written, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct RateStanding {
    /// Units per second.
    pub rate: f64,
    /// Why it is that.
    pub reason: RateReason,
    /// Since when that is the reason.
    pub since: Instant,
    /// Estimated units of items that are packed and not durable.
    pub waiting: f64,
    /// Keys whose ranges refuse, with the rate of each, the slowest first: a few of them.
    pub hot_keys: Vec<(String, f64)>,
}

/// Most hot keys that are told of.
const HOT_KEYS_TOLD: usize = 5;

/// Shared by everything that writes to one table from one process.
#[derive(Debug)]
pub struct Governor {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    keys: Keys,
    table_limit: TableLimit,
    line: Line,
    flow: Flow,
    /// Estimated units of items that are packed and not durable.
    waiting: f64,
}

/// Items that are packed and wait to become durable: part of the demand. Dropping it takes them out.
#[derive(Debug)]
pub struct Waiting<'a> {
    governor: &'a Governor,
    units: f64,
}

impl Waiting<'_> {
    /// So many of them are durable.
    pub fn done(&mut self, units: f64) {
        let units = units.min(self.units);
        self.units -= units;
        self.governor.state().waiting -= units;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.governor.state().waiting -= self.units;
    }
}

/// An attempt that was charged.
#[derive(Debug)]
pub struct Attempt {
    /// Estimated units, by partition key.
    units: Vec<(String, f64)>,
    charged: Instant,
}

impl Attempt {
    fn total(&self) -> f64 {
        self.units.iter().map(|(_key, units)| units).sum()
    }
}

impl Governor {
    /// A governor that begins now.
    pub fn new(options: PaceOptions) -> Self {
        let now = Instant::now();
        let state = State {
            pace: Pace::new(options, now),
            keys: Keys::new(options),
            table_limit: TableLimit::default(),
            line: Line::default(),
            flow: Flow::default(),
            waiting: 0.0,
        };
        Self { state: Mutex::new(state) }
    }

    /// Sets this worker's share of the write budget; `None` lifts it.
    pub fn set_share(&self, share: Option<Share>) {
        let now = Instant::now();
        let mut state = self.state();
        state.pace.set_share(share, now);
        state.call_next(now);
    }

    /// Begins at what others have learned that the table accepts. Does nothing once something was learned here.
    pub fn begin_at(&self, begin: Begin) {
        self.state().pace.begin_at(begin, Instant::now());
    }

    /// Says what an equal part of what the fleet writes comes to.
    pub fn advise(&self, advice: Option<Advice>) {
        let now = Instant::now();
        let mut state = self.state();
        state.pace.advise(advice, now);
        state.call_next(now);
    }

    /// At which rate is written, why, and what waits.
    pub fn standing(&self) -> RateStanding {
        let now = Instant::now();
        let mut state = self.state();
        let rate = state.pace.rate(now);
        let (reason, since) = state.pace.reason();
        let hot_keys = state.keys.hot(HOT_KEYS_TOLD, now);
        RateStanding { rate, reason, since, waiting: state.waiting.max(0.0), hot_keys }
    }

    /// What the table accepts, in units per second, as far as refusals have taught.
    pub fn learned(&self) -> Option<f64> {
        self.state().pace.learned()
    }

    /// Which part of its share the table accepts, as far as throttling has taught: 1 if it never throttled.
    pub fn learned_part(&self) -> f64 {
        self.state().pace.learned_part()
    }

    /// What this worker could write, in units per second: what it consumes, and what waits, over the time in which it should
    /// be gone.
    pub fn demand(&self) -> f64 {
        let mut state = self.state();
        let waiting = state.waiting;
        state.pace.demand(waiting, Instant::now())
    }

    /// What was seen so far.
    pub fn flow(&self) -> Flow {
        self.state().flow
    }

    /// Counts packed items as waiting.
    pub fn wait_for(&self, units: f64) -> Waiting<'_> {
        self.state().waiting += units;
        Waiting { governor: self, units }
    }

    /// When so many units of a partition key may be written as far as that key is concerned; `None` if now.
    pub fn key_free_at(&self, key: &str, units: f64) -> Option<Instant> {
        self.state().keys.key_free_at(key, units, Instant::now())
    }

    /// Most estimated units that one request should hold, so that requests are small beside a second's worth.
    pub fn request_units(&self) -> f64 {
        self.state().pace.request_units(Instant::now())
    }

    /// Waits until these units may be attempted, given by partition key, and until one of `slots` is free for the attempt;
    /// charges them then. Of those that wait the lowest rank goes first; one whose key is full holds nobody up. What is
    /// charged is sent at once: were it charged before there is a slot, a table that stands still would gather charged
    /// attempts, and be written to far above the budget when it answers again.
    ///
    /// All that write by one governor share their slots: whose turn it is waits for one.
    ///
    /// *Cancelling it* is safe: nothing is charged.
    pub async fn admit<'s>(
        &self,
        rank: &Rank,
        units: Vec<(String, f64)>,
        slots: &'s Semaphore,
    ) -> (Attempt, Option<SemaphorePermit<'s>>) {
        let mut attempt = Attempt { units, charged: Instant::now() };
        let called = Arc::new(Notify::new());
        let place = self.state().line.join(rank.clone(), attempt.units.clone(), Arc::clone(&called));
        let _in_line = InLine { governor: self, place: &place };
        // Time passes while one is waited for, so everything is looked at again then.
        let mut slot = None;
        loop {
            let now = Instant::now();
            let step = self.state().step(&place, &attempt, slot.is_some(), now);
            match step {
                Step::Charged => {
                    attempt.charged = now;
                    return (attempt, slot.flatten());
                }
                // Never closed.
                Step::Slot => slot = Some(slots.acquire().await.ok()),
                Step::Wait(until) => {
                    // A slot in hand would keep it from whose turn it is.
                    slot = None;
                    tokio::select! { biased;
                        () = called.notified() => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }

    /// Takes in what came of an attempt.
    pub fn settle(&self, attempt: &Attempt, outcome: Outcome) {
        let now = Instant::now();
        let mut state = self.state();
        let total = attempt.total();
        match outcome {
            Outcome::Answered { consumed, left_over } => {
                let left: f64 = left_over.iter().map(|(_key, units)| units).sum();
                let taken = total - left;
                let consumed = if consumed > 0.0 { consumed } else { taken };
                state.pace.consumed(taken, consumed, now);
                state.flow.consumed += consumed;
                state.keys.consumed(&without(&attempt.units, &left_over), now);
                if left > 0.0 {
                    // An answer that takes nothing is a refusal of the whole, whatever it calls itself.
                    let by = (taken <= 0.0).then_some(ThrottledBy::Unknown);
                    state.refused(Refusal { units: &left_over, by }, attempt.charged, now);
                }
            }
            Outcome::Throttled(by) => {
                state.refused(Refusal { units: &attempt.units, by: Some(by) }, attempt.charged, now);
            }
            Outcome::Rejected => {
                state.pace.give_back(total, now);
                state.keys.give_back(&attempt.units, now);
            }
            Outcome::Unknown => {}
        }
        state.call_next(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one who waits in line is to do.
enum Step {
    /// Write: the attempt is charged.
    Charged,
    /// Wait for a slot.
    Slot,
    /// Wait until then, or for a call.
    Wait(Option<Instant>),
}

/// A place in the line. Dropping it leaves the line, and the next one is called.
struct InLine<'a> {
    governor: &'a Governor,
    place: &'a Place,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut state = self.governor.state();
        state.line.leave(self.place);
        state.call_next(Instant::now());
    }
}

impl State {
    /// What the one at this place is to do; charges the attempt if it may go.
    fn step(&mut self, place: &Place, attempt: &Attempt, has_slot: bool, now: Instant) -> Step {
        let Self { line, keys, .. } = self;
        match line.turn(|units| keys.free_at(units, now)) {
            Some(turn) if turn.place != place => {
                line.call(turn.place);
                return Step::Wait(None);
            }
            Some(turn) if turn.free_at.is_some() => return Step::Wait(turn.free_at),
            Some(_) | None => {}
        }
        match self.pace.ready_at(attempt.total(), now) {
            Some(at) if at <= now && has_slot => {
                self.charge(attempt, now);
                Step::Charged
            }
            Some(at) if at <= now => Step::Slot,
            at => Step::Wait(at),
        }
    }

    /// Has whose turn it is look again.
    fn call_next(&mut self, now: Instant) {
        let Self { line, keys, .. } = self;
        if let Some(turn) = line.turn(|units| keys.free_at(units, now)) {
            line.call(turn.place);
        }
    }

    fn charge(&mut self, attempt: &Attempt, now: Instant) {
        let total = attempt.total();
        self.pace.charge(total, now);
        self.keys.charge(&attempt.units, now);
        self.flow.attempted += total;
        self.flow.attempts += 1;
    }

    /// Slows down whom a refusal is about.
    fn refused(&mut self, refusal: Refusal<'_>, charged: Instant, now: Instant) {
        let units: f64 = refusal.units.iter().map(|(_key, units)| units).sum();
        self.flow.throttled += units;
        self.flow.throttled_attempts += 1;
        let blame = self.table_limit.blame(refusal, &mut self.keys, now);
        let of_key = |name: &String| {
            refusal.units.iter().find(|(key, _)| key == name).map_or(0.0, |(_, units)| *units)
        };
        let mut of_keys = 0.0;
        for (key, named) in &blame.keys {
            of_keys += of_key(key);
            self.keys.refused((key, of_key(key)), *named, charged, now);
        }
        self.flow.throttled_by_key += of_keys;
        if blame.table {
            self.pace.refused(units - of_keys, charged, now);
        }
    }
}

/// What of these units is not among those.
fn without(units: &[(String, f64)], left_over: &[(String, f64)]) -> Vec<(String, f64)> {
    let left =
        |key: &String| left_over.iter().find(|(other, _)| other == key).map_or(0.0, |(_, units)| *units);
    units.iter().map(|(key, units)| (key.clone(), units - left(key))).collect()
}

/// Sleeps until then; for ever if there is no such time, until the rate changes.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Units that an item of so many bytes takes: one per KB, begun ones whole (DynamoDB developer guide, write capacity).
pub fn units_of(bytes: usize) -> f64 {
    let units = u32::try_from(bytes.div_ceil(1_024).max(1)).unwrap_or(u32::MAX);
    f64::from(units)
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
