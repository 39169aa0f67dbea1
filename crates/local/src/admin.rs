//! What is asked of either service beside its operations: the ledger, the limits and the faults, over plain HTTP.
//!
//! ```text
//! GET  /ledger[?since=SECOND]   what was used, by table or stream, and by second
//! GET  /limits                  what is enforced                              POST  changes what the document names
//! GET  /faults                  the script that is installed, how often met   POST  installs one; an empty one ends all
//! ```

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::faults::{FaultScript, Faults};
use crate::limits::LimitsError;

/// A service that is looked at and changed while it runs.
pub(crate) trait Managed: Clone + Send + Sync + 'static {
    /// What was used from this second on.
    fn ledger_json(&self, since: u64) -> String;
    /// What is enforced.
    fn limits_json(&self) -> String;
    /// Enforces what a document names from now on, and else what it did.
    fn change_limits(&self, document: &str) -> Result<(), LimitsError>;
    /// What goes wrong.
    fn faults(&self) -> &Faults;
}

/// The routes beside its operations.
pub(crate) fn routes<S: Managed>() -> Router<S> {
    let ledger = async |State(service): State<S>, query: RawQuery| json(service.ledger_json(since(&query)));
    let limits = async |State(service): State<S>| json(service.limits_json());
    let change_limits = async |State(service): State<S>, document: String| {
        taken(service.change_limits(&document).map(|()| service.limits_json()))
    };
    let faults = async |State(service): State<S>| json(service.faults().to_json());
    let install = async |State(service): State<S>, document: String| install(service.faults(), &document);
    Router::new()
        .route("/ledger", get(ledger))
        .route("/limits", get(limits).post(change_limits))
        .route("/faults", get(faults).post(install))
}

/// An answer in JSON.
fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The answer to a document: how things are now, or why it cannot be.
fn taken(outcome: Result<String, impl std::error::Error>) -> Response {
    match outcome {
        Ok(now) => json(now),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// Installs the script in a document.
fn install(faults: &Faults, document: &str) -> Response {
    let installed = FaultScript::parse(document).map(|script| {
        faults.install(script);
        faults.to_json()
    });
    taken(installed)
}

/// The second from which on windows are asked for; all without it.
fn since(query: &RawQuery) -> u64 {
    let pairs = query.0.as_deref().unwrap_or_default().split('&');
    let since = pairs.filter_map(|pair| pair.strip_prefix("since=")).next();
    since.and_then(|second| second.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_asked_for_from_a_second_on() {
        let since = |query: Option<&str>| since(&RawQuery(query.map(str::to_owned)));
        assert_eq!((since(None), since(Some("since=17")), since(Some("a=1&since=3"))), (0, 17, 3));
        assert_eq!(since(Some("since=yesterday")), 0);
    }
}
