//! From bytes to spans: one pass without recursion, which either finds one JSON value or says where it stopped. **Pure.**

use thiserror::Error;

use crate::text::escape;

/// How deep arrays and objects may be nested: an event that is deeper is unreadable, wherever it is looked at.
pub const MAX_DEPTH: usize = 127;
/// Largest event that can be read, in bytes; Kinesis takes at most 10 MiB (quotas page).
pub const MAX_BYTES: usize = 1 << 31;

/// Why bytes are not one JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{fault} at byte {at}")]
pub struct ParseError {
    /// Offset of the first byte that makes no sense, from 0.
    pub at: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with bytes that are not one JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The bytes are not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// The text ends within the value.
    #[error("the text ends within a value")]
    Ends,
    /// No value begins here.
    #[error("expected value")]
    Value,
    /// No name of a member begins here.
    #[error("expected a name in double quotes")]
    Name,
    /// A name without a colon behind it.
    #[error("expected `:`")]
    Colon,
    /// An element with something else behind it.
    #[error("expected `,` or `]`")]
    CommaOrBracket,
    /// A member with something else behind it.
    #[error("expected `,` or `}}`")]
    CommaOrBrace,
    /// A number that breaks off.
    #[error("expected a digit")]
    Digit,
    /// A character that strings hold escaped only.
    #[error("a control character stands in a string")]
    Control,
    /// An escape that JSON does not know.
    #[error("invalid escape")]
    Escape,
    /// Something stands behind the value.
    #[error("trailing characters")]
    Trailing,
    /// Nested too deeply.
    #[error("nested more than {MAX_DEPTH} deep")]
    Depth,
    /// Too large.
    #[error("larger than {MAX_BYTES} bytes")]
    Bytes,
}

/// What a span of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    Null,
    True,
    False,
    Number,
    /// A string without escapes.
    Plain,
    /// A string with escapes.
    Escaped,
    Array,
    Object,
}

/// One value, or the name of a member. An array's elements follow it, and so do the names and values of an object's
/// members, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    /// Where its text begins.
    pub(crate) begin: u32,
    /// Where its text ends.
    pub(crate) end: u32,
    /// The first node that is not within it.
    pub(crate) behind: u32,
}

/// What was parsed.
pub(crate) struct Parsed<'a> {
    pub(crate) text: &'a str,
    pub(crate) nodes: Vec<Node>,
    /// A string holds half of a surrogate pair.
    pub(crate) halves: bool,
}

/// A text longer than this is looked through for how many nodes it has at most: a list that grows takes three times what it holds
/// while it is moved, and of ten megabytes of `0,` come five million nodes.
const COUNTED_BYTES: usize = 64 << 10;

/// No fewer nodes than the text has: each but the first stands behind a comma, a colon or a bracket, or is a name before a colon.
fn most_nodes(bytes: &[u8]) -> usize {
    1 + bytes.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count()
}

/// Parses exactly one JSON value.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, ParseError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ParseError { at: error.valid_up_to(), fault: Fault::Utf8 })?;
    if bytes.len() > MAX_BYTES {
        return Err(ParseError { at: 0, fault: Fault::Bytes });
    }
    let nodes = Vec::with_capacity(if bytes.len() > COUNTED_BYTES { most_nodes(bytes) } else { 0 });
    let mut parser = Parser { bytes, at: 0, nodes, open: Vec::new(), halves: false };
    parser.run()?;
    Ok(Parsed { text, nodes: parser.nodes, halves: parser.halves })
}

/// Whether a text is exactly one JSON number.
pub(crate) fn is_number(text: &str) -> bool {
    let mut parser =
        Parser { bytes: text.as_bytes(), at: 0, nodes: Vec::new(), open: Vec::new(), halves: false };
    parser.number().is_ok() && parser.at == text.len()
}

/// What may come next.
#[derive(Clone, Copy)]
enum Next {
    Value,
    ElementOrEnd,
    MemberOrEnd,
    Member,
    /// A value has just ended.
    Behind,
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    /// The arrays and objects that are not closed yet: at most [`MAX_DEPTH`].
    open: Vec<usize>,
    halves: bool,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), ParseError> {
        let mut next = Next::Value;
        loop {
            self.skip_space();
            next = match next {
                Next::Value => self.value()?,
                Next::ElementOrEnd if self.take(b']') => self.close(),
                Next::ElementOrEnd => self.value()?,
                Next::MemberOrEnd if self.take(b'}') => self.close(),
                Next::MemberOrEnd | Next::Member => self.name()?,
                Next::Behind => match self.open.last().and_then(|open| self.nodes.get(*open)) {
                    None if self.at == self.bytes.len() => return Ok(()),
                    None => return Err(self.fault(Fault::Trailing)),
                    Some(Node { span: Span::Array, .. }) => {
                        self.behind(b']', Next::Value, Fault::CommaOrBracket)?
                    }
                    Some(_) => self.behind(b'}', Next::Member, Fault::CommaOrBrace)?,
                },
            };
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// What is wrong here: this, or that the text ends.
    fn fault(&self, fault: Fault) -> ParseError {
        let fault = if self.at >= self.bytes.len() { Fault::Ends } else { fault };
        ParseError { at: self.at, fault }
    }

    fn behind(&mut self, end: u8, next: Next, fault: Fault) -> Result<Next, ParseError> {
        if self.take(b',') {
            Ok(next)
        } else if self.take(end) {
            Ok(self.close())
        } else {
            Err(self.fault(fault))
        }
    }

    fn push(&mut self, span: Span, begin: usize) {
        let behind = small(self.nodes.len() + 1);
        self.nodes.push(Node { span, begin: small(begin), end: small(self.at), behind });
    }

    fn value(&mut self) -> Result<Next, ParseError> {
        let begin = self.at;
        let span = match self.peek() {
            Some(b'{') => return self.open(Span::Object, Next::MemberOrEnd),
            Some(b'[') => return self.open(Span::Array, Next::ElementOrEnd),
            Some(b'"') => self.string()?,
            Some(b't') => self.word(b"true", Span::True)?,
            Some(b'f') => self.word(b"false", Span::False)?,
            Some(b'n') => self.word(b"null", Span::Null)?,
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                Span::Number
            }
            Some(_) | None => return Err(self.fault(Fault::Value)),
        };
        self.push(span, begin);
        Ok(Next::Behind)
    }

    fn open(&mut self, span: Span, next: Next) -> Result<Next, ParseError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.fault(Fault::Depth));
        }
        self.open.push(self.nodes.len());
        self.push(span, self.at);
        self.at += 1;
        Ok(next)
    }

    fn close(&mut self) -> Next {
        let (end, behind) = (small(self.at), small(self.nodes.len()));
        if let Some(node) = self.open.pop().and_then(|open| self.nodes.get_mut(open)) {
            (node.end, node.behind) = (end, behind);
        }
        Next::Behind
    }

    fn name(&mut self) -> Result<Next, ParseError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault(Fault::Name));
        }
        let begin = self.at;
        let span = self.string()?;
        self.push(span, begin);
        self.skip_space();
        if self.take(b':') { Ok(Next::Value) } else { Err(self.fault(Fault::Colon)) }
    }

    fn word(&mut self, word: &[u8], span: Span) -> Result<Span, ParseError> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.fault(Fault::Value));
        }
        self.at += word.len();
        Ok(span)
    }

    /// A string, whose opening quote is here.
    fn string(&mut self) -> Result<Span, ParseError> {
        self.at += 1;
        let mut span = Span::Plain;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    let Some(escape) = escape(&self.bytes[self.at..]) else {
                        return Err(self.fault(Fault::Escape));
                    };
                    self.halves |= escape.half;
                    self.at += escape.bytes;
                    span = Span::Escaped;
                }
                Some(0..0x20) => return Err(self.fault(Fault::Control)),
                Some(_) => self.at += 1,
                None => return Err(self.fault(Fault::Ends)),
            }
        }
        self.at += 1;
        Ok(span)
    }

    fn number(&mut self) -> Result<(), ParseError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ParseError> {
        let begin = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > begin { Ok(()) } else { Err(self.fault(Fault::Digit)) }
    }
}

/// A place in a text of at most [`MAX_BYTES`], or in its nodes, of which there are no more.
fn small(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
