//! `sluicegate dead-letters purge`: deletes letters for good.

use anyhow::bail;
use serde::Serialize;

use super::{Letters, LettersArgs, Which, named};
use crate::output::{self, counted};

/// Delete letters
///
/// An event whose letter was not redriven is gone with it. While a batch that a letter belongs to is announced, a
/// redelivery puts the letter again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Letters, as `list` prints them
    #[arg(required_unless_present_any = ["all", "redriven"], conflicts_with_all = ["all", "redriven", "cause", "since", "until"])]
    letter: Vec<String>,
    /// All letters, open ones too; --cause, --since and --until choose among them
    #[arg(long)]
    all: bool,
    /// All that were redriven; --cause, --since and --until choose among them
    #[arg(long, conflicts_with = "all")]
    redriven: bool,
    #[command(flatten)]
    which: Which,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON object per letter
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    letters: LettersArgs,
}

/// What became of a letter.
#[derive(Debug, Serialize)]
struct Outcome {
    letter: String,
    /// `would_purge`, `purged` or `missing`.
    outcome: &'static str,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let named = named(&args.letter)?;
    let letters = Letters::open(&args.letters).await?;
    let ids = if args.all || args.redriven {
        letters.that(|letter| args.which.takes(letter) && (args.all || letter.redriven_at.is_some())).await?
    } else {
        named
    };
    let (mut done, mut missing) = (0, 0);
    for id in &ids {
        let outcome = if args.dry_run {
            "would_purge"
        } else if letters.ask(async |table| table.delete(id).await).await? {
            "purged"
        } else {
            "missing"
        };
        if outcome == "missing" {
            missing += 1;
        } else {
            done += 1;
        }
        let outcome = Outcome { letter: id.to_string(), outcome };
        if args.json {
            output::json(&outcome)?;
        } else {
            output::line(&format!("{}  {}", outcome.letter, outcome.outcome.replace('_', " ")));
        }
    }
    if !args.json {
        let what = if args.dry_run { "would be purged" } else { "purged" };
        output::note(&format!("{} {what}", counted(done, "letter")));
    }
    if missing > 0 {
        bail!("{} not found", counted(missing, "letter"));
    }
    Ok(())
}
