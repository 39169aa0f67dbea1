//! Writers and readers at the same time: a reader that started first sees every acknowledged record exactly once, in order.
#![expect(
    clippy::disallowed_types,
    reason = "the writers and readers of these tests must run at the same time"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::types::{ScalingType, ShardIteratorType};
use tokio::task::JoinSet;

use crate::support::{Backend, STREAM, as_number, entry, shard_id, texts};

const WRITERS: usize = 4;
const BATCHES: usize = 25;
const BATCH: usize = 40;
const NOBODY_HANGS: Duration = Duration::from_secs(60);

/// Writes its batches one after the other; gives what was acknowledged: sequence number and text.
async fn write(backend: Arc<Backend>, writer: usize) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    for batch in 0..BATCHES {
        let texts: Vec<String> = (0..BATCH).map(|index| format!("{writer}-{batch}-{index}")).collect();
        let entries = texts.iter().map(|text| entry(text, text.as_str())).collect();
        let put = backend.kinesis.put_records().stream_name(STREAM).set_records(Some(entries));
        let answer = put.send().await.unwrap();
        let numbers = answer.records().iter().map(|record| record.sequence_number().unwrap().to_owned());
        acknowledged.extend(numbers.zip(texts));
    }
    acknowledged
}

/// Polls from LATEST until it has seen `total` records.
async fn poll(backend: Arc<Backend>, mut iterator: String, total: usize) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    while seen.len() < total {
        let page = backend.kinesis.get_records().shard_iterator(iterator).limit(100).send().await.unwrap();
        let numbers = page.records().iter().map(|record| record.sequence_number().to_owned());
        seen.extend(numbers.zip(texts(page.records())));
        iterator = page.next_shard_iterator.unwrap();
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_passes_over_an_acknowledged_record() {
    let backend = Arc::new(Backend::with_stream(1).await);
    let total = WRITERS * BATCHES * BATCH;
    let mut readers = JoinSet::new();
    for _ in 0..3 {
        let latest = backend.iterator(&shard_id(0), ShardIteratorType::Latest).await;
        readers.spawn(poll(Arc::clone(&backend), latest, total));
    }
    let writers: JoinSet<_> = (0..WRITERS).map(|writer| write(Arc::clone(&backend), writer)).collect();
    let everything = async { (writers.join_all().await.concat(), readers.join_all().await) };
    let (mut acknowledged, seen) = tokio::time::timeout(NOBODY_HANGS, everything).await.unwrap();
    acknowledged.sort_by_key(|(number, _)| as_number(number));
    for seen in seen {
        assert_eq!(seen, acknowledged);
    }
}

/// Reads a shard from its beginning to its end.
async fn read_to_end(backend: &Backend, shard: &str) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    let mut iterator = Some(backend.iterator(shard, ShardIteratorType::TrimHorizon).await);
    while let Some(at) = iterator {
        let page = backend.read(&at).await;
        let numbers = page.records().iter().map(|record| record.sequence_number().to_owned());
        seen.extend(numbers.zip(texts(page.records())));
        let open_and_caught_up = page.records().is_empty();
        iterator = page.next_shard_iterator.filter(|_| !open_and_caught_up);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn resharding_under_load_loses_nothing() {
    let backend = Arc::new(Backend::with_stream(1).await);
    let finished = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (backend, finished) = (Arc::clone(&backend), Arc::clone(&finished));
        writers.spawn(async move {
            let acknowledged = write(backend, writer).await;
            finished.fetch_add(1, Ordering::SeqCst);
            acknowledged
        });
    }
    let resharding = async {
        let mut targets = [2, 4, 3, 2, 1].into_iter().cycle();
        while finished.load(Ordering::SeqCst) < WRITERS {
            let update = backend.kinesis.update_shard_count().stream_name(STREAM);
            let update = update.target_shard_count(targets.next().unwrap());
            update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
        }
    };
    let everything = async { tokio::join!(writers.join_all(), resharding).0.concat() };
    let mut acknowledged = tokio::time::timeout(NOBODY_HANGS, everything).await.unwrap();

    let mut seen = Vec::new();
    for shard in backend.shards().await {
        let records = read_to_end(&backend, shard.shard_id()).await;
        assert!(records.windows(2).all(|pair| as_number(&pair[0].0) < as_number(&pair[1].0)));
        seen.extend(records);
    }
    acknowledged.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, acknowledged);
}
