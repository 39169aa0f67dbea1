//! The Sink port, packing, the item format, the DynamoDB writer and the reader.
//!
//! `sink` is the port that a worker delivers batches through; `packing` and `item` are the pure way from
//! records to stored items; `packing_sink` delivers those to any table behind the ports of `store`, of which
//! `memory` and `dynamodb` are the adapters; `reader` reads them back. The stored format is specified in
//! `docs/item-format.md`.

pub mod bisect;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod dead_letter;
pub mod dynamodb;
pub mod governor;
pub mod group_sizes;
pub mod item;
pub mod memory;
pub mod offload;
pub mod overlap;
pub mod packing;
pub mod packing_sink;
pub mod reader;
pub mod reduction;
pub mod sink;
pub mod stdout;
pub mod store;

pub use dead_letter::{DeadLetters, Letter, LetterId, MemoryDeadLetters};
pub use governor::Governor;
pub use group_sizes::GroupSizes;
pub use memory::{MemorySink, MemoryTable};
pub use offload::Offload;
pub use overlap::{Overlap, overlaps};
pub use packing_sink::{PackingSink, PackingSinkOptions};
pub use reader::{Event, EventStream, ReadError, Reader, TimeRange};
pub use reduction::{FieldSum, Reduction};
pub use sink::{Arrivals, DeliverError, Delivered, Offender, Sink, Untimed};
pub use stdout::StdoutSink;
pub use store::{CapacitySource, ItemSource, ItemWriter, StoreError};

#[cfg(test)]
mod format_vectors;
#[cfg(test)]
mod recorded_batches;
#[cfg(test)]
mod testing;
