//! A stream in memory: the port's second implementation, for tests, with faults by script.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::entry::Entry;
use crate::writer::{PutError, PutOutcome, StreamWriter};

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The whole request is throttled.
    Throttle,
    /// Every `n`th record, counted from the first, is not stored: 1 is all of them; 0 is none.
    FailEvery(usize),
    /// All records are stored, but the answer is lost.
    LoseAnswer,
    /// Nothing is stored and there is no answer.
    LoseRequest,
    /// No connection.
    Unreachable,
    /// There is no such stream.
    NotFound,
}

/// A stream that keeps what it is given.
#[derive(Debug, Default)]
pub struct MemoryStream {
    latency: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Fault>,
    afterwards: Option<Fault>,
    stored: Vec<Entry>,
    request_records: Vec<usize>,
    in_flight: usize,
    most_in_flight: usize,
}

impl MemoryStream {
    /// A stream whose requests take `latency` and meet these faults, one each in order; later ones meet none.
    pub fn new(latency: Duration, script: impl IntoIterator<Item = Fault>) -> Self {
        let state = State { script: script.into_iter().collect(), ..State::default() };
        Self { latency, state: Mutex::new(state) }
    }

    /// A stream whose requests all meet the same fault.
    pub fn always(latency: Duration, fault: Fault) -> Self {
        let state = State { afterwards: Some(fault), ..State::default() };
        Self { latency, state: Mutex::new(state) }
    }

    /// Everything stored so far, in the order of storing.
    pub fn stored(&self) -> Vec<Entry> {
        self.state().stored.clone()
    }

    /// How many records each request had, in the order of arrival.
    pub fn request_records(&self) -> Vec<usize> {
        self.state().request_records.clone()
    }

    /// The most requests that were ever in flight together.
    pub fn most_in_flight(&self) -> usize {
        self.state().most_in_flight
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive(&self, records: usize) -> Arrived<'_> {
        let mut state = self.state();
        state.request_records.push(records);
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        let fault = state.script.pop_front().or(state.afterwards).unwrap_or(Fault::None);
        Arrived { stream: self, fault }
    }
}

/// A request in flight, until it is answered or dropped.
struct Arrived<'s> {
    stream: &'s MemoryStream,
    fault: Fault,
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        self.stream.state().in_flight -= 1;
    }
}

#[async_trait]
impl StreamWriter for MemoryStream {
    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<PutOutcome>, PutError> {
        let arrived = self.arrive(entries.len());
        tokio::time::sleep(self.latency).await;
        let lost = || PutError::OutcomeUnknown { source: "the connection was reset".into() };
        let fails_every = match arrived.fault {
            Fault::None => 0,
            Fault::FailEvery(nth) => nth,
            Fault::Throttle => return Err(PutError::Throttled { source: "slow down".into() }),
            Fault::Unreachable => return Err(PutError::Unreachable { source: "connection refused".into() }),
            Fault::LoseRequest => return Err(lost()),
            Fault::LoseAnswer => {
                self.state().stored.extend_from_slice(entries);
                return Err(lost());
            }
            Fault::NotFound => {
                let what = "the stream does not exist".to_owned();
                return Err(PutError::StreamNotFound { what, source: "not found".into() });
            }
        };
        let mut outcomes = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let fails = fails_every != 0 && at % fails_every == 0;
            if !fails {
                self.state().stored.push(entry.clone());
            }
            outcomes.push(if fails { PutOutcome::Throttled } else { PutOutcome::Stored });
        }
        Ok(outcomes)
    }
}
