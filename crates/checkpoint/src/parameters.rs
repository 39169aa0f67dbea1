//! The packing parameters: everything beside the records that decides what a batch's items look like.
//!
//! They are recorded with the cut, so that whoever redelivers it, under whatever configuration, makes the same
//! items under the same keys (law D3).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sluicegate_event::{Event, Kind};
use thiserror::Error;

use crate::key_template::{Key, KeyTemplate};
use crate::reading_before_3;
use crate::record::Record;
use crate::transform::{Fields, Filter, Reduce, Verdict};

/// The version of decoding, filtering, grouping and keys that cuts are recorded with. No amendment changes
/// it; who lacks a recorded one is not eligible for the lease. Version 1 takes aggregated records apart and leaves out
/// user records outside the recorded hash key range.
pub const DECODING_VERSION: u32 = 1;
/// The version that brought filter, projection and reduction. Events were read as in
/// [`reading_before_3`].
pub const TRANSFORM_DECODING_VERSION: u32 = 2;
/// The version that cuts need where it matters how events are read: events are read by [`sluicegate_event`], once, and
/// numbers in keys are their digits. It also tells user records apart which their producer sends again from those that are
/// sent once, and an aggregated record of no user records is one event. Cuts that need none of this stay at
/// [`DECODING_VERSION`], so that an older build can take over from this one.
pub const EVENT_DECODING_VERSION: u32 = 3;
/// Every version that this build can work with.
pub const DECODING_VERSIONS: &[u32] = &[DECODING_VERSION, TRANSFORM_DECODING_VERSION, EVENT_DECODING_VERSION];

/// Which aggregate key an event belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum AggregateKey {
    /// The partition key it was published with.
    #[default]
    PartitionKey,
    /// A template over the fields of the event.
    Template(KeyTemplate),
}

impl From<AggregateKey> for String {
    fn from(key: AggregateKey) -> Self {
        match key {
            AggregateKey::PartitionKey => AggregateKey::PARTITION_KEY.to_owned(),
            AggregateKey::Template(template) => template.to_string(),
        }
    }
}

impl TryFrom<String> for AggregateKey {
    type Error = crate::key_template::KeyTemplateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == Self::PARTITION_KEY {
            Ok(Self::PartitionKey)
        } else {
            KeyTemplate::parse(&text).map(Self::Template)
        }
    }
}

impl AggregateKey {
    /// The word for [`AggregateKey::PartitionKey`] in configuration and in recorded parameters.
    pub const PARTITION_KEY: &'static str = "partition-key";
}

/// What is done with an event that cannot be read as it is configured: it is not JSON, or `fields` is set and it is not an
/// object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unreadable {
    /// It is stored as it came, whole, and counted.
    #[default]
    Keep,
    /// It becomes a dead letter and is not stored with its batch.
    DeadLetter,
}

impl Unreadable {
    /// The word for it in configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::DeadLetter => "dead-letter",
        }
    }
}

/// How a group of events is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Stored as it is.
    None,
    /// Zstandard at this level (1 to 19).
    Zstd(i32),
}

/// A range of hash keys, both ends included: 0 to 2^128 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashKeyRange {
    /// Lowest hash key.
    pub start: u128,
    /// Highest hash key.
    pub end: u128,
}

impl HashKeyRange {
    /// Every hash key.
    pub const ALL: Self = Self { start: 0, end: u128::MAX };

    /// Whether a hash key lies in it.
    pub fn contains(&self, hash_key: u128) -> bool {
        (self.start..=self.end).contains(&hash_key)
    }
}

/// What decides, with the records, the items of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackingParameters {
    /// Which group an event belongs to.
    pub aggregate_key: AggregateKey,
    /// Most bytes of one item, attribute names counted.
    pub max_item_bytes: u32,
    /// Over how many suffixes one aggregate key is spread; 1 is none.
    pub spread: u32,
    /// How groups are compressed.
    pub codec: Codec,
    /// Days after arrival at which items expire; none keeps them.
    pub ttl_days: Option<u32>,
    /// Version of decoding, grouping and keys.
    pub decoding_version: u32,
    /// User records of aggregated records whose hash key lies outside are not of this shard (an aggregate that was
    /// put while the shard split), and are left out, counted as foreign. `None` leaves nothing out.
    pub hash_range: Option<HashKeyRange>,
    /// Of those outside only the ones are foreign that their producer sends again
    /// ([`HashKey::sent_again`](crate::record::HashKey)); needs [`EVENT_DECODING_VERSION`]. Without it all are, which is
    /// what the versions before it mean.
    pub only_sent_again: bool,
    /// Which events are kept; `None` keeps all.
    pub filter: Option<Filter>,
    /// Which fields of them are kept; `None` keeps events as they were published.
    pub fields: Option<Fields>,
    /// What is stored instead of the events: counts and sums. `None` stores the events.
    pub reduce: Option<Reduce>,
    /// What is done with events that cannot be read.
    pub unreadable: Unreadable,
}

/// Why packing parameters cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParametersError {
    /// `max_item_bytes` outside what DynamoDB stores and the format needs.
    #[error("max_item_bytes is {given}: give {min} to {max}", min = PackingParameters::MIN_ITEM_BYTES, max = PackingParameters::MAX_ITEM_BYTES)]
    ItemBytes {
        /// What was given.
        given: u32,
    },
    /// `spread` outside its range.
    #[error("spread is {given}: give 1 to {max}", max = PackingParameters::MAX_SPREAD)]
    Spread {
        /// What was given.
        given: u32,
    },
    /// A zstd level outside its range.
    #[error("zstd_level is {given}: give 1 to 19, or 0 to compress nothing")]
    Level {
        /// What was given.
        given: i32,
    },
    /// The encoding would crowd the lease row.
    #[error("the packing parameters take {bytes} bytes in the lease row, more than {max}: shorten the key template, the filter or the fields", max = PackingParameters::MAX_ENCODED_BYTES)]
    Encoding {
        /// What they take.
        bytes: usize,
    },
    /// A projection of events that are not stored.
    #[error(
        "fields and reduce are both set: a reduction stores no events whose fields could be kept; leave one of them out"
    )]
    FieldsOfReduced,
    /// The decoding version is not the one that these parameters need.
    #[error("the packing parameters have decoding version {given}, and need {needed}")]
    DecodingVersion {
        /// What they have.
        given: u32,
        /// What they need.
        needed: u32,
    },
}

impl PackingParameters {
    /// Largest item DynamoDB stores, attribute names counted: 400 KB = 409,600 bytes (DynamoDB quotas page).
    pub const MAX_ITEM_BYTES: u32 = 409_600;
    /// Below this an item would be mostly keys.
    pub const MIN_ITEM_BYTES: u32 = 4_096;
    /// Default: 4 KiB below the limit, so that what DynamoDB counts beside names and values never surprises.
    pub const DEFAULT_ITEM_BYTES: u32 = 405_504;
    /// Most suffixes of one key.
    pub const MAX_SPREAD: u32 = 1_000;
    /// Most bytes of encoded parameters (design: a configuration above it is refused).
    pub const MAX_ENCODED_BYTES: usize = 1_024;

    /// Whether events are filtered, cut down or reduced before they are packed.
    pub fn transforms(&self) -> bool {
        self.filter.is_some() || self.fields.is_some() || self.reduce.is_some()
    }

    /// The same, with the decoding version that they need.
    #[must_use]
    pub fn with_needed_decoding_version(self) -> Self {
        let decoding_version = self.needed_decoding_version();
        Self { decoding_version, ..self }
    }

    /// Whether an event is a user record that is not of the shard: it is left out, and counted as foreign.
    pub fn is_foreign(&self, record: &Record) -> bool {
        let (Some(range), Some(hash_key)) = (self.hash_range, record.hash_key()) else { return false };
        !range.contains(hash_key.key) && (hash_key.sent_again || !self.only_sent_again)
    }

    /// The same with no user record judged, as a shard's batches are packed in which none is foreign.
    #[must_use]
    pub fn without_judgement(&self) -> Self {
        let parameters = Self { hash_range: None, only_sent_again: false, ..self.clone() };
        parameters.with_needed_decoding_version()
    }

    /// The same under [`EVENT_DECODING_VERSION`], for a batch in which an aggregated record of no user records is one event.
    #[must_use]
    pub fn with_empty_aggregates(&self) -> Self {
        Self { decoding_version: EVENT_DECODING_VERSION, ..self.clone() }
    }

    /// Whether it matters how events are read: a key template, filter, fields or reduction looks into them, or those that
    /// cannot be read become dead letters.
    pub fn reads_events(&self) -> bool {
        self.transforms()
            || matches!(self.aggregate_key, AggregateKey::Template(_))
            || self.unreadable == Unreadable::DeadLetter
    }

    /// Whether events may be left out of the items for what they say.
    pub(crate) fn leaves_out_events(&self) -> bool {
        self.filter.is_some() || self.unreadable == Unreadable::DeadLetter
    }

    /// The version for new cuts.
    fn needed_decoding_version(&self) -> u32 {
        if self.reads_events() || self.only_sent_again { EVENT_DECODING_VERSION } else { DECODING_VERSION }
    }

    /// Whether these parameters mean something under a decoding version: the newest, or an older one under which a cut may
    /// have been recorded. What is recorded with them may need the newest although they do not.
    fn suits(&self, decoding_version: u32) -> bool {
        let is_old = self.unreadable == Unreadable::Keep && !self.only_sent_again;
        match decoding_version {
            DECODING_VERSION => is_old && !self.transforms(),
            TRANSFORM_DECODING_VERSION => is_old && self.transforms(),
            newer => newer == EVENT_DECODING_VERSION,
        }
    }

    /// Whether events are read by [`sluicegate_event`] alone.
    fn reads_once(&self) -> bool {
        self.decoding_version >= EVENT_DECODING_VERSION
    }

    /// The event of a record, if these parameters look into it and it can be read.
    pub fn event_of<'a>(&self, record: &'a Record) -> Option<Event<'a>> {
        if self.reads_once() {
            self.reads_events().then(|| Event::parse(record.data()).ok()).flatten()
        } else {
            self.transforms().then(|| reading_before_3::event(record.data())).flatten()
        }
    }

    /// What becomes of an event, of which this is [`PackingParameters::event_of`].
    pub fn verdict(&self, event: Option<&Event<'_>>) -> Verdict {
        if !self.transforms() && self.unreadable == Unreadable::Keep {
            return Verdict::Kept;
        }
        let unreadable = match self.unreadable {
            Unreadable::Keep => Verdict::Unreadable,
            Unreadable::DeadLetter => Verdict::DeadLetter,
        };
        let Some(event) = event else { return unreadable };
        if self.filter.as_ref().is_some_and(|filter| !filter.keeps(event)) {
            return Verdict::LeftOut;
        }
        let has_fields = event.root().kind() == Kind::Object;
        if self.fields.is_some() && self.reads_once() && !has_fields { unreadable } else { Verdict::Kept }
    }

    /// The aggregate key of a record, of which this is [`PackingParameters::event_of`]; `None` if it goes to
    /// [`FALLBACK_KEY`](crate::key_template::FALLBACK_KEY). An event that cannot be read has no fields for a template to
    /// find.
    pub fn aggregate_key_of<'a>(
        &self,
        record: &'a Record,
        event: Option<&Event<'_>>,
    ) -> Option<Cow<'a, str>> {
        let template = match &self.aggregate_key {
            AggregateKey::PartitionKey => {
                let usable = KeyTemplate::could_give(record.partition_key());
                return usable.then_some(Cow::Borrowed(record.partition_key()));
            }
            AggregateKey::Template(template) => template,
        };
        let key = if self.reads_once() {
            event.map_or(Key::Fallback, |event| template.render(event))
        } else {
            reading_before_3::key(template, record.data())
        };
        match key {
            Key::Found(key) => Some(Cow::Owned(key)),
            Key::Fallback => None,
        }
    }

    /// Checks ranges that no type can hold.
    ///
    /// # Errors
    /// The first of [`Self::errors`].
    pub fn check(&self) -> Result<(), ParametersError> {
        self.errors().into_iter().next().map_or(Ok(()), Err)
    }

    /// All values outside their ranges, and all that contradict each other.
    pub fn errors(&self) -> Vec<ParametersError> {
        let mut errors = Vec::new();
        if !(Self::MIN_ITEM_BYTES..=Self::MAX_ITEM_BYTES).contains(&self.max_item_bytes) {
            errors.push(ParametersError::ItemBytes { given: self.max_item_bytes });
        }
        if !(1..=Self::MAX_SPREAD).contains(&self.spread) {
            errors.push(ParametersError::Spread { given: self.spread });
        }
        if let Codec::Zstd(level) = self.codec
            && !(1..=19).contains(&level)
        {
            errors.push(ParametersError::Level { given: level });
        }
        if self.fields.is_some() && self.reduce.is_some() {
            errors.push(ParametersError::FieldsOfReduced);
        }
        if !self.suits(self.decoding_version) {
            let (given, needed) = (self.decoding_version, self.needed_decoding_version());
            errors.push(ParametersError::DecodingVersion { given, needed });
        }
        let bytes = crate::state::encoded_parameters_bytes(self);
        if bytes > Self::MAX_ENCODED_BYTES {
            errors.push(ParametersError::Encoding { bytes });
        }
        errors
    }
}

impl Default for PackingParameters {
    fn default() -> Self {
        Self {
            aggregate_key: AggregateKey::PartitionKey,
            max_item_bytes: Self::DEFAULT_ITEM_BYTES,
            spread: 1,
            codec: Codec::Zstd(3),
            ttl_days: None,
            decoding_version: DECODING_VERSION,
            hash_range: None,
            only_sent_again: false,
            filter: None,
            fields: None,
            reduce: None,
            unreadable: Unreadable::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_their_own_check() {
        assert_eq!(PackingParameters::default().check(), Ok(()));
    }

    #[test]
    fn values_outside_their_ranges_are_named() {
        let base = PackingParameters::default();
        let big = PackingParameters { max_item_bytes: 409_601, ..base.clone() };
        assert_eq!(big.check(), Err(ParametersError::ItemBytes { given: 409_601 }));
        let none = PackingParameters { spread: 0, ..base.clone() };
        assert_eq!(none.check(), Err(ParametersError::Spread { given: 0 }));
        let level = PackingParameters { codec: Codec::Zstd(20), ..base };
        assert_eq!(level.check(), Err(ParametersError::Level { given: 20 }));
        let all = PackingParameters { spread: 0, codec: Codec::Zstd(20), ..PackingParameters::default() };
        assert_eq!(
            all.errors(),
            [ParametersError::Spread { given: 0 }, ParametersError::Level { given: 20 }]
        );
    }

    #[test]
    fn a_transform_needs_its_decoding_version_and_a_reduction_has_no_fields() {
        let fields =
            PackingParameters { fields: Some(Fields::parse("/a").unwrap()), ..PackingParameters::default() };
        assert_eq!(fields.check(), Err(ParametersError::DecodingVersion { given: 1, needed: 3 }));
        let recorded = PackingParameters { decoding_version: 2, ..fields.clone() };
        assert_eq!(recorded.check(), Ok(()), "an older build has recorded it");
        let fields = fields.with_needed_decoding_version();
        assert_eq!((fields.check(), fields.decoding_version), (Ok(()), 3));
        let both = PackingParameters { reduce: Some(Reduce::parse("per 1h").unwrap()), ..fields };
        assert_eq!(both.check(), Err(ParametersError::FieldsOfReduced));
        let plain = PackingParameters { decoding_version: 2, ..PackingParameters::default() };
        assert_eq!(plain.check(), Err(ParametersError::DecodingVersion { given: 2, needed: 1 }));
    }

    #[test]
    fn a_template_needs_the_version_by_which_it_is_read_and_older_cuts_keep_theirs() {
        let template = KeyTemplate::parse("{/a}").unwrap();
        let recorded = PackingParameters {
            aggregate_key: AggregateKey::Template(template),
            ..PackingParameters::default()
        };
        assert_eq!((recorded.check(), recorded.decoding_version), (Ok(()), 1));
        let new = recorded.clone().with_needed_decoding_version();
        assert_eq!((new.check(), new.decoding_version), (Ok(()), 3));
        let record = Record::new(
            crate::SequenceNumber::parse("1").unwrap(),
            crate::ArrivalMillis(0),
            "p",
            r#"{"a":92838584930183242889}"#,
        )
        .at_sub(crate::SubSequenceNumber(0).0);
        let key = |parameters: &PackingParameters| {
            let event = parameters.event_of(&record);
            parameters.aggregate_key_of(&record, event.as_ref()).map(Cow::into_owned)
        };
        assert_eq!(key(&recorded).as_deref(), Some("9.283858493018325e+19"));
        assert_eq!(key(&new).as_deref(), Some("92838584930183242889"));
        assert_eq!(PackingParameters::default().with_needed_decoding_version().decoding_version, 1);
    }

    #[test]
    fn a_template_that_would_crowd_the_row_is_refused() {
        let template = KeyTemplate::parse(&format!("{{/a}}{}", "x".repeat(1_100))).unwrap();
        let parameters = PackingParameters {
            aggregate_key: AggregateKey::Template(template),
            ..PackingParameters::default()
        };
        assert!(matches!(parameters.check(), Err(ParametersError::Encoding { .. })));
    }
}
