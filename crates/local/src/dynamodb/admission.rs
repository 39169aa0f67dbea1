//! Whether a write fits the limits of its table and its partition key at a moment. Pure.
//!
//! A write is let in for what it costs as far as that is known beforehand: the size of the item put, one unit for an update
//! or a delete. What it turns out to cost more (it replaced something larger; an update wrote more than a KB) is owed: paid
//! before anything else is let in. A refusal names every limit that the write does not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dynoxide::types::{AttributeValue, Item};

use crate::bucket::Bucket;
use crate::limits::{DynamoDbLimits, Partition, TableRates};

/// Partition keys that are remembered before those that have recovered are looked for.
const KEYS_BEFORE_PRUNING: usize = 1_024;

/// What is asked of a table's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) table: Arc<Facts>,
    /// The partition key, if the write names it as it should.
    pub(super) partition_key: Option<String>,
    pub(super) units: u64,
}

/// What matters of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) partition_attribute: String,
    /// All attributes of its key.
    pub(super) key_attributes: Vec<String>,
    pub(super) capacity: Capacity,
}

/// How a table's write capacity is set, in units a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capacity {
    Provisioned(u64),
    OnDemand { maximum: Option<u64> },
}

impl Capacity {
    /// What the table's own settings allow.
    fn wcu(self) -> Option<u64> {
        match self {
            Self::Provisioned(wcu) => Some(wcu),
            Self::OnDemand { maximum } => maximum,
        }
    }
}

impl Facts {
    /// The key of an item with these attributes.
    pub(super) fn key_of(&self, item: &Item) -> BTreeMap<String, AttributeValue> {
        let attribute = |name: &String| Some((name.clone(), item.get(name)?.clone()));
        self.key_attributes.iter().filter_map(attribute).collect()
    }
}

/// A limit that a write does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Over {
    Table,
    PartitionKey,
}

/// The limits, and how far they are used up.
#[derive(Debug, Default)]
pub(super) struct Admission {
    limits: DynamoDbLimits,
    since_ms: u64,
    tables: BTreeMap<String, Metered>,
}

#[derive(Debug, Default)]
struct Metered {
    /// When the table was made, if that was while limits were enforced.
    since_ms: u64,
    table: Option<Bucket>,
    partitions: BTreeMap<Partition, Bucket>,
    prune_above: usize,
}

impl Admission {
    pub(super) fn limits(&self) -> &DynamoDbLimits {
        &self.limits
    }

    /// Sets the limits. Who was held to a limit before keeps the credit, up to what the new one allows, and the debt.
    pub(super) fn set_limits(&mut self, limits: DynamoDbLimits, now_ms: u64) {
        if !self.limits.any() {
            self.since_ms = now_ms;
            self.tables.clear();
        }
        self.limits = limits;
    }

    /// A table begins now: it has saved nothing up.
    pub(super) fn begin(&mut self, table: &str, now_ms: u64) {
        self.tables.insert(table.to_owned(), Metered { since_ms: now_ms, ..Metered::default() });
    }

    /// Forgets a table that is gone.
    pub(super) fn forget(&mut self, table: &str) {
        self.tables.remove(table);
    }

    /// Takes what the charge asks for from the table and the partition, or from neither.
    pub(super) fn admit(&mut self, charge: &Charge, now_ms: u64) -> Result<(), BTreeSet<Over>> {
        let since_ms = self.since_ms;
        let partition = self.partition(charge);
        let (rates, metered) = self.metered(&charge.table);
        let since_ms = since_ms.max(metered.since_ms);
        metered.prune(rates, now_ms);
        let of_table = rates.table.map(|rate| {
            let bucket = metered.table.get_or_insert_with(|| Bucket::at_start(rate, since_ms));
            (Over::Table, rate, bucket)
        });
        let of_partition = rates.partition_key.zip(partition).map(|(rate, partition)| {
            let new = || Bucket::at_start(rate, now_ms);
            (Over::PartitionKey, rate, metered.partitions.entry(partition).or_insert_with(new))
        });
        let mut taken = Vec::new();
        let mut over = BTreeSet::new();
        for (limit, rate, bucket) in of_table.into_iter().chain(of_partition) {
            if bucket.take(charge.units, rate, now_ms) {
                taken.push((rate, bucket));
            } else {
                over.insert(limit);
            }
        }
        if over.is_empty() {
            return Ok(());
        }
        for (rate, bucket) in taken {
            bucket.give_back(charge.units, rate, now_ms);
        }
        Err(over)
    }

    /// Corrects an admitted charge by what was used in the end.
    pub(super) fn settle(&mut self, charge: &Charge, used: u64, now_ms: u64) {
        let correct = |bucket: &mut Bucket, rate| {
            if used > charge.units {
                bucket.owe(used - charge.units, rate, now_ms);
            } else {
                bucket.give_back(charge.units - used, rate, now_ms);
            }
        };
        let partition = self.partition(charge);
        let (rates, metered) = self.metered(&charge.table);
        if let (Some(rate), Some(bucket)) = (rates.table, &mut metered.table) {
            correct(bucket, rate);
        }
        let partition = partition.and_then(|partition| metered.partitions.get_mut(&partition));
        if let (Some(rate), Some(bucket)) = (rates.partition_key, partition) {
            correct(bucket, rate);
        }
    }

    fn partition(&self, charge: &Charge) -> Option<Partition> {
        let key = charge.partition_key.as_deref()?;
        Some(self.limits.partition(&charge.table.name, key))
    }

    fn metered(&mut self, table: &Facts) -> (TableRates, &mut Metered) {
        let rates = self.limits.rates(&table.name, table.capacity.wcu());
        (rates, self.tables.entry(table.name.clone()).or_default())
    }
}

impl Metered {
    /// Forgets partitions whose bucket is full again, now and then: there may be as many as there are keys.
    fn prune(&mut self, rates: TableRates, now_ms: u64) {
        if self.partitions.len() > self.prune_above.max(KEYS_BEFORE_PRUNING)
            && let Some(rate) = rates.partition_key
        {
            self.partitions.retain(|_, bucket| !bucket.is_full(rate, now_ms));
            self.prune_above = self.partitions.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(provisioned: Option<u64>) -> Arc<Facts> {
        let capacity = provisioned.map_or(Capacity::OnDemand { maximum: None }, Capacity::Provisioned);
        let facts = Facts {
            name: "t".to_owned(),
            arn: "arn".to_owned(),
            partition_attribute: "pk".to_owned(),
            key_attributes: vec!["pk".to_owned()],
            capacity,
        };
        Arc::new(facts)
    }

    fn charge(table: &Arc<Facts>, partition: &str, units: u64) -> Charge {
        Charge { table: Arc::clone(table), partition_key: Some(partition.to_owned()), units }
    }

    fn enforcing(document: &str) -> Admission {
        let mut limits = DynamoDbLimits::default();
        limits.change(document).unwrap();
        let mut admission = Admission::default();
        admission.set_limits(limits, 0);
        admission
    }

    #[test]
    fn a_hot_key_is_refused_while_the_table_has_room_and_takes_nothing_from_it() {
        let mut admission = enforcing("enforce = true\nburst_seconds = 0");
        let table = table(Some(2_000));
        assert_eq!(admission.admit(&charge(&table, "hot", 1_000), 0), Ok(()));
        assert_eq!(admission.admit(&charge(&table, "hot", 1), 0), Err([Over::PartitionKey].into()));
        assert_eq!(admission.admit(&charge(&table, "cold", 1_000), 0), Ok(()));
        assert_eq!(admission.admit(&charge(&table, "third", 1), 0), Err([Over::Table].into()));
        assert_eq!(admission.admit(&charge(&table, "hot", 500), 500), Ok(()));
    }

    #[test]
    fn a_refusal_names_every_limit_that_is_exceeded() {
        let mut admission = enforcing("enforce = true\nburst_seconds = 0");
        let table = table(Some(1_000));
        assert_eq!(admission.admit(&charge(&table, "hot", 1_000), 0), Ok(()));
        let both = [Over::Table, Over::PartitionKey].into();
        assert_eq!(admission.admit(&charge(&table, "hot", 1), 0), Err(both));
        assert_eq!(admission.admit(&charge(&table, "cold", 1), 0), Err([Over::Table].into()));
        assert_eq!(admission.admit(&charge(&table, "cold", 1_000), 1_000), Ok(()), "a refusal took nothing");
    }

    #[test]
    fn keys_of_one_partition_share_what_it_takes() {
        let mut admission = enforcing("[tables.t]\npartition_key_wcu = 10\nshared_partitions = [['a', 'b']]");
        let table = table(None);
        assert_eq!(admission.admit(&charge(&table, "a", 6), 0), Ok(()));
        assert_eq!(admission.admit(&charge(&table, "b", 5), 0), Err([Over::PartitionKey].into()));
        assert_eq!(admission.admit(&charge(&table, "b", 4), 0), Ok(()));
        assert_eq!(admission.admit(&charge(&table, "c", 10), 0), Ok(()));
        admission.settle(&charge(&table, "a", 6), 0, 0);
        assert_eq!(admission.admit(&charge(&table, "b", 6), 0), Ok(()));
    }

    #[test]
    fn a_maximum_on_demand_is_a_limit_when_limits_are_enforced() {
        let capped = |name: &str| {
            let facts = Facts { name: name.to_owned(), ..(*table(None)).clone() };
            Arc::new(Facts { capacity: Capacity::OnDemand { maximum: Some(10) }, ..facts })
        };
        let mut admission = enforcing("enforce = true\nburst_seconds = 0\ntables.u.wcu = 20");
        assert_eq!(admission.admit(&charge(&capped("t"), "k", 10), 0), Ok(()));
        assert_eq!(admission.admit(&charge(&capped("t"), "l", 1), 0), Err([Over::Table].into()));
        assert_eq!(admission.admit(&charge(&capped("u"), "k", 20), 0), Ok(()), "what is said of it counts");
    }

    #[test]
    fn credit_is_kept_from_when_the_limit_began_or_the_table() {
        let mut admission = enforcing("enforce = true\npartition_key_wcu = 100000");
        let old = table(Some(10));
        assert_eq!(admission.admit(&charge(&old, "k", 610), 60_000), Ok(()));
        let young = Arc::new(Facts { name: "u".to_owned(), ..(*old).clone() });
        admission.begin("u", 59_000);
        assert_eq!(admission.admit(&charge(&young, "k", 21), 60_000), Err([Over::Table].into()));
        assert_eq!(admission.admit(&charge(&young, "k", 20), 60_000), Ok(()));
    }

    #[test]
    fn what_cost_more_than_was_admitted_is_paid_before_the_next() {
        let mut admission = enforcing("tables.t.wcu = 10\nburst_seconds = 0");
        let table = table(None);
        let update = charge(&table, "k", 1);
        assert_eq!(admission.admit(&update, 0), Ok(()));
        admission.settle(&update, 30, 0);
        assert_eq!(admission.admit(&update, 2_000), Err([Over::Table].into()));
        assert_eq!(admission.admit(&update, 2_100), Ok(()));
        admission.settle(&update, 0, 2_100);
        assert_eq!(admission.admit(&update, 2_100), Ok(()));
    }

    #[test]
    fn a_limit_that_is_changed_holds_at_once() {
        let mut admission = enforcing("tables.t.wcu = 4000\nburst_seconds = 0");
        let table = table(None);
        assert_eq!(admission.admit(&charge(&table, "k", 1), 0), Ok(()));
        let mut limits = admission.limits().clone();
        limits.change("tables.t.wcu = 1000").unwrap();
        admission.set_limits(limits, 0);
        assert_eq!(admission.admit(&charge(&table, "k", 1_000), 0), Ok(()));
        assert_eq!(admission.admit(&charge(&table, "k", 1), 0), Err([Over::Table].into()));
    }

    #[test]
    fn partitions_that_have_recovered_are_forgotten() {
        let mut admission = enforcing("enforce = true");
        let table = table(None);
        for key in 0..5_000_u64 {
            let admitted = admission.admit(&charge(&table, &key.to_string(), 1), key * 10);
            assert_eq!(admitted, Ok(()));
        }
        assert!(admission.tables["t"].partitions.len() <= KEYS_BEFORE_PRUNING + 1);
    }

    proptest! {
        #[test]
        fn neither_table_nor_partition_ever_gets_more_than_its_rate_and_one_second(
            tries in prop::collection::vec((0..400_u64, 0..3_usize, 1..60_u64, 0..60_u64), 1..100),
            (of_table, of_key) in (1..300_u64, 1..200_u64)
        ) {
            let mut admission = enforcing(&format!(
                "burst_seconds = 1\n[tables.t]\nwcu = {of_table}\npartition_key_wcu = {of_key}"
            ));
            let facts = table(None);
            let (mut now_ms, mut overdraft) = (0, 0);
            let mut used_by: BTreeMap<&str, u64> = BTreeMap::new();
            for (wait_ms, key, units, really) in tries {
                now_ms += wait_ms;
                let key = ["a", "b", "c"][key];
                let wanted = charge(&facts, key, units);
                if admission.admit(&wanted, now_ms).is_ok() {
                    admission.settle(&wanted, really, now_ms);
                    overdraft = overdraft.max(really.max(units));
                    *used_by.entry(key).or_default() += really;
                    *used_by.entry("all").or_default() += really;
                }
                for (whose, used) in &used_by {
                    let rate = if *whose == "all" { of_table } else { of_key };
                    // The last one admitted may have cost more than there was; nothing is admitted until that is paid.
                    let allowed = rate * now_ms + (rate + overdraft) * 1_000;
                    prop_assert!(used * 1_000 <= allowed, "{whose}: {used} by {now_ms} ms");
                }
            }
        }
    }
}
