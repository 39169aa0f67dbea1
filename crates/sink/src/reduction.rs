//! A reduction: how many events a key has in a window of time, and count, sum, least and greatest of some of their
//! fields. **Pure.**
//!
//! A batch stores one for each key and window that it has events of; a reader merges them. Merging is exact and does not
//! depend on order, because sums are decimals that are never rounded ([`Decimal`]).
//!
//! ```text
//! {"key":"AA","window":"2013-01-01T00:00:00Z","reduce":"/dep_delay per 1d by /time_hour","events":12,"unreadable":0,
//!  "fields":{"/dep_delay":{"count":11,"sum":93.5,"min":-5,"max":40}}}
//! ```
//! `window` is null for events without a time. A field counts the events in which it is a number that can be added; the
//! others are `events` less `count`. Without any, `min` and `max` are null.

use std::fmt;

use sluicegate_checkpoint::Reduce;
use sluicegate_checkpoint::transform::time;
use sluicegate_event::{Decimal, Event, Kind, Value, json_string as quoted};

/// Counts and sums of the events of one key and window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduction {
    /// The aggregate key.
    pub key: String,
    /// When the window begins, in milliseconds since 1970; `None` for events without a time.
    pub window: Option<i64>,
    /// The reduction that was configured, as it was recorded. Those of different words are not merged.
    pub reduce: String,
    /// Events.
    pub events: u64,
    /// Those among them that are no JSON.
    pub unreadable: u64,
    /// The fields, in the order of the configuration.
    pub fields: Vec<FieldSum>,
}

/// What is known of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSum {
    /// The pointer to it.
    pub field: String,
    /// Events in which it is a number that can be added.
    pub count: u64,
    /// Their sum.
    pub sum: Decimal,
    /// The least and the greatest of them.
    pub range: Option<(Decimal, Decimal)>,
}

impl FieldSum {
    fn merge(&mut self, other: &Self) -> Option<()> {
        self.count = self.count.checked_add(other.count)?;
        self.sum = self.sum.plus(other.sum)?;
        self.range = match (self.range, other.range) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (range, None) | (None, range) => range,
        };
        Some(())
    }
}

impl Reduction {
    /// One of no events.
    pub(crate) fn new(key: &str, reduce: &Reduce, window: Option<i64>) -> Self {
        let field = |field: &str| FieldSum {
            field: field.to_owned(),
            count: 0,
            sum: Decimal::default(),
            range: None,
        };
        Self {
            key: key.to_owned(),
            window,
            reduce: reduce.to_string(),
            events: 0,
            unreadable: 0,
            fields: reduce.of().iter().map(|pointer| field(pointer.as_str())).collect(),
        }
    }

    /// Counts an event in; `None` is one that is no JSON.
    pub(crate) fn add(&mut self, reduce: &Reduce, event: Option<&Event<'_>>) {
        self.events += 1;
        let Some(event) = event else {
            self.unreadable += 1;
            return;
        };
        for (pointer, sum) in reduce.of().iter().zip(&mut self.fields) {
            let value = event.find(pointer).and_then(|value| Decimal::of_event(value.number()?));
            let Some(value) = value else { continue };
            let one = FieldSum { field: String::new(), count: 1, sum: value, range: Some((value, value)) };
            // Decimals are bounded so that no batch can make a sum overflow.
            sum.merge(&one).unwrap_or_default();
        }
    }

    /// Whether another one is of the same key, window and configuration.
    pub fn same_window(&self, other: &Self) -> bool {
        (&self.key, self.window, &self.reduce) == (&other.key, other.window, &other.reduce)
    }

    /// Adds another one of the same window; `None` if a sum would overflow, or their fields differ.
    #[must_use]
    pub fn merge(&mut self, other: &Self) -> Option<()> {
        let fields = |reduction: &Self| -> Vec<String> {
            reduction.fields.iter().map(|field| field.field.clone()).collect()
        };
        (self.same_window(other) && fields(self) == fields(other)).then_some(())?;
        self.events = self.events.checked_add(other.events)?;
        self.unreadable = self.unreadable.checked_add(other.unreadable)?;
        self.fields.iter_mut().zip(&other.fields).try_for_each(|(field, other)| field.merge(other))
    }

    /// Reads one that was stored.
    pub fn parse(stored: &[u8]) -> Option<Self> {
        let event = Event::parse(stored).ok()?;
        let node = event.root();
        let window = node.member("window")?;
        let window = if window.kind() == Kind::Null { None } else { Some(time::parse(&window.string()?)?) };
        Some(Self {
            key: node.member("key")?.string()?.into_owned(),
            window,
            reduce: node.member("reduce")?.string()?.into_owned(),
            events: count(node, "events")?,
            unreadable: count(node, "unreadable")?,
            fields: fields(node.member("fields")?)?,
        })
    }
}

fn count(node: Value<'_>, name: &str) -> Option<u64> {
    node.member(name)?.number()?.parse().ok()
}

fn fields(node: Value<'_>) -> Option<Vec<FieldSum>> {
    if node.kind() != Kind::Object {
        return None;
    }
    let field = |(name, value): (Value<'_>, Value<'_>)| {
        let decimal = |name: &str| Decimal::parse(value.member(name)?.number()?);
        Some(FieldSum {
            field: name.string()?.into_owned(),
            count: count(value, "count")?,
            sum: decimal("sum")?,
            range: decimal("min").zip(decimal("max")),
        })
    };
    node.members().map(field).collect()
}

impl fmt::Display for Reduction {
    /// As it is stored, and as a reader prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = self.window.and_then(time::text);
        let window = window.map_or_else(|| "null".to_owned(), |text| quoted(&text));
        write!(f, "{{\"key\":{},\"window\":{window},\"reduce\":{}", quoted(&self.key), quoted(&self.reduce))?;
        write!(f, ",\"events\":{},\"unreadable\":{},\"fields\":{{", self.events, self.unreadable)?;
        for (index, field) in self.fields.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let end =
                |value: Option<Decimal>| value.map_or_else(|| "null".to_owned(), |value| value.to_string());
            let (min, max) = (end(field.range.map(|range| range.0)), end(field.range.map(|range| range.1)));
            write!(f, "{comma}{}:{{\"count\":{},\"sum\":{}", quoted(&field.field), field.count, field.sum)?;
            write!(f, ",\"min\":{min},\"max\":{max}}}")?;
        }
        f.write_str("}}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reduced(events: &[&str]) -> Reduction {
        let reduce: Reduce = "/n \"/a b\" per 1h".parse().unwrap();
        let mut reduction = Reduction::new("k\"1", &reduce, Some(3_600_000));
        events.iter().for_each(|event| reduction.add(&reduce, Event::parse(event.as_bytes()).ok().as_ref()));
        reduction
    }

    #[test]
    fn events_are_counted_and_their_fields_summed() {
        let reduction =
            reduced(&[r#"{"n":1.50}"#, r#"{"n":-3,"a b":7}"#, "text", r#"{"n":"4"}"#, r#"{"n":1e99}"#]);
        assert_eq!(
            reduction.to_string(),
            concat!(
                r#"{"key":"k\"1","window":"1970-01-01T01:00:00Z","reduce":"/n \"/a b\" per 1h","events":5,"unreadable":1,"#,
                r#""fields":{"/n":{"count":2,"sum":-1.5,"min":-3,"max":1.5},"/a b":{"count":1,"sum":7,"min":7,"max":7}}}"#
            )
        );
        assert!(reduced(&[]).to_string().ends_with(r#""/a b":{"count":0,"sum":0,"min":null,"max":null}}}"#));
    }

    #[test]
    fn other_windows_and_other_configurations_are_not_merged() {
        let mut one = reduced(&["{}"]);
        for other in [
            Reduction { window: None, ..one.clone() },
            Reduction { reduce: "/n per 1d".to_owned(), ..one.clone() },
            Reduction { key: "else".to_owned(), ..one.clone() },
            Reduction { fields: Vec::new(), ..one.clone() },
        ] {
            assert_eq!(one.merge(&other), None);
        }
        assert_eq!(one, reduced(&["{}"]));
    }

    #[test]
    fn what_is_no_reduction_is_none() {
        for text in ["", "{}", r#"{"n":1}"#, "[]"] {
            assert_eq!(Reduction::parse(text.as_bytes()), None);
        }
        let whole = reduced(&[r#"{"n":1}"#]).to_string();
        assert_eq!(Reduction::parse(whole.replace("\"sum\":1", "\"sum\":1e-30").as_bytes()), None);
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole_and_read_back(
            events in prop::collection::vec("\\{\"n\":-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,9})?(,\"a b\":[0-9])?\\}|\\{\\}|x", 0..20),
            split in 0usize..20,
        ) {
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            let whole = reduced(&events);
            prop_assert_eq!(Reduction::parse(whole.to_string().as_bytes()), Some(whole.clone()));
            let (left, right) = events.split_at(split.min(events.len()));
            let mut merged = reduced(right);
            merged.merge(&reduced(left)).unwrap();
            prop_assert_eq!(merged, whole);
        }
    }
}
