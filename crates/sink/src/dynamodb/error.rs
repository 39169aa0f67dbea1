//! What the SDK says -> what the caller should do. The only file that looks at SDK errors.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use sluicegate_checkpoint::Retry;
use thiserror::Error;

use crate::store::{Cause, StoreError};

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
        | "Throttling" => StoreError::Throttled(source),
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
        assert!(matches!(of_code("ProvisionedThroughputExceededException"), StoreError::Throttled(_)));
        assert!(matches!(of_code("InternalServerError"), StoreError::Unavailable(_)));
        assert!(matches!(of_code("ValidationException"), StoreError::Rejected(_)));
        for code in ["ResourceNotFoundException", "AccessDeniedException", "UnrecognizedClientException"] {
            let error = of_code(code);
            assert_eq!(error.retry(), Retry::Never, "{code}");
            assert!(error.to_string().contains("`events`"), "{error}");
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
