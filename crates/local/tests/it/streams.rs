//! Streams: create, describe, list, delete; by name and by ARN.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamMode, StreamModeDetails, StreamStatus};

use crate::support::{Backend, START_MS, STREAM, date_time, rounded_ms, shard_id};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

#[tokio::test]
async fn a_new_stream_is_described_in_full() {
    let backend = Backend::start().await;
    backend.advance_ms(123);
    let create = backend.kinesis.create_stream().stream_name(STREAM).shard_count(3);
    create.max_record_size_in_kib(2_048).send().await.unwrap();
    for by_name in [true, false] {
        let ask = backend.kinesis.describe_stream_summary();
        let ask = if by_name { ask.stream_name(STREAM) } else { ask.stream_arn(ARN) };
        let answer = ask.send().await.unwrap();
        let summary = answer.stream_description_summary().unwrap();
        assert_eq!(summary.stream_name(), STREAM);
        assert_eq!(summary.stream_arn(), ARN);
        assert_eq!(*summary.stream_status(), StreamStatus::Active);
        assert_eq!(rounded_ms(summary.stream_creation_timestamp()), START_MS + 123);
        assert_eq!(summary.retention_period_hours(), 24);
        assert_eq!(summary.open_shard_count(), 3);
        assert_eq!(summary.consumer_count(), Some(0));
        assert_eq!(summary.max_record_size_in_kib(), Some(2_048));
        assert_eq!(*summary.stream_mode_details().unwrap().stream_mode(), StreamMode::Provisioned);
    }
}

#[tokio::test]
async fn a_stream_can_leave_distribution_to_the_service_and_then_needs_no_keys() {
    let backend = Backend::start().await;
    let on_demand = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build().unwrap();
    let create = backend.kinesis.create_stream().stream_name(STREAM).stream_mode_details(on_demand);
    create.record_distribution_strategy(RecordDistributionStrategy::Auto).send().await.unwrap();
    let strategy = async || {
        let answer = backend.kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        answer.stream_description_summary().unwrap().record_distribution_strategy().cloned()
    };
    assert_eq!(strategy().await, Some(RecordDistributionStrategy::Auto));
    let put = |key: Option<&str>| {
        let put = backend.kinesis.put_record().stream_name(STREAM).data(Blob::new("data"));
        put.set_partition_key(key.map(str::to_owned)).send()
    };
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..40 {
        used.insert(put(None).await.unwrap().shard_id().to_owned());
        used.insert(put(Some("one key")).await.unwrap().shard_id().to_owned());
    }
    assert_eq!(used.len(), 4, "a key does not choose the shard");
    let mut keys = std::collections::BTreeMap::<_, u32>::new();
    for shard in 0..4 {
        for record in backend.read_all(&shard_id(shard)).await {
            *keys.entry(record.partition_key().map(str::to_owned)).or_default() += 1;
        }
    }
    let wanted = [(None, 40), (Some("one key".to_owned()), 40)];
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), wanted, "a key comes back as it was given");

    let update = backend.kinesis.update_stream_record_distribution_strategy().stream_arn(ARN);
    update.record_distribution_strategy(RecordDistributionStrategy::UserPartitionKey).send().await.unwrap();
    assert_eq!(strategy().await, Some(RecordDistributionStrategy::UserPartitionKey));
    put(None).await.unwrap_err();
    put(Some("one key")).await.unwrap();
    // Of a provisioned stream it is neither told nor taken.
    backend.kinesis.create_stream().stream_name("plain").send().await.unwrap();
    let arn = ARN.replace(STREAM, "plain");
    let update = backend.kinesis.update_stream_record_distribution_strategy().stream_arn(arn);
    update.record_distribution_strategy(RecordDistributionStrategy::Auto).send().await.unwrap_err();
    let answer = backend.kinesis.describe_stream_summary().stream_name("plain").send().await.unwrap();
    assert_eq!(answer.stream_description_summary().unwrap().record_distribution_strategy(), None);
}

#[tokio::test]
async fn shard_count_and_mode_have_defaults() {
    let backend = Backend::start().await;
    let on_demand = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build().unwrap();
    let create = backend.kinesis.create_stream().stream_name("on-demand").stream_mode_details(on_demand);
    create.send().await.unwrap();
    backend.kinesis.create_stream().stream_name("plain").send().await.unwrap();
    for (name, shards, kib) in [("on-demand", 4, 1_024), ("plain", 1, 1_024)] {
        let answer = backend.kinesis.describe_stream_summary().stream_name(name).send().await.unwrap();
        let summary = answer.stream_description_summary().unwrap();
        assert_eq!((summary.open_shard_count(), summary.max_record_size_in_kib()), (shards, Some(kib)));
    }
}

#[tokio::test]
async fn a_name_can_be_taken_once_and_again_after_deletion() {
    let backend = Backend::with_stream(1).await;
    let error = backend.kinesis.create_stream().stream_name(STREAM).send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_in_use_exception());
    backend.kinesis.delete_stream().stream_arn(ARN).send().await.unwrap();
    let error = backend.kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap_err();
    let error = error.into_service_error();
    assert!(error.is_resource_not_found_exception());
    assert_eq!(error.meta().message(), Some("Stream orders under account 000000000000 not found."));
    backend.kinesis.create_stream().stream_name(STREAM).send().await.unwrap();
}

#[tokio::test]
async fn bad_names_and_sizes_are_refused_as_the_service_words_it() {
    let backend = Backend::start().await;
    let create = backend.kinesis.create_stream().stream_name("no spaces").max_record_size_in_kib(10);
    let error = create.send().await.unwrap_err().into_service_error();
    assert!(error.is_validation_exception());
    assert_eq!(
        error.meta().message(),
        Some(
            "2 validation errors detected: Value 'no spaces' at 'streamName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value '10' at 'maxRecordSizeInKiB' failed to satisfy \
             constraint: Member must have value greater than or equal to 1024"
        )
    );
    let error =
        backend.kinesis.create_stream().stream_name("s").shard_count(20_001).send().await.unwrap_err();
    assert!(error.into_service_error().is_limit_exceeded_exception());
}

#[tokio::test]
async fn another_account_s_arn_names_no_stream_here() {
    let backend = Backend::with_stream(1).await;
    let arn = "arn:aws:kinesis:us-east-1:111111111111:stream/orders";
    let error = backend.kinesis.describe_stream_summary().stream_arn(arn).send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
    let ask = backend.kinesis.describe_stream_summary().stream_arn(ARN).stream_name("other");
    assert!(ask.send().await.unwrap_err().into_service_error().is_invalid_argument_exception());
}

#[tokio::test]
async fn streams_are_listed_in_pages() {
    let backend = Backend::start().await;
    for name in ["c", "a", "b"] {
        backend.kinesis.create_stream().stream_name(name).send().await.unwrap();
    }
    let first = backend.kinesis.list_streams().limit(2).send().await.unwrap();
    assert_eq!(
        (first.stream_names(), first.has_more_streams()),
        (&["a".to_owned(), "b".to_owned()][..], true)
    );
    let token = first.next_token().unwrap();
    let second = backend.kinesis.list_streams().next_token(token).send().await.unwrap();
    assert_eq!((second.stream_names(), second.has_more_streams()), (&["c".to_owned()][..], false));
    assert_eq!(second.stream_summaries()[0].stream_creation_timestamp(), Some(&date_time(START_MS)));
}

#[tokio::test]
async fn describe_stream_lists_shards_in_pages() {
    let backend = Backend::with_stream(3).await;
    let first = backend.kinesis.describe_stream().stream_name(STREAM).limit(2).send().await.unwrap();
    let first = first.stream_description().unwrap();
    assert_eq!((first.shards().len(), first.has_more_shards()), (2, true));
    let ask = backend.kinesis.describe_stream().stream_arn(ARN);
    let rest = ask.exclusive_start_shard_id(first.shards()[1].shard_id()).send().await.unwrap();
    let rest = rest.stream_description().unwrap();
    assert_eq!((rest.shards().len(), rest.has_more_shards()), (1, false));
}
