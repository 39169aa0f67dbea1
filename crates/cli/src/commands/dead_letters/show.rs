//! `sluicegate dead-letters show`: one letter, with its payload.

use std::io::Write;

use anyhow::{Context, bail};
use serde::Serialize;
use sluicegate_sink::dead_letter::{Letter, LetterId};

use super::list::time;
use super::{Letters, LettersArgs, Shown};
use crate::exit::bad_config;
use crate::output;

/// Print one letter with its payload
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The letter, as `list` prints it: SHARD:SEQUENCE_NUMBER, or SHARD:SEQUENCE_NUMBER.INDEX
    letter: String,
    /// Print the payload alone, byte for byte
    #[arg(long, conflicts_with = "json")]
    payload: bool,
    /// One JSON object; the payload is `payload` if it is text, else `payload_hex`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    letters: LettersArgs,
}

/// A letter as machines get it.
#[derive(Debug, Serialize)]
struct ShownWhole<'a> {
    #[serde(flatten)]
    shown: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let id: LetterId = args.letter.parse().map_err(bad_config)?;
    let letters = Letters::open(&args.letters).await?;
    let Some(letter) = letters.ask(async |table| table.letter(&id).await).await? else {
        bail!("table `{}` has no letter {id}", letters.name);
    };
    if args.payload {
        let mut out = std::io::stdout().lock();
        return out
            .write_all(&letter.data)
            .and_then(|()| out.flush())
            .context("standard output cannot be written");
    }
    if args.json {
        let payload = std::str::from_utf8(&letter.data).ok();
        let payload_hex = payload.is_none().then(|| hex(&letter.data));
        return output::json(&ShownWhole { shown: Shown::of(&letter.header), payload, payload_hex });
    }
    output::line(&text(&letter));
    Ok(())
}

fn text(letter: &Letter) -> String {
    let (header, shown) = (&letter.header, Shown::of(&letter.header));
    let state = header.redriven_at.map_or_else(|| "open".to_owned(), |at| format!("redriven {}", time(at)));
    let mut text = format!("{}  {state}", shown.letter);
    let lines = [
        ("cause", shown.cause.to_owned()),
        ("why", shown.why.to_owned()),
        ("key", shown.key.to_owned()),
        ("partition key", shown.partition_key.to_owned()),
        ("arrived", time(header.arrival)),
        ("batch", format!("{} to {}, epoch {}", shown.batch_first, shown.batch_last, shown.epoch)),
        ("put", format!("{} by {}", time(header.put_at), shown.worker)),
        ("bytes", shown.bytes.to_string()),
    ];
    for (name, value) in lines {
        text.push_str(&format!("\n  {name:<14} {value}"));
    }
    match std::str::from_utf8(&letter.data) {
        Ok(payload) => text.push_str(&format!("\n{payload}")),
        Err(_binary) => text.push_str("\n  the payload is no text: print it with --payload"),
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
