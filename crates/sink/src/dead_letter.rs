//! Dead letters: events that can never be stored with their batch, kept whole beside it. **Pure**; the port to their
//! table is in `store`, the way there in `post`, the way back in `redrive`.
//!
//! A letter is named by shard, sequence number and sub-sequence number, and is put only where there is none: whoever
//! delivers the batch, and however often, there is one letter, and one that was redriven stays so. It holds the payload
//! as published, in as many items as that takes; the first is written last, so that a letter whose first item is there
//! is whole. Letters are marked and never deleted.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use sluicegate_checkpoint::{
    ArrivalMillis, Batch, Codec, Record, SequenceNumber, ShardId, SubSequenceNumber,
};
use thiserror::Error;

use crate::packing::aggregate_key_of;
use crate::sink::Offender;

#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod format;
mod memory;
pub mod post;
mod redrive;
mod store;

pub use format::names;
pub use memory::MemoryDeadLetters;
pub use post::post;
pub use redrive::items_of as redriven_items;
pub use store::{DeadLetters, LetterPage, NoDeadLetters};

/// Version of the items that hold letters.
pub const LETTER_VERSION: i64 = 1;

/// What names a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    /// Shard of the event.
    pub shard: ShardId,
    /// Sequence number of its Kinesis record.
    pub sequence_number: SequenceNumber,
    /// Its index in that record.
    pub sub_sequence_number: SubSequenceNumber,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shard, self.sequence_number)?;
        match self.sub_sequence_number {
            SubSequenceNumber(0) => Ok(()),
            sub => write!(f, ".{sub}"),
        }
    }
}

/// A text does not name a letter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` names no letter: give SHARD:SEQUENCE_NUMBER or SHARD:SEQUENCE_NUMBER.INDEX, as `list` prints them"
)]
pub struct InvalidLetterId(String);

impl FromStr for LetterId {
    type Err = InvalidLetterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidLetterId(text.chars().take(200).collect());
        let (shard, number) =
            text.split_once(':').filter(|(shard, _)| !shard.is_empty()).ok_or_else(invalid)?;
        let (number, sub) = number.split_once('.').unwrap_or((number, "0"));
        Ok(Self {
            shard: ShardId::new(shard),
            sequence_number: SequenceNumber::parse(number).map_err(|_no_number| invalid())?,
            sub_sequence_number: SubSequenceNumber(sub.parse().map_err(|_no_number| invalid())?),
        })
    }
}

/// How the event would have been packed: what a redrive makes its items by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterPacking {
    /// Packing version.
    pub version: u32,
    /// Codec.
    pub codec: Codec,
    /// Most bytes of an item.
    pub max_item_bytes: u32,
    /// Days until items expire, counted from arrival.
    pub ttl_days: Option<u32>,
}

/// All of a letter but the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterHeader {
    /// Its name.
    pub id: LetterId,
    /// Epoch of its batch.
    pub epoch: u32,
    /// First sequence number of its batch.
    pub batch_first: SequenceNumber,
    /// Last sequence number of its batch.
    pub batch_last: SequenceNumber,
    /// When Kinesis took the event.
    pub arrival: ArrivalMillis,
    /// The partition key it was published with.
    pub partition_key: String,
    /// The key that it would have been stored under.
    pub aggregate_key: String,
    /// What the table said of it, at most [`MAX_WHY_CHARS`] characters.
    pub why: String,
    /// Who put the letter.
    pub worker: String,
    /// When, by that worker's clock.
    pub put_at: ArrivalMillis,
    /// How a redrive packs it.
    pub packing: LetterPacking,
    /// Bytes of the payload.
    pub data_bytes: u64,
    /// CRC-32 (IEEE) of the payload.
    pub data_sum: u32,
    /// When it was redriven, if it was.
    pub redriven_at: Option<ArrivalMillis>,
}

/// An event that could not be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// All but the payload.
    pub header: LetterHeader,
    /// The payload, exactly as published.
    pub data: Bytes,
}

/// Most characters of the table's answer that a letter keeps.
pub const MAX_WHY_CHARS: usize = 1_000;

/// Why an event was excluded, where this session did not see the table reject it.
const WHY_NOT_SEEN: &str = "excluded together with rejected events, or by an earlier owner of the shard";

/// The letters of a batch: one for each excluded event, whoever found it.
pub fn letters_of(batch: &Batch, offenders: &[Offender], worker: &str, now: ArrivalMillis) -> Vec<Letter> {
    batch.excluded().map(|record| letter_of(batch, record, offenders, worker, now)).collect()
}

fn letter_of(
    batch: &Batch,
    record: &Record,
    offenders: &[Offender],
    worker: &str,
    now: ArrivalMillis,
) -> Letter {
    let (cut, parameters) = (&batch.cut, &batch.cut.parameters);
    let number = &record.sequence_number;
    let offender = offenders.iter().find(|known| known.events.covers(number, record.sub_sequence_number));
    let why = offender.map_or(WHY_NOT_SEEN, |offender| &offender.why);
    Letter {
        header: LetterHeader {
            id: LetterId {
                shard: batch.id.shard.clone(),
                sequence_number: number.clone(),
                sub_sequence_number: record.sub_sequence_number,
            },
            epoch: batch.id.epoch,
            batch_first: cut.first.clone(),
            batch_last: cut.last.clone(),
            arrival: record.arrival,
            partition_key: record.partition_key.clone(),
            aggregate_key: aggregate_key_of(parameters, record).into_owned(),
            why: why.chars().take(MAX_WHY_CHARS).collect(),
            worker: worker.to_owned(),
            put_at: now,
            packing: LetterPacking {
                version: cut.packing_version,
                codec: parameters.codec,
                max_item_bytes: parameters.max_item_bytes,
                ttl_days: parameters.ttl_days,
            },
            data_bytes: record.data.len() as u64,
            data_sum: crc32fast::hash(&record.data),
            redriven_at: None,
        },
        data: record.data.clone(),
    }
}

/// Stored attributes that are no letter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("letter {key} is not readable: {why}")]
pub struct LetterError {
    /// Its key, as text.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

#[cfg(test)]
mod tests;
