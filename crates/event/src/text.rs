//! JSON strings: which escapes there are, and what text they stand for. **Pure.**

/// What stands for half of a surrogate pair, which no text can hold: U+FFFD.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// One escape of a JSON string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Escape {
    /// The character that it stands for.
    pub(crate) character: char,
    /// Bytes that it takes, the backslash counted.
    pub(crate) bytes: usize,
    /// It is half of a surrogate pair without the other half.
    pub(crate) half: bool,
}

/// Reads the escape at the beginning of these bytes, which is a backslash. A pair of surrogates is one escape.
pub(crate) fn escape(bytes: &[u8]) -> Option<Escape> {
    let plain = |character| Some(Escape { character, bytes: 2, half: false });
    match bytes.get(1)? {
        b'"' => plain('"'),
        b'\\' => plain('\\'),
        b'/' => plain('/'),
        b'b' => plain('\u{8}'),
        b'f' => plain('\u{c}'),
        b'n' => plain('\n'),
        b'r' => plain('\r'),
        b't' => plain('\t'),
        b'u' => unicode(bytes),
        _ => None,
    }
}

fn unicode(bytes: &[u8]) -> Option<Escape> {
    let first = unit(bytes)?;
    if let Some(character) = char::from_u32(first) {
        return Some(Escape { character, bytes: 6, half: false });
    }
    let second = bytes.get(6..).and_then(unit).filter(|unit| (0xDC00..0xE000).contains(unit));
    let pair = second.filter(|_| first < 0xDC00);
    let pair =
        pair.and_then(|second| char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)));
    Some(match pair {
        Some(character) => Escape { character, bytes: 12, half: false },
        None => Escape { character: REPLACEMENT, bytes: 6, half: true },
    })
}

/// The number of an escape such as `\u00e4` at the beginning of these bytes.
fn unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |number, digit| Some(number * 16 + char::from(*digit).to_digit(16)?))
}

/// The text between the quotes of a parsed string, escapes resolved.
pub(crate) fn resolved(inner: &str) -> String {
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let Some(escape) = escape(&rest.as_bytes()[at..]) else { break };
        text.push(escape.character);
        rest = rest.get(at + escape.bytes..).unwrap_or_default();
    }
    text.push_str(rest);
    text
}

/// A text as a JSON string, with quotes. Fixed for ever: stored reductions and recorded parameters hold such strings.
pub fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_a_surrogate_pair_becomes_the_replacement_character() {
        for (inner, text) in [
            (r"cut \ud83d", "cut \u{FFFD}"),
            (r"\ude00", "\u{FFFD}"),
            (r"\ud83d\ude00", "😀"),
            (r"\uD83D\uD83D\uDE00", "\u{FFFD}😀"),
            (r"\ude00\ud83d", "\u{FFFD}\u{FFFD}"),
            (r"\ud83dA\n", "\u{FFFD}A\n"),
            (r"\ud83d\u0041", "\u{FFFD}A"),
        ] {
            assert_eq!(resolved(inner), text, "{inner}");
        }
        assert_eq!([r"\u12", r"\x", r"\", r"\u12g4"].map(|text| escape(text.as_bytes())), [None; 4]);
    }

    proptest! {
        #[test]
        fn strings_are_written_and_read_as_serde_json_does(text in "\\PC{0,20}|[\\x00-\\x7f\u{80}-\u{9f}]{0,20}") {
            let written = json_string(&text);
            prop_assert_eq!(&written, &serde_json::to_string(&text).unwrap());
            prop_assert_eq!(resolved(&written[1..written.len() - 1]), text);
        }
    }
}
