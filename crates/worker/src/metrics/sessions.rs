//! What the sessions of this worker say of their shards, and the series of the worst of them.
//!
//! A worker may hold hundreds of shards, and a fleet thousands: a series for each would be too many. So each scrape shows
//! the [`WORST`] of this worker; sums over all are in metrics without the label.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{GaugeVec, IntGaugeVec};
use sluicegate_checkpoint::{ArrivalMillis, ShardId};

use super::catalogue::Catalogue;
use crate::fleet::OwnShard;
use crate::fleet::picture::WORST;

/// What one session says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Entry {
    /// Distance to the tip as of the last page, and the stream's time then.
    pub(super) read: Option<(Duration, ArrivalMillis)>,
    /// Wall time of the first page.
    pub(super) first_read: Option<ArrivalMillis>,
    /// What arrived before is durable, while something is not, and how long the stream keeps it.
    pub(super) at_risk: Option<(ArrivalMillis, Duration)>,
    /// Memory that its records take.
    pub(super) buffered: usize,
}

/// All sessions of a worker.
#[derive(Debug, Clone)]
pub(super) struct SessionBook {
    entries: Arc<Mutex<BTreeMap<ShardId, Entry>>>,
    buffered: IntGaugeVec,
    behind: GaugeVec,
    first_read: GaugeVec,
}

impl SessionBook {
    pub(super) fn new(r: &Catalogue) -> prometheus::Result<Self> {
        let shard = &["shard"];
        Ok(Self {
            entries: Arc::default(),
            buffered: r.counts(
                "buffered_bytes",
                "Memory that the records of a shard take, of the 50 shards of this worker that take most. One far above the others: it waits for the table, see its age.",
                shard,
            )?,
            behind: r.gauges(
                "behind_latest_seconds",
                "Distance of reading from the tip of a shard, of the 50 shards of this worker that are furthest behind. If it grows: see whether writing (sluicegate_write_limited) or memory (sluicegate_buffer_used_bytes) holds reading up.",
                shard,
            )?,
            first_read: r.gauges(
                "session_first_read_timestamp_seconds",
                "Wall time at which a session read its shard for the first time, of the 50 latest of this worker. Many recent ones: shards change hands often, see the log for why.",
                shard,
            )?,
        })
    }

    pub(super) fn update(&self, shard: &ShardId, change: impl FnOnce(&mut Entry)) {
        change(self.locked().entry(shard.clone()).or_default());
    }

    pub(super) fn forget(&self, shard: &ShardId) {
        self.locked().remove(shard);
    }

    /// Seconds until retention takes something of these shards.
    pub(super) fn until_data_loss(&self, now: ArrivalMillis) -> f64 {
        let entries = self.locked();
        let left = entries.values().filter_map(|entry| entry.at_risk).map(|(durable_to, kept)| {
            let age = Duration::from_millis(u64::try_from(now.0 - durable_to.0).unwrap_or(0));
            kept.as_secs_f64() - age.as_secs_f64()
        });
        left.fold(f64::INFINITY, f64::min)
    }

    /// What the sessions say that have read something.
    pub(super) fn own(&self) -> BTreeMap<ShardId, OwnShard> {
        let own = |(shard, entry): (&ShardId, &Entry)| {
            let (lag, as_of) = entry.read?;
            let durable_to = entry.at_risk.map_or(as_of, |(durable_to, _)| durable_to);
            Some((shard.clone(), OwnShard { durable_to, caught_up: entry.at_risk.is_none(), lag }))
        };
        self.locked().iter().filter_map(own).collect()
    }

    /// Shows the worst: only while one scrape at a time is made.
    pub(super) fn show(&self) {
        let entries = self.locked();
        self.buffered.reset();
        self.behind.reset();
        self.first_read.reset();
        for (shard, bytes) in worst(&entries, |entry| Some(entry.buffered)) {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.buffered.with_label_values(&[shard.as_str()]).set(bytes);
        }
        for (shard, lag) in worst(&entries, |entry| entry.read.map(|(lag, _)| lag)) {
            self.behind.with_label_values(&[shard.as_str()]).set(lag.as_secs_f64());
        }
        for (shard, at) in worst(&entries, |entry| entry.first_read) {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of our time are far below 2^53")]
            let seconds = at.0 as f64 / 1_000.0;
            self.first_read.with_label_values(&[shard.as_str()]).set(seconds);
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<ShardId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shards with the largest values.
fn worst<V: Ord + Copy>(
    entries: &BTreeMap<ShardId, Entry>,
    value: impl Fn(&Entry) -> Option<V>,
) -> Vec<(&ShardId, V)> {
    let mut values: Vec<(&ShardId, V)> =
        entries.iter().filter_map(|(shard, entry)| Some((shard, value(entry)?))).collect();
    values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    values.truncate(WORST);
    values
}
