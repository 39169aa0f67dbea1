//! `sluicegate dead-letters list`: all letters, without their payloads.

use std::time::{Duration, UNIX_EPOCH};

use comfy_table::{Cell, Color, Table};
use sluicegate_checkpoint::ArrivalMillis;
use sluicegate_sink::dead_letter::LetterHeader;

use super::{Letters, LettersArgs, Shown, Which};
use crate::output::{self, counted};

/// Print all letters, without their payloads
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only those that were not redriven
    #[arg(long)]
    open: bool,
    /// One JSON object per letter
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    letters: LettersArgs,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let mut letters = Letters::open(&args.letters).await?.all().await?;
    letters.retain(|letter| args.which.takes(letter) && (!args.open || letter.redriven_at.is_none()));
    if args.json {
        return letters.iter().try_for_each(|letter| output::json(&Shown::of(letter)));
    }
    if !letters.is_empty() {
        output::line(&table(&letters).to_string());
        output::line("");
    }
    let open = letters.iter().filter(|letter| letter.redriven_at.is_none()).count();
    output::line(&format!(
        "{}: {open} open, {} redriven",
        counted(letters.len(), "letter"),
        letters.len() - open
    ));
    Ok(())
}

fn table(letters: &[LetterHeader]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["letter", "state", "cause", "key", "bytes", "arrived", "why"]);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    for letter in letters {
        let shown = Shown::of(letter);
        let colour = if shown.state == "open" { Color::Yellow } else { Color::Green };
        table.add_row([
            Cell::new(&shown.letter),
            Cell::new(shown.state).fg(colour),
            Cell::new(shown.cause),
            Cell::new(shortened(shown.key, 40)),
            Cell::new(shown.bytes),
            Cell::new(time(letter.arrival)),
            Cell::new(shortened(shown.why, 100)),
        ]);
    }
    table
}

/// A time as people write it; none of before 1970 can be an arrival.
pub(super) fn time(at: ArrivalMillis) -> String {
    let since = Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// The beginning of a text, on one line.
fn shortened(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most - 1).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shortened_to_one_line() {
        assert_eq!(shortened("a\n b", 9), "a b");
        assert_eq!(shortened("äöüäöü", 4), "äöü…");
        assert_eq!(shortened("äöüä", 4), "äöüä");
    }

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(time(ArrivalMillis(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
    }
}
