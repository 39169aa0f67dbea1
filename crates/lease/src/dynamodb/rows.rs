//! Rows <-> DynamoDB items. Attribute names, types and sentinels of the lease table are those of KCL 3.5
//! (`DynamoDBLeaseSerializer`), so that either can take over from the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use sluicegate_checkpoint::{
    ArrivalMillis, DecodeStateError, HashKeyRange, LeaseState, Position, ShardId, SubSequenceNumber,
};

use crate::fleet::{Behind, WorkerRow, WorkerState, WritePace};
use crate::model::{Lease, LeaseCounter, Pending, WorkerId};
use crate::registry::{FixedStart, LearnedRate, RecordedStart, StreamIdentity};
use crate::store::ReadError;
use crate::throughput::Throughput;

pub(super) type Item = HashMap<String, AttributeValue>;
/// Attributes in a fixed order, so that the same change gives the same request.
pub(super) type Attributes = BTreeMap<&'static str, AttributeValue>;

pub(super) const LEASE_KEY: &str = "leaseKey";
pub(super) const LEASE_OWNER: &str = "leaseOwner";
pub(super) const LEASE_COUNTER: &str = "leaseCounter";
pub(super) const ENTITY_TYPE: &str = "entityType";
const CHECKPOINT: &str = "checkpoint";
const CHECKPOINT_SUB: &str = "checkpointSubSequenceNumber";
const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
const PENDING: &str = "pendingCheckpoint";
const PENDING_SUB: &str = "pendingCheckpointSubSequenceNumber";
const PENDING_STATE: &str = "pendingCheckpointState";
const PARENTS: &str = "parentShardId";
const CHILDREN: &str = "childShardIds";
const HASH_START: &str = "startingHashKey";
const HASH_END: &str = "endingHashKey";
const CHECKPOINT_OWNER: &str = "checkpointOwner";
const THROUGHPUT: &str = "throughputKBps";

/// Attributes that a write of our state must remove when the next row lacks them, whatever the read row said: KCL may
/// have left a pending checkpoint of its own. A write that records no state of ours (a take) leaves it as it is.
pub(super) fn removed_when_absent(next: &Lease) -> &'static [&'static str] {
    match next.pending {
        Pending::Ours(_) => &[PENDING, PENDING_SUB],
        Pending::None | Pending::Foreign { .. } | Pending::Unreadable { .. } => &[],
    }
}

/// Values of `entityType` that mark a lease; a row without one is a lease as well.
const ENTITY_LEASE: &str = "LEASE";

/// Whether an item is a lease row at all.
pub(super) fn is_lease(item: &Item) -> bool {
    match item.get(ENTITY_TYPE) {
        Some(AttributeValue::S(entity)) => entity == ENTITY_LEASE,
        Some(_) => false,
        None => true,
    }
}

/// The attributes of a lease row. A state too large to encode cannot get here: it is checked before a write.
pub(super) fn lease_attributes(
    lease: &Lease,
) -> Result<Attributes, sluicegate_checkpoint::state::StateTooLarge> {
    let mut item = Attributes::new();
    item.insert(LEASE_KEY, text(lease.key.as_str()));
    item.insert(LEASE_COUNTER, number(lease.counter.0));
    item.insert(OWNER_SWITCHES, number(lease.owner_switches));
    item.insert(CHECKPOINT, text(lease.checkpoint.as_column()));
    item.insert(CHECKPOINT_SUB, number(lease.checkpoint.sub_sequence_number().0));
    if let Some(owner) = &lease.owner {
        item.insert(LEASE_OWNER, text(owner.as_str()));
    }
    if let Some(owner) = &lease.checkpoint_owner {
        item.insert(CHECKPOINT_OWNER, text(owner.as_str()));
    }
    if let Some(throughput) = lease.throughput {
        item.insert(THROUGHPUT, AttributeValue::N(throughput.to_string()));
    }
    match &lease.pending {
        Pending::None => {}
        Pending::Foreign { bytes } | Pending::Unreadable { bytes, .. } => {
            item.insert(PENDING_STATE, AttributeValue::B(Blob::new(bytes.as_ref())));
        }
        Pending::Ours(state) => {
            item.insert(PENDING_STATE, AttributeValue::B(Blob::new(state.encode()?)));
            if let Some(cut) = state.cuts.last() {
                item.insert(PENDING, text(cut.last.as_str()));
                item.insert(PENDING_SUB, number(cut.last_sub.0));
            }
        }
    }
    insert_set(&mut item, PARENTS, &lease.parents);
    insert_set(&mut item, CHILDREN, &lease.children);
    if let Some(range) = lease.hash_range {
        item.insert(HASH_START, text(&range.start.to_string()));
        item.insert(HASH_END, text(&range.end.to_string()));
    }
    Ok(item)
}

/// Reads a lease row back.
pub(super) fn lease_from(item: &Item) -> Result<Lease, ReadError> {
    let key = string(item, LEASE_KEY, "?")?.ok_or_else(|| malformed("?", "it has no leaseKey"))?;
    let sub = SubSequenceNumber(unsigned(item, CHECKPOINT_SUB, &key)?.unwrap_or(0));
    let column = string(item, CHECKPOINT, &key)?.ok_or_else(|| malformed(&key, "it has no checkpoint"))?;
    let checkpoint =
        Position::from_columns(&column, sub).map_err(|error| malformed(&key, &error.to_string()))?;
    Ok(Lease {
        owner: string(item, LEASE_OWNER, &key)?.map(WorkerId::new),
        counter: LeaseCounter(unsigned(item, LEASE_COUNTER, &key)?.unwrap_or(0)),
        owner_switches: unsigned(item, OWNER_SWITCHES, &key)?.unwrap_or(0),
        checkpoint,
        pending: pending_from(item),
        parents: set(item, PARENTS, &key)?,
        children: set(item, CHILDREN, &key)?,
        hash_range: hash_range(item, &key)?,
        checkpoint_owner: string(item, CHECKPOINT_OWNER, &key)?.map(WorkerId::new),
        throughput: throughput(item),
        key: ShardId::new(key),
    })
}

fn pending_from(item: &Item) -> Pending {
    // KCL's create path writes the state as a number; that is no state of anybody's.
    let Some(AttributeValue::B(blob)) = item.get(PENDING_STATE) else { return Pending::None };
    match LeaseState::decode(blob.as_ref()) {
        Ok(state) => Pending::Ours(state),
        Err(DecodeStateError::Foreign) => Pending::Foreign { bytes: Bytes::copy_from_slice(blob.as_ref()) },
        Err(why) => Pending::Unreadable { bytes: Bytes::copy_from_slice(blob.as_ref()), why },
    }
}

/// It only weighs: one that makes no sense is no reason to pass the row over.
fn throughput(item: &Item) -> Option<Throughput> {
    let Some(AttributeValue::N(number)) = item.get(THROUGHPUT) else { return None };
    number.parse().ok()
}

fn hash_range(item: &Item, key: &str) -> Result<Option<HashKeyRange>, ReadError> {
    let (Some(start), Some(end)) = (string(item, HASH_START, key)?, string(item, HASH_END, key)?) else {
        return Ok(None);
    };
    let parse =
        |text: String| text.parse().map_err(|_no_number| malformed(key, "its hash keys are no numbers"));
    Ok(Some(HashKeyRange { start: parse(start)?, end: parse(end)? }))
}

pub(super) const FLEET: &str = "fleet";
pub(super) const WORKER_ID: &str = "workerId";
pub(super) const HEARTBEAT: &str = "heartbeat";
/// What the range keys of rows that are no workers begin with; no worker id does.
pub(super) const NO_WORKER: char = '~';
/// Range key of the row that holds the fixed start.
pub(super) const START_ROW: &str = "~start";
/// Range key of the row that keeps what throttling had taught the last worker that left.
const LEARNED_ROW: &str = "~rate";
/// What the range key of a request to leave begins with; the worker's id follows.
const REQUEST_TO_LEAVE: &str = "~drain#";
const ADDRESS: &str = "address";
const STATE: &str = "state";
const VERSION: &str = "version";
const STATE_VERSION: &str = "stateVersion";
const PACKING_VERSIONS: &str = "packingVersions";
const LEASES: &str = "leases";
const DEMAND: &str = "writeDemandMilli";
const GRANT: &str = "writeGrantMilli";
const RATE: &str = "writeRateMilli";
const USED: &str = "writeUsedMilli";
/// The rate at which a worker writes at most, why, since when, and how many keys are hot: of builds that tell.
const PACE: [&str; 4] = ["writePaceMilli", "writePaceReason", "writePaceSince", "hotKeys"];
const BACKLOG: &str = "backlogBytes";
const BEHIND: &str = "behind";
/// Numbers in the order of the shards of `behind`: a list without names takes a fifth of the bytes of a second map.
const LAGS: &str = "lags";
pub(super) const EXPIRES: &str = "expires";
const POSITION: &str = "position";
const TIMESTAMP: &str = "timestampMs";
const STREAM: &str = "stream";
const STREAM_CREATED: &str = "streamCreatedMs";

/// The attributes of a worker row.
pub(super) fn worker_attributes(fleet: &str, row: &WorkerRow) -> Attributes {
    let mut item = Attributes::new();
    item.insert(FLEET, text(fleet));
    item.insert(WORKER_ID, text(row.worker_id.as_str()));
    item.insert(HEARTBEAT, number(row.heartbeat));
    item.insert(STATE, text(row.state.as_str()));
    item.insert(VERSION, text(&row.version));
    item.insert(STATE_VERSION, number(u64::from(row.state_version)));
    item.insert(LEASES, number(row.leases));
    item.insert(DEMAND, number(row.write_demand_milli));
    item.insert(GRANT, number(row.write_grant_milli));
    item.insert(RATE, number(row.write_rate_milli));
    item.insert(EXPIRES, AttributeValue::N(row.expires.to_string()));
    if let Some(address) = &row.address {
        item.insert(ADDRESS, text(address));
    }
    let versions = row.packing_versions.iter().map(|version| number(u64::from(*version))).collect();
    item.insert(PACKING_VERSIONS, AttributeValue::L(versions));
    item.insert(USED, number(row.write_used_milli));
    if let Some(pace) = &row.write_pace {
        let [rate, reason, since, hot_keys] = PACE;
        item.insert(rate, number(pace.rate_milli));
        item.insert(reason, text(&pace.reason));
        item.insert(since, AttributeValue::N(pace.since.to_string()));
        item.insert(hot_keys, number(pace.hot_keys));
    }
    item.insert(BACKLOG, number(row.backlog_bytes));
    let behind = row.behind.iter().map(|behind| (behind.shard.to_string(), number(behind.age_ms))).collect();
    item.insert(BEHIND, AttributeValue::M(behind));
    if !row.behind.is_empty() {
        let lags = row.behind.iter().map(|behind| number(behind.lag_ms)).collect();
        item.insert(LAGS, AttributeValue::L(lags));
    }
    item
}

/// Reads a worker row back.
pub(super) fn worker_from(item: &Item) -> Result<WorkerRow, ReadError> {
    let id = string(item, WORKER_ID, "?")?.ok_or_else(|| malformed("?", "it has no workerId"))?;
    let count = |name| unsigned(item, name, &id).map(|value| value.unwrap_or(0));
    let mut versions = Vec::new();
    if let Some(AttributeValue::L(list)) = item.get(PACKING_VERSIONS) {
        for value in list {
            versions.push(small(parse_number(value, PACKING_VERSIONS, &id)?));
        }
    }
    let behind = behind_from(item, &id)?;
    let state = match string(item, STATE, &id)?.as_deref() {
        Some("draining") => WorkerState::Draining,
        Some(_) | None => WorkerState::Active,
    };
    Ok(WorkerRow {
        heartbeat: count(HEARTBEAT)?,
        address: string(item, ADDRESS, &id)?,
        state,
        version: string(item, VERSION, &id)?.unwrap_or_default(),
        state_version: small(count(STATE_VERSION)?),
        packing_versions: versions,
        leases: count(LEASES)?,
        write_demand_milli: count(DEMAND)?,
        write_grant_milli: count(GRANT)?,
        write_rate_milli: count(RATE)?,
        write_used_milli: count(USED)?,
        write_pace: pace_from(item, &id)?,
        backlog_bytes: count(BACKLOG)?,
        behind,
        expires: i64::try_from(count(EXPIRES)?).unwrap_or(i64::MAX),
        worker_id: WorkerId::new(id),
    })
}

/// What a row tells of the rate at which its worker writes.
fn pace_from(item: &Item, id: &str) -> Result<Option<Box<WritePace>>, ReadError> {
    let [rate, reason, since, hot_keys] = PACE;
    let Some(reason) = string(item, reason, id)? else { return Ok(None) };
    let count = |name| unsigned(item, name, id).map(|value| value.unwrap_or(0));
    Ok(Some(Box::new(WritePace {
        rate_milli: count(rate)?,
        reason,
        since: i64::try_from(count(since)?).unwrap_or(i64::MAX),
        hot_keys: count(hot_keys)?,
    })))
}

/// The shards that a row tells as not caught up; lags are those of a build that tells them.
fn behind_from(item: &Item, id: &str) -> Result<Vec<Behind>, ReadError> {
    let Some(AttributeValue::M(ages)) = item.get(BEHIND) else { return Ok(Vec::new()) };
    let lags = match item.get(LAGS) {
        Some(AttributeValue::L(lags)) => lags.as_slice(),
        Some(_) | None => &[],
    };
    let mut behind = Vec::new();
    for (at, (shard, age)) in ages.iter().collect::<BTreeMap<_, _>>().into_iter().enumerate() {
        let lag_ms = lags.get(at).map_or(Ok(0), |lag| parse_number(lag, LAGS, id))?;
        let age_ms = parse_number(age, BEHIND, id)?;
        behind.push(Behind { shard: ShardId::new(shard.as_str()), age_ms, lag_ms });
    }
    Ok(behind)
}

/// The range key of the request that a worker leave.
pub(super) fn request_key(worker: &WorkerId) -> AttributeValue {
    text(&format!("{REQUEST_TO_LEAVE}{worker}"))
}

/// The attributes of the request that a worker leave.
pub(super) fn request_attributes(fleet: &str, worker: &WorkerId, expires: i64) -> Attributes {
    let mut item = Attributes::new();
    item.insert(FLEET, text(fleet));
    item.insert(WORKER_ID, request_key(worker));
    item.insert(EXPIRES, AttributeValue::N(expires.to_string()));
    item
}

/// What a row of the worker table is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FleetRow {
    /// One process.
    Worker(WorkerRow),
    /// The request that this worker leave.
    RequestToLeave(WorkerId),
    /// What the last worker that left had learned.
    Learned(LearnedRate),
    /// The fixed start, or something that a newer build keeps here.
    Other,
}

/// Tells the rows of the worker table apart by their range keys.
pub(super) fn fleet_row_from(item: &Item) -> Result<FleetRow, ReadError> {
    let id = string(item, WORKER_ID, "?")?.unwrap_or_default();
    match id.strip_prefix(REQUEST_TO_LEAVE) {
        Some(worker) => Ok(FleetRow::RequestToLeave(WorkerId::new(worker))),
        None if id == LEARNED_ROW => learned_from(item).map(FleetRow::Learned),
        None if id.starts_with(NO_WORKER) => Ok(FleetRow::Other),
        None => worker_from(item).map(FleetRow::Worker),
    }
}

/// The attributes of what a worker that leaves had learned.
pub(super) fn learned_attributes(fleet: &str, learned: LearnedRate, expires: i64) -> Attributes {
    let mut item = Attributes::new();
    item.insert(FLEET, text(fleet));
    item.insert(WORKER_ID, text(LEARNED_ROW));
    item.insert(RATE, number(learned.rate_milli));
    item.insert(GRANT, number(learned.grant_milli));
    item.insert(EXPIRES, AttributeValue::N(expires.to_string()));
    item
}

fn learned_from(item: &Item) -> Result<LearnedRate, ReadError> {
    let milli = |name| unsigned(item, name, LEARNED_ROW).map(|value| value.unwrap_or(0));
    Ok(LearnedRate { rate_milli: milli(RATE)?, grant_milli: milli(GRANT)? })
}

/// The attributes of the fixed start.
pub(super) fn start_attributes(fleet: &str, start: &RecordedStart) -> Attributes {
    let mut item = Attributes::new();
    item.insert(FLEET, text(fleet));
    item.insert(WORKER_ID, text(START_ROW));
    item.insert(POSITION, text(start.at.position().as_column()));
    if let Some(time) = start.at.time() {
        item.insert(TIMESTAMP, AttributeValue::N(time.0.to_string()));
    }
    if let Some(stream) = &start.stream {
        item.insert(STREAM, text(&stream.name));
        item.insert(STREAM_CREATED, AttributeValue::N(stream.created.0.to_string()));
    }
    item
}

/// Reads the fixed start back.
pub(super) fn start_from(item: &Item) -> Result<RecordedStart, ReadError> {
    let at = match (string(item, POSITION, START_ROW)?.as_deref(), start_time(item, TIMESTAMP)?) {
        (Some("TRIM_HORIZON"), _) => FixedStart::TrimHorizon,
        (Some("AT_TIMESTAMP"), Some(time)) => FixedStart::AtTimestamp(time),
        (position, _) => return Err(malformed(START_ROW, &format!("its position is {position:?}"))),
    };
    let stream = (string(item, STREAM, START_ROW)?, start_time(item, STREAM_CREATED)?);
    let stream = match stream {
        (Some(name), Some(created)) => Some(StreamIdentity { name, created }),
        (None, None) => None,
        (_, _) => return Err(malformed(START_ROW, "of the stream it has a name or a time, not both")),
    };
    Ok(RecordedStart { at, stream })
}

fn start_time(item: &Item, name: &'static str) -> Result<Option<ArrivalMillis>, ReadError> {
    let out_of_range = |_too_large| malformed(START_ROW, &format!("its {name} is out of range"));
    let ms = unsigned(item, name, START_ROW)?;
    ms.map(|ms| i64::try_from(ms).map(ArrivalMillis).map_err(out_of_range)).transpose()
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn insert_set(item: &mut Attributes, name: &'static str, shards: &BTreeSet<ShardId>) {
    if !shards.is_empty() {
        item.insert(name, AttributeValue::Ss(shards.iter().map(ToString::to_string).collect()));
    }
}

fn malformed(key: &str, why: &str) -> ReadError {
    ReadError::Malformed { key: key.to_owned(), why: why.to_owned() }
}

fn string(item: &Item, name: &str, key: &str) -> Result<Option<String>, ReadError> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::S(value)) => Ok(Some(value.clone())),
        Some(_) => Err(malformed(key, &format!("{name} is no string"))),
    }
}

fn unsigned(item: &Item, name: &str, key: &str) -> Result<Option<u64>, ReadError> {
    item.get(name).map(|value| parse_number(value, name, key)).transpose()
}

fn parse_number(value: &AttributeValue, name: &str, key: &str) -> Result<u64, ReadError> {
    let AttributeValue::N(digits) = value else {
        return Err(malformed(key, &format!("{name} is no number")));
    };
    digits.parse().map_err(|_no_number| malformed(key, &format!("{name} is `{digits}`")))
}

fn set(item: &Item, name: &str, key: &str) -> Result<BTreeSet<ShardId>, ReadError> {
    match item.get(name) {
        None => Ok(BTreeSet::new()),
        Some(AttributeValue::Ss(values)) => {
            Ok(values.iter().map(|value| ShardId::new(value.as_str())).collect())
        }
        Some(_) => Err(malformed(key, &format!("{name} is no set of strings"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::SequenceNumber;

    fn item(attributes: Attributes) -> Item {
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn a_lease_reads_back() {
        let at = Position::At(SequenceNumber::parse("495901").unwrap(), SubSequenceNumber(3));
        let mut lease = Lease::unowned(
            ShardId::new("shardId-000000000002"),
            at,
            LeaseState::starting(Some(ArrivalMillis(7))),
        );
        lease.owner = Some(WorkerId::new("me"));
        lease.counter = LeaseCounter(9);
        lease.owner_switches = 2;
        lease.parents = [ShardId::new("a"), ShardId::new("b")].into();
        lease.hash_range = Some(HashKeyRange { start: 0, end: u128::MAX });
        lease.checkpoint_owner = Some(WorkerId::new("old"));
        lease.throughput = Some("12.000345".parse().unwrap());
        assert_eq!(lease_from(&item(lease_attributes(&lease).unwrap())).unwrap(), lease);
    }

    /// The attributes that KCL 2.x writes to every lease row.
    fn kcl_2_row(checkpoint: &str, sub: u64) -> Item {
        [
            ("leaseKey", text("shardId-000000000000")),
            ("leaseOwner", text("kcl-worker")),
            ("leaseCounter", number(41)),
            ("ownerSwitchesSinceCheckpoint", number(3)),
            ("checkpoint", text(checkpoint)),
            ("checkpointSubSequenceNumber", number(sub)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn strings(values: &[&str]) -> AttributeValue {
        AttributeValue::Ss(values.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_row_of_kcl_2_is_read_at_its_position() {
        let number =
            SequenceNumber::parse("49590338271490256608559692538361571095921575989136588898").unwrap();
        for (column, sub, position) in [
            ("LATEST", 0, Position::Latest),
            ("TRIM_HORIZON", 0, Position::TrimHorizon),
            ("AT_TIMESTAMP", 0, Position::AtTimestamp),
            ("SHARD_END", 0, Position::ShardEnd),
            (number.as_str(), 0, Position::At(number.clone(), SubSequenceNumber(0))),
            (number.as_str(), 7, Position::At(number.clone(), SubSequenceNumber(7))),
        ] {
            let row = kcl_2_row(column, sub);
            let lease = lease_from(&row).unwrap();
            assert_eq!((&lease.checkpoint, &lease.pending), (&position, &Pending::None));
            assert_eq!(lease.owner, Some(WorkerId::new("kcl-worker")));
            assert_eq!((lease.counter, lease.owner_switches), (LeaseCounter(41), 3));
            assert_eq!(
                item(lease_attributes(&lease).unwrap()),
                row,
                "what is not changed is as KCL wrote it"
            );
        }
    }

    #[test]
    fn a_row_of_kcl_3_is_read_with_all_its_attributes() {
        let mut row = kcl_2_row("495901", 2);
        row.extend(
            [
                ("entityType", text("LEASE")),
                ("checkpointOwner", text("kcl-old")),
                ("pendingCheckpoint", text("495907")),
                ("pendingCheckpointSubSequenceNumber", number(1)),
                ("pendingCheckpointState", AttributeValue::B(Blob::new(b"theirs".to_vec()))),
                ("parentShardId", strings(&["shardId-000000000008", "shardId-000000000009"])),
                ("childShardIds", strings(&["shardId-000000000012"])),
                ("startingHashKey", text("0")),
                ("endingHashKey", text("340282366920938463463374607431768211455")),
                ("throughputKBps", AttributeValue::N("12.345678".into())),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let lease = lease_from(&row).unwrap();
        let position = Position::At(SequenceNumber::parse("495901").unwrap(), SubSequenceNumber(2));
        assert_eq!(lease.checkpoint, position, "and not the pending one");
        assert_eq!(lease.pending, Pending::Foreign { bytes: Bytes::from_static(b"theirs") });
        assert_eq!(lease.checkpoint_owner, Some(WorkerId::new("kcl-old")));
        assert_eq!((lease.parents.len(), lease.children.len()), (2, 1));
        assert_eq!(lease.hash_range, Some(HashKeyRange::ALL));
        for (name, value) in lease_attributes(&lease).unwrap() {
            assert_eq!(row.get(name), Some(&value), "what is not changed is as KCL wrote it");
        }
    }

    #[test]
    fn a_state_that_kcl_wrote_as_a_number_is_none() {
        let mut row = kcl_2_row("TRIM_HORIZON", 0);
        row.insert("pendingCheckpointState".into(), number(0));
        assert_eq!(lease_from(&row).unwrap().pending, Pending::None);
    }

    #[test]
    fn rows_of_other_kinds_are_not_leases() {
        let entity = |kind: &str| Item::from([(ENTITY_TYPE.to_owned(), text(kind))]);
        assert!(is_lease(&Item::new()) && is_lease(&entity("LEASE")));
        for kind in ["WORKER_METRIC_STATS", "LEADER", "STREAM", "CLIENT_VERSION_MIGRATION", "TABLE_MIGRATION"]
        {
            assert!(!is_lease(&entity(kind)), "{kind}");
        }
    }

    #[test]
    fn bytes_of_somebody_else_are_kept_as_they_are() {
        let mut row = item(
            lease_attributes(&Lease::unowned(
                ShardId::new("s"),
                Position::TrimHorizon,
                LeaseState::starting(None),
            ))
            .unwrap(),
        );
        row.insert(PENDING_STATE.into(), AttributeValue::B(Blob::new(b"theirs".to_vec())));
        let lease = lease_from(&row).unwrap();
        assert_eq!(lease.pending, Pending::Foreign { bytes: Bytes::from_static(b"theirs") });
        assert_eq!(
            lease_attributes(&lease).unwrap()[PENDING_STATE],
            AttributeValue::B(Blob::new(b"theirs".to_vec()))
        );
    }

    #[test]
    fn rows_that_are_no_workers_are_told_apart() {
        let of = |attributes| fleet_row_from(&item(attributes)).unwrap();
        let (row, worker) = (WorkerRow::new(WorkerId::new("w#1")), WorkerId::new("w#1"));
        assert_eq!(of(request_attributes("app", &worker, 9)), FleetRow::RequestToLeave(worker));
        assert_eq!(
            of(start_attributes("app", &RecordedStart { at: FixedStart::TrimHorizon, stream: None })),
            FleetRow::Other
        );
        let learned = LearnedRate { rate_milli: 5, grant_milli: 7 };
        assert_eq!(of(learned_attributes("app", learned, 9)), FleetRow::Learned(learned));
        let newer = [(WORKER_ID, text("~something-else"))].into();
        assert_eq!(of(newer), FleetRow::Other);
        assert_eq!(of(worker_attributes("app", &row)), FleetRow::Worker(row));
    }

    #[test]
    fn a_worker_and_a_start_read_back() {
        let row = WorkerRow {
            heartbeat: 4,
            address: Some("10.0.0.1:8080".into()),
            state: WorkerState::Draining,
            packing_versions: vec![1, 2],
            leases: 3,
            behind: vec![Behind { shard: ShardId::new("s-1"), age_ms: 250, lag_ms: 40 }],
            write_used_milli: 1_500,
            write_pace: Some(Box::new(WritePace {
                rate_milli: 1_470_000,
                reason: "refused".to_owned(),
                since: 1_700_000_000,
                hot_keys: 2,
            })),
            backlog_bytes: 9_000,
            expires: 1_700_000_000,
            ..WorkerRow::new(WorkerId::new("w"))
        };
        assert_eq!(worker_from(&item(worker_attributes("app", &row))).unwrap(), row);
        let stream = StreamIdentity { name: "orders".into(), created: ArrivalMillis(1_690_000_000_000) };
        for at in [FixedStart::TrimHorizon, FixedStart::AtTimestamp(ArrivalMillis(1_700_000_000_123))] {
            // Builds before the stream was recorded left rows without it.
            for stream in [Some(stream.clone()), None] {
                let start = RecordedStart { at, stream };
                assert_eq!(start_from(&item(start_attributes("app", &start))).unwrap(), start);
            }
            let mut half = start_attributes("app", &RecordedStart { at, stream: Some(stream.clone()) });
            half.remove(STREAM_CREATED);
            assert!(start_from(&item(half)).is_err(), "half an identity is none to go by");
        }
    }
}
