//! What an event says: its bytes, parsed once into spans, and what is looked up in them. **Pure.**
//!
//! Key template, filter, fields, reduction and the producer all look into the same [`Event`], so that none of them can
//! read an event that another one cannot. Nothing here goes by a library whose behaviour may change with its version:
//! what an event says is part of the decoding version that cuts are recorded with.
//!
//! Laws (tested): no bytes make parsing panic or recurse; what is parsed is what RFC 8259 calls JSON, nested at most
//! [`MAX_DEPTH`] deep; a pointer finds what `serde_json` finds; two numbers have one canonical form exactly if they are
//! the same decimal.

mod event;
pub mod number;
mod parse;
pub mod pointer;
mod text;

pub use event::{Elements, Event, Kind, Members, Value};
pub use number::{Decimal, Number};
pub use parse::{Fault, MAX_BYTES, MAX_DEPTH, ParseError};
pub use pointer::{Pointer, PointerError};
pub use text::json_string;
