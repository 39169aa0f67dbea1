//! The lease and worker tables in memory: for tests, simulation and programs that run one process.
//!
//! Every applied write is checked against the laws L3 and C1, so a test that uses it cannot miss a violation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::fleet::WorkerRow;
use crate::invariants;
use crate::model::{Lease, LeaseKey, WorkerId};
use crate::registry::{FleetRows, LearnedRate, RecordedStart, WorkerRegistry};
use crate::store::{LeaseStore, ReadError, WriteError, Written};

/// What happens to the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    /// It is applied, and the answer is lost.
    LoseAnswer,
    /// It never arrives.
    LoseRequest,
    /// It is refused for now.
    Throttle,
}

/// Faults for coming writes, first in first out.
#[derive(Debug, Default)]
struct Faults(Mutex<VecDeque<WriteFault>>);

impl Faults {
    fn push(&self, fault: WriteFault) {
        locked(&self.0).push_back(fault);
    }

    fn apply<T>(&self, write: impl FnOnce() -> Written<T>) -> Result<Written<T>, WriteError> {
        let fault = locked(&self.0).pop_front();
        let lost = || WriteError::OutcomeUnknown { source: "injected: lost".into() };
        match fault {
            None => Ok(write()),
            Some(WriteFault::LoseAnswer) => {
                write();
                Err(lost())
            }
            Some(WriteFault::LoseRequest) => Err(lost()),
            Some(WriteFault::Throttle) => Err(WriteError::Throttled { source: "injected: throttled".into() }),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lease table in memory.
#[derive(Debug, Default)]
pub struct MemoryLeaseStore {
    rows: Mutex<BTreeMap<LeaseKey, Lease>>,
    broken: Mutex<Vec<invariants::Broken>>,
    faults: Faults,
}

impl MemoryLeaseStore {
    /// Sets the fate of a coming write.
    pub fn inject(&self, fault: WriteFault) {
        self.faults.push(fault);
    }

    /// Laws that applied writes have broken.
    pub fn broken_laws(&self) -> Vec<invariants::Broken> {
        locked(&self.broken).clone()
    }

    /// A conditional write that no fault touches: for tests that play another worker.
    pub fn replace_unfaulted(&self, expected: &Lease, next: &Lease) -> Written<Lease> {
        let mut rows = locked(&self.rows);
        let found = rows.get(&expected.key);
        if !found.is_some_and(|row| row.owner == expected.owner && row.counter == expected.counter) {
            return Written::Lost(found.cloned());
        }
        let laws = [
            invariants::l3_counter_raised_by_one(expected, next),
            invariants::c1_checkpoint_never_goes_back(expected, next),
        ];
        locked(&self.broken).extend(laws.into_iter().filter_map(Result::err));
        rows.insert(next.key.clone(), next.clone());
        Written::Applied(next.clone())
    }
}

#[async_trait]
impl LeaseStore for MemoryLeaseStore {
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        Ok(locked(&self.rows).values().cloned().collect())
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        Ok(locked(&self.rows).get(key).cloned())
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        self.faults.apply(|| {
            let mut rows = locked(&self.rows);
            if let Some(found) = rows.get(&lease.key) {
                return Written::Lost(Some(found.clone()));
            }
            rows.insert(lease.key.clone(), lease.clone());
            Written::Applied(lease.clone())
        })
    }

    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError> {
        self.faults.apply(|| self.replace_unfaulted(expected, next))
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        self.faults.apply(|| {
            let mut rows = locked(&self.rows);
            let found = rows.get(&expected.key);
            if !found.is_some_and(|row| row.owner == expected.owner && row.counter == expected.counter) {
                return Written::Lost(found.map(|_| ()));
            }
            rows.remove(&expected.key);
            Written::Applied(())
        })
    }
}

/// The worker table in memory.
#[derive(Debug, Default)]
pub struct MemoryRegistry {
    rows: Mutex<BTreeMap<WorkerId, WorkerRow>>,
    start: Mutex<Option<RecordedStart>>,
    asked_to_leave: Mutex<BTreeSet<WorkerId>>,
    learned: Mutex<Option<LearnedRate>>,
    faults: Faults,
}

impl MemoryRegistry {
    /// Sets the fate of a coming write.
    pub fn inject(&self, fault: WriteFault) {
        self.faults.push(fault);
    }
}

#[async_trait]
impl WorkerRegistry for MemoryRegistry {
    async fn fix_start(&self, start: &RecordedStart) -> Result<RecordedStart, WriteError> {
        Ok(locked(&self.start).get_or_insert_with(|| start.clone()).clone())
    }

    async fn fleet(&self) -> Result<FleetRows, ReadError> {
        let workers = locked(&self.rows).values().cloned().collect();
        Ok(FleetRows {
            workers,
            asked_to_leave: locked(&self.asked_to_leave).clone(),
            learned: *locked(&self.learned),
        })
    }

    async fn workers(&self) -> Result<Vec<WorkerRow>, ReadError> {
        Ok(self.fleet().await?.workers)
    }

    async fn heartbeat(
        &self,
        expected: Option<u64>,
        row: &WorkerRow,
    ) -> Result<Written<WorkerRow>, WriteError> {
        self.faults.apply(|| {
            let mut rows = locked(&self.rows);
            let found = rows.get(&row.worker_id);
            if found.map(|found| found.heartbeat) != expected {
                return Written::Lost(found.cloned());
            }
            rows.insert(row.worker_id.clone(), row.clone());
            Written::Applied(row.clone())
        })
    }

    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError> {
        self.faults.apply(|| {
            if let Some(learned) = row.learned() {
                *locked(&self.learned) = Some(learned);
            }
            let mut rows = locked(&self.rows);
            let found = rows.get(&row.worker_id);
            if found.map(|found| found.heartbeat) != Some(row.heartbeat) {
                return Written::Lost(found.map(|_| ()));
            }
            rows.remove(&row.worker_id);
            Written::Applied(())
        })
    }

    async fn ask_to_leave(&self, worker: &WorkerId, _expires: i64) -> Result<(), WriteError> {
        let ask = || {
            locked(&self.asked_to_leave).insert(worker.clone());
            Written::Applied(())
        };
        self.faults.apply(ask).map(drop)
    }

    async fn withdraw_request(&self, worker: &WorkerId) -> Result<(), WriteError> {
        let withdraw = || {
            locked(&self.asked_to_leave).remove(worker);
            Written::Applied(())
        };
        self.faults.apply(withdraw).map(drop)
    }
}
