//! What a seed stands for: everything that is done to the fleet, the stream and the backend, and when. **Pure.**
//!
//! Acts are dealt like cards, so that every kind comes early and often, in an order that the seed shuffles. Numbers in them
//! choose among those that are there when the time comes.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::trouble::Trouble;

/// Something that is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    /// SIGKILL to a worker.
    Kill(u32),
    /// SIGSTOP to a worker, and SIGCONT after so long.
    Freeze(u32, Duration),
    /// A worker does not reach DynamoDB for so long.
    Partition(u32, Duration),
    /// SIGTERM to a worker.
    Leave(u32),
    /// A worker starts.
    Join,
    /// A shard is split in the middle.
    Split(u32),
    /// Two neighbouring shards are merged.
    Merge(u32),
    /// The backend misbehaves for so long.
    Trouble(Trouble, Duration),
}

/// How the fleet is, and for how long it is disturbed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// How long acts come.
    pub lasts: Duration,
    /// Workers at the beginning.
    pub workers: usize,
    /// Shards at the beginning.
    pub shards: usize,
    /// The workers' `failover_time`.
    pub failover_time: Duration,
}

/// What is done when, in order of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Script(pub Vec<(Duration, Act)>);

/// Time between two acts, at most and on average.
const RHYTHM: Duration = Duration::from_secs(4);
/// The longest outage of the table, which is the one of a long script.
const OUTAGE: Duration = Duration::from_secs(60);
/// Workers that run at any time, and that may be frozen or cut off at once.
const LEAST_RUNNING: usize = 2;
const MOST_FROZEN: usize = 3;

/// A kind of act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Card {
    Kill,
    Freeze,
    Partition,
    Leave,
    Join,
    Split,
    Merge,
    Trouble,
}

/// One round of cards.
const DECK: [Card; 14] = [
    Card::Kill,
    Card::Kill,
    Card::Kill,
    Card::Freeze,
    Card::Freeze,
    Card::Partition,
    Card::Leave,
    Card::Join,
    Card::Split,
    Card::Merge,
    Card::Trouble,
    Card::Trouble,
    Card::Trouble,
    Card::Trouble,
];

/// What the acts so far have led to.
#[derive(Debug)]
struct State {
    workers: usize,
    shards: usize,
    /// When those that are frozen, or do not reach DynamoDB, go on.
    frozen: Vec<Duration>,
    /// When those come that take the place of others.
    replacements: Vec<Duration>,
}

impl Script {
    /// Draws the script of a seed.
    pub fn of(seed: u64, frame: &Frame) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut acts = vec![outage(&mut rng, frame)];
        let mut state = State {
            workers: frame.workers,
            shards: frame.shards,
            frozen: Vec::new(),
            replacements: Vec::new(),
        };
        let mut troubles = Trouble::deck(&mut rng);
        let mut deck = Vec::new();
        let mean = RHYTHM.min(frame.lasts / u32::try_from(DECK.len() + 4).unwrap_or(u32::MAX));
        let mut now = mean / 2;
        while now < frame.lasts {
            acts.extend(state.until(now).into_iter().map(|at| (at, Act::Join)));
            if deck.is_empty() {
                deck.extend(DECK);
                deck.shuffle(&mut rng);
            }
            let card = deck.pop().unwrap_or(Card::Join);
            let left = frame.lasts - now;
            let act = match card {
                Card::Trouble => {
                    if troubles.is_empty() {
                        troubles = Trouble::deck(&mut rng);
                    }
                    let lasts = Duration::from_millis(rng.random_range(2_000..8_000)).min(left);
                    troubles.pop().map_or(Act::Join, |trouble| Act::Trouble(trouble, lasts))
                }
                Card::Split | Card::Merge => state.reshard(card, frame, &mut rng),
                Card::Kill | Card::Freeze | Card::Partition | Card::Leave | Card::Join => {
                    state.disturb(card, now, frame, &mut rng)
                }
            };
            acts.push((now, act));
            now += mean.mul_f64(rng.random_range(0.5..1.5));
        }
        acts.extend(state.until(frame.lasts).into_iter().map(|at| (at, Act::Join)));
        acts.sort_by_key(|(at, _)| *at);
        Self(acts)
    }
}

/// The outage of the analytics table: a minute, in short scripts a fifth of them, somewhere in the middle.
fn outage(rng: &mut SmallRng, frame: &Frame) -> (Duration, Act) {
    let lasts = OUTAGE.min(frame.lasts / 5);
    let at = (frame.lasts - lasts).mul_f64(rng.random_range(0.3..0.7));
    let silent = rng.random();
    (at, Act::Trouble(Trouble::Outage { silent }, lasts))
}

impl State {
    /// Lets time pass; when replacements came meanwhile.
    fn until(&mut self, now: Duration) -> Vec<Duration> {
        self.frozen.retain(|until| *until > now);
        let (come, wait) = std::mem::take(&mut self.replacements).into_iter().partition(|at| *at <= now);
        self.replacements = wait;
        self.workers += come.len();
        come
    }

    fn reshard(&mut self, wanted: Card, frame: &Frame, rng: &mut SmallRng) -> Act {
        let (least, most) = (frame.shards.div_ceil(2).max(2), frame.shards + frame.shards.div_ceil(2));
        let split = if wanted == Card::Split { self.shards < most } else { self.shards <= least };
        if split {
            self.shards += 1;
            Act::Split(rng.random())
        } else {
            self.shards -= 1;
            Act::Merge(rng.random())
        }
    }

    /// What is done to workers. One that is gone is replaced after a while, if it leaves too few.
    fn disturb(&mut self, wanted: Card, now: Duration, frame: &Frame, rng: &mut SmallRng) -> Act {
        let running = self.workers - self.frozen.len();
        let most = frame.workers + frame.workers.div_ceil(3);
        match wanted {
            Card::Freeze | Card::Partition if running > LEAST_RUNNING && self.frozen.len() < MOST_FROZEN => {
                let left = (frame.lasts - now).min(frame.failover_time * 3);
                let lasts = left.mul_f64(rng.random_range(0.1..1.0));
                self.frozen.push(now + lasts);
                let number = rng.random();
                if wanted == Card::Freeze {
                    Act::Freeze(number, lasts)
                } else {
                    Act::Partition(number, lasts)
                }
            }
            Card::Kill | Card::Leave if running > LEAST_RUNNING => {
                self.workers -= 1;
                if self.workers + self.replacements.len() < frame.workers {
                    self.replacements.push(now + frame.failover_time.mul_f64(rng.random_range(0.2..2.0)));
                }
                if wanted == Card::Kill { Act::Kill(rng.random()) } else { Act::Leave(rng.random()) }
            }
            Card::Join if self.workers + self.replacements.len() >= most => {
                self.workers -= 1;
                Act::Leave(rng.random())
            }
            Card::Kill
            | Card::Freeze
            | Card::Partition
            | Card::Leave
            | Card::Join
            | Card::Split
            | Card::Merge
            | Card::Trouble => {
                self.workers += 1;
                Act::Join
            }
        }
    }
}

/// Which of them a number chooses.
pub fn choose<T>(from: &[T], number: u32) -> Option<&T> {
    let count = u32::try_from(from.len()).ok().filter(|count| *count > 0)?;
    from.get(usize::try_from(number % count).ok()?)
}

/// What the backend does at a moment: everything that has begun and not ended.
pub fn troubles_at(script: &Script, now: Duration) -> Vec<Trouble> {
    let active = |(at, act): &(Duration, Act)| match act {
        Act::Trouble(trouble, lasts) => (*at <= now && now < *at + *lasts).then_some(*trouble),
        Act::Kill(_)
        | Act::Freeze(..)
        | Act::Partition(..)
        | Act::Leave(_)
        | Act::Join
        | Act::Split(_)
        | Act::Merge(_) => None,
    };
    script.0.iter().filter_map(active).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::chaos::trouble::Victim;

    fn is_outage(act: &Act) -> bool {
        matches!(act, Act::Trouble(Trouble::Outage { .. }, _))
    }

    fn count(script: &Script, kind: impl Fn(&Act) -> bool) -> usize {
        script.0.iter().filter(|(_, act)| kind(act)).count()
    }

    fn frame(seconds: u64) -> Frame {
        let lasts = Duration::from_secs(seconds);
        Frame { lasts, workers: 6, shards: 16, failover_time: Duration::from_secs(3) }
    }

    #[test]
    fn a_seed_has_one_script_and_another_seed_another() {
        let frame = frame(300);
        assert_eq!(Script::of(7, &frame), Script::of(7, &frame));
        assert_ne!(Script::of(7, &frame), Script::of(8, &frame));
    }

    #[test]
    fn even_a_short_script_holds_every_kind_of_act() {
        for seed in 0..200 {
            let script = Script::of(seed, &frame(40));
            let kinds: [fn(&Act) -> bool; 8] = [
                |act| matches!(act, Act::Kill(_)),
                |act| matches!(act, Act::Freeze(..)),
                |act| matches!(act, Act::Partition(..)),
                |act| matches!(act, Act::Leave(_)),
                |act| matches!(act, Act::Join),
                |act| matches!(act, Act::Split(_)),
                |act| matches!(act, Act::Merge(_)),
                |act| matches!(act, Act::Trouble(..)) && !is_outage(act),
            ];
            for (at, kind) in kinds.iter().enumerate() {
                assert!(count(&script, kind) > 0, "kind {at} of seed {seed}");
            }
        }
    }

    #[test]
    fn one_outage_lasts_a_minute_or_a_fifth_of_a_short_script() {
        for (seconds, expected) in [(600, 60), (300, 60), (50, 10)] {
            let script = Script::of(seconds, &frame(seconds));
            let outages: Vec<_> = script.0.iter().filter(|(_, act)| is_outage(act)).collect();
            let [(at, Act::Trouble(_, lasts))] = outages.as_slice() else { panic!("{outages:?}") };
            assert_eq!(lasts.as_secs(), expected);
            assert!(*at + *lasts < Duration::from_secs(seconds));
        }
    }

    #[test]
    fn in_a_long_script_all_services_are_troubled() {
        let script = Script::of(3, &frame(300));
        for victim in Victim::ALL {
            let troubled = |act: &Act| matches!(act, Act::Trouble(trouble, _) if trouble.victim() == victim);
            assert!(count(&script, troubled) > 0, "{victim:?}");
        }
    }

    /// Plays it, and looks at how many workers and shards there are.
    #[test]
    fn acts_come_in_order_end_in_time_and_leave_enough_workers_and_shards() {
        for seed in 0..100 {
            let frame = frame(300);
            let (mut workers, mut shards, mut last) = (frame.workers, frame.shards, Duration::ZERO);
            let mut frozen: Vec<Duration> = Vec::new();
            for (at, act) in Script::of(seed, &frame).0 {
                assert!(last <= at && at <= frame.lasts, "{act:?} at {at:?}");
                last = at;
                frozen.retain(|until| *until > at);
                match act {
                    Act::Kill(_) | Act::Leave(_) => workers -= 1,
                    Act::Join => workers += 1,
                    Act::Freeze(_, lasts) | Act::Partition(_, lasts) => {
                        assert!(lasts <= frame.failover_time * 3 && at + lasts <= frame.lasts);
                        frozen.push(at + lasts);
                    }
                    Act::Split(_) => shards += 1,
                    Act::Merge(_) => shards -= 1,
                    Act::Trouble(_, lasts) => assert!(at + lasts <= frame.lasts),
                }
                assert!(workers >= LEAST_RUNNING + frozen.len() && workers <= 9, "{workers} of seed {seed}");
                assert!((8..=24).contains(&shards), "{shards} of seed {seed}");
            }
        }
    }

    #[test]
    fn a_number_chooses_one_of_those_that_are_there() {
        assert_eq!(
            [0, 4, 5].map(|number| choose(&["a", "b", "c"], number)),
            [Some(&"a"), Some(&"b"), Some(&"c")]
        );
        assert_eq!(choose::<u8>(&[], 7), None);
    }
}
