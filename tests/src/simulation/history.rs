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
