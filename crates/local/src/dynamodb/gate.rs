//! The limits of one DynamoDB, behind one lock that is held for arithmetic only, and what is known of its tables.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dynoxide::Database;
use dynoxide::actions::TableDescription;
use dynoxide::actions::describe_table::DescribeTableRequest;
use dynoxide::types::KeyType;

use super::admission::{Admission, Capacity, Charge, Facts};
use super::refusal::Throttle;
use crate::limits::DynamoDbLimits;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Whether anything is limited: what writes look at first.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    admission: Admission,
    facts: BTreeMap<String, Arc<Facts>>,
    /// How often a table was made, changed or deleted.
    changes: u64,
}

impl Gate {
    pub(super) fn limits_anything(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub(super) fn limits(&self) -> DynamoDbLimits {
        self.state().admission.limits().clone()
    }

    pub(super) fn set_limits(&self, limits: DynamoDbLimits, now_ms: u64) {
        let mut state = self.state();
        self.any.store(limits.any(), Ordering::Release);
        state.admission.set_limits(limits, now_ms);
    }

    pub(super) fn admit(&self, charge: &Charge, now_ms: u64) -> Result<(), Throttle> {
        let admitted = self.state().admission.admit(charge, now_ms);
        admitted.map_err(|over| Throttle::of(&charge.table, over))
    }

    pub(super) fn settle(&self, charge: &Charge, used: u64, now_ms: u64) {
        self.state().admission.settle(charge, used, now_ms);
    }

    /// What is known of a table; asked of the database once, until the table changes. None if there is no such table.
    pub(super) fn facts(&self, database: &Database, table: &str) -> Option<Arc<Facts>> {
        let changes = {
            let state = self.state();
            if let Some(facts) = state.facts.get(table) {
                return Some(Arc::clone(facts));
            }
            state.changes
        };
        let asked = database.describe_table(DescribeTableRequest { table_name: table.to_owned() });
        let facts = Arc::new(facts_of(asked.ok()?.table));
        let mut state = self.state();
        if state.changes == changes {
            state.facts.insert(table.to_owned(), Arc::clone(&facts));
        }
        Some(facts)
    }

    /// A table was made.
    pub(super) fn table_made(&self, table: &str, now_ms: u64) {
        self.table_changed(table);
        self.state().admission.begin(table, now_ms);
    }

    /// A table was changed.
    pub(super) fn table_changed(&self, table: &str) {
        let mut state = self.state();
        state.changes += 1;
        state.facts.remove(table);
    }

    /// A table was deleted.
    pub(super) fn table_deleted(&self, table: &str) {
        self.table_changed(table);
        self.state().admission.forget(table);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn facts_of(table: TableDescription) -> Facts {
    let hash = table.key_schema.iter().find(|key| key.key_type == KeyType::HASH);
    Facts {
        partition_attribute: hash.map(|key| key.attribute_name.clone()).unwrap_or_default(),
        key_attributes: table.key_schema.iter().map(|key| key.attribute_name.clone()).collect(),
        capacity: capacity_of(&table),
        name: table.table_name,
        arn: table.table_arn,
    }
}

fn capacity_of(table: &TableDescription) -> Capacity {
    let provisioned = table.provisioned_throughput.as_ref().map(|throughput| throughput.write_capacity_units);
    match provisioned.filter(|wcu| *wcu > 0 && !is_on_demand(table)) {
        Some(wcu) => Capacity::Provisioned(wcu),
        None => {
            let maximum = table.on_demand_throughput.as_ref().and_then(|most| most.max_write_request_units);
            Capacity::OnDemand { maximum: maximum.and_then(|units| u64::try_from(units).ok()) }
        }
    }
}

/// Whether a table pays by request.
pub(super) fn is_on_demand(table: &TableDescription) -> bool {
    table.billing_mode_summary.as_ref().is_some_and(|summary| summary.billing_mode == "PAY_PER_REQUEST")
}
