//! The analytics table, read back through the product's own reader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use sluicegate_checkpoint::{Cut, ShardId};
use sluicegate_sink::dynamodb::DynamoDbItems;
use sluicegate_sink::item::Header;
use sluicegate_sink::{Event, ItemSource, Overlap, Reader, Reduction, TimeRange, overlaps};

use super::events::Multiset;

/// One table of items.
pub struct Table {
    client: Client,
    name: String,
    reader: Reader,
}

impl Table {
    /// Reads a table.
    pub fn new(client: Client, name: &str) -> Self {
        let reader = Reader::new(Arc::new(DynamoDbItems::new(client.clone(), name)), 1);
        Self { client, name: name.to_owned(), reader }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The headers of all items; none while there is no table.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn headers(&self) -> anyhow::Result<Vec<Header>> {
        match self.client.describe_table().table_name(&self.name).send().await {
            Ok(_) => Ok(self.reader.all_headers().await?),
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// How many events the headers promise, of each group its highest revision.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn stored(&self) -> anyhow::Result<u64> {
        let mut groups = BTreeMap::new();
        for header in self.headers().await? {
            let events = header.events();
            let sort = header.sort;
            let group = (header.partition, sort.shard, sort.epoch, sort.first, sort.event);
            let counts = groups.entry(group).or_insert((0, 0));
            *counts = (*counts).max((sort.revision, events));
        }
        Ok(groups.values().map(|(_, count)| count).sum())
    }

    /// The events of a key, in the reader's order.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn events(&self, key: &str) -> anyhow::Result<Vec<Event>> {
        let mut stream = self.reader.events(key, TimeRange::default()).await?;
        let mut events = Vec::new();
        while let Some(event) = stream.next().await? {
            events.push(event);
        }
        Ok(events)
    }

    /// The reductions of a key, merged.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn reductions(&self, key: &str) -> anyhow::Result<Vec<Reduction>> {
        let mut stream = self.reader.events(key, TimeRange::default()).await?;
        while stream.next().await?.is_some() {}
        Ok(stream.into_reductions())
    }

    /// Shows every event of a key, one at a time, in the reader's order.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn for_each_event(&self, key: &str, mut see: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let mut stream = self.reader.events(key, TimeRange::default()).await?;
        while let Some(event) = stream.next().await? {
            see(&event.data);
        }
        Ok(())
    }

    /// Over how many suffixes its keys are spread, as it says itself.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn spread(&self) -> anyhow::Result<u32> {
        Ok(DynamoDbItems::new(self.client.clone(), &self.name).spread().await?)
    }

    /// Every event of every key. Nothing is removed from what the reader yields.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn everything(&self) -> anyhow::Result<Multiset> {
        let keys: BTreeSet<String> =
            self.headers().await?.into_iter().map(|header| header.partition.aggregate_key).collect();
        let mut all = Multiset::default();
        for key in keys {
            self.events(&key).await?.into_iter().for_each(|event| all.add(event.data));
        }
        Ok(all)
    }

    /// Groups of one shard and key whose ranges of events meet.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn overlaps(&self) -> anyhow::Result<Vec<Overlap>> {
        Ok(overlaps(&self.headers().await?))
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The items among these that store a cut under one of its revisions.
pub fn of_cut<'h>(headers: &'h [Header], shard: &ShardId, cut: &Cut, revision: u32) -> Vec<&'h Header> {
    let is = |header: &&Header| {
        (&header.sort.shard, &header.sort.first, header.sort.revision) == (shard, &cut.first, revision)
    };
    headers.iter().filter(is).collect()
}
