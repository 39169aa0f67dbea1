//! Memory adapters: a table of items, and a sink that keeps batches as they come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sluicegate_checkpoint::{Batch, BatchId, Right};

use crate::governor::units_of;
use crate::item::{Attributes, Header, Item, ItemKey};
use crate::packing::aggregate_key_of;
use crate::reader::Event;
use crate::sink::{DeliverError, Delivered, Sink, UNPACKED};
use crate::store::{HeaderPage, ItemSource, ItemWriter, MAX_WRITE_ITEMS, Page, Query, StoreError, Written};

/// Bytes that DynamoDB counts as one write capacity unit (DynamoDB developer guide, provisioned throughput).
const WRITE_UNIT_BYTES: usize = 1_024;
/// Items that one page of a scan examines.
const SCAN_ITEMS: usize = 100;

/// A table in memory. It holds attributes, not items, so that what is read went through the item format.
#[derive(Debug, Default)]
pub struct MemoryTable {
    state: Mutex<TableState>,
    rejects: Option<Rejects>,
}

/// Says why an item can never be stored, if it cannot.
struct Rejects(Box<Reason>);

type Reason = dyn Fn(&Item) -> Option<String> + Send + Sync;

impl std::fmt::Debug for Rejects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rejects")
    }
}

#[derive(Debug, Default)]
struct TableState {
    items: BTreeMap<ItemKey, Attributes>,
    spread: u32,
}

impl MemoryTable {
    /// A table that rejects items: all of a request with one for which this gives a reason.
    pub fn rejecting(reason: impl Fn(&Item) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { rejects: Some(Rejects(Box::new(reason))), ..Self::default() }
    }

    fn check(&self, item: &Item) -> Result<(), StoreError> {
        let reason = self.rejects.as_ref().and_then(|rejects| rejects.0(item));
        reason.map_or(Ok(()), |reason| Err(StoreError::Rejected(reason.into())))
    }

    /// All items, by key.
    pub fn items(&self) -> BTreeMap<ItemKey, Attributes> {
        self.state().items.clone()
    }

    /// Puts attributes under a key, whatever they are: for tests that damage what is stored.
    pub fn put(&self, key: ItemKey, attributes: Attributes) {
        self.state().items.insert(key, attributes);
    }

    /// Removes an item: for tests of what is missing.
    pub fn remove(&self, key: &ItemKey) -> Option<Attributes> {
        self.state().items.remove(key)
    }

    fn state(&self) -> MutexGuard<'_, TableState> {
        // Each change is one insert, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ItemWriter for MemoryTable {
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError> {
        debug_assert!(items.len() <= MAX_WRITE_ITEMS, "more items than a request takes");
        items.iter().try_for_each(|item| self.check(item))?;
        let mut state = self.state();
        let mut units = 0;
        for item in items {
            units += item.bytes().div_ceil(WRITE_UNIT_BYTES);
            state.items.insert(item.header.key(), item.to_attributes());
        }
        #[expect(clippy::cast_precision_loss, reason = "a request consumes at most ten thousand units")]
        let write_units = units as f64;
        Ok(Written { unprocessed: Vec::new(), write_units })
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        self.check(item).map(|()| units_of(item.bytes()))
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        let mut state = self.state();
        state.spread = state.spread.max(count);
        Ok(())
    }
}

#[async_trait]
impl ItemSource for MemoryTable {
    async fn query(&self, query: &Query) -> Result<Page, StoreError> {
        let state = self.state();
        let key = |sk: &String| ItemKey { pk: query.pk.clone(), sk: sk.clone() };
        let mut page = Page::default();
        for (at, attributes) in state.items.range(key(&query.from)..=key(&query.to)) {
            if query.behind.as_ref().is_some_and(|behind| at.sk <= *behind) {
                continue;
            }
            if page.items.len() >= query.limit as usize {
                page.next = page.items.last().map(|item| item.header.sort.to_string());
                break;
            }
            page.items.push(Item::from_attributes(attributes)?);
        }
        Ok(page)
    }

    async fn spread(&self) -> Result<u32, StoreError> {
        Ok(self.state().spread.max(1))
    }

    async fn scan(&self, behind: Option<&ItemKey>) -> Result<HeaderPage, StoreError> {
        let state = self.state();
        let mut page = HeaderPage::default();
        let mut rest = state.items.iter().filter(|(key, _)| behind.is_none_or(|behind| *key > behind));
        for (key, attributes) in rest.by_ref().take(SCAN_ITEMS) {
            page.headers.push(Header::from_attributes(attributes)?);
            page.next = Some(key.clone());
        }
        if rest.next().is_none() {
            page.next = None;
        }
        Ok(page)
    }
}

/// A sink that keeps batches as they come, the highest revision of each.
#[derive(Debug, Default)]
pub struct MemorySink {
    batches: Mutex<BTreeMap<BatchId, Arc<Batch>>>,
}

impl MemorySink {
    /// The batches, by identity.
    pub fn batches(&self) -> BTreeMap<BatchId, Arc<Batch>> {
        self.locked().clone()
    }

    /// The stored events of an aggregate key, in the reader's order.
    pub fn events(&self, key: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for batch in self.locked().values() {
            let of_key =
                batch.stored().filter(|record| aggregate_key_of(&batch.cut.parameters, record) == key);
            events.extend(of_key.map(|record| Event {
                shard: batch.id.shard.clone(),
                epoch: batch.id.epoch,
                sequence_number: record.sequence_number().clone(),
                sub_sequence_number: record.sub_sequence_number(),
                arrival: record.arrival(),
                data: record.data_bytes(),
            }));
        }
        events.sort_by(Event::order);
        events
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<BatchId, Arc<Batch>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        if !right.holds() {
            return Err(DeliverError::RightEnded);
        }
        let delivered = Delivered::of(&batch);
        let mut batches = self.locked();
        let known = batches.get(&batch.id).is_some_and(|known| known.cut.revision > batch.cut.revision);
        if !known && !batch.cut.dropped {
            batches.insert(batch.id.clone(), batch);
        }
        Ok(delivered)
    }

    fn packing_versions(&self) -> &[u32] {
        UNPACKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{self, Subject};
    use crate::offload::Inline;
    use crate::packing_sink::{PackingSink, PackingSinkOptions};
    use crate::reader::{Reader, TimeRange};

    struct Packing(Arc<MemoryTable>);

    #[async_trait]
    impl Subject for Packing {
        fn sink(&self, packing_versions: &[u32]) -> Arc<dyn Sink> {
            let packing_versions = packing_versions.to_vec();
            let options = PackingSinkOptions { packing_versions, ..PackingSinkOptions::default() };
            Arc::new(PackingSink::new(self.0.clone(), options, Arc::new(Inline), 7))
        }

        async fn events(&self, aggregate_key: &str) -> Vec<Event> {
            let mut stream =
                Reader::new(self.0.clone(), 7).events(aggregate_key, TimeRange::default()).await.unwrap();
            let mut events = Vec::new();
            while let Some(event) = stream.next().await.unwrap() {
                events.push(event);
            }
            events
        }
    }

    struct Plain(Arc<MemorySink>);

    #[async_trait]
    impl Subject for Plain {
        fn sink(&self, _packing_versions: &[u32]) -> Arc<dyn Sink> {
            self.0.clone()
        }

        async fn events(&self, aggregate_key: &str) -> Vec<Event> {
            self.0.events(aggregate_key)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn packing_into_a_table_passes_the_contract() {
        let table = Arc::new(MemoryTable::default());
        contract::run_all(&Packing(table.clone())).await;
        let headers = Reader::new(table, 7).all_headers().await.unwrap();
        assert_eq!(crate::overlaps(&headers), []);
    }

    #[tokio::test(start_paused = true)]
    async fn keeping_batches_passes_the_contract() {
        contract::run_all(&Plain(Arc::default())).await;
    }
}
