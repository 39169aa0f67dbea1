//! Writes of several items: a batch, of which a part may be written, and a transaction, which is written or not.

use std::collections::BTreeMap;

use dynoxide::DynoxideError;
use dynoxide::actions::batch_write_item::{BatchWriteItemRequest, WriteRequest};
use dynoxide::actions::transact_write_items::{TransactWriteItem, TransactWriteItemsRequest};
use dynoxide::errors::CancellationReason;
use dynoxide::types::{ConsumedCapacity, Item};
use serde_json::{Value, json};

use super::admission::Charge;
use super::items::{fractional, write_units};
use super::refusal::{Refusal, Throttle};
use super::write::{accepted_write, refuse_rejected, refused_items, refused_write};
use super::{DynamoDb, ask_for_capacity, decode, encode, table_name};
use crate::faults::Tampering;

/// Items of one batch; a larger one is refused as a whole (AWS DynamoDB API reference, BatchWriteItem: 25).
const MAX_BATCH: usize = 25;
/// What the parts of a transaction cost, compared with writes by themselves (AWS DynamoDB developer guide, "Capacity
/// management for transactions": two underlying writes).
const TRANSACTION_FACTOR: u64 = 2;

/// What the limits made of a batch.
#[derive(Default)]
struct Sorted {
    /// What was taken for the items that are left in the request.
    admitted: Vec<Charge>,
    /// By table, as a client gets them back.
    unprocessed: BTreeMap<String, Vec<Value>>,
    refused: BTreeMap<String, Refused>,
    /// Why items were refused.
    throttle: Option<Throttle>,
}

#[derive(Default)]
struct Refused {
    items: u64,
    units: u64,
}

impl DynamoDb {
    pub(super) fn batch_write_item(&self, body: &[u8], tampering: &Tampering) -> Result<String, Refusal> {
        let mut request: BatchWriteItemRequest = decode(body)?;
        let puts = request.request_items.values().flatten().filter_map(|write| write.put_request.as_ref());
        refuse_rejected(puts.map(|put| &put.item), tampering)?;
        let hide = ask_for_capacity(&mut request.return_consumed_capacity);
        let now_ms = self.now_ms();
        let sorted = self.sort_out(&mut request, tampering, now_ms);
        if let (true, Some(throttle)) = (request.request_items.is_empty(), &sorted.throttle) {
            for (table, refused) in &sorted.refused {
                self.ledger.enter(table, now_ms, refused_write(refused.units, refused.items));
            }
            return Err(Refusal::Throttled(throttle.clone()));
        }
        let items = item_counts(&request);
        let keys = self.keys_of_puts(&request);
        let answer = self.database.batch_write_item(request);
        let mut answer = answer.inspect_err(|_| self.give_back(&sorted.admitted, now_ms))?;
        self.enter_puts(&keys);
        let used = answer.consumed_capacity.clone().unwrap_or_default();
        self.account(&used, &items, &sorted.admitted, now_ms);
        for (table, refused) in &sorted.refused {
            self.ledger.enter(table, now_ms, refused_items(refused.units, refused.items));
        }
        answer.unprocessed_items =
            sorted.unprocessed.into_iter().map(|(table, writes)| (table, Value::Array(writes))).collect();
        answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide);
        Ok(encode(&answer)?)
    }

    /// Takes out of the request what does not fit, table by table in the order of their names, item by item as given.
    fn sort_out(&self, request: &mut BatchWriteItemRequest, tampering: &Tampering, now_ms: u64) -> Sorted {
        let mut sorted = Sorted::default();
        let limited = self.gate.limits_anything() || tampering.throttled || tampering.unprocessed.is_some();
        let count: usize = request.request_items.values().map(Vec::len).sum();
        if !limited || count > MAX_BATCH {
            return sorted;
        }
        let mut lots = tampering.unprocessed.clone();
        let tables: BTreeMap<_, _> = std::mem::take(&mut request.request_items).into_iter().collect();
        for (table, writes) in tables {
            let name = table_name(&table);
            let mut kept = Vec::with_capacity(writes.len());
            for write in writes {
                let (key, units) = key_and_units(&write);
                let charge = key.and_then(|key| self.charge(&name, key, units, tampering));
                let Some(charge) = charge else {
                    kept.push(write); // the database says what is wrong with it
                    continue;
                };
                let drawn = lots.as_mut().is_some_and(|(rate, draws)| draws.hits(*rate));
                match self.admit(&charge, tampering.throttled || drawn, now_ms) {
                    Ok(()) => {
                        sorted.admitted.push(charge);
                        kept.push(write);
                    }
                    Err(throttle) => sorted.refuse(&table, &name, &write, units, throttle),
                }
            }
            if !kept.is_empty() {
                request.request_items.insert(table, kept);
            }
        }
        sorted
    }

    /// Corrects what was taken for the items of each table, and enters what was used.
    fn account(
        &self,
        used: &[ConsumedCapacity],
        items: &BTreeMap<String, u64>,
        admitted: &[Charge],
        now_ms: u64,
    ) {
        let mut used_by: BTreeMap<String, f64> = BTreeMap::new();
        for used in used {
            *used_by.entry(table_name(&used.table_name)).or_default() += used.capacity_units;
        }
        for (table, items) in items {
            let used = used_by.get(table).copied().unwrap_or_default();
            self.settle(together(admitted, table).as_ref(), used, now_ms);
            self.ledger.enter(table, now_ms, accepted_write(used, *items));
        }
    }

    fn give_back(&self, admitted: &[Charge], now_ms: u64) {
        for charge in admitted {
            self.settle(Some(charge), 0.0, now_ms);
        }
    }

    pub(super) fn transact_write_items(&self, body: &[u8], tampering: &Tampering) -> Result<String, Refusal> {
        let mut request: TransactWriteItemsRequest = decode(body)?;
        let puts = request.transact_items.iter().filter_map(|part| part.put.as_ref());
        refuse_rejected(puts.map(|put| &put.item), tampering)?;
        let hide = ask_for_capacity(&mut request.return_consumed_capacity);
        let now_ms = self.now_ms();
        let parts: Vec<Part> = request.transact_items.iter().filter_map(Part::of).collect();
        let admitted = self.admit_all(&parts, tampering, now_ms)?;
        let mut items: BTreeMap<String, u64> = BTreeMap::new();
        for part in &parts {
            *items.entry(part.table.clone()).or_default() += 1;
        }
        match self.database.transact_write_items(request) {
            Ok(mut answer) => {
                let used = answer.consumed_capacity.clone().unwrap_or_default();
                self.account(&used, &items, &admitted, now_ms);
                answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide);
                Ok(encode(&answer)?)
            }
            // A cancelled transaction has used what it would have written.
            Err(error @ DynoxideError::TransactionCanceledException(..)) => {
                for (table, items) in &items {
                    let of_table = parts.iter().filter(|part| part.table == *table);
                    let used = of_table.map(|part| part.units).sum();
                    self.ledger.enter(table, now_ms, accepted_write(fractional(used), *items));
                }
                Err(error.into())
            }
            Err(error) => {
                self.give_back(&admitted, now_ms);
                Err(error.into())
            }
        }
    }

    /// Takes what all parts of a transaction need, or nothing.
    fn admit_all(&self, parts: &[Part], tampering: &Tampering, now_ms: u64) -> Result<Vec<Charge>, Refusal> {
        let mut admitted = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let Some(charge) = self.charge(&part.table, &part.key, part.units, tampering) else { continue };
            if let Err(throttle) = self.admit(&charge, tampering.throttled, now_ms) {
                self.give_back(&admitted, now_ms);
                for part in parts {
                    self.ledger.enter(&part.table, now_ms, refused_items(part.units, 1));
                }
                return Err(cancelled(parts.len(), index, &throttle));
            }
            admitted.push(charge);
        }
        Ok(admitted)
    }
}

impl Sorted {
    fn refuse(&mut self, table: &str, name: &str, write: &WriteRequest, units: u64, throttle: Throttle) {
        self.unprocessed.entry(table.to_owned()).or_default().push(as_sent(write));
        let refused = self.refused.entry(name.to_owned()).or_default();
        refused.items += 1;
        refused.units += units;
        match &mut self.throttle {
            Some(before) => before.add(throttle),
            None => self.throttle = Some(throttle),
        }
    }
}

/// One part of a transaction.
struct Part {
    table: String,
    /// The key, or the whole item with its key in it.
    key: Item,
    units: u64,
}

impl Part {
    fn of(item: &TransactWriteItem) -> Option<Self> {
        let (table, key, units) = if let Some(put) = &item.put {
            (&put.table_name, &put.item, write_units(&put.item))
        } else if let Some(update) = &item.update {
            (&update.table_name, &update.key, 1)
        } else if let Some(delete) = &item.delete {
            (&delete.table_name, &delete.key, 1)
        } else {
            let check = item.condition_check.as_ref()?;
            (&check.table_name, &check.key, 1)
        };
        Some(Self { table: table_name(table), key: key.clone(), units: units * TRANSACTION_FACTOR })
    }
}

/// The refusal of a transaction, one part of which did not fit.
fn cancelled(parts: usize, refused: usize, throttle: &Throttle) -> Refusal {
    let (code, message) = throttle.cancellation();
    let reasons: Vec<CancellationReason> = (0..parts)
        .map(|part| {
            let (code, message) =
                if part == refused { (code, Some(message.to_owned())) } else { ("None", None) };
            CancellationReason { code: code.to_owned(), message, item: None }
        })
        .collect();
    let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    DynoxideError::TransactionCanceledException(message, reasons).into()
}

fn key_and_units(write: &WriteRequest) -> (Option<&Item>, u64) {
    match (&write.put_request, &write.delete_request) {
        (Some(put), _) => (Some(&put.item), write_units(&put.item)),
        (None, Some(delete)) => (Some(&delete.key), 1),
        (None, None) => (None, 1),
    }
}

fn as_sent(write: &WriteRequest) -> Value {
    match (&write.put_request, &write.delete_request) {
        (Some(put), _) => json!({ "PutRequest": { "Item": put.item } }),
        (None, Some(delete)) => json!({ "DeleteRequest": { "Key": delete.key } }),
        (None, None) => Value::Null,
    }
}

fn item_counts(request: &BatchWriteItemRequest) -> BTreeMap<String, u64> {
    request.request_items.iter().map(|(table, writes)| (table_name(table), writes.len() as u64)).collect()
}

/// What was taken for all items of a table, as one charge of the table alone: the database does not say which of them
/// used how much.
fn together(admitted: &[Charge], table: &str) -> Option<Charge> {
    let of_table = || admitted.iter().filter(|charge| charge.table.name == table);
    let first = of_table().next()?;
    let units = of_table().map(|charge| charge.units).sum();
    Some(Charge { table: first.table.clone(), partition_key: None, units })
}
