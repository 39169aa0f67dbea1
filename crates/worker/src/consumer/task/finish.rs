//! Carries the end of a session out: a hand-over, the end of the shard, or the reason to stop.

use sluicegate_checkpoint::{Announced, LeaseState, Position, Progress};
use sluicegate_lease::HeldLease;

use super::shell::Shell;
use super::{ConsumerError, Ended, Work, failed};
use crate::consumer::state::Finish;

impl Shell {
    /// Carries the end of a session out.
    pub(super) async fn finish(mut self, finish: Finish, work: Work) -> Ended {
        // What is not polled any more must not keep a place in front of other shards' writes.
        drop(work.deliveries);
        let Some(mut held) = work.held else { return Ended::Interrupted };
        held.measured(self.throughput.throughput(self.clock.now()));
        match finish {
            Finish::Lost => Ended::Lost,
            Finish::Restart => {
                self.metrics.batch_dropped();
                Ended::Interrupted
            }
            Finish::RecordsLost(lost) => {
                self.metrics.records_lost();
                failed(lost)
            }
            Finish::Overtaken(overtaken) => {
                self.metrics.records_lost();
                failed(overtaken)
            }
            Finish::HandOver { commit } => {
                let to = work.drain_to.and_then(|drain| drain.to);
                let written = match commit.map(|commit| *commit) {
                    Some((checkpoint, state)) => {
                        held.commit_and_hand_over(checkpoint, state, to.clone()).await
                    }
                    None => held.hand_over(to.clone()).await,
                };
                match written {
                    Ok(Announced::Recorded) => Ended::HandedOver { to, row: Box::new(held.row().clone()) },
                    Ok(Announced::Lost) => Ended::Lost,
                    Err(error) => failed(error),
                }
            }
            Finish::ShardEnd { children } => match self.end_shard(&mut held, children).await {
                Ok(Announced::Recorded) => Ended::ShardEnd,
                Ok(Announced::Lost) => Ended::Lost,
                Err(error) => failed(error),
            },
        }
    }

    /// Children's rows, then `childShardIds`, then SHARD_END: each step can be repeated, and a crash between any
    /// two is safe.
    async fn end_shard(
        &self,
        held: &mut HeldLease,
        children: Vec<sluicegate_lease::Shard>,
    ) -> Result<Announced, ConsumerError> {
        let ids = self.children.create(held.row(), children).await?;
        if held.row().children != ids {
            let next = held.row().with_children(ids);
            if held.replace(next).await? == Announced::Lost {
                return Ok(Announced::Lost);
            }
        }
        let mut state = held.row().pending.state().unwrap_or_else(|| LeaseState::starting(None));
        if held.row().checkpoint.is_start() {
            // Nothing was read in it: the time that the row was born with says nothing of when its children began.
            state.caught_up = None;
        }
        Ok(held.write(Position::ShardEnd, state).await?)
    }
}
