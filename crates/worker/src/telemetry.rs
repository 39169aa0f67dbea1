//! Logs and the wall clock: the only place that reads it.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluicegate_checkpoint::ArrivalMillis;
use tracing_subscriber::EnvFilter;

/// Wall time: for stream timestamps and display, never for a decision about a lease.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Wall time as an arrival time.
pub fn wall_millis() -> ArrivalMillis {
    ArrivalMillis(i64::try_from(wall_clock().as_millis()).unwrap_or(i64::MAX))
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, for machines elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl LogFormat {
    /// Whether lines are JSON, where standard error is a terminal or not.
    fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// Starts logging to standard error. `filter` is a `tracing` filter such as `info` or `sluicegate_lease=debug,info`.
/// Later calls in the same process do nothing.
pub fn start_logging(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_invalid| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    let started = if format.is_json(terminal) {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    drop(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_for_people_on_a_terminal_and_for_machines_elsewhere_unless_told() {
        let json = |format: LogFormat| (format.is_json(true), format.is_json(false));
        assert_eq!(json(LogFormat::Auto), (false, true));
        assert_eq!((json(LogFormat::Text), json(LogFormat::Json)), ((false, false), (true, true)));
    }
}
