//! What operations on tables answer: what the database says, and the warm throughput, of which it knows nothing.
//!
//! A table's warm throughput is what it takes at once: of a new table on demand 4,000 write units a second, of a provisioned
//! one its capacity, and more where CreateTable or UpdateTable raised it. It is told and never enforced. What was raised is
//! kept in memory: a backend that is started again on the same folder tells the values of a new table.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dynoxide::DynoxideError;
use dynoxide::actions::TableDescription;
use dynoxide::actions::create_table::CreateTableRequest;
use dynoxide::actions::delete_table::DeleteTableRequest;
use dynoxide::actions::describe_table::DescribeTableRequest;
use dynoxide::actions::update_table::UpdateTableRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::gate::is_on_demand;
use super::refusal::Refusal;
use super::{DynamoDb, decode, encode};

/// The parameter, in requests and in descriptions of tables.
const WARM: &str = "WarmThroughput";
/// Of a new table on demand (AWS DynamoDB developer guide, "Understanding DynamoDB warm throughput": 12,000 read units and
/// 4,000 write units a second).
const NEW_ON_DEMAND: WarmThroughput = WarmThroughput { read: Some(12_000), write: Some(4_000) };

/// Units a second that a table takes at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WarmThroughput {
    #[serde(rename = "ReadUnitsPerSecond", skip_serializing_if = "Option::is_none")]
    read: Option<u64>,
    #[serde(rename = "WriteUnitsPerSecond", skip_serializing_if = "Option::is_none")]
    write: Option<u64>,
}

/// What was raised, by table.
#[derive(Debug, Default)]
pub(super) struct Raised(Mutex<BTreeMap<String, WarmThroughput>>);

impl Raised {
    fn of(&self, table: &str) -> WarmThroughput {
        self.locked().get(table).copied().unwrap_or_default()
    }

    fn raise(&self, table: &str, to: WarmThroughput) {
        let mut tables = self.locked();
        let raised = tables.entry(table.to_owned()).or_default();
        *raised = raised.at_least(to);
    }

    fn forget(&self, table: &str) {
        self.locked().remove(table);
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, WarmThroughput>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WarmThroughput {
    /// That of a table that this request makes.
    fn of_request(asked: &Map<String, Value>) -> Self {
        if asked.get("BillingMode").and_then(Value::as_str) == Some("PAY_PER_REQUEST") {
            return NEW_ON_DEMAND;
        }
        let units = |member| asked.get("ProvisionedThroughput").and_then(|asked| asked.get(member)?.as_u64());
        Self { read: units("ReadCapacityUnits"), write: units("WriteCapacityUnits") }
    }

    /// That of a table that was never raised.
    fn new_of(table: &TableDescription) -> Self {
        if is_on_demand(table) {
            return NEW_ON_DEMAND;
        }
        table.provisioned_throughput.as_ref().map_or_else(Self::default, |provisioned| Self {
            read: Some(provisioned.read_capacity_units),
            write: Some(provisioned.write_capacity_units),
        })
    }

    fn at_least(self, other: Self) -> Self {
        Self { read: self.read.max(other.read), write: self.write.max(other.write) }
    }

    /// Refuses to lower what a table has.
    fn refuse_below(self, now: Self) -> Result<(), DynoxideError> {
        let asked =
            [("ReadUnitsPerSecond", self.read, now.read), ("WriteUnitsPerSecond", self.write, now.write)];
        let lower = asked.into_iter().find(|(_, asked, now)| asked.is_some() && asked < now);
        lower.map_or(Ok(()), |(member, ..)| {
            Err(DynoxideError::ValidationException(format!(
                "One or more parameter values were invalid: Requested {member} for WarmThroughput for table is lower \
                 than current WarmThroughput, decreasing WarmThroughput is not supported"
            )))
        })
    }
}

impl DynamoDb {
    pub(super) fn create_table(&self, body: &[u8]) -> Result<String, Refusal> {
        let mut asked: Map<String, Value> = decode(body)?;
        let warm = take_warm(&mut asked)?;
        warm.refuse_below(WarmThroughput::of_request(&asked))?;
        let made = self.database.create_table(read::<CreateTableRequest>(asked)?)?.table_description;
        self.gate.table_made(&made.table_name, self.now_ms());
        self.raised.forget(&made.table_name);
        self.raised.raise(&made.table_name, warm);
        self.described("TableDescription", &made)
    }

    pub(super) fn update_table(&self, body: &[u8]) -> Result<String, Refusal> {
        let mut asked: Map<String, Value> = decode(body)?;
        let warm = take_warm(&mut asked)?;
        let table = if warm == WarmThroughput::default() {
            self.database.update_table(read::<UpdateTableRequest>(asked)?)?.table_description
        } else {
            self.update_warm(asked, warm)?
        };
        self.gate.table_changed(&table.table_name);
        self.raised.raise(&table.table_name, warm);
        self.described("TableDescription", &table)
    }

    /// An update of the warm throughput, and of what else is asked for.
    fn update_warm(
        &self,
        asked: Map<String, Value>,
        warm: WarmThroughput,
    ) -> Result<TableDescription, Refusal> {
        let named = [("TableName".to_owned(), asked.get("TableName").cloned().unwrap_or_default())];
        let now = self.database.describe_table(read::<DescribeTableRequest>(named.into_iter().collect())?)?;
        warm.refuse_below(self.warm(&now.table))?;
        // The database refuses an update of nothing that it knows.
        if asked.keys().all(|name| name == "TableName" || name == "AttributeDefinitions") {
            return Ok(now.table);
        }
        Ok(self.database.update_table(read::<UpdateTableRequest>(asked)?)?.table_description)
    }

    pub(super) fn delete_table(&self, body: &[u8]) -> Result<String, Refusal> {
        let gone = self.database.delete_table(decode::<DeleteTableRequest>(body)?)?.table_description;
        self.gate.table_deleted(&gone.table_name);
        self.raised.forget(&gone.table_name);
        Ok(encode(&json!({ "TableDescription": gone }))?)
    }

    pub(super) fn describe_table(&self, body: &[u8]) -> Result<String, Refusal> {
        let table = self.database.describe_table(decode::<DescribeTableRequest>(body)?)?.table;
        self.described("Table", &table)
    }

    fn warm(&self, table: &TableDescription) -> WarmThroughput {
        WarmThroughput::new_of(table).at_least(self.raised.of(&table.table_name))
    }

    /// The answer that holds a table under this name.
    fn described(&self, name: &str, table: &TableDescription) -> Result<String, Refusal> {
        let warm = self.warm(table);
        let mut described = json!(table);
        described[WARM] =
            json!({ "ReadUnitsPerSecond": warm.read, "WriteUnitsPerSecond": warm.write, "Status": "ACTIVE" });
        Ok(encode(&json!({ name: described }))?)
    }
}

/// Takes out of a request what the database does not know; nothing asked for if it is not there.
fn take_warm(asked: &mut Map<String, Value>) -> Result<WarmThroughput, DynoxideError> {
    let warm = asked.remove(WARM).map(serde_json::from_value).transpose();
    let warm = warm.map_err(|error| DynoxideError::SerializationException(error.to_string()))?;
    Ok(warm.unwrap_or_default())
}

/// By way of the text, as `decode` gives the database's own messages.
fn read<Request: DeserializeOwned>(asked: Map<String, Value>) -> Result<Request, DynoxideError> {
    decode(Value::Object(asked).to_string().as_bytes())
}
