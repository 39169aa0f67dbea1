//! Input bytes -> lines: plain, gzip or zstd, told apart by their first bytes and not by a file's name.
//!
//! Memory is bounded whatever the input holds: a line longer than asked for is skipped without being collected.
//! (A zstd frame may itself ask for a window of up to 128 MiB, zstd's own default limit for decoding.) Several gzip
//! members or zstd frames after each other read as one input. A line ends with `\n`, or with the end of the input;
//! a `\r` right before the `\n` belongs to the line's end and is removed. Everything else of a line is kept byte
//! for byte.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;

use crate::summary::Progress;

/// How much of the input is read, and decoded, at a time.
const BUFFER_BYTES: usize = 128 * 1024;

/// How the input is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// RFC 1952; begins with `1f 8b`.
    Gzip,
    /// RFC 8878; begins with `28 b5 2f fd`, or with a skippable frame, `5x 2a 4d 18`.
    Zstd,
}

impl Encoding {
    /// Tells from the first bytes; an input shorter than its magic number is plain.
    pub fn of(first_bytes: &[u8]) -> Self {
        match first_bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// A line of the input. Numbers count from 1 and include empty and overlong lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// Nothing but white space.
    Empty,
    /// Its bytes without its end.
    Text(&'a [u8]),
    /// Longer than the maximum; it was skipped.
    TooLong,
}

/// Reads lines one after the other.
pub struct Lines {
    decoded: BufReader<Box<dyn Read + Send>>,
    max_line_bytes: usize,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Looks at the first bytes and sets the decoder up. `progress` is told how much of `input` has been read.
    ///
    /// # Errors
    /// When the input cannot be read, or the zstd decoder has no memory.
    pub fn open(
        input: impl Read + Send + 'static,
        max_line_bytes: usize,
        progress: Arc<Progress>,
    ) -> io::Result<Self> {
        let mut counted = Counted { input, progress };
        let mut first_bytes = Vec::with_capacity(4);
        counted.by_ref().take(4).read_to_end(&mut first_bytes)?;
        let encoding = Encoding::of(&first_bytes);
        let whole = Cursor::new(first_bytes).chain(counted);
        let decoded: Box<dyn Read + Send> = match encoding {
            Encoding::Plain => Box::new(whole),
            Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(whole))),
            Encoding::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(buffered(whole))?),
        };
        Ok(Self { decoded: buffered(decoded), max_line_bytes, line: Vec::new(), number: 0 })
    }

    /// The next line; none at the end of the input.
    ///
    /// # Errors
    /// When the input cannot be read or decoded any further.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        // Room for a longest line and its `\r\n`: what is still open after that many bytes is too long.
        let most = self.max_line_bytes.saturating_add(2);
        let limit = u64::try_from(most).unwrap_or(u64::MAX);
        self.decoded.by_ref().take(limit).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let ended = self.line.last() == Some(&b'\n');
        if !ended && self.line.len() == most {
            self.decoded.skip_until(b'\n')?;
        }
        let text = without_end(&self.line);
        if text.len() > self.max_line_bytes {
            return Ok(Some(Line::TooLong));
        }
        Ok(Some(if text.trim_ascii().is_empty() { Line::Empty } else { Line::Text(text) }))
    }

    /// The number of the line that [`Lines::next_line`] gave last; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether another whole line can be had without reading more of the input, which might block.
    pub fn has_line_at_hand(&self) -> bool {
        self.decoded.buffer().contains(&b'\n')
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("number", &self.number).finish_non_exhaustive()
    }
}

fn buffered<R: Read>(input: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER_BYTES, input)
}

fn without_end(line: &[u8]) -> &[u8] {
    let Some(line) = line.strip_suffix(b"\n") else { return line };
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Tells how much of the input has been read, before decoding: what a progress bar compares with a file's size.
struct Counted<R> {
    input: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(into)?;
        self.progress.on_input_read(bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    /// Gives at most `step` bytes a read, as a slow pipe does.
    struct Trickle {
        bytes: Cursor<Vec<u8>>,
        step: usize,
    }

    impl Read for Trickle {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = into.len().min(self.step);
            self.bytes.read(&mut into[..most])
        }
    }

    fn lines_of(input: Vec<u8>, max_line_bytes: usize, step: usize) -> io::Result<Vec<String>> {
        let (progress, total) = (Arc::new(Progress::default()), input.len());
        let trickle = Trickle { bytes: Cursor::new(input), step };
        let mut lines = Lines::open(trickle, max_line_bytes, Arc::clone(&progress))?;
        let mut seen = Vec::new();
        while let Some(line) = lines.next_line()? {
            seen.push(match line {
                Line::Empty => "<empty>".to_owned(),
                Line::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Line::TooLong => "<long>".to_owned(),
            });
        }
        assert_eq!(lines.number(), u64::try_from(seen.len()).unwrap());
        assert_eq!(progress.input_bytes(), u64::try_from(total).unwrap());
        Ok(seen)
    }

    #[test]
    fn the_encoding_is_told_from_the_first_bytes() {
        let text = b"{\"a\":1}\n{\"a\":2}\n";
        for input in [text.to_vec(), gzip(text), zstd(text)] {
            assert_eq!(lines_of(input, 100, 3).unwrap(), ["{\"a\":1}", "{\"a\":2}"]);
        }
        assert_eq!(Encoding::of(b"\x1f"), Encoding::Plain);
        assert_eq!(Encoding::of(b""), Encoding::Plain);
    }

    #[test]
    fn parts_compressed_one_by_one_read_as_one_input() {
        for encode in [gzip, zstd] {
            let input = [encode(b"1\n2"), encode(b"3\n")].concat();
            assert_eq!(lines_of(input, 100, 7).unwrap(), ["1", "23"]);
        }
        let skippable = [b"\x50\x2a\x4d\x18\x01\x00\x00\x00x".to_vec(), zstd(b"1\n")].concat();
        assert_eq!(lines_of(skippable, 100, 7).unwrap(), ["1"]);
    }

    #[test]
    fn a_truncated_archive_is_an_error_and_not_an_end() {
        let noise: Vec<u8> = (0..5_000_u32)
            .flat_map(|n| format!("{}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
            .collect();
        for encode in [gzip, zstd] {
            let mut input = encode(&noise);
            input.truncate(input.len() / 2);
            assert!(lines_of(input, 100, 1_000).is_err());
        }
    }

    #[test]
    fn only_the_end_of_a_line_is_removed() {
        let input = b"a \r\n\tb\r\r\n\r\n \n\nlast\r".to_vec();
        assert_eq!(
            lines_of(input, 100, 100).unwrap(),
            ["a ", "\tb\r", "<empty>", "<empty>", "<empty>", "last\r"]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_rest_goes_on() {
        let input = format!("1234\n12345\n12345\r\n1234\r\n{}\nok\n{}", "x".repeat(300_000), "y".repeat(9));
        let expected = ["1234", "<long>", "<long>", "1234", "<long>", "ok", "<long>"];
        assert_eq!(lines_of(input.into_bytes(), 4, 1_000).unwrap(), expected);
    }

    #[test]
    fn a_long_line_is_not_collected() {
        let progress = Arc::new(Progress::default());
        let mut lines = Lines::open(io::repeat(b'x').take(50_000_000), 1_000, progress).unwrap();
        assert_eq!(lines.next_line().unwrap(), Some(Line::TooLong));
        assert!(lines.line.capacity() < 10_000, "{}", lines.line.capacity());
        assert_eq!(lines.next_line().unwrap(), None);
    }

    proptest! {
        #[test]
        fn lines_come_back_in_order_however_the_input_trickles(
            texts in prop::collection::vec("[a-z]{1,40}", 0..30), step in 1_usize..64,
        ) {
            let input: String = texts.iter().map(|text| format!("{text}\n")).collect();
            for bytes in [input.clone().into_bytes(), gzip(input.as_bytes()), zstd(input.as_bytes())] {
                let expected: Vec<&str> = texts.iter().map(|text| if text.len() > 30 { "<long>" } else { text }).collect();
                prop_assert_eq!(lines_of(bytes, 30, step).unwrap(), expected);
            }
        }
    }
}
