//! A parsed event, and what can be looked up in it. **Pure.**

use std::borrow::Cow;

use crate::parse::{Node, ParseError, Span, parse};
use crate::pointer::Pointer;
use crate::text::resolved;

/// One JSON value as spans over its own text, so that numbers and strings keep the exact form they were written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    text: &'a str,
    nodes: Vec<Node>,
    halves: bool,
}

/// A value of an event.
#[derive(Debug, Clone, Copy)]
pub struct Value<'e> {
    text: &'e str,
    nodes: &'e [Node],
    node: Node,
    /// The first node within it.
    within: usize,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number: see [`Value::text`].
    Number,
    /// A string: see [`Value::string`].
    String,
    /// See [`Value::elements`].
    Array,
    /// See [`Value::members`].
    Object,
}

impl<'a> Event<'a> {
    /// Parses an event: exactly one JSON value in UTF-8, as RFC 8259 has it, nested at most
    /// [`MAX_DEPTH`](crate::MAX_DEPTH) deep. Takes 16 bytes for each value and name.
    ///
    /// # Errors
    /// Where the bytes stop making sense, and why.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let parsed = parse(bytes)?;
        Ok(Self { text: parsed.text, nodes: parsed.nodes, halves: parsed.halves })
    }

    /// The value that the whole event is.
    pub fn root(&self) -> Value<'_> {
        // There is no event without a value.
        let none = Node { span: Span::Null, begin: 0, end: 0, behind: 0 };
        Value {
            text: self.text,
            nodes: &self.nodes,
            node: self.nodes.first().copied().unwrap_or(none),
            within: 1,
        }
    }

    /// What a pointer points at.
    pub fn find(&self, pointer: &Pointer) -> Option<Value<'_>> {
        self.root().find(pointer)
    }

    /// Whether a string of it holds half of a surrogate pair.
    pub fn has_half_surrogates(&self) -> bool {
        self.halves
    }
}

impl<'e> Value<'e> {
    fn at(text: &'e str, nodes: &'e [Node], at: usize) -> Option<Self> {
        nodes.get(at).map(|node| Self { text, nodes, node: *node, within: at + 1 })
    }

    fn behind(&self) -> usize {
        self.node.behind as usize
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.node.span {
            Span::Null => Kind::Null,
            Span::True => Kind::Bool(true),
            Span::False => Kind::Bool(false),
            Span::Number => Kind::Number,
            Span::Plain | Span::Escaped => Kind::String,
            Span::Array => Kind::Array,
            Span::Object => Kind::Object,
        }
    }

    /// Its text as it was written, without white space around it.
    pub fn text(&self) -> &'e str {
        self.text.get(self.node.begin as usize..self.node.end as usize).unwrap_or_default()
    }

    /// The text of a string, escapes resolved; half of a surrogate pair is U+FFFD.
    pub fn string(&self) -> Option<Cow<'e, str>> {
        let text = self.text();
        let inner = || text.get(1..text.len() - 1).unwrap_or_default();
        match self.node.span {
            Span::Plain => Some(Cow::Borrowed(inner())),
            Span::Escaped => Some(Cow::Owned(resolved(inner()))),
            Span::Null | Span::True | Span::False | Span::Number | Span::Array | Span::Object => None,
        }
    }

    /// The text of a number.
    pub fn number(&self) -> Option<&'e str> {
        (self.node.span == Span::Number).then(|| self.text())
    }

    /// The members of an object, in the order in which they are written; none of anything else.
    pub fn members(&self) -> Members<'e> {
        let is = self.node.span == Span::Object;
        Members {
            text: self.text,
            nodes: self.nodes,
            at: self.within,
            end: if is { self.behind() } else { 0 },
        }
    }

    /// The elements of an array; none of anything else.
    pub fn elements(&self) -> Elements<'e> {
        let is = self.node.span == Span::Array;
        Elements {
            text: self.text,
            nodes: self.nodes,
            at: self.within,
            end: if is { self.behind() } else { 0 },
        }
    }

    /// The value of a member; of one that comes twice the last one counts.
    pub fn member(&self, name: &str) -> Option<Self> {
        self.members().filter(|(found, _)| found.is(name)).last().map(|(_, value)| value)
    }

    /// What a pointer points at, from here.
    pub fn find(&self, pointer: &Pointer) -> Option<Self> {
        pointer.steps().iter().try_fold(*self, |value, step| match value.node.span {
            Span::Object => value.member(step.name()),
            Span::Array => value.elements().nth(step.index()?),
            Span::Null | Span::True | Span::False | Span::Number | Span::Plain | Span::Escaped => None,
        })
    }

    /// Whether it is this string.
    pub fn is(&self, wanted: &str) -> bool {
        match self.node.span {
            // Quotes around it.
            Span::Plain => self.text().get(1..).and_then(|text| text.strip_suffix('"')) == Some(wanted),
            Span::Escaped => self.string().as_deref() == Some(wanted),
            Span::Null | Span::True | Span::False | Span::Number | Span::Array | Span::Object => false,
        }
    }
}

/// The members of an object: names and values.
#[derive(Debug, Clone)]
pub struct Members<'e> {
    text: &'e str,
    nodes: &'e [Node],
    at: usize,
    end: usize,
}

impl<'e> Iterator for Members<'e> {
    type Item = (Value<'e>, Value<'e>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let name = Value::at(self.text, self.nodes, self.at)?;
        let value = Value::at(self.text, self.nodes, self.at + 1)?;
        self.at = value.behind();
        Some((name, value))
    }
}

/// The elements of an array.
#[derive(Debug, Clone)]
pub struct Elements<'e> {
    text: &'e str,
    nodes: &'e [Node],
    at: usize,
    end: usize,
}

impl<'e> Iterator for Elements<'e> {
    type Item = Value<'e>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let element = Value::at(self.text, self.nodes, self.at)?;
        self.at = element.behind();
        Some(element)
    }
}
