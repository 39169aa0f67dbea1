//! A burst of many times what a table takes, and then none: what becomes of the events with and without Sluicegate in between,
//! second by second, told by the backend's ledgers.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use sluicegate_worker::telemetry::wall_millis;

use super::load::Kind;

mod course;
mod picture;
mod plain;
pub(super) mod svg;
mod through;

pub use course::{Course, Moment};

/// The events.
const KIND: Kind = Kind::Visit;

/// What is played.
#[derive(Debug, Clone)]
pub struct BurstPlan {
    /// What the table takes, in write capacity units a second, and Sluicegate's budget.
    pub table_wcu: u32,
    /// Events a second of the burst for each of them.
    pub times: u32,
    /// How long it is quiet before.
    pub lead: Duration,
    /// How long the burst takes.
    pub lasts: Duration,
    /// Shards.
    pub shards: usize,
    /// Aggregate keys of the events of each shard.
    pub keys_per_shard: u64,
    /// Workers.
    pub workers: usize,
    /// Most events that the writer without Sluicegate keeps in memory.
    pub queue: usize,
    /// Settings of the workers, over the product's defaults.
    pub settings: Vec<(&'static str, String)>,
}

impl BurstPlan {
    /// Events a second.
    fn rate(&self) -> u32 {
        self.table_wcu * self.times
    }

    /// Aggregate keys of all events.
    fn keys(&self) -> u64 {
        self.shards as u64 * self.keys_per_shard
    }

    /// Events of the burst.
    fn events(&self) -> u64 {
        u64::try_from(self.lasts.as_millis()).unwrap_or(u64::MAX) * u64::from(self.rate()) / 1_000
    }
}

/// What came of the events on one of the ways.
#[derive(Debug)]
pub struct Outcome {
    /// Events that were to be stored.
    pub offered: u64,
    /// Those that are, found in the table.
    pub stored: u64,
    /// Those that there was no room for.
    pub dropped: u64,
    /// Those that are stored more than once.
    pub duplicated: u64,
    /// Second by second.
    pub course: Course,
}

impl Outcome {
    fn json(&self, plan: &BurstPlan) -> serde_json::Value {
        json!({
            "offered": self.offered,
            "stored": self.stored,
            "dropped": self.dropped,
            "lost": self.lost(),
            "duplicated": self.duplicated,
            "write_units": self.course.write_units(),
            "throttled_units": self.course.throttled_units(),
            "drained_in_seconds": self.course.drained_at() - self.course.begins() - plan.lasts.as_secs_f64(),
            "max_availability_seconds": round(self.course.max_age()),
        })
    }

    /// Events that were accepted and are not stored.
    pub fn lost(&self) -> u64 {
        (self.offered - self.dropped).saturating_sub(self.stored)
    }
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// One item for each event.
    pub without: Outcome,
    /// Through the stream and the workers.
    pub with: Outcome,
}

impl Report {
    /// For machines.
    pub fn json(&self, plan: &BurstPlan) -> serde_json::Value {
        json!({
            "table_wcu": plan.table_wcu,
            "events_per_second": plan.rate(),
            "burst_seconds": plan.lasts.as_secs(),
            "workers": plan.workers,
            "shards": plan.shards,
            "without": self.without.json(plan),
            "with": self.with.json(plan),
        })
    }

    /// For people: an SVG.
    pub fn picture(&self, plan: &BurstPlan) -> String {
        picture::of(self, plan).svg()
    }
}

fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// Numbers of these sizes are exact.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn now_seconds() -> u64 {
    u64::try_from(wall_millis().0 / 1_000).unwrap_or(0)
}

/// Waits until the wall clock's second is over, and returns which it was.
async fn second_over() -> u64 {
    let second = now_seconds();
    let into = u64::try_from(wall_millis().0 % 1_000).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(1_000 - into)).await;
    second
}

/// Plays the burst twice, each time on a backend of its own; `say` is told how it goes.
///
/// # Errors
/// A backend, writer or worker fails for another reason than that the table is too slow, or events do not add up.
pub async fn run(plan: &BurstPlan, name: &str, say: impl Fn(&str)) -> anyhow::Result<Report> {
    say("without Sluicegate");
    let without = plain::run(plan, &say).await?;
    say("with Sluicegate");
    let with = through::run(plan, name, &say).await?;
    for outcome in [&without, &with] {
        ensure!(outcome.course.offered() == outcome.offered, "the ledger tells of other events: {outcome:?}");
    }
    Ok(Report { without, with })
}
