//! What a write of an item costs, whose partition it is, and whether an item holds certain bytes. Pure.

use std::collections::HashMap;
use std::io::Read;

use dynoxide::types::{AttributeValue, Item, item_size};

/// Bytes of one write capacity unit (AWS DynamoDB developer guide, "Write capacity unit": 1 KB).
const UNIT_BYTES: usize = 1024;
/// The first bytes of a zstandard frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Most of a frame that is looked at.
const FRAME_BYTES: u64 = 64 << 20;

/// Write capacity units of one write of this item.
pub(super) fn write_units(item: &Item) -> u64 {
    item_size(item).div_ceil(UNIT_BYTES).max(1) as u64
}

/// The units that an answer tells, in whole ones.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of units, which a conversion that saturates cannot spoil"
)]
pub(super) fn whole(units: f64) -> u64 {
    units.round() as u64
}

/// The units, as the ledger adds them up.
pub(super) fn fractional(units: u64) -> f64 {
    f64::from(u32::try_from(units).unwrap_or(u32::MAX))
}

/// The text of a partition key: itself if it is a text or a number.
pub(super) fn partition_key(key: &Item, attribute: &str) -> Option<String> {
    let value = key.get(attribute)?;
    if let AttributeValue::S(text) | AttributeValue::N(text) = value {
        return Some(text.clone());
    }
    Some(format!("{value:?}"))
}

/// Whether a text or binary attribute of the item holds these bytes.
pub(super) fn holds(item: &HashMap<String, AttributeValue>, wanted: &[u8]) -> bool {
    item.values().any(|value| value_holds(value, wanted))
}

fn value_holds(value: &AttributeValue, wanted: &[u8]) -> bool {
    match value {
        AttributeValue::S(text) => contains(text.as_bytes(), wanted),
        AttributeValue::B(bytes) => bytes_hold(bytes, wanted),
        AttributeValue::SS(texts) => texts.iter().any(|text| contains(text.as_bytes(), wanted)),
        AttributeValue::BS(several) => several.iter().any(|bytes| bytes_hold(bytes, wanted)),
        AttributeValue::L(values) => values.iter().any(|value| value_holds(value, wanted)),
        AttributeValue::M(values) => holds(values, wanted),
        AttributeValue::N(_) | AttributeValue::NS(_) | AttributeValue::BOOL(_) | AttributeValue::NULL(_) => {
            false
        }
    }
}

fn bytes_hold(bytes: &[u8], wanted: &[u8]) -> bool {
    contains(bytes, wanted) || (bytes.starts_with(&ZSTD_MAGIC) && contains(&unpacked(bytes), wanted))
}

/// What the zstandard frame holds, as far as it goes: the rest may be in another item.
fn unpacked(frame: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    if let Ok(decoder) = zstd::stream::read::Decoder::new(frame) {
        // An error says that the frame is cut off; what came before it has been read.
        drop(decoder.take(FRAME_BYTES).read_to_end(&mut content));
    }
    content
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len().max(1)).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(value: AttributeValue) -> Item {
        HashMap::from([("v".to_owned(), value)])
    }

    #[test]
    fn a_unit_is_a_kilobyte_begun() {
        let of_bytes = |bytes: usize| write_units(&item(AttributeValue::B(vec![0; bytes - 1])));
        assert_eq!(
            [1, 1_024, 1_025, 2_048, 2_049, 400 << 10].map(of_bytes),
            [1, 1, 2, 2, 3, 400],
            "names count too"
        );
        assert_eq!(write_units(&Item::new()), 1);
        assert_eq!((whole(2.0), whole(-1.0), whole(f64::NAN)), (2, 0, 0));
    }

    #[test]
    fn bytes_are_found_in_any_text_or_binary_at_any_depth() {
        use AttributeValue as V;
        let texts = |text: &str| vec![text.to_owned()];
        for value in [
            V::S("a bad one".to_owned()),
            V::B(b"xbady".to_vec()),
            V::SS(texts("bad")),
            V::BS(vec![b"good".to_vec(), b"bad".to_vec()]),
            V::L(vec![V::NULL(true), V::M(HashMap::from([("k".to_owned(), V::S("bad".to_owned()))]))]),
        ] {
            assert!(holds(&item(value.clone()), b"bad"), "{value:?}");
        }
        for value in [V::S("ba d".to_owned()), V::N("7".to_owned()), V::NS(texts("7")), V::BOOL(true)] {
            assert!(!holds(&item(value.clone()), b"bad"), "{value:?}");
        }
        assert!(!holds(&HashMap::from([("bad".to_owned(), V::NULL(true))]), b"bad"), "a name is no value");
    }

    #[test]
    fn bytes_are_found_inside_a_frame_also_when_it_is_cut_off() {
        let plain: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut text = b"a bad one".to_vec();
        text.extend(plain);
        let frame = zstd::encode_all(text.as_slice(), 3).unwrap();
        assert!(!contains(&frame[16..], b"a bad one") && frame.len() > 4_000);
        assert!(holds(&item(AttributeValue::B(frame.clone())), &199_999_u32.to_le_bytes()));
        let cut = frame[..frame.len() / 2].to_vec();
        assert!(holds(&item(AttributeValue::B(cut)), &1_000_u32.to_le_bytes()));
    }
}
