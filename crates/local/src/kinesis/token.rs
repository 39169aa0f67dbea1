//! The opaque texts that clients carry from one call to the next: shard iterators and ListShards tokens. Pure.
//!
//! Both name the very stream they were made for (also its creation, so that a stream made again under the same name is told
//! apart) and the time they were given out, because both expire. They are base64 of fields joined by `/`, which no stream's name
//! can contain, and are not protected: who alters one only deceives himself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::sequence::ShardNumber;

/// Which stream, for as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamIdentity {
    pub(crate) name: String,
    pub(crate) created_ms: u64,
    /// Counts the streams that this Kinesis has made: tells apart two of one name and one millisecond.
    pub(crate) incarnation: u64,
}

/// Where reading goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardIterator {
    pub(crate) stream: StreamIdentity,
    pub(crate) shard: ShardNumber,
    /// Index of the next record; 0 stands before the first.
    pub(crate) index: u64,
    pub(crate) issued_ms: u64,
}

impl ShardIterator {
    pub(crate) fn encode(&self) -> String {
        encode("iterator", &self.stream, &[self.shard.0, self.index, self.issued_ms])
    }

    /// `None` for a text that was never an iterator.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let (stream, [shard, index, issued_ms]) = decode("iterator", text)?;
        Some(Self { stream, shard: ShardNumber(shard), index, issued_ms })
    }
}

/// Where ListShards goes on. Which shards the filter lets through is asked anew at each page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListToken {
    pub(crate) stream: StreamIdentity,
    /// The last shard that was listed.
    pub(crate) after: ShardNumber,
    pub(crate) issued_ms: u64,
    /// The filter's code and value, see `ShardFilter`.
    pub(crate) filter: (u64, u64),
}

impl ListToken {
    pub(crate) fn encode(&self) -> String {
        encode("shards", &self.stream, &[self.after.0, self.issued_ms, self.filter.0, self.filter.1])
    }

    /// `None` for a text that was never a token.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let (stream, [after, issued_ms, code, value]) = decode("shards", text)?;
        Some(Self { stream, after: ShardNumber(after), issued_ms, filter: (code, value) })
    }
}

fn encode(kind: &str, stream: &StreamIdentity, numbers: &[u64]) -> String {
    let mut text = format!("{kind}/{}/{}/{}", stream.name, stream.created_ms, stream.incarnation);
    for number in numbers {
        text.push('/');
        text.push_str(&number.to_string());
    }
    STANDARD.encode(text)
}

fn decode<const N: usize>(kind: &str, text: &str) -> Option<(StreamIdentity, [u64; N])> {
    let text = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let mut fields = text.split('/');
    if fields.next()? != kind {
        return None;
    }
    let name = fields.next()?.to_owned();
    let numbers: Vec<u64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let (identity, rest) = numbers.split_at_checked(2)?;
    let stream = StreamIdentity { name, created_ms: identity[0], incarnation: identity[1] };
    Some((stream, rest.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_undoes_encoding(
            name in "[a-zA-Z0-9_.-]{1,128}",
            numbers in any::<[u64; 6]>(),
        ) {
            let [created_ms, incarnation, shard, issued_ms, a, b] = numbers;
            let stream = StreamIdentity { name, created_ms, incarnation };
            let shard = ShardNumber(shard);
            let iterator = ShardIterator { stream: stream.clone(), shard, index: a, issued_ms };
            prop_assert_eq!(ShardIterator::decode(&iterator.encode()), Some(iterator.clone()));
            prop_assert_eq!(ListToken::decode(&iterator.encode()), None);
            let token = ListToken { stream, after: shard, issued_ms, filter: (a, b) };
            prop_assert_eq!(ListToken::decode(&token.encode()), Some(token.clone()));
            prop_assert_eq!(ShardIterator::decode(&token.encode()), None);
        }

        #[test]
        fn any_other_text_is_refused(text in ".{0,60}") {
            prop_assert_eq!(ShardIterator::decode(&text), None);
        }
    }
}
