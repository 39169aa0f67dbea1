//! The product as a whole: contract suites on the embedded backend, and the real program in processes of its own.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod burst;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod cost;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod example;
#[cfg(test)]
mod fill;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod kcl;
#[cfg(test)]
mod local;
mod lost_row;
mod memory;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod other_stream;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod packing_versions;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod produce;
#[cfg(test)]
mod rates;
#[cfg(test)]
mod read;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod reshard;
mod simulation;
mod simulation_wire;
#[cfg(test)]
mod stdout_sink;
#[cfg(test)]
mod transform;
