//! What tables and streams are held to, and the document that changes it while the backend runs. Pure.
//!
//! By default nothing is enforced. `enforce` holds everything to what AWS holds it to; a table or stream that is named is
//! held to what is said of it either way.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bucket::Rate;

/// Seconds of unused write capacity that a table keeps (AWS DynamoDB developer guide, "Burst capacity": up to five minutes).
const BURST_SECONDS: u32 = 300;
/// Write units a second of one partition (AWS DynamoDB developer guide, "Partitions and data distribution": 1,000).
const PARTITION_KEY_WCU: u64 = 1_000;

/// What the tables of the embedded DynamoDB are held to. Writes only; reads are not limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DynamoDbLimits {
    /// Hold every table in provisioned mode to its own write capacity, every table on demand to the maximum that was set for
    /// it, and every partition key of every table to `partition_key_wcu`. Default: no.
    pub enforce: bool,
    /// For how many seconds a table keeps capacity that it did not use, from when its limit began; at least 1, which is
    /// what 0 means too. Default 300, as at AWS. A table so never accepts more in a window of *t* seconds than its rate
    /// x (*t* + this).
    pub burst_seconds: u32,
    /// Write units a second for one partition key, with no more credit than those of one second. Default 1,000, as at AWS.
    pub partition_key_wcu: u64,
    /// Tables held to something else.
    pub tables: BTreeMap<String, TableLimits>,
}

/// What one table is held to, whatever its billing mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableLimits {
    /// Write units a second of the table. Without it the table's own, if limits are enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wcu: Option<u64>,
    /// Write units a second of each of its partition keys. Without it those of all tables, if limits are enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_key_wcu: Option<u64>,
    /// Groups of partition keys that are stored in one partition: the keys of a group share one `partition_key_wcu`. Every
    /// other key has a partition of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_partitions: Option<Vec<Vec<String>>>,
}

/// What stores a write: the partition of one key, or one that several keys share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Partition {
    Key(String),
    /// The group's place in `shared_partitions`.
    Shared(usize),
}

impl Default for DynamoDbLimits {
    fn default() -> Self {
        Self {
            enforce: false,
            burst_seconds: BURST_SECONDS,
            partition_key_wcu: PARTITION_KEY_WCU,
            tables: BTreeMap::new(),
        }
    }
}

/// Rates of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableRates {
    pub(crate) table: Option<Rate>,
    pub(crate) partition_key: Option<Rate>,
}

impl DynamoDbLimits {
    /// Changes what the document names; the rest stays. It is TOML, with the fields of this type.
    ///
    /// # Errors
    /// It is not such a document, or names a limit of 0.
    pub fn change(&mut self, document: &str) -> Result<(), LimitsError> {
        let change: DynamoDbChange = read(document)?;
        let named = change.tables.iter().flat_map(|(name, table)| {
            [("wcu", table.wcu), ("partition_key_wcu", table.partition_key_wcu)]
                .map(|(field, value)| (format!("tables.{name}.{field}"), value))
        });
        refuse_zero(named.chain([("partition_key_wcu".to_owned(), change.partition_key_wcu)]))?;
        change.tables.values().try_for_each(refuse_key_in_two_partitions)?;
        self.enforce = change.enforce.unwrap_or(self.enforce);
        self.burst_seconds = change.burst_seconds.unwrap_or(self.burst_seconds);
        self.partition_key_wcu = change.partition_key_wcu.unwrap_or(self.partition_key_wcu);
        for (name, table) in change.tables {
            let own = self.tables.entry(name).or_default();
            own.wcu = table.wcu.or(own.wcu);
            own.partition_key_wcu = table.partition_key_wcu.or(own.partition_key_wcu);
            own.shared_partitions = table.shared_partitions.or_else(|| own.shared_partitions.take());
        }
        Ok(())
    }

    /// Whether any table is held to anything.
    pub(crate) fn any(&self) -> bool {
        self.enforce || !self.tables.is_empty()
    }

    /// What a table is held to whose own write capacity is `capacity`: as provisioned, or the maximum set on demand.
    pub(crate) fn rates(&self, table: &str, capacity: Option<u64>) -> TableRates {
        let own = self.tables.get(table);
        let of_table = own.and_then(|own| own.wcu).or_else(|| capacity.filter(|_| self.enforce));
        let everybody_s = Some(self.partition_key_wcu).filter(|_| self.enforce);
        let of_key = own.and_then(|own| own.partition_key_wcu).or(everybody_s);
        TableRates {
            table: of_table.map(|wcu| Rate::keeping(wcu, self.burst_seconds)),
            partition_key: of_key.map(|wcu| Rate::keeping(wcu, 1)),
        }
    }

    /// The partition that stores a key.
    pub(crate) fn partition(&self, table: &str, key: &str) -> Partition {
        let groups = self.tables.get(table).and_then(|own| own.shared_partitions.as_ref());
        let holds = |group: &Vec<String>| group.iter().any(|member| member == key);
        let shared = groups.and_then(|groups| groups.iter().position(holds));
        shared.map_or_else(|| Partition::Key(key.to_owned()), Partition::Shared)
    }
}

/// What the shards of the embedded Kinesis are held to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KinesisLimits {
    /// Hold every shard of every stream to [`ShardLimits::AWS`]. Default: no.
    pub enforce: bool,
    /// Streams whose shards are held to something else.
    pub streams: BTreeMap<String, ShardLimits>,
}

/// What each shard of a stream is held to, a second. A shard keeps unused what one second brings, no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardLimits {
    /// Bytes of data and partition keys that are put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<u64>,
    /// Records that are put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_records: Option<u64>,
    /// Bytes of data and partition keys that are read. An answer may be larger; reading then pauses until it is paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    /// GetRecords calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_calls: Option<u64>,
}

impl ShardLimits {
    /// No limit.
    pub const NONE: Self =
        Self { write_bytes: None, write_records: None, read_bytes: None, read_calls: None };

    /// Those of the service (AWS Kinesis developer guide, "Quotas and limits").
    pub const AWS: Self = Self {
        write_bytes: Some(1 << 20),
        write_records: Some(1_000),
        read_bytes: Some(2 << 20),
        read_calls: Some(5),
    };

    fn or(self, other: Self) -> Self {
        Self {
            write_bytes: self.write_bytes.or(other.write_bytes),
            write_records: self.write_records.or(other.write_records),
            read_bytes: self.read_bytes.or(other.read_bytes),
            read_calls: self.read_calls.or(other.read_calls),
        }
    }
}

impl KinesisLimits {
    /// Changes what the document names; the rest stays. It is TOML, with the fields of this type.
    ///
    /// # Errors
    /// It is not such a document, or names a limit of 0.
    pub fn change(&mut self, document: &str) -> Result<(), LimitsError> {
        let change: KinesisChange = read(document)?;
        let named = change.streams.iter().flat_map(|(name, shard)| {
            [
                ("write_bytes", shard.write_bytes),
                ("write_records", shard.write_records),
                ("read_bytes", shard.read_bytes),
                ("read_calls", shard.read_calls),
            ]
            .map(|(field, value)| (format!("streams.{name}.{field}"), value))
        });
        refuse_zero(named)?;
        self.enforce = change.enforce.unwrap_or(self.enforce);
        for (name, limits) in change.streams {
            let own = self.streams.entry(name).or_default();
            *own = limits.or(*own);
        }
        Ok(())
    }

    /// What each shard of a stream is held to.
    pub(crate) fn of_stream(&self, stream: &str) -> ShardLimits {
        let everybody_s = if self.enforce { ShardLimits::AWS } else { ShardLimits::NONE };
        self.streams.get(stream).copied().unwrap_or_default().or(everybody_s)
    }
}

/// Why a document does not change the limits.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// It is no TOML, or has a field that there is not.
    #[error("the limits cannot be read: {0}")]
    Unreadable(#[source] Box<toml::de::Error>),
    /// A limit that nothing could pass.
    #[error("{0} = 0 would refuse everything: give at least 1, or have a fault refuse requests")]
    Zero(String),
    /// A partition key that would be stored in two partitions.
    #[error("partition key `{0}` appears twice in shared_partitions: a key is stored in one partition")]
    TwoPartitions(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DynamoDbChange {
    enforce: Option<bool>,
    burst_seconds: Option<u32>,
    partition_key_wcu: Option<u64>,
    #[serde(default)]
    tables: BTreeMap<String, TableLimits>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KinesisChange {
    enforce: Option<bool>,
    #[serde(default)]
    streams: BTreeMap<String, ShardLimits>,
}

fn read<T: DeserializeOwned>(document: &str) -> Result<T, LimitsError> {
    toml::from_str(document).map_err(|error| LimitsError::Unreadable(Box::new(error)))
}

fn refuse_zero(named: impl Iterator<Item = (String, Option<u64>)>) -> Result<(), LimitsError> {
    let mut zeros = named.filter(|(_, value)| *value == Some(0)).map(|(name, _)| name);
    zeros.next().map_or(Ok(()), |name| Err(LimitsError::Zero(name)))
}

fn refuse_key_in_two_partitions(table: &TableLimits) -> Result<(), LimitsError> {
    let mut seen = BTreeSet::new();
    let mut keys = table.shared_partitions.iter().flatten().flatten();
    keys.find(|key| !seen.insert(*key)).map_or(Ok(()), |key| Err(LimitsError::TwoPartitions(key.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u64, seconds: u64) -> Option<Rate> {
        Some(Rate { per_second, depth: per_second * seconds })
    }

    #[test]
    fn nothing_is_held_to_anything_unless_asked() {
        let limits = DynamoDbLimits::default();
        assert!(!limits.any());
        assert_eq!(limits.rates("t", Some(5)), TableRates { table: None, partition_key: None });
        assert_eq!(KinesisLimits::default().of_stream("s"), ShardLimits::NONE);
    }

    #[test]
    fn a_table_is_held_to_what_is_said_of_it_else_to_its_own_capacity() {
        let mut limits = DynamoDbLimits::default();
        limits.change("tables.t.wcu = 4000").unwrap();
        assert_eq!(limits.rates("t", None), TableRates { table: rate(4_000, 300), partition_key: None });
        assert_eq!(limits.rates("u", Some(7)).table, None);
        limits.change("enforce = true\nburst_seconds = 0\n[tables.u]\npartition_key_wcu = 50").unwrap();
        let expected = TableRates { table: rate(4_000, 1), partition_key: rate(1_000, 1) };
        assert_eq!(limits.rates("t", Some(7)), expected);
        assert_eq!(limits.rates("u", Some(7)), TableRates { table: rate(7, 1), partition_key: rate(50, 1) });
        assert_eq!(limits.rates("v", None), TableRates { table: None, partition_key: rate(1_000, 1) });
    }

    #[test]
    fn keys_named_together_share_a_partition_until_they_are_named_otherwise() {
        let mut limits = DynamoDbLimits::default();
        limits.change(r#"tables.t.shared_partitions = [["a", "b"], ["c", "d"]]"#).unwrap();
        limits.change("tables.t.wcu = 5").unwrap();
        let of = |limits: &DynamoDbLimits, key| limits.partition("t", key);
        assert_eq!((of(&limits, "b"), of(&limits, "c")), (Partition::Shared(0), Partition::Shared(1)));
        assert_eq!(of(&limits, "e"), Partition::Key("e".to_owned()));
        assert_eq!(limits.partition("u", "a"), Partition::Key("a".to_owned()));
        limits.change(r#"tables.t.shared_partitions = [["a", "b"], ["b"]]"#).unwrap_err();
        limits.change("tables.t.shared_partitions = []").unwrap();
        assert_eq!(of(&limits, "a"), Partition::Key("a".to_owned()));
    }

    #[test]
    fn a_stream_is_held_to_what_is_said_of_it_else_to_what_aws_says() {
        let mut limits = KinesisLimits::default();
        limits.change("streams.s.read_calls = 2").unwrap();
        assert_eq!(limits.of_stream("s"), ShardLimits { read_calls: Some(2), ..ShardLimits::NONE });
        limits.change("enforce = true").unwrap();
        assert_eq!(limits.of_stream("s"), ShardLimits { read_calls: Some(2), ..ShardLimits::AWS });
        assert_eq!(limits.of_stream("other"), ShardLimits::AWS);
    }

    #[test]
    fn a_document_that_makes_no_sense_changes_nothing() {
        let mut limits = DynamoDbLimits::default();
        for document in
            ["enforce = 1", "wcu = 5", "tables.t.rcu = 5", "tables.t.wcu = 0", "tables.t.wcu = -1"]
        {
            limits.change(document).unwrap_err();
            assert_eq!(limits, DynamoDbLimits::default(), "{document}");
        }
        let told = limits.change("tables.t.wcu = 0").unwrap_err().to_string();
        assert!(told.starts_with("tables.t.wcu = 0 would refuse everything"), "{told}");
        KinesisLimits::default().change("streams.s.read_calls = 0").unwrap_err();
    }
}
