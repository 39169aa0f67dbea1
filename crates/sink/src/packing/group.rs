//! Which group each record of a batch belongs to, and over which suffix a group is spread. **Pure.**
//!
//! A record whose key template finds nothing, or that gives an empty key or one over 256 characters, goes to
//! the fallback key and is counted; nothing is dropped. A group whose events are all excluded still is a
//! group, for an earlier revision may have stored some; one whose events are all filtered or foreign is none, for no revision
//! ever stores them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sluicegate_checkpoint::key_template::{FALLBACK_KEY, Key};
use sluicegate_checkpoint::transform::Verdict;
use sluicegate_checkpoint::{AggregateKey, Batch, BatchId, KeyTemplate, Record};

/// The groups of a batch, and what was counted on the way.
#[derive(Default)]
pub(super) struct Groups<'a> {
    /// Records of each aggregate key, in shard order, exclusions left out.
    pub by_key: BTreeMap<Cow<'a, str>, Vec<&'a Record>>,
    pub events: u64,
    pub records: u64,
    pub filtered: u64,
    pub foreign: u64,
    pub unreadable: u64,
    pub raw_bytes: u64,
    pub fallback_keys: u64,
}

/// The aggregate key of a record, or `None` if it goes to [`FALLBACK_KEY`]. An event that is no JSON has no
/// fields for a template to find.
pub fn aggregate_key_of<'a>(key: &AggregateKey, record: &'a Record) -> Option<Cow<'a, str>> {
    match key {
        AggregateKey::PartitionKey => {
            usable(record.partition_key()).then_some(Cow::Borrowed(&*record.partition_key()))
        }
        AggregateKey::Template(template) => match template.render_json(record.data()) {
            Ok(Key::Found(key)) => Some(Cow::Owned(key)),
            Ok(Key::Fallback) | Err(_) => None,
        },
    }
}

/// Whether a partition key is one that a template could have given. Kinesis allows no other; a damaged
/// aggregate may hold any.
fn usable(key: &str) -> bool {
    const MAX: usize = KeyTemplate::MAX_KEY_CHARS;
    // A text has at least as many bytes as characters, so most keys need no count.
    !key.is_empty() && (key.len() <= MAX || key.chars().count() <= MAX)
}

/// Sorts the records of a batch into groups.
pub(super) fn group(batch: &Batch) -> Groups<'_> {
    let mut groups = Groups::default();
    let mut before = None;
    for record in batch.records.iter().filter(|record| !stored_before(batch, record)) {
        if batch.cut.is_foreign(record) {
            groups.foreign += 1;
            continue;
        }
        let verdict = batch.cut.verdict(record);
        if verdict == Verdict::LeftOut {
            groups.filtered += 1;
            continue;
        }
        let key = aggregate_key_of(&batch.cut.parameters.aggregate_key, record);
        let fallback = key.is_none();
        let group = groups.by_key.entry(key.unwrap_or(Cow::Borrowed(FALLBACK_KEY))).or_default();
        if batch.cut.excludes(record.sequence_number(), record.sub_sequence_number()) {
            continue;
        }
        group.push(record);
        groups.events += 1;
        groups.unreadable += u64::from(verdict == Verdict::Unreadable);
        groups.raw_bytes += record.data().len() as u64;
        groups.fallback_keys += u64::from(fallback);
        groups.records += u64::from(before != Some(record.sequence_number()));
        before = Some(record.sequence_number());
    }
    groups
}

/// Whether an event of the first record lies before the cut, which begins behind it.
fn stored_before(batch: &Batch, record: &Record) -> bool {
    let cut = &batch.cut;
    cut.behind_sub.is_some_and(|behind| {
        record.sub_sequence_number() <= behind && *record.sequence_number() == cut.first
    })
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
