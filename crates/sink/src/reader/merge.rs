//! Groups of all lanes -> events in order.
//!
//! ```text
//! lanes (one per spread suffix) --groups by sort key--> waiting (compressed) --first event due--> open --> event
//! ```
//! An event may be yielded when no group that is still to come can hold an earlier one: when every lane has
//! come to a cut that arrived [`MAX_BATCH_SPAN`] later, or to its end. Groups of reductions do not wait: theirs are merged
//! as they come, one for each window.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use sluicegate_checkpoint::ArrivalMillis;

use super::lane::{Group, Lane};
use super::{Event, MAX_BATCH_SPAN, ReadError, Retrying, TimeRange};
use crate::item::PartitionKey;
use crate::packing::{UnpackError, unpack};
use crate::reduction::Reduction;

/// Items that are asked for at once, over all suffixes. An item has up to 400 KB, so pages of all lanes
/// together stay below about 26 MB.
const PAGE_ITEMS: u32 = 64;

/// The events of a key, one by one.
pub struct EventStream {
    range: TimeRange,
    lanes: Vec<State>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    open: BinaryHeap<Reverse<Open>>,
    reduced: BTreeMap<WindowKey, Reduction>,
}

/// What reductions are merged by, in the order in which they are given out: what was configured, then time, those
/// without a window last.
type WindowKey = (String, bool, Option<i64>);

/// A lane and how far it has come.
struct State {
    lane: Lane,
    /// Arrival of the cut that it came to last; what follows is not earlier.
    seen: ArrivalMillis,
    ended: bool,
}

/// A group whose first event is not due yet.
struct Waiting(Group);

/// A group that is being yielded: its events descending, so that the next one is taken from the end.
struct Open {
    next: Event,
    rest: Vec<Event>,
}

impl EventStream {
    pub(super) fn new(source: &Retrying, aggregate_key: &str, spread: u32, range: TimeRange) -> Self {
        let limit = PAGE_ITEMS.div_ceil(spread.max(1));
        let lane = |suffix| {
            let pk = PartitionKey { aggregate_key: aggregate_key.to_owned(), suffix }.to_string();
            State {
                lane: Lane::new(source.clone(), pk, range, limit),
                seen: ArrivalMillis(i64::MIN),
                ended: false,
            }
        };
        let lanes = (0..spread.max(1)).map(lane).collect();
        Self { range, lanes, waiting: BinaryHeap::new(), open: BinaryHeap::new(), reduced: BTreeMap::new() }
    }

    /// The next event; `None` when there are no more. Events of which only a reduction was stored are not yielded: see
    /// [`EventStream::into_reductions`].
    ///
    /// # Errors
    /// See [`ReadError`]. After an error the stream is of no more use.
    pub async fn next(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            let complete_up_to = self.complete_up_to();
            self.open_due(complete_up_to)?;
            let due = self.open.peek().is_some_and(|Reverse(open)| open.next.arrival < complete_up_to);
            if due {
                return Ok(self.take_next());
            }
            let Some(behind) = self.lanes.iter_mut().filter(|lane| !lane.ended).min_by_key(|lane| lane.seen)
            else {
                // Every lane has ended, so what is open is due; i64::MAX itself is the one arrival not below
                // the bound.
                return Ok(self.take_next());
            };
            match behind.lane.next().await? {
                Some(group) => {
                    behind.seen = group.header.sort.arrival;
                    match group.header.reduced {
                        Some(_) => reduce(&mut self.reduced, &group, self.range)?,
                        None => self.waiting.push(Reverse(Waiting(group))),
                    }
                }
                None => behind.ended = true,
            }
        }
    }

    /// What was stored as reductions: one for each window, merged, in the order of windows. Complete once
    /// [`EventStream::next`] has given `None`. A reduction belongs to a range by the arrival of the first event of its
    /// batch and window; so adjoining ranges divide them up, and a range of whole windows has them whole.
    pub fn into_reductions(self) -> Vec<Reduction> {
        self.reduced.into_values().collect()
    }

    /// Every event that arrived before this is in a group already seen.
    fn complete_up_to(&self) -> ArrivalMillis {
        let span = i64::try_from(MAX_BATCH_SPAN.as_millis()).unwrap_or(i64::MAX);
        let seen = self.lanes.iter().filter(|lane| !lane.ended).map(|lane| lane.seen).min();
        seen.map_or(ArrivalMillis(i64::MAX), |seen| ArrivalMillis(seen.0.saturating_sub(span)))
    }

    /// Opens the waiting groups that may hold the next event.
    fn open_due(&mut self, complete_up_to: ArrivalMillis) -> Result<(), ReadError> {
        while let Some(Reverse(Waiting(group))) = self.waiting.peek() {
            let earliest = group.header.arrivals.0;
            let before_open = self.open.peek().is_none_or(|Reverse(open)| earliest <= open.next.arrival);
            if !before_open || earliest > complete_up_to {
                return Ok(());
            }
            if let Some(Reverse(Waiting(group))) = self.waiting.pop() {
                self.open.extend(opened(&group, self.range)?.map(Reverse));
            }
        }
        Ok(())
    }

    fn take_next(&mut self) -> Option<Event> {
        let Reverse(Open { next, mut rest }) = self.open.pop()?;
        if let Some(after) = rest.pop() {
            self.open.push(Reverse(Open { next: after, rest }));
        }
        Some(next)
    }
}

/// Merges the reductions of a group that are in the range.
fn reduce(
    merged: &mut BTreeMap<WindowKey, Reduction>,
    group: &Group,
    range: TimeRange,
) -> Result<(), ReadError> {
    let Group { header, parts } = group;
    let failed = |source| ReadError::Group { key: header.key(), source };
    let unpacked = unpack(header, parts).map_err(failed)?;
    for stored in unpacked.into_iter().filter(|stored| range.contains(stored.arrival)) {
        let malformed = || failed(UnpackError::Reduction { why: "is malformed" });
        let one = Reduction::parse(&stored.data).ok_or_else(malformed)?;
        let key = (one.reduce.clone(), one.window.is_none(), one.window);
        match merged.get_mut(&key) {
            None => drop(merged.insert(key, one)),
            Some(sum) => {
                let unequal = || failed(UnpackError::Reduction { why: "cannot be added to the others" });
                sum.merge(&one).ok_or_else(unequal)?;
            }
        }
    }
    Ok(())
}

/// The events of a group that are in the range; `None` if there are none.
fn opened(group: &Group, range: TimeRange) -> Result<Option<Open>, ReadError> {
    let Group { header, parts } = group;
    let unpacked = unpack(header, parts).map_err(|source| ReadError::Group { key: header.key(), source })?;
    let mut events: Vec<Event> = unpacked
        .into_iter()
        .filter(|event| range.contains(event.arrival))
        .map(|event| Event {
            shard: header.sort.shard.clone(),
            epoch: header.sort.epoch,
            sequence_number: event.sequence_number,
            sub_sequence_number: event.sub_sequence_number,
            arrival: event.arrival,
            data: event.data,
        })
        .collect();
    // Stable, and turned round as a whole, so that equals keep the order in which they were stored.
    events.sort_by(Event::order);
    events.reverse();
    Ok(events.pop().map(|next| Open { next, rest: events }))
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |waiting: &Self| (waiting.0.header.arrivals.0, waiting.0.header.sort.arrival);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        self.next.order(&other.next)
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Open {}
