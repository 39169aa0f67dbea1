//! Planned moves: workers join and leave, and each shard that changes hands is one sample: from the last records that
//! the old owner read to the first that the new one read.

use anyhow::Context;
use rand::Rng;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::{Comparison, Distribution, Experiment, Plan, load::Load};
use crate::harness::Backend;

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// One gap a move.
    pub gaps: Distribution,
    /// Records that more than one session gave to its batcher, and batches that were delivered again.
    pub reread: u64,
    /// What was published against what is stored.
    pub comparison: Comparison,
}

impl Report {
    /// For machines.
    pub fn json(&self, plan: &Plan) -> serde_json::Value {
        json!({
            "moves": self.gaps.len(),
            "failover_time_ms": u64::try_from(plan.failover_time.as_millis()).unwrap_or(u64::MAX),
            "p50_ms": self.gaps.percentile(50),
            "p99_ms": self.gaps.percentile(99),
            "max_ms": self.gaps.max(),
            "reread": self.reread,
            "published": self.comparison.published,
            "lost": self.comparison.lost,
            "duplicated": self.comparison.duplicated,
        })
    }
}

/// Lets workers join and leave under load; `say` is told of each.
///
/// # Errors
/// The fleet does not settle, or what is stored cannot be read.
pub async fn run(plan: Plan, name: &str, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let backend = Backend::process().await?;
    backend.create_stream(plan.shards).await?;
    let load = Load::new(backend.kinesis().clone(), plan.rate).await?;
    let mut experiment = Experiment::new(plan, &backend, name)?;
    let stop = CancellationToken::new();
    let moving = async {
        let _stop_with_us = stop.clone().drop_guard();
        // One less than in full: the first of each pair of moves brings the last one in.
        for _ in 1..plan.workers {
            experiment.join()?;
        }
        experiment.settled().await?;
        // What moved while the fleet came together is not measured: shards had hardly been read.
        let before = experiment.journal.ended.len();
        let mut moved = 0;
        while moved < plan.count {
            let joined = experiment.join()?;
            experiment.settled().await.with_context(|| format!("after worker {joined} joined"))?;
            let alive = experiment.fleet.numbers();
            let leaving = alive[experiment.rng.random_range(0..alive.len())];
            experiment.fleet.leave(leaving).await?;
            experiment.settled().await.with_context(|| format!("after worker {leaving} left"))?;
            let (gaps, _) = moves(&experiment.journal, before);
            moved = gaps.len();
            let so_far = Distribution::new(gaps);
            say(&format!(
                "{moved} moves of {}: worker {joined} joined, worker {leaving} left; median {} ms, longest {} ms",
                plan.count,
                so_far.percentile(50),
                so_far.max()
            ));
        }
        anyhow::Ok(before)
    };
    let (before, published) = tokio::join!(moving, load.run(&stop));
    let (before, published) = (before?, published?);
    let gaps = |journal: &Journal| moves(journal, before);
    let (measured, mut reread) = gaps(&experiment.journal);
    let (comparison, journal) = experiment.finish(published, &load).await?;
    // Every session has ended, so what they read adds up.
    let read: u64 = journal.ended.iter().map(|ended| ended.records).sum();
    reread += read.saturating_sub(published);
    Ok(Report { gaps: Distribution::new(measured), reread, comparison })
}

/// The gaps of the moves from the `from`th end of a session on, and how much of them was read twice.
fn moves(journal: &Journal, from: usize) -> (Vec<i64>, u64) {
    let (mut gaps, mut reread) = (Vec::new(), 0);
    for ended in journal.ended.iter().skip(from).filter(|ended| ended.outcome == "handed_over") {
        let (Some(last_read_ms), Some(last)) = (ended.last_read_ms, &ended.last) else { continue };
        let Some(began) = journal.flows_again(&ended.shard, last_read_ms, ended.worker) else { continue };
        gaps.push(began.at_ms - last_read_ms);
        reread += u64::from(began.first <= *last) + began.redelivered;
    }
    (gaps, reread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::journal::{Began, Ended};
    use sluicegate_checkpoint::SequenceNumber;

    fn journal(first: &str, redelivered: u64) -> Journal {
        let (shard, number) = ("s".to_owned(), |text: &str| SequenceNumber::parse(text).unwrap());
        let mut journal = Journal::default();
        journal.ended.push(Ended {
            shard: shard.clone(),
            worker: 1,
            outcome: "handed_over".to_owned(),
            last_read_ms: Some(1_000),
            last: Some(number("9")),
            records: 9,
        });
        journal.began.push(Began { shard, worker: 2, at_ms: 1_150, first: number(first), redelivered });
        journal
    }

    #[test]
    fn a_move_is_measured_from_last_to_first_and_what_is_read_twice_is_counted() {
        assert_eq!(moves(&journal("10", 0), 0), (vec![150], 0));
        assert_eq!(moves(&journal("9", 0), 0), (vec![150], 1), "the last record was read again");
        assert_eq!(moves(&journal("10", 2), 0), (vec![150], 2), "batches were delivered again");
        assert_eq!(moves(&journal("10", 0), 1), (vec![], 0));
    }
}
