//! "Look now" over HTTP: `POST /nudge` on the other worker's admin server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sluicegate_lease::{Nudge, WorkerId};

/// A nudge that takes longer comes too late: the next look at the tables is due by then.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Nudges workers at the address in their row.
#[derive(Debug)]
pub struct HttpNudge {
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl HttpNudge {
    /// A client of its own.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { client: Client::builder(TokioExecutor::new()).build_http() })
    }
}

#[async_trait]
impl Nudge for HttpNudge {
    async fn look_now(&self, worker: &WorkerId, address: Option<&str>) {
        let Some(address) = address else { return };
        let request = http::Request::post(format!("http://{address}/nudge")).body(Empty::new());
        let Ok(request) = request else { return };
        match tokio::time::timeout(TIMEOUT, self.client.request(request)).await {
            Ok(Ok(_answered)) => {}
            Ok(Err(error)) => tracing::debug!(%worker, %error, "a nudge did not arrive"),
            Err(_late) => tracing::debug!(%worker, "a nudge did not arrive in time"),
        }
    }
}
