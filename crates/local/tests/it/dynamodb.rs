//! DynamoDB through the real SDK: what a lease table and a sink need of it.

use std::path::Path;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, Put, PutRequest,
    ReturnValue, ReturnValuesOnConditionCheckFailure, ScalarAttributeType, TableStatus,
    TimeToLiveSpecification, TransactWriteItem, Update, WriteRequest,
};
use sluicegate_local::{LocalConfig, LocalServer};

pub(crate) const TABLE: &str = "leases";

pub(crate) fn client_of(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "static"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .endpoint_url(endpoint)
        .build();
    Client::from_conf(config)
}

pub(crate) async fn create_table(client: &Client) {
    let key = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash).build().unwrap();
    let sort = KeySchemaElement::builder().attribute_name("sk").key_type(KeyType::Range).build().unwrap();
    let text = |name: &str| {
        let attribute = AttributeDefinition::builder().attribute_name(name);
        attribute.attribute_type(ScalarAttributeType::S).build().unwrap()
    };
    let create = client.create_table().table_name(TABLE).key_schema(key).key_schema(sort);
    let create = create.attribute_definitions(text("pk")).attribute_definitions(text("sk"));
    create.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
}

async fn started(dir: Option<&Path>) -> (LocalServer, Client) {
    let config = LocalConfig { dir: dir.map(Path::to_path_buf), ..LocalConfig::default() };
    let server = LocalServer::start(config).await.unwrap();
    let client = client_of(&server.endpoints().dynamodb);
    (server, client)
}

pub(crate) fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn n(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn put_request(sort: &str, value: AttributeValue) -> WriteRequest {
    let put = PutRequest::builder().item("pk", s("a")).item("sk", s(sort)).item("v", value).build().unwrap();
    WriteRequest::builder().put_request(put).build()
}

#[tokio::test]
async fn a_lost_conditional_write_returns_the_item_that_stood_in_its_way() {
    let (_server, client) = started(None).await;
    create_table(&client).await;
    client
        .put_item()
        .table_name(TABLE)
        .item("pk", s("a"))
        .item("sk", s("1"))
        .item("counter", n(7))
        .send()
        .await
        .unwrap();
    let bump = |from: u64| {
        let update = client.update_item().table_name(TABLE).key("pk", s("a")).key("sk", s("1"));
        let update = update.update_expression("SET #c = :new").condition_expression("#c = :old");
        let update =
            update.expression_attribute_names("#c", "counter").expression_attribute_values(":old", n(from));
        let update =
            update.expression_attribute_values(":new", n(from + 1)).return_values(ReturnValue::AllNew);
        update.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld).send()
    };
    assert_eq!(bump(7).await.unwrap().attributes().unwrap()["counter"], n(8));
    let error = bump(7).await.unwrap_err().into_service_error();
    assert!(error.is_conditional_check_failed_exception());
    let aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(lost) =
        error
    else {
        panic!("not the typed error")
    };
    assert_eq!(lost.item().unwrap()["counter"], n(8));
}

#[tokio::test]
async fn batches_queries_scans_and_deletes_work() {
    let (_server, client) = started(None).await;
    create_table(&client).await;
    let writes = ["1", "2", "3"].map(|sort| put_request(sort, AttributeValue::B(Blob::new(vec![0, 255, 7]))));
    let batch = client.batch_write_item().request_items(TABLE, writes.to_vec()).send().await.unwrap();
    assert!(batch.unprocessed_items().unwrap().is_empty());
    let query = client.query().table_name(TABLE).key_condition_expression("pk = :a AND sk >= :from").limit(1);
    let query = query.expression_attribute_values(":a", s("a")).expression_attribute_values(":from", s("2"));
    let page = query.consistent_read(true).send().await.unwrap();
    assert_eq!((page.items()[0]["sk"].clone(), page.last_evaluated_key().is_some()), (s("2"), true));
    assert_eq!(page.items()[0]["v"], AttributeValue::B(Blob::new(vec![0, 255, 7])));
    client.delete_item().table_name(TABLE).key("pk", s("a")).key("sk", s("3")).send().await.unwrap();
    assert_eq!(client.scan().table_name(TABLE).send().await.unwrap().count(), 2);
    let one = client.get_item().table_name(TABLE).key("pk", s("a")).key("sk", s("3")).send().await.unwrap();
    assert_eq!(one.item(), None);
}

#[tokio::test]
async fn a_large_batch_fits_through_the_door() {
    let (_server, client) = started(None).await;
    create_table(&client).await;
    let large = vec![7; 399 << 10];
    let writes = (0..25).map(|i| put_request(&i.to_string(), AttributeValue::B(Blob::new(large.clone()))));
    client.batch_write_item().request_items(TABLE, writes.collect()).send().await.unwrap();
    let too_large = put_request("x", AttributeValue::B(Blob::new(vec![7; 400 << 10])));
    let error = client.batch_write_item().request_items(TABLE, vec![too_large]).send().await.unwrap_err();
    assert_eq!(error.into_service_error().meta().code(), Some("ValidationException"));
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    let (_server, client) = started(None).await;
    create_table(&client).await;
    let put = Put::builder().table_name(TABLE).item("pk", s("a")).item("sk", s("1")).build().unwrap();
    let update = Update::builder().table_name(TABLE).key("pk", s("a")).key("sk", s("2"));
    let update = update.update_expression("SET v = :v").expression_attribute_values(":v", n(1));
    let update = update.condition_expression("attribute_exists(pk)").build().unwrap();
    let items = vec![
        TransactWriteItem::builder().put(put).build(),
        TransactWriteItem::builder().update(update).build(),
    ];
    let error = client.transact_write_items().set_transact_items(Some(items)).send().await.unwrap_err();
    assert!(error.into_service_error().is_transaction_canceled_exception());
    assert_eq!(client.scan().table_name(TABLE).send().await.unwrap().count(), 0);
}

#[tokio::test]
async fn tables_are_described_listed_and_deleted() {
    let (_server, client) = started(None).await;
    create_table(&client).await;
    let described = client.describe_table().table_name(TABLE).send().await.unwrap();
    assert_eq!(described.table().unwrap().table_status(), Some(&TableStatus::Active));
    let ttl = TimeToLiveSpecification::builder().attribute_name("ttl").enabled(true).build().unwrap();
    client.update_time_to_live().table_name(TABLE).time_to_live_specification(ttl).send().await.unwrap();
    let ttl = client.describe_time_to_live().table_name(TABLE).send().await.unwrap();
    assert_eq!(ttl.time_to_live_description().unwrap().attribute_name(), Some("ttl"));
    assert_eq!(client.list_tables().send().await.unwrap().table_names(), [TABLE]);
    client.delete_table().table_name(TABLE).send().await.unwrap();
    let error = client.describe_table().table_name(TABLE).send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("made/on/demand");
    let (server, client) = started(Some(&data)).await;
    create_table(&client).await;
    client.put_item().table_name(TABLE).item("pk", s("a")).item("sk", s("1")).send().await.unwrap();
    server.stop().await;
    let (_server, client) = started(Some(&data)).await;
    assert_eq!(client.scan().table_name(TABLE).send().await.unwrap().count(), 1);
}
