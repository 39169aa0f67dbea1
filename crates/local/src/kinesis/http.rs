//! From an HTTP request to an operation and back; injected faults come in between.

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use super::error::{ErrorKind, KinesisError};
use super::token::ShardIterator;
use super::{Kinesis, name_in_arn};
use crate::admin::{self, Managed};
use crate::aws_json::{self, BODY_LIMIT_BYTES};
use crate::config::Service;
use crate::connection::{Connection, lose_answer};
use crate::faults::{Failure, Faults, Outcome};
use crate::limits::LimitsError;

/// Prefix of `x-amz-target`: the service's API version (AWS Kinesis API reference).
const TARGET: &str = "Kinesis_20131202";

/// The embedded Kinesis as a router: every path, `POST`, the operation in `x-amz-target`, AWS JSON 1.1; beside it `/ledger`,
/// `/limits` and `/faults`.
pub fn kinesis_router(kinesis: Kinesis) -> Router {
    admin::routes().fallback(answer).with_state(kinesis).layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
}

impl Managed for Kinesis {
    fn ledger_json(&self, since: u64) -> String {
        self.ledger().to_json(since)
    }

    fn limits_json(&self) -> String {
        serde_json::to_string(&self.limits()).unwrap_or_default()
    }

    fn change_limits(&self, document: &str) -> Result<(), LimitsError> {
        let mut limits = self.limits();
        limits.change(document)?;
        self.set_limits(limits);
        Ok(())
    }

    fn faults(&self) -> &Faults {
        &self.faults
    }
}

/// Waits for nothing unless a fault says so: without faults the answer is there when this is first polled.
async fn answer(
    State(kinesis): State<Kinesis>,
    connection: Option<Extension<ConnectInfo<Connection>>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let (status, text) = aws_json::unreadable_body(&rejection);
            return kinesis.inner.stamp.answer(status, text);
        }
    };
    let connection = connection.as_deref();
    let operation = aws_json::operation(&headers, TARGET).unwrap_or_default();
    let plan = kinesis.faults.plan(Service::Kinesis, operation, || streams(&body));
    if !plan.delay.is_zero() {
        tokio::time::sleep(plan.delay).await;
    }
    match plan.outcome {
        Outcome::Answered => answered(&kinesis, &headers, &body),
        Outcome::Refused(failure) => kinesis.reply(Err(injected(failure))),
        Outcome::Silence(duration) => {
            tokio::time::sleep(duration).await;
            lose_answer(connection)
        }
        Outcome::AnswerLost => {
            answered(&kinesis, &headers, &body);
            lose_answer(connection)
        }
    }
}

fn answered(kinesis: &Kinesis, headers: &HeaderMap, body: &[u8]) -> Response {
    kinesis.reply(refuse_cbor(headers).and_then(|()| perform(kinesis, headers, body)))
}

impl Kinesis {
    fn reply(&self, outcome: Result<String, KinesisError>) -> Response {
        let (status, text) = match outcome {
            Ok(answer) => (StatusCode::OK, answer),
            Err(error) => (error.status(), error.body()),
        };
        self.inner.stamp.answer(status, text)
    }
}

fn injected(failure: Failure) -> KinesisError {
    match failure {
        Failure::Internal => KinesisError::new(ErrorKind::InternalFailure, "Internal service failure."),
        Failure::Unavailable => KinesisError::new(ErrorKind::ServiceUnavailable, "Service unavailable."),
        Failure::Throttle => KinesisError::new(ErrorKind::ThroughputExceeded, "Rate exceeded."),
    }
}

/// The part of a request that names its stream.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_iterator: Option<String>,
}

/// The streams that a request names; none if it cannot be read.
fn streams(body: &[u8]) -> Vec<String> {
    let Ok(named) = serde_json::from_slice::<Named>(body) else { return Vec::new() };
    let by_arn = named.stream_arn.as_deref().and_then(name_in_arn).map(str::to_owned);
    let by_iterator = named.shard_iterator.as_deref().and_then(ShardIterator::decode);
    let names = named.stream_name.into_iter().chain(by_arn);
    names.chain(by_iterator.map(|iterator| iterator.stream.name)).collect()
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
        "UpdateStreamRecordDistributionStrategy" => kinesis.update_distribution(&decode(body)?),
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
