//! The protocol itself, in-process: headers, errors, a clock that stands still.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use sluicegate_local::{
    DynamoDb, Kinesis, KinesisConfig, ManualClock, TokioClock, dynamodb_router, kinesis_router,
};
use tower::ServiceExt;

use crate::support::START_MS;

async fn call(router: &Router, target: &str, body: impl Into<Body>) -> (StatusCode, HeaderMap, String) {
    let request = Request::post("/").header("content-type", "application/x-amz-json-1.1");
    let request = if target.is_empty() { request } else { request.header("x-amz-target", target) };
    let response = router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn kinesis(router: &Router, operation: &str, body: &str) -> (StatusCode, String) {
    let (status, _, body) = call(router, &format!("Kinesis_20131202.{operation}"), body.to_owned()).await;
    (status, body)
}

fn kinesis_at_start() -> Router {
    kinesis_router(Kinesis::new(KinesisConfig::default(), Arc::new(ManualClock::at(START_MS))))
}

#[tokio::test]
async fn every_answer_is_dated_and_numbered() {
    let router = kinesis_at_start();
    for operation in ["Kinesis_20131202.ListStreams", "Kinesis_20131202.Nonsense", ""] {
        let (_, headers, _) = call(&router, operation, "{}").await;
        assert_eq!(headers["date"], "Tue, 14 Nov 2023 22:13:20 GMT");
        assert_eq!(headers["content-type"], "application/x-amz-json-1.1");
        assert!(headers.contains_key("x-amzn-requestid"));
    }
}

#[tokio::test]
async fn unknown_operations_are_named_so() {
    let router = kinesis_at_start();
    for operation in ["Kinesis_20131202.Nonsense", "DynamoDB_20120810.ListTables", ""] {
        let (status, _, body) = call(&router, operation, "{}").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(body, r#"{"__type":"UnknownOperationException","message":""}"#);
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_a_serialization_error() {
    let router = kinesis_at_start();
    kinesis(&router, "CreateStream", r#"{"StreamName":"s"}"#).await;
    for body in
        ["", "nonsense", r#"{"StreamName":7}"#, r#"{"StreamName":"s","PartitionKey":"k","Data":"no base64"}"#]
    {
        let (status, answer) = kinesis(&router, "PutRecord", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer.contains("SerializationException"), "{answer}");
    }
    let (status, _, _) = call(&router, "Kinesis_20131202.PutRecord", vec![b'x'; (32 << 20) + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn missing_members_are_told_together() {
    let router = kinesis_at_start();
    kinesis(&router, "CreateStream", r#"{"StreamName":"s"}"#).await;
    let (_, answer) = kinesis(&router, "PutRecord", r#"{"StreamName":"s"}"#).await;
    assert!(answer.contains("2 validation errors detected: Value null at 'partitionKey'"), "{answer}");
    let (_, answer) = kinesis(&router, "GetShardIterator", r#"{"StreamName":"s"}"#).await;
    assert!(answer.contains("Value null at 'shardIteratorType'"), "{answer}");
    let (_, answer) = kinesis(&router, "PutRecords", r#"{"StreamName":"s"}"#).await;
    assert!(answer.contains("Value null at 'records'"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn time_can_be_tokio_s_and_stand_still() {
    let clock = Arc::new(TokioClock::starting_at(START_MS));
    let router = kinesis_router(Kinesis::new(KinesisConfig::default(), clock));
    kinesis(&router, "CreateStream", r#"{"StreamName":"s"}"#).await;
    tokio::time::advance(Duration::from_millis(1_500)).await;
    kinesis(&router, "PutRecord", r#"{"StreamName":"s","PartitionKey":"k","Data":"eA=="}"#).await;
    let ask = r#"{"StreamName":"s","ShardId":"shardId-000000000000","ShardIteratorType":"TRIM_HORIZON"}"#;
    let (_, iterator) = kinesis(&router, "GetShardIterator", ask).await;
    let (_, records) = kinesis(&router, "GetRecords", &iterator).await;
    assert!(records.contains(r#""ApproximateArrivalTimestamp":1700000001.500,"#), "{records}");
    tokio::time::advance(Duration::from_secs(301)).await;
    let (_, answer) = kinesis(&router, "GetRecords", &iterator).await;
    assert!(answer.contains("ExpiredIteratorException"), "{answer}");
}

#[tokio::test]
async fn two_runs_give_the_same_answers() {
    let run = || async {
        let router = kinesis_at_start();
        let mut answers = Vec::new();
        for (operation, body) in [
            ("CreateStream", r#"{"StreamName":"s","ShardCount":2}"#),
            ("PutRecord", r#"{"StreamName":"s","PartitionKey":"k","Data":"eA=="}"#),
            ("ListShards", r#"{"StreamName":"s"}"#),
        ] {
            let (_, headers, body) = call(&router, &format!("Kinesis_20131202.{operation}"), body).await;
            answers.push((headers, body));
        }
        answers
    };
    assert_eq!(run().await, run().await);
}

#[tokio::test]
async fn dynamodb_answers_in_its_own_dialect() {
    let router = dynamodb_router(DynamoDb::in_memory(Arc::new(ManualClock::at(START_MS))).unwrap());
    let (status, headers, body) = call(&router, "DynamoDB_20120810.ListTables", "{}").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, r#"{"TableNames":[]}"#));
    assert_eq!(headers["content-type"], "application/x-amz-json-1.0");
    assert_eq!(headers["date"], "Tue, 14 Nov 2023 22:13:20 GMT");
    for target in ["DynamoDB_20120810.Nonsense", "Kinesis_20131202.ListStreams", ""] {
        let (status, _, body) = call(&router, target, "{}").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body.contains("com.amazon.coral.service#UnknownOperationException"), "{body}");
    }
    let (status, _, body) = call(&router, "DynamoDB_20120810.GetItem", "nonsense").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("SerializationException"), "{body}");
}
