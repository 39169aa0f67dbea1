//! The words that filters, lists of fields and reductions are written in. **Pure.**
//!
//! ```text
//! pointer  /a/b      up to white space or one of ( ) = ! < > , "       word    and, exists, 1.5e3, 1h
//! string   "a b"     as in JSON; in a pointer's place, a pointer       mark    ( ) == != < <= > >= ,
//! ```

use std::fmt;

use sluicegate_event::{Event, Pointer, PointerError, json_string};

use super::SyntaxError;

/// One word and where it begins, counted in characters from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) at: usize,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Pointer(Pointer),
    String(String),
    /// Letters, digits, and what numbers are written with.
    Bare(String),
    Mark(&'static str),
}

const MARKS: [&str; 9] = ["==", "!=", "<=", ">=", "<", ">", "(", ")", ","];

/// Takes a text apart.
pub(super) fn words(text: &str) -> Result<Vec<Word>, SyntaxError> {
    let mut words = Vec::new();
    let (mut rest, mut at) = (text, 1);
    loop {
        let trimmed = rest.trim_start();
        at += rest[..rest.len() - trimmed.len()].chars().count();
        rest = trimmed;
        let Some(first) = rest.chars().next() else { return Ok(words) };
        let (what, bytes) = next(rest, first, at)?;
        words.push(Word { at, what });
        at += rest[..bytes].chars().count();
        rest = &rest[bytes..];
    }
}

fn next(rest: &str, first: char, at: usize) -> Result<(What, usize), SyntaxError> {
    if first == '"' {
        return string(rest, at);
    }
    if first == '/' {
        let bytes = rest.find(ends_bare_pointer).unwrap_or(rest.len());
        return Ok((What::Pointer(pointer(&rest[..bytes], at)?), bytes));
    }
    if let Some(mark) = MARKS.into_iter().find(|mark| rest.starts_with(mark)) {
        return Ok((What::Mark(mark), mark.len()));
    }
    let is_bare = |character: char| character.is_alphanumeric() || "_+-.".contains(character);
    let bytes = rest.find(|character| !is_bare(character)).unwrap_or(rest.len());
    if bytes > 0 {
        return Ok((What::Bare(rest[..bytes].to_owned()), bytes));
    }
    let hint = match first {
        '=' => ": write == to compare",
        '!' => ": write != to compare, or not",
        '&' => ": write and",
        '|' => ": write or",
        '\'' => ": strings stand in double quotes",
        _ => "",
    };
    Err(SyntaxError::new(at, format!("{first:?} has no meaning here{hint}")))
}

/// A string as in JSON, which begins at the quote.
fn string(rest: &str, at: usize) -> Result<(What, usize), SyntaxError> {
    let mut escaped = false;
    for (offset, character) in rest.char_indices().skip(1) {
        match character {
            '"' if !escaped => {
                let event = Event::parse(&rest.as_bytes()[..=offset]).ok();
                let text = event.as_ref().and_then(|event| event.root().string());
                let why = "the string that begins here has an escape that JSON does not know";
                let text = text.ok_or_else(|| SyntaxError::new(at, why))?.into_owned();
                return Ok((What::String(text), offset + 1));
            }
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    Err(SyntaxError::new(at, "the string that begins here is never closed: end it with \""))
}

/// Reads a pointer, whose first character is the `at`th of what it stands in.
fn pointer(text: &str, at: usize) -> Result<Pointer, SyntaxError> {
    Pointer::parse(text).map_err(|error| match error {
        PointerError::NoSlash => {
            let why = format!("{text:?} is no JSON pointer: begin it with /, as in /job_id or /job/id");
            SyntaxError::new(at, why)
        }
        PointerError::Escape { .. } => {
            let why = format!("a ~ in {text} escapes nothing: write ~0 for ~ and ~1 for / in a field's name");
            SyntaxError::new(at, why)
        }
    })
}

/// Whether a character ends a pointer that is written without quotes.
fn ends_bare_pointer(character: char) -> bool {
    character.is_whitespace() || character.is_control() || "()=!<>,\"".contains(character)
}

/// A pointer as these texts hold it: in quotes only where it needs them.
pub(super) struct Written<'p>(pub(super) &'p Pointer);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.as_str();
        if text.contains(ends_bare_pointer) { f.write_str(&json_string(text)) } else { f.write_str(text) }
    }
}

/// The words of a text, taken one by one.
pub(super) struct Words {
    words: std::iter::Peekable<std::vec::IntoIter<Word>>,
    end: usize,
}

impl Words {
    pub(super) fn of(text: &str) -> Result<Self, SyntaxError> {
        Ok(Self { words: words(text)?.into_iter().peekable(), end: text.chars().count() + 1 })
    }

    /// Where the next word begins, or the text ends.
    pub(super) fn at(&mut self) -> usize {
        self.words.peek().map_or(self.end, |word| word.at)
    }

    pub(super) fn next(&mut self) -> Option<What> {
        self.words.next().map(|word| word.what)
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.words.peek().is_none()
    }

    /// Takes the next word if it is this one.
    pub(super) fn take(&mut self, wanted: &str) -> bool {
        let is = |word: &Word| match &word.what {
            What::Bare(text) => text == wanted,
            What::Mark(mark) => *mark == wanted,
            What::Pointer(_) | What::String(_) => false,
        };
        self.words.next_if(is).is_some()
    }

    /// Takes a pointer, with or without quotes; what else there may be is for the error.
    pub(super) fn pointer(&mut self, or: &str) -> Result<Pointer, SyntaxError> {
        let at = self.at();
        match self.next() {
            Some(What::Pointer(pointer)) => Ok(pointer),
            Some(What::String(text)) => pointer(&text, at),
            Some(What::Bare(text)) => Err(SyntaxError::new(
                at,
                format!("`{text}` is no field: write a JSON pointer such as /carrier{or}"),
            )),
            Some(What::Mark(mark)) => Err(SyntaxError::new(
                at,
                format!("`{mark}` stands where a field should: write a JSON pointer such as /carrier{or}"),
            )),
            None => Err(SyntaxError::new(
                at,
                format!("something is missing here: write a JSON pointer such as /carrier{or}"),
            )),
        }
    }

    /// Takes the name of a time zone: a word with what follows it without a space, or a string.
    pub(super) fn zone(&mut self) -> Option<String> {
        let at = self.at();
        let is = |word: &Word| matches!(word.what, What::Bare(_) | What::String(_));
        let word = self.words.next_if(is)?;
        let mut name = match word.what {
            What::Bare(text) => text,
            What::String(text) => return Some(text),
            What::Pointer(_) | What::Mark(_) => return None,
        };
        // `Europe/Berlin` is read as a word and a pointer.
        let end = at + name.chars().count();
        let adjoins = |word: &Word| word.at == end && matches!(word.what, What::Pointer(_));
        if let Some(Word { what: What::Pointer(rest), .. }) = self.words.next_if(adjoins) {
            name.push_str(rest.as_str());
        }
        Some(name)
    }

    /// The next word is a pointer, or a string that stands for one.
    pub(super) fn is_pointer(&mut self) -> bool {
        matches!(self.words.peek(), Some(Word { what: What::Pointer(_) | What::String(_), .. }))
    }
}
