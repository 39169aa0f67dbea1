//! The rate, as a function of what was asked, what was taken and the time. **Pure**: time comes in as an argument.
//!
//! ```text
//!          begins without a share                refused
//!  Untaught ---- doubles while used -----------------------> Taught: around what was accepted, gently,
//!     ^  begins with a share: there at once                    | ^   then faster and faster
//!     |                                                        | |
//!     +------ a firm share is reached again -------------------+ |  what it took before is reached,
//!                                                              | |  or refused on the way
//!         at the floor, which is tried whatever is refused,    v |
//!         and unrefused for a moment ----------------------> Rising: doubles while used
//! ```
//! **Law R6**: while there is work, a table that gives is used within seconds, whatever it refused before. So a refusal says
//! that the rate is too high, and only what was *accepted* says what the table gives: where nothing was, nothing is learned,
//! a small part of what it took before is tried all the time, and that is reached again as soon as the table gives it. Rates grow
//! by a factor over time, never by a sum, so that the way from 1 to 40,000 units a second takes seconds.
//!
//! Tokens may go into debt by one request, so that an item larger than what has gathered is written all the same, and the
//! next one waits the longer. Only time in which tokens were short counts as use: a rate that nobody asks for does not grow.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::fair::Advice;

/// Time in which what waits should be written: what a worker asks of the fleet's budget.
const CLEARED_WITHIN_SECONDS: f64 = 2.0;
/// Where something waits and tokens were short for this part of the last second or so, the rate is what holds it back...
const HELD_BACK: f64 = 0.9;
/// ...over this time...
const HELD_BACK_OVER_SECONDS: f64 = 1.0;
/// ...and it could write so many times as much: what waits may be no more than the next of many large items.
const HELD_BACK_DEMANDS: f64 = 2.0;
/// Consumption is counted in slots of this length.
const SLOT: Duration = Duration::from_millis(100);
/// Over so many slots.
const SLOTS: usize = 10;
/// Requests are no larger than what so long brings...
const REQUEST_SECONDS: f64 = 0.02;
/// ...and tokens gather for so long: both are small beside the second in which a table counts. Tokens that gather for no longer than a
/// request takes are lost to every wake-up that comes late, on a busy machine half of them.
const DEPTH_SECONDS: f64 = 0.05;
/// A refused rate falls to this part of what was accepted of late...
const FALL: f64 = 0.95;
/// ...but to no less than this part of what it was: what is accepted while it climbs, or begins, says too little...
const STEEPEST: f64 = 0.7;
/// ...or than this, if nothing was accepted for half a second.
const STEEPEST_UNTAKEN: f64 = 0.5;
/// Then it rises slowly, by this part of what was accepted each second...
const SLOW: f64 = 0.006;
/// ...up to this part of it.
const PLATEAU: f64 = 1.02;
/// Unrefused for so many seconds, the table may give more than it did...
const PATIENCE_SECONDS: f64 = 6.0;
/// ...and for so much longer for each other writer whose turn to find out comes first: one refusal tells all of them.
const PATIENCE_EACH_SECONDS: f64 = 3.0;
/// It is worth finding out sooner if it gave more before...
const PATIENCE_BELOW_FORMER_SECONDS: f64 = 4.0;
/// ...by this much;
const BELOW_FORMER: f64 = 0.8;
/// or if it should give more: a firm share, or much more than this part of one that is not;
const LITTLE_OF_A_SHARE: f64 = 0.1;
/// and if little is known: others told the rate, or it is that of the first seconds. Either may have been a bad moment.
const PATIENCE_LITTLE_KNOWN_SECONDS: f64 = 2.0;
/// So much of what [`SUSTAINED_SECONDS`] would tell is little.
const LITTLE_KNOWN: f64 = 0.5;
/// The rate after t further seconds is `e^(t^2 (1 + t^2 / 5) FASTER)` times what it was: 1.3 after one, 6 after two, 540 after
/// three...
const FASTER: f64 = 0.25;
/// ...and this, if it gave more before.
const FASTER_BELOW_FORMER: f64 = 0.5;
/// A rate that went up like this and was refused is taken back by the root of it, or by so much.
const FARTHEST: f64 = 1.25;
/// Where no refusal has taught anything, or one that passes by, a rate doubles in this time.
const DOUBLES_IN_SECONDS: f64 = 0.3;
/// Falls come no closer: answers that are on their way tell of the rate before the last one.
const FALLS_APART: Duration = Duration::from_millis(250);
/// Than this, if enough answers say what the table gives.
const TOLD_FALLS_APART: Duration = Duration::from_millis(100);
/// Where at least this part of the rate was asked for, the part that was refused tells by how much it is too high: less noisy
/// than units of one second.
const ASKED_FOR: f64 = 0.6;
/// So many answers since the last fall say what the table gives.
const ANSWERS_THAT_TELL: u32 = 5;
/// A table that took nothing for so long while it was asked is called shut.
const SHUT_AFTER: Duration = Duration::from_secs(1);
/// If it refused so often: large items are few a second.
const IN_A_ROW: u32 = 4;
/// No refusal lowers a rate below this part of its share, or of what the table took before: so little that it costs nothing, and
/// enough to notice at once that the table takes something again...
const FLOOR_PART: f64 = 0.02;
/// ...or below so many units per second...
const FLOOR: f64 = 4.0;
/// ...if that is no more than this part of its share.
const FLOOR_MOST: f64 = 0.25;
/// What the table took before is worth going to if it is so many times the floor: else it was no more than the floor itself.
const WORTH: f64 = 4.0;
/// A rate that is no further above its floor than this...
const AT_FLOOR: f64 = 1.2;
/// ...doubles from there, once nothing was refused for so long and in so many answers.
const FLOOR_PATIENCE_SECONDS: f64 = 0.3;
/// See [`FLOOR_PATIENCE_SECONDS`].
const FLOOR_ANSWERS: u32 = 3;
/// What refused attempts cost in tokens delays the next one by no more than this.
const MOST_DEBT_SECONDS: f64 = 2.0;
/// What the table takes is averaged over this time...
const SUSTAINED_SECONDS: f64 = 10.0;
/// ...and no such average is taken of less than this part of it.
const SUSTAINED_PART: f64 = 0.05;
/// What it took before fades in this time.
const FORMER_FADES_SECONDS: f64 = 3_600.0;
/// Lowest rate, in units per second.
const LEAST: f64 = 1.0;
/// Where a rate begins that nothing is known of, in units per second: a table gives at least as much to be worth a
/// fleet, and from here to the 40,000 of a large one are nine doublings.
const FIRST: f64 = 100.0;
/// Highest rate: so much that nothing asks for more.
const MOST: f64 = 1e9;
/// A worker below this part of its equal part is let catch up to it: it need not wait, nor fall when it is refused...
const LET_CATCH_UP: f64 = 0.65;
/// ...and one above this much of its equal part yields meanwhile.
const YIELDS_ABOVE: f64 = 1.3;
/// A worker that yields falls to its equal part, and to no less than this part of its rate at a time.
const YIELD: f64 = 0.75;
/// A worker that catches up does so within about this time.
const CATCH_UP_SECONDS: f64 = 1.0;

/// A worker's share of a budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Units per second.
    pub units: f64,
    /// Whether it is never exceeded. One that is not is where to begin, and the table may give more.
    pub firm: bool,
}

/// Where a rate begins that was learned elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Begin {
    /// At this part of the share, if there is one.
    PartOfShare(f64),
    /// At so many units per second, if there is no share.
    Rate(f64),
}

/// Why the rate is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateReason {
    /// It is the share of the budget.
    Share,
    /// It is above the share, which is not firm: the table takes more.
    BeyondShare,
    /// Nothing was refused yet, and there is no share: it doubles while it is used.
    Searching,
    /// It is what the table, or the key, accepted when it last refused.
    Refused,
    /// It was learned by other workers.
    Told,
    /// The table takes nothing: a little is tried all the time.
    Shut,
    /// The table takes writes again: it doubles up to what it was.
    Reopened,
}

impl RateReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Share,
        Self::BeyondShare,
        Self::Searching,
        Self::Refused,
        Self::Told,
        Self::Shut,
        Self::Reopened,
    ];

    /// The word for it, in metrics and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::BeyondShare => "beyond_share",
            Self::Searching => "searching",
            Self::Refused => "refused",
            Self::Told => "told",
            Self::Shut => "shut",
            Self::Reopened => "reopened",
        }
    }
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

/// What the table has taught.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Nothing.
    Untaught,
    /// It accepted this when it last refused, so many seconds of use ago; told by others or found out.
    Taught { ceiling: f64, unrefused: f64, patience: Patience, told: bool },
    /// It takes something again. The way goes up to this.
    Rising { goal: f64 },
}

/// What happened in a tenth of a second, in units.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    consumed: f64,
    refused: f64,
}

/// The rate of one worker, or of one key.
#[derive(Debug, Clone)]
pub struct Pace {
    options: PaceOptions,
    share: Option<Share>,
    advice: Option<Advice>,
    /// Units per second.
    rate: f64,
    phase: Phase,
    /// Why the rate is what it is, and since when.
    reason: (RateReason, Instant),
    /// Seconds of use above a share that is not firm.
    above: f64,
    tokens: f64,
    as_of: Instant,
    /// The part of the last second or so in which tokens were short.
    short: f64,
    last_fall: Option<Instant>,
    /// Since the first refusal after something was taken, and how many there were.
    refused_since: Option<(Instant, u32)>,
    /// What was taken and refused since the last fall, in units, and in how many answers.
    since_fall: (Slot, u32),
    /// Units per second that are taken, over the last ten seconds or so, and what part of those has been seen.
    sustained: (f64, f64),
    /// The most that was, fading: what the table took before it refused.
    former: f64,
    /// Consumed and refused units in slots, the newest last.
    slots: VecDeque<Slot>,
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
            advice: None,
            rate: FIRST,
            phase: Phase::Untaught,
            reason: (RateReason::Searching, now),
            above: 0.0,
            tokens: 0.0,
            as_of: now,
            short: 0.0,
            last_fall: None,
            refused_since: None,
            since_fall: (Slot::default(), 0),
            sustained: (0.0, 0.0),
            former: 0.0,
            slots: VecDeque::from([Slot::default()]),
            slot_begun: now,
            scale: 1.0,
        }
    }

    /// Another share. What was learned of the table goes along: a rate that was a part of the old share is the same part of
    /// the new one.
    pub fn set_share(&mut self, share: Option<Share>, now: Instant) {
        self.refill(now);
        let (before, after) = (self.granted(), share.map(|share| share.units * self.options.headroom));
        let part = match (before, after) {
            // From nothing and to nothing, it stays as it was.
            (Some(before), Some(after)) if before > 0.0 && after > 0.0 => after / before,
            _ => 1.0,
        };
        self.share = share;
        self.former *= part;
        match &mut self.phase {
            Phase::Taught { ceiling, .. } => {
                *ceiling *= part;
                self.rate = (self.rate * part).max(*ceiling * FALL);
            }
            Phase::Rising { goal } => {
                *goal *= part;
                self.rate *= part;
            }
            Phase::Untaught => {
                self.above = 0.0;
                self.rate = after.unwrap_or_else(|| self.rate.max(FIRST));
            }
        }
        self.rate = self.rate.min(self.limit());
        self.tokens = self.tokens.min(self.depth());
        self.note(now);
    }

    /// What an equal part of what the fleet writes comes to, as of the last look at its rows.
    pub fn advise(&mut self, advice: Option<Advice>, now: Instant) {
        self.refill(now);
        self.advice = advice;
    }

    /// Begins at what was learned elsewhere. Does nothing once something was learned here.
    pub fn begin_at(&mut self, begin: Begin, now: Instant) {
        self.refill(now);
        if self.phase != Phase::Untaught || self.former > 0.0 || self.last_fall.is_some() {
            return;
        }
        let learned = match (begin, self.granted()) {
            (Begin::PartOfShare(part), Some(share)) if part < 1.0 && share > 0.0 => (share * part).max(LEAST),
            (Begin::Rate(rate), None) => rate.max(LEAST),
            (Begin::PartOfShare(_) | Begin::Rate(_), _) => return,
        };
        let patience = Patience::LITTLE_KNOWN;
        self.phase = Phase::Taught { ceiling: learned, unrefused: 0.0, patience, told: true };
        self.rate = learned;
        self.note(now);
    }

    /// Units per second now.
    pub fn rate(&mut self, now: Instant) -> f64 {
        self.refill(now);
        self.rate
    }

    /// Why the rate is what it is, and since when.
    pub fn reason(&self) -> (RateReason, Instant) {
        self.reason
    }

    /// What the table accepts, in units per second, as far as refusals have taught: none if it never refused, or if it has
    /// taken nothing so far.
    pub fn learned(&self) -> Option<f64> {
        match self.phase {
            Phase::Untaught => None,
            Phase::Taught { .. } if self.is_at_floor() => (self.former > 0.0).then_some(self.former),
            Phase::Taught { .. } => Some(self.rate),
            Phase::Rising { goal } => goal.is_finite().then_some(goal),
        }
    }

    /// The part of the share that the table accepts: 1 if it never refused, or takes more.
    pub fn learned_part(&self) -> f64 {
        match (self.learned(), self.granted()) {
            (Some(learned), Some(share)) if share > 0.0 => (learned / share).min(1.0),
            _ => 1.0,
        }
    }

    /// Units consumed per second of late.
    pub fn consumption(&mut self, now: Instant) -> f64 {
        self.turn_slots(now);
        let whole = SLOT * u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX);
        let seen = whole + now.saturating_duration_since(self.slot_begun);
        self.slots.iter().map(|slot| slot.consumed).sum::<f64>() / seen.max(SLOT).as_secs_f64()
    }

    /// Units per second that could be written, with so many units that wait.
    pub fn demand(&mut self, waiting: f64, now: Instant) -> f64 {
        self.refill(now);
        let demand = self.consumption(now) + waiting.max(0.0) / CLEARED_WITHIN_SECONDS;
        if waiting > 0.0 && self.short >= HELD_BACK {
            demand.max(self.rate * HELD_BACK_DEMANDS)
        } else {
            demand
        }
    }

    /// Most estimated units for one request.
    pub fn request_units(&mut self, now: Instant) -> f64 {
        self.refill(now);
        (self.one_request() / self.scale).max(1.0)
    }

    /// When a request of so many estimated units may go; `None` if not before the rate changes.
    pub fn ready_at(&mut self, units: f64, now: Instant) -> Option<Instant> {
        self.refill(now);
        if self.limit() <= 0.0 {
            return None;
        }
        let missing = (units * self.scale).min(self.one_request()) - self.tokens;
        // A hair's breadth is rounding.
        if missing <= 1e-6 {
            return Some(now);
        }
        let seconds = (missing / self.rate.max(1e-9)).min(3_600.0);
        Some(now + Duration::from_secs_f64(seconds) + Duration::from_micros(1))
    }

    /// Takes the tokens of an attempt.
    pub fn charge(&mut self, units: f64, now: Instant) {
        self.refill(now);
        self.tokens -= units * self.scale;
    }

    /// Gives back what an attempt was charged that cost nothing.
    pub fn give_back(&mut self, units: f64, now: Instant) {
        self.refill(now);
        self.tokens = (self.tokens + units * self.scale).min(self.depth());
    }

    /// Takes in what an attempt consumed: the estimated units that were taken, and what those consumed in truth. What was
    /// refused stays charged.
    pub fn consumed(&mut self, taken: f64, consumed: f64, now: Instant) {
        self.refill(now);
        self.turn_slots(now);
        if let Some(slot) = self.slots.back_mut() {
            slot.consumed += consumed;
        }
        if taken <= 0.0 {
            return;
        }
        self.refused_since = None;
        let found = (consumed / taken).clamp(0.1, 100.0);
        self.tokens = (self.tokens + taken * self.scale - consumed).min(self.depth());
        self.scale += (found - self.scale) * 0.2;
        self.since_fall.0.consumed += consumed;
        self.since_fall.1 += 1;
    }

    /// The table refused so many estimated units of an attempt that was charged then: the rate falls at once to what it
    /// accepted.
    pub fn refused(&mut self, units: f64, charged: Instant, now: Instant) {
        self.refill(now);
        self.turn_slots(now);
        if let Some(slot) = self.slots.back_mut() {
            slot.refused += units * self.scale;
        }
        self.since_fall.0.refused += units * self.scale;
        self.since_fall.1 += 1;
        let (refused_since, in_a_row) = self.refused_since.unwrap_or((now, 0));
        self.refused_since = Some((refused_since, in_a_row + 1));
        let apart = if self.since_fall.1 >= ANSWERS_THAT_TELL { TOLD_FALLS_APART } else { FALLS_APART };
        if self.last_fall.is_some_and(|last| charged < last || now < last + apart) {
            return;
        }
        let last_fall = self.last_fall.replace(now);
        self.fall(last_fall, now);
        self.since_fall = (Slot::default(), 0);
        self.note(now);
    }

    /// Falls to what was accepted; to an equal part, if this worker has more; and not at all, if it has much less.
    fn fall(&mut self, last_fall: Option<Instant>, now: Instant) {
        let accepted = self.accepted(last_fall, now);
        let untaken = self.slots.iter().rev().take(SLOTS / 2).all(|slot| slot.consumed <= 0.0)
            && self.refused_since.is_some_and(|(_, in_a_row)| in_a_row >= IN_A_ROW);
        let lowest = self.rate * if untaken { STEEPEST_UNTAKEN } else { STEEPEST };
        let mut ceiling = accepted.min(self.rate / self.too_far()).max(lowest).min(self.rate);
        match self.advice {
            Some(advice) if !untaken && self.rate < advice.due * LET_CATCH_UP => ceiling = self.rate / FALL,
            Some(advice) if self.rate > advice.due * YIELDS_ABOVE => {
                ceiling = ceiling.min(advice.due.max(self.rate * YIELD));
            }
            Some(_) | None => {}
        }
        self.rate = (ceiling * FALL).max(self.floor()).min(self.limit());
        self.phase = Phase::Taught {
            ceiling: ceiling.max(self.rate),
            unrefused: 0.0,
            patience: self.patience(ceiling),
            told: false,
        };
        self.tokens = self.tokens.clamp(-MOST_DEBT_SECONDS * self.rate, 0.0);
    }

    /// Units per second that the table gives, as far as can be told: of the rate the part that it took; or what it took, if
    /// that is far from the rate. Since the last fall, if that is not long ago: what it took before may have been what it had
    /// saved up.
    fn accepted(&mut self, last_fall: Option<Instant>, now: Instant) -> f64 {
        let since = last_fall.map(|last| now.saturating_duration_since(last));
        let (seen, over) = match since {
            Some(since) if since < SLOT * 10 && self.since_fall.1 >= ANSWERS_THAT_TELL => {
                (self.since_fall.0, since.as_secs_f64())
            }
            Some(_) | None => {
                let sum = |of: fn(&Slot) -> f64| self.slots.iter().map(of).sum();
                let all = Slot { consumed: sum(|slot| slot.consumed), refused: sum(|slot| slot.refused) };
                let consumption = self.consumption(now);
                (all, if consumption > 0.0 { all.consumed / consumption } else { 1.0 })
            }
        };
        let asked = seen.consumed + seen.refused;
        if asked >= self.rate * over * ASKED_FOR {
            self.rate * seen.consumed / asked
        } else {
            seen.consumed / over
        }
    }

    /// By how much a rate that found out whether the table gives more went too far, most likely: it took from what the table
    /// had saved up until that was gone.
    fn too_far(&self) -> f64 {
        match self.phase {
            Phase::Taught { unrefused, patience, .. } => patience.growth(unrefused).sqrt().min(FARTHEST),
            Phase::Untaught | Phase::Rising { .. } => 1.0,
        }
    }

    /// How long to wait at a rate that was refused.
    fn patience(&self, ceiling: f64) -> Patience {
        if self.sustained.1 < LITTLE_KNOWN {
            return Patience::LITTLE_KNOWN;
        }
        // What was promised: all of a share that is firm; of another, which is a guess, so much that this is another table.
        let promised = match self.share {
            Some(share) if share.firm => share.units * self.options.headroom * BELOW_FORMER,
            Some(share) => share.units * LITTLE_OF_A_SHARE,
            None => 0.0,
        };
        if ceiling < (self.former * BELOW_FORMER).max(promised) {
            // The limit of a firm share is aim enough.
            let known = ceiling < self.former * BELOW_FORMER && self.limit() >= MOST;
            let aim = if known { self.former } else { f64::INFINITY };
            return Patience { seconds: PATIENCE_BELOW_FORMER_SECONDS, faster: FASTER_BELOW_FORMER, aim };
        }
        let before = f64::from(self.advice.map_or(0, |advice| advice.before));
        let seconds = PATIENCE_SECONDS + PATIENCE_EACH_SECONDS * before;
        Patience { seconds, faster: FASTER, aim: f64::INFINITY }
    }

    /// What is tried whatever is refused.
    fn floor(&self) -> f64 {
        let share = self.granted().unwrap_or(f64::INFINITY);
        let known = if share.is_finite() { self.former.max(share) } else { self.former };
        (known * FLOOR_PART).max(FLOOR).min(share * FLOOR_MOST).max(LEAST)
    }

    fn is_at_floor(&self) -> bool {
        self.rate <= self.floor() * AT_FLOOR
    }

    /// The share that is used, if there is one.
    fn granted(&self) -> Option<f64> {
        self.share.map(|share| share.units * self.options.headroom)
    }

    /// What the rate never exceeds. A share of nothing is nothing, firm or not.
    fn limit(&self) -> f64 {
        match self.share {
            Some(share) if share.firm || share.units <= 0.0 => share.units * self.options.headroom,
            Some(_) | None => MOST,
        }
    }

    fn depth(&self) -> f64 {
        (self.rate * DEPTH_SECONDS).max(1.0)
    }

    /// Units of the largest request, unless it is a single item.
    fn one_request(&self) -> f64 {
        (self.rate * REQUEST_SECONDS).max(1.0)
    }

    /// Lets time pass: tokens gather, the rate climbs.
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.as_of).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        self.as_of = now;
        let short = (self.depth() - self.tokens).max(0.0) / self.rate.max(1e-9);
        // The climb comes first: the depth that tokens fill up must be the one that requests are measured by.
        self.climb(passed.min(short), now);
        let weight = 1.0 - (-passed / HELD_BACK_OVER_SECONDS).exp();
        self.short += (passed.min(short) / passed - self.short) * weight;
        self.tokens = (self.tokens + self.rate * passed).min(self.depth());
    }

    /// Climbs over so many seconds of use.
    fn climb(&mut self, seconds: f64, now: Instant) {
        let limit = self.limit();
        let at_floor = self.is_at_floor() && self.since_fall.1 >= FLOOR_ANSWERS;
        let at_former = self.patience(f64::INFINITY);
        let goal = if self.former > self.floor() * WORTH { self.former } else { f64::INFINITY };
        let doubled = self.rate * (seconds / DOUBLES_IN_SECONDS).exp2();
        match &mut self.phase {
            Phase::Untaught => match self.share {
                None => self.rate = doubled,
                Some(share) => {
                    let base = share.units * self.options.headroom;
                    self.rate = base * at_former.growth(self.above);
                    self.above += seconds;
                }
            },
            Phase::Taught { unrefused, .. } if at_floor && *unrefused >= FLOOR_PATIENCE_SECONDS => {
                self.rate = doubled;
                self.phase = Phase::Rising { goal };
            }
            Phase::Taught { ceiling, unrefused, patience, .. } => {
                let slow = (self.rate + *ceiling * SLOW * seconds).min(*ceiling * PLATEAU);
                let before = patience.growth(*unrefused);
                *unrefused += seconds;
                self.rate = self.rate.max(slow) * (patience.growth(*unrefused) / before);
                // What it took before is there again. Whether it gives still more is another question.
                if self.rate >= patience.aim {
                    self.rate = patience.aim;
                    self.phase = Phase::Taught {
                        ceiling: patience.aim,
                        unrefused: 0.0,
                        patience: at_former,
                        told: false,
                    };
                }
            }
            Phase::Rising { goal } => {
                self.rate = doubled;
                let ceiling = *goal;
                if doubled >= ceiling {
                    self.rate = ceiling;
                    let patience = self.patience(ceiling);
                    self.phase = Phase::Taught { ceiling, unrefused: 0.0, patience, told: false };
                }
            }
        }
        if let Some(advice) = self.advice
            && self.rate < advice.due * LET_CATCH_UP
        {
            self.rate += (advice.due - self.rate) * (1.0 - (-seconds / CATCH_UP_SECONDS).exp());
        }
        // At the floor nothing is learned that would make it old.
        if !self.is_at_floor() {
            self.former *= (-seconds / FORMER_FADES_SECONDS).exp();
        }
        self.rate = self.rate.min(limit);
        if self.rate >= limit {
            self.phase = Phase::Untaught;
            self.above = 0.0;
        }
        self.note(now);
    }

    /// Keeps since when the reason for the rate is the one that it is.
    fn note(&mut self, now: Instant) {
        let above_share = self.granted().is_some_and(|share| self.rate > share);
        let shut = self.refused_since.is_some_and(|(since, in_a_row)| {
            in_a_row > IN_A_ROW && now.saturating_duration_since(since) >= SHUT_AFTER
        });
        let reason = match self.phase {
            Phase::Untaught | Phase::Taught { .. } | Phase::Rising { .. } if shut => RateReason::Shut,
            Phase::Rising { .. } => RateReason::Reopened,
            Phase::Untaught | Phase::Taught { .. } if above_share => RateReason::BeyondShare,
            Phase::Untaught if self.share.is_some() => RateReason::Share,
            Phase::Untaught => RateReason::Searching,
            Phase::Taught { told: true, .. } => RateReason::Told,
            Phase::Taught { told: false, .. } => RateReason::Refused,
        };
        if reason != self.reason.0 {
            self.reason = (reason, now);
        }
    }

    fn turn_slots(&mut self, now: Instant) {
        let gone = now.saturating_duration_since(self.slot_begun).as_nanos() / SLOT.as_nanos();
        let gone = usize::try_from(gone).unwrap_or(usize::MAX).min(SLOTS + 1);
        self.sustain(gone);
        if gone > SLOTS {
            self.slots.clear();
            self.slots.push_back(Slot::default());
            self.slot_begun = now;
            return;
        }
        for _slot in 0..gone {
            self.slots.push_back(Slot::default());
            self.slot_begun += SLOT;
        }
        while self.slots.len() > SLOTS {
            self.slots.pop_front();
        }
    }

    /// Averages over slots that have passed: the newest one, and nothing in those behind it.
    fn sustain(&mut self, passed: usize) {
        let Some(newest) = self.slots.back().filter(|_| passed > 0) else { return };
        let fades = |slots: usize| {
            let slots = u32::try_from(slots).unwrap_or(u32::MAX);
            (-SLOT.as_secs_f64() * f64::from(slots) / SUSTAINED_SECONDS).exp()
        };
        let each = SLOT.as_secs_f64();
        let (sum, part) = self.sustained;
        let (sum, part) =
            (sum * fades(1) + newest.consumed / each * (1.0 - fades(1)), part * fades(1) + 1.0 - fades(1));
        if part >= SUSTAINED_PART {
            // What one took that others were due says nothing of the table.
            let due = self.advice.map_or(f64::INFINITY, |advice| advice.due * YIELDS_ABOVE);
            self.former = self.former.max((sum / part).min(due));
        }
        self.sustained = (sum * fades(passed - 1), part * fades(passed - 1) + 1.0 - fades(passed - 1));
    }
}

/// How long a rate waits without a refusal before it finds out whether the table gives more, and how fast it grows then.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Patience {
    seconds: f64,
    faster: f64,
    /// Up to here: what it gave before.
    aim: f64,
}

impl Patience {
    const LITTLE_KNOWN: Self =
        Self { seconds: PATIENCE_LITTLE_KNOWN_SECONDS, faster: FASTER, aim: f64::INFINITY };

    /// By how much the rate has grown after so many seconds without a refusal.
    fn growth(self, unrefused: f64) -> f64 {
        let over = (unrefused - self.seconds).max(0.0);
        let squared = over * over;
        (squared * (1.0 + squared / 5.0) * self.faster).min(40.0).exp()
    }
}

#[cfg(test)]
mod tests;
