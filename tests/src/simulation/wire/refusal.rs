//! What the services say when they refuse a request for now, or fail.

use ::http::{Response, StatusCode};
use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::json;

use super::super::script::Service;

const DYNAMODB: &str = "com.amazonaws.dynamodb.v20120810#";

/// Too much was asked.
pub(super) fn throttled(service: Service, rng: &mut SmallRng) -> Response<Bytes> {
    let (name, message) = match service {
        Service::Stream if rng.random_bool(0.5) => ("LimitExceededException".to_owned(), "Rate exceeded"),
        Service::Stream => (
            "ProvisionedThroughputExceededException".to_owned(),
            "Rate exceeded for shard shardId-000000000000 in stream events under account 000000000000.",
        ),
        Service::Leases | Service::Workers | Service::Items => match rng.random_range(0..3u32) {
            0 => (
                format!("{DYNAMODB}ProvisionedThroughputExceededException"),
                "The level of configured provisioned throughput for the table was exceeded. Consider increasing \
                 your provisioning level with the UpdateTable API.",
            ),
            1 => (
                format!("{DYNAMODB}ThrottlingException"),
                "Throughput exceeds the current capacity of your table or index.",
            ),
            _ => (
                format!("{DYNAMODB}RequestLimitExceeded"),
                "Throughput exceeds the current throughput limit for your account.",
            ),
        },
    };
    answer(StatusCode::BAD_REQUEST, &json!({ "__type": name, "message": message }).to_string())
}

/// The service failed; nobody knows how far it got.
pub(super) fn failed(service: Service, rng: &mut SmallRng) -> Response<Bytes> {
    let name = match service {
        Service::Stream => "InternalFailure".to_owned(),
        Service::Leases | Service::Workers | Service::Items => format!("{DYNAMODB}InternalServerError"),
    };
    match rng.random_range(0..3u32) {
        // What stands before the service failed, and knows nothing of its protocol.
        0 => answer(StatusCode::SERVICE_UNAVAILABLE, "<html><body>Service Unavailable</body></html>"),
        1 => answer(StatusCode::INTERNAL_SERVER_ERROR, ""),
        _ => {
            let body = json!({ "__type": name, "message": "The request processing has failed" });
            answer(StatusCode::INTERNAL_SERVER_ERROR, &body.to_string())
        }
    }
}

/// The items of a request can never be stored.
pub(super) fn invalid(why: &str) -> Response<Bytes> {
    let body = json!({ "__type": "com.amazon.coral.validate#ValidationException", "message": why });
    answer(StatusCode::BAD_REQUEST, &body.to_string())
}

fn answer(status: StatusCode, body: &str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *answer.status_mut() = status;
    answer
}
