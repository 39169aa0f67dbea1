//! Laws K1 and K2: what was counted at fetch of a committed range is what came out of the pipeline for it, and each event
//! of it came to exactly one named outcome, which what was recorded with it gives a reason for (pure).
//!
//! Two counts that do not know of each other. One is made here, record by record, as records are handed to the batcher
//! or to the batches that are read again. The other comes with each delivery: what the sink packed and filtered, and the
//! letters that were stored. Their sum is compared when the range is committed (K1). So is each of them with its reason
//! (K2): as many are foreign as the recorded rule makes foreign, none is filtered without a filter, none is unreadable where
//! those are kept, and there is a letter for each excluded event. A dropped batch counts on neither side: it is given up, and counted as that.

use std::collections::BTreeMap;

use sluicegate_checkpoint::parameters::Unreadable;
use sluicegate_checkpoint::{Batch, BatchId};

/// What became of the events of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcomes {
    /// Stored, as they are or as what was asked for.
    pub stored: u64,
    /// Left out by the user's filter.
    pub filtered: u64,
    /// Left out as user records of another shard.
    pub foreign: u64,
    /// In the dead letters because the table never takes them.
    pub dead_lettered: u64,
    /// In the dead letters because they cannot be read, as configured.
    pub unreadable: u64,
}

impl Outcomes {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.stored + self.filtered + self.foreign + self.dead_lettered + self.unreadable
    }
}

/// What the cut of a batch gives as reasons for events not to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons {
    /// User records that the recorded rule makes foreign.
    pub foreign: u64,
    /// Whether a filter is recorded.
    pub has_filter: bool,
    /// Events that are excluded.
    pub excluded: u64,
    /// Whether events that cannot be read become dead letters.
    pub has_unreadable: bool,
}

impl Reasons {
    /// Those of a batch.
    pub fn of(batch: &Batch) -> Self {
        let excluded = if batch.cut.exclusions.is_empty() { 0 } else { batch.excluded().count() };
        Self {
            foreign: batch.foreign(),
            has_filter: batch.cut.parameters.filter.is_some(),
            excluded: u64::try_from(excluded).unwrap_or(u64::MAX),
            has_unreadable: batch.cut.parameters.unreadable == Unreadable::DeadLetter,
        }
    }

    /// How many outcomes have no reason, or reasons no outcome.
    fn difference(&self, outcomes: &Outcomes) -> u64 {
        let filtered = if self.has_filter { 0 } else { outcomes.filtered };
        let unreadable = if self.has_unreadable { 0 } else { outcomes.unreadable };
        let excluded = self.excluded.abs_diff(outcomes.dead_lettered);
        self.foreign.abs_diff(outcomes.foreign) + excluded + filtered + unreadable
    }
}

/// A committed range for which the counts differ, or outcomes have no reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unaccounted {
    /// The range.
    pub id: BatchId,
    /// Records counted at fetch.
    pub fetched: u64,
    /// What became of them.
    pub outcomes: Outcomes,
    /// Why events of it are not stored.
    pub reasons: Reasons,
}

impl Unaccounted {
    /// How many records the counts are apart (K1), or came to an outcome without a reason (K2): zero, always.
    pub fn difference(&self) -> u64 {
        self.fetched.abs_diff(self.outcomes.sum()).max(self.reasons.difference(&self.outcomes))
    }
}

/// The counts of one session's ranges that are not committed.
#[derive(Debug, Default)]
pub struct Conservation {
    /// Records handed on since the last range was closed.
    open: u64,
    fetched: BTreeMap<BatchId, u64>,
    reasons: BTreeMap<BatchId, Reasons>,
    accounted: BTreeMap<BatchId, Outcomes>,
    unaccounted: Vec<Unaccounted>,
}

impl Conservation {
    /// A record was fetched and handed on.
    pub fn fetched(&mut self) {
        self.open += 1;
    }

    /// What was handed on since the last range is the range of this batch.
    pub fn closed(&mut self, id: BatchId) {
        self.fetched.insert(id, std::mem::take(&mut self.open));
    }

    /// A batch goes to the sink. A later revision replaces an earlier one.
    pub fn hands_on(&mut self, batch: &Batch) {
        self.reasons.insert(batch.id.clone(), Reasons::of(batch));
    }

    /// A batch is durable: so much came out. A later revision replaces an earlier one.
    pub fn accounted(&mut self, id: BatchId, outcomes: Outcomes) {
        self.accounted.insert(id, outcomes);
    }

    /// The range is committed: compares. Of a dropped batch neither side knows anything.
    pub fn committed(&mut self, id: &BatchId) {
        let fetched = self.fetched.remove(id).unwrap_or_default();
        let outcomes = self.accounted.remove(id).unwrap_or_default();
        let reasons = self.reasons.remove(id).unwrap_or_default();
        let range = Unaccounted { id: id.clone(), fetched, outcomes, reasons };
        if range.difference() > 0 {
            self.unaccounted.push(range);
        }
    }

    /// Committed ranges with a difference, since this was last asked.
    pub fn take_unaccounted(&mut self) -> Vec<Unaccounted> {
        std::mem::take(&mut self.unaccounted)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use sluicegate_checkpoint::{
        ArrivalMillis, Exclusion, HashKey, HashKeyRange, PackingParameters, Record, SequenceNumber, ShardId,
        SubSequenceNumber,
    };

    use super::*;

    fn id(n: u32) -> BatchId {
        let number = |n: u32| SequenceNumber::parse(n.to_string()).unwrap();
        BatchId { shard: ShardId::new("s"), epoch: 0, first: number(n), to: number(n + 9) }
    }

    fn stored(stored: u64) -> Outcomes {
        Outcomes { stored, ..Outcomes::default() }
    }

    #[test]
    fn a_record_more_or_less_than_was_fetched_is_a_difference_of_that_range() {
        let mut counts = Conservation::default();
        for (n, accounted) in [(0, 3), (10, 2), (20, 4)] {
            (0..3).for_each(|_| counts.fetched());
            counts.closed(id(n));
            counts.accounted(id(n), stored(accounted));
        }
        // Nothing is compared before the commit, and a dropped batch has nothing to compare.
        assert_eq!(counts.take_unaccounted(), []);
        for n in [0, 10, 20, 30] {
            counts.committed(&id(n));
        }
        let found = counts.take_unaccounted();
        let differences: Vec<_> = found.iter().map(|found| (found.id.clone(), found.difference())).collect();
        assert_eq!(differences, [(id(10), 1), (id(20), 1)]);
        assert_eq!(counts.take_unaccounted(), []);
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let data = prop_oneof![Just(r#"{"n":1}"#), Just(r#"{"n":2}"#), Just("no json"), Just("")];
        let hash_key = proptest::option::of((0u128..20, any::<bool>()));
        (data, hash_key).prop_map(|(data, hash_key)| {
            let plain = Record::new(SequenceNumber::parse("1").unwrap(), ArrivalMillis(1), "k", data);
            let of = |(key, sent_again)| plain.with_hash_key(HashKey { key, sent_again });
            hash_key.map_or_else(|| plain.clone(), of)
        })
    }

    fn any_batch() -> impl Strategy<Value = Batch> {
        let parameters = (
            proptest::option::of((0u128..20, 0u128..20)),
            any::<bool>(),
            proptest::option::of(Just("/n > 1")),
        );
        let excluded = proptest::option::of((0u64..12, 0u64..12));
        (proptest::collection::vec(any_record(), 1..12), parameters, excluded).prop_map(
            |(mut records, (range, only_sent_again, filter), excluded)| {
                for (n, record) in (1u64..).zip(&mut records) {
                    *record = record.of(SequenceNumber::parse(n.to_string()).unwrap(), record.arrival());
                }
                let parameters = PackingParameters {
                    hash_range: range.map(|(start, end)| HashKeyRange { start, end }),
                    only_sent_again,
                    filter: filter.map(|text| text.parse().unwrap()),
                    ..PackingParameters::default()
                };
                let parameters = Arc::new(parameters.with_needed_decoding_version());
                let mut batch = Batch::of((&ShardId::new("s"), 0), records, parameters, 1).unwrap();
                let place = |n: u64| (SequenceNumber::parse(n.to_string()).unwrap(), SubSequenceNumber(0));
                let exclusion = excluded.map(|(from, to)| Exclusion { from: place(from), to: place(to) });
                batch.cut.exclusions.extend(exclusion);
                batch
            },
        )
    }

    proptest! {
        /// K2: whatever is in a batch and recorded with it, each event comes to exactly one outcome, which has a reason;
        /// and whoever takes one event for another outcome, or for none, is found.
        #[test]
        fn every_event_comes_to_one_outcome_with_a_reason(batch in any_batch(), moved in 0usize..4, to in 0usize..6) {
            let count = |counts: &dyn Fn(&Record) -> bool| {
                u64::try_from(batch.records.iter().filter(|record| counts(record)).count()).unwrap()
            };
            // By its own words, not by those of the batch.
            let parameters = &batch.cut.parameters;
            let outside = |record: &Record| parameters.hash_range.zip(record.hash_key()).is_some_and(|(range, at)| {
                (at.key < range.start || at.key > range.end) && (at.sent_again || !parameters.only_sent_again)
            });
            let filtered = |record: &Record| {
                !outside(record) && parameters.filter.is_some() && record.data() == br#"{"n":1}"#
            };
            let excluded = |record: &Record| {
                let number: u64 = record.sequence_number().as_str().parse().unwrap();
                let at = |place: &(SequenceNumber, SubSequenceNumber)| place.0.as_str().parse::<u64>().unwrap();
                !outside(record) && !filtered(record)
                    && batch.cut.exclusions.iter().any(|one| at(&one.from) <= number && number <= at(&one.to))
            };
            let outcomes = Outcomes {
                stored: count(&|record| !outside(record) && !filtered(record) && !excluded(record)),
                filtered: count(&filtered),
                foreign: count(&outside),
                dead_lettered: count(&excluded),
                unreadable: 0,
            };
            let found = |outcomes: Outcomes| {
                let mut counts = Conservation::default();
                batch.records.iter().for_each(|_| counts.fetched());
                counts.closed(batch.id.clone());
                counts.hands_on(&batch);
                counts.accounted(batch.id.clone(), outcomes);
                counts.committed(&batch.id);
                counts.take_unaccounted()
            };
            prop_assert_eq!(outcomes.sum(), u64::try_from(batch.records.len()).unwrap());
            prop_assert_eq!(found(outcomes), vec![]);
            // One event elsewhere, or nowhere (5). A filter is not run again: what it left out may be stored by mistake.
            let mut mistaken =
                [outcomes.stored, outcomes.filtered, outcomes.foreign, outcomes.dead_lettered, 0, 0];
            let seen = moved != to && (parameters.filter.is_none() || [moved, to].iter().any(|one| *one > 1));
            if seen && mistaken[moved] > 0 {
                mistaken[moved] -= 1;
                mistaken[to] += 1;
                let [stored, filtered, foreign, dead_lettered, unreadable, _] = mistaken;
                let found = found(Outcomes { stored, filtered, foreign, dead_lettered, unreadable });
                prop_assert!(found.iter().any(|range| range.difference() > 0));
            }
        }
    }

    #[test]
    fn the_last_revision_of_a_batch_counts() {
        let mut counts = Conservation::default();
        counts.fetched();
        counts.closed(id(0));
        counts.accounted(id(0), stored(5));
        counts.accounted(id(0), stored(1));
        counts.committed(&id(0));
        assert_eq!(counts.take_unaccounted(), []);
    }
}
