//! Law R6 on a model of a fleet: paces as they are, a table with a token bucket, rows that are told late.
//!
//! *While there is work, no worker stays below half of an equal part of what the table gives, and no table that gives is left
//! unused, for longer than 10 s.*

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "seconds, tenths and units of a model, all small"
)]

use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::fair::{Told, advice};
use super::pace::{Pace, PaceOptions, Share};

mod r6;
mod r7;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A table that gives so many units a second from certain moments on, and keeps what one second left unused.
#[derive(Debug, Clone)]
struct Table {
    /// Capacities, each from so many seconds on.
    course: Vec<(f64, f64)>,
    left: f64,
    as_of: f64,
}

impl Table {
    fn new(course: &[(f64, f64)]) -> Self {
        Self { course: course.to_vec(), left: course[0].1, as_of: 0.0 }
    }

    fn gives(&self, at: f64) -> f64 {
        self.course.iter().rev().find(|(from, _)| *from <= at).map_or(0.0, |(_, units)| *units)
    }

    /// Takes the units or refuses them. A request larger than a second's worth is taken when nothing is missing.
    fn take(&mut self, units: f64, at: f64) -> bool {
        let capacity = self.gives(at);
        self.left = (self.left + capacity * (at - self.as_of)).min(capacity);
        self.as_of = at;
        let takes = self.left >= units.min(capacity);
        if takes {
            self.left -= units;
        }
        takes
    }
}

/// What a worker writes with.
#[derive(Debug, Clone, Copy)]
enum Budget {
    None,
    /// Everybody gets an equal share of this.
    Firm(f64),
    Soft(f64),
}

#[derive(Debug)]
struct Fleet {
    begun: Instant,
    table: Table,
    rng: SmallRng,
    workers: Vec<Worker>,
    /// Largest request of one item, in units.
    item_units: u32,
    answers: BinaryHeap<Answer>,
    next_answer: u64,
}

#[derive(Debug)]
struct Worker {
    pace: Pace,
    starts: f64,
    in_flight: u32,
    next_item: f64,
    /// Rows: what the heartbeat told last, and what was told before that.
    told: Told,
    told_at: f64,
    looks_at: f64,
    used: f64,
    /// Units taken and refused, by tenths of a second.
    taken: Vec<f64>,
    refused: Vec<f64>,
    waiting: f64,
}

/// An answer that is on its way, the earliest first.
#[derive(Debug, PartialEq)]
struct Answer {
    at: f64,
    number: u64,
    worker: usize,
    units: f64,
    charged: f64,
    taken: bool,
}

impl Eq for Answer {}

impl Ord for Answer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.total_cmp(&self.at).then(other.number.cmp(&self.number))
    }
}

impl PartialOrd for Answer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

const TENTH: f64 = 0.1;
const REQUESTS_IN_FLIGHT: u32 = 4;
const HEARTBEAT_SECONDS: f64 = 10.0 / 3.0;
const LOOK_SECONDS: f64 = 0.5;
/// A change is told early, but no more often than this.
const TOLD_APART_SECONDS: f64 = 1.0;

impl Fleet {
    /// Workers that start so many seconds apart, with more to write than can be written.
    fn new((workers, apart): (usize, f64), budget: Budget, course: &[(f64, f64)], seed: u64) -> Self {
        let begun = Instant::now();
        let mut rng = SmallRng::seed_from_u64(seed);
        let shared = |units: f64| units / f64::from(u32::try_from(workers).unwrap());
        let workers = (0..workers)
            .map(|number| {
                let starts = apart * f64::from(u32::try_from(number).unwrap()) + rng.random_range(0.0..0.05);
                let now = begun + seconds(starts);
                let mut pace = Pace::new(PaceOptions::default(), now);
                match budget {
                    Budget::None => {}
                    Budget::Firm(units) => {
                        pace.set_share(Some(Share { units: shared(units), firm: true }), now)
                    }
                    Budget::Soft(units) => {
                        pace.set_share(Some(Share { units: shared(units), firm: false }), now)
                    }
                }
                Worker {
                    pace,
                    starts,
                    in_flight: 0,
                    next_item: 1.0,
                    told: Told { used: 0.0, demand: 0.0 },
                    told_at: f64::NEG_INFINITY,
                    looks_at: starts + rng.random_range(0.0..LOOK_SECONDS),
                    used: 0.0,
                    taken: vec![0.0],
                    refused: vec![0.0],
                    waiting: 1e6,
                }
            })
            .collect();
        let table = Table::new(course);
        Self { begun, table, rng, workers, item_units: 1, answers: BinaryHeap::new(), next_answer: 0 }
    }

    fn with_items_of(mut self, units: u32) -> Self {
        self.item_units = units;
        self
    }

    /// With all workers but the first no more than this waits at a time, although there is more to write.
    fn with_waiting(mut self, units: f64) -> Self {
        for worker in self.workers.iter_mut().skip(1) {
            worker.waiting = units;
        }
        self
    }

    /// Runs until so many seconds after the beginning, a millisecond at a time.
    fn run(&mut self, until: f64) {
        let mut at = (self.workers[0].taken.len() - 1) as f64 * TENTH;
        let mut step = 0u64;
        let from = at;
        while at < until {
            self.answer(at);
            for worker in 0..self.workers.len() {
                if at >= self.workers[worker].starts {
                    self.look(worker, at);
                    self.write(worker, at);
                }
            }
            step += 1;
            at = from + step as f64 * 0.001;
            if step.is_multiple_of(100) {
                for worker in &mut self.workers {
                    worker.taken.push(0.0);
                    worker.refused.push(0.0);
                }
            }
        }
    }

    fn answer(&mut self, at: f64) {
        while self.answers.peek().is_some_and(|answer| answer.at <= at) {
            let Some(answer) = self.answers.pop() else { break };
            let now = self.begun + seconds(at);
            let worker = &mut self.workers[answer.worker];
            worker.in_flight -= 1;
            if answer.taken {
                worker.pace.consumed(answer.units, answer.units, now);
            } else {
                worker.pace.refused(answer.units, self.begun + seconds(answer.charged), now);
            }
        }
    }

    /// Reads the rows, and tells its own.
    fn look(&mut self, me: usize, at: f64) {
        if at < self.workers[me].looks_at {
            return;
        }
        let now = self.begun + seconds(at);
        let others: Vec<Told> = self
            .workers
            .iter()
            .enumerate()
            .filter(|(other, worker)| *other != me && worker.starts <= at && worker.told_at.is_finite())
            .map(|(_, worker)| worker.told)
            .collect();
        let worker = &mut self.workers[me];
        worker.looks_at = at + LOOK_SECONDS;
        let used = worker.pace.consumption(now);
        worker.used += (used - worker.used) * 0.4;
        let demand = worker.pace.demand(worker.waiting, now);
        let mine = Told { used: worker.used, demand };
        let before = u32::try_from(me.min(others.len())).unwrap();
        worker.pace.advise(advice(mine, &others, before), now);
        let moved = (mine.used - worker.told.used).abs() > 0.25 * worker.told.used;
        let early = moved && at >= worker.told_at + TOLD_APART_SECONDS;
        if early || at >= worker.told_at + HEARTBEAT_SECONDS {
            worker.told = mine;
            worker.told_at = at;
        }
    }

    fn write(&mut self, me: usize, at: f64) {
        let now = self.begun + seconds(at);
        loop {
            let worker = &mut self.workers[me];
            if worker.in_flight == REQUESTS_IN_FLIGHT {
                return;
            }
            let most = worker.pace.request_units(now).min(25.0 * worker.next_item);
            let units = (most / worker.next_item).floor().max(1.0) * worker.next_item;
            if worker.pace.ready_at(units, now).is_none_or(|at| at > now) {
                return;
            }
            worker.pace.charge(units, now);
            worker.in_flight += 1;
            worker.next_item = f64::from(self.rng.random_range(1..=self.item_units));
            let taken = self.table.take(units, at);
            let tenth = worker.taken.len() - 1;
            if taken {
                worker.taken[tenth] += units;
            } else {
                worker.refused[tenth] += units;
            }
            self.next_answer += 1;
            let latency = self.rng.random_range(0.003..0.015);
            let number = self.next_answer;
            self.answers.push(Answer { at: at + latency, number, worker: me, units, charged: at, taken });
        }
    }

    /// Units that a worker wrote from one second to another.
    fn written_by(&self, me: usize, from: f64, to: f64) -> f64 {
        let tenth = |at: f64| ((at / TENTH).round() as usize).min(self.workers[me].taken.len());
        self.workers[me].taken[tenth(from)..tenth(to)].iter().sum()
    }

    fn written(&self, from: f64, to: f64) -> f64 {
        (0..self.workers.len()).map(|me| self.written_by(me, from, to)).sum()
    }

    fn refused_part(&self, from: f64, to: f64) -> f64 {
        let tenth = |at: f64| (at / TENTH).round() as usize;
        let refused: f64 = self
            .workers
            .iter()
            .map(|worker| worker.refused[tenth(from)..tenth(to)].iter().sum::<f64>())
            .sum();
        refused / (refused + self.written(from, to))
    }

    /// The first second from which on, for three seconds, the table is used at this rate.
    fn seconds_to(&self, units: f64, from: f64, to: f64) -> Option<f64> {
        let mut at = from;
        while at + 3.0 <= to {
            if self.written(at, at + 3.0) >= units * 3.0 {
                return Some(at - from);
            }
            at += TENTH;
        }
        None
    }
}
