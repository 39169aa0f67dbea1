//! Counts requests to a table where they leave the SDK: by operation, and by what became of them.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use sluicegate_worker::Metrics;

/// An HTTP client whose requests are counted as those to one table.
#[derive(Debug, Clone)]
pub(crate) struct Metered {
    pub(crate) inner: SharedHttpClient,
    pub(crate) table: &'static str,
    pub(crate) metrics: Metrics,
}

impl HttpClient for Metered {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(MeteredConnector { inner, client: self.clone() })
    }
}

#[derive(Debug)]
struct MeteredConnector {
    inner: SharedHttpConnector,
    client: Metered,
}

impl HttpConnector for MeteredConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let count = Count { client: self.client.clone(), operation, outcome: ERROR };
        let call = self.inner.call(request);
        HttpConnectorFuture::new(async move {
            // The whole of it belongs to the future, not just the field that is assigned: it counts when that ends.
            let mut count = count;
            let response = call.await?;
            let batch = count.operation == "BatchWriteItem";
            if response.status().is_success() && !batch {
                count.outcome = "ok";
                return Ok(response);
            }
            let (response, body) = read(response).await?;
            count.outcome = outcome(response.status().is_success(), &body);
            Ok(response)
        })
    }
}

const ERROR: &str = "error";

/// Counts one request when it is dropped: also one that is given up because it takes too long.
struct Count {
    client: Metered,
    operation: String,
    outcome: &'static str,
}

impl Drop for Count {
    fn drop(&mut self) {
        self.client.metrics.table_request(self.client.table, &self.operation, self.outcome);
    }
}

/// The same response with its body in memory.
async fn read(mut response: HttpResponse) -> Result<(HttpResponse, bytes::Bytes), ConnectorError> {
    let body = std::mem::replace(response.body_mut(), SdkBody::taken());
    let body = body.collect().await.map_err(ConnectorError::io)?.to_bytes();
    *response.body_mut() = SdkBody::from(body.clone());
    Ok((response, body))
}

/// What an answer says in a word. A batch of which some items are not processed was throttled.
fn outcome(success: bool, body: &[u8]) -> &'static str {
    let says = |word: &str| body.windows(word.len()).any(|window| window == word.as_bytes());
    if success {
        let all = says("\"UnprocessedItems\":{}") || !says("\"UnprocessedItems\"");
        return if all { "ok" } else { "throttled" };
    }
    let throttled = ["ThrottlingException", "ProvisionedThroughputExceeded", "RequestLimitExceeded"];
    match () {
        () if says("ConditionalCheckFailedException") => "condition-failed",
        () if throttled.iter().any(|word| says(word)) => "throttled",
        () => ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        for (success, body, wanted) in [
            (true, r#"{"UnprocessedItems":{},"ConsumedCapacity":[]}"#, "ok"),
            (true, "{}", "ok"),
            (true, r#"{"UnprocessedItems":{"events":[{"PutRequest":{}}]}}"#, "throttled"),
            (
                false,
                r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}"#,
                "condition-failed",
            ),
            (
                false,
                r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}"#,
                "throttled",
            ),
            (false, r#"{"__type":"com.amazon.coral.availability#ThrottlingException"}"#, "throttled"),
            (false, r#"{"__type":"com.amazon.coral.validate#ValidationException"}"#, "error"),
        ] {
            assert_eq!(outcome(success, body.as_bytes()), wanted, "{body}");
        }
    }
}
