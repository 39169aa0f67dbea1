//! `sluicegate leases release`: leases given to nobody, as an owner gives them away.

use std::time::Duration;

use anyhow::anyhow;
use sluicegate_lease::operator::{Around, Refusal, release};
use sluicegate_lease::{Lease, LeaseKey, WorkerId};

use super::super::operator::change::{ChangeArgs, Changes, Planned, conclude};
use super::super::operator::fleet::{FleetArgs, Look, Tables};
use super::super::operator::names;

/// Give leases to nobody: the fleet takes them again, from the row
///
/// Announced batches stay in the row, and whoever takes the lease delivers them first, identically. A release moves
/// no position and loses nothing. The owner of a released lease notices at its next write or round, discards what it
/// had not announced, and may well take the lease again, in a new session: that is how a stuck session is restarted.
/// To move work away from a worker, use `sluicegate drain`.
///
/// A live owner's lease is released only with --force. A dead owner's lease is taken over without this command.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Shards, by id or number
    #[arg(required_unless_present = "all_of", conflicts_with = "all_of")]
    shard: Vec<String>,
    /// All leases of this worker: its id, or the beginning of it
    #[arg(long, value_name = "WORKER")]
    all_of: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    fleet: FleetArgs,
}

const AFTER_HELP: &str = "\
Examples:
  sluicegate leases release --application billing 3 --dry-run
  sluicegate leases release --application billing 3 --force               # restart a session that is stuck
  sluicegate leases release --application billing --all-of pod-7f9c-abc   # of a worker that is gone

Exit codes: 0 all released, 1 some were left as they are, 64 bad arguments.";

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let tables = Tables::open(&args.fleet).await?;
    let look = tables.look().await?;
    let of = args.all_of.as_deref().map(|worker| names::worker(worker, &look)).transpose()?;
    let keys = match &of {
        Some(worker) => owned(worker, &look)?,
        None => names::shards(&args.shard, &look)?,
    };
    let decide = |row: &Lease, around: &Around| {
        if of.is_some() && row.owner != of {
            return Ok(None);
        }
        planned(row, around)
    };
    let changes =
        Changes { tables: &tables, args: &args.change, keys, wait: Duration::ZERO, decide: &decide };
    let gone = changes.gone(&look).await?;
    let only = changes.keys.len() == 1;
    let reports = if args.change.dry_run {
        let reports = changes.preview(&look, &gone);
        reports.iter().try_for_each(|report| report.print(args.change.json, only))?;
        reports
    } else {
        changes.apply(&look, &gone, |report| report.print(args.change.json, only)).await?
    };
    conclude(&reports)
}

fn owned(worker: &WorkerId, look: &Look) -> anyhow::Result<Vec<LeaseKey>> {
    let owned = look.leases.values().filter(|row| row.owner.as_ref() == Some(worker));
    let keys: Vec<LeaseKey> = owned.map(|row| row.key.clone()).collect();
    if keys.is_empty() { Err(anyhow!("{worker} owns no lease")) } else { Ok(keys) }
}

fn planned(row: &Lease, around: &Around) -> Result<Option<Planned>, Refusal> {
    let released = release(row, around)?;
    Ok(released.map(|released| {
        let along = match released.batches {
            0 => "nothing is announced".to_owned(),
            1 => "1 announced batch goes along and is delivered again, identically".to_owned(),
            batches => format!("{batches} announced batches go along and are delivered again, identically"),
        };
        Planned {
            means: format!("released by {}; {along}", released.from),
            kind: "release",
            next: released.next,
            ends_session_of: released.ends_session_of,
        }
    }))
}
