//! The sluicegate binary: reads the command line, runs one command, turns its end into an exit code.

mod app;
mod aws;
mod aws_names;
mod commands;
#[cfg(feature = "embedded")]
mod demo;
mod exit;
mod metered;
mod output;
mod stop;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{check, checkpoint, dead_letters, drain, leases, produce, read, run};

/// Moves bursts of events from Kinesis Data Streams into DynamoDB: compressed, at a controlled rate, none lost,
/// none twice.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version, propagate_version = true, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[cfg(feature = "embedded")]
const AFTER_HELP: &str = "\
Start here:
  sluicegate demo                        the whole thing on this machine, with a worker killed in the middle
  sluicegate local                       an embedded Kinesis and DynamoDB; then, in other terminals:
  sluicegate produce --embedded --create-stream 4 --stream orders --key '{/customer}' events.ndjson
  sluicegate run     --embedded --stream orders --application billing
  sluicegate read    --embedded --application billing --key some-customer
  sluicegate leases list --embedded --application billing

Against AWS leave --embedded out: credentials, region and endpoints come from the usual AWS_* variables.
Exit codes: 0 done, 64 bad configuration or arguments, 1 anything else.";

/// A production build has nothing to try things on.
#[cfg(not(feature = "embedded"))]
const AFTER_HELP: &str = "\
Credentials, region and endpoints come from the usual AWS_* variables.
Exit codes: 0 done, 64 bad configuration or arguments, 1 anything else.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one worker: it shares the stream's shards with all workers of the same application
    Run(run::Args),
    /// See the configuration in force, the IAM policy it needs, and whether the role may
    Check(check::Args),
    /// Publish newline-delimited JSON to a stream
    Produce(produce::Args),
    /// Print the stored events of a key, in order, as newline-delimited JSON
    Read(read::Args),
    /// See who reads which shard, watch it change, take a lease from its owner
    Leases(leases::Args),
    /// See and move the position from which a shard is read
    Checkpoint(checkpoint::Args),
    /// Have a worker hand everything over and leave
    Drain(drain::Args),
    /// See the events that can never be stored with their batch, and store them again
    DeadLetters(dead_letters::Args),
    /// Run an embedded Kinesis and DynamoDB on this machine
    #[cfg(feature = "embedded")]
    Local(commands::local::Args),
    /// Show the main job end to end on this machine: publish, kill a worker, read everything back
    #[cfg(feature = "embedded")]
    Demo(demo::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::failed(&anyhow::Error::new(error).context("no runtime")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Produce(args) => produce::run(args).await,
            Command::Read(args) => read::run(args).await,
            Command::Leases(args) => leases::run(args).await,
            Command::Checkpoint(args) => checkpoint::run(args).await,
            Command::Drain(args) => drain::run(args).await,
            Command::DeadLetters(args) => dead_letters::run(args).await,
            #[cfg(feature = "embedded")]
            Command::Local(args) => commands::local::run(args).await,
            #[cfg(feature = "embedded")]
            Command::Demo(args) => demo::run(args).await,
        }
    });
    // Threads that wait for input (a terminal) would hold the process up.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::failed(&error),
    }
}
