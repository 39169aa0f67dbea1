//! Which groups of a batch with poison are durable already, so that they need not be written again under its next
//! revision.
//!
//! Exclusions only grow, and nothing else of a cut changes what its events are. So a group that has as many events under a
//! later revision as before has the same ones, and whoever reads the table finds them: of each group by itself the highest
//! complete revision counts. A worker that takes the shard over remembers none of this and writes all groups under the new
//! revision, with the same events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use sluicegate_checkpoint::BatchId;

use crate::item::{Header, Item};

/// Batches that are remembered at most: it only saves writes to remember one, and groups may be many.
const MOST_BATCHES: usize = 8;

/// Batches with poison whose next revision is expected.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<Vec<(BatchId, Groups)>>);

/// Groups by their aggregate key: a batch has one of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Groups(BTreeMap<String, Content>);

/// What tells the contents of a group from those that it has with fewer events, or by another packing version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    packing_version: u32,
    events: u64,
    group_sum: u32,
}

impl Content {
    fn of(header: &Header) -> Self {
        let Header { packing_version, group_sum, .. } = *header;
        Self { packing_version, events: header.events(), group_sum }
    }
}

impl Groups {
    /// The groups of these items.
    pub(super) fn of(items: &[Item]) -> Self {
        let first_parts = items.iter().map(|item| &item.header).filter(|header| header.sort.part == 1);
        Self(
            first_parts.map(|header| (header.partition.aggregate_key.clone(), Content::of(header))).collect(),
        )
    }

    /// Whether the group of this item is among these, with these very events.
    pub(super) fn hold(&self, item: &Item) -> bool {
        let known = self.0.get(&item.header.partition.aggregate_key);
        known.is_some_and(|known| *known == Content::of(&item.header))
    }

    /// These without those of some aggregate keys.
    pub(super) fn without(mut self, keys: &BTreeSet<&str>) -> Self {
        self.0.retain(|key, _| !keys.contains(key.as_str()));
        self
    }
}

impl Remembered {
    /// Remembers what is durable of a batch.
    pub(super) fn keep(&self, id: BatchId, groups: Groups) {
        let mut batches = self.batches();
        if batches.len() >= MOST_BATCHES {
            batches.remove(0);
        }
        batches.push((id, groups));
    }

    /// What is durable of a batch, no longer remembered.
    pub(super) fn take(&self, id: &BatchId) -> Groups {
        let mut batches = self.batches();
        let at = batches.iter().position(|(known, _)| known == id);
        at.map(|at| batches.remove(at).1).unwrap_or_default()
    }

    fn batches(&self) -> std::sync::MutexGuard<'_, Vec<(BatchId, Groups)>> {
        // A list is never half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
