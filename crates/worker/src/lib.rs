//! Stream readers, shard consumers, supervision, the admin server and configuration: one worker of the fleet.
//!
//! [`Worker::builder`] puts one together from components; `consumer::state` holds the decisions of a shard,
//! `supervisor` the tasks that carry them out.

pub mod admin;
pub mod budget;
pub mod config;
pub mod consumer;
pub mod deaggregate;
pub mod distribution;
pub mod fleet;
mod foreign;
mod handed_over;
pub mod kinesis;
pub mod memory;
pub mod metrics;
pub mod nudge;
pub mod offload;
pub mod readiness;
pub mod shard_sync;
pub mod stream;
pub mod supervisor;
pub mod tables;
pub mod telemetry;
pub mod watch;
pub mod worker;
mod write_flow;

pub use config::{Config, ConfigError};
pub use consumer::judgement::ForeignUserRecords;
pub use metrics::Metrics;
pub use stream::{
    Distributed, Distribution, ReadFrom, RecordPage, ShardCursor, ShardListing, StreamError, StreamReader,
};
pub use tables::{TableCheck, TablesUnfit};
pub use worker::{Worker, WorkerBuilder, WorkerError};
pub use write_flow::{BudgetChoice, BudgetSource};
