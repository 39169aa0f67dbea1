//! The filter: which events of a batch are kept. **Pure.**
//!
//! ```text
//! filter     = all { "or" all }
//! all        = one { "and" one }
//! one        = "not" one | "(" filter ")" | "exists" pointer | pointer compare value
//!            | pointer "in" "(" value { "," value } ")" | pointer "starts_with" string | pointer "contains" value
//! compare    = "==" | "!=" | "<" | "<=" | ">" | ">="
//! value      = string | number | "true" | "false" | "null"          as in JSON
//! ```
//! Strings compare by code point, numbers by the decimal that they are written as. A field that is missing, or of
//! another type than the value, equals nothing and is neither less nor greater; so `!=` is true of it, as `not ==` is.
//! `exists` is true of a field that is there, `null` included. `in` is true of a field that equals one of the values,
//! `starts_with` of a string that begins so, `contains` of a string that holds that string and of an array one of whose
//! elements equals the value. These three come with decoding version 3. An event that is not JSON cannot be judged.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use sluicegate_event::{Event, Kind, Number, Pointer, Value, json_string};

use super::SyntaxError;
use super::words::{What, Words, Written};

/// How deep parentheses and `not` may be nested.
const MAX_DEPTH: usize = 32;

/// A parsed filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Expression);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Exists(Pointer),
    Compare(Pointer, Compare, Literal),
    In(Pointer, Vec<Literal>),
    StartsWith(Pointer, String),
    Contains(Pointer, Literal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Compare {
    const ALL: [Self; 6] =
        [Self::Equal, Self::Unequal, Self::Less, Self::AtMost, Self::Greater, Self::AtLeast];

    fn mark(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }

    /// Whether two values that stand like this to each other compare so; `None`: they are of different types.
    fn holds(self, found: Option<Ordering>) -> bool {
        match self {
            Self::Equal => found == Some(Ordering::Equal),
            Self::Unequal => found != Some(Ordering::Equal),
            Self::Less => found == Some(Ordering::Less),
            Self::AtMost => matches!(found, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => found == Some(Ordering::Greater),
            Self::AtLeast => matches!(found, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Literal {
    Null,
    Bool(bool),
    /// Its text, as it was written, beside its value.
    Number(String, Number),
    String(String),
}

impl Literal {
    /// How a value of an event stands to this one; `None` if they are of different types. Truths and null are only
    /// ever equal or not.
    fn order(&self, found: &Found<'_>) -> Option<Ordering> {
        match (found, self) {
            (Found::String(found), Self::String(wanted)) => Some(found.as_ref().cmp(wanted)),
            (Found::Number(found), Self::Number(_, wanted)) => Some(found.cmp(wanted)),
            (Found::Bool(found), Self::Bool(wanted)) => (found == wanted).then_some(Ordering::Equal),
            (Found::Null, Self::Null) => Some(Ordering::Equal),
            (
                Found::Null | Found::Bool(_) | Found::Number(_) | Found::String(_) | Found::Other,
                Self::Null | Self::Bool(_) | Self::Number(..) | Self::String(_),
            ) => None,
        }
    }

    fn equals(&self, found: &Found<'_>) -> bool {
        self.order(found) == Some(Ordering::Equal)
    }
}

/// A value of an event, ready to be compared with many.
enum Found<'e> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'e, str>),
    /// An array or an object, which equals nothing.
    Other,
}

impl<'e> Found<'e> {
    fn of(value: Value<'e>) -> Self {
        match value.kind() {
            Kind::Null => Self::Null,
            Kind::Bool(truth) => Self::Bool(truth),
            Kind::Number => Number::parse(value.text()).map_or(Self::Other, Self::Number),
            Kind::String => value.string().map_or(Self::Other, Self::String),
            Kind::Array | Kind::Object => Self::Other,
        }
    }
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// Where the text stops making sense, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut words = Words::of(text)?;
        let expression = alternatives(&mut words, 0)?;
        let at = words.at();
        match words.next() {
            None => Ok(Self(expression)),
            Some(What::Mark(")")) => {
                Err(SyntaxError::new(at, "this ) closes nothing: remove it, or open it with ("))
            }
            Some(_) => {
                Err(SyntaxError::new(at, "the filter could end here: join what follows with and, or with or"))
            }
        }
    }

    /// Whether an event is kept.
    pub fn keeps(&self, event: &Event<'_>) -> bool {
        self.0.holds(event.root())
    }
}

impl Expression {
    fn holds(&self, event: Value<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(event)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(event)),
            Self::Not(part) => !part.holds(event),
            Self::Exists(pointer) => event.find(pointer).is_some(),
            Self::Compare(pointer, compare, literal) => {
                compare.holds(event.find(pointer).and_then(|found| literal.order(&Found::of(found))))
            }
            Self::In(pointer, literals) => event
                .find(pointer)
                .map(Found::of)
                .is_some_and(|found| literals.iter().any(|literal| literal.equals(&found))),
            Self::StartsWith(pointer, start) => event
                .find(pointer)
                .and_then(|found| found.string())
                .is_some_and(|found| found.starts_with(start.as_str())),
            Self::Contains(pointer, literal) => event.find(pointer).is_some_and(|found| match literal {
                Literal::String(part) if found.kind() == Kind::String => {
                    found.string().is_some_and(|found| found.contains(part.as_str()))
                }
                Literal::Null | Literal::Bool(_) | Literal::Number(..) | Literal::String(_) => {
                    found.elements().any(|element| literal.equals(&Found::of(element)))
                }
            }),
        }
    }
}

fn alternatives(words: &mut Words, depth: usize) -> Result<Expression, SyntaxError> {
    let first = conditions(words, depth)?;
    let mut parts = vec![first];
    while words.take("or") {
        parts.push(conditions(words, depth)?);
    }
    Ok(joined(parts, Expression::Any))
}

fn conditions(words: &mut Words, depth: usize) -> Result<Expression, SyntaxError> {
    let first = condition(words, depth)?;
    let mut parts = vec![first];
    while words.take("and") {
        parts.push(condition(words, depth)?);
    }
    Ok(joined(parts, Expression::All))
}

fn joined(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            join(parts)
        }
    }
}

fn condition(words: &mut Words, depth: usize) -> Result<Expression, SyntaxError> {
    let at = words.at();
    if depth > MAX_DEPTH {
        let why = format!("this is nested more than {MAX_DEPTH} deep: simplify the filter");
        return Err(SyntaxError::new(at, why));
    }
    if words.take("not") {
        return Ok(Expression::Not(Box::new(condition(words, depth + 1)?)));
    }
    if words.take("(") {
        let inner = alternatives(words, depth + 1)?;
        if words.take(")") {
            return Ok(inner);
        }
        let why = format!(
            "the ( at character {at} is not closed here: write ), or join what follows with and or or"
        );
        return Err(SyntaxError::new(words.at(), why));
    }
    if words.take("exists") {
        return words.pointer("").map(Expression::Exists);
    }
    let pointer = words.pointer(", exists, not or (")?;
    if words.take("in") {
        return values(words).map(|values| Expression::In(pointer, values));
    }
    if words.take("starts_with") {
        let at = words.at();
        let Some(What::String(start)) = words.next() else {
            return Err(SyntaxError::new(at, "a string is missing here: write it in double quotes"));
        };
        return Ok(Expression::StartsWith(pointer, start));
    }
    if words.take("contains") {
        return literal(words, Compare::Equal).map(|literal| Expression::Contains(pointer, literal));
    }
    let at = words.at();
    let compare = Compare::ALL.into_iter().find(|compare| words.take(compare.mark()));
    let why = || {
        format!(
            "a comparison of {} is missing here: write ==, !=, <, <=, > or >= and a value, or in, starts_with or contains",
            Written(&pointer)
        )
    };
    let compare = compare.ok_or_else(|| SyntaxError::new(at, why()))?;
    let literal = literal(words, compare)?;
    Ok(Expression::Compare(pointer, compare, literal))
}

/// The values behind `in`.
fn values(words: &mut Words) -> Result<Vec<Literal>, SyntaxError> {
    let at = words.at();
    if !words.take("(") {
        return Err(SyntaxError::new(at, "the values of in stand in parentheses: write ( here"));
    }
    let mut values = vec![literal(words, Compare::Equal)?];
    while words.take(",") {
        values.push(literal(words, Compare::Equal)?);
    }
    let at = words.at();
    if words.take(")") {
        return Ok(values);
    }
    Err(SyntaxError::new(at, "the values of in end here or go on: write ) or , and another value"))
}

fn literal(words: &mut Words, compare: Compare) -> Result<Literal, SyntaxError> {
    let at = words.at();
    let literal = match words.next() {
        Some(What::String(text)) => Literal::String(text),
        Some(What::Bare(word)) => match (word.as_str(), Number::parse(&word)) {
            ("null", _) => Literal::Null,
            ("true", _) => Literal::Bool(true),
            ("false", _) => Literal::Bool(false),
            (_, Some(number)) => Literal::Number(word, number),
            (_, None) => {
                let why = format!(
                    "`{word}` is no value: write a number, true, false, null, or a string as \"{word}\""
                );
                return Err(SyntaxError::new(at, why));
            }
        },
        Some(What::Pointer(_) | What::Mark(_)) | None => {
            let why =
                "a value is missing here: write a string in double quotes, a number, true, false or null";
            return Err(SyntaxError::new(at, why));
        }
    };
    let ordered = match &literal {
        Literal::Number(..) | Literal::String(_) => true,
        Literal::Null | Literal::Bool(_) => matches!(compare, Compare::Equal | Compare::Unequal),
    };
    if ordered {
        return Ok(literal);
    }
    let why =
        format!("{} compares numbers and strings only: write == or != in front of this", compare.mark());
    Err(SyntaxError::new(at, why))
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => list(f, parts, " and "),
            Self::Any(parts) => list(f, parts, " or "),
            Self::Not(part) => {
                f.write_str("not ")?;
                inner(f, part)
            }
            Self::Exists(pointer) => write!(f, "exists {}", Written(pointer)),
            Self::In(pointer, values) => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "{} in ({})", Written(pointer), values.join(", "))
            }
            Self::StartsWith(pointer, start) => {
                write!(f, "{} starts_with {}", Written(pointer), json_string(start))
            }
            Self::Contains(pointer, literal) => write!(f, "{} contains {literal}", Written(pointer)),
            Self::Compare(pointer, compare, literal) => {
                write!(f, "{} {} {literal}", Written(pointer), compare.mark())
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, parts: &[Expression], between: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        inner(f, part)?;
    }
    Ok(())
}

fn inner(f: &mut fmt::Formatter<'_>, part: &Expression) -> fmt::Result {
    match part {
        Expression::All(_) | Expression::Any(_) => write!(f, "({part})"),
        Expression::Not(_)
        | Expression::Exists(_)
        | Expression::Compare(..)
        | Expression::In(..)
        | Expression::StartsWith(..)
        | Expression::Contains(..) => write!(f, "{part}"),
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => truth.fmt(f),
            Self::Number(text, _) => f.write_str(text),
            Self::String(text) => f.write_str(&json_string(text)),
        }
    }
}

impl FromStr for Filter {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
