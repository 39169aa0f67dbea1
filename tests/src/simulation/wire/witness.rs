//! Applies a request and sees what it did: what changed is noted in the [`World`](super::super::world::World), whose
//! referee judges it.
//!
//! Beside the laws of the referee, two hold for requests as such: every write of a lease row is conditional (L3), and
//! leases and worker rows are read strongly consistently (R3).

use std::time::Duration;

use ::http::Response;
use bytes::Bytes;
use rand::Rng;
use serde_json::{Value, json};
use sluicegate_checkpoint::SequenceNumber;
use sluicegate_lease::dynamodb::decode::{self, FleetItem};
use sluicegate_lease::{Lease, LeaseKey, WorkerId};
use sluicegate_sink::Letter;
use sluicegate_sink::governor::units_of;
use sluicegate_sink::item::{Item, RESERVED_PARTITION, names};

use super::super::fleet::APPLICATION;
use super::super::referee::Sight;
use super::super::script::Service;
use super::super::world::Inner;
use super::backend::{Backend, Call, items_table, text};
use super::{refusal, values};

/// Who sent a request.
#[derive(Debug)]
pub(super) struct Sender {
    /// The worker.
    pub(super) id: WorkerId,
    /// What it had seen of the others.
    pub(super) sight: Sight,
}

/// How often a page is shorter than it was asked to be.
const SHORT_PAGES: f64 = 0.3;

/// Applies a request of `me`.
pub(super) fn answer(
    backend: &Backend,
    world: &mut Inner,
    me: &Sender,
    mut call: Call,
    now: Duration,
) -> Response<Bytes> {
    if call.service == Service::Items && now < world.sink_out_until {
        return refusal::throttled(call.service, &mut world.rng);
    }
    shorten(&mut call, world);
    let held_back = hold_back(&mut call, world);
    if held_back.as_ref().is_some_and(|(_, nothing_left)| *nothing_left) {
        return refusal::throttled(call.service, &mut world.rng);
    }
    if let Some(why) = rejected(&call, world) {
        return refusal::invalid(why);
    }
    check(&call, world, &me.id);
    let mut answer = backend.call(&call);
    if answer.status().is_success() {
        Witness { backend, world, me, now }.applied(&call, answer.body());
    } else if call.service == Service::Leases && is_failed_condition(answer.body()) {
        let key = key_of(&call);
        world.history.line(now, me.id.as_str(), format_args!("loses the race for {key}"));
    }
    if let Some((held_back, _)) = held_back {
        let mut body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let left = body["UnprocessedItems"][items_table()].as_array().cloned().unwrap_or_default();
        let left: Vec<Value> = left.into_iter().chain(held_back).collect();
        body["UnprocessedItems"] = json!({ items_table(): left });
        *answer.body_mut() = body.to_string().into();
    }
    answer
}

/// The services may give fewer than they are asked for.
fn shorten(call: &mut Call, world: &mut Inner) {
    let (name, most) = match (call.service, call.operation.as_str()) {
        (Service::Leases | Service::Workers, "Scan" | "Query") => ("Limit", 4),
        (Service::Stream, "GetRecords") => ("Limit", 20),
        (Service::Stream, "ListShards") => ("MaxResults", 4),
        _ => return,
    };
    if world.rng.random_bool(SHORT_PAGES) {
        let asked = call.body[name].as_u64().unwrap_or(u64::MAX);
        call.body[name] = json!(asked.min(world.rng.random_range(1..=most)));
    }
}

/// Under faults, some items of a batch are left unprocessed: takes them out, and tells whether none is left.
fn hold_back(call: &mut Call, world: &mut Inner) -> Option<(Vec<Value>, bool)> {
    let some_left =
        call.operation == "BatchWriteItem" && world.rates.throttled > 0 && world.rng.random_bool(0.1);
    let puts = some_left.then(|| call.body["RequestItems"][items_table()].as_array_mut()).flatten()?;
    let (held_back, kept): (Vec<Value>, Vec<Value>) =
        std::mem::take(puts).into_iter().partition(|_| world.rng.random_bool(0.5));
    let nothing_left = kept.is_empty();
    *puts = kept;
    world.fault("unprocessed items");
    Some((held_back, nothing_left))
}

/// Why the analytics table never takes an item of a request, asked or written.
fn rejected(call: &Call, world: &mut Inner) -> Option<&'static str> {
    let puts = match call.operation.as_str() {
        "BatchWriteItem" => call.body["RequestItems"][items_table()].as_array()?.iter().collect(),
        "PutItem" if call.body["TableName"] == json!(items_table()) => vec![&call.body],
        _ => return None,
    };
    let item = |put: &Value| {
        [&put["PutRequest"]["Item"], &put["Item"]].into_iter().find(|item| item.is_object()).cloned()
    };
    let items = puts.into_iter().filter_map(item);
    let mut items = items.filter_map(|item| Item::from_attributes(&values::stored(&item)).ok());
    items.find_map(|item| world.rejects(&item))
}

/// What holds for requests as such.
fn check(call: &Call, world: &mut Inner, me: &WorkerId) {
    let (operation, body) = (&call.operation, &call.body);
    let table = match call.service {
        Service::Leases => "lease",
        Service::Workers => "worker",
        Service::Stream | Service::Items => return,
    };
    if matches!(operation.as_str(), "Scan" | "Query" | "GetItem") && body["ConsistentRead"] != json!(true) {
        world.referee.broke("R3", format!("{me} reads the {table} table, but not strongly consistently"));
    }
    if call.service == Service::Leases && call.writes() && !body["ConditionExpression"].is_string() {
        world.referee.broke("L3", format!("{me} writes {} without a condition", key_of(call)));
    }
}

fn same_key(one: &Value, other: &Value) -> bool {
    [names::PARTITION, names::SORT].into_iter().all(|name| one[name] == other[name])
}

fn is_failed_condition(answer: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    text(&answer["__type"]).ends_with("ConditionalCheckFailedException")
}

/// The lease that a write is about.
fn key_of(call: &Call) -> LeaseKey {
    let key = [&call.body["Key"], &call.body["Item"]].into_iter().find(|key| key.is_object());
    LeaseKey::new(key.map(|key| text(&key["leaseKey"]["S"])).unwrap_or_default())
}

/// Somebody who sees what a successful request did.
struct Witness<'a> {
    backend: &'a Backend,
    world: &'a mut Inner,
    me: &'a Sender,
    now: Duration,
}

impl Witness<'_> {
    fn applied(&mut self, call: &Call, answer: &[u8]) {
        let body = &call.body;
        match (call.service, call.operation.as_str()) {
            (Service::Leases, "PutItem" | "UpdateItem" | "DeleteItem") => self.lease_written(&key_of(call)),
            (Service::Workers, "PutItem") => self.worker_put(&body["Item"]),
            (Service::Workers, "DeleteItem") => self.worker_deleted(&body["Key"]),
            (Service::Workers, "Query") => self.workers_given(body, answer),
            (Service::Items, "BatchWriteItem") => {
                let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
                let left = answer["UnprocessedItems"][items_table()].as_array();
                let left: Vec<&Value> =
                    left.into_iter().flatten().map(|put| &put["PutRequest"]["Item"]).collect();
                let puts = body["RequestItems"][items_table()].as_array().into_iter().flatten();
                for item in puts.map(|put| &put["PutRequest"]["Item"]) {
                    let is_left = left.iter().any(|left| same_key(left, item));
                    self.item_metered(item, !is_left);
                    if !is_left {
                        self.item_stored(item);
                    }
                }
            }
            (Service::Items, "PutItem") => self.letter_put(&body["Item"]),
            (Service::Stream, "GetRecords") => self.records_given(answer),
            _ => {}
        }
    }

    /// The row as it was is the one that was noted last: every write passes here.
    fn lease_written(&mut self, key: &LeaseKey) {
        let before = self.world.rows.get(key).cloned();
        match (before, self.lease(key)) {
            (Some(before), Some(after)) => {
                self.world.replaced((&self.me.id, &self.me.sight), &before, &after, self.now)
            }
            (None, Some(after)) => {
                let looked = self.world.referee.lifecycle.looked(&self.me.id);
                self.world.created((&self.me.id, &looked), &after, self.now);
            }
            (Some(before), None) => self.world.deleted(&self.me.id, &before, self.now),
            (None, None) => {}
        }
    }

    /// The row as it is.
    fn lease(&mut self, key: &LeaseKey) -> Option<Lease> {
        let get = json!({
            "TableName": APPLICATION,
            "Key": { "leaseKey": { "S": key.as_str() } },
            "ConsistentRead": true,
        });
        let answer = self.backend.call(&Call::of(Service::Leases, "GetItem", get));
        let answer: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let item = answer.get("Item")?;
        decode::lease(&values::item(item)).unwrap_or_else(|error| {
            self.world
                .referee
                .broke("L3", format!("{} wrote a row that cannot be read: {error}", self.me.id));
            None
        })
    }

    fn worker_put(&mut self, item: &Value) {
        match decode::fleet_item(&values::item(item)) {
            Ok(FleetItem::Worker(row)) => self.world.beaten(&row, self.now),
            Ok(FleetItem::Start(start)) => self.world.start = Some(start),
            Ok(FleetItem::RequestToLeave(worker)) => drop(self.world.asked_to_leave.insert(worker)),
            Ok(FleetItem::Other) => {}
            Err(error) => {
                let why = format!("{} wrote a worker row that cannot be read: {error}", self.me.id);
                self.world.referee.broke("L3", why);
            }
        }
    }

    fn worker_deleted(&mut self, key: &Value) {
        match decode::fleet_item(&values::item(key)) {
            Ok(FleetItem::Worker(row)) => self.world.retired(&row.worker_id),
            Ok(FleetItem::RequestToLeave(worker)) => drop(self.world.asked_to_leave.remove(&worker)),
            Ok(FleetItem::Start(_) | FleetItem::Other) | Err(_) => {}
        }
    }

    /// A page of the worker table was given to a worker (H3).
    fn workers_given(&mut self, request: &Value, answer: &[u8]) {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let rows = answer["Items"].as_array().into_iter().flatten();
        let ids = rows.map(|row| WorkerId::new(text(&row["workerId"]["S"])));
        let ends = (request["ExclusiveStartKey"].is_null(), answer["LastEvaluatedKey"].is_null());
        self.world.referee.looked_at_page(&self.me.id, ids, ends, self.now);
    }

    fn item_metered(&mut self, item: &Value, taken: bool) {
        let units = units_of(values::stored(item).bytes());
        self.world.meter.count(&self.me.id, units, taken);
    }

    fn item_stored(&mut self, item: &Value) {
        let attributes = values::stored(item);
        if attributes.text(names::PARTITION) == Some(RESERVED_PARTITION) {
            return;
        }
        match Item::from_attributes(&attributes) {
            Ok(item) if item.to_attributes() == attributes => self.world.store(&self.me.id, &item, self.now),
            Ok(item) => {
                let why = format!("{} has attributes that the format does not know", item.header.sort);
                self.world.referee.broke("D3", why);
            }
            Err(error) => {
                let why = format!("{} stored an item that cannot be read: {error}", self.me.id);
                self.world.referee.broke("D3", why);
            }
        }
    }

    /// No event of a simulation takes more than one item.
    fn letter_put(&mut self, item: &Value) {
        match Letter::from_items(&[values::stored(item)]) {
            Ok(letter) => {
                self.world.put_letter(&self.me.id, &letter, self.now);
            }
            Err(error) => {
                let why = format!("{} put a letter that cannot be read: {error}", self.me.id);
                self.world.referee.broke("D3", why);
            }
        }
    }

    /// Records were given to a worker (S1).
    fn records_given(&mut self, answer: &[u8]) {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let number = |record: &Value| SequenceNumber::parse(text(&record["SequenceNumber"])).ok();
        let records = answer["Records"].as_array();
        let ends = records.and_then(|records| Some((number(records.first()?)?, number(records.last()?)?)));
        let Some((first, last)) = ends else { return };
        let Inner { stream, rows, referee, history, .. } = self.world;
        let Some(shard) = stream.shard_of(&first) else {
            return referee.broke("D1", format!("record {first} was never published"));
        };
        let id = &shard.listed.id;
        referee.read(id, &shard.records, stream, rows);
        history.line(self.now, self.me.id.as_str(), format_args!("reads {id} {first}..{last}"));
    }
}
