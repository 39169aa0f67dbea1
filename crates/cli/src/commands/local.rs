//! `sluicegate local`: the embedded backend as a process of its own.

use std::path::PathBuf;

use sluicegate_local::{LocalConfig, LocalServer};
use sluicegate_worker::telemetry::{LogFormat, start_logging};

use crate::aws::{LOCAL_DYNAMODB_PORT, LOCAL_KINESIS_PORT};
use crate::{output, stop};

/// Run an embedded Kinesis (in memory) and DynamoDB on loopback; other commands reach it with --embedded
#[derive(Debug, clap::Args)]
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
