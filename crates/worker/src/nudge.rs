//! "Look now" over HTTP: `POST /nudge` on the other worker's admin server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sluicegate_lease::nudge::{Heard, Hint};
use sluicegate_lease::{LeaseKey, Nudge, WorkerId};

use crate::admin::AdminToken;

/// A nudge that takes longer comes too late: the next look at the tables is due by then.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Nudges workers at the address in their row.
#[derive(Debug)]
pub struct HttpNudge {
    client: Client<HttpConnector, Empty<Bytes>>,
    /// What a request bears, where admin servers ask for a token.
    authorization: Option<HeaderValue>,
}

impl HttpNudge {
    /// A client of its own. The workers of a fleet share the token, if they have one.
    pub fn new(token: Option<&AdminToken>) -> Arc<Self> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Arc::new(Self { client, authorization: token.and_then(AdminToken::header) })
    }
}

#[async_trait]
impl Nudge for HttpNudge {
    async fn look_now(&self, worker: &WorkerId, address: Option<&str>, hint: Option<&Hint>) -> Heard {
        let Some(address) = address else { return Heard::Unanswered };
        let request = http::Request::post(format!("http://{address}{}", path(hint))).body(Empty::new());
        let Ok(mut request) = request else { return Heard::Unanswered };
        if let Some(token) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        match tokio::time::timeout(TIMEOUT, self.client.request(request)).await {
            Ok(Ok(answer)) if answer.status().is_success() => Heard::Looking,
            Ok(Ok(answer)) if answer.status() == StatusCode::GONE => Heard::Leaving,
            Ok(Ok(answer)) if answer.status() == StatusCode::UNAUTHORIZED => {
                tracing::warn!(%worker, "a nudge was refused: give all workers of the fleet the same admin_token");
                Heard::Unanswered
            }
            Ok(Ok(answer)) => {
                tracing::debug!(%worker, status = %answer.status(), "a nudge was not understood");
                Heard::Unanswered
            }
            Ok(Err(error)) => {
                tracing::debug!(%worker, %error, "a nudge did not arrive");
                Heard::Unanswered
            }
            Err(_late) => {
                tracing::debug!(%worker, "a nudge did not arrive in time");
                Heard::Unanswered
            }
        }
    }
}

/// Longest shard id that a hint names (Kinesis API reference, `ShardId`).
const LONGEST_ID: usize = 128;

/// Where a nudge goes. Shard ids need no escaping: the API reference allows letters, digits, `_`, `.` and `-`.
fn path(hint: Option<&Hint>) -> String {
    match hint {
        None => "/nudge".to_owned(),
        Some(Hint { lease, unread: None }) => format!("/nudge?lease={lease}"),
        Some(Hint { lease, unread: Some(unread) }) => {
            format!("/nudge?lease={lease}&unread_ms={}", unread.as_millis())
        }
    }
}

/// The hint of a request to [`path`]; none if there is none or it cannot be one.
pub(crate) fn hint(uri: &Uri) -> Option<Hint> {
    let (mut lease, mut unread) = (None, None);
    for pair in uri.query()?.split('&') {
        match pair.split_once('=')? {
            ("lease", id) if !id.is_empty() && id.len() <= LONGEST_ID => lease = Some(LeaseKey::new(id)),
            ("unread_ms", ms) => unread = ms.parse().ok().map(Duration::from_millis),
            _ => {}
        }
    }
    Some(Hint { lease: lease?, unread })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_arrives_as_it_was_sent_and_nonsense_is_none() {
        for unread in [None, Some(Duration::from_millis(57))] {
            let sent = Hint { lease: LeaseKey::new("shardId-000000000007"), unread };
            assert_eq!(hint(&path(Some(&sent)).parse().unwrap()), Some(sent));
        }
        for none in ["/nudge", "/nudge?lease=", "/nudge?x", "/nudge?unread_ms=5"] {
            assert_eq!(hint(&none.parse().unwrap()), None, "{none}");
        }
        assert_eq!(hint(&format!("/nudge?lease={}", "x".repeat(129)).parse().unwrap()), None);
    }
}
