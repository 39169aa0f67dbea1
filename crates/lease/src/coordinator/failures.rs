//! When the coordinator tells of a read that failed: the first time, and then now and then with a count.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sluicegate_checkpoint::Recurring;
use sluicegate_checkpoint::recurring::causes;
use tokio::time::Instant;

use crate::store::ReadError;

/// How often failed reads of a kind are told while they go on.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// The failed reads of one coordinator, for its log.
#[derive(Debug, Default)]
pub struct FailedReads(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    begun: Option<Instant>,
    looks: Recurring,
    rounds: Recurring,
}

impl FailedReads {
    /// A look at the worker rows failed.
    pub(super) fn look(&self, error: &ReadError, now: Instant) {
        if let Some(since) = self.tell(now, |told| &mut told.looks) {
            tracing::warn!(error = causes(error), since, "worker rows were not read");
        } else {
            tracing::debug!(error = causes(error), "worker rows were not read");
        }
    }

    /// A round failed half way.
    pub(super) fn round(&self, error: &ReadError, now: Instant) {
        const WHAT: &str = "the tables were not read; the next round tries again";
        if let Some(since) = self.tell(now, |told| &mut told.rounds) {
            tracing::warn!(error = causes(error), since, "{WHAT}");
        } else {
            tracing::debug!(error = causes(error), "{WHAT}");
        }
    }

    fn tell(&self, now: Instant, of: impl Fn(&mut Told) -> &mut Recurring) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = *told.begun.get_or_insert(now);
        of(&mut told).tell(now.saturating_duration_since(begun), TELL_EVERY)
    }
}
