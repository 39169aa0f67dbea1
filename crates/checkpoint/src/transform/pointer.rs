//! JSON pointers (RFC 6901) into an event. **Pure.**

use std::fmt;

use super::SyntaxError;
use super::json::{Kind, Node};

/// A pointer such as `/job/id`; never the whole event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    names: Vec<String>,
}

impl Pointer {
    /// Reads a pointer, whose first character is the `at`th of what it stands in.
    ///
    /// # Errors
    /// It does not begin with a slash, or a `~` in it escapes nothing.
    pub(super) fn parse(text: &str, at: usize) -> Result<Self, SyntaxError> {
        let Some(rest) = text.strip_prefix('/') else {
            let why = format!("{text:?} is no JSON pointer: begin it with /, as in /job_id or /job/id");
            return Err(SyntaxError::new(at, why));
        };
        let names = rest.split('/').map(unescaped).collect::<Option<_>>();
        let why = || format!("a ~ in {text} escapes nothing: write ~0 for ~ and ~1 for / in a field's name");
        let names = names.ok_or_else(|| SyntaxError::new(at, why()))?;
        Ok(Self { text: text.to_owned(), names })
    }

    /// The pointer as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it points at.
    pub fn find<'n, 'a>(&self, event: &'n Node<'a>) -> Option<&'n Node<'a>> {
        self.names.iter().try_fold(event, |node, name| match &node.kind {
            Kind::Object(_) => node.member(name),
            Kind::Array(elements) => elements.get(index(name)?),
            Kind::Null | Kind::Bool(_) | Kind::Number | Kind::String(_) => None,
        })
    }

    /// Its steps, from the event inwards.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }
}

/// A step as the index of an array: RFC 6901, 4: no leading zero and no sign.
pub(super) fn index(name: &str) -> Option<usize> {
    let plain = name == "0" || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
    if plain { name.parse().ok() } else { None }
}

fn unescaped(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

/// Whether a character ends a pointer that is written without quotes.
pub(super) fn ends_bare_pointer(character: char) -> bool {
    character.is_whitespace() || character.is_control() || "()=!<>,\"".contains(character)
}

impl fmt::Display for Pointer {
    /// In quotes only where it needs them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.contains(ends_bare_pointer) {
            f.write_str(&super::words::quoted(&self.text))
        } else {
            f.write_str(&self.text)
        }
    }
}
