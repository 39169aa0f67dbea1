//! What rows weigh, as DynamoDB counts them (developer guide, item sizes and formats): for those who reckon what the
//! tables cost.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::rows::{Attributes, lease_attributes, worker_attributes};
use crate::fleet::WorkerRow;
use crate::model::Lease;

/// Bytes of a lease row. A state too large to be written counts nothing: there is no such row.
pub fn lease_bytes(lease: &Lease) -> usize {
    lease_attributes(lease).map_or(0, |item| item_bytes(&item))
}

/// Bytes of a worker row.
pub fn worker_bytes(fleet: &str, row: &WorkerRow) -> usize {
    item_bytes(&worker_attributes(fleet, row))
}

fn item_bytes(item: &Attributes) -> usize {
    item.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rows hold no other types; the SDK's enum is open")]
fn value_bytes(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(number) => number_bytes(number),
        AttributeValue::B(blob) => blob.as_ref().len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::L(values) => 3 + values.iter().map(|value| 1 + value_bytes(value)).sum::<usize>(),
        AttributeValue::M(values) => {
            let values: BTreeMap<_, _> = values.iter().collect();
            3 + values.into_iter().map(|(name, value)| 1 + name.len() + value_bytes(value)).sum::<usize>()
        }
        _ => 1,
    }
}

/// About a byte for two digits, and one more.
fn number_bytes(number: &str) -> usize {
    number.bytes().filter(u8::is_ascii_digit).count().div_ceil(2) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Behind;
    use crate::model::WorkerId;
    use sluicegate_checkpoint::ShardId;

    /// A heartbeat costs a write unit for each KB: with the most shards that it lists, three.
    #[test]
    fn a_worker_row_stays_below_three_kb_however_many_shards_are_behind() {
        let behind = |n: usize| Behind {
            shard: ShardId::new(format!("shardId-{n:012}")),
            age_ms: 86_400_000,
            lag_ms: 86_400_000,
        };
        let mut row =
            WorkerRow::new(WorkerId::new("a-deployment-7d9c5b8f4-abcde-550e8400e29b41d4a716446655440000"));
        row.address = Some("[2001:db8::8a2e:370:7334]:9090".to_owned());
        assert!(worker_bytes("application", &row) < 500, "a quiet worker's heartbeat costs one unit");
        row.behind = (0..WorkerRow::MOST_BEHIND).map(behind).collect();
        let bytes = worker_bytes("application", &row);
        assert!(bytes < 3 * 1_024, "{bytes}");
    }

    #[test]
    fn names_and_values_are_counted() {
        let item: Attributes = [
            ("leaseKey", AttributeValue::S("shardId-1".into())),
            ("leaseCounter", AttributeValue::N("123".into())),
            ("list", AttributeValue::L(vec![AttributeValue::N("1".into())])),
        ]
        .into();
        assert_eq!(item_bytes(&item), (8 + 9) + (12 + 3) + (4 + 3 + 1 + 2));
    }
}
