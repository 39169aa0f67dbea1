//! Enters what was written into the journal, if there is one.

use std::collections::BTreeMap;

use dynoxide::actions::batch_write_item::BatchWriteItemRequest;
use dynoxide::actions::get_item::GetItemRequest;
use dynoxide::types::{AttributeValue, Item};

use super::{DynamoDb, table_name};
use crate::journal::{Journal, Line, in_order};

/// A write of a single item that the journal is to tell of.
pub(super) struct Witness {
    journal: Journal,
    operation: &'static str,
    table: String,
    key: Item,
    conditional: bool,
    by: Option<String>,
}

/// Keys of the items of a batch, by table.
pub(super) type Keys = BTreeMap<String, Vec<BTreeMap<String, AttributeValue>>>;

impl DynamoDb {
    /// A witness for the write of the item with these attributes, the key's among them; none without a journal.
    pub(super) fn witness(
        &self,
        operation: &'static str,
        table: &str,
        item: &Item,
        conditional: bool,
        by: Option<&str>,
    ) -> Option<Witness> {
        let journal = self.journal.clone()?;
        let table = table_name(table);
        let facts = self.gate.facts(&self.database, &table)?;
        let key = facts.key_of(item).into_iter().collect();
        Some(Witness { journal, operation, table, key, conditional, by: by.map(str::to_owned) })
    }

    /// Carries out a write while nobody else who has a witness writes, and enters it if it took effect.
    pub(super) fn witnessed<T>(
        &self,
        witness: Option<Witness>,
        write: impl FnOnce() -> dynoxide::Result<T>,
    ) -> dynoxide::Result<T> {
        let Some(Witness { journal, operation, table, key, conditional, by }) = witness else {
            return write();
        };
        let mut page = journal.open();
        let before = self.stored(&table, &key);
        let answer = write()?;
        let after = self.stored(&table, &key);
        page.write(&Line::Write {
            table: &table,
            operation,
            at_ms: self.now_ms(),
            by: by.as_deref(),
            conditional,
            before: before.as_ref().map(in_order),
            after: after.as_ref().map(in_order),
        });
        Ok(answer)
    }

    /// The keys of what a batch puts; none without a journal.
    pub(super) fn keys_of_puts(&self, request: &BatchWriteItemRequest) -> Keys {
        let mut keys = Keys::new();
        if self.journal.is_none() {
            return keys;
        }
        let tables: BTreeMap<_, _> = request.request_items.iter().collect();
        for (table, writes) in tables {
            let table = table_name(table);
            let Some(facts) = self.gate.facts(&self.database, &table) else { continue };
            let puts = writes.iter().filter_map(|write| write.put_request.as_ref());
            keys.insert(table, puts.map(|put| facts.key_of(&put.item)).collect());
        }
        keys
    }

    /// Enters a batch that was written.
    pub(super) fn enter_puts(&self, keys: &Keys) {
        let Some(journal) = &self.journal else { return };
        for (table, keys) in keys {
            journal.open().write(&Line::Items { table, at_ms: self.now_ms(), keys });
        }
    }

    fn stored(&self, table: &str, key: &Item) -> Option<Item> {
        let request = GetItemRequest {
            table_name: table.to_owned(),
            key: key.clone(),
            consistent_read: Some(true),
            ..GetItemRequest::default()
        };
        self.database.get_item(request).ok()?.item
    }
}
