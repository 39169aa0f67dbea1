//! The local backend, driven by the real SDK clients over loopback sockets, and in-process where time must stand still.

#[cfg(test)]
mod budget;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod dynamodb;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod listing;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod scaling;
#[cfg(test)]
mod server;
#[cfg(test)]
mod shard_limits;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod table_capacity;
#[cfg(test)]
mod table_limits;
#[cfg(test)]
mod throughput;
#[cfg(test)]
mod writing;
