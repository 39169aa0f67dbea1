//! A running backend whose clock the test moves, and short forms of the calls that most tests make.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::operation::put_record::PutRecordOutput;
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, Record, Shard, ShardIteratorType};
use sluicegate_local::{LocalConfig, LocalServer, ManualClock};

/// Where every test's clock starts: 2023-11-14 22:13:20 UTC.
pub(crate) const START_MS: u64 = 1_700_000_000_000;
pub(crate) const STREAM: &str = "orders";

pub(crate) struct Backend {
    pub(crate) server: LocalServer,
    pub(crate) kinesis: Client,
    pub(crate) clock: Arc<ManualClock>,
}

pub(crate) fn kinesis_client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "static"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .endpoint_url(endpoint)
        .build();
    Client::from_conf(config)
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let clock = Arc::new(ManualClock::at(START_MS));
        let config = LocalConfig { clock: clock.clone(), ..LocalConfig::default() };
        let server = LocalServer::start(config).await.unwrap();
        let kinesis = kinesis_client(&server.endpoints().kinesis);
        Self { server, kinesis, clock }
    }

    /// With [`STREAM`] in it.
    pub(crate) async fn with_stream(shards: i32) -> Self {
        let backend = Self::start().await;
        backend.kinesis.create_stream().stream_name(STREAM).shard_count(shards).send().await.unwrap();
        backend
    }

    pub(crate) fn advance_ms(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    pub(crate) fn advance_hours(&self, hours: u64) {
        self.clock.advance(Duration::from_secs(hours * 3_600));
    }

    pub(crate) async fn put(&self, data: &str) -> PutRecordOutput {
        let put = self.kinesis.put_record().stream_name(STREAM).partition_key("key").data(Blob::new(data));
        put.send().await.unwrap()
    }

    pub(crate) async fn iterator(&self, shard: &str, kind: ShardIteratorType) -> String {
        let ask =
            self.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard).shard_iterator_type(kind);
        ask.send().await.unwrap().shard_iterator.unwrap()
    }

    pub(crate) async fn iterator_behind(&self, shard: &str, sequence_number: &str) -> String {
        let ask = self.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard);
        let ask = ask.shard_iterator_type(ShardIteratorType::AfterSequenceNumber);
        ask.starting_sequence_number(sequence_number).send().await.unwrap().shard_iterator.unwrap()
    }

    pub(crate) async fn iterator_at_ms(&self, shard: &str, ms: u64) -> String {
        let ask = self.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard);
        let ask = ask.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(date_time(ms));
        ask.send().await.unwrap().shard_iterator.unwrap()
    }

    pub(crate) async fn read(&self, iterator: &str) -> GetRecordsOutput {
        self.kinesis.get_records().shard_iterator(iterator).send().await.unwrap()
    }

    /// Everything in the shard, from the trim horizon on.
    pub(crate) async fn read_all(&self, shard: &str) -> Vec<Record> {
        let mut iterator = Some(self.iterator(shard, ShardIteratorType::TrimHorizon).await);
        let mut records = Vec::new();
        while let Some(at) = iterator {
            let page = self.read(&at).await;
            let behind = page.millis_behind_latest.unwrap();
            records.extend(page.records);
            iterator = page.next_shard_iterator.filter(|_| behind > 0);
        }
        records
    }

    pub(crate) async fn shards(&self) -> Vec<Shard> {
        self.kinesis.list_shards().stream_name(STREAM).send().await.unwrap().shards.unwrap()
    }
}

/// Asks what is not an operation of the service, over plain HTTP: status and text of the answer.
pub(crate) async fn admin(endpoint: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection =
        tokio::net::TcpStream::connect(endpoint.trim_start_matches("http://")).await.unwrap();
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.0\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), text.to_owned())
}

pub(crate) fn shard_id(number: u32) -> String {
    format!("shardId-{number:012}")
}

pub(crate) fn date_time(ms: u64) -> DateTime {
    DateTime::from_millis(i64::try_from(ms).unwrap())
}

/// The SDK reads seconds into a binary fraction and cuts it off: a millisecond may come out as 0.999 of it. So: rounded.
pub(crate) fn rounded_ms(time: &DateTime) -> u64 {
    u64::try_from((time.as_nanos() + 500_000) / 1_000_000).unwrap()
}

pub(crate) fn entry(key: &str, data: impl Into<Vec<u8>>) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build().unwrap()
}

pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.data().as_ref().to_vec()).unwrap()).collect()
}

/// Sequence numbers and hash keys are ordered as numbers; ours have no leading zeros.
pub(crate) fn as_number(text: &str) -> (usize, String) {
    (text.len(), text.to_owned())
}

pub(crate) fn hash_range(shard: &Shard) -> (u128, u128) {
    let range = shard.hash_key_range().unwrap();
    (range.starting_hash_key().parse().unwrap(), range.ending_hash_key().parse().unwrap())
}

pub(crate) fn is_open(shard: &Shard) -> bool {
    shard.sequence_number_range().unwrap().ending_sequence_number().is_none()
}

/// Whether the open shards cover every hash key exactly once.
pub(crate) fn open_shards_tile(shards: &[Shard]) -> bool {
    let mut ranges: Vec<_> = shards.iter().filter(|shard| is_open(shard)).map(hash_range).collect();
    ranges.sort_unstable();
    ranges.first().is_some_and(|range| range.0 == 0)
        && ranges.last().is_some_and(|range| range.1 == u128::MAX)
        && ranges.windows(2).all(|pair| pair[0].1.checked_add(1) == Some(pair[1].0))
}
