//! What was published against what the reader yields, as multisets of exact bytes; and whether any ranges overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use anyhow::Context;
use md5::{Digest, Md5};
use sluicegate_producer::Progress;
use sluicegate_producer::lines::{Line, Lines};
use sluicegate_sink::{TimeRange, overlaps};

use crate::app;
use crate::aws::Aws;

/// How often each line is there. A line is told by its length and a 128-bit digest, so that memory does not grow
/// with the length of lines.
#[derive(Debug, Default)]
pub(super) struct Multiset(BTreeMap<(u64, [u8; 16]), i64>);

impl Multiset {
    /// The lines of an input, plain or compressed.
    pub(super) fn of_lines(input: Box<dyn Read + Send>) -> anyhow::Result<Self> {
        let mut set = Self::default();
        let mut lines = Lines::open(input, LONGEST_LINE, Arc::new(Progress::default()))?;
        while let Some(line) = lines.next_line()? {
            match line {
                Line::Text(text) => set.add(text, 1),
                Line::Empty | Line::TooLong => {}
            }
        }
        Ok(set)
    }

    /// How many lines.
    pub(super) fn len(&self) -> u64 {
        self.0.values().map(|count| count.unsigned_abs()).sum()
    }

    fn add(&mut self, line: &[u8], count: i64) {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        *self.0.entry((length, Md5::digest(line).into())).or_default() += count;
    }

    /// How many lines are missing and how many are too many, after taking away what was read.
    fn differences(&self) -> (u64, u64) {
        let lost = self.0.values().filter(|count| **count > 0).map(|count| count.unsigned_abs()).sum();
        let duplicated = self.0.values().filter(|count| **count < 0).map(|count| count.unsigned_abs()).sum();
        (lost, duplicated)
    }
}

/// Longest line looked at: the largest record a stream takes (10 MiB, Kinesis quotas page).
const LONGEST_LINE: usize = 10 << 20;

/// What the comparison found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Compared {
    pub(super) stored: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) items: u64,
    pub(super) keys: u64,
    pub(super) raw_bytes: u64,
    /// Write units of storing every event as an item of its own: one for each KB begun (DynamoDB pricing), the
    /// payload alone counted.
    pub(super) one_item_per_event_units: u64,
    pub(super) stored_bytes: u64,
    pub(super) overlaps: u64,
}

/// Reads every key back and compares.
pub(super) async fn read_back(aws: &Aws, table: &str, mut published: Multiset) -> anyhow::Result<Compared> {
    let reader = app::reader(aws, table);
    let headers = reader.all_headers().await.context("the table cannot be scanned")?;
    let keys: BTreeSet<&str> = headers.iter().map(|header| header.partition.aggregate_key.as_str()).collect();
    let mut compared = Compared {
        items: count(headers.len()),
        keys: count(keys.len()),
        stored_bytes: headers.iter().map(|header| header.stored_bytes).sum(),
        overlaps: count(overlaps(&headers).len()),
        ..Compared::default()
    };
    for key in keys {
        let mut events = reader.events(key, TimeRange::default()).await?;
        while let Some(event) = events.next().await? {
            published.add(&event.data, -1);
            compared.stored += 1;
            compared.raw_bytes += count(event.data.len());
            compared.one_item_per_event_units += count(event.data.len().div_ceil(1024).max(1));
        }
    }
    (compared.lost, compared.duplicated) = published.differences();
    Ok(compared)
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_line_and_one_too_many_are_told_apart() {
        let mut set = Multiset::of_lines(Box::new(&b"a\nb\nb\n\n"[..])).unwrap();
        for line in ["a", "b", "c"] {
            set.add(line.as_bytes(), -1);
        }
        assert_eq!(set.differences(), (1, 1));
    }
}
