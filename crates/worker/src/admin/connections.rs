//! Keeps clients of the admin server within bounds: how many, how large their requests, how long they may take.
//!
//! A connection may be without a request for a while; then it is closed, and so is one that takes as long to send a request
//! or to take its answer. When as many are open as may be, the one that has been without a request for longest makes room:
//! so a probe is answered however many idle connections there are.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sluicegate_lease::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bounds on clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most connections at a time: scrapers, probes, nudges and people need a few dozen.
    pub(crate) connections: usize,
    /// How long a new connection may take to send its first request.
    pub(crate) first_request: Duration,
    /// How long a connection may be without a new request: longer than a usual scrape interval, so that scrapers keep theirs.
    pub(crate) between_requests: Duration,
    /// Most bytes of a request's head.
    pub(crate) head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            first_request: Duration::from_secs(10),
            between_requests: Duration::from_secs(75),
            head_bytes: 16 * 1_024,
        }
    }
}

/// What a server answers with.
pub(crate) type Answer = Response<Full<Bytes>>;

/// One open connection.
#[derive(Debug)]
struct Open {
    /// When it came, or when its last request did.
    active: Instant,
    /// Until when it may stay without another one.
    until: Instant,
    close: CancellationToken,
}

/// The open connections, by number.
#[derive(Debug, Clone)]
struct Book {
    open: Arc<Mutex<BTreeMap<u64, Open>>>,
    limits: Limits,
    clock: Clock,
}

impl Book {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a new connection; the one that has been without a request for longest makes room.
    fn enter(&self, number: u64) -> CancellationToken {
        let (now, close) = (self.clock.now(), CancellationToken::new());
        let mut open = self.locked();
        if open.len() >= self.limits.connections {
            let oldest = open.iter().min_by_key(|(_, connection)| connection.active);
            let oldest = oldest.map(|(number, _)| *number);
            if let Some(connection) = oldest.and_then(|number| open.remove(&number)) {
                connection.close.cancel();
            }
        }
        let until = now + self.limits.first_request;
        open.insert(number, Open { active: now, until, close: close.clone() });
        close
    }

    /// A request has come.
    fn requested(&self, number: u64) {
        let now = self.clock.now();
        if let Some(connection) = self.locked().get_mut(&number) {
            connection.active = now;
            connection.until = now + self.limits.between_requests;
        }
    }

    fn leave(&self, number: u64) {
        self.locked().remove(&number);
    }

    /// Returns once the connection has been without a request for too long. *Cancelling it* is safe.
    async fn overstays(&self, number: u64) {
        loop {
            let until = self.locked().get(&number).map(|connection| connection.until);
            match until {
                Some(until) if self.clock.now() < until => self.clock.sleep_until(until).await,
                Some(_) | None => return,
            }
        }
    }
}

/// How long nothing is accepted after that has failed: for want of file descriptors, say.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Serves until stopped. Connections end with it.
#[expect(clippy::disallowed_types, reason = "the server owns the tasks of its connections")]
pub(crate) async fn serve<A>(
    listener: TcpListener,
    (limits, clock): (Limits, Clock),
    stop: CancellationToken,
    answer: A,
) where
    A: Fn(&Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
{
    let mut connections = tokio::task::JoinSet::new();
    let book = Book { open: Arc::default(), limits, clock };
    for number in 0u64.. {
        let socket = tokio::select! { biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let socket = match socket {
            Ok((socket, _peer)) => socket,
            Err(error) => {
                tracing::warn!(%error, "an admin connection was not accepted");
                book.clock.sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let close = book.enter(number);
        connections.spawn(connection(socket, number, book.clone(), close, answer.clone()));
    }
}

async fn connection<A>(socket: TcpStream, number: u64, book: Book, close: CancellationToken, answer: A)
where
    A: Fn(&Request<Incoming>) -> Answer + Send + Sync + 'static,
{
    let requests = book.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        requests.requested(number);
        let answer = answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.max_buf_size(book.limits.head_bytes).header_read_timeout(None);
    let serving = http.serve_connection(TokioIo::new(socket), service);
    tokio::select! { biased;
        () = close.cancelled() => tracing::debug!("an idle admin connection makes room"),
        ended = serving => if let Err(error) = ended {
            tracing::debug!(%error, "an admin connection ended badly");
        },
        () = book.overstays(number) => tracing::debug!("an admin connection was without a request for too long"),
    }
    book.leave(number);
}
