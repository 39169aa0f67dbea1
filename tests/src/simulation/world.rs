//! The world of a simulation: the stream, both tables, the items, the referee and the history, behind one lock that
//! is never held over an await.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate_checkpoint::ArrivalMillis;
use sluicegate_lease::{Lease, LeaseKey, RecordedStart, WorkerId, WorkerRow, Written};
use sluicegate_sink::item::{Attributes, Item, ItemKey};
use sluicegate_sink::{Letter, LetterId};
use tokio::time::Instant;

use super::history::History;
use super::lifecycle::Looked;
use super::meter::Meter;
use super::poison::Poison;
use super::reads::SharedReads;
use super::referee::{Referee, Sight};
use super::script::{BEGIN_MS, Rates, Script};
use super::stream::SimStream;

/// An event before it is published: partition key and payload.
pub type UserEvent = (String, Bytes);

/// Everything outside the workers.
#[derive(Debug)]
pub struct World {
    inner: Mutex<Inner>,
    begun: Instant,
}

/// What the lock guards.
#[derive(Debug)]
pub struct Inner {
    /// The stream.
    pub stream: SimStream,
    /// What is left of its shards' reads.
    pub reads: SharedReads,
    /// The lease table.
    pub rows: BTreeMap<LeaseKey, Lease>,
    /// The worker table.
    pub workers: BTreeMap<WorkerId, WorkerRow>,
    /// Workers that an operator asked to leave.
    pub asked_to_leave: BTreeSet<WorkerId>,
    /// Where the application starts, once it is fixed.
    pub start: Option<RecordedStart>,
    /// The analytics table.
    pub items: BTreeMap<ItemKey, Attributes>,
    /// The spread count in it.
    pub spread: u32,
    /// What it never takes.
    pub poison: Option<Poison>,
    /// The dead-letter table.
    pub letters: BTreeMap<LetterId, Letter>,
    /// Until when the analytics table takes nothing.
    pub sink_out_until: Duration,
    /// What the analytics table gives, and what is recorded of writing.
    pub meter: Meter,
    /// Who watches.
    pub referee: Referee,
    /// What happened.
    pub history: History,
    /// Decides faults and delays.
    pub rng: SmallRng,
    /// How likely faults are now.
    pub rates: Rates,
    /// Longest way of a message.
    pub latency: Duration,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Number of the next event that is published.
    next_event: u64,
    /// Bytes that make it larger, at most.
    filler: usize,
}

impl World {
    /// The world at the beginning of a script.
    pub fn new(script: &Script) -> Arc<Self> {
        let mut stream = SimStream::new(script.shards, script.retention);
        let at = |time: Duration| {
            ArrivalMillis(BEGIN_MS.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
        };
        stream.aggregated = script.aggregated;
        stream.auto = script.auto.map(|(from, until)| (at(from), at(until)));
        let inner = Inner {
            stream,
            reads: SharedReads::new(script.reads),
            rows: BTreeMap::new(),
            workers: BTreeMap::new(),
            asked_to_leave: BTreeSet::new(),
            start: None,
            items: BTreeMap::new(),
            spread: 1,
            poison: script.poison,
            letters: BTreeMap::new(),
            sink_out_until: Duration::ZERO,
            meter: Meter::of(script),
            referee: Referee::of(script.accept_gap, script.poison),
            history: History::default(),
            rng: SmallRng::seed_from_u64(script.seed ^ 0x5eed),
            rates: script.rates,
            latency: script.latency,
            faults: BTreeMap::new(),
            next_event: 0,
            filler: script.filler,
        };
        Arc::new(Self { inner: Mutex::new(inner), begun: Instant::now() })
    }

    /// Virtual time since the beginning.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The stream's own time.
    pub fn stream_time(&self) -> ArrivalMillis {
        ArrivalMillis(BEGIN_MS + i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX))
    }

    /// Looks at the world or changes it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let now = self.stream_time();
        let mut inner = self.lock();
        inner.stream.now = now;
        act(&mut inner)
    }

    /// Adds a line to the history.
    pub fn note(&self, who: &str, what: std::fmt::Arguments<'_>) {
        let now = self.now();
        self.lock().history.line(now, who, what);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Counts a fault.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Draws the events of a Kinesis record that is about to be published: sometimes several.
    pub fn draw_events(&mut self) -> Vec<UserEvent> {
        let events = if self.rng.random_bool(0.2) { self.rng.random_range(2..5) } else { 1 };
        (0..events).map(|_| self.next_event()).collect()
    }

    fn next_event(&mut self) -> UserEvent {
        let (n, key) = (self.next_event, self.rng.random_range(0..5u32));
        self.next_event += 1;
        let filler = "x".repeat(self.rng.random_range(0..self.filler));
        let data = format!(r#"{{"id":{n},"k":"k{key}","n":{},"filler":"{filler}"}}"#, n % 3);
        (format!("key-{}", self.rng.random_range(0..12u32)), Bytes::from(data))
    }

    /// Makes one row into another, if owner and counter are still those of the first.
    pub fn replace(
        &mut self,
        (writer, sight): (&WorkerId, &Sight),
        expected: &Lease,
        next: &Lease,
        now: Duration,
    ) -> Written<Lease> {
        let found = self.rows.get(&expected.key);
        let Some(found) = found.filter(|row| row.owner == expected.owner && row.counter == expected.counter)
        else {
            self.history.line(now, writer.as_str(), format_args!("loses the race for {}", expected.key));
            return Written::Lost(found.cloned());
        };
        let before = found.clone();
        self.replaced((writer, sight), &before, next, now);
        Written::Applied(next.clone())
    }

    /// A row was made into another, whatever the condition of the write was.
    pub fn replaced(
        &mut self,
        (writer, sight): (&WorkerId, &Sight),
        before: &Lease,
        next: &Lease,
        now: Duration,
    ) {
        let stored = (&self.items, &self.letters);
        self.referee.replaced((writer, sight), (before, next), (&self.stream, &self.rows), stored, now);
        self.history.line(now, writer.as_str(), format_args!("{}", Change(before, next)));
        self.rows.insert(next.key.clone(), next.clone());
    }

    /// Puts a new row, if there is none.
    pub fn create(&mut self, writer: (&WorkerId, &Looked), row: &Lease, now: Duration) -> Written<Lease> {
        if let Some(found) = self.rows.get(&row.key) {
            return Written::Lost(Some(found.clone()));
        }
        self.created(writer, row, now);
        Written::Applied(row.clone())
    }

    /// A row was put where there was none.
    pub fn created(&mut self, writer: (&WorkerId, &Looked), row: &Lease, now: Duration) {
        self.referee.created(writer, row, (&self.stream, &self.rows), now);
        self.history.line(now, writer.0.as_str(), format_args!("creates {} at {}", row.key, row.checkpoint));
        self.rows.insert(row.key.clone(), row.clone());
    }

    /// Deletes a row, if owner and counter are still those of `expected`.
    pub fn delete(&mut self, writer: &WorkerId, expected: &Lease, now: Duration) -> Written<()> {
        let found = self.rows.get(&expected.key);
        if !found.is_some_and(|row| row.owner == expected.owner && row.counter == expected.counter) {
            return Written::Lost(found.map(|_| ()));
        }
        self.deleted(writer, expected, now);
        Written::Applied(())
    }

    /// A row was deleted.
    pub fn deleted(&mut self, writer: &WorkerId, row: &Lease, now: Duration) {
        self.history.line(now, writer.as_str(), format_args!("deletes {} at {}", row.key, row.checkpoint));
        self.referee.deleted(row, &self.stream);
        self.rows.remove(&row.key);
    }

    /// A heartbeat landed.
    pub fn beaten(&mut self, row: &WorkerRow, now: Duration) {
        self.referee.heartbeat(row, now);
        self.workers.insert(row.worker_id.clone(), row.clone());
    }

    /// A worker's row was deleted.
    pub fn retired(&mut self, worker: &WorkerId) {
        self.workers.remove(worker);
        self.referee.retired(worker);
    }

    /// Somebody deletes a row by hand, if it has been there for a while.
    pub fn delete_by_hand(&mut self, which: u32, now: Duration) {
        let keys: Vec<LeaseKey> = self.rows.keys().cloned().collect();
        let Some(key) = keys.get(which as usize % keys.len().max(1)) else { return };
        if self.referee.deleted_by_hand(key, now) {
            self.fault("row deleted by hand");
            self.history.line(now, "world", format_args!("somebody deletes the row of {key}"));
            self.rows.remove(key);
        }
    }

    /// Stores an item.
    pub fn store(&mut self, writer: &WorkerId, item: &Item, now: Duration) {
        let (sort, partition) = (&item.header.sort, &item.header.partition);
        self.history.line(now, writer.as_str(), format_args!("stores {sort} in {partition}"));
        self.referee.item(item);
        self.items.insert(item.header.key(), item.to_attributes());
        self.meter.stored(writer, &item.header.key(), now);
    }

    /// What the table says of an item that it never takes.
    pub fn rejects(&mut self, item: &Item) -> Option<&'static str> {
        let why = self.poison.and_then(|poison| poison.rejects(item));
        if why.is_some() {
            self.fault("rejected item");
        }
        why
    }

    /// Puts a letter, if there is none of its name; returns whether it is new.
    pub fn put_letter(&mut self, writer: &WorkerId, letter: &Letter, now: Duration) -> bool {
        self.referee.letter(letter, &self.stream);
        let id = &letter.header.id;
        let new = !self.letters.contains_key(id);
        if new {
            self.history.line(now, writer.as_str(), format_args!("puts the letter {id}"));
            self.letters.insert(id.clone(), letter.clone());
        }
        new
    }
}

/// A change of a row in a few words.
struct Change<'a>(&'a Lease, &'a Lease);

impl std::fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(before, after) = self;
        write!(f, "{} #{}", after.key, after.counter.0)?;
        if before.owner != after.owner {
            write!(f, " owner {:?} -> {:?}", before.owner, after.owner)?;
        }
        if before.checkpoint != after.checkpoint {
            write!(f, " checkpoint {} -> {}", before.checkpoint, after.checkpoint)?;
        }
        let (Some(old), Some(new)) = (before.pending.state(), after.pending.state()) else { return Ok(()) };
        if old.cuts != new.cuts {
            f.write_str(" cuts")?;
            for cut in &new.cuts {
                write!(f, " [{}..{} r{} v{}]", cut.first, cut.last, cut.revision, cut.packing_version)?;
                for range in &cut.exclusions {
                    write!(f, " but {}.{}..{}.{}", range.from.0, range.from.1, range.to.0, range.to.1)?;
                }
            }
        }
        if before.children != after.children {
            write!(f, " children {:?}", after.children)?;
        }
        Ok(())
    }
}
