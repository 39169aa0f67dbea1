//! The tree by which decoding version 2 read events, kept as it was: for the test that what is used now reads the same.
//!
//! It takes what RFC 8259 allows, nested up to [`MAX_DEPTH`] deep, and nothing else. `serde_json` serves for the
//! escapes of strings alone: it would turn numbers into doubles.

use std::borrow::Cow;

/// How deep arrays and objects may be nested; deeper text counts as no JSON.
pub(super) const MAX_DEPTH: usize = 127;

/// A value, with the text that it was written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node<'a> {
    /// Its text, without white space around it.
    pub(super) text: &'a str,
    /// What it is.
    pub(super) kind: Kind<'a>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number: see the node's text.
    Number,
    /// A string, escapes resolved.
    String(Cow<'a, str>),
    /// The elements.
    Array(Vec<Node<'a>>),
    /// The members, in the order in which they are written.
    Object(Vec<Member<'a>>),
}

/// A member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// Its name as written, with quotes.
    pub(super) name_text: &'a str,
    /// Its name.
    pub(super) name: Cow<'a, str>,
    /// Its value.
    pub(super) value: Node<'a>,
}

/// The one JSON value that these bytes are; `None` if they are anything else.
pub(super) fn parse(bytes: &[u8]) -> Option<Node<'_>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut scanner = Scanner { text, at: 0 };
    let node = scanner.value(0)?;
    scanner.skip_space();
    (scanner.at == text.len()).then_some(node)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<Node<'a>> {
        self.skip_space();
        let start = self.at;
        let kind = match self.peek()? {
            b'{' => self.object(depth + 1)?,
            b'[' => self.array(depth + 1)?,
            b'"' => Kind::String(self.string()?),
            b't' => self.word("true", Kind::Bool(true))?,
            b'f' => self.word("false", Kind::Bool(false))?,
            b'n' => self.word("null", Kind::Null)?,
            _ => self.number()?,
        };
        Some(Node { text: &self.text[start..self.at], kind })
    }

    fn word(&mut self, word: &str, kind: Kind<'a>) -> Option<Kind<'a>> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())?;
        Some(kind)
    }

    fn object(&mut self, depth: usize) -> Option<Kind<'a>> {
        let mut members = Vec::new();
        self.open(b'{', depth)?;
        if self.take(b'}').is_some() {
            return Some(Kind::Object(members));
        }
        loop {
            self.skip_space();
            let start = self.at;
            let name = self.string()?;
            let name_text = &self.text[start..self.at];
            self.skip_space();
            self.take(b':')?;
            members.push(Member { name_text, name, value: self.value(depth)? });
            self.skip_space();
            if self.take(b',').is_none() {
                self.take(b'}')?;
                return Some(Kind::Object(members));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Kind<'a>> {
        let mut elements = Vec::new();
        self.open(b'[', depth)?;
        if self.take(b']').is_some() {
            return Some(Kind::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            self.skip_space();
            if self.take(b',').is_none() {
                self.take(b']')?;
                return Some(Kind::Array(elements));
            }
        }
    }

    fn open(&mut self, bracket: u8, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.take(bracket)?;
        self.skip_space();
        Some(())
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        self.take(b'"')?;
        let mut escaped = false;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        if escaped {
            serde_json::from_str(&self.text[start..self.at]).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(&self.text[start + 1..self.at - 1]))
        }
    }

    fn number(&mut self) -> Option<Kind<'a>> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(Kind::Number)
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}
