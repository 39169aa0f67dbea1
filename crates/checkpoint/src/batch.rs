//! Cuts and what names them: a shard is divided into batches, and the division is remembered.
//!
//! A cut is made once, recorded in the lease row, and from then on means the same records and the same items
//! to whoever delivers it. Amending it (an exclusion, another packing version, dropping it) raises its revision.

use std::sync::Arc;

use sluicegate_event::Event;

use crate::parameters::{PackingParameters, Unreadable};
use crate::position::Position;
use crate::record::{ArrivalMillis, Record};
use crate::record_id::{SequenceNumber, ShardId, SubSequenceNumber};
use crate::transform::Verdict;

/// The identity of a batch: never a sentinel, so it means the same range for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// The shard it was cut from.
    pub shard: ShardId,
    /// Of the row when it was cut: another after an operator moved it back, or it was deleted and made again.
    pub epoch: u32,
    /// Sequence number of the first record, included.
    pub first: SequenceNumber,
    /// Sequence number of the last record, included.
    pub to: SequenceNumber,
}

/// Events that will not be stored with their batch: from one user record to another, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// First excluded event.
    pub from: (SequenceNumber, SubSequenceNumber),
    /// Last excluded event.
    pub to: (SequenceNumber, SubSequenceNumber),
}

impl Exclusion {
    /// Whether it covers this event.
    pub fn covers(&self, sequence_number: &SequenceNumber, sub: SubSequenceNumber) -> bool {
        let from_ok = (&self.from.0, self.from.1) <= (sequence_number, sub);
        from_ok && (sequence_number, sub) <= (&self.to.0, self.to.1)
    }
}

/// What is recorded of a batch before it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Sequence number of the first record, included.
    pub first: SequenceNumber,
    /// Sequence number of the last record, included.
    pub last: SequenceNumber,
    /// User records of the first record up to and including this one are already stored (a KCL position inside
    /// an aggregated record); `None` takes the first record whole.
    pub behind_sub: Option<SubSequenceNumber>,
    /// Index of the last user record of the last record; 0 in a plain record. Recorded so that the checkpoint
    /// left behind is one that KCL resumes from.
    pub last_sub: SubSequenceNumber,
    /// How many Kinesis records lie between, both ends counted.
    pub records: u64,
    /// What the items look like.
    pub parameters: Arc<PackingParameters>,
    /// Version of framing, compression and splitting into parts.
    pub packing_version: u32,
    /// How often the cut was amended.
    pub revision: u32,
    /// Events left out of the items; they only grow.
    pub exclusions: Vec<Exclusion>,
    /// Its records were lost and the gap accepted: it commits in its turn and delivers nothing.
    pub dropped: bool,
}

/// An event, and what becomes of it by the recorded parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged<'a> {
    /// What becomes of it.
    pub verdict: Verdict,
    /// What it says, if somebody asks and it can be read.
    pub event: Option<Event<'a>>,
}

impl Cut {
    /// The identity of its batch.
    pub fn id(&self, shard: &ShardId, epoch: u32) -> BatchId {
        BatchId { shard: shard.clone(), epoch, first: self.first.clone(), to: self.last.clone() }
    }

    /// The position of having finished it. A Kinesis record is never split between batches, so the last record
    /// is finished whole.
    pub fn end(&self) -> Position {
        Position::At(self.last.clone(), self.last_sub)
    }

    /// The same records under another packing version: the next revision, exclusions kept.
    pub fn amended_to_packing_version(&self, packing_version: u32) -> Self {
        Self { packing_version, revision: self.revision + 1, ..self.clone() }
    }

    /// Whether an event is left out by the recorded parameters: it is a user record of another shard, or one that the
    /// filter does not keep. A function of the record and the parameters, so that a redelivery leaves out the same ones.
    pub fn filters(&self, record: &Record) -> bool {
        matches!(self.quick_verdict(record), Verdict::LeftOut | Verdict::Foreign)
    }

    /// Whether an event goes into its item, exclusions aside.
    fn keeps(&self, record: &Record) -> bool {
        self.quick_verdict(record).keeps()
    }

    /// The verdict, with [`Verdict::Unreadable`] told as kept where no event is left out for what it says: then none has
    /// to be read.
    fn quick_verdict(&self, record: &Record) -> Verdict {
        if self.parameters.leaves_out_events() {
            self.verdict(record)
        } else if self.is_foreign(record) {
            Verdict::Foreign
        } else {
            Verdict::Kept
        }
    }

    /// Whether an event is left out because it is a user record of another shard ([`PackingParameters::is_foreign`]).
    pub fn is_foreign(&self, record: &Record) -> bool {
        self.parameters.is_foreign(record)
    }

    /// [`Judged::verdict`] of an event.
    pub fn verdict(&self, record: &Record) -> Verdict {
        self.judge(record).verdict
    }

    /// What becomes of an event, and what it says: it is read once, and only if the recorded parameters look into it.
    pub fn judge<'a>(&self, record: &'a Record) -> Judged<'a> {
        if self.is_foreign(record) {
            return Judged { verdict: Verdict::Foreign, event: None };
        }
        let event = self.parameters.event_of(record);
        Judged { verdict: self.parameters.verdict(event.as_ref()), event }
    }

    /// Whether an event of the first record lies before the cut, which begins behind it.
    pub fn is_before(&self, record: &Record) -> bool {
        self.behind_sub.is_some_and(|behind| {
            record.sub_sequence_number() <= behind && *record.sequence_number() == self.first
        })
    }

    /// Whether an event is left out.
    pub fn excludes(&self, sequence_number: &SequenceNumber, sub: SubSequenceNumber) -> bool {
        self.exclusions.iter().any(|exclusion| exclusion.covers(sequence_number, sub))
    }
}

/// An announced batch with its records: what a sink is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its identity: the same for ever, whoever delivers it.
    pub id: BatchId,
    /// What was announced of it.
    pub cut: Cut,
    /// Arrival of the cut's first record, exclusions or not: part of item keys.
    pub arrival: ArrivalMillis,
    /// Its records in shard order, exclusions and filtered ones still among them.
    pub records: Vec<Record>,
}

impl Batch {
    /// A batch of records that follow each other in their shard, at revision 0 and from the first record on; `None` of no
    /// records.
    pub fn of(
        (shard, epoch): (&ShardId, u32),
        records: Vec<Record>,
        parameters: Arc<PackingParameters>,
        packing_version: u32,
    ) -> Option<Self> {
        let (first, last) = (records.first()?, records.last()?);
        let begins = |pair: &&[Record]| pair[0].sequence_number() != pair[1].sequence_number();
        let cut = Cut {
            first: first.sequence_number().clone(),
            last: last.sequence_number().clone(),
            behind_sub: None,
            last_sub: last.sub_sequence_number(),
            records: 1 + records.windows(2).filter(begins).count() as u64,
            parameters,
            packing_version,
            revision: 0,
            exclusions: Vec::new(),
            dropped: false,
        };
        Some(Self { id: cut.id(shard, epoch), cut, arrival: first.arrival(), records })
    }

    /// The records that a sink stores: none of a dropped cut, else all but the filtered, the excluded, and the unreadable
    /// that become dead letters.
    pub fn stored(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| self.stores(record))
    }

    /// Whether a sink stores this record of the batch.
    pub fn stores(&self, record: &Record) -> bool {
        let cut = &self.cut;
        !cut.dropped
            && !cut.excludes(record.sequence_number(), record.sub_sequence_number())
            && cut.keeps(record)
    }

    /// The records that are dead-lettered because the table rejects them: the excluded, but for those that are filtered
    /// anyway or cannot be read; none of a dropped cut.
    pub fn excluded(&self) -> impl Iterator<Item = &Record> {
        let cut = &self.cut;
        self.records.iter().filter(move |record| {
            !cut.dropped
                && cut.excludes(record.sequence_number(), record.sub_sequence_number())
                && cut.keeps(record)
        })
    }

    /// The places of the records that are dead-lettered because they cannot be read; none of a dropped cut, and none that
    /// lies before the cut.
    pub fn unreadable(&self) -> Vec<usize> {
        let cut = &self.cut;
        if cut.dropped || cut.parameters.unreadable == Unreadable::Keep {
            return Vec::new();
        }
        let is = |record: &Record| !cut.is_before(record) && cut.verdict(record) == Verdict::DeadLetter;
        self.records.iter().enumerate().filter(|(_, record)| is(record)).map(|(place, _)| place).collect()
    }

    /// How many records the recorded filter leaves out, foreign ones not among them; none of a dropped cut is counted.
    pub fn filtered(&self) -> u64 {
        self.count(|record| self.cut.quick_verdict(record) == Verdict::LeftOut)
    }

    /// How many records are left out because they are not of the shard; none of a dropped cut is counted.
    pub fn foreign(&self) -> u64 {
        self.count(|record| self.cut.is_foreign(record))
    }

    fn count(&self, counts: impl Fn(&Record) -> bool) -> u64 {
        let counted = self.records.iter().filter(|record| !self.cut.dropped && counts(record));
        u64::try_from(counted.count()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::HashKeyRange;
    use crate::record::HashKey;

    fn seq(n: u32) -> SequenceNumber {
        SequenceNumber::parse(n.to_string()).unwrap()
    }

    fn cut() -> Cut {
        Cut {
            first: seq(1),
            last: seq(3),
            behind_sub: None,
            last_sub: SubSequenceNumber(0),
            records: 3,
            parameters: Arc::new(PackingParameters::default()),
            packing_version: 1,
            revision: 4,
            exclusions: vec![Exclusion {
                from: (seq(2), SubSequenceNumber(0)),
                to: (seq(2), SubSequenceNumber(0)),
            }],
            dropped: false,
        }
    }

    #[test]
    fn an_exclusion_covers_both_its_ends_and_what_lies_between() {
        let exclusion =
            Exclusion { from: (seq(9), SubSequenceNumber(1)), to: (seq(10), SubSequenceNumber(0)) };
        assert!(!exclusion.covers(&seq(9), SubSequenceNumber(0)));
        assert!(exclusion.covers(&seq(9), SubSequenceNumber(1)));
        assert!(exclusion.covers(&seq(9), SubSequenceNumber(7)));
        assert!(exclusion.covers(&seq(10), SubSequenceNumber(0)));
        assert!(!exclusion.covers(&seq(10), SubSequenceNumber(1)));
    }

    #[test]
    fn a_user_record_outside_the_recorded_range_is_foreign_and_a_plain_one_never() {
        let record = |hash_key: Option<HashKey>| {
            let plain = Record::new(seq(1), ArrivalMillis(1), "k", bytes::Bytes::new());
            hash_key.map_or_else(|| plain.clone(), |hash_key| plain.with_hash_key(hash_key))
        };
        let mut cut = cut();
        let (once, again) = (HashKey::sent_once, HashKey::sent_again);
        assert!(!cut.filters(&record(Some(once(7)))), "no range is recorded");
        let range = HashKeyRange { start: 10, end: 20 };
        cut.parameters =
            Arc::new(PackingParameters { hash_range: Some(range), ..PackingParameters::default() });
        let left_out =
            |cut: &Cut, record: &Record| (cut.is_foreign(record), cut.verdict(record) == Verdict::Foreign);
        for (key, foreign) in [(9, true), (10, false), (20, false), (21, true)] {
            for key in [once(key), again(key)] {
                assert_eq!(left_out(&cut, &record(Some(key))), (foreign, foreign), "{key:?}");
            }
        }
        assert_eq!(left_out(&cut, &record(None)), (false, false));
        // The rule of version 3: what is sent once is the one copy, and stays.
        Arc::make_mut(&mut cut.parameters).only_sent_again = true;
        assert_eq!(left_out(&cut, &record(Some(once(9)))), (false, false));
        assert_eq!(left_out(&cut, &record(Some(again(9)))), (true, true));
        assert_eq!(left_out(&cut, &record(Some(again(10)))), (false, false));
    }

    #[test]
    fn an_event_that_the_filter_does_not_keep_is_left_out_and_one_that_it_cannot_judge_is_not() {
        let record = |data: &'static str| Record::new(seq(1), ArrivalMillis(1), "k", data);
        let mut cut = cut();
        let parameters = Arc::make_mut(&mut cut.parameters);
        parameters.filter = Some("/n > 1".parse().unwrap());
        *parameters = parameters.clone().with_needed_decoding_version();
        let verdicts = [r#"{"n":2}"#, r#"{"n":1}"#, "text"].map(|data| cut.verdict(&record(data)));
        assert_eq!(verdicts, [Verdict::Kept, Verdict::LeftOut, Verdict::Unreadable]);
        assert_eq!(
            [r#"{"n":2}"#, r#"{"n":1}"#, "text"].map(|data| cut.filters(&record(data))),
            [false, true, false]
        );
    }

    #[test]
    fn another_packing_version_raises_the_revision_and_keeps_exclusions() {
        let cut = cut();
        let amended = cut.amended_to_packing_version(2);
        assert_eq!((amended.packing_version, amended.revision), (2, 5));
        assert_eq!(amended.exclusions, cut.exclusions);
        assert_eq!(amended.id(&ShardId::new("s"), 0), cut.id(&ShardId::new("s"), 0));
    }
}
