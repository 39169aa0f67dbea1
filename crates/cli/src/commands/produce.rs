//! `sluicegate produce`: newline-delimited JSON -> a stream.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluicegate_checkpoint::KeyTemplate;
use sluicegate_producer::kinesis::KinesisStream;
use sluicegate_producer::{
    Keying, OnError, Progress, PublishError, PublishOptions, StreamName, Summary, publish,
};
use sluicegate_worker::telemetry::{LogFormat, start_logging};

use crate::aws::{Aws, AwsArgs};
use crate::aws_names;
use crate::exit::bad_config;
use crate::{output, stop};

/// Publish newline-delimited JSON (plain, gzip or zstd) to a stream
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stream to publish to, by name or ARN
    #[arg(long, value_parser = aws_names::stream)]
    stream: String,
    /// Partition key: a template over JSON pointers such as '{/carrier}-{/month}'; default: a hash of the line,
    /// which spreads events evenly
    #[arg(long)]
    key: Option<String>,
    /// At a line that is not valid: stop, or skip it and go on
    #[arg(long, value_enum, default_value_t = OnErrorArg::Stop)]
    on_error: OnErrorArg,
    /// Publish at most so many events a second
    #[arg(long)]
    rate: Option<NonZeroU32>,
    /// Create the stream with so many shards if it is not there
    #[arg(long, value_name = "SHARDS")]
    create_stream: Option<NonZeroU32>,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
    /// File to publish; - is standard input
    #[arg(default_value = "-")]
    input: PathBuf,
    #[command(flatten)]
    aws: AwsArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnErrorArg {
    Stop,
    Skip,
}

/// Publishes the input and prints a summary.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    start_logging("warn", LogFormat::Text);
    let keying = keying(args.key.as_deref())?;
    let (input, size) = open(&args.input)?;
    let stop = stop::on_signal(false)?;
    let aws = Aws::load(&args.aws).await?;
    if let Some(shards) = args.create_stream {
        create_stream(&aws, &args.stream, shards).await?;
    }
    let writer = KinesisStream::new(aws.kinesis(), StreamName::new(&args.stream));
    let stream = writer.describe().await?;
    let options = PublishOptions {
        keying,
        on_error: match args.on_error {
            OnErrorArg::Stop => OnError::Stop,
            OnErrorArg::Skip => OnError::Skip,
        },
        max_record_bytes: stream.max_record_bytes,
        events_per_second: args.rate,
        ..PublishOptions::new(SmallRng::from_os_rng())
    };
    let progress = Arc::new(Progress::default());
    let bar = bar(size);
    let publishing = publish(input, Arc::new(writer), options, Arc::clone(&progress), stop);
    let outcome = {
        tokio::pin!(publishing);
        loop {
            tokio::select! { biased;
                outcome = &mut publishing => break outcome,
                () = tokio::time::sleep(Duration::from_millis(100)) => show(&bar, &progress),
            }
        }
    };
    bar.finish_and_clear();
    report(outcome, args.json)
}

/// Where partition keys come from.
pub(crate) fn keying(template: Option<&str>) -> anyhow::Result<Keying> {
    match template {
        None => Ok(Keying::LineHash),
        Some(text) => KeyTemplate::parse(text)
            .map(Keying::Template)
            .map_err(|error| bad_config(format!("--key: {error}"))),
    }
}

fn open(path: &PathBuf) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let size = file.metadata().ok().map(|metadata| metadata.len());
    Ok((Box::new(file), size))
}

/// Creates a stream, if there is none of the name, and waits until it is active.
pub(crate) async fn create_stream(aws: &Aws, stream: &str, shards: NonZeroU32) -> anyhow::Result<()> {
    let client = aws.kinesis();
    let count = i32::try_from(shards.get()).unwrap_or(i32::MAX);
    if let Err(error) = client.create_stream().stream_name(stream).shard_count(count).send().await {
        let there = error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception());
        if !there {
            let what = error.as_service_error().map(ToString::to_string);
            return Err(anyhow!(error).context(what.unwrap_or_default()))
                .with_context(|| format!("stream `{stream}` cannot be created"));
        }
    }
    loop {
        let described = client.describe_stream_summary().stream_name(stream).send().await?;
        let status = described.stream_description_summary().map(|summary| summary.stream_status().clone());
        if status == Some(aws_sdk_kinesis::types::StreamStatus::Active) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn bar(size: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match size {
        Some(_) => "{bar:30.cyan/blue} {percent:>3}% {msg} {elapsed_precise} (eta {eta})",
        None => "{spinner} {msg} {elapsed_precise}",
    };
    let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_invalid) => bar,
    }
}

fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_position(progress.input_bytes());
    bar.set_message(format!(
        "{} events, {}, {} retries",
        HumanCount(progress.records()),
        HumanBytes(progress.bytes()),
        progress.retries()
    ));
}

fn report(outcome: Result<Summary, PublishError>, json: bool) -> anyhow::Result<()> {
    let (summary, fault) = match outcome {
        Ok(summary) => (summary, None),
        Err(error) => (*error.summary, Some(error.fault)),
    };
    for error in &summary.line_errors {
        output::note(&format!("skipped {error}"));
    }
    if json {
        output::json(&summary)?;
    } else {
        output::line(&table(&summary));
    }
    match fault {
        None => Ok(()),
        Some(fault) => {
            Err(anyhow!(fault)
                .context(format!("publishing ended early, {} records are stored", summary.records)))
        }
    }
}

fn table(summary: &Summary) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    let mut row = |name: &str, value: String| {
        table.add_row([name, &value]);
    };
    row("records", HumanCount(summary.records).to_string());
    row("bytes", HumanBytes(summary.bytes).to_string());
    row("seconds", format!("{:.2}", summary.elapsed.as_secs_f64()));
    row("retries", summary.retries.to_string());
    row("unknown outcomes", summary.unknown_outcomes.to_string());
    row("fallback keys", summary.fallback_keys.to_string());
    row("invalid lines", summary.invalid_lines.to_string());
    row("empty lines", summary.empty_lines.to_string());
    table.to_string()
}
