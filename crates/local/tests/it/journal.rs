//! The journal tells what was accepted, and nothing else.

use std::path::Path;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
use aws_sdk_kinesis::primitives::Blob;
use serde_json::{Value, json};
use sluicegate_local::{FaultScript, LocalConfig, LocalServer};

use crate::dynamodb::{TABLE, client_of, create_table, s};
use crate::support::{STREAM, kinesis_client};

async fn started(journal: &Path) -> (LocalServer, Client) {
    let config = LocalConfig { journal: Some(journal.to_path_buf()), ..LocalConfig::default() };
    let server = LocalServer::start(config).await.unwrap();
    let client = client_of(&server.endpoints().dynamodb);
    create_table(&client).await;
    (server, client)
}

fn lines(journal: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(journal).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_told_with_its_place_and_its_bytes_even_if_its_answer_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (server, _) = started(&path).await;
    let kinesis = kinesis_client(&server.endpoints().kinesis);
    kinesis.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
    let put = |data: &str| {
        kinesis.put_record().stream_name(STREAM).partition_key("key").data(Blob::new(data)).send()
    };
    let first = put("one").await.unwrap();
    let lost = "[[fault]]\nstream = 'orders'\noperations = ['PutRecord']\nlost_answers = 1.0";
    server.faults().install(FaultScript::parse(lost).unwrap());
    put("two").await.unwrap_err();
    server.faults().install(FaultScript::parse("[[fault]]\noutage = 'refuse'").unwrap());
    put("three").await.unwrap_err();

    let lines = lines(&path);
    assert_eq!(lines.len(), 2, "what was refused is not in it: {lines:?}");
    let told = |line: &Value| {
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        (text("kind"), text("stream"), text("shard"), text("partition_key"), text("data"))
    };
    let record = |data: &str| {
        let words = ["record", STREAM, "shardId-000000000000", "key", data];
        let [kind, stream, shard, key, data] = words.map(str::to_owned);
        (kind, stream, shard, key, data)
    };
    assert_eq!(told(&lines[0]), record("b25l"));
    assert_eq!(told(&lines[1]), record("dHdv"));
    assert_eq!(lines[0]["sequence_number"], first.sequence_number());
    assert!(lines[1]["sequence_number"].as_str() > lines[0]["sequence_number"].as_str());
    assert!(lines[0]["arrival_ms"].as_u64() > Some(1_700_000_000_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_told_with_the_item_before_and_after_and_a_failed_condition_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (_server, client) = started(&path).await;
    client.put_item().table_name(TABLE).item("pk", s("a")).item("sk", s("1")).send().await.unwrap();
    let update = |wanted: &str| {
        let update = client.update_item().table_name(TABLE).key("pk", s("a")).key("sk", s("1"));
        let update = update.update_expression("SET v = :v").condition_expression(wanted);
        update.expression_attribute_values(":v", s("new")).send()
    };
    update("attribute_exists(v)").await.unwrap_err();
    update("attribute_exists(pk)").await.unwrap();
    client.delete_item().table_name(TABLE).key("pk", s("a")).key("sk", s("1")).send().await.unwrap();

    let old = json!({ "pk": { "S": "a" }, "sk": { "S": "1" } });
    let new = json!({ "pk": { "S": "a" }, "sk": { "S": "1" }, "v": { "S": "new" } });
    let told: Vec<Value> = lines(&path)
        .iter()
        .map(|line| json!([line["operation"], line["conditional"], line["before"], line["after"]]))
        .collect();
    let expected = [
        json!(["PutItem", false, null, old]),
        json!(["UpdateItem", true, old, new]),
        json!(["DeleteItem", false, new, null]),
    ];
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_told_by_the_keys_of_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (server, client) = started(&path).await;
    let put = |sort: &str| {
        let put = PutRequest::builder().item("pk", s("a")).item("sk", s(sort)).item("v", s("large")).build();
        WriteRequest::builder().put_request(put.unwrap()).build()
    };
    let batch =
        |sorts: [&str; 2]| client.batch_write_item().request_items(TABLE, sorts.map(put).to_vec()).send();
    batch(["1", "2"]).await.unwrap();
    server.faults().install(FaultScript::parse("[[fault]]\nunprocessed = 1.0").unwrap());
    batch(["3", "4"]).await.unwrap_err();
    let lines = lines(&path);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let key = |sort: &str| json!({ "pk": { "S": "a" }, "sk": { "S": sort } });
    assert_eq!((&lines[0]["kind"], &lines[0]["table"]), (&json!("items"), &json!(TABLE)));
    assert_eq!(lines[0]["keys"], json!([key("1"), key("2")]));
}
