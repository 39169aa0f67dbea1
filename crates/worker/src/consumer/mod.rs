//! One shard: a pure state machine that decides, and a task that carries it out.

pub mod batcher;
pub mod conservation;
pub mod delivery;
pub mod exclusion;
pub mod fill;
pub mod judgement;
pub mod pace;
pub mod replay;
pub mod retention;
pub mod state;
pub mod task;
