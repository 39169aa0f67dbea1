//! The limits of tables, as the SDK sees them, on a clock that the test moves.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ProvisionedThroughput, Put,
    PutRequest, ReturnConsumedCapacity, ScalarAttributeType, TransactWriteItem, WriteRequest,
};
use sluicegate_local::{DynamoDbLimits, TableLimits, TableUse};

use crate::dynamodb::{client_of, s};
use crate::support::{Backend, admin};

pub(crate) const TABLE: &str = "events";

/// What answers to a refused put say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) exception: &'static str,
    pub(crate) reasons: Vec<String>,
    pub(crate) resource: Option<String>,
}

pub(crate) struct Tables {
    pub(crate) backend: Backend,
    pub(crate) client: Client,
}

impl Tables {
    /// With [`TABLE`] in it: on demand, or provisioned with so many units.
    pub(crate) async fn with(limits: &str, provisioned: Option<i64>) -> Self {
        let backend = Backend::start().await;
        let client = client_of(&backend.server.endpoints().dynamodb);
        let tables = Self { backend, client };
        tables.limit(limits);
        let key = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash).build().unwrap();
        let text = AttributeDefinition::builder().attribute_name("pk");
        let text = text.attribute_type(ScalarAttributeType::S).build().unwrap();
        let create =
            tables.client.create_table().table_name(TABLE).key_schema(key).attribute_definitions(text);
        let create = match provisioned {
            Some(wcu) => {
                create.billing_mode(BillingMode::Provisioned).provisioned_throughput(throughput(wcu))
            }
            None => create.billing_mode(BillingMode::PayPerRequest),
        };
        create.send().await.unwrap();
        tables
    }

    pub(crate) fn limit(&self, document: &str) {
        let dynamodb = self.backend.server.dynamodb();
        let mut limits = dynamodb.limits();
        limits.change(document).unwrap();
        dynamodb.set_limits(limits);
    }

    pub(crate) async fn put(&self, key: &str, kilobytes: usize) -> Result<(), Told> {
        let put = self.client.put_item().table_name(TABLE).item("pk", s(key)).item("v", value(kilobytes));
        match put.send().await.map_err(|error| error.into_service_error()) {
            Ok(_) => Ok(()),
            Err(PutItemError::ProvisionedThroughputExceededException(error)) => {
                assert!(
                    error.message().unwrap().starts_with("The level of configured provisioned throughput")
                );
                Err(told("provisioned", error.throttling_reasons()))
            }
            Err(PutItemError::ThrottlingException(error)) => {
                assert!(error.message().unwrap().starts_with("Throughput exceeds the current capacity"));
                Err(told("throttling", error.throttling_reasons()))
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    pub(crate) async fn accepted(&self, key: &str, kilobytes: usize) -> usize {
        let mut accepted = 0;
        while self.put(key, kilobytes).await.is_ok() {
            accepted += 1;
        }
        accepted
    }

    fn used(&self) -> TableUse {
        self.backend.server.dynamodb().ledger().totals()[TABLE]
    }
}

pub(crate) fn told(exception: &'static str, reasons: &[aws_sdk_dynamodb::types::ThrottlingReason]) -> Told {
    let resource = reasons.first().and_then(|reason| reason.resource()).map(str::to_owned);
    let reasons = reasons.iter().map(|reason| reason.reason().unwrap().to_owned()).collect();
    Told { exception, reasons, resource }
}

pub(crate) fn throughput(wcu: i64) -> ProvisionedThroughput {
    ProvisionedThroughput::builder().read_capacity_units(5).write_capacity_units(wcu).build().unwrap()
}

/// Makes an item of exactly so many kilobytes, given a key of one letter.
fn value(kilobytes: usize) -> AttributeValue {
    AttributeValue::B(Blob::new(vec![7; kilobytes * 1_024 - 4]))
}

pub(crate) fn batch(keys: &[&str], kilobytes: usize) -> Vec<WriteRequest> {
    let put = |key: &&str| {
        let put = PutRequest::builder().item("pk", s(key)).item("v", value(kilobytes)).build().unwrap();
        WriteRequest::builder().put_request(put).build()
    };
    keys.iter().map(put).collect()
}

#[tokio::test]
async fn without_limits_a_provisioned_table_takes_everything() {
    let tables = Tables::with("", Some(1)).await;
    for _ in 0..50 {
        tables.put("a", 4).await.unwrap();
    }
    assert_eq!(tables.used().write_units, 200.0);
}

#[tokio::test]
async fn a_provisioned_table_is_held_to_its_own_capacity_until_that_is_changed() {
    let tables = Tables::with("enforce = true\nburst_seconds = 0", Some(10)).await;
    assert_eq!(tables.accepted("a", 2).await, 5);
    let refused = tables.put("a", 2).await.unwrap_err();
    assert_eq!(refused.exception, "provisioned");
    assert_eq!(refused.reasons, ["TableWriteProvisionedThroughputExceeded"]);
    assert!(
        refused
            .resource
            .is_some_and(|arn| arn.starts_with("arn:aws:dynamodb:") && arn.ends_with(":table/events"))
    );
    tables.backend.advance_ms(199);
    tables.put("a", 2).await.unwrap_err();
    tables.backend.advance_ms(1);
    tables.put("a", 2).await.unwrap();
    let update = tables.client.update_table().table_name(TABLE).provisioned_throughput(throughput(100));
    update.send().await.unwrap();
    tables.backend.advance_ms(1_000);
    assert_eq!(tables.accepted("a", 2).await, 50);
}

#[tokio::test]
async fn unused_capacity_is_kept_for_as_long_as_is_said() {
    let tables = Tables::with("tables.events.wcu = 10\nburst_seconds = 60", None).await;
    tables.backend.advance_ms(20_000);
    assert_eq!(tables.accepted("a", 1).await, 210);
    tables.backend.advance_ms(1_000_000);
    assert_eq!(tables.accepted("a", 10).await, 60);
}

#[tokio::test]
async fn a_hot_key_is_throttled_while_others_are_not() {
    let tables = Tables::with("enforce = true\nburst_seconds = 0", Some(5_000)).await;
    assert_eq!(tables.accepted("a", 100).await, 10);
    let refused = tables.put("a", 100).await.unwrap_err();
    assert_eq!(
        (refused.exception, refused.reasons),
        ("provisioned", vec!["TableWriteKeyRangeThroughputExceeded".to_owned()])
    );
    assert_eq!(tables.accepted("b", 100).await, 10);
    tables.limit("tables.events.partition_key_wcu = 100");
    tables.backend.advance_ms(1_000);
    assert_eq!(tables.accepted("a", 100).await, 1);
}

#[tokio::test]
async fn a_table_on_demand_answers_with_the_other_exception() {
    let tables =
        Tables::with("burst_seconds = 0\ntables.events = { wcu = 10, partition_key_wcu = 5 }", None).await;
    assert_eq!(tables.accepted("a", 1).await, 5);
    let refused = tables.put("a", 1).await.unwrap_err();
    assert_eq!(
        (refused.exception, refused.reasons),
        ("throttling", vec!["TableWriteKeyRangeThroughputExceeded".to_owned()])
    );
    assert_eq!(tables.accepted("b", 1).await, 5);
    let refused = tables.put("c", 1).await.unwrap_err();
    assert_eq!(refused.reasons, ["TableWriteMaxOnDemandThroughputExceeded"]);
}

#[tokio::test]
async fn of_a_batch_what_fits_is_written_and_the_rest_comes_back() {
    let tables = Tables::with("enforce = true\nburst_seconds = 0", Some(10)).await;
    let send = |keys: &[&str]| {
        let send = tables.client.batch_write_item().request_items(TABLE, batch(keys, 4));
        send.return_consumed_capacity(ReturnConsumedCapacity::Total).send()
    };
    let answer = send(&["a", "b", "c", "d"]).await.unwrap();
    let unprocessed = &answer.unprocessed_items().unwrap()[TABLE];
    let keys =
        unprocessed.iter().map(|write| write.put_request().unwrap().item()["pk"].as_s().unwrap().as_str());
    assert_eq!(keys.collect::<Vec<_>>(), ["c", "d"]);
    assert_eq!(unprocessed[0].put_request().unwrap().item()["v"], value(4));
    assert_eq!(answer.consumed_capacity()[0].capacity_units(), Some(8.0));
    let refused = send(&["c", "d"]).await.unwrap_err().into_service_error();
    assert!(refused.is_provisioned_throughput_exceeded_exception());
    tables.backend.advance_ms(1_000);
    assert_eq!(send(&["c", "d"]).await.unwrap().unprocessed_items().unwrap().len(), 0);
    assert_eq!(tables.client.scan().table_name(TABLE).send().await.unwrap().count(), 4);
    let used = tables.used();
    let refused = (used.refused_units, used.refused_items, used.refused_writes);
    assert_eq!((used.write_units, used.written_items, used.writes), (16.0, 4, 2));
    assert_eq!(refused, (16.0, 4, 1));
}

#[tokio::test]
async fn a_batch_that_is_wrong_takes_nothing_from_the_limit() {
    let tables = Tables::with("enforce = true\nburst_seconds = 0", Some(10)).await;
    let twice = tables.client.batch_write_item().request_items(TABLE, batch(&["a", "a"], 4));
    let refused = twice.send().await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("ValidationException"));
    assert_eq!(tables.accepted("a", 1).await, 10);
}

#[tokio::test]
async fn a_transaction_costs_twice_and_is_cancelled_as_a_whole() {
    let tables = Tables::with("enforce = true\nburst_seconds = 0", Some(10)).await;
    let put = |key: &str, kilobytes| {
        let put = Put::builder().table_name(TABLE).item("pk", s(key)).item("v", value(kilobytes)).build();
        TransactWriteItem::builder().put(put.unwrap()).build()
    };
    let send = |parts| tables.client.transact_write_items().set_transact_items(Some(parts)).send();
    send(vec![put("a", 1), put("b", 2)]).await.unwrap();
    let cancelled = send(vec![put("a", 2), put("b", 1)]).await.unwrap_err().into_service_error();
    assert!(cancelled.is_transaction_canceled_exception());
    assert!(cancelled.to_string().contains("[None, ProvisionedThroughputExceeded]"), "{cancelled}");
    assert_eq!(tables.accepted("c", 1).await, 4);
    assert_eq!(tables.used().write_units, 10.0);
}

#[tokio::test]
async fn a_condition_that_does_not_hold_uses_the_larger_item_and_a_shrinking_put_the_old_one() {
    let tables = Tables::with("", None).await;
    tables.put("a", 7).await.unwrap();
    let put = tables.client.put_item().table_name(TABLE).item("pk", s("a")).item("v", value(3));
    let put = put.condition_expression("attribute_not_exists(pk)");
    let lost = put.send().await.unwrap_err().into_service_error();
    let PutItemError::ConditionalCheckFailedException(lost) = lost else { panic!("{lost:?}") };
    assert_eq!(lost.item(), None, "the client did not ask for it");
    assert_eq!(tables.used().write_units, 14.0);
    tables.put("a", 1).await.unwrap();
    assert_eq!(tables.used().write_units, 21.0);
    let delete = tables.client.delete_item().table_name(TABLE).key("pk", s("a"));
    let deleted = delete.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.unwrap();
    assert_eq!(deleted.consumed_capacity().unwrap().capacity_units(), Some(1.0));
    assert_eq!((tables.used().write_units, tables.used().writes), (22.0, 4));
}

#[tokio::test]
async fn what_replaced_something_larger_is_paid_for_before_the_next_write() {
    let tables = Tables::with("enforce = true\nburst_seconds = 0", Some(10)).await;
    tables.put("a", 10).await.unwrap();
    tables.backend.advance_ms(1_000);
    tables.put("a", 1).await.unwrap();
    assert_eq!(tables.used().write_units, 20.0);
    tables.put("b", 1).await.unwrap_err();
    tables.backend.advance_ms(99);
    tables.put("b", 1).await.unwrap_err();
    tables.backend.advance_ms(1);
    tables.put("b", 1).await.unwrap();
}

#[tokio::test]
async fn the_ledger_tells_what_each_second_saw_whether_or_not_the_client_asked() {
    let tables = Tables::with("tables.events.wcu = 4\nburst_seconds = 0", None).await;
    assert_eq!(tables.accepted("a", 1).await, 4);
    tables.backend.advance_ms(1_000);
    tables.put("a", 3).await.unwrap();
    let get = tables.client.get_item().table_name(TABLE).key("pk", s("a")).consistent_read(true);
    assert_eq!(get.send().await.unwrap().consumed_capacity(), None);
    let (status, told) = admin(&tables.backend.server.endpoints().dynamodb, "GET", "/ledger", "").await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let events = &told[TABLE];
    assert_eq!(
        (status, events["write_units"].as_f64(), events["read_units"].as_f64()),
        (200, Some(7.0), Some(1.0))
    );
    let windows = events["windows"].as_array().unwrap();
    let seen =
        windows.iter().map(|window| (window["write_units"].as_f64(), window["refused_units"].as_f64()));
    assert_eq!(seen.collect::<Vec<_>>(), [(Some(4.0), Some(1.0)), (Some(3.0), Some(0.0))]);
    let second = windows[1]["second"].as_u64().unwrap();
    assert_eq!(second, crate::support::START_MS / 1_000 + 1);
    let since = format!("/ledger?since={second}");
    let (_, told) = admin(&tables.backend.server.endpoints().dynamodb, "GET", &since, "").await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[TABLE]["windows"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn limits_are_changed_over_http_while_it_runs() {
    let tables = Tables::with("burst_seconds = 0", None).await;
    let endpoint = tables.backend.server.endpoints().dynamodb.clone();
    let (status, now) = admin(&endpoint, "POST", "/limits", "tables.events.wcu = 4").await;
    assert_eq!(status, 200, "{now}");
    let expected = DynamoDbLimits {
        burst_seconds: 0,
        tables: [(TABLE.to_owned(), TableLimits { wcu: Some(4), ..TableLimits::default() })].into(),
        ..DynamoDbLimits::default()
    };
    assert_eq!(tables.backend.server.dynamodb().limits(), expected);
    assert_eq!(admin(&endpoint, "GET", "/limits", "").await, (200, now));
    assert_eq!(tables.accepted("a", 1).await, 4);
    admin(&endpoint, "POST", "/limits", "tables.events.wcu = 8").await;
    tables.backend.advance_ms(1_000);
    assert_eq!(tables.accepted("a", 1).await, 8);
    let (status, told) = admin(&endpoint, "POST", "/limits", "tables.events.wcu = 0").await;
    assert_eq!(status, 400);
    assert!(told.starts_with("tables.events.wcu = 0 would refuse everything"), "{told}");
}
