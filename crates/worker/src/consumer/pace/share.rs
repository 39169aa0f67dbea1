//! What a shard leaves to this consumer, of calls and of bytes, learned from its answers and refusals (pure).
//!
//! A shard gives 5 calls and 2 MiB a second to all its consumers together, and a refusal does not say which of the two was
//! short. What the others take is not to be seen. So there are two rates, and each stays where it is until something is
//! learned:
//!
//! ```text
//!               refused, it is not known for what               answered a few times
//!    Steady ------------------------------------> FewerCalls -------------------------> Steady, with fewer calls
//!     ^  |                                         |
//!     |  |                                         | refused all the same: the bytes are short
//!     |  |                                         v
//!     |  |  enough answered since the last one    MoreBytes: from what is known to be left, upwards
//!     |  +-------------------------------------> MoreBytes | MoreCalls
//!     +------------------------------------------------+ refused, or nothing more is to be had
//! ```
//!
//! - **Fewer calls cost nothing** as long as pages can be larger, so calls are suspected first. One call is left in any
//!   case; who is refused although it reads as seldom as that is short of bytes.
//! - **An attempt to raise a rate** ends in a refusal, unless others take less than before. It is made when as many reads
//!   were answered as make a refusal one in [`EARNED`]; and with growing steps, so that what was left by others is found
//!   soon. What is a fact of the service is not tried: nothing goes beyond the [`Quota`].
//! - **A refused read** is repeated no sooner than twice the time it was refused after. Nothing is lost by that: a shard
//!   keeps what one second brings, and the next page is larger by it.

use std::time::Duration;

use tokio::time::Instant;

use super::recent::{Answered, Between, RecentReads};

/// Most that a shard gives to all its consumers, and the calls that are made where nothing is scarce.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quota {
    pub(super) bytes: f64,
    pub(super) calls: f64,
    pub(super) usual_calls: f64,
}

/// What an answered read adds to the allowance for refusals; a refusal takes 1. In the long run one read in 80 is refused.
const EARNED: f64 = 0.0125;
/// Allowance at which a higher rate is tried, and the least that there is: after a refusal as many reads as earn 1.
const ENOUGH: f64 = 0.5;
/// Most that is saved up. More calls alone bring no bytes; they are tried when there is so much.
const SAVED: f64 = 2.0;
/// Calls a second that are there whoever else reads: one, and a little less because of other consumers' unsteady clocks.
const FEW_CALLS: f64 = 0.93;
/// Seconds between such calls; a read that is refused after so long is refused for bytes.
const FEW_CALLS_APART: f64 = 1.0 / FEW_CALLS;
const SURELY_BYTES: f64 = 0.97 * FEW_CALLS_APART;
/// Longest that a refused read waits beyond the time that it waited already, in seconds.
const LONGEST_RETRY: f64 = 10.0;
/// Seconds of its rate that a late read catches up, because the shard kept them.
const CAUGHT_UP: f64 = 1.0;
/// Reads with few calls that must be answered before calls count as what was short.
const TRIED: u32 = 5;
/// Reads at the quota that must be answered before it counts as left: a second of it may have been kept.
const HELD: u32 = 20;
/// For so many reads after bytes were short they are suspected first, unless the last suspicion was a moment ago.
const REMEMBERED: u32 = 100;
const MOMENT: usize = 20;
/// The first step of an attempt to raise bytes and calls, of a search for bytes that are known to be below what was thought,
/// what a step grows by, and the largest.
const FIRST_STEP: f64 = 0.02;
const FIRST_CALLS_STEP: f64 = 0.03;
const SEARCH_STEP: f64 = 0.05;
const STEP_GROWTH: f64 = 1.4;
const LARGEST_STEP: f64 = 0.25;
/// What is kept below an estimate; less where refusals come one after the other, as they do where several consumers press.
const BELOW: f64 = 0.975;
const YIELDED: f64 = 0.04;
const FORGOTTEN: f64 = 0.98;
/// What a steady rate rises by with each read, so that what is kept below the estimate is used up by the next attempt.
const CREEP: f64 = 0.0005;
/// The smallest part of the quota that is read at.
const SMALLEST_PART: f64 = 0.02;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Steady,
    /// Whether few calls are answered, and how many there were before.
    FewerCalls {
        before: f64,
        left: u32,
    },
    /// Bytes rise by this part a read; they were left before.
    MoreBytes {
        left: f64,
        step: f64,
        held: u32,
    },
    /// Calls rise by this part a read; they were left before.
    MoreCalls {
        left: f64,
        step: f64,
    },
}

/// What a refusal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// Too many bytes, by little: the reads before tell what is left.
    Bytes,
    /// Too many bytes, by much or for a while: the next answer tells what is left.
    BytesUnknown,
    /// Too many calls.
    Calls,
    /// Either; few calls will tell.
    Unknown,
    /// Not for anything that this consumer did: it took next to nothing.
    Others,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ShardShare {
    quota: Quota,
    /// Bytes a second.
    bytes: f64,
    /// Calls a second.
    calls: f64,
    stage: Stage,
    recent: RecentReads,
    last: Option<Answered>,
    /// Refused since the last answer: how often, and when to try again.
    refused: u32,
    retry_at: Option<Instant>,
    /// The next answer tells how many bytes are left.
    bytes_unknown: bool,
    /// Whether the last answered read took what was meant to be taken.
    pressing: bool,
    allowance: f64,
    /// Refusals of late.
    strain: f64,
    /// Reads for which bytes are suspected first.
    bytes_suspected: u32,
    calls_next: bool,
}

impl ShardShare {
    /// Nothing is known: everything is left.
    pub(super) fn new(quota: Quota) -> Self {
        Self {
            quota,
            bytes: quota.bytes,
            calls: quota.calls,
            stage: Stage::Steady,
            recent: RecentReads::default(),
            last: None,
            refused: 0,
            retry_at: None,
            bytes_unknown: false,
            pressing: false,
            allowance: 2.0 * ENOUGH,
            strain: 0.0,
            bytes_suspected: 0,
            calls_next: false,
        }
    }

    /// Bytes that a page should have that is asked for at this time.
    pub(super) fn page(&self, at: Instant) -> f64 {
        let apart = 1.0 / self.calls_made();
        let late = self.last.map_or(0.0, |last| {
            let waited = at.saturating_duration_since(last.at).as_secs_f64();
            waited - (last.bytes / self.bytes).max(apart)
        });
        self.bytes * (apart + late.clamp(0.0, CAUGHT_UP))
    }

    /// When the next page may be asked for.
    pub(super) fn due(&self) -> Option<Instant> {
        let Some(last) = self.last else { return self.retry_at };
        let paid = if self.retry_at.is_some() { 0.0 } else { last.bytes / self.bytes };
        let due = last.at + Duration::from_secs_f64(paid.max(1.0 / self.calls));
        Some(self.retry_at.map_or(due, |retry_at| retry_at.max(due)))
    }

    /// A read was answered; the largest page that it could have asked for.
    pub(super) fn answered(&mut self, read: Answered, largest: f64) {
        let before = self.last.replace(read);
        let apart = before.map_or(0.0, |before| since(before.at, read.at));
        self.allowance = (self.allowance + EARNED).min(SAVED);
        self.strain *= FORGOTTEN;
        self.bytes_suspected = self.bytes_suspected.saturating_sub(1);
        self.retry_at = None;
        if std::mem::take(&mut self.refused) > 0 {
            self.recent.clear();
        }
        self.recent.add(read);
        let meant = (self.bytes / self.calls_made()).min(largest);
        self.pressing = read.bytes >= meant / 2.0;
        if std::mem::take(&mut self.bytes_unknown)
            && let Some(before) = before
        {
            return self.search(before.bytes / apart);
        }
        if self.pressing {
            self.go_on(apart, largest);
        } else if !matches!(self.stage, Stage::FewerCalls { .. }) {
            self.stage = Stage::Steady;
        }
    }

    /// So many bytes a second were paid for: that much is left at least.
    fn search(&mut self, paid: f64) {
        self.bytes_suspected = REMEMBERED;
        self.set_bytes((0.95 * paid).min(0.95 * self.bytes));
        self.stage = Stage::MoreBytes { left: self.bytes, step: SEARCH_STEP, held: 0 };
    }

    /// What an answer changes that took what was meant to be taken.
    fn go_on(&mut self, apart: f64, largest: f64) {
        self.stage = match self.stage {
            Stage::Steady => {
                self.creep(largest);
                self.next_attempt(largest)
            }
            Stage::FewerCalls { before, left } if left > 1 => Stage::FewerCalls { before, left: left - 1 },
            Stage::FewerCalls { .. } => {
                (self.bytes_suspected, self.calls_next) = (0, true);
                self.more_bytes(SEARCH_STEP)
            }
            Stage::MoreBytes { left, held, .. } if self.bytes >= self.quota.bytes => {
                if held < HELD {
                    Stage::MoreBytes { left, step: 0.0, held: held + 1 }
                } else {
                    Stage::Steady
                }
            }
            Stage::MoreBytes { left, step, .. } => {
                self.set_bytes(self.bytes * (1.0 + step));
                Stage::MoreBytes { left, step: (step * STEP_GROWTH).min(LARGEST_STEP), held: 0 }
            }
            // Calls that are not made prove nothing.
            Stage::MoreCalls { .. } if apart * self.calls > 1.5 => Stage::Steady,
            Stage::MoreCalls { left, step } => {
                self.calls = (self.calls * (1.0 + step)).min(self.quota.calls);
                if self.calls >= self.quota.usual_calls {
                    self.calls = self.quota.calls;
                    Stage::Steady
                } else {
                    Stage::MoreCalls { left, step: (step * STEP_GROWTH).min(LARGEST_STEP) }
                }
            }
        };
    }

    fn creep(&mut self, largest: f64) {
        if self.bytes < self.quota.bytes {
            self.set_bytes(self.bytes * (1.0 + CREEP));
        }
        if self.needs_calls(largest) {
            self.calls = (self.calls * (1.0 + CREEP)).min(self.quota.calls);
        }
    }

    /// Where pages cannot grow, calls are what brings bytes.
    fn needs_calls(&self, largest: f64) -> bool {
        self.calls < self.quota.usual_calls && self.calls * largest < self.bytes
    }

    fn more_bytes(&self, step: f64) -> Stage {
        let more = self.bytes < self.quota.bytes;
        if more { Stage::MoreBytes { left: self.bytes, step, held: 0 } } else { Stage::Steady }
    }

    /// Tries more of one or the other, in turn, if a refusal can be afforded.
    fn next_attempt(&mut self, largest: f64) -> Stage {
        let bytes = self.bytes < self.quota.bytes;
        let calls = self.calls < self.quota.usual_calls;
        let enough = if bytes || self.needs_calls(largest) { ENOUGH } else { SAVED };
        if self.allowance < enough {
            return Stage::Steady;
        }
        if calls && (!bytes || self.calls_next || self.needs_calls(largest)) {
            self.calls_next = false;
            return Stage::MoreCalls { left: self.calls, step: FIRST_CALLS_STEP };
        }
        self.calls_next = true;
        self.more_bytes(FIRST_STEP)
    }

    /// A read was refused for a limit; the largest page that it could have asked for.
    pub(super) fn refused(&mut self, at: Instant, largest: f64) {
        self.refused += 1;
        self.strain += 1.0;
        self.allowance = (self.allowance - 1.0).max(-ENOUGH);
        let Some(last) = self.last else {
            let times = f64::from(self.refused.min(5));
            self.retry_at = Some(at + Duration::from_secs_f64(FEW_CALLS_APART * times));
            return;
        };
        let elapsed = since(last.at, at);
        let few = self.few_calls(largest);
        match self.blame(elapsed, few) {
            Blame::Others => {}
            Blame::Bytes => self.lower_bytes(at),
            Blame::BytesUnknown => {
                self.bytes_unknown = true;
                self.calls = self.calls_before();
                self.stage = Stage::Steady;
            }
            Blame::Calls => self.lower_calls(at),
            Blame::Unknown => {
                self.stage = Stage::FewerCalls { before: self.calls, left: TRIED };
                self.calls = few;
            }
        }
        let paid = if self.bytes_unknown { 0.0 } else { last.bytes / self.bytes };
        let wait = (2.0 * elapsed).max(paid).clamp(FEW_CALLS_APART, elapsed + LONGEST_RETRY);
        self.retry_at = Some(last.at + Duration::from_secs_f64(wait));
    }

    /// What the refusal is for, after so many seconds without an answer.
    fn blame(&self, elapsed: f64, few: f64) -> Blame {
        if !self.pressing {
            return Blame::Others;
        }
        if self.refused > 1 && elapsed >= 2.0 * SURELY_BYTES {
            return Blame::BytesUnknown;
        }
        let surely_bytes = elapsed >= SURELY_BYTES;
        match self.stage {
            Stage::MoreBytes { .. } => Blame::Bytes,
            Stage::MoreCalls { .. } => Blame::Calls,
            Stage::FewerCalls { .. } if surely_bytes => Blame::BytesUnknown,
            Stage::FewerCalls { .. } => Blame::Calls,
            Stage::Steady if surely_bytes && self.recent.len() < 4 => Blame::BytesUnknown,
            Stage::Steady if surely_bytes => Blame::Bytes,
            Stage::Steady if self.calls_made() <= 1.1 * few => Blame::Calls,
            Stage::Steady if self.bytes_suspected > 0 && self.recent.len() > MOMENT => Blame::Bytes,
            Stage::Steady => Blame::Unknown,
        }
    }

    fn lower_bytes(&mut self, at: Instant) {
        let between = self.recent.bytes(at);
        let Between { most, .. } = between.unwrap_or(Between { least: 0.0, most: self.bytes });
        let left = between.map_or(self.bytes, Between::estimate).min(self.bytes);
        let at_least = match self.stage {
            Stage::MoreBytes { left, .. } => left.min(most),
            Stage::Steady | Stage::FewerCalls { .. } | Stage::MoreCalls { .. } => 0.0,
        };
        self.set_bytes(left.max(at_least) * self.below());
        self.stage = Stage::Steady;
    }

    fn lower_calls(&mut self, at: Instant) {
        let left = self.recent.calls(at).map_or_else(|| self.calls_made(), Between::estimate);
        self.calls = match self.stage {
            Stage::MoreCalls { left: before, .. } => (left * BELOW).max(before).min(self.calls * BELOW),
            Stage::Steady | Stage::FewerCalls { .. } | Stage::MoreBytes { .. } => {
                let made = self.calls_made();
                (left.min(made) * self.below()).max(made / 2.0).max(self.fewest())
            }
        };
        self.stage = Stage::Steady;
    }

    fn set_bytes(&mut self, bytes: f64) {
        self.bytes = bytes.clamp(self.quota.bytes * SMALLEST_PART, self.quota.bytes);
    }

    /// Calls a second that are made: no more than are left, nor than are of use.
    fn calls_made(&self) -> f64 {
        self.calls.min(self.quota.usual_calls)
    }

    /// As they were before few calls were tried.
    fn calls_before(&self) -> f64 {
        match self.stage {
            Stage::FewerCalls { before, .. } => before,
            Stage::Steady | Stage::MoreBytes { .. } | Stage::MoreCalls { .. } => self.calls,
        }
    }

    fn fewest(&self) -> f64 {
        FEW_CALLS.min(self.quota.calls)
    }

    /// Calls that give what is left in the largest pages; no fewer than are there in any case.
    fn few_calls(&self, largest: f64) -> f64 {
        (1.05 * self.bytes / largest.max(1.0)).clamp(self.fewest(), self.quota.calls)
    }

    fn below(&self) -> f64 {
        (BELOW - YIELDED * (self.strain - 2.0).max(0.0)).max(0.5)
    }
}

/// Seconds from one time to a later one; never 0, which would make a rate of everything.
fn since(earlier: Instant, later: Instant) -> f64 {
    later.saturating_duration_since(earlier).max(Duration::from_millis(1)).as_secs_f64()
}
