//! The WorkerRegistry port: the worker table, signs of life and the fixed start.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use sluicegate_checkpoint::{ArrivalMillis, Position};
use thiserror::Error;

use crate::fleet::WorkerRow;
use crate::model::WorkerId;
use crate::store::{ReadError, WriteError, Written};

/// Where an application starts, as an operator says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialPosition {
    /// The oldest record of every shard.
    TrimHorizon,
    /// The tip, as of the first start of the application.
    Latest,
    /// Records that arrived at this time or later.
    AtTimestamp(ArrivalMillis),
}

/// Where an application started: recorded once, before any lease row, and never changed.
///
/// `Latest` became a time when it was fixed: two workers that resolved it at different moments would skip what
/// arrived in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixedStart {
    /// The oldest record of every shard.
    TrimHorizon,
    /// Records that arrived at this time or later.
    AtTimestamp(ArrivalMillis),
}

/// A stream. One made anew under the same name was created at another time, and its shards are others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamIdentity {
    /// Its name, also where it is asked for by ARN.
    pub name: String,
    /// When it was created.
    pub created: ArrivalMillis,
}

/// What is recorded of an application when it starts for the first time, and never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedStart {
    /// Where it started.
    pub at: FixedStart,
    /// The stream whose shards its lease rows are; none in a row of a build that did not record it.
    pub stream: Option<StreamIdentity>,
}

impl RecordedStart {
    /// Whether the lease rows of this application are of the shards of that stream. Rows of any other look like
    /// those of shards that the stream has forgotten, which are deleted.
    ///
    /// # Errors
    /// They are of another one.
    pub fn check(&self, found: &StreamIdentity) -> Result<(), AnotherStream> {
        match &self.stream {
            Some(recorded) if recorded != found => {
                Err(AnotherStream { recorded: recorded.clone(), found: found.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The stream is not the one that the application reads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct AnotherStream {
    /// The one that it reads.
    pub recorded: StreamIdentity,
    /// The one that was found.
    pub found: StreamIdentity,
}

impl fmt::Display for AnotherStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (recorded, found) = (&self.recorded, &self.found);
        if recorded.name == found.name {
            return write!(
                f,
                "stream `{}` is not the one that this application reads: that was created at {}, this one at {} \
                 (in milliseconds since 1970), so it was deleted and made anew, or is in another account. Its shards \
                 are others, and the lease rows do not fit them. Give it an --application of its own",
                found.name, recorded.created.0, found.created.0
            );
        }
        write!(
            f,
            "this application reads stream `{}`, and was pointed at stream `{}`, whose shards are others: the lease \
             rows do not fit them. Start it with --stream {}, or read the other stream with an --application of its own",
            recorded.name, found.name, recorded.name
        )
    }
}

/// An application cannot start at a time that has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "initial_position is a time in the future ({}, and the stream's time is {}, in milliseconds since 1970): \
     give one that has come, or LATEST",
    time.0,
    now.0
)]
pub struct StartInFuture {
    /// The time asked for.
    pub time: ArrivalMillis,
    /// The stream's own time.
    pub now: ArrivalMillis,
}

/// The tip of the stream as a time that has surely come on all of its hosts.
pub fn tip(now: ArrivalMillis) -> ArrivalMillis {
    ArrivalMillis(now.0 - 1_000)
}

impl FixedStart {
    /// Fixes what an operator said; `now` is Kinesis' own time, less a second so that it is not in the future of
    /// any of its hosts.
    ///
    /// # Errors
    /// The time has not come: Kinesis refuses to open a shard there.
    pub fn fix(initial: InitialPosition, now: ArrivalMillis) -> Result<Self, StartInFuture> {
        match initial {
            InitialPosition::TrimHorizon => Ok(Self::TrimHorizon),
            InitialPosition::Latest => Ok(Self::AtTimestamp(tip(now))),
            // The stream tells its time in whole seconds, cut off.
            InitialPosition::AtTimestamp(time) if time.0 >= now.0 + 1_000 => Err(StartInFuture { time, now }),
            InitialPosition::AtTimestamp(time) => Ok(Self::AtTimestamp(time)),
        }
    }

    /// The checkpoint of a row that starts here.
    pub fn position(self) -> Position {
        match self {
            Self::TrimHorizon => Position::TrimHorizon,
            Self::AtTimestamp(_) => Position::AtTimestamp,
        }
    }

    /// The time to start at, if it is one.
    pub fn time(self) -> Option<ArrivalMillis> {
        match self {
            Self::TrimHorizon => None,
            Self::AtTimestamp(time) => Some(time),
        }
    }
}

impl fmt::Display for FixedStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Self::AtTimestamp(time) => write!(f, "AT_TIMESTAMP {}", time.0),
        }
    }
}

/// What one read of the worker table tells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FleetRows {
    /// One row per process.
    pub workers: Vec<WorkerRow>,
    /// Workers that an operator asked to hand everything over and leave. The worker may be gone already.
    pub asked_to_leave: BTreeSet<WorkerId>,
    /// What the last worker that left had learned of the table's rate, for a fleet that starts again after all have left.
    pub learned: Option<LearnedRate>,
}

/// What throttling has taught a worker: the units a second, in thousandths, that the table accepted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedRate {
    /// Accepted.
    pub rate_milli: u64,
    /// The worker's part of the write budget then; 0 without one.
    pub grant_milli: u64,
}

/// The worker table of one fleet.
#[async_trait]
pub trait WorkerRegistry: Send + Sync + 'static {
    /// Records where the application starts and of which stream, if nobody has yet, and returns what is recorded.
    ///
    /// *Repeating it*: safe; the first one wins for ever.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn fix_start(&self, start: &RecordedStart) -> Result<RecordedStart, WriteError>;

    /// All worker rows and all requests to leave, from one strongly consistent read.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn fleet(&self) -> Result<FleetRows, ReadError>;

    /// The worker rows of [`WorkerRegistry::fleet`]: rows that are no workers (`~start`, requests) are not among them.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn workers(&self) -> Result<Vec<WorkerRow>, ReadError>;

    /// Writes a worker's own row, if its heartbeat is still `expected` (`None`: there is no row yet).
    ///
    /// *To be correct*: `row.heartbeat` is above `expected`; no retry of its own (rule R2 is the caller's).
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn heartbeat(
        &self,
        expected: Option<u64>,
        row: &WorkerRow,
    ) -> Result<Written<WorkerRow>, WriteError>;

    /// Deletes a worker's own row, if its heartbeat is still that of `row`, after it has kept what throttling had taught that
    /// worker ([`FleetRows::learned`]; the last one to leave counts).
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError>;

    /// Asks a worker to hand everything over and leave, in a row of its own: nobody but a worker writes its row.
    /// `expires` is in epoch seconds; the row of a worker that never answers vanishes some time after it.
    ///
    /// *Repeating it*: safe; the later expiry counts.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn ask_to_leave(&self, worker: &WorkerId, expires: i64) -> Result<(), WriteError>;

    /// Removes such a request, if there is one: the worker has left, or will not.
    ///
    /// *Repeating it*: safe.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn withdraw_request(&self, worker: &WorkerId) -> Result<(), WriteError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: ArrivalMillis = ArrivalMillis(1_700_000_000_000);

    #[test]
    fn latest_becomes_a_time_that_has_come() {
        let fixed = FixedStart::fix(InitialPosition::Latest, NOW);
        assert_eq!(fixed, Ok(FixedStart::AtTimestamp(ArrivalMillis(NOW.0 - 1_000))));
    }

    #[test]
    fn only_the_recorded_stream_is_read() {
        let stream =
            |name: &str, created| StreamIdentity { name: name.to_owned(), created: ArrivalMillis(created) };
        let start = |stream| RecordedStart { at: FixedStart::TrimHorizon, stream };
        let ours = start(Some(stream("orders", 5)));
        assert_eq!(ours.check(&stream("orders", 5)), Ok(()));
        let said = |found| ours.check(&found).unwrap_err().to_string();
        let other = said(stream("flights", 5));
        for part in
            ["reads stream `orders`", "pointed at stream `flights`", "--stream orders", "--application"]
        {
            assert!(other.contains(part), "no `{part}` in: {other}");
        }
        let anew = said(stream("orders", 6));
        for part in ["`orders`", "created at 5, this one at 6", "made anew", "--application of its own"] {
            assert!(anew.contains(part), "no `{part}` in: {anew}");
        }
        // A row of a build that did not record it.
        assert_eq!(start(None).check(&stream("flights", 6)), Ok(()));
    }

    #[test]
    fn a_time_that_has_not_come_is_refused() {
        let at = |time| FixedStart::fix(InitialPosition::AtTimestamp(time), NOW);
        assert_eq!(at(NOW), Ok(FixedStart::AtTimestamp(NOW)));
        let later = ArrivalMillis(NOW.0 + 1_000);
        assert_eq!(at(later), Err(StartInFuture { time: later, now: NOW }));
    }
}
