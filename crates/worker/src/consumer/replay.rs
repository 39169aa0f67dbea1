//! Re-reading announced cuts: the records must be exactly those that were announced, or nothing is delivered (pure).
//!
//! First, last and count are checked before anything is written. A mismatch, also reaching the tip or the end of
//! the shard before the last record was seen, means that records were lost (retention, or another stream of the
//! same name).

use std::collections::VecDeque;

use sluicegate_checkpoint::parameters::EVENT_DECODING_VERSION;
use sluicegate_checkpoint::{Batch, Cut, Record, SequenceNumber, ShardId};
use thiserror::Error;

use crate::deaggregate::is_empty_aggregate;

/// Announced records that are not there any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "records lost: the batch from {first} to {last} was announced with {announced} records, but {why}. \
     Set accept_gap to give it up and go on, counted"
)]
pub struct RecordsLost {
    /// First sequence number of the cut.
    pub first: SequenceNumber,
    /// Last sequence number of the cut.
    pub last: SequenceNumber,
    /// Records it was announced with.
    pub announced: u64,
    /// What was found instead.
    pub why: String,
}

/// The announced cuts whose records have not all been read again.
#[derive(Debug)]
pub struct Replay {
    shard: ShardId,
    epoch: u32,
    cuts: VecDeque<Cut>,
    records: Vec<Record>,
    weight: usize,
    kinesis_records: u64,
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It belongs to an announced cut that is not complete yet.
    Kept,
    /// It belongs to a dropped cut, or is no event to the one that is being read.
    Passed,
    /// It completed a batch.
    Batch(Box<Batch>),
    /// All announced cuts are behind it: it is new.
    New(Box<Record>),
}

impl Replay {
    /// Expects the records of these cuts, in order.
    pub fn new(shard: ShardId, epoch: u32, cuts: impl IntoIterator<Item = Cut>) -> Self {
        Self {
            shard,
            epoch,
            cuts: cuts.into_iter().collect(),
            records: Vec::new(),
            weight: 0,
            kinesis_records: 0,
        }
    }

    /// Whether all announced cuts were read again.
    pub fn is_done(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Whether nothing of the announced cuts is to be read any more once the shard goes on with this record, or is at its
    /// tip without one: those that are left were dropped, and lie before it.
    pub fn is_passed_by(&self, next: Option<&SequenceNumber>) -> bool {
        self.cuts.iter().all(|cut| cut.dropped && next.is_none_or(|next| *next > cut.last))
    }

    /// The cut that is being read.
    pub fn current(&self) -> Option<&Cut> {
        self.cuts.front()
    }

    /// Memory that the records of the incomplete cut take, in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.weight
    }

    /// Gives up on the cut that is being read: it was dropped, its records are passed over.
    pub fn drop_current(&mut self) {
        self.reset();
        self.cuts.pop_front();
    }

    /// Takes the next record of the shard.
    ///
    /// # Errors
    /// It is not the record that was announced.
    pub fn push(&mut self, record: Record) -> Result<Replayed, RecordsLost> {
        while let Some(cut) = self.cuts.front() {
            if !cut.dropped {
                break;
            }
            if *record.sequence_number() <= cut.last {
                return Ok(Replayed::Passed);
            }
            self.cuts.pop_front();
        }
        let Some(cut) = self.cuts.front() else { return Ok(Replayed::New(Box::new(record))) };
        // To whoever made the cut it was no event.
        if cut.parameters.decoding_version < EVENT_DECODING_VERSION && is_empty_aggregate(&record) {
            return Ok(Replayed::Passed);
        }
        if self.records.is_empty() && *record.sequence_number() != cut.first {
            return Err(self.lost(cut, format!("the first record found is {}", record.sequence_number())));
        }
        if *record.sequence_number() > cut.last {
            return Err(
                self.lost(cut, format!("{} was found before its last record", record.sequence_number()))
            );
        }
        if self.records.last().is_none_or(|last| last.sequence_number() != record.sequence_number()) {
            self.kinesis_records += 1;
        }
        let complete = *record.sequence_number() == cut.last && record.sub_sequence_number() == cut.last_sub;
        let shares = self.records.last().is_some_and(|last| last.shares_origin(&record));
        self.weight += Record::OWN_BYTES + if shares { 0 } else { record.origin_bytes() };
        self.records.push(record);
        if !complete {
            return Ok(Replayed::Kept);
        }
        if self.kinesis_records != cut.records {
            return Err(self.lost(cut, format!("{} records were found", self.kinesis_records)));
        }
        Ok(self.complete().map_or(Replayed::Kept, |batch| Replayed::Batch(Box::new(batch))))
    }

    /// The shard was read to its tip or its end.
    ///
    /// # Errors
    /// Announced records are still missing.
    pub fn caught_up(&self) -> Result<(), RecordsLost> {
        match self.cuts.iter().find(|cut| !cut.dropped) {
            None => Ok(()),
            Some(cut) => {
                Err(self.lost(cut, format!("only {} were found before the tip", self.kinesis_records)))
            }
        }
    }

    fn complete(&mut self) -> Option<Batch> {
        let cut = self.cuts.pop_front()?;
        let records = std::mem::take(&mut self.records);
        self.reset();
        let arrival = records.first()?.arrival();
        Some(Batch { id: cut.id(&self.shard, self.epoch), cut, arrival, records })
    }

    fn reset(&mut self) {
        self.records.clear();
        self.weight = 0;
        self.kinesis_records = 0;
    }

    fn lost(&self, cut: &Cut, why: String) -> RecordsLost {
        RecordsLost { first: cut.first.clone(), last: cut.last.clone(), announced: cut.records, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bytes::Bytes;
    use sluicegate_checkpoint::{ArrivalMillis, PackingParameters, SubSequenceNumber};

    fn seq(n: u64) -> SequenceNumber {
        SequenceNumber::parse(n.to_string()).unwrap()
    }

    fn record(n: u64) -> Record {
        Record::new(seq(n), ArrivalMillis(1), "k", Bytes::from_static(b"x"))
    }

    fn cut(first: u64, last: u64, records: u64) -> Cut {
        Cut {
            first: seq(first),
            last: seq(last),
            behind_sub: None,
            last_sub: SubSequenceNumber(0),
            records,
            parameters: Arc::new(PackingParameters::default()),
            packing_version: 1,
            revision: 2,
            exclusions: Vec::new(),
            dropped: false,
        }
    }

    fn replay(cuts: impl IntoIterator<Item = Cut>) -> Replay {
        Replay::new(ShardId::new("s"), 0, cuts)
    }

    #[test]
    fn only_dropped_cuts_are_passed_by_and_only_by_a_record_behind_them() {
        let dropped = |first, last| Cut { dropped: true, ..cut(first, last, 1) };
        let passed = |cuts: &[Cut], next: Option<u64>| {
            replay(cuts.iter().cloned()).is_passed_by(next.map(seq).as_ref())
        };
        assert!(passed(&[], None) && passed(&[], Some(1)));
        let given_up = [dropped(1, 3), dropped(5, 7)];
        assert!(passed(&given_up, Some(8)) && passed(&given_up, None));
        assert!(!passed(&given_up, Some(7)) && !passed(&given_up, Some(4)));
        assert!(!passed(&[dropped(1, 3), cut(5, 7, 2)], Some(8)));
    }

    #[test]
    fn the_announced_records_give_the_announced_batch_and_the_next_ones_are_new() {
        let mut replay = replay([cut(1, 3, 2), cut(5, 5, 1)]);
        assert_eq!(replay.push(record(1)), Ok(Replayed::Kept));
        let Ok(Replayed::Batch(batch)) = replay.push(record(3)) else { panic!("two records make the batch") };
        assert_eq!((batch.cut.revision, batch.records.len()), (2, 2));
        assert!(matches!(replay.push(record(5)), Ok(Replayed::Batch(_))));
        assert!(replay.is_done());
        assert_eq!(replay.push(record(6)), Ok(Replayed::New(Box::new(record(6)))));
    }

    #[test]
    fn another_first_a_missing_last_or_another_count_is_a_loss() {
        assert!(replay([cut(1, 3, 2)]).push(record(2)).is_err());
        let mut beyond = replay([cut(1, 3, 2)]);
        beyond.push(record(1)).unwrap();
        assert!(beyond.push(record(4)).is_err());
        let mut fewer = replay([cut(1, 3, 3)]);
        fewer.push(record(1)).unwrap();
        assert!(fewer.push(record(3)).is_err());
        let mut short = replay([cut(1, 3, 2)]);
        short.push(record(1)).unwrap();
        assert!(short.caught_up().is_err());
    }

    #[test]
    fn a_dropped_cut_passes_over_its_records() {
        let dropped = Cut { dropped: true, ..cut(1, 3, 3) };
        let mut replay = replay([dropped, cut(5, 5, 1)]);
        assert_eq!(replay.push(record(2)), Ok(Replayed::Passed));
        assert!(matches!(replay.push(record(5)), Ok(Replayed::Batch(_))));
        assert_eq!(replay.caught_up(), Ok(()));
    }
}
