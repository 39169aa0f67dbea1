//! The input thread's work: lines -> chunks of records for the flusher. Blocks, so it never runs on the runtime.

use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::entry::{Entry, Keyed, Keying, LineError, LineFault};
use crate::lines::{Line, Lines};
use crate::publisher::{OnError, PublishOptions};
use crate::requests::MAX_RECORDS;
use crate::summary::{Progress, Summary};

/// A chunk is handed on at this size, or at [`MAX_RECORDS`], or when the next line would have to be waited for.
const CHUNK_BYTES: usize = 256 * 1024;

/// What the input thread says.
#[derive(Debug)]
pub(crate) enum FromInput {
    /// Records, and what was counted since the last chunk.
    Chunk {
        /// Less than [`CHUNK_BYTES`] and one record more.
        entries: Vec<Entry>,
        /// Lines of other kinds.
        seen: Summary,
    },
    /// Nothing more will come, and why.
    End(InputEnd),
}

/// Why reading ended.
#[derive(Debug)]
pub(crate) enum InputEnd {
    /// At the end of the input.
    Finished,
    /// At a line that is not valid, as [`OnError::Stop`] asks.
    Invalid(LineError),
    /// The input could not be read or decoded further.
    Unreadable { after_line: u64, source: io::Error },
}

/// Reads an input to its end.
#[derive(Debug)]
pub(crate) struct InputReader {
    keying: Keying,
    on_error: OnError,
    max_record_bytes: usize,
    kept_line_errors: usize,
    progress: Arc<Progress>,
    out: mpsc::Sender<FromInput>,
    entries: Vec<Entry>,
    entry_bytes: usize,
    seen: Summary,
}

/// The flusher listens no more.
struct Gone;

impl InputReader {
    pub(crate) fn new(
        options: &PublishOptions,
        progress: Arc<Progress>,
        out: mpsc::Sender<FromInput>,
    ) -> Self {
        Self {
            keying: options.keying.clone(),
            on_error: options.on_error,
            max_record_bytes: options.max_record_bytes,
            kept_line_errors: options.kept_line_errors,
            progress,
            out,
            entries: Vec::new(),
            entry_bytes: 0,
            seen: Summary::default(),
        }
    }

    /// Reads until the input ends or nobody listens. Blocks while the flusher has no room.
    pub(crate) fn run(mut self, input: impl Read + Send + 'static) {
        let Ok(end) = self.read(input) else { return };
        if self.hand_on().is_ok() && self.out.blocking_send(FromInput::End(end)).is_err() {
            tracing::debug!("the publishing ended before its input");
        }
    }

    fn read(&mut self, input: impl Read + Send + 'static) -> Result<InputEnd, Gone> {
        let opened = Lines::open(input, self.max_record_bytes, Arc::clone(&self.progress));
        let mut lines = match opened {
            Ok(lines) => lines,
            Err(source) => return Ok(InputEnd::Unreadable { after_line: 0, source }),
        };
        loop {
            let after_line = lines.number();
            let line = match lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(InputEnd::Finished),
                Err(source) => return Ok(InputEnd::Unreadable { after_line, source }),
            };
            if let Err(fault) = self.take(line) {
                let error = LineError { line: lines.number(), fault };
                self.note(&error);
                if self.on_error == OnError::Stop {
                    return Ok(InputEnd::Invalid(error));
                }
            }
            if self.is_full() || !lines.has_line_at_hand() {
                self.hand_on()?;
            }
        }
    }

    fn take(&mut self, line: Line<'_>) -> Result<(), LineFault> {
        let text = match line {
            Line::Text(text) => text,
            Line::TooLong => return Err(LineFault::TooLong { max_bytes: self.max_record_bytes }),
            Line::Empty => {
                self.seen.empty_lines += 1;
                return Ok(());
            }
        };
        let Keyed { entry, fallback_key } = self.keying.entry_of(text, self.max_record_bytes)?;
        self.seen.fallback_keys += u64::from(fallback_key);
        self.entry_bytes += entry.bytes();
        self.entries.push(entry);
        Ok(())
    }

    fn note(&mut self, error: &LineError) {
        self.progress.on_invalid_line();
        self.seen.invalid_lines += 1;
        if self.kept_line_errors > 0 {
            self.kept_line_errors -= 1;
            self.seen.line_errors.push(error.clone());
        }
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= MAX_RECORDS || self.entry_bytes >= CHUNK_BYTES
    }

    fn hand_on(&mut self) -> Result<(), Gone> {
        if self.out.is_closed() {
            return Err(Gone);
        }
        let seen = std::mem::take(&mut self.seen);
        if self.entries.is_empty() && seen == Summary::default() {
            return Ok(());
        }
        let next = Vec::with_capacity(self.entries.len());
        let entries = std::mem::replace(&mut self.entries, next);
        self.entry_bytes = 0;
        self.out.blocking_send(FromInput::Chunk { entries, seen }).map_err(|_| Gone)
    }
}
