//! Judges a recorded history of writes by the laws of docs/design.md. **Pure.**
//!
//! It knows every record of the stream and every row as it was and is, so it can tell what a cut should hold and which items it
//! should have become. Who sent a write it knows by what the client calls itself, and which worker that is by its own row (L1).
//!
//! ```text
//! laws     rows, cuts and items          C1 C2 D1 D2 D3 D5 L1 L2 L3 S1 S2 S3 S4
//! hands    who took, who gave, to whom   H1 H3: by the heartbeats that had landed, to within a look
//! shares   what each worker might write  F1: by its own word, as long as its heartbeats gave it the right
//! ```

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_checkpoint::{Batch, Cut, Position, Record, ShardId};
use sluicegate_lease::invariants::{self, Broken};
use sluicegate_lease::shard_sync::has_begun;
use sluicegate_lease::{Lease, LeaseKey, WorkerId, WorkerRow};
use sluicegate_sink::item::ItemKey;
use sluicegate_sink::packing::pack;

use super::history::{Entry, History, Write};

pub mod hands;
pub mod shares;

/// The laws that are judged. What else there is speaks of a view (B1w, B2), of attempts (H4) or of deadlines (H2), which writes do not
/// show, or is compared by itself: what is stored (D4), what workers account for (K1), balance in the end (B1).
pub const JUDGED: [&str; 16] =
    ["C1", "C2", "D1", "D2", "D3", "D5", "F1", "H1", "H3", "L1", "L2", "L3", "S1", "S2", "S3", "S4"];

/// Names a cut under one of its revisions: epoch, first record, revision.
type CutName = (ShardId, u32, String, u32);

/// A judge, and what it has seen so far.
#[derive(Debug)]
struct Judge<'h> {
    history: &'h History,
    rows: BTreeMap<LeaseKey, Lease>,
    workers: BTreeMap<WorkerId, WorkerRow>,
    /// What each worker calls itself.
    names: BTreeMap<WorkerId, String>,
    retired: BTreeSet<WorkerId>,
    /// The keys of the items of every announced cut.
    announced: BTreeMap<CutName, BTreeSet<ItemKey>>,
    /// All of them.
    expected: BTreeSet<ItemKey>,
    stored: BTreeSet<ItemKey>,
    broken: Vec<Broken>,
}

/// The laws that the history breaks, in the order in which it does.
pub fn judge(history: &History) -> Vec<Broken> {
    let mut judge = Judge {
        history,
        rows: BTreeMap::new(),
        workers: BTreeMap::new(),
        names: BTreeMap::new(),
        retired: BTreeSet::new(),
        announced: BTreeMap::new(),
        expected: BTreeSet::new(),
        stored: BTreeSet::new(),
        broken: Vec::new(),
    };
    for entry in &history.entries {
        match entry {
            Entry::Lease(write) => judge.lease(write),
            Entry::Worker(write) => judge.worker(write),
            Entry::Items(keys) => judge.items(keys),
        }
    }
    judge.broken
}

impl Judge<'_> {
    fn broke(&mut self, law: &'static str, why: String) {
        self.broken.push(Broken { law, why });
    }

    /// A write of a lease row.
    fn lease(&mut self, write: &Write<Lease>) {
        let Some(row) = write.after.as_ref().or(write.before.as_ref()) else { return };
        if !write.conditional {
            self.broke("L3", format!("{} was written without a condition at {}", row.key, write.at_ms));
        }
        if self.rows.get(&row.key) != write.before.as_ref() {
            self.broke("L3", format!("{} was written past the journal before {}", row.key, write.at_ms));
        }
        match (&write.before, &write.after) {
            (None, Some(after)) => self.created(after),
            (Some(before), Some(after)) => {
                self.only_the_owner(write, before, after);
                self.replaced(before, after);
            }
            // Retention is a day, so nothing that was here can have been forgotten or have grown old.
            (Some(before), None) => self.broke("S4", format!("the row of {} was deleted", before.key)),
            (None, None) => {}
        }
        match &write.after {
            Some(after) => drop(self.rows.insert(after.key.clone(), after.clone())),
            None => drop(self.rows.remove(&row.key)),
        }
    }

    /// No row is made for a shard with a descendant that has begun (S3).
    fn created(&mut self, row: &Lease) {
        let begun = self.rows.values().find(|child| child.parents.contains(&row.key) && has_begun(child));
        if let Some(child) = begun {
            let why = format!("a row was made for {}, whose child {} has begun", row.key, child.key);
            self.broke("S3", why);
        }
    }

    /// Nobody but the owner announces or commits (L1).
    fn only_the_owner(&mut self, write: &Write<Lease>, before: &Lease, after: &Lease) {
        if (&before.checkpoint, &before.pending) == (&after.checkpoint, &after.pending) {
            return;
        }
        let owner = before.owner.as_ref().and_then(|owner| self.names.get(owner));
        if owner.is_none() || owner != write.by.as_ref() {
            let (key, at_ms, by) = (&after.key, write.at_ms, &write.by);
            let why = format!("{by:?} announced or committed on {key} at {at_ms}, whose owner is {owner:?}");
            self.broke("L1", why);
        }
    }

    fn replaced(&mut self, before: &Lease, after: &Lease) {
        let laws = [
            invariants::l3_counter_raised_by_one(before, after),
            invariants::c1_checkpoint_never_goes_back(before, after),
        ];
        self.broken.extend(laws.into_iter().filter_map(Result::err));
        self.progressed(before, after);
        if after.is_finished() && !before.is_finished() {
            self.ended(after);
        }
    }

    /// What a write did to the cuts (C2, D3, D5, S1). One that changes the owner may commit as well.
    fn progressed(&mut self, before: &Lease, after: &Lease) {
        let (Some(old), Some(new)) = (before.pending.state(), after.pending.state()) else {
            return self.broke("D5", format!("the state of {} cannot be read", after.key));
        };
        let (shard, epoch) = (&after.key, new.epoch);
        if old.epoch != new.epoch {
            self.broke("C1", format!("the epoch of {shard} went from {} to {epoch}", old.epoch));
        }
        let gone =
            old.cuts.iter().take_while(|cut| !new.cuts.iter().any(|kept| kept.first == cut.first)).count();
        for cut in &old.cuts[..gone] {
            self.committed(shard, epoch, cut);
        }
        let end = old.cuts[..gone].last().map_or_else(|| before.checkpoint.clone(), Cut::end);
        if after.checkpoint != end && !after.is_finished() {
            self.broke("D5", format!("the checkpoint of {shard} went to {}, not to {end}", after.checkpoint));
        }
        let kept = &old.cuts[gone..];
        if new.cuts.len() < kept.len() {
            self.broke("D5", format!("{} announced cuts of {shard} vanished", kept.len() - new.cuts.len()));
        }
        for (kept, found) in kept.iter().zip(&new.cuts) {
            self.amended(shard, kept, found);
            if kept.revision != found.revision {
                self.announced(shard, epoch, found);
            }
        }
        let mut behind = kept.last().map_or(end, Cut::end);
        for cut in new.cuts.iter().skip(kept.len()) {
            self.follows(before, cut, &behind);
            self.parents_ended(after);
            self.announced(shard, epoch, cut);
            behind = cut.end();
        }
    }

    /// An announced cut stays as it is, or becomes a later revision of itself (D3, D5). Nothing here is poison or lost, so
    /// nothing may be left out (D1).
    fn amended(&mut self, shard: &ShardId, kept: &Cut, found: &Cut) {
        let range =
            |cut: &Cut| (cut.first.clone(), cut.last.clone(), cut.behind_sub, cut.last_sub, cut.records);
        if range(kept) != range(found) {
            self.broke("D5", format!("the announced cut {} of {shard} became another", kept.first));
        }
        if kept.parameters != found.parameters || (kept != found && kept.revision >= found.revision) {
            self.broke("D3", format!("the cut {} of {shard} was amended as cuts are not", kept.first));
        }
        if found.dropped || !found.exclusions.is_empty() {
            self.broke("D1", format!("records of the cut {} of {shard} are left out", kept.first));
        }
    }

    /// A new cut begins at the record behind a position, and holds what it says (D5).
    fn follows(&mut self, before: &Lease, cut: &Cut, behind: &Position) {
        let shard = &before.key;
        let records = self.history.records.get(shard).map_or(&[][..], Vec::as_slice);
        let start = before.pending.state().and_then(|state| state.start);
        let is_behind = |record: &&Record| match behind {
            Position::At(number, _) => record.sequence_number() > number,
            Position::AtTimestamp | Position::Latest => start.is_none_or(|start| record.arrival() >= start),
            Position::TrimHorizon => true,
            Position::ShardEnd => false,
        };
        let next = records.iter().find(is_behind).map(|record| record.sequence_number());
        if next != Some(&cut.first) {
            let why = format!("a cut of {shard} begins at {}, behind {behind} comes {next:?}", cut.first);
            self.broke("D5", why);
        }
        let (inside, last) = inside(records, cut);
        if inside.len() as u64 != cut.records || !last {
            let (first, last, says) = (&cut.first, &cut.last, cut.records);
            let why =
                format!("the cut {first} to {last} of {shard} says {says} records, not {}", inside.len());
            self.broke("D5", why);
        }
    }

    /// No child before its parents' end (S1).
    fn parents_ended(&mut self, row: &Lease) {
        let unfinished = |parent: &&ShardId| !self.rows.get(*parent).is_some_and(Lease::is_finished);
        if let Some(parent) = row.parents.iter().find(unfinished) {
            let why = format!("a cut of {} is announced, and its parent {parent} is not finished", row.key);
            self.broke("S1", why);
        }
    }

    /// A finished shard has no cut left and no record behind the last (D1), and its children have rows (S2).
    fn ended(&mut self, row: &Lease) {
        let before = self.rows.get(&row.key);
        let cuts = before.and_then(|row| row.pending.state()).map(|state| state.cuts).unwrap_or_default();
        let end = cuts.last().map(Cut::end).or_else(|| before.map(|row| row.checkpoint.clone()));
        let last = self.history.records.get(&row.key).and_then(|records| records.last());
        if let (Some(last), Some(end)) = (last, &end)
            && last.position() != *end
        {
            self.broke(
                "D1",
                format!("{} is finished at {end}, its last record is {}", row.key, last.position()),
            );
        }
        if row.pending.state().is_some_and(|state| !state.cuts.is_empty()) {
            self.broke("D5", format!("{} is finished and has cuts", row.key));
        }
        if row.children.is_empty() || row.children.iter().any(|child| !self.rows.contains_key(child)) {
            let why =
                format!("{} is finished, and not all of its children {:?} have rows", row.key, row.children);
            self.broke("S2", why);
        }
    }

    /// What a cut's items are.
    fn announced(&mut self, shard: &ShardId, epoch: u32, cut: &Cut) {
        let records = self.history.records.get(shard).map_or(&[][..], Vec::as_slice);
        let (inside, _) = inside(records, cut);
        let Some(arrival) = inside.first().map(|record| record.arrival()) else { return };
        let batch = Batch { id: cut.id(shard, epoch), cut: cut.clone(), arrival, records: inside.to_vec() };
        match pack(&batch) {
            Ok(packed) => {
                let keys: BTreeSet<ItemKey> = packed.items.iter().map(|item| item.header.key()).collect();
                self.expected.extend(keys.iter().cloned());
                self.announced.insert(name_of(shard, epoch, cut), keys);
            }
            Err(error) => {
                self.broke("D3", format!("the cut {} of {shard} cannot be packed: {error}", cut.first));
            }
        }
    }

    /// A commit never passes what is not stored (C2).
    fn committed(&mut self, shard: &ShardId, epoch: u32, cut: &Cut) {
        let keys = self.announced.remove(&name_of(shard, epoch, cut)).unwrap_or_default();
        let missing = keys.difference(&self.stored).count();
        if missing > 0 || keys.is_empty() {
            let (first, of) = (&cut.first, keys.len());
            self.broke(
                "C2",
                format!("{missing} of {of} items of the committed cut {first} of {shard} are not stored"),
            );
        }
    }

    /// Nothing is stored that no cut announces (D2).
    fn items(&mut self, keys: &[ItemKey]) {
        let unannounced: Vec<String> =
            keys.iter().filter(|key| !self.expected.contains(key)).map(ItemKey::to_string).collect();
        for key in unannounced {
            self.broke("D2", format!("an item of no announced cut is stored: {key}"));
        }
        self.stored.extend(keys.iter().cloned());
    }

    /// A worker's row is written by itself alone (L1), each time on the condition of its last heartbeat (L3).
    fn worker(&mut self, write: &Write<WorkerRow>) {
        let Some(row) = write.after.as_ref().or(write.before.as_ref()) else { return };
        let (id, at_ms) = (row.worker_id.clone(), write.at_ms);
        if !write.conditional {
            self.broke("L3", format!("the row of {id} was written without a condition at {at_ms}"));
        }
        if self.workers.get(&id) != write.before.as_ref() {
            self.broke("L3", format!("the row of {id} was written past the journal before {at_ms}"));
        }
        if let Some(by) = &write.by {
            self.names.entry(id.clone()).or_insert_with(|| by.clone());
        }
        if write.by.is_none() || self.names.get(&id) != write.by.as_ref() {
            self.broke("L1", format!("the row of {id} was written by {:?} at {at_ms}", write.by));
        }
        match (&write.before, &write.after) {
            (Some(before), Some(after)) if after.heartbeat != before.heartbeat + 1 => {
                let (from, to) = (before.heartbeat, after.heartbeat);
                self.broke("L3", format!("the heartbeat of {id} went from {from} to {to} at {at_ms}"));
            }
            (None, Some(_)) if self.retired.contains(&id) => {
                self.broke("L3", format!("the row of {id} came back at {at_ms}"));
            }
            (Some(_) | None, Some(_) | None) => {}
        }
        match &write.after {
            Some(after) => drop(self.workers.insert(id, after.clone())),
            None => {
                self.workers.remove(&id);
                self.retired.insert(id);
            }
        }
    }
}

fn name_of(shard: &ShardId, epoch: u32, cut: &Cut) -> CutName {
    (shard.clone(), epoch, cut.first.to_string(), cut.revision)
}

/// The records of a cut, and whether its last is among them.
fn inside<'r>(records: &'r [Record], cut: &Cut) -> (&'r [Record], bool) {
    let from = records.partition_point(|record| *record.sequence_number() < cut.first);
    let to = records.partition_point(|record| *record.sequence_number() <= cut.last);
    let inside = records.get(from..to).unwrap_or_default();
    (inside, inside.last().is_some_and(|record| *record.sequence_number() == cut.last))
}

#[cfg(test)]
mod tests;
