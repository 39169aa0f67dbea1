//! What a table says that it takes, and why it refuses writes, as the SDK sees both.

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemError;
use aws_sdk_dynamodb::types::{
    BillingMode, OnDemandThroughput, TableDescription, TableStatus, WarmThroughput,
};

use crate::support::admin;
use crate::table_limits::{TABLE, Tables, Told, batch, throughput, told};

const ON_DEMAND_MAXIMUM: &str = "TableWriteMaxOnDemandThroughputExceeded";
const PROVISIONED: &str = "TableWriteProvisionedThroughputExceeded";
const KEY_RANGE: &str = "TableWriteKeyRangeThroughputExceeded";

fn warm(read: i64, write: i64) -> WarmThroughput {
    WarmThroughput::builder().read_units_per_second(read).write_units_per_second(write).build()
}

fn at_most(write: i64) -> OnDemandThroughput {
    OnDemandThroughput::builder().max_write_request_units(write).build()
}

/// Warm read and write units a second; the maximum of write units on demand; provisioned write units.
fn capacities(table: &TableDescription) -> (Option<(i64, i64)>, Option<i64>, Option<i64>) {
    let warm = table.warm_throughput().map(|warm| {
        assert_eq!(warm.status(), Some(&TableStatus::Active));
        (warm.read_units_per_second().unwrap(), warm.write_units_per_second().unwrap())
    });
    let maximum = table.on_demand_throughput().and_then(|most| most.max_write_request_units());
    let provisioned =
        table.provisioned_throughput().and_then(|provisioned| provisioned.write_capacity_units());
    (warm, maximum, provisioned.filter(|units| *units > 0))
}

impl Tables {
    async fn described(&self) -> (Option<(i64, i64)>, Option<i64>, Option<i64>) {
        let described = self.client.describe_table().table_name(TABLE).send().await.unwrap();
        capacities(described.table().unwrap())
    }

    /// What is said of a batch none of whose items is taken; none of one of which some are.
    async fn refused(&self, keys: &[&str]) -> Option<Told> {
        let send = self.client.batch_write_item().request_items(TABLE, batch(keys, 1)).send().await;
        match send.map_err(|error| error.into_service_error()) {
            Ok(_) => None,
            Err(BatchWriteItemError::ProvisionedThroughputExceededException(error)) => {
                Some(told("provisioned", error.throttling_reasons()))
            }
            Err(BatchWriteItemError::ThrottlingException(error)) => {
                Some(told("throttling", error.throttling_reasons()))
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_new_table_on_demand_is_warm_for_as_much_as_at_aws_until_that_is_raised() {
    let tables = Tables::with("", None).await;
    assert_eq!(tables.described().await, (Some((12_000, 4_000)), None, None));
    let raise = |to| tables.client.update_table().table_name(TABLE).warm_throughput(to).send();
    let answer = raise(warm(12_000, 9_000)).await.unwrap();
    assert_eq!(capacities(answer.table_description().unwrap()).0, Some((12_000, 9_000)));
    assert_eq!(tables.described().await.0, Some((12_000, 9_000)));
    let lowered = raise(warm(12_000, 8_999)).await.unwrap_err().into_service_error();
    assert_eq!(lowered.code(), Some("ValidationException"));
    assert!(lowered.message().unwrap().contains("WriteUnitsPerSecond for WarmThroughput"), "{lowered}");
    tables.client.delete_table().table_name(TABLE).send().await.unwrap();
    let gone = raise(warm(12_000, 9_000)).await.unwrap_err().into_service_error();
    assert!(gone.is_resource_not_found_exception(), "{gone:?}");
}

#[tokio::test]
async fn a_table_tells_the_mode_and_the_capacity_that_it_was_given_last() {
    let tables = Tables::with("", Some(50)).await;
    assert_eq!(tables.described().await, (Some((5, 50)), None, Some(50)));
    let update = || tables.client.update_table().table_name(TABLE);
    update().provisioned_throughput(throughput(70)).send().await.unwrap();
    assert_eq!(tables.described().await, (Some((5, 70)), None, Some(70)));
    let on_demand = update().billing_mode(BillingMode::PayPerRequest).on_demand_throughput(at_most(300));
    let answer = on_demand.warm_throughput(warm(20_000, 5_000)).send().await.unwrap();
    let expected = (Some((20_000, 5_000)), Some(300), None);
    assert_eq!(capacities(answer.table_description().unwrap()), expected);
    assert_eq!(tables.described().await, expected);
    update().on_demand_throughput(at_most(-1)).send().await.unwrap();
    assert_eq!(tables.described().await.1, None);
    update()
        .billing_mode(BillingMode::Provisioned)
        .provisioned_throughput(throughput(9))
        .send()
        .await
        .unwrap();
    assert_eq!(tables.described().await, (Some((20_000, 5_000)), None, Some(9)));
}

#[tokio::test]
async fn a_maximum_on_demand_is_enforced_with_the_other_limits_and_not_hidden_by_an_override() {
    let tables = Tables::with("burst_seconds = 0", None).await;
    let cap = tables.client.update_table().table_name(TABLE).on_demand_throughput(at_most(5));
    cap.send().await.unwrap();
    for _ in 0..20 {
        tables.put("a", 1).await.unwrap();
    }
    tables.limit("enforce = true");
    tables.backend.advance_ms(1_000);
    assert_eq!(tables.accepted("a", 1).await, 5);
    let refused = tables.put("a", 1).await.unwrap_err();
    assert_eq!((refused.exception, refused.reasons), ("throttling", vec![ON_DEMAND_MAXIMUM.to_owned()]));
    tables.limit("tables.events.wcu = 8");
    tables.backend.advance_ms(1_000);
    assert_eq!(tables.accepted("a", 1).await, 8);
    assert_eq!(tables.described().await, (Some((12_000, 4_000)), Some(5), None));
}

#[tokio::test]
async fn a_batch_of_which_nothing_is_taken_names_every_limit_that_refused_an_item() {
    for (provisioned, exception, table) in
        [(Some(100), "provisioned", PROVISIONED), (None, "throttling", ON_DEMAND_MAXIMUM)]
    {
        let limits = "burst_seconds = 0\ntables.events = { wcu = 10, partition_key_wcu = 6 }";
        let tables = Tables::with(limits, provisioned).await;
        assert_eq!(tables.accepted("a", 1).await, 6);
        assert_eq!(tables.refused(&["a"]).await, Some(refusal(exception, &[KEY_RANGE], &tables).await));
        assert_eq!(tables.refused(&["a", "b", "c", "d", "e", "f"]).await, None, "some of it was taken");
        let both = refusal(exception, &[table, KEY_RANGE], &tables).await;
        assert_eq!(tables.refused(&["g", "a", "h"]).await, Some(both));
        assert_eq!(tables.refused(&["g"]).await, Some(refusal(exception, &[table], &tables).await));
    }
}

async fn refusal(exception: &'static str, reasons: &[&str], tables: &Tables) -> Told {
    let described = tables.client.describe_table().table_name(TABLE).send().await.unwrap();
    let resource = described.table().unwrap().table_arn().map(str::to_owned);
    let reasons = reasons.iter().map(|reason| (*reason).to_owned()).collect();
    Told { exception, reasons, resource }
}

#[tokio::test]
async fn keys_of_one_partition_share_its_units_and_are_refused_by_key_range() {
    let tables = Tables::with("burst_seconds = 0\ntables.events.partition_key_wcu = 10", None).await;
    let endpoint = tables.backend.server.endpoints().dynamodb.clone();
    let shared = r#"tables.events.shared_partitions = [["a", "b"]]"#;
    let (status, now) = admin(&endpoint, "POST", "/limits", shared).await;
    assert!(status == 200 && now.contains(r#""shared_partitions":[["a","b"]]"#), "{now}");
    assert_eq!((tables.accepted("a", 2).await, tables.accepted("b", 2).await), (5, 0));
    assert_eq!(tables.put("b", 2).await.unwrap_err().reasons, [KEY_RANGE]);
    assert_eq!(tables.accepted("c", 2).await, 5);
    let (status, told) =
        admin(&endpoint, "POST", "/limits", r#"tables.events.shared_partitions = [["a"], ["a"]]"#).await;
    assert_eq!(status, 400);
    assert!(told.starts_with("partition key `a` appears twice"), "{told}");
}

#[tokio::test]
async fn an_injected_throttle_gives_no_reason() {
    let tables = Tables::with("", None).await;
    let endpoint = tables.backend.server.endpoints().dynamodb.clone();
    let script = "[[fault]]\ntable = 'events'\nerrors = { rate = 1.0, with = 'throttle' }";
    assert_eq!(admin(&endpoint, "POST", "/faults", script).await.0, 200);
    let refused = tables.put("a", 1).await.unwrap_err();
    assert_eq!((refused.exception, refused.reasons.len()), ("throttling", 0));
    assert_eq!(tables.refused(&["a", "b"]).await, Some(refused));
}
