//! The admin server: `/livez` (no AWS call, no lag), `/readyz`, `/metrics` (Prometheus), `/fleet` (JSON), `/` (the fleet on
//! a page), `POST /nudge` ("look now", and perhaps at which lease).
//!
//! It answers from what is in memory, so that a slow table never makes a healthy worker look dead. With a token, what tells
//! of the fleet and what acts wants it; probes do not, nor does the page, which holds no data and asks for the token itself.

mod connections;
mod token;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::Full;
use sluicegate_lease::Clock;
use sluicegate_lease::nudge::Nudges;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fleet::FleetWatch;
use crate::metrics::Metrics;
use crate::nudge::hint;
use crate::readiness::Readiness;
use crate::watch::Watches;

use connections::Answer;
pub(crate) use connections::Limits;
pub use token::{AdminToken, NoToken};

/// What the admin server answers from.
pub(crate) struct Admin {
    /// For `/metrics`.
    pub(crate) metrics: Metrics,
    /// For `/livez`.
    pub(crate) watches: Arc<Watches>,
    /// For `/readyz`.
    pub(crate) readiness: Arc<Readiness>,
    /// For `/fleet`.
    pub(crate) fleet: Arc<FleetWatch>,
    /// Told by `/nudge`.
    pub(crate) nudged: Nudges,
    /// Cancelled when the worker drains: it then begins nothing.
    pub(crate) drain: CancellationToken,
    /// Asked for, if there is one.
    pub(crate) token: Option<AdminToken>,
    pub(crate) clock: Clock,
    /// What `/fleet` last answered, and when.
    pub(crate) answered: Mutex<Option<(Instant, Bytes)>>,
}

/// The page: everything in one file, so that it works where nothing else is reached.
const PAGE: &str = include_str!("page.html");
/// What the page may do: nothing but run itself and ask this server.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// How many loops that are stuck `/livez` names.
const STUCK_NAMED: usize = 10;
/// How long an answer of `/fleet` is good for: many people may look at a fleet of many shards.
const FLEET_FRESH: Duration = Duration::from_millis(500);
/// The paths, for whoever asks for another one.
const PATHS: &str = "try /, /fleet, /metrics, /livez, /readyz, or POST /nudge\n";

/// What is asked of the server.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    method: &'a Method,
    uri: &'a Uri,
    authorization: Option<&'a HeaderValue>,
}

impl Admin {
    /// Serves until stopped. Connections end with it.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        limits: Limits,
        stop: CancellationToken,
    ) {
        let clock = self.clock.clone();
        connections::serve(listener, (limits, clock), stop, move |request| {
            self.answer(Asked {
                method: request.method(),
                uri: request.uri(),
                authorization: request.headers().get(AUTHORIZATION),
            })
        })
        .await;
    }

    fn answer(&self, asked: Asked<'_>) -> Answer {
        let path = asked.uri.path();
        // Of an answer to HEAD the server leaves the body out.
        let allowed: &[Method] =
            if path == "/nudge" { &[Method::POST] } else { &[Method::GET, Method::HEAD] };
        let open = matches!(path, "/" | "/livez" | "/readyz");
        match path {
            "/" | "/livez" | "/readyz" | "/metrics" | "/fleet" | "/nudge"
                if !allowed.contains(asked.method) =>
            {
                plain(StatusCode::METHOD_NOT_ALLOWED, "wrong method\n")
            }
            _ if !open && !self.lets_in(asked.authorization) => unauthorized(),
            "/" => page(),
            "/livez" => self.livez(),
            "/readyz" => self.readyz(),
            "/metrics" => self.metrics(),
            "/fleet" => self.fleet(),
            "/nudge" => self.nudge(asked.uri),
            _ => plain(StatusCode::NOT_FOUND, PATHS),
        }
    }

    fn lets_in(&self, authorization: Option<&HeaderValue>) -> bool {
        self.token.as_ref().is_none_or(|token| token.is_borne_by(authorization))
    }

    fn nudge(&self, uri: &Uri) -> Answer {
        if self.drain.is_cancelled() {
            return plain(StatusCode::GONE, "leaving\n");
        }
        self.nudged.put(hint(uri));
        plain(StatusCode::ACCEPTED, "looking\n")
    }

    fn livez(&self) -> Answer {
        let stuck = self.watches.stuck();
        if stuck.is_empty() {
            return plain(StatusCode::OK, "ok\n");
        }
        let named = stuck.iter().take(STUCK_NAMED);
        let mut lines: String =
            named.map(|(name, silent)| format!("{name} is silent for {silent:?}\n")).collect();
        if stuck.len() > STUCK_NAMED {
            lines.push_str(&format!("and {} more\n", stuck.len() - STUCK_NAMED));
        }
        plain(StatusCode::SERVICE_UNAVAILABLE, lines)
    }

    fn readyz(&self) -> Answer {
        match self.readiness.check(&self.drain) {
            Ok(()) => plain(StatusCode::OK, "ok\n"),
            Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", why.text())),
        }
    }

    fn metrics(&self) -> Answer {
        self.metrics.ready(self.readiness.check(&self.drain).is_ok());
        let (used, limit) = self.fleet.buffer();
        self.metrics.buffer(used, limit);
        match self.metrics.text_with(Some(&self.fleet.picture())) {
            Ok(text) => plain(StatusCode::OK, text),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    fn fleet(&self) -> Answer {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let fresh = answered.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < FLEET_FRESH);
        let body = match fresh {
            Some((_, body)) => body.clone(),
            None => match serde_json::to_vec(&self.fleet.picture()) {
                Ok(body) => answered.insert((now, body.into())).1.clone(),
                Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
        };
        with_kind(StatusCode::OK, body, "application/json")
    }
}

fn page() -> Answer {
    let mut page = with_kind(StatusCode::OK, PAGE, "text/html; charset=utf-8");
    for (name, value) in [
        ("content-security-policy", PAGE_POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        page.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    page
}

fn unauthorized() -> Answer {
    let mut answer =
        plain(StatusCode::UNAUTHORIZED, "give the token of the setting admin_token as a bearer token\n");
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    with_kind(status, text, "text/plain; version=0.0.4; charset=utf-8")
}

fn with_kind(status: StatusCode, body: impl Into<Bytes>, kind: &'static str) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Binds the admin address.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

#[cfg(test)]
mod tests;
