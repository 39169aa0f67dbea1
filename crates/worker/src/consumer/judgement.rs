//! Which user records of a closed batch are left out because they are not of the shard, and with which parameters the
//! batch is recorded for that (pure).
//!
//! A user record is *foreign* if its hash key lies outside its shard's. The native Kinesis Producer Library sends such a
//! one again, so that it is stored with the shard where it belongs; every other producer sent it once. A stream that
//! distributes records by itself puts them anywhere, and there no hash key says anything (see
//! [`distribution`](crate::distribution)).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluicegate_checkpoint::{ArrivalMillis, Batch, HashKeyRange, PackingParameters};

use crate::deaggregate::is_empty_aggregate;

/// What is done with user records whose hash key lies outside their shard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignUserRecords {
    /// Those that their producer sends again are left out, all others are stored.
    #[default]
    Auto,
    /// All are stored.
    Keep,
    /// All are left out.
    Drop,
}

impl ForeignUserRecords {
    /// The setting in a word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Keep => "keep",
            Self::Drop => "drop",
        }
    }
}

/// The rule for one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judging {
    /// What batches are packed with in which nothing is foreign.
    plain: Arc<PackingParameters>,
    /// The same with the shard's hash keys; none where nothing is ever left out.
    leaving_out: Option<PackingParameters>,
}

impl Judging {
    /// Of a shard with these hash keys. All hash keys leave nothing out.
    pub fn of(
        rule: ForeignUserRecords,
        parameters: &PackingParameters,
        hash_range: Option<HashKeyRange>,
    ) -> Self {
        let plain = parameters.without_judgement();
        let only_sent_again = match rule {
            ForeignUserRecords::Auto => Some(true),
            ForeignUserRecords::Drop => Some(false),
            ForeignUserRecords::Keep => None,
        };
        let hash_range = hash_range.filter(|range| *range != HashKeyRange::ALL);
        let leaving_out = hash_range.zip(only_sent_again).map(|(range, only_sent_again)| {
            let parameters = PackingParameters { hash_range: Some(range), only_sent_again, ..plain.clone() };
            parameters.with_needed_decoding_version()
        });
        Self { plain: Arc::new(plain), leaving_out }
    }

    /// What batches are packed with in which nothing is foreign.
    pub fn plain(&self) -> &Arc<PackingParameters> {
        &self.plain
    }

    /// Gives a batch that was closed the decoding version that its records need.
    pub fn settle_version(batch: &mut Batch) {
        if batch.records.iter().any(is_empty_aggregate) {
            batch.cut.parameters = Arc::new(batch.cut.parameters.with_empty_aggregates());
        }
    }

    /// When the last user record arrived that would be left out of this batch; `None` if none would be.
    pub fn newest_foreign(&self, batch: &Batch) -> Option<ArrivalMillis> {
        let leaving_out = self.leaving_out.as_ref()?;
        batch
            .records
            .iter()
            .filter(|record| leaving_out.is_foreign(record))
            .map(|record| record.arrival())
            .max()
    }

    /// Records with a batch that what is foreign is left out of it.
    pub fn leave_out(&self, batch: &mut Batch) {
        let Some(leaving_out) = &self.leaving_out else { return };
        let decoding_version = leaving_out.decoding_version.max(batch.cut.parameters.decoding_version);
        batch.cut.parameters = Arc::new(PackingParameters { decoding_version, ..leaving_out.clone() });
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_checkpoint::{HashKey, Record, SequenceNumber, ShardId};

    use super::*;

    const HALF: HashKeyRange = HashKeyRange { start: 0, end: u128::MAX / 2 };

    fn record(sub: u64, hash_key: Option<HashKey>) -> Record {
        let arrival = ArrivalMillis(1_000 + i64::try_from(sub).unwrap());
        let plain = Record::new(SequenceNumber::parse("7").unwrap(), arrival, "k", "data").at_sub(sub);
        hash_key.map_or_else(|| plain.clone(), |hash_key| plain.with_hash_key(hash_key))
    }

    fn judged(rule: ForeignUserRecords, range: Option<HashKeyRange>, keys: &[Option<HashKey>]) -> Judged {
        let judging = Judging::of(rule, &PackingParameters::default(), range);
        let records = (0..).zip(keys).map(|(sub, key)| record(sub, *key)).collect();
        let mut batch = Batch::of((&ShardId::new("s"), 0), records, Arc::clone(judging.plain()), 1).unwrap();
        let newest = judging.newest_foreign(&batch).map(|arrival| arrival.0);
        if newest.is_some() {
            judging.leave_out(&mut batch);
        }
        let parameters = &batch.cut.parameters;
        assert_eq!(parameters.check(), Ok(()));
        (newest, batch.foreign(), parameters.hash_range, parameters.decoding_version)
    }

    /// Arrival of the newest foreign one, how many are left out, and what is recorded.
    type Judged = (Option<i64>, u64, Option<HashKeyRange>, u32);

    #[test]
    fn a_rule_is_recorded_where_it_leaves_something_out_and_nowhere_else() {
        use ForeignUserRecords::{Auto, Drop, Keep};
        let (inside, outside) = (0, u128::MAX);
        let once = |key| Some(HashKey::sent_once(key));
        let again = |key| Some(HashKey::sent_again(key));
        let nothing = (None, 0, None, 1);
        for rule in [Auto, Keep, Drop] {
            assert_eq!(judged(rule, Some(HALF), &[None, once(inside), again(inside)]), nothing);
            let all = Some(HashKeyRange::ALL);
            assert_eq!(judged(rule, all, &[once(outside), again(outside)]), nothing);
            assert_eq!(judged(rule, None, &[once(outside), again(outside)]), nothing);
        }
        let mixed = [again(outside), again(inside), once(outside), None];
        assert_eq!(judged(Keep, Some(HALF), &mixed), nothing);
        assert_eq!(judged(Auto, Some(HALF), &mixed), (Some(1_000), 1, Some(HALF), 3));
        assert_eq!(judged(Drop, Some(HALF), &mixed), (Some(1_002), 2, Some(HALF), 1));
        assert_eq!(judged(Auto, Some(HALF), &[once(outside)]), nothing);
    }

    #[test]
    fn parameters_of_an_earlier_rule_are_not_gone_on_with() {
        let old = PackingParameters { hash_range: Some(HALF), ..PackingParameters::default() };
        let judging = Judging::of(ForeignUserRecords::Keep, &old, Some(HALF));
        assert_eq!(**judging.plain(), PackingParameters::default());
    }
}
