//! What both services share of the AWS JSON protocols: the operation's name in, a stamped answer out.
//!
//! Every answer carries a `Date` from the injected clock (workers take the time from it) and an `x-amzn-RequestId`. Request ids
//! count up from a base that follows from the clock, so a simulation gets the same ones each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::rejection::BytesRejection;
use axum::http::header::{CONTENT_TYPE, DATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::clock::Clock;
use crate::time::Moment;

/// Largest request body taken, in bytes. A batch write of DynamoDB may hold 16 MB, a PutRecords 10 MiB, both base64 inside JSON:
/// 32 MiB leaves room for either.
pub(crate) const BODY_LIMIT_BYTES: usize = 32 << 20;

/// The operation that `x-amz-target` names, if it belongs to the service: `Kinesis_20131202.PutRecords` -> `PutRecords`.
pub(crate) fn operation<'a>(headers: &'a HeaderMap, service: &str) -> Option<&'a str> {
    let target = headers.get("x-amz-target")?.to_str().ok()?;
    let (prefix, operation) = target.split_once('.')?;
    (prefix == service).then_some(operation)
}

/// The body of an error in the AWS JSON protocols.
pub(crate) fn error_body(name: &str, message: &str) -> String {
    serde_json::json!({ "__type": name, "message": message }).to_string()
}

/// The answer when the body could not be read: too large, or the connection broke.
pub(crate) fn unreadable_body(rejection: &BytesRejection) -> (StatusCode, String) {
    let status = rejection.status();
    let name = if status == StatusCode::PAYLOAD_TOO_LARGE {
        "RequestEntityTooLargeException"
    } else {
        "SerializationException"
    };
    (status, error_body(name, &rejection.body_text()))
}

/// Stamps answers of one service.
#[derive(Debug)]
pub(crate) struct Stamp {
    clock: Arc<dyn Clock>,
    content_type: HeaderValue,
    base: u64,
    next: AtomicU64,
}

impl Stamp {
    pub(crate) fn new(clock: Arc<dyn Clock>, content_type: &'static str) -> Self {
        let base = clock.now_ms();
        Self { clock, content_type: HeaderValue::from_static(content_type), base, next: AtomicU64::new(1) }
    }

    /// Wraps a body as the service's answer.
    pub(crate) fn answer(&self, status: StatusCode, body: String) -> Response {
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        if let Ok(date) = HeaderValue::from_str(&Moment::from_ms(self.clock.now_ms()).http_date()) {
            headers.insert(DATE, date);
        }
        if let Ok(id) = HeaderValue::from_str(&self.request_id().to_string()) {
            headers.insert("x-amzn-requestid", id);
        }
        response
    }

    fn request_id(&self) -> Uuid {
        Uuid::from_u64_pair(self.base, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn an_answer_is_dated_by_the_injected_clock() {
        let stamp = Stamp::new(Arc::new(ManualClock::at(784_111_777_000)), "application/x-amz-json-1.1");
        let first = stamp.answer(StatusCode::OK, "{}".to_owned());
        let second = stamp.answer(StatusCode::OK, "{}".to_owned());
        assert_eq!(first.headers()["date"], "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_ne!(first.headers()["x-amzn-requestid"], second.headers()["x-amzn-requestid"]);
    }

    #[test]
    fn a_target_of_another_service_names_no_operation() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-target", HeaderValue::from_static("DynamoDB_20120810.GetItem"));
        assert_eq!(operation(&headers, "Kinesis_20131202"), None);
        assert_eq!(operation(&headers, "DynamoDB_20120810"), Some("GetItem"));
    }
}
