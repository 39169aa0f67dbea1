//! Shards that the stream has forgotten: which lease rows may be deleted (pure).
//!
//! Kinesis drops a closed shard from its listings when retention has passed it. A shard counts as *gone* when its
//! row was read before a complete listing of the same stream began and both that listing and the next one lack it.
//! One listing alone may be older than the row; two of different streams of one name say nothing.
//!
//! ```text
//! rows read -> listing without it -> listing without it: gone
//!   |-- finished, and every child has begun:          the row has done its work
//!   '-- unfinished, and nobody can be working on it:  the row can never be finished, and must not block its children
//! ```

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_checkpoint::{ArrivalMillis, ShardId};

use crate::model::{Lease, LeaseKey};
use crate::shard_graph::ShardGraph;
use crate::shard_sync::has_begun;

/// What the last listings lacked of the rows that were read before them.
#[derive(Debug, Clone, Default)]
pub struct Absences {
    stream: Option<ArrivalMillis>,
    /// Rows read since the last listing began.
    read: BTreeSet<LeaseKey>,
    /// Absent from the last listing.
    absent: BTreeSet<LeaseKey>,
}

impl Absences {
    /// Takes in a complete listing of the stream that was created then, and says which shards are gone.
    pub fn listed(&mut self, stream: ArrivalMillis, listed: &ShardGraph) -> BTreeSet<LeaseKey> {
        if self.stream != Some(stream) {
            *self = Self { stream: Some(stream), ..Self::default() };
        }
        let absent: BTreeSet<LeaseKey> =
            std::mem::take(&mut self.read).into_iter().filter(|key| !listed.contains(key)).collect();
        let gone = absent.intersection(&self.absent).cloned().collect();
        self.absent = absent;
        gone
    }

    /// Takes in the rows that were read after that listing, and before the next one begins.
    pub fn rows_read(&mut self, rows: &[Lease]) {
        self.read = rows.iter().map(|row| row.key.clone()).collect();
    }

    /// Whether the last listing lacked one of these rows: the next one should come soon.
    pub fn lacks_any_of<'a>(&self, rows: impl IntoIterator<Item = &'a Lease>) -> bool {
        rows.into_iter().any(|row| self.absent.contains(&row.key))
    }
}

/// A row to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// The row as read: the deletion is conditional on its owner and counter.
    pub row: Lease,
    /// Records of the shard may never have been read.
    pub lost: bool,
}

/// The rows of gone shards that can be deleted now. `idle` tells whether nobody can be working on a row: a session
/// that has read its shard to the end may still deliver what it holds, and must find its row.
pub fn deletions(
    rows: &[Lease],
    gone: &BTreeSet<LeaseKey>,
    listed: &ShardGraph,
    idle: impl Fn(&Lease) -> bool,
) -> Vec<Deletion> {
    let by_key: BTreeMap<&LeaseKey, &Lease> = rows.iter().map(|row| (&row.key, row)).collect();
    let mut deletions = Vec::new();
    for row in rows.iter().filter(|row| gone.contains(&row.key)) {
        let children = children(row, rows);
        let begun = |child: &&ShardId| by_key.get(child).is_some_and(|row| has_begun(row));
        if row.is_finished() {
            let done =
                |child: &&ShardId| begun(child) || !(by_key.contains_key(child) || listed.contains(child));
            if children.iter().all(done) {
                deletions.push(Deletion { row: row.clone(), lost: false });
            }
        } else if idle(row) {
            // A child that has begun says that this shard had been finished: somebody made its row again.
            let lost = !children.iter().any(begun);
            deletions.push(Deletion { row: row.clone(), lost });
        }
    }
    deletions
}

/// Its children, as it names them and as they name it.
fn children<'a>(row: &'a Lease, rows: &'a [Lease]) -> Vec<&'a ShardId> {
    let naming = rows.iter().filter(|child| child.parents.contains(&row.key)).map(|child| &child.key);
    row.children.iter().chain(naming).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sluicegate_checkpoint::{HashKeyRange, LeaseState, Position};

    use crate::shard_sync::Shard;

    fn id(n: u32) -> ShardId {
        ShardId::new(format!("shardId-{n:012}"))
    }

    fn graph(of: &[u32]) -> ShardGraph {
        let shard = |n: &u32| Shard {
            id: id(*n),
            parents: BTreeSet::new(),
            hash_range: HashKeyRange::ALL,
            closed: false,
        };
        ShardGraph::new(of.iter().map(shard))
    }

    fn row(n: u32, checkpoint: Position, parents: &[u32]) -> Lease {
        Lease {
            parents: parents.iter().map(|n| id(*n)).collect(),
            ..Lease::unowned(id(n), checkpoint, LeaseState::starting(None))
        }
    }

    const STREAM: ArrivalMillis = ArrivalMillis(1);

    #[test]
    fn a_shard_is_gone_when_two_listings_after_its_row_was_read_lack_it() {
        let rows = [row(0, Position::TrimHorizon, &[]), row(1, Position::TrimHorizon, &[])];
        let mut absences = Absences::default();
        assert!(absences.listed(STREAM, &graph(&[1])).is_empty(), "its row was not read before");
        absences.rows_read(&rows);
        assert!(absences.listed(STREAM, &graph(&[1])).is_empty(), "once");
        absences.rows_read(&rows);
        assert!(absences.lacks_any_of(&rows) && !absences.lacks_any_of(&rows[1..]));
        assert_eq!(absences.listed(STREAM, &graph(&[1])), BTreeSet::from([id(0)]));
        absences.rows_read(&rows);
        assert!(absences.listed(STREAM, &graph(&[0, 1])).is_empty(), "it is there again");
        absences.rows_read(&rows);
        assert!(absences.listed(STREAM, &graph(&[1])).is_empty(), "counted anew");
    }

    #[test]
    fn listings_of_another_stream_of_the_name_say_nothing() {
        let rows = [row(0, Position::TrimHorizon, &[])];
        let mut absences = Absences::default();
        for stream in [1, 2, 3, 2] {
            assert!(absences.listed(ArrivalMillis(stream), &graph(&[])).is_empty());
            absences.rows_read(&rows);
        }
    }

    fn delete(rows: &[Lease], listed: &[u32]) -> Vec<(ShardId, bool)> {
        let gone = BTreeSet::from([id(0)]);
        let found = deletions(rows, &gone, &graph(listed), |row| row.owner.is_none());
        found.into_iter().map(|deletion| (deletion.row.key, deletion.lost)).collect()
    }

    #[test]
    fn a_finished_row_stays_until_every_child_has_begun() {
        let parent = Lease { children: BTreeSet::from([id(1), id(2)]), ..row(0, Position::ShardEnd, &[]) };
        let (one, two) = (row(1, Position::ShardEnd, &[0]), row(2, Position::TrimHorizon, &[0]));
        assert_eq!(delete(&[parent.clone(), one.clone(), two.clone()], &[1, 2]), []);
        assert_eq!(delete(&[parent.clone(), one.clone()], &[1, 2]), [], "a child's row is missing");
        assert_eq!(delete(&[parent.clone(), one.clone()], &[1]), [(id(0), false)], "that child is gone too");
        let two = Lease { checkpoint: Position::ShardEnd, ..two };
        assert_eq!(delete(&[parent, one, two], &[1, 2]), [(id(0), false)]);
    }

    #[test]
    fn an_unfinished_row_goes_when_nobody_works_on_it_and_counts_as_lost_unless_a_child_has_begun() {
        let gone = row(0, Position::TrimHorizon, &[]);
        let child = row(1, Position::TrimHorizon, &[0]);
        assert_eq!(delete(&[gone.clone(), child.clone()], &[1]), [(id(0), true)]);
        let owned = Lease { owner: Some(crate::model::WorkerId::new("w")), ..gone.clone() };
        assert_eq!(delete(&[owned, child.clone()], &[1]), []);
        let begun = Lease { checkpoint: Position::ShardEnd, ..child };
        assert_eq!(delete(&[gone, begun], &[1]), [(id(0), false)], "a row made again by mistake");
    }

    proptest! {
        /// Whatever is listed and read in whatever order: a shard that the last listing or the one before names, or
        /// whose row was not read before both, is never gone.
        #[test]
        fn what_was_listed_or_read_lately_is_not_gone(
            rounds in proptest::collection::vec((0u8..16, 0u8..16, 1i64..3), 1..8),
        ) {
            let bits = |set: u8| (0..4u32).filter(|n| set & (1 << n) != 0).collect::<Vec<u32>>();
            let mut absences = Absences::default();
            let mut history: Vec<(Vec<u32>, Vec<u32>, i64)> = Vec::new();
            for (listed, read, stream) in rounds {
                let gone = absences.listed(ArrivalMillis(stream), &graph(&bits(listed)));
                let rows: Vec<Lease> =
                    bits(read).iter().map(|n| row(*n, Position::TrimHorizon, &[])).collect();
                absences.rows_read(&rows);
                history.push((bits(listed), bits(read), stream));
                for n in 0..4 {
                    let expected = match &history[..] {
                        [.., (_, before, a), (one, between, b), (two, _, c)] => {
                            a == b && b == c && before.contains(&n) && between.contains(&n)
                                && !one.contains(&n) && !two.contains(&n)
                        }
                        _ => false,
                    };
                    prop_assert_eq!(gone.contains(&id(n)), expected, "{} in {:?}", n, history);
                }
            }
        }
    }
}
