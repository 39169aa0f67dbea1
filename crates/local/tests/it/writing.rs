//! PutRecord and PutRecords: routing, order, limits.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};

use crate::support::{Backend, STREAM, as_number, entry, shard_id, texts};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_record_comes_back_as_it_went_in() {
    let backend = Backend::with_stream(1).await;
    let key = "a \"key\" with \\, ü and \u{1}";
    for data in [&b""[..], b"a", b"ab", b"abc", &[0, 255, 128, 7]] {
        let put = backend.kinesis.put_record().stream_name(STREAM).partition_key(key).data(Blob::new(data));
        let sequence_number = put.send().await.unwrap().sequence_number;
        let record = backend.read_all(&shard_id(0)).await.pop().unwrap();
        assert_eq!((record.partition_key(), record.data().as_ref()), (Some(key), data));
        assert_eq!(record.sequence_number(), sequence_number);
    }
}

#[tokio::test]
async fn records_are_routed_by_md5_or_by_their_explicit_hash_key() {
    let backend = Backend::with_stream(2).await;
    // MD5: "a" -> 0cc1..., "b" -> 92eb...
    let explicit = PutRecordsRequestEntry::builder().partition_key("a").data(Blob::new("x"));
    let explicit = explicit.explicit_hash_key(u128::MAX.to_string()).build().unwrap();
    let entries = vec![entry("a", "1"), entry("b", "2"), explicit];
    let put = backend.kinesis.put_records().stream_name(STREAM).set_records(Some(entries));
    let answer = put.send().await.unwrap();
    assert_eq!(answer.failed_record_count(), Some(0));
    let shards: Vec<_> = answer.records().iter().map(|record| record.shard_id().unwrap()).collect();
    assert_eq!(shards, [shard_id(0), shard_id(1), shard_id(1)]);
    for bad in ["-1", "340282366920938463463374607431768211456", "x"] {
        let put = backend.kinesis.put_record().stream_name(STREAM).partition_key("a").data(Blob::new("x"));
        let error = put.explicit_hash_key(bad).send().await.unwrap_err().into_service_error();
        assert!(error.is_invalid_argument_exception(), "{bad}");
    }
}

#[tokio::test]
async fn sequence_numbers_rise_and_entries_keep_their_order() {
    let backend = Backend::with_stream(1).await;
    let mut numbers = vec![backend.put("0").await.sequence_number];
    for round in 0..3 {
        let entries = (0..4).map(|index| entry("key", format!("{round}{index}"))).collect();
        let put =
            backend.kinesis.put_records().stream_arn("arn:aws:kinesis:us-east-1:000000000000:stream/orders");
        let answer = put.set_records(Some(entries)).send().await.unwrap();
        numbers.extend(answer.records().iter().map(|record| record.sequence_number().unwrap().to_owned()));
    }
    assert!(numbers.windows(2).all(|pair| as_number(&pair[0]) < as_number(&pair[1])));
    assert!(numbers.iter().all(|number| number.len() == 56 && number.starts_with("495")));
    let records = backend.read_all(&shard_id(0)).await;
    let expected = ["0", "00", "01", "02", "03", "10", "11", "12", "13", "20", "21", "22", "23"];
    assert_eq!(texts(&records), expected);
    assert!(records.iter().map(|record| record.sequence_number()).eq(numbers.iter().map(String::as_str)));
}

#[tokio::test]
async fn a_record_may_be_as_large_as_the_stream_allows() {
    let backend = Backend::with_stream(1).await;
    let put = |bytes: usize| {
        let put = backend.kinesis.put_record().stream_name(STREAM).partition_key("k");
        put.data(Blob::new(vec![7; bytes])).send()
    };
    put(MIB - 1).await.unwrap();
    let error = put(MIB).await.unwrap_err().into_service_error();
    assert!(error.is_invalid_argument_exception()); // the key counts
    let error = put(MIB + 1).await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("ValidationException"));
    assert_eq!(
        error.meta().message(),
        Some(
            "1 validation error detected: Value 'java.nio.HeapByteBuffer' at 'data' failed to satisfy constraint: \
             Member must have length less than or equal to 1048576"
        )
    );
    let grow = backend.kinesis.update_max_record_size().max_record_size_in_kib(10_240);
    grow.stream_arn("arn:aws:kinesis:us-east-1:000000000000:stream/orders").send().await.unwrap();
    put(10 * MIB - 1).await.unwrap();
    put(10 * MIB + 1).await.unwrap_err();
    assert_eq!(backend.read_all(&shard_id(0)).await.len(), 2);
}

#[tokio::test]
async fn a_request_holds_500_records_and_10_mib() {
    let backend = Backend::with_stream(1).await;
    let put = |entries: Vec<PutRecordsRequestEntry>| {
        backend.kinesis.put_records().stream_name(STREAM).set_records(Some(entries)).send()
    };
    put(vec![entry("k", "x"); 500]).await.unwrap();
    let error = put(vec![entry("k", "x"); 501]).await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("ValidationException"));
    let error = put(Vec::new()).await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("ValidationException"));
    put(vec![entry("k", vec![1; MIB - 1]); 10]).await.unwrap();
    let mut too_much = vec![entry("k", vec![1; MIB - 1]); 10];
    too_much.push(entry("k", "x"));
    let error = put(too_much).await.unwrap_err().into_service_error();
    assert!(error.is_invalid_argument_exception());
    assert_eq!(error.meta().message(), Some("Records size exceeds 10 MB limit"));
}

#[tokio::test]
async fn a_refused_request_leaves_nothing_behind() {
    let backend = Backend::with_stream(1).await;
    let entries = vec![entry("k", "x"), entry(&"k".repeat(257), "x")];
    let put = backend.kinesis.put_records().stream_name(STREAM).set_records(Some(entries));
    let error = put.send().await.unwrap_err().into_service_error();
    assert!(error.meta().message().unwrap().contains("'records.2.member.partitionKey'"));
    assert_eq!(backend.read_all(&shard_id(0)).await, []);
}

#[tokio::test]
async fn a_dry_run_writes_and_reads_nothing() {
    let backend = Backend::with_stream(1).await;
    let put = backend.kinesis.put_records().stream_name(STREAM).records(entry("k", "x")).dry_run(true);
    assert!(put.send().await.unwrap_err().into_service_error().is_dry_run_operation_exception());
    let put = backend.kinesis.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("x"));
    let error = put.dry_run(true).send().await.unwrap_err();
    assert!(error.into_service_error().is_dry_run_operation_exception());
    assert_eq!(backend.read_all(&shard_id(0)).await, []);
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    let ask = backend.kinesis.get_records().shard_iterator(iterator).dry_run(true);
    assert!(ask.send().await.unwrap_err().into_service_error().is_dry_run_operation_exception());
}

#[tokio::test]
async fn writing_to_no_stream_is_resource_not_found() {
    let backend = Backend::start().await;
    let put = backend.kinesis.put_records().stream_name("nobody").records(entry("k", "x"));
    assert!(put.send().await.unwrap_err().into_service_error().is_resource_not_found_exception());
}
