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
//! What this crate does **not** do: check signatures (any credentials will do), keep Kinesis data over a restart, throttle,
//! serve enhanced fan-out. It must never be part of a production build.
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

mod aws_json;
mod clock;
mod config;
mod dynamodb;
mod kinesis;
mod ledger;
mod serve;
mod time;

pub use clock::{Clock, ManualClock, SystemClock, TokioClock};
pub use config::{Endpoints, LocalConfig, LocalError, Service};
pub use dynamodb::{DynamoDb, dynamodb_router};
pub use kinesis::{Kinesis, KinesisConfig, kinesis_router};
pub use ledger::{Ledger, TableUse};
pub use serve::LocalServer;
