//! ListShards: filters, pages, tokens.

use aws_sdk_kinesis::types::{ScalingType, ShardFilter, ShardFilterType};

use crate::support::{Backend, START_MS, STREAM, date_time, shard_id};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

fn filter(kind: ShardFilterType, ms: Option<u64>) -> ShardFilter {
    ShardFilter::builder().r#type(kind).set_timestamp(ms.map(date_time)).build().unwrap()
}

async fn listed(backend: &Backend, filter: ShardFilter) -> Vec<u32> {
    let ask = backend.kinesis.list_shards().stream_arn(ARN).shard_filter(filter);
    let answer = ask.send().await.unwrap();
    answer.shards().iter().map(|shard| shard.shard_id()[8..].parse().unwrap()).collect()
}

async fn double(backend: &Backend, target: i32) {
    let update = backend.kinesis.update_shard_count().stream_arn(ARN).target_shard_count(target);
    update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
}

#[tokio::test]
async fn filters_choose_by_the_time_a_shard_was_open() {
    use ShardFilterType::{AtLatest, AtTimestamp, AtTrimHorizon, FromTimestamp, FromTrimHorizon};
    // 0 is open from 0 to 1000 ms, 1 and 2 from 1000 to 2000 ms, 3 to 6 from then on; now is 3000 ms.
    let backend = Backend::with_stream(1).await;
    backend.advance_ms(1_000);
    double(&backend, 2).await;
    backend.advance_ms(1_000);
    double(&backend, 4).await;
    backend.advance_ms(1_000);
    for (kind, at, expected) in [
        (FromTrimHorizon, None, vec![0, 1, 2, 3, 4, 5, 6]),
        (AtTrimHorizon, None, vec![0]),
        (AtLatest, None, vec![3, 4, 5, 6]),
        (AtTimestamp, Some(500), vec![0]),
        (AtTimestamp, Some(1_000), vec![0, 1, 2]),
        (AtTimestamp, Some(1_500), vec![1, 2]),
        (AtTimestamp, Some(2_500), vec![3, 4, 5, 6]),
        (FromTimestamp, Some(0), vec![0, 1, 2, 3, 4, 5, 6]),
        (FromTimestamp, Some(1_001), vec![1, 2, 3, 4, 5, 6]),
        (FromTimestamp, Some(2_001), vec![3, 4, 5, 6]),
    ] {
        let found = listed(&backend, filter(kind.clone(), at.map(|ms| START_MS + ms))).await;
        assert_eq!(found, expected, "{kind} {at:?}");
    }
    let after = ShardFilter::builder().r#type(ShardFilterType::AfterShardId).shard_id(shard_id(4)).build();
    assert_eq!(listed(&backend, after.unwrap()).await, [5, 6]);
    for incomplete in [filter(AtTimestamp, None), filter(ShardFilterType::AfterShardId, None)] {
        let ask = backend.kinesis.list_shards().stream_name(STREAM).shard_filter(incomplete);
        assert!(ask.send().await.unwrap_err().into_service_error().is_invalid_argument_exception());
    }
}

#[tokio::test]
async fn the_trim_horizon_moves_past_closed_shards() {
    let backend = Backend::with_stream(1).await;
    backend.advance_hours(1);
    double(&backend, 2).await;
    backend.advance_hours(24);
    assert_eq!(listed(&backend, filter(ShardFilterType::AtTrimHorizon, None)).await, [0, 1, 2]);
    backend.advance_ms(1);
    assert_eq!(listed(&backend, filter(ShardFilterType::AtTrimHorizon, None)).await, [1, 2]);
}

#[tokio::test]
async fn pages_join_to_the_whole_list_and_keep_the_filter() {
    let backend = Backend::with_stream(3).await;
    double(&backend, 6).await;
    for (kind, expected) in [
        (ShardFilterType::FromTrimHorizon, (0..9).map(shard_id).collect::<Vec<_>>()),
        (ShardFilterType::AtLatest, (3..9).map(shard_id).collect()),
    ] {
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let ask = backend.kinesis.list_shards().max_results(2);
            let ask = match token {
                None => ask.stream_name(STREAM).shard_filter(filter(kind.clone(), None)),
                Some(token) => ask.next_token(token),
            };
            let answer = ask.send().await.unwrap();
            assert!(answer.shards().len() <= 2);
            found.extend(answer.shards().iter().map(|shard| shard.shard_id().to_owned()));
            token = answer.next_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn listing_can_start_behind_a_shard_and_tell_streams_of_one_name_apart() {
    let backend = Backend::start().await;
    backend.advance_ms(123); // a time that the SDK cannot hold exactly
    backend.kinesis.create_stream().stream_name(STREAM).shard_count(3).send().await.unwrap();
    let answer = backend.kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let created = *answer.stream_description_summary().unwrap().stream_creation_timestamp();
    let ask = backend.kinesis.list_shards().stream_name(STREAM).exclusive_start_shard_id(shard_id(1));
    assert_eq!(ask.send().await.unwrap().shards()[0].shard_id(), shard_id(2));
    let created_at =
        |time| backend.kinesis.list_shards().stream_name(STREAM).stream_creation_timestamp(time).send();
    assert_eq!(created_at(created).await.unwrap().shards().len(), 3);
    let error = created_at(date_time(START_MS + 124)).await.unwrap_err().into_service_error();
    assert!(error.is_resource_not_found_exception());
}

#[tokio::test]
async fn a_token_stands_alone_and_expires() {
    let backend = Backend::with_stream(3).await;
    let first = backend.kinesis.list_shards().stream_name(STREAM).max_results(1).send().await.unwrap();
    let token = first.next_token.unwrap();
    let ask = backend.kinesis.list_shards().stream_name(STREAM).next_token(&token);
    let error = ask.send().await.unwrap_err().into_service_error();
    assert_eq!(error.meta().message(), Some("NextToken and StreamName cannot be provided together."));
    backend.advance_ms(300_001);
    let error = backend.kinesis.list_shards().next_token(&token).send().await.unwrap_err();
    assert!(error.into_service_error().is_expired_next_token_exception());
    let error = backend.kinesis.list_shards().next_token("nonsense").send().await.unwrap_err();
    assert!(error.into_service_error().is_invalid_argument_exception());
}
