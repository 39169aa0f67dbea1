//! What the referee remembers of shards that come and go: rows deleted by hand and by the fleet, records that
//! retention took, and who knew and counted what (laws S3 and S4).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluicegate_checkpoint::{ArrivalMillis, ShardId};
use sluicegate_lease::shard_sync::{covered_to, has_begun};
use sluicegate_lease::{Lease, LeaseKey, WorkerId};
use sluicegate_worker::metrics::Metrics;

use super::stream::SimStream;

/// How long a row must have been there before somebody deletes it by hand: a row made again then has another epoch.
const DELETED_AFTER: Duration = Duration::from_secs(2);

/// What was seen of rows and shards.
#[derive(Debug, Default)]
pub struct Lifecycle {
    /// Whether workers go on behind records that retention took.
    pub accept_gap: bool,
    created: BTreeMap<LeaseKey, Duration>,
    /// Since when a row that is there has begun.
    began: BTreeMap<LeaseKey, Duration>,
    /// Shards that were finished once.
    ended: BTreeSet<ShardId>,
    /// Before this nothing of the shard was wanted, as its last row said when it was made.
    born: BTreeMap<ShardId, ArrivalMillis>,
    by_hand: BTreeSet<ShardId>,
    abandoned: BTreeSet<ShardId>,
    /// When a worker was last told the shards, and a row by a strongly consistent read.
    listed: BTreeMap<WorkerId, Duration>,
    read: BTreeMap<(WorkerId, LeaseKey), Duration>,
    metrics: BTreeMap<WorkerId, Metrics>,
    /// Gaps that each worker was seen to pass over.
    passed: BTreeMap<WorkerId, u64>,
}

/// When a worker was told the shards for the last time, and read each row by itself.
#[derive(Debug, Default)]
pub struct Looked {
    listed: Duration,
    read: BTreeMap<LeaseKey, Duration>,
}

impl Lifecycle {
    /// A worker counts here.
    pub fn counts(&mut self, worker: &WorkerId, metrics: Metrics) {
        self.metrics.insert(worker.clone(), metrics);
    }

    /// A worker was told the shards.
    pub fn listed(&mut self, worker: &WorkerId, now: Duration) {
        self.listed.insert(worker.clone(), now);
    }

    /// A worker read a row by itself.
    pub fn read(&mut self, worker: &WorkerId, key: &LeaseKey, now: Duration) {
        self.read.insert((worker.clone(), key.clone()), now);
    }

    /// When a worker looked for the last time.
    pub fn looked(&self, worker: &WorkerId) -> Looked {
        let reads = self.read.iter().filter(|((reader, _), _)| reader == worker);
        Looked {
            listed: self.listed.get(worker).copied().unwrap_or_default(),
            read: reads.map(|((_, key), at)| (key.clone(), *at)).collect(),
        }
    }

    /// A row was created: says why it must not have been (S3).
    pub fn created(
        &mut self,
        (writer, looked): (&WorkerId, &Looked),
        row: &Lease,
        (stream, rows): (&SimStream, &BTreeMap<LeaseKey, Lease>),
        now: Duration,
    ) -> Option<String> {
        self.created.insert(row.key.clone(), now);
        if let Some(born) = covered_to(row) {
            self.born.insert(row.key.clone(), born);
        }
        let known = |key: &ShardId| {
            let began = self.began.get(key).copied()?;
            let read = looked.read.get(key);
            // A put may land long after its sender looked.
            (rows.contains_key(key) && began < looked.listed && read.is_none_or(|read| *read > began))
                .then_some(())
        };
        let begun = stream.descendants(&row.key).into_iter().find(|key| known(key).is_some())?;
        Some(format!("{writer} makes a row for {}, whose descendant {begun} has begun", row.key))
    }

    /// A row was replaced.
    pub fn replaced(&mut self, row: &Lease, now: Duration) {
        if has_begun(row) {
            self.began.entry(row.key.clone()).or_insert(now);
        }
        if row.is_finished() {
            self.ended.insert(row.key.clone());
        }
    }

    /// The fleet deleted a row: says why it must not have (S4).
    pub fn deleted(&mut self, row: &Lease, stream: &SimStream) -> Option<String> {
        self.forget(&row.key);
        if !row.is_finished() {
            self.abandoned.insert(row.key.clone());
        }
        (!stream.is_gone(&row.key))
            .then(|| format!("the row of {} is deleted, and the shard is there", row.key))
    }

    /// Somebody deletes a row by hand; returns whether it was there for long enough.
    pub fn deletes_by_hand(&mut self, key: &LeaseKey, now: Duration) -> bool {
        let old = self.created.get(key).is_some_and(|created| now >= *created + DELETED_AFTER);
        if old {
            self.by_hand.insert(key.clone());
            // What it had read is known to nobody, unless its row is made again in time.
            self.born.remove(key);
            self.forget(key);
        }
        old
    }

    fn forget(&mut self, key: &LeaseKey) {
        self.created.remove(key);
        self.began.remove(key);
    }

    /// Whether a shard was finished once.
    pub fn has_ended(&self, shard: &ShardId) -> bool {
        self.ended.contains(shard)
    }

    /// Before this nothing of the shard was wanted; no time if it never had a row.
    pub fn born(&self, shard: &ShardId) -> Option<ArrivalMillis> {
        self.born.get(shard).copied()
    }

    /// Whether its row was deleted by hand: what it had stored may be stored again.
    pub fn is_redone(&self, shard: &ShardId) -> bool {
        self.by_hand.contains(shard)
    }

    /// Whether its row was deleted although it was not finished: what was announced may be stored and not committed.
    pub fn is_abandoned(&self, shard: &ShardId) -> bool {
        self.abandoned.contains(shard) || self.by_hand.contains(shard)
    }

    /// A worker passes over records that retention took: says why it must not (S4).
    pub fn passes_over(&mut self, writer: &WorkerId, shard: &ShardId, records: usize) -> Option<String> {
        if records == 0 {
            return None;
        }
        if !self.accept_gap {
            return Some(format!("{writer} goes on behind {records} records of {shard} that retention took"));
        }
        let counted = self.metrics.get(writer).map_or(0, lost);
        let passed = self.passed.entry(writer.clone()).or_default();
        *passed += 1;
        (*passed > counted)
            .then(|| format!("{writer} passes over {records} records of {shard} and does not count it"))
    }

    /// Records of committed ranges that did not come out, as all workers counted them (K1).
    pub fn unaccounted(&self) -> u64 {
        self.metrics.values().map(|metrics| counted(metrics, &["sluicegate_records_unaccounted "])).sum()
    }

    /// The share of the write budget that a worker shows.
    pub fn share(&self, worker: &WorkerId) -> f64 {
        self.metrics.get(worker).map_or(0.0, Metrics::write_share)
    }

    /// Losses that all workers counted.
    pub fn losses(&self) -> u64 {
        self.metrics.values().map(lost).sum()
    }
}

/// Losses that one worker counted.
fn lost(metrics: &Metrics) -> u64 {
    counted(metrics, &["sluicegate_records_lost_total ", "sluicegate_shards_lost_total "])
}

fn counted(metrics: &Metrics, names: &[&str]) -> u64 {
    let text = metrics.text().map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let values = text.lines().filter_map(|line| names.iter().find_map(|name| line.strip_prefix(name)));
    values.filter_map(|value| value.parse::<u64>().ok()).sum()
}
