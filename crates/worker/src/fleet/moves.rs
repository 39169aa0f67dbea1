//! Which lease changed hands, and why, as far as two looks tell (pure).

use std::collections::VecDeque;

use serde::Serialize;
use sluicegate_checkpoint::{ArrivalMillis, ShardId};
use sluicegate_lease::WorkerId;
use sluicegate_lease::view::Health;

/// How many changes are remembered.
pub const MOST_MOVES: usize = 100;

/// Why a lease has another owner than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It had none.
    WasFree,
    /// Its owner had fallen silent.
    Failover,
    /// Its owner left and handed it over.
    OwnerLeft,
    /// Its owner handed it over for balance.
    Balance,
    /// Its owner, or an operator, freed it.
    Released,
}

/// A change of ownership, as this worker saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Move {
    /// When it was seen: wall time in milliseconds.
    pub at_ms: i64,
    /// Which shard.
    pub shard: String,
    /// Its owner before.
    pub from: Option<String>,
    /// Its owner since.
    pub to: Option<String>,
    /// Why.
    pub why: Why,
}

/// What was last known of an owner: its health, or that its row is gone and what its health had been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastKnown {
    /// Its health when its row was last there.
    pub health: Health,
    /// Whether its row has vanished since.
    pub gone: bool,
}

/// Why a lease went from one owner to another.
pub fn why(from: Option<LastKnown>, had_owner: bool, has_owner: bool) -> Why {
    match (had_owner, has_owner, from) {
        (false, _, _) => Why::WasFree,
        (true, _, Some(LastKnown { health: Health::Silent, .. })) => Why::Failover,
        (true, false, _) => Why::Released,
        (true, true, Some(LastKnown { health: Health::Draining, .. } | LastKnown { gone: true, .. })) => {
            Why::OwnerLeft
        }
        (true, true, Some(LastKnown { health: Health::Active, gone: false })) => Why::Balance,
        // An owner that never had a row: a KCL worker, or one that was gone before this worker came.
        (true, true, None) => Why::Failover,
    }
}

/// The last changes, oldest first.
#[derive(Debug, Default)]
pub struct Moves(VecDeque<Move>);

impl Moves {
    /// Remembers one more.
    pub fn push(&mut self, at: ArrivalMillis, shard: &ShardId, between: [Option<&WorkerId>; 2], why: Why) {
        if self.0.len() == MOST_MOVES {
            self.0.pop_front();
        }
        let [from, to] = between.map(|worker| worker.map(ToString::to_string));
        self.0.push_back(Move { at_ms: at.0, shard: shard.to_string(), from, to, why });
    }

    /// The last changes, newest first.
    pub fn newest_first(&self) -> Vec<Move> {
        self.0.iter().rev().cloned().collect()
    }
}
