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
use sluicegate_event::Event;
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

/// Version of the items that hold letters of rejected events.
pub const LETTER_VERSION: i64 = 1;
/// Version of letters of unreadable events: a build that would redrive such an event whole, unasked, refuses it.
pub const UNREADABLE_LETTER_VERSION: i64 = 2;

/// Why there is a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterCause {
    /// The table rejects the event, or what it was excluded with.
    Rejected,
    /// The event cannot be read, and `unreadable = dead-letter` is set.
    Unreadable,
}

impl LetterCause {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Unreadable => "unreadable",
        }
    }
}

impl FromStr for LetterCause {
    type Err = InvalidLetterCause;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let causes = [Self::Rejected, Self::Unreadable];
        let cause = causes.into_iter().find(|cause| cause.name() == text);
        cause.ok_or_else(|| InvalidLetterCause(text.chars().take(200).collect()))
    }
}

/// A text is not the cause of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a cause: give rejected or unreadable")]
pub struct InvalidLetterCause(String);

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
    /// Why there is a letter.
    pub cause: LetterCause,
    /// What the table said of it, or why it cannot be read, at most [`MAX_WHY_CHARS`] characters.
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
    /// When it expires, in seconds since 1970; `None` keeps it.
    pub expires: Option<i64>,
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

/// Who puts letters, and for how long.
#[derive(Debug, Clone)]
pub struct Postmark {
    /// The worker.
    pub worker: String,
    /// Its time.
    pub now: ArrivalMillis,
    /// Days after which letters expire; `None` keeps them.
    pub ttl_days: Option<u32>,
}

impl Postmark {
    fn expires(&self) -> Option<i64> {
        const SECONDS_A_DAY: i64 = 86_400;
        self.ttl_days.map(|days| self.now.0.div_euclid(1_000) + i64::from(days) * SECONDS_A_DAY)
    }
}

/// The letters of a batch, made one by one: for each excluded event, whoever found it, and for each of `unreadable`, the
/// places of events that cannot be read.
pub fn letters_of<'a>(
    batch: &'a Batch,
    offenders: &'a [Offender],
    unreadable: &'a [usize],
    postmark: &'a Postmark,
) -> impl Iterator<Item = Letter> + Send + 'a {
    let excluded = batch.excluded().map(move |record| {
        let (number, sub) = (record.sequence_number(), record.sub_sequence_number());
        let offender = offenders.iter().find(|known| known.events.covers(number, sub));
        let why = offender.map_or(WHY_NOT_SEEN, |offender| &offender.why);
        letter_of(batch, record, (LetterCause::Rejected, why), postmark)
    });
    let unreadable = unreadable.iter().filter_map(|place| batch.records.get(*place)).map(move |record| {
        letter_of(batch, record, (LetterCause::Unreadable, &why_unreadable(record)), postmark)
    });
    excluded.chain(unreadable)
}

fn why_unreadable(record: &Record) -> String {
    match Event::parse(record.data()) {
        Err(error) => format!("the event is not JSON: {error}"),
        Ok(_) => "the event is not an object, so that it has no fields to choose from".to_owned(),
    }
}

fn letter_of(
    batch: &Batch,
    record: &Record,
    (cause, why): (LetterCause, &str),
    postmark: &Postmark,
) -> Letter {
    let (cut, parameters) = (&batch.cut, &batch.cut.parameters);
    let number = record.sequence_number();
    Letter {
        header: LetterHeader {
            id: LetterId {
                shard: batch.id.shard.clone(),
                sequence_number: number.clone(),
                sub_sequence_number: record.sub_sequence_number(),
            },
            epoch: batch.id.epoch,
            batch_first: cut.first.clone(),
            batch_last: cut.last.clone(),
            arrival: record.arrival(),
            partition_key: record.partition_key().to_owned(),
            aggregate_key: aggregate_key_of(parameters, record).into_owned(),
            cause,
            why: why.chars().take(MAX_WHY_CHARS).collect(),
            worker: postmark.worker.clone(),
            put_at: postmark.now,
            packing: LetterPacking {
                version: cut.packing_version,
                codec: parameters.codec,
                max_item_bytes: parameters.max_item_bytes,
                ttl_days: parameters.ttl_days,
            },
            data_bytes: record.data().len() as u64,
            data_sum: crc32fast::hash(record.data()),
            redriven_at: None,
            expires: postmark.expires(),
        },
        data: record.data_bytes(),
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
