//! Mistakes: one line that says what to do, an exit code that tells configuration from the rest, and no panic.

use std::path::Path;

use anyhow::Context;
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::command::{bare, finish};
use sluicegate_tests::harness::fleet::ask;
use sluicegate_tests::harness::process::{Signal, signal};
use sluicegate_tests::harness::{Backend, Finished, LONG, wait_for};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStderr;

/// Exit code for bad configuration or arguments.
const CONFIGURATION: i32 = 64;
/// Exit code for anything else.
const OTHER: i32 = 1;

/// A run in an environment of its own.
async fn run(home: &Path, environment: &[(String, String)], arguments: &[&str]) -> anyhow::Result<Finished> {
    let mut command = bare(home)?;
    command.envs(environment.iter().map(|(name, value)| (name, value))).args(arguments);
    finish(command, &[]).await
}

/// The one line on standard error that begins with `error:`; logs may stand before it.
fn the_error(ended: &Finished, code: i32) -> &str {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    assert_eq!(ended.stdout, "", "{ended:#?}");
    for never in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
        assert!(!ended.stderr.contains(never), "{ended:#?}");
    }
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{ended:#?}");
    assert_eq!(ended.stderr.lines().last(), Some(errors[0]), "something follows the error: {ended:#?}");
    errors[0]
}

/// [`the_error`], where nothing else may be on standard error.
fn the_only_line(ended: &Finished, code: i32) -> &str {
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
    the_error(ended, code)
}

/// That a message says all of this.
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

/// A machine with endpoints and credentials, but not `--embedded`: what a test of AWS looks like.
fn as_on_aws(backend: &Backend) -> Vec<(String, String)> {
    let more = [("AWS_REGION", "eu-west-1"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
    backend.environment().into_iter().chain(more).collect()
}

const RUN: [&str; 5] = ["run", "--stream", "flights", "--application", "billing"];
const CHECK: [&str; 5] = ["check", "--stream", "flights", "--application", "billing"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_stream_is_named() -> anyhow::Result<()> {
    let (backend, home) = (Backend::start().await?, tempfile::tempdir()?);
    let environment = backend.environment();
    let arguments = [&RUN[..], &["--embedded"]].concat();
    let ended = run(home.path(), &environment, &arguments).await?;
    says(the_error(&ended, OTHER), &["stream `flights`", "check --stream"]);
    let produce = ["produce", "--embedded", "--stream", "flights"];
    let ended = run(home.path(), &environment, &produce).await?;
    says(the_only_line(&ended, OTHER), &["stream `flights` does not exist", "create it"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_table_is_named_and_not_created_unasked() -> anyhow::Result<()> {
    let (backend, home) = (Backend::with_stream(1).await?, tempfile::tempdir()?);
    let environment = as_on_aws(&backend);
    let ended = run(home.path(), &environment, &RUN).await?;
    says(the_error(&ended, OTHER), &["table `billing` does not exist", "--create-tables"]);
    let tables = backend.dynamodb().list_tables().send().await?;
    assert!(tables.table_names().is_empty(), "{tables:?}");

    // With the lease tables there, the analytics table is missing.
    sluicegate_lease::dynamodb::ensure_tables(
        backend.dynamodb(),
        sluicegate_lease::Clock::new(),
        "billing",
        true,
    )
    .await?;
    let ended = run(home.path(), &environment, &RUN).await?;
    says(the_error(&ended, OTHER), &["table `billing-events`", "create"]);

    let read = ["read", "--key", "k", "--application", "billing"];
    let ended = run(home.path(), &environment, &read).await?;
    says(the_only_line(&ended, OTHER), &["billing-events"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_something_else_is_refused() -> anyhow::Result<()> {
    let (backend, home) = (Backend::with_stream(1).await?, tempfile::tempdir()?);
    sluicegate_sink::dynamodb::ensure_table(backend.dynamodb(), "billing", true).await?;
    let ended = run(home.path(), &as_on_aws(&backend), &RUN).await?;
    says(the_error(&ended, OTHER), &["table `billing`", "choose another name"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_region_and_no_credentials_are_told_apart() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let region = [("AWS_REGION".to_owned(), "eu-west-1".to_owned())];
    for arguments in [&RUN[..], &["produce", "--stream", "s"], &["read", "--key", "k", "--table", "events"]] {
        let ended = run(home.path(), &[], arguments).await?;
        says(the_error(&ended, CONFIGURATION), &["no AWS region", "AWS_REGION", "--region"]);
        let ended = run(home.path(), &region, arguments).await?;
        says(the_error(&ended, OTHER), &["no AWS credentials", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"]);
    }
    Ok(())
}

/// As with a region that is wrong: nothing answers where the endpoint should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_does_not_answer_is_an_error_and_no_hang() -> anyhow::Result<()> {
    let (backend, home) = (Backend::with_stream(1).await?, tempfile::tempdir()?);
    let mut environment = as_on_aws(&backend);
    // A port that was free a moment ago, on which nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let nowhere = format!("http://127.0.0.1:{port}");
    for (name, value) in &mut environment {
        if name.starts_with("AWS_ENDPOINT_URL") {
            value.clone_from(&nowhere);
        }
    }
    let ended = run(home.path(), &environment, &[&RUN[..], &["--create-tables"]].concat()).await?;
    says(the_error(&ended, OTHER), &["table `billing` could not be reached", "the region, the endpoint"]);
    let ended = run(home.path(), &environment, &["produce", "--stream", "flights"]).await?;
    says(the_error(&ended, OTHER), &["Kinesis gave no answer", "the region and the endpoint"]);
    let ended = run(home.path(), &environment, &["read", "--key", "k", "--table", "events"]).await?;
    says(the_only_line(&ended, OTHER), &["table `events`", "the region and the network"]);
    Ok(())
}

/// Ending would only have it started again: a worker waits for tables that are away, answers its probes meanwhile, and can be
/// stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_while_its_tables_are_away_waits_for_them() -> anyhow::Result<()> {
    let (backend, home) = (Backend::start().await?, tempfile::tempdir()?);
    backend.create_stream(1).await?;
    let away = |table: &str| format!("[[fault]]\ntable = \"{table}\"\noutage = \"refuse\"\n");
    backend.set("/faults", &away("billing-events")).await?;
    let start = || -> anyhow::Result<_> {
        let mut command = bare(home.path())?;
        command.envs(as_on_aws(&backend)).args(RUN).arg("--create-tables");
        let mut child = command.spawn()?;
        let log = BufReader::new(child.stderr.take().context("no log")?).lines();
        Ok((child.id().context("it has ended")?, child, log))
    };
    let (id, mut stopped, mut log) = start()?;
    until(&mut log, "the start is tried again").await?;
    signal(id, Signal::TERM)?;
    assert_eq!(tokio::time::timeout(LONG, stopped.wait()).await??.code(), Some(0), "it was stopped");

    backend.set("/faults", &away("billing")).await?;
    let (id, mut goes_on, mut log) = start()?;
    let listens = until(&mut log, "admin server listens").await?;
    let listens: serde_json::Value = serde_json::from_str(&listens)?;
    let address = listens["address"].as_str().context("no address")?;
    until(&mut log, "the start is tried again").await?;
    for (path, status) in [("/livez", 200), ("/readyz", 503)] {
        let answer = ask(address, path).await?;
        anyhow::ensure!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    backend.set("/faults", "").await?;
    until(&mut log, "worker starts").await?;
    wait_for("the worker to be ready", LONG, async || {
        Ok(ask(address, "/readyz").await?.starts_with("HTTP/1.1 200").then_some(()))
    })
    .await?;
    signal(id, Signal::TERM)?;
    let rest = async { while let Ok(Some(_)) = log.next_line().await {} };
    let (ended, ()) = tokio::join!(tokio::time::timeout(LONG, goes_on.wait()), rest);
    assert_eq!(ended??.code(), Some(0));
    Ok(())
}

/// Reads a log up to a line with these words.
async fn until(log: &mut Lines<BufReader<ChildStderr>>, words: &str) -> anyhow::Result<String> {
    let found = async {
        while let Some(line) = log.next_line().await? {
            if line.contains(words) {
                return anyhow::Ok(line);
            }
        }
        anyhow::bail!("the log ended without `{words}`")
    };
    tokio::time::timeout(LONG, found).await?
}

/// A worker outlives an outage of the stream, so it goes on trying; but it can be stopped meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_cannot_reach_the_stream_can_still_be_stopped() -> anyhow::Result<()> {
    let (backend, home) = (Backend::start().await?, tempfile::tempdir()?);
    let mut command = bare(home.path())?;
    command.envs(as_on_aws(&backend)).args(RUN).arg("--create-tables");
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    command.env("AWS_ENDPOINT_URL_KINESIS", format!("http://127.0.0.1:{port}"));
    let child = command.spawn()?;
    let id = child.id().context("it has ended")?;
    wait_for("the tables", LONG, async || {
        let tables = backend.dynamodb().list_tables().send().await?;
        Ok((tables.table_names().len() == 3).then_some(()))
    })
    .await?;
    signal(id, Signal::TERM)?;
    let ended = tokio::time::timeout(LONG, child.wait_with_output()).await??;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_embedded_backend_the_error_says_how_to_start_one() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let nowhere = ("AWS_ENDPOINT_URL".to_owned(), format!("http://127.0.0.1:{port}"));
    let ended = run(home.path(), &[nowhere], &[&RUN[..], &["--embedded"]].concat()).await?;
    says(the_only_line(&ended, OTHER), &["no embedded backend answers", "start `sluicegate local`"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_key_template_says_where() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    for (template, part) in [
        ("{/carrier", "never closed"),
        ("{carrier}", "begin it with /"),
        ("", "is empty"),
        ("}", "closes nothing"),
    ] {
        let ended = run(home.path(), &[], &["produce", "--stream", "s", "--key", template]).await?;
        says(the_only_line(&ended, CONFIGURATION), &["--key", part]);
        let setting = [("SLUICEGATE_CFG_AGGREGATE_KEY".to_owned(), template.to_owned())];
        let ended = run(home.path(), &setting, &RUN).await?;
        says(the_only_line(&ended, CONFIGURATION), &["aggregate_key", part]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_file_is_judged_as_a_whole() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("sluicegate.toml");
    let name = file.to_string_lossy().into_owned();
    let arguments = [&RUN[..], &["--config", &name]].concat();
    let cases: [(&str, &[&str]); 7] = [
        ("failover_tiem = \"3s\"\n", &["no setting `failover_tiem`", "sluicegate.toml", "failover_time"]),
        (
            "failover_time = \"3s\"\nsafety_margin = \"2s\"\n",
            &["safety_margin is 2s", "failover_time (1s)", "change one"],
        ),
        (
            "buffer_bytes = \"4MiB\"\nmax_batch_bytes = \"3MiB\"\n",
            &["max_batch_bytes is 3.0 MiB", "half of buffer_bytes", "change one of them"],
        ),
        ("failover_time = \"3 parsecs\"\n", &["failover_time"]),
        ("max_in_flight = 100\n", &["max_in_flight is 100", "give 1 to 12"]),
        ("initial_position = \"YESTERDAY\"\n", &["initial_position is `YESTERDAY`", "TRIM_HORIZON"]),
        ("this is no toml\n", &["sluicegate.toml"]),
    ];
    for (text, parts) in cases {
        std::fs::write(&file, text)?;
        let ended = run(home.path(), &[], &arguments).await?;
        says(the_only_line(&ended, CONFIGURATION), parts);
    }
    std::fs::remove_file(&file)?;
    let ended = run(home.path(), &[], &arguments).await?;
    says(the_only_line(&ended, CONFIGURATION), &["is not there", "--config"]);
    let setting = [("SLUICEGATE_CFG_NO_SUCH_SETTING".to_owned(), "1".to_owned())];
    let ended = run(home.path(), &setting, &RUN).await?;
    says(the_only_line(&ended, CONFIGURATION), &["no setting `no_such_setting`"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_wrong_is_told_at_once_and_as_json_too() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let wrong = [("LOG", "inof"), ("SPREAD", "5000"), ("ZSTD_LEVEL", "99"), ("ADMIN_TOKEN", "123456789")]
        .map(|(name, value)| (format!("SLUICEGATE_CFG_{name}"), value.to_owned()));
    let ended = run(home.path(), &wrong, &RUN).await?;
    says(
        the_only_line(&ended, CONFIGURATION),
        &["log is `inof`", "; spread is 5000", "; zstd_level is 99", "; admin_token is a text"],
    );
    let ended = run(home.path(), &wrong, &CHECK).await?;
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!((ended.code, lines.len()), (Some(CONFIGURATION), 4), "{ended:#?}");
    assert!(lines[3].starts_with("error: admin_token is ") && !ended.stderr.contains("12345"), "{ended:#?}");
    let json = [&CHECK[..], &["--json"]].concat();
    let ended = run(home.path(), &wrong, &json).await?;
    let told: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(told["errors"].as_array().map(Vec::len), Some(4), "{told}");
    let unknown = [("SLUICEGATE_CFG_NO_SUCH_SETTING".to_owned(), "1".to_owned())];
    let ended = run(home.path(), &unknown, &json).await?;
    let told: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(CONFIGURATION), 1), "{ended:#?}");
    assert!(told["settings"].is_null() && told["error"] == told["errors"][0], "{told}");
    Ok(())
}

/// The command line has its own words and may take several lines for them.
/// The name of a letter, as `list` prints it.
const LETTER: &str = "shardId-000000000001:21.2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_that_do_not_fit_exit_with_64() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    for arguments in [
        &["run", "--no-such-flag"][..],
        &["run", "--stream", "s"],
        &[&RUN[..], &["--admin", "nowhere"]].concat(),
        &[&RUN[..], &["--advertise", "not a host"]].concat(),
        &[&RUN[..], &["--sink", "paper"]].concat(),
        &["run", "--stream", "flights", "--application", ""],
        &["check", "--stream", "", "--application", "billing"],
        &["check", "--stream", "flights", "--application", "a b/*", "--policy"],
        &[&CHECK[..], &["--account", "foo", "--policy"]].concat(),
        &["produce", "--stream", "s", "--create-stream", "0"],
        &["read", "--key", "k"],
        // No table and no stream can have such a name: nothing is asked.
        &["read", "--key", "k", "--application", "a b"],
        &["read", "--key", "k", "--table", "ab"],
        &["leases", "list", "--application", "billing/*"],
        &["checkpoint", "get", "--application", "ab"],
        &["drain", "--application", "a b", "w"],
        &["dead-letters", "list", "--application", "a b"],
        &["dead-letters", "list", "--dead-letters", "a b"],
        // What is named is not chosen among.
        &["dead-letters", "purge", "--application", "app", LETTER, "--cause", "rejected"],
        &["dead-letters", "purge", "--application", "app", LETTER, "--until", "2020-01-01T00:00:00Z"],
        &["dead-letters", "redrive", "--application", "app", LETTER, "--since", "2020-01-01T00:00:00Z"],
        &["produce", "--stream", "flights!"],
        &["no-such-command"],
        &["demo", "--workers", "0"],
    ] {
        let ended = run(home.path(), &[], arguments).await?;
        assert_eq!(ended.code, Some(CONFIGURATION), "{arguments:?}: {ended:#?}");
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains("--help"), "{ended:#?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:#?}");
    }
    let ended = run(home.path(), &[], &["demo", "--failover-time", "10ms"]).await?;
    says(the_only_line(&ended, CONFIGURATION), &["--failover-time", "1s"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_input_file_is_named() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("no-such.ndjson").to_string_lossy().into_owned();
    for arguments in [&["produce", "--embedded", "--stream", "s", &file][..], &["demo", "--input", &file]] {
        let ended = run(home.path(), &[], arguments).await?;
        says(the_only_line(&ended, OTHER), &["cannot open", "no-such.ndjson", "No such file"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_time_is_shown_with_one_that_is_valid() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    for flag in ["--from", "--to"] {
        for time in ["yesterday", "2026-13-01T00:00:00Z", "1969-12-31T00:00:00Z", ""] {
            let read = ["read", "--key", "k", "--table", "events", flag, time];
            let ended = run(home.path(), &[], &read).await?;
            says(the_only_line(&ended, CONFIGURATION), &[flag, time, "2026-01-31T12:00:00Z"]);
        }
    }
    let position = [&RUN[..], &["--initial-position", "AT_TIMESTAMP:noon"]].concat();
    let ended = run(home.path(), &[], &position).await?;
    says(the_only_line(&ended, CONFIGURATION), &["initial_position is `AT_TIMESTAMP:noon`"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_has_not_come_is_refused_and_not_recorded() -> anyhow::Result<()> {
    let (backend, home) = (Backend::with_stream(1).await?, tempfile::tempdir()?);
    let arguments =
        ["run", "--embedded", "--stream", STREAM, "--application", "billing", "--initial-position"];
    let future = [&arguments[..], &["AT_TIMESTAMP:2126-01-01T00:00:00Z"]].concat();
    let ended = run(home.path(), &backend.environment(), &future).await?;
    says(the_error(&ended, OTHER), &["initial_position is a time in the future", "LATEST"]);
    let again = run(home.path(), &backend.environment(), &future).await?;
    says(the_error(&again, OTHER), &["initial_position is a time in the future"]);
    Ok(())
}
