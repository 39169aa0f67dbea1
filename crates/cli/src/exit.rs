//! Errors -> one line for the operator and an exit code: 64 for configuration, 1 for anything else.

use std::process::ExitCode;

use crate::output;

/// Exit code for bad configuration or arguments (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// Mistakes in the configuration or the arguments.
#[derive(Debug)]
pub(crate) struct BadConfig(Vec<String>);

impl std::fmt::Display for BadConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for BadConfig {}

/// Wraps a configuration error.
pub(crate) fn bad_config(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::Error::new(BadConfig(vec![error.to_string()]))
}

/// Wraps configuration errors, each to be told on a line of its own.
pub(crate) fn bad_configs(errors: &[impl std::fmt::Display]) -> anyhow::Error {
    anyhow::Error::new(BadConfig(errors.iter().map(ToString::to_string).collect()))
}

/// Help, version, or a mistake on the command line.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a terminal that is gone.
    drop(error.print());
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Says what went wrong on one line, or on one each if there are several things.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    lines(error).iter().for_each(|line| output::error(line));
    if error.chain().any(|cause| cause.is::<BadConfig>()) { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

fn lines(error: &anyhow::Error) -> Vec<String> {
    match error.downcast_ref::<BadConfig>() {
        Some(BadConfig(all)) if all.len() > 1 => all.iter().map(|text| unbroken(text)).collect(),
        Some(_) | None => vec![one_line(error)],
    }
}

/// A text without its line breaks.
fn unbroken(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The error and its causes on one line; a cause that its error's text repeats is left out.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = unbroken(&cause.to_string());
        if line.is_empty() {
            line = text;
        } else if !text.is_empty() && !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once_and_on_one_line() {
        let error = anyhow::anyhow!("connection\nrefused").context("the table cannot be read");
        assert_eq!(one_line(&error), "the table cannot be read: connection refused");
        let again = anyhow::anyhow!("no such table").context("read: no such table");
        assert_eq!(one_line(&again), "read: no such table");
    }

    #[test]
    fn several_mistakes_have_a_line_each() {
        assert_eq!(
            lines(&bad_configs(&["spread\nis 5000", "log is `inof`"])),
            ["spread is 5000", "log is `inof`"]
        );
        assert_eq!(lines(&bad_config("log is `inof`").context("check")), ["check: log is `inof`"]);
    }
}
