//! Why an operation gave no result, in the service's own words.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::StatusCode;
use dynoxide::DynoxideError;
use serde::Serialize;

use super::admission::{Capacity, Facts, Over};
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

/// A request of which nothing was written for want of capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Throttle {
    /// The table of the first refused item: its mode decides which exception is answered.
    table: Arc<Facts>,
    /// Each limit that refused an item, once, in the order in which they did. An injected fault gives none.
    reasons: Vec<Reason>,
}

/// Why a request was throttled, as the service writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Reason {
    reason: &'static str,
    resource: String,
}

/// A throttled answer. The list of reasons is spelled with a capital in one exception and without in the other, as in the
/// SDK's model of the service.
#[derive(Serialize)]
struct ThrottledBody<'a> {
    #[serde(rename = "__type")]
    kind: &'static str,
    message: &'static str,
    #[serde(rename = "ThrottlingReasons", skip_serializing_if = "Option::is_none")]
    of_provisioned: Option<&'a [Reason]>,
    #[serde(rename = "throttlingReasons", skip_serializing_if = "Option::is_none")]
    of_on_demand: Option<&'a [Reason]>,
}

const PROVISIONED: &str = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
const PROVISIONED_MESSAGE: &str = "The level of configured provisioned throughput for the table was exceeded. \
                                   Consider increasing your provisioning level with the UpdateTable API.";
const ON_DEMAND: &str = "com.amazon.coral.availability#ThrottlingException";
const ON_DEMAND_MESSAGE: &str = "Throughput exceeds the current capacity of your table or index. DynamoDB is automatically scaling your table \
     or index so please try again shortly. If exceptions persist, check if you have a hot key: \
     https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html";

impl Throttle {
    /// A write to a table that exceeds these limits.
    pub(super) fn of(table: &Arc<Facts>, over: BTreeSet<Over>) -> Self {
        let reason = |over| Reason { reason: reason(over, table.capacity), resource: table.arn.clone() };
        Self { table: Arc::clone(table), reasons: over.into_iter().map(reason).collect() }
    }

    /// A write to a table that a fault throttles.
    pub(super) fn injected(table: &Arc<Facts>) -> Self {
        Self::of(table, BTreeSet::new())
    }

    /// Another item of the same request was refused.
    pub(super) fn add(&mut self, other: Self) {
        for reason in other.reasons {
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
    }

    /// The body of the answer: a table in provisioned mode has another exception than one in on-demand mode.
    fn body(&self) -> String {
        let reasons = Some(self.reasons.as_slice()).filter(|reasons| !reasons.is_empty());
        let body = match self.table.capacity {
            Capacity::Provisioned(_) => ThrottledBody {
                kind: PROVISIONED,
                message: PROVISIONED_MESSAGE,
                of_provisioned: reasons,
                of_on_demand: None,
            },
            Capacity::OnDemand { .. } => ThrottledBody {
                kind: ON_DEMAND,
                message: ON_DEMAND_MESSAGE,
                of_provisioned: None,
                of_on_demand: reasons,
            },
        };
        serde_json::to_string(&body).unwrap_or_default()
    }

    /// Code and message as the reason for a cancelled transaction.
    pub(super) fn cancellation(&self) -> (&'static str, &'static str) {
        match self.table.capacity {
            Capacity::Provisioned(_) => ("ProvisionedThroughputExceeded", PROVISIONED_MESSAGE),
            Capacity::OnDemand { .. } => ("ThrottlingError", ON_DEMAND_MESSAGE),
        }
    }
}

fn reason(over: Over, capacity: Capacity) -> &'static str {
    match (over, capacity) {
        (Over::PartitionKey, _) => "TableWriteKeyRangeThroughputExceeded",
        (Over::Table, Capacity::Provisioned(_)) => "TableWriteProvisionedThroughputExceeded",
        (Over::Table, Capacity::OnDemand { .. }) => "TableWriteMaxOnDemandThroughputExceeded",
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
