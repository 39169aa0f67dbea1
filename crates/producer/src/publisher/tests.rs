//! From bytes to the stream and the summary, with the input thread.

use std::error::Error;
use std::io::{Cursor, Write};

use rand::SeedableRng;
use sluicegate_checkpoint::KeyTemplate;
use sluicegate_checkpoint::key_template::FALLBACK_KEY;

use super::*;
use crate::memory::{Fault, MemoryStream};

const LATENCY: Duration = Duration::from_millis(5);

fn options() -> PublishOptions {
    PublishOptions::new(SmallRng::seed_from_u64(7))
}

async fn publish_text(
    input: impl Into<Vec<u8>>,
    options: PublishOptions,
    script: &[Fault],
) -> (Arc<MemoryStream>, Result<Summary, PublishError>) {
    let stream = Arc::new(MemoryStream::new(LATENCY, script.iter().copied()));
    let writer = Arc::clone(&stream) as Arc<dyn StreamWriter>;
    let (input, progress) = (Cursor::new(input.into()), Arc::new(Progress::default()));
    let result = publish(input, writer, options, Arc::clone(&progress), CancellationToken::new()).await;
    let summary = result.as_ref().unwrap_or_else(|error| &error.summary);
    assert_eq!((progress.records(), progress.bytes()), (summary.records, summary.bytes));
    assert_eq!((progress.retries(), progress.invalid_lines()), (summary.retries, summary.invalid_lines));
    (stream, result)
}

fn data(stream: &MemoryStream) -> Vec<String> {
    stream.stored().iter().map(|entry| String::from_utf8(entry.data.to_vec()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_line_becomes_a_record_with_its_key() {
    let keying = Keying::Template(KeyTemplate::parse("{/job}").unwrap());
    let options = PublishOptions { keying, ..options() };
    let (stream, result) =
        publish_text("{\"job\": 1}\r\n\n{\"job\":\"b\"}\n{}", options, &[Fault::FailEvery(2)]).await;
    let summary = result.unwrap();
    assert_eq!((summary.records, summary.bytes, summary.empty_lines, summary.fallback_keys), (3, 23, 1, 1));
    let mut stored = stream.stored();
    stored.sort_by(|a, b| a.data.cmp(&b.data));
    let keys: Vec<&str> = stored.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["1", "b", FALLBACK_KEY]);
    assert_eq!(stored[0].data, "{\"job\": 1}".as_bytes());
}

#[tokio::test(start_paused = true)]
async fn on_error_skip_goes_on_and_tells_the_lines() {
    let long = format!("\"{}\"", "x".repeat(100));
    let input = format!("1\nnope\n2\n{long}\n3\n{{\n");
    let options =
        PublishOptions { on_error: OnError::Skip, max_record_bytes: 64, kept_line_errors: 2, ..options() };
    let (stream, result) = publish_text(input, options, &[]).await;
    let summary = result.unwrap();
    assert_eq!(data(&stream), ["1", "2", "3"]);
    assert_eq!(summary.invalid_lines, 3);
    let errors: Vec<String> = summary.line_errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "line 2: not valid JSON at column 1: expected value",
            "line 4: longer than the 64 bytes that a record of this stream may have"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn on_error_stop_publishes_what_stands_before_the_line() {
    let (stream, result) = publish_text("1\n2\nnope\n3\n", options(), &[Fault::LoseRequest]).await;
    let error = result.unwrap_err();
    assert_eq!(data(&stream), ["1", "2"]);
    assert_eq!(error.to_string(), "publishing ended early, with 2 records stored");
    assert!(error.source().unwrap().to_string().starts_with("line 3: not valid JSON"));
    assert_eq!(
        (error.summary.records, error.summary.invalid_lines, error.summary.unknown_outcomes),
        (2, 1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_broken_archive_publishes_what_could_be_read() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all("1\n2\n".repeat(1_000).as_bytes()).unwrap();
    let mut input = encoder.finish().unwrap();
    input.truncate(input.len() - 8);
    let (stream, result) = publish_text(input, options(), &[]).await;
    let error = result.unwrap_err();
    assert!(matches!(error.fault, PublishFault::Unreadable { after_line: 2_000, .. }), "{:?}", error.fault);
    assert_eq!(stream.stored().len(), 2_000);
}

#[tokio::test(start_paused = true)]
async fn a_large_input_arrives_whole_in_full_requests() {
    let records = 20_000;
    let input: String =
        (0..records).map(|number| format!("{{\"n\":{number},\"text\":\"{number:0250}\"}}\n")).collect();
    let script = [Fault::FailEvery(7), Fault::Throttle, Fault::None, Fault::FailEvery(2)];
    let (stream, result) =
        publish_text(zstd::encode_all(input.as_bytes(), 1).unwrap(), options(), &script).await;
    assert_eq!(result.unwrap().records, records);
    let (mut stored, mut expected) = (data(&stream), input.lines().map(str::to_owned).collect::<Vec<_>>());
    stored.sort_unstable();
    expected.sort_unstable();
    assert!(stored == expected, "{} of {}", stored.len(), expected.len());
    assert!(stream.most_in_flight() <= 4);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_publishing_whose_input_blocks() {
    /// Gives a line, then nothing until its sender is dropped.
    struct Pipe(std::sync::mpsc::Receiver<u8>);
    impl Read for Pipe {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Ok(byte) = self.0.recv() else { return Ok(0) };
            into[0] = byte;
            Ok(1)
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    for byte in b"12345\n" {
        sender.send(*byte).unwrap();
    }
    let stream = Arc::new(MemoryStream::default());
    let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let writer = Arc::clone(&stream) as Arc<dyn StreamWriter>;
    let publishing = publish(Pipe(receiver), writer, options(), Arc::clone(&progress), stop.clone());
    let stopping = async {
        while progress.records() < 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
    };
    let (result, ()) = tokio::join!(publishing, stopping);
    let error = result.unwrap_err();
    assert!(matches!(error.fault, PublishFault::Stopped), "{:?}", error.fault);
    assert_eq!(error.summary.records, 1);
    drop(sender);
}

#[tokio::test(start_paused = true)]
async fn an_empty_input_is_published() {
    for input in ["", "\n", " \r\n"] {
        let (stream, result) = publish_text(input, options(), &[]).await;
        assert_eq!((result.unwrap().records, stream.request_records().len()), (0, 0));
    }
}
