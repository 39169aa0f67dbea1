//! What retention takes, and when.

use aws_sdk_kinesis::types::{ScalingType, ShardIteratorType};

use crate::support::{Backend, START_MS, STREAM, shard_id, texts};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

#[tokio::test]
async fn records_go_after_a_day_and_old_positions_read_from_the_horizon() {
    let backend = Backend::with_stream(1).await;
    let shard = shard_id(0);
    let old = backend.put("old").await.sequence_number;
    backend.advance_hours(1);
    backend.put("young").await;
    backend.advance_hours(23);
    assert_eq!(texts(&backend.read_all(&shard).await), ["old", "young"]);
    let under_way = backend.iterator(&shard, ShardIteratorType::TrimHorizon).await;
    backend.advance_ms(1);
    assert_eq!(texts(&backend.read_all(&shard).await), ["young"]);
    assert_eq!(texts(backend.read(&under_way).await.records()), ["young"]);
    let at_old = backend.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(&shard);
    let at_old =
        at_old.shard_iterator_type(ShardIteratorType::AtSequenceNumber).starting_sequence_number(&old);
    let at_old = at_old.send().await.unwrap().shard_iterator.unwrap();
    for iterator in
        [at_old, backend.iterator_behind(&shard, &old).await, backend.iterator_at_ms(&shard, START_MS).await]
    {
        assert_eq!(texts(backend.read(&iterator).await.records()), ["young"]);
    }
}

#[tokio::test]
async fn retention_grows_and_shrinks_within_its_bounds() {
    let backend = Backend::with_stream(1).await;
    let increase = |hours| {
        backend
            .kinesis
            .increase_stream_retention_period()
            .stream_arn(ARN)
            .retention_period_hours(hours)
            .send()
    };
    let decrease = |hours| {
        backend
            .kinesis
            .decrease_stream_retention_period()
            .stream_name(STREAM)
            .retention_period_hours(hours)
            .send()
    };
    increase(48).await.unwrap();
    backend.put("a").await;
    backend.advance_hours(30);
    assert_eq!(texts(&backend.read_all(&shard_id(0)).await), ["a"]);
    let summary = backend.kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    assert_eq!(summary.stream_description_summary().unwrap().retention_period_hours(), 48);

    let error = increase(24).await.unwrap_err().into_service_error();
    assert!(error.is_invalid_argument_exception());
    assert!(error.meta().message().unwrap().ends_with("Use DecreaseRetentionPeriod API."));
    let error = decrease(72).await.unwrap_err().into_service_error();
    assert!(error.meta().message().unwrap().ends_with("Use IncreaseRetentionPeriod API."));
    assert!(decrease(23).await.unwrap_err().into_service_error().is_invalid_argument_exception());
    assert!(increase(8_761).await.unwrap_err().into_service_error().is_invalid_argument_exception());

    decrease(24).await.unwrap();
    increase(8_760).await.unwrap();
    assert_eq!(backend.read_all(&shard_id(0)).await, [], "what a shorter retention took does not come back");
}

#[tokio::test]
async fn a_closed_shard_can_be_read_until_retention_takes_it() {
    let backend = Backend::with_stream(1).await;
    backend.put("a").await;
    backend.advance_hours(1);
    let update = backend.kinesis.update_shard_count().stream_name(STREAM).target_shard_count(2);
    update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
    assert_eq!(texts(&backend.read_all(&shard_id(0)).await), ["a"]);

    // Its records are gone an hour before it is.
    backend.advance_hours(24);
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    let page = backend.read(&iterator).await;
    assert_eq!((page.records().len(), page.next_shard_iterator(), page.child_shards().len()), (0, None, 2));
    assert_eq!(backend.shards().await.len(), 3);

    backend.advance_ms(1);
    let error = backend.kinesis.get_records().shard_iterator(&iterator).send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
    let ids: Vec<_> = backend.shards().await.iter().map(|shard| shard.shard_id().to_owned()).collect();
    assert_eq!(ids, [shard_id(1), shard_id(2)]);
    let ask = backend.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard_id(0));
    let error = ask.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
}
