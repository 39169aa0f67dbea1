use std::collections::VecDeque;

use async_trait::async_trait;
use proptest::prelude::*;
use sluicegate_checkpoint::record::weight_bytes;
use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber};

use super::super::tests::{aggregate, event, kinesis_record, sealed};
use super::*;

/// Gives these pages, one after the other, and then empty ones at the tip.
struct Pages(VecDeque<RecordPage>);

#[async_trait]
impl ShardCursor for Pages {
    async fn next_page(&mut self, _limit: u32) -> Result<RecordPage, StreamError> {
        Ok(self.0.pop_front().unwrap_or_default())
    }
}

fn cursor(pages: impl IntoIterator<Item = RecordPage>) -> EventCursor {
    let cursor = Box::new(Pages(pages.into_iter().collect()));
    EventCursor { cursor, rest: VecDeque::new(), page: RecordPage::default() }
}

/// A Kinesis record of so many user records of so many bytes; of none: a plain one.
fn of_users(number: u64, users: usize, bytes: usize) -> Record {
    let data = "x".repeat(bytes);
    let number = SequenceNumber::parse(number.to_string()).unwrap();
    if users == 0 {
        return Record::new(number, ArrivalMillis(1), "plain", data);
    }
    let events: Vec<_> = (0..users).map(|user| event(&format!("key-{}", user % 3), None, &data)).collect();
    kinesis_record(sealed(&aggregate(&events))).of(number, ArrivalMillis(1))
}

#[tokio::test]
async fn the_last_portion_of_a_page_says_where_the_shard_stands() {
    let records = vec![of_users(1, 2, 10), of_users(2, 0, 10)];
    let page = RecordPage { records, end: Some(Vec::new()), ..RecordPage::default() };
    let mut events = cursor([page]);
    let answer = events.fetch(10).await.unwrap();
    assert_eq!((answer.fetched.records, answer.behind_latest), (2, Duration::ZERO));
    let first = events.take(events.portion(0));
    assert_eq!((first.records.len(), first.end), (2, None));
    assert!(!first.behind_latest.is_zero(), "more of it is there: this is not the tip");
    let last = events.take(events.portion(0));
    assert_eq!((last.records.len(), last.end, last.behind_latest), (1, Some(Vec::new()), Duration::ZERO));
    assert!(events.is_empty());
    events.fetch(10).await.unwrap();
    assert_eq!(events.take(events.portion(0)).records, []);
}

proptest! {
    /// Law M1 where events come into being: no portion takes more than was said beforehand, none holds more than was allowed
    /// unless it is of one Kinesis record, and all of them together are the page.
    #[test]
    fn no_more_comes_of_a_page_than_was_asked_for(
        shapes in proptest::collection::vec((0usize..400, 0usize..40), 1..12),
        allowed in 0usize..60_000,
    ) {
        let records: Vec<Record> =
            (1u64..).zip(&shapes).map(|(number, (users, bytes))| of_users(number, *users, *bytes)).collect();
        let mut events = cursor([RecordPage { records: records.clone(), ..RecordPage::default() }]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(events.fetch(100)).unwrap();
        let mut found = Vec::new();
        while !events.is_empty() {
            let (held, portion) = (events.held_bytes(), events.portion(allowed));
            let page = events.take(portion);
            let weight = weight_bytes(&page.records);
            prop_assert!(weight <= held - events.held_bytes() + portion.more_bytes);
            prop_assert!(portion.records == 1 || weight <= allowed, "{weight} of {allowed}");
            found.extend(page.records);
        }
        prop_assert_eq!(found, super::super::deaggregate_all(records));
    }
}
