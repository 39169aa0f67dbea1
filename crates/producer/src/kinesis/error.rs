//! SDK errors -> what the caller should do, in words that say so. The only file of this crate that looks into them.

use std::error::Error;

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{DispatchFailure, SdkError};

use super::{DescribeError, Target};
use crate::writer::PutError;

/// What an SDK error comes down to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    /// Refused for now, certainly not applied.
    Throttled,
    /// Never sent: there was no connection.
    Unreachable,
    /// It may have been applied.
    Unknown,
    /// No such stream.
    NotFound(String),
    /// Missing rights or credentials.
    Denied(String),
    /// Will never work as it is.
    Invalid(String),
}

pub(super) fn put_error<E>(sdk: SdkError<E, HttpResponse>, target: &Target) -> PutError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let class = class(&sdk, target, "kinesis:PutRecords");
    let source = Box::new(sdk);
    match class {
        Class::Throttled => PutError::Throttled { source },
        Class::Unreachable => PutError::Unreachable { source },
        Class::Unknown => PutError::OutcomeUnknown { source },
        Class::NotFound(what) => PutError::StreamNotFound { what, source },
        Class::Denied(what) => PutError::Denied { what, source },
        Class::Invalid(what) => PutError::Invalid { what, source },
    }
}

pub(super) fn describe_error<E>(sdk: SdkError<E, HttpResponse>, target: &Target) -> DescribeError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let class = class(&sdk, target, "kinesis:DescribeStreamSummary");
    let source = Box::new(sdk);
    match class {
        Class::Throttled => {
            DescribeError::Unavailable { what: "Kinesis is throttling this account".to_owned(), source }
        }
        Class::Unreachable | Class::Unknown => {
            let what = "Kinesis gave no answer: check the network, the region and the endpoint".to_owned();
            DescribeError::Unavailable { what, source }
        }
        Class::NotFound(what) | Class::Denied(what) | Class::Invalid(what) => {
            DescribeError::Refused { what, source }
        }
    }
}

pub(super) fn no_description(target: &Target) -> DescribeError {
    let what = format!(
        "the answer does not describe stream `{}`: check that the endpoint is Kinesis",
        target.stream
    );
    DescribeError::Refused { what, source: "no description in the answer".into() }
}

pub(super) fn not_built(source: Box<dyn Error + Send + Sync>) -> PutError {
    PutError::Invalid { what: "a record of the request could not be built".to_owned(), source }
}

pub(super) fn wrong_count(answered: usize, sent: usize) -> PutError {
    PutError::OutcomeUnknown { source: format!("{answered} outcomes for {sent} records").into() }
}

/// Classifies by the service's error code; whatever gave no answer, or a server's failure, is unknown.
fn class<E>(sdk: &SdkError<E, HttpResponse>, target: &Target, right: &str) -> Class
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let SdkError::ServiceError(service) = sdk else { return unanswered(sdk) };
    let stream = &target.stream;
    match service.err().code() {
        Some(
            "ProvisionedThroughputExceededException"
            | "KMSThrottlingException"
            | "LimitExceededException"
            | "RequestLimitExceeded"
            | "ThrottlingException",
        ) => Class::Throttled,
        Some("ResourceNotFoundException") => Class::NotFound(format!(
            "stream `{stream}` does not exist in {}: check the name, the region and the endpoint, or create it",
            target.place()
        )),
        Some("AccessDeniedException") => {
            Class::Denied(format!("access to stream `{stream}` is denied: grant this role {right}"))
        }
        Some(code) if code.starts_with("KMS") => Class::Denied(format!(
            "the key that encrypts stream `{stream}` cannot be used ({code}): enable it, and grant this role kms:GenerateDataKey on it"
        )),
        Some(
            "ExpiredTokenException"
            | "IncompleteSignature"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "OptInRequired"
            | "RequestExpired"
            | "UnrecognizedClientException",
        ) => Class::Denied(format!(
            "the AWS credentials are not accepted in {}: check them, the region and this machine's clock",
            target.place()
        )),
        Some(code) if service.raw().status().is_client_error() => Class::Invalid(format!(
            "stream `{stream}` refused the request with {code}: {}",
            service.err().message().unwrap_or("no message")
        )),
        Some(_) | None => unexplained(service.raw()),
    }
}

fn unanswered<E>(sdk: &SdkError<E, HttpResponse>) -> Class
where
    E: Error + Send + Sync + 'static,
{
    if let SdkError::ConstructionFailure(_) = sdk {
        return unsent(sdk);
    }
    if let SdkError::DispatchFailure(dispatch) = sdk {
        return undispatched(dispatch);
    }
    // Timeouts, and answers that make no sense.
    sdk.raw_response().map_or(Class::Unknown, unexplained)
}

/// An answer without an error code, as of a proxy, of another service, or of a server in trouble.
fn unexplained(response: &HttpResponse) -> Class {
    match response.status().as_u16() {
        408 => Class::Unknown,
        429 => Class::Throttled,
        status @ 400..500 => Class::Invalid(format!(
            "status {status} instead of an answer: check that the endpoint is Kinesis"
        )),
        _ => Class::Unknown,
    }
}

impl Target {
    fn place(&self) -> String {
        self.region
            .as_ref()
            .map_or_else(|| "this account".to_owned(), |region| format!("this account and region {region}"))
    }
}

fn undispatched(dispatch: &DispatchFailure) -> Class {
    let Some(connector) = dispatch.as_connector_error() else { return Class::Unknown };
    if never_connected(connector) {
        return Class::Unreachable;
    }
    // The SDK reports what fails before sending (credentials, region, endpoint) as a dispatch failure as well, of
    // the kind `other` and without a cause that the connector knows.
    if connector.is_other() && connector.as_other().is_none() { unsent(connector) } else { Class::Unknown }
}

/// The connection was never there, so neither was the request.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

/// What stopped a request before it was sent. The types of these errors are private to the SDK, so their texts
/// have to do; an unknown one counts as sent, which at worst overstates the unknown outcomes.
fn unsent(error: &(dyn Error + 'static)) -> Class {
    let texts: Vec<String> = causes(error).map(|cause| cause.to_string().to_lowercase()).collect();
    let mentions = |word: &str| texts.iter().any(|text| text.contains(word));
    if mentions("credential") || mentions("auth scheme") || mentions("identity") {
        return Class::Denied(
            "no AWS credentials were found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run with a role"
                .to_owned(),
        );
    }
    if mentions("region") {
        return Class::Invalid("no AWS region is set: set AWS_REGION".to_owned());
    }
    if mentions("endpoint") || mentions("uri") {
        return Class::Invalid(
            "the endpoint is no usable URL: give it as in http://localhost:4566".to_owned(),
        );
    }
    Class::Unknown
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
