//! Logs and the wall clock: the only place that reads it.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluicegate_checkpoint::ArrivalMillis;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

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
/// Whatever it says, others' code logs no more than `debug`. Later calls in the same process do nothing.
pub fn start_logging(filter: &str, format: LogFormat) {
    let terminal = std::io::stderr().is_terminal();
    let started = if format.is_json(terminal) {
        tracing::subscriber::set_global_default(json_lines(filter, std::io::stderr))
    } else {
        tracing::subscriber::set_global_default(text_lines(filter, std::io::stderr, terminal))
    };
    drop(started);
}

fn json_lines(
    filter: &str,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let lines =
        tracing_subscriber::fmt().with_env_filter(env_filter(filter)).with_writer(writer).with_ansi(false);
    lines.json().flatten_event(true).finish().with(filter_fn(may_be_logged))
}

fn text_lines(
    filter: &str,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
    ansi: bool,
) -> impl Subscriber + Send + Sync {
    let lines =
        tracing_subscriber::fmt().with_env_filter(env_filter(filter)).with_writer(writer).with_ansi(ansi);
    lines.with_target(false).finish().with(filter_fn(may_be_logged))
}

fn env_filter(filter: &str) -> EnvFilter {
    EnvFilter::try_new(filter).unwrap_or_else(|_invalid| EnvFilter::new("info"))
}

/// What a filter may let through; `tracing` has a number for each as well.
const LEVELS: [&str; 12] = ["off", "error", "warn", "info", "debug", "trace", "0", "1", "2", "3", "4", "5"];

/// Whether this is a filter in which every part names a level. `tracing` takes more: to it a word that is no level is a
/// target, and `inof` would log nothing.
pub(crate) fn is_filter(filter: &str) -> bool {
    let parts = || filter.split(',').filter(|part| !part.is_empty());
    parts().next().is_some() && parts().all(names_a_level) && EnvFilter::try_new(filter).is_ok()
}

fn names_a_level(part: &str) -> bool {
    let (target, level) = part.rsplit_once('=').unwrap_or(("a", part));
    let target = target.split('[').next().unwrap_or_default();
    let is_level = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
    is_level && !target.contains('=') && !part.contains(char::is_whitespace)
}

/// At `trace`, the AWS SDK prints whole answers, payloads included, and what it signs; logs must hold neither. So only
/// our own code, which does not, may say anything there.
fn may_be_logged(about: &Metadata<'_>) -> bool {
    *about.level() != Level::TRACE || about.target().starts_with("sluicegate")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    /// What is logged, to be looked at.
    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn say_everything() {
        tracing::trace!(target: "aws_smithy_runtime::client::orchestrator", "payload of the sdk");
        tracing::trace!(target: "aws_runtime", "payload of the client");
        tracing::trace!(target: "aws_sigv4::http_request", "what is signed");
        tracing::trace!(target: "hyper::proto", "payload of hyper");
        tracing::debug!(target: "aws_smithy_runtime::client::orchestrator", "debug of the sdk");
        tracing::trace!(target: "sluicegate_worker::deaggregate", "trace of ours");
    }

    #[test]
    fn payloads_that_the_sdk_prints_at_trace_are_never_logged() {
        let everywhere = "trace";
        let named = "aws_smithy_runtime::client=trace,aws_runtime=trace,aws_sigv4=trace,hyper=trace,sluicegate_worker=trace";
        for filter in [everywhere, named] {
            let (json, text) = (Lines::default(), Lines::default());
            let (to_json, to_text) = (json.clone(), text.clone());
            tracing::subscriber::with_default(json_lines(filter, move || to_json.clone()), say_everything);
            tracing::subscriber::with_default(
                text_lines(filter, move || to_text.clone(), false),
                say_everything,
            );
            for lines in [json, text] {
                let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
                assert!(!said.contains("payload") && !said.contains("signed"), "{filter}: {said}");
                assert!(
                    said.contains("debug of the sdk") && said.contains("trace of ours"),
                    "{filter}: {said}"
                );
            }
        }
    }

    #[test]
    fn a_filter_names_a_level_in_each_part() {
        for good in [
            "info",
            "OFF",
            "sluicegate_lease=debug,info",
            "info,aws_runtime=off",
            "a::b[span{x=1}]=trace,",
            "3",
            "a=4",
        ] {
            assert!(is_filter(good), "{good}");
        }
        for bad in [
            "inof",
            "",
            ",",
            "a=b=c",
            "a=b=info",
            "a=",
            "=info",
            "sluicegate_lease",
            "a=inof,info",
            "info, a=debug",
            "[span]",
        ] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn logs_are_for_people_on_a_terminal_and_for_machines_elsewhere_unless_told() {
        let json = |format: LogFormat| (format.is_json(true), format.is_json(false));
        assert_eq!(json(LogFormat::Auto), (false, true));
        assert_eq!((json(LogFormat::Text), json(LogFormat::Json)), ((false, false), (true, true)));
    }
}
