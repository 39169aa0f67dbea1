//! From items that the table rejects to the events at fault: carries the search of [`bisect`](crate::bisect) out.
//!
//! A question is asked with a group packed of some of its events, under the next revision of the batch: what comes next
//! under that revision differs from it in its data alone. It takes a permit and the right as any write does, is charged as
//! one (only a rejection is free), and is repeated like one while the table throttles or does not answer.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, FuturesUnordered};
use sluicegate_checkpoint::{Batch, Exclusion, Record, Retry, Right};
use thiserror::Error;
use tokio::time::Instant;
use tracing::{info, warn};

use super::span::Span;
use super::{PackingSink, refused_or_unavailable, unavailable};
use crate::bisect::{Found, Probe, Search, Suspect};
use crate::governor::turn::Rank;
use crate::governor::{Outcome, units_of};
use crate::item::Item;
use crate::packing::aggregate_key_of;
use crate::sink::{DeliverError, Offender};
use crate::store::StoreError;

/// Most questions asked in one delivery. One event of 10,000 takes up to 29, ten of them about 220; at 10 ms each, two at
/// a time, all of them take 1.4 s. A row has no room for many more ranges either, so further precision would be lost.
const MAX_PROBES: usize = 256;

/// A batch with so many exclusions is searched whole groups at a time: where there is much poison, an item at a time would
/// write the beginning of a group again and again.
const MANY_EXCLUSIONS: usize = 3;

/// An item that the table rejects although it came alone.
pub(super) struct Rejected {
    aggregate_key: String,
    span: Option<Span>,
    /// What was not written of its group, in write capacity units.
    pub(super) left_units: f64,
    why: String,
}

/// What was rejected was accepted when it was asked about.
#[derive(Debug, Error)]
#[error("the table rejected items, and accepts every one of their events: {0}")]
struct Wavering(String);

impl Rejected {
    /// Notes a rejected item. An item without events is only there to hide what an older revision stored under its key:
    /// where the table takes no item at all, there is nothing to hide, and it counts as written.
    pub(super) fn of(item: &Item, why: String) -> Option<Self> {
        if item.header.count == 0 {
            warn!(key = %item.header.key(), %why, "an empty group is rejected; nothing can be stored under its key");
            return None;
        }
        let aggregate_key = item.header.partition.aggregate_key.clone();
        let (span, left_units) = (Span::of(&item.header), units_of(item.bytes()));
        Some(Self { aggregate_key, span, left_units, why })
    }

    /// The key of its group.
    pub(super) fn aggregate_key(&self) -> &str {
        &self.aggregate_key
    }

    /// The table's answer.
    pub(super) fn why(&self) -> &str {
        &self.why
    }
}

/// A rejected group: where its events stand in the batch, ascending, and what is known of the rejected item.
struct Group {
    places: Vec<usize>,
    span: Option<Span>,
    why: String,
}

impl Group {
    fn suspect(&self, batch: &Batch) -> Suspect {
        let hint = self.span.filter(|_| batch.cut.exclusions.len() < MANY_EXCLUSIONS).map(|span| {
            let record = |place: &usize| batch.records.get(*place).map_or(0, |record| record.data().len());
            span.events(&self.places.iter().map(record).collect::<Vec<_>>())
        });
        Suspect { events: self.places.len(), hint, why: self.why.clone() }
    }
}

impl PackingSink {
    /// The events at fault for what was rejected, as an error to the caller; or why they could not be told.
    pub(super) async fn poison(
        &self,
        batch: &Arc<Batch>,
        rejected: Vec<Rejected>,
        write_units: f64,
        right: &dyn Right,
    ) -> DeliverError {
        let left_units = rejected.iter().map(|rejected| rejected.left_units).fold(0.0, f64::max);
        let groups = groups(batch, rejected);
        let (lease_key, sequence_number) = (batch.id.shard.as_str(), batch.id.first.as_str());
        info!(
            lease_key,
            sequence_number,
            groups = groups.len(),
            left_units,
            "items are rejected; the events at fault are looked for"
        );
        match self.search(batch, &groups, right).await {
            Ok((found, probe_units)) if !found.is_empty() => DeliverError::Poison {
                offenders: offenders(batch, &groups, found),
                write_units: write_units + probe_units,
            },
            Ok(_) => {
                let why = groups.into_iter().map(|group| group.why).next().unwrap_or_default();
                let what = "rejected items are accepted when asked about".to_owned();
                DeliverError::Unavailable { what, source: Box::new(Wavering(why)) }
            }
            Err(error) => error,
        }
    }

    async fn search(
        &self,
        batch: &Arc<Batch>,
        groups: &[Group],
        right: &dyn Right,
    ) -> Result<(Vec<Found>, f64), DeliverError> {
        let mut search = Search::new(groups.iter().map(|group| group.suspect(batch)), MAX_PROBES);
        let (mut under_way, mut write_units, mut questions) = (FuturesUnordered::new(), 0.0, 0usize);
        loop {
            while under_way.len() < self.options.requests_in_flight.max(1)
                && let Some(probe) = search.take()
                && let Some(group) = groups.get(probe.group)
            {
                under_way.push(self.ask(subset(batch, &group.places, &probe), probe, right));
            }
            let Some(answer) = under_way.next().await else { break };
            questions += 1;
            let (probe, units, rejected) = answer?;
            write_units += units;
            search.answer(&probe, rejected);
        }
        let found = search.finish();
        let (lease_key, sequence_number) = (batch.id.shard.as_str(), batch.id.first.as_str());
        info!(
            lease_key,
            sequence_number,
            questions,
            write_units,
            ranges = found.len(),
            "the search for events at fault has ended"
        );
        Ok((found, write_units))
    }

    /// Whether the table would take every item of these events; if not, its answer.
    async fn ask(
        &self,
        events: Batch,
        probe: Probe,
        right: &dyn Right,
    ) -> Result<(Probe, f64, Option<String>), DeliverError> {
        let mut write_units = 0.0;
        let rank = Rank::of(&events);
        let items = self.pack(Arc::new(events)).await?.items;
        let answers =
            stream::iter(items).map(async |item| self.probe_until_answered(&item, &rank, right).await);
        let mut answers = pin!(answers.buffer_unordered(self.options.requests_in_flight.max(1)));
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(units) => write_units += units,
                Err(Answer::Rejected(why)) => return Ok((probe, write_units, Some(why))),
                Err(Answer::Failed(error)) => return Err(error),
            }
        }
        Ok((probe, write_units, None))
    }

    async fn probe_until_answered(&self, item: &Item, rank: &Rank, right: &dyn Right) -> Result<f64, Answer> {
        let (mut delays, begun) = (self.options.retry.delays(), Instant::now());
        loop {
            let units = vec![(item.header.key().pk, units_of(item.bytes()))];
            let (admitted, slot) = self.governor.admit(rank, units, &self.requests).await;
            let outcome = {
                let _slot = slot;
                if !right.holds() {
                    return Err(Answer::Failed(DeliverError::RightEnded));
                }
                self.timed(self.writer.probe(item)).await
            };
            self.governor.settle(&admitted, seen(&outcome));
            let error = match outcome {
                Ok(units) => return Ok(units),
                Err(StoreError::Rejected(why)) => return Err(Answer::Rejected(why.to_string())),
                Err(error) => error,
            };
            // What is throttled is paced by the governor.
            let throttled = matches!(error, StoreError::Throttled { .. });
            let retry = if throttled { Retry::After(Duration::ZERO) } else { error.retry() };
            let delay = delays.after(retry, &mut self.rng());
            let Some(delay) = delay else {
                let subject = format!("item {}", item.header.key());
                return Err(Answer::Failed(refused_or_unavailable(&subject, error)));
            };
            if begun.elapsed() >= self.options.give_up_after {
                let what = "the events at fault for a rejected item were not found".to_owned();
                return Err(Answer::Failed(unavailable(what, error)));
            }
            tokio::time::sleep(delay).await;
        }
    }
}

/// What a question tells the governor.
fn seen(outcome: &Result<f64, StoreError>) -> Outcome {
    match outcome {
        Ok(units) => Outcome::Answered { consumed: *units, left_over: Vec::new() },
        Err(StoreError::Throttled { by, .. }) => Outcome::Throttled(*by),
        Err(StoreError::Rejected(_)) => Outcome::Rejected,
        Err(StoreError::Unavailable(_) | StoreError::Refused { .. } | StoreError::Item(_)) => {
            Outcome::Unknown
        }
    }
}

/// Why a question did not end with yes.
enum Answer {
    Rejected(String),
    Failed(DeliverError),
}

/// The rejected groups of a batch, in the order of their keys.
fn groups(batch: &Batch, rejected: Vec<Rejected>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for Rejected { aggregate_key, span, why, .. } in rejected {
        groups.entry(aggregate_key).or_insert(Group { places: Vec::new(), span, why });
    }
    for (place, record) in batch.records.iter().enumerate() {
        let key = aggregate_key_of(&batch.cut.parameters, record);
        if let Some(group) = groups.get_mut(&*key)
            && batch.stores(record)
        {
            group.places.push(place);
        }
    }
    groups.into_values().filter(|group| !group.places.is_empty()).collect()
}

/// The batch as it would be under its next revision, if these were all its events. Without any it is that of a group that
/// has lost all of its events.
fn subset(batch: &Batch, places: &[usize], probe: &Probe) -> Batch {
    let records = |places: &[usize]| -> Vec<Record> {
        places.iter().filter_map(|place| batch.records.get(*place)).cloned().collect()
    };
    let mut cut = batch.cut.clone();
    cut.revision += 1;
    let mut asked = records(places.get(probe.events()).unwrap_or_default());
    if asked.is_empty() {
        asked = records(places.get(..1).unwrap_or_default());
        cut.exclusions = asked.iter().map(|record| between(record, record)).collect();
    }
    Batch { cut, records: asked, id: batch.id.clone(), arrival: batch.arrival }
}

/// What was found, in the words of the batch: a group's events need not follow each other in the shard, so that one
/// range of them may be several of the shard.
fn offenders(batch: &Batch, groups: &[Group], found: Vec<Found>) -> Vec<Offender> {
    let mut offenders = Vec::new();
    for Found { events, why } in found {
        let places = groups.get(events.group).and_then(|group| group.places.get(events.events()));
        let runs = places.unwrap_or_default().chunk_by(|before, place| before + 1 == *place);
        for run in runs {
            let ends = run.first().zip(run.last());
            let ends = ends.and_then(|(first, last)| batch.records.get(*first).zip(batch.records.get(*last)));
            offenders.extend(
                ends.map(|(first, last)| Offender { events: between(first, last), why: why.clone() }),
            );
        }
    }
    offenders.sort_by(|a, b| a.events.from.cmp(&b.events.from));
    offenders
}

fn between(first: &Record, last: &Record) -> Exclusion {
    let id = |record: &Record| (record.sequence_number().clone(), record.sub_sequence_number());
    Exclusion { from: id(first), to: id(last) }
}

#[cfg(test)]
mod tests;
