//! What failover and handoff cost: real processes under a steady load, measured from their logs.
//!
//! Each worker logs one line when the first records of a session go to its batcher and one at the session's end, with
//! wall times in milliseconds. All processes are on one machine, so the times compare. Nothing is taken from the
//! workers' own counts but `records`, which must add up to what was published.

pub mod budget;
pub mod burst;
pub mod capacity;
pub mod chaos;
pub mod distribution;
pub mod experiment;
pub mod failover;
pub mod handoff;
pub mod hardship;
pub mod journal;
pub mod lift;
pub mod load;
pub mod memory;
pub mod poison;
pub mod reads;

pub use distribution::Distribution;
pub use experiment::{Comparison, Experiment, Plan};
