//! What the tests of the whole product share: they start its real programs on the embedded backend and look at
//! them from outside, through lease rows, items, signals and exit codes.

pub mod cost;
pub mod fill;
pub mod harness;
pub mod measure;
pub mod simulation;
