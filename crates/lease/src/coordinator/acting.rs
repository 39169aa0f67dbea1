//! Acts on a plan: adopts what is ours, takes, hands over, and gives back what nobody here works on.

use std::sync::Arc;

use sluicegate_checkpoint::recurring::causes;
use tokio::time::Instant;
use tracing::field::display;

use super::taking::Taken;
use super::{Coordinator, CoordinatorError, GivenFor, Instruction, Interruption};
use crate::model::{Lease, LeaseKey, Pending, WorkerId};
use crate::nudge::Hint;
use crate::parents::{Standing, standing};
use crate::plan::LeaseAction;
use crate::right::SessionRight;
use crate::store::{ReadError, Written};
use crate::view::{FleetView, Observer};

/// Whether the view before this one showed the lease with another worker.
fn handed_over_to(me: &WorkerId, key: &LeaseKey, before: Option<&FleetView>) -> bool {
    let owner = before.and_then(|view| view.leases.get(key)).and_then(|lease| lease.row.owner.as_ref());
    owner.is_some_and(|owner| owner != me)
}

impl Coordinator {
    /// Begins a session for each row that is ours without one, and abandons sessions whose row is somebody else's.
    pub(super) async fn adopt(
        &self,
        view: &FleetView,
        before: Option<&FleetView>,
        last_round: Instant,
    ) -> Result<(), CoordinatorError> {
        let me = &self.config.me;
        for (key, lease) in &view.leases {
            (self.on_turn)();
            let mine = lease.row.owner.as_ref() == Some(me);
            if mine && !self.sessions.contains(key) && view.is_eligible(lease) {
                let right = self.right.session();
                let row = self.store.lease(key).await?;
                // The view may be older than the end of the session before: then the row is finished by now.
                if let Some(row) = row.filter(|row| self.may_begin(row)) {
                    let since =
                        handed_over_to(me, key, before).then_some((Interruption::Handoff, last_round));
                    self.begin(row, right, since).await?;
                }
            }
            if mine && matches!(lease.row.pending, Pending::Unreadable { .. }) {
                self.release_unreadable(&lease.row).await;
            }
            if !mine && self.sessions.contains(key) && self.taken_away(key).await? {
                self.instruct(Instruction::Abandon { key: key.clone() }).await?;
            }
        }
        Ok(())
    }

    /// Gives back a row of ours that this build cannot read, its bytes unchanged.
    async fn release_unreadable(&self, row: &Lease) {
        let why = match &row.pending {
            Pending::Unreadable { why, .. } => Some(display(why)),
            Pending::None | Pending::Foreign { .. } | Pending::Ours(_) => None,
        };
        tracing::error!(lease_key = %row.key, why, "released a lease that this build cannot read");
        if let Err(error) = self.store.replace(row, &row.handed_over(None)).await {
            tracing::warn!(lease_key = %row.key, error = causes(&error), "the release is tried again with the next round");
        }
    }

    /// Whether somebody else owns the row: the scan may be older than our own take.
    async fn taken_away(&self, key: &LeaseKey) -> Result<bool, CoordinatorError> {
        let row = self.store.lease(key).await?;
        Ok(row.is_none_or(|row| row.owner.as_ref() != Some(&self.config.me)))
    }

    pub(super) async fn act(
        &self,
        action: LeaseAction,
        view: &FleetView,
        observer: &Observer,
    ) -> Result<Option<Taken>, CoordinatorError> {
        match action {
            // The session before the one that would begin is still being abandoned; its end brings the next round.
            LeaseAction::Take { key, .. } if self.sessions.contains(&key) => {}
            LeaseAction::Take { key, why } => {
                if let Some(lease) = view.leases.get(&key) {
                    return self.take(lease.row.clone(), why, observer).await.map(Some);
                }
            }
            LeaseAction::HandOver { key, to } if self.sessions.contains(&key) => {
                self.hand_over(key, Some(to), view, GivenFor::Balance).await?;
            }
            LeaseAction::HandOver { .. } => {}
        }
        Ok(None)
    }

    /// Begins a session, unless a parent is not finished: no child is read before its parents' end (law S1). A
    /// scan is no snapshot, so each parent's row is read again here.
    pub(super) async fn begin(
        &self,
        row: Lease,
        right: SessionRight,
        since: Option<(Interruption, Instant)>,
    ) -> Result<(), CoordinatorError> {
        let listed = Arc::clone(&self.listed.borrow());
        let parents_covered = match standing(&*self.store, &row, &listed.shards).await? {
            Standing::Clear { covered_to } => covered_to,
            Standing::Waits(parent) => {
                tracing::info!(lease_key = %row.key, %parent, "waiting for a parent shard");
                return Ok(());
            }
            Standing::RowMissing(parent) => {
                tracing::warn!(lease_key = %row.key, %parent, "the row of a parent shard is missing; the shards are listed again");
                self.listing_wanted.ask();
                return Ok(());
            }
        };
        if !self.sessions.begin(row.key.clone()) {
            return Ok(());
        }
        self.instruct(Instruction::Begin { row: Box::new(row), right, since, parents_covered }).await
    }

    pub(super) async fn hand_over(
        &self,
        key: LeaseKey,
        to: Option<WorkerId>,
        view: &FleetView,
        why: GivenFor,
    ) -> Result<(), CoordinatorError> {
        if self.sessions.end_rest(&key) {
            return self.give_away(&key, to, view, why).await;
        }
        let address =
            to.as_ref().and_then(|to| view.workers.get(to)).and_then(|worker| worker.address.clone());
        self.instruct(Instruction::HandOver { key, to, address, why }).await
    }

    /// Gives away a lease whose session failed: nobody works on it, and what it had announced goes with the row (R5).
    async fn give_away(
        &self,
        key: &LeaseKey,
        to: Option<WorkerId>,
        view: &FleetView,
        why: GivenFor,
    ) -> Result<(), CoordinatorError> {
        let row = match self.store.lease(key).await {
            Ok(row) => row.filter(|row| row.owner.as_ref() == Some(&self.config.me) && !row.is_finished()),
            Err(error @ ReadError::Unavailable { .. }) => {
                tracing::warn!(lease_key = %key, error = causes(&error), "a lease was not given away; the next round does it");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let Some(row) = row else { return Ok(()) };
        match self.store.replace(&row, &row.handed_over(to.clone())).await {
            Ok(Written::Applied(_)) => {
                let (to, why) = (to.as_ref().map(display), why.label());
                tracing::info!(lease_key = %key, to, why, "gave away a lease that rested")
            }
            Ok(Written::Lost(_)) => return Ok(()),
            Err(error) => {
                tracing::warn!(lease_key = %key, error = causes(&error), "a lease was not given away; the next round does it");
                return Ok(());
            }
        }
        if let Some(to) = to {
            let address = view.workers.get(&to).and_then(|worker| worker.address.as_deref());
            let hint = Hint { lease: key.clone(), unread: None };
            self.nudge.look_now(&to, address, Some(&hint)).await;
        }
        Ok(())
    }

    async fn instruct(&self, instruction: Instruction) -> Result<(), CoordinatorError> {
        self.instructions.send(instruction).await.map_err(|_closed| CoordinatorError::Unheard)
    }
}
