//! The ports of one worker, over its link to the world.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use sluicegate_checkpoint::{ArrivalMillis, Record, ShardId};
use sluicegate_lease::store::{ReadError, WriteError};
use sluicegate_lease::{
    FleetRows, Lease, LeaseKey, LeaseStore, RecordedStart, StreamIdentity, WorkerId, WorkerRegistry,
    WorkerRow, Written,
};
use sluicegate_sink::dead_letter::{LetterPage, NoDeadLetters};
use sluicegate_sink::governor::units_of;
use sluicegate_sink::item::{Item, ItemKey};
use sluicegate_sink::store::{Cause, ThrottledBy, Written as ItemsWritten};
use sluicegate_sink::{DeadLetters, ItemWriter, Letter, LetterId, StoreError};
use sluicegate_worker::{
    Distributed, ReadFrom, RecordPage, ShardCursor, ShardListing, StreamError, StreamReader,
};

use super::capacity::Over;
use super::link::{Link, Lost};
use super::reads::repeated_too_soon;
use super::script::{BEGIN_MS, Service};
use super::world::Inner;

/// All ports of a worker.
#[derive(Debug, Clone)]
pub struct Ports(pub Arc<Link>);

fn unread(lost: Lost) -> ReadError {
    ReadError::Unavailable { source: Box::new(lost) }
}

fn unwritten(lost: Lost) -> WriteError {
    match lost {
        Lost::Unknown | Lost::Failed => WriteError::OutcomeUnknown { source: Box::new(lost) },
        Lost::Throttled => WriteError::Throttled { source: Box::new(lost) },
    }
}

fn unstored(lost: Lost) -> StoreError {
    match lost {
        Lost::Unknown | Lost::Failed => StoreError::Unavailable(Box::new(lost)),
        // What refuses at random does not say why.
        Lost::Throttled => throttled(None, Box::new(lost)),
    }
}

/// The table refuses for now, for this reason if it says one.
fn throttled(by: Option<Over>, source: Cause) -> StoreError {
    let by = match by {
        None => ThrottledBy::Unknown,
        Some(Over::Table) => ThrottledBy::Table,
        Some(Over::KeyRange) => ThrottledBy::KeyRange,
        Some(Over::Both) => ThrottledBy::Both,
    };
    StoreError::Throttled { by, source }
}

/// The same refusal, but of the table, whatever refused.
pub(super) fn as_of_the_table(error: StoreError) -> StoreError {
    match error {
        StoreError::Throttled { source, .. } => throttled(Some(Over::Table), source),
        error @ (StoreError::Unavailable(_)
        | StoreError::Rejected(_)
        | StoreError::Refused { .. }
        | StoreError::Item(_)) => error,
    }
}

/// Why a limited table took none of the items of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("simulated: {0:?} has no units left")]
pub struct Exceeded(pub Over);

#[async_trait]
impl LeaseStore for Ports {
    /// Two pages, read one after the other: a scan is no snapshot.
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        let first = self.0.read(Service::Leases, |world, _| {
            let most = world.rows.len();
            let size = world.rng.random_range(0..=most);
            world.rows.values().take(size).cloned().collect::<Vec<Lease>>()
        });
        let mut rows = first.await.map_err(unread)?;
        let behind = rows.last().map(|row| row.key.clone());
        let rest = self.0.read(Service::Leases, |world, _| {
            let rest =
                world.rows.values().filter(|row| behind.as_ref().is_none_or(|behind| row.key > *behind));
            rest.cloned().collect::<Vec<Lease>>()
        });
        rows.extend(rest.await.map_err(unread)?);
        Ok(rows)
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        let me = &self.0.worker;
        let row = self.0.read(Service::Leases, |world, now| {
            world.referee.lifecycle.read(me, key, now);
            world.rows.get(key).cloned()
        });
        row.await.map_err(unread)
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        let (row, me) = (lease.clone(), self.0.worker.clone());
        // What the writer saw is what it had seen when it sent the write, not when a late one lands.
        let looked = self.0.world.with(|world| world.referee.lifecycle.looked(&me));
        let written =
            self.0.write(Service::Leases, move |world, now| world.create((&me, &looked), &row, now));
        written.await.map_err(unwritten)
    }

    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError> {
        let (expected, next, me) = (expected.clone(), next.clone(), self.0.worker.clone());
        // What the writer saw is what it had seen when it sent the write, not when a late one lands.
        let sight = self.0.world.with(|world| world.referee.sight(&me));
        let written = self
            .0
            .write(Service::Leases, move |world, now| world.replace((&me, &sight), &expected, &next, now));
        written.await.map_err(unwritten)
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        let (expected, me) = (expected.clone(), self.0.worker.clone());
        let written = self.0.write(Service::Leases, move |world, now| world.delete(&me, &expected, now));
        written.await.map_err(unwritten)
    }
}

#[async_trait]
impl WorkerRegistry for Ports {
    async fn fix_start(&self, start: &RecordedStart) -> Result<RecordedStart, WriteError> {
        let start = start.clone();
        let fixed = |world: &mut Inner| world.start.get_or_insert(start).clone();
        let fixed = self.0.write(Service::Workers, move |world, _| fixed(world));
        fixed.await.map_err(unwritten)
    }

    async fn fleet(&self) -> Result<FleetRows, ReadError> {
        let me = self.0.worker.clone();
        let rows = self.0.read(Service::Workers, |world, now| {
            world.referee.looked(&me, now);
            let workers = world.workers.values().cloned().collect();
            FleetRows { workers, asked_to_leave: world.asked_to_leave.clone(), learned: None }
        });
        rows.await.map_err(unread)
    }

    async fn workers(&self) -> Result<Vec<WorkerRow>, ReadError> {
        Ok(self.fleet().await?.workers)
    }

    async fn ask_to_leave(&self, worker: &WorkerId, _expires: i64) -> Result<(), WriteError> {
        let worker = worker.clone();
        let asked = self.0.write(Service::Workers, move |world, _| {
            world.asked_to_leave.insert(worker);
        });
        asked.await.map_err(unwritten)
    }

    async fn withdraw_request(&self, worker: &WorkerId) -> Result<(), WriteError> {
        let worker = worker.clone();
        let withdrawn = self.0.write(Service::Workers, move |world, _| {
            world.asked_to_leave.remove(&worker);
        });
        withdrawn.await.map_err(unwritten)
    }

    async fn heartbeat(
        &self,
        expected: Option<u64>,
        row: &WorkerRow,
    ) -> Result<Written<WorkerRow>, WriteError> {
        let row = row.clone();
        let written = self.0.write(Service::Workers, move |world, now| {
            let found = world.workers.get(&row.worker_id);
            if found.map(|found| found.heartbeat) != expected {
                return Written::Lost(found.cloned());
            }
            world.beaten(&row, now);
            Written::Applied(row)
        });
        written.await.map_err(unwritten)
    }

    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError> {
        let row = row.clone();
        let written = self.0.write(Service::Workers, move |world, _| {
            let found = world.workers.get(&row.worker_id);
            if found.map(|found| found.heartbeat) != Some(row.heartbeat) {
                return Written::Lost(found.map(|_| ()));
            }
            world.retired(&row.worker_id);
            Written::Applied(())
        });
        written.await.map_err(unwritten)
    }
}

#[async_trait]
impl StreamReader for Ports {
    async fn shards(&self) -> Result<ShardListing, StreamError> {
        let me = &self.0.worker;
        let listing = self.0.read(Service::Stream, |world, now| {
            world.referee.lifecycle.listed(me, now);
            ShardListing {
                shards: world.stream.listing(),
                server_time: world.stream.now,
                stream: StreamIdentity { name: "simulated".to_owned(), created: ArrivalMillis(BEGIN_MS) },
                retention: world.stream.retention.unwrap_or(LONG),
            }
        });
        listing.await.map_err(unanswered)
    }

    async fn distribution(&self) -> Result<Distributed, StreamError> {
        let answer = self.0.read(Service::Stream, |world, _now| Distributed {
            by: world.stream.distribution(),
            as_of: world.stream.now,
        });
        answer.await.map_err(unanswered)
    }

    fn open(&self, shard: &ShardId, from: ReadFrom) -> Box<dyn ShardCursor> {
        Box::new(Cursor { link: Arc::clone(&self.0), shard: shard.clone(), from, place: None, refused: None })
    }
}

/// A retention that no simulation outlasts.
const LONG: Duration = Duration::from_secs(24 * 3_600);

fn unanswered(lost: Lost) -> StreamError {
    match lost {
        Lost::Unknown | Lost::Failed => StreamError::Unavailable { source: Box::new(lost) },
        Lost::Throttled => StreamError::Throttled { source: Box::new(lost) },
    }
}

/// A place in a shard.
#[derive(Debug)]
struct Cursor {
    link: Arc<Link>,
    shard: ShardId,
    from: ReadFrom,
    /// Index of the next user record; not known before the first read.
    place: Option<usize>,
    /// When the last read was sent, if it was refused.
    refused: Option<Duration>,
}

#[async_trait]
impl ShardCursor for Cursor {
    async fn next_page(&mut self, limit: u32) -> Result<RecordPage, StreamError> {
        let sent = self.link.world.now();
        if let Some(why) = repeated_too_soon(self.refused.take(), sent) {
            self.link.world.with(|world| world.referee.broke("Q1", format!("{}: {why}", self.shard)));
        }
        let read = self.read(limit).await;
        self.refused = matches!(read, Err(StreamError::Throttled { .. })).then_some(sent);
        read
    }
}

impl Cursor {
    async fn read(&mut self, limit: u32) -> Result<RecordPage, StreamError> {
        let (shard, from, place) = (&self.shard, &self.from, self.place);
        let me = self.link.worker.clone();
        let read = self.link.read(Service::Stream, |world, now| {
            if !world.reads.admits(shard, now) {
                world.fault("read refused");
                return Err(unanswered(Lost::Throttled));
            }
            let place =
                place.unwrap_or_else(|| world.stream.place(shard, from)).max(world.stream.trimmed(shard));
            let known = |shard: &ShardId| !world.stream.is_gone(shard);
            let gone = || StreamError::Gone { what: format!("shard {shard} is not there") };
            let found = world.stream.shards().get(shard).filter(|_| known(shard)).ok_or_else(gone)?;
            let as_of = world.stream.now;
            let most = world.rng.random_range(1..=limit.clamp(1, 20));
            let (records, next) = page(&found.records, place, most);
            let closed = found.listed.closed;
            let at_end = next == found.records.len();
            let named = world.rng.random_bool(0.7);
            let end =
                (closed && at_end).then(|| if named { world.stream.children(shard) } else { Vec::new() });
            world.reads.took(shard, &records);
            world.referee.read(shard, &records, &world.stream, &world.rows);
            if let (Some(first), Some(last)) = (records.first(), records.last()) {
                let (first, last) = (first.sequence_number(), last.sequence_number());
                world.history.line(now, me.as_str(), format_args!("reads {shard} {first}..{last}"));
            }
            let behind_latest = if at_end { Duration::ZERO } else { Duration::from_millis(1) };
            Ok((RecordPage { records, behind_latest, as_of, end, ..RecordPage::default() }, next))
        });
        let (page, next) = read.await.map_err(unanswered)??;
        self.place = Some(next);
        Ok(page)
    }
}

/// So many Kinesis records from a place on, and the place behind them.
fn page(records: &[Record], place: usize, most: u32) -> (Vec<Record>, usize) {
    let (mut numbers, mut next) = (0, place);
    while let Some(record) = records.get(next) {
        let same = next > place && records[next - 1].sequence_number() == record.sequence_number();
        if !same {
            if numbers == most {
                break;
            }
            numbers += 1;
        }
        next += 1;
    }
    (records[place..next].to_vec(), next)
}

/// Why the table of items did not do as it was asked.
#[derive(Debug)]
enum Untaken {
    Lost(Lost),
    Over(Over),
    Never(&'static str),
}

impl From<Untaken> for StoreError {
    fn from(untaken: Untaken) -> Self {
        match untaken {
            Untaken::Lost(lost) => unstored(lost),
            Untaken::Over(over) => throttled(Some(over), Box::new(Exceeded(over))),
            Untaken::Never(why) => Self::Rejected(why.into()),
        }
    }
}

impl Inner {
    /// Whether the table of items takes something at all, and these items.
    fn takes<'a>(&mut self, mut items: impl Iterator<Item = &'a Item>, now: Duration) -> Result<(), Untaken> {
        if now < self.sink_out_until {
            return Err(Untaken::Lost(Lost::Throttled));
        }
        items.find_map(|item| self.rejects(item)).map_or(Ok(()), |why| Err(Untaken::Never(why)))
    }
}

#[async_trait]
impl ItemWriter for Ports {
    async fn write(&self, items: &[Arc<Item>]) -> Result<ItemsWritten, StoreError> {
        let (items, me) = (items.to_vec(), self.0.worker.clone());
        let written = self.0.write(Service::Items, move |world, now| {
            world.takes(items.iter().map(|item| &**item), now)?;
            // Under faults, some items of a request are left unprocessed.
            let some_left = world.rates.throttled > 0 && world.rng.random_bool(0.1);
            let (mut written, mut over) = (ItemsWritten::default(), None::<Over>);
            for (index, item) in items.iter().enumerate() {
                if some_left && world.rng.random_bool(0.5) {
                    written.unprocessed.push(index);
                    continue;
                }
                match world.meter.admit(&me, item, now) {
                    Ok(units) => {
                        written.write_units += units;
                        world.store(&me, item, now);
                    }
                    Err(by) => {
                        over = Some(over.map_or(by, |over| over.and(by)));
                        written.unprocessed.push(index);
                    }
                }
            }
            match over.filter(|_| written.unprocessed.len() == items.len()) {
                Some(over) => Err(Untaken::Over(over)),
                None => Ok(written),
            }
        });
        Ok(written.await.map_err(unstored)??)
    }

    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        let (item, units) = (item.clone(), units_of(item.bytes()));
        let probed = self.0.write(Service::Items, move |world, now| world.takes(std::iter::once(&item), now));
        Ok(probed.await.map_err(unstored)?.map(|()| units)?)
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        let raised = self.0.write(Service::Items, move |world, _| world.spread = world.spread.max(count));
        raised.await.map_err(unstored)
    }
}

/// Workers only put; nobody reads letters in a simulation but the oracle.
#[async_trait]
impl DeadLetters for Ports {
    async fn put(&self, letter: &Letter) -> Result<bool, StoreError> {
        let (letter, me) = (letter.clone(), self.0.worker.clone());
        let put = self.0.write(Service::Items, move |world, now| world.put_letter(&me, &letter, now));
        put.await.map_err(unstored)
    }

    async fn list(&self, _: Option<&ItemKey>) -> Result<LetterPage, StoreError> {
        NoDeadLetters.list(None).await
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<Letter>, StoreError> {
        NoDeadLetters.letter(id).await
    }

    async fn mark_redriven(&self, id: &LetterId, at: ArrivalMillis) -> Result<bool, StoreError> {
        NoDeadLetters.mark_redriven(id, at).await
    }

    async fn delete(&self, id: &LetterId) -> Result<bool, StoreError> {
        NoDeadLetters.delete(id).await
    }
}
