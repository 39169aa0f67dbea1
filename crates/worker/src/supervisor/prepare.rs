//! What must be done before the first round, and which failures of it are tried again.

use std::sync::{Arc, Mutex};

use sluicegate_checkpoint::recurring::causes;
use sluicegate_checkpoint::{Retry, RetryPolicy};
use sluicegate_lease::{FixedStart, Observer, RecordedStart};

use super::Supervisor;
use crate::foreign::{Foreign, Look};
use crate::shard_sync::{ShardSync, SyncError};
use crate::worker::WorkerError;

impl Supervisor {
    /// What must be done before the first round: the tables are there, nobody else's application is at work here, the
    /// stream is there, the start is fixed, rows match shards.
    pub(super) async fn prepare(&self) -> Result<(ShardSync, Observer), WorkerError> {
        if let Some(tables) = &self.worker.table_check {
            self.retried(|| async { tables.check().await.map_err(WorkerError::from) }).await?;
        }
        let observer = self.retried(|| self.refuse_beside_kcl()).await?;
        let start = self.retried(|| self.fix_start()).await?;
        let stream = start.stream.as_ref().map(|stream| &stream.name);
        tracing::info!(application = %self.worker.application, worker_id = %self.worker.id, start = %start.at, stream, "worker starts");
        if stream.is_none() {
            tracing::info!("an older release recorded no stream for this application, so it is not compared");
        }
        let sync = self.shard_sync(start);
        self.retried(|| async { sync.sync().await.map_err(WorkerError::from) }).await?;
        Ok((sync, observer))
    }

    /// What an observer saw of the tables, if no KCL application is running on them, and they are not of one whose rows
    /// cannot be taken over.
    async fn refuse_beside_kcl(&self) -> Result<Observer, WorkerError> {
        let failover_time = self.worker.settings.failover_time;
        let mut observer = Observer::new(self.worker.id.clone(), failover_time);
        let look = Look {
            store: &*self.worker.store,
            registry: &*self.worker.registry,
            clock: &self.worker.clock,
            failover_time,
        };
        match look.watch(&mut observer).await? {
            Some(Foreign::Running(life)) => Err(WorkerError::KclRunning(life)),
            Some(Foreign::MultiStream(key)) => Err(WorkerError::MultiStream(key)),
            None => Ok(observer),
        }
    }

    /// Tries until it works or cannot work.
    async fn retried<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, WorkerError>
    where
        F: Future<Output = Result<T, WorkerError>>,
    {
        let (mut delays, mut rng) = (RetryPolicy::AWS.delays(), self.worker.rng.clone());
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(delay) = delays.after(retry(&error), &mut rng) else { return Err(error) };
            tracing::warn!(error = causes(&error), ?delay, "the start is tried again");
            self.worker.clock.sleep(delay).await;
        }
    }

    async fn fix_start(&self) -> Result<RecordedStart, WorkerError> {
        let listing = self.worker.stream.shards().await?;
        let at = FixedStart::fix(self.worker.settings.initial_position, listing.server_time)?;
        let start = RecordedStart { at, stream: Some(listing.stream) };
        Ok(self.worker.registry.fix_start(&start).await?)
    }

    fn shard_sync(&self, start: RecordedStart) -> ShardSync {
        ShardSync {
            me: self.worker.id.clone(),
            stream: Arc::clone(&self.worker.stream),
            store: Arc::clone(&self.worker.store),
            start,
            nudged: self.nudged.clone(),
            listed: self.listed.clone(),
            wanted: self.listing_wanted.clone(),
            view: self.view.subscribe(),
            sessions: self.sessions.clone(),
            metrics: self.worker.metrics.clone(),
            found: Mutex::default(),
        }
    }
}

fn retry(error: &WorkerError) -> Retry {
    match error {
        WorkerError::Tables(error) => error.retry(),
        WorkerError::Stream(error) => error.retry(),
        WorkerError::Write(error) => error.retry(),
        WorkerError::Sync(SyncError::Stream(error)) => error.retry(),
        WorkerError::Sync(SyncError::Read(error)) | WorkerError::Read(error) => error.retry(),
        WorkerError::Sync(SyncError::Write(error)) => error.retry(),
        WorkerError::Sync(SyncError::NoChildren(_)) => Retry::Backoff,
        WorkerError::Sync(SyncError::AnotherStream(_)) => Retry::Never,
        WorkerError::Missing(_)
        | WorkerError::NoLetterStore
        | WorkerError::KclRunning(_)
        | WorkerError::MultiStream(_)
        | WorkerError::Start(_)
        | WorkerError::Coordinator(_)
        | WorkerError::Task { .. }
        | WorkerError::Setup(_)
        | WorkerError::DrainTimeout(_) => Retry::Never,
    }
}
