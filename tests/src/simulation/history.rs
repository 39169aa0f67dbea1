//! What happened, a line each, with virtual time: the same for the same seed, byte for byte.

use std::fmt::Write as _;
use std::time::Duration;

/// The history of one simulation.
#[derive(Debug, Default)]
pub struct History {
    text: String,
}

impl History {
    /// Adds a line: when, who, what.
    pub fn line(&mut self, at: Duration, who: &str, what: std::fmt::Arguments<'_>) {
        let (seconds, millis) = (at.as_secs(), at.subsec_millis());
        // Writing to a string does not fail.
        writeln!(self.text, "{seconds:>4}.{millis:03} {who:<6} {what}").ok();
    }

    /// All lines.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A history for people: of sequence numbers as long as Kinesis' only the last digits, which tell them apart in a shard.
pub fn readable(history: &str) -> String {
    let mut text = String::with_capacity(history.len());
    let mut rest = history;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let length = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (digits, behind) = from.split_at(length);
        text.push_str(before);
        if length > LONG {
            text.push('…');
        }
        text.push_str(if length > LONG { &digits[length - KEPT..] } else { digits });
        rest = behind;
    }
    text + rest
}

/// Digits of a number that is shortened, at least.
const LONG: usize = 30;
/// Digits that are left of it.
const KEPT: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_shortened_and_nothing_else() {
        let number = "49517000000000000000000000030000000000000000000000000009";
        let line = format!("  3.000 w1 shardId-000000000003 #2 cuts [{number}..{number} r0]\n");
        assert_eq!(readable(&line), "  3.000 w1 shardId-000000000003 #2 cuts […000009..…000009 r0]\n");
        assert_eq!(readable("no digits"), "no digits");
    }
}
