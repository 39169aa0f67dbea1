//! Compression of one group, fed piece by piece so that payloads are never gathered first. **Pure.**

use std::io::{self, Read};

use bytes::Bytes;
use sluicegate_checkpoint::Codec;
use thiserror::Error;
use zstd::stream::raw::{Encoder, InBuffer, Operation, OutBuffer};

use crate::item::StoredCodec;

/// Room kept free for the compressor's output.
const ROOM: usize = 16 * 1024;

/// One compressor for all groups of a batch.
pub(super) struct Compressor {
    zstd: Option<Encoder<'static>>,
}

/// A framed and compressed group.
pub(super) struct Framed {
    /// The compressed bytes.
    pub stored: Vec<u8>,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// CRC-32 of the bytes before compression.
    pub sum: u32,
}

impl Compressor {
    pub(super) fn new(codec: Codec) -> io::Result<Self> {
        let zstd = match codec {
            Codec::None => None,
            Codec::Zstd(level) => Some(Encoder::new(level)?),
        };
        Ok(Self { zstd })
    }

    /// Begins a group of exactly this many bytes. Told the size in advance, zstd takes no larger tables than
    /// it needs and writes the size into the frame.
    pub(super) fn begin(&mut self, raw_bytes: u64) -> io::Result<Writer<'_>> {
        let size = usize::try_from(raw_bytes).unwrap_or(usize::MAX);
        let mut stored = Vec::new();
        match &mut self.zstd {
            None => stored.reserve_exact(size),
            Some(zstd) => {
                zstd.reinit()?;
                zstd.set_pledged_src_size(Some(raw_bytes))?;
                stored.reserve(zstd::zstd_safe::compress_bound(size).min(ROOM.max(size / 8)));
            }
        }
        Ok(Writer { zstd: self.zstd.as_mut(), stored, raw_bytes, sum: crc32fast::Hasher::new() })
    }
}

/// Takes the pieces of one group.
pub(super) struct Writer<'c> {
    zstd: Option<&'c mut Encoder<'static>>,
    stored: Vec<u8>,
    raw_bytes: u64,
    sum: crc32fast::Hasher,
}

impl Writer<'_> {
    pub(super) fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        self.sum.update(piece);
        let Some(zstd) = &mut self.zstd else {
            self.stored.extend_from_slice(piece);
            return Ok(());
        };
        let mut input = InBuffer::around(piece);
        while input.pos() < piece.len() {
            make_room(&mut self.stored);
            let filled = self.stored.len();
            zstd.run(&mut input, &mut OutBuffer::around_pos(&mut self.stored, filled))?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Framed> {
        if let Some(zstd) = &mut self.zstd {
            loop {
                make_room(&mut self.stored);
                let filled = self.stored.len();
                let left = zstd.finish(&mut OutBuffer::around_pos(&mut self.stored, filled), true)?;
                if left == 0 {
                    break;
                }
            }
        }
        Ok(Framed { stored: self.stored, raw_bytes: self.raw_bytes, sum: self.sum.finalize() })
    }
}

/// Some room is all the compressor needs; it is asked again until its input is gone.
fn make_room(stored: &mut Vec<u8>) {
    if stored.capacity() == stored.len() {
        stored.reserve(ROOM);
    }
}

/// Why stored bytes cannot be decompressed.
#[derive(Debug, Error)]
pub enum DecompressError {
    /// The bytes are no zstandard frame.
    #[error("the group cannot be decompressed")]
    Zstd(#[from] io::Error),
    /// They give more or fewer bytes than stated.
    #[error("the group has {found} bytes or more before compression and should have {stated}")]
    Length {
        /// Bytes found; reading stops one byte behind what was stated.
        found: usize,
        /// Bytes stated.
        stated: u64,
    },
}

/// Joins and decompresses the parts of a group. Grows with what it finds, not with what the item states, so
/// that a damaged size cannot exhaust memory.
pub(super) fn decompress(
    codec: StoredCodec,
    parts: &[Bytes],
    raw_bytes: u64,
) -> Result<Bytes, DecompressError> {
    let joined = match parts {
        [part] => part.clone(),
        parts => Bytes::from(parts.concat()),
    };
    let raw = match codec {
        StoredCodec::None => joined,
        StoredCodec::Zstd => {
            let mut raw = Vec::new();
            zstd::stream::read::Decoder::with_buffer(&joined[..])?
                .take(raw_bytes.saturating_add(1))
                .read_to_end(&mut raw)?;
            Bytes::from(raw)
        }
    };
    if u64::try_from(raw.len()) != Ok(raw_bytes) {
        return Err(DecompressError::Length { found: raw.len(), stated: raw_bytes });
    }
    Ok(raw)
}
