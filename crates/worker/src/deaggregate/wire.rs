//! The protobuf message inside an aggregated record, as the Kinesis Producer Library defines it (proto2), read in place.
//!
//! ```text
//! 1 partition_key_table: repeated string       3 records: repeated message
//! 2 explicit_hash_key_table: repeated string       1 partition_key_index: uint64, required
//!                                                  2 explicit_hash_key_index: uint64
//!                                                  3 data: bytes, required
//!                                                  4 tags: repeated message (1 key: string, required; 2 value: string)
//! ```
//! The primitives are prost's. Its messages would make 90 bytes of each user record before anything is known of their
//! number; a test holds the two against each other. Tables may stand behind the records that use them.

use std::ops::Range;

use prost::encoding::{DecodeContext, WireType, check_wire_type, decode_key, decode_varint, skip_field};

use super::Whole;

/// What a field of the message adds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    PartitionKeys,
    ExplicitHashKeys,
    UserRecords,
}

/// The fields of the message, and where the bytes of each are.
pub(super) struct Fields<'a> {
    message: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { message, rest: message }
    }

    fn field(&mut self) -> Result<Option<(Table, Range<usize>)>, Whole> {
        let (number, wire_type) = decode_key(&mut self.rest).map_err(undecodable)?;
        let table = match number {
            1 => Table::PartitionKeys,
            2 => Table::ExplicitHashKeys,
            3 => Table::UserRecords,
            _ => {
                skip(wire_type, number, &mut self.rest)?;
                return Ok(None);
            }
        };
        let range = delimited(self.message.len(), wire_type, &mut self.rest)?;
        Ok(Some((table, range)))
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<(Table, Range<usize>), Whole>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.field() {
                Ok(None) => {}
                Ok(Some(field)) => return Some(Ok(field)),
                Err(why) => {
                    self.rest = &[];
                    return Some(Err(why));
                }
            }
        }
        None
    }
}

/// One user record: indices into the tables, and where its payload is in the message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct User {
    pub(super) partition_key_index: Option<u64>,
    pub(super) explicit_hash_key_index: Option<u64>,
    pub(super) data: Option<Range<usize>>,
}

/// The user records of the message, in order.
pub(super) fn users(message: &[u8]) -> impl Iterator<Item = Result<User, Whole>> {
    Fields::of(message).filter_map(move |field| match field {
        Ok((Table::UserRecords, range)) => Some(user(message, range)),
        Ok(_) => None,
        Err(why) => Some(Err(why)),
    })
}

fn user(message: &[u8], range: Range<usize>) -> Result<User, Whole> {
    let mut user = User::default();
    let end = range.end;
    let mut rest = &message[range];
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).map_err(undecodable)?;
        match number {
            1 => user.partition_key_index = Some(number_of(wire_type, &mut rest)?),
            2 => user.explicit_hash_key_index = Some(number_of(wire_type, &mut rest)?),
            3 => user.data = Some(delimited(end, wire_type, &mut rest)?),
            4 => {
                let tag = delimited(end, wire_type, &mut rest)?;
                check_tag(message, tag)?;
            }
            _ => skip(wire_type, number, &mut rest)?,
        }
    }
    Ok(user)
}

/// Nothing reads tags, but KCL takes a message with a tag that has no key as undecodable.
fn check_tag(message: &[u8], range: Range<usize>) -> Result<(), Whole> {
    let end = range.end;
    let mut rest = &message[range];
    let mut has_key = false;
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).map_err(undecodable)?;
        match number {
            1 | 2 => {
                text(message, delimited(end, wire_type, &mut rest)?)?;
                has_key |= number == 1;
            }
            _ => skip(wire_type, number, &mut rest)?,
        }
    }
    if has_key { Ok(()) } else { Err(Whole::Message("a tag has no key".to_owned())) }
}

/// The text at a place of the message.
pub(super) fn text(message: &[u8], range: Range<usize>) -> Result<&str, Whole> {
    let bytes = message.get(range).ok_or_else(|| Whole::Message("it ends early".to_owned()))?;
    std::str::from_utf8(bytes).map_err(|_no_text| Whole::Message("a text is not UTF-8".to_owned()))
}

fn number_of(wire_type: WireType, rest: &mut &[u8]) -> Result<u64, Whole> {
    check_wire_type(WireType::Varint, wire_type).map_err(undecodable)?;
    decode_varint(rest).map_err(undecodable)
}

/// A run of bytes that says its length, in a text of which `end` is the end of `rest`.
fn delimited(end: usize, wire_type: WireType, rest: &mut &[u8]) -> Result<Range<usize>, Whole> {
    check_wire_type(WireType::LengthDelimited, wire_type).map_err(undecodable)?;
    let length = decode_varint(rest).map_err(undecodable)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
    let length = length.ok_or_else(|| Whole::Message("it ends early".to_owned()))?;
    let start = end - rest.len();
    *rest = &rest[length..];
    Ok(start..start + length)
}

fn skip(wire_type: WireType, number: u32, rest: &mut &[u8]) -> Result<(), Whole> {
    skip_field(wire_type, number, rest, DecodeContext::default()).map_err(undecodable)
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn undecodable(error: prost::DecodeError) -> Whole {
    Whole::Message(error.to_string())
}
