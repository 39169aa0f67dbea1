//! The one place that prints: results on standard output, everything else on standard error.

#![expect(clippy::print_stderr, reason = "this module is where printing is allowed")]

use console::style;

/// A result line. Nobody may be reading any more (`head` closes it early); what a command does goes on all the same.
pub(crate) fn line(text: &str) {
    drop(line_if_read(text));
}

/// A result line; false if nobody reads standard output any more (`head` closes it early, and that is no error).
pub(crate) fn line_if_read(text: &str) -> std::io::Result<bool> {
    use std::io::Write;
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// A number with its noun: 1 lease, 2 leases.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Something a person should know, beside the result.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// What went wrong.
pub(crate) fn error(text: &str) {
    eprintln!("{} {text}", style("error:").for_stderr().red().bold());
}

/// A result for machines: one JSON object on a line.
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?);
    Ok(())
}
