//! Bugs in how a worker writes to a table that refuses, and in how it takes its share of the write budget.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{FleetRows, RecordedStart, WorkerId, WorkerRegistry, WorkerRow, Written};
use sluicegate_sink::governor::units_of;
use sluicegate_sink::item::Item;
use sluicegate_sink::store::Written as ItemsWritten;
use sluicegate_sink::{ItemWriter, StoreError};
use tokio::time::Instant;

use super::super::fleet::Parts;
use super::super::ports::{Ports, as_of_the_table};
use super::super::script::Build;
use super::locked;

/// After a refusal requests go at one unit a second, and the rate rises by a hundredth of a unit with the square of the
/// seconds.
pub fn crawls_after_a_refusal(parts: Parts, _: &Ports, _: &Build) -> Parts {
    let writer =
        Crawling { inner: Arc::clone(&parts.writer), refused: Mutex::default(), turn: Default::default() };
    Parts { writer: Arc::new(writer), ..parts }
}

struct Crawling {
    inner: Arc<dyn ItemWriter>,
    /// When something was last refused.
    refused: Mutex<Option<Instant>>,
    turn: tokio::sync::Mutex<()>,
}

/// Longest that one request is held up: the sink gives up on an attempt after twice that.
const LONGEST: Duration = Duration::from_secs(5);

impl Crawling {
    /// For how long a request of so many units is held up.
    fn pause(&self, units: f64) -> Duration {
        let Some(refused) = *locked(&self.refused) else { return Duration::ZERO };
        let seconds = refused.elapsed().as_secs_f64();
        Duration::from_secs_f64(units / (1.0 + 0.01 * seconds * seconds)).min(LONGEST)
    }
}

#[async_trait]
impl ItemWriter for Crawling {
    async fn write(&self, items: &[Arc<Item>]) -> Result<ItemsWritten, StoreError> {
        let pause = self.pause(items.iter().map(|item| units_of(item.bytes())).sum());
        if pause > Duration::ZERO {
            let _turn = self.turn.lock().await;
            tokio::time::sleep(pause).await;
        }
        let written = self.inner.write(items).await;
        let refused = match &written {
            Ok(written) => !written.unprocessed.is_empty(),
            Err(error) => is_throttled(error),
        };
        if refused {
            *locked(&self.refused) = Some(Instant::now());
        }
        written
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        self.inner.probe(item).await
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.inner.raise_spread(count).await
    }
}

fn is_throttled(error: &StoreError) -> bool {
    match error {
        StoreError::Throttled { .. } => true,
        StoreError::Unavailable(_)
        | StoreError::Rejected(_)
        | StoreError::Refused { .. }
        | StoreError::Item(_) => false,
    }
}

/// A refusal by a range of keys counts as one by the table.
pub fn the_table_is_blamed_for_a_key_range(parts: Parts, _: &Ports, _: &Build) -> Parts {
    Parts { writer: Arc::new(Blaming(Arc::clone(&parts.writer))), ..parts }
}

struct Blaming(Arc<dyn ItemWriter>);

#[async_trait]
impl ItemWriter for Blaming {
    async fn write(&self, items: &[Arc<Item>]) -> Result<ItemsWritten, StoreError> {
        self.0.write(items).await.map_err(as_of_the_table)
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        self.0.probe(item).await.map_err(as_of_the_table)
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        self.0.raise_spread(count).await
    }
}

/// The others' demand counts for half of what they tell, and what they were granted for nothing.
pub fn takes_more_than_its_share(parts: Parts, ports: &Ports, _: &Build) -> Parts {
    let registry = Greedy { inner: Arc::clone(&parts.registry), me: ports.0.worker.clone() };
    Parts { registry: Arc::new(registry), ..parts }
}

struct Greedy {
    inner: Arc<dyn WorkerRegistry>,
    me: WorkerId,
}

#[async_trait]
impl WorkerRegistry for Greedy {
    async fn fix_start(&self, start: &RecordedStart) -> Result<RecordedStart, WriteError> {
        self.inner.fix_start(start).await
    }

    async fn fleet(&self) -> Result<FleetRows, ReadError> {
        let mut fleet = self.inner.fleet().await?;
        for row in fleet.workers.iter_mut().filter(|row| row.worker_id != self.me) {
            row.write_grant_milli = 0;
            row.write_demand_milli /= 2;
        }
        Ok(fleet)
    }

    async fn workers(&self) -> Result<Vec<WorkerRow>, ReadError> {
        self.inner.workers().await
    }

    async fn ask_to_leave(&self, worker: &WorkerId, expires: i64) -> Result<(), WriteError> {
        self.inner.ask_to_leave(worker, expires).await
    }

    async fn withdraw_request(&self, worker: &WorkerId) -> Result<(), WriteError> {
        self.inner.withdraw_request(worker).await
    }

    async fn heartbeat(
        &self,
        expected: Option<u64>,
        row: &WorkerRow,
    ) -> Result<Written<WorkerRow>, WriteError> {
        self.inner.heartbeat(expected, row).await
    }

    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError> {
        self.inner.retire(row).await
    }
}
