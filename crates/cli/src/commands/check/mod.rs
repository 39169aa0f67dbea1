//! `sluicegate check`: the configuration in force and where each value came from, what it comes to, what contradicts, the IAM
//! policy it needs; with `--preflight`, whether the role really may.

use std::path::PathBuf;

use comfy_table::{Cell, Color, Table};
use serde_json::json;
use sluicegate_lease::dynamodb::worker_table_name;
use sluicegate_sink::CapacitySource;
use sluicegate_sink::dynamodb::DynamoDbItems;
use sluicegate_worker::config::{Explained, Outcome, Provenance};
use sluicegate_worker::kinesis::KinesisStream;
use sluicegate_worker::{Config, ConfigError, Distribution, StreamReader};

use crate::app;
use crate::aws::{self, Aws, AwsArgs};
use crate::aws_names;
use crate::exit::{bad_config, bad_configs};
use crate::output;

mod budget;
mod policy;
mod preflight;

use budget::Asked;
use policy::{Names, Place};
use preflight::{Tried, Verdict};

/// Check a configuration before a worker runs with it: nothing is started and nothing is changed
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 fit to run, 64 settings that cannot be used, 1 --preflight found something missing."
)]
pub(crate) struct Args {
    /// Stream to read, by name or ARN
    #[arg(long, value_parser = aws_names::stream)]
    stream: String,
    /// Name of the application
    #[arg(long, value_parser = aws_names::application)]
    application: String,
    /// Analytics table [default: the application's name and `-events`]
    #[arg(long, value_parser = aws_names::table)]
    table: Option<String>,
    /// Table of events that can never be stored [default: the application's name and `-dead-letters`]
    #[arg(long, value_name = "TABLE", value_parser = aws_names::table)]
    dead_letters: Option<String>,
    /// Where the application starts the first time, if `run` is given it as a flag
    #[arg(long)]
    initial_position: Option<String>,
    /// Configuration file (TOML); `sluicegate run --help` lists the settings
    #[arg(long)]
    config: Option<PathBuf>,
    /// Shards that one worker will hold, for the memory it takes and what the fleet costs
    #[arg(long, default_value_t = 16)]
    shards: usize,
    /// Workers of the fleet, for what it costs
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// AWS account of the tables, for the policy [default: any]
    #[arg(long, value_parser = aws_names::account)]
    account: Option<String>,
    /// Print the IAM policy alone
    #[arg(long, conflicts_with_all = ["preflight", "json"])]
    policy: bool,
    /// Try each call that a worker makes on the real stream and tables, and say which the role may not make. Nothing is
    /// changed: writes have a condition that cannot hold
    #[arg(long)]
    preflight: bool,
    /// One JSON object: settings, outcome, advice, error (the first) and errors, policy, preflight
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    aws: AwsArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let names = Names {
        leases: args.application.clone(),
        workers: worker_table_name(&args.application),
        events: args.table.clone().unwrap_or_else(|| app::default_table(&args.application)),
        letters: args.dead_letters.clone().unwrap_or_else(|| app::default_dead_letters(&args.application)),
        stream: args.stream.clone(),
    };
    let place = Place::new(&aws::named_region(&args.aws), args.account.as_deref());
    let policy = policy::policy(&place, &names);
    if args.policy {
        output::line(&serde_json::to_string_pretty(&policy)?);
        return Ok(());
    }
    let overrides: Vec<_> =
        args.initial_position.iter().map(|text| ("initial_position", text.clone())).collect();
    let explained = match Config::explain(args.config.as_deref(), &overrides) {
        Ok(explained) => explained,
        Err(error) => {
            if args.json {
                output::json(&unreadable(&error, &policy))?;
            }
            return Err(bad_config(error));
        }
    };
    let (tried, asked, distribution) = if args.preflight {
        let aws = Aws::load(&args.aws).await?;
        let table = DynamoDbItems::new(aws.dynamodb(), &names.events);
        // Whether it may be asked is among the calls that are tried.
        let capacity = table.capacity().await.unwrap_or_default();
        let distributed = KinesisStream::new(aws.kinesis(), &names.stream).distribution().await;
        let tried = preflight::preflight(&aws.kinesis(), &aws.dynamodb(), &names).await;
        (Some(tried), Asked::Said(capacity), distributed.ok().map(|distributed| distributed.by))
    } else {
        (None, Asked::NotAsked, None)
    };
    let checked =
        Checked { distribution, explained: &explained, policy: &policy, tried: tried.as_deref(), asked };
    if args.json {
        output::json(&as_json(&checked, &args))?;
    } else {
        show(&checked, &args)?;
    }
    verdict(explained.config, tried.as_deref())
}

/// What is told.
#[derive(Clone, Copy)]
struct Checked<'a> {
    explained: &'a Explained,
    policy: &'a serde_json::Value,
    tried: Option<&'a [Tried]>,
    /// What the table said of its capacity.
    asked: Asked,
    /// Who distributes the stream's records, if it said so.
    distribution: Option<Distribution>,
}

/// How the command ends.
fn verdict(config: Result<Config, Vec<ConfigError>>, tried: Option<&[Tried]>) -> anyhow::Result<()> {
    config.map_err(|errors| bad_configs(&errors))?;
    let missing = tried.unwrap_or_default().iter().filter(|tried| tried.verdict != Verdict::Allowed).count();
    anyhow::ensure!(missing == 0, "{} cannot be made", output::counted(missing, "call"));
    Ok(())
}

/// What [`as_json`] is of a configuration that cannot be read: there are no settings to tell.
fn unreadable(error: &ConfigError, policy: &serde_json::Value) -> serde_json::Value {
    let error = error.to_string();
    json!({
        "settings": null,
        "error": error,
        "errors": [error],
        "advice": [],
        "outcome": null,
        "policy": policy,
        "preflight": null,
    })
}

fn as_json(checked: &Checked<'_>, args: &Args) -> serde_json::Value {
    let Checked { explained, policy, tried, asked, distribution } = *checked;
    let settings: Vec<_> = explained
        .settings
        .iter()
        .map(|setting| json!({ "name": setting.name, "value": setting.value, "from": setting.from.to_string() }))
        .collect();
    let config = explained.config.as_ref();
    let errors: Vec<String> = config.err().into_iter().flatten().map(ToString::to_string).collect();
    json!({
        "settings": settings,
        "error": errors.first(),
        "errors": errors,
        "advice": config.map(|config| config.advice(distribution)).unwrap_or_default(),
        "outcome": config.ok().map(|config| {
            let outcome = config.outcome(args.shards, args.workers);
            json!({
                "failover_within_seconds": outcome.failover_within.as_secs_f64(),
                "durable_within_seconds": outcome.durable_within.as_secs_f64(),
                "stops_within_seconds": outcome.stops_within.as_secs_f64(),
                "resident_bytes": outcome.resident_bytes,
                "heartbeats_per_minute": outcome.heartbeats_per_minute,
                "lease_and_worker_table": {
                    "writes_per_second": outcome.at_rest.writes,
                    "reads_per_second": outcome.at_rest.reads,
                    "writes_per_second_under_load": outcome.at_rest.writes + outcome.lease_writes_under_load,
                    "dollars_per_month": outcome.lease_dollars.0,
                    "dollars_per_month_under_load": outcome.lease_dollars.1,
                },
                "events_table_dollars_per_month": outcome.events_dollars,
                "write_budget": budget::as_json(config.settings.write_budget, asked),
            })
        }),
        "policy": policy,
        "preflight": tried,
    })
}

fn show(checked: &Checked<'_>, args: &Args) -> anyhow::Result<()> {
    let Checked { explained, policy, tried, asked, distribution } = *checked;
    output::line(&table(explained).to_string());
    if let Ok(config) = &explained.config {
        let outcome = config.outcome(args.shards, args.workers);
        output::line(&comes_to(&outcome, args.shards));
        output::line(&format!("\n{}", budget::told(config.settings.write_budget, asked)));
        output::line(&costs(&outcome, args.workers));
        for advice in config.advice(distribution) {
            output::line(&format!("Note: {advice}."));
        }
    }
    output::line("\nThe worker's role needs this policy (alone: --policy):");
    output::line(&serde_json::to_string_pretty(policy)?);
    if let Some(tried) = tried {
        output::line("");
        let missing = tried.iter().filter(|tried| tried.verdict != Verdict::Allowed);
        missing.for_each(|tried| output::line(&tried.to_string()));
        let allowed = tried.iter().filter(|tried| tried.verdict == Verdict::Allowed).count();
        output::line(&format!("{allowed} of {} calls can be made.", tried.len()));
    }
    Ok(())
}

fn table(explained: &Explained) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["setting", "value", "from"]);
    for setting in &explained.settings {
        let colour = |cell: Cell| match setting.from {
            Provenance::Default => cell,
            Provenance::File(_) | Provenance::Variable(_) | Provenance::Flag => cell.fg(Color::Cyan),
        };
        table.add_row([
            colour(Cell::new(setting.name)),
            colour(Cell::new(&setting.value)),
            colour(Cell::new(&setting.from)),
        ]);
    }
    table
}

fn comes_to(outcome: &Outcome, shards: usize) -> String {
    let duration = humantime::format_duration;
    format!(
        "\nA dead worker's shards are taken within {}. An event is durable within {} even if its worker dies just before, while\n\
         the table keeps up. A stop takes {} at most: give pods more. A worker with {} keeps {} MiB resident at most.",
        duration(outcome.failover_within),
        duration(outcome.durable_within),
        duration(outcome.stops_within),
        output::counted(shards, "shard"),
        outcome.resident_bytes >> 20,
    )
}

fn costs(outcome: &Outcome, workers: u32) -> String {
    let (rest, load) = outcome.lease_dollars;
    let table = outcome
        .events_dollars
        .map(|dollars| format!("A table provisioned for write_budget_wcu costs ${dollars:.2} a month.\n"))
        .unwrap_or_default();
    format!(
        "\nA fleet of {} with as many shards each takes {:.1} write and {:.1} read units a second of its lease and worker tables\n\
         at rest, and {:.1} writes more while all shards carry events and batches are closed by age: ${rest:.2} to ${load:.2} a month\n\
         on demand, more where rows are large, batches close earlier, or workers cannot reach each other.\n\
         {table}List prices in us-east-1, without stream, storage and processors: docs/sizing.md.",
        output::counted(usize::try_from(workers).unwrap_or(usize::MAX), "worker"),
        outcome.at_rest.writes,
        outcome.at_rest.reads,
        outcome.lease_writes_under_load,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn json_tells_all_that_is_wrong_and_the_first_of_it() {
        use clap::Parser;
        let cli = Cli::parse_from(["check", "--stream", "orders", "--application", "billing"]);
        let flags = [("failover_time", "3s"), ("safety_margin", "2s"), ("spread", "5000")];
        let flags = flags.map(|(name, value)| (name, value.to_owned()));
        let explained = Config::explain(None, &flags).unwrap();
        let policy = json!({});
        let (asked, distribution) = (Asked::NotAsked, None);
        let checked = |explained| Checked { explained, policy: &policy, tried: None, asked, distribution };
        let told = as_json(&checked(&explained), &cli.args);
        let errors = told["errors"].as_array().unwrap();
        assert_eq!((errors.len(), &told["error"]), (2, &errors[0]));
        let fit = as_json(&checked(&Config::explain(None, &[]).unwrap()), &cli.args);
        assert_eq!(fit["outcome"]["write_budget"]["source"], "table");
        assert_eq!((&fit["error"], &fit["errors"]), (&json!(null), &json!([])));
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let unreadable = unreadable(&ConfigError::Unreadable("no".to_owned()), &json!({}));
        assert_eq!(keys(&unreadable), keys(&told));
        assert_eq!(
            (&unreadable["settings"], &unreadable["error"]),
            (&json!(null), &json!("configuration: no"))
        );
    }
}
