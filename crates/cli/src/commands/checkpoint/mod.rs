//! `sluicegate checkpoint`: where each shard is read from, and moving that.

mod get;
mod reposition;

use clap::Subcommand;

/// See and move the position from which a shard is read
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  sluicegate checkpoint get   --application billing
  sluicegate checkpoint reset --application billing --all --to 2026-01-31T12:00:00Z --dry-run
  sluicegate checkpoint set   --application billing 3 49590338271490256608559692538361571095921575989136588898";

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the checkpoint and all that belongs to it
    Get(get::Args),
    /// Count a record, and all before it, as finished
    Set(reposition::SetArgs),
    /// Start again at the oldest record, the tip or a time
    Reset(reposition::ResetArgs),
}

/// Runs a subcommand.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Get(args) => get::run(args).await,
        Command::Set(args) => reposition::set(args).await,
        Command::Reset(args) => reposition::reset(args).await,
    }
}
