//! How a worker leaves: it hands over what it has, by the plan as it is without this worker, and gives back the rest.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::recurring::causes;
use tokio_util::sync::CancellationToken;
use tracing::field::display;

use super::{Coordinator, CoordinatorError, GivenFor};
use crate::fleet::WorkerState;
use crate::plan::assign;
use crate::registry::FleetRows;
use crate::store::Written;
use crate::view::{FleetView, LeaseView, Look, Observer};

/// Longest that the last look of a worker that drains may take: it hands over by what it knows then.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// How often the tables are read for what is left, and the time in between: a second in all. Then others take it over.
const LAST_READS: u32 = 5;
const BETWEEN_READS: Duration = Duration::from_millis(250);

impl Coordinator {
    /// Stops this worker as its owner would, if an operator asked it to leave.
    pub(super) fn heed_request(&self, rows: &FleetRows, drain: &CancellationToken) {
        if rows.asked_to_leave.contains(&self.config.me) && !drain.is_cancelled() {
            tracing::info!("an operator asked this worker to hand over and leave");
            drain.cancel();
        }
    }

    /// Hands every lease over, by the plan as it is without this worker, and waits until all sessions have ended.
    pub(super) async fn drain(
        &self,
        drain: &CancellationToken,
        observer: &mut Observer,
        last_view: Option<Arc<FleetView>>,
    ) -> Result<(), CoordinatorError> {
        self.status.update_now(|row| row.state = WorkerState::Draining);
        // Workers that have left since the last round, or drain as well, are given nothing.
        tokio::select! { biased;
            _changed = self.look(observer, drain) => {}
            () = self.clock.sleep(LAST_LOOK) => {}
        }
        let view =
            last_view.map_or_else(|| self.empty_view(), |view| observer.with_workers_now(&view).without_me());
        let targets = assign(&view, &self.config.policy);
        for key in self.sessions.keys() {
            (self.on_turn)();
            let to = targets.get(&key).cloned();
            self.hand_over(key, to, &view, GivenFor::Leaving).await?;
        }
        self.all_ended().await;
        self.release_the_rest(observer).await?;
        self.forget_request().await;
        Ok(())
    }

    /// Waits for the sessions, which may take as long as a drain may: that is no loop that is stuck.
    async fn all_ended(&self) {
        let ended = self.sessions.all_ended();
        tokio::pin!(ended);
        loop {
            tokio::select! { biased;
                () = &mut ended => return,
                () = self.clock.sleep(self.config.failover_time / 3) => (self.on_turn)(),
            }
        }
    }

    /// Gives away what is still ours without a session: a lease that waited for a parent or rested after a failure,
    /// or was handed to us while we drained. It goes to whoever is there now.
    async fn release_the_rest(&self, observer: &mut Observer) -> Result<(), CoordinatorError> {
        let mut reads = 0;
        let (rows, workers, look) = loop {
            let asked = self.clock.now();
            let read = async { Ok((self.store.leases().await?, self.registry.workers().await?)) };
            if let Some((rows, workers)) = self.unless_unavailable(read.await)? {
                break (rows, workers, Look { asked, answered: self.clock.now() });
            }
            reads += 1;
            if reads == LAST_READS {
                tracing::warn!(
                    "what is still ours without a session was not given back; it will be taken over"
                );
                return Ok(());
            }
            self.clock.sleep(BETWEEN_READS).await;
        };
        observer.see_workers(workers, look);
        let view = observer.see_leases(rows, look).without_me();
        let targets = assign(&view, &self.config.policy);
        let mine = |lease: &&LeaseView| lease.row.owner.as_ref() == Some(&self.config.me);
        for LeaseView { row, .. } in view.leases.values().filter(mine) {
            (self.on_turn)();
            let next = row.handed_over(targets.get(&row.key).cloned());
            match self.store.replace(row, &next).await {
                Ok(Written::Applied(_)) => {
                    let (to, why) = (next.owner.as_ref().map(display), GivenFor::Leaving.label());
                    tracing::info!(lease_key = %row.key, to, why, "gave back a lease without a session");
                }
                Ok(Written::Lost(_)) => {}
                Err(error) => {
                    tracing::warn!(lease_key = %row.key, error = causes(&error), "a lease was not given back; it will be taken over");
                }
            }
        }
        Ok(())
    }

    fn empty_view(&self) -> FleetView {
        FleetView { me: self.config.me.clone(), leases: Default::default(), workers: Default::default() }
    }

    /// Removes the request that made this worker leave, if one did. It would expire anyway.
    async fn forget_request(&self) {
        let me = &self.config.me;
        let forgotten = match self.registry.fleet().await {
            Ok(rows) if rows.asked_to_leave.contains(me) => {
                self.registry.withdraw_request(me).await.map_err(|error| error.to_string())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = forgotten {
            tracing::debug!(error, "a request to leave was not removed; it expires");
        }
    }
}
