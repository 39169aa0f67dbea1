//! The adapter against answers made by hand, and against no server at all.

use std::sync::{Arc, Mutex};

use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use super::*;

/// What the fake server does with a request.
#[derive(Debug, Clone)]
enum Answer {
    Json(u16, &'static str),
    Reset,
    TimesOut,
}

/// Answers every request the same way, and keeps the last one's body.
#[derive(Debug, Clone)]
struct FakeServer {
    answer: Answer,
    last_body: Arc<Mutex<String>>,
}

impl HttpConnector for FakeServer {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = request.body().bytes().unwrap_or_default();
        *self.last_body.lock().unwrap() = String::from_utf8_lossy(body).into_owned();
        HttpConnectorFuture::ready(match self.answer {
            Answer::Json(status, body) => {
                Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body)))
            }
            Answer::Reset => {
                Err(ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()))
            }
            Answer::TimesOut => Err(ConnectorError::timeout("no answer".into())),
        })
    }
}

fn config() -> aws_sdk_kinesis::config::Builder {
    Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .retry_config(RetryConfig::disabled())
}

fn stream_of(config: aws_sdk_kinesis::config::Builder, name: &str) -> KinesisStream {
    KinesisStream::new(Client::from_conf(config.build()), StreamName::new(name))
}

fn stream(answer: Answer) -> (KinesisStream, Arc<Mutex<String>>) {
    let last_body = Arc::new(Mutex::new(String::new()));
    let server = SharedHttpConnector::new(FakeServer { answer, last_body: Arc::clone(&last_body) });
    let config = config()
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .http_client(http_client_fn(move |_, _| server.clone()));
    (stream_of(config, "jobs"), last_body)
}

fn two_entries() -> [Entry; 2] {
    ["a", "b"].map(|key| Entry { key: key.to_owned(), data: Bytes::from_static(b"{}") })
}

async fn put_error(answer: Answer) -> PutError {
    stream(answer).0.put_records(&two_entries()).await.unwrap_err()
}

#[tokio::test]
async fn outcomes_come_in_the_order_of_the_records() {
    let (stream, body) = stream(Answer::Json(
        200,
        r#"{"FailedRecordCount":1,"Records":[
            {"ErrorCode":"ProvisionedThroughputExceededException","ErrorMessage":"slow"},
            {"SequenceNumber":"1","ShardId":"shardId-0"}]}"#,
    ));
    let outcomes = stream.put_records(&two_entries()).await.unwrap();
    assert_eq!(outcomes, [PutOutcome::Throttled, PutOutcome::Stored]);
    let sent: serde_json::Value = serde_json::from_str(&body.lock().unwrap()).unwrap();
    assert_eq!(sent["StreamName"], "jobs");
    assert_eq!(sent["Records"][1], serde_json::json!({"Data": "e30=", "PartitionKey": "b"}));
}

#[tokio::test]
async fn answers_that_do_not_fit_the_request_are_unknown_outcomes() {
    for body in [r#"{"FailedRecordCount":0,"Records":[]}"#, "<html>"] {
        let error = put_error(Answer::Json(200, body)).await;
        assert!(matches!(error, PutError::OutcomeUnknown { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_an_unknown_outcome() {
    let failure = r#"{"__type":"InternalFailure"}"#;
    for answer in [Answer::Reset, Answer::TimesOut, Answer::Json(500, failure), Answer::Json(503, "")] {
        let error = put_error(answer.clone()).await;
        assert!(matches!(error, PutError::OutcomeUnknown { .. }), "{answer:?}: {error:?}");
    }
}

#[tokio::test]
async fn throttling_of_a_whole_request_is_no_unknown_outcome() {
    for body in
        [r#"{"__type":"ProvisionedThroughputExceededException"}"#, r#"{"__type":"KMSThrottlingException"}"#]
    {
        let error = put_error(Answer::Json(400, body)).await;
        assert!(matches!(error, PutError::Throttled { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn what_a_person_must_mend_says_what_to_do() {
    let cases = [
        ("ResourceNotFoundException", "stream `jobs` does not exist in this account and region eu-west-1"),
        ("AccessDeniedException", "grant this role kinesis:PutRecords"),
        ("KMSDisabledException", "grant this role kms:GenerateDataKey"),
        ("UnrecognizedClientException", "credentials are not accepted in this account and region eu-west-1"),
        ("InvalidArgumentException", "refused the request with InvalidArgumentException: too big"),
    ];
    for (code, words) in cases {
        let body: &'static str = format!(r#"{{"__type":"{code}","message":"too big"}}"#).leak();
        let error = put_error(Answer::Json(400, body)).await;
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.retry(), Retry::Never, "{error}");
    }
    let error = put_error(Answer::Json(404, "not found")).await;
    assert!(error.to_string().contains("check that the endpoint is Kinesis"), "{error}");
}

#[tokio::test]
async fn missing_credentials_are_told_apart_from_a_lost_answer() {
    let config = config().http_client(aws_smithy_http_client::Builder::new().build_http());
    let error = stream_of(config, "jobs").put_records(&two_entries()).await.unwrap_err();
    assert!(error.to_string().contains("no AWS credentials"), "{error:?}");
    assert_eq!(error.retry(), Retry::Never);
}

#[tokio::test]
async fn a_missing_region_is_told_apart_from_a_lost_answer() {
    let config = config()
        .region(None)
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    let error = stream_of(config, "jobs").put_records(&two_entries()).await.unwrap_err();
    assert!(error.to_string().contains("AWS_REGION"), "{error:?}");
}

#[tokio::test]
async fn without_a_connection_nothing_was_stored() {
    // Bound and never listened to by anyone once it is dropped: connecting is refused.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = config()
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    let stream = stream_of(config, "jobs");
    let error = stream.put_records(&two_entries()).await.unwrap_err();
    assert!(matches!(error, PutError::Unreachable { .. }), "{error:?}");
    let error = stream.describe().await.unwrap_err();
    assert!(error.to_string().contains("check the network, the region and the endpoint"), "{error}");
}

#[tokio::test]
async fn a_description_tells_the_largest_record_and_the_shards() {
    const SUMMARY: &str = r#"{"StreamDescriptionSummary":{"StreamName":"jobs","StreamARN":"arn:x","StreamStatus":"ACTIVE",
        "RetentionPeriodHours":24,"StreamCreationTimestamp":1,"EnhancedMonitoring":[],"OpenShardCount":4,
        "MaxRecordSizeInKiB":10240}}"#;
    let description = stream(Answer::Json(200, SUMMARY)).0.describe().await.unwrap();
    assert_eq!(description, StreamDescription { max_record_bytes: 10 * 1024 * 1024, open_shards: 4 });
    let older: &'static str = SUMMARY.replace(",\n        \"MaxRecordSizeInKiB\":10240", "").leak();
    let description = stream(Answer::Json(200, older)).0.describe().await.unwrap();
    assert_eq!(description.max_record_bytes, 1024 * 1024);
}

#[tokio::test]
async fn a_stream_may_be_named_by_its_arn() {
    let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/jobs";
    let (named, body) = stream(Answer::Json(200, r#"{"FailedRecordCount":0,"Records":[{},{}]}"#));
    let by_arn = KinesisStream::new(named.client, StreamName::new(arn));
    by_arn.put_records(&two_entries()).await.unwrap();
    let sent: serde_json::Value = serde_json::from_str(&body.lock().unwrap()).unwrap();
    assert_eq!((sent["StreamARN"].as_str(), sent.get("StreamName")), (Some(arn), None));
}
