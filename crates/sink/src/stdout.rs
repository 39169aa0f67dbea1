//! A sink that writes each event's payload as a line: for pipes and for looking at a stream.
//!
//! At least once: a batch that comes again is written again. Payloads are written as published, so one that
//! holds a line feed takes several lines. Filter and fields apply; a reduction does not, as what is written could not be
//! merged when a batch comes again.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sluicegate_checkpoint::transform::Verdict;
use sluicegate_checkpoint::{Batch, Right};

use crate::sink::{DeliverError, Delivered, Sink, UNPACKED};

/// Writes lines to whatever it is given, standard output as a rule.
pub struct StdoutSink<W> {
    out: Mutex<W>,
}

impl<W: Write + Send + 'static> StdoutSink<W> {
    /// Makes a sink over a writer.
    pub fn new(out: W) -> Self {
        Self { out: Mutex::new(out) }
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.out.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a batch in one piece, so that batches of several shards do not mix.
    fn write(&self, batch: &Batch) -> io::Result<Delivered> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let parameters = &batch.cut.parameters;
        for record in batch.stored() {
            let judged = batch.cut.judge(record);
            let event = judged.event.filter(|_| judged.verdict == Verdict::Kept);
            match event.zip(parameters.fields.as_ref()).and_then(|(event, fields)| fields.project(&event)) {
                Some(kept) => out.write_all(&kept)?,
                None => out.write_all(record.data())?,
            }
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(Delivered::of(batch))
    }
}

#[async_trait]
impl<W: Write + Send + 'static> Sink for StdoutSink<W> {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        if !right.holds() {
            return Err(DeliverError::RightEnded);
        }
        self.write(&batch).map_err(|error| {
            let what = "the output cannot be written".to_owned();
            let source = Box::new(error);
            // A closed pipe stays closed; anything else may pass.
            if source.kind() == io::ErrorKind::BrokenPipe {
                DeliverError::Refused { what, source }
            } else {
                DeliverError::Unavailable { what, source }
            }
        })
    }

    fn packing_versions(&self) -> &[u32] {
        UNPACKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::progress::Always;
    use sluicegate_checkpoint::{Exclusion, Retry};

    use crate::testing::{Switch, batch, event, with_parameters};

    #[tokio::test]
    async fn each_event_is_a_line_but_for_the_exclusions() {
        let sink = StdoutSink::new(Vec::new());
        let mut batch = batch(vec![event(1, "k", "a"), event(2, "k", "poison"), event(3, "k", "c")]);
        let poison = (batch.records[1].sequence_number().clone(), batch.records[1].sub_sequence_number());
        batch.cut.exclusions.push(Exclusion { from: poison.clone(), to: poison });
        let delivered = sink.deliver(Arc::new(batch), Arc::new(Always)).await.unwrap();
        assert_eq!((delivered.events, delivered.records, delivered.raw_bytes), (2, 2, 2));
        assert_eq!(sink.into_inner(), b"a\nc\n");
    }

    #[tokio::test]
    async fn filter_and_fields_apply() {
        let sink = StdoutSink::new(Vec::new());
        let events = [r#"{"a":1,"b":2}"#, r#"{"a":2,"b":3}"#, "text"];
        let batch = batch((1..).zip(events).map(|(n, data)| event(n, "k", data)).collect());
        let batch = with_parameters(batch, |parameters| {
            parameters.filter = Some("/a > 1".parse().unwrap());
            parameters.fields = Some("/b".parse().unwrap());
        });
        let delivered = sink.deliver(Arc::new(batch), Arc::new(Always)).await.unwrap();
        assert_eq!((delivered.events, delivered.filtered), (2, 1));
        assert_eq!(sink.into_inner(), b"{\"b\":3}\ntext\n");
    }

    #[tokio::test]
    async fn nothing_is_written_without_the_right() {
        let sink = StdoutSink::new(Vec::new());
        let over = Arc::new(Switch(false.into()));
        let refused = sink.deliver(Arc::new(batch(vec![event(1, "k", "a")])), over).await;
        assert!(matches!(refused, Err(DeliverError::RightEnded)));
        assert_eq!(sink.into_inner(), b"");
    }

    /// Fails when it is flushed.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[tokio::test]
    async fn what_is_not_flushed_is_not_delivered() {
        for (kind, retry) in
            [(io::ErrorKind::BrokenPipe, Retry::Never), (io::ErrorKind::Other, Retry::Backoff)]
        {
            let sink = StdoutSink::new(Failing(kind));
            let error =
                sink.deliver(Arc::new(batch(vec![event(1, "k", "a")])), Arc::new(Always)).await.unwrap_err();
            assert_eq!(error.retry(), retry);
        }
    }
}
