//! Attribute values: ours to the SDK's and back.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use crate::item::{Attributes, Value};

/// Ours to the SDK's. The data is copied here, once an attempt, because the SDK wants to own it.
pub(super) fn to_sdk(attributes: Attributes) -> HashMap<String, AttributeValue> {
    let value = |value| match value {
        Value::Number(number) => AttributeValue::N(number.to_string()),
        Value::Text(text) => AttributeValue::S(text),
        Value::Bytes(bytes) => AttributeValue::B(Blob::new(bytes)),
    };
    attributes.into_iter().map(|(name, found)| (name.into_owned(), value(found))).collect()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's enums are open")]
/// The SDK's to ours. A type that the format does not use is left out, so that decoding names the attribute.
pub(super) fn from_sdk(attributes: HashMap<String, AttributeValue>) -> Attributes {
    let mut ours = Attributes::default();
    // Sorted by name on arrival, so the order of this map reaches nothing.
    attributes.into_iter().for_each(|(name, value)| {
        let value = match value {
            AttributeValue::N(digits) => digits.parse().ok().map(Value::Number),
            AttributeValue::S(text) => Some(Value::Text(text)),
            AttributeValue::B(blob) => Some(Value::Bytes(Bytes::from(blob.into_inner()))),
            _ => None,
        };
        if let Some(value) = value {
            ours.set(name, value);
        }
    });
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back() {
        let mut attributes = Attributes::default();
        attributes.set("n", Value::Number(-42));
        attributes.set("s", Value::Text("zürich".to_owned()));
        attributes.set("b", Value::Bytes(Bytes::from_static(&[0, 255])));
        assert_eq!(from_sdk(to_sdk(attributes.clone())), attributes);
    }
}
