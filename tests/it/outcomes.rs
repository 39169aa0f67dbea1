//! What becomes of events of aggregates whose hash keys are not of their shard, by who made them: with real processes.

use anyhow::{Context, ensure};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    PutRecordsRequestEntry, RecordDistributionStrategy, StreamMode, StreamModeDetails,
};
use md5::{Digest, Md5};
use prost::Message;
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::fleet::APPLICATION;
use sluicegate_tests::harness::{Backend, Fleet, Multiset};
use sluicegate_worker::StreamReader;
use sluicegate_worker::deaggregate::{MAGIC, hash_key_of};

/// `AggregatedRecord` of the library's `messages.proto`.
#[derive(Clone, PartialEq, Message)]
struct Aggregate {
    #[prost(string, repeated, tag = "1")]
    keys: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<UserRecord>,
}

/// `Record` of it, without an explicit hash key.
#[derive(Clone, PartialEq, Message)]
struct UserRecord {
    #[prost(uint64, required, tag = "1")]
    key: u64,
    #[prost(bytes = "vec", required, tag = "3")]
    data: Vec<u8>,
}

/// Partition key and payload.
type Event = (String, Vec<u8>);

fn events(count: usize, keys: usize) -> Vec<Event> {
    let event = |n: usize| (format!("user-{}", n % keys), format!(r#"{{"n":{n}}}"#).into_bytes());
    (0..count).map(event).collect()
}

fn aggregate(events: &[Event]) -> Vec<u8> {
    let records = (0u64..).zip(events).map(|(key, (_, data))| UserRecord { key, data: data.clone() });
    let keys = events.iter().map(|(key, _)| key.clone()).collect();
    sealed(&Aggregate { keys, records: records.collect() })
}

fn sealed(aggregate: &Aggregate) -> Vec<u8> {
    let message = aggregate.encode_to_vec();
    [&MAGIC[..], &message, &Md5::digest(&message)[..]].concat()
}

async fn put(backend: &Backend, key: &str, hash_key: Option<u128>, data: &[u8]) -> anyhow::Result<String> {
    let put = backend.kinesis().put_record().stream_name(STREAM).partition_key(key).data(Blob::new(data));
    let put = put.set_explicit_hash_key(hash_key.map(|key| key.to_string()));
    Ok(put.send().await?.shard_id().to_owned())
}

/// Works the stream off: what is stored must be these events, each once. Returns the worker's metrics and its log.
async fn stored_exactly(
    backend: &Backend,
    name: &str,
    wanted: impl IntoIterator<Item = Vec<u8>>,
) -> anyhow::Result<(String, String)> {
    let wanted: Vec<Vec<u8>> = wanted.into_iter().collect();
    let mut fleet = Fleet::new(backend, name)?;
    let worker = fleet.start(&[])?;
    fleet.drained(wanted.len()).await?;
    let metrics = fleet.scrapes().await?.into_values().collect();
    let log = fleet.worker(worker).log()?;
    fleet.stop().await?;
    let table = backend.table(APPLICATION);
    wanted.into_iter().collect::<Multiset>().equals(&table.everything().await?)?;
    let overlaps = table.overlaps().await?;
    ensure!(overlaps.is_empty(), "ranges overlap: {overlaps:?}");
    Ok((metrics, log))
}

fn metric(metrics: &str, name: &str) -> anyhow::Result<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {name}"))?.parse()?)
}

/// As AWS's aggregators for Python, Node, Java and Go make them: user records of all keys under the first one's key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_of_many_keys_under_their_first_key_are_stored_whole() -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let events = events(10_000, 1_000);
    let records: Vec<PutRecordsRequestEntry> = events
        .chunks(200)
        .map(|chunk| {
            let entry = PutRecordsRequestEntry::builder().partition_key(&chunk[0].0);
            Ok(entry.data(Blob::new(aggregate(chunk))).build()?)
        })
        .collect::<anyhow::Result<_>>()?;
    let put = backend.kinesis().put_records().stream_name(STREAM).set_records(Some(records)).send().await?;
    ensure!(put.failed_record_count() == Some(0));
    let (metrics, _) =
        stored_exactly(&backend, "other-aggregates", events.into_iter().map(|(_, data)| data)).await?;
    for cause in ["sent_again", "outside"] {
        assert_eq!(metric(&metrics, &format!("sluicegate_events_foreign_total{{cause=\"{cause}\"}}"))?, 0);
    }
    assert_eq!(metric(&metrics, "sluicegate_events_filtered_total")?, 0);
    assert_eq!(metric(&metrics, "sluicegate_records_unaccounted")?, 0);
    Ok(())
}

/// As the native library does behind a split that it knows of: what its aggregate held for the other child is put again,
/// one by one. And an aggregate of nothing is an event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_native_library_sends_again_after_a_split_is_stored_once() -> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    let split = backend.kinesis().split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    let events = events(2_000, 300);
    let (before, after) = events.split_at(500);
    for chunk in before.chunks(50) {
        put(&backend, "a", Some(hash_key_of(&chunk[0].0)), &aggregate(chunk)).await?;
    }
    split.new_starting_hash_key((1u128 << 127).to_string()).send().await?;
    let shards = backend.stream(STREAM).shards().await?.shards;
    let mut again = 0;
    for chunk in after.chunks(50) {
        let landed = put(&backend, "a", Some(hash_key_of(&chunk[0].0)), &aggregate(chunk)).await?;
        let range = shards.iter().find(|shard| shard.id.as_str() == landed).context("no shard")?.hash_range;
        for (key, data) in chunk.iter().filter(|(key, _)| !range.contains(hash_key_of(key))) {
            put(&backend, key, None, data).await?;
            again += 1;
        }
    }
    ensure!(again > 300, "the case needs some");
    let nothing = sealed(&Aggregate { keys: vec!["k".to_owned()], records: Vec::new() });
    put(&backend, "k", None, &nothing).await?;
    let wanted = events.into_iter().map(|(_, data)| data).chain([nothing]);
    let (metrics, log) = stored_exactly(&backend, "native-aggregates", wanted).await?;
    assert_eq!(metric(&metrics, "sluicegate_events_foreign_total{cause=\"sent_again\"}")?, again);
    assert_eq!(metric(&metrics, "sluicegate_aggregates_kept_whole_total")?, 1);
    assert_eq!(metric(&metrics, "sluicegate_records_unaccounted")?, 0);
    let warned = log.matches("user records were left out").count();
    assert!((1..=2).contains(&warned), "once a shard: {log}");
    Ok(())
}

/// Where the service chooses shards, a hash key says nothing, whoever made the aggregate; and a record need have no key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_distributes_by_itself_is_stored_whole() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    let on_demand = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build()?;
    let create = backend.kinesis().create_stream().stream_name(STREAM).stream_mode_details(on_demand);
    create.record_distribution_strategy(RecordDistributionStrategy::Auto).send().await?;
    let events = events(2_000, 300);
    for chunk in events.chunks(100) {
        put(&backend, "a", None, &aggregate(chunk)).await?;
    }
    for _ in 0..8 {
        let keyless = backend.kinesis().put_record().stream_name(STREAM).data(Blob::new("keyless"));
        keyless.send().await?;
    }
    let keyless = std::iter::repeat_n(b"keyless".to_vec(), 8);
    let wanted = events.into_iter().map(|(_, data)| data).chain(keyless);
    let (metrics, log) = stored_exactly(&backend, "auto-stream", wanted).await?;
    assert_eq!(metric(&metrics, "sluicegate_fallback_keys_total")?, 8);
    assert_eq!(metric(&metrics, "sluicegate_records_unaccounted")?, 0);
    assert!(log.contains("without a partition key"), "{log}");
    Ok(())
}
