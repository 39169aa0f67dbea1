//! Hash keys, their ranges, and which shard a partition key belongs to. Pure.
//!
//! Law: the open shards' ranges tile `0 ..= 2^128 - 1`, whatever was split and merged (tested in [`super::reshard`]).

use std::fmt;

use md5::{Digest, Md5};

/// An inclusive range of hash keys, as AWS writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HashKeyRange {
    pub(crate) first: u128,
    pub(crate) last: u128,
}

impl HashKeyRange {
    /// Every hash key.
    pub(crate) const ALL: Self = Self { first: 0, last: u128::MAX };

    /// `count` ranges of equal size, the last one larger by what does not divide; none for 0.
    pub(crate) fn uniform(count: u32) -> Vec<Self> {
        (0..count)
            .map(|index| Self {
                first: uniform_start(index, count),
                last: if index + 1 == count { Self::ALL.last } else { uniform_start(index + 1, count) - 1 },
            })
            .collect()
    }

    pub(crate) fn contains(self, key: u128) -> bool {
        (self.first..=self.last).contains(&key)
    }

    /// Cuts so that `at` begins the upper part; `None` when a part would be empty.
    pub(crate) fn split_at(self, at: u128) -> Option<[Self; 2]> {
        let both_parts_hold_a_key = self.first < at && at <= self.last;
        both_parts_hold_a_key
            .then(|| [Self { first: self.first, last: at - 1 }, Self { first: at, last: self.last }])
    }

    /// The union with a range that touches this one on either side; `None` when it does not touch.
    pub(crate) fn join(self, other: Self) -> Option<Self> {
        let (low, high) = if self.first <= other.first { (self, other) } else { (other, self) };
        (low.last.checked_add(1) == Some(high.first)).then_some(Self { first: low.first, last: high.last })
    }
}

impl fmt::Display for HashKeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}

/// First key of range `index` of `count` equal ones: `floor(index * 2^128 / count)`. Rounding at each boundary by itself, rather
/// than multiplying a rounded width, lets the boundaries of 3 shards be boundaries of 6, so that doubling only splits.
fn uniform_start(index: u32, count: u32) -> u128 {
    let (index, count) = (u128::from(index), u128::from(count));
    // 2^128 itself has no u128. With 2^128 = q * count + r: index * 2^128 / count = index * q + index * r / count.
    let (q, r) = match (u128::MAX / count, u128::MAX % count + 1) {
        (q, r) if r == count => (q.wrapping_add(1), 0), // wraps for one range only, whose index is 0
        (q, r) => (q, r),
    };
    index * q + index * r / count
}

/// The hash key of a partition key: its MD5 as a 128-bit integer (AWS Kinesis API reference, PutRecord).
pub(crate) fn hash_of_partition_key(key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(key.as_bytes()).into())
}

/// Reads a hash key as AWS writes it: decimal, no sign, no leading zeros (pattern `0|([1-9]\d{0,38})`), below 2^128.
pub(crate) fn parse_hash_key(text: &str) -> Option<u128> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_key_is_hashed_by_md5() {
        // RFC 1321, A.5: MD5 ("abc") = 900150983cd24fb0d6963f7d28e17f72
        assert_eq!(hash_of_partition_key("abc"), 0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72);
    }

    #[test]
    fn uniform_ranges_are_those_of_the_service() {
        assert_eq!(HashKeyRange::uniform(0), []);
        assert_eq!(HashKeyRange::uniform(1), [HashKeyRange::ALL]);
        let four = HashKeyRange::uniform(4);
        assert_eq!(four[1].first, 85_070_591_730_234_615_865_843_651_857_942_052_864);
        let three = HashKeyRange::uniform(3);
        assert_eq!(three[1].first, 113_427_455_640_312_821_154_458_202_477_256_070_485);
        assert_eq!(three[2].first, 226_854_911_280_625_642_308_916_404_954_512_140_970);
        assert_eq!(three[2].last, u128::MAX);
        let six = HashKeyRange::uniform(6);
        assert_eq!((six[2].first, six[4].first), (three[1].first, three[2].first));
    }

    #[test]
    fn ranges_split_and_join_without_loss() {
        let [low, high] = HashKeyRange::ALL.split_at(10).unwrap();
        assert!(low.contains(9) && !low.contains(10) && high.contains(10));
        assert_eq!(low.join(high), Some(HashKeyRange::ALL));
        assert_eq!(high.join(low), Some(HashKeyRange::ALL));
        assert_eq!(HashKeyRange::ALL.split_at(0), None);
        let [_, far] = high.split_at(20).unwrap();
        assert_eq!(low.join(far), None);
    }

    #[test]
    fn hash_keys_are_plain_decimal() {
        assert_eq!(parse_hash_key("0"), Some(0));
        assert_eq!(parse_hash_key("340282366920938463463374607431768211455"), Some(u128::MAX));
        for text in ["", "-1", "+1", "007", "1e3", "340282366920938463463374607431768211456"] {
            assert_eq!(parse_hash_key(text), None, "{text}");
        }
    }
}
