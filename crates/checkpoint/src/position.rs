//! Where reading of a shard stands, and the order of such places.
//!
//! The order is KCL's (`AT_TIMESTAMP < TRIM_HORIZON < LATEST < every sequence number < SHARD_END`), so that a
//! checkpoint column written by either is compared alike. A position is what has been *finished*: `(..position]`.

use std::cmp::Ordering;
use std::fmt;

use crate::record_id::{InvalidSequenceNumber, SequenceNumber, SubSequenceNumber};

/// The last finished record of a shard, or one of KCL's four sentinels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Position {
    /// Nothing read yet; begin at the time that the row records.
    AtTimestamp,
    /// Nothing read yet; begin at the oldest record.
    TrimHorizon,
    /// Nothing read yet; begin at the tip. Read from KCL tables only: nobody ever opens a LATEST iterator,
    /// because two owners would resolve it differently and skip what arrived in between.
    Latest,
    /// This record, up to and including this user record of it, is finished.
    At(SequenceNumber, SubSequenceNumber),
    /// Every record of the closed shard is finished.
    ShardEnd,
}

impl Position {
    /// The text of the `checkpoint` column.
    pub fn as_column(&self) -> &str {
        match self {
            Self::AtTimestamp => "AT_TIMESTAMP",
            Self::TrimHorizon => "TRIM_HORIZON",
            Self::Latest => "LATEST",
            Self::At(sequence_number, _) => sequence_number.as_str(),
            Self::ShardEnd => "SHARD_END",
        }
    }

    /// The number in the `checkpointSubSequenceNumber` column.
    pub fn sub_sequence_number(&self) -> SubSequenceNumber {
        match self {
            Self::At(_, sub) => *sub,
            Self::AtTimestamp | Self::TrimHorizon | Self::Latest | Self::ShardEnd => SubSequenceNumber(0),
        }
    }

    /// Reads the two columns back.
    ///
    /// # Errors
    /// A text that is neither a sentinel nor a decimal number.
    pub fn from_columns(checkpoint: &str, sub: SubSequenceNumber) -> Result<Self, InvalidSequenceNumber> {
        Ok(match checkpoint {
            "AT_TIMESTAMP" => Self::AtTimestamp,
            "TRIM_HORIZON" => Self::TrimHorizon,
            "LATEST" => Self::Latest,
            "SHARD_END" => Self::ShardEnd,
            digits => Self::At(SequenceNumber::parse(digits)?, sub),
        })
    }

    /// Whether nothing of the shard has been finished yet.
    pub fn is_start(&self) -> bool {
        matches!(self, Self::AtTimestamp | Self::TrimHorizon | Self::Latest)
    }

    fn rank(&self) -> u8 {
        match self {
            Self::AtTimestamp => 0,
            Self::TrimHorizon => 1,
            Self::Latest => 2,
            Self::At(..) => 3,
            Self::ShardEnd => 4,
        }
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::At(a, sub_a), Self::At(b, sub_b)) => a.cmp(b).then(sub_a.cmp(sub_b)),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(sequence_number, SubSequenceNumber(0)) => sequence_number.fmt(f),
            Self::At(sequence_number, sub) => write!(f, "{sequence_number}.{sub}"),
            Self::AtTimestamp | Self::TrimHorizon | Self::Latest | Self::ShardEnd => {
                f.write_str(self.as_column())
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_position() -> impl Strategy<Value = Position> {
        prop_oneof![
            Just(Position::AtTimestamp),
            Just(Position::TrimHorizon),
            Just(Position::Latest),
            Just(Position::ShardEnd),
            (any::<u128>(), 0u64..9).prop_map(|(n, sub)| {
                Position::At(SequenceNumber::parse(n.to_string()).unwrap(), SubSequenceNumber(sub))
            }),
        ]
    }

    #[test]
    fn sentinels_stand_where_kcl_puts_them() {
        let at = |n: &str| Position::At(SequenceNumber::parse(n).unwrap(), SubSequenceNumber(0));
        let ascending = [
            Position::AtTimestamp,
            Position::TrimHorizon,
            Position::Latest,
            at("0"),
            at("9"),
            at("10"),
            Position::ShardEnd,
        ];
        for pair in ascending.windows(2) {
            assert!(pair[0] < pair[1], "{} < {}", pair[0], pair[1]);
        }
    }

    proptest! {
        #[test]
        fn columns_read_back(position in any_position()) {
            let back = Position::from_columns(position.as_column(), position.sub_sequence_number()).unwrap();
            prop_assert_eq!(back, position);
        }

        #[test]
        fn order_is_total_and_agrees_with_equality(a in any_position(), b in any_position(), c in any_position()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
            if a <= b && b <= c { prop_assert!(a <= c); }
        }
    }
}
