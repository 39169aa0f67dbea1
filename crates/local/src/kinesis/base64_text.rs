//! Checks base64 without decoding it: data is kept as the text that it arrived as. Pure.

/// The standard alphabet (RFC 4648, section 4); a symbol's place is its six bits.
const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// How many bytes `text` decodes to; `None` when it is no canonical base64 with padding.
pub(crate) fn decoded_len(text: &str) -> Option<usize> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let symbols = text.trim_end_matches('=').as_bytes();
    let padding = text.len() - symbols.len();
    let last = SYMBOLS.iter().position(|symbol| Some(symbol) == symbols.last()).unwrap_or_default();
    // Bits of the last character beyond the last byte must be 0, or strict decoders refuse what we hand out.
    let canonical = match padding {
        0 => true,
        1 => last & 0b11 == 0,
        2 => last & 0b1111 == 0,
        _ => false,
    };
    (canonical && all_symbols(symbols)).then(|| text.len() / 4 * 3 - padding)
}

/// How many bytes a text that [`decoded_len`] accepted decodes to.
pub(crate) fn decoded_len_of_checked(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// Looks at every character whatever the ones before it were: without an early way out the compiler can take many at once.
fn all_symbols(symbols: &[u8]) -> bool {
    symbols.iter().fold(true, |all, symbol| all & is_symbol(*symbol))
}

fn is_symbol(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let digit = byte.wrapping_sub(b'0') < 10;
    letter | digit | (byte == b'+') | (byte == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_encoding_is_accepted_with_its_length(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = STANDARD.encode(&data);
            prop_assert_eq!(decoded_len(&text), Some(data.len()));
            prop_assert_eq!(decoded_len_of_checked(&text), data.len());
        }

        #[test]
        fn what_a_decoder_refuses_is_refused(text in "[A-Za-z0-9+/= \\-_]{0,12}") {
            prop_assert_eq!(decoded_len(&text), STANDARD.decode(&text).ok().map(|data| data.len()));
        }
    }

    #[test]
    fn broken_padding_and_foreign_characters_are_refused() {
        for text in ["A", "AA", "AAA", "====", "A===", "AA=A", "AB==", "AAB=", "AA-_", "AAA\n"] {
            assert_eq!(decoded_len(text), None, "{text}");
        }
        assert_eq!(decoded_len(""), Some(0));
    }
}
