//! `sluicegate-measure`: what real processes do on the embedded backend when workers are killed, shards change hands, a table
//! throttles, fails or stands still, a burst comes, or all of it at once. The last line is one JSON object. `make` runs it:
//! failover, handoff, budget, capacity, lift, memory, outage, stalled, hotkey, burst, chaos, reads.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use sluicegate_tests::measure::budget::{self, BudgetPlan};
use sluicegate_tests::measure::burst::{self, BurstPlan};
use sluicegate_tests::measure::capacity::{self, CapacityPlan};
use sluicegate_tests::measure::chaos::{self, ChaosPlan};
use sluicegate_tests::measure::hardship::{self, Hardship, Trouble};
use sluicegate_tests::measure::lift::{self, Budget, LiftPlan, Scenario};
use sluicegate_tests::measure::memory::{self, MemoryPlan};
use sluicegate_tests::measure::poison::{self, PoisonPlan};
use sluicegate_tests::measure::reads::{self, ReadsPlan};
use sluicegate_tests::measure::{Distribution, Plan, failover, handoff};

/// Measures failover and handoff with real processes on the embedded backend, under a steady load.
#[derive(Debug, Parser)]
#[command(name = "sluicegate-measure")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// SIGKILL to the first records of the last of the worker's shards
    Failover {
        /// Kills
        #[arg(long, default_value_t = 50)]
        kills: usize,
        #[command(flatten)]
        fleet: FleetArgs,
    },
    /// What a throttling table takes of a fleet with a write budget and a backlog, second by second
    Budget {
        /// Minutes, after the fleet has come together
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Write capacity units a second: the table's, and the fleet's budget
        #[arg(long, default_value_t = 4_000)]
        budget_wcu: u32,
        /// Time between two changes of the fleet, a kill or a start; 0s changes nothing
        #[arg(long, default_value = "30s")]
        churn: humantime::Duration,
        /// Print each second as well
        #[arg(long)]
        seconds: bool,
        #[command(flatten)]
        fleet: FleetArgs,
    },
    /// A table whose capacity is cut to a quarter and doubled again, and a fleet that starts again in between
    Capacity {
        /// Minutes of each phase
        #[arg(long, default_value_t = 1.0)]
        minutes: f64,
        /// Write capacity units a second: the table's at first, and the fleet's budget
        #[arg(long, default_value_t = 4_000)]
        budget_wcu: u32,
        /// Print each second as well
        #[arg(long)]
        seconds: bool,
        #[command(flatten)]
        fleet: FleetArgs,
    },
    /// How soon fleets use what a table gives again, and whether each worker gets its part
    ///
    /// Every size of fleet plays with every budget, several at the same time; all of it takes about 36 minutes. A part of it:
    /// `lift --workers 2 --budgets none --scenarios refused-start` takes a minute.
    Lift(LiftArgs),
    /// Whether a worker's memory stays within its formula whatever the stream holds
    Memory(MemoryArgs),
    /// A burst of many times what the table takes, with and without Sluicegate in between, as a picture
    Burst(BurstArgs),
    /// Workers killed, frozen and dismissed, shards split and merged, and a backend that misbehaves
    Chaos {
        /// Minutes of it
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// What is done, and when, follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Workers
        #[arg(long, default_value_t = 6)]
        workers: usize,
        /// Shards
        #[arg(long, default_value_t = 16)]
        shards: usize,
        /// The workers' failover_time
        #[arg(long, default_value = "3s")]
        failover_time: humantime::Duration,
        /// Events a second, all producers together
        #[arg(long, default_value_t = 300)]
        rate: u32,
        /// Folder for what came out, as text and as a picture
        #[arg(long, value_name = "DIR")]
        evidence: Option<std::path::PathBuf>,
        /// A Prometheus to scrape the fleet with: the alerts that should fire must, and no others of the grave ones
        #[arg(long, value_name = "PROGRAM")]
        prometheus: Option<std::path::PathBuf>,
    },
    /// A table that refuses every write for a while
    Outage(HardshipArgs),
    /// A table that answers no write for a while
    Stalled(HardshipArgs),
    /// A backlog of events of one key
    Hotkey(HardshipArgs),
    /// Events that the table never takes
    Poison {
        /// Minutes, after the fleet has come together
        #[arg(long, default_value_t = 2.0)]
        minutes: f64,
        /// One event of so many can never be stored
        #[arg(long, default_value_t = 5_000)]
        every: u64,
        /// Aggregate keys of each shard
        #[arg(long, default_value_t = 50)]
        keys: u64,
        /// Write capacity units a second: the table's, and the fleet's budget
        #[arg(long, default_value_t = 4_000)]
        budget_wcu: u32,
        #[command(flatten)]
        fleet: FleetArgs,
    },
    /// How much of what a shard leaves a worker reads, and what it is refused, beside KCL where there is Java
    Reads {
        /// How long each row is measured
        #[arg(long, default_value = "20s")]
        lasts: humantime::Duration,
        /// How long a reader reads before that
        #[arg(long, default_value = "10s")]
        settling: humantime::Duration,
        /// Leave KCL out
        #[arg(long)]
        without_kcl: bool,
    },
    /// Last records read by the old owner to the first read by the new one
    Handoff {
        /// Moved shards, at least
        #[arg(long, default_value_t = 200)]
        moves: usize,
        #[command(flatten)]
        fleet: FleetArgs,
    },
}

#[derive(Debug, Args)]
struct MemoryArgs {
    /// Kinds of records
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "large,megabytes,small-user-records,empty-user-records,long-keys,mixed"
    )]
    loads: Vec<memory::Load>,
    /// The worker's buffer_bytes, in MiB
    #[arg(long, value_delimiter = ',', default_value = "32,128")]
    buffers_mib: Vec<usize>,
    /// Shards over which each load is spread; default: 4 to 48, by load
    #[arg(long)]
    shards: Option<usize>,
    /// Longest that a worker may take to store everything
    #[arg(long, default_value = "3m")]
    within: humantime::Duration,
}

#[derive(Debug, Args)]
struct LiftArgs {
    /// Workers of the fleets
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,16")]
    workers: Vec<usize>,
    /// Write budgets of the fleets: budget (the table's capacity as a number), auto (what the table says), none
    #[arg(long, value_delimiter = ',', default_value = "budget,auto,none")]
    budgets: Vec<Budget>,
    /// What happens to each: refused-start, staggered-start, outage (5% for 5 s), half-minute and five-minutes (1 unit a
    /// second for so long), doubling, quartering
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "refused-start,staggered-start,outage,half-minute,five-minutes,doubling,quartering"
    )]
    scenarios: Vec<Scenario>,
    /// What each table takes, in units a second
    #[arg(long, default_value_t = 1_500)]
    capacity: u32,
    /// Shards for each worker
    #[arg(long, default_value_t = 4)]
    shards_per_worker: usize,
    /// The workers' failover_time
    #[arg(long, default_value = "10s")]
    failover_time: humantime::Duration,
    /// Workers that run at the same time, at most. On two cores more are limited by the processor, not by their tables
    #[arg(long, default_value_t = 24)]
    at_once: usize,
    /// Print what each worker wrote in windows of 3 s as well
    #[arg(long)]
    windows: bool,
    /// Folder for what came out
    #[arg(long, value_name = "DIR")]
    evidence: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
struct BurstArgs {
    /// Write capacity units a second: the table's, and the fleet's budget
    #[arg(long, default_value_t = 200)]
    table_wcu: u32,
    /// Events a second for each of them
    #[arg(long, default_value_t = 20)]
    times: u32,
    /// How long it takes
    #[arg(long, default_value = "60s")]
    lasts: humantime::Duration,
    /// Workers
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Shards
    #[arg(long, default_value_t = 16)]
    shards: usize,
    /// Aggregate keys of the events of each shard
    #[arg(long, default_value_t = 16)]
    keys_per_shard: u64,
    /// Most events that the writer without Sluicegate keeps
    #[arg(long, default_value_t = 30_000)]
    queue: usize,
    /// Where the picture goes
    #[arg(long, default_value = "burst.svg")]
    svg: std::path::PathBuf,
}

#[derive(Debug, Args)]
struct HardshipArgs {
    /// Minutes of it
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Write capacity units a second: the table's, and the fleet's budget
    #[arg(long, default_value_t = 4_000)]
    budget_wcu: u32,
    /// The workers' buffer_bytes, in MiB
    #[arg(long, default_value_t = 128)]
    buffer_mib: u32,
    #[command(flatten)]
    fleet: FleetArgs,
}

#[derive(Debug, Args)]
struct FleetArgs {
    /// Workers
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Shards
    #[arg(long, default_value_t = 16)]
    shards: usize,
    /// The workers' failover_time
    #[arg(long, default_value = "10s")]
    failover_time: humantime::Duration,
    /// Events a second, all shards together
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Chooses who is disturbed, and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl FleetArgs {
    fn plan(&self, count: usize) -> Plan {
        Plan {
            count,
            workers: self.workers,
            shards: self.shards,
            failover_time: self.failover_time.into(),
            rate: self.rate,
            seed: self.seed,
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match measure(Cli::parse().what).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(&mut std::io::stderr(), &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn measure(what: What) -> anyhow::Result<()> {
    let say = |line: &str| print(&mut std::io::stdout(), line);
    let show = |gaps: &Distribution, json: serde_json::Value| {
        say(&gaps.histogram());
        say(&json.to_string());
    };
    match what {
        What::Budget { minutes, budget_wcu, churn, seconds, fleet } => {
            let plan = BudgetPlan {
                plan: fleet.plan(0),
                budget_wcu,
                lasts: Duration::try_from_secs_f64(minutes * 60.0)?,
                churn: (!churn.is_zero()).then(|| churn.into()),
                batch_age: None,
            };
            let report = budget::run(plan, "measure-budget", say).await?;
            for second in report.seconds.iter().filter(|_| seconds) {
                say(&second_text(second));
            }
            say(&report.json(&plan).to_string());
        }
        What::Capacity { minutes, budget_wcu, seconds, fleet } => {
            let phase = Duration::try_from_secs_f64(minutes * 60.0)?;
            let plan = CapacityPlan { plan: fleet.plan(0), budget_wcu, phase, batch_age: None };
            let report = capacity::run(plan, "measure-capacity", say).await?;
            let phases = [&report.cut, &report.again, &report.doubled];
            for second in phases.into_iter().flat_map(|phase| &phase.seconds).filter(|_| seconds) {
                say(&second_text(second));
            }
            say(&report.json(&plan).to_string());
        }
        What::Chaos { minutes, seed, workers, shards, failover_time, rate, evidence, prometheus } => {
            if prometheus.is_none() {
                say("SKIPPED: no Prometheus watches, so alerts are not judged");
            }
            let lasts = Duration::try_from_secs_f64(minutes * 60.0)?;
            let plan = ChaosPlan { lasts, seed, workers, shards, failover_time: failover_time.into(), rate };
            let report =
                chaos::run(plan, &format!("measure-chaos-{seed}"), prometheus.as_deref(), say).await?;
            if let Some(folder) = evidence {
                report.write_evidence(&folder)?;
            }
            say(&report.json().to_string());
            report.verdict()?;
        }
        What::Lift(args) => lift_all(args, say).await?,
        What::Memory(args) => weigh(args, say).await?,
        What::Burst(args) => draw_burst(args, say).await?,
        What::Outage(args) => endure(Trouble::Outage, args, say).await?,
        What::Stalled(args) => endure(Trouble::Stall, args, say).await?,
        What::Hotkey(args) => endure(Trouble::HotKey, args, say).await?,
        What::Poison { minutes, every, keys, budget_wcu, fleet } => {
            let lasts = Duration::try_from_secs_f64(minutes * 60.0)?;
            let plan = PoisonPlan { plan: fleet.plan(0), lasts, every, keys, budget_wcu, defaults: true };
            let report = poison::run(plan, "measure-poison", say).await?;
            show(&report.added, report.json(&plan));
        }
        What::Reads { lasts, settling, without_kcl } => {
            let plan = ReadsPlan { lasts: lasts.into(), settling: settling.into(), kcl: !without_kcl };
            let report = reads::run(plan, "measure-reads", say).await?;
            say(&report.json(&plan).to_string());
        }
        What::Failover { kills, fleet } => {
            let plan = fleet.plan(kills);
            let report = failover::run(plan, "measure-failover", say).await?;
            show(&report.gaps, report.json(&plan));
        }
        What::Handoff { moves, fleet } => {
            let plan = fleet.plan(moves);
            let report = handoff::run(plan, "measure-handoff", say).await?;
            show(&report.gaps, report.json(&plan));
        }
    }
    Ok(())
}

/// When, units accepted, units refused.
fn second_text(second: &budget::Second) -> String {
    format!("{} {} {}", second.second, second.accepted, second.refused)
}

async fn weigh(args: MemoryArgs, say: impl Fn(&str)) -> anyhow::Result<()> {
    let plan = MemoryPlan {
        loads: args.loads,
        buffers_mib: args.buffers_mib,
        shards: args.shards,
        within: args.within.into(),
    };
    let outcomes = memory::run(&plan, "measure-memory", &say).await?;
    say(&memory::json(&outcomes).to_string());
    Ok(())
}

async fn lift_all(args: LiftArgs, say: impl Fn(&str)) -> anyhow::Result<()> {
    let plan = LiftPlan {
        workers: args.workers,
        budgets: args.budgets,
        scenarios: args.scenarios,
        capacity: args.capacity,
        shards_per_worker: args.shards_per_worker,
        failover_time: args.failover_time.into(),
        at_once: args.at_once,
    };
    let report = lift::run(&plan, &say).await?;
    for outcome in report.outcomes.iter().filter(|_| args.windows) {
        say(&outcome.windows_text());
    }
    say(&report.table());
    if let Some(folder) = args.evidence {
        report.write_evidence(&folder)?;
    }
    say(&report.json().to_string());
    Ok(())
}

async fn draw_burst(args: BurstArgs, say: impl Fn(&str)) -> anyhow::Result<()> {
    let plan = BurstPlan {
        table_wcu: args.table_wcu,
        times: args.times,
        lead: Duration::from_secs(5),
        lasts: args.lasts.into(),
        shards: args.shards,
        keys_per_shard: args.keys_per_shard,
        workers: args.workers,
        queue: args.queue,
        // Items that a table of so little capacity takes without saving up for them.
        settings: vec![("max_item_bytes", "64KiB".to_owned())],
    };
    let report = burst::run(&plan, "measure-burst", &say).await?;
    std::fs::write(&args.svg, report.picture(&plan))
        .with_context(|| format!("cannot write {}", args.svg.display()))?;
    say(&report.json(&plan).to_string());
    Ok(())
}

async fn endure(trouble: Trouble, args: HardshipArgs, say: impl Fn(&str)) -> anyhow::Result<()> {
    let hardship = Hardship {
        plan: args.fleet.plan(0),
        trouble,
        lasts: Duration::try_from_secs_f64(args.minutes * 60.0)?,
        budget_wcu: args.budget_wcu,
        buffer_mib: args.buffer_mib,
        batch_age: None,
    };
    let report = hardship::run(hardship, "measure-hardship", &say).await?;
    say(&report.json(&hardship).to_string());
    Ok(())
}

/// A closed output is nobody's loss.
fn print(to: &mut impl Write, line: &str) {
    drop(writeln!(to, "{line}"));
}
