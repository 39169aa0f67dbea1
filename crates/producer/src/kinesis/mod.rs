//! The stream in Kinesis. AWS types stay in this module.

mod error;
#[cfg(test)]
mod tests;

use std::error::Error;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use sluicegate_checkpoint::Retry;
use thiserror::Error;

use crate::entry::Entry;
use crate::writer::{PutError, PutOutcome, StreamName, StreamWriter};

/// A record's largest size where the service does not say: 1 MiB, the default of every stream (Kinesis quotas
/// page).
const DEFAULT_MAX_RECORD_KIB: i32 = 1024;

/// One stream.
#[derive(Debug, Clone)]
pub struct KinesisStream {
    client: Client,
    target: Target,
}

/// What is asked for, for messages that name it.
#[derive(Debug, Clone)]
struct Target {
    stream: StreamName,
    region: Option<String>,
}

/// What publishing needs to know of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamDescription {
    /// Largest record, data and partition key: 1 to 10 MiB.
    pub max_record_bytes: usize,
    /// Shards that take records.
    pub open_shards: u32,
}

/// Why a stream could not be described.
#[derive(Debug, Error)]
pub enum DescribeError {
    /// No answer, for now.
    #[error("{what}")]
    Unavailable {
        /// What to look at.
        what: String,
        /// What the service or the connector said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer that will stay the same.
    #[error("{what}")]
    Refused {
        /// What is wrong and what to do.
        what: String,
        /// What the service or the SDK said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl DescribeError {
    /// What the caller should do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::Backoff,
            Self::Refused { .. } => Retry::Never,
        }
    }
}

impl KinesisStream {
    /// A stream behind a client, whose own retries must be off (`RetryConfig::disabled()`): they would hide lost
    /// answers. Its timeouts decide when an answer counts as lost.
    pub fn new(client: Client, stream: StreamName) -> Self {
        let region = client.config().region().map(ToString::to_string);
        Self { client, target: Target { stream, region } }
    }

    /// Asks for the stream's limits (`DescribeStreamSummary`, 20 calls a second for each account). A good first
    /// call: its errors tell a wrong name, region, endpoint or missing credentials apart.
    ///
    /// # Errors
    /// See [`DescribeError::retry`].
    pub async fn describe(&self) -> Result<StreamDescription, DescribeError> {
        let (name, arn) = self.target.name_and_arn();
        let request = self.client.describe_stream_summary().set_stream_name(name).set_stream_arn(arn);
        let answer = request.send().await.map_err(|sdk| error::describe_error(sdk, &self.target))?;
        let Some(summary) = answer.stream_description_summary() else {
            return Err(error::no_description(&self.target));
        };
        let max_record_kib = summary.max_record_size_in_kib().unwrap_or(DEFAULT_MAX_RECORD_KIB);
        Ok(StreamDescription {
            max_record_bytes: usize::try_from(max_record_kib).unwrap_or_default() * 1024,
            open_shards: u32::try_from(summary.open_shard_count()).unwrap_or_default(),
        })
    }
}

impl Target {
    fn name_and_arn(&self) -> (Option<String>, Option<String>) {
        let text = self.stream.as_str().to_owned();
        if text.starts_with("arn:") { (None, Some(text)) } else { (Some(text), None) }
    }
}

#[async_trait]
impl StreamWriter for KinesisStream {
    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<PutOutcome>, PutError> {
        let (name, arn) = self.target.name_and_arn();
        let records = entries.iter().map(request_entry).collect::<Result<Vec<_>, _>>();
        let records = records.map_err(|build| error::not_built(build.into()))?;
        let request =
            self.client.put_records().set_stream_name(name).set_stream_arn(arn).set_records(Some(records));
        let answer = request.send().await.map_err(|sdk| error::put_error(sdk, &self.target))?;
        let outcomes: Vec<PutOutcome> = answer.records().iter().map(outcome).collect();
        if outcomes.len() != entries.len() {
            return Err(error::wrong_count(outcomes.len(), entries.len()));
        }
        Ok(outcomes)
    }
}

fn request_entry(entry: &Entry) -> Result<PutRecordsRequestEntry, aws_sdk_kinesis::error::BuildError> {
    let data = Blob::new(entry.data.as_ref());
    PutRecordsRequestEntry::builder().data(data).partition_key(entry.key.as_str()).build()
}

/// A failed record has an error code, which is one of two (Kinesis API reference, `PutRecordsResultEntry`).
fn outcome(record: &PutRecordsResultEntry) -> PutOutcome {
    match record.error_code() {
        None => PutOutcome::Stored,
        Some("ProvisionedThroughputExceededException") => PutOutcome::Throttled,
        Some(_) => PutOutcome::Failed,
    }
}
