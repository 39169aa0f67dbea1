//! `sluicegate read`: the stored events of a key, in order, and what was stored reduced, merged.

use std::io::Write;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use sluicegate_checkpoint::ArrivalMillis;
use sluicegate_sink::{ReadError, TimeRange};

use crate::app;
use crate::aws::{Aws, AwsArgs};
use crate::aws_names;
use crate::exit::bad_config;

/// Print the stored events of a key, in order of arrival, as newline-delimited JSON, and behind them its reductions, one
/// line for each window; checksums and parts are checked
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Aggregate key to read
    #[arg(long, allow_hyphen_values = true)]
    key: String,
    /// Earliest arrival, RFC 3339, such as 2026-01-31T12:00:00Z
    #[arg(long)]
    from: Option<String>,
    /// First arrival no longer wanted, RFC 3339
    #[arg(long)]
    to: Option<String>,
    /// Analytics table [default: the application's name and `-events`]
    #[arg(long, required_unless_present = "application", value_parser = aws_names::table)]
    table: Option<String>,
    /// Application whose table is read
    #[arg(long, value_parser = aws_names::application)]
    application: Option<String>,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Prints the events.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let range =
        TimeRange { from: time("--from", args.from.as_deref())?, to: time("--to", args.to.as_deref())? };
    let named = args.table.or_else(|| args.application.as_deref().map(app::default_table));
    let table = named.unwrap_or_default();
    let aws = Aws::load(&args.aws).await?;
    let explain = |error| explain(error, &table);
    let mut events = app::reader(&aws, &table).events(&args.key, range).await.map_err(explain)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    while let Some(event) = events.next().await.map_err(explain)? {
        let written = out.write_all(&event.data).and_then(|()| out.write_all(b"\n"));
        if !written_or_closed(written)? {
            return Ok(());
        }
    }
    for reduction in events.into_reductions() {
        if !written_or_closed(writeln!(out, "{reduction}"))? {
            return Ok(());
        }
    }
    written_or_closed(out.flush()).map(drop)
}

/// Names the table where the error is about the whole of it; the others name an item.
fn explain(error: ReadError, table: &str) -> anyhow::Error {
    let whole = matches!(error, ReadError::Store(_));
    let error = anyhow::Error::new(error);
    if whole {
        error.context(format!("table `{table}`: check its name, the region and the network"))
    } else {
        error
    }
}

/// Whether the reader of our output is still there: `head` closes it early, and that is no error.
fn written_or_closed(written: std::io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output cannot be written"),
    }
}

fn time(flag: &str, text: Option<&str>) -> anyhow::Result<Option<ArrivalMillis>> {
    let Some(text) = text else { return Ok(None) };
    let invalid = || bad_config(format!("{flag} is `{text}`: give a time such as 2026-01-31T12:00:00Z"));
    let at = humantime::parse_rfc3339_weak(text).map_err(|_no_time| invalid())?;
    let since = at.duration_since(UNIX_EPOCH).map_err(|_before_1970| invalid())?;
    Ok(Some(ArrivalMillis(i64::try_from(since.as_millis()).map_err(|_too_late| invalid())?)))
}
