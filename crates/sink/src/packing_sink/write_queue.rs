//! Which items are tried together, and when each is tried again. **Pure** but for the jitter handed in.
//!
//! Whether a key may be written to is the governor's to say: what waits for a hot one lets the others pass (law R7). What was
//! throttled is tried again as soon as the governor lets it, without a delay of its own: a table that gives again must not
//! find everybody asleep (law R6). What had no answer has a backoff, each item its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::rngs::SmallRng;
use sluicegate_checkpoint::RetryPolicy;
use sluicegate_checkpoint::retry::Delays;
use tokio::time::Instant;

use crate::governor::units_of;
use crate::item::Item;
use crate::store::MAX_WRITE_ITEMS;

/// Most bytes of items in one request. DynamoDB takes 16 MB; a request saves no write units, only round
/// trips, and each lives in memory twice more while it is sent (as attribute values, and as base64), so 2 MiB
/// is plenty. A single item is sent whatever it takes.
const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// Most items of full keys that are passed over in search of others.
const MOST_PASSED: usize = 1_000;

/// Items that are not durable yet.
pub(super) struct WriteQueue {
    policy: RetryPolicy,
    ready: VecDeque<Waiting>,
    /// By when each is due and a number that keeps them apart.
    later: BTreeMap<(Instant, u64), Waiting>,
    next_number: u64,
}

struct Waiting {
    item: Arc<Item>,
    /// Begun by its first failure.
    delays: Option<Delays>,
    /// Some item of the request it was in was rejected: it goes by itself until that one is found.
    alone: bool,
    /// It was left over: it goes with items of its key alone, so that a refusal says whose limit it was.
    key_apart: bool,
}

impl Waiting {
    fn units(&self) -> f64 {
        units_of(self.item.bytes())
    }

    fn key(&self) -> String {
        self.item.header.key().pk
    }
}

/// Whether so many units of a partition key may go now.
pub(super) type IsFree<'a> = &'a dyn Fn(&str, f64) -> bool;

/// A request that is being filled.
#[derive(Default)]
struct Filling {
    waiting: Vec<Waiting>,
    bytes: usize,
    units: f64,
    /// It holds the items of one key.
    key: Option<String>,
}

impl Filling {
    /// Whether an item fits beside those that are there.
    fn fits(&self, next: &Waiting, most_units: f64) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        let alone = next.alone || self.waiting.first().is_some_and(|first| first.alone);
        let apart = match &self.key {
            Some(key) => *key != next.key(),
            None => next.key_apart,
        };
        !alone
            && !apart
            && self.waiting.len() < MAX_WRITE_ITEMS
            && self.bytes + next.item.bytes() <= MAX_REQUEST_BYTES
            && self.units + next.units() <= most_units
    }

    fn push(&mut self, next: Waiting, one_key: bool) {
        if self.waiting.is_empty() && (one_key || next.key_apart) {
            self.key = Some(next.key());
        }
        self.bytes += next.item.bytes();
        self.units += next.units();
        self.waiting.push(next);
    }
}

/// Items that are tried together.
pub(super) struct Request {
    items: Vec<Arc<Item>>,
    waiting: Vec<Waiting>,
}

impl Request {
    /// What it will take, by partition key, in write capacity units.
    pub(super) fn units(&self) -> Vec<(String, f64)> {
        by_key(self.items.iter())
    }

    /// What these of its items take, by partition key.
    pub(super) fn units_by_key(&self, indices: &[usize]) -> Vec<(String, f64)> {
        by_key(indices.iter().filter_map(|index| self.items.get(*index)))
    }

    /// What these of its items take.
    pub(super) fn units_at(&self, indices: &[usize]) -> f64 {
        indices.iter().filter_map(|index| self.items.get(*index)).map(|item| units_of(item.bytes())).sum()
    }

    /// What to write.
    pub(super) fn items(&self) -> &[Arc<Item>] {
        &self.items
    }

    /// How many items it has.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The items by key, for the operator.
    pub(super) fn names(&self) -> String {
        match self.items.as_slice() {
            [item] => format!("item {}", item.header.key()),
            items => format!("{} items", items.len()),
        }
    }
}

impl WriteQueue {
    pub(super) fn new(items: Vec<Item>, policy: RetryPolicy) -> Self {
        let ready = items
            .into_iter()
            .map(|item| Waiting { item: Arc::new(item), delays: None, alone: false, key_apart: false })
            .collect();
        Self { policy, ready, later: BTreeMap::new(), next_number: 0 }
    }

    /// The next request of what is due, if anything is: of at most so many write units, or a single item. Items whose keys
    /// are free go first; if none is, and `even_if_full`, those of the first key go. Keys differ, because those of a batch's
    /// items do.
    pub(super) fn take(
        &mut self,
        now: Instant,
        most_units: f64,
        (is_free, even_if_full): (IsFree<'_>, bool),
    ) -> Option<Request> {
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now
        {
            self.ready.push_back(first.remove());
        }
        let mut filling = Filling::default();
        // What is passed over: keys that are not free are asked about once.
        let (mut passed, mut full_keys) = (VecDeque::new(), BTreeSet::new());
        while passed.len() < MOST_PASSED
            && let Some(next) = self.ready.pop_front()
        {
            let key = next.key();
            if full_keys.contains(&key) || !is_free(&key, next.units()) {
                full_keys.insert(key);
                passed.push_back(next);
            } else if filling.fits(&next, most_units) {
                filling.push(next, false);
            } else {
                self.ready.push_front(next);
                break;
            }
        }
        while let Some(last) = passed.pop_back() {
            self.ready.push_front(last);
        }
        if filling.waiting.is_empty() && even_if_full {
            while let Some(next) = self.ready.front()
                && filling.fits(next, most_units)
                && let Some(next) = self.ready.pop_front()
            {
                filling.push(next, true);
            }
        }
        let waiting = filling.waiting;
        let items = waiting.iter().map(|waiting| Arc::clone(&waiting.item)).collect();
        (!waiting.is_empty()).then_some(Request { items, waiting })
    }

    /// What everything that is left takes, in write capacity units.
    pub(super) fn units(&self) -> f64 {
        let waiting = self.ready.iter().chain(self.later.values());
        waiting.map(|waiting| waiting.units()).sum()
    }

    /// When something is due that is not yet.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((due, _), _)| *due)
    }

    /// Gives up what waits under an aggregate key; returns what it would have taken, in write capacity units.
    pub(super) fn give_up(&mut self, aggregate_key: &str) -> f64 {
        let before = self.units();
        let other = |waiting: &Waiting| waiting.item.header.partition.aggregate_key != aggregate_key;
        self.ready.retain(other);
        self.later.retain(|_, waiting| other(waiting));
        before - self.units()
    }

    /// Puts the items of an answered request back that were left over; the others are durable.
    pub(super) fn left_over(&mut self, request: Request, indices: &[usize]) {
        for (index, waiting) in request.waiting.into_iter().enumerate().rev() {
            if indices.contains(&index) {
                self.ready.push_front(Waiting { key_apart: true, ..waiting });
            }
        }
    }

    /// Puts all items of a throttled request back.
    pub(super) fn refused(&mut self, request: Request) {
        for waiting in request.waiting.into_iter().rev() {
            self.ready.push_front(waiting);
        }
    }

    /// Puts all items of a failed request back.
    pub(super) fn failed(&mut self, request: Request, now: Instant, rng: &mut SmallRng) {
        for waiting in request.waiting {
            self.again(waiting, now, rng);
        }
    }

    /// Puts the items of a rejected request back to be tried at once, each by itself: the answer does not say
    /// which of them was meant.
    pub(super) fn one_by_one(&mut self, request: Request) {
        for waiting in request.waiting.into_iter().rev() {
            self.ready.push_front(Waiting { alone: true, ..waiting });
        }
    }

    fn again(&mut self, mut waiting: Waiting, now: Instant, rng: &mut SmallRng) {
        let delay = waiting.delays.get_or_insert_with(|| self.policy.delays()).next_delay(rng);
        self.next_number += 1;
        self.later.insert((now + delay, self.next_number), waiting);
    }
}

/// What items take, by partition key.
fn by_key<'a>(items: impl Iterator<Item = &'a Arc<Item>>) -> Vec<(String, f64)> {
    let mut units: BTreeMap<String, f64> = BTreeMap::new();
    for item in items {
        *units.entry(item.header.key().pk).or_default() += units_of(item.bytes());
    }
    units.into_iter().collect()
}
