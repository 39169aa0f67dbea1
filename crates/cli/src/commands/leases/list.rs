//! `sluicegate leases list`: all leases and workers, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comfy_table::{Cell, Color, Table};
use serde::Serialize;
use sluicegate_checkpoint::{ArrivalMillis, Position};
use sluicegate_lease::operator::liveness::{Liveness, OwnerWatch};
use sluicegate_lease::operator::standing::{Standing, standing};
use sluicegate_lease::{Lease, WorkerId, WorkerRow};
use sluicegate_worker::telemetry::wall_millis;

use super::super::operator::fleet::{FleetArgs, Look, Tables};
use super::super::operator::owners;
use super::super::operator::row::{Shown, ago};
use crate::output::{self, counted};

/// Print all leases and workers once
///
/// `behind` is what the owner says of its distance to the tip; `checkpoint from` is how long ago the last record
/// that is finished had arrived, by this machine's clock. A lease is active (it has an owner), free, finished, or
/// blocked (its parent shard is not finished).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    fleet: FleetArgs,
    /// Also watch the workers' signs of life, and say who is alive and who is silent. That takes a third of
    /// --failover-time if all are alive, and all of it if one is not
    #[arg(long)]
    liveness: bool,
    /// The fleet's failover_time, for --liveness
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    failover_time: Duration,
    /// One JSON object: leases, workers, totals
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let tables = Tables::open(&args.fleet).await?;
    let watch = if args.liveness {
        let look = tables.look().await?;
        Some(owners::judged(&tables, everybody(&look), args.failover_time).await?)
    } else {
        None
    };
    let listing = Listing::of(&tables.look().await?, watch.as_ref());
    if args.json {
        return output::json(&listing);
    }
    output::line(&listing.text(wall_millis()));
    Ok(())
}

/// Workers with a row and owners without one.
fn everybody(look: &Look) -> BTreeSet<WorkerId> {
    let rows = look.fleet.workers.iter().map(|row| row.worker_id.clone());
    rows.chain(look.leases.values().filter_map(|row| row.owner.clone())).collect()
}

/// A lease as machines get it.
#[derive(Debug, Serialize)]
struct ListedLease {
    #[serde(flatten)]
    shown: Shown,
    /// What its owner says of it, in milliseconds; none: it says nothing.
    behind_ms: Option<u64>,
    #[serde(skip)]
    arrival: Option<ArrivalMillis>,
    #[serde(skip)]
    position: Position,
}

/// A worker as machines get it.
#[derive(Debug, Serialize)]
struct ListedWorker {
    worker: String,
    /// `active` or `draining`, as it says; none: it has no row, and only owns leases.
    state: Option<&'static str>,
    /// `live`, `silent` or `unknown`; only with `--liveness`.
    #[serde(skip_serializing_if = "Option::is_none")]
    liveness: Option<&'static str>,
    asked_to_leave: bool,
    heartbeat: Option<u64>,
    /// Leases whose row names it.
    leases: usize,
    address: Option<String>,
    version: Option<String>,
}

/// Counts over all leases and workers.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Totals {
    leases: usize,
    active: usize,
    free: usize,
    blocked: usize,
    finished: usize,
    unreadable: usize,
    workers: usize,
    announced_batches: usize,
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    leases: Vec<ListedLease>,
    workers: Vec<ListedWorker>,
    totals: Totals,
}

impl Listing {
    pub(super) fn of(look: &Look, watch: Option<&OwnerWatch>) -> Self {
        let rows: BTreeMap<&WorkerId, &WorkerRow> =
            look.fleet.workers.iter().map(|row| (&row.worker_id, row)).collect();
        let leases: Vec<ListedLease> =
            look.leases.values().map(|row| listed_lease(row, look, &rows)).collect();
        let workers: Vec<ListedWorker> =
            everybody(look).iter().map(|id| listed_worker(id, rows.get(id).copied(), look, watch)).collect();
        let totals = totals(look, &leases, workers.len());
        Self { leases, workers, totals }
    }

    /// Two tables and a line of totals.
    pub(super) fn text(&self, now: ArrivalMillis) -> String {
        format!("{}\n\n{}\n\n{}", self.lease_table(now), self.worker_table(), self.totals.text())
    }

    fn lease_table(&self, now: ArrivalMillis) -> Table {
        let mut table = table(&[
            "shard",
            "state",
            "owner",
            "counter",
            "epoch",
            "announced",
            "checkpoint",
            "checkpoint from",
            "behind",
            "parents",
        ]);
        for lease in &self.leases {
            let (shown, row) = (&lease.shown, &lease.shown.row);
            let state = match (&shown.waits_for, shown.state) {
                (Some(parent), _) => format!("blocked on {parent}"),
                (None, state) => state.to_owned(),
            };
            table.add_row([
                Cell::new(&shown.shard),
                Cell::new(state).fg(colour(shown.state)),
                Cell::new(row.owner.as_deref().unwrap_or("-")),
                Cell::new(row.counter),
                Cell::new(row.epoch),
                Cell::new(row.announced_batches),
                Cell::new(shortened(&lease.position)),
                Cell::new(lease.arrival.and_then(|at| ago(at, now)).map_or_else(dash, |age| age + " ago")),
                Cell::new(lease.behind_ms.map_or_else(dash, |ms| format!("{ms} ms"))),
                Cell::new(if shown.parents.is_empty() { dash() } else { shown.parents.join(" ") }),
            ]);
        }
        table
    }

    fn worker_table(&self) -> Table {
        let mut table = table(&["worker", "state", "heartbeat", "leases", "address", "version"]);
        for worker in &self.workers {
            let mut state = worker.state.unwrap_or("no worker row").to_owned();
            if worker.asked_to_leave && worker.state == Some("active") {
                state.push_str(", asked to leave");
            }
            if let Some(liveness) = worker.liveness {
                state.push_str(&format!(", {liveness}"));
            }
            let colour = match (worker.state, worker.liveness) {
                (_, Some("silent")) => Color::Red,
                (Some("active"), _) => Color::Green,
                (_, _) => Color::Yellow,
            };
            table.add_row([
                Cell::new(&worker.worker),
                Cell::new(state).fg(colour),
                Cell::new(worker.heartbeat.map_or_else(dash, |beat| beat.to_string())),
                Cell::new(worker.leases),
                Cell::new(worker.address.clone().unwrap_or_else(dash)),
                Cell::new(worker.version.clone().unwrap_or_else(dash)),
            ]);
        }
        table
    }
}

fn listed_lease(row: &Lease, look: &Look, workers: &BTreeMap<&WorkerId, &WorkerRow>) -> ListedLease {
    let owner = row.owner.as_ref().and_then(|owner| workers.get(owner));
    let behind = owner.and_then(|owner| owner.behind.iter().find(|behind| behind.shard == row.key));
    ListedLease {
        shown: Shown::of(row, &look.leases),
        behind_ms: behind.map(|behind| behind.age_ms),
        arrival: row.pending.state().and_then(|state| state.checkpoint_arrival),
        position: row.checkpoint.clone(),
    }
}

fn listed_worker(
    id: &WorkerId,
    row: Option<&WorkerRow>,
    look: &Look,
    watch: Option<&OwnerWatch>,
) -> ListedWorker {
    let liveness = |watch: &OwnerWatch| match watch.liveness(id) {
        Liveness::Live => "live",
        Liveness::Gone => "silent",
        Liveness::Unknown => "unknown",
    };
    ListedWorker {
        worker: id.to_string(),
        state: row.map(|row| row.state.as_str()),
        liveness: watch.map(liveness),
        asked_to_leave: look.fleet.asked_to_leave.contains(id),
        heartbeat: row.map(|row| row.heartbeat),
        leases: look.leases.values().filter(|lease| lease.owner.as_ref() == Some(id)).count(),
        address: row.and_then(|row| row.address.clone()),
        version: row.map(|row| row.version.clone()),
    }
}

fn totals(look: &Look, leases: &[ListedLease], workers: usize) -> Totals {
    let mut totals = Totals { leases: leases.len(), workers, ..Totals::default() };
    for lease in leases {
        totals.announced_batches += lease.shown.row.announced_batches;
    }
    for row in look.leases.values() {
        *match standing(row, &look.leases) {
            Standing::Owned(_) => &mut totals.active,
            Standing::Free => &mut totals.free,
            Standing::Blocked(_) => &mut totals.blocked,
            Standing::Finished => &mut totals.finished,
            Standing::Unreadable => &mut totals.unreadable,
        } += 1;
    }
    totals
}

impl Totals {
    fn text(&self) -> String {
        let mut text = format!(
            "{}: {} active, {} free, {} blocked, {} finished; {}; {}",
            counted(self.leases, "lease"),
            self.active,
            self.free,
            self.blocked,
            self.finished,
            counted(self.workers, "worker"),
            counted_batches(self.announced_batches)
        );
        if self.unreadable > 0 {
            text.push_str(&format!("; {} cannot be read by this build", self.unreadable));
        }
        text
    }
}

fn counted_batches(count: usize) -> String {
    if count == 1 { "1 announced batch".to_owned() } else { format!("{count} announced batches") }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(header.to_vec());
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table
}

fn colour(state: &str) -> Color {
    match state {
        "active" => Color::Green,
        "free" => Color::Yellow,
        "unreadable" => Color::Red,
        _ => Color::DarkGrey,
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// A sequence number has 56 digits: its beginning and end tell two apart. `checkpoint get` prints all of it.
fn shortened(position: &Position) -> String {
    let text = position.to_string();
    if position.is_start() || text.len() <= 16 {
        return text;
    }
    format!("{}…{}", &text[..4], &text[text.len() - 10..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, SequenceNumber, ShardId, SubSequenceNumber};
    use sluicegate_lease::Behind;

    #[test]
    fn totals_count_every_lease_once_and_owners_without_a_row_are_workers() {
        let row = |key: &str, owner: Option<&str>, checkpoint: Position| Lease {
            owner: owner.map(WorkerId::new),
            ..Lease::unowned(ShardId::new(key), checkpoint, LeaseState::starting(None))
        };
        let mut look = Look::default();
        let parent = row("a", Some("kcl"), Position::TrimHorizon);
        let child = Lease { parents: [parent.key.clone()].into(), ..row("b", None, Position::TrimHorizon) };
        for row in
            [parent, child, row("c", Some("w"), Position::ShardEnd), row("d", None, Position::TrimHorizon)]
        {
            look.leases.insert(row.key.clone(), row);
        }
        let behind = vec![Behind { shard: ShardId::new("c"), age_ms: 40, lag_ms: 40 }];
        look.fleet.workers.push(WorkerRow { behind, ..WorkerRow::new(WorkerId::new("w")) });
        let listing = Listing::of(&look, None);
        let expected = Totals {
            leases: 4,
            active: 1,
            free: 1,
            blocked: 1,
            finished: 1,
            workers: 2,
            ..Totals::default()
        };
        assert_eq!(listing.totals, expected);
        let states: Vec<_> =
            listing.workers.iter().map(|worker| (worker.worker.as_str(), worker.state)).collect();
        assert_eq!(states, [("kcl", None), ("w", Some("active"))]);
        assert_eq!(listing.leases[2].behind_ms, Some(40));
        let text = listing.text(ArrivalMillis(0));
        assert!(text.contains("blocked on a") && text.contains("no worker row"), "{text}");
    }

    #[test]
    fn a_long_sequence_number_is_shortened() {
        let digits = format!("4959{}42", "0".repeat(50));
        let at = Position::At(SequenceNumber::parse(digits).unwrap(), SubSequenceNumber(0));
        assert_eq!(shortened(&at), "4959…0000000042");
        assert_eq!(shortened(&Position::TrimHorizon), "TRIM_HORIZON");
    }
}
