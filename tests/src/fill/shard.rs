//! Drains one shard through its state machine: reads, row writes and deliveries come to pass one after the other, each
//! when its time has come.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sluicegate_checkpoint::{
    Announced, ArrivalMillis, Batch, LeaseState, Position, Record, SequenceNumber, ShardId,
};
use sluicegate_lease::Lease;
use sluicegate_sink::packing::{PACKING_VERSION, Packed, pack};
use sluicegate_worker::ForeignUserRecords;
use sluicegate_worker::consumer::batcher::ClosedBy;
use sluicegate_worker::consumer::conservation::Outcomes;
use sluicegate_worker::consumer::state::{Command, Event as Happened, Finish, SessionPolicy, ShardSession};
use sluicegate_worker::stream::RecordPage;
use sluicegate_worker::worker::Settings;
use tokio::time::Instant;

use super::events::Event;

/// How fast things go.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Bytes a second that were put into the shard. Kinesis takes 1 MB/s.
    pub written: u64,
    /// Bytes a second that are read from it. Kinesis gives 2 MB/s to all consumers.
    pub read: u64,
    /// Write units a second that the table gives the shard.
    pub write_units: u64,
}

impl Pace {
    /// A backlog that was written as fast as Kinesis takes it, before a table that takes what comes.
    pub const BACKLOG: Self = Self { written: 1_000_000, read: 2_000_000, write_units: 1_000_000 };
}

/// A batch, as it was stored.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Why it was closed.
    pub closed_by: ClosedBy,
    /// Its events.
    pub events: u64,
    /// Bytes of those events.
    pub payload_bytes: u64,
    /// Its items.
    pub items: u64,
    /// Bytes of those items.
    pub stored_bytes: u64,
    /// Bytes that as many full items have.
    pub room_bytes: u64,
    /// Write units of those items.
    pub write_units: u64,
}

/// What a row write takes.
const ROW_WRITE: Duration = Duration::from_millis(10);
/// What a delivery takes beside its write units.
const DELIVERY: Duration = Duration::from_millis(20);

struct Drain<'a> {
    events: std::slice::Iter<'a, &'a Event>,
    session: ShardSession,
    page_bytes: usize,
    pace: Pace,
    now: Instant,
    number: u64,
    read: u64,
    reading: Option<Instant>,
    writing: Option<Instant>,
    /// When each batch will be durable.
    delivering: Vec<(Instant, Arc<Batch>, Packed)>,
    /// When the table will have taken what it was given.
    table_busy_until: Instant,
    stored: Vec<Stored>,
}

/// Drains a shard that holds these events; returns its batches in the order in which they became durable.
///
/// # Errors
/// A batch cannot be packed, or the session ends before the shard does.
pub fn drain(settings: &Settings, events: &[&Event], pace: Pace) -> anyhow::Result<Vec<Stored>> {
    let state = LeaseState::starting(None);
    let row = Lease::unowned(ShardId::new("shardId-000000000000"), Position::TrimHorizon, state.clone());
    let policy = SessionPolicy {
        foreign_user_records: ForeignUserRecords::Auto,
        cut: settings.cut,
        max_in_flight: settings.max_in_flight,
        commit_delay: settings.commit_delay,
        parameters: Arc::new(settings.parameters.clone()),
        packing_versions: vec![PACKING_VERSION],
        accept_gap: false,
        retention: None,
        parents_covered: None,
    };
    let now = Instant::now();
    let mut drain = Drain {
        events: events.iter(),
        session: ShardSession::new(&row, state, policy),
        page_bytes: settings.read.page_bytes,
        pace,
        now,
        number: 0,
        read: 0,
        reading: None,
        writing: None,
        delivering: Vec::new(),
        table_busy_until: now,
        stored: Vec::new(),
    };
    drain.run()?;
    Ok(drain.stored)
}

impl Drain<'_> {
    fn run(&mut self) -> anyhow::Result<()> {
        let mut happened = Happened::Tick;
        loop {
            let delivered = matches!(happened, Happened::Delivered { .. });
            let commands = self.session.on(happened, self.now);
            self.note_fill(delivered)?;
            for command in commands {
                match command {
                    Command::Read => self.reading = Some(self.now + self.page_time()),
                    Command::Write { .. } => self.writing = Some(self.now + ROW_WRITE),
                    Command::Judge { .. } => bail!("plain records are never judged"),
                    Command::Deliver(batch) => self.deliver(batch)?,
                    Command::Finish(Finish::ShardEnd { .. }) => return Ok(()),
                    Command::Finish(other) => bail!("the session ended: {other:?}"),
                }
            }
            happened = self.next()?;
        }
    }

    /// The next thing that comes to pass, and moves time there.
    fn next(&mut self) -> anyhow::Result<Happened> {
        let durable = self.delivering.iter().map(|(at, ..)| *at).min();
        let deadline = self.session.next_deadline();
        let next = [self.writing, durable, self.reading, deadline].into_iter().flatten().min();
        let next = next.context("nothing is under way, and the shard is not finished")?;
        self.now = self.now.max(next);
        if self.writing == Some(next) {
            self.writing = None;
            return Ok(Happened::Written(Announced::Recorded));
        }
        if let Some(index) = self.delivering.iter().position(|(at, ..)| *at == next) {
            return Ok(self.durable(index));
        }
        if self.reading == Some(next) {
            self.reading = None;
            return Ok(Happened::Page(self.page()?));
        }
        Ok(Happened::Tick)
    }

    fn page_time(&self) -> Duration {
        Duration::from_micros(self.page_bytes as u64 * 1_000_000 / self.pace.read.max(1))
    }

    fn page(&mut self) -> anyhow::Result<RecordPage> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < self.page_bytes
            && let Some(event) = self.events.next()
        {
            records.push(self.record(event)?);
            bytes += event.data.len();
        }
        let end = (self.events.len() == 0).then(Vec::new);
        Ok(RecordPage {
            records,
            behind_latest: Duration::from_secs(1),
            as_of: ArrivalMillis(0),
            end,
            ..RecordPage::default()
        })
    }

    fn record(&mut self, event: &Event) -> anyhow::Result<Record> {
        self.number += 1;
        self.read += event.data.len() as u64;
        let arrived_ms = self.read * 1_000 / self.pace.written.max(1);
        // Of the length that Kinesis gives them; how far they are apart differs a little.
        let digits =
            format!("495903382714902566085596925383615710{:020}", self.number * 1_237 + self.read % 991);
        Ok(Record::new(
            SequenceNumber::parse(digits)?,
            ArrivalMillis(1_769_860_800_000 + i64::try_from(arrived_ms)?),
            event.key.clone(),
            event.data.clone(),
        ))
    }

    /// The table takes one batch after the other.
    fn deliver(&mut self, batch: Arc<Batch>) -> anyhow::Result<()> {
        let packed = pack(&batch)?;
        let wait = Duration::from_micros(write_units(&packed) * 1_000_000 / self.pace.write_units.max(1));
        self.table_busy_until = self.table_busy_until.max(self.now) + wait;
        self.delivering.push((self.table_busy_until + DELIVERY, batch, packed));
        Ok(())
    }

    fn durable(&mut self, index: usize) -> Happened {
        let (_, batch, packed) = self.delivering.remove(index);
        let item_bytes = u64::from(batch.cut.parameters.max_item_bytes);
        self.stored.push(Stored {
            // Told by the session, once it has heard of it.
            closed_by: ClosedBy::Size,
            events: packed.events,
            payload_bytes: packed.raw_bytes,
            items: packed.items.len() as u64,
            stored_bytes: packed.stored_bytes,
            room_bytes: packed.items.len() as u64 * item_bytes,
            write_units: write_units(&packed),
        });
        let (id, revision) = (batch.id.clone(), batch.cut.revision);
        let Packed { events: stored, filtered, foreign, .. } = packed;
        let outcomes = Outcomes { stored, filtered, foreign, dead_lettered: 0, unreadable: 0 };
        Happened::Delivered { id, revision, groups: packed.groups, outcomes }
    }

    /// Takes in why the batch was closed that has just become durable.
    fn note_fill(&mut self, delivered: bool) -> anyhow::Result<()> {
        let filled = self.session.filled();
        if !delivered {
            return Ok(());
        }
        let stored = self.stored.last_mut().context("a batch was stored")?;
        let filled = filled.last().context("the session counts every batch")?;
        anyhow::ensure!((filled.stored_bytes, filled.room_bytes) == (stored.stored_bytes, stored.room_bytes));
        stored.closed_by = filled.closed_by.context("no earlier session closed it")?;
        Ok(())
    }
}

fn write_units(packed: &Packed) -> u64 {
    packed.items.iter().map(|item| item.bytes().div_ceil(1_024) as u64).sum()
}
