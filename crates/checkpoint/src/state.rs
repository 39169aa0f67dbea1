//! What a lease row says beside its checkpoint: the announced cuts and the times that freshness and loss are
//! judged by, and their encoding in `pendingCheckpointState`.
//!
//! The encoding is a magic prefix, a version byte and a protobuf message, at most 4 KB. Bytes without the prefix
//! belong to a KCL application and are never parsed; another version is somebody else's newer build. Parameters
//! are stored once per distinct set.

use std::str::FromStr;
use std::sync::Arc;

use prost::Message;
use thiserror::Error;

use crate::batch::{BatchId, Cut, Exclusion};
use crate::parameters::{
    AggregateKey, Codec, DECODING_VERSIONS, EVENT_DECODING_VERSION, HashKeyRange, PackingParameters,
    TRANSFORM_DECODING_VERSION, Unreadable,
};
use crate::position::Position;
use crate::record::ArrivalMillis;
use crate::record_id::{SequenceNumber, ShardId, SubSequenceNumber};
use crate::transform::SyntaxError;

/// What every encoded state begins with.
pub const MAGIC: &[u8] = b"SLUICEGATE";
/// Version of the encoding that this build writes; it reads this one.
pub const STATE_VERSION: u8 = 1;
/// Most bytes of an encoded state. DynamoDB bills a write per KB of the whole row, so a large state makes every
/// announce dearer; at 4 KB an announce costs 5 write units.
pub const MAX_STATE_BYTES: usize = 4_096;

/// The decoded state of a lease row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseState {
    /// Tells the batches of this row from those made before an operator moved it back (one more each time), and from
    /// those of an earlier row of the shard; part of every [`BatchId`].
    pub epoch: u32,
    /// Where an `AT_TIMESTAMP` checkpoint begins: fixed when the row was made.
    pub start: Option<ArrivalMillis>,
    /// The position that the first announced cut follows. It equals the row's checkpoint, or somebody moved the
    /// checkpoint without knowing of the cuts.
    pub follows: Option<Position>,
    /// Announced, not yet committed cuts, ascending and touching.
    pub cuts: Vec<Cut>,
    /// Arrival of the record that the checkpoint names.
    pub checkpoint_arrival: Option<ArrivalMillis>,
    /// Time at which the shard was last open and read to its tip, or, before that, one before which nothing in it is
    /// wanted: what loss by retention is judged against.
    pub caught_up: Option<ArrivalMillis>,
}

/// Why stored bytes are not a state that this build can work with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeStateError {
    /// No magic prefix: an application's own bytes, written through KCL.
    #[error("the pending state was not written by Sluicegate")]
    Foreign,
    /// Written by a build that uses another encoding.
    #[error("the pending state has version {found}, this build reads {STATE_VERSION}: run the newer build")]
    Version {
        /// Version found.
        found: u8,
    },
    /// A cut needs decoding, grouping or keys that this build lacks.
    #[error("a cut has decoding version {found}, this build has {DECODING_VERSIONS:?}: run the newer build")]
    DecodingVersion {
        /// Version found.
        found: u32,
    },
    /// The prefix is ours, the rest makes no sense.
    #[error("the pending state is damaged: {why}")]
    Damaged {
        /// What is wrong.
        why: String,
    },
}

/// Why a state cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the pending state would take {bytes} bytes, at most {MAX_STATE_BYTES} are allowed")]
pub struct StateTooLarge {
    /// What it would take.
    pub bytes: usize,
}

/// Why the cuts of a row do not tile the shard from its checkpoint (law D5).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BrokenCuts {
    /// The checkpoint is not where the first cut begins: a KCL application moved it.
    #[error(
        "the first announced cut follows {follows}, but the checkpoint is {checkpoint}: another application has written it"
    )]
    Detached {
        /// Position recorded with the cuts.
        follows: String,
        /// The row's checkpoint.
        checkpoint: String,
    },
    /// A cut does not lie behind the one before it.
    #[error("the announced cuts do not ascend at {first}")]
    Unordered {
        /// First sequence number of the offending cut.
        first: SequenceNumber,
    },
}

impl LeaseState {
    /// A row with nothing announced, that begins at `start` if its checkpoint is `AT_TIMESTAMP`.
    pub fn starting(start: Option<ArrivalMillis>) -> Self {
        Self { epoch: 0, start, follows: None, cuts: Vec::new(), checkpoint_arrival: None, caught_up: start }
    }

    /// What arrived before this time was read and is durable: the later of when the shard was last seen read to its
    /// tip, and of the arrival of the record that the checkpoint names.
    pub fn covered_to(&self) -> Option<ArrivalMillis> {
        self.caught_up.max(self.checkpoint_arrival)
    }

    /// The identities of the announced batches.
    pub fn batch_ids<'a>(&'a self, shard: &'a ShardId) -> impl Iterator<Item = BatchId> + 'a {
        self.cuts.iter().map(|cut| cut.id(shard, self.epoch))
    }

    /// Position behind which the next cut begins: the end of the last announced one, else the checkpoint.
    pub fn announced_up_to(&self, checkpoint: &Position) -> Position {
        self.cuts.last().map_or_else(|| checkpoint.clone(), Cut::end)
    }

    /// Checks that the cuts begin at the checkpoint and ascend.
    ///
    /// # Errors
    /// What is wrong, for the operator; such a lease is not worked on.
    pub fn check_cuts(&self, checkpoint: &Position) -> Result<(), BrokenCuts> {
        if self.cuts.is_empty() {
            return Ok(());
        }
        if self.follows.as_ref() != Some(checkpoint) {
            let follows = self.follows.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
            return Err(BrokenCuts::Detached { follows, checkpoint: checkpoint.to_string() });
        }
        let mut before = checkpoint.clone();
        for cut in &self.cuts {
            let begins_behind = match (&before, cut.behind_sub) {
                (Position::At(sequence_number, sub), Some(behind)) => {
                    *sequence_number == cut.first && *sub == behind
                }
                (Position::At(sequence_number, _), None) => *sequence_number < cut.first,
                (start, _) => start.is_start(),
            };
            if !begins_behind || cut.last < cut.first || cut.records == 0 {
                return Err(BrokenCuts::Unordered { first: cut.first.clone() });
            }
            before = cut.end();
        }
        Ok(())
    }

    /// The bytes for `pendingCheckpointState`.
    ///
    /// # Errors
    /// More than [`MAX_STATE_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, StateTooLarge> {
        let wire = WireState::from_state(self);
        let mut bytes = Vec::with_capacity(MAGIC.len() + 1 + wire.encoded_len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(STATE_VERSION);
        bytes.extend_from_slice(&wire.encode_to_vec());
        if bytes.len() > MAX_STATE_BYTES { Err(StateTooLarge { bytes: bytes.len() }) } else { Ok(bytes) }
    }

    /// Reads the bytes of `pendingCheckpointState`.
    ///
    /// # Errors
    /// Foreign, newer or damaged bytes: never a guess.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeStateError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeStateError::Foreign)?;
        let (&version, body) = rest.split_first().ok_or_else(|| damaged("no version"))?;
        if version != STATE_VERSION {
            return Err(DecodeStateError::Version { found: version });
        }
        WireState::decode(body).map_err(|error| damaged(error.to_string()))?.into_state()
    }
}

/// Bytes that one set of parameters takes in a row, a shard's hash key range counted even where none is set: each
/// shard adds its own to the configured parameters.
pub(crate) fn encoded_parameters_bytes(parameters: &PackingParameters) -> usize {
    let hash_range = parameters.hash_range.or(Some(HashKeyRange::ALL));
    let largest = PackingParameters { hash_range, only_sent_again: true, ..parameters.clone() };
    WireParameters::from_parameters(&largest).encoded_len()
}

fn damaged(why: impl Into<String>) -> DecodeStateError {
    DecodeStateError::Damaged { why: why.into() }
}

#[derive(Clone, PartialEq, Message)]
struct WireState {
    #[prost(uint32, tag = "1")]
    epoch: u32,
    #[prost(sint64, optional, tag = "2")]
    start_ms: Option<i64>,
    #[prost(message, optional, tag = "3")]
    follows: Option<WirePosition>,
    #[prost(message, repeated, tag = "4")]
    cuts: Vec<WireCut>,
    #[prost(message, repeated, tag = "5")]
    parameters: Vec<WireParameters>,
    #[prost(sint64, optional, tag = "6")]
    checkpoint_arrival_ms: Option<i64>,
    #[prost(sint64, optional, tag = "7")]
    caught_up_ms: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct WirePosition {
    #[prost(string, tag = "1")]
    column: String,
    #[prost(uint64, tag = "2")]
    sub: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WireCut {
    #[prost(string, tag = "1")]
    first: String,
    #[prost(string, tag = "2")]
    last: String,
    #[prost(uint64, optional, tag = "3")]
    behind_sub: Option<u64>,
    #[prost(uint64, tag = "4")]
    last_sub: u64,
    #[prost(uint64, tag = "5")]
    records: u64,
    #[prost(uint32, tag = "6")]
    parameters: u32,
    #[prost(uint32, tag = "7")]
    packing_version: u32,
    #[prost(uint32, tag = "8")]
    revision: u32,
    #[prost(message, repeated, tag = "9")]
    exclusions: Vec<WireExclusion>,
    #[prost(bool, tag = "10")]
    dropped: bool,
}

#[derive(Clone, PartialEq, Message)]
struct WireExclusion {
    #[prost(string, tag = "1")]
    from: String,
    #[prost(uint64, tag = "2")]
    from_sub: u64,
    #[prost(string, tag = "3")]
    to: String,
    #[prost(uint64, tag = "4")]
    to_sub: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WireParameters {
    #[prost(string, tag = "1")]
    aggregate_key: String,
    #[prost(uint32, tag = "2")]
    max_item_bytes: u32,
    #[prost(uint32, tag = "3")]
    spread: u32,
    /// Zstandard level; absent stores groups as they are.
    #[prost(sint32, optional, tag = "4")]
    zstd_level: Option<i32>,
    #[prost(uint32, optional, tag = "5")]
    ttl_days: Option<u32>,
    #[prost(uint32, tag = "6")]
    decoding_version: u32,
    /// 16 bytes, highest first; both ends or none.
    #[prost(bytes = "vec", optional, tag = "7")]
    hash_start: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    hash_end: Option<Vec<u8>>,
    /// These three come with decoding version 2, and need it or a later one.
    #[prost(string, optional, tag = "9")]
    filter: Option<String>,
    #[prost(string, optional, tag = "10")]
    fields: Option<String>,
    #[prost(string, optional, tag = "11")]
    reduce: Option<String>,
    /// Comes with decoding version 3 and needs it.
    #[prost(bool, tag = "15")]
    only_sent_again: bool,
    /// Events that cannot be read become dead letters. Comes with decoding version 3 and needs it.
    #[prost(bool, tag = "13")]
    unreadable_to_dead_letters: bool,
}

impl WireState {
    fn from_state(state: &LeaseState) -> Self {
        let mut sets: Vec<&PackingParameters> = Vec::new();
        let mut cuts = Vec::with_capacity(state.cuts.len());
        for cut in &state.cuts {
            let index = sets.iter().position(|set| **set == *cut.parameters).unwrap_or_else(|| {
                sets.push(&cut.parameters);
                sets.len() - 1
            });
            cuts.push(WireCut::from_cut(cut, index));
        }
        Self {
            epoch: state.epoch,
            start_ms: state.start.map(|t| t.0),
            follows: state.follows.as_ref().map(|position| WirePosition {
                column: position.as_column().to_owned(),
                sub: position.sub_sequence_number().0,
            }),
            cuts,
            parameters: sets.into_iter().map(WireParameters::from_parameters).collect(),
            checkpoint_arrival_ms: state.checkpoint_arrival.map(|t| t.0),
            caught_up_ms: state.caught_up.map(|t| t.0),
        }
    }

    fn into_state(self) -> Result<LeaseState, DecodeStateError> {
        let sets = self
            .parameters
            .into_iter()
            .map(|set| set.into_parameters().map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let follows = match self.follows {
            None => None,
            Some(at) => Some(
                Position::from_columns(&at.column, SubSequenceNumber(at.sub))
                    .map_err(|error| damaged(error.to_string()))?,
            ),
        };
        let cuts = self.cuts.into_iter().map(|cut| cut.into_cut(&sets)).collect::<Result<Vec<_>, _>>()?;
        Ok(LeaseState {
            epoch: self.epoch,
            start: self.start_ms.map(ArrivalMillis),
            follows,
            cuts,
            checkpoint_arrival: self.checkpoint_arrival_ms.map(ArrivalMillis),
            caught_up: self.caught_up_ms.map(ArrivalMillis),
        })
    }
}

impl WireCut {
    fn from_cut(cut: &Cut, parameters: usize) -> Self {
        Self {
            first: cut.first.to_string(),
            last: cut.last.to_string(),
            behind_sub: cut.behind_sub.map(|sub| sub.0),
            last_sub: cut.last_sub.0,
            records: cut.records,
            // A row holds a handful of sets: 4 KB leave no room for more than u32 can count.
            parameters: u32::try_from(parameters).unwrap_or(u32::MAX),
            packing_version: cut.packing_version,
            revision: cut.revision,
            exclusions: cut.exclusions.iter().map(WireExclusion::from_exclusion).collect(),
            dropped: cut.dropped,
        }
    }

    fn into_cut(self, sets: &[Arc<PackingParameters>]) -> Result<Cut, DecodeStateError> {
        let parameters = usize::try_from(self.parameters)
            .ok()
            .and_then(|index| sets.get(index))
            .ok_or_else(|| damaged("a cut names parameters that are not there"))?;
        Ok(Cut {
            first: sequence_number(self.first)?,
            last: sequence_number(self.last)?,
            behind_sub: self.behind_sub.map(SubSequenceNumber),
            last_sub: SubSequenceNumber(self.last_sub),
            records: self.records,
            parameters: Arc::clone(parameters),
            packing_version: self.packing_version,
            revision: self.revision,
            exclusions: self
                .exclusions
                .into_iter()
                .map(WireExclusion::into_exclusion)
                .collect::<Result<Vec<_>, _>>()?,
            dropped: self.dropped,
        })
    }
}

impl WireExclusion {
    fn from_exclusion(exclusion: &Exclusion) -> Self {
        Self {
            from: exclusion.from.0.to_string(),
            from_sub: exclusion.from.1.0,
            to: exclusion.to.0.to_string(),
            to_sub: exclusion.to.1.0,
        }
    }

    fn into_exclusion(self) -> Result<Exclusion, DecodeStateError> {
        Ok(Exclusion {
            from: (sequence_number(self.from)?, SubSequenceNumber(self.from_sub)),
            to: (sequence_number(self.to)?, SubSequenceNumber(self.to_sub)),
        })
    }
}

impl WireParameters {
    fn from_parameters(parameters: &PackingParameters) -> Self {
        Self {
            aggregate_key: String::from(parameters.aggregate_key.clone()),
            max_item_bytes: parameters.max_item_bytes,
            spread: parameters.spread,
            zstd_level: match parameters.codec {
                Codec::None => None,
                Codec::Zstd(level) => Some(level),
            },
            ttl_days: parameters.ttl_days,
            decoding_version: parameters.decoding_version,
            hash_start: parameters.hash_range.map(|range| range.start.to_be_bytes().to_vec()),
            hash_end: parameters.hash_range.map(|range| range.end.to_be_bytes().to_vec()),
            only_sent_again: parameters.only_sent_again,
            filter: parameters.filter.as_ref().map(ToString::to_string),
            fields: parameters.fields.as_ref().map(ToString::to_string),
            reduce: parameters.reduce.as_ref().map(ToString::to_string),
            unreadable_to_dead_letters: parameters.unreadable == Unreadable::DeadLetter,
        }
    }

    fn into_parameters(self) -> Result<PackingParameters, DecodeStateError> {
        if !DECODING_VERSIONS.contains(&self.decoding_version) {
            return Err(DecodeStateError::DecodingVersion { found: self.decoding_version });
        }
        let hash_range = match (self.hash_start, self.hash_end) {
            (None, None) => None,
            (Some(start), Some(end)) => Some(HashKeyRange { start: hash_key(&start)?, end: hash_key(&end)? }),
            (Some(_), None) | (None, Some(_)) => return Err(damaged("half a hash key range")),
        };
        let parameters = PackingParameters {
            aggregate_key: AggregateKey::try_from(self.aggregate_key)
                .map_err(|error| damaged(error.to_string()))?,
            max_item_bytes: self.max_item_bytes,
            spread: self.spread,
            codec: self.zstd_level.map_or(Codec::None, Codec::Zstd),
            ttl_days: self.ttl_days,
            decoding_version: self.decoding_version,
            hash_range,
            only_sent_again: self.only_sent_again,
            filter: parsed(self.filter)?,
            fields: parsed(self.fields)?,
            reduce: parsed(self.reduce)?,
            unreadable: if self.unreadable_to_dead_letters {
                Unreadable::DeadLetter
            } else {
                Unreadable::Keep
            },
        };
        if parameters.unreadable == Unreadable::DeadLetter && self.decoding_version < EVENT_DECODING_VERSION {
            return Err(damaged("dead letters of unreadable events under a decoding version without them"));
        }
        if parameters.transforms() && self.decoding_version < TRANSFORM_DECODING_VERSION {
            return Err(damaged("a filter, fields or a reduction under a decoding version without them"));
        }
        if parameters.only_sent_again && self.decoding_version < EVENT_DECODING_VERSION {
            return Err(damaged("user records that are sent again under a decoding version without them"));
        }
        Ok(parameters)
    }
}

fn sequence_number(text: String) -> Result<SequenceNumber, DecodeStateError> {
    SequenceNumber::parse(text).map_err(|error| damaged(error.to_string()))
}

/// A filter, fields or a reduction, if there is one.
fn parsed<T: FromStr<Err = SyntaxError>>(text: Option<String>) -> Result<Option<T>, DecodeStateError> {
    text.map(|text| text.parse().map_err(|error: SyntaxError| damaged(error.to_string()))).transpose()
}

fn hash_key(bytes: &[u8]) -> Result<u128, DecodeStateError> {
    let wrong_length = |_| damaged(format!("a hash key of {} bytes", bytes.len()));
    bytes.try_into().map(u128::from_be_bytes).map_err(wrong_length)
}

#[cfg(test)]
mod tests;
