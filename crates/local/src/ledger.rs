//! What requests consumed, by table: read from the answers that were asked to tell it (`ReturnConsumedCapacity`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// What one table was used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TableUse {
    /// Write capacity units.
    pub write_units: f64,
    /// Read capacity units.
    pub read_units: f64,
    /// Requests that wrote.
    pub writes: u64,
    /// Requests that read.
    pub reads: u64,
}

/// The use of all tables since the start.
#[derive(Debug, Default)]
pub struct Ledger {
    tables: Mutex<BTreeMap<String, TableUse>>,
}

/// The part of an answer that tells what it consumed.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Consumed),
    Many(Vec<Consumed>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Consumed {
    table_name: String,
    capacity_units: f64,
}

impl Ledger {
    /// Takes an answer in.
    pub(crate) fn note(&self, operation: &str, answer: &str) {
        let writes = matches!(
            operation,
            "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem" | "TransactWriteItems"
        );
        let Ok(Answer { consumed: Some(consumed) }) = serde_json::from_str(answer) else { return };
        let consumed = match consumed {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        };
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for part in consumed {
            let table = tables.entry(part.table_name).or_default();
            if writes {
                table.write_units += part.capacity_units;
                table.writes += 1;
            } else {
                table.read_units += part.capacity_units;
                table.reads += 1;
            }
        }
    }

    /// The use of every table.
    pub fn tables(&self) -> BTreeMap<String, TableUse> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// [`Ledger::tables`] as a JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(&self.tables()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_and_batched_answers_add_up_by_table() {
        let ledger = Ledger::default();
        ledger.note(
            "UpdateItem",
            r#"{"ConsumedCapacity":{"TableName":"a","CapacityUnits":2.0},"Attributes":{}}"#,
        );
        ledger.note(
            "BatchWriteItem",
            r#"{"UnprocessedItems":{},"ConsumedCapacity":[{"TableName":"a","CapacityUnits":3.5}]}"#,
        );
        ledger.note("Query", r#"{"ConsumedCapacity":{"TableName":"b","CapacityUnits":0.5}}"#);
        ledger.note("PutItem", "{}");
        let tables = ledger.tables();
        assert_eq!(tables["a"], TableUse { write_units: 5.5, writes: 2, ..TableUse::default() });
        assert_eq!(tables["b"], TableUse { read_units: 0.5, reads: 1, ..TableUse::default() });
    }
}
