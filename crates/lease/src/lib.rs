//! Lease rows, worker rows, the plan and the coordinator: who reads which shard, without a leader.
//!
//! `model`, `fleet`, `view`, `foreign`, `plan`, `pace`, `throughput`, `shard_graph`, `shard_sync`, `forgotten`,
//! `open_start` and `operator` decide and are pure; `store`, `registry` and `nudge` are ports; `held`, `heartbeat`,
//! `parents` and `coordinator` carry decisions out.

pub mod clock;
pub mod coordinator;
pub mod dynamodb;
pub mod fleet;
pub mod foreign;
pub mod forgotten;
pub mod grants;
pub mod heartbeat;
pub mod held;
pub mod invariants;
pub mod listing;
pub mod memory;
pub mod model;
pub mod nudge;
pub mod open_start;
pub mod operator;
pub mod pace;
pub mod parents;
pub mod plan;
pub mod registry;
pub mod right;
pub mod shard_graph;
pub mod shard_sync;
pub mod store;
pub mod throughput;
pub mod view;

#[cfg(any(test, feature = "testing"))]
pub mod contract;

pub use clock::Clock;
pub use coordinator::{
    Coordinator, CoordinatorConfig, CoordinatorError, GivenFor, Instruction, Interruption, Sessions,
};
pub use fleet::{Behind, WorkerRow, WorkerState, WritePace};
pub use foreign::ForeignLife;
pub use grants::{Divided, Division, Grant, WriteBudget};
pub use heartbeat::{Beat, Heartbeat, WorkerStatus};
pub use held::HeldLease;
pub use listing::{Listing, ListingWanted};
pub use model::{Lease, LeaseCounter, LeaseKey, Pending, WorkerId};
pub use nudge::Nudge;
pub use pace::ScanBudget;
pub use plan::{LeaseAction, PlanPolicy, plan};
pub use registry::{
    AnotherStream, FixedStart, FleetRows, InitialPosition, LearnedRate, RecordedStart, StreamIdentity,
    WorkerRegistry,
};
pub use right::{HeartbeatRight, SessionRight};
pub use shard_graph::ShardGraph;
pub use shard_sync::Shard;
pub use store::{LeaseStore, Written};
pub use throughput::{Throughput, ThroughputMeter};
pub use view::{FleetView, Observer};
