//! `sluicegate leases`: who owns what, as it is and as it changes, and giving leases back.

mod list;
mod release;
mod watch;

use clap::Subcommand;

/// See who reads which shard, watch it change, take a lease from its owner
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  sluicegate leases list --application billing
  sluicegate leases list --application billing --json | jq '.leases[] | select(.state == \"free\")'
  sluicegate leases watch --application billing
  sluicegate leases release --application billing shardId-000000000003 --force";

#[derive(Debug, Subcommand)]
enum Command {
    /// Print all leases and workers once
    List(list::Args),
    /// Print changes of ownership as they happen, until ctrl-c
    Watch(watch::Args),
    /// Give leases to nobody: the fleet takes them again, from the row
    Release(release::Args),
}

/// Runs a subcommand.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List(args) => list::run(args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Release(args) => release::run(args).await,
    }
}
