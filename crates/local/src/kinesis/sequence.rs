//! Shard numbers and sequence numbers. Pure.
//!
//! A sequence number is a decimal text of 56 digits that begins with 495, as the service's are, and is ordered as a number:
//!
//! ```text
//! 495 | epoch, 13 digits        | shard, 12 digits | index, 28 digits
//!     | ms, above every parent's |                  | 1, 2, 3 ... within the shard
//! ```
//!
//! So numbers rise strictly within a shard, and a child's first lies above its parents' last. The layout is ours: clients must
//! not read anything into a sequence number but its order.

use std::fmt;

/// The number in `shardId-000000000007`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ShardNumber(pub(crate) u64);

impl ShardNumber {
    const PREFIX: &'static str = "shardId-";

    /// Reads a shard id; `None` when it is not one of ours.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let digits = id.strip_prefix(Self::PREFIX)?;
        let plain = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse().ok().map(Self) } else { None }
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for ShardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:012}", Self::PREFIX, self.0)
    }
}

/// The place of a record in its shard; ordered as the number that it prints as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SequenceNumber {
    pub(crate) epoch_ms: u64,
    pub(crate) shard: ShardNumber,
    pub(crate) index: u64,
}

const LEADING: &str = "495";
const DIGITS: usize = 56;
const EPOCH_END: usize = 16;
const SHARD_END: usize = 28;

impl SequenceNumber {
    /// Reads a number that was given out here; `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let ours = text.len() == DIGITS
            && text.starts_with(LEADING)
            && text.bytes().all(|byte| byte.is_ascii_digit());
        if !ours {
            return None;
        }
        Some(Self {
            epoch_ms: text[LEADING.len()..EPOCH_END].parse().ok()?,
            shard: ShardNumber(text[EPOCH_END..SHARD_END].parse().ok()?),
            index: text[SHARD_END..].parse().ok()?,
        })
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LEADING}{:013}{:012}{:028}", self.epoch_ms, self.shard.0, self.index)
    }
}

/// Whether `text` has the form that the service demands of any sequence number: `0|([1-9]\d{0,128})`.
pub(crate) fn looks_like_sequence_number(text: &str) -> bool {
    let digits = (1..=129).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_sequence_number() -> impl Strategy<Value = SequenceNumber> {
        (0..=9_999_999_999_999_u64, 0..=999_999_999_999_u64, any::<u64>()).prop_map(
            |(epoch_ms, shard, index)| SequenceNumber { epoch_ms, shard: ShardNumber(shard), index },
        )
    }

    proptest! {
        #[test]
        fn reading_undoes_printing(number in any_sequence_number()) {
            prop_assert_eq!(SequenceNumber::parse(&number.to_string()), Some(number));
        }

        #[test]
        fn the_order_is_that_of_the_printed_numbers(a in any_sequence_number(), b in any_sequence_number()) {
            // equal length and no leading zero: texts compare as numbers do
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }

    #[test]
    fn sequence_numbers_look_like_the_service_s() {
        let text =
            SequenceNumber { epoch_ms: 1_700_000_000_000, shard: ShardNumber(3), index: 9 }.to_string();
        assert_eq!(text, "49517000000000000000000000030000000000000000000000000009");
        assert!(looks_like_sequence_number(&text));
        for text in ["", "-1", "01", "LATEST"] {
            assert!(!looks_like_sequence_number(text), "{text}");
        }
        assert!(looks_like_sequence_number("0"));
        assert_eq!(SequenceNumber::parse("0"), None);
    }

    #[test]
    fn shard_ids_are_read_as_they_are_written() {
        assert_eq!(ShardNumber(7).to_string(), "shardId-000000000007");
        assert_eq!(ShardNumber::parse("shardId-000000000007"), Some(ShardNumber(7)));
        for id in ["shardId-7", "shard-000000000007", "shardId-00000000000x", ""] {
            assert_eq!(ShardNumber::parse(id), None, "{id}");
        }
    }
}
