//! The bearer token that the admin server may ask for (pure).

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

/// Shortest and longest token.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

/// A token that workers and operators share. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Arc<str>);

/// A text that cannot be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token has 16 to 256 characters, none of them a space or outside of ASCII")]
pub struct NoToken;

impl AdminToken {
    /// Reads a token.
    ///
    /// # Errors
    /// It is too short or too long, or cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, NoToken> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if printable && LENGTHS.contains(&text.len()) { Ok(Self(text.into())) } else { Err(NoToken) }
    }

    /// What a request that bears it says.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether a request bears it. Takes the same time wherever they differ.
    pub(crate) fn is_borne_by(&self, header: Option<&HeaderValue>) -> bool {
        let Some((scheme, given)) = header.and_then(|header| header.to_str().ok()?.split_once(' ')) else {
            return false;
        };
        let (mine, given) = (self.0.as_bytes(), given.trim().as_bytes());
        let differ = mine.iter().zip(given).fold(0, |differ, (a, b)| differ | (a ^ b));
        scheme.eq_ignore_ascii_case("bearer") && mine.len() == given.len() && differ == 0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_behind_bearer_opens_and_it_is_never_printed() {
        let token = AdminToken::new("correct-horse-battery").unwrap();
        assert!(token.is_borne_by(token.header().as_ref()));
        for (given, opens) in [
            ("bearer correct-horse-battery", true),
            ("Bearer correct-horse-batterY", false),
            ("Bearer correct-horse", false),
            ("Bearer correct-horse-battery-staple", false),
            ("Basic correct-horse-battery", false),
            ("correct-horse-battery", false),
            ("", false),
        ] {
            assert_eq!(token.is_borne_by(Some(&HeaderValue::from_static(given))), opens, "{given}");
        }
        assert!(!token.is_borne_by(None));
        assert!(!format!("{token:?} {:?}", token.header()).contains("horse"));
    }

    #[test]
    fn what_cannot_stand_in_a_header_or_is_short_is_no_token() {
        for text in ["", "short", "with a space in it", "lüneburger-heide-1", "line\nfeed-and-more-of-it"] {
            assert_eq!(AdminToken::new(text), Err(NoToken), "{text}");
        }
        assert_eq!(AdminToken::new(&"x".repeat(257)), Err(NoToken));
    }
}
