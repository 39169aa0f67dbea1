//! What is done to the events of a batch before they are packed: which are kept (`filter`), which of their fields
//! (`fields`), or what is counted and summed of them (`reduce`). **Pure.**
//!
//! All three are packing parameters, recorded with the cut, so they must mean the same for ever: a redelivery by
//! another build has to give the same bytes. Therefore nothing here goes by a library whose behaviour may change
//! with its version. JSON is taken apart by [`json`], numbers are compared and added as the decimals that they are
//! written as ([`number`]), and a change of meaning needs another
//! [decoding version](crate::parameters::TRANSFORM_DECODING_VERSION).
//!
//! Laws (tested): what is displayed parses to the same; parsing never panics and says where it stopped; every sum is
//! exact, so that it does not depend on the order of events.

use thiserror::Error;

pub mod fields;
pub mod filter;
pub mod json;
pub mod number;
pub mod pointer;
pub mod reduce;
pub mod time;

mod words;

pub use fields::Fields;
pub use filter::{Filter, Verdict};
pub use number::{Decimal, Number};
pub use pointer::Pointer;
pub use reduce::Reduce;

/// Why a text is no filter, no list of fields or no reduction. Positions count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("at character {at}: {why}")]
pub struct SyntaxError {
    /// Where it stops making sense.
    pub at: usize,
    /// What is wrong there and what to write instead.
    pub why: String,
}

impl SyntaxError {
    pub(crate) fn new(at: usize, why: impl Into<String>) -> Self {
        Self { at, why: why.into() }
    }
}
