//! A model of a shard that several consumers read: two token buckets that keep what one second brings, as the service and
//! the embedded backend have them; and a consumer with a backlog that reads it at the pace under test.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::{MOST_BYTES, MOST_RECORDS, Pace, PageRequest, ReadPolicy};
use crate::deaggregate::cursor::Answer;
use crate::stream::{Fetched, RecordPage};

pub(super) const MIB: f64 = 1_048_576.0;

/// How the others take what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// The shard's limits are what is left: theirs are set apart.
    Apart,
    /// They read at even intervals from the same buckets, and go without what is refused.
    Polling,
}

/// What is left for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spell {
    pub(super) seconds: f64,
    /// Calls a second of the others.
    pub(super) calls: f64,
    /// The part of the bytes that the others take.
    pub(super) bytes: f64,
}

/// What came of a spell; the first seconds do not count for the part.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    /// Bytes read by bytes left.
    pub(super) part: f64,
    pub(super) answered: u32,
    pub(super) refused: u32,
    /// The largest reservation.
    pub(super) memory: usize,
}

#[derive(Debug)]
struct Bucket {
    balance: f64,
    rate: f64,
    at: f64,
}

impl Bucket {
    fn full(rate: f64) -> Self {
        Self { balance: rate, rate, at: 0.0 }
    }

    fn fill(&mut self, at: f64) {
        self.balance = (self.balance + self.rate * (at - self.at)).min(self.rate.max(1.0));
        self.at = at;
    }
}

/// A backlog of records of one size, and who reads it.
#[derive(Debug)]
pub(super) struct Model {
    others: Others,
    bytes: Bucket,
    calls: Bucket,
    record_bytes: usize,
    free: usize,
    pace: Pace,
    rng: SmallRng,
    began: Instant,
    ours: f64,
    theirs: f64,
}

/// Records are at least this long: a partition key has a character.
const SHORTEST: usize = 1;

impl Model {
    pub(super) fn new(
        policy: ReadPolicy,
        others: Others,
        record_bytes: usize,
        free: usize,
        seed: u64,
    ) -> Self {
        Self {
            others,
            bytes: Bucket::full(2.0 * MIB),
            calls: Bucket::full(5.0),
            record_bytes: record_bytes.max(SHORTEST),
            free,
            pace: Pace::new(policy),
            rng: SmallRng::seed_from_u64(seed),
            began: Instant::now(),
            ours: 0.0,
            theirs: 0.0,
        }
    }

    /// Reads for a while; what is read in the first `settling` seconds does not count.
    pub(super) fn read(&mut self, from: f64, spell: Spell, settling: f64) -> Outcome {
        let (end, mut outcome) = (from + spell.seconds, Outcome::default());
        let theirs = self.begin(from, spell);
        let (mut read, mut largest) = (0.0, 0.0_f64);
        loop {
            let at = self.ours.min(self.theirs);
            if at >= end {
                break;
            }
            self.bytes.fill(at);
            self.calls.fill(at);
            if self.theirs <= self.ours {
                self.take(theirs);
                self.theirs = at + (1.0 + self.rng.random_range(-0.05..0.05)) / spell.calls;
                continue;
            }
            let request = self.pace.request(self.instant(at), self.free);
            outcome.memory = outcome.memory.max(request.memory_bytes);
            let most = self.pace.largest.min(MOST_RECORDS * self.record_bytes);
            largest = largest.max(super::float(most));
            match self.page(request) {
                Some(page) => {
                    let counts = at >= from + settling;
                    read += if counts { super::float(page.fetched.bytes) } else { 0.0 };
                    outcome.answered += 1;
                    let answer = Answer { fetched: page.fetched, behind_latest: page.behind_latest };
                    self.pace.seen(&answer, self.instant(at));
                }
                None => {
                    outcome.refused += 1;
                    self.pace.refused(self.instant(at));
                }
            }
            let wait = self.pace.wait(self.instant(at)).as_secs_f64();
            self.ours = at + wait + self.rng.random_range(0.0..0.003);
        }
        let left = ((1.0 - spell.bytes) * 2.0 * MIB).min((5.0 - spell.calls) * largest);
        outcome.part = read / (left * (spell.seconds - settling));
        outcome
    }

    /// Bytes of one of the others' reads.
    fn begin(&mut self, from: f64, spell: Spell) -> f64 {
        self.theirs = f64::INFINITY;
        if self.others == Others::Apart {
            self.bytes.rate = 2.0 * MIB * (1.0 - spell.bytes);
            self.calls.rate = 5.0 - spell.calls;
        } else if spell.calls > 0.0 {
            self.theirs = from + self.rng.random_range(0.0..1.0) / spell.calls;
        }
        spell.bytes * 2.0 * MIB / spell.calls.max(1.0)
    }

    fn take(&mut self, bytes: f64) -> bool {
        let answered = self.bytes.balance >= 0.0 && self.calls.balance >= 1.0;
        if answered {
            self.calls.balance -= 1.0;
            self.bytes.balance -= bytes;
        }
        answered
    }

    fn page(&mut self, request: PageRequest) -> Option<RecordPage> {
        let most = (MOST_BYTES / self.record_bytes).max(1);
        let records = usize::try_from(request.records).unwrap().min(most);
        let bytes = records * self.record_bytes;
        self.take(super::float(bytes)).then(|| RecordPage {
            fetched: Fetched { records, bytes },
            behind_latest: Duration::from_secs(60),
            ..RecordPage::default()
        })
    }

    fn instant(&self, at: f64) -> Instant {
        self.began + Duration::from_secs_f64(at)
    }
}
