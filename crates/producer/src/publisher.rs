//! The entry point: what to publish, how, and what came of it.

use std::io::{self, Read};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use sluicegate_checkpoint::RetryPolicy;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::delivery::Delivery;
use crate::entry::{Keying, LineError};
use crate::flusher::Flusher;
use crate::input::InputReader;
use crate::requests::ALONE_ABOVE_BYTES;
use crate::summary::{Progress, Summary};
use crate::writer::{PutError, StreamWriter};

/// How many chunks the input thread may be ahead: enough to keep the flusher busy while a large line is decoded.
const CHUNKS_AHEAD: usize = 4;

/// What to do at a line that is not valid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnError {
    /// Publish everything before it and nothing after it; the publishing fails.
    #[default]
    Stop,
    /// Count it, keep its error, go on.
    Skip,
}

/// How to publish.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// Where partition keys come from. Default: [`Keying::LineHash`].
    pub keying: Keying,
    /// What to do at a line that is not valid. Default: stop.
    pub on_error: OnError,
    /// Largest record of the stream, data and partition key; 1 to 10 MiB, from
    /// [`crate::kinesis::KinesisStream::describe`]. Default: 1 MiB, what every stream takes.
    pub max_record_bytes: usize,
    /// Requests in flight together. Default: 4. With 500 events of 300 bytes each and 50 ms a request that is 40,000
    /// events or 12 MB a second, what 40 shards take (1,000 records a second each: Kinesis quotas page). Each may
    /// hold 5 MiB in memory, or one record above that size.
    pub concurrency: NonZeroUsize,
    /// Delays between attempts. Default: 100 ms doubling to 5 s; a throttled shard takes records again within a
    /// second (its limits are per second: Kinesis quotas page).
    pub retry: RetryPolicy,
    /// Gives up when no record of a request could be stored for this long. Default: never, only a stop ends it.
    pub give_up_after: Option<Duration>,
    /// Publishes at most this many events a second. Default: no limit.
    pub events_per_second: Option<NonZeroU32>,
    /// How many errors of invalid lines the summary keeps; the others are counted. Default: 100.
    pub kept_line_errors: usize,
    /// Jitters the delays.
    pub rng: SmallRng,
}

impl PublishOptions {
    /// The defaults, with a generator that the caller has seeded.
    pub fn new(rng: SmallRng) -> Self {
        Self {
            keying: Keying::default(),
            on_error: OnError::default(),
            max_record_bytes: ALONE_ABOVE_BYTES,
            concurrency: NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN),
            retry: RetryPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(5) },
            give_up_after: None,
            events_per_second: None,
            kept_line_errors: 100,
            rng,
        }
    }
}

/// A publishing that did not store everything.
#[derive(Debug, Error)]
#[error("publishing ended early, with {} records stored", summary.records)]
pub struct PublishError {
    /// What was done until then.
    pub summary: Box<Summary>,
    /// Why it ended.
    #[source]
    pub fault: PublishFault,
}

/// Why a publishing ended early.
#[derive(Debug, Error)]
pub enum PublishFault {
    /// A line is not valid, and [`OnError::Stop`] was asked for. Every line before it is stored.
    #[error(transparent)]
    Line(LineError),
    /// The input could not be read or decompressed further. Every line before that is stored.
    #[error("the input cannot be read after line {after_line}")]
    Unreadable {
        /// The last line that could be read.
        after_line: u64,
        /// What the input or the decoder said.
        #[source]
        source: io::Error,
    },
    /// The thread that reads the input could not be started.
    #[error("the thread that reads the input cannot be started")]
    NoThread {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The thread that reads the input died: a bug.
    #[error("the thread that reads the input died")]
    InputLost,
    /// The stream will not take the records, whenever they are sent.
    #[error(transparent)]
    Put(PutError),
    /// Nothing of a request could be stored for [`PublishOptions::give_up_after`].
    #[error("gave up: for {after:?} no record of a request could be stored")]
    GaveUp {
        /// The time allowed.
        after: Duration,
        /// Why the last attempt failed.
        #[source]
        last: PutError,
    },
    /// It was stopped before everything was stored.
    #[error("stopped before the end of the input")]
    Stopped,
    /// A task that sends requests died: a bug.
    #[error("a task that sends requests died")]
    Task {
        /// How.
        #[source]
        source: JoinError,
    },
}

/// Publishes every line of `input` as one record.
///
/// Returns when all of them are stored. Until then it tries again whatever may succeed later, for ever unless
/// [`PublishOptions::give_up_after`] says otherwise. A stop lets requests in flight end (at most 5 s), sends
/// nothing new and returns [`PublishFault::Stopped`].
///
/// The input is read by a thread of its own, which ends with the input, or at the next line after this future has
/// ended. A read that blocks, as of a terminal, holds that thread but not the caller, and dies with the process.
///
/// # Errors
/// Why not everything is stored, with what is. Dropping the future instead loses that count.
pub async fn publish(
    input: impl Read + Send + 'static,
    writer: Arc<dyn StreamWriter>,
    options: PublishOptions,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> Result<Summary, PublishError> {
    let began = Instant::now();
    let (to_flusher, from_input) = mpsc::channel(CHUNKS_AHEAD);
    let delivery = Delivery {
        writer,
        retry: options.retry,
        give_up_after: options.give_up_after,
        progress: Arc::clone(&progress),
        stop: CancellationToken::new(),
        abandon: CancellationToken::new(),
    };
    let flusher = Flusher::new(&options, delivery);
    let started = start_reading(input, InputReader::new(&options, progress, to_flusher));
    let (mut summary, fault) = match started {
        Ok(()) => flusher.run(from_input, &stop).await,
        Err(source) => (Summary::default(), Some(PublishFault::NoThread { source })),
    };
    summary.elapsed = began.elapsed();
    match fault {
        None => Ok(summary),
        Some(fault) => Err(PublishError { summary: Box::new(summary), fault }),
    }
}

/// A thread and not a blocking task of the runtime: the runtime would wait for it when it shuts down, so a stop
/// would hang until somebody types a line.
fn start_reading(input: impl Read + Send + 'static, reader: InputReader) -> io::Result<()> {
    std::thread::Builder::new().name("produce-input".to_owned()).spawn(move || reader.run(input)).map(drop)
}

#[cfg(test)]
mod tests;
