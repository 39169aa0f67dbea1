//! What the simulated table never takes: rare events, and now and then every item of some key. **Pure.**

use sluicegate_sink::item::Item;
use sluicegate_sink::packing::unpack;

/// Which events and keys are rejected, by what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poison {
    /// Tells one history's poison from another's.
    pub seed: u64,
    /// One event in so many.
    pub one_event_in: u64,
    /// One key in so many; 0 for none.
    pub one_key_in: u64,
}

impl Poison {
    /// Whether no item that holds an event of this payload is taken.
    pub fn is_event(&self, data: &[u8]) -> bool {
        self.hash(data).is_multiple_of(self.one_event_in)
    }

    /// Whether no item of this key is taken.
    pub fn is_key(&self, aggregate_key: &str) -> bool {
        self.one_key_in > 0 && self.hash(aggregate_key.as_bytes()).is_multiple_of(self.one_key_in)
    }

    /// What the table says of an item. A group in several parts cannot be looked into part by part, and is taken.
    pub fn rejects(&self, item: &Item) -> Option<&'static str> {
        if self.is_key(&item.header.partition.aggregate_key) {
            return Some("no item can have this key");
        }
        if item.header.parts > 1 {
            return None;
        }
        let events = unpack(&item.header, std::slice::from_ref(&item.data)).unwrap_or_default();
        events
            .iter()
            .any(|event| self.is_event(&event.data))
            .then_some("it holds an event that is never taken")
    }

    /// FNV-1a, mixed so that all bits reach the low ones.
    fn hash(&self, bytes: &[u8]) -> u64 {
        let of = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let sum = bytes.iter().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, of);
        sum ^ (sum >> 32)
    }
}
