//! What the workers' logs say of sessions: when records began to flow, and when the last were read.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use serde_json::Value;
use sluicegate_checkpoint::SequenceNumber;

use crate::harness::Fleet;

/// The first records of a session went to its batcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Began {
    /// Which shard.
    pub shard: String,
    /// Number of the worker.
    pub worker: usize,
    /// When, in epoch milliseconds.
    pub at_ms: i64,
    /// The first record.
    pub first: SequenceNumber,
    /// Batches of earlier sessions that it delivers again.
    pub redelivered: u64,
}

/// A session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which shard.
    pub shard: String,
    /// Number of the worker.
    pub worker: usize,
    /// How.
    pub outcome: String,
    /// When records were last read, in epoch milliseconds.
    pub last_read_ms: Option<i64>,
    /// The last record that went to its batcher.
    pub last: Option<SequenceNumber>,
    /// How many went there.
    pub records: u64,
}

/// A worker's share of the write budget changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Number of the worker.
    pub worker: usize,
    /// When, in epoch milliseconds.
    pub at_ms: i64,
    /// To what, in thousandths of a write unit a second.
    pub milli: u64,
}

/// A step in the delivery of a batch with poison.
#[derive(Debug, Clone, PartialEq)]
pub struct Poisoned {
    /// Which shard, and the sequence number of the batch's first record.
    pub batch: (String, String),
    /// When, in epoch milliseconds.
    pub at_ms: i64,
    /// What happened.
    pub step: Step,
}

/// What happens to a batch with poison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Everything else is written; the events at fault are looked for. Of the rejected groups so much was not written yet, in
    /// write units.
    Search(f64),
    /// So many questions were asked.
    Asked(u64),
    /// It is durable, letters and all.
    Durable,
}

/// All that was logged of sessions so far.
#[derive(Debug, Default)]
pub struct Journal {
    read_to: BTreeMap<usize, u64>,
    ids: BTreeMap<String, usize>,
    taken_for_dead: usize,
    /// Beginnings, in the order of each worker's log.
    pub began: Vec<Began>,
    /// Ends, in the order of each worker's log.
    pub ended: Vec<Ended>,
    /// Shares of the write budget, in the order of each worker's log; told where it is asked for (`log`).
    pub shares: Vec<Shared>,
    /// What became of batches with poison, in the order of each worker's log.
    pub poisoned: Vec<Poisoned>,
}

impl Journal {
    /// Reads what the logs of a fleet say that was not read yet.
    ///
    /// # Errors
    /// A log cannot be read, or a line of a session lacks a field.
    pub fn read(&mut self, fleet: &Fleet<'_>) -> anyhow::Result<()> {
        for worker in 1..=fleet.started() {
            let mut file = std::fs::File::open(fleet.log_of(worker))?;
            let from = self.read_to.entry(worker).or_default();
            file.seek(SeekFrom::Start(*from))?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            // A line that is still being written is read next time.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            *from += whole as u64;
            for line in text[..whole].lines().filter(|line| line.starts_with('{')) {
                self.line(worker, line).with_context(|| format!("a line of worker {worker}: {line}"))?;
            }
        }
        Ok(())
    }

    /// How often a worker took another for dead.
    pub fn taken_for_dead(&self) -> usize {
        self.taken_for_dead
    }

    /// The number of the worker with this id, once it has logged it.
    pub fn number_of(&self, id: &str) -> Option<usize> {
        self.ids.get(id).copied()
    }

    /// The id of the worker of this number, once it has logged it.
    pub fn id_of(&self, number: usize) -> Option<&str> {
        self.ids.iter().find(|(_, of)| **of == number).map(|(id, _)| id.as_str())
    }

    /// The first time at or after `from_ms` at which another worker's session of this shard began to flow.
    pub fn flows_again(&self, shard: &str, from_ms: i64, not_by: usize) -> Option<&Began> {
        let again = |began: &&Began| began.shard == shard && began.at_ms >= from_ms && began.worker != not_by;
        self.began.iter().filter(again).min_by_key(|began| began.at_ms)
    }

    /// Whether the session that this worker holds of a shard has begun to flow.
    pub fn flows(&self, shard: &str, worker: usize) -> bool {
        let began = self.began.iter().filter(|began| began.shard == shard && began.worker == worker).count();
        let read = |ended: &&Ended| ended.shard == shard && ended.worker == worker && ended.last.is_some();
        began > self.ended.iter().filter(read).count()
    }

    fn line(&mut self, worker: usize, line: &str) -> anyhow::Result<()> {
        let line: Value = serde_json::from_str(line)?;
        let text = |name: &str| line[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        let sequence_number = || line["sequence_number"].as_str().map(SequenceNumber::parse).transpose();
        match line["message"].as_str() {
            Some("worker starts") => {
                self.ids.insert(text("worker_id")?, worker);
            }
            Some("the fleet changed") if line["after"] == "silent" => self.taken_for_dead += 1,
            Some("the share of the write budget changed") => {
                let milli = line["share_milli"].as_u64().context("no share_milli")?;
                self.shares.push(Shared { worker, at_ms: said_at(&text("timestamp")?)?, milli });
            }
            Some("records flow") => self.began.push(Began {
                shard: text("lease_key")?,
                worker,
                at_ms: line["at_ms"].as_i64().context("no at_ms")?,
                first: sequence_number()?.context("no sequence_number")?,
                redelivered: line["redelivered"].as_u64().context("no redelivered")?,
            }),
            Some("session ended") => self.ended.push(Ended {
                shard: text("lease_key")?,
                worker,
                outcome: text("outcome")?,
                last_read_ms: line["last_read_ms"].as_i64(),
                last: sequence_number()?,
                records: line["records"].as_u64().context("no records")?,
            }),
            Some("items are rejected; the events at fault are looked for") => {
                let left = line["left_units"].as_f64().context("no left_units")?;
                self.poisoned.push(poisoned(&line, Step::Search(left))?);
            }
            Some("the search for events at fault has ended") => {
                let questions = line["questions"].as_u64().context("no questions")?;
                self.poisoned.push(poisoned(&line, Step::Asked(questions))?);
            }
            Some("a batch is durable, and letters for what it leaves out") => {
                self.poisoned.push(poisoned(&line, Step::Durable)?);
            }
            Some(_) | None => {}
        }
        Ok(())
    }
}

/// A step, at the time of its line.
fn poisoned(line: &Value, step: Step) -> anyhow::Result<Poisoned> {
    let text = |name: &str| line[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    let at_ms = said_at(&text("timestamp")?)?;
    let batch = (text("lease_key")?, text("sequence_number")?);
    Ok(Poisoned { batch, at_ms, step })
}

/// The time of a line, in epoch milliseconds.
fn said_at(timestamp: &str) -> anyhow::Result<i64> {
    let since = humantime::parse_rfc3339(timestamp)?.duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_known_from_their_lines_and_other_lines_are_passed_over() {
        let mut journal = Journal::default();
        for line in [
            r#"{"message":"worker starts","worker_id":"w-1"}"#,
            r#"{"message":"took a lease","lease_key":"s-0","why":"unowned"}"#,
            r#"{"timestamp":"1970-01-01T00:00:01.5Z","message":"the share of the write budget changed","share_milli":20}"#,
            r#"{"message":"records flow","lease_key":"s-0","at_ms":1000,"sequence_number":"7","redelivered":0}"#,
        ] {
            journal.line(3, line).unwrap();
        }
        assert_eq!(
            (journal.number_of("w-1"), journal.id_of(3), journal.id_of(4)),
            (Some(3), Some("w-1"), None)
        );
        assert_eq!(journal.shares, [Shared { worker: 3, at_ms: 1_500, milli: 20 }]);
        assert!(journal.flows("s-0", 3) && !journal.flows("s-0", 4));
        let end = r#"{"message":"session ended","lease_key":"s-0","outcome":"handed_over","last_read_ms":1200,"sequence_number":"9","records":3}"#;
        journal.line(3, end).unwrap();
        assert!(!journal.flows("s-0", 3));
        assert_eq!(journal.ended[0].last, Some(SequenceNumber::parse("9").unwrap()));
        assert_eq!(journal.flows_again("s-0", 900, 3), None);
        assert_eq!(journal.flows_again("s-0", 900, 4).map(|began| began.at_ms), Some(1000));
    }
}
