//! What a publishing did: live numbers for a progress bar, and the summary at its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::entry::LineError;

/// Live numbers. They only rise; each is exact by itself, and together they are a picture good enough for a bar.
/// Several publishings may share one.
#[derive(Debug, Default)]
pub struct Progress {
    records: AtomicU64,
    bytes: AtomicU64,
    input_bytes: AtomicU64,
    retries: AtomicU64,
    invalid_lines: AtomicU64,
}

impl Progress {
    /// Records that the stream has confirmed.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Bytes of those records, partition keys not counted.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes read of the input as it is stored, so compressed if it is: reaches a file's size at its end. Reading
    /// is ahead of publishing by what is buffered.
    pub fn input_bytes(&self) -> u64 {
        self.input_bytes.load(Ordering::Relaxed)
    }

    /// Requests that were sent again, for all of their records or for some.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Lines that could not be published.
    pub fn invalid_lines(&self) -> u64 {
        self.invalid_lines.load(Ordering::Relaxed)
    }

    pub(crate) fn on_stored(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn on_input_read(&self, bytes: usize) {
        self.input_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn on_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn on_invalid_line(&self) {
        self.invalid_lines.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a publishing did, also when it ended early.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Records that the stream confirmed.
    pub records: u64,
    /// Bytes of those records, partition keys not counted.
    pub bytes: u64,
    /// How long it took; serialized as `seconds`.
    #[serde(rename = "seconds", serialize_with = "in_seconds")]
    pub elapsed: Duration,
    /// Requests that were sent again, for all of their records or for some.
    pub retries: u64,
    /// Requests whose answer was lost, so that they may or may not have stored their records. Sending them again
    /// may have put a record twice.
    pub unknown_outcomes: u64,
    /// Lines that could not be published.
    pub invalid_lines: u64,
    /// Lines for which the key template found no key.
    pub fallback_keys: u64,
    /// Lines with nothing but white space.
    pub empty_lines: u64,
    /// The first of the invalid lines, up to the number asked for.
    pub line_errors: Vec<LineError>,
}

impl Summary {
    /// Adds what another part of the same publishing counted; `elapsed` stays.
    pub(crate) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.retries += other.retries;
        self.unknown_outcomes += other.unknown_outcomes;
        self.invalid_lines += other.invalid_lines;
        self.fallback_keys += other.fallback_keys;
        self.empty_lines += other.empty_lines;
        self.line_errors.extend(other.line_errors);
    }
}

fn in_seconds<S: Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::LineFault;

    #[test]
    fn a_summary_serializes_with_the_names_that_scripts_read() {
        let fault = LineFault::TooLong { max_bytes: 8 };
        let summary = Summary {
            records: 2,
            elapsed: Duration::from_millis(1_500),
            line_errors: vec![LineError { line: 3, fault }],
            ..Summary::default()
        };
        let json = serde_json::to_value(summary).unwrap();
        assert_eq!(json["seconds"], 1.5);
        assert_eq!(json["unknown_outcomes"], 0);
        assert_eq!(json["line_errors"][0]["line"], 3);
    }
}
