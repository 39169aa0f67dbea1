//! The right to announce and commit for one shard: one tenure of one lease.
//!
//! Order of one write, and what each answer means (rule R2):
//!
//! ```text
//! replace(row -> next) --Applied-----------------------------> row = next, Recorded
//!        |            --Lost(found), after an unknown answer,
//!        |                  found == next in every attribute -> row = next, Recorded
//!        |            --Lost, otherwise----------------------> session over
//!        |            --unknown or throttled, backoff--+
//!        +---------------- the very same write <-------+
//!                     --refused----------------------------> error
//! ```
//! A row that is unchanged after an unknown answer needs no case of its own: the write may still be on its way,
//! and repeating it is the answer to that.

use std::sync::Arc;

use async_trait::async_trait;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::retry::Delays;
use sluicegate_checkpoint::{Announced, LeaseState, Position, Progress, ProgressError, RetryPolicy};

use crate::clock::Clock;
use crate::model::{Lease, WorkerId};
use crate::store::{LeaseStore, WriteError, Written};
use crate::throughput::Throughput;

/// What one attempt at a write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Applied(Box<Lease>),
    Lost,
}

/// Judges a condition that held or did not, given what was written and whether an earlier attempt at the very same
/// write was left unknown.
fn judge(written: Written<Lease>, next: &Lease, earlier_unknown: bool) -> Verdict {
    match written {
        Written::Applied(row) => Verdict::Applied(Box::new(row)),
        Written::Lost(Some(found)) if earlier_unknown && found == *next => Verdict::Applied(Box::new(found)),
        Written::Lost(_) => Verdict::Lost,
    }
}

/// One worker's tenure of one lease. Dropping it gives nothing back: the row keeps its owner.
pub struct HeldLease {
    store: Arc<dyn LeaseStore>,
    clock: Clock,
    row: Lease,
    /// Written along with the next progress.
    measured: Option<Throughput>,
    rng: SmallRng,
}

impl std::fmt::Debug for HeldLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldLease").field("row", &self.row).finish_non_exhaustive()
    }
}

impl HeldLease {
    /// Begins a tenure from the row that a take returned or a strongly consistent read gave (rule R3).
    pub fn new(store: Arc<dyn LeaseStore>, clock: Clock, row: Lease, rng: SmallRng) -> Self {
        Self { store, clock, row, measured: None, rng }
    }

    /// What was measured of the shard's throughput: it goes with the writes that are made anyway.
    pub fn measured(&mut self, throughput: Option<Throughput>) {
        self.measured = throughput;
    }

    /// The row as this session last wrote or read it.
    pub fn row(&self) -> &Lease {
        &self.row
    }

    /// Makes the row into `next`, which must be a change of [`HeldLease::row`].
    ///
    /// *Cancelling it* leaves the outcome unknown: drop the tenure then.
    ///
    /// # Errors
    /// The store refuses for good.
    pub async fn replace(&mut self, next: Lease) -> Result<Announced, ProgressError> {
        let mut delays = RetryPolicy::AWS.delays();
        let mut unknown = false;
        loop {
            match self.store.replace(&self.row, &next).await {
                Ok(written) => match judge(written, &next, unknown) {
                    Verdict::Applied(row) => {
                        self.row = *row;
                        return Ok(Announced::Recorded);
                    }
                    Verdict::Lost => return Ok(Announced::Lost),
                },
                Err(error) => {
                    unknown |= matches!(error, WriteError::OutcomeUnknown { .. });
                    self.wait_or_give_up(error, &mut delays).await?;
                }
            }
        }
    }

    /// Gives the lease to `to`, or to nobody, undelivered cuts included (rule R5).
    ///
    /// # Errors
    /// The store refuses for good.
    pub async fn hand_over(&mut self, to: Option<WorkerId>) -> Result<Announced, ProgressError> {
        let next = self.row.handed_over(to);
        self.replace(next).await
    }

    /// Commits and gives the lease to `to`, or to nobody, in one conditional write.
    ///
    /// # Errors
    /// The store refuses for good.
    pub async fn commit_and_hand_over(
        &mut self,
        checkpoint: Position,
        state: LeaseState,
        to: Option<WorkerId>,
    ) -> Result<Announced, ProgressError> {
        let next = self.row.committed_and_handed_over(checkpoint, state, to).measured(self.measured);
        self.replace(next).await
    }

    async fn wait_or_give_up(&mut self, error: WriteError, delays: &mut Delays) -> Result<(), ProgressError> {
        let Some(delay) = delays.after(error.retry(), &mut self.rng) else {
            return Err(ProgressError::Refused { source: Box::new(error) });
        };
        tracing::debug!(lease_key = %self.row.key, %error, ?delay, "lease write is repeated");
        self.clock.sleep(delay).await;
        Ok(())
    }
}

#[async_trait]
impl Progress for HeldLease {
    async fn write(&mut self, checkpoint: Position, state: LeaseState) -> Result<Announced, ProgressError> {
        let next = self.row.progressed(checkpoint, state).measured(self.measured);
        self.replace(next).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryLeaseStore, WriteFault};
    use rand::SeedableRng;
    use sluicegate_checkpoint::ShardId;

    async fn held(store: &Arc<MemoryLeaseStore>) -> HeldLease {
        let row = Lease::unowned(ShardId::new("s-0"), Position::TrimHorizon, LeaseState::starting(None));
        store.create(&row).await.unwrap();
        let next = row.taken_by(&WorkerId::new("me"));
        let Written::Applied(row) = store.replace(&row, &next).await.unwrap() else { panic!("free row") };
        let shared: Arc<dyn LeaseStore> = Arc::<MemoryLeaseStore>::clone(store);
        HeldLease::new(shared, Clock::new(), row, SmallRng::seed_from_u64(1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_of_an_applied_write_is_a_success() {
        let store = Arc::new(MemoryLeaseStore::default());
        let mut held = held(&store).await;
        store.inject(WriteFault::LoseAnswer);
        let outcome = held.write(Position::TrimHorizon, LeaseState::starting(None)).await.unwrap();
        assert_eq!(outcome, Announced::Recorded);
        assert_eq!(store.lease(&ShardId::new("s-0")).await.unwrap().as_ref(), Some(held.row()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_request_is_written_again() {
        let store = Arc::new(MemoryLeaseStore::default());
        let mut held = held(&store).await;
        store.inject(WriteFault::LoseRequest);
        store.inject(WriteFault::Throttle);
        let before = held.row().counter;
        assert_eq!(held.hand_over(None).await.unwrap(), Announced::Recorded);
        assert_eq!(held.row().counter, before.next());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_measured_goes_with_writes_that_are_made_anyway() {
        let store = Arc::new(MemoryLeaseStore::default());
        let mut held = held(&store).await;
        let (key, state, kb) = (ShardId::new("s-0"), LeaseState::starting(None), Throughput::from_kilobytes);
        held.measured(None);
        held.write(Position::TrimHorizon, state.clone()).await.unwrap();
        assert_eq!(held.row().throughput, None);
        for (measured, recorded) in [(40, 40), (45, 40), (80, 80)] {
            held.measured(Some(kb(measured)));
            held.write(Position::TrimHorizon, state.clone()).await.unwrap();
            assert_eq!(store.lease(&key).await.unwrap().unwrap().throughput, Some(kb(recorded)));
        }
        held.measured(Some(kb(10)));
        held.commit_and_hand_over(Position::TrimHorizon, state, None).await.unwrap();
        assert_eq!(store.lease(&key).await.unwrap().unwrap().throughput, Some(kb(10)));
        assert_eq!(store.broken_laws(), vec![]);
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_elses_write_ends_the_session_also_after_an_unknown_answer() {
        let store = Arc::new(MemoryLeaseStore::default());
        let mut held = held(&store).await;
        store.inject(WriteFault::LoseRequest);
        let row = held.row().clone();
        store.replace_unfaulted(&row, &row.taken_by(&WorkerId::new("other")));
        assert_eq!(held.hand_over(None).await.unwrap(), Announced::Lost);
    }

    #[test]
    fn equality_counts_only_after_an_unknown_answer() {
        let row = Lease::unowned(ShardId::new("s-0"), Position::TrimHorizon, LeaseState::starting(None));
        let next = row.taken_by(&WorkerId::new("me"));
        assert_eq!(judge(Written::Lost(Some(next.clone())), &next, false), Verdict::Lost);
        assert_eq!(
            judge(Written::Lost(Some(next.clone())), &next, true),
            Verdict::Applied(Box::new(next.clone()))
        );
        assert_eq!(judge(Written::Lost(Some(row)), &next, true), Verdict::Lost);
    }
}
