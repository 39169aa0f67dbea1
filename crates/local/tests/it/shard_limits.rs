//! The limits of shards, as the SDK sees them, on a clock that the test moves.

use aws_sdk_kinesis::operation::get_records::GetRecordsError;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use sluicegate_local::{KinesisLimits, ShardLimits, StreamUse};

use crate::support::{Backend, STREAM, admin, entry, shard_id};

async fn limited(document: &str, shards: i32) -> Backend {
    let backend = Backend::with_stream(shards).await;
    let mut limits = KinesisLimits::default();
    limits.change(document).unwrap();
    backend.server.kinesis().set_limits(limits);
    backend
}

/// How many of the entries were stored; checks how the others are told.
async fn stored(backend: &Backend, entries: Vec<PutRecordsRequestEntry>) -> usize {
    let count = entries.len();
    let put = backend.kinesis.put_records().stream_name(STREAM).set_records(Some(entries));
    let answer = put.send().await.unwrap();
    let refused: Vec<_> = answer.records().iter().filter(|record| record.error_code().is_some()).collect();
    for record in &refused {
        assert_eq!(record.error_code(), Some("ProvisionedThroughputExceededException"));
        let message = record.error_message().unwrap();
        assert!(message.starts_with("Rate exceeded for shard shardId-00000000000"), "{message}");
        assert!(message.ends_with(" in stream orders under account 000000000000."), "{message}");
        assert_eq!((record.sequence_number(), record.shard_id()), (None, None));
    }
    assert_eq!(answer.failed_record_count(), Some(i32::try_from(refused.len()).unwrap()));
    count - refused.len()
}

fn entries(key: &str, count: usize, bytes: usize) -> Vec<PutRecordsRequestEntry> {
    (0..count).map(|_| entry(key, vec![7; bytes - key.len()])).collect()
}

fn used(backend: &Backend) -> StreamUse {
    backend.server.kinesis().ledger().totals()[STREAM]
}

#[tokio::test]
async fn without_limits_a_shard_takes_and_gives_everything() {
    let backend = Backend::with_stream(1).await;
    for _ in 0..4 {
        assert_eq!(stored(&backend, entries("a", 500, 600)).await, 500);
    }
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    for _ in 0..20 {
        backend.read(&iterator).await;
    }
    assert_eq!((used(&backend).records, used(&backend).reads), (2_000, 20));
}

#[tokio::test]
async fn a_shard_takes_a_thousand_records_a_second() {
    // MD5: "a" goes to the first shard, "b" to the second.
    let backend = limited("enforce = true", 2).await;
    let mut taken = 0;
    for _ in 0..3 {
        taken += stored(&backend, entries("a", 500, 100)).await;
    }
    assert_eq!(taken, 1_000);
    let put = backend.kinesis.put_record().stream_name(STREAM).partition_key("a");
    let refused = put.data(aws_sdk_kinesis::primitives::Blob::new("x")).send().await.unwrap_err();
    let refused = refused.into_service_error();
    assert!(refused.is_provisioned_throughput_exceeded_exception());
    assert_eq!(
        refused.meta().message(),
        Some("Rate exceeded for shard shardId-000000000000 in stream orders under account 000000000000.")
    );
    let mut both = entries("a", 2, 100);
    both.extend(entries("b", 2, 100));
    assert_eq!(stored(&backend, both).await, 2, "the other shard takes its own");
    backend.advance_ms(100);
    assert_eq!(stored(&backend, entries("a", 200, 100)).await, 100);
    let used = used(&backend);
    assert_eq!((used.records, used.bytes), (1_102, 110_200));
    assert_eq!((used.refused_records, used.refused_bytes), (603, 60_202));
    let windows = backend.server.kinesis().ledger().windows(STREAM);
    assert_eq!((windows.len(), windows[0].used), (1, used));
}

#[tokio::test]
async fn a_shard_takes_a_megabyte_a_second() {
    let backend = limited("enforce = true", 1).await;
    assert_eq!(stored(&backend, entries("a", 20, 100 << 10)).await, 10);
    backend.advance_ms(500);
    assert_eq!(stored(&backend, entries("a", 20, 100 << 10)).await, 5);
}

#[tokio::test]
async fn a_shard_is_read_five_times_a_second() {
    let backend = limited("enforce = true", 1).await;
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    for _ in 0..5 {
        backend.read(&iterator).await;
    }
    let read = || backend.kinesis.get_records().shard_iterator(&iterator).send();
    let refused = read().await.unwrap_err().into_service_error();
    let GetRecordsError::ProvisionedThroughputExceededException(refused) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        refused.message(),
        Some("Rate exceeded for shard shardId-000000000000 in stream orders under account 000000000000.")
    );
    backend.advance_ms(200);
    read().await.unwrap();
    assert_eq!((used(&backend).reads, used(&backend).refused_reads), (6, 1));
}

#[tokio::test]
async fn a_large_answer_is_paid_for_before_the_next() {
    let backend = limited("", 1).await;
    assert_eq!(stored(&backend, entries("a", 100, 5_000)).await, 100);
    let document = "streams.orders.read_bytes = 100000";
    let (status, now) = admin(&backend.server.endpoints().kinesis, "POST", "/limits", document).await;
    assert_eq!(status, 200, "{now}");
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    assert_eq!(backend.read(&iterator).await.records().len(), 100);
    let read = || backend.kinesis.get_records().shard_iterator(&iterator).send();
    // 500,000 bytes at 100,000 a second, of which one second's were there.
    backend.advance_ms(3_999);
    assert!(read().await.unwrap_err().into_service_error().is_provisioned_throughput_exceeded_exception());
    backend.advance_ms(1);
    read().await.unwrap();
    assert_eq!(used(&backend).read_bytes, 1_000_000);
}

#[tokio::test]
async fn a_stream_can_be_held_to_something_else() {
    let backend = limited("streams.orders = { write_records = 3, read_calls = 1 }", 1).await;
    assert_eq!(backend.server.kinesis().limits().streams[STREAM].write_records, Some(3));
    assert_eq!(stored(&backend, entries("a", 5, 2_000)).await, 3);
    let of_orders = ShardLimits { write_bytes: Some(1_000), ..ShardLimits::NONE };
    let limits = KinesisLimits { enforce: false, streams: [(STREAM.to_owned(), of_orders)].into() };
    backend.server.kinesis().set_limits(limits);
    assert_eq!(stored(&backend, entries("a", 5, 400)).await, 2);
}
