//! Writes of single items: let in, carried out, accounted for.
//!
//! What a write used is what the database says, which is asked to say it whether the client wants to know or not. A condition
//! that does not hold has used what the larger of the item in place and the item wanted takes.

use dynoxide::DynoxideError;
use dynoxide::actions::delete_item::DeleteItemRequest;
use dynoxide::actions::put_item::PutItemRequest;
use dynoxide::actions::update_item::UpdateItemRequest;
use dynoxide::types::{ConsumedCapacity, Item};

use super::admission::Charge;
use super::items::{fractional, holds, partition_key, whole, write_units};
use super::refusal::{Refusal, Throttle, rejected};
use super::{DynamoDb, ask_for_capacity, decode, encode, table_name};
use crate::faults::Tampering;
use crate::ledger::TableUse;

/// A write of one item, before it is carried out.
struct One {
    table: String,
    /// What it costs at least.
    units: u64,
    /// What the limits are asked for, if there are any.
    charge: Option<Charge>,
}

/// What the client did not ask for.
struct Hide {
    capacity: bool,
    /// The item that stood in the way of a condition.
    item: bool,
}

/// What the database made of a write.
type Written = dynoxide::Result<(Option<ConsumedCapacity>, String)>;

impl DynamoDb {
    pub(super) fn put_item(
        &self,
        body: &[u8],
        tampering: &Tampering,
        by: Option<&str>,
    ) -> Result<String, Refusal> {
        let mut request: PutItemRequest = decode(body)?;
        refuse_rejected([&request.item], tampering)?;
        let one = self.one(&request.table_name, &request.item, write_units(&request.item), tampering);
        let condition = request.condition_expression.is_some();
        let hide = Hide {
            capacity: ask_for_capacity(&mut request.return_consumed_capacity),
            item: ask_for_item(&mut request.return_values_on_condition_check_failure, condition),
        };
        let witness = self.witness("PutItem", &request.table_name, &request.item, condition, by);
        self.carry_out(&one, &hide, tampering, || {
            let mut answer = self.witnessed(witness, || self.database.put_item(request))?;
            let used = answer.consumed_capacity.clone();
            answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide.capacity);
            Ok((used, encode(&answer)?))
        })
    }

    pub(super) fn update_item(
        &self,
        body: &[u8],
        tampering: &Tampering,
        by: Option<&str>,
    ) -> Result<String, Refusal> {
        let mut request: UpdateItemRequest = decode(body)?;
        refuse_rejected(&request.expression_attribute_values, tampering)?;
        let one = self.one(&request.table_name, &request.key, 1, tampering);
        let condition = request.condition_expression.is_some();
        let hide = Hide {
            capacity: ask_for_capacity(&mut request.return_consumed_capacity),
            item: ask_for_item(&mut request.return_values_on_condition_check_failure, condition),
        };
        let witness = self.witness("UpdateItem", &request.table_name, &request.key, condition, by);
        self.carry_out(&one, &hide, tampering, || {
            let mut answer = self.witnessed(witness, || self.database.update_item(request))?;
            let used = answer.consumed_capacity.clone();
            answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide.capacity);
            Ok((used, encode(&answer)?))
        })
    }

    pub(super) fn delete_item(
        &self,
        body: &[u8],
        tampering: &Tampering,
        by: Option<&str>,
    ) -> Result<String, Refusal> {
        let mut request: DeleteItemRequest = decode(body)?;
        let one = self.one(&request.table_name, &request.key, 1, tampering);
        let condition = request.condition_expression.is_some();
        let hide = Hide {
            capacity: ask_for_capacity(&mut request.return_consumed_capacity),
            item: ask_for_item(&mut request.return_values_on_condition_check_failure, condition),
        };
        let witness = self.witness("DeleteItem", &request.table_name, &request.key, condition, by);
        self.carry_out(&one, &hide, tampering, || {
            let mut answer = self.witnessed(witness, || self.database.delete_item(request))?;
            let used = answer.consumed_capacity.clone();
            answer.consumed_capacity = answer.consumed_capacity.filter(|_| !hide.capacity);
            Ok((used, encode(&answer)?))
        })
    }

    fn one(&self, table: &str, key: &Item, units: u64, tampering: &Tampering) -> One {
        let table = table_name(table);
        let charge = self.charge(&table, key, units, tampering);
        One { table, units, charge }
    }

    /// What the limits are to be asked for; nothing if there are none, or no such table.
    pub(super) fn charge(
        &self,
        table: &str,
        key: &Item,
        units: u64,
        tampering: &Tampering,
    ) -> Option<Charge> {
        let needed = self.gate.limits_anything() || tampering.throttled || tampering.unprocessed.is_some();
        let table = needed.then(|| self.gate.facts(&self.database, table))??;
        let partition_key = partition_key(key, &table.partition_attribute);
        Some(Charge { table, partition_key, units })
    }

    /// Takes the charge from the limits, or refuses it if they are exceeded or a fault says so.
    pub(super) fn admit(&self, charge: &Charge, throttled: bool, now_ms: u64) -> Result<(), Throttle> {
        if throttled {
            return Err(Throttle::injected(&charge.table));
        }
        self.gate.admit(charge, now_ms)
    }

    fn carry_out(
        &self,
        one: &One,
        hide: &Hide,
        tampering: &Tampering,
        write: impl FnOnce() -> Written,
    ) -> Result<String, Refusal> {
        let now_ms = self.now_ms();
        if let Some(charge) = &one.charge {
            let admitted = self.admit(charge, tampering.throttled, now_ms);
            admitted.map_err(|throttle| {
                self.ledger.enter(&one.table, now_ms, refused_write(one.units, 1));
                Refusal::Throttled(throttle)
            })?;
        }
        let (used, outcome) = match write() {
            Ok((used, body)) => (used.map_or(0.0, |used| used.capacity_units), Ok(body)),
            Err(DynoxideError::ConditionalCheckFailedException(message, item)) => {
                let in_the_way = item.as_ref().map_or(1, write_units);
                let item = item.filter(|_| !hide.item);
                let lost = DynoxideError::ConditionalCheckFailedException(message, item);
                (fractional(in_the_way.max(one.units)), Err(lost.into()))
            }
            Err(error) => {
                self.settle(one.charge.as_ref(), 0.0, now_ms);
                return Err(error.into());
            }
        };
        self.settle(one.charge.as_ref(), used, now_ms);
        self.ledger.enter(&one.table, now_ms, accepted_write(used, 1));
        outcome
    }

    pub(super) fn settle(&self, charge: Option<&Charge>, used: f64, now_ms: u64) {
        if let Some(charge) = charge {
            self.gate.settle(charge, whole(used), now_ms);
        }
    }
}

/// One request that wrote.
pub(super) fn accepted_write(used: f64, items: u64) -> TableUse {
    TableUse { write_units: used, writes: 1, written_items: items, ..TableUse::default() }
}

/// One request that wrote nothing for want of capacity.
pub(super) fn refused_write(units: u64, items: u64) -> TableUse {
    TableUse { refused_writes: 1, ..refused_items(units, items) }
}

/// Items of a request that were not written for want of capacity.
pub(super) fn refused_items(units: u64, items: u64) -> TableUse {
    TableUse { refused_units: fractional(units), refused_items: items, ..TableUse::default() }
}

/// An error if a fault refuses one of the items.
pub(super) fn refuse_rejected<'a>(
    items: impl IntoIterator<Item = &'a Item>,
    tampering: &Tampering,
) -> Result<(), Refusal> {
    let bad = |item: &Item| tampering.rejected.iter().any(|wanted| holds(item, wanted));
    let any_bad = !tampering.rejected.is_empty() && items.into_iter().any(bad);
    if any_bad { Err(rejected()) } else { Ok(()) }
}

/// Asks for the item that stands in the way of a condition; says whether the client did not.
fn ask_for_item(asked: &mut Option<String>, condition: bool) -> bool {
    let hide = asked.as_deref() != Some("ALL_OLD");
    if condition && hide {
        *asked = Some("ALL_OLD".to_owned());
    }
    hide
}
