//! The budget of a table, checked from outside: whatever is thrown at it, and whatever its limit is changed to meanwhile, the
//! ledger never shows more than the limit allows.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use sluicegate_local::{DynamoDb, ManualClock, TableUse, Window, dynamodb_router};
use tower::ServiceExt;

use crate::support::START_MS;

const TABLE: &str = "events";

async fn ask(router: &Router, operation: &str, body: String) -> serde_json::Value {
    let request = Request::post("/").header("x-amz-target", format!("DynamoDB_20120810.{operation}"));
    let answer = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// A batch of 25 new items of 1 to 12 KB, so that it takes up to 300 units.
fn batch(number: usize) -> String {
    let put = |item: usize| {
        let kilobytes = 1 + (number * 7 + item * 5) % 12;
        let text = "x".repeat(kilobytes * 1_024 - 100);
        format!(r#"{{"PutRequest":{{"Item":{{"pk":{{"S":"{number}-{item}"}},"v":{{"S":"{text}"}}}}}}}}"#)
    };
    let puts: Vec<_> = (0..25).map(put).collect();
    format!(r#"{{"RequestItems":{{"{TABLE}":[{}]}}}}"#, puts.join(","))
}

fn limit(db: &DynamoDb, wcu: u64) {
    let mut limits = db.limits();
    limits.change(&format!("burst_seconds = 0\ntables.{TABLE}.wcu = {wcu}")).unwrap();
    db.set_limits(limits);
}

/// Units accepted in every run of seconds, against what the limit lets flow in them and one second's credit.
fn assert_within(windows: &[Window<TableUse>], wcu: f64) {
    for from in 0..windows.len() {
        let mut used = 0.0;
        for window in &windows[from..] {
            used += window.used.write_units;
            let seconds = u32::try_from(window.second - windows[from].second + 2).unwrap();
            assert!(used <= wcu * f64::from(seconds), "{used} units in {seconds} s of {wcu}");
        }
    }
}

#[tokio::test]
async fn no_run_of_seconds_ever_shows_more_than_the_limit_lets_through() {
    let clock = Arc::new(ManualClock::at(START_MS));
    let db = DynamoDb::in_memory(clock.clone()).unwrap();
    let router = dynamodb_router(db.clone());
    let create = format!(
        r#"{{"TableName":"{TABLE}","KeySchema":[{{"AttributeName":"pk","KeyType":"HASH"}}],
        "AttributeDefinitions":[{{"AttributeName":"pk","AttributeType":"S"}}],"BillingMode":"PAY_PER_REQUEST"}}"#
    );
    ask(&router, "CreateTable", create).await;
    // What it is limited to, and what it is offered: far more each time.
    let mut number = 0;
    for wcu in [800, 200, 1_600] {
        limit(&db, wcu);
        clock.advance(Duration::from_millis(1_000 - clock_ms(&clock) % 1_000));
        let begun = clock_ms(&clock) / 1_000;
        for _ in 0..60 {
            let answer = ask(&router, "BatchWriteItem", batch(number)).await;
            let understood = answer["UnprocessedItems"].is_object()
                || answer["__type"].as_str().is_some_and(|kind| kind.ends_with("#ThrottlingException"));
            assert!(understood, "{answer}");
            number += 1;
            clock.advance(Duration::from_millis(60));
        }
        let windows = db.ledger().windows(TABLE);
        let windows: Vec<_> = windows.into_iter().filter(|window| window.second >= begun).collect();
        let limit = f64::from(u32::try_from(wcu).unwrap());
        assert_within(&windows, limit);
        let accepted: f64 = windows.iter().map(|window| window.used.write_units).sum();
        assert!(accepted > 0.95 * limit * 3.6, "what there was has been used: {accepted}");
    }
    let total = db.ledger().totals()[TABLE];
    assert_eq!(total.written_items + total.refused_items, 180 * 25);
    let counted = ask(&router, "Scan", format!(r#"{{"TableName":"{TABLE}","Select":"COUNT"}}"#)).await;
    assert!(counted["Count"].as_u64().unwrap() <= total.written_items);
}

fn clock_ms(clock: &ManualClock) -> u64 {
    use sluicegate_local::Clock;
    clock.now_ms()
}
