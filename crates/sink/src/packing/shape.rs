//! What is stored of a group's events: they themselves, some of their fields, or counts and sums of them. **Pure.**

use std::collections::BTreeMap;

use bytes::Bytes;
use sluicegate_checkpoint::batch::Judged;
use sluicegate_checkpoint::transform::{Verdict, Window};
use sluicegate_checkpoint::{PackingParameters, Record};

use crate::reduction::Reduction;

/// What becomes of a group's events, gathered event by event.
pub(super) enum Shape {
    /// They are stored as they were published.
    Whole,
    /// What is kept of each, in the order of the events.
    Projected(Vec<Bytes>),
    /// One reduction for each window, and the place among the events of the first that went into it. They have no key
    /// yet.
    Reduced(BTreeMap<Option<i64>, (usize, Reduction)>),
}

impl Shape {
    /// Of no events.
    pub(super) fn of(parameters: &PackingParameters) -> Self {
        match (&parameters.fields, &parameters.reduce) {
            (None, None) => Self::Whole,
            (Some(_), None) => Self::Projected(Vec::new()),
            (_, Some(_)) => Self::Reduced(BTreeMap::new()),
        }
    }

    /// Takes the next event, which is the `place`th of its group, from 0. Returns the window that it belongs to, if it is
    /// reduced.
    pub(super) fn add(
        &mut self,
        parameters: &PackingParameters,
        place: usize,
        record: &Record,
        judged: &Judged<'_>,
    ) -> Option<Window> {
        let event = judged.event.as_ref().filter(|_| judged.verdict != Verdict::Unreadable);
        match self {
            Self::Whole => None,
            Self::Projected(kept) => {
                let fields = parameters.fields.as_ref();
                let projected = event.and_then(|event| fields?.project(event));
                kept.push(projected.map_or_else(|| record.data_bytes(), Bytes::from));
                None
            }
            Self::Reduced(windows) => {
                let reduce = parameters.reduce.as_ref()?;
                let window = reduce.window(record.arrival(), event, parameters.decoding_version);
                let begin = || (place, Reduction::new("", reduce, window.begins()));
                windows.entry(window.begins()).or_insert_with(begin).1.add(reduce, event);
                Some(window)
            }
        }
    }

    /// What is to be framed instead of the events; `None` frames the events. A reduction stands at the place of the first
    /// event that went into it: so a range of arrivals that consists of whole windows holds all of them and nothing else.
    pub(super) fn made(self, key: &str, records: &[&Record]) -> Option<Vec<Record>> {
        match self {
            Self::Whole => None,
            Self::Projected(kept) => {
                let records = records.iter().zip(kept);
                Some(records.map(|(record, data)| in_place_of(record, data)).collect())
            }
            Self::Reduced(windows) => {
                let mut windows: Vec<(usize, Reduction)> = windows.into_values().collect();
                windows.sort_by_key(|(first, _)| *first);
                let made = windows.into_iter().filter_map(|(first, reduction)| {
                    let reduction = Reduction { key: key.to_owned(), ..reduction };
                    Some(in_place_of(records.get(first)?, reduction.to_string().into()))
                });
                Some(made.collect())
            }
        }
    }
}

/// A record with other data; frames hold neither partition key nor hash key.
fn in_place_of(record: &Record, data: Bytes) -> Record {
    Record::new(record.sequence_number().clone(), record.arrival(), "", data)
        .at_sub(record.sub_sequence_number().0)
}
