//! Worker rows: the sign of life of one process and what it tells the fleet.

use sluicegate_checkpoint::ShardId;

use crate::model::WorkerId;
use crate::registry::LearnedRate;

/// What a worker says it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerState {
    /// Takes leases.
    Active,
    /// Hands its leases over and is given none.
    Draining,
}

impl WorkerState {
    /// The word in the row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }
}

/// A shard that is not caught up, as its owner tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Which.
    pub shard: ShardId,
    /// How long ago the oldest record arrived that may not be durable yet, in milliseconds.
    pub age_ms: u64,
    /// Distance of reading from the tip of the shard, in milliseconds.
    pub lag_ms: u64,
}

/// At which rate a worker writes at most, and why: for operators, nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WritePace {
    /// In thousandths of a write capacity unit per second.
    pub rate_milli: u64,
    /// Why, in a word.
    pub reason: String,
    /// Since when that is the reason: wall time in epoch seconds.
    pub since: i64,
    /// Keys whose partitions refuse.
    pub hot_keys: u64,
}

/// One row of the worker table. Every write is conditional on the heartbeat as last written and raises it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    /// Which process.
    pub worker_id: WorkerId,
    /// Raised with every write; observers judge life by it standing still on their own clock.
    pub heartbeat: u64,
    /// Where its admin server listens (`host:port`), if it has one.
    pub address: Option<String>,
    /// Whether it takes leases.
    pub state: WorkerState,
    /// Version of the build.
    pub version: String,
    /// Version of the lease state encoding that it reads and writes.
    pub state_version: u32,
    /// Packing versions it can make.
    pub packing_versions: Vec<u32>,
    /// Leases held.
    pub leases: u64,
    /// Write demand, in thousandths of a write capacity unit per second.
    pub write_demand_milli: u64,
    /// Granted share of the write budget, in thousandths of a write capacity unit per second.
    pub write_grant_milli: u64,
    /// Rate at which the table lets it write, in the same unit, if throttling has taught it one below its share; else 0.
    pub write_rate_milli: u64,
    /// Write capacity units that it used of late, in thousandths a second.
    pub write_used_milli: u64,
    /// At which rate it writes at most, and why; none in a row of a build that did not tell.
    pub write_pace: Option<Box<WritePace>>,
    /// Bytes of records that it has read and not made durable.
    pub backlog_bytes: u64,
    /// Its shards that are not caught up; the worst [`WorkerRow::MOST_BEHIND`], in the order of their ids.
    pub behind: Vec<Behind>,
    /// Epoch seconds after which DynamoDB may delete the row.
    pub expires: i64,
}

impl WorkerRow {
    /// Most shards listed in [`WorkerRow::behind`].
    pub const MOST_BEHIND: usize = 50;

    /// The first row of a worker, before its first heartbeat.
    pub fn new(worker_id: WorkerId) -> Self {
        Self {
            worker_id,
            heartbeat: 0,
            address: None,
            state: WorkerState::Active,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state_version: u32::from(sluicegate_checkpoint::state::STATE_VERSION),
            packing_versions: Vec::new(),
            leases: 0,
            write_demand_milli: 0,
            write_grant_milli: 0,
            write_rate_milli: 0,
            write_used_milli: 0,
            write_pace: None,
            backlog_bytes: 0,
            behind: Vec::new(),
            expires: 0,
        }
    }

    /// What throttling has taught it, if anything. A grant below the rate was lowered since: that tells nothing.
    pub fn learned(&self) -> Option<LearnedRate> {
        let (rate_milli, grant_milli) = (self.write_rate_milli, self.write_grant_milli);
        let taught = rate_milli > 0 && (grant_milli == 0 || grant_milli >= rate_milli);
        taught.then_some(LearnedRate { rate_milli, grant_milli })
    }
}
