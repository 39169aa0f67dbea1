//! The heartbeat: one worker's sign of life, written every third of the failover time.
//!
//! It runs on a thread and runtime of its own in production, so that nothing the worker does can delay it. It ends
//! last: the right must live while work drains.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use sluicegate_checkpoint::RetryPolicy;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::fleet::WorkerRow;
use crate::grants::Grant;
use crate::registry::WorkerRegistry;
use crate::right::HeartbeatRight;
use crate::store::{WriteError, Written};

/// What the next heartbeat will say of the worker; everything but the counter and the expiry. Shared with whoever
/// knows it.
#[derive(Debug, Clone)]
pub struct WorkerStatus {
    row: Arc<Mutex<WorkerRow>>,
    urgent: Arc<Notify>,
}

impl WorkerStatus {
    /// Starts from a row.
    pub fn new(row: WorkerRow) -> Self {
        Self { row: Arc::new(Mutex::new(row)), urgent: Arc::new(Notify::new()) }
    }

    /// Changes what will be said.
    pub fn update(&self, change: impl FnOnce(&mut WorkerRow)) {
        change(&mut self.row.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Has it said at once.
    pub fn say_now(&self) {
        self.urgent.notify_one();
    }

    /// Changes what will be said, and has it said at once.
    pub fn update_now(&self, change: impl FnOnce(&mut WorkerRow)) {
        self.update(change);
        self.say_now();
    }

    /// The row as it would be said now.
    pub fn row(&self) -> WorkerRow {
        self.row.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Gives wall time in epoch seconds, for the expiry of the row only.
pub type EpochSeconds = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a heartbeat loop tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// A write is being tried.
    Attempt,
    /// A write was confirmed.
    Confirmed,
}

/// Raises one worker's heartbeat until it is stopped, then deletes its row.
pub struct Heartbeat {
    /// The worker table, through a client of this thread's own.
    pub registry: Arc<dyn WorkerRegistry>,
    /// The worker's clock.
    pub clock: Clock,
    /// What it extends.
    pub right: Arc<HeartbeatRight>,
    /// What it says.
    pub status: WorkerStatus,
    /// This worker's part of the write budget, if there is one: published with each heartbeat.
    pub grant: Option<Arc<Grant>>,
    /// Time from one heartbeat to the next.
    pub interval: Duration,
    /// How long a row outlives its last heartbeat before DynamoDB may delete it.
    pub row_lives: Duration,
    /// Wall time.
    pub epoch_seconds: EpochSeconds,
    /// Seeds the jitter of retries.
    pub rng: SmallRng,
    /// Told of each attempt and each confirmation (progress watches, metrics).
    pub on_beat: Box<dyn Fn(Beat) + Send + Sync>,
}

impl std::fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heartbeat").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl Heartbeat {
    /// Beats until stopped, then deletes the row (only the row it wrote itself).
    ///
    /// # Errors
    /// The table refuses for good; the worker must then end.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WriteError> {
        let mut last: Option<WorkerRow> = None;
        loop {
            let begun = self.clock.now();
            last = Some(self.beat(last.as_ref(), &stop).await?);
            let next = begun + self.interval;
            tokio::select! { biased;
                () = stop.cancelled() => break,
                () = self.status.urgent.notified() => {}
                () = self.clock.sleep_until(next) => {}
            }
        }
        match last {
            Some(row) => self.registry.retire(&row).await.map(drop),
            None => Ok(()),
        }
    }

    /// One heartbeat, repeated as it is until the table has decided on it (rule R2).
    async fn beat(
        &mut self,
        last: Option<&WorkerRow>,
        stop: &CancellationToken,
    ) -> Result<WorkerRow, WriteError> {
        let mut expected = last.map(|row| row.heartbeat);
        let mut row = self.next_row(expected);
        let mut delays = RetryPolicy { initial: self.interval / 20, max: self.interval / 4 }.delays();
        // After an unknown outcome the first sending counts: it may be the one that landed.
        let (mut first_sent, mut unknown) = (None, false);
        loop {
            (self.on_beat)(Beat::Attempt);
            let sent_at = *first_sent.get_or_insert_with(|| self.clock.now());
            let error = match self.registry.heartbeat(expected, &row).await {
                Ok(Written::Applied(written)) => {
                    self.confirmed(sent_at);
                    return Ok(written);
                }
                Ok(Written::Lost(Some(found))) if found == row => {
                    self.confirmed(sent_at);
                    return Ok(found);
                }
                Ok(Written::Lost(found)) => {
                    // Nobody else writes this row: it expired while we were away, or an operator deleted it.
                    tracing::warn!(
                        found = found.is_some(),
                        "the worker row was changed by somebody else; rewriting it"
                    );
                    if let Some(grant) = &self.grant {
                        grant.lapse();
                    }
                    expected = found.map(|found| found.heartbeat);
                    row = self.next_row(expected.max(Some(row.heartbeat)));
                    (first_sent, unknown) = (None, false);
                    continue;
                }
                Err(error) => error,
            };
            let Some(delay) = delays.after(error.retry(), &mut self.rng) else { return Err(error) };
            tracing::debug!(%error, "heartbeat is repeated");
            unknown |= matches!(error, WriteError::OutcomeUnknown { .. });
            if !unknown {
                first_sent = None;
            }
            tokio::select! { biased;
                () = stop.cancelled() => return Err(error),
                () = self.clock.sleep(delay) => {}
            }
        }
    }

    fn confirmed(&self, sent_at: tokio::time::Instant) {
        self.lapse_grant();
        self.right.confirm(sent_at);
        (self.on_beat)(Beat::Confirmed);
    }

    /// Without the right, others may have counted this worker's grant as free: it begins again with nothing (law F1).
    fn lapse_grant(&self) {
        if let Some(grant) = self.grant.as_ref().filter(|_| !self.right.holds_now()) {
            grant.lapse();
        }
    }

    fn next_row(&self, before: Option<u64>) -> WorkerRow {
        self.lapse_grant();
        let lives = i64::try_from(self.row_lives.as_secs()).unwrap_or(i64::MAX);
        let heartbeat = before.map_or(1, |before| before + 1);
        WorkerRow {
            heartbeat,
            write_grant_milli: self.grant.as_ref().map_or(0, |grant| grant.publish(heartbeat)),
            expires: (self.epoch_seconds)().saturating_add(lives),
            ..self.status.row()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::{Division, WriteBudget};
    use crate::memory::{MemoryRegistry, WriteFault};
    use crate::model::WorkerId;
    use rand::SeedableRng;
    use sluicegate_checkpoint::Right;

    fn heartbeat(registry: &Arc<MemoryRegistry>, right: &Arc<HeartbeatRight>) -> Heartbeat {
        Heartbeat {
            registry: Arc::<MemoryRegistry>::clone(registry),
            clock: Clock::new(),
            right: Arc::clone(right),
            grant: None,
            status: WorkerStatus::new(WorkerRow::new(WorkerId::new("me"))),
            interval: Duration::from_secs(3),
            row_lives: Duration::from_secs(3_600),
            epoch_seconds: Arc::new(|| 1_000),
            rng: SmallRng::seed_from_u64(1),
            on_beat: Box::new(|_| ()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_beats_every_interval_keeps_the_right_and_deletes_its_row_in_the_end() {
        let registry = Arc::new(MemoryRegistry::default());
        let right = Arc::new(HeartbeatRight::new(Clock::new(), Duration::from_secs(9)));
        let stop = CancellationToken::new();
        let beating = heartbeat(&registry, &right).run(stop.clone());
        let watching = async {
            tokio::time::sleep(Duration::from_secs(31)).await;
            let rows = registry.workers().await.unwrap();
            assert_eq!(rows.iter().map(|row| row.heartbeat).collect::<Vec<_>>(), vec![11]);
            assert!(right.session().holds());
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(beating, watching);
        ended.unwrap();
        assert!(registry.workers().await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_counts_from_the_first_sending() {
        let registry = Arc::new(MemoryRegistry::default());
        let right = Arc::new(HeartbeatRight::new(Clock::new(), Duration::from_secs(9)));
        registry.inject(WriteFault::LoseAnswer);
        let stop = CancellationToken::new();
        let beating = heartbeat(&registry, &right).run(stop.clone());
        let watching = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(right.holds_now());
            assert_eq!(registry.workers().await.unwrap()[0].heartbeat, 1);
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(beating, watching);
        ended.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_vanished_is_written_anew_with_a_higher_heartbeat() {
        let registry = Arc::new(MemoryRegistry::default());
        let right = Arc::new(HeartbeatRight::new(Clock::new(), Duration::from_secs(9)));
        let stop = CancellationToken::new();
        let beating = heartbeat(&registry, &right).run(stop.clone());
        let watching = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            let row = registry.workers().await.unwrap().remove(0);
            registry.retire(&row).await.unwrap();
            tokio::time::sleep(Duration::from_secs(4)).await;
            assert!(registry.workers().await.unwrap()[0].heartbeat > row.heartbeat);
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(beating, watching);
        ended.unwrap();
    }

    /// A worker that is alone has the whole budget after two looks and the heartbeat between them.
    async fn look(registry: &MemoryRegistry, division: &mut Division, grant: &Grant) {
        let rows = registry.workers().await.unwrap();
        let counted = division.count(&rows, Clock::new().now().into());
        division.divide(&counted, grant);
    }

    fn granted() -> (Arc<Grant>, Division) {
        let budget = WriteBudget { total_milli: 1_000, floor_milli: 0 };
        let division = Division::new(Some(budget), WorkerId::new("me"), Duration::from_secs(10));
        (Arc::new(Grant::new(Box::new(|_| ()))), division)
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_is_published_and_lapses_when_the_row_was_gone() {
        let registry = Arc::new(MemoryRegistry::default());
        let right = Arc::new(HeartbeatRight::new(Clock::new(), Duration::from_secs(9)));
        let (stop, (grant, mut division)) = (CancellationToken::new(), granted());
        let mut heartbeat = heartbeat(&registry, &right);
        heartbeat.grant = Some(Arc::clone(&grant));
        let beating = heartbeat.run(stop.clone());
        let watching = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            look(&registry, &mut division, &grant).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            look(&registry, &mut division, &grant).await;
            let row = registry.workers().await.unwrap().remove(0);
            assert_eq!((row.write_grant_milli, grant.used()), (1_000, 1_000));
            registry.retire(&row).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            let row = registry.workers().await.unwrap().remove(0);
            assert_eq!((row.write_grant_milli, grant.used()), (0, 0), "others saw none of it");
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(beating, watching);
        ended.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_lapses_with_the_right() {
        let registry = Arc::new(MemoryRegistry::default());
        // Shorter than the interval: it lapses between two heartbeats.
        let right = Arc::new(HeartbeatRight::new(Clock::new(), Duration::from_secs(2)));
        let (stop, (grant, mut division)) = (CancellationToken::new(), granted());
        let mut heartbeat = heartbeat(&registry, &right);
        heartbeat.grant = Some(Arc::clone(&grant));
        let status = heartbeat.status.clone();
        let beating = heartbeat.run(stop.clone());
        let watching = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            look(&registry, &mut division, &grant).await;
            status.say_now();
            tokio::time::sleep(Duration::from_millis(500)).await;
            look(&registry, &mut division, &grant).await;
            assert_eq!(grant.used(), 1_000);
            tokio::time::sleep(Duration::from_secs(4)).await;
            assert_eq!(grant.used(), 0);
            assert_eq!(registry.workers().await.unwrap()[0].write_grant_milli, 0);
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(beating, watching);
        ended.unwrap();
    }
}
