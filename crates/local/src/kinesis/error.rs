//! What Kinesis answers instead of a result: the service's own exception names, so that the SDK's typed errors match.

use axum::http::StatusCode;

/// The exceptions raised here, by the names of the service's API reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    DryRunOperation,
    ExpiredIterator,
    ExpiredNextToken,
    InternalFailure,
    InvalidArgument,
    LimitExceeded,
    ResourceInUse,
    ResourceNotFound,
    Serialization,
    ServiceUnavailable,
    ThroughputExceeded,
    UnknownOperation,
    Validation,
}

impl ErrorKind {
    fn name(self) -> &'static str {
        match self {
            Self::DryRunOperation => "DryRunOperationException",
            Self::ExpiredIterator => "ExpiredIteratorException",
            Self::ExpiredNextToken => "ExpiredNextTokenException",
            Self::InternalFailure => "InternalFailureException",
            Self::InvalidArgument => "InvalidArgumentException",
            Self::LimitExceeded => "LimitExceededException",
            Self::ResourceInUse => "ResourceInUseException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::Serialization => "SerializationException",
            Self::ServiceUnavailable => "ServiceUnavailableException",
            Self::ThroughputExceeded => "ProvisionedThroughputExceededException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::Validation => "ValidationException",
        }
    }
}

/// One refusal, as the client will read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KinesisError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl KinesisError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResourceNotFound, message)
    }

    /// The answer to a request that would have succeeded, but only wanted to know.
    pub(crate) fn unless_dry_run(dry_run: Option<bool>) -> Result<(), Self> {
        let message = "The request would have succeeded, but the DryRun parameter is set.";
        if dry_run == Some(true) { Err(Self::new(ErrorKind::DryRunOperation, message)) } else { Ok(()) }
    }

    /// The exception's name.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> String {
        crate::aws_json::error_body(self.kind.name(), &self.message)
    }

    /// 500 for our own failures, 503 where a fault says that nobody is there, 400 for every refusal.
    pub(crate) fn status(&self) -> StatusCode {
        if self.kind == ErrorKind::InternalFailure {
            StatusCode::INTERNAL_SERVER_ERROR
        } else if self.kind == ErrorKind::ServiceUnavailable {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::BAD_REQUEST
        }
    }
}
