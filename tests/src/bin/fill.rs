//! How full items are and what they cost, for several keys: prints the table of docs/batching.md. Its last line is one
//! JSON object.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use sluicegate_tests::fill::events::{Event, incompressible, keyed, lines_of};
use sluicegate_tests::fill::shard::Pace;
use sluicegate_tests::fill::{Fill, Measured, measure};
use sluicegate_worker::config::Config;
use sluicegate_worker::consumer::batcher::ClosedBy;
use sluicegate_worker::worker::Settings;

/// Measures how full items are.
#[derive(Debug, Parser)]
struct Args {
    /// Events: newline-delimited JSON, plain or compressed
    file: PathBuf,
    /// Keys to measure with: templates over JSON pointers; `none` gives each event its own
    #[arg(long = "key", default_values = [
        "{/origin}", "{/carrier}", "{/dest}", "{/carrier}-{/month}", "{/tailnum}", "none",
    ])]
    keys: Vec<String>,
    /// Shards of the stream, each count by itself
    #[arg(long = "shards", default_values_t = [1, 4])]
    shards: Vec<u32>,
    /// Write units a second that the table gives each shard
    #[arg(long, default_value_t = Pace::BACKLOG.write_units)]
    write_units: u64,
    /// A setting, as in the file of `sluicegate run --config`: name=value
    #[arg(long = "set", value_parser = name_and_value)]
    settings: Vec<(String, String)>,
}

fn name_and_value(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once('=').context("give name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// One line of the table.
struct Row {
    key: String,
    shards: u32,
    measured: Measured,
}

#[expect(clippy::print_stdout, reason = "the results of a program that a person started")]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let settings = settings(&args.settings)?;
    let pace = Pace { write_units: args.write_units, ..Pace::BACKLOG };
    let lines = lines_of(&args.file)?;
    println!(
        "| key | keys | shards | batches | by size | fill by size (items) | (batches) | fill, all | items | WCU an event | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    let mut add = |key: &str, shards: u32, events: &[Event]| -> anyhow::Result<()> {
        let measured = measure(&settings, events, shards, pace)?;
        let row = Row { key: key.to_owned(), shards, measured };
        println!("{}", row.text());
        rows.push(row);
        Ok(())
    };
    for key in &args.keys {
        let events = keyed(&lines, (key != "none").then_some(key.as_str()))?;
        for shards in &args.shards {
            add(key, *shards, &events)?;
        }
    }
    add("1 KB, incompressible", 1, &incompressible(1, 65_536, 1_024))?;
    let all: Vec<_> = rows.iter().map(Row::json).collect();
    println!("{}", serde_json::json!({ "rows": all }));
    Ok(())
}

fn settings(given: &[(String, String)]) -> anyhow::Result<Settings> {
    let mut overrides = Vec::new();
    for (name, value) in given {
        let known = sluicegate_worker::config::SETTINGS.iter().find(|setting| setting.name == name);
        overrides.push((known.with_context(|| format!("there is no setting `{name}`"))?.name, value.clone()));
    }
    Ok(Config::load(None, &overrides)?.settings)
}

impl Row {
    fn by_size(&self) -> Fill {
        self.measured.closed_by.get(&ClosedBy::Size).copied().unwrap_or_default()
    }

    fn text(&self) -> String {
        let (all, by_size) = (self.measured.all, self.by_size());
        format!(
            "| `{}` | {} | {} | {} | {} | {:.1}% | {:.1}% | {:.1}% | {} | {:.4} | {:.1} |",
            self.key,
            self.measured.keys,
            self.shards,
            all.batches,
            by_size.batches,
            100.0 * by_size.of_items(),
            100.0 * by_size.of_batches(),
            100.0 * all.of_items(),
            all.items,
            all.write_units_per_event(),
            all.ratio(),
        )
    }

    fn json(&self) -> serde_json::Value {
        let (all, by_size) = (self.measured.all, self.by_size());
        serde_json::json!({
            "key": self.key,
            "keys": self.measured.keys,
            "shards": self.shards,
            "batches": all.batches,
            "batches_by_size": by_size.batches,
            "fill_by_size": by_size.of_items(),
            "mean_fill_by_size": by_size.of_batches(),
            "fill": all.of_items(),
            "items": all.items,
            "wcu_per_event": all.write_units_per_event(),
            "ratio": all.ratio(),
        })
    }
}
