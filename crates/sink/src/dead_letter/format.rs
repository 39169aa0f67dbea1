//! A letter as items of the dead-letter table, and back. **Pure.**
//!
//! `pk` is the shard; `sk` is `sequence#sub#part`: the count of the sequence number's digits in three decimal digits and
//! the digits, the sub-sequence number in 16 lower-case hexadecimal digits, the part in 6. So letters stand in the order
//! of the shard and the parts of one together.

use bytes::Bytes;
use sluicegate_checkpoint::{ArrivalMillis, Codec, SequenceNumber, ShardId, SubSequenceNumber};

use super::{
    LETTER_VERSION, Letter, LetterCause, LetterError, LetterHeader, LetterId, LetterPacking,
    UNREADABLE_LETTER_VERSION,
};
use crate::item::{Attributes, ItemKey, Value};

/// Names of the attributes, as DynamoDB stores them. Letters are few and people look at them, so these are words.
pub mod names {
    /// Hash key: the shard.
    pub const PARTITION: &str = "pk";
    /// Range key.
    pub const SORT: &str = "sk";
    /// Version of this format.
    pub const VERSION: &str = "v";
    /// How many items the letter takes; in the first one, as are all that follow but the data.
    pub const PARTS: &str = "parts";
    /// Epoch of the batch.
    pub const EPOCH: &str = "epoch";
    /// First sequence number of the batch.
    pub const BATCH_FIRST: &str = "batchFirst";
    /// Last sequence number of the batch.
    pub const BATCH_LAST: &str = "batchLast";
    /// Arrival at Kinesis, in milliseconds since 1970.
    pub const ARRIVAL: &str = "arrival";
    /// Partition key of the event.
    pub const PARTITION_KEY: &str = "partitionKey";
    /// Aggregate key of the event.
    pub const AGGREGATE_KEY: &str = "aggregateKey";
    /// Why there is a letter; absent where the table rejected the event.
    pub const CAUSE: &str = "cause";
    /// When the item expires, in seconds since 1970; absent where it does not. The time to live of the table goes by it.
    pub const EXPIRES: &str = "t";
    /// The table's answer.
    pub const WHY: &str = "why";
    /// Who put the letter.
    pub const WORKER: &str = "worker";
    /// When it was put, in milliseconds since 1970.
    pub const PUT_AT: &str = "putAt";
    /// Packing version for a redrive.
    pub const PACKING: &str = "packingVersion";
    /// Zstandard level for a redrive; absent for no compression.
    pub const ZSTD_LEVEL: &str = "zstdLevel";
    /// Largest item for a redrive.
    pub const MAX_ITEM_BYTES: &str = "maxItemBytes";
    /// Days until a redriven event expires.
    pub const TTL_DAYS: &str = "ttlDays";
    /// Bytes of the payload.
    pub const DATA_BYTES: &str = "dataBytes";
    /// CRC-32 of the payload.
    pub const DATA_SUM: &str = "dataSum";
    /// When it was redriven, in milliseconds since 1970.
    pub const REDRIVEN_AT: &str = "redrivenAt";
    /// This part of the payload.
    pub const DATA: &str = "d";
    /// All of the first item but the payload.
    pub const HEADER: [&str; 22] = [
        PARTITION,
        SORT,
        VERSION,
        PARTS,
        EPOCH,
        BATCH_FIRST,
        BATCH_LAST,
        ARRIVAL,
        PARTITION_KEY,
        AGGREGATE_KEY,
        CAUSE,
        EXPIRES,
        WHY,
        WORKER,
        PUT_AT,
        PACKING,
        ZSTD_LEVEL,
        MAX_ITEM_BYTES,
        TTL_DAYS,
        DATA_BYTES,
        DATA_SUM,
        REDRIVEN_AT,
    ];
}

/// Payload in one item: what is left of DynamoDB's 400 KB (quotas page) is room for everything else of a letter, whose
/// keys and answer have bounds far below 16 KB.
pub(crate) const PART_BYTES: usize = 384 * 1_024;
/// Most parts of a letter: what six hex digits hold.
pub(crate) const LETTER_PARTS: usize = 0x00FF_FFFF;

impl LetterId {
    /// Text that the sort keys of all parts of the letter begin with, and no others.
    pub(crate) fn sort_prefix(&self) -> String {
        let number = self.sequence_number.as_str();
        format!("{:03}{number}#{:016x}#", number.len(), self.sub_sequence_number.0)
    }

    /// The sort key of a part, from 1.
    pub(crate) fn sort_key(&self, part: usize) -> String {
        format!("{}{part:06x}", self.sort_prefix())
    }

    /// Key of its first item.
    pub(crate) fn head_key(&self) -> ItemKey {
        ItemKey { pk: self.shard.to_string(), sk: self.sort_key(1) }
    }

    /// The letter that an item belongs to.
    pub(crate) fn of_key(key: &ItemKey) -> Option<Self> {
        let mut fields = key.sk.split('#');
        let (length, digits) = fields.next()?.split_at_checked(3)?;
        let exact = length.parse() == Ok(digits.len());
        let sub = u64::from_str_radix(fields.next()?, 16).ok()?;
        Some(Self {
            shard: ShardId::new(key.pk.as_str()),
            sequence_number: SequenceNumber::parse(digits).ok().filter(|_| exact)?,
            sub_sequence_number: SubSequenceNumber(sub),
        })
    }
}

impl Letter {
    /// The items of the letter in the order of their parts. All but the first follow from the event alone, their expiry
    /// aside, so that two workers that write them at the same time write the same.
    pub(crate) fn to_items(&self) -> Vec<Attributes> {
        let parts = self.data.len().div_ceil(PART_BYTES).clamp(1, LETTER_PARTS);
        (0..parts)
            .map(|part| {
                let end = self.data.len().min((part + 1) * PART_BYTES);
                let mut item =
                    if part == 0 { self.header.to_attributes(parts) } else { Attributes::default() };
                if let Some(expires) = self.header.expires {
                    item.set(names::EXPIRES, Value::Number(expires));
                }
                item.set(names::PARTITION, Value::Text(self.header.id.shard.to_string()));
                item.set(names::SORT, Value::Text(self.header.id.sort_key(part + 1)));
                item.set(names::DATA, Value::Bytes(self.data.slice(part * PART_BYTES..end)));
                item
            })
            .collect()
    }

    /// Joins the items of a letter, in the order of their parts.
    ///
    /// # Errors
    /// What does not follow the format, or is not all there; never a guess.
    pub fn from_items(items: &[Attributes]) -> Result<Self, LetterError> {
        let header = LetterHeader::of_items(items)?;
        let fail = |why: String| LetterError { key: header.id.to_string(), why };
        let parts = items.first().and_then(|item| item.number(names::PARTS));
        if parts != i64::try_from(items.len()).ok() {
            return Err(fail(format!("it has {} items and should have {}", items.len(), parts.unwrap_or(0))));
        }
        let data = items.iter().map(|item| item.data(names::DATA)).collect::<Option<Vec<Bytes>>>();
        let data = data.ok_or_else(|| fail("an item has no data".to_owned()))?;
        let data = match data.as_slice() {
            [one] => one.clone(),
            parts => Bytes::from(parts.concat()),
        };
        if crc32fast::hash(&data) != header.data_sum || data.len() as u64 != header.data_bytes {
            return Err(fail("its payload is not what was written".to_owned()));
        }
        Ok(Self { header, data })
    }
}

impl LetterHeader {
    fn to_attributes(&self, parts: usize) -> Attributes {
        let mut attributes = Attributes::default();
        let version = match self.cause {
            LetterCause::Rejected => LETTER_VERSION,
            LetterCause::Unreadable => {
                let cause = LetterCause::Unreadable.name().to_owned();
                attributes.set(names::CAUSE, Value::Text(cause));
                UNREADABLE_LETTER_VERSION
            }
        };
        let clamped = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let mut numbers = vec![
            (names::VERSION, version),
            (names::PARTS, clamped(parts as u64)),
            (names::EPOCH, i64::from(self.epoch)),
            (names::ARRIVAL, self.arrival.0),
            (names::PUT_AT, self.put_at.0),
            (names::PACKING, i64::from(self.packing.version)),
            (names::MAX_ITEM_BYTES, i64::from(self.packing.max_item_bytes)),
            (names::DATA_BYTES, clamped(self.data_bytes)),
            (names::DATA_SUM, i64::from(self.data_sum)),
        ];
        if let Codec::Zstd(level) = self.packing.codec {
            numbers.push((names::ZSTD_LEVEL, i64::from(level)));
        }
        numbers.extend(self.packing.ttl_days.map(|days| (names::TTL_DAYS, i64::from(days))));
        numbers.extend(self.redriven_at.map(|at| (names::REDRIVEN_AT, at.0)));
        for (name, number) in numbers {
            attributes.set(name, Value::Number(number));
        }
        let texts = [
            (names::BATCH_FIRST, self.batch_first.as_str()),
            (names::BATCH_LAST, self.batch_last.as_str()),
            (names::PARTITION_KEY, &self.partition_key),
            (names::AGGREGATE_KEY, &self.aggregate_key),
            (names::WHY, &self.why),
            (names::WORKER, &self.worker),
        ];
        for (name, text) in texts {
            attributes.set(name, Value::Text(text.to_owned()));
        }
        attributes
    }

    /// Reads the first of a letter's items.
    pub(crate) fn of_items(items: &[Attributes]) -> Result<Self, LetterError> {
        let none = Attributes::default();
        Self::from_attributes(items.first().unwrap_or(&none))
    }

    /// Reads the first item of a letter.
    pub(crate) fn from_attributes(attributes: &Attributes) -> Result<Self, LetterError> {
        let text = |name: &str| attributes.text(name).unwrap_or_default();
        let key = ItemKey { pk: text(names::PARTITION).to_owned(), sk: text(names::SORT).to_owned() };
        let fail = |why: String| LetterError { key: key.to_string(), why };
        let missing = |name: &str| fail(format!("attribute `{name}` is missing or impossible"));
        let id =
            LetterId::of_key(&key).ok_or_else(|| fail("its key does not follow the format".to_owned()))?;
        let version = attributes.number(names::VERSION);
        let cause = match (version, attributes.text(names::CAUSE)) {
            (Some(LETTER_VERSION), None) => LetterCause::Rejected,
            (Some(UNREADABLE_LETTER_VERSION), Some(cause)) => {
                cause.parse().map_err(|_none| missing(names::CAUSE))?
            }
            (Some(LETTER_VERSION | UNREADABLE_LETTER_VERSION), _) => return Err(missing(names::CAUSE)),
            (version, _) => {
                return Err(fail(format!(
                    "version {}, this build reads up to {UNREADABLE_LETTER_VERSION}: run the newer build",
                    version.unwrap_or_default()
                )));
            }
        };
        let number = |name: &str| attributes.number(name).ok_or_else(|| missing(name));
        let small = |name: &str| number(name).and_then(|n| u32::try_from(n).map_err(|_| missing(name)));
        let owned = |name: &str| attributes.text(name).map(str::to_owned).ok_or_else(|| missing(name));
        let sequence = |name: &str| SequenceNumber::parse(text(name)).map_err(|_| missing(name));
        let level = attributes
            .number(names::ZSTD_LEVEL)
            .map(|level| i32::try_from(level).map_err(|_| missing(names::ZSTD_LEVEL)));
        let days = attributes.number(names::TTL_DAYS).map(|_| small(names::TTL_DAYS));
        Ok(Self {
            id,
            epoch: small(names::EPOCH)?,
            batch_first: sequence(names::BATCH_FIRST)?,
            batch_last: sequence(names::BATCH_LAST)?,
            arrival: ArrivalMillis(number(names::ARRIVAL)?),
            partition_key: owned(names::PARTITION_KEY)?,
            aggregate_key: owned(names::AGGREGATE_KEY)?,
            cause,
            why: owned(names::WHY)?,
            worker: owned(names::WORKER)?,
            put_at: ArrivalMillis(number(names::PUT_AT)?),
            packing: LetterPacking {
                version: small(names::PACKING)?,
                codec: level.transpose()?.map_or(Codec::None, Codec::Zstd),
                max_item_bytes: small(names::MAX_ITEM_BYTES)?,
                ttl_days: days.transpose()?,
            },
            data_bytes: u64::try_from(number(names::DATA_BYTES)?).map_err(|_| missing(names::DATA_BYTES))?,
            data_sum: small(names::DATA_SUM)?,
            redriven_at: attributes.number(names::REDRIVEN_AT).map(ArrivalMillis),
            expires: attributes.number(names::EXPIRES),
        })
    }
}
