//! DynamoDB adapters of the lease table and the worker table. AWS types stay in here.
//!
//! The client handed in must not retry by itself: after a lost answer, the SDK's retry would report a failed
//! condition for our own successful write.

#[cfg(feature = "testing")]
pub mod decode;
mod error;
mod lease_store;
mod registry;
mod rows;
mod size;
mod tables;

pub use lease_store::DynamoLeaseStore;
pub use registry::DynamoRegistry;
pub use size::{lease_bytes, worker_bytes};
pub use tables::{TableError, ensure_tables, worker_table_name};
