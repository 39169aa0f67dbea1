//! Which splits and merges bring the open shards to a uniform set. Pure.
//!
//! Every step is a split of one open shard or a merge of two neighbours, so each new shard has its true parents and the lineage
//! never breaks. As at AWS, scaling may pass through short-lived shards in between.
//!
//! Law: after any steps the open ranges still tile `0 ..= 2^128 - 1`.

use super::hash::HashKeyRange;
use super::sequence::ShardNumber;

/// One open shard, as far as resharding is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenShard {
    pub(crate) number: ShardNumber,
    pub(crate) range: HashKeyRange,
}

/// One change to the open shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Two children; the upper one begins at `at`.
    Split { parent: ShardNumber, at: u128 },
    /// One child of two neighbours.
    Merge { parent: ShardNumber, adjacent: ShardNumber },
}

/// The open shards in the order of their ranges, and the number that the next new one gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenShards {
    shards: Vec<OpenShard>,
    next: ShardNumber,
}

impl OpenShards {
    pub(crate) fn new(mut shards: Vec<OpenShard>, next: ShardNumber) -> Self {
        shards.sort_by_key(|shard| shard.range.first);
        Self { shards, next }
    }

    /// The steps that lead to `target` uniform shards: first every missing boundary is cut, then what lies between two
    /// boundaries is merged, neighbour by neighbour.
    pub(crate) fn plan_uniform(mut self, target: u32) -> Vec<Step> {
        let ranges = HashKeyRange::uniform(target);
        let mut steps = Vec::new();
        for range in &ranges {
            if let Some(parent) = self.shard_to_cut(range.first) {
                self.take(Step::Split { parent, at: range.first }, &mut steps);
            }
        }
        for range in &ranges {
            while let Some((parent, adjacent)) = self.neighbours_within(*range) {
                self.take(Step::Merge { parent, adjacent }, &mut steps);
            }
        }
        steps
    }

    /// Applies one step. `false`, and nothing changed, when it does not fit.
    pub(crate) fn apply(&mut self, step: Step) -> bool {
        match step {
            Step::Split { parent, at } => self.split(parent, at),
            Step::Merge { parent, adjacent } => self.merge(parent, adjacent),
        }
        .is_some()
    }

    fn take(&mut self, step: Step, steps: &mut Vec<Step>) {
        if self.apply(step) {
            steps.push(step);
        }
    }

    fn split(&mut self, parent: ShardNumber, at: u128) -> Option<()> {
        let index = self.position(parent)?;
        let [low, high] = self.shards[index].range.split_at(at)?;
        let low = self.new_shard(low);
        let high = self.new_shard(high);
        self.shards.splice(index..=index, [low, high]);
        Some(())
    }

    fn merge(&mut self, parent: ShardNumber, adjacent: ShardNumber) -> Option<()> {
        let (one, other) = (self.position(parent)?, self.position(adjacent)?);
        let range = self.shards[one].range.join(self.shards[other].range)?;
        let child = self.new_shard(range);
        self.shards.splice(one.min(other)..=one.max(other), [child]);
        Some(())
    }

    fn new_shard(&mut self, range: HashKeyRange) -> OpenShard {
        let number = self.next;
        self.next = number.next();
        OpenShard { number, range }
    }

    fn position(&self, number: ShardNumber) -> Option<usize> {
        self.shards.iter().position(|shard| shard.number == number)
    }

    /// The shard with `boundary` in its inside; none when a shard begins there already.
    fn shard_to_cut(&self, boundary: u128) -> Option<ShardNumber> {
        self.shards
            .iter()
            .find(|shard| shard.range.contains(boundary) && shard.range.first != boundary)
            .map(|shard| shard.number)
    }

    fn neighbours_within(&self, range: HashKeyRange) -> Option<(ShardNumber, ShardNumber)> {
        let first = self.shards.iter().position(|shard| shard.range.first == range.first)?;
        let (low, high) = (self.shards[first], *self.shards.get(first + 1)?);
        (high.range.last <= range.last).then_some((low.number, high.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uniform(count: u32) -> OpenShards {
        let ranges = HashKeyRange::uniform(count);
        let numbered =
            ranges.iter().zip(0..).map(|(range, n)| OpenShard { number: ShardNumber(n), range: *range });
        OpenShards::new(numbered.collect(), ShardNumber(u64::from(count)))
    }

    fn ranges(shards: &OpenShards) -> Vec<HashKeyRange> {
        shards.shards.iter().map(|shard| shard.range).collect()
    }

    fn tiles(shards: &OpenShards) -> bool {
        let ranges = ranges(shards);
        ranges.first().is_some_and(|range| range.first == 0)
            && ranges.last().is_some_and(|range| range.last == u128::MAX)
            && ranges.windows(2).all(|pair| pair[0].last.checked_add(1) == Some(pair[1].first))
    }

    fn after(mut shards: OpenShards, steps: &[Step]) -> OpenShards {
        for step in steps {
            assert!(shards.apply(*step), "{step:?}");
        }
        shards
    }

    #[test]
    fn doubling_only_splits_and_halving_only_merges() {
        let up = uniform(2).plan_uniform(4);
        assert_eq!(up.len(), 2);
        assert!(up.iter().all(|step| matches!(step, Step::Split { .. })));
        let down = uniform(4).plan_uniform(2);
        assert_eq!(
            down,
            [
                Step::Merge { parent: ShardNumber(0), adjacent: ShardNumber(1) },
                Step::Merge { parent: ShardNumber(2), adjacent: ShardNumber(3) },
            ]
        );
        assert_eq!(uniform(3).plan_uniform(3), []);
    }

    #[test]
    fn a_step_that_does_not_fit_changes_nothing() {
        let mut shards = uniform(3);
        assert!(!shards.apply(Step::Merge { parent: ShardNumber(0), adjacent: ShardNumber(2) }));
        assert!(!shards.apply(Step::Split { parent: ShardNumber(0), at: 0 }));
        assert!(!shards.apply(Step::Split { parent: ShardNumber(9), at: 5 }));
        assert_eq!(shards, uniform(3));
    }

    /// What to try: split the `which`-th shard at a fraction, merge it with its neighbour, or go uniform.
    #[derive(Debug, Clone)]
    enum Try {
        Split(usize, u64),
        Merge(usize),
        Uniform(u32),
    }

    fn any_try() -> impl Strategy<Value = Try> {
        prop_oneof![
            (any::<usize>(), any::<u64>()).prop_map(|(which, at)| Try::Split(which, at)),
            any::<usize>().prop_map(Try::Merge),
            (1..40_u32).prop_map(Try::Uniform),
        ]
    }

    fn attempt(shards: &mut OpenShards, attempted: &Try) {
        let at = |which: usize, shards: &OpenShards| shards.shards[which % shards.shards.len()];
        match attempted {
            Try::Split(which, key) => {
                let shard = at(*which, shards);
                let width = shard.range.last - shard.range.first;
                let offset = u128::from(*key).checked_rem(width).unwrap_or_default();
                shards.apply(Step::Split { parent: shard.number, at: shard.range.first + offset });
            }
            Try::Merge(which) => {
                let (low, high) = (at(*which, shards), at(which.wrapping_add(1), shards));
                shards.apply(Step::Merge { parent: low.number, adjacent: high.number });
            }
            Try::Uniform(target) => {
                let steps = shards.clone().plan_uniform(*target);
                *shards = after(shards.clone(), &steps);
            }
        }
    }

    proptest! {
        #[test]
        fn twice_as_many_takes_one_split_each_and_back_one_merge_each(count in 1..200_u32) {
            let up = uniform(count).plan_uniform(2 * count);
            prop_assert_eq!(up.len(), count as usize);
            let down = after(uniform(count), &up).plan_uniform(count);
            prop_assert_eq!(down.len(), count as usize);
        }

        #[test]
        fn open_ranges_tile_the_whole_after_any_resharding(
            start in 1..20_u32,
            tries in prop::collection::vec(any_try(), 0..30),
            target in 1..60_u32,
        ) {
            let mut shards = uniform(start);
            for attempted in &tries {
                attempt(&mut shards, attempted);
                prop_assert!(tiles(&shards), "{attempted:?} -> {shards:?}");
            }
            let steps = shards.clone().plan_uniform(target);
            prop_assert_eq!(ranges(&after(shards, &steps)), HashKeyRange::uniform(target));
        }
    }
}
