//! The worker table through two clients, as a worker in production has it: one for heartbeats, one for the rest.

use async_trait::async_trait;
use sluicegate_lease::dynamodb::DynamoRegistry;
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{FleetRows, RecordedStart, WorkerId, WorkerRegistry, WorkerRow, Written};

/// The worker table.
#[derive(Debug)]
pub(super) struct TwoClients {
    /// Writes heartbeats.
    pub(super) beats: DynamoRegistry,
    /// Everything else.
    pub(super) rest: DynamoRegistry,
}

#[async_trait]
impl WorkerRegistry for TwoClients {
    async fn fix_start(&self, start: &RecordedStart) -> Result<RecordedStart, WriteError> {
        self.rest.fix_start(start).await
    }

    async fn fleet(&self) -> Result<FleetRows, ReadError> {
        self.rest.fleet().await
    }

    async fn workers(&self) -> Result<Vec<WorkerRow>, ReadError> {
        self.rest.workers().await
    }

    async fn ask_to_leave(&self, worker: &WorkerId, expires: i64) -> Result<(), WriteError> {
        self.rest.ask_to_leave(worker, expires).await
    }

    async fn withdraw_request(&self, worker: &WorkerId) -> Result<(), WriteError> {
        self.rest.withdraw_request(worker).await
    }

    async fn heartbeat(
        &self,
        expected: Option<u64>,
        row: &WorkerRow,
    ) -> Result<Written<WorkerRow>, WriteError> {
        self.beats.heartbeat(expected, row).await
    }

    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError> {
        self.beats.retire(row).await
    }
}
