//! What this worker knows of the whole fleet: who reads which shard, how fresh each is, what moved, and why.
//!
//! It is made of what the coordinator reads anyway: lease rows at each scan, worker rows at each look. Each worker tells in
//! its heartbeat which of its shards are not caught up; that statement stands until the next one, and once none has come for
//! the failover time the shard counts as older by all that time. So the shards of a dead owner grow old in the eyes of every
//! living worker, and an idle shard with a living owner is fresh. Whether a worker is silent is told as of the last look: one
//! that is cut off from the tables says how old its view is, and calls nobody dead for it. `tracker`, `moves` and
//! `picture` are pure; `watch` feeds them.
//!
//! ```text
//!  worker rows --> tracker: statement of each shard --> picture --> /fleet, the page, fleet metrics
//!  lease rows  -->          owners, moves, orphans
//!  own sessions ->          statements of own shards --> what the next heartbeat tells
//! ```

pub mod moves;
pub mod picture;
pub mod tracker;
mod watch;

pub use picture::Picture;
pub use tracker::{FleetTracker, OwnShard};
pub(crate) use watch::{FleetParts, FleetWatch};

#[cfg(test)]
mod tests;
