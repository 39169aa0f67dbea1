//! How large the next batch should be so that its items are full (pure).
//!
//! Every aggregate key of a batch has items of its own, and of each key's items the last one takes what is left. A batch
//! that is cut just before a key would need one item more fills its items; a little larger, and one of them is nearly
//! empty. How much is stored for a payload byte, and of which keys, is known only after packing, so the last batches that
//! were stored are taken as a sample: *what would they have filled, had they been larger or smaller?*
//!
//! The smallest size that promises [`GOAL`] is taken, because a smaller batch costs less memory and less to deliver again;
//! if none does, the one that promises most. With many small keys that is the largest. This is a forecast, not a promise:
//! what a batch holds is recorded in its cut, and nothing depends on how it came about.

use std::collections::VecDeque;

use sluicegate_sink::GroupSizes;

/// The fill that is aimed at.
pub const GOAL: f64 = 0.92;

/// The smallest target is this part of the largest: where nothing compresses that is a full item and more, and where one key
/// has the whole shard its group is written again in a second if events of it can never be stored.
const SMALLEST_PART: usize = 32;
/// A session's first batch is this part of the largest. Batches after it are at most [`SAMPLE_PART`] of the largest until one of
/// them can be judged by: what compresses, or has many keys, tells little when small.
const FIRST_PART: usize = 16;
const SAMPLE_PART: usize = 4;
/// How many sizes are tried between the smallest and the largest.
const STEPS: usize = 128;
/// How many batches are remembered. Each counts half of the one after it, so that older ones would hardly tell.
const REMEMBERED: usize = 6;
/// By which share a group of the next batch may be larger or smaller than forecast, in thousandths: with one batch to go
/// by, and at least. Both were tried out on the flights of docs/batching.md: with less, batches that are a little larger
/// than forecast begin items that stay nearly empty; with more, all are cut too early.
const FIRST_SCATTER: u32 = 60;
const SCATTER: u32 = 30;

/// Chooses the size of the next batch of a shard.
#[derive(Debug)]
pub struct FillTarget {
    smallest: usize,
    largest: usize,
    item_bytes: u32,
    seen: VecDeque<Seen>,
    /// Whether a batch was seen that others can be judged by.
    judged: bool,
    target: usize,
}

/// A batch that was stored.
#[derive(Debug)]
struct Seen {
    payload_bytes: usize,
    groups: GroupSizes,
}

impl FillTarget {
    /// Nothing is known yet.
    pub fn new(largest: usize, item_bytes: u32) -> Self {
        let smallest = (largest / SMALLEST_PART).max(1);
        let mut target =
            Self { smallest, largest, item_bytes, seen: VecDeque::new(), judged: false, target: 0 };
        target.target = target.sample();
        target
    }

    /// Payload bytes at which the first batch of a session should be closed.
    pub fn first(&self) -> usize {
        (self.largest / FIRST_PART).max(1)
    }

    /// Payload bytes at which the next batch should be closed.
    pub fn target(&self) -> usize {
        self.target
    }

    /// Whether the next batch is smaller than it might be because it is to tell how large the ones after it should be.
    pub fn is_sampling(&self) -> bool {
        !self.judged && self.target == self.sample()
    }

    fn sample(&self) -> usize {
        (self.largest / SAMPLE_PART).max(1)
    }

    /// Takes in how a batch was stored. One that is much smaller than any target says little: it compresses worse and has
    /// other shares, so it counts only until a larger one is known.
    pub fn learn(&mut self, payload_bytes: usize, groups: GroupSizes) {
        let tells = |bytes: usize| bytes >= self.smallest / 2;
        let known = self.seen.iter().any(|seen| tells(seen.payload_bytes));
        if payload_bytes == 0 || groups.items() == 0 || (known && !tells(payload_bytes)) {
            return;
        }
        let judges = payload_bytes >= self.sample() / 2;
        // A first batch compresses worse than those that are to be judged by it.
        if !known || (judges && !self.judged) {
            self.seen.clear();
        }
        self.judged |= judges;
        self.seen.push_front(Seen { payload_bytes, groups });
        self.seen.truncate(REMEMBERED);
        self.target = if self.judged { self.best() } else { self.best().min(self.sample()) };
    }

    /// The fill that a batch of this size should have; 0 while nothing is known.
    pub fn forecast(&self, payload_bytes: usize) -> f64 {
        let batches = u32::try_from(self.seen.len()).unwrap_or(u32::MAX).max(1);
        let scatter = f64::from((FIRST_SCATTER / batches).max(SCATTER)) / 1_000.0;
        let (mut stored, mut items, mut weight) = (0.0, 0.0, 1.0);
        for seen in &self.seen {
            let scale = ratio(payload_bytes, seen.payload_bytes) / f64::from(self.item_bytes);
            for (bytes, groups) in seen.groups.sizes() {
                let (size, groups) = (float(bytes) * scale, float(groups) * weight);
                stored += size * groups;
                items += expected_items(size, scatter) * groups;
            }
            weight /= 2.0;
        }
        if items > 0.0 { stored / items } else { 0.0 }
    }

    fn best(&self) -> usize {
        let mut best = (self.largest, self.forecast(self.largest));
        for step in 0..STEPS {
            let size = self.smallest + (self.largest - self.smallest) * step / STEPS;
            let fill = self.forecast(size);
            if fill >= GOAL {
                return size;
            }
            if fill > best.1 {
                best = (size, fill);
            }
        }
        best.0
    }
}

/// How many items a group of `size` items takes on average, if its size is off by up to `scatter` of it either way.
fn expected_items(size: f64, scatter: f64) -> f64 {
    let (low, high) = (size * (1.0 - scatter), size * (1.0 + scatter));
    let width = high - low;
    // Narrower than a byte of an item: nothing to average over.
    let items = if width > 1e-6 { (area(high) - area(low)) / width } else { size.ceil() };
    items.max(1.0)
}

/// The area below `ceil` from 0 to `x`.
fn area(x: f64) -> f64 {
    let whole = x.floor();
    whole * (whole + 1.0) / 2.0 + (x - whole) * (whole + 1.0)
}

fn ratio(part: usize, whole: usize) -> f64 {
    float(part as u64) / float(whole as u64).max(1.0)
}

fn float(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "sizes of batches are far below 2^53")]
    let float = bytes as f64;
    float
}

#[cfg(test)]
mod tests;
