//! What the SDK says -> what the caller should do. The only file that looks at SDK errors.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::ThrottlingReason;
use sluicegate_checkpoint::Retry;
use thiserror::Error;

use crate::store::{Cause, StoreError, ThrottledBy};

/// Why the analytics table cannot be used.
#[derive(Debug, Error)]
pub enum TableError {
    /// It is not there, and was not to be created.
    #[error("table `{table}` does not exist: create it with --create-tables or the template")]
    Missing {
        /// Its name.
        table: String,
    },
    /// Its keys are not those of the item format.
    #[error(
        "table `{table}` has the key {found}: `pk` (S, hash) and `sk` (S, range) are wanted; use another table"
    )]
    KeySchema {
        /// Its name.
        table: String,
        /// The keys it has.
        found: String,
    },
    /// It did not become active in time.
    #[error("table `{table}` is {status} and did not become ACTIVE in time")]
    NotActive {
        /// Its name.
        table: String,
        /// What it last was.
        status: String,
    },
    /// It could not be asked or created.
    #[error("table `{table}` cannot be {action}")]
    Failed {
        /// Its name.
        table: String,
        /// What was tried.
        action: &'static str,
        /// The answer.
        #[source]
        source: StoreError,
    },
}

impl TableError {
    /// Whether it may be otherwise a moment later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Missing { .. } | Self::KeySchema { .. } => Retry::Never,
            Self::NotActive { .. } => Retry::Backoff,
            Self::Failed { source, .. } => source.retry(),
        }
    }
}

/// What the service answered, in its own words.
#[derive(Debug, Error)]
#[error("{code}: {detail}")]
struct Answer {
    code: String,
    detail: String,
    #[source]
    source: Cause,
}

/// Maps the failure of a call about a table.
pub(super) fn store_error<E, R>(error: SdkError<E, R>, table: &str) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let code = error.code().map(str::to_owned);
    let message = error.message().map(str::to_owned);
    // The source says what happened, which the SDK's own wrapper does not.
    let refused = |what: String, source: Cause| StoreError::Refused { what, source };
    let Some(code) = code else { return without_answer(error) };
    let detail = message.unwrap_or_else(|| code.clone());
    let source: Cause = Box::new(error);
    match code.as_str() {
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "Throttling" => StoreError::Throttled { by: ThrottledBy::Unknown, source },
        "ValidationException" | "ItemCollectionSizeLimitExceededException" => {
            StoreError::Rejected(Box::new(Answer { code, detail, source }))
        }
        "ResourceNotFoundException" => {
            let what =
                format!("table `{table}` does not exist: create it with --create-tables or the template");
            refused(what, source)
        }
        "AccessDeniedException" => refused(format!("no right to use table `{table}`: {detail}"), source),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException" => {
            refused(format!("the AWS credentials are not accepted for table `{table}`: {detail}"), source)
        }
        // InternalServerError, ServiceUnavailable, an expired token that the SDK is about to renew, and
        // whatever there may come to be: try again.
        _ => StoreError::Unavailable(source),
    }
}

/// Maps the failure of a batch of writes, with the reasons of a throttled one.
pub(super) fn batch_error<R>(error: SdkError<BatchWriteItemError, R>, table: &str) -> StoreError
where
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let by = match error.as_service_error() {
        Some(BatchWriteItemError::ProvisionedThroughputExceededException(error)) => {
            throttled_by(error.throttling_reasons())
        }
        Some(BatchWriteItemError::ThrottlingException(error)) => throttled_by(error.throttling_reasons()),
        _ => ThrottledBy::Unknown,
    };
    with_reason(store_error(error, table), by)
}

/// Maps the failure of a single put, with the reasons of a throttled one.
pub(super) fn put_error<R>(error: SdkError<PutItemError, R>, table: &str) -> StoreError
where
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let by = match error.as_service_error() {
        Some(PutItemError::ProvisionedThroughputExceededException(error)) => {
            throttled_by(error.throttling_reasons())
        }
        Some(PutItemError::ThrottlingException(error)) => throttled_by(error.throttling_reasons()),
        _ => ThrottledBy::Unknown,
    };
    with_reason(store_error(error, table), by)
}

fn with_reason(error: StoreError, by: ThrottledBy) -> StoreError {
    let StoreError::Throttled { source, .. } = error else { return error };
    StoreError::Throttled { by, source }
}

/// Which limit the reasons name. Each is resource, operation and limit in one word, such as
/// `TableWriteKeyRangeThroughputExceeded` (DynamoDB API reference, `ThrottlingReason`); every limit that is not of a key range is
/// one of a whole table, index or account.
fn throttled_by(reasons: &[ThrottlingReason]) -> ThrottledBy {
    let is_key_range = |reason: &ThrottlingReason| reason.reason().map(|reason| reason.contains("KeyRange"));
    let named: Vec<bool> = reasons.iter().filter_map(is_key_range).collect();
    match (named.contains(&true), named.contains(&false)) {
        (true, true) => ThrottledBy::Both,
        (true, false) => ThrottledBy::KeyRange,
        (false, true) => ThrottledBy::Table,
        (false, false) => ThrottledBy::Unknown,
    }
}

/// A request that was never made cannot be made by trying again; one without an answer may be.
fn without_answer<E, R>(error: SdkError<E, R>) -> StoreError
where
    E: std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    if let SdkError::ConstructionFailure(_) = &error {
        let what = "the request to DynamoDB cannot be made: are region and credentials set?".to_owned();
        return StoreError::Refused { what, source: Box::new(error) };
    }
    StoreError::Unavailable(Box::new(error))
}

/// Whether a conditional write found its condition not to hold.
pub(super) fn is_failed_condition<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ConditionalCheckFailedException")
}

/// Whether a table was not found.
pub(super) fn is_missing<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ResourceNotFoundException")
}

/// Whether a table that should be created is there already.
pub(super) fn is_in_use<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ResourceInUseException")
}

/// A request that the SDK's builder refuses.
pub(super) fn unbuildable(error: BuildError) -> StoreError {
    StoreError::Refused {
        what: "the request to DynamoDB cannot be built".to_owned(),
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemError;
    use sluicegate_checkpoint::Retry;

    fn of_code(code: &str) -> StoreError {
        let meta = ErrorMetadata::builder().code(code).message("said the table").build();
        store_error(SdkError::service_error(BatchWriteItemError::generic(meta), ()), "events")
    }

    #[test]
    fn codes_say_what_to_do() {
        assert!(matches!(of_code("ProvisionedThroughputExceededException"), StoreError::Throttled { .. }));
        assert!(matches!(of_code("InternalServerError"), StoreError::Unavailable(_)));
        assert!(matches!(of_code("ValidationException"), StoreError::Rejected(_)));
        for code in ["ResourceNotFoundException", "AccessDeniedException", "UnrecognizedClientException"] {
            let error = of_code(code);
            assert_eq!(error.retry(), Retry::Never, "{code}");
            assert!(error.to_string().contains("`events`"), "{error}");
        }
    }

    #[test]
    fn reasons_say_whose_limit_it_was() {
        let by = |reasons: &[&str]| {
            let reasons: Vec<ThrottlingReason> =
                reasons.iter().map(|reason| ThrottlingReason::builder().reason(*reason).build()).collect();
            throttled_by(&reasons)
        };
        assert_eq!(by(&[]), ThrottledBy::Unknown);
        assert_eq!(by(&["TableWriteKeyRangeThroughputExceeded"]), ThrottledBy::KeyRange);
        assert_eq!(by(&["IndexWriteKeyRangeThroughputExceeded"]), ThrottledBy::KeyRange);
        for table in [
            "TableWriteProvisionedThroughputExceeded",
            "TableWriteAccountLimitExceeded",
            "TableWriteMaxOnDemandThroughputExceeded",
            "IndexWriteProvisionedThroughputExceeded",
        ] {
            assert_eq!(by(&[table]), ThrottledBy::Table, "{table}");
            assert_eq!(by(&[table, "TableWriteKeyRangeThroughputExceeded"]), ThrottledBy::Both, "{table}");
        }
    }

    #[test]
    fn no_answer_may_come_later_but_a_request_never_made_will_not() {
        let late = SdkError::<BatchWriteItemError, ()>::timeout_error("late");
        assert_eq!(store_error(late, "events").retry(), Retry::Backoff);
        let never = SdkError::<BatchWriteItemError, ()>::construction_failure("no region");
        assert_eq!(store_error(never, "events").retry(), Retry::Never);
    }
}
