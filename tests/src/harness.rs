//! Programs, backends, fleets and what they leave behind. Every function that can fail says what it was doing, so
//! that a test is written with `?`.

pub mod backend;
pub mod binary;
pub mod browser;
pub mod command;
pub mod events;
pub mod fleet;
pub mod link;
pub mod process;
pub mod table;
pub mod wait;

pub use backend::Backend;
pub use command::{Finished, sluicegate, sluicegate_with};
pub use events::{Multiset, flights};
pub use fleet::Fleet;
pub use table::Table;
pub use wait::{LONG, wait_for};
