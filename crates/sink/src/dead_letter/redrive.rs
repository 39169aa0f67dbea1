//! A letter -> the items that store its event after all. **Pure**: the same letter gives the same items, so that a
//! redrive can be repeated.
//!
//! They have a key class of their own (the sort key names the event, not only its cut), so that no batch's items are
//! ever overwritten by a redrive nor the other way round, whatever is delivered again.

use std::sync::Arc;

use sluicegate_checkpoint::{AggregateKey, Batch, BatchId, Cut, PackingParameters, Record};

use super::Letter;
use crate::item::{Item, SortKey};
use crate::packing::{PackError, pack};

/// The items of a letter's event.
///
/// # Errors
/// The letter was written by a build with a packing version that this one lacks, or holds what no event has.
pub fn items_of(letter: &Letter) -> Result<Vec<Item>, PackError> {
    let header = &letter.header;
    // Under the key that was found then: a template need not find it again. Suffix 0 is read whatever the spread.
    let parameters = PackingParameters {
        aggregate_key: AggregateKey::PartitionKey,
        spread: 1,
        codec: header.packing.codec,
        ttl_days: header.packing.ttl_days,
        // The class takes room in the sort key of each item.
        max_item_bytes: (header.packing.max_item_bytes.saturating_sub(SortKey::EVENT_BYTES))
            .max(PackingParameters::MIN_ITEM_BYTES),
        hash_range: None,
        ..PackingParameters::default()
    };
    let first = header.id.sequence_number.clone();
    let cut = Cut {
        first: first.clone(),
        last: first.clone(),
        behind_sub: None,
        last_sub: header.id.sub_sequence_number,
        records: 1,
        parameters: Arc::new(parameters),
        packing_version: header.packing.version,
        revision: 0,
        exclusions: Vec::new(),
        dropped: false,
    };
    let record =
        Record::new(first.clone(), header.arrival, header.aggregate_key.clone(), letter.data.clone())
            .at_sub(header.id.sub_sequence_number.0);
    let id = BatchId { shard: header.id.shard.clone(), epoch: header.epoch, first: first.clone(), to: first };
    let batch = Batch { id, cut, arrival: header.arrival, records: vec![record] };
    let mut items = pack(&batch)?.items;
    for item in &mut items {
        item.header.sort.event = Some(header.id.sub_sequence_number);
    }
    Ok(items)
}
