//! The Sink port: where announced batches go.
//!
//! The contract, for every sink: each batch is delivered **at least once**, and every delivery of a batch
//! carries the same records in the same order under the same [`BatchId`](sluicegate_checkpoint::BatchId) and
//! revision. A sink that overwrites by `BatchId` (and prefers the highest complete revision) is therefore
//! effectively **exactly once**, without transactions.

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_checkpoint::transform::{Unit, Window};
use sluicegate_checkpoint::{ArrivalMillis, Batch, Exclusion, Retry, Right};
use thiserror::Error;

use crate::group_sizes::GroupSizes;

/// Takes batches and makes them durable.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Makes a batch durable.
    ///
    /// *To be correct*: returns `Ok` only when every record of [`Batch::stored`] is durable; asks
    /// `right` before each attempt at writing and stops with [`DeliverError::RightEnded`] when it is over. Events that
    /// can never be stored it names ([`DeliverError::Poison`]); leaving them out is not its own to decide.
    /// *Repeating it*: must be harmless; the same batch may come again from another worker at any later time, also
    /// while this delivery is still running.
    /// *Cancelling it* (dropping the future): leaves an unknown part written; the batch comes again.
    ///
    /// Several batches of one shard may be delivered at the same time (`max_in_flight`).
    ///
    /// # Errors
    /// See [`DeliverError`]; transient faults are for the sink to retry, with backoff.
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError>;

    /// The packing versions this sink can make, ascending; the last is the one for new cuts. A sink that
    /// stores records as they come has no packing of its own and says [`UNPACKED`].
    fn packing_versions(&self) -> &[u32];
}

/// The packing versions of a sink whose output does not depend on packing.
pub const UNPACKED: &[u32] = &[1];

/// What a delivery did. Events stored and left out must be all of the batch but the excluded ones: the worker compares
/// them with what it fetched (K1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delivered {
    /// Events stored.
    pub events: u64,
    /// Kinesis records those events came from, counted by the sink itself.
    pub records: u64,
    /// Events left out that the filter does not keep (see [`Batch::filtered`]).
    pub filtered: u64,
    /// Events left out that are not of the shard (see [`Batch::foreign`]).
    pub foreign: u64,
    /// Events that a filter, projection or reduction could not read; they are among [`Delivered::events`].
    pub unreadable: u64,
    /// Events without a time for their reduction; they are among [`Delivered::events`].
    pub untimed: Untimed,
    /// Places in the batch of events that cannot be read and become dead letters; they are not stored (see
    /// [`Batch::unreadable`]).
    pub dead_letters: Vec<usize>,
    /// Items written.
    pub items: u64,
    /// Write capacity units consumed, retries included.
    pub write_units: f64,
    /// Bytes of the events as published.
    pub raw_bytes: u64,
    /// Bytes stored.
    pub stored_bytes: u64,
    /// Events that went to the fallback key, because the key template found nothing usable.
    pub fallback_keys: u64,
    /// When the stored events arrived: what the worker tells their age by.
    pub arrivals: Arrivals,
    /// How large the stored groups are; nothing from a sink that has none.
    pub groups: GroupSizes,
}

impl Delivered {
    /// What a sink reports that stores the events of a batch as they come ([`Batch::stored`]), one an item.
    pub fn of(batch: &Batch) -> Self {
        let mut delivered = Self {
            filtered: batch.filtered(),
            foreign: batch.foreign(),
            dead_letters: batch.unreadable(),
            ..Self::default()
        };
        let mut before = None;
        for record in batch.stored() {
            delivered.events += 1;
            delivered.arrivals.add(record.arrival());
            delivered.items += 1;
            delivered.raw_bytes += record.data().len() as u64;
            delivered.stored_bytes += record.data().len() as u64;
            delivered.records += u64::from(before != Some(record.sequence_number()));
            before = Some(record.sequence_number());
        }
        delivered
    }
}

/// Arrivals of events in the order of their shard; those of the same millisecond that follow each other are one entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrivals(Vec<(ArrivalMillis, u64)>);

impl Arrivals {
    /// Adds the next event.
    pub fn add(&mut self, arrival: ArrivalMillis) {
        match self.0.last_mut() {
            Some((last, events)) if *last == arrival => *events += 1,
            Some(_) | None => self.0.push((arrival, 1)),
        }
    }

    /// Each arrival, and how many events have it.
    pub fn iter(&self) -> impl Iterator<Item = (ArrivalMillis, u64)> {
        self.0.iter().copied()
    }
}

/// Events that a reduction could give no window, because they have no time that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Untimed {
    /// How many.
    pub events: u64,
    /// The unit in which the number of one of them would be a time of our days.
    pub unit: Option<Unit>,
}

impl Untimed {
    /// Counts an event in.
    pub(crate) fn add(&mut self, window: Window) {
        if let Window::Untimed { unit } = window {
            self.events += 1;
            self.unit = self.unit.or(unit);
        }
    }
}

/// Events that can never be stored with their batch, and what the table says of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// Events that follow each other in the shard, all of one rejected group.
    pub events: Exclusion,
    /// The table's answer, for the operator.
    pub why: String,
}

/// Why a delivery ended without being durable.
#[derive(Debug, Error)]
pub enum DeliverError {
    /// Some events can never be stored: deliver the batch without them, under a higher revision.
    #[error("{} of the batch can never be stored; the first answer was: {}", counted(.offenders), first_answer(.offenders))]
    Poison {
        /// Which, in the order of the shard; never empty, and none that the cut excludes already.
        offenders: Vec<Offender>,
        /// Write capacity units consumed until they were found.
        write_units: f64,
    },
    /// The worker's right ended before everything was written; whoever owns the shard delivers again.
    #[error("the right to deliver ended")]
    RightEnded,
    /// The sink gave up for now; deliver the batch again after a while.
    #[error("the sink is unavailable: {what}")]
    Unavailable {
        /// What failed, for the operator.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The sink will never take this as things are: a missing table, a missing right, a rejected item.
    #[error("the sink refuses the batch: {what}")]
    Refused {
        /// What is wrong and what to do, for the operator.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cut needs a packing version that this sink lacks; it should have been amended.
    #[error("packing version {wanted} is not one that this sink makes")]
    PackingVersion {
        /// The version the cut names.
        wanted: u32,
    },
}

impl DeliverError {
    /// What the caller should do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::Backoff,
            Self::Poison { .. } | Self::RightEnded | Self::Refused { .. } | Self::PackingVersion { .. } => {
                Retry::Never
            }
        }
    }
}

fn counted(offenders: &[Offender]) -> String {
    match offenders.len() {
        1 => "a range of events".to_owned(),
        ranges => format!("{ranges} ranges of events"),
    }
}

fn first_answer(offenders: &[Offender]) -> &str {
    offenders.first().map_or("", |offender| &offender.why)
}
