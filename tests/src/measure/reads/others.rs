//! A consumer that takes calls and bytes of a shard at even intervals, and goes without what is refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::ShardIteratorType;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{KEY_BYTES, SHARD_BYTES};
use crate::harness::Backend;
use crate::harness::backend::STREAM;

/// What it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Taken {
    /// Calls a second.
    pub(super) calls: u32,
    /// The part of the bytes.
    pub(super) bytes: f64,
}

impl Taken {
    /// Bytes a second that are left.
    pub(super) fn left_bytes(self) -> f64 {
        f64::from(SHARD_BYTES) * (1.0 - self.bytes)
    }

    /// Records of each of its pages; none takes no bytes.
    fn page(self, record_bytes: usize) -> Option<i32> {
        let bytes = f64::from(SHARD_BYTES) * self.bytes / f64::from(self.calls.max(1));
        let record = f64::from(u32::try_from(record_bytes).unwrap_or(u32::MAX));
        #[expect(clippy::cast_possible_truncation, reason = "a page has 10,000 records at most")]
        let records = (bytes / record).round().min(10_000.0) as i32;
        (records > 0).then_some(records)
    }
}

/// What it was given so far, and when that was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OthersCount {
    pub(super) seconds: f64,
    pub(super) bytes: f64,
    pub(super) answered: f64,
    pub(super) refused: f64,
}

/// See the module. Ends when dropped.
#[derive(Debug)]
pub(super) struct Others {
    shared: Arc<Shared>,
    _ends: DropGuard,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    shard: String,
    record_bytes: usize,
    begun: Instant,
    state: Mutex<(Taken, OthersCount)>,
}

impl Others {
    #[expect(
        clippy::disallowed_methods,
        reason = "it reads beside what is measured, and ends with its guard"
    )]
    pub(super) async fn start(backend: &Backend, record_bytes: usize, taken: Taken) -> anyhow::Result<Self> {
        let client = backend.kinesis().clone();
        let listed = client.list_shards().stream_name(STREAM).send().await?;
        let shard = listed.shards().first().context("no shard")?.shard_id().to_owned();
        let state = Mutex::new((taken, OthersCount::default()));
        let shared = Arc::new(Shared { client, shard, record_bytes, begun: Instant::now(), state });
        let stop = CancellationToken::new();
        let (reading, stopped) = (Arc::clone(&shared), stop.clone());
        drop(tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = reading.read() => {}
            }
        }));
        Ok(Self { shared, _ends: stop.drop_guard() })
    }

    /// Takes something else from now on.
    pub(super) fn take(&self, taken: Taken) {
        self.shared.state().0 = taken;
    }

    pub(super) fn count(&self) -> OthersCount {
        let count = self.shared.state().1;
        OthersCount { seconds: self.shared.begun.elapsed().as_secs_f64(), ..count }
    }
}

/// How often one that takes nothing looks whether that has changed.
const LOOK: Duration = Duration::from_millis(100);

impl Shared {
    fn state(&self) -> MutexGuard<'_, (Taken, OthersCount)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) {
        let mut due = Instant::now();
        let (mut iterator, mut of) = (None, None);
        loop {
            let taken = self.state().0;
            if taken.calls == 0 {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let page = taken.page(self.record_bytes);
            if of != page {
                (iterator, of) = (None, page);
            }
            if iterator.is_none() {
                iterator = self.iterator(page.is_some()).await;
            }
            due = due.max(Instant::now() - LOOK) + Duration::from_secs(1) / taken.calls;
            if let Some(used) = &iterator
                && let Some(next) = self.call(used, page).await
            {
                iterator = Some(next);
            }
            tokio::time::sleep_until(due).await;
        }
    }

    /// From the oldest record on; or at the tip, where there is nothing to take.
    async fn iterator(&self, oldest: bool) -> Option<String> {
        let place = if oldest { ShardIteratorType::TrimHorizon } else { ShardIteratorType::Latest };
        let request = self.client.get_shard_iterator().stream_name(STREAM).shard_id(&self.shard);
        request.shard_iterator_type(place).send().await.ok()?.shard_iterator
    }

    async fn call(&self, iterator: &str, page: Option<i32>) -> Option<String> {
        let request = self.client.get_records().shard_iterator(iterator).limit(page.unwrap_or(1));
        match request.send().await {
            Ok(answer) => {
                let records = answer.records().iter();
                let bytes: usize = records.map(|record| record.data().as_ref().len() + KEY_BYTES).sum();
                let count = &mut self.state().1;
                count.answered += 1.0;
                count.bytes += f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
                answer.next_shard_iterator
            }
            Err(error) => {
                let refused = error.code() == Some("ProvisionedThroughputExceededException");
                self.state().1.refused += f64::from(u8::from(refused));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_its_part_of_the_bytes() {
        assert_eq!(Taken { calls: 3, bytes: 0.0 }.page(300), None);
        assert_eq!(Taken { calls: 2, bytes: 0.5 }.page(1 << 10), Some(512));
        assert_eq!(Taken { calls: 2, bytes: 0.25 }.left_bytes(), f64::from(SHARD_BYTES) * 0.75);
    }
}
