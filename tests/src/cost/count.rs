//! Tables in memory that count what DynamoDB would bill (developer guide, read and write operations): a consistent scan
//! or query a read unit for every 4 KB of each page, a consistent read of one item a unit for every 4 KB of it, a write
//! a unit for every KB of the item, also one whose condition does not hold.

use std::ops::{Div, Sub};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_lease::dynamodb::{lease_bytes, worker_bytes};
use sluicegate_lease::memory::{MemoryLeaseStore, MemoryRegistry};
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{
    FleetRows, Lease, LeaseKey, LeaseStore, RecordedStart, WorkerId, WorkerRegistry, WorkerRow, Written,
};

/// Name of the fleet in the worker table.
pub const FLEET: &str = "sluicegate";
/// Bytes of a page of a scan or query.
const PAGE_BYTES: usize = 1 << 20;

/// Capacity units, by what they were spent on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Units<T> {
    /// Writes of lease rows.
    pub lease_writes: T,
    /// Writes of worker rows.
    pub worker_writes: T,
    /// Reads of the lease table as a whole.
    pub lease_scans: T,
    /// Reads of single lease rows.
    pub lease_gets: T,
    /// Reads of the worker rows.
    pub worker_queries: T,
}

impl<T> Units<T> {
    fn with<U, V>(self, other: Units<U>, join: impl Fn(T, U) -> V) -> Units<V> {
        Units {
            lease_writes: join(self.lease_writes, other.lease_writes),
            worker_writes: join(self.worker_writes, other.worker_writes),
            lease_scans: join(self.lease_scans, other.lease_scans),
            lease_gets: join(self.lease_gets, other.lease_gets),
            worker_queries: join(self.worker_queries, other.worker_queries),
        }
    }
}

impl<T: std::ops::Add<Output = T>> Units<T> {
    /// All writes.
    pub fn writes(self) -> T {
        self.lease_writes + self.worker_writes
    }

    /// All reads.
    pub fn reads(self) -> T {
        self.lease_scans + self.lease_gets + self.worker_queries
    }
}

impl Units<u64> {
    /// What came after an earlier count.
    pub fn since(self, before: Self) -> Self {
        self.with(before, u64::sub)
    }

    /// On average over so long.
    pub fn per_second(self, window: Duration) -> Units<f64> {
        let seconds = window.as_secs_f64();
        self.with(Self::default(), |units, _| {
            f64::from(u32::try_from(units).unwrap_or(u32::MAX)).div(seconds)
        })
    }
}

/// Read units of rows of these sizes, read page by page.
fn read_units(rows: impl Iterator<Item = usize>) -> u64 {
    let (mut units, mut page) = (0, 0);
    for bytes in rows {
        page += bytes;
        if page >= PAGE_BYTES {
            units += units_of(page, 4_096);
            page = 0;
        }
    }
    // The last page may be empty, and costs a unit all the same.
    units + units_of(page, 4_096)
}

fn units_of(bytes: usize, unit: usize) -> u64 {
    u64::try_from(bytes.div_ceil(unit).max(1)).unwrap_or(u64::MAX)
}

/// Both tables of one application.
#[derive(Debug, Default)]
pub struct CountedTables {
    leases: MemoryLeaseStore,
    workers: MemoryRegistry,
    units: Mutex<Units<u64>>,
}

impl CountedTables {
    /// What was counted so far.
    pub fn units(&self) -> Units<u64> {
        *self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease rows, not counted.
    ///
    /// # Errors
    /// There are none.
    pub async fn all_rows(&self) -> Result<Vec<Lease>, ReadError> {
        self.leases.leases().await
    }

    fn count(&self, add: impl FnOnce(&mut Units<u64>)) {
        add(&mut self.units.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn lease_written(&self, before: usize, after: usize) {
        self.count(|units| units.lease_writes += units_of(before.max(after), 1_024));
    }

    fn worker_written(&self, row: &WorkerRow) {
        let bytes = worker_bytes(FLEET, row);
        self.count(|units| units.worker_writes += units_of(bytes, 1_024));
    }
}

#[async_trait]
impl LeaseStore for CountedTables {
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        let rows = self.leases.leases().await?;
        let units = read_units(rows.iter().map(lease_bytes));
        self.count(|counted| counted.lease_scans += units);
        Ok(rows)
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        let row = self.leases.lease(key).await?;
        let units = units_of(row.as_ref().map_or(0, lease_bytes), 4_096);
        self.count(|counted| counted.lease_gets += units);
        Ok(row)
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        self.lease_written(0, lease_bytes(lease));
        self.leases.create(lease).await
    }

    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError> {
        self.lease_written(lease_bytes(expected), lease_bytes(next));
        self.leases.replace(expected, next).await
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        self.lease_written(lease_bytes(expected), 0);
        self.leases.delete(expected).await
    }
}

#[async_trait]
impl WorkerRegistry for CountedTables {
    async fn fix_start(&self, start: &RecordedStart) -> Result<RecordedStart, WriteError> {
        self.count(|units| units.worker_writes += 1);
        self.workers.fix_start(start).await
    }

    async fn fleet(&self) -> Result<FleetRows, ReadError> {
        let rows = self.workers.fleet().await?;
        let units = read_units(rows.workers.iter().map(|row| worker_bytes(FLEET, row)));
        self.count(|counted| counted.worker_queries += units);
        Ok(rows)
    }

    async fn workers(&self) -> Result<Vec<WorkerRow>, ReadError> {
        Ok(self.fleet().await?.workers)
    }

    async fn heartbeat(
        &self,
        expected: Option<u64>,
        row: &WorkerRow,
    ) -> Result<Written<WorkerRow>, WriteError> {
        self.worker_written(row);
        self.workers.heartbeat(expected, row).await
    }

    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError> {
        self.worker_written(row);
        self.workers.retire(row).await
    }

    async fn ask_to_leave(&self, worker: &WorkerId, expires: i64) -> Result<(), WriteError> {
        self.count(|units| units.worker_writes += 1);
        self.workers.ask_to_leave(worker, expires).await
    }

    async fn withdraw_request(&self, worker: &WorkerId) -> Result<(), WriteError> {
        self.count(|units| units.worker_writes += 1);
        self.workers.withdraw_request(worker).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_rounded_up_each_and_an_empty_one_costs_a_unit() {
        assert_eq!(read_units([].into_iter()), 1);
        assert_eq!(read_units([4_096, 1].into_iter()), 2);
        assert_eq!(read_units((0..2_000).map(|_| 1_024)), 500);
        assert_eq!((units_of(1_024, 1_024), units_of(1_025, 1_024), units_of(0, 4_096)), (1, 2, 1));
    }
}
