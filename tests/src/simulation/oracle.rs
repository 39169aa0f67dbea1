//! What must be true when all is calm: every record once in the table, as the pure packer makes it of the recorded
//! cuts, or among the dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::{ArrivalMillis, Cut, Position, Record, SequenceNumber, ShardId};
use sluicegate_lease::invariants::Broken;
use sluicegate_lease::shard_sync::covered_to;
use sluicegate_lease::{Lease, WorkerId};
use sluicegate_sink::{ItemSource, Overlap, Reader, TimeRange, overlaps};

use super::referee::records_of;
use super::world::{Inner, World};

/// Records that must be stored: those at or behind the application's start.
fn expected<'a>(world: &'a Inner, records: &'a [Record]) -> impl Iterator<Item = &'a Record> {
    let start = world.start.as_ref().and_then(|start| start.at.time()).unwrap_or(ArrivalMillis(i64::MIN));
    records.iter().filter(move |record| record.arrival() >= start)
}

/// Shards at which the fleet stops for good, as it must not go on behind records that retention took; and all that come
/// from them.
fn stopped(world: &Inner) -> BTreeSet<ShardId> {
    let mut stopped = BTreeSet::new();
    if world.referee.lifecycle.accept_gap {
        return stopped;
    }
    for row in world.rows.values().filter(|row| !row.is_finished()) {
        let announced = row.pending.state().map(|state| state.cuts).unwrap_or_default();
        let taken = |cut: &Cut| {
            records_of(&row.key, cut, &world.stream).0.iter().any(|record| world.stream.is_trimmed(record))
        };
        if is_overtaken(world, row) || announced.iter().any(taken) {
            stopped.extend(world.stream.descendants(&row.key));
            stopped.insert(row.key.clone());
        }
    }
    stopped
}

/// Whether retention has passed the place up to which a shard was read, as its row tells.
fn is_overtaken(world: &Inner, row: &Lease) -> bool {
    let length = world.stream.retention.and_then(|length| i64::try_from(length.as_millis()).ok());
    let passed =
        |covered: ArrivalMillis| length.is_some_and(|length| covered.0 + length < world.stream.now.0);
    covered_to(row).is_some_and(passed)
}

/// For how long nobody wrote the row of a shard at which the fleet stops for good. Before that its owner may have just
/// taken it, or read at the edge of retention faster than time passes, and then it goes on to the tip.
const STANDS_STILL: Duration = Duration::from_secs(5);

/// What is still missing before the fleet has nothing left to do; empty when it is settled.
pub fn unsettled(world: &Inner, alive: &[WorkerId], now: Duration) -> Vec<String> {
    let mut left = Vec::new();
    let mut held: BTreeMap<&WorkerId, usize> = alive.iter().map(|id| (id, 0)).collect();
    let stopped = stopped(world);
    if !stopped.is_empty() && world.referee.lifecycle.losses() == 0 {
        left.push("nobody counted what retention took".to_owned());
    }
    for (id, shard) in world.stream.shards() {
        let row = world.rows.get(id);
        if world.stream.is_gone(id) {
            if row.is_some_and(|row| !row.is_finished()) {
                left.push(format!("{id} is forgotten and has a row"));
            }
            continue;
        }
        if stopped.contains(id) {
            let written = world.referee.written_at(id).filter(|_| row.is_some_and(|row| !row.is_finished()));
            if written.is_some_and(|written| now < written + STANDS_STILL) {
                left.push(format!("{id} is overtaken by retention and does not stand still"));
            }
            let owner = row.filter(|row| !row.is_finished()).and_then(|row| row.owner.as_ref());
            if let Some(count) = owner.and_then(|owner| held.get_mut(owner)) {
                *count += 1;
            }
            continue;
        }
        let done = committed_to(world, id);
        let open = expected(world, &shard.records)
            .filter(|record| done.as_ref().is_none_or(|done| record.sequence_number() > done))
            .filter(|record| !world.stream.is_trimmed(record))
            .count();
        if open > 0 {
            left.push(format!("{open} records of {id} are not committed"));
        }
        let Some(row) = row.filter(|row| !row.is_finished()) else {
            if row.is_none() && !shard.listed.closed {
                left.push(format!("{id} has no row"));
            }
            continue;
        };
        if shard.listed.closed {
            left.push(format!("{id} is closed and not finished"));
        }
        if is_overtaken(world, row) {
            left.push(format!("{id} is overtaken by retention"));
        }
        if row.pending.state().is_none_or(|state| !state.cuts.is_empty()) {
            left.push(format!("{id} has announced cuts"));
        }
        match row.owner.as_ref().and_then(|owner| held.get_mut(owner)) {
            Some(count) => *count += 1,
            None => left.push(format!("{id} belongs to {:?}", row.owner)),
        }
    }
    let (least, most) = (held.values().min(), held.values().max());
    if let (Some(least), Some(most)) = (least, most)
        && most - least > 1
    {
        left.push(format!("leases are out of balance: {held:?}"));
    }
    left
}

/// The last committed record of a shard.
fn committed_to(world: &Inner, shard: &ShardId) -> Option<SequenceNumber> {
    let committed =
        world.referee.committed().get(shard).and_then(|cuts| cuts.last()).map(|(_, cut)| cut.last.clone());
    let row = world.rows.get(shard).map(|row| &row.checkpoint);
    match row {
        Some(Position::At(number, _)) => Some(number.clone()),
        Some(_) | None => committed,
    }
}

/// All laws over the whole of a finished simulation.
pub async fn check(world: &World, items: Arc<dyn ItemSource>) -> Vec<Broken> {
    let mut broken = world.with(|world| {
        let mut broken = world.referee.broken().to_vec();
        broken.extend(tiled(world));
        let unaccounted = world.referee.lifecycle.unaccounted();
        if unaccounted > 0 {
            let why = format!("{unaccounted} records of committed ranges did not come out");
            broken.push(Broken { law: "K1", why });
        }
        broken
    });
    broken.extend(read_back(world, items).await);
    broken
}

/// The committed cuts of each shard tile what it should have given (D1, D5). Only what retention took may be missing, and
/// then a loss is counted (S4); only what was read again after its row was deleted by hand may be there twice.
fn tiled(world: &Inner) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut lost = 0;
    for (id, shard) in world.stream.shards() {
        let committed = world.referee.committed().get(id);
        let mut covered: Vec<&Record> = Vec::new();
        for (_, cut) in committed.into_iter().flatten() {
            covered.extend(shard.records.iter().filter(|record| holds(cut, record)));
            lost += usize::from(cut.dropped);
        }
        if world.referee.lifecycle.is_redone(id) {
            covered.sort_by_key(|record| record.position());
            covered.dedup();
        }
        let (wanted, missing): (Vec<&Record>, Vec<&Record>) = expected(world, &shard.records)
            .partition(|record| covered.contains(record) || !world.stream.is_trimmed(record));
        let born = world.referee.lifecycle.born(id);
        lost += missing.iter().filter(|record| born.is_some_and(|born| record.arrival() >= born)).count();
        let covered: Vec<&Record> = match world.referee.lifecycle.is_redone(id) {
            // Its row may have been made again at another start than that of the rest.
            true => covered.into_iter().filter(|record| wanted.contains(record)).collect(),
            false => covered,
        };
        let stopped = stopped(world).contains(id);
        if covered != wanted && !stopped {
            let why = format!(
                "the committed cuts of {id} hold {} records, {} were expected",
                covered.len(),
                wanted.len()
            );
            broken.push(Broken { law: "D1", why });
        }
    }
    if lost > 0 && world.referee.lifecycle.losses() == 0 {
        broken.push(Broken {
            law: "S4",
            why: format!("{lost} records or batches are lost, and nobody counted it"),
        });
    }
    broken
}

fn holds(cut: &Cut, record: &Record) -> bool {
    cut.first <= *record.sequence_number() && *record.sequence_number() <= cut.last
}

/// What a reader finds: every expected event once, under keys of committed cuts alone (D1, D4).
async fn read_back(world: &World, items: Arc<dyn ItemSource>) -> Vec<Broken> {
    let mut broken = Vec::new();
    let reader = Reader::new(items, 1);
    let headers = match reader.all_headers().await {
        Ok(headers) => headers,
        Err(error) => return vec![Broken { law: "D1", why: format!("the table cannot be read: {error}") }],
    };
    let may_be_twice = |overlap: &Overlap| {
        overlap.a.epoch != overlap.b.epoch
            && world.with(|world| world.referee.lifecycle.is_redone(&overlap.a.shard))
    };
    let found = overlaps(&headers).into_iter().filter(|overlap| !may_be_twice(overlap));
    broken.extend(found.map(|overlap| Broken { law: "D4", why: format!("{overlap:?}") }));
    let cuts: BTreeSet<(ShardId, u32, SequenceNumber)> = world.with(|world| {
        let committed = world.referee.committed().iter();
        committed
            .flat_map(|(id, cuts)| cuts.iter().map(|(epoch, cut)| (id.clone(), *epoch, cut.first.clone())))
            .collect()
    });
    let may_be_left = |shard: &ShardId| {
        world.with(|world| world.stream.retention.is_some() || world.referee.lifecycle.is_abandoned(shard))
    };
    for header in headers.iter().filter(|header| !may_be_left(&header.sort.shard)) {
        let sort = &header.sort;
        if !cuts.contains(&(sort.shard.clone(), sort.epoch, sort.first.clone())) {
            broken.push(Broken { law: "D4", why: format!("{sort} belongs to no committed cut") });
        }
    }
    let keys: BTreeSet<&str> = headers.iter().map(|header| header.partition.aggregate_key.as_str()).collect();
    let mut found: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for key in keys {
        if let Err(error) = count(&reader, key, &mut found).await {
            broken.push(Broken { law: "D1", why: format!("key {key} cannot be read: {error}") });
        }
    }
    // Stored or dead-lettered, once.
    world.with(|world| {
        for letter in world.letters.values() {
            *found.entry(letter.data.to_vec()).or_default() += 1;
        }
    });
    let published: BTreeMap<Vec<u8>, Event> = world.with(|world| events(world));
    let unread = |(event, of): &(&Vec<u8>, &Event)| of.must_be_there && !found.contains_key(*event);
    let lost = published.iter().filter(unread).count();
    let once = |event: &Vec<u8>| published.get(event).is_none_or(|event| !event.may_be_twice);
    let twice = found.iter().filter(|(event, times)| **times > 1 && once(event)).count();
    let strange = found.keys().filter(|event| !published.contains_key(*event)).count();
    if lost > 0 {
        broken.push(Broken {
            law: "D1",
            why: format!("{lost} of {} events are neither stored nor dead-lettered", published.len()),
        });
    }
    if twice + strange > 0 {
        broken.push(Broken {
            law: "D4",
            why: format!("{twice} events are there twice, {strange} should not be there"),
        });
    }
    broken
}

/// What a reader should find of an event.
struct Event {
    /// It was committed, its batch not given up, and no filter left it out.
    must_be_there: bool,
    /// Its shard's row was deleted by hand.
    may_be_twice: bool,
}

/// Every event that the application wants, by its payload.
fn events(world: &Inner) -> BTreeMap<Vec<u8>, Event> {
    let mut events = BTreeMap::new();
    for (id, shard) in world.stream.shards() {
        let committed = world.referee.committed().get(id);
        let may_be_twice = world.referee.lifecycle.is_redone(id);
        for record in expected(world, &shard.records) {
            let in_cut = |(_, cut): &(u32, Cut)| !cut.dropped && holds(cut, record) && !cut.filters(record);
            let must_be_there = committed.into_iter().flatten().any(in_cut);
            events.insert(record.data().to_vec(), Event { must_be_there, may_be_twice });
        }
    }
    events
}

async fn count(
    reader: &Reader,
    key: &str,
    found: &mut BTreeMap<Vec<u8>, u32>,
) -> Result<(), sluicegate_sink::ReadError> {
    let mut events = reader.events(key, TimeRange::default()).await?;
    while let Some(event) = events.next().await? {
        *found.entry(event.data.to_vec()).or_default() += 1;
    }
    Ok(())
}
