//! Injected faults, as the SDK sees them over a socket, and in-process on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use sluicegate_local::{
    AnswerLost, DynamoDb, FaultScript, LocalConfig, LocalServer, TokioClock, dynamodb_router,
};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::dynamodb::{TABLE, client_of, create_table, s};
use crate::support::{Backend, START_MS, STREAM, admin};

async fn with_table() -> (Backend, Client) {
    let backend = Backend::with_stream(1).await;
    let client = client_of(&backend.server.endpoints().dynamodb);
    create_table(&client).await;
    (backend, client)
}

fn install(backend: &Backend, script: &str) {
    backend.server.faults().install(FaultScript::parse(script).unwrap());
}

async fn put(client: &Client, sort: &str, value: AttributeValue) -> Result<(), String> {
    let put = client.put_item().table_name(TABLE).item("pk", s("a")).item("sk", s(sort)).item("v", value);
    match put.send().await {
        Ok(_) => Ok(()),
        Err(error) if error.raw_response().is_none() => Err("no answer".to_owned()),
        Err(error) => {
            let status = error.raw_response().unwrap().status().as_u16();
            let error = error.into_service_error();
            Err(format!("{status} {}", error.meta().code().unwrap_or_default()))
        }
    }
}

async fn count(client: &Client) -> i32 {
    client.scan().table_name(TABLE).send().await.unwrap().count()
}

#[tokio::test]
async fn errors_are_the_service_s_own_and_nothing_is_carried_out() {
    let (backend, client) = with_table().await;
    for (with, told) in [
        ("internal", "500 InternalServerError"),
        ("unavailable", "503 ServiceUnavailableException"),
        ("throttle", "400 ThrottlingException"),
    ] {
        let script = format!(
            "[[fault]]\ntable = '{TABLE}'\noperations = ['PutItem']\nerrors = {{ rate = 1.0, with = '{with}' }}"
        );
        install(&backend, &script);
        assert_eq!(put(&client, "1", s("x")).await, Err(told.to_owned()));
        assert_eq!(count(&client).await, 0);
    }
    let used = backend.server.dynamodb().ledger().totals()[TABLE];
    assert_eq!((used.write_units, used.refused_writes, used.refused_units), (0.0, 1, 1.0));
    backend.server.faults().clear();
    put(&client, "1", s("x")).await.unwrap();
}

#[tokio::test]
async fn a_share_of_requests_fails_and_the_same_seed_fails_the_same_ones() {
    let (backend, client) = with_table().await;
    let script = "seed = 11\n[[fault]]\noperations = ['PutItem']\nerrors = { rate = 0.3, with = 'internal' }";
    let mut runs = Vec::new();
    for _ in 0..2 {
        install(&backend, script);
        let mut failed = Vec::new();
        for _ in 0..60 {
            failed.push(put(&client, "1", s("x")).await.is_err());
        }
        runs.push(failed);
    }
    assert_eq!(runs[0], runs[1]);
    let failed = runs[0].iter().filter(|failed| **failed).count();
    assert!((8..30).contains(&failed), "{failed}");
}

#[tokio::test]
async fn a_lost_answer_is_no_answer_to_something_that_was_done() {
    let (backend, client) = with_table().await;
    install(&backend, "[[fault]]\noperations = ['PutItem']\nlost_answers = 1.0");
    assert_eq!(put(&client, "1", s("x")).await, Err("no answer".to_owned()));
    assert_eq!(count(&client).await, 1);
    let of_kinesis = "[[fault]]\nstream = 'orders'\noperations = ['PutRecord']\nlost_answers = 1.0";
    install(&backend, of_kinesis);
    let record = backend.kinesis.put_record().stream_name(STREAM).partition_key("key").data(Blob::new("x"));
    assert!(record.send().await.unwrap_err().raw_response().is_none());
    assert_eq!(backend.read_all("shardId-000000000000").await.len(), 1);
}

#[tokio::test]
async fn an_outage_lasts_as_long_as_the_script_says() {
    let (backend, client) = with_table().await;
    install(&backend, "[[fault]]\nservice = 'dynamodb'\nfrom = '10s'\nuntil = '70s'\noutage = 'refuse'");
    for (advance_ms, up) in [(9_999, true), (1, false), (59_999, false), (1, true)] {
        backend.advance_ms(advance_ms);
        assert_eq!(put(&client, "1", s("x")).await.is_ok(), up, "after {advance_ms} ms more");
        backend.put("kinesis goes on").await;
    }
}

#[tokio::test]
async fn faults_are_switched_over_http_at_either_service() {
    let (backend, client) = with_table().await;
    let endpoints = backend.server.endpoints().clone();
    let outage = "[[fault]]\noutage = 'refuse'";
    assert_eq!(admin(&endpoints.kinesis, "POST", "/faults", outage).await.0, 200);
    assert_eq!(put(&client, "1", s("x")).await, Err("503 ServiceUnavailableException".to_owned()));
    let refused = backend.kinesis.list_streams().send().await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 503);
    let (_, told) = admin(&endpoints.dynamodb, "GET", "/faults", "").await;
    assert!(told.contains(r#""requests_met":2"#), "{told}");
    let (status, told) = admin(&endpoints.dynamodb, "POST", "/faults", "[[fault]]\noutage = 'a bit'").await;
    assert_eq!(status, 400);
    assert!(told.contains("fault 1 of the script: outage is \"a bit\""), "{told}");
    assert_eq!(admin(&endpoints.dynamodb, "POST", "/faults", "").await.0, 200);
    put(&client, "1", s("x")).await.unwrap();
}

#[tokio::test]
async fn a_script_can_be_there_from_the_start() {
    let faults = FaultScript::parse("[[fault]]\nservice = 'dynamodb'\noutage = 'refuse'").unwrap();
    let server = LocalServer::start(LocalConfig { faults, ..LocalConfig::default() }).await.unwrap();
    let refused = client_of(&server.endpoints().dynamodb).list_tables().send().await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 503);
}

#[tokio::test]
async fn items_that_hold_certain_bytes_are_refused_alone_or_in_a_batch() {
    let (backend, client) = with_table().await;
    install(&backend, "[[fault]]\ntable = 'leases'\nreject_items_with = 'poison'");
    let invalid = Err("400 ValidationException".to_owned());
    assert_eq!(put(&client, "1", s("a poisonous text")).await, invalid);
    assert_eq!(put(&client, "1", AttributeValue::B(Blob::new("\0poison\0"))).await, invalid);
    let write = |sort: &str, value: &str| {
        let put = PutRequest::builder().item("pk", s("a")).item("sk", s(sort)).item("v", s(value)).build();
        WriteRequest::builder().put_request(put.unwrap()).build()
    };
    let send = |value: &str| {
        let writes = vec![write("1", "good"), write("2", value)];
        client.batch_write_item().request_items(TABLE, writes).send()
    };
    let refused = send("poison").await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("ValidationException"));
    assert_eq!(count(&client).await, 0);
    send("better").await.unwrap();
    assert_eq!(count(&client).await, 2);
}

#[tokio::test]
async fn a_share_of_a_batch_comes_back_unprocessed() {
    let (backend, client) = with_table().await;
    install(&backend, "seed = 1\n[[fault]]\nunprocessed = 0.5");
    let mut left: Vec<WriteRequest> = (0..25)
        .map(|sort| {
            let put = PutRequest::builder().item("pk", s("a")).item("sk", s(&sort.to_string())).build();
            WriteRequest::builder().put_request(put.unwrap()).build()
        })
        .collect();
    let mut rounds = 0;
    while !left.is_empty() {
        let sent = left.len();
        match client.batch_write_item().request_items(TABLE, left.clone()).send().await {
            Ok(answer) => left = answer.unprocessed_items.unwrap().remove(TABLE).unwrap_or_default(),
            Err(error) => assert!(error.into_service_error().is_throttling_exception()),
        }
        assert!(left.len() <= sent);
        rounds += 1;
        assert!(rounds < 100);
    }
    assert!(rounds > 1);
    assert_eq!(count(&client).await, 25);
}

/// A DynamoDB in-process on tokio's clock, which these tests pause.
fn in_process(script: &str) -> (DynamoDb, Router) {
    let db = DynamoDb::in_memory(Arc::new(TokioClock::starting_at(START_MS))).unwrap();
    db.faults().install(FaultScript::parse(script).unwrap());
    (db.clone(), dynamodb_router(db))
}

async fn list_tables(router: &Router) -> Response<Body> {
    let request = Request::post("/").header("x-amz-target", "DynamoDB_20120810.ListTables");
    router.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn latency_passes_on_the_paused_clock_and_repeats_with_the_seed() {
    let script = "seed = 5\n[[fault]]\nlatency = { p50 = '20ms', p99 = '200ms' }";
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (_db, router) = in_process(script);
        let mut waits = Vec::new();
        for _ in 0..200 {
            let before = Instant::now();
            assert_eq!(list_tables(&router).await.status(), StatusCode::OK);
            waits.push(before.elapsed());
        }
        runs.push(waits);
    }
    assert_eq!(runs[0], runs[1]);
    runs[0].sort_unstable();
    assert!((Duration::from_millis(15)..Duration::from_millis(27)).contains(&runs[0][100]), "{:?}", runs[0]);
}

#[tokio::test(start_paused = true)]
async fn in_process_a_lost_answer_is_marked_and_silence_lasts_until_the_outage_ends() {
    let (db, router) = in_process("[[fault]]\nlost_answers = 1.0");
    let lost = list_tables(&router).await;
    assert_eq!(lost.extensions().get(), Some(&AnswerLost));
    assert_eq!(lost.status(), StatusCode::INTERNAL_SERVER_ERROR);
    db.faults().install(FaultScript::parse("[[fault]]\nuntil = '60s'\noutage = 'silence'").unwrap());
    tokio::time::advance(Duration::from_secs(15)).await;
    let before = Instant::now();
    assert_eq!(list_tables(&router).await.extensions().get(), Some(&AnswerLost));
    // Timers of tokio are exact to the millisecond, rounded up.
    assert!((45_000..45_010).contains(&before.elapsed().as_millis()), "{:?}", before.elapsed());
    assert_eq!(list_tables(&router).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn without_faults_an_answer_is_there_at_once() {
    use std::task::{Context, Poll, Waker};
    let (_db, router) = in_process("");
    let mut answering = Box::pin(list_tables(&router));
    let polled = answering.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(answer) if answer.status() == StatusCode::OK));
}
