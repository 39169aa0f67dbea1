//! `sluicegate checkpoint get`: rows in full.

use sluicegate_checkpoint::Cut;
use sluicegate_lease::{Lease, LeaseKey};

use super::super::operator::fleet::{FleetArgs, Tables};
use super::super::operator::names;
use super::super::operator::row::{Row, Shown};
use crate::output;

/// Print the checkpoint and all that belongs to it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shards, by id or number; default: all
    shard: Vec<String>,
    /// One JSON object per shard
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    fleet: FleetArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let look = Tables::open(&args.fleet).await?.look().await?;
    let keys: Vec<LeaseKey> = match args.shard.as_slice() {
        [] => look.leases.keys().cloned().collect(),
        named => names::shards(named, &look)?,
    };
    for row in keys.iter().filter_map(|key| look.leases.get(key)) {
        if args.json {
            output::json(&Shown::of(row, &look.leases))?;
        } else {
            output::line(&text(row, &Shown::of(row, &look.leases)));
        }
    }
    Ok(())
}

fn text(row: &Lease, shown: &Shown) -> String {
    let mut text = match &shown.waits_for {
        Some(parent) => format!("{}  {} on {parent}", shown.shard, shown.state),
        None => format!("{}  {}", shown.shard, shown.state),
    };
    for (name, value) in Row::of(row).attributes() {
        text.push_str(&format!("\n  {name:<18} {value}"));
    }
    let cuts: Vec<Cut> = row.pending.state().map(|state| state.cuts).unwrap_or_default();
    for cut in cuts {
        let dropped = if cut.dropped { ", dropped" } else { "" };
        text.push_str(&format!(
            "\n    announced        {} to {}: {} records, revision {}{dropped}",
            cut.first, cut.last, cut.records, cut.revision
        ));
    }
    for (name, shards) in [("parents", &shown.parents), ("children", &shown.children)] {
        if !shards.is_empty() {
            text.push_str(&format!("\n  {name:<18} {}", shards.join(" ")));
        }
    }
    text
}
