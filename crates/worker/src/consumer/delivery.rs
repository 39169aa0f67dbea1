//! One batch made durable: its events in the sink, then a letter for each event that it leaves out. Only then may it be
//! committed, whoever excluded them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::{Batch, BatchId, Right};
use sluicegate_lease::WorkerId;
use sluicegate_sink::dead_letter::post::Posted;
use sluicegate_sink::dead_letter::{Postmark, letters_of, post};
use sluicegate_sink::{DeadLetters, DeliverError, Delivered, Offender, Sink};

use super::conservation::Outcomes;
use crate::telemetry::wall_millis;

/// What a durable batch came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Durable {
    /// What the sink did.
    pub delivered: Delivered,
    /// What became of its letters.
    pub posted: Posted,
}

impl Durable {
    /// What became of the batch's records (K1, K2).
    pub fn outcomes(&self) -> Outcomes {
        let Delivered { events, filtered, foreign, .. } = self.delivered;
        let unreadable = u64::try_from(self.delivered.dead_letters.len()).unwrap_or(u64::MAX);
        let dead_lettered = self.posted.letters.saturating_sub(unreadable);
        let unreadable = self.posted.letters - dead_lettered;
        Outcomes { stored: events, filtered, foreign, dead_lettered, unreadable }
    }
}

/// Where batches go, and what is known of their poison.
pub struct Delivery {
    sink: Arc<dyn Sink>,
    letters: Arc<dyn DeadLetters>,
    worker: WorkerId,
    letter_ttl_days: Option<u32>,
    /// What the table said, for the letters of batches that are not durable yet.
    offenders: BTreeMap<BatchId, Vec<Offender>>,
}

impl Delivery {
    /// Nothing is known yet.
    pub fn new(
        sink: Arc<dyn Sink>,
        letters: Arc<dyn DeadLetters>,
        worker: WorkerId,
        letter_ttl_days: Option<u32>,
    ) -> Self {
        Self { sink, letters, worker, letter_ttl_days, offenders: BTreeMap::new() }
    }

    /// Makes a batch durable. `seed` is for the jitter of retries.
    ///
    /// # Errors
    /// See [`DeliverError`].
    pub fn deliver(
        &self,
        batch: &Arc<Batch>,
        right: Arc<dyn Right>,
        seed: u64,
    ) -> impl Future<Output = Result<Durable, DeliverError>> + Send + use<> {
        let (sink, table, batch) = (Arc::clone(&self.sink), Arc::clone(&self.letters), Arc::clone(batch));
        let (worker, ttl_days) = (self.worker.clone(), self.letter_ttl_days);
        let offenders = self.offenders.get(&batch.id).cloned().unwrap_or_default();
        async move {
            let delivered = sink.deliver(Arc::clone(&batch), Arc::clone(&right)).await?;
            let postmark = Postmark { worker: worker.as_str().to_owned(), now: wall_millis(), ttl_days };
            let letters = letters_of(&batch, &offenders, &delivered.dead_letters, &postmark);
            let mut rng = SmallRng::seed_from_u64(seed);
            let posted = post(&*table, letters, &*right, &mut rng).await?;
            if posted.letters > 0 {
                tracing::info!(
                    lease_key = batch.id.shard.as_str(),
                    sequence_number = batch.id.first.as_str(),
                    letters = posted.letters,
                    "a batch is durable, and letters for what it leaves out"
                );
            }
            Ok(Durable { delivered, posted })
        }
    }

    /// Remembers what the table said of a batch's events.
    pub fn rejected(&mut self, batch: &Batch, offenders: Vec<Offender>) {
        // One line a batch: the letters say it of each.
        if let Some(Offender { events, why, .. }) = offenders.first() {
            let (first, sub) = &events.from;
            tracing::error!(
                lease_key = batch.id.shard.as_str(),
                sequence_number = first.as_str(),
                sub_sequence_number = sub.0,
                why,
                others = offenders.len() - 1,
                "an event can never be stored and goes to the dead letters"
            );
        }
        self.offenders.entry(batch.id.clone()).or_default().extend(offenders);
    }

    /// A batch is durable, letters and all.
    pub fn done(&mut self, batch: &Batch) {
        self.offenders.remove(&batch.id);
    }
}
