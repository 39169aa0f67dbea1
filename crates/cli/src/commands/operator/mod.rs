//! What the operator commands share: the tables of one application, judging owners, and conditional changes.

pub(crate) mod change;
pub(crate) mod fleet;
pub(crate) mod names;
pub(crate) mod owners;
pub(crate) mod row;
