//! GetShardIterator and GetRecords.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};

use crate::support::{Backend, START_MS, STREAM, date_time, entry, rounded_ms, shard_id, texts};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

#[tokio::test]
async fn each_kind_of_iterator_begins_where_it_should() {
    let backend = Backend::with_stream(1).await;
    let mut numbers = Vec::new();
    for data in ["a", "b", "c"] {
        numbers.push(backend.put(data).await.sequence_number);
    }
    let shard = shard_id(0);
    let from = |kind: ShardIteratorType, number: Option<&String>| {
        let ask = backend.kinesis.get_shard_iterator().stream_arn(ARN).shard_id(&shard);
        ask.shard_iterator_type(kind).set_starting_sequence_number(number.cloned()).send()
    };
    for (kind, number, expected) in [
        (ShardIteratorType::TrimHorizon, None, &["a", "b", "c"][..]),
        (ShardIteratorType::AtSequenceNumber, Some(&numbers[1]), &["b", "c"]),
        (ShardIteratorType::AfterSequenceNumber, Some(&numbers[1]), &["c"]),
        (ShardIteratorType::AfterSequenceNumber, Some(&numbers[2]), &[]),
        (ShardIteratorType::Latest, None, &[]),
    ] {
        let iterator = from(kind.clone(), number).await.unwrap().shard_iterator.unwrap();
        let page =
            backend.kinesis.get_records().shard_iterator(iterator).stream_arn(ARN).send().await.unwrap();
        assert_eq!(texts(page.records()), expected, "{kind}");
        assert_eq!(page.millis_behind_latest(), Some(0));
    }
}

#[tokio::test]
async fn latest_yields_what_comes_after_it() {
    let backend = Backend::with_stream(1).await;
    backend.put("before").await;
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::Latest).await;
    backend.put("after").await;
    assert_eq!(texts(backend.read(&iterator).await.records()), ["after"]);
}

#[tokio::test]
async fn a_timestamp_is_exact_to_the_millisecond() {
    let backend = Backend::with_stream(1).await;
    for data in ["0", "1", "2"] {
        backend.put(data).await;
        backend.advance_ms(1);
    }
    let shard = shard_id(0);
    for (offset, expected) in [(0, &["0", "1", "2"][..]), (1, &["1", "2"]), (2, &["2"]), (3, &[])] {
        let iterator = backend.iterator_at_ms(&shard, START_MS + offset).await;
        let page = backend.read(&iterator).await;
        assert_eq!(texts(page.records()), expected, "at {offset}");
    }
    let early = backend.iterator_at_ms(&shard, 0).await;
    let page = backend.read(&early).await;
    let arrivals = page.records().iter().map(|record| record.approximate_arrival_timestamp().unwrap());
    let times: Vec<_> = arrivals.map(rounded_ms).collect();
    assert_eq!(times, [0, 1, 2].map(|offset| START_MS + offset));

    // Nothing has arrived at or after now: what comes next is what is read next.
    let now = backend.iterator_at_ms(&shard, START_MS + 3).await;
    backend.put("3").await;
    assert_eq!(texts(backend.read(&now).await.records()), ["3"]);

    let ask = backend.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(&shard);
    let ask = ask.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(date_time(START_MS + 60_000));
    assert!(ask.send().await.unwrap_err().into_service_error().is_invalid_argument_exception());
}

#[tokio::test]
async fn limit_pages_and_distance_to_the_tip() {
    let backend = Backend::with_stream(1).await;
    for data in ["a", "b", "c"] {
        backend.put(data).await;
        backend.advance_ms(100);
    }
    let mut iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    // Now is 300 ms after "a"; the distance is that of the oldest unread record.
    for (expected, behind) in [(&["a"][..], 200), (&["b"], 100), (&["c"], 0), (&[], 0)] {
        let page = backend.kinesis.get_records().shard_iterator(&iterator).limit(1).send().await.unwrap();
        assert_eq!(texts(page.records()), expected);
        assert_eq!(page.millis_behind_latest(), Some(behind));
        iterator = page.next_shard_iterator.unwrap();
    }
    for limit in [0, 10_001] {
        let ask = backend.kinesis.get_records().shard_iterator(&iterator).limit(limit);
        let error = ask.send().await.unwrap_err().into_service_error();
        assert_eq!(error.meta().code(), Some("ValidationException"), "{limit}");
    }
}

#[tokio::test]
async fn an_answer_holds_10_mib_of_keys_and_data() {
    let backend = Backend::with_stream(1).await;
    let half_mib: PutRecordsRequestEntry = entry("k", vec![1; (1 << 19) - 1]);
    for _ in 0..2 {
        let entries = Some(vec![half_mib.clone(); 12]);
        backend.kinesis.put_records().stream_name(STREAM).set_records(entries).send().await.unwrap();
    }
    backend.advance_ms(5);
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    let page = backend.read(&iterator).await;
    assert_eq!((page.records().len(), page.millis_behind_latest()), (20, Some(5)));
    let rest = backend.read(&page.next_shard_iterator.unwrap()).await;
    assert_eq!((rest.records().len(), rest.millis_behind_latest()), (4, Some(0)));
}

#[tokio::test]
async fn an_answer_holds_10_000_records() {
    let backend = Backend::with_stream(1).await;
    for _ in 0..21 {
        let entries = Some(vec![entry("k", "x"); 500]);
        backend.kinesis.put_records().stream_name(STREAM).set_records(entries).send().await.unwrap();
    }
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    let page = backend.read(&iterator).await;
    assert_eq!(page.records().len(), 10_000);
    assert_eq!(backend.read(&page.next_shard_iterator.unwrap()).await.records().len(), 500);
}

#[tokio::test]
async fn an_iterator_expires_after_five_minutes() {
    let backend = Backend::with_stream(1).await;
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    backend.advance_ms(300_000);
    let fresh = backend.read(&iterator).await.next_shard_iterator.unwrap();
    backend.advance_ms(1);
    let error = backend.kinesis.get_records().shard_iterator(&iterator).send().await.unwrap_err();
    let error = error.into_service_error();
    assert!(error.is_expired_iterator_exception());
    assert_eq!(
        error.meta().message(),
        Some(
            "Iterator expired. The iterator was created at time Tue Nov 14 22:13:20 UTC 2023 while right now it is Tue \
             Nov 14 22:18:20 UTC 2023 which is further in the future than the tolerated delay of 300000 milliseconds."
        )
    );
    backend.read(&fresh).await;
}

#[tokio::test]
async fn a_sequence_number_belongs_to_its_shard_and_stream() {
    let backend = Backend::with_stream(2).await;
    let put = backend.kinesis.put_record().stream_name(STREAM).partition_key("a").data(Blob::new("x"));
    let number = put.send().await.unwrap().sequence_number;
    let ask = |shard: u32, number: String| {
        let ask = backend.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard_id(shard));
        ask.shard_iterator_type(ShardIteratorType::AtSequenceNumber).starting_sequence_number(number).send()
    };
    ask(0, number.clone()).await.unwrap();
    let error = ask(1, number.clone()).await.unwrap_err().into_service_error();
    assert!(error.is_invalid_argument_exception());
    assert_eq!(
        error.meta().message(),
        Some(
            "Invalid StartingSequenceNumber. It encodes shardId-000000000000, while it was used in a call to a shard \
             with shardId-000000000001"
        )
    );
    let unborn = format!("{}9", &number[..55]);
    for foreign in [unborn, "0".to_owned(), number.replacen("4951", "4952", 1)] {
        let error = ask(0, foreign.clone()).await.unwrap_err().into_service_error();
        assert!(error.is_invalid_argument_exception(), "{foreign}");
        assert!(error.meta().message().unwrap().contains("did not come from this stream"));
    }
    let error = ask(0, "LATEST".to_owned()).await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("ValidationException"));
}

#[tokio::test]
async fn iterators_die_with_their_stream() {
    let backend = Backend::with_stream(1).await;
    let iterator = backend.iterator(&shard_id(0), ShardIteratorType::TrimHorizon).await;
    backend.kinesis.delete_stream().stream_name(STREAM).send().await.unwrap();
    backend.kinesis.create_stream().stream_name(STREAM).send().await.unwrap();
    let error = backend.kinesis.get_records().shard_iterator(&iterator).send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
    let error = backend.kinesis.get_records().shard_iterator("nonsense").send().await.unwrap_err();
    assert!(error.into_service_error().is_invalid_argument_exception());
}

#[tokio::test]
async fn an_unknown_shard_is_resource_not_found() {
    let backend = Backend::with_stream(1).await;
    for shard in [shard_id(7), "shard-x".to_owned()] {
        let ask = backend.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard);
        let error = ask.shard_iterator_type(ShardIteratorType::Latest).send().await.unwrap_err();
        assert!(error.into_service_error().is_resource_not_found_exception());
    }
}
