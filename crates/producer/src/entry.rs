//! One line of input -> the record to publish, or why it cannot be one. Pure.
//!
//! The record's data are the exact bytes of the line. JSON is checked for validity and otherwise left alone; it is
//! parsed once, by what reads events everywhere else, so that a worker reads whatever is published here.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use sluicegate_checkpoint::KeyTemplate;
use sluicegate_event::{Event, ParseError};
use thiserror::Error;

/// A record to put: the unit of [`crate::StreamWriter::put_records`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The partition key: 1 to 256 characters.
    pub key: String,
    /// The event.
    pub data: Bytes,
}

impl Entry {
    /// Its size as Kinesis counts it: data before base64 plus the UTF-8 bytes of the key (Kinesis API reference,
    /// `PutRecordsRequestEntry`).
    pub fn bytes(&self) -> usize {
        self.key.len() + self.data.len()
    }
}

/// Where a record's partition key comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keying {
    /// A 64-bit hash of the line, in 16 hex digits: spreads evenly over any number of shards, and the same line
    /// always goes to the same shard. Events that differ in anything share no key, so a consumer that groups by
    /// partition key finds groups of one: name a template for that.
    #[default]
    LineHash,
    /// A template over the fields of the event.
    Template(KeyTemplate),
}

/// A record made of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The record.
    pub entry: Entry,
    /// The template found no key for it, so it has the fallback key.
    pub fallback_key: bool,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineFault {
    /// Not one JSON value.
    #[error("not valid JSON at column {column}: {message}")]
    Json {
        /// The byte of the line, from 1, at which reading stopped making sense.
        column: usize,
        /// What was found or missed there.
        message: String,
    },
    /// More than a record of the stream holds. Such a line is not read into memory.
    #[error("longer than the {max_bytes} bytes that a record of this stream may have")]
    TooLong {
        /// The stream's maximum record size.
        max_bytes: usize,
    },
    /// The line alone would fit, but not with its partition key.
    #[error(
        "{bytes} bytes with its partition key, more than the {max_bytes} that a record of this stream may have"
    )]
    TooLarge {
        /// Size of data and key.
        bytes: usize,
        /// The stream's maximum record size.
        max_bytes: usize,
    },
}

/// A line that could not be published.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {fault}")]
pub struct LineError {
    /// The line's number, from 1, in the input as decompressed.
    pub line: u64,
    /// What is wrong with it.
    pub fault: LineFault,
}

impl Serialize for LineError {
    /// As an object of `line` and `why`, for a summary that programs read.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Plain {
            line: u64,
            why: String,
        }
        Plain { line: self.line, why: self.fault.to_string() }.serialize(serializer)
    }
}

impl Keying {
    /// Makes the record of a line.
    ///
    /// # Errors
    /// What is wrong with the line: it is no JSON, or too large for the stream with its key.
    pub fn entry_of(&self, line: &[u8], max_record_bytes: usize) -> Result<Keyed, LineFault> {
        let event = Event::parse(line).map_err(json_fault)?;
        let (key, fallback_key) = match self {
            Self::LineHash => (format!("{:016x}", fnv1a(line)), false),
            Self::Template(template) => {
                let key = template.render(&event);
                let fallback = key.is_fallback();
                (key.into_text(), fallback)
            }
        };
        let bytes = key.len() + line.len();
        if bytes > max_record_bytes {
            return Err(LineFault::TooLarge { bytes, max_bytes: max_record_bytes });
        }
        Ok(Keyed { entry: Entry { key, data: Bytes::copy_from_slice(line) }, fallback_key })
    }
}

fn json_fault(error: ParseError) -> LineFault {
    LineFault::Json { column: error.at + 1, message: error.fault.to_string() }
}

/// FNV-1a, 64 bits (offset basis and prime: draft-eastlake-fnv). Chosen because it is fixed for ever, unlike
/// std's hasher; Kinesis hashes the key again, so distinct is all it has to be.
fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::key_template::FALLBACK_KEY;

    const MAX: usize = 1024;

    #[test]
    fn the_bytes_of_the_line_are_the_record() {
        let line = b" {\"b\": 1.50, \"a\":\"\\u00e9\"}\t";
        for keying in [Keying::LineHash, Keying::Template(KeyTemplate::parse("{/a}").unwrap())] {
            assert_eq!(keying.entry_of(line, MAX).unwrap().entry.data, line.as_slice());
        }
    }

    #[test]
    fn without_a_template_equal_lines_share_a_key_and_others_do_not() {
        let key = |line: &[u8]| Keying::LineHash.entry_of(line, MAX).unwrap().entry.key;
        assert_eq!(key(b"{}"), key(b"{}"));
        assert_ne!(key(b"{}"), key(b"{ }"));
        // Test vector of the FNV reference: fnv1a("a") in 64 bits.
        assert_eq!(format!("{:016x}", fnv1a(b"a")), "af63dc4c8601ec8c");
    }

    #[test]
    fn without_a_template_keys_spread_evenly_over_the_leading_digit() {
        let mut counts = [0_u32; 16];
        for number in 0..16_000 {
            let keyed = Keying::LineHash.entry_of(format!("{{\"n\":{number}}}").as_bytes(), MAX).unwrap();
            counts[usize::from_str_radix(&keyed.entry.key[..1], 16).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn what_the_template_does_not_find_gets_the_fallback_key() {
        let keying = Keying::Template(KeyTemplate::parse("{/job}").unwrap());
        let keyed = keying.entry_of(b"{\"job\":null}", MAX).unwrap();
        assert_eq!((keyed.entry.key.as_str(), keyed.fallback_key), (FALLBACK_KEY, true));
        assert!(!keying.entry_of(b"{\"job\":7}", MAX).unwrap().fallback_key);
    }

    #[test]
    fn a_line_that_is_no_json_says_where() {
        let fault = Keying::LineHash.entry_of(b"{\"a\":}", MAX).unwrap_err();
        let error = LineError { line: 17, fault };
        assert_eq!(error.to_string(), "line 17: not valid JSON at column 6: expected value");
        for bad in [&b"{} {}"[..], b"{", b"nul", b"\"\xff\"", b"\xef\xbb\xbf{}"] {
            assert!(matches!(Keying::LineHash.entry_of(bad, MAX), Err(LineFault::Json { .. })), "{bad:?}");
        }
    }

    #[test]
    fn what_one_keying_takes_every_keying_takes() {
        let half = br#"{"job":"j1","text":"cut \ud83d"}"#;
        let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
        for template in ["{/job}", "{/text}"] {
            let keying = Keying::Template(KeyTemplate::parse(template).unwrap());
            for line in [&half[..], deep.as_bytes(), b"1e999"] {
                let taken = |keying: &Keying| keying.entry_of(line, MAX).is_ok();
                assert_eq!(taken(&keying), taken(&Keying::LineHash));
                assert_eq!(taken(&keying), line != deep.as_bytes());
            }
        }
        let keying = Keying::Template(KeyTemplate::parse("{/text}").unwrap());
        assert_eq!(keying.entry_of(half, MAX).unwrap().entry.key, "cut \u{FFFD}");
    }

    #[test]
    fn a_record_may_have_the_streams_maximum_with_its_key_and_no_more() {
        let line = b"\"0123456789\"";
        let whole = 16 + line.len();
        assert_eq!(Keying::LineHash.entry_of(line, whole).unwrap().entry.bytes(), whole);
        let fault = LineFault::TooLarge { bytes: whole, max_bytes: whole - 1 };
        assert_eq!(Keying::LineHash.entry_of(line, whole - 1), Err(fault));
    }
}
