//! `sluicegate dead-letters redrive`: stores events after all, and marks their letters.

use anyhow::bail;
use serde::Serialize;
use sluicegate_checkpoint::progress::Always;
use sluicegate_sink::PackingSink;
use sluicegate_sink::dead_letter::{LetterCause, LetterId};
use sluicegate_worker::telemetry::wall_millis;

use super::{Letters, LettersArgs, Which, named};
use crate::app;
use crate::aws_names;
use crate::output::{self, counted};

/// Store events again, and mark their letters
///
/// Each event is stored by itself, under the key that it would have had with its batch and under a class of sort keys
/// that no batch uses; readers find it in its place. The same letter always gives the same items, so this can be
/// interrupted and repeated. Letters are marked, and stay until they expire or are purged. Those that are marked already are passed over.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Letters, as `list` prints them
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "cause", "since", "until"])]
    letter: Vec<String>,
    /// All that were not redriven yet; --cause, --since and --until choose among them
    #[arg(long)]
    all: bool,
    /// Store events that cannot be read too, whole, as they were published: fields and reduce do not apply to them
    #[arg(long)]
    as_is: bool,
    #[command(flatten)]
    which: Which,
    /// Say what would be stored, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON object per letter
    #[arg(long)]
    json: bool,
    /// Analytics table [default: the application's name and `-events`]
    #[arg(long, required_unless_present = "application", value_parser = aws_names::table)]
    table: Option<String>,
    #[command(flatten)]
    letters: LettersArgs,
}

const AFTER_HELP: &str = "\
Exit codes: 0 all are stored (with --dry-run: could be tried), 1 some are not, 64 bad arguments.";

/// What became of a letter.
#[derive(Debug, Serialize)]
struct Outcome {
    letter: String,
    /// `would_redrive`, `redriven`, `redriven_before`, `needs_as_is`, `missing` or `failed`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let named = named(&args.letter)?;
    let letters = Letters::open(&args.letters).await?;
    let ids = if args.all {
        letters.that(|letter| letter.redriven_at.is_none() && args.which.takes(letter)).await?
    } else {
        named
    };
    let of_application = args.letters.application.as_deref().map(app::default_table);
    let table = args.table.clone().or(of_application).unwrap_or_default();
    let sink = app::redriving_sink(&letters.aws, &table);
    let (mut done, mut not_done, mut left) = (0, 0, 0);
    for id in &ids {
        let outcome = redrive(&letters, &sink, id, &args).await?;
        match outcome.outcome {
            "needs_as_is" if args.all => left += 1,
            "missing" | "failed" | "needs_as_is" => not_done += 1,
            _ => done += 1,
        }
        if args.json {
            output::json(&outcome)?;
        } else {
            let why = outcome.why.map(|why| format!(": {why}")).unwrap_or_default();
            output::line(&format!("{}  {}{why}", outcome.letter, outcome.outcome.replace('_', " ")));
        }
    }
    if !args.json {
        let what = if args.dry_run { "would be redriven" } else { "redriven" };
        output::note(&format!("{} {what}", counted(done, "letter")));
    }
    if left > 0 && !args.json {
        let left = counted(left, "letter");
        output::note(&format!("{left} of unreadable events stay open: --as-is stores them whole"));
    }
    if not_done > 0 {
        bail!("{} could not be redriven", counted(not_done, "letter"));
    }
    Ok(())
}

async fn redrive(
    letters: &Letters,
    sink: &PackingSink,
    id: &LetterId,
    args: &Args,
) -> anyhow::Result<Outcome> {
    let outcome = |outcome, why| Ok(Outcome { letter: id.to_string(), outcome, why });
    let Some(letter) = letters.ask(async |table| table.letter(id).await).await? else {
        return outcome("missing", None);
    };
    if letter.header.redriven_at.is_some() {
        return outcome("redriven_before", None);
    }
    if letter.header.cause == LetterCause::Unreadable && !args.as_is {
        let why = "the event cannot be read, so that fields and reduce cannot apply: --as-is stores it whole";
        return outcome("needs_as_is", Some(why.to_owned()));
    }
    if args.dry_run {
        return outcome("would_redrive", None);
    }
    if let Err(error) = sink.redrive(&letter, &Always).await {
        return outcome("failed", Some(error.to_string()));
    }
    // Marked behind the event: interrupted in between, it is stored again under the same keys.
    letters.ask(async |table| table.mark_redriven(id, wall_millis()).await).await?;
    outcome("redriven", None)
}
