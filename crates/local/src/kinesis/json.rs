//! JSON written by hand for the hot answers, by serde for the others.

use std::fmt::Write;

use serde::Serialize;

use super::error::{ErrorKind, KinesisError};

/// Encodes an answer.
pub(crate) fn encode<T: Serialize>(answer: &T) -> Result<String, KinesisError> {
    serde_json::to_string(answer)
        .map_err(|error| KinesisError::new(ErrorKind::InternalFailure, error.to_string()))
}

/// Appends a text in quotes.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let plain = text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        out.push_str(text);
    } else {
        text.chars().for_each(|character| push_escaped(out, character));
    }
    out.push('"');
}

fn push_escaped(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        control if control < ' ' => push(out, format_args!("\\u{:04x}", u32::from(control))),
        plain => out.push(plain),
    }
}

/// Appends a timestamp: seconds with three digits of fraction.
pub(crate) fn push_seconds(out: &mut String, ms: u64) {
    push(out, format_args!("{}.{:03}", ms / 1000, ms % 1000));
}

/// Appends formatted text.
pub(crate) fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    if out.write_fmt(text).is_err() {
        debug_assert!(false, "a String refused text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_string_reads_back_as_it_was(text in any::<String>()) {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn seconds_carry_milliseconds() {
        let mut out = String::new();
        push_seconds(&mut out, 1_700_000_000_007);
        assert_eq!(out, "1700000000.007");
    }
}
