//! The stored item: its attributes, its size, and the way to and from an adapter-neutral form. **Pure.**
//!
//! The format is specified, with test vectors, in `docs/item-format.md`; the two must change together.
//! Attribute names have one letter because DynamoDB bills every byte of every item.

use bytes::Bytes;
use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber, SubSequenceNumber};
use thiserror::Error;

mod keys;
mod value;

pub(crate) use keys::common_prefix;
pub use keys::{ItemKey, PartitionKey, RESERVED_PARTITION, SPREAD_ROW, SortKey};
pub use value::{Attributes, Value};

/// Version of keys and attributes of items that hold events.
pub const FORMAT_VERSION: u32 = 1;
/// Version of items that hold reductions. It is another one so that a reader that does not know them refuses them,
/// and does not take counts and sums for events.
pub const REDUCED_FORMAT_VERSION: u32 = 2;
/// Most parts of one group: what six hex digits of a sort key hold.
pub const MAX_PARTS: u32 = 0x00FF_FFFF;

/// Names of the attributes, as DynamoDB stores them.
pub mod names {
    /// Partition key.
    pub const PARTITION: &str = "pk";
    /// Sort key.
    pub const SORT: &str = "sk";
    /// Format version.
    pub const FORMAT: &str = "v";
    /// Packing version.
    pub const PACKING: &str = "p";
    /// Codec: 0 none, 1 zstd.
    pub const CODEC: &str = "c";
    /// Events in the group, or reductions.
    pub const COUNT: &str = "n";
    /// In items of reductions alone: how many events they sum up.
    pub const REDUCED: &str = "e";
    /// Bytes of the framed group before compression.
    pub const RAW_BYTES: &str = "r";
    /// CRC-32 of the framed group before compression.
    pub const GROUP_SUM: &str = "g";
    /// CRC-32 of this item's data.
    pub const PART_SUM: &str = "x";
    /// Earliest arrival in the group.
    pub const EARLIEST: &str = "a";
    /// Latest arrival in the group.
    pub const LATEST: &str = "b";
    /// First event of the group.
    pub const FIRST: &str = "f";
    /// Last event of the group.
    pub const LAST: &str = "l";
    /// Which part this is, from 1.
    pub const PART: &str = "i";
    /// How many parts the group has.
    pub const PARTS: &str = "m";
    /// Bytes of this item's data.
    pub const STORED_BYTES: &str = "s";
    /// When the item expires, in seconds since the Unix epoch.
    pub const EXPIRES: &str = "t";
    /// The data: this part of the compressed group.
    pub const DATA: &str = "d";
    /// All of them but the data, as a scan for headers asks for them.
    pub const HEADER: [&str; 18] = [
        PARTITION,
        SORT,
        FORMAT,
        PACKING,
        CODEC,
        COUNT,
        REDUCED,
        RAW_BYTES,
        GROUP_SUM,
        PART_SUM,
        EARLIEST,
        LATEST,
        FIRST,
        LAST,
        PART,
        PARTS,
        STORED_BYTES,
        EXPIRES,
    ];
}

/// What names an event inside its shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Sequence number of its Kinesis record.
    pub sequence_number: SequenceNumber,
    /// Its index in that record.
    pub sub_sequence_number: SubSequenceNumber,
}

/// How the data of an item is compressed, as far as a reader needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredCodec {
    /// As it is.
    None,
    /// One zstandard frame.
    Zstd,
}

impl StoredCodec {
    fn number(self) -> i64 {
        match self {
            Self::None => 0,
            Self::Zstd => 1,
        }
    }
}

/// Everything of an item but its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Aggregate key and spread suffix.
    pub partition: PartitionKey,
    /// Where the group stands in time, and which part of it this is.
    pub sort: SortKey,
    /// Version of framing, compression and splitting.
    pub packing_version: u32,
    /// How the data is compressed.
    pub codec: StoredCodec,
    /// Events in the group; of a group of reductions, how many of those.
    pub count: u64,
    /// How many events the reductions of the group sum up; `None` in a group of events.
    pub reduced: Option<u64>,
    /// Bytes of the framed group before compression.
    pub raw_bytes: u64,
    /// CRC-32 (IEEE) of the framed group before compression: end to end, over join and codec.
    pub group_sum: u32,
    /// CRC-32 (IEEE) of this item's data: names the damaged item.
    pub part_sum: u32,
    /// Earliest and latest arrival in the group; the cut's arrival when the group is empty.
    pub arrivals: (ArrivalMillis, ArrivalMillis),
    /// First and last event of the group in shard order; none when it is empty.
    pub range: Option<(EventId, EventId)>,
    /// How many parts the group has.
    pub parts: u32,
    /// Bytes of this item's data.
    pub stored_bytes: u64,
    /// When DynamoDB may delete the item, in seconds since the Unix epoch.
    pub expires: Option<i64>,
}

/// One item of the analytics table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// All but the data.
    pub header: Header,
    /// This part of the compressed group.
    pub data: Bytes,
}

/// Why stored attributes are not an item of this format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("item {key} is not readable: {why}")]
pub struct ItemError {
    /// The item.
    pub key: ItemKey,
    /// What is wrong with it.
    pub why: Fault,
}

/// What is wrong with an item.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// One of the keys does not follow the format.
    #[error("its key does not follow the format")]
    Key,
    /// Written by a newer build.
    #[error(
        "format version {found}, this build reads {FORMAT_VERSION} and {REDUCED_FORMAT_VERSION}: run the newer build"
    )]
    FormatVersion {
        /// Version found.
        found: i64,
    },
    /// An attribute is missing, has the wrong type or makes no sense.
    #[error("attribute `{name}` is missing or malformed")]
    Attribute {
        /// Its name.
        name: &'static str,
    },
    /// Its length is not what the item says.
    #[error("its data has {found} bytes and should have {stated}")]
    Length {
        /// Bytes there.
        found: usize,
        /// Bytes stated.
        stated: u64,
    },
    /// The checksum of its data is wrong.
    #[error("the checksum of its data is {found:08x} and should be {stated:08x}")]
    PartSum {
        /// Sum of the bytes there.
        found: u32,
        /// Sum stated.
        stated: u32,
    },
    /// It contradicts another part of its group.
    #[error("it contradicts part {other} of its group")]
    Contradiction {
        /// The other part.
        other: u32,
    },
}

impl Header {
    /// The keys as text.
    pub fn key(&self) -> ItemKey {
        ItemKey { pk: self.partition.to_string(), sk: self.sort.to_string() }
    }

    /// All attributes but the data, keys first.
    pub fn to_attributes(&self) -> Attributes {
        let ItemKey { pk, sk } = self.key();
        let mut attributes = Attributes::default();
        attributes.set(names::PARTITION, Value::Text(pk));
        attributes.set(names::SORT, Value::Text(sk));
        for (name, number) in self.numbers() {
            attributes.set(name, Value::Number(number));
        }
        if let Some((first, last)) = &self.range {
            attributes.set(names::FIRST, Value::Text(keys::mark(&self.sort.first, first)));
            attributes.set(names::LAST, Value::Text(keys::mark(&self.sort.first, last)));
        }
        if let Some(events) = self.reduced {
            attributes.set(names::REDUCED, Value::Number(clamped(events)));
        }
        if let Some(expires) = self.expires {
            attributes.set(names::EXPIRES, Value::Number(expires));
        }
        attributes
    }

    /// Reads attributes back. The data may be absent: a scan for headers does not ask for it.
    ///
    /// # Errors
    /// What does not follow the format; never a guess.
    pub fn from_attributes(attributes: &Attributes) -> Result<Self, ItemError> {
        let text = |name| attributes.text(name).unwrap_or_default().to_owned();
        let key = ItemKey { pk: text(names::PARTITION), sk: text(names::SORT) };
        Self::decode(attributes, &key).map_err(|why| ItemError { key, why })
    }

    /// The item's size as DynamoDB counts it, for data of a given length.
    pub fn item_bytes(&self, data_bytes: usize) -> usize {
        self.to_attributes().bytes() + names::DATA.len() + data_bytes
    }

    /// Whether another header speaks of the same group in the same words.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        (
            self.packing_version,
            self.codec,
            self.count,
            self.reduced,
            self.raw_bytes,
            self.group_sum,
            self.parts,
        ) == (
            other.packing_version,
            other.codec,
            other.count,
            other.reduced,
            other.raw_bytes,
            other.group_sum,
            other.parts,
        )
    }

    /// How many events the group stores, reduced or not.
    pub fn events(&self) -> u64 {
        self.reduced.unwrap_or(self.count)
    }

    fn format_version(&self) -> u32 {
        if self.reduced.is_some() { REDUCED_FORMAT_VERSION } else { FORMAT_VERSION }
    }

    fn numbers(&self) -> [(&'static str, i64); 12] {
        [
            (names::FORMAT, i64::from(self.format_version())),
            (names::PACKING, i64::from(self.packing_version)),
            (names::CODEC, self.codec.number()),
            (names::COUNT, clamped(self.count)),
            (names::RAW_BYTES, clamped(self.raw_bytes)),
            (names::GROUP_SUM, i64::from(self.group_sum)),
            (names::PART_SUM, i64::from(self.part_sum)),
            (names::EARLIEST, self.arrivals.0.0),
            (names::LATEST, self.arrivals.1.0),
            (names::PART, i64::from(self.sort.part)),
            (names::PARTS, i64::from(self.parts)),
            (names::STORED_BYTES, clamped(self.stored_bytes)),
        ]
    }

    fn decode(attributes: &Attributes, key: &ItemKey) -> Result<Self, Fault> {
        let partition = PartitionKey::parse(&key.pk).ok_or(Fault::Key)?;
        let sort = SortKey::parse(&key.sk).ok_or(Fault::Key)?;
        let format = attributes.number(names::FORMAT).ok_or(Fault::Attribute { name: names::FORMAT })?;
        let reduced = if format == i64::from(REDUCED_FORMAT_VERSION) {
            Some(number(attributes, names::REDUCED)?)
        } else if format == i64::from(FORMAT_VERSION) {
            None
        } else {
            return Err(Fault::FormatVersion { found: format });
        };
        let codec = match number::<u8>(attributes, names::CODEC)? {
            0 => StoredCodec::None,
            1 => StoredCodec::Zstd,
            _ => return Err(Fault::Attribute { name: names::CODEC }),
        };
        let arrival = |name| number::<i64>(attributes, name).map(ArrivalMillis);
        let header = Self {
            packing_version: number(attributes, names::PACKING)?,
            codec,
            count: number(attributes, names::COUNT)?,
            reduced,
            raw_bytes: number(attributes, names::RAW_BYTES)?,
            group_sum: number(attributes, names::GROUP_SUM)?,
            part_sum: number(attributes, names::PART_SUM)?,
            arrivals: (arrival(names::EARLIEST)?, arrival(names::LATEST)?),
            range: range(attributes, &sort.first)?,
            parts: number(attributes, names::PARTS)?,
            stored_bytes: number(attributes, names::STORED_BYTES)?,
            expires: attributes.number(names::EXPIRES),
            partition,
            sort,
        };
        if number::<u32>(attributes, names::PART)? != header.sort.part {
            return Err(Fault::Attribute { name: names::PART });
        }
        if header.parts == 0 || !(1..=header.parts).contains(&header.sort.part) {
            return Err(Fault::Attribute { name: names::PARTS });
        }
        Ok(header)
    }
}

impl Item {
    /// All attributes, keys first, data last.
    pub fn to_attributes(&self) -> Attributes {
        let mut attributes = self.header.to_attributes();
        attributes.set(names::DATA, Value::Bytes(self.data.clone()));
        attributes
    }

    /// Reads attributes back. The checksum is left to [`Item::check`], so that whoever skips an item need not
    /// pay for it.
    ///
    /// # Errors
    /// What does not follow the format.
    pub fn from_attributes(attributes: &Attributes) -> Result<Self, ItemError> {
        let header = Header::from_attributes(attributes)?;
        let Some(data) = attributes.data(names::DATA) else {
            return Err(ItemError { key: header.key(), why: Fault::Attribute { name: names::DATA } });
        };
        Ok(Self { header, data })
    }

    /// The item's size as DynamoDB counts it.
    pub fn bytes(&self) -> usize {
        self.header.item_bytes(self.data.len())
    }

    /// Checks length and checksum of the data.
    ///
    /// # Errors
    /// The data is not what was written.
    pub fn check(&self) -> Result<(), ItemError> {
        let fail = |why| Err(ItemError { key: self.header.key(), why });
        if u64::try_from(self.data.len()) != Ok(self.header.stored_bytes) {
            return fail(Fault::Length { found: self.data.len(), stated: self.header.stored_bytes });
        }
        let found = crc32fast::hash(&self.data);
        if found != self.header.part_sum {
            return fail(Fault::PartSum { found, stated: self.header.part_sum });
        }
        Ok(())
    }
}

/// Counts of events and bytes never reach 2^63.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number<T: TryFrom<i64>>(attributes: &Attributes, name: &'static str) -> Result<T, Fault> {
    attributes.number(name).and_then(|number| T::try_from(number).ok()).ok_or(Fault::Attribute { name })
}

fn range(attributes: &Attributes, base: &SequenceNumber) -> Result<Option<(EventId, EventId)>, Fault> {
    let mark = |name: &'static str| match attributes.text(name) {
        None => Ok(None),
        Some(text) => keys::parse_mark(base, text).map(Some).ok_or(Fault::Attribute { name }),
    };
    match (mark(names::FIRST)?, mark(names::LAST)?) {
        (None, None) => Ok(None),
        (Some(first), Some(last)) => Ok(Some((first, last))),
        (Some(_), None) => Err(Fault::Attribute { name: names::LAST }),
        (None, Some(_)) => Err(Fault::Attribute { name: names::FIRST }),
    }
}

#[cfg(test)]
mod tests;
