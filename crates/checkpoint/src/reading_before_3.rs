//! How events were read under decoding versions 1 and 2, for cuts that recorded them. Nothing else uses it.
//!
//! Two parsers read an event then. `serde_json` made keys: numbers as doubles, so that long integers that differ in their
//! last digits had one key; fields that no template named could hold anything, at any depth. Filter, fields and reduction
//! read a tree of our own, which took no event with half of a surrogate pair. An event could have a key and count as
//! unreadable, or the other way round. A batch that was announced so is delivered so.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use sluicegate_event::pointer::Step;
use sluicegate_event::{Decimal, Event};

use crate::key_template::{Key, KeyTemplate};
use crate::transform::time;

/// An event as filter, fields and reduction read it; `None` counted as unreadable.
pub(crate) fn event(bytes: &[u8]) -> Option<Event<'_>> {
    Event::parse(bytes).ok().filter(|event| !event.has_half_surrogates())
}

/// The time that a field held for a reduction, in milliseconds since 1970: a string as RFC 3339 has it, or any number of
/// milliseconds.
pub(crate) fn moment(field: sluicegate_event::Value<'_>) -> Option<i64> {
    match (field.string(), field.number()) {
        (Some(text), _) => time::parse(&text),
        // Whole milliseconds, however they are written: 1.7e12 as well.
        (None, Some(text)) => i64::try_from(Decimal::of_event(text)?.whole()).ok(),
        (None, None) => None,
    }
}

/// The key of an event; one that could not be read had the fallback.
pub(crate) fn key(template: &KeyTemplate, event: &[u8]) -> Key {
    rendered(template, event).unwrap_or(Key::Fallback)
}

fn rendered(template: &KeyTemplate, event: &[u8]) -> Result<Key, serde_json::Error> {
    let text = std::str::from_utf8(event).map_err(serde_json::Error::custom)?;
    let mut node = Node::default();
    for (slot, pointer) in template.pointers().iter().enumerate() {
        node.add(pointer.steps(), slot);
    }
    let mut found = vec![None; template.pointers().len()];
    let mut json = serde_json::Deserializer::from_str(text);
    Select { node: &node, found: &mut found }.deserialize(&mut json)?;
    json.end()?;
    Ok(template.join(|slot| found.get(slot)?.as_deref().map(Cow::Borrowed)))
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// All pointers of a template as one tree, so that one pass over an event finds every value.
#[derive(Debug, Default)]
struct Node<'t> {
    /// The pointers that end here.
    slots: Vec<usize>,
    children: Vec<(&'t Step, Self)>,
}

impl<'t> Node<'t> {
    fn add(&mut self, pointer: &'t [Step], slot: usize) {
        let Some((first, rest)) = pointer.split_first() else {
            self.slots.push(slot);
            return;
        };
        let known = self.children.iter().position(|(step, _)| *step == first);
        let at = known.unwrap_or(self.children.len());
        if known.is_none() {
            self.children.push((first, Self::default()));
        }
        if let Some((_, child)) = self.children.get_mut(at) {
            child.add(rest, slot);
        }
    }

    fn forget(&self, found: &mut [Option<String>]) {
        for &slot in &self.slots {
            found[slot] = None;
        }
        for (_, child) in &self.children {
            child.forget(found);
        }
    }
}

/// Reads one JSON value and keeps of it what the tree below `node` names.
struct Select<'n, 'f> {
    node: &'n Node<'n>,
    found: &'f mut [Option<String>],
}

impl<'de> DeserializeSeed<'de> for Select<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        // Of a member that comes twice the last one counts, as everywhere in serde_json.
        self.node.forget(self.found);
        if self.node.slots.is_empty() {
            return json.deserialize_any(self);
        }
        // A pointer ends here: a scalar has nothing below it, and anything else makes the whole key a fallback.
        let text = scalar(Value::deserialize(json)?);
        for &slot in &self.node.slots {
            self.found[slot].clone_from(&text);
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Select<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(child) = members.next_key_seed(Member(self.node))? {
            match child {
                Some(node) => members.next_value_seed(Select { node, found: &mut *self.found })?,
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        for at in 0.. {
            let child = self.node.children.iter().find(|(step, _)| step.index() == Some(at));
            let element = match child {
                Some((_, node)) => elements.next_element_seed(Select { node, found: &mut *self.found })?,
                None => elements.next_element::<IgnoredAny>()?.map(drop),
            };
            if element.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// Reads the name of a member: the child of this node that it leads to, if any. Nothing is allocated for it.
struct Member<'n>(&'n Node<'n>);

impl<'de, 'n> DeserializeSeed<'de> for Member<'n> {
    type Value = Option<&'n Node<'n>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Member<'n> {
    type Value = Option<&'n Node<'n>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let child = self.0.children.iter().find(|(step, _)| step.name() == name);
        Ok(child.map(|(_, node)| node))
    }
}

#[cfg(test)]
mod tree;

#[cfg(test)]
mod tests;
