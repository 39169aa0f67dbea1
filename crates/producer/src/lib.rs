//! A bounded, back-pressured publisher of events to Kinesis: newline-delimited JSON in, PutRecords out.
//!
//! ```text
//!  input thread                       bounded        flusher                        tasks, at most `concurrency`
//!  decode -> line -> check -> entry   -- chunks -->  build requests, linger, pace   -- request -->  put, retry
//! ```
//!
//! A slow stream fills the requests in flight, then the chunks, then stops the input thread: memory is bounded by
//! those numbers whatever the input's size. Every valid line is stored at least once. It is stored exactly once
//! unless the answer to a PutRecords was lost: its retry may put a record again, and such requests are counted
//! ([`Summary::unknown_outcomes`]). Requests overtake each other, and of one request the failed records come
//! later, so the stream's order is not the input's.
//!
//! `entry`, `requests`, `pace` and `summary` are pure; `writer` is the port, `kinesis` and `memory` its adapters.
//! Nothing here opens files, reads the environment or prints.

pub mod entry;
pub mod kinesis;
pub mod lines;
pub mod memory;
pub mod pace;
pub mod publisher;
pub mod requests;
pub mod summary;
pub mod writer;

mod delivery;
mod flusher;
mod input;

pub use entry::{Entry, Keying, LineError, LineFault};
pub use publisher::{OnError, PublishError, PublishFault, PublishOptions, publish};
pub use summary::{Progress, Summary};
pub use writer::{PutError, PutOutcome, StreamName, StreamWriter};
