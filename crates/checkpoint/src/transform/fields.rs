//! The projection: which fields of an event are kept. **Pure.**
//!
//! An event loses every member that no pointer names and keeps the rest in its own order, each value in the exact
//! text that it was published as. A pointer into an array keeps that element alone; an object or array in which
//! nothing is found is left out. An event without fields (not JSON, or not an object) counts as unreadable.

use std::fmt;
use std::str::FromStr;

use sluicegate_event::pointer::Step;
use sluicegate_event::{Event, Kind, Pointer, Value};

use super::SyntaxError;
use super::words::{Words, Written};

/// The fields to keep: one or more pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields(Vec<Pointer>);

impl Fields {
    /// Reads pointers with white space or commas between them.
    ///
    /// # Errors
    /// Where the text stops making sense, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut words = Words::of(text)?;
        let mut pointers = vec![words.pointer("")?];
        loop {
            let comma = words.take(",");
            if !comma && words.is_at_end() {
                return Ok(Self(pointers));
            }
            pointers.push(words.pointer("")?);
        }
    }

    /// What is kept of an event; `None` if it is neither object nor array.
    pub fn project(&self, event: &Event<'_>) -> Option<Vec<u8>> {
        let root = event.root();
        let ends = match root.kind() {
            Kind::Object => "{}",
            Kind::Array => "[]",
            Kind::Null | Kind::Bool(_) | Kind::Number | Kind::String => return None,
        };
        let steps: Vec<&[Step]> = self.0.iter().map(Pointer::steps).collect();
        let mut out = String::with_capacity(root.text().len());
        if !keep(root, &steps, &mut out) {
            out.push_str(ends);
        }
        Some(out.into_bytes())
    }
}

/// Writes what the pointers, of which these steps are left, keep of a value. Writes nothing where that is nothing. It
/// goes as deep as the pointers have steps, whatever the event is.
fn keep(value: Value<'_>, steps: &[&[Step]], out: &mut String) -> bool {
    if steps.iter().any(|steps| steps.is_empty()) {
        out.push_str(value.text());
        return true;
    }
    match value.kind() {
        Kind::Object => {
            let members = value
                .members()
                .map(|(name, value)| (Some(name.text()), value, below(steps, |step| name.is(step.name()))));
            between("{", "}", members, out)
        }
        Kind::Array => {
            let elements = value
                .elements()
                .enumerate()
                .map(|(at, element)| (None, element, below(steps, |step| step.index() == Some(at))));
            between("[", "]", elements, out)
        }
        Kind::Null | Kind::Bool(_) | Kind::Number | Kind::String => false,
    }
}

/// The steps behind those that lead to one child.
fn below<'s>(steps: &[&'s [Step]], leads: impl Fn(&Step) -> bool) -> Vec<&'s [Step]> {
    let split = steps.iter().filter_map(|steps| steps.split_first());
    split.filter(|(first, _)| leads(first)).map(|(_, rest)| rest).collect()
}

fn between<'e, 's>(
    open: &str,
    close: &str,
    children: impl Iterator<Item = (Option<&'e str>, Value<'e>, Vec<&'s [Step]>)>,
    out: &mut String,
) -> bool {
    let begin = out.len();
    for (name, child, steps) in children {
        if steps.is_empty() {
            continue;
        }
        let before = out.len();
        out.push_str(if before == begin { open } else { "," });
        if let Some(name) = name {
            out.push_str(name);
            out.push(':');
        }
        if !keep(child, &steps, out) {
            out.truncate(before);
        }
    }
    if out.len() == begin {
        return false;
    }
    out.push_str(close);
    true
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|pointer| Written(pointer).to_string()).collect();
        f.write_str(&texts.join(" "))
    }
}

impl FromStr for Fields {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::super::tests::any_json;
    use super::*;

    fn projected(fields: &str, event: &str) -> Option<String> {
        let event = Event::parse(event.as_bytes()).unwrap();
        let kept = Fields::parse(fields).unwrap().project(&event);
        kept.map(|kept| String::from_utf8(kept).unwrap())
    }

    #[test]
    fn what_is_named_is_kept_in_its_own_order_and_text() {
        let event = r#" { "b" : 1.50, "a":{"x":[ 1, {"y" : 1e2} ],"z":null}, "d":"\u00e4", "b": 2 } "#;
        let cases = [
            ("/a/z /b", r#"{"b":1.50,"a":{"z":null},"b":2}"#),
            ("/d, /a/x", r#"{"a":{"x":[ 1, {"y" : 1e2} ]},"d":"\u00e4"}"#),
            ("/a/x/1/y", r#"{"a":{"x":[{"y":1e2}]}}"#),
            ("/a/x/0 /a/x/1", r#"{"a":{"x":[1,{"y" : 1e2}]}}"#),
            ("/none /d/e /a/x/7", "{}"),
            ("/a /a/z", r#"{"a":{"x":[ 1, {"y" : 1e2} ],"z":null}}"#),
        ];
        for (fields, kept) in cases {
            assert_eq!(projected(fields, event).as_deref(), Some(kept), "{fields}");
        }
        assert_eq!(projected("/1", "[1,2,3]").as_deref(), Some("[2]"));
        assert_eq!(projected("/a", "[1]").as_deref(), Some("[]"));
    }

    #[test]
    fn what_has_no_fields_is_not_touched() {
        for event in ["3", "\"text\"", "null"] {
            assert_eq!(projected("/a", event), None, "{event}");
        }
    }

    #[test]
    fn a_malformed_list_says_where() {
        for (text, at) in [("", 1), ("/a b", 4), ("/a,", 4), ("/a,,/b", 4), ("/a == 1", 4), ("/a~ /b", 1)] {
            assert_eq!(Fields::parse(text).unwrap_err().at, at, "{text}");
        }
    }

    /// What a value of the event is reached by.
    fn places(value: &Json, at: &str, out: &mut Vec<String>) {
        match value {
            Json::Object(members) => {
                members.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), out))
            }
            Json::Array(_) | Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
                out.push(at.to_owned())
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(text in "(/[ab]{1,2}|\"/[a (]{1,3}\")([ ,](/[ab]{1,2}|\"/[a (]{1,3}\")){0,3}") {
            let fields = Fields::parse(&text).unwrap();
            prop_assert_eq!(Fields::parse(&fields.to_string()).unwrap(), fields);
        }

        #[test]
        fn exactly_what_is_named_is_kept(event in any_json(), text in "(/[abc]){1,3}( (/[abc]){1,3}){0,2}") {
            prop_assume!(event.is_object());
            let kept = projected(&text, &event.to_string()).unwrap();
            let kept: Json = serde_json::from_str(&kept).unwrap();
            let (mut all, mut left) = (Vec::new(), Vec::new());
            places(&event, "", &mut all);
            places(&kept, "", &mut left);
            let named = |place: &String| text.split(' ').any(|field| *place == field || place.starts_with(&format!("{field}/")));
            all.retain(named);
            prop_assert_eq!(&all, &left);
            for place in all {
                prop_assert_eq!(event.pointer(&place), kept.pointer(&place));
            }
        }
    }
}
