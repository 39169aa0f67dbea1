//! One partition's items -> its groups, each resolved to its highest complete revision.

use std::collections::VecDeque;

use bytes::Bytes;
use sluicegate_checkpoint::ArrivalMillis;

use super::{MAX_BATCH_SPAN, ReadError, Retrying, TimeRange};
use crate::item::{Fault, Header, Item, ItemError, SortKey};
use crate::store::Query;

/// A group that has events in the range: its header and its parts, checked.
pub(super) struct Group {
    pub(super) header: Header,
    pub(super) parts: Vec<Bytes>,
}

/// Reads one partition from front to back.
pub(super) struct Lane {
    source: Retrying,
    range: TimeRange,
    query: Query,
    page: VecDeque<Item>,
    at_end: bool,
}

impl Lane {
    pub(super) fn new(source: Retrying, pk: String, range: TimeRange, limit: u32) -> Self {
        let span = i64::try_from(MAX_BATCH_SPAN.as_millis()).unwrap_or(i64::MAX);
        let from = range.from.map_or(SortKey::EARLIEST, |from| ArrivalMillis(from.0.saturating_sub(span)));
        let to = range.to.map_or(SortKey::LATEST, |to| ArrivalMillis(to.0.saturating_add(span)));
        let query =
            Query { pk, from: SortKey::lowest_at(from), to: SortKey::highest_at(to), behind: None, limit };
        Self { source, range, query, page: VecDeque::new(), at_end: false }
    }

    /// The next group that has events in the range, with the arrival of its cut; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Group>, ReadError> {
        loop {
            let items = self.next_items().await?;
            if items.is_empty() {
                return Ok(None);
            }
            if let Some(group) = resolve(items, self.range)? {
                return Ok(Some(group));
            }
        }
    }

    /// All items of the next group: they stand together, revision by revision and part by part.
    async fn next_items(&mut self) -> Result<Vec<Item>, ReadError> {
        let mut items: Vec<Item> = Vec::new();
        loop {
            if self.page.is_empty() {
                self.fill().await?;
            }
            let Some(next) = self.page.front() else { return Ok(items) };
            if items.first().is_some_and(|first| !first.header.sort.same_group(&next.header.sort)) {
                return Ok(items);
            }
            items.extend(self.page.pop_front());
        }
    }

    /// Reads pages until one has items or there are no more: a page may be empty and not the last.
    async fn fill(&mut self) -> Result<(), ReadError> {
        while self.page.is_empty() && !self.at_end {
            let query = &self.query;
            let page = self.source.call(|source| async move { source.query(query).await }).await?;
            self.page = page.items.into();
            self.at_end = page.next.is_none();
            self.query.behind = page.next;
        }
        Ok(())
    }
}

/// The highest complete revision among the items of a group, if it has events in the range.
fn resolve(items: Vec<Item>, range: TimeRange) -> Result<Option<Group>, ReadError> {
    let wanted = items.iter().any(|item| item.header.count > 0 && range.meets(item.header.arrivals));
    if !wanted {
        return Ok(None);
    }
    let mut revisions: Vec<Vec<Item>> = Vec::new();
    for item in items {
        match revisions.last_mut() {
            Some(last) if last.first().is_some_and(|first| same_revision(first, &item)) => last.push(item),
            Some(_) | None => revisions.push(vec![item]),
        }
    }
    let mut missing = None;
    // Highest first. Keys differ and parts are within their number, so as many as there should be is all of
    // them.
    while let Some(parts) = revisions.pop() {
        let Some(first) = parts.first().map(|item| item.header.clone()) else { continue };
        if parts.len() == first.parts as usize {
            return if first.count > 0 && range.meets(first.arrivals) {
                joined(first, parts).map(Some)
            } else {
                Ok(None)
            };
        }
        missing.get_or_insert_with(|| missing_part(&first, &parts));
    }
    missing.map_or(Ok(None), Err)
}

fn same_revision(a: &Item, b: &Item) -> bool {
    a.header.sort.revision == b.header.sort.revision
}

/// Checks each part and that all speak of the same group.
fn joined(header: Header, parts: Vec<Item>) -> Result<Group, ReadError> {
    for item in &parts {
        item.check()?;
        if !item.header.agrees_with(&header) {
            let why = Fault::Contradiction { other: header.sort.part };
            return Err(ReadError::Item(ItemError { key: item.header.key(), why }));
        }
    }
    Ok(Group { header, parts: parts.into_iter().map(|item| item.data).collect() })
}

/// The first part that is not there.
fn missing_part(first: &Header, parts: &[Item]) -> ReadError {
    let there = |part: u32| parts.iter().any(|item| item.header.sort.part == part);
    let part = (1..=first.parts).find(|part| !there(*part)).unwrap_or(first.parts);
    let sort = SortKey { part, ..first.sort.clone() };
    let key = Header { sort, ..first.clone() }.key();
    ReadError::MissingPart { key, part, parts: first.parts }
}
