//! One JSON value as a tree over its own text, so that numbers and strings keep the exact form they were written in.
//! **Pure.**
//!
//! It takes what RFC 8259 allows, nested up to [`MAX_DEPTH`] deep, and nothing else. `serde_json` serves for the
//! escapes of strings alone: it would turn numbers into doubles.

use std::borrow::Cow;

/// How deep arrays and objects may be nested; deeper text counts as no JSON.
pub const MAX_DEPTH: usize = 127;

/// A value, with the text that it was written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its text, without white space around it.
    pub text: &'a str,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
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
pub struct Member<'a> {
    /// Its name as written, with quotes.
    pub name_text: &'a str,
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its value.
    pub value: Node<'a>,
}

impl<'a> Node<'a> {
    /// The value of a member; of one that comes twice the last one counts, as in keys.
    pub fn member(&self, name: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Object(members) => {
                members.iter().rev().find(|member| member.name == name).map(|member| &member.value)
            }
            Kind::Null | Kind::Bool(_) | Kind::Number | Kind::String(_) | Kind::Array(_) => None,
        }
    }

    /// The elements of an array.
    pub fn elements(&self) -> Option<&[Self]> {
        match &self.kind {
            Kind::Array(elements) => Some(elements),
            Kind::Null | Kind::Bool(_) | Kind::Number | Kind::String(_) | Kind::Object(_) => None,
        }
    }

    /// The text of a string, escapes resolved.
    pub fn string(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            Kind::Null | Kind::Bool(_) | Kind::Number | Kind::Array(_) | Kind::Object(_) => None,
        }
    }

    /// The text of a number.
    pub fn number(&self) -> Option<&'a str> {
        (self.kind == Kind::Number).then_some(self.text)
    }
}

/// The one JSON value that these bytes are; `None` if they are anything else.
pub fn parse(bytes: &[u8]) -> Option<Node<'_>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut scanner = Scanner { text, at: 0 };
    let node = scanner.value(0)?;
    scanner.skip_space();
    (scanner.at == text.len()).then_some(node)
}

/// Whether a text is exactly one JSON number.
pub(crate) fn is_number(text: &str) -> bool {
    let mut scanner = Scanner { text, at: 0 };
    scanner.number().is_some() && scanner.at == text.len()
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

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A number in one of the many ways that JSON has for it.
    pub(crate) fn any_number_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
            any::<i64>().prop_map(|n| n.to_string()),
            (-1e9f64..1e9).prop_map(|n| n.to_string()),
        ]
    }

    /// A JSON value with members `a`, `b` and `c`.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-20i64..20).prop_map(Value::from),
            "[xyä\"\\\\/\n]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    fn value(node: &Node<'_>) -> Value {
        match &node.kind {
            Kind::Null => Value::Null,
            Kind::Bool(truth) => Value::from(*truth),
            Kind::Number => serde_json::from_str(node.text).unwrap(),
            Kind::String(text) => Value::from(text.as_ref()),
            Kind::Array(elements) => elements.iter().map(value).collect(),
            Kind::Object(members) => members
                .iter()
                .map(|member| (member.name.clone().into_owned(), value(&member.value)))
                .collect(),
        }
    }

    #[test]
    fn texts_stay_as_they_were_written() {
        let node = parse(br#" {"a" : 1.50, "\u0062":[ 1e2 ,"\n"] } "#).unwrap();
        assert_eq!(node.text, r#"{"a" : 1.50, "\u0062":[ 1e2 ,"\n"] }"#);
        assert_eq!(node.member("a").unwrap().number(), Some("1.50"));
        let list = node.member("b").unwrap().elements().unwrap();
        assert_eq!((list[0].text, list[1].text, list[1].string()), ("1e2", r#""\n""#, Some("\n")));
    }

    #[test]
    fn what_is_not_one_json_value_is_none() {
        let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        let texts = [
            "",
            " ",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "nul",
            "truex",
            "[1,]",
            "[,1]",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "\"a",
            "\"\t\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\",
            "1 2",
            "[1}",
            "{\"a\" 1}",
            &deep,
        ];
        for text in texts {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
        assert_eq!(parse(b"\"\xff\""), None);
        assert!(parse(&deep.as_bytes()[1..deep.len() - 1]).is_some());
        assert_eq!(parse(b"1e999").unwrap().number(), Some("1e999"));
        assert!(parse(json!({"": [{}, [], false]}).to_string().as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(json in any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
            prop_assert_eq!(value(&parse(text.unwrap().as_bytes()).unwrap()), json);
        }

        #[test]
        fn it_refuses_what_serde_json_refuses(text in "[\\[\\]{}:,\"\\\\u0d8e1.\\- tn]{0,12}|(\\[|\\{|\\]|\\}|,|:|\"a\"|1|-1\\.5e3|true|null| ){0,9}") {
            let theirs = serde_json::from_str::<Value>(&text);
            match (parse(text.as_bytes()), theirs) {
                (Some(ours), Ok(theirs)) => prop_assert_eq!(value(&ours), theirs),
                (None, Err(_)) => {}
                // A number that no double holds is one all the same.
                (Some(_), Err(error)) => prop_assert!(error.to_string().contains("number out of range")),
                (None, Ok(theirs)) => prop_assert!(false, "{text:?} is {theirs}"),
            }
        }
    }
}
