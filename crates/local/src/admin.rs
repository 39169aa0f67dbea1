//! What is asked of either service beside its operations: the ledger, the limits and the faults, over plain HTTP.
//!
//! ```text
//! GET  /ledger[?since=SECOND]   what was used, by table or stream, and by second
//! GET  /limits                  what is enforced                              POST  changes what the document names
//! GET  /faults                  the script that is installed, how often met   POST  installs one; an empty one ends all
//! ```

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::faults::{FaultScript, Faults};

/// An answer in JSON.
pub(crate) fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The answer to a document: how things are now, or why it cannot be.
pub(crate) fn taken(outcome: Result<String, impl std::error::Error>) -> Response {
    match outcome {
        Ok(now) => json(now),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// Installs the script in a document.
pub(crate) fn install(faults: &Faults, document: &str) -> Response {
    let installed = FaultScript::parse(document).map(|script| {
        faults.install(script);
        faults.to_json()
    });
    taken(installed)
}

/// The second from which on windows are asked for; all without it.
pub(crate) fn since(query: &RawQuery) -> u64 {
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
