//! What every lease store and worker registry must do: the same suite runs on memory and on DynamoDB.

use std::sync::Arc;

use sluicegate_checkpoint::{
    ArrivalMillis, LeaseState, Position, SequenceNumber, ShardId, SubSequenceNumber,
};

use crate::fleet::{Behind, WorkerRow, WorkerState};
use crate::invariants;
use crate::model::{Lease, LeaseCounter, WorkerId};
use crate::registry::{FixedStart, LearnedRate, RecordedStart, StreamIdentity, WorkerRegistry};
use crate::store::{LeaseStore, Written};

/// A promise that an adapter did not keep.
pub type Violation = String;

/// Runs every case of the lease store suite on an empty store.
///
/// # Errors
/// The first promise that is not kept.
pub async fn lease_store(store: Arc<dyn LeaseStore>) -> Result<(), Violation> {
    creates_once(&*store).await?;
    replaces_only_what_was_read(&*store).await?;
    keeps_every_attribute(&*store).await?;
    lets_one_of_two_writers_win(Arc::clone(&store)).await?;
    deletes_only_what_was_read(&*store).await
}

/// Runs every case of the registry suite on an empty registry.
///
/// # Errors
/// The first promise that is not kept.
pub async fn worker_registry(registry: Arc<dyn WorkerRegistry>) -> Result<(), Violation> {
    fixes_the_start_once(&*registry).await?;
    beats_only_on_the_last_heartbeat(&*registry).await?;
    keeps_requests_apart_from_workers(&*registry).await
}

fn free_row(key: &str) -> Lease {
    Lease::unowned(ShardId::new(key), Position::TrimHorizon, LeaseState::starting(None))
}

fn check(holds: bool, promise: impl Into<String>) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(promise.into()) }
}

fn text(error: impl std::fmt::Debug) -> Violation {
    format!("{error:?}")
}

async fn creates_once(store: &dyn LeaseStore) -> Result<(), Violation> {
    let row = free_row("create");
    let first = store.create(&row).await.map_err(text)?;
    check(first == Written::Applied(row.clone()), "a new row is created")?;
    let other = Lease { counter: LeaseCounter(5), ..row.clone() };
    let second = store.create(&other).await.map_err(text)?;
    check(second == Written::Lost(Some(row.clone())), "an existing row is not overwritten, and is returned")?;
    check(store.lease(&row.key).await.map_err(text)? == Some(row.clone()), "a created row is read")?;
    check(store.leases().await.map_err(text)?.contains(&row), "a created row is listed")?;
    check(store.lease(&ShardId::new("no-such")).await.map_err(text)?.is_none(), "an absent row is none")
}

async fn replaces_only_what_was_read(store: &dyn LeaseStore) -> Result<(), Violation> {
    let row = free_row("replace");
    store.create(&row).await.map_err(text)?;
    let (a, b) = (WorkerId::new("a"), WorkerId::new("b"));
    let taken = row.taken_by(&a);
    let written = store.replace(&row, &taken).await.map_err(text)?;
    check(written == Written::Applied(taken.clone()), "a free row is taken, and returned as it now is")?;
    invariants::l3_counter_raised_by_one(&row, &taken).map_err(text)?;
    let stale = store.replace(&row, &row.taken_by(&b)).await.map_err(text)?;
    check(stale == Written::Lost(Some(taken.clone())), "a stale take loses and is told the row as it is")?;
    let impostor = Lease { owner: Some(b.clone()), ..taken.clone() };
    let lost = store.replace(&impostor, &impostor.handed_over(None)).await.map_err(text)?;
    check(matches!(lost, Written::Lost(_)), "the right counter with another owner loses")?;
    let freed = taken.handed_over(None);
    check(
        store.replace(&taken, &freed).await.map_err(text)? == Written::Applied(freed.clone()),
        "the owner frees it",
    )?;
    let missing = free_row("missing");
    let lost = store.replace(&missing, &missing.taken_by(&a)).await.map_err(text)?;
    check(lost == Written::Lost(None), "a missing row cannot be replaced")
}

async fn keeps_every_attribute(store: &dyn LeaseStore) -> Result<(), Violation> {
    let mut row = free_row("attributes");
    row.parents = [ShardId::new("p-0"), ShardId::new("p-1")].into();
    store.create(&row).await.map_err(text)?;
    let number = SequenceNumber::parse("4".repeat(56)).map_err(text)?;
    let at = Position::At(number, SubSequenceNumber(2));
    let mut state = LeaseState::starting(Some(ArrivalMillis(1_700_000_000_123)));
    state.epoch = 3;
    let steps = [row.taken_by(&WorkerId::new("a")), row.taken_by(&WorkerId::new("a")).progressed(at, state)];
    let mut before = row;
    for mut next in steps {
        next.counter = before.counter.next();
        let written = store.replace(&before, &next).await.map_err(text)?;
        check(written == Written::Applied(next.clone()), format!("{next:?} is written as it is"))?;
        check(
            store.lease(&next.key).await.map_err(text)?.as_ref() == Some(&next),
            "and read as it was written",
        )?;
        before = next;
    }
    let children = before.with_children([ShardId::new("c-0")].into());
    check(
        store.replace(&before, &children).await.map_err(text)? == Written::Applied(children.clone()),
        "children are recorded",
    )
}

async fn lets_one_of_two_writers_win(store: Arc<dyn LeaseStore>) -> Result<(), Violation> {
    let row = free_row("race");
    store.create(&row).await.map_err(text)?;
    let takes = (0..8).map(|n| {
        let (store, row) = (Arc::clone(&store), row.clone());
        async move { store.replace(&row, &row.taken_by(&WorkerId::new(format!("w-{n}")))).await }
    });
    let outcomes = futures::future::join_all(takes).await;
    let won = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Written::Applied(_)))).count();
    check(won == 1, format!("one of eight takers wins, {won} did"))?;
    let counter = store.lease(&row.key).await.map_err(text)?.map(|row| row.counter);
    check(counter == Some(LeaseCounter(1)), "and the row was written once")
}

async fn deletes_only_what_was_read(store: &dyn LeaseStore) -> Result<(), Violation> {
    let row = free_row("delete");
    store.create(&row).await.map_err(text)?;
    let taken = row.taken_by(&WorkerId::new("a"));
    store.replace(&row, &taken).await.map_err(text)?;
    check(store.delete(&row).await.map_err(text)? == Written::Lost(Some(())), "a stale delete loses")?;
    check(store.delete(&taken).await.map_err(text)? == Written::Applied(()), "a current one deletes")?;
    check(store.delete(&taken).await.map_err(text)? == Written::Lost(None), "and there is nothing left")
}

async fn fixes_the_start_once(registry: &dyn WorkerRegistry) -> Result<(), Violation> {
    let stream = |name: &str, ms| Some(StreamIdentity { name: name.to_owned(), created: ArrivalMillis(ms) });
    let at = FixedStart::AtTimestamp(ArrivalMillis(1_700_000_000_123));
    let first = RecordedStart { at, stream: stream("orders", 1_690_000_000_456) };
    check(registry.fix_start(&first).await.map_err(text)? == first, "the first start is recorded")?;
    for later in [stream("orders", 1_690_000_000_456), stream("flights", 1_700_000_000_000), None] {
        let later = RecordedStart { at: FixedStart::TrimHorizon, stream: later };
        let recorded = registry.fix_start(&later).await.map_err(text)?;
        check(recorded == first, "and never changed, whatever stream a later one names")?;
    }
    check(registry.workers().await.map_err(text)?.is_empty(), "the start is no worker")
}

async fn beats_only_on_the_last_heartbeat(registry: &dyn WorkerRegistry) -> Result<(), Violation> {
    let row = WorkerRow {
        heartbeat: 1,
        address: Some("127.0.0.1:9".into()),
        packing_versions: vec![1],
        behind: vec![Behind { shard: ShardId::new("s-0"), age_ms: 40, lag_ms: 7 }],
        backlog_bytes: 12,
        expires: 1_800_000_000,
        ..WorkerRow::new(WorkerId::new("w"))
    };
    check(
        registry.heartbeat(None, &row).await.map_err(text)? == Written::Applied(row.clone()),
        "a first heartbeat",
    )?;
    let again = registry.heartbeat(None, &row).await.map_err(text)?;
    check(again == Written::Lost(Some(row.clone())), "is made once, and the row is told")?;
    let next = WorkerRow { heartbeat: 2, state: WorkerState::Draining, address: None, ..row.clone() };
    check(
        registry.heartbeat(Some(1), &next).await.map_err(text)? == Written::Applied(next.clone()),
        "the next one",
    )?;
    let stale =
        registry.heartbeat(Some(1), &WorkerRow { heartbeat: 3, ..row.clone() }).await.map_err(text)?;
    check(stale == Written::Lost(Some(next.clone())), "a late heartbeat does not land over a newer one")?;
    check(registry.workers().await.map_err(text)? == vec![next.clone()], "the row is read as written")?;
    check(matches!(registry.retire(&row).await.map_err(text)?, Written::Lost(_)), "a stale retire loses")?;
    check(
        registry.retire(&next).await.map_err(text)? == Written::Applied(()),
        "a current one deletes the row",
    )?;
    check(registry.workers().await.map_err(text)?.is_empty(), "and it is gone")?;
    check(registry.fleet().await.map_err(text)?.learned.is_none(), "nothing was learned")?;
    for (rate, grant) in [(700, 1_000), (300, 0)] {
        let (rate_milli, grant_milli) = (rate, grant);
        let taught = WorkerRow { write_rate_milli: rate, write_grant_milli: grant, ..row.clone() };
        registry.heartbeat(None, &taught).await.map_err(text)?;
        registry.retire(&taught).await.map_err(text)?;
        let fleet = registry.fleet().await.map_err(text)?;
        let kept = Some(LearnedRate { rate_milli, grant_milli });
        check(fleet.learned == kept && fleet.workers.is_empty(), "the last to leave says what it learned")?;
    }
    Ok(())
}

async fn keeps_requests_apart_from_workers(registry: &dyn WorkerRegistry) -> Result<(), Violation> {
    let row = WorkerRow { heartbeat: 1, expires: 1_800_000_000, ..WorkerRow::new(WorkerId::new("leaves")) };
    let (worker, stranger) = (row.worker_id.clone(), WorkerId::new("gone#already"));
    registry.heartbeat(None, &row).await.map_err(text)?;
    for _ in 0..2 {
        registry.ask_to_leave(&worker, 1_800_000_000).await.map_err(text)?;
        registry.ask_to_leave(&stranger, 1_800_000_001).await.map_err(text)?;
    }
    let fleet = registry.fleet().await.map_err(text)?;
    check(fleet.workers == vec![row.clone()], "one read tells the workers, and requests are none")?;
    check(fleet.asked_to_leave == [stranger.clone(), worker.clone()].into(), "and who is asked to leave")?;
    check(registry.workers().await.map_err(text)? == vec![row.clone()], "a request is no worker")?;
    check(
        matches!(registry.retire(&row).await.map_err(text)?, Written::Applied(())),
        "a request does not touch the worker's own row",
    )?;
    for _ in 0..2 {
        registry.withdraw_request(&worker).await.map_err(text)?;
        registry.withdraw_request(&stranger).await.map_err(text)?;
    }
    let fleet = registry.fleet().await.map_err(text)?;
    check(fleet.asked_to_leave.is_empty() && fleet.workers.is_empty(), "a withdrawn request is gone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryLeaseStore, MemoryRegistry};

    #[tokio::test]
    async fn memory_keeps_every_promise() {
        let store = Arc::new(MemoryLeaseStore::default());
        lease_store(Arc::<MemoryLeaseStore>::clone(&store)).await.unwrap();
        assert_eq!(store.broken_laws(), vec![]);
        worker_registry(Arc::new(MemoryRegistry::default())).await.unwrap();
    }
}
