//! JSON pointers (RFC 6901) into an event. **Pure.**

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A pointer such as `/job/id`; never the whole event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    steps: Vec<Step>,
}

/// One step of a pointer: a member of an object, or, where it reads as a number, an element of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    name: String,
    index: Option<usize>,
}

/// Why a text is not a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PointerError {
    /// It does not begin with a slash.
    #[error("a JSON pointer begins with /, as in /job_id or /job/id")]
    NoSlash,
    /// A `~` that escapes nothing.
    #[error("the ~ at character {at} escapes nothing: write ~0 for ~ and ~1 for / in a field's name")]
    Escape {
        /// Where it stands, counted in characters from 1.
        at: usize,
    },
}

impl Step {
    fn new(name: String) -> Self {
        // RFC 6901, 4: an index has no leading zero and no sign.
        let plain = name == "0" || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
        let index = if plain { name.parse().ok() } else { None };
        Self { name, index }
    }

    /// The member that it leads to.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The element that it leads to, from 0.
    pub fn index(&self) -> Option<usize> {
        self.index
    }
}

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    /// It does not begin with a slash, or a `~` in it escapes nothing.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if !text.starts_with('/') {
            return Err(PointerError::NoSlash);
        }
        let mut names: Vec<String> = Vec::new();
        let mut characters = text.chars().enumerate();
        while let Some((before, character)) = characters.next() {
            let unescaped = match character {
                '/' => {
                    names.push(String::new());
                    continue;
                }
                '~' => match characters.next() {
                    Some((_, '0')) => '~',
                    Some((_, '1')) => '/',
                    Some(_) | None => return Err(PointerError::Escape { at: before + 1 }),
                },
                other => other,
            };
            if let Some(name) = names.last_mut() {
                name.push(unescaped);
            }
        }
        Ok(Self { text: text.to_owned(), steps: names.into_iter().map(Step::new).collect() })
    }

    /// The pointer as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its steps, from the event inwards; at least one.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Event;
    use crate::parse::tests::any_json;

    #[test]
    fn a_malformed_pointer_says_where() {
        for (text, error) in [
            ("", PointerError::NoSlash),
            ("a", PointerError::NoSlash),
            ("/é~2", PointerError::Escape { at: 3 }),
            ("/a/~", PointerError::Escape { at: 4 }),
        ] {
            assert_eq!(Pointer::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn of_a_member_that_comes_twice_the_last_one_counts() {
        let event = Event::parse(br#"{"a":{"b":1},"\u0061":{"b":[2,{"~/":3}]},"":4}"#).unwrap();
        let found = |pointer: &str| event.find(&pointer.parse().unwrap()).map(|value| value.text());
        assert_eq!(found("/a/b/0"), Some("2"));
        assert_eq!(found("/a/b/1/~0~1"), Some("3"));
        assert_eq!(found("/"), Some("4"));
        for none in ["/a/b/00", "/a/b/+1", "/a/b/2", "/a/b/0/0", "/c", "/a/b/-"] {
            assert_eq!(found(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn a_pointer_finds_what_serde_json_finds(json in any_json(), pointer in "(/([abc]|0|1|2|00|~0|~1)){1,4}") {
            let text = json.to_string();
            let event = Event::parse(text.as_bytes()).unwrap();
            let found = event.find(&pointer.parse().unwrap()).map(|value| value.text().to_owned());
            prop_assert_eq!(found, json.pointer(&pointer).map(ToString::to_string));
        }
    }
}
