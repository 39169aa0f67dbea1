//! How fast the hot paths are, without sockets and without the SDK. Run by hand:
//! `cargo test --release -p sluicegate-local --test it -- --ignored --nocapture throughput`

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Request;
use sluicegate_local::{DynamoDb, Kinesis, KinesisConfig, SystemClock, dynamodb_router, kinesis_router};
use tokio::time::Instant;
use tower::ServiceExt;

const RECORD_BYTES: usize = 1_024;
const REQUESTS: usize = 400;
const RECORDS: usize = 500;

async fn call(router: &Router, operation: &str, body: Bytes) -> Bytes {
    let request = Request::post("/").header("x-amz-target", format!("Kinesis_20131202.{operation}"));
    let response = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
}

fn report(what: &str, started: Instant) {
    let megabytes = u32::try_from(REQUESTS * RECORDS * RECORD_BYTES / 1_000_000).unwrap();
    let rate = f64::from(megabytes) / started.elapsed().as_secs_f64();
    println!("{what}: {rate:.0} MB/s of data on one core");
}

#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn throughput_of_puts_and_gets_of_1_kb_records() {
    let router = kinesis_router(Kinesis::new(KinesisConfig::default(), Arc::new(SystemClock)));
    call(&router, "CreateStream", r#"{"StreamName":"s","ShardCount":1}"#.into()).await;
    let data = "QUJD".repeat(RECORD_BYTES.div_ceil(3));
    let entry = |i: usize| format!(r#"{{"Data":"{data}","PartitionKey":"key-{i}"}}"#);
    let entries: Vec<_> = (0..RECORDS).map(entry).collect();
    let body = Bytes::from(format!(r#"{{"Records":[{}],"StreamName":"s"}}"#, entries.join(",")));
    let started = Instant::now();
    for _ in 0..REQUESTS {
        call(&router, "PutRecords", body.clone()).await;
    }
    report("PutRecords", started);
    for limit in [1_000, 10_000] {
        let ask = r#"{"StreamName":"s","ShardId":"shardId-000000000000","ShardIteratorType":"TRIM_HORIZON"}"#;
        let mut answer = call(&router, "GetShardIterator", ask.into()).await;
        let started = Instant::now();
        loop {
            let text = std::str::from_utf8(&answer).unwrap();
            let iterator = text.rsplit(r#"ShardIterator":""#).next().unwrap().trim_end_matches("\"}");
            let body = format!(r#"{{"Limit":{limit},"ShardIterator":"{iterator}"}}"#);
            answer = call(&router, "GetRecords", body.into()).await;
            if answer.starts_with(br#"{"Records":[]"#) {
                break;
            }
        }
        report(&format!("GetRecords by {limit}"), started);
    }
}

/// One batch of 25 items of about 1 KB, of keys that no other batch has.
fn batch(number: usize) -> Bytes {
    let data = "QUJD".repeat(RECORD_BYTES.div_ceil(3));
    let put = |item: usize| {
        format!(r#"{{"PutRequest":{{"Item":{{"pk":{{"S":"{number}-{item}"}},"v":{{"B":"{data}"}}}}}}}}"#)
    };
    let puts: Vec<_> = (0..25).map(put).collect();
    Bytes::from(format!(r#"{{"RequestItems":{{"items":[{}]}}}}"#, puts.join(",")))
}

#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn throughput_of_batches_of_1_kb_items() {
    let db = DynamoDb::in_memory(Arc::new(SystemClock)).unwrap();
    let router = dynamodb_router(db);
    let call = |operation: &'static str, body: Bytes| {
        let request = Request::post("/").header("x-amz-target", format!("DynamoDB_20120810.{operation}"));
        router.clone().oneshot(request.body(Body::from(body)).unwrap())
    };
    let create = r#"{"TableName":"items","KeySchema":[{"AttributeName":"pk","KeyType":"HASH"}],
        "AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"}],"BillingMode":"PAY_PER_REQUEST"}"#;
    call("CreateTable", create.into()).await.unwrap();
    let batches: Vec<_> = (0..400).map(batch).collect();
    let started = Instant::now();
    for batch in batches {
        assert!(call("BatchWriteItem", batch).await.unwrap().status().is_success());
    }
    println!("BatchWriteItem: {:.0} items/s on one core", 10_000.0 / started.elapsed().as_secs_f64());
}
