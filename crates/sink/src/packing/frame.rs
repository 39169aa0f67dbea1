//! Framing: where each event of a group stands, when it arrived, and its payload, as one run of bytes.
//! **Pure.**
//!
//! Every place is written relative to the event before it, the first one relative to the cut: the digits that
//! two sequence numbers share are counted, not repeated; arrivals and indices are differences. Version 1
//! writes the four columns of places and lengths first and all payloads behind them, which compresses best
//! and lets a reader look at places alone; version 2 writes event by event.

use std::io;

use bytes::Bytes;
use sluicegate_checkpoint::{ArrivalMillis, Record, SequenceNumber, SubSequenceNumber};
use thiserror::Error;

use super::PackingVersion;
use super::codec::{Compressor, Framed};
use super::varint;
use crate::item::common_prefix;

/// An event as a group holds it: shard, epoch and key are the group's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Sequence number of its Kinesis record.
    pub sequence_number: SequenceNumber,
    /// Its index in that record.
    pub sub_sequence_number: SubSequenceNumber,
    /// When Kinesis took it.
    pub arrival: ArrivalMillis,
    /// The payload, exactly as published.
    pub data: Bytes,
}

/// Why framed bytes make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// They end in the middle of something, or a number does not fit.
    #[error("the framed group ends early or holds an impossible number")]
    Malformed,
    /// A sequence number is not one.
    #[error("the framed group holds an impossible sequence number")]
    SequenceNumber,
    /// Something follows the last event.
    #[error("the framed group has bytes behind its last event")]
    Trailing,
}

/// What the next event's place is written relative to.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    sequence_number: &'a str,
    sub: u64,
    arrival: i64,
}

impl<'a> Place<'a> {
    /// The place that a group's first event is relative to: the cut's first sequence number, index 0, and the
    /// arrival in the sort key.
    pub(super) fn of_cut(first: &'a SequenceNumber, arrival: ArrivalMillis) -> Self {
        Self { sequence_number: first.as_str(), sub: 0, arrival: arrival.0 }
    }

    /// Writes the sequence number: digits shared with the one before, further digits, and those.
    fn put_sequence_number(&mut self, next: &'a SequenceNumber, out: &mut Vec<u8>) {
        let next = next.as_str();
        let shared = common_prefix(self.sequence_number, next);
        let rest = next.as_bytes().get(shared..).unwrap_or_default();
        varint::put(out, shared as u64);
        varint::put(out, rest.len() as u64);
        out.extend_from_slice(rest);
    }

    /// Writes the index: the difference within one Kinesis record, the index itself in another.
    fn put_sub(&mut self, next: &'a Record, out: &mut Vec<u8>) {
        let before = if next.sequence_number().as_str() == self.sequence_number { self.sub } else { 0 };
        varint::put(out, next.sub_sequence_number().0.wrapping_sub(before));
    }

    fn put_arrival(&mut self, next: ArrivalMillis, out: &mut Vec<u8>) {
        varint::put(out, varint::zigzag(next.0.wrapping_sub(self.arrival)));
    }

    fn advance(&mut self, record: &'a Record) {
        self.sequence_number = record.sequence_number().as_str();
        self.sub = record.sub_sequence_number().0;
        self.arrival = record.arrival().0;
    }
}

/// Frames and compresses the events of a group.
pub(super) fn encode(
    version: PackingVersion,
    base: &Place<'_>,
    records: &[&Record],
    compressor: &mut Compressor,
) -> io::Result<Framed> {
    match version {
        PackingVersion::V1 => encode_columns(base, records, compressor),
        PackingVersion::V2 => encode_rows(base, records, compressor),
    }
}

fn encode_columns(base: &Place<'_>, records: &[&Record], compressor: &mut Compressor) -> io::Result<Framed> {
    let head = columns(base, records);
    let payload_bytes: usize = records.iter().map(|record| record.data().len()).sum();
    let mut group = compressor.begin((head.len() + payload_bytes) as u64)?;
    group.put(&head)?;
    for record in records {
        group.put(record.data())?;
    }
    group.finish()
}

fn columns(base: &Place<'_>, records: &[&Record]) -> Vec<u8> {
    // A sequence number of 56 digits shares about half of them with the one before.
    const TYPICAL_BYTES: usize = 36;
    let mut head = Vec::with_capacity(10 + records.len() * TYPICAL_BYTES);
    varint::put(&mut head, records.len() as u64);
    let mut place = base.clone();
    for record in records {
        place.put_sequence_number(record.sequence_number(), &mut head);
        place.advance(record);
    }
    let mut place = base.clone();
    for record in records {
        place.put_sub(record, &mut head);
        place.advance(record);
    }
    let mut place = base.clone();
    for record in records {
        place.put_arrival(record.arrival(), &mut head);
        place.advance(record);
    }
    for record in records {
        varint::put(&mut head, record.data().len() as u64);
    }
    head
}

fn encode_rows(base: &Place<'_>, records: &[&Record], compressor: &mut Compressor) -> io::Result<Framed> {
    let mut row = Vec::with_capacity(64);
    varint::put(&mut row, records.len() as u64);
    let mut raw_bytes = row.len();
    let mut place = base.clone();
    for record in records {
        write_row(&mut place, record, &mut row);
        raw_bytes += row.len() + record.data().len();
    }
    let mut group = compressor.begin(raw_bytes as u64)?;
    row.clear();
    varint::put(&mut row, records.len() as u64);
    group.put(&row)?;
    let mut place = base.clone();
    for record in records {
        write_row(&mut place, record, &mut row);
        group.put(&row)?;
        group.put(record.data())?;
    }
    group.finish()
}

fn write_row<'a>(place: &mut Place<'a>, record: &'a Record, row: &mut Vec<u8>) {
    row.clear();
    place.put_sequence_number(record.sequence_number(), row);
    place.put_sub(record, row);
    place.put_arrival(record.arrival(), row);
    varint::put(row, record.data().len() as u64);
    place.advance(record);
}

/// Takes the framed bytes of a group apart. Payloads share the memory of `raw`.
///
/// # Errors
/// Bytes that this version's framing cannot have written.
pub(super) fn decode(
    version: PackingVersion,
    base: &Place<'_>,
    raw: &Bytes,
) -> Result<Vec<Unpacked>, FrameError> {
    let mut frames = Frames { raw, rest: raw };
    let count = frames.number()?;
    // Every event takes at least four bytes, so a damaged count cannot exhaust memory.
    let count = usize::try_from(count).ok().filter(|count| count.saturating_mul(4) <= raw.len());
    let count = count.ok_or(FrameError::Malformed)?;
    let mut events = Vec::with_capacity(count);
    match version {
        PackingVersion::V1 => frames.columns(base, count, &mut events)?,
        PackingVersion::V2 => frames.rows(base, count, &mut events)?,
    }
    if frames.rest.is_empty() { Ok(events) } else { Err(FrameError::Trailing) }
}

struct Frames<'r> {
    raw: &'r Bytes,
    rest: &'r [u8],
}

impl Frames<'_> {
    fn columns(
        &mut self,
        base: &Place<'_>,
        count: usize,
        events: &mut Vec<Unpacked>,
    ) -> Result<(), FrameError> {
        for index in 0..count {
            let before = events
                .get(index.wrapping_sub(1))
                .map_or(base.sequence_number, |e| e.sequence_number.as_str());
            let sequence_number = self.sequence_number(before)?;
            events.push(Unpacked {
                sequence_number,
                sub_sequence_number: SubSequenceNumber(0),
                arrival: ArrivalMillis(0),
                data: Bytes::new(),
            });
        }
        let (mut sub, mut before) = (base.sub, base.sequence_number);
        for event in events.iter_mut() {
            sub = self.sub(event.sequence_number.as_str() == before, sub)?;
            event.sub_sequence_number = SubSequenceNumber(sub);
            before = event.sequence_number.as_str();
        }
        let mut arrival = base.arrival;
        for event in events.iter_mut() {
            arrival = self.arrival(arrival)?;
            event.arrival = ArrivalMillis(arrival);
        }
        let lengths = (0..count).map(|_| self.number()).collect::<Result<Vec<_>, _>>()?;
        for (event, length) in events.iter_mut().zip(lengths) {
            event.data = self.payload(length)?;
        }
        Ok(())
    }

    fn rows(&mut self, base: &Place<'_>, count: usize, events: &mut Vec<Unpacked>) -> Result<(), FrameError> {
        let (mut sub, mut arrival) = (base.sub, base.arrival);
        for index in 0..count {
            let before = events
                .get(index.wrapping_sub(1))
                .map_or(base.sequence_number, |e| e.sequence_number.as_str());
            let sequence_number = self.sequence_number(before)?;
            sub = self.sub(sequence_number.as_str() == before, sub)?;
            arrival = self.arrival(arrival)?;
            let length = self.number()?;
            let data = self.payload(length)?;
            events.push(Unpacked {
                sequence_number,
                sub_sequence_number: SubSequenceNumber(sub),
                arrival: ArrivalMillis(arrival),
                data,
            });
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u64, FrameError> {
        varint::take(&mut self.rest).ok_or(FrameError::Malformed)
    }

    fn bytes(&mut self, length: u64) -> Result<&[u8], FrameError> {
        let length = usize::try_from(length).map_err(|_too_long| FrameError::Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FrameError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn sequence_number(&mut self, before: &str) -> Result<SequenceNumber, FrameError> {
        let shared = self.number()?;
        let further = self.number()?;
        let prefix = usize::try_from(shared).ok().and_then(|shared| before.get(..shared));
        let prefix = prefix.ok_or(FrameError::Malformed)?;
        let digits =
            std::str::from_utf8(self.bytes(further)?).map_err(|_no_text| FrameError::SequenceNumber)?;
        SequenceNumber::parse([prefix, digits].concat()).map_err(|_no_number| FrameError::SequenceNumber)
    }

    fn sub(&mut self, same_record: bool, before: u64) -> Result<u64, FrameError> {
        let base = if same_record { before } else { 0 };
        Ok(self.number()?.wrapping_add(base))
    }

    fn arrival(&mut self, before: i64) -> Result<i64, FrameError> {
        Ok(before.wrapping_add(varint::unzigzag(self.number()?)))
    }

    fn payload(&mut self, length: u64) -> Result<Bytes, FrameError> {
        let start = self.raw.len() - self.rest.len();
        let length = self.bytes(length)?.len();
        Ok(self.raw.slice(start..start + length))
    }
}
