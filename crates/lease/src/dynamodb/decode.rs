//! Rows as these adapters read them, for suites that look at the tables from outside.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::rows::{FleetRow, START_ROW, WORKER_ID, fleet_row_from, is_lease, lease_from, start_from};
use crate::fleet::WorkerRow;
use crate::model::{Lease, WorkerId};
use crate::registry::RecordedStart;
use crate::store::ReadError;

/// A row of the worker table.
#[derive(Debug, Clone, PartialEq)]
pub enum FleetItem {
    /// One process.
    Worker(Box<WorkerRow>),
    /// Where the application starts, and of which stream.
    Start(RecordedStart),
    /// The request that this worker leave.
    RequestToLeave(WorkerId),
    /// What the last worker that left had learned, or something that a newer build keeps here.
    Other,
}

/// A row of the lease table; none if it is of another kind.
///
/// # Errors
/// What is wrong with it.
pub fn lease(item: &HashMap<String, AttributeValue>) -> Result<Option<Lease>, ReadError> {
    if is_lease(item) { lease_from(item).map(Some) } else { Ok(None) }
}

/// A row of the worker table.
///
/// # Errors
/// What is wrong with it.
pub fn fleet_item(item: &HashMap<String, AttributeValue>) -> Result<FleetItem, ReadError> {
    if item.get(WORKER_ID).is_some_and(|id| id.as_s().is_ok_and(|id| id == START_ROW)) {
        return start_from(item).map(FleetItem::Start);
    }
    Ok(match fleet_row_from(item)? {
        FleetRow::Worker(row) => FleetItem::Worker(Box::new(row)),
        FleetRow::RequestToLeave(worker) => FleetItem::RequestToLeave(worker),
        FleetRow::Learned(_) | FleetRow::Other => FleetItem::Other,
    })
}
