//! `sluicegate drain`: asks a worker to hand everything over and leave, through the worker table.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use sluicegate_lease::operator::liveness::{Liveness, OwnerWatch};
use sluicegate_lease::{Lease, WorkerId, WorkerState};
use sluicegate_worker::telemetry::wall_clock;

use super::operator::fleet::{FleetArgs, Look, Tables};
use super::operator::names;
use crate::output::{self, counted};

/// Have a worker hand everything over and leave
///
/// The worker finishes what it has announced, commits, hands each lease to the worker that the plan names, removes
/// its row and exits with 0, as it does on SIGTERM. The request goes through the worker table, so this works from
/// anywhere with rights on it; the worker sees it within failover_time / 20.
///
/// In Kubernetes a pod that has exited is started again, as a new worker under another id, and takes its share of
/// the leases: to make a fleet smaller, scale the deployment (which drains by SIGTERM). A drain is for moving work
/// off one process now, for finishing announced batches before `checkpoint set`, and for processes that nothing
/// restarts.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The worker: its id, or the beginning of it (such as its pod's name)
    worker: String,
    /// Ask, and do not wait until it has left
    #[arg(long)]
    no_wait: bool,
    /// Show what it would hand over, and ask nothing
    #[arg(long)]
    dry_run: bool,
    /// Give up waiting after so long; the worker goes on
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The fleet's failover_time: a worker whose sign of life stands still for so long does not answer any more
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    failover_time: Duration,
    /// The outcome as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    fleet: FleetArgs,
}

const AFTER_HELP: &str = "\
Examples:
  sluicegate leases list --application billing        # the workers and what they hold
  sluicegate drain --application billing pod-7f9c-abc --dry-run
  sluicegate drain --application billing pod-7f9c-abc
  sluicegate drain --application billing pod-7f9c-abc --no-wait --json

Exit codes: 0 it has left (with --no-wait: it was asked; with --dry-run: it could be), 1 it has not, 64 bad arguments.";

/// How long a request lies in the table if the worker never answers.
const REQUEST_LIVES: Duration = Duration::from_secs(3_600);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// What came of it.
#[derive(Debug, Serialize)]
struct Drained {
    worker: String,
    /// `would_ask`, `asked` or `left`.
    outcome: &'static str,
    /// Unfinished leases it owned when it was asked.
    leases: usize,
    /// Their shards.
    shards: Vec<String>,
    seconds: f64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let tables = Tables::open(&args.fleet).await?;
    let look = tables.look().await?;
    let worker = names::worker(&args.worker, &look)?;
    if !has_row(&worker, &look) {
        bail!(
            "{worker} has no worker row: it is gone, or no Sluicegate worker. Its leases are taken over once it is silent; `leases release --all-of {worker}` does it now"
        );
    }
    let shards: Vec<String> = owned(&worker, &look).map(|row| row.key.to_string()).collect();
    let leases = shards.len();
    if !look.fleet.workers.iter().any(|row| row.worker_id != worker && row.state == WorkerState::Active) {
        output::note(&format!("no other active worker: what {worker} reads is not read until one starts"));
    }
    if args.dry_run {
        if !args.json {
            output::line(&would_leave(&worker, &shards));
            return Ok(());
        }
        let worker = worker.to_string();
        return output::json(&Drained { worker, outcome: "would_ask", leases, shards, seconds: 0.0 });
    }
    let expires = wall_clock() + REQUEST_LIVES;
    tables.ask_to_leave(&worker, i64::try_from(expires.as_secs()).unwrap_or(i64::MAX)).await?;
    output::note(&format!("asked {worker} to leave; it owns {}", counted(leases, "lease")));
    let begun = tables.clock.now();
    let outcome = if args.no_wait {
        "asked"
    } else {
        wait(&tables, &worker, &args).await?;
        "left"
    };
    let seconds = tables.clock.now().saturating_duration_since(begun).as_secs_f64();
    let drained = Drained { worker: worker.to_string(), outcome, leases, shards, seconds };
    if args.json {
        return output::json(&drained);
    }
    if !args.no_wait {
        output::line(&format!("{worker} has left after {seconds:.1} s; it had {}", counted(leases, "lease")));
    }
    Ok(())
}

/// Waits until nothing of the worker is left, and tells of its progress.
async fn wait(tables: &Tables, worker: &WorkerId, args: &Args) -> anyhow::Result<()> {
    let deadline = tables.clock.now() + args.timeout;
    let mut watch = OwnerWatch::new([worker.clone()], args.failover_time);
    let mut told = String::new();
    loop {
        let look = tables.look().await?;
        let now = tables.clock.now();
        let left = owned(worker, &look).count();
        if !has_row(worker, &look) {
            // The worker removes it as well; this is for one whose last act failed.
            tables.withdraw_request(worker).await?;
            if left > 0 {
                bail!(
                    "{worker} is gone and still owns {}: what is left is taken over after the failover time",
                    counted(left, "lease")
                );
            }
            return Ok(());
        }
        let leases: Vec<Lease> = look.leases.values().cloned().collect();
        watch.see(&look.fleet.workers, &leases, now);
        if watch.liveness(worker) == Liveness::Gone {
            bail!(
                "{worker} does not answer: its heartbeat stood still for {}. Its leases are taken over by others; should it wake up, it leaves",
                humantime::format_duration(args.failover_time)
            );
        }
        let progress = format!("{worker}: {}, {}", state(worker, &look), counted(left, "lease"));
        if progress != told {
            output::note(&progress);
            told = progress;
        }
        if now >= deadline {
            bail!("{worker} has not left after {}: {told}", humantime::format_duration(args.timeout));
        }
        tables.clock.sleep(PAUSE).await;
    }
}

fn has_row(worker: &WorkerId, look: &Look) -> bool {
    look.fleet.workers.iter().any(|row| row.worker_id == *worker)
}

fn state(worker: &WorkerId, look: &Look) -> &'static str {
    let row = look.fleet.workers.iter().find(|row| row.worker_id == *worker);
    row.map_or("gone", |row| row.state.as_str())
}

/// Its unfinished leases: a finished one needs nobody.
fn owned<'a>(worker: &'a WorkerId, look: &'a Look) -> impl Iterator<Item = &'a Lease> {
    look.leases.values().filter(move |row| row.owner.as_ref() == Some(worker) && !row.is_finished())
}

fn would_leave(worker: &WorkerId, shards: &[String]) -> String {
    let mut text =
        format!("{worker} would be asked to leave and to hand over {}", counted(shards.len(), "lease"));
    for shard in shards {
        text.push_str(&format!("\n  {shard}"));
    }
    text
}
