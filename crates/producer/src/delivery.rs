//! One request, from its first attempt until all of its records are stored or there is no point in going on.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use sluicegate_checkpoint::RetryPolicy;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::entry::Entry;
use crate::publisher::PublishFault;
use crate::requests::Request;
use crate::summary::{Progress, Summary};
use crate::writer::{PutError, PutOutcome, StreamWriter};

/// What all deliveries of a publishing share.
pub(crate) struct Delivery {
    pub(crate) writer: Arc<dyn StreamWriter>,
    pub(crate) retry: RetryPolicy,
    pub(crate) give_up_after: Option<Duration>,
    pub(crate) progress: Arc<Progress>,
    /// No new attempts.
    pub(crate) stop: CancellationToken,
    /// Leave also the attempt in flight.
    pub(crate) abandon: CancellationToken,
}

/// How a delivery ended.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// What it counted.
    pub(crate) counts: Summary,
    /// Why records are left, if any are.
    pub(crate) fault: Option<PublishFault>,
}

/// How one attempt ended.
enum Attempt {
    /// Nothing is left.
    Stored,
    /// Some records are left, or all of them.
    Unfinished(PutError),
    /// It was not waited for.
    Abandoned,
}

impl Delivery {
    /// Sends a request again and again, each time with the records not stored yet.
    ///
    /// Delays grow while nothing of it is stored. A partial success begins them anew: its shards take records, at
    /// less than the rate they are offered, and pauses would waste what they take.
    pub(crate) async fn deliver(&self, request: Request, mut rng: SmallRng) -> Delivered {
        let mut entries = request.entries;
        let mut counts = Summary::default();
        let mut delays = self.retry.delays();
        let mut last_stored = Instant::now();
        loop {
            let left_before = entries.len();
            let error = match self.attempt(&mut entries, &mut counts).await {
                Attempt::Stored => return Delivered { counts, fault: None },
                Attempt::Abandoned => return Delivered { counts, fault: Some(PublishFault::Stopped) },
                Attempt::Unfinished(error) => error,
            };
            if entries.len() < left_before {
                last_stored = Instant::now();
                delays.reset();
            }
            let Some(delay) = delays.after(error.retry(), &mut rng) else {
                return Delivered { counts, fault: Some(PublishFault::Put(error)) };
            };
            if let Some(after) = self.give_up_after
                && last_stored.elapsed() + delay > after
            {
                return Delivered { counts, fault: Some(PublishFault::GaveUp { after, last: error }) };
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Delivered { counts, fault: Some(PublishFault::Stopped) },
                () = tokio::time::sleep(delay) => {}
            }
            tracing::debug!(%error, records = entries.len(), ?delay, "sending records again");
            counts.retries += 1;
            self.progress.on_retry();
        }
    }

    /// Sends what is left once, and keeps what was not stored.
    async fn attempt(&self, entries: &mut Vec<Entry>, counts: &mut Summary) -> Attempt {
        let answer = tokio::select! {
            biased;
            () = self.abandon.cancelled() => None,
            answer = self.writer.put_records(entries) => Some(answer),
        };
        match answer {
            Some(Ok(outcomes)) => self.keep_unstored(entries, outcomes, counts),
            Some(Err(error)) => {
                counts.unknown_outcomes += u64::from(matches!(error, PutError::OutcomeUnknown { .. }));
                return Attempt::Unfinished(error);
            }
            None => {
                counts.unknown_outcomes += 1;
                return Attempt::Abandoned;
            }
        }
        if entries.is_empty() {
            return Attempt::Stored;
        }
        let source = format!("{} records of a request were refused by their shards", entries.len()).into();
        Attempt::Unfinished(PutError::Throttled { source })
    }

    fn keep_unstored(&self, entries: &mut Vec<Entry>, outcomes: Vec<PutOutcome>, counts: &mut Summary) {
        let (mut records, mut bytes) = (0, 0);
        let mut outcomes = outcomes.into_iter();
        entries.retain(|entry| {
            let stored = outcomes.next() == Some(PutOutcome::Stored);
            if stored {
                records += 1;
                bytes += entry.data.len() as u64;
            }
            !stored
        });
        counts.records += records;
        counts.bytes += bytes;
        self.progress.on_stored(records, bytes);
    }
}
