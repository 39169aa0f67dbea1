//! One file per command.

#[cfg(feature = "embedded")]
pub(crate) mod local;
pub(crate) mod produce;
pub(crate) mod read;
pub(crate) mod run;
