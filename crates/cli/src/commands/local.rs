//! `sluicegate local`: the embedded backend as a process of its own.

use std::path::{Path, PathBuf};

use anyhow::Context;
use sluicegate_local::{DynamoDbLimits, FaultScript, KinesisLimits, LocalConfig, LocalServer};
use sluicegate_worker::telemetry::{LogFormat, start_logging};

use crate::aws::{LOCAL_DYNAMODB_PORT, LOCAL_KINESIS_PORT};
use crate::exit::bad_config;
use crate::{output, stop};

const HELP: &str = "\
While it runs, with curl at either endpoint:
  GET  /ledger   what was accepted and refused, by table or stream, in total and by second
  GET  /limits   what is enforced; POST changes it: curl -d 'tables.flights-events.wcu = 1000' $DYNAMODB/limits
  GET  /faults   what is injected; POST replaces it: curl --data-binary @faults.toml $DYNAMODB/faults

A fault script, for instance a table that is gone from the 10th to the 70th second, and slow before and after:
  [[fault]]
  table = \"flights-events\"
  from = \"10s\"
  until = \"70s\"
  outage = \"refuse\"
  [[fault]]
  service = \"dynamodb\"
  latency = { p50 = \"8ms\", p99 = \"120ms\" }
All of it: docs/local.md";

/// Run an embedded Kinesis (in memory) and DynamoDB on loopback; other commands reach it with --embedded
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP, after_help = "More, and how to make it push back and fail: --help")]
pub(crate) struct Args {
    /// Port of Kinesis; 0 takes any free one
    #[arg(long, default_value_t = LOCAL_KINESIS_PORT)]
    kinesis_port: u16,
    /// Port of DynamoDB; 0 takes any free one
    #[arg(long, default_value_t = LOCAL_DYNAMODB_PORT)]
    dynamodb_port: u16,
    /// Folder for DynamoDB's data; without it everything is in memory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Refuse what AWS would refuse; without it nothing is throttled
    ///
    /// Tables in provisioned mode are held to their own write capacity, partition keys to --partition-key-wcu, shards to
    /// 1 MB and 1,000 records a second written, 2 MB and 5 calls a second read.
    #[arg(long, help_heading = "Limits")]
    enforce_limits: bool,
    /// Hold a table to so many write units a second, whatever its billing mode and with or without --enforce-limits
    ///
    /// May be given several times, for instance --table-wcu flights-events=4000.
    #[arg(long, value_name = "TABLE=WCU", value_parser = table_and_units, help_heading = "Limits")]
    table_wcu: Vec<(String, u64)>,
    /// Write units a second for one partition key
    #[arg(long, value_name = "WCU", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..),
          requires = "enforce_limits", help_heading = "Limits")]
    partition_key_wcu: u64,
    /// For how many seconds a table keeps write capacity that it did not use; 0 is as good as 1
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Limits")]
    burst_seconds: u32,
    /// Inject the faults of this script (TOML); its time begins when the backend is ready
    #[arg(long, value_name = "FILE", help_heading = "Faults")]
    faults: Option<PathBuf>,
    /// What the random numbers of the faults follow from; the one in the script by default
    #[arg(long, requires = "faults", help_heading = "Faults")]
    seed: Option<u64>,
    /// Write each accepted record and each write of a table into this file, as one line of JSON, before it is answered
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Print the endpoints as one JSON object
    #[arg(long)]
    json: bool,
    /// End when standard input closes
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    start_logging("info", LogFormat::Text);
    let stop = stop::on_signal(args.until_stdin_closes)?;
    let config = LocalConfig {
        kinesis_port: args.kinesis_port,
        dynamodb_port: args.dynamodb_port,
        dir: args.dir.clone(),
        dynamodb_limits: table_limits(&args),
        kinesis_limits: KinesisLimits { enforce: args.enforce_limits, ..KinesisLimits::default() },
        faults: args.faults.as_deref().map_or(Ok(FaultScript::default()), |path| script(path, args.seed))?,
        journal: args.journal.clone(),
        ..LocalConfig::default()
    };
    let server = LocalServer::start(config).await?;
    let endpoints = server.endpoints();
    if args.json {
        output::json(&serde_json::json!({ "kinesis": endpoints.kinesis, "dynamodb": endpoints.dynamodb }))?;
    } else {
        output::line(&format!("export AWS_ENDPOINT_URL_KINESIS={}", endpoints.kinesis));
        output::line(&format!("export AWS_ENDPOINT_URL_DYNAMODB={}", endpoints.dynamodb));
        let kept = args.dir.map_or_else(|| "in memory".to_owned(), |dir| format!("in {}", dir.display()));
        output::note(&format!("Kinesis is in memory, DynamoDB {kept}. Ctrl-C ends it."));
        output::note(
            "On the default ports other commands need only --embedded; otherwise give them the two lines above too.",
        );
    }
    stop.cancelled().await;
    server.stop().await;
    Ok(())
}

fn table_limits(args: &Args) -> DynamoDbLimits {
    let mut limits = DynamoDbLimits {
        enforce: args.enforce_limits,
        burst_seconds: args.burst_seconds,
        partition_key_wcu: args.partition_key_wcu,
        ..DynamoDbLimits::default()
    };
    for (table, wcu) in &args.table_wcu {
        limits.tables.entry(table.clone()).or_default().wcu = Some(*wcu);
    }
    limits
}

fn script(path: &Path, seed: Option<u64>) -> anyhow::Result<FaultScript> {
    let document =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let script =
        FaultScript::parse(&document).map_err(|error| bad_config(format!("{}: {error}", path.display())))?;
    Ok(FaultScript { seed: seed.or(script.seed), ..script })
}

/// `TABLE=WCU`.
fn table_and_units(text: &str) -> Result<(String, u64), String> {
    let wanted = || "a table and its write units a second are wanted, such as flights-events=4000".to_owned();
    let (table, units) = text.rsplit_once('=').ok_or_else(wanted)?;
    let units = units.parse().ok().filter(|units| *units > 0).ok_or_else(wanted)?;
    if table.is_empty() { Err(wanted()) } else { Ok((table.to_owned(), units)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        use clap::Parser;
        Line::try_parse_from(line.split(' ')).map(|line| line.args)
    }

    #[test]
    fn nothing_is_limited_unless_asked() {
        assert_eq!(table_limits(&parsed("local").unwrap()), DynamoDbLimits::default());
        let line = "local --enforce-limits --partition-key-wcu 50 --burst-seconds 0 --table-wcu a=4000";
        let limits = table_limits(&parsed(line).unwrap());
        assert_eq!((limits.enforce, limits.partition_key_wcu, limits.burst_seconds), (true, 50, 0));
        assert_eq!(limits.tables["a"].wcu, Some(4_000));
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_refused() {
        for line in [
            "--table-wcu a",
            "--table-wcu a=0",
            "--table-wcu =5",
            "--table-wcu a=x",
            "--partition-key-wcu 5",
            "--seed 3",
        ] {
            parsed(&format!("local {line}")).unwrap_err();
        }
    }

    #[test]
    fn a_seed_given_beside_the_script_counts_and_a_mistake_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("faults.toml");
        std::fs::write(&path, "seed = 3\n[[fault]]\noutage = 'refuse'\n").unwrap();
        assert_eq!(script(&path, None).unwrap().seed, Some(3));
        assert_eq!(script(&path, Some(4)).unwrap().seed, Some(4));
        std::fs::write(&path, "[[fault]]\n").unwrap();
        let told = script(&path, None).unwrap_err().to_string();
        assert!(told.contains("faults.toml: fault 1 of the script: it does nothing"), "{told}");
    }
}
