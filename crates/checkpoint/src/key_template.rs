//! The key template: how a key is made of an event's fields, as in `{/carrier}-{/month}`.
//!
//! Text stands for itself, a JSON pointer (RFC 6901) in braces for the scalar it points at; `{{` and `}}` stand for
//! one brace each. An event for which the template finds nothing still gets a key, [`FALLBACK_KEY`], so that no
//! event is ever dropped for want of one. Whether a fallback is worth a warning is for the caller to decide, who
//! learns of each.
//!
//! Laws (tested): parsing then displaying gives back the text; a key is never empty and never longer than
//! [`KeyTemplate::MAX_KEY_CHARS`]; [`KeyTemplate::render_json`] equals [`KeyTemplate::render`] of the parsed event.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// The key of every event for which a template finds no scalar, or gives an empty or an overlong key. It begins
/// with `~`, which sorts behind letters and digits, so that it stands apart in a listing.
pub const FALLBACK_KEY: &str = "~no-key";

/// A parsed key template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeyTemplate {
    text: String,
    parts: Vec<Part>,
    pointers: Vec<Vec<Token>>,
    tree: Node,
}

/// The key of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// What the template gave: 1 to 256 characters.
    Found(String),
    /// The template gave no usable key, so [`FALLBACK_KEY`] stands in.
    Fallback,
}

/// Why a text is no key template. Positions count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyTemplateError {
    /// Nothing in it.
    #[error("the key template is empty: write text, or a JSON pointer in braces such as {{/job_id}}")]
    Empty,
    /// A pointer without its end.
    #[error(
        "the {{ at character {at} of the key template is never closed: end the pointer with }}, or write {{{{ for a brace"
    )]
    Unclosed {
        /// Where the brace stands.
        at: usize,
    },
    /// An end without a pointer.
    #[error("the }} at character {at} of the key template closes nothing: write }}}} for a brace")]
    Unopened {
        /// Where the brace stands.
        at: usize,
    },
    /// A brace inside a pointer.
    #[error(
        "the {{ at character {at} of the key template stands inside a pointer: close that one with }} first"
    )]
    Nested {
        /// Where the inner brace stands.
        at: usize,
    },
    /// What stands in braces does not begin with a slash.
    #[error(
        "{found:?} at character {at} of the key template is no JSON pointer: begin it with /, as in {{/job_id}} or {{/job/id}}"
    )]
    NoPointer {
        /// Where it begins.
        at: usize,
        /// What stands there.
        found: String,
    },
    /// A `~` that escapes nothing.
    #[error(
        "the ~ at character {at} of the key template escapes nothing: write ~0 for ~ and ~1 for / in a field's name"
    )]
    Escape {
        /// Where it stands.
        at: usize,
    },
}

impl Key {
    /// The key as text; for a fallback, [`FALLBACK_KEY`].
    pub fn text(&self) -> &str {
        match self {
            Self::Found(text) => text,
            Self::Fallback => FALLBACK_KEY,
        }
    }

    /// The same, owned.
    pub fn into_text(self) -> String {
        match self {
            Self::Found(text) => text,
            Self::Fallback => FALLBACK_KEY.to_owned(),
        }
    }

    /// Whether the fallback stands in.
    pub fn is_fallback(&self) -> bool {
        *self == Self::Fallback
    }
}

impl KeyTemplate {
    /// Most characters of a key: 256 Unicode code points, as for a Kinesis partition key (Kinesis API reference,
    /// `PutRecordsRequestEntry`).
    pub const MAX_KEY_CHARS: usize = 256;

    /// Reads a template. A field whose name holds a brace cannot be pointed at, and neither can the whole event.
    ///
    /// # Errors
    /// Where the text stops making sense, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, KeyTemplateError> {
        if text.is_empty() {
            return Err(KeyTemplateError::Empty);
        }
        let mut template =
            Self { text: text.to_owned(), parts: Vec::new(), pointers: Vec::new(), tree: Node::default() };
        let characters: Vec<char> = text.chars().collect();
        let mut next = 0;
        while let Some(&character) = characters.get(next) {
            if !matches!(character, '{' | '}') {
                template.push_literal(character);
                next += 1;
            } else if characters.get(next + 1) == Some(&character) {
                template.push_literal(character);
                next += 2;
            } else if character == '{' {
                let close = closing_brace(&characters, next)?;
                template.push_pointer(tokens(&characters[next + 1..close], next + 2)?);
                next = close + 1;
            } else {
                return Err(KeyTemplateError::Unopened { at: next + 1 });
            }
        }
        Ok(template)
    }

    /// The key of an event. Strings stand as they are, booleans and numbers as JSON writes their value (`1.50` as
    /// `1.5`, `1e2` as `100.0`); a field that is missing, null, an object or an array makes the whole key a
    /// fallback.
    pub fn render(&self, event: &Value) -> Key {
        self.join(|slot| scalar(find(event, &self.pointers[slot])?))
    }

    /// [`KeyTemplate::render`] of an event that is still text. It checks all of the text, but builds values only
    /// for the fields that the template names.
    ///
    /// # Errors
    /// When the bytes are not exactly one JSON value in UTF-8.
    pub fn render_json(&self, event: &[u8]) -> Result<Key, serde_json::Error> {
        let text = std::str::from_utf8(event).map_err(serde_json::Error::custom)?;
        let mut found = vec![None; self.pointers.len()];
        let mut json = serde_json::Deserializer::from_str(text);
        Select { node: &self.tree, found: &mut found }.deserialize(&mut json)?;
        json.end()?;
        Ok(self.join(|slot| found[slot].as_deref().map(Cow::Borrowed)))
    }

    fn join<'v>(&self, text_in: impl Fn(usize) -> Option<Cow<'v, str>>) -> Key {
        let mut key = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => key.push_str(text),
                Part::Slot(slot) => match text_in(*slot) {
                    Some(text) => key.push_str(&text),
                    None => return Key::Fallback,
                },
            }
        }
        // A text has at least as many bytes as characters, so most keys need no count.
        let fits = key.len() <= Self::MAX_KEY_CHARS || key.chars().count() <= Self::MAX_KEY_CHARS;
        if key.is_empty() || !fits { Key::Fallback } else { Key::Found(key) }
    }

    fn push_literal(&mut self, character: char) {
        match self.parts.last_mut() {
            Some(Part::Literal(text)) => text.push(character),
            Some(Part::Slot(_)) | None => self.parts.push(Part::Literal(character.to_string())),
        }
    }

    fn push_pointer(&mut self, pointer: Vec<Token>) {
        let slot = self.pointers.len();
        self.tree.add(&pointer, slot);
        self.pointers.push(pointer);
        self.parts.push(Part::Slot(slot));
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for KeyTemplate {
    type Err = KeyTemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for KeyTemplate {
    type Error = KeyTemplateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<KeyTemplate> for String {
    fn from(template: KeyTemplate) -> Self {
        template.text
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// The value at this place of `pointers`.
    Slot(usize),
}

/// One step of a pointer: a member of an object, or, where it reads as a number, an element of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    name: String,
    index: Option<usize>,
}

impl Token {
    fn new(name: String) -> Self {
        // RFC 6901, 4: an index has no leading zero and no sign.
        let is_index =
            name == "0" || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
        let index = if is_index { name.parse().ok() } else { None };
        Self { name, index }
    }
}

/// All pointers of a template as one tree, so that one pass over an event finds every value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    /// The pointers that end here.
    slots: Vec<usize>,
    children: Vec<(Token, Self)>,
}

impl Node {
    fn add(&mut self, pointer: &[Token], slot: usize) {
        let Some((first, rest)) = pointer.split_first() else {
            self.slots.push(slot);
            return;
        };
        let known = self.children.iter().position(|(token, _)| token == first);
        let at = known.unwrap_or(self.children.len());
        if known.is_none() {
            self.children.push((first.clone(), Self::default()));
        }
        self.children[at].1.add(rest, slot);
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

fn closing_brace(characters: &[char], open: usize) -> Result<usize, KeyTemplateError> {
    for (at, character) in characters.iter().enumerate().skip(open + 1) {
        match character {
            '}' => return Ok(at),
            '{' => return Err(KeyTemplateError::Nested { at: at + 1 }),
            _ => {}
        }
    }
    Err(KeyTemplateError::Unclosed { at: open + 1 })
}

/// Splits a pointer, whose first character is the `at`th of the template.
fn tokens(pointer: &[char], at: usize) -> Result<Vec<Token>, KeyTemplateError> {
    if pointer.first() != Some(&'/') {
        return Err(KeyTemplateError::NoPointer { at, found: pointer.iter().collect() });
    }
    let mut names = Vec::new();
    let mut characters = pointer.iter().enumerate();
    while let Some((offset, &character)) = characters.next() {
        let unescaped = match character {
            '/' => {
                names.push(String::new());
                continue;
            }
            '~' => match characters.next() {
                Some((_, '0')) => '~',
                Some((_, '1')) => '/',
                Some(_) | None => return Err(KeyTemplateError::Escape { at: at + offset }),
            },
            other => other,
        };
        if let Some(name) = names.last_mut() {
            name.push(unescaped);
        }
    }
    Ok(names.into_iter().map(Token::new).collect())
}

fn find<'v>(event: &'v Value, pointer: &[Token]) -> Option<&'v Value> {
    pointer.iter().try_fold(event, |value, token| match value {
        Value::Object(members) => members.get(&token.name),
        Value::Array(elements) => elements.get(token.index?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Reads one JSON value and keeps of it what the tree below `node` names.
struct Select<'t, 'f> {
    node: &'t Node,
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
        let text = scalar(&Value::deserialize(json)?).map(Cow::into_owned);
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
            let child = self.node.children.iter().find(|(token, _)| token.index == Some(at));
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
struct Member<'t>(&'t Node);

impl<'de, 't> DeserializeSeed<'de> for Member<'t> {
    type Value = Option<&'t Node>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'t> Visitor<'_> for Member<'t> {
    type Value = Option<&'t Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let child = self.0.children.iter().find(|(token, _)| token.name == name);
        Ok(child.map(|(_, node)| node))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rendered(template: &str, event: &Value) -> Key {
        let template = KeyTemplate::parse(template).unwrap();
        // From text, as events come: a float that was written may read back as its neighbour.
        let text = event.to_string();
        let key = template.render(&serde_json::from_str(&text).unwrap());
        assert_eq!(template.render_json(text.as_bytes()).unwrap(), key, "{template} of {event}");
        key
    }

    #[test]
    fn scalars_render_as_json_writes_them_and_strings_as_they_are() {
        let event =
            json!({"a": "x y", "n": -3, "f": 1.5, "t": true, "l": [{"z": 7}, "é"], "": 1, "s/l~": "ok"});
        let cases = [
            ("{/a}", "x y"),
            ("{/n}|{/f}|{/t}", "-3|1.5|true"),
            ("{/l/0/z}-{/l/1}", "7-é"),
            ("{/}", "1"),
            ("{/s~1l~0}", "ok"),
            ("{{{/a}}}", "{x y}"),
            ("all", "all"),
            ("{/a}{/a}", "x yx y"),
        ];
        for (template, key) in cases {
            assert_eq!(rendered(template, &event), Key::Found(key.to_owned()), "{template}");
        }
    }

    #[test]
    fn what_is_no_scalar_or_gives_no_usable_key_falls_back() {
        let long = "é".repeat(257);
        let event = json!({"o": {"x": 1}, "l": [1], "null": null, "e": "", "long": long, "most": &long[2..]});
        for template in
            ["{/none}", "a{/o}", "{/l}", "{/null}", "{/e}", "{/long}", "{/l/00}", "{/l/1}", "{/o}{/o/x}"]
        {
            let key = rendered(template, &event);
            assert!(key.is_fallback() && key.text() == FALLBACK_KEY, "{template}: {key:?}");
        }
        assert_eq!(rendered("{/most}", &event).text().chars().count(), KeyTemplate::MAX_KEY_CHARS);
        assert!(rendered("{/a}", &json!(3)).is_fallback());
    }

    #[test]
    fn of_a_member_that_comes_twice_the_last_one_counts() {
        for event in [r#"{"a":{"b":1},"a":2}"#, r#"{"a":{"b":1},"a":{"b":2}}"#] {
            let template = KeyTemplate::parse("{/a/b}").unwrap();
            let value: Value = serde_json::from_str(event).unwrap();
            assert_eq!(template.render_json(event.as_bytes()).unwrap(), template.render(&value), "{event}");
        }
    }

    #[test]
    fn text_that_is_not_one_json_value_is_refused_wherever_the_fault_lies() {
        for template in ["{/a}", "literal"] {
            let template = KeyTemplate::parse(template).unwrap();
            for event in [&b"{\"a\":1,\"b\":}"[..], b"{\"a\":1} 2", b"", b"{\"b\":\"\xff\"}", b"{\"a\":1"] {
                assert!(template.render_json(event).is_err(), "{event:?}");
            }
        }
    }

    #[test]
    fn a_malformed_template_says_where_and_what_to_do() {
        let cases = [
            ("", KeyTemplateError::Empty),
            ("a{/b", KeyTemplateError::Unclosed { at: 2 }),
            ("é}", KeyTemplateError::Unopened { at: 2 }),
            ("{/a{/b}", KeyTemplateError::Nested { at: 4 }),
            ("-{job}", KeyTemplateError::NoPointer { at: 3, found: "job".to_owned() }),
            ("{}", KeyTemplateError::NoPointer { at: 2, found: String::new() }),
            ("{/a~2}", KeyTemplateError::Escape { at: 4 }),
            ("{/a~}", KeyTemplateError::Escape { at: 4 }),
        ];
        for (template, error) in cases {
            assert!(!error.to_string().contains('\n'));
            assert_eq!(KeyTemplate::parse(template), Err(error), "{template}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,300}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_template_displays_as_it_was_written(text in "([a-z~]|\\{\\{|\\}\\}|\\{(/([a-z0-9]|~[01]){0,3}){1,3}\\}){1,8}") {
            let template = KeyTemplate::parse(&text).unwrap();
            prop_assert_eq!(template.to_string(), text.as_str());
            let json = serde_json::to_string(&template).unwrap();
            prop_assert_eq!(serde_json::from_str::<KeyTemplate>(&json).unwrap(), template);
        }

        #[test]
        fn any_text_with_doubled_braces_is_its_own_key(text in "\\PC{1,256}") {
            let template = KeyTemplate::parse(&text.replace('{', "{{").replace('}', "}}")).unwrap();
            prop_assert_eq!(template.render(&Value::Null), Key::Found(text));
        }

        #[test]
        fn both_ways_agree_on_a_key_of_1_to_256_characters(
            event in any_json(),
            text in "[xy]{0,2}(\\{(/[ab01]){1,3}\\}){1,3}",
        ) {
            let key = rendered(&text, &event);
            prop_assert!((1..=KeyTemplate::MAX_KEY_CHARS).contains(&key.text().chars().count()));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "[{}/~a0]{0,12}") {
            if let Ok(template) = KeyTemplate::parse(&text) {
                prop_assert_eq!(template.to_string(), text);
            }
        }
    }
}
