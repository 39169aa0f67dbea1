//! The port that announces and commits, and the right to do so.

use async_trait::async_trait;
use thiserror::Error;

use crate::position::Position;
use crate::state::LeaseState;

/// What an announcing or committing write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// The row now says what was written.
    Recorded,
    /// Somebody else wrote the row first: this session is over. A normal outcome, not an error.
    Lost,
}

/// Why a write could not be decided.
#[derive(Debug, Error)]
pub enum ProgressError {
    /// The row will never take this (too large, denied, table gone).
    #[error("the lease row refuses the write")]
    Refused {
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Writes one shard's progress: announced cuts, amendments and commits. Who has it may write, so the fence is
/// implied; the checkpoint never goes back and never passes what the sink has acknowledged (laws C1, C2), which
/// the caller sees to.
#[async_trait]
pub trait Progress: Send + Sync {
    /// Writes checkpoint and state in one conditional update.
    ///
    /// *To be correct*: conditional on owner and counter as last written or read by this session, raises the
    /// counter by one; one write at a time; an unknown outcome is settled by repeating the very same write until
    /// the row tells (rule R2).
    /// *Repeating it*: safe, the condition protects it.
    /// *Cancelling it*: leaves the outcome unknown; the session must then end.
    ///
    /// # Errors
    /// See [`ProgressError`]; a lost race is `Ok(Announced::Lost)`.
    async fn write(&mut self, checkpoint: Position, state: LeaseState) -> Result<Announced, ProgressError>;
}

/// The worker's right to act on what it owns: ends when no heartbeat was confirmed for long enough.
///
/// For efficiency only; safety rests on the conditional writes.
pub trait Right: Send + Sync {
    /// Whether a delivery attempt may start now.
    fn holds(&self) -> bool;
}

/// A right that never ends: for tools and tests that own no lease.
#[derive(Debug, Clone, Copy, Default)]
pub struct Always;

impl Right for Always {
    fn holds(&self) -> bool {
        true
    }
}
