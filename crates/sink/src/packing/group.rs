//! Which group each record of a batch belongs to, and over which suffix a group is spread. **Pure.**
//!
//! A record whose key template finds nothing, or that gives an empty key or one over 256 characters, goes to
//! the fallback key and is counted; nothing is dropped. A group whose events are all excluded still is a
//! group, for an earlier revision may have stored some; one whose events are all filtered or foreign is none, for no revision
//! ever stores them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sluicegate_checkpoint::key_template::FALLBACK_KEY;
use sluicegate_checkpoint::transform::Verdict;
use sluicegate_checkpoint::{Batch, BatchId, PackingParameters, Record};

use super::shape::Shape;
use crate::sink::{Arrivals, Untimed};

/// The groups of a batch, and what was counted on the way.
#[derive(Default)]
pub(super) struct Groups<'a> {
    /// What belongs to each aggregate key.
    pub by_key: BTreeMap<Cow<'a, str>, Group<'a>>,
    pub events: u64,
    pub records: u64,
    pub filtered: u64,
    pub foreign: u64,
    pub unreadable: u64,
    pub untimed: Untimed,
    /// Places in the batch of events that cannot be read and become dead letters.
    pub dead_letters: Vec<usize>,
    pub raw_bytes: u64,
    pub fallback_keys: u64,
    pub arrivals: Arrivals,
}

/// The events of one aggregate key.
pub(super) struct Group<'a> {
    /// In shard order, exclusions left out.
    pub records: Vec<&'a Record>,
    /// What is stored of them.
    pub shape: Shape,
}

/// The aggregate key of a record, which is read for it: for callers that do not know the event.
pub fn aggregate_key_of<'a>(parameters: &PackingParameters, record: &'a Record) -> Cow<'a, str> {
    let event = parameters.event_of(record);
    parameters.aggregate_key_of(record, event.as_ref()).unwrap_or(Cow::Borrowed(FALLBACK_KEY))
}

/// Sorts the records of a batch into groups.
pub(super) fn group(batch: &Batch) -> Groups<'_> {
    let parameters = &*batch.cut.parameters;
    let mut groups = Groups::default();
    let mut before = None;
    for (place, record) in batch.records.iter().enumerate().filter(|(_, record)| !batch.cut.is_before(record))
    {
        // Read once: for the filter, for the key and for what is stored of it.
        let judged = batch.cut.judge(record);
        match judged.verdict {
            Verdict::Kept | Verdict::Unreadable => {}
            Verdict::Foreign => groups.foreign += 1,
            Verdict::LeftOut => groups.filtered += 1,
            Verdict::DeadLetter => groups.dead_letters.push(place),
        }
        if !judged.verdict.keeps() {
            continue;
        }
        let key = parameters.aggregate_key_of(record, judged.event.as_ref());
        let fallback = key.is_none();
        let none = || Group { records: Vec::new(), shape: Shape::of(parameters) };
        let group = groups.by_key.entry(key.unwrap_or(Cow::Borrowed(FALLBACK_KEY))).or_insert_with(none);
        if batch.cut.excludes(record.sequence_number(), record.sub_sequence_number()) {
            continue;
        }
        if let Some(window) = group.shape.add(parameters, group.records.len(), record, &judged) {
            groups.untimed.add(window);
        }
        group.records.push(record);
        groups.events += 1;
        groups.arrivals.add(record.arrival());
        groups.unreadable += u64::from(judged.verdict == Verdict::Unreadable);
        groups.raw_bytes += record.data().len() as u64;
        groups.fallback_keys += u64::from(fallback);
        groups.records += u64::from(before != Some(record.sequence_number()));
        before = Some(record.sequence_number());
    }
    groups
}

/// Which suffix a group of a batch is stored under: 0 (none) to `spread - 1`.
///
/// A function of aggregate key and batch alone, so that every revision of a group has the same key. CRC-32 is
/// plenty: all it has to do is to scatter.
pub(super) fn suffix(key: &str, id: &BatchId, spread: u32) -> u32 {
    if spread <= 1 {
        return 0;
    }
    let mut sum = crc32fast::Hasher::new();
    let epoch = id.epoch.to_string();
    for text in [key, id.shard.as_str(), &epoch, id.first.as_str(), id.to.as_str()] {
        sum.update(text.as_bytes());
        sum.update(&[0]);
    }
    sum.finalize() % spread
}
