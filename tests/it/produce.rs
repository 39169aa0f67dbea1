//! `sluicegate produce`: what is in the input is in the stream, and bad lines are named.

use std::io::Write;

use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::{Backend, Finished, Multiset, flights, sluicegate_with};

async fn produce(backend: &Backend, arguments: &[&str], stdin: &[u8]) -> anyhow::Result<Finished> {
    let all = [&["produce", "--embedded", "--json"], arguments].concat();
    sluicegate_with(&backend.environment(), &all, stdin).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_gzip_and_zstd_files_and_standard_input_are_published_byte_for_byte() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    let folder = tempfile::tempdir()?;
    let lines = flights(10, 1_200);
    let text = lines.join("\n").into_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text)?;
    let inputs = [
        ("plain", text.clone()),
        ("gzip", gzip.finish()?),
        ("zstd", zstd::stream::encode_all(text.as_slice(), 1)?),
    ];
    let published: Multiset = lines.iter().cloned().collect();
    let bytes: usize = lines.iter().map(String::len).sum();
    let check = async |stream: &str, done: Finished| {
        let summary = done.successful()?.last_json()?;
        assert_eq!(summary["records"], 1_200, "{stream}");
        assert_eq!(summary["bytes"], bytes, "{stream}");
        assert_eq!((&summary["retries"], &summary["unknown_outcomes"]), (&0.into(), &0.into()), "{stream}");
        assert!(summary["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{stream}");
        published.equals(&backend.records(stream).await?)
    };
    for (name, content) in &inputs {
        // The name tells nothing of the encoding.
        let file = folder.path().join(format!("{name}-input"));
        std::fs::write(&file, content)?;
        let file = file.to_string_lossy().into_owned();
        let arguments = ["--create-stream", "2", "--stream", name, "--key", "{/customer}", &file];
        check(name, produce(&backend, &arguments, &[]).await?).await?;
        // Standard input takes the same encodings, with or without `-`.
        let stream = format!("{name}-stdin");
        let arguments = ["--create-stream", "2", "--stream", &stream, "-"];
        check(&stream, produce(&backend, &arguments[..if *name == "plain" { 4 } else { 5 }], content).await?)
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_not_json_is_named_and_the_rest_goes_on_or_stops() -> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    let input = b"{\"n\":1}\n{\"n\":2}\n\n{\"n\":\n{\"n\":5}\nnonsense\n";
    let stopped = produce(&backend, &["--stream", STREAM], input).await?;
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    let error = stopped.stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: ") && error.contains("line 4: not valid JSON"), "{stopped:?}");
    assert_eq!(stopped.last_json()?["records"], 2);
    Multiset::from_iter([r#"{"n":1}"#, r#"{"n":2}"#]).equals(&backend.records(STREAM).await?)?;

    let skip = ["--create-stream", "1", "--stream", "skip", "--on-error", "skip"];
    let skipped = produce(&backend, &skip, input).await?.successful()?;
    let summary = skipped.last_json()?;
    assert_eq!((&summary["records"], &summary["invalid_lines"]), (&3.into(), &2.into()));
    assert_eq!(summary["empty_lines"], 1);
    let numbers: Vec<_> = [0, 1].map(|n| summary["line_errors"][n]["line"].clone()).into();
    assert_eq!(numbers, [4, 6]);
    assert!(skipped.stderr.contains("line 4: ") && skipped.stderr.contains("line 6: "), "{skipped:?}");
    let three = [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":5}"#];
    Multiset::from_iter(three).equals(&backend.records("skip").await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_a_key_gets_the_fallback_key_and_is_counted() -> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    let long = format!("{{\"k\":\"{}\"}}", "x".repeat(257));
    let input = format!("{{\"k\":\"a\"}}\n{{\"other\":1}}\n{{\"k\":\"\"}}\n{long}\n");
    let done =
        produce(&backend, &["--stream", STREAM, "--key", "{/k}"], input.as_bytes()).await?.successful()?;
    let summary = done.last_json()?;
    assert_eq!((&summary["records"], &summary["fallback_keys"]), (&4.into(), &3.into()));
    assert_eq!(backend.records(STREAM).await?.len(), 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_larger_than_a_record_of_the_stream_is_a_bad_line() -> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    let input = format!("{{\"n\":1}}\n\"{}\"\n{{\"n\":3}}\n", "x".repeat(1 << 20));
    let skip = ["--stream", STREAM, "--on-error", "skip"];
    let done = produce(&backend, &skip, input.as_bytes()).await?.successful()?;
    let summary = done.last_json()?;
    assert_eq!((&summary["records"], &summary["line_errors"][0]["line"]), (&2.into(), &2.into()));
    let why = summary["line_errors"][0]["why"].as_str().unwrap_or_default();
    assert!(why.contains("1048576"), "{why}");
    Ok(())
}
