//! Packing: the records of a batch -> the items that store them. **Pure**: the same batch and revision give
//! the same bytes, whoever packs it and when (law D3).
//!
//! Records are filtered and grouped by aggregate key; of each group the events, what a projection keeps of
//! them, or a reduction of them is framed, compressed and split over items. A packing version stands for
//! framing, compression and splitting together; a version that was once used to write is never changed,
//! because a batch announced under it may still be packed again by another build. Filter, keys, grouping,
//! projection and reduction do not depend on it.
//!
//! | version | framing | splitting |
//! |---|---|---|
//! | 1 | four columns of places and lengths, then the payloads | full parts, the last one takes the rest |
//! | 2 | place, length and payload, event by event | as many parts, of equal size |
//!
//! New cuts use version 1. Version 2 is real, readable and tested, and exists as the proof that two versions
//! can live side by side in one fleet and one table. Compression is part of a version too: a release of
//! libzstd that compresses differently needs a new one, and a test with fixed sums notices it.

use std::io;

use bytes::Bytes;
use sluicegate_checkpoint::parameters::ParametersError;
use sluicegate_checkpoint::{ArrivalMillis, Batch, Codec, Record, SequenceNumber, SubSequenceNumber};
use thiserror::Error;

use crate::group_sizes::GroupSizes;
use crate::item::{EventId, Header, Item, MAX_PARTS, PartitionKey, SortKey, StoredCodec};
use crate::sink::{Arrivals, Untimed};

mod codec;
mod frame;
mod group;
mod shape;
mod split;
mod varint;

pub use codec::DecompressError;
pub use frame::{FrameError, Unpacked};
pub use group::aggregate_key_of;

/// The packing version for new cuts.
pub const PACKING_VERSION: u32 = 1;
/// Every packing version that this build can make, ascending; it reads the same ones.
pub const PACKING_VERSIONS: &[u32] = &[1, 2];

/// A version of framing, compression and splitting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackingVersion {
    /// Columns, then payloads; full parts.
    V1,
    /// Event by event; equal parts.
    V2,
}

impl PackingVersion {
    /// The version of this number, if this build has it.
    pub fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

/// What a batch becomes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    /// The items, by key.
    pub items: Vec<Item>,
    /// Events in them.
    pub events: u64,
    /// Kinesis records those events came from.
    pub records: u64,
    /// Events left out that the filter does not keep.
    pub filtered: u64,
    /// User records left out that are not of the shard.
    pub foreign: u64,
    /// Events that filter, projection or reduction could not read: stored as they are, or counted as such.
    pub unreadable: u64,
    /// Events without a time for their reduction, in the window null.
    pub untimed: Untimed,
    /// Places in the batch of events that cannot be read and become dead letters: they are in no item.
    pub dead_letters: Vec<usize>,
    /// Bytes of the events as published.
    pub raw_bytes: u64,
    /// Bytes of the items as DynamoDB counts them.
    pub stored_bytes: u64,
    /// Events under the fallback key, because the key template found nothing usable.
    pub fallback_keys: u64,
    /// When the events arrived.
    pub arrivals: Arrivals,
    /// How large the groups are.
    pub groups: GroupSizes,
}

/// Why a batch cannot be packed.
#[derive(Debug, Error)]
pub enum PackError {
    /// The cut names a packing version that this build lacks.
    #[error("packing version {wanted} is not one that this build makes")]
    Version {
        /// The version wanted.
        wanted: u32,
    },
    /// The recorded parameters are outside their ranges.
    #[error("the recorded packing parameters cannot be used")]
    Parameters(#[from] ParametersError),
    /// The shard's id cannot stand in a key.
    #[error("shard id `{id}` cannot stand in a key: 1 to 128 of a-z A-Z 0-9 _ . - are wanted")]
    Shard {
        /// The id.
        id: String,
    },
    /// A group would need more parts than keys can number.
    #[error("the group of key `{key}` takes more than {MAX_PARTS} parts: raise max_item_bytes")]
    TooManyParts {
        /// Its aggregate key.
        key: String,
    },
    /// The compressor failed.
    #[error("the compressor failed")]
    Compress(#[source] io::Error),
}

/// Packs a batch into the items that store it.
///
/// Payloads are read once, straight into the compressor. The compressor's context is made anew for each call
/// and used for every group of it, in the order of keys, so that the bytes follow from the batch alone.
///
/// # Errors
/// See [`PackError`]. No event is too large, and none is left out but for the cut's exclusions.
pub fn pack(batch: &Batch) -> Result<Packed, PackError> {
    let cut = &batch.cut;
    if cut.dropped {
        return Ok(Packed::default());
    }
    cut.parameters.check()?;
    let wanted = cut.packing_version;
    let version = PackingVersion::of(wanted).ok_or(PackError::Version { wanted })?;
    if !SortKey::takes_shard(&batch.id.shard) {
        return Err(PackError::Shard { id: batch.id.shard.to_string() });
    }
    let groups = group::group(batch);
    let mut packed = Packed {
        events: groups.events,
        records: groups.records,
        filtered: groups.filtered,
        foreign: groups.foreign,
        unreadable: groups.unreadable,
        untimed: groups.untimed,
        raw_bytes: groups.raw_bytes,
        fallback_keys: groups.fallback_keys,
        arrivals: groups.arrivals,
        ..Packed::default()
    };
    let mut compressor = codec::Compressor::new(cut.parameters.codec).map_err(PackError::Compress)?;
    let mut group_bytes = Vec::with_capacity(groups.by_key.len());
    packed.dead_letters = groups.dead_letters;
    for (key, group::Group { records, shape }) in groups.by_key {
        let before = packed.stored_bytes;
        let made = shape.made(&key, &records);
        let made: Option<Vec<&Record>> = made.as_ref().map(|made| made.iter().collect());
        let reduced = cut.parameters.reduce.is_some().then_some(records.len() as u64);
        let frames = made.as_deref().unwrap_or(&records);
        let group = Group { batch, version, key: &key, records: &records, frames, reduced };
        group.pack_into(&mut compressor, &mut packed)?;
        group_bytes.push(packed.stored_bytes - before);
    }
    packed.groups = GroupSizes::new(group_bytes, packed.items.len() as u64);
    Ok(packed)
}

/// Joins the parts of one group, which were checked one by one, and takes it apart again.
///
/// # Errors
/// What does not add up.
pub fn unpack(header: &Header, parts: &[Bytes]) -> Result<Vec<Unpacked>, UnpackError> {
    let wanted = header.packing_version;
    let version = PackingVersion::of(wanted).ok_or(UnpackError::Version { found: wanted })?;
    let raw = codec::decompress(header.codec, parts, header.raw_bytes)?;
    let found = crc32fast::hash(&raw);
    if found != header.group_sum {
        return Err(UnpackError::GroupSum { found, stated: header.group_sum });
    }
    let base = frame::Place::of_cut(&header.sort.first, header.sort.arrival);
    let events = frame::decode(version, &base, &raw)?;
    let found = u64::try_from(events.len()).unwrap_or(u64::MAX);
    if found != header.count {
        return Err(UnpackError::Count { found, stated: header.count });
    }
    Ok(events)
}

/// Why a group whose parts are all there cannot be taken apart.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// Packed by a newer build.
    #[error("packing version {found} is not one that this build reads: run the newer build")]
    Version {
        /// Version found.
        found: u32,
    },
    /// Decompression failed or gave another length than stated.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// The checksum over the decompressed group is wrong.
    #[error("the checksum of the group is {found:08x} and should be {stated:08x}")]
    GroupSum {
        /// Sum of the bytes there.
        found: u32,
        /// Sum stated.
        stated: u32,
    },
    /// The frames make no sense.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What should be a reduction is none, or does not add up with the others.
    #[error("a reduction in it {why}")]
    Reduction {
        /// What is wrong.
        why: &'static str,
    },
    /// There are more or fewer events than stated.
    #[error("the group has {found} events and should have {stated}")]
    Count {
        /// Events there.
        found: u64,
        /// Events stated.
        stated: u64,
    },
}

/// One group on its way into items.
struct Group<'a> {
    batch: &'a Batch,
    version: PackingVersion,
    key: &'a str,
    /// The events that went into it.
    records: &'a [&'a Record],
    /// What is stored of them.
    frames: &'a [&'a Record],
    /// How many events the frames sum up, if they are reductions.
    reduced: Option<u64>,
}

impl Group<'_> {
    fn pack_into(&self, compressor: &mut codec::Compressor, packed: &mut Packed) -> Result<(), PackError> {
        let arrival = SortKey::clamp(self.batch.arrival);
        let base = frame::Place::of_cut(&self.batch.cut.first, arrival);
        let framed =
            frame::encode(self.version, &base, self.frames, compressor).map_err(PackError::Compress)?;
        let mut header = self.header(arrival, &framed);
        let max_item_bytes = self.batch.cut.parameters.max_item_bytes as usize;
        let room = max_item_bytes.saturating_sub(largest_overhead(&header)).max(1);
        let stored = Bytes::from(framed.stored);
        let ranges = split::ranges(self.version, stored.len(), room);
        header.parts = u32::try_from(ranges.len())
            .ok()
            .filter(|parts| *parts <= MAX_PARTS)
            .ok_or_else(|| PackError::TooManyParts { key: self.key.to_owned() })?;
        for (part, range) in (1..).zip(ranges) {
            let data = stored.slice(range);
            header.sort.part = part;
            header.part_sum = crc32fast::hash(&data);
            header.stored_bytes = data.len() as u64;
            packed.stored_bytes += header.item_bytes(data.len()) as u64;
            packed.items.push(Item { header: header.clone(), data });
        }
        Ok(())
    }

    /// The header of the group's first part, parts still uncounted.
    fn header(&self, arrival: ArrivalMillis, framed: &codec::Framed) -> Header {
        let Batch { id, cut, .. } = self.batch;
        let spread = cut.parameters.spread;
        Header {
            partition: PartitionKey {
                aggregate_key: self.key.to_owned(),
                suffix: group::suffix(self.key, id, spread),
            },
            sort: SortKey {
                arrival,
                shard: id.shard.clone(),
                epoch: id.epoch,
                first: cut.first.clone(),
                event: None,
                revision: cut.revision,
                part: 1,
            },
            packing_version: cut.packing_version,
            codec: match cut.parameters.codec {
                Codec::None => StoredCodec::None,
                Codec::Zstd(_) => StoredCodec::Zstd,
            },
            count: self.frames.len() as u64,
            reduced: self.reduced,
            raw_bytes: framed.raw_bytes,
            group_sum: framed.sum,
            part_sum: 0,
            arrivals: self.arrivals(),
            range: self.range(),
            parts: 1,
            stored_bytes: 0,
            expires: cut.parameters.ttl_days.map(|days| expiry(self.batch.arrival, days)),
        }
    }

    fn arrivals(&self) -> (ArrivalMillis, ArrivalMillis) {
        let earliest = self.frames.iter().map(|record| record.arrival()).min();
        let latest = self.frames.iter().map(|record| record.arrival()).max();
        (earliest.unwrap_or(self.batch.arrival), latest.unwrap_or(self.batch.arrival))
    }

    fn range(&self) -> Option<(EventId, EventId)> {
        let id = |sequence_number: &SequenceNumber, sub: SubSequenceNumber| EventId {
            sequence_number: sequence_number.clone(),
            sub_sequence_number: sub,
        };
        let places =
            || self.records.iter().map(|record| (record.sequence_number(), record.sub_sequence_number()));
        let (first, last) = (places().min()?, places().max()?);
        Some((id(first.0, first.1), id(last.0, last.1)))
    }
}

/// What an item of this group takes beside its data, at most: whatever its part number and sums turn out to
/// be.
fn largest_overhead(header: &Header) -> usize {
    let largest = Header {
        part_sum: u32::MAX,
        parts: MAX_PARTS,
        stored_bytes: u64::from(u32::MAX),
        sort: SortKey { part: MAX_PARTS, ..header.sort.clone() },
        ..header.clone()
    };
    largest.item_bytes(0)
}

/// Seconds since the epoch, `days` after the cut's arrival: never after *now*, which differs between workers.
fn expiry(arrival: ArrivalMillis, days: u32) -> i64 {
    const SECONDS_A_DAY: i64 = 86_400;
    arrival.0.div_euclid(1_000) + i64::from(days) * SECONDS_A_DAY
}

#[cfg(test)]
mod tests;
