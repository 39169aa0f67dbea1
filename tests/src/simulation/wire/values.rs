//! Attribute values as they are on the wire -> the SDK's, and the sink's.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_types::base64;
use serde_json::Value;
use sluicegate_sink::item;

use super::backend::text;

/// An item as the SDK would give it. What makes no sense is left out, so that decoding names it.
pub(crate) fn item(attributes: &Value) -> HashMap<String, AttributeValue> {
    let attributes = attributes.as_object().into_iter().flatten();
    attributes.filter_map(|(name, found)| Some((name.clone(), value(found)?))).collect()
}

fn value(value: &Value) -> Option<AttributeValue> {
    let (kind, inner) = value.as_object()?.iter().next()?;
    let texts = || inner.as_array().into_iter().flatten().map(|inner| text(inner).to_owned()).collect();
    Some(match kind.as_str() {
        "S" => AttributeValue::S(text(inner).to_owned()),
        "N" => AttributeValue::N(text(inner).to_owned()),
        "B" => AttributeValue::B(Blob::new(base64::decode(text(inner)).ok()?)),
        "BOOL" => AttributeValue::Bool(inner.as_bool()?),
        "SS" => AttributeValue::Ss(texts()),
        "NS" => AttributeValue::Ns(texts()),
        "L" => AttributeValue::L(inner.as_array()?.iter().filter_map(self::value).collect()),
        "M" => AttributeValue::M(item(inner)),
        _ => return None,
    })
}

/// An item of the analytics table.
pub(super) fn stored(attributes: &Value) -> item::Attributes {
    let mut stored = item::Attributes::default();
    for (name, found) in attributes.as_object().into_iter().flatten() {
        let Some((kind, inner)) = found.as_object().and_then(|found| found.iter().next()) else { continue };
        let value = match kind.as_str() {
            "N" => text(inner).parse().ok().map(item::Value::Number),
            "S" => Some(item::Value::Text(text(inner).to_owned())),
            "B" => base64::decode(text(inner)).ok().map(|bytes| item::Value::Bytes(bytes.into())),
            _ => None,
        };
        if let Some(value) = value {
            stored.set(name.clone(), value);
        }
    }
    stored
}
