//! Watches the fleet from outside: lease rows, worker rows and `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate_checkpoint::{Position, ShardId};
use sluicegate_lease::dynamodb::{DynamoLeaseStore, DynamoRegistry, worker_table_name};
use sluicegate_lease::{Lease, LeaseStore, WorkerRegistry};
use sluicegate_worker::kinesis::KinesisStream;
use sluicegate_worker::{ReadFrom, StreamReader};

use super::fleet::{Fleet, Known};
use super::metrics::{Histogram, Samples, http_get};
use super::{APPLICATION, STREAM};
use crate::aws::Aws;

/// One look at the fleet.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// Events the workers say they stored, redelivered ones counted again.
    pub(super) events_stored: u64,
    /// Each shard as its row and its owner's metrics show it.
    pub(super) shards: BTreeMap<ShardId, ShardLook>,
}

/// One shard in one look.
#[derive(Debug, Clone, Default)]
pub(super) struct ShardLook {
    pub(super) owner: Option<String>,
    /// The owner's number, for people.
    pub(super) worker: Option<usize>,
    pub(super) announced: usize,
    pub(super) checkpoint: Option<Position>,
    /// Distance to the tip in milliseconds, as the owner last read it.
    pub(super) behind_ms: Option<u64>,
    /// When the owner's session gave its first records to its batcher, in epoch milliseconds.
    pub(super) first_read_ms: Option<u64>,
}

impl Snapshot {
    /// What changes while anything goes on: checkpoints and announced batches.
    pub(super) fn progress(&self) -> Vec<(Option<Position>, usize)> {
        self.shards.values().map(|shard| (shard.checkpoint.clone(), shard.announced)).collect()
    }

    /// Whether every shard has a live owner that the fleet knows, and nothing announced.
    pub(super) fn is_settled(&self) -> bool {
        !self.shards.is_empty()
            && self.shards.values().all(|shard| shard.announced == 0 && shard.worker.is_some())
    }

    /// Index of a worker whose row shows an announced batch, the one with the most.
    pub(super) fn announcing_worker(&self, fleet: &Fleet) -> Option<usize> {
        let announcing = self.shards.values().filter(|shard| shard.announced > 0);
        let most = announcing.max_by_key(|shard| shard.announced)?;
        fleet.index_of(most.owner.as_deref()?)
    }
}

/// What the workers counted in all, dead ones included as far as they were scraped.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) availability: Histogram,
    pub(super) redelivered: u64,
    pub(super) items: u64,
    pub(super) raw_bytes: u64,
    pub(super) stored_bytes: u64,
}

/// Looks at the fleet again and again.
pub(super) struct Watcher {
    store: Arc<dyn LeaseStore>,
    registry: Arc<dyn WorkerRegistry>,
    stream: KinesisStream,
    /// Last scrape of every worker, by id: a dead one's stays.
    scrapes: BTreeMap<String, Samples>,
}

impl Watcher {
    pub(super) fn new(aws: &Aws) -> Self {
        let table = worker_table_name(APPLICATION);
        Self {
            store: Arc::new(DynamoLeaseStore::new(aws.dynamodb(), APPLICATION)),
            registry: Arc::new(DynamoRegistry::new(aws.dynamodb(), table, APPLICATION)),
            stream: KinesisStream::new(aws.kinesis(), STREAM),
            scrapes: BTreeMap::new(),
        }
    }

    /// Takes a look. Tables that are not there yet show nothing.
    pub(super) async fn look(&mut self, fleet: &mut Fleet) -> anyhow::Result<Snapshot> {
        self.recognize(fleet).await;
        let known: Vec<Known> = fleet.workers().iter().filter_map(|worker| worker.known.clone()).collect();
        for worker in known {
            if let Ok(text) = http_get(&format!("http://{}/metrics", worker.address)).await {
                self.scrapes.insert(worker.worker_id, Samples::parse(&text));
            }
        }
        let rows = self.store.leases().await.unwrap_or_default();
        let shards = rows.iter().map(|row| (row.key.clone(), self.shard(row, fleet))).collect();
        let events_stored =
            self.scrapes.values().map(|samples| samples.count("sluicegate_events_stored_total")).sum();
        Ok(Snapshot { events_stored, shards })
    }

    async fn recognize(&self, fleet: &mut Fleet) {
        if fleet.workers().iter().all(|worker| worker.known.is_some()) {
            return;
        }
        for row in self.registry.workers().await.unwrap_or_default() {
            let Some(address) = &row.address else { continue };
            let metrics = http_get(&format!("http://{address}/metrics")).await.unwrap_or_default();
            let pid = Samples::parse(&metrics).count("sluicegate_process_id");
            fleet.recognize(row.worker_id.as_str(), address, u32::try_from(pid).unwrap_or(0));
        }
    }

    fn shard(&self, row: &Lease, fleet: &Fleet) -> ShardLook {
        let owner = row.owner.as_ref().map(|owner| owner.as_str().to_owned());
        let samples = owner.as_ref().and_then(|owner| self.scrapes.get(owner));
        // In milliseconds.
        let seconds = |metric: &str| {
            let name = format!("{metric}{{shard=\"{}\"}}", row.key);
            samples.map(|samples| samples.milli(&name)).filter(|value| *value > 0)
        };
        ShardLook {
            worker: owner.as_deref().and_then(|owner| fleet.number_of(owner)),
            announced: announced(row),
            checkpoint: Some(row.checkpoint.clone()),
            behind_ms: seconds("sluicegate_behind_latest_seconds"),
            first_read_ms: seconds("sluicegate_session_first_read_timestamp_seconds"),
            owner,
        }
    }

    /// How many batches the rows of a worker show as announced, and on which shards.
    pub(super) async fn announced_by(&self, worker_id: &str) -> anyhow::Result<(usize, Vec<String>)> {
        let rows = self.store.leases().await?;
        let owned =
            rows.iter().filter(|row| row.owner.as_ref().is_some_and(|owner| owner.as_str() == worker_id));
        let announcing: Vec<&Lease> = owned.filter(|row| announced(row) > 0).collect();
        let shards = announcing.iter().map(|row| row.key.to_string()).collect();
        Ok((announcing.into_iter().map(announced).sum(), shards))
    }

    /// Whether the stream has nothing behind any checkpoint: asked of the stream, not of the workers.
    pub(super) async fn is_drained(&self, snapshot: &Snapshot) -> anyhow::Result<bool> {
        for (shard, look) in &snapshot.shards {
            let from = match &look.checkpoint {
                Some(Position::At(sequence_number, _)) => ReadFrom::After(sequence_number.clone()),
                Some(Position::ShardEnd) => continue,
                Some(Position::TrimHorizon | Position::AtTimestamp | Position::Latest) | None => {
                    ReadFrom::TrimHorizon
                }
            };
            let page = self.stream.open(shard, from).next_page(1).await?;
            if !page.records.is_empty() || !page.behind_latest.is_zero() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What all workers counted.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for samples in self.scrapes.values() {
            totals.availability.add(samples, "sluicegate_availability_seconds");
            totals.redelivered += samples.count("sluicegate_batches_total{outcome=\"redelivered\"}");
            totals.items += samples.count("sluicegate_items_written_total");
            totals.raw_bytes += samples.count("sluicegate_raw_bytes_total");
            totals.stored_bytes += samples.count("sluicegate_stored_bytes_total");
        }
        totals
    }
}

fn announced(row: &Lease) -> usize {
    row.pending.state().map_or(0, |state| state.cuts.len())
}
