//! Reads: carried out and accounted for. They are not limited.

use dynoxide::actions::batch_get_item::BatchGetItemRequest;
use dynoxide::actions::get_item::GetItemRequest;
use dynoxide::actions::query::QueryRequest;
use dynoxide::actions::scan::ScanRequest;
use dynoxide::actions::transact_get_items::TransactGetItemsRequest;
use dynoxide::types::ConsumedCapacity;

use super::refusal::Refusal;
use super::{DynamoDb, ask_for_capacity, decode, encode, table_name};
use crate::ledger::TableUse;

impl DynamoDb {
    pub(super) fn get_item(&self, body: &[u8]) -> Result<String, Refusal> {
        let mut request: GetItemRequest = decode(body)?;
        let hide = ask_for_capacity(&mut request.return_consumed_capacity);
        let mut answer = self.database.get_item(request)?;
        self.enter_read(&answer.consumed_capacity);
        answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide);
        Ok(encode(&answer)?)
    }

    pub(super) fn query(&self, body: &[u8]) -> Result<String, Refusal> {
        let mut request: QueryRequest = decode(body)?;
        let hide = ask_for_capacity(&mut request.return_consumed_capacity);
        let mut answer = self.database.query(request)?;
        self.enter_read(&answer.consumed_capacity);
        answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide);
        Ok(encode(&answer)?)
    }

    pub(super) fn scan(&self, body: &[u8]) -> Result<String, Refusal> {
        let mut request: ScanRequest = decode(body)?;
        let hide = ask_for_capacity(&mut request.return_consumed_capacity);
        let mut answer = self.database.scan(request)?;
        self.enter_read(&answer.consumed_capacity);
        answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide);
        Ok(encode(&answer)?)
    }

    pub(super) fn batch_get_item(&self, body: &[u8]) -> Result<String, Refusal> {
        let mut request: BatchGetItemRequest = decode(body)?;
        let hide = ask_for_capacity(&mut request.return_consumed_capacity);
        let mut answer = self.database.batch_get_item(request)?;
        self.enter_read(answer.consumed_capacity.iter().flatten());
        answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide);
        Ok(encode(&answer)?)
    }

    pub(super) fn transact_get_items(&self, body: &[u8]) -> Result<String, Refusal> {
        let mut request: TransactGetItemsRequest = decode(body)?;
        let hide = ask_for_capacity(&mut request.return_consumed_capacity);
        let mut answer = self.database.transact_get_items(request)?;
        self.enter_read(answer.consumed_capacity.iter().flatten());
        answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide);
        Ok(encode(&answer)?)
    }

    fn enter_read<'a>(&self, used: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        let now_ms = self.now_ms();
        for used in used {
            let read = TableUse { read_units: used.capacity_units, reads: 1, ..TableUse::default() };
            self.ledger.enter(&table_name(&used.table_name), now_ms, read);
        }
    }
}
