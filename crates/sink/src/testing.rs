//! Batches and events for the tests of this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sluicegate_checkpoint::{
    ArrivalMillis, Batch, PackingParameters, Record, Right, SequenceNumber, ShardId,
};

use crate::item::Item;
use crate::packing::pack;

/// When the events of tests arrive.
pub(crate) const NOON: i64 = 1_700_000_000_000;

pub(crate) fn sequence(n: u128) -> SequenceNumber {
    SequenceNumber::parse(n.to_string()).unwrap()
}

/// An event that arrives as many milliseconds after noon as its sequence number says.
pub(crate) fn event(n: u32, key: &str, data: impl Into<Bytes>) -> Record {
    Record::new(sequence(u128::from(n)), ArrivalMillis(NOON + i64::from(n)), key, data)
}

/// A batch of these records, not empty.
pub(crate) fn batch(records: Vec<Record>) -> Batch {
    Batch::of((&ShardId::new("shardId-000000000000"), 0), records, Arc::default(), 1).unwrap()
}

/// The same batch under other parameters.
pub(crate) fn with_parameters(mut batch: Batch, change: impl FnOnce(&mut PackingParameters)) -> Batch {
    change(Arc::make_mut(&mut batch.cut.parameters));
    batch
}

pub(crate) fn items_of(batch: &Batch) -> Vec<Item> {
    pack(batch).unwrap().items
}

/// A right that a test can end.
pub(crate) struct Switch(pub(crate) AtomicBool);

impl Right for Switch {
    fn holds(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
