//! How large the groups of a batch are once they are stored: what a worker goes by to fill items. **Pure.**

/// The sizes of a batch's groups, without their keys.
///
/// The largest are told one by one, since they decide how many items a larger or smaller batch would take; the others,
/// of which there may be as many as events, in sum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupSizes {
    items: u64,
    largest: Vec<u64>,
    others: u64,
    others_bytes: u64,
}

impl GroupSizes {
    /// Most groups that are told one by one.
    pub const MOST: usize = 64;

    /// Takes the bytes of every group's items, in any order, and the number of those items.
    pub fn new(mut group_bytes: Vec<u64>, items: u64) -> Self {
        group_bytes.sort_unstable_by(|a, b| b.cmp(a));
        let (mut others, mut others_bytes) = (0, 0);
        for bytes in group_bytes.drain(Self::MOST.min(group_bytes.len())..) {
            others += 1;
            others_bytes += bytes;
        }
        group_bytes.shrink_to_fit();
        Self { items, largest: group_bytes, others, others_bytes }
    }

    /// How many items the groups take.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Bytes of all items.
    pub fn stored_bytes(&self) -> u64 {
        self.largest.iter().sum::<u64>() + self.others_bytes
    }

    /// Sizes with the number of groups that have them, the largest first; the last one may be an average.
    pub fn sizes(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let others = self.others_bytes.checked_div(self.others).map(|average| (average, self.others));
        self.largest.iter().map(|bytes| (*bytes, 1)).chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_told_one_by_one_and_the_others_in_sum() {
        let few = GroupSizes::new(vec![5, 9, 7], 4);
        assert_eq!(few.sizes().collect::<Vec<_>>(), [(9, 1), (7, 1), (5, 1)]);
        assert_eq!((few.items(), few.stored_bytes()), (4, 21));
        let many = GroupSizes::new((1..=100).collect(), 100);
        let sizes: Vec<_> = many.sizes().collect();
        assert_eq!((sizes.len(), sizes[0], sizes[63]), (65, (100, 1), (37, 1)));
        assert_eq!(sizes[64], (18, 36), "36 groups of 1 to 36 bytes");
        assert_eq!(many.stored_bytes(), 5_050);
        assert_eq!(GroupSizes::default().sizes().next(), None);
    }
}
