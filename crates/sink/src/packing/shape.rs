//! What is stored of a group's events: they themselves, some of their fields, or counts and sums of them. **Pure.**

use std::borrow::Cow;
use std::collections::BTreeMap;

use sluicegate_checkpoint::transform::json;
use sluicegate_checkpoint::{Fields, PackingParameters, Record, Reduce};

use crate::reduction::Reduction;

/// What becomes of a group's events.
pub(super) struct Shaped {
    /// Made of the events; `None` stores the events.
    made: Option<Vec<Record>>,
    /// Events that could not be read as JSON, where the filter has not counted them already.
    pub unreadable: u64,
}

impl Shaped {
    /// What is to be framed.
    pub(super) fn frames<'a>(&'a self, records: &'a [&'a Record]) -> Cow<'a, [&'a Record]> {
        match &self.made {
            Some(made) => made.iter().collect(),
            None => Cow::Borrowed(records),
        }
    }
}

/// Shapes the events of a group.
pub(super) fn shaped(parameters: &PackingParameters, key: &str, records: &[&Record]) -> Shaped {
    let (made, unreadable) = match (&parameters.fields, &parameters.reduce) {
        (None, None) => return Shaped { made: None, unreadable: 0 },
        (Some(fields), None) => projected(fields, records),
        (_, Some(reduce)) => reduced(reduce, key, records),
    };
    let counted_by_filter = parameters.filter.is_some();
    Shaped { made: Some(made), unreadable: if counted_by_filter { 0 } else { unreadable } }
}

fn projected(fields: &Fields, records: &[&Record]) -> (Vec<Record>, u64) {
    let mut unreadable = 0;
    let project = |record: &&Record| {
        let Some(kept) = fields.project(record.data()) else {
            unreadable += u64::from(json::parse(record.data()).is_none());
            return Record::clone(record);
        };
        record.with_data(kept)
    };
    let made = records.iter().map(project).collect();
    (made, unreadable)
}

/// One reduction for each window, at the place of the first event that went into it: so a range of arrivals that
/// consists of whole windows holds all of them and nothing else.
fn reduced(reduce: &Reduce, key: &str, records: &[&Record]) -> (Vec<Record>, u64) {
    let mut windows: BTreeMap<Option<i64>, (usize, Reduction)> = BTreeMap::new();
    let mut unreadable = 0;
    for (index, record) in records.iter().enumerate() {
        let event = json::parse(record.data());
        unreadable += u64::from(event.is_none());
        let window = reduce.window(record.arrival(), event.as_ref());
        let begin = || (index, Reduction::new(key, reduce, window));
        windows.entry(window).or_insert_with(begin).1.add(reduce, event.as_ref());
    }
    let mut windows: Vec<(usize, Reduction)> = windows.into_values().collect();
    windows.sort_by_key(|(first, _)| *first);
    let made = windows.into_iter().filter_map(|(first, reduction)| {
        let at = records.get(first)?;
        Some(
            Record::new(at.sequence_number().clone(), at.arrival(), "", reduction.to_string())
                .at_sub(at.sub_sequence_number().0),
        )
    });
    (made.collect(), unreadable)
}
