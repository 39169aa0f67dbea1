//! Positions, cuts and announced batches: the vocabulary and algebra of Sluicegate.
//!
//! Nothing here awaits, reads a clock or knows AWS. What two crates share lives here: the record, the key
//! template, the place where reading stands, and what a lease row says of the batches cut from its shard.

pub mod batch;
pub mod key_template;
pub mod parameters;
pub mod position;
pub mod progress;
pub mod reading_before_3;
pub mod record;
pub mod record_id;
pub mod recurring;
pub mod retry;
pub mod state;
pub mod tracker;
pub mod transform;

pub use batch::{Batch, BatchId, Cut, Exclusion};
pub use key_template::KeyTemplate;
pub use parameters::{AggregateKey, Codec, HashKeyRange, PackingParameters, Unreadable};
pub use position::Position;
pub use progress::{Announced, Progress, ProgressError, Right};
pub use record::{ArrivalMillis, HashKey, Record};
pub use record_id::{SequenceNumber, ShardId, SubSequenceNumber};
pub use recurring::Recurring;
pub use retry::{Retry, RetryPolicy};
pub use state::{DecodeStateError, LeaseState};
pub use tracker::Tracker;
pub use transform::{Fields, Filter, Reduce};
