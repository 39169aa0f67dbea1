//! SDK errors -> what the caller should do. The only file of this crate that looks into them.

use std::error::Error;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::{DeleteItemError, DeleteItemOutput};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::store::{ReadError, WriteError, Written};

/// What an SDK error comes down to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// Refused for now, certainly not applied.
    Throttled,
    /// It may have been applied.
    Unknown,
    /// Will not work; what to do.
    Refused(String),
}

/// Classifies by the service's error code; whatever gave no answer, or a server's failure, is unknown.
pub(super) fn class<E>(error: &SdkError<E, HttpResponse>, table: &str) -> Class
where
    E: ProvideErrorMetadata,
{
    let SdkError::ServiceError(service) = error else { return unanswered(error) };
    match service.err().code() {
        Some(
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "TransactionConflictException",
        ) => Class::Throttled,
        Some("ResourceNotFoundException") => Class::Refused(format!(
            "table `{table}` does not exist in this account and region: create it, or start with --create-tables"
        )),
        Some("AccessDeniedException") => {
            Class::Refused(format!("access to table `{table}` is denied: give this role rights on it"))
        }
        Some("UnrecognizedClientException" | "InvalidSignatureException" | "ExpiredTokenException") => {
            Class::Refused("the AWS credentials are not accepted: check them, and the region".to_owned())
        }
        Some(code) if service.raw().status().is_client_error() => Class::Refused(format!(
            "table `{table}` refused the request with {code}: {}",
            service.err().message().unwrap_or("no message")
        )),
        Some(_) | None => Class::Unknown,
    }
}

/// A request that was never built cannot have been applied; anything else without an answer may have been.
#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's error enum is open")]
fn unanswered<E>(error: &SdkError<E, HttpResponse>) -> Class {
    match error {
        SdkError::ConstructionFailure(_) => Class::Refused("the request could not be built".to_owned()),
        _ => Class::Unknown,
    }
}

/// What became of a conditional delete; the row that stood against it is not read.
pub(super) fn deleted(
    outcome: Result<DeleteItemOutput, SdkError<DeleteItemError, HttpResponse>>,
    table: &str,
) -> Result<Written<()>, WriteError> {
    let Err(error) = outcome else { return Ok(Written::Applied(())) };
    match error.as_service_error() {
        Some(DeleteItemError::ConditionalCheckFailedException(lost)) => {
            Ok(Written::Lost(lost.item().map(|_| ())))
        }
        _ => Err(write_error(error, table)),
    }
}

pub(super) fn write_error<E>(error: SdkError<E, HttpResponse>, table: &str) -> WriteError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match class(&error, table) {
        Class::Throttled => WriteError::Throttled { source: Box::new(error) },
        Class::Unknown => WriteError::OutcomeUnknown { source: Box::new(error) },
        Class::Refused(what) => WriteError::Refused { what, source: Box::new(error) },
    }
}

pub(super) fn read_error<E>(error: SdkError<E, HttpResponse>, table: &str) -> ReadError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match class(&error, table) {
        Class::Throttled | Class::Unknown => ReadError::Unavailable { source: Box::new(error) },
        Class::Refused(what) => ReadError::Refused { what, source: Box::new(error) },
    }
}
