//! Embedded Kinesis and DynamoDB for demos and tests: one process, loopback only, nothing to install.
//!
//! ```text
//! LocalServer (sockets) ──> kinesis_router ──> Kinesis   our own, in memory
//!        or a test,     ──> dynamodb_router ─> DynamoDb  dynoxide (SQLite), in memory or in a folder
//!        in-process
//! ```
//!
//! Both services are `axum` routers over a handle that can be cloned, so that the same code runs behind sockets
//! ([`LocalServer`]) and in-process on a paused clock, where a test's HTTP client calls the router itself. Time comes from the
//! [`Clock`] handed in and from nowhere else.
//!
//! Both can be held to limits ([`DynamoDbLimits`], [`KinesisLimits`]), be given faults ([`Faults`]) and tell what they accepted
//! ([`Ledger`], [`Journal`]); by default nothing is refused and nothing goes wrong.
//!
//! What this crate does **not** do: check signatures (any credentials will do), keep Kinesis data over a restart, limit reads of
//! tables, serve enhanced fan-out. It must never be part of a production build.
//!
//! ```
//! # async fn example() -> Result<(), sluicegate_local::LocalError> {
//! use sluicegate_local::{LocalConfig, LocalServer};
//! let server = LocalServer::start(LocalConfig::default()).await?;
//! println!("kinesis at {}, dynamodb at {}", server.endpoints().kinesis, server.endpoints().dynamodb);
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

mod admin;
mod aws_json;
mod bucket;
mod clock;
mod config;
mod connection;
mod dynamodb;
mod faults;
mod journal;
mod kinesis;
mod ledger;
mod limits;
mod serve;
mod time;

pub use clock::{Clock, ManualClock, SystemClock, TokioClock};
pub use config::{Endpoints, LocalConfig, LocalError, Service};
pub use connection::AnswerLost;
pub use dynamodb::{DynamoDb, dynamodb_router};
pub use faults::{Effect, Failure, Fault, FaultError, FaultScript, Faults, Latency, Outage};
pub use journal::Journal;
pub use kinesis::{Kinesis, KinesisConfig, kinesis_router};
pub use ledger::{Ledger, StreamUse, TableUse, Window};
pub use limits::{DynamoDbLimits, KinesisLimits, LimitsError, ShardLimits, TableLimits};
pub use serve::LocalServer;
