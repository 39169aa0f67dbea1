//! The backend's journal, read: the records of each shard, and what was written to the tables, in order.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use anyhow::Context;
use aws_smithy_types::base64;
use serde_json::Value;
use sluicegate_checkpoint::{ArrivalMillis, Record, SequenceNumber, ShardId};
use sluicegate_lease::dynamodb::decode::{self, FleetItem};
use sluicegate_lease::dynamodb::worker_table_name;
use sluicegate_lease::{Lease, WorkerRow};
use sluicegate_sink::item::{ItemKey, RESERVED_PARTITION, names};

use crate::harness::fleet::APPLICATION;
use crate::simulation::wire::values;

/// A row of a table before and after a write; nothing where there was none.
#[derive(Debug, Clone, PartialEq)]
pub struct Write<Row> {
    /// When it took effect, in epoch milliseconds.
    pub at_ms: i64,
    /// What the client called itself that sent it.
    pub by: Option<String>,
    /// Whether it had a condition.
    pub conditional: bool,
    /// As it was.
    pub before: Option<Row>,
    /// As it is.
    pub after: Option<Row>,
}

/// Something that took effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A write of a lease row.
    Lease(Box<Write<Lease>>),
    /// A write of a worker's row.
    Worker(Box<Write<WorkerRow>>),
    /// Items of the analytics table.
    Items(Vec<ItemKey>),
}

/// All that the journal tells.
#[derive(Debug, Default)]
pub struct History {
    /// The records of each shard, in its order.
    pub records: BTreeMap<ShardId, Vec<Record>>,
    /// What was written, in order.
    pub entries: Vec<Entry>,
}

impl History {
    /// Reads a journal from its beginning.
    ///
    /// # Errors
    /// It cannot be read, or a line makes no sense.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        let mut history = Self::default();
        for line in std::io::BufReader::new(file).lines() {
            let line = line?;
            history.line(&line).with_context(|| format!("a line of the journal: {line}"))?;
        }
        for records in history.records.values_mut() {
            records.sort_by(|one, other| one.sequence_number().cmp(other.sequence_number()));
        }
        Ok(history)
    }

    /// Adds what a line says.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn line(&mut self, line: &str) -> anyhow::Result<()> {
        let line: Value = serde_json::from_str(line)?;
        match line["kind"].as_str() {
            Some("record") => {
                let (shard, record) = record(&line)?;
                self.records.entry(shard).or_default().push(record);
            }
            Some("write") => self.entries.extend(write(&line)?),
            Some("items") if line["table"] == events_table().as_str() => {
                let keys = line["keys"].as_array().context("no keys")?;
                self.entries.push(Entry::Items(keys.iter().map(item_key).collect::<anyhow::Result<_>>()?));
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// The last record of each shard that has one.
    pub fn ends(&self) -> BTreeMap<ShardId, SequenceNumber> {
        let last = |records: &Vec<Record>| records.last().map(|record| record.sequence_number().clone());
        self.records.iter().filter_map(|(shard, records)| Some((shard.clone(), last(records)?))).collect()
    }

    /// The writes of lease rows, in order.
    pub fn lease_writes(&self) -> impl Iterator<Item = &Write<Lease>> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Lease(write) => Some(&**write),
            Entry::Worker(_) | Entry::Items(_) => None,
        })
    }

    /// The writes of workers' rows, in order.
    pub fn worker_writes(&self) -> impl Iterator<Item = &Write<WorkerRow>> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Worker(write) => Some(&**write),
            Entry::Lease(_) | Entry::Items(_) => None,
        })
    }
}

fn events_table() -> String {
    format!("{APPLICATION}-events")
}

fn text<'a>(line: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    line[name].as_str().with_context(|| format!("no {name}"))
}

fn record(line: &Value) -> anyhow::Result<(ShardId, Record)> {
    let record = Record::new(
        SequenceNumber::parse(text(line, "sequence_number")?)?,
        ArrivalMillis(line["arrival_ms"].as_i64().context("no arrival_ms")?),
        text(line, "partition_key")?,
        base64::decode(text(line, "data")?)?,
    );
    Ok((ShardId::new(text(line, "shard")?), record))
}

fn item_key(item: &Value) -> anyhow::Result<ItemKey> {
    let part = |name: &str| item[name]["S"].as_str().map(str::to_owned).context("an item without a key");
    Ok(ItemKey { pk: part(names::PARTITION)?, sk: part(names::SORT)? })
}

fn write(line: &Value) -> anyhow::Result<Option<Entry>> {
    let table = text(line, "table")?;
    if table == APPLICATION {
        let write = both(line, |item| Ok(decode::lease(&values::item(item))?))?;
        return Ok(rows(&write).then(|| Entry::Lease(Box::new(write))));
    }
    if table == worker_table_name(APPLICATION) {
        let worker = |item: &Value| match decode::fleet_item(&values::item(item))? {
            FleetItem::Worker(row) => Ok(Some(*row)),
            FleetItem::Start(_) | FleetItem::RequestToLeave(_) | FleetItem::Other => Ok(None),
        };
        let write = both(line, worker)?;
        return Ok(rows(&write).then(|| Entry::Worker(Box::new(write))));
    }
    if table == events_table() && line["after"].is_object() {
        let key = item_key(&line["after"])?;
        return Ok((key.pk != RESERVED_PARTITION).then(|| Entry::Items(vec![key])));
    }
    Ok(None)
}

/// Whether a write is about a row of the kind at all.
fn rows<Row>(write: &Write<Row>) -> bool {
    write.before.is_some() || write.after.is_some()
}

fn both<Row>(
    line: &Value,
    decode: impl Fn(&Value) -> anyhow::Result<Option<Row>>,
) -> anyhow::Result<Write<Row>> {
    let row = |name: &str| if line[name].is_object() { decode(&line[name]) } else { Ok(None) };
    Ok(Write {
        at_ms: line["at_ms"].as_i64().context("no at_ms")?,
        by: line["by"].as_str().map(str::to_owned),
        conditional: line["conditional"].as_bool().context("no conditional")?,
        before: row("before")?,
        after: row("after")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_writes_and_items_are_read_and_other_tables_are_not() {
        let mut history = History::default();
        for line in [
            r#"{"kind":"record","stream":"flights","shard":"s-0","sequence_number":"7","arrival_ms":5,"partition_key":"k","data":"b25l"}"#,
            r#"{"kind":"write","table":"billing","operation":"PutItem","at_ms":9,"conditional":true,"before":null,"after":{"leaseKey":{"S":"s-0"},"leaseCounter":{"N":"0"},"checkpoint":{"S":"TRIM_HORIZON"},"checkpointSubSequenceNumber":{"N":"0"},"ownerSwitchesSinceCheckpoint":{"N":"0"}}}"#,
            r#"{"kind":"write","table":"billing-events","operation":"PutItem","at_ms":9,"conditional":true,"before":null,"after":{"pk":{"S":"~sluicegate"},"sk":{"S":"spread"}}}"#,
            r#"{"kind":"items","table":"billing-events","at_ms":9,"keys":[{"pk":{"S":"a"},"sk":{"S":"b"}}]}"#,
            r#"{"kind":"items","table":"another","at_ms":9,"keys":[{"pk":{"S":"a"}}]}"#,
        ] {
            history.line(line).unwrap();
        }
        assert_eq!(history.records[&ShardId::new("s-0")][0].data(), b"one");
        assert_eq!(history.ends()[&ShardId::new("s-0")].as_str(), "7");
        assert_eq!(history.entries.len(), 2, "{:?}", history.entries);
        assert_eq!(history.lease_writes().next().unwrap().after.as_ref().unwrap().key.as_str(), "s-0");
        let key = ItemKey { pk: "a".to_owned(), sk: "b".to_owned() };
        assert_eq!(history.entries[1], Entry::Items(vec![key]));
        assert!(history.line(r#"{"kind":"record"}"#).is_err());
    }
}
