//! Names of shards and records: sequence numbers are ordered as numbers, never as text.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The id of a shard, such as `shardId-000000000003`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// Names a shard.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The sequence number of a Kinesis record: a decimal number of up to 129 digits.
///
/// Source of the bound: the pattern `0|([1-9]\d{0,128})` of `SequenceNumber` in the Kinesis API reference.
/// Kept as its digits without leading zeros, so that order is length first, digits second.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Box<str>);

/// Why a text is no sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is no sequence number: 1 to 129 decimal digits are wanted")]
pub struct InvalidSequenceNumber {
    /// What was given, cut to 40 characters.
    pub text: String,
}

/// Most digits of a sequence number (Kinesis API reference, `SequenceNumber`).
const MAX_DIGITS: usize = 129;

impl SequenceNumber {
    /// Reads a decimal number; leading zeros are dropped.
    ///
    /// # Errors
    /// Anything but 1 to 129 decimal digits.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidSequenceNumber> {
        let text: String = text.into();
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || text.len() > MAX_DIGITS {
            return Err(InvalidSequenceNumber { text: text.chars().take(40).collect() });
        }
        if !text.starts_with('0') {
            return Ok(Self(text.into_boxed_str()));
        }
        let trimmed = text.trim_start_matches('0');
        Ok(Self(if trimmed.is_empty() { "0".into() } else { trimmed.into() }))
    }

    /// The digits, without leading zeros.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The index of a user record inside an aggregated Kinesis record; 0 in a plain record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SubSequenceNumber(pub u64);

impl fmt::Display for SubSequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_is_that_of_numbers_not_of_text() {
        let nine = SequenceNumber::parse("9").unwrap();
        let ten = SequenceNumber::parse("10").unwrap();
        assert!(nine < ten);
        assert!("9" > "10");
    }

    #[test]
    fn leading_zeros_do_not_matter() {
        assert_eq!(SequenceNumber::parse("0042").unwrap(), SequenceNumber::parse("42").unwrap());
        assert_eq!(SequenceNumber::parse("000").unwrap().as_str(), "0");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in ["", "-1", "4 2", "0x1", "TRIM_HORIZON", &"1".repeat(130)] {
            assert!(SequenceNumber::parse(bad).is_err(), "{bad}");
        }
        assert!(SequenceNumber::parse("1".repeat(129)).is_ok());
    }

    proptest! {
        #[test]
        fn order_agrees_with_integers(a in any::<u128>(), b in any::<u128>()) {
            let (x, y) = (SequenceNumber::parse(a.to_string()).unwrap(), SequenceNumber::parse(b.to_string()).unwrap());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.to_string(), a.to_string());
        }
    }
}
