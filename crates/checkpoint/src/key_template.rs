//! The key template: how a key is made of an event's fields, as in `{/carrier}-{/month}`.
//!
//! Text stands for itself, a JSON pointer (RFC 6901) in braces for the scalar it points at; `{{` and `}}` stand for
//! one brace each. An event for which the template finds nothing still gets a key, [`FALLBACK_KEY`], so that no
//! event is ever dropped for want of one. Whether a fallback is worth a warning is for the caller to decide, who
//! learns of each.
//!
//! Laws (tested): parsing then displaying gives back the text; a key is never empty and never longer than
//! [`KeyTemplate::MAX_KEY_CHARS`]; two numbers give one key exactly if they are the same decimal.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sluicegate_event::{Event, Kind, Pointer, PointerError, Value, number};
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
    pointers: Vec<Pointer>,
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
        let mut template = Self { text: text.to_owned(), parts: Vec::new(), pointers: Vec::new() };
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
                template.push_pointer(pointer(&characters[next + 1..close], next + 2)?);
                next = close + 1;
            } else {
                return Err(KeyTemplateError::Unopened { at: next + 1 });
            }
        }
        Ok(template)
    }

    /// The key of an event. Strings stand as they are, escapes resolved, with U+FFFD for half of a surrogate pair;
    /// booleans as JSON writes them; numbers in their [canonical form](number::Number::canonical): an integer is its
    /// digits, and `1e2`, `100` and `100.0` are `100`. A field that is missing, null, an object or an array makes the
    /// whole key a fallback.
    pub fn render(&self, event: &Event<'_>) -> Key {
        self.join(|slot| scalar(event.find(self.pointers.get(slot)?)?))
    }

    /// What the template takes from an event, in the order in which it stands there.
    pub(crate) fn pointers(&self) -> &[Pointer] {
        &self.pointers
    }

    /// The key that these texts make; each is asked for by the place of its pointer.
    pub(crate) fn join<'v>(&self, text_in: impl Fn(usize) -> Option<Cow<'v, str>>) -> Key {
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
        if Self::could_give(&key) { Key::Found(key) } else { Key::Fallback }
    }

    /// Whether a text is one that a template could give as a key. Kinesis allows no other partition key; a damaged
    /// aggregate may hold any.
    pub fn could_give(key: &str) -> bool {
        // A text has at least as many bytes as characters, so most keys need no count.
        let fits = key.len() <= Self::MAX_KEY_CHARS || key.chars().count() <= Self::MAX_KEY_CHARS;
        !key.is_empty() && fits
    }

    fn push_literal(&mut self, character: char) {
        match self.parts.last_mut() {
            Some(Part::Literal(text)) => text.push(character),
            Some(Part::Slot(_)) | None => self.parts.push(Part::Literal(character.to_string())),
        }
    }

    fn push_pointer(&mut self, pointer: Pointer) {
        self.parts.push(Part::Slot(self.pointers.len()));
        self.pointers.push(pointer);
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

/// Reads a pointer, whose first character is the `at`th of the template.
fn pointer(characters: &[char], at: usize) -> Result<Pointer, KeyTemplateError> {
    let text: String = characters.iter().collect();
    Pointer::parse(&text).map_err(|error| match error {
        PointerError::NoSlash => KeyTemplateError::NoPointer { at, found: text.clone() },
        PointerError::Escape { at: within } => KeyTemplateError::Escape { at: at + within - 1 },
    })
}

fn scalar(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value.kind() {
        Kind::String => value.string(),
        Kind::Number => number::canonical(value.text()),
        Kind::Bool(truth) => Some(Cow::Borrowed(if truth { "true" } else { "false" })),
        Kind::Null | Kind::Array | Kind::Object => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn rendered(template: &str, event: &Value) -> Key {
        rendered_text(template, &event.to_string())
    }

    fn rendered_text(template: &str, event: &str) -> Key {
        KeyTemplate::parse(template).unwrap().render(&Event::parse(event.as_bytes()).unwrap())
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
        assert!(rendered_text("{/a/b}", r#"{"a":{"b":1},"a":2}"#).is_fallback());
        assert_eq!(rendered_text("{/a/b}", r#"{"a":{"b":1},"a":{"b":2}}"#), Key::Found("2".to_owned()));
    }

    #[test]
    fn numbers_are_their_digits_and_half_a_surrogate_is_the_replacement_character() {
        for (event, key) in [
            (r#"{"a":92838584930183242888}"#, "92838584930183242888"),
            (r#"{"a":92838584930183242889}"#, "92838584930183242889"),
            (r#"{"a":1e2}"#, "100"),
            (r#"{"a":100.0}"#, "100"),
            (r#"{"a":-0}"#, "0"),
            (r#"{"a":1e999999999}"#, "1e999999999"),
            (r#"{"a":"cut \ud83d"}"#, "cut \u{FFFD}"),
        ] {
            assert_eq!(rendered_text("{/a}", event), Key::Found(key.to_owned()), "{event}");
        }
        let long = format!("{{\"a\":{}}}", "9".repeat(257));
        assert!(rendered_text("{/a}", &long).is_fallback(), "longer than a key may be");
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
            prop_assert_eq!(template.render(&Event::parse(b"null").unwrap()), Key::Found(text));
        }

        #[test]
        fn a_key_has_1_to_256_characters(
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
