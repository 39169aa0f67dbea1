//! The admin server: `/livez` (no AWS call, no lag), `/metrics` (Prometheus), `POST /nudge` ("look now", and perhaps
//! at which lease).
//!
//! It answers from what is in memory, so that a slow table never makes a healthy worker look dead.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sluicegate_lease::nudge::Nudges;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::nudge::hint;
use crate::watch::Watches;

/// What the admin server answers from.
#[derive(Debug)]
pub struct Admin {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/livez`.
    pub watches: Arc<Watches>,
    /// Told by `/nudge`.
    pub nudged: Nudges,
    /// Cancelled when the worker drains: it then begins nothing.
    pub drain: CancellationToken,
}

/// Most connections served at a time: scrapers, probes and nudges need a handful.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be without a request: longer than a usual scrape interval, so that scrapers keep theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

impl Admin {
    /// Serves until stopped. Connections end with it.
    #[expect(clippy::disallowed_types, reason = "the server owns the tasks of its connections")]
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let mut connections = tokio::task::JoinSet::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let (socket, slot) = tokio::select! { biased;
                () = stop.cancelled() => return,
                accepted = accept(&listener, &slots) => accepted,
            };
            while connections.try_join_next().is_some() {}
            let Ok((socket, _peer)) = socket else { continue };
            let admin = Arc::clone(&self);
            connections.spawn(async move {
                let answer = service_fn(move |request| {
                    let answer = admin.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
                if let Err(error) = http.serve_connection(TokioIo::new(socket), answer).await {
                    tracing::debug!(%error, "an admin connection ended badly");
                }
                drop(slot);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/livez") => self.livez(),
            (&Method::GET, "/metrics") => self.metrics(),
            (&Method::POST, "/nudge") => self.nudge(request),
            (_, "/livez" | "/metrics" | "/nudge") => plain(StatusCode::METHOD_NOT_ALLOWED, "wrong method\n"),
            _ => plain(StatusCode::NOT_FOUND, "try /livez, /metrics, or POST /nudge\n"),
        }
    }

    fn nudge<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if self.drain.is_cancelled() {
            return plain(StatusCode::GONE, "leaving\n");
        }
        self.nudged.put(hint(request.uri()));
        plain(StatusCode::ACCEPTED, "looking\n")
    }

    fn livez(&self) -> Response<Full<Bytes>> {
        let stuck = self.watches.stuck();
        if stuck.is_empty() {
            return plain(StatusCode::OK, "ok\n");
        }
        let lines: String =
            stuck.iter().map(|(name, silent)| format!("{name} is silent for {silent:?}\n")).collect();
        plain(StatusCode::SERVICE_UNAVAILABLE, lines)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.text() {
            Ok(text) => plain(StatusCode::OK, text),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// The next connection, once there is a slot for it. *Cancelling it* is safe.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (std::io::Result<(TcpStream, SocketAddr)>, Option<OwnedSemaphorePermit>) {
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    (listener.accept().await, slot)
}

/// Binds the admin address.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
