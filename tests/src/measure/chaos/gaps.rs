//! How long shards stood still after each kill, from who owned them then and when their records flowed again. **Pure.**

use std::collections::BTreeMap;

use sluicegate_checkpoint::SequenceNumber;
use sluicegate_lease::{Lease, LeaseKey};

use super::history::Write;
use crate::measure::journal::{Began, Ended, Journal};

/// When something that lasted ended, in epoch milliseconds, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// When it was over.
    pub at_ms: i64,
    /// How long, in milliseconds.
    pub lasted_ms: i64,
}

/// What a worker with this id owned at a moment and had not finished.
pub fn owned<'w>(writes: impl Iterator<Item = &'w Write<Lease>>, owner: &str, at_ms: i64) -> Vec<LeaseKey> {
    let mut owners: BTreeMap<&LeaseKey, bool> = BTreeMap::new();
    for row in writes.filter(|write| write.at_ms <= at_ms).filter_map(|write| write.after.as_ref()) {
        let theirs = row.owner.as_ref().is_some_and(|id| id.as_str() == owner);
        owners.insert(&row.key, theirs && !row.is_finished());
    }
    owners.into_iter().filter(|(_, theirs)| *theirs).map(|(key, _)| key.clone()).collect()
}

/// From a kill to the first records of the last of these shards at another worker. A shard of which nothing more comes (it was
/// closed, and all of it announced) never flows again and has no gap.
pub fn failover(journal: &Journal, (victim, killed_at): (usize, i64), shards: &[LeaseKey]) -> Option<Gap> {
    let flows = |shard: &LeaseKey| journal.flows_again(shard.as_str(), killed_at, victim);
    let last = shards.iter().filter_map(flows).map(|began| began.at_ms).max()?;
    Some(Gap { at_ms: last, lasted_ms: last - killed_at })
}

/// From the last records read by the old owner to the first read by whoever comes next, for each shard that was handed over. That
/// may be the old owner again, if the new one was frozen or killed before it began. Where that first record was put into the
/// shard only later it counts from then: until then there was nothing to read.
pub fn handoffs(journal: &Journal, arrived_ms: impl Fn(&SequenceNumber) -> Option<i64>) -> Vec<Gap> {
    let handed_over = journal.ended.iter().filter(|ended| ended.outcome == "handed_over");
    let gap = |ended: &Ended| {
        let last_read_ms = ended.last_read_ms?;
        let next = |began: &&Began| {
            let later =
                began.at_ms > last_read_ms || (began.at_ms == last_read_ms && began.worker != ended.worker);
            began.shard == ended.shard && later
        };
        let Began { at_ms, first, .. } = journal.began.iter().filter(next).min_by_key(|began| began.at_ms)?;
        let from_ms = arrived_ms(first).map_or(last_read_ms, |arrived_ms| arrived_ms.max(last_read_ms));
        Some(Gap { at_ms: *at_ms, lasted_ms: at_ms - from_ms })
    };
    handed_over.filter_map(gap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};
    use sluicegate_lease::WorkerId;

    fn began(shard: &str, worker: usize, at_ms: i64) -> Began {
        Began {
            shard: shard.to_owned(),
            worker,
            at_ms,
            first: SequenceNumber::parse("7").unwrap(),
            redelivered: 0,
        }
    }

    #[test]
    fn a_worker_owned_what_was_written_last_before_it_died_and_was_unfinished() {
        let row = |shard: &str, owner: Option<&str>, checkpoint| Lease {
            owner: owner.map(WorkerId::new),
            ..Lease::unowned(ShardId::new(shard), checkpoint, LeaseState::starting(None))
        };
        let write =
            |at_ms, after| Write { at_ms, by: None, conditional: true, before: None, after: Some(after) };
        let writes = [
            write(1, row("s-0", Some("a"), Position::TrimHorizon)),
            write(2, row("s-1", Some("a"), Position::TrimHorizon)),
            write(3, row("s-2", Some("a"), Position::TrimHorizon)),
            write(4, row("s-1", Some("b"), Position::TrimHorizon)),
            write(5, row("s-2", Some("a"), Position::ShardEnd)),
            write(9, row("s-0", None, Position::TrimHorizon)),
        ];
        assert_eq!(owned(writes.iter(), "a", 8), [ShardId::new("s-0")]);
        assert_eq!(owned(writes.iter(), "a", 3).len(), 3);
    }

    #[test]
    fn a_failover_lasts_until_the_last_shard_flows_elsewhere() {
        let began = vec![
            began("s-0", 1, 900),
            began("s-0", 2, 3_000),
            began("s-1", 3, 3_500),
            began("s-1", 2, 9_000),
        ];
        let mut journal = Journal::default();
        journal.began = began;
        let shards = ["s-0", "s-1", "s-9"].map(ShardId::new);
        assert_eq!(failover(&journal, (1, 500), &shards), Some(Gap { at_ms: 3_500, lasted_ms: 3_000 }));
        assert_eq!(failover(&journal, (1, 500), &shards[2..]), None);
    }

    #[test]
    fn a_handoff_lasts_from_the_last_read_to_the_first() {
        let ended = |outcome: &str, last_read_ms| Ended {
            shard: "s-0".to_owned(),
            worker: 1,
            outcome: outcome.to_owned(),
            last_read_ms,
            last: None,
            records: 1,
        };
        let mut journal = Journal::default();
        journal.began.push(began("s-0", 2, 1_150));
        let outcomes = [("handed_over", Some(1_000)), ("lost", Some(1_000)), ("handed_over", None)];
        journal.ended.extend(outcomes.map(|(outcome, last_read_ms)| ended(outcome, last_read_ms)));
        let handoffs_of = |journal: &Journal, arrived_ms| handoffs(journal, |_| Some(arrived_ms));
        let handoffs = |journal: &Journal| handoffs_of(journal, 900);
        assert_eq!(handoffs(&journal), [Gap { at_ms: 1_150, lasted_ms: 150 }]);
        assert_eq!(handoffs_of(&journal, 1_140)[0].lasted_ms, 10, "nothing was there to read");
        journal.began.push(began("s-0", 1, 1_000));
        assert_eq!(handoffs(&journal)[0].lasted_ms, 150, "its own beginning");
        journal.began.push(began("s-0", 1, 1_100));
        assert_eq!(handoffs(&journal)[0].lasted_ms, 100, "it came back to its old owner");
    }
}
