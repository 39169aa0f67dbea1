//! Reading by GetRecords: one iterator a shard, renewed from the position when it expires.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::ConfigBag;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::{DateTime, DateTimeFormat};
use aws_sdk_kinesis::types::{RecordDistributionStrategy, ShardIteratorType, StreamDescriptionSummary};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use bytes::Bytes;
use sluicegate_checkpoint::{ArrivalMillis, Record, SequenceNumber, ShardId};
use sluicegate_lease::StreamIdentity;

use super::error::{is_expired_iterator, stream_error};
use super::shards;
use crate::stream::{
    Distributed, Distribution, ReadFrom, RecordPage, ShardCursor, ShardListing, StreamError, StreamReader,
};
use crate::telemetry::wall_millis;

/// A stream read by polling.
#[derive(Debug, Clone)]
pub struct KinesisStream {
    client: Client,
    stream: Arc<str>,
}

impl KinesisStream {
    /// Reads a stream, by name or by ARN, through a client whose own retries are off.
    pub fn new(client: Client, stream: &str) -> Self {
        Self { client, stream: stream.into() }
    }

    /// Which stream it is, and how long it keeps records.
    async fn described(&self) -> Result<(StreamIdentity, Duration), StreamError> {
        let summary = self.summary(None).await?;
        let hours = u64::try_from(summary.retention_period_hours()).unwrap_or_default();
        let created = arrival(summary.stream_creation_timestamp());
        let stream = StreamIdentity { name: summary.stream_name().to_owned(), created };
        Ok((stream, Duration::from_secs(hours * 3_600)))
    }

    /// What DescribeStreamSummary says; `answered` is told when.
    async fn summary(&self, answered: Option<AnsweredAt>) -> Result<StreamDescriptionSummary, StreamError> {
        let (name, arn) = self.name_and_arn();
        let request = self.client.describe_stream_summary().set_stream_name(name).set_stream_arn(arn);
        let request = request.customize().interceptor(answered.unwrap_or_default());
        let answer = request.send().await.map_err(|error| stream_error(error, &self.stream))?;
        answer.stream_description_summary.ok_or_else(|| StreamError::Unavailable {
            source: "the answer holds no description of the stream".into(),
        })
    }

    /// The name, or none if it is an ARN; then the ARN.
    fn name_and_arn(&self) -> (Option<String>, Option<String>) {
        let text = self.stream.to_string();
        if text.starts_with("arn:") { (None, Some(text)) } else { (Some(text), None) }
    }
}

/// Keeps the `Date` header of an answer: the stream's own time, which one machine's clock must not stand in for.
#[derive(Debug, Clone, Default)]
struct AnsweredAt(Arc<AtomicI64>);

impl AnsweredAt {
    fn millis(&self) -> ArrivalMillis {
        ArrivalMillis(self.0.load(Ordering::Relaxed))
    }
}

impl Intercept for AnsweredAt {
    fn name(&self) -> &'static str {
        "AnsweredAt"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok()) {
            self.0.store(arrival(&date).0, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn arrival(time: &DateTime) -> ArrivalMillis {
    ArrivalMillis::from_seconds(time.secs(), time.subsec_nanos())
}

#[async_trait]
impl StreamReader for KinesisStream {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        let answered = AnsweredAt::default();
        let (name, arn) = self.name_and_arn();
        // Before the listing: if two listings in a row say the same creation time, the first was of that stream.
        let (stream, retention) = self.described().await?;
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let request = self.client.list_shards();
            // A token stands for the stream: naming both is refused.
            let request = match token.take() {
                Some(token) => request.next_token(token),
                None => request.set_stream_name(name.clone()).set_stream_arn(arn.clone()),
            };
            let page = request.customize().interceptor(answered.clone()).send().await;
            let page = page.map_err(|error| stream_error(error, &self.stream))?;
            for shard in page.shards() {
                shards.push(shards::listed(shard).ok_or_else(|| unreadable_shard(shard.shard_id()))?);
            }
            token = page.next_token().map(ToOwned::to_owned);
            if token.is_none() {
                let answered = answered.millis();
                let server_time = if answered.0 > 0 { answered } else { wall_millis() };
                return Ok(ShardListing { shards, server_time, stream, retention });
            }
        }
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        let answered = AnsweredAt::default();
        let summary = self.summary(Some(answered.clone())).await?;
        // Absent of a stream with provisioned capacity, which has no other way.
        let by = match summary.record_distribution_strategy() {
            None | Some(RecordDistributionStrategy::UserPartitionKey) => Distribution::UserPartitionKey,
            // What this build does not know it does not judge by.
            Some(_) => Distribution::Auto,
        };
        let as_of = answered.millis();
        if as_of.0 == 0 {
            return Err(StreamError::Unavailable { source: "the answer holds no date".into() });
        }
        Ok(Distributed { by, as_of })
    }

    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
        Box::new(PollingCursor {
            stream: self.clone(),
            shard: shard.clone(),
            from,
            iterator: None,
            answered: AnsweredAt::default(),
        })
    }
}

#[derive(Debug)]
struct PollingCursor {
    stream: KinesisStream,
    shard: ShardId,
    from: ReadFrom,
    iterator: Option<String>,
    answered: AnsweredAt,
}

#[async_trait]
impl ShardCursor for PollingCursor {
    async fn next_page(&mut self, limit: u32) -> Result<RecordPage, StreamError> {
        let iterator = match &self.iterator {
            Some(iterator) => iterator.clone(),
            None => self.renew().await?,
        };
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let mut request = self.stream.client.get_records().shard_iterator(&iterator).limit(limit);
        if let (_, Some(arn)) = self.stream.name_and_arn() {
            request = request.stream_arn(arn);
        }
        match request.customize().interceptor(self.answered.clone()).send().await {
            Ok(page) => {
                self.iterator = page.next_shard_iterator().map(ToOwned::to_owned);
                let page = self.page(page)?;
                if let Some(last) = page.records.last() {
                    self.from = ReadFrom::After(last.sequence_number().clone());
                }
                Ok(page)
            }
            Err(error) if is_expired_iterator(&error) => {
                self.iterator = None;
                Err(StreamError::Unavailable { source: Box::new(error) })
            }
            Err(error) => Err(stream_error(error, &self.stream.stream)),
        }
    }
}

impl PollingCursor {
    /// A new iterator from the position.
    async fn renew(&mut self) -> Result<String, StreamError> {
        let (name, arn) = self.stream.name_and_arn();
        let request = self
            .stream
            .client
            .get_shard_iterator()
            .set_stream_name(name)
            .set_stream_arn(arn)
            .shard_id(self.shard.as_str());
        let request = match &self.from {
            ReadFrom::TrimHorizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            ReadFrom::AtTimestamp(time) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(time.0)),
            ReadFrom::At(number) => request
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(number.as_str()),
            ReadFrom::After(number) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(number.as_str()),
        };
        let answer = request.send().await.map_err(|error| stream_error(error, &self.stream.stream))?;
        let iterator = answer.shard_iterator.ok_or_else(|| StreamError::Unavailable {
            source: "the answer holds no shard iterator".into(),
        })?;
        self.iterator = Some(iterator.clone());
        Ok(iterator)
    }

    fn page(&self, page: GetRecordsOutput) -> Result<RecordPage, StreamError> {
        // Absent means unknown, and unknown is not the tip.
        let behind = u64::try_from(page.millis_behind_latest().unwrap_or(1)).unwrap_or(0);
        let end =
            self.iterator.is_none().then(|| page.child_shards().iter().filter_map(shards::child).collect());
        let records = page.records.into_iter().map(record).collect::<Result<_, _>>()?;
        Ok(RecordPage {
            records,
            behind_latest: Duration::from_millis(behind),
            as_of: self.answered.millis(),
            end,
            ..RecordPage::default()
        })
    }
}

fn unreadable_shard(shard: &str) -> StreamError {
    let what = format!("shard {shard} is listed without a hash key range");
    StreamError::Refused { what, source: "the listing is not usable".into() }
}

fn record(record: aws_sdk_kinesis::types::Record) -> Result<Record, StreamError> {
    let malformed =
        |source| StreamError::Refused { what: "a record has no usable sequence number".to_owned(), source };
    Ok(Record::new(
        SequenceNumber::parse(record.sequence_number).map_err(|error| malformed(Box::new(error)))?,
        record.approximate_arrival_timestamp.as_ref().map(arrival).unwrap_or_default(),
        record.partition_key.unwrap_or_default(),
        Bytes::from(record.data.into_inner()),
    ))
}
