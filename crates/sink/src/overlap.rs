//! Whether any event may be in two groups that the reader yields (law D4), judged by headers alone. **Pure.**

use std::collections::BTreeMap;

use sluicegate_checkpoint::{SequenceNumber, ShardId, SubSequenceNumber};

use crate::item::{EventId, Header};

/// What names a group, whatever its revision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupId {
    /// Its aggregate key.
    pub aggregate_key: String,
    /// Its shard.
    pub shard: ShardId,
    /// Epoch of its cut.
    pub epoch: u32,
    /// First sequence number of its cut.
    pub first: SequenceNumber,
    /// Index of the event, if it is a single one that was redriven.
    pub event: Option<SubSequenceNumber>,
}

/// Two groups of one shard and key whose ranges of events meet. After an operator moved a row back (a higher
/// epoch) that is expected; within one epoch it is a violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The group that begins first.
    pub a: GroupId,
    /// Its first and last event.
    pub a_range: (EventId, EventId),
    /// The group that begins before the other ends.
    pub b: GroupId,
    /// Its first and last event.
    pub b_range: (EventId, EventId),
}

/// First and last event of a group, and which group it is.
type Ranged = (EventId, EventId, GroupId);

/// Which groups overlap, of each the highest complete revision. Groups without events or without a complete
/// revision do not count. Of more than two groups that overlap, each is reported with the one that reaches
/// furthest before it.
///
/// Redriven events are judged among themselves: each lies between the ends of the group that it was excluded from, and
/// headers do not tell that the group lacks it.
pub fn overlaps<'h>(headers: impl IntoIterator<Item = &'h Header>) -> Vec<Overlap> {
    let mut by_shard_and_key: BTreeMap<(String, ShardId, bool), Vec<Ranged>> = BTreeMap::new();
    for (id, header) in highest_complete(headers) {
        if let Some((first, last)) = &header.range {
            let lane = (id.aggregate_key.clone(), id.shard.clone(), id.event.is_some());
            let ranges = by_shard_and_key.entry(lane).or_default();
            ranges.push((first.clone(), last.clone(), id));
        }
    }
    by_shard_and_key.into_values().flat_map(overlaps_of_one).collect()
}

fn overlaps_of_one(mut ranges: Vec<Ranged>) -> Vec<Overlap> {
    ranges.sort();
    let mut found = Vec::new();
    let mut furthest: Option<Ranged> = None;
    for (first, last, id) in ranges {
        if let Some(before) = &furthest
            && first <= before.1
        {
            found.push(Overlap {
                a: before.2.clone(),
                a_range: (before.0.clone(), before.1.clone()),
                b: id.clone(),
                b_range: (first.clone(), last.clone()),
            });
        }
        if furthest.as_ref().is_none_or(|before| before.1 < last) {
            furthest = Some((first, last, id));
        }
    }
    found
}

/// A header of the highest complete revision of each group.
pub fn highest_complete<'h>(headers: impl IntoIterator<Item = &'h Header>) -> BTreeMap<GroupId, &'h Header> {
    let mut parts: BTreeMap<(GroupId, u32), Vec<&'h Header>> = BTreeMap::new();
    for header in headers {
        let id = GroupId {
            aggregate_key: header.partition.aggregate_key.clone(),
            shard: header.sort.shard.clone(),
            epoch: header.sort.epoch,
            first: header.sort.first.clone(),
            event: header.sort.event,
        };
        parts.entry((id, header.sort.revision)).or_default().push(header);
    }
    let mut highest = BTreeMap::new();
    // Ascending revisions: a later complete one takes the place of an earlier.
    for ((id, _), headers) in parts {
        if let Some(header) = headers.first().filter(|first| headers.len() == first.parts as usize) {
            highest.insert(id, *header);
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Item;
    use crate::testing::{batch, event, items_of};

    fn headers(items: Vec<Item>) -> Vec<Header> {
        items.into_iter().map(|item| item.header).collect()
    }

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let mut all = headers(items_of(&batch(vec![event(1, "k", "a"), event(2, "k", "b")])));
        all.extend(headers(items_of(&batch(vec![event(3, "k", "c")]))));
        all.extend(headers(items_of(&batch(vec![event(1, "other", "c")]))));
        assert_eq!(overlaps(&all), []);
    }

    #[test]
    fn an_event_in_two_groups_is_reported() {
        let mut all = headers(items_of(&batch(vec![event(1, "k", "a"), event(5, "k", "b")])));
        all.extend(headers(items_of(&batch(vec![event(4, "k", "c")]))));
        all.extend(headers(items_of(&batch(vec![event(5, "k", "c"), event(9, "k", "d")]))));
        let found = overlaps(&all);
        let firsts: Vec<_> = found.iter().map(|o| (o.a.first.as_str(), o.b.first.as_str())).collect();
        assert_eq!(firsts, [("1", "4"), ("1", "5")]);
    }

    #[test]
    fn lower_and_incomplete_revisions_do_not_count() {
        let mut wide = batch(vec![event(1, "k", "a"), event(5, "k", "b")]);
        let mut all = headers(items_of(&wide));
        // Revision 1 leaves out the event that would overlap.
        wide.cut.revision = 1;
        wide.records.pop();
        all.extend(headers(items_of(&wide)));
        all.extend(headers(items_of(&batch(vec![event(5, "k", "b")]))));
        assert_eq!(overlaps(&all), []);
        // Part 1 of 2 alone is no group.
        let mut half = headers(items_of(&batch(vec![event(4, "k", "x"), event(6, "k", "y")])));
        half[0].parts = 2;
        all.extend(half);
        assert_eq!(overlaps(&all), []);
    }
}
