//! Kinesis adapters of the stream port. AWS types stay in here.
//!
//! Polling reads by GetRecords; enhanced fan-out will stand beside it behind the same port.

pub mod answer_gate;
mod error;
mod polling;
mod shards;

pub use polling::KinesisStream;
