//! The two keys of an item: unambiguous, and in the order of time. **Pure.**
//!
//! `pk` is the aggregate key with every `~` doubled, and behind it `~n` for spread suffix n; suffix 0 adds
//! nothing, so a key may be spread later without moving what is stored. A single `~` therefore only ever
//! begins a suffix or a reserved row. `sk` is `arrival#shard#epoch#first#revision#part` with every number of
//! fixed width; the sequence number, which has 1 to 129 digits, carries its length in front, so that text
//! order is number order without padding every key to 129 digits. There are two classes of sort keys: those of a
//! cut's groups, and those of single events that were redriven, which name the event's index behind the sequence
//! number (`first.index`), so that neither can ever be the other's.

use std::fmt;

use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber, ShardId, SubSequenceNumber};

use super::EventId;

/// Partition key of rows that hold no events. No aggregate key looks like it: a `~` of its own is doubled.
pub const RESERVED_PARTITION: &str = "~sluicegate";
/// Sort key of the row that holds the spread count.
pub const SPREAD_ROW: &str = "spread";

/// Both keys, as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    /// Partition key.
    pub pk: String,
    /// Sort key.
    pub sk: String,
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pk `{}`, sk `{}`", self.pk, self.sk)
    }
}

/// An aggregate key, or one of the suffixes over which it is spread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The aggregate key.
    pub aggregate_key: String,
    /// Which suffix; 0 is none.
    pub suffix: u32,
}

impl PartitionKey {
    /// Reads a `pk` back; `None` for reserved rows and for what does not follow the format.
    pub fn parse(pk: &str) -> Option<Self> {
        let body = pk.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = pk.get(body.len()..)?;
        let tildes = body.len() - body.trim_end_matches('~').len();
        if digits.is_empty() || tildes % 2 == 0 {
            return Some(Self { aggregate_key: unescape(pk)?, suffix: 0 });
        }
        let suffix = digits.parse().ok().filter(|suffix| *suffix > 0 && !digits.starts_with('0'))?;
        Some(Self { aggregate_key: unescape(body.get(..body.len() - 1)?)?, suffix })
    }
}

/// Halves every run of `~`; `None` when one is odd.
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '~' && chars.next() != Some('~') {
            return None;
        }
        plain.push(c);
    }
    (!plain.is_empty()).then_some(plain)
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, piece) in self.aggregate_key.split('~').enumerate() {
            if index > 0 {
                f.write_str("~~")?;
            }
            f.write_str(piece)?;
        }
        if self.suffix > 0 { write!(f, "~{}", self.suffix) } else { Ok(()) }
    }
}

/// Where a group stands in time, and which part of it an item is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SortKey {
    /// Arrival of the cut's first record, between [`SortKey::EARLIEST`] and [`SortKey::LATEST`].
    pub arrival: ArrivalMillis,
    /// The shard the cut was made of.
    pub shard: ShardId,
    /// Epoch of the cut.
    pub epoch: u32,
    /// Sequence number of the cut's first record; of the event itself in the class of redriven events.
    pub first: SequenceNumber,
    /// The event's index in its record, in the class of redriven events; none in that of cuts.
    pub event: Option<SubSequenceNumber>,
    /// Revision of the cut.
    pub revision: u32,
    /// Which part, from 1.
    pub part: u32,
}

impl SortKey {
    /// Lowest arrival a key can hold.
    pub const EARLIEST: ArrivalMillis = ArrivalMillis(0);
    /// Highest arrival a key can hold: 13 digits, the year 2286.
    pub const LATEST: ArrivalMillis = ArrivalMillis(9_999_999_999_999);
    /// Bytes that a key of the class of redriven events has more: a point and 16 hexadecimal digits.
    pub const EVENT_BYTES: u32 = 17;

    /// An arrival as keys hold it. Monotone, so that a time outside what a key holds still finds its items.
    pub fn clamp(arrival: ArrivalMillis) -> ArrivalMillis {
        arrival.clamp(Self::EARLIEST, Self::LATEST)
    }

    /// Whether a shard id may stand in a key: 1 to 128 of `a-zA-Z0-9_.-` (Kinesis API reference, `ShardId`).
    pub fn takes_shard(shard: &ShardId) -> bool {
        let text = shard.as_str();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        (1..=128).contains(&text.len()) && text.bytes().all(allowed)
    }

    /// A text at or below every key of this arrival.
    pub fn lowest_at(arrival: ArrivalMillis) -> String {
        format!("{:013}", Self::clamp(arrival).0)
    }

    /// A text above every key of this arrival and below every key of the next: `$` is what follows `#`.
    pub fn highest_at(arrival: ArrivalMillis) -> String {
        format!("{:013}$", Self::clamp(arrival).0)
    }

    /// Whether both name the same group, whatever the revision and part.
    pub fn same_group(&self, other: &Self) -> bool {
        (self.arrival, self.epoch, self.event) == (other.arrival, other.epoch, other.event)
            && self.first == other.first
            && self.shard == other.shard
    }

    /// Reads an `sk` back; `None` for what does not follow the format to the letter.
    pub fn parse(sk: &str) -> Option<Self> {
        let mut fields = sk.split('#');
        let arrival = fixed(fields.next()?, 13, 10)?;
        let shard = ShardId::new(fields.next()?);
        let epoch = fixed(fields.next()?, 8, 16)?;
        let (length, digits) = fields.next()?.split_at_checked(3)?;
        let (digits, event) = match digits.split_once('.') {
            None => (digits, None),
            Some((digits, event)) => (digits, Some(SubSequenceNumber(fixed(event, 16, 16)?))),
        };
        let first = SequenceNumber::parse(digits).ok()?;
        let exact = first.as_str() == digits && fixed(length, 3, 10)? == u64::try_from(digits.len()).ok()?;
        let revision = fixed(fields.next()?, 8, 16)?;
        let part = fixed(fields.next()?, 6, 16)?;
        if fields.next().is_some() || !exact || !Self::takes_shard(&shard) {
            return None;
        }
        Some(Self {
            arrival: ArrivalMillis(i64::try_from(arrival).ok()?),
            shard,
            epoch: u32::try_from(epoch).ok()?,
            first,
            event,
            revision: u32::try_from(revision).ok()?,
            part: u32::try_from(part).ok()?,
        })
    }
}

/// A number of exactly so many digits, hexadecimal ones in lower case.
fn fixed(text: &str, width: usize, radix: u32) -> Option<u64> {
    let digit = |b: u8| b.is_ascii_digit() || (radix == 16 && (b'a'..=b'f').contains(&b));
    (text.len() == width && text.bytes().all(digit)).then(|| u64::from_str_radix(text, radix).ok())?
}

impl fmt::Display for SortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arrival, shard, epoch, first, event, revision, part } = self;
        let length = first.as_str().len();
        write!(f, "{:013}#{shard}#{epoch:08x}#{length:03}{first}", Self::clamp(*arrival).0)?;
        if let Some(SubSequenceNumber(index)) = event {
            write!(f, ".{index:016x}")?;
        }
        write!(f, "#{revision:08x}#{part:06x}")
    }
}

/// Bytes that two texts have in common at their beginning.
pub(crate) fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()
}

/// An event's place relative to its cut's first sequence number: `shared:digits` and, unless it is 0, `.sub`.
/// Sequence numbers of a cut share most of their 56 digits, which the sort key holds already.
pub(super) fn mark(base: &SequenceNumber, id: &EventId) -> String {
    let text = id.sequence_number.as_str();
    let shared = common_prefix(base.as_str(), text);
    let rest = text.get(shared..).unwrap_or_default();
    match id.sub_sequence_number.0 {
        0 => format!("{shared}:{rest}"),
        sub => format!("{shared}:{rest}.{sub}"),
    }
}

/// Reads a mark back.
pub(super) fn parse_mark(base: &SequenceNumber, text: &str) -> Option<EventId> {
    let (shared, rest) = text.split_once(':')?;
    let (digits, sub) = rest.split_once('.').unwrap_or((rest, "0"));
    let prefix = base.as_str().get(..shared.parse().ok()?)?;
    Some(EventId {
        sequence_number: SequenceNumber::parse(format!("{prefix}{digits}")).ok()?,
        sub_sequence_number: SubSequenceNumber(sub.parse().ok()?),
    })
}
