//! Which items are tried together, and when each is tried again. **Pure** but for the jitter handed in.
//!
//! Each item has a backoff of its own: one hot partition's items wait while the others go on.

use std::collections::{BTreeMap, VecDeque};
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
}

/// Items that are tried together.
pub(super) struct Request {
    items: Vec<Arc<Item>>,
    waiting: Vec<Waiting>,
}

impl Request {
    /// What it will take, by partition key, in write capacity units.
    pub(super) fn units(&self) -> Vec<(String, f64)> {
        let mut units: BTreeMap<String, f64> = BTreeMap::new();
        for item in &self.items {
            *units.entry(item.header.key().pk).or_default() += units_of(item.bytes());
        }
        units.into_iter().collect()
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
            .map(|item| Waiting { item: Arc::new(item), delays: None, alone: false })
            .collect();
        Self { policy, ready, later: BTreeMap::new(), next_number: 0 }
    }

    /// The next request of what is due, if anything is: of at most so many write units, or a single item. Keys differ,
    /// because those of a batch's items do.
    pub(super) fn take(&mut self, now: Instant, most_units: Option<f64>) -> Option<Request> {
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now
        {
            self.ready.push_back(first.remove());
        }
        let mut waiting: Vec<Waiting> = Vec::new();
        let (mut bytes, mut units) = (0, 0.0);
        while let Some(next) = self.ready.front() {
            bytes += next.item.bytes();
            units += units_of(next.item.bytes());
            let alone = next.alone || waiting.first().is_some_and(|first| first.alone);
            let full = waiting.len() == MAX_WRITE_ITEMS || bytes > MAX_REQUEST_BYTES || alone;
            let full = full || most_units.is_some_and(|most| units > most);
            if full && !waiting.is_empty() {
                break;
            }
            waiting.extend(self.ready.pop_front());
        }
        let items = waiting.iter().map(|waiting| Arc::clone(&waiting.item)).collect();
        (!waiting.is_empty()).then_some(Request { items, waiting })
    }

    /// What everything that is left takes, in write capacity units.
    pub(super) fn units(&self) -> f64 {
        let waiting = self.ready.iter().chain(self.later.values());
        waiting.map(|waiting| units_of(waiting.item.bytes())).sum()
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

    /// Puts the unprocessed items of an answered request back; the others are durable.
    pub(super) fn unprocessed(
        &mut self,
        request: Request,
        indices: &[usize],
        now: Instant,
        rng: &mut SmallRng,
    ) {
        for (index, waiting) in request.waiting.into_iter().enumerate() {
            if indices.contains(&index) {
                self.again(waiting, now, rng);
            }
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
