//! Attribute values without any SDK: three types are all that the format needs, and their size as DynamoDB
//! counts it. **Pure.**

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Type N.
    Number(i64),
    /// Type S.
    Text(String),
    /// Type B.
    Bytes(Bytes),
}

impl Value {
    /// Bytes that DynamoDB counts for it.
    ///
    /// Source: "DynamoDB item sizes and formats" in the DynamoDB developer guide. Text is its UTF-8 bytes,
    /// binary its raw bytes, a number about one byte for every two significant digits and one more. The guide
    /// trims trailing zeros; here they are counted, so this is never too little. A sign takes one byte.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Number(number) => number_bytes(*number),
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

fn number_bytes(number: i64) -> usize {
    let digits = number.unsigned_abs().checked_ilog10().map_or(1, |power| power as usize + 1);
    digits.div_ceil(2) + 1 + usize::from(number < 0)
}

/// The attributes of an item, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes(BTreeMap<Cow<'static, str>, Value>);

impl Attributes {
    /// Sets an attribute.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: Value) {
        self.0.insert(name.into(), value);
    }

    /// All attributes, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Bytes that DynamoDB counts for them: names and values.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.bytes()).sum()
    }

    /// A number, if it is there and is one.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.0.get(name)? {
            Value::Number(number) => Some(*number),
            Value::Text(_) | Value::Bytes(_) => None,
        }
    }

    /// A text, if it is there and is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Value::Text(text) => Some(text),
            Value::Number(_) | Value::Bytes(_) => None,
        }
    }

    /// Bytes, if they are there.
    pub fn data(&self, name: &str) -> Option<Bytes> {
        match self.0.get(name)? {
            Value::Bytes(bytes) => Some(bytes.clone()),
            Value::Number(_) | Value::Text(_) => None,
        }
    }
}

impl IntoIterator for Attributes {
    type Item = (Cow<'static, str>, Value);
    type IntoIter = std::collections::btree_map::IntoIter<Cow<'static, str>, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_developer_guide() {
        let cases: [(i64, usize); 8] =
            [(0, 2), (7, 2), (42, 2), (100, 3), (4_096, 3), (65_536, 4), (-42, 3), (1_700_000_000_000, 8)];
        for (number, bytes) in cases {
            assert_eq!(Value::Number(number).bytes(), bytes, "{number}");
        }
        assert_eq!(Value::Text("zürich".to_owned()).bytes(), 7);
        assert_eq!(Value::Bytes(Bytes::from_static(b"abc")).bytes(), 3);
    }
}
