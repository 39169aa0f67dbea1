//! From an HTTP request to an operation and back; injected faults come in between.

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::refusal::{Refusal, reply};
use super::{DynamoDb, TARGET, table_name};
use crate::admin::{self, Managed};
use crate::aws_json::{self, BODY_LIMIT_BYTES};
use crate::config::Service;
use crate::connection::{Connection, lose_answer};
use crate::faults::{Failure, Faults, Outcome, Plan};
use crate::limits::LimitsError;

/// The embedded DynamoDB as a router: every path, `POST`, the operation in `x-amz-target`; beside it `/ledger`, `/limits` and
/// `/faults`.
pub fn dynamodb_router(dynamodb: DynamoDb) -> Router {
    admin::routes().fallback(answer).with_state(dynamodb).layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
}

impl Managed for DynamoDb {
    fn ledger_json(&self, since: u64) -> String {
        self.ledger.to_json(since)
    }

    fn limits_json(&self) -> String {
        serde_json::to_string(&self.limits()).unwrap_or_default()
    }

    fn change_limits(&self, document: &str) -> Result<(), LimitsError> {
        let mut limits = self.limits();
        limits.change(document)?;
        self.set_limits(limits);
        Ok(())
    }

    fn faults(&self) -> &Faults {
        &self.faults
    }
}

/// Waits for nothing unless a fault says so: without faults the answer is there when this is first polled.
async fn answer(
    State(db): State<DynamoDb>,
    connection: Option<Extension<ConnectInfo<Connection>>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let (status, text) = aws_json::unreadable_body(&rejection);
            return db.stamp.answer(status, text);
        }
    };
    let connection = connection.as_deref();
    let operation = aws_json::operation(&headers, TARGET).unwrap_or_default();
    let mut plan = db.faults.plan(Service::DynamoDb, operation, || tables(&body));
    if !plan.delay.is_zero() {
        tokio::time::sleep(plan.delay).await;
    }
    // A write that is throttled goes as far as the limits, so that the ledger knows what was refused.
    if plan.outcome == Outcome::Refused(Failure::Throttle) && writes(operation) {
        plan.tampering.throttled = true;
        plan.outcome = Outcome::Answered;
    }
    let by = client_name(&headers);
    match plan.outcome {
        Outcome::Answered => perform(&db, operation, &body, &plan, by),
        Outcome::Refused(failure) => {
            let (status, text) = reply(Err(Refusal::Injected(failure)));
            db.stamp.answer(status, text)
        }
        Outcome::Silence(duration) => {
            tokio::time::sleep(duration).await;
            lose_answer(connection)
        }
        Outcome::AnswerLost => {
            perform(&db, operation, &body, &plan, by);
            lose_answer(connection)
        }
    }
}

fn perform(db: &DynamoDb, operation: &str, body: &[u8], plan: &Plan, by: Option<&str>) -> Response {
    let outcome = without_starving_others(|| db.perform(operation, body, &plan.tampering, by));
    let (status, text) = reply(outcome);
    db.stamp.answer(status, text)
}

/// What a client calls itself: the SDKs send what AWS_SDK_UA_APP_ID says as `app/NAME`.
fn client_name(headers: &HeaderMap) -> Option<&str> {
    let agents =
        ["x-amz-user-agent", "user-agent"].into_iter().filter_map(|name| headers.get(name)?.to_str().ok());
    agents.flat_map(str::split_whitespace).find_map(|part| part.strip_prefix("app/"))
}

fn writes(operation: &str) -> bool {
    let operations = ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"];
    operations.contains(&operation)
}

/// The part of a request that names its tables.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    table_name: Option<String>,
    #[serde(default)]
    request_items: BTreeMap<String, IgnoredAny>,
    #[serde(default)]
    transact_items: Vec<BTreeMap<String, NamedPart>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NamedPart {
    table_name: String,
}

/// The tables that a request names; none if it cannot be read.
fn tables(body: &[u8]) -> Vec<String> {
    let Ok(named) = serde_json::from_slice::<Named>(body) else { return Vec::new() };
    let parts = named.transact_items.into_iter().flat_map(BTreeMap::into_values).map(|part| part.table_name);
    let names = named.table_name.into_iter().chain(named.request_items.into_keys()).chain(parts);
    names.map(|name| table_name(&name)).collect()
}

/// Lets the runtime move other tasks off this thread while the database works, where the runtime can do so.
fn without_starving_others<T>(work: impl FnOnce() -> T) -> T {
    let many_threads = Handle::try_current()
        .is_ok_and(|handle| matches!(handle.runtime_flavor(), RuntimeFlavor::MultiThread));
    if many_threads { tokio::task::block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_a_request_are_found_wherever_they_stand() {
        assert_eq!(tables(br#"{"TableName":"a","Item":{}}"#), ["a"]);
        assert_eq!(tables(br#"{"TableName":"arn:aws:dynamodb:x:1:table/a"}"#), ["a"]);
        assert_eq!(tables(br#"{"RequestItems":{"b":[{"PutRequest":{}}],"a":[]}}"#), ["a", "b"]);
        let transaction = br#"{"TransactItems":[{"Put":{"TableName":"a"}},{"Delete":{"TableName":"b"}}]}"#;
        assert_eq!(tables(transaction), ["a", "b"]);
        assert_eq!((tables(b"nonsense").len(), tables(b"{}").len()), (0, 0));
    }
}
