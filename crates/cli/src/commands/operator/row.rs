//! A lease row for people and for machines, and what differs between two.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use sluicegate_checkpoint::ArrivalMillis;
use sluicegate_lease::operator::standing::{Standing, standing};
use sluicegate_lease::{Lease, LeaseKey};

/// A row as machines get it. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) owner: Option<String>,
    pub(crate) counter: u64,
    pub(crate) checkpoint: String,
    pub(crate) sub_sequence_number: u64,
    /// Where an AT_TIMESTAMP checkpoint begins.
    pub(crate) starts_at: Option<String>,
    pub(crate) epoch: u32,
    pub(crate) announced_batches: usize,
    pub(crate) announced_records: u64,
    pub(crate) owner_switches: u64,
    pub(crate) checkpoint_arrival: Option<String>,
    pub(crate) caught_up: Option<String>,
}

impl Row {
    pub(crate) fn of(lease: &Lease) -> Self {
        let state =
            lease.pending.state().unwrap_or_else(|| sluicegate_checkpoint::LeaseState::starting(None));
        Self {
            owner: lease.owner.as_ref().map(ToString::to_string),
            counter: lease.counter.0,
            checkpoint: lease.checkpoint.as_column().to_owned(),
            sub_sequence_number: lease.checkpoint.sub_sequence_number().0,
            starts_at: state.start.map(time),
            epoch: state.epoch,
            announced_batches: state.cuts.len(),
            announced_records: state.cuts.iter().map(|cut| cut.records).sum(),
            owner_switches: lease.owner_switches,
            checkpoint_arrival: state.checkpoint_arrival.map(time),
            caught_up: state.caught_up.map(time),
        }
    }

    /// Name and value of each attribute, in the order in which people read them.
    pub(crate) fn attributes(&self) -> [(&'static str, String); 9] {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let checkpoint = match self.sub_sequence_number {
            0 => self.checkpoint.clone(),
            sub => format!("{}:{sub}", self.checkpoint),
        };
        [
            ("checkpoint", checkpoint),
            ("starts at", or_none(&self.starts_at)),
            ("epoch", self.epoch.to_string()),
            ("owner", self.owner.clone().unwrap_or_else(|| "nobody".to_owned())),
            ("counter", self.counter.to_string()),
            ("owner switches", self.owner_switches.to_string()),
            ("announced batches", self.announced_batches.to_string()),
            ("checkpoint arrival", or_none(&self.checkpoint_arrival)),
            ("caught up", or_none(&self.caught_up)),
        ]
    }
}

/// Attribute, before and after, of all that differ.
pub(crate) fn differences(before: &Row, after: &Row) -> Vec<(&'static str, String, String)> {
    let pairs = before.attributes().into_iter().zip(after.attributes());
    pairs
        .filter(|((_, before), (_, after))| before != after)
        .map(|((name, before), (_, after))| (name, before, after))
        .collect()
}

/// A row with what it stands in, as machines get it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shown {
    pub(crate) shard: String,
    pub(crate) state: &'static str,
    /// The unfinished parent that it waits for.
    pub(crate) waits_for: Option<String>,
    #[serde(flatten)]
    pub(crate) row: Row,
    pub(crate) parents: Vec<String>,
    pub(crate) children: Vec<String>,
}

impl Shown {
    pub(crate) fn of(lease: &Lease, rows: &BTreeMap<LeaseKey, Lease>) -> Self {
        let standing = standing(lease, rows);
        let ids = |ids: &std::collections::BTreeSet<LeaseKey>| ids.iter().map(ToString::to_string).collect();
        Self {
            shard: lease.key.to_string(),
            state: standing.as_str(),
            waits_for: match standing {
                Standing::Blocked(parent) => Some(parent.to_string()),
                Standing::Finished | Standing::Unreadable | Standing::Free | Standing::Owned(_) => None,
            },
            row: Row::of(lease),
            parents: ids(&lease.parents),
            children: ids(&lease.children),
        }
    }
}

/// A time as text, to the millisecond.
pub(crate) fn time(at: ArrivalMillis) -> String {
    match u64::try_from(at.0) {
        Ok(ms) => humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string(),
        Err(_before_1970) => format!("{} ms", at.0),
    }
}

/// How long ago a time was, in words; none if it is to come.
pub(crate) fn ago(at: ArrivalMillis, now: ArrivalMillis) -> Option<String> {
    let ms = u64::try_from(now.0 - at.0).ok()?;
    let age = if ms < 10_000 { Duration::from_millis(ms) } else { Duration::from_secs(ms / 1_000) };
    let text = humantime::format_duration(age).to_string();
    // Two units tell enough: 3h 12m.
    Some(text.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};
    use sluicegate_lease::WorkerId;

    #[test]
    fn only_what_differs_is_told() {
        let row = Lease::unowned(ShardId::new("s"), Position::TrimHorizon, LeaseState::starting(None));
        let taken = row.taken_by(&WorkerId::new("w"));
        let expected = [
            ("owner", "nobody".to_owned(), "w".to_owned()),
            ("counter", "0".to_owned(), "1".to_owned()),
            ("owner switches", "0".to_owned(), "1".to_owned()),
        ];
        assert_eq!(differences(&Row::of(&row), &Row::of(&taken)), expected);
        assert_eq!(differences(&Row::of(&row), &Row::of(&row)), []);
    }

    #[test]
    fn ages_have_two_units_and_the_future_has_none() {
        let at = |ms| ArrivalMillis(ms);
        assert_eq!(ago(at(0), at(1_250)).as_deref(), Some("1s 250ms"));
        assert_eq!(ago(at(0), at(11_520_999)).as_deref(), Some("3h 12m"));
        assert_eq!(ago(at(5), at(4)), None);
        assert_eq!(time(at(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
    }
}
