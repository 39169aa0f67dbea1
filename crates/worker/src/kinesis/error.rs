//! SDK errors -> what the caller should do. The only file of this crate that looks into them.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::answer_gate::TooLarge;
use crate::stream::StreamError;

/// Classifies by the service's error code; a limit that is used up is told apart; what gave no answer, or a
/// server's failure, is tried again.
#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's error enum is open")]
pub(super) fn stream_error<E>(error: SdkError<E, HttpResponse>, stream: &str) -> StreamError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    if let Some(TooLarge { needed }) = too_large(&error) {
        return StreamError::TooLarge { needed };
    }
    let refused = match &error {
        SdkError::ServiceError(service) => match service.err().code() {
            Some("ResourceNotFoundException") => {
                let what = service.err().message().unwrap_or("it does not exist").to_owned();
                return StreamError::Gone {
                    what: format!(
                        "stream `{stream}`, or a shard of it, is not in this account and region: check --stream and the region ({what})"
                    ),
                };
            }
            Some(
                "ProvisionedThroughputExceededException"
                | "LimitExceededException"
                | "KMSThrottlingException"
                | "ThrottlingException",
            ) => return StreamError::Throttled { source: Box::new(error) },
            Some("AccessDeniedException") => {
                Some(format!("access to stream `{stream}` is denied: give this role rights on it"))
            }
            Some("UnrecognizedClientException" | "InvalidSignatureException" | "ExpiredTokenException") => {
                Some("the AWS credentials are not accepted: check them, and the region".to_owned())
            }
            Some("InvalidArgumentException" | "ValidationException") => Some(format!(
                "stream `{stream}` refused the request: {}",
                service.err().message().unwrap_or("no message")
            )),
            Some(_) | None => None,
        },
        SdkError::ConstructionFailure(_) => Some("the request could not be built".to_owned()),
        _ => None,
    };
    match refused {
        Some(what) => StreamError::Refused { what, source: Box::new(error) },
        None => StreamError::Unavailable { source: Box::new(error) },
    }
}

/// Why an answer was left unread, if that is what happened.
fn too_large(error: &(dyn std::error::Error + 'static)) -> Option<TooLarge> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<TooLarge>())
        .copied()
}

/// Whether an iterator was used too late (5 minutes): it is renewed from the position.
pub(super) fn is_expired_iterator<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.code() == Some("ExpiredIteratorException")
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::error::ErrorMetadata;
    use aws_sdk_kinesis::operation::get_records::GetRecordsError;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answered(code: &str) -> StreamError {
        let error = GetRecordsError::generic(ErrorMetadata::builder().code(code).build());
        let response = HttpResponse::new(StatusCode::try_from(400).unwrap(), SdkBody::empty());
        stream_error(SdkError::service_error(error, response), "s")
    }

    #[test]
    fn a_limit_that_is_used_up_is_told_apart() {
        for code in
            ["ProvisionedThroughputExceededException", "LimitExceededException", "KMSThrottlingException"]
        {
            assert!(matches!(answered(code), StreamError::Throttled { .. }), "{code}");
        }
        assert!(matches!(answered("InternalFailure"), StreamError::Unavailable { .. }));
        assert!(matches!(answered("ResourceNotFoundException"), StreamError::Gone { .. }));
        assert!(matches!(answered("AccessDeniedException"), StreamError::Refused { .. }));
    }
}
