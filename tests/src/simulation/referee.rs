//! Watches every write that is applied and says which law it breaks. It knows the whole stream, so it can tell what
//! a cut should hold and what its items should be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluicegate_checkpoint::{
    ArrivalMillis, Batch, Cut, Exclusion, Position, Record, SequenceNumber, ShardId,
};
use sluicegate_lease::invariants::{self, Broken};
use sluicegate_lease::{Lease, LeaseCounter, LeaseKey, WorkerId, WorkerRow, WorkerState};
use sluicegate_sink::dead_letter::LetterHeader;
use sluicegate_sink::item::{Attributes, Header, Item, ItemKey};
use sluicegate_sink::packing::{aggregate_key_of, pack};
use sluicegate_sink::{Letter, LetterId};

use super::lifecycle::{Lifecycle, Looked};
use super::poison::Poison;
use super::script::FAILOVER;
use super::stream::SimStream;

/// Names a cut under one of its revisions.
pub type CutName = (ShardId, u32, SequenceNumber, u32);

/// What is in the analytics and the dead-letter table.
pub type Stored<'a> = (&'a BTreeMap<ItemKey, Attributes>, &'a BTreeMap<LetterId, Letter>);

/// What a worker saw of the others when it last read the worker table.
pub type Heard = BTreeMap<WorkerId, Duration>;

/// Everything the referee remembers.
#[derive(Debug, Default)]
pub struct Referee {
    broken: Vec<Broken>,
    /// Items of every announced cut, as the pure packer makes them.
    announced: BTreeMap<CutName, BTreeMap<ItemKey, Attributes>>,
    /// What announced cuts leave out, whichever revision.
    excluded: BTreeMap<(ShardId, u32, SequenceNumber), Vec<Exclusion>>,
    /// What the table never takes.
    poison: Option<Poison>,
    /// Cuts that were committed, in the order of the commits.
    committed: BTreeMap<ShardId, Vec<(u32, Cut)>>,
    /// Who gave a lease away with the last change of its owner, and the row's counter then.
    given: BTreeMap<LeaseKey, (WorkerId, LeaseCounter)>,
    /// Workers whose row says that they work.
    active: BTreeSet<WorkerId>,
    /// Who wrote a row as it stands under a counter.
    authors: BTreeMap<(LeaseKey, LeaseCounter), WorkerId>,
    /// When a row was last written.
    written_at: BTreeMap<LeaseKey, Duration>,
    /// When a worker's heartbeat last landed.
    heard: Heard,
    /// When a worker last ended a try at a heartbeat.
    beaten: BTreeMap<WorkerId, Duration>,
    /// What each worker saw of that.
    seen: BTreeMap<WorkerId, Sight>,
    /// The same of those that have not read all pages yet.
    looking: BTreeMap<WorkerId, Sight>,
    /// What it knows of shards that come and go.
    pub lifecycle: Lifecycle,
}

/// When a worker last read the worker table, and when the heartbeats that it then saw had landed.
pub type Sight = (Duration, Heard);

impl Referee {
    /// Has seen nothing yet.
    pub fn of(accept_gap: bool, poison: Option<Poison>) -> Self {
        let mut referee = Self { poison, ..Self::default() };
        referee.lifecycle.accept_gap = accept_gap;
        referee
    }

    /// Laws broken so far, oldest first.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// When a row was last written.
    pub fn written_at(&self, key: &LeaseKey) -> Option<Duration> {
        self.written_at.get(key).copied()
    }

    /// Committed cuts with their epochs, by shard.
    pub fn committed(&self) -> &BTreeMap<ShardId, Vec<(u32, Cut)>> {
        &self.committed
    }

    /// Notes that a law does not hold.
    pub fn broke(&mut self, law: &'static str, why: String) {
        self.broken.push(Broken { law, why });
    }

    /// A heartbeat landed.
    pub fn heartbeat(&mut self, row: &WorkerRow, now: Duration) {
        self.heard.insert(row.worker_id.clone(), now);
        match row.state {
            WorkerState::Active => self.active.insert(row.worker_id.clone()),
            WorkerState::Draining => self.active.remove(&row.worker_id),
        };
    }

    /// A worker tries to write a heartbeat (H4): whatever else waits, not later than one interval after the last try.
    pub fn beat_begins(&mut self, worker: &WorkerId, now: Duration) {
        let since = self.beaten.get(worker).map(|last| now.saturating_sub(*last));
        // A third of the failover time, and what clocks and the grain of timers add.
        if let Some(late) = since.filter(|since| *since > FAILOVER / 3 + Duration::from_millis(50)) {
            self.broke("H4", format!("{worker} tries a heartbeat {late:?} after the last one, at {now:?}"));
        }
    }

    /// A try came to its end.
    pub fn beat_ends(&mut self, worker: &WorkerId, now: Duration) {
        self.beaten.insert(worker.clone(), now);
    }

    /// A worker's process goes on after it had stood still: until now it could not try.
    pub fn thawed(&mut self, worker: &WorkerId, now: Duration) {
        if let Some(last) = self.beaten.get_mut(worker) {
            *last = now;
        }
    }

    /// A worker's row was deleted.
    pub fn retired(&mut self, worker: &WorkerId) {
        self.heard.remove(worker);
        self.active.remove(worker);
    }

    /// A worker read the worker table.
    pub fn looked(&mut self, worker: &WorkerId, now: Duration) {
        self.seen.insert(worker.clone(), (now, self.heard.clone()));
    }

    /// A worker read a page of the worker table. It saw each row when it read that row's page, and none of them before
    /// it had the last page.
    pub fn looked_at_page(
        &mut self,
        worker: &WorkerId,
        rows: impl Iterator<Item = WorkerId>,
        (first, last): (bool, bool),
        now: Duration,
    ) {
        let looking = self.looking.entry(worker.clone()).or_default();
        if first {
            looking.1.clear();
        }
        looking.0 = now;
        looking.1.extend(rows.filter_map(|row| Some((row.clone(), *self.heard.get(&row)?))));
        if last && let Some(sight) = self.looking.remove(worker) {
            self.seen.insert(worker.clone(), sight);
        }
    }

    /// What a worker saw of the worker table with its last look.
    pub fn sight(&self, worker: &WorkerId) -> Sight {
        self.seen.get(worker).cloned().unwrap_or_default()
    }

    /// A row was created (S3).
    pub fn created(
        &mut self,
        writer: (&WorkerId, &Looked),
        row: &Lease,
        around: (&SimStream, &BTreeMap<LeaseKey, Lease>),
        now: Duration,
    ) {
        self.written_at.insert(row.key.clone(), now);
        let why = self.lifecycle.created(writer, row, around, now);
        self.broken.extend(why.map(|why| Broken { law: "S3", why }));
    }

    /// The fleet deleted a row (S4).
    pub fn deleted(&mut self, row: &Lease, stream: &SimStream) {
        self.given.remove(&row.key);
        let why = self.lifecycle.deleted(row, stream);
        self.broken.extend(why.map(|why| Broken { law: "S4", why }));
    }

    /// Somebody deletes a row by hand; returns whether it is done.
    pub fn deleted_by_hand(&mut self, key: &LeaseKey, now: Duration) -> bool {
        let deleted = self.lifecycle.deletes_by_hand(key, now);
        if deleted {
            self.given.remove(key);
        }
        deleted
    }

    /// Records of a shard are given to a worker (S1).
    pub fn read(
        &mut self,
        shard: &ShardId,
        records: &[Record],
        stream: &SimStream,
        rows: &BTreeMap<LeaseKey, Lease>,
    ) {
        if records.is_empty() {
            return;
        }
        self.parents_ended(shard, stream, rows, "is read");
    }

    /// An item is about to be stored (D2, D3).
    pub fn item(&mut self, item: &Item) {
        let sort = &item.header.sort;
        let name = (sort.shard.clone(), sort.epoch, sort.first.clone(), sort.revision);
        let Some(items) = self.announced.get(&name) else {
            return self.broke("D2", format!("an item of {name:?} is stored, which was never announced"));
        };
        match items.get(&item.header.key()) {
            None => {
                self.broke("D2", format!("{} is no item of the announced cut {name:?}", item.header.sort))
            }
            Some(expected) if *expected != item.to_attributes() => {
                self.broke(
                    "D3",
                    format!("{} has other bytes than the announced cut {name:?}", item.header.sort),
                );
            }
            Some(_) => {}
        }
    }

    /// Items of an announced cut; none if it was not announced.
    pub fn announced_items(&self, name: &CutName) -> impl Iterator<Item = (&ItemKey, &Attributes)> {
        self.announced.get(name).into_iter().flatten()
    }

    /// A letter is about to be put, new or not: its event is one that an announced cut leaves out (D2), whole (D3).
    pub fn letter(&mut self, letter: &Letter, stream: &SimStream) {
        let LetterHeader { id, epoch, batch_first, .. } = &letter.header;
        let cut = (id.shard.clone(), *epoch, batch_first.clone());
        let covers = |range: &Exclusion| range.covers(&id.sequence_number, id.sub_sequence_number);
        if !self.excluded.get(&cut).is_some_and(|ranges| ranges.iter().any(covers)) {
            self.broke("D2", format!("the letter {id} is put, and no announced cut leaves its event out"));
        }
        let is = |record: &&Record| {
            (record.sequence_number(), record.sub_sequence_number())
                == (&id.sequence_number, id.sub_sequence_number)
        };
        let event = stream.shards().get(&id.shard).and_then(|shard| shard.records.iter().find(is));
        if !event.is_some_and(|event| event.data() == letter.data && event.arrival() == letter.header.arrival)
        {
            self.broke("D3", format!("the letter {id} does not hold its event"));
        }
    }

    /// Whether this worker wrote a row as it stands there.
    pub fn wrote(&self, worker: &WorkerId, row: &Lease) -> bool {
        self.authors.get(&(row.key.clone(), row.counter)) == Some(worker)
    }

    /// A row was replaced by a writer, which had seen so much when it sent the write.
    pub fn replaced(
        &mut self,
        (writer, sight): (&WorkerId, &Sight),
        (before, after): (&Lease, &Lease),
        (stream, rows): (&SimStream, &BTreeMap<LeaseKey, Lease>),
        stored: Stored<'_>,
        now: Duration,
    ) {
        let still_since = self.written_at.insert(after.key.clone(), now);
        self.authors.insert((after.key.clone(), after.counter), writer.clone());
        let laws = [
            invariants::l3_counter_raised_by_one(before, after),
            invariants::c1_checkpoint_never_goes_back(before, after),
        ];
        self.broken.extend(laws.into_iter().filter_map(Result::err));
        if before.owner != after.owner {
            self.changed_hands((writer, sight), before, after, still_since, now);
        } else if before.owner.as_ref() != Some(writer) {
            self.broke("L1", format!("{writer} wrote {}, which is {:?}'s", after.key, before.owner));
        }
        self.progressed(writer, (before, after), stream, rows, stored);
        if after.is_finished() && !before.is_finished() {
            self.ended(writer, (before, after), stream, rows);
        }
        self.lifecycle.replaced(after, now);
    }

    /// A take, a hand-over or a release (H1, H3, R5 of D5).
    fn changed_hands(
        &mut self,
        (writer, (looked, heard)): (&WorkerId, &Sight),
        before: &Lease,
        after: &Lease,
        still_since: Option<Duration>,
        now: Duration,
    ) {
        // An owner may commit with the write that gives its lease away; what that does is judged as any commit.
        let gave = before.owner.as_ref() == Some(writer);
        if !gave && (before.checkpoint != after.checkpoint || before.pending != after.pending) {
            self.broke("D5", format!("{} changed hands and something else changed with it", after.key));
        }
        let given = self.given.remove(&after.key);
        if after.owner.as_ref() != Some(writer) {
            if gave {
                self.given.insert(after.key.clone(), (writer.clone(), after.counter));
            } else if !self.takes_back(writer, given, before, after) {
                self.broke("L1", format!("{writer} gave away {}, which is {:?}'s", after.key, before.owner));
            }
            return;
        }
        let Some(owner) = &before.owner else { return };
        let still = match heard.get(owner) {
            Some(landed) => looked.saturating_sub(*landed),
            None => now.saturating_sub(still_since.unwrap_or_default()),
        };
        // Clocks are off by half a percent at most.
        if still < FAILOVER.mul_f64(0.99) {
            self.broke(
                "H3",
                format!("{writer} took {} from {owner}, which was still for {still:?}", after.key),
            );
        }
    }

    /// Whether a worker frees a lease that it had given to a worker that left: nobody wrote to the row since, and the
    /// receiver is not active any more (H1).
    fn takes_back(
        &self,
        writer: &WorkerId,
        given: Option<(WorkerId, LeaseCounter)>,
        before: &Lease,
        after: &Lease,
    ) -> bool {
        let untouched = given.is_some_and(|(giver, counter)| giver == *writer && counter == before.counter);
        let receiver_left = before.owner.as_ref().is_some_and(|owner| !self.active.contains(owner));
        untouched && receiver_left && after.owner.is_none()
    }

    /// What an announce, a commit or an amendment did to the cuts (C2, D5, S1).
    fn progressed(
        &mut self,
        writer: &WorkerId,
        (before, after): (&Lease, &Lease),
        stream: &SimStream,
        rows: &BTreeMap<LeaseKey, Lease>,
        stored: Stored<'_>,
    ) {
        let (Some(old), Some(new)) = (before.pending.state(), after.pending.state()) else { return };
        let (shard, epoch) = (&after.key, new.epoch);
        let gone =
            old.cuts.iter().take_while(|cut| !new.cuts.iter().any(|kept| kept.first == cut.first)).count();
        for cut in &old.cuts[..gone] {
            self.committed_cut(shard, epoch, cut, stored, stream);
        }
        let end = old.cuts[..gone].last().map_or_else(|| before.checkpoint.clone(), Cut::end);
        if after.checkpoint != end && !after.is_finished() {
            self.broke(
                "D5",
                format!("the checkpoint of {shard} went to {} and not to {end}", after.checkpoint),
            );
        }
        let kept = &old.cuts[gone..];
        for (kept, found) in kept.iter().zip(&new.cuts) {
            self.amended(writer, shard, (kept, found), stream);
            if kept.revision != found.revision {
                self.announce(shard, epoch, found, stream);
            }
        }
        if new.cuts.len() < kept.len() {
            self.broke("D5", format!("{} announced cuts of {shard} vanished", kept.len() - new.cuts.len()));
        }
        let mut behind = kept.last().map_or(end, Cut::end);
        for cut in new.cuts.iter().skip(kept.len()) {
            let wanted_from = wanted_from(before);
            self.follows(writer, (shard, cut), &behind, wanted_from, stream);
            self.parents_ended(shard, stream, rows, "is announced");
            self.announce(shard, epoch, cut, stream);
            behind = cut.end();
        }
    }

    /// Whether an announced cut is still the same, or a later revision of it (D3, D5). A cut that is dropped is counted
    /// (S4).
    fn amended(
        &mut self,
        writer: &WorkerId,
        shard: &ShardId,
        (kept, found): (&Cut, &Cut),
        stream: &SimStream,
    ) {
        let range =
            |cut: &Cut| (cut.first.clone(), cut.last.clone(), cut.behind_sub, cut.last_sub, cut.records);
        if range(kept) != range(found) {
            self.broke("D5", format!("announced cut {} of {shard} became another", kept.first));
        }
        let taken = || records_of(shard, kept, stream).0.iter().any(|record| stream.is_trimmed(record));
        if found.dropped && !kept.dropped {
            if !(self.lifecycle.accept_gap && taken()) {
                self.broke(
                    "S4",
                    format!("cut {} of {shard} is dropped, and its records are there", kept.first),
                );
            } else if let Some(why) =
                self.lifecycle.passes_over(writer, shard, usize::try_from(kept.records).unwrap_or(usize::MAX))
            {
                self.broke("S4", why);
            }
        }
        // Ranges may have been joined.
        let within = |range: &Exclusion| {
            found.exclusions.iter().any(|found| found.from <= range.from && range.to <= found.to)
        };
        let grown = kept.exclusions.iter().all(within);
        self.only_poison_is_excluded(shard, found, stream);
        if kept.parameters != found.parameters || !grown || (kept != found && kept.revision >= found.revision)
        {
            self.broke("D3", format!("cut {} of {shard} was amended as cuts are not", kept.first));
        }
    }

    /// Nothing is left out but what the table never takes (D1). Rows of a simulation have room for all ranges.
    fn only_poison_is_excluded(&mut self, shard: &ShardId, cut: &Cut, stream: &SimStream) {
        if cut.exclusions.is_empty() {
            return;
        }
        let is_poison = |record: &Record| {
            let key = aggregate_key_of(&cut.parameters, record);
            self.poison.is_some_and(|poison| poison.is_event(record.data()) || poison.is_key(&key))
        };
        let records = records_of(shard, cut, stream).0;
        let excluded = records
            .iter()
            .filter(|record| cut.excludes(record.sequence_number(), record.sub_sequence_number()))
            .find(|record| !is_poison(record));
        if let Some(record) = excluded {
            let why = format!("{} of {shard} can be stored and is left out", record.position());
            self.broke("D1", why);
        }
    }

    /// Whether a new cut begins at the record behind a position and holds what it says (D5). Only what retention took
    /// may be passed over, and is counted (S4).
    fn follows(
        &mut self,
        writer: &WorkerId,
        (shard, cut): (&ShardId, &Cut),
        behind: &Position,
        wanted_from: Wanted,
        stream: &SimStream,
    ) {
        let Some(records) = stream.shards().get(shard).map(|shard| &shard.records) else { return };
        let mut rest = records.iter().filter(|record| is_behind(record, behind, wanted_from));
        let passed: Vec<&Record> =
            rest.by_ref().take_while(|record| *record.sequence_number() < cut.first).collect();
        let there = records.iter().any(|record| *record.sequence_number() == cut.first);
        let passes_over =
            passed.iter().filter(|record| !behind.is_start() || wanted_from.counts(record)).count();
        if !there || !is_behind_first(records, cut, behind, wanted_from) {
            self.broke(
                "D5",
                format!("a cut of {shard} begins at {}, which is not behind {behind}", cut.first),
            );
        } else if let Some(kept) = passed.iter().find(|record| !stream.is_trimmed(record)) {
            let next = kept.sequence_number();
            self.broke(
                "D5",
                format!("a cut of {shard} begins at {}, behind {behind} comes {next}", cut.first),
            );
        } else if let Some(why) = self.lifecycle.passes_over(writer, shard, passes_over) {
            self.broke("S4", why);
        }
        let count = records_of(shard, cut, stream).1;
        if count != cut.records || cut.last < cut.first {
            self.broke(
                "D5",
                format!(
                    "the cut {} to {} of {shard} says {} records, there are {count}",
                    cut.first, cut.last, cut.records
                ),
            );
        }
    }

    fn announce(&mut self, shard: &ShardId, epoch: u32, cut: &Cut, stream: &SimStream) {
        if !cut.exclusions.is_empty() {
            let name = (shard.clone(), epoch, cut.first.clone());
            self.excluded.insert(name, cut.exclusions.clone());
        }
        let Some(batch) = batch_of(shard, epoch, cut, stream) else { return };
        match pack(&batch) {
            Ok(packed) => {
                let items =
                    packed.items.iter().map(|item| (item.header.key(), item.to_attributes())).collect();
                self.announced.insert((shard.clone(), epoch, cut.first.clone(), cut.revision), items);
            }
            Err(error) => self.broke("D3", format!("an announced cut of {shard} cannot be packed: {error}")),
        }
    }

    /// A commit never passes what is not durable (C2).
    fn committed_cut(
        &mut self,
        shard: &ShardId,
        epoch: u32,
        cut: &Cut,
        (stored, letters): Stored<'_>,
        stream: &SimStream,
    ) {
        self.committed.entry(shard.clone()).or_default().push((epoch, cut.clone()));
        let name = (shard.clone(), epoch, cut.first.clone(), cut.revision);
        let missing = self
            .announced
            .get(&name)
            .into_iter()
            .flatten()
            .filter(|(key, item)| {
                stored.get(key) != Some(item) && !is_stored_before(item, stored) && !self.is_unwritable(item)
            })
            .count();
        if missing > 0 && !cut.dropped {
            self.broke(
                "C2",
                format!(
                    "{missing} items of the committed cut {} to {} of {shard} are not stored",
                    cut.first, cut.last
                ),
            );
        }
        let batch = batch_of(shard, epoch, cut, stream);
        let missing = batch.iter().flat_map(Batch::excluded).filter(|record| {
            let id = LetterId {
                shard: shard.clone(),
                sequence_number: record.sequence_number().clone(),
                sub_sequence_number: record.sub_sequence_number(),
            };
            !letters.contains_key(&id)
        });
        let missing = missing.count();
        if missing > 0 {
            self.broke(
                "C2",
                format!(
                    "{missing} letters of the committed cut {} to {} of {shard} are not there",
                    cut.first, cut.last
                ),
            );
        }
    }

    /// Whether an item only hides older revisions, and none of them can be there as no item can have its key.
    fn is_unwritable(&self, item: &Attributes) -> bool {
        let header = Header::from_attributes(item);
        self.poison.zip(header.ok()).is_some_and(|(poison, header)| {
            header.count == 0 && poison.is_key(&header.partition.aggregate_key)
        })
    }

    /// No child before its parents' end (S1), by the stream's own lineage.
    fn parents_ended(
        &mut self,
        shard: &ShardId,
        stream: &SimStream,
        rows: &BTreeMap<LeaseKey, Lease>,
        what: &str,
    ) {
        let Some(listed) = stream.shards().get(shard) else { return };
        for parent in &listed.listed.parents {
            let finished = rows.get(parent).is_some_and(Lease::is_finished)
                || self.lifecycle.has_ended(parent)
                || stream.is_gone(parent);
            if stream.shards().contains_key(parent) && !finished {
                self.broke("S1", format!("{shard} {what} before the end of {parent}"));
            }
        }
    }

    /// A shard ends when all of it is committed and its children have rows (D1, S1).
    fn ended(
        &mut self,
        writer: &WorkerId,
        (before, row): (&Lease, &Lease),
        stream: &SimStream,
        rows: &BTreeMap<LeaseKey, Lease>,
    ) {
        let Some(shard) = stream.shards().get(&row.key) else { return };
        if !shard.listed.closed {
            self.broke("D1", format!("{} is finished and takes records", row.key));
        }
        for child in stream.children(&row.key) {
            if !rows.contains_key(&child.id) && !self.lifecycle.is_redone(&child.id) {
                self.broke("S2", format!("{} is finished and its child {} has no row", row.key, child.id));
            }
        }
        let last = self.committed.get(&row.key).and_then(|cuts| cuts.last()).map(|(_, cut)| cut.last.clone());
        let wanted_from = wanted_from(before);
        let left = shard.records.iter().filter(|record| {
            is_behind(record, &Position::AtTimestamp, wanted_from)
                && last.as_ref().is_none_or(|last| record.sequence_number() > last)
        });
        let (taken, left): (Vec<&Record>, Vec<&Record>) = left.partition(|record| stream.is_trimmed(record));
        let taken = match last {
            Some(_) => taken.len(),
            None => taken.into_iter().filter(|record| wanted_from.counts(record)).count(),
        };
        if let Some(why) = self.lifecycle.passes_over(writer, &row.key, taken) {
            self.broke("S4", why);
        }
        let left = left.len();
        if left > 0 {
            self.broke("D1", format!("{} is finished and {left} of its records are not committed", row.key));
        }
    }
}

/// Which records of a shard that has not begun are wanted.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Where the application starts.
    start: Option<ArrivalMillis>,
    /// What arrived before this is no loss if retention took it before it could be read.
    covered_to: Option<ArrivalMillis>,
}

impl Wanted {
    fn counts(self, record: &Record) -> bool {
        self.covered_to.is_none_or(|covered| record.arrival() >= covered)
    }
}

fn wanted_from(row: &Lease) -> Wanted {
    let state = row.pending.state();
    let sentinel = row.checkpoint.is_start();
    Wanted {
        start: state.as_ref().and_then(|state| state.start),
        covered_to: state.and_then(|state| state.covered_to()).filter(|_| sentinel),
    }
}

fn is_behind(record: &Record, position: &Position, wanted: Wanted) -> bool {
    match position {
        Position::At(number, _) => record.sequence_number() > number,
        Position::AtTimestamp | Position::Latest => {
            wanted.start.is_none_or(|start| record.arrival() >= start)
        }
        Position::TrimHorizon => true,
        Position::ShardEnd => false,
    }
}

/// Whether the first record of a cut lies behind a position.
fn is_behind_first(records: &[Record], cut: &Cut, position: &Position, wanted: Wanted) -> bool {
    let first = records.iter().find(|record| *record.sequence_number() == cut.first);
    first.is_some_and(|first| is_behind(first, position, wanted))
}

/// Whether an item is stored, byte for byte, under an earlier revision: exclusions did not touch its group since.
fn is_stored_before(item: &Attributes, stored: &BTreeMap<ItemKey, Attributes>) -> bool {
    let Ok(item) = Item::from_attributes(item) else { return false };
    (0..item.header.sort.revision).any(|revision| {
        let mut before = item.clone();
        before.header.sort.revision = revision;
        stored.get(&before.header.key()) == Some(&before.to_attributes())
    })
}

/// The batch of a cut.
fn batch_of(shard: &ShardId, epoch: u32, cut: &Cut, stream: &SimStream) -> Option<Batch> {
    let records = records_of(shard, cut, stream).0;
    let arrival = records.first().map(|record| record.arrival())?;
    Some(Batch { id: cut.id(shard, epoch), cut: cut.clone(), arrival, records })
}

/// The records of a cut, and how many Kinesis records they are.
pub fn records_of(shard: &ShardId, cut: &Cut, stream: &SimStream) -> (Vec<Record>, u64) {
    let all = stream.shards().get(shard).map_or(&[][..], |shard| &shard.records);
    let inside =
        |record: &&Record| cut.first <= *record.sequence_number() && *record.sequence_number() <= cut.last;
    let records: Vec<Record> = all.iter().filter(inside).cloned().collect();
    let mut numbers: Vec<&SequenceNumber> = records.iter().map(|record| record.sequence_number()).collect();
    numbers.dedup();
    let count = u64::try_from(numbers.len()).unwrap_or(u64::MAX);
    (records, count)
}
