//! Splits, merges, UpdateShardCount; and what a reader meets at a shard's end.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{ScalingType, ShardIteratorType};

use crate::support::{
    Backend, STREAM, as_number, entry, hash_range, is_open, open_shards_tile, shard_id, texts,
};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
const MIDDLE: u128 = 1 << 127;

async fn split(backend: &Backend, shard: u32, at: u128) {
    let split = backend.kinesis.split_shard().stream_name(STREAM).shard_to_split(shard_id(shard));
    split.new_starting_hash_key(at.to_string()).send().await.unwrap();
}

async fn merge(backend: &Backend, shard: u32, adjacent: u32) {
    let merge = backend.kinesis.merge_shards().stream_arn(ARN).shard_to_merge(shard_id(shard));
    merge.adjacent_shard_to_merge(shard_id(adjacent)).send().await.unwrap();
}

#[tokio::test]
async fn a_split_parent_ends_and_names_its_children() {
    let backend = Backend::with_stream(1).await;
    backend.put("old").await;
    split(&backend, 0, MIDDLE).await;
    let new = backend.put("new").await;
    let shards = backend.shards().await;
    assert!(open_shards_tile(&shards));
    assert!(shards[1..].iter().all(|child| child.parent_shard_id() == Some(shard_id(0).as_str())));
    assert_eq!((hash_range(&shards[1]), hash_range(&shards[2])), ((0, MIDDLE - 1), (MIDDLE, u128::MAX)));

    let end = shards[0].sequence_number_range().unwrap().ending_sequence_number().unwrap();
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    let page = backend.read(&iterator).await;
    assert_eq!(texts(page.records()), ["old"]);
    assert!(as_number(page.records()[0].sequence_number()) < as_number(end));
    assert!(as_number(end) < as_number(&new.sequence_number));
    assert_eq!((page.next_shard_iterator(), page.millis_behind_latest()), (None, Some(0)));
    let children: Vec<_> = page.child_shards().iter().map(|child| child.shard_id().to_owned()).collect();
    assert_eq!(children, [shard_id(1), shard_id(2)]);
    for (child, shard) in page.child_shards().iter().zip(&shards[1..]) {
        assert_eq!(child.parent_shards(), [shard_id(0)]);
        assert_eq!(child.hash_key_range(), shard.hash_key_range());
    }
    // A reader that is sent behind the end, by the last record or by the ending number, is told the same.
    for number in [page.records()[0].sequence_number(), end] {
        let iterator = backend.iterator_behind(&shard_id(0), number).await;
        let page = backend.read(&iterator).await;
        assert_eq!(
            (page.records().len(), page.next_shard_iterator(), page.child_shards().len()),
            (0, None, 2)
        );
    }
}

#[tokio::test]
async fn a_reader_under_way_reaches_the_end_without_losing_a_record() {
    let backend = Backend::with_stream(1).await;
    backend.put("1").await;
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    let next = backend.read(&iterator).await.next_shard_iterator.unwrap();
    backend.put("2").await;
    backend.put("3").await;
    split(&backend, 0, MIDDLE).await;
    let page = backend.kinesis.get_records().shard_iterator(next).limit(1).send().await.unwrap();
    assert_eq!((texts(page.records()), page.child_shards().len()), (vec!["2".to_owned()], 0));
    let page = backend.read(&page.next_shard_iterator.unwrap()).await;
    assert_eq!(
        (texts(page.records()), page.next_shard_iterator(), page.child_shards().len()),
        (vec!["3".to_owned()], None, 2)
    );
}

#[tokio::test]
async fn merged_parents_share_one_child() {
    let backend = Backend::with_stream(2).await;
    merge(&backend, 1, 0).await;
    let shards = backend.shards().await;
    assert!(open_shards_tile(&shards));
    let child = &shards[2];
    assert_eq!(child.parent_shard_id(), Some(shard_id(1).as_str()));
    assert_eq!(child.adjacent_parent_shard_id(), Some(shard_id(0).as_str()));
    assert_eq!(hash_range(child), (0, u128::MAX));
    for parent in 0..2 {
        let iterator = backend.iterator(&shard_id(parent), ShardIteratorType::Latest).await;
        let page = backend.read(&iterator).await;
        assert_eq!(page.next_shard_iterator(), None);
        assert_eq!(page.child_shards()[0].parent_shards(), [shard_id(1), shard_id(0)]);
    }
}

#[tokio::test]
async fn only_open_neighbours_merge_and_only_the_inside_splits() {
    let backend = Backend::with_stream(3).await;
    let merge_outcome = |shard: u32, adjacent: u32| {
        let merge = backend.kinesis.merge_shards().stream_name(STREAM).shard_to_merge(shard_id(shard));
        merge.adjacent_shard_to_merge(shard_id(adjacent)).send()
    };
    let split_outcome = |shard: u32, at: u128| {
        let split = backend.kinesis.split_shard().stream_name(STREAM).shard_to_split(shard_id(shard));
        split.new_starting_hash_key(at.to_string()).send()
    };
    let error = merge_outcome(0, 2).await.unwrap_err().into_service_error();
    assert!(error.is_invalid_argument_exception());
    assert!(error.meta().message().unwrap().contains("not an adjacent pair"));
    assert!(merge_outcome(0, 0).await.unwrap_err().into_service_error().is_invalid_argument_exception());
    for at in [0, 1, MIDDLE] {
        assert!(split_outcome(0, at).await.unwrap_err().into_service_error().is_invalid_argument_exception());
    }
    merge(&backend, 0, 1).await;
    assert!(split_outcome(0, 5).await.unwrap_err().into_service_error().is_invalid_argument_exception());
    assert!(split_outcome(9, 5).await.unwrap_err().into_service_error().is_resource_not_found_exception());
}

#[tokio::test]
async fn update_shard_count_scales_uniformly_and_keeps_the_lineage() {
    let backend = Backend::with_stream(2).await;
    for (target, current) in [(3, 2), (6, 3), (3, 6), (5, 3)] {
        let update = backend.kinesis.update_shard_count().stream_name(STREAM).target_shard_count(target);
        let answer = update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
        assert_eq!(
            (answer.current_shard_count(), answer.target_shard_count()),
            (Some(current), Some(target))
        );
        assert_eq!(answer.stream_arn(), Some(ARN));
        let shards = backend.shards().await;
        assert!(open_shards_tile(&shards));
        let open = shards.iter().filter(|shard| is_open(shard));
        let sizes: Vec<u128> = open.map(hash_range).map(|(first, last)| last - first).collect();
        assert_eq!(sizes.len(), usize::try_from(target).unwrap());
        assert!(sizes.iter().all(|size| size.abs_diff(sizes[0]) < 16));
    }
    let shards = backend.shards().await;
    let range_of = |id: &str| hash_range(shards.iter().find(|shard| shard.shard_id() == id).unwrap());
    for child in &shards[2..] {
        let parent = range_of(child.parent_shard_id().unwrap());
        let (first, last) = hash_range(child);
        match child.adjacent_parent_shard_id().map(range_of) {
            None => assert!(parent.0 <= first && last <= parent.1),
            Some(adjacent) => assert_eq!((parent.0.min(adjacent.0), parent.1.max(adjacent.1)), (first, last)),
        }
    }
}

#[tokio::test]
async fn update_shard_count_has_bounds() {
    let backend = Backend::with_stream(4).await;
    for target in [1, 9] {
        let update = backend.kinesis.update_shard_count().stream_name(STREAM).target_shard_count(target);
        let error = update.scaling_type(ScalingType::UniformScaling).send().await.unwrap_err();
        assert!(error.into_service_error().is_invalid_argument_exception(), "{target}");
    }
}

#[tokio::test]
async fn a_whole_family_is_read_in_the_order_of_its_generations() {
    let backend = Backend::with_stream(1).await;
    let mut expected = Vec::new();
    for round in 0..4 {
        let texts: Vec<String> = (0..50).map(|index| format!("{round}-{index}")).collect();
        let entries = texts.iter().map(|text| entry(text, text.as_str())).collect();
        backend.kinesis.put_records().stream_name(STREAM).set_records(Some(entries)).send().await.unwrap();
        expected.extend(texts);
        let target = [2, 3, 2, 4][round];
        let update = backend.kinesis.update_shard_count().stream_name(STREAM).target_shard_count(target);
        update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
    }
    let mut found = Vec::new();
    for shard in backend.shards().await {
        found.extend(texts(&backend.read_all(shard.shard_id()).await));
    }
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn writes_go_to_the_children() {
    let backend = Backend::with_stream(1).await;
    split(&backend, 0, MIDDLE).await;
    for (hash_key, shard) in [(0, 1), (MIDDLE - 1, 1), (MIDDLE, 2), (u128::MAX, 2)] {
        let put = backend.kinesis.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("x"));
        let answer = put.explicit_hash_key(hash_key.to_string()).send().await.unwrap();
        assert_eq!(answer.shard_id(), shard_id(shard));
    }
}
