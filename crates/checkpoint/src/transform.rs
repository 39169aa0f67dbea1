//! What is done to the events of a batch before they are packed: which are kept (`filter`), which of their fields
//! (`fields`), or what is counted and summed of them (`reduce`). **Pure.**
//!
//! All three are packing parameters, recorded with the cut, so they must mean the same for ever: a redelivery by
//! another build has to give the same bytes. Therefore nothing here goes by a library whose behaviour may change
//! with its version. What an event says is read by [`sluicegate_event`], numbers are compared and added as the decimals
//! that they are written as, and a change of meaning needs another
//! [decoding version](crate::parameters::EVENT_DECODING_VERSION); that of older ones is kept in
//! [`reading_before_3`](crate::reading_before_3).
//!
//! Laws (tested): what is displayed parses to the same; parsing never panics and says where it stopped; every sum is
//! exact, so that it does not depend on the order of events.

use thiserror::Error;

pub mod fields;
pub mod filter;
pub mod reduce;
pub mod time;

mod words;

pub use fields::Fields;
pub use filter::Filter;
pub use reduce::{Reduce, Window};
pub use time::Unit;

/// What becomes of an event, by the recorded parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes into its item.
    Kept,
    /// The filter does not keep it: it is left out, and counted as filtered.
    LeftOut,
    /// It is a user record of another shard: it is left out, and counted as foreign.
    Foreign,
    /// It cannot be read: it goes into its item as it is, and is counted.
    Unreadable,
    /// It cannot be read, and becomes a dead letter.
    DeadLetter,
}

impl Verdict {
    /// Whether the event goes into its item.
    pub fn keeps(self) -> bool {
        match self {
            Self::Kept | Self::Unreadable => true,
            Self::LeftOut | Self::Foreign | Self::DeadLetter => false,
        }
    }
}

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

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    /// A number in one of the many ways that JSON has for it.
    pub(crate) fn any_number_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
            any::<i64>().prop_map(|n| n.to_string()),
            (-1e9f64..1e9).prop_map(|n| n.to_string()),
        ]
    }

    /// A JSON value with members `a`, `b` and `c`.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-20i64..20).prop_map(Value::from),
            "[xyä\"\\\\/\n]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }
}
