//! What the demo found: a short table for people, one JSON object for machines.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use sluicegate_producer::Summary;

use super::backend::TableUse;
use super::compare::Compared;
use super::watch::{Snapshot, Totals};
use super::{APPLICATION, TABLE};

/// One worker killed, and what became of its shards.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    pub(super) worker: usize,
    pub(super) announced: usize,
    /// Its shards with announced batches.
    pub(super) shards: Vec<String>,
    stored_percent: u64,
    at_ms: u64,
    /// When each of its shards was first read by another worker, in epoch milliseconds.
    first_reads: BTreeMap<String, u64>,
}

impl Kill {
    pub(super) fn new(
        worker: usize,
        announced: usize,
        shards: Vec<String>,
        stored_percent: u64,
        at_ms: u64,
    ) -> Self {
        Self { worker, announced, shards, stored_percent, at_ms, first_reads: BTreeMap::new() }
    }

    /// Takes in a look: sessions that began after the kill.
    pub(super) fn see(&mut self, snapshot: &Snapshot) {
        for (shard, look) in &snapshot.shards {
            let first_read = look.first_read_ms.filter(|at| *at >= self.at_ms);
            if let (true, Some(at)) = (self.shards.iter().any(|lost| lost == shard.as_str()), first_read) {
                self.first_reads.entry(shard.to_string()).or_insert(at);
            }
        }
    }

    /// Time until the last of its shards was read by another worker.
    fn failover_ms(&self) -> Option<u64> {
        let all = self.first_reads.len() == self.shards.len();
        self.first_reads.values().max().filter(|_| all).map(|last| last - self.at_ms)
    }
}

/// What the report is made of.
pub(super) struct Findings {
    pub(super) summary: Summary,
    /// None if everything was stored before one could be killed.
    pub(super) kill: Option<Kill>,
    pub(super) totals: Totals,
    pub(super) compared: Compared,
    pub(super) ledger: BTreeMap<String, TableUse>,
    pub(super) elapsed: Duration,
    pub(super) workers_started: usize,
}

/// The report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    published: u64,
    stored: u64,
    lost: u64,
    duplicated: u64,
    /// Pairs of items of a shard and key whose sequence ranges overlap.
    overlapping_ranges: u64,
    items: u64,
    keys: u64,
    /// Write capacity units of all writes to the analytics table, retries and rewrites included.
    wcu: f64,
    /// What one item for each event would take: 1 unit for each KB begun.
    wcu_one_item_per_event: f64,
    wcu_ratio: f64,
    raw_bytes: u64,
    stored_bytes: u64,
    compression_ratio: f64,
    availability_p50_ms: u64,
    availability_p99_ms: u64,
    failover_ms: Option<u64>,
    elapsed_ms: u64,
    events_per_second: u64,
    workers_started: usize,
    workers_killed: usize,
    stored_percent_at_kill: Option<u64>,
    announced_batches_at_kill: usize,
    redelivered_batches: u64,
    producer_retries: u64,
    producer_unknown_outcomes: u64,
    fallback_keys: u64,
    /// Write capacity units of the lease and worker tables.
    lease_wcu: f64,
}

impl Report {
    pub(super) fn new(findings: &Findings) -> Self {
        let Findings { summary, kill, totals, compared, ledger, .. } = findings;
        let units = |table: &str| ledger.get(table).map_or(0.0, |used| used.write_units);
        let wcu = units(TABLE);
        let per_event = f64_of(compared.one_item_per_event_units);
        let elapsed_ms = millis(findings.elapsed);
        Self {
            published: summary.records,
            stored: compared.stored,
            lost: compared.lost,
            duplicated: compared.duplicated,
            overlapping_ranges: compared.overlaps,
            items: compared.items,
            keys: compared.keys,
            wcu,
            wcu_one_item_per_event: per_event,
            wcu_ratio: ratio(per_event, wcu),
            raw_bytes: compared.raw_bytes,
            stored_bytes: compared.stored_bytes,
            compression_ratio: ratio(f64_of(compared.raw_bytes), f64_of(compared.stored_bytes)),
            availability_p50_ms: seconds_to_millis(totals.availability.quantile(0.5)),
            availability_p99_ms: seconds_to_millis(totals.availability.quantile(0.99)),
            failover_ms: kill.as_ref().and_then(Kill::failover_ms),
            elapsed_ms,
            events_per_second: compared.stored * 1_000 / elapsed_ms.max(1),
            workers_started: findings.workers_started,
            workers_killed: usize::from(kill.is_some()),
            stored_percent_at_kill: kill.as_ref().map(|kill| kill.stored_percent),
            announced_batches_at_kill: kill.as_ref().map_or(0, |kill| kill.announced),
            redelivered_batches: totals.redelivered,
            producer_retries: summary.retries,
            producer_unknown_outcomes: summary.unknown_outcomes,
            fallback_keys: summary.fallback_keys,
            lease_wcu: units(APPLICATION) + units(&format!("{APPLICATION}-workers")),
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY);
        let mut row = |name: &str, value: String| {
            table.add_row([name, &value]);
        };
        row("published", format!("{} events, {}", HumanCount(self.published), HumanBytes(self.raw_bytes)));
        row(
            "stored",
            format!(
                "{} events in {} items under {} keys",
                HumanCount(self.stored),
                HumanCount(self.items),
                self.keys
            ),
        );
        row("lost / duplicated", format!("{} / {}", self.lost, self.duplicated));
        row(
            "write units",
            format!("{:.0}, {:.0} times fewer than one item per event", self.wcu, self.wcu_ratio),
        );
        row("compression", format!("{:.1} : 1", self.compression_ratio));
        row(
            "availability",
            format!(
                "p50 {} ms, p99 {} ms (arrival to durable)",
                self.availability_p50_ms, self.availability_p99_ms
            ),
        );
        row("worker killed", self.kill_text());
        row("failover", self.failover_ms.map_or_else(|| "not seen".to_owned(), |ms| format!("{ms} ms")));
        row(
            "elapsed",
            format!(
                "{:.1} s, {} events a second",
                f64_of(self.elapsed_ms) / 1e3,
                HumanCount(self.events_per_second)
            ),
        );
        row("lease writes", format!("{:.0} write units", self.lease_wcu));
        table.to_string()
    }

    fn kill_text(&self) -> String {
        match self.stored_percent_at_kill {
            None => "none: all was stored before one could be killed (give a larger --input or a --rate)"
                .to_owned(),
            Some(percent) => format!(
                "at {percent} % stored, {} batches announced; {} delivered again",
                self.announced_batches_at_kill, self.redelivered_batches
            ),
        }
    }

    /// An error unless every event is there exactly once.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        if self.lost > 0 || self.duplicated > 0 || self.overlapping_ranges > 0 {
            bail!(
                "{} events lost, {} duplicated, {} ranges overlap",
                self.lost,
                self.duplicated,
                self.overlapping_ranges
            );
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn seconds_to_millis(seconds: f64) -> u64 {
    millis(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[expect(clippy::cast_precision_loss, reason = "figures for a report")]
fn f64_of(value: u64) -> f64 {
    value as f64
}

fn ratio(large: f64, small: f64) -> f64 {
    if small > 0.0 { large / small } else { 0.0 }
}
