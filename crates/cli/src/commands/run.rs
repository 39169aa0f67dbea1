//! `sluicegate run`: one worker of the fleet.

use std::net::SocketAddr;
use std::path::PathBuf;

use sluicegate_checkpoint::Unreadable;
use sluicegate_worker::Config;
use sluicegate_worker::config::{ENV_PREFIX, SETTINGS};
use sluicegate_worker::telemetry::start_logging;

use crate::app::{self, SinkKind, WorkerArgs};
use crate::aws::{Aws, AwsArgs};
use crate::aws_names;
use crate::exit::bad_config;
use crate::stop;

/// Run one worker: start as many as you like, at any time, on any machine; they share the stream's shards
#[derive(Debug, clap::Args)]
#[command(after_long_help = settings_help())]
pub(crate) struct Args {
    /// Stream to read, by name or ARN
    #[arg(long, value_parser = aws_names::stream)]
    stream: String,
    /// Name of the application: its lease table, and what its workers share
    #[arg(long, value_parser = aws_names::application)]
    application: String,
    /// Where the application starts the first time: TRIM_HORIZON, LATEST or AT_TIMESTAMP:2026-01-31T12:00:00Z
    #[arg(long)]
    initial_position: Option<String>,
    /// Analytics table [default: the application's name and `-events`]
    #[arg(long, value_parser = aws_names::table)]
    table: Option<String>,
    /// Table of events that can never be stored [default: the application's name and `-dead-letters`]
    #[arg(long, value_name = "TABLE", value_parser = aws_names::table)]
    dead_letters: Option<String>,
    /// Where batches go
    #[arg(long, value_enum, default_value_t = SinkKind::Dynamodb)]
    sink: SinkKind,
    /// Address of the admin server: the fleet page, /fleet, /metrics, /livez, /readyz, /nudge; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT", value_parser = aws_names::listen)]
    admin: SocketAddr,
    /// Where other workers reach the admin server (host:port), if not at the address it is bound to
    #[arg(long, value_name = "HOST:PORT", value_parser = aws_names::reached)]
    advertise: Option<String>,
    /// Configuration file (TOML); --help lists the settings
    #[arg(long)]
    config: Option<PathBuf>,
    #[cfg_attr(feature = "embedded", doc = "Create tables that are not there (always on with --embedded)")]
    #[cfg_attr(not(feature = "embedded"), doc = "Create tables that are not there")]
    #[arg(long)]
    create_tables: bool,
    /// End when standard input closes
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    /// Packing versions to make, ascending: for tests of a fleet of two builds
    #[arg(long, hide = true, value_delimiter = ',')]
    packing_versions: Option<Vec<u32>>,
    #[command(flatten)]
    aws: AwsArgs,
}

/// The settings as `--help` lists them.
fn settings_help() -> String {
    let mut text = format!(
        "Settings, in the file of --config or as environment variables ({ENV_PREFIX}FAILOVER_TIME=5s):\n"
    );
    for setting in SETTINGS {
        text.push_str(&format!(
            "  {} [default: {}]\n      {}\n",
            setting.name, setting.default, setting.help
        ));
    }
    text
}

/// Runs until SIGTERM or SIGINT, then finishes what is under way and frees its leases.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let overrides: Vec<_> =
        args.initial_position.iter().map(|text| ("initial_position", text.clone())).collect();
    let config = Config::load(args.config.as_deref(), &overrides).map_err(bad_config)?;
    if args.sink == SinkKind::Stdout && config.settings.parameters.reduce.is_some() {
        let why = "reduce is set, and --sink stdout writes events: partial sums that come again there would count twice";
        return Err(bad_config(why));
    }
    if args.sink == SinkKind::Stdout && config.settings.parameters.unreadable == Unreadable::DeadLetter {
        let why = "unreadable is dead-letter, the default with fields, and --sink stdout has no dead-letter table: set unreadable = keep, which writes events that cannot be read as they come, whole, or leave fields out";
        return Err(bad_config(why));
    }
    start_logging(&config.log, config.log_format);
    let stop = stop::on_signal(args.until_stdin_closes)?;
    let aws = Aws::load(&args.aws).await?;
    let worker_args = WorkerArgs {
        table: args.table.unwrap_or_else(|| app::default_table(&args.application)),
        dead_letters: args.dead_letters.unwrap_or_else(|| app::default_dead_letters(&args.application)),
        stream: args.stream,
        application: args.application,
        sink: args.sink,
        admin: args.admin,
        advertise: args.advertise,
        create_tables: args.create_tables || args.aws.is_embedded(),
        packing_versions: args.packing_versions,
    };
    let worker = tokio::select! { biased;
        () = stop.cancelled() => return Ok(()),
        worker = app::worker(&aws, &config, worker_args) => worker?,
    };
    worker.run(stop).await?;
    Ok(())
}
