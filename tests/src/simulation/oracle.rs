//! What must be true when all is calm: every record once in the table, as the pure packer makes it of the recorded
//! cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluicegate_checkpoint::{ArrivalMillis, Position, Record, SequenceNumber, ShardId};
use sluicegate_lease::WorkerId;
use sluicegate_lease::invariants::Broken;
use sluicegate_sink::{ItemSource, Reader, TimeRange, overlaps};

use super::world::{Inner, World};

/// Records that must be stored: those at or behind the application's start.
fn expected<'a>(world: &'a Inner, records: &'a [Record]) -> impl Iterator<Item = &'a Record> {
    let start = world.start.and_then(|start| start.time()).unwrap_or(ArrivalMillis(i64::MIN));
    records.iter().filter(move |record| record.arrival >= start)
}

/// What is still missing before the fleet has nothing left to do; empty when it is settled.
pub fn unsettled(world: &Inner, alive: &[WorkerId]) -> Vec<String> {
    let mut left = Vec::new();
    let mut held: BTreeMap<&WorkerId, usize> = alive.iter().map(|id| (id, 0)).collect();
    for (id, shard) in world.stream.shards() {
        let done = committed_to(world, id);
        let open = expected(world, &shard.records)
            .filter(|record| done.as_ref().is_none_or(|done| record.sequence_number > *done))
            .count();
        if open > 0 {
            left.push(format!("{open} records of {id} are not committed"));
        }
        let row = world.rows.get(id);
        let Some(row) = row.filter(|row| !row.is_finished()) else {
            if row.is_none() && !shard.listed.closed {
                left.push(format!("{id} has no row"));
            }
            continue;
        };
        if shard.listed.closed {
            left.push(format!("{id} is closed and not finished"));
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
        broken
    });
    broken.extend(read_back(world, items).await);
    broken
}

/// The committed cuts of each shard tile what it should have given (D1, D5).
fn tiled(world: &Inner) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (id, shard) in world.stream.shards() {
        let mut covered: Vec<&Record> = Vec::new();
        for (_, cut) in world.referee.committed().get(id).into_iter().flatten() {
            let inside =
                |record: &&Record| cut.first <= record.sequence_number && record.sequence_number <= cut.last;
            covered.extend(shard.records.iter().filter(inside));
        }
        let wanted: Vec<&Record> = expected(world, &shard.records).collect();
        if covered != wanted {
            let why = format!(
                "the committed cuts of {id} hold {} records, {} were expected",
                covered.len(),
                wanted.len()
            );
            broken.push(Broken { law: "D1", why });
        }
    }
    broken
}

/// What a reader finds: every expected event once, under keys of committed cuts alone (D1, D4).
async fn read_back(world: &World, items: Arc<dyn ItemSource>) -> Vec<Broken> {
    let mut broken = Vec::new();
    let reader = Reader::new(items, 1);
    let headers = match reader.all_headers().await {
        Ok(headers) => headers,
        Err(error) => return vec![Broken { law: "D1", why: format!("the table cannot be read: {error}") }],
    };
    broken.extend(
        overlaps(&headers).into_iter().map(|overlap| Broken { law: "D4", why: format!("{overlap:?}") }),
    );
    let cuts: BTreeSet<(ShardId, u32, SequenceNumber)> = world.with(|world| {
        let committed = world.referee.committed().iter();
        committed
            .flat_map(|(id, cuts)| cuts.iter().map(|(epoch, cut)| (id.clone(), *epoch, cut.first.clone())))
            .collect()
    });
    for header in &headers {
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
    let wanted: BTreeMap<Vec<u8>, u32> = world.with(|world| {
        let shards = world.stream.shards().values();
        shards
            .flat_map(|shard| expected(world, &shard.records))
            .map(|record| (record.data.to_vec(), 1))
            .collect()
    });
    let lost = wanted.keys().filter(|event| !found.contains_key(*event)).count();
    let twice = found.values().filter(|times| **times > 1).count();
    let strange = found.keys().filter(|event| !wanted.contains_key(*event)).count();
    if lost > 0 {
        broken.push(Broken {
            law: "D1",
            why: format!("{lost} of {} events are not in the table", wanted.len()),
        });
    }
    if twice + strange > 0 {
        broken.push(Broken {
            law: "D4",
            why: format!("{twice} events are read twice, {strange} should not be there"),
        });
    }
    broken
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
