//! How full items are, and what they cost: events go through the real state machine of a shard and the real packer, on a
//! time that is only counted, without a stream or a table.

pub mod events;
pub mod shard;

use std::collections::BTreeMap;

use sluicegate_worker::consumer::batcher::ClosedBy;
use sluicegate_worker::worker::Settings;

use events::Event;
use shard::{Pace, Stored, drain};

/// What came of a workload.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Distinct aggregate keys.
    pub keys: usize,
    /// All batches.
    pub all: Fill,
    /// Batches by why they were closed.
    pub closed_by: BTreeMap<ClosedBy, Fill>,
}

/// How full batches are, in sum.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fill {
    /// How many.
    pub batches: u64,
    /// Their events.
    pub events: u64,
    /// Bytes of those events.
    pub payload_bytes: u64,
    /// Their items.
    pub items: u64,
    /// Bytes of those items.
    pub stored_bytes: u64,
    /// Bytes that as many full items have.
    pub room_bytes: u64,
    /// Write units of those items, each written once.
    pub write_units: u64,
    /// The sum of each batch's fill.
    sum_of_fills: f64,
}

impl Fill {
    /// Stored bytes by the room of as many full items.
    pub fn of_items(&self) -> f64 {
        quotient(self.stored_bytes, self.room_bytes)
    }

    /// The mean of the fills of batches, whatever their size.
    pub fn of_batches(&self) -> f64 {
        if self.batches == 0 { 0.0 } else { self.sum_of_fills / float(self.batches) }
    }

    /// Write units by events.
    pub fn write_units_per_event(&self) -> f64 {
        quotient(self.write_units, self.events)
    }

    /// Bytes of events by bytes of items.
    pub fn ratio(&self) -> f64 {
        quotient(self.payload_bytes, self.stored_bytes)
    }

    fn add(&mut self, stored: &Stored) {
        self.batches += 1;
        self.events += stored.events;
        self.payload_bytes += stored.payload_bytes;
        self.items += stored.items;
        self.stored_bytes += stored.stored_bytes;
        self.room_bytes += stored.room_bytes;
        self.write_units += stored.write_units;
        self.sum_of_fills += quotient(stored.stored_bytes, stored.room_bytes);
    }
}

/// Drains events from a stream of so many shards, each by itself, under these settings.
///
/// # Errors
/// A batch cannot be packed, a session fails, or an event is not stored exactly once.
pub fn measure(settings: &Settings, events: &[Event], shards: u32, pace: Pace) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let mut keys: Vec<&str> = events.iter().map(|event| event.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    measured.keys = keys.len();
    for shard in 0..shards {
        let of_shard: Vec<&Event> = events.iter().filter(|event| event.shard_of(shards) == shard).collect();
        if of_shard.is_empty() {
            continue;
        }
        for stored in drain(settings, &of_shard, pace)? {
            measured.all.add(&stored);
            measured.closed_by.entry(stored.closed_by).or_default().add(&stored);
        }
    }
    anyhow::ensure!(measured.all.events == events.len() as u64, "{} events are stored", measured.all.events);
    Ok(measured)
}

fn quotient(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

fn float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let float = count as f64;
    float
}
