//! From an HTTP request to an operation and back. Decides only which operation is meant.
//!
//! Injected faults and delays belong into [`answer`], between the operation's name and [`perform`]; a delay makes it await.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use super::Kinesis;
use super::error::{ErrorKind, KinesisError};
use crate::aws_json::{self, BODY_LIMIT_BYTES};

/// Prefix of `x-amz-target`: the service's API version (AWS Kinesis API reference).
const TARGET: &str = "Kinesis_20131202";

/// The embedded Kinesis as a router: every path, `POST`, the operation in `x-amz-target`, AWS JSON 1.1.
pub fn kinesis_router(kinesis: Kinesis) -> Router {
    Router::new().fallback(answer).with_state(kinesis).layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
}

type Answered = std::future::Ready<Response>;

#[expect(clippy::needless_pass_by_value, reason = "axum hands extractors over by value")]
fn answer(
    State(kinesis): State<Kinesis>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    let (status, text) = match &body {
        Ok(body) => match refuse_cbor(&headers).and_then(|()| perform(&kinesis, &headers, body)) {
            Ok(answer) => (StatusCode::OK, answer),
            Err(error) => (error.status(), error.body()),
        },
        Err(rejection) => aws_json::unreadable_body(rejection),
    };
    std::future::ready(kinesis.0.stamp.answer(status, text))
}

fn perform(kinesis: &Kinesis, headers: &HeaderMap, body: &[u8]) -> Result<String, KinesisError> {
    match aws_json::operation(headers, TARGET).unwrap_or_default() {
        "PutRecords" => kinesis.put_records(&decode(body)?),
        "PutRecord" => kinesis.put_record(decode(body)?),
        "GetRecords" => kinesis.get_records(&decode(body)?),
        "GetShardIterator" => kinesis.shard_iterator(&decode(body)?),
        "CreateStream" => kinesis.create_stream(&decode(body)?),
        "DeleteStream" => kinesis.delete_stream(&decode(body)?),
        "DescribeStream" => kinesis.describe_stream(&decode(body)?),
        "DescribeStreamSummary" => kinesis.describe_stream_summary(&decode(body)?),
        "ListStreams" => kinesis.list_streams(&decode(body)?),
        "ListShards" => kinesis.list_shards(&decode(body)?),
        "SplitShard" => kinesis.split_shard(&decode(body)?),
        "MergeShards" => kinesis.merge_shards(&decode(body)?),
        "UpdateShardCount" => kinesis.update_shard_count(&decode(body)?),
        "IncreaseStreamRetentionPeriod" => kinesis.increase_retention(&decode(body)?),
        "DecreaseStreamRetentionPeriod" => kinesis.decrease_retention(&decode(body)?),
        "UpdateMaxRecordSize" => kinesis.update_max_record_size(&decode(body)?),
        _ => Err(KinesisError::new(ErrorKind::UnknownOperation, "")),
    }
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, KinesisError> {
    let refused = |message: String| KinesisError::new(ErrorKind::Serialization, message);
    // Checked once as a whole, rather than text by text by the JSON reader.
    let text = std::str::from_utf8(body).map_err(|error| refused(error.to_string()))?;
    serde_json::from_str(text).map_err(|error| refused(error.to_string()))
}

fn refuse_cbor(headers: &HeaderMap) -> Result<(), KinesisError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|value| value.contains("cbor")) {
        let message = "CBOR is not spoken here: set AWS_CBOR_DISABLE=true (Java SDK: aws.cborEnabled=false)";
        return Err(KinesisError::new(ErrorKind::Serialization, message));
    }
    Ok(())
}
