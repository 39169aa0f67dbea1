//! How soon fleets use what a table gives again.

pub mod verdict;
