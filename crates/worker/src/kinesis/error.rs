//! SDK errors -> what the caller should do. The only file of this crate that looks into them.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::stream::StreamError;

/// Classifies by the service's error code; what gave no answer, or a server's failure, is tried again.
#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's error enum is open")]
pub(super) fn stream_error<E>(error: SdkError<E, HttpResponse>, stream: &str) -> StreamError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
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

/// Whether an iterator was used too late (5 minutes): it is renewed from the position.
pub(super) fn is_expired_iterator<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.code() == Some("ExpiredIteratorException")
}
