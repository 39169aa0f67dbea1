//! Why an operation gave no result, in the service's own words.

use std::sync::Arc;

use axum::http::StatusCode;
use dynoxide::DynoxideError;
use serde::Serialize;

use super::admission::{Facts, Over};
use crate::aws_json;
use crate::faults::Failure;

/// Why an operation gave no result.
#[derive(Debug)]
pub(super) enum Refusal {
    UnknownOperation,
    Refused(Box<DynoxideError>),
    Throttled(Throttle),
    Injected(Failure),
}

impl From<DynoxideError> for Refusal {
    fn from(error: DynoxideError) -> Self {
        Self::Refused(Box::new(error))
    }
}

/// A write that did not fit a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Throttle {
    pub(super) table: Arc<Facts>,
    pub(super) over: Over,
}

/// A throttled answer. The list of reasons is spelled with a capital in one exception and without in the other, as in the
/// SDK's model of the service.
#[derive(Serialize)]
struct ThrottledBody<'a> {
    #[serde(rename = "__type")]
    kind: &'static str,
    message: &'static str,
    #[serde(rename = "ThrottlingReasons", skip_serializing_if = "Option::is_none")]
    of_provisioned: Option<[Reason<'a>; 1]>,
    #[serde(rename = "throttlingReasons", skip_serializing_if = "Option::is_none")]
    of_on_demand: Option<[Reason<'a>; 1]>,
}

#[derive(Serialize)]
struct Reason<'a> {
    reason: &'static str,
    resource: &'a str,
}

const PROVISIONED: &str = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
const PROVISIONED_MESSAGE: &str = "The level of configured provisioned throughput for the table was exceeded. \
                                   Consider increasing your provisioning level with the UpdateTable API.";
const ON_DEMAND: &str = "com.amazon.coral.availability#ThrottlingException";
const ON_DEMAND_MESSAGE: &str = "Throughput exceeds the current capacity of your table or index. DynamoDB is automatically scaling your table \
     or index so please try again shortly. If exceptions persist, check if you have a hot key: \
     https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html";

impl Throttle {
    fn reason(&self) -> &'static str {
        match (self.over, self.table.provisioned) {
            (Over::PartitionKey, _) => "TableWriteKeyRangeThroughputExceeded",
            (Over::Table, Some(_)) => "TableWriteProvisionedThroughputExceeded",
            (Over::Table, None) => "TableWriteMaxOnDemandThroughputExceeded",
        }
    }

    /// The body of the answer: a table in provisioned mode has another exception than one in on-demand mode.
    fn body(&self) -> String {
        let reasons = Some([Reason { reason: self.reason(), resource: &self.table.arn }]);
        let body = if self.table.provisioned.is_some() {
            let (kind, message) = (PROVISIONED, PROVISIONED_MESSAGE);
            ThrottledBody { kind, message, of_provisioned: reasons, of_on_demand: None }
        } else {
            let (kind, message) = (ON_DEMAND, ON_DEMAND_MESSAGE);
            ThrottledBody { kind, message, of_provisioned: None, of_on_demand: reasons }
        };
        serde_json::to_string(&body).unwrap_or_default()
    }

    /// Code and message as the reason for a cancelled transaction.
    pub(super) fn cancellation(&self) -> (&'static str, &'static str) {
        if self.table.provisioned.is_some() {
            ("ProvisionedThroughputExceeded", PROVISIONED_MESSAGE)
        } else {
            ("ThrottlingError", ON_DEMAND_MESSAGE)
        }
    }
}

/// The refusal of an item that a fault refuses.
pub(super) fn rejected() -> Refusal {
    let message = "One or more parameter values were invalid: the item holds what an injected fault refuses";
    DynoxideError::ValidationException(message.to_owned()).into()
}

/// Status and body of an answer.
pub(super) fn reply(outcome: Result<String, Refusal>) -> (StatusCode, String) {
    match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(Refusal::UnknownOperation) => {
            let body = aws_json::error_body("com.amazon.coral.service#UnknownOperationException", "");
            (StatusCode::BAD_REQUEST, body)
        }
        Err(Refusal::Refused(error)) => {
            let status = StatusCode::from_u16(error.status_code());
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error.to_json())
        }
        Err(Refusal::Throttled(throttle)) => (StatusCode::BAD_REQUEST, throttle.body()),
        Err(Refusal::Injected(failure)) => injected(failure),
    }
}

fn injected(failure: Failure) -> (StatusCode, String) {
    let (status, kind, message) = match failure {
        Failure::Internal => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "com.amazonaws.dynamodb.v20120810#InternalServerError",
            "Internal server error",
        ),
        Failure::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "com.amazon.coral.availability#ServiceUnavailableException",
            "Service Unavailable Exception",
        ),
        Failure::Throttle => {
            (StatusCode::BAD_REQUEST, ON_DEMAND, "Rate of requests exceeds the allowed throughput.")
        }
    };
    (status, aws_json::error_body(kind, message))
}
