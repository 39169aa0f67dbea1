//! How large an answer may be: decided when its length is known, before it is read.
//!
//! A page is asked for by a number of records, and 10 MiB can come back whatever the number is. So the session that asks says
//! how much memory it holds for the answer ([`Admission`]), and an answer that is larger takes what is free, or is left
//! unread: the session waits for that much then, and asks again. *Without it* forty shards whose records turn out large fill
//! the memory at once.
//!
//! While an answer is read and decoded it is there up to three times: as pieces, as one text, as records. That much is there for
//! one large answer at a time, or for many small ones ([`TRANSFER_KIB`]).

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::budget::Account;

/// Answers that are read at the same time take at most so much: the largest there is, 10 MiB of records in base64.
const TRANSFER_KIB: u32 = 14 << 10;

tokio::task_local! {
    static ADMISSION: Arc<Admission>;
}

/// What a session holds for an answer.
#[derive(Debug)]
pub struct Admission {
    /// Bytes that are held already.
    granted: usize,
    /// What is held beyond.
    surplus: Mutex<Account>,
    transfer: Mutex<Option<OwnedSemaphorePermit>>,
}

/// An answer takes more memory than is held for it, and than is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the answer takes {needed} bytes of memory, which are not free: the read is made again once they are"
)]
pub struct TooLarge {
    /// Bytes that its records will take.
    pub needed: usize,
}

impl Admission {
    /// So many bytes are held; what is missing is taken from the same budget.
    pub(crate) fn new(granted: usize, surplus: Account) -> Arc<Self> {
        Arc::new(Self { granted, surplus: Mutex::new(surplus), transfer: Mutex::default() })
    }

    /// Runs a call that may hold this much. *Cancelling it* is as safe as it is for the call.
    pub(crate) async fn during<T>(self: &Arc<Self>, call: impl Future<Output = T>) -> T {
        ADMISSION.scope(Arc::clone(self), call).await
    }

    /// Whether an answer of so many bytes may be read now.
    fn admit(&self, content_length: usize) -> Result<(), TooLarge> {
        // Base64: three bytes in four characters.
        let needed = content_length / 4 * 3;
        let mut surplus = self.surplus.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.granted + surplus.held();
        if needed <= held || surplus.try_grow(needed - held) { Ok(()) } else { Err(TooLarge { needed }) }
    }
}

/// An HTTP client for reading streams that asks an [`Admission`], where there is one, before it reads an answer.
#[derive(Debug)]
pub struct AnswerGate {
    inner: SharedHttpClient,
    transfers: Arc<Semaphore>,
}

impl AnswerGate {
    /// In front of this client.
    pub fn new(inner: SharedHttpClient) -> Self {
        Self { inner, transfers: Arc::new(Semaphore::new(TRANSFER_KIB as usize)) }
    }
}

impl HttpClient for AnswerGate {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Gated { inner, transfers: Arc::clone(&self.transfers) })
    }
}

#[derive(Debug)]
struct Gated {
    inner: SharedHttpConnector,
    transfers: Arc<Semaphore>,
}

impl HttpConnector for Gated {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let call = self.inner.call(request);
        let Ok(admission) = ADMISSION.try_with(Arc::clone) else { return call };
        let transfers = Arc::clone(&self.transfers);
        HttpConnectorFuture::new(async move {
            let response = call.await?;
            let length = response.headers().get("content-length").and_then(|length| length.parse().ok());
            if let Some(length) = length {
                admission.admit(length).map_err(|why| ConnectorError::user(Box::new(why)))?;
            }
            let kib =
                length.map_or(TRANSFER_KIB, |bytes: usize| u32::try_from(bytes >> 10).unwrap_or(u32::MAX));
            let permit = transfers.acquire_many_owned(kib.clamp(1, TRANSFER_KIB)).await;
            *admission.transfer.lock().unwrap_or_else(PoisonError::into_inner) = permit.ok();
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;
    use sluicegate_checkpoint::{SequenceNumber, ShardId};

    use super::*;
    use crate::budget::ByteBudget;
    use crate::kinesis::KinesisStream;
    use crate::stream::{ReadFrom, ShardCursor, StreamError, StreamReader};

    #[test]
    fn an_answer_takes_what_is_held_for_it_then_what_is_free_and_is_left_unread_otherwise() {
        let budget = ByteBudget::new(1_000);
        let mut page = budget.account();
        assert!(page.try_grow(300));
        let admission = Admission::new(300, budget.account());
        assert_eq!(admission.admit(400), Ok(()));
        assert_eq!(budget.used(), 300);
        assert_eq!(admission.admit(800), Ok(()));
        assert_eq!(budget.used(), 600);
        assert_eq!(admission.admit(4_000), Err(TooLarge { needed: 3_000 }));
        drop(admission);
        assert_eq!(budget.used(), 300);
    }

    /// Answers every request with an iterator, and a page of one record.
    #[derive(Debug)]
    struct Service {
        record_bytes: usize,
    }

    impl HttpClient for Service {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(Self { ..*self })
        }
    }

    impl HttpConnector for Service {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let target = request.headers().get("x-amz-target").unwrap_or_default();
            let body = if target.ends_with("GetShardIterator") {
                r#"{"ShardIterator":"first"}"#.to_owned()
            } else {
                let data = "QUFB".repeat(self.record_bytes / 3);
                format!(
                    r#"{{"NextShardIterator":"next","MillisBehindLatest":0,"Records":[{{"SequenceNumber":"1","PartitionKey":"k","ApproximateArrivalTimestamp":1.5,"Data":"{data}"}}]}}"#
                )
            };
            let length = body.len();
            let status = StatusCode::try_from(200).unwrap();
            let mut response = HttpResponse::new(status, SdkBody::from(body));
            response.headers_mut().insert("content-length", length.to_string());
            HttpConnectorFuture::ready(Ok(response))
        }
    }

    fn cursor(record_bytes: usize) -> Box<dyn ShardCursor> {
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("a", "b", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(AnswerGate::new(SharedHttpClient::new(Service { record_bytes })))
            .build();
        let stream = KinesisStream::new(aws_sdk_kinesis::Client::from_conf(config), "s");
        stream.open(&ShardId::new("shardId-0"), ReadFrom::TrimHorizon)
    }

    /// Law M1 at the reader: whatever is asked for, an answer of up to 10 MiB is read when there is room for it, and says how
    /// much it needs when there is none; the record is not lost for that.
    #[tokio::test]
    async fn a_page_that_does_not_fit_says_how_much_it_needs_and_is_read_once_that_is_there() {
        for record_bytes in [0, 3, 3_000, 300_000, 10 << 20] {
            let mut cursor = cursor(record_bytes);
            let budget = ByteBudget::new(20_000);
            let mut other = budget.account();
            assert!(other.try_grow(18_000));
            let admission = Admission::new(0, budget.account());
            let read = admission.during(cursor.next_page(1)).await;
            drop(admission);
            let needed = match read {
                Ok(page) => {
                    assert!(record_bytes <= 3, "{record_bytes} bytes do not fit");
                    assert_eq!(page.records.len(), 1);
                    continue;
                }
                Err(StreamError::TooLarge { needed }) => needed,
                Err(error) => panic!("{record_bytes}: {error:?}"),
            };
            assert!(record_bytes > 3 && needed >= record_bytes / 3 * 3, "{record_bytes}: {needed}");
            let mut page = other.another();
            drop(other);
            page.grow(needed).await;
            let admission = Admission::new(needed, page.another());
            let read = admission.during(cursor.next_page(1)).await.unwrap();
            assert_eq!(read.records[0].data().len(), record_bytes / 3 * 3);
            assert_eq!(*read.records[0].sequence_number(), SequenceNumber::parse("1").unwrap());
        }
    }
}
