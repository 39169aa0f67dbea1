//! A letter -> the items that store its event after all. **Pure**: the same letter gives the same items, so that a
//! redrive can be repeated.
//!
//! They have a key class of their own (the sort key names the event, not only its cut), so that no batch's items are
//! ever overwritten by a redrive nor the other way round, whatever is delivered again.

use std::sync::Arc;

use sluicegate_checkpoint::{AggregateKey, Batch, PackingParameters, Record};

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
    let record = Record {
        sequence_number: header.id.sequence_number.clone(),
        sub_sequence_number: header.id.sub_sequence_number,
        arrival: header.arrival,
        partition_key: header.aggregate_key.clone(),
        hash_key: None,
        data: letter.data.clone(),
    };
    let shard = (&header.id.shard, header.epoch);
    let batch = Batch::of(shard, vec![record], Arc::new(parameters), header.packing.version);
    let mut items = batch.map_or_else(|| Ok(Vec::new()), |batch| pack(&batch).map(|packed| packed.items))?;
    for item in &mut items {
        item.header.sort.event = Some(header.id.sub_sequence_number);
    }
    Ok(items)
}
