//! How much of what a shard leaves is read while a backlog is drained, and how many calls are refused: a real worker on the
//! embedded backend with the limits of the service, beside a consumer that takes calls and bytes; and KCL in its place,
//! where there is Java.
//!
//! What was read is counted by the backend, not by the reader. Each row has a backend of its own.

mod kcl;
mod others;

use std::time::Duration;

use anyhow::Context;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use serde_json::json;

use self::kcl::KclReader;
use self::others::{OthersCount, Taken};
use crate::harness::backend::STREAM;
use crate::harness::{Backend, Fleet, wait_for};

/// What a shard gives, a second (AWS Kinesis developer guide, "Quotas and limits").
const SHARD_CALLS: u32 = 5;
const SHARD_BYTES: u32 = 2 << 20;
/// Bytes of a partition key.
const KEY_BYTES: usize = 8;
/// Records of one PutRecords (Kinesis API reference: 500, and 10 MiB).
const PUT_RECORDS: usize = 500;
const PUT_BYTES: usize = 4 << 20;
/// How long a reader may take until it reads.
const PATIENCE: Duration = Duration::from_secs(150);

/// What is measured, and on what.
#[derive(Debug, Clone, Copy)]
pub struct ReadsPlan {
    /// How long each row is measured.
    pub lasts: Duration,
    /// How long a reader reads before that, to learn what is left.
    pub settling: Duration,
    /// Whether KCL is measured too, if it can be.
    pub kcl: bool,
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Worker,
    Kcl,
}

/// One row: records of a size, and what the other consumer takes, one after the other for equal times.
#[derive(Debug, Clone)]
struct Case {
    record_bytes: usize,
    taken: Vec<Taken>,
}

/// What came out of it.
#[derive(Debug, Clone)]
pub struct Row {
    reader: Reader,
    case: Case,
    /// Bytes a second that were left, and that were read.
    left: f64,
    read: f64,
    answered: f64,
    refused: f64,
    /// Calls of the other consumer that were refused, in a hundred.
    others_refused: f64,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    /// Why there are no rows of KCL.
    skipped: Option<String>,
}

impl Row {
    fn taken_text(&self) -> String {
        let text = |taken: &Taken| format!("{} + {:.0}%", taken.calls, 100.0 * taken.bytes);
        self.case.taken.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    fn refused_percent(&self) -> f64 {
        100.0 * self.refused / (self.answered + self.refused).max(f64::MIN_POSITIVE)
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "reader": self.reader.name(),
            "record_bytes": self.case.record_bytes,
            "others_take": self.taken_text(),
            "left_bytes_per_second": self.left.round(),
            "read_bytes_per_second": self.read.round(),
            "part": thousandths(self.read / self.left),
            "answered_per_second": thousandths(self.answered),
            "refused_per_second": thousandths(self.refused),
            "refused_percent": thousandths(self.refused_percent()),
            "others_refused_percent": thousandths(self.others_refused),
        })
    }

    fn text(&self) -> String {
        format!(
            "{:<10} {:>6} {:<24} {:>5.2} {:>5.2} {:>5.1}% {:>5.2} {:>5.2} {:>5.1}% {:>5.1}%",
            self.reader.name(),
            self.case.record_bytes,
            self.taken_text(),
            self.left / 1e6,
            self.read / 1e6,
            100.0 * self.read / self.left,
            self.answered,
            self.refused,
            self.refused_percent(),
            self.others_refused,
        )
    }
}

impl Reader {
    fn name(self) -> &'static str {
        match self {
            Self::Worker => "sluicegate",
            Self::Kcl => "kcl",
        }
    }
}

impl Report {
    fn skip(&mut self, why: String, say: impl Fn(&str)) {
        say(&format!("SKIPPED: KCL: {why}"));
        self.skipped = Some(why);
    }

    /// For machines.
    pub fn json(&self, plan: &ReadsPlan) -> serde_json::Value {
        json!({
            "seconds_each": plan.lasts.as_secs(),
            "settling_seconds": plan.settling.as_secs(),
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "kcl": self.skipped.as_deref().unwrap_or("measured"),
        })
    }
}

const HEAD: &str =
    "reader      bytes others take              left  read  part   ok/s ref/s refused others refused
                  (calls/s + bytes)        MB/s  MB/s";

/// Measures row after row; `say` is told each.
///
/// # Errors
/// A backend or a reader cannot be started, or does not read.
pub async fn run(plan: ReadsPlan, name: &str, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let mut report = Report::default();
    say(HEAD);
    for case in cases() {
        let row = measure(&plan, Reader::Worker, case, name, None).await?;
        say(&row.text());
        report.rows.push(row);
    }
    let kcl = if plan.kcl { KclReader::build(name).await } else { Err("not asked for".to_owned()) };
    match kcl {
        Err(why) => report.skip(why, &say),
        Ok(kcl) => {
            for case in cases().into_iter().filter(Case::is_of_calls) {
                match measure(&plan, Reader::Kcl, case, name, Some(&kcl)).await {
                    Ok(row) => {
                        say(&row.text());
                        report.rows.push(row);
                    }
                    Err(error) => report.skip(format!("{error:#}"), &say),
                }
            }
        }
    }
    Ok(report)
}

impl Case {
    /// Whether it is one of those that KCL is measured on: others take calls and no bytes.
    fn is_of_calls(&self) -> bool {
        self.record_bytes == 300 && self.taken.len() == 1 && self.taken.iter().all(|taken| taken.bytes == 0.0)
    }

    /// Bytes that must be there so that the backlog outlasts the measurement.
    fn backlog_bytes(&self, plan: &ReadsPlan) -> f64 {
        // Some is read before the measurement begins, and a page may be ahead of its time.
        (plan.lasts + plan.settling).as_secs_f64() * f64::from(SHARD_BYTES) + f64::from(8 * SHARD_BYTES)
    }
}

fn cases() -> Vec<Case> {
    let of = |record_bytes, taken: &[(u32, f64)]| Case {
        record_bytes,
        taken: taken.iter().map(|(calls, bytes)| Taken { calls: *calls, bytes: *bytes }).collect(),
    };
    vec![
        of(300, &[(0, 0.0)]),
        of(300, &[(3, 0.0)]),
        of(300, &[(4, 0.0)]),
        of(300, &[(3, 0.5)]),
        of(20_000, &[(2, 0.25)]),
        of(300, &[(0, 0.0), (4, 0.0), (2, 0.5)]),
    ]
}

async fn measure(
    plan: &ReadsPlan,
    reader: Reader,
    case: Case,
    name: &str,
    kcl: Option<&KclReader>,
) -> anyhow::Result<Row> {
    let backend = Backend::process().await?;
    backend.create_stream(1).await?;
    fill(&backend, &case, case.backlog_bytes(plan)).await?;
    let limits =
        format!("streams.{STREAM}.read_calls = {SHARD_CALLS}\nstreams.{STREAM}.read_bytes = {SHARD_BYTES}");
    backend.set_kinesis("/limits", &limits).await?;
    let others = others::Others::start(&backend, case.record_bytes, case.taken[0]).await?;
    let mut fleet = Fleet::with_defaults(&backend, name)?;
    let mut peer = None;
    match (reader, kcl) {
        (Reader::Kcl, Some(kcl)) => peer = Some(kcl.start(&backend)?),
        (Reader::Kcl, None) | (Reader::Worker, _) => drop(fleet.start(&[])?),
    }
    wait_for("the backlog to be read", PATIENCE, async || {
        fleet.check_alive()?;
        let used = Used::now(&backend, &others.count()).await?;
        Ok((used.read > f64::from(SHARD_BYTES)).then_some(()))
    })
    .await?;
    tokio::time::sleep(plan.settling).await;
    let before = Used::now(&backend, &others.count()).await?;
    let turn = plan.lasts / u32::try_from(case.taken.len())?;
    let mut left = 0.0;
    for taken in &case.taken {
        others.take(*taken);
        tokio::time::sleep(turn).await;
        left += taken.left_bytes() / f64::from(u32::try_from(case.taken.len())?);
    }
    fleet.check_alive()?;
    let used = Used::now(&backend, &others.count()).await?.since(&before);
    drop(peer);
    Ok(Row {
        reader,
        case,
        left,
        read: used.read / used.seconds,
        answered: used.answered / used.seconds,
        refused: used.refused / used.seconds,
        others_refused: used.others_refused_percent(),
    })
}

/// What the reader used up to a moment: what the backend counts, less the other consumer's.
#[derive(Debug, Clone, Copy)]
struct Used {
    seconds: f64,
    read: f64,
    answered: f64,
    refused: f64,
    others: OthersCount,
}

impl Used {
    async fn now(backend: &Backend, others: &OthersCount) -> anyhow::Result<Self> {
        let ledger = backend.kinesis_admin("/ledger").await?;
        let of = |name: &str| ledger[STREAM][name].as_f64().with_context(|| format!("no {name}: {ledger}"));
        Ok(Self {
            seconds: others.seconds,
            read: of("read_bytes")? - others.bytes,
            answered: of("reads")? - others.answered,
            refused: of("refused_reads")? - others.refused,
            others: *others,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            seconds: self.seconds - before.seconds,
            read: self.read - before.read,
            answered: self.answered - before.answered,
            refused: self.refused - before.refused,
            others: OthersCount {
                seconds: self.seconds - before.seconds,
                bytes: self.others.bytes - before.others.bytes,
                answered: self.others.answered - before.others.answered,
                refused: self.others.refused - before.others.refused,
            },
        }
    }

    fn others_refused_percent(&self) -> f64 {
        let calls = self.others.answered + self.others.refused;
        if calls > 0.0 { 100.0 * self.others.refused / calls } else { 0.0 }
    }
}

/// Puts a backlog of JSON events into the one shard.
async fn fill(backend: &Backend, case: &Case, bytes: f64) -> anyhow::Result<()> {
    let each = (PUT_BYTES / case.record_bytes).clamp(1, PUT_RECORDS);
    let (mut number, mut put) = (0u64, 0.0);
    while put < bytes {
        let mut entries = Vec::with_capacity(each);
        for _ in 0..each {
            let data = event(number, case.record_bytes - KEY_BYTES);
            let key = format!("key-{:04}", number % 50);
            entries.push(PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build()?);
            number += 1;
        }
        let answer =
            backend.kinesis().put_records().stream_name(STREAM).set_records(Some(entries)).send().await?;
        anyhow::ensure!(
            answer.failed_record_count().unwrap_or(0) == 0,
            "records were not stored: {answer:?}"
        );
        put += f64::from(u32::try_from(each * case.record_bytes)?);
    }
    Ok(())
}

/// An event of this length.
fn event(number: u64, bytes: usize) -> Vec<u8> {
    let mut event = format!(r#"{{"number":{number},"rest":""#).into_bytes();
    event.resize(bytes.saturating_sub(2).max(event.len()), b'x');
    event.extend_from_slice(br#""}"#);
    event
}

fn thousandths(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_length_they_should_and_are_json() {
        for bytes in [100, 292, 19_992] {
            let event = event(7, bytes);
            assert_eq!(event.len(), bytes);
            assert!(serde_json::from_slice::<serde_json::Value>(&event).is_ok());
        }
    }

    #[test]
    fn what_is_refused_is_told_in_a_hundred_calls() {
        let row = Row {
            reader: Reader::Worker,
            case: cases().remove(0),
            left: 2e6,
            read: 1.9e6,
            answered: 3.92,
            refused: 0.08,
            others_refused: 0.0,
        };
        assert_eq!(row.json()["refused_percent"], 2.0);
        assert_eq!(row.json()["part"], 0.95);
        assert_eq!(cases().iter().filter(|case| case.is_of_calls()).count(), 3);
    }
}
