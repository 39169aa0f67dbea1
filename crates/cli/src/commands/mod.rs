//! One file per command.

pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod dead_letters;
pub(crate) mod drain;
pub(crate) mod leases;
#[cfg(feature = "embedded")]
pub(crate) mod local;
mod operator;
pub(crate) mod produce;
pub(crate) mod read;
pub(crate) mod run;
