//! The lease table in DynamoDB: one conditional UpdateItem per change, of just the attributes that differ.

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};

use super::error::{deleted, read_error, write_error};
use super::rows::{
    Attributes, Item, LEASE_COUNTER, LEASE_KEY, LEASE_OWNER, is_lease, lease_attributes, lease_from, number,
    removed_when_absent,
};
use crate::model::{Lease, LeaseKey};
use crate::store::{LeaseStore, ReadError, WriteError, Written};

/// The lease table of one application.
#[derive(Debug, Clone)]
pub struct DynamoLeaseStore {
    client: Client,
    table: String,
}

/// A change of a row as expressions.
#[derive(Debug, Default, PartialEq)]
struct Change {
    update: String,
    condition: String,
    names: Vec<(String, String)>,
    values: Vec<(String, AttributeValue)>,
}

impl DynamoLeaseStore {
    /// Works on a table through a client whose own retries are off.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }
}

/// What turns `before` into `after`, on the condition that owner and counter are those of `before`.
fn change(expected: &Lease, next: &Lease, before: &Attributes, after: &Attributes) -> Change {
    let mut change = Change::default();
    let (mut sets, mut removes) = (Vec::new(), Vec::new());
    for (name, value) in after {
        if before.get(name) != Some(value) {
            let index = change.names.len();
            change.names.push((format!("#a{index}"), (*name).to_owned()));
            change.values.push((format!(":a{index}"), value.clone()));
            sets.push(format!("#a{index} = :a{index}"));
        }
    }
    for name in before.keys().chain(removed_when_absent(next)).copied() {
        let listed = change.names.iter().any(|(_, known)| known == name);
        if !after.contains_key(name) && !listed {
            let index = change.names.len();
            change.names.push((format!("#a{index}"), name.to_owned()));
            removes.push(format!("#a{index}"));
        }
    }
    change.update = format!("SET {}", sets.join(", "));
    if !removes.is_empty() {
        change.update.push_str(&format!(" REMOVE {}", removes.join(", ")));
    }
    add_condition(&mut change, expected);
    change
}

fn add_condition(change: &mut Change, expected: &Lease) {
    change.names.push(("#owner".into(), LEASE_OWNER.into()));
    change.names.push(("#counter".into(), LEASE_COUNTER.into()));
    change.values.push((":counter".into(), number(expected.counter.0)));
    change.condition = match &expected.owner {
        Some(owner) => {
            change.values.push((":owner".into(), AttributeValue::S(owner.to_string())));
            "#counter = :counter AND #owner = :owner".to_owned()
        }
        None => "#counter = :counter AND attribute_not_exists(#owner)".to_owned(),
    };
}

fn found(item: Option<&Item>) -> Option<Lease> {
    item.and_then(|item| lease_from(item).ok())
}

fn too_large(error: sluicegate_checkpoint::state::StateTooLarge) -> WriteError {
    WriteError::Refused { what: error.to_string(), source: Box::new(error) }
}

#[async_trait]
impl LeaseStore for DynamoLeaseStore {
    async fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        let mut leases = Vec::new();
        let mut from = None;
        loop {
            let page = self
                .client
                .scan()
                .table_name(&self.table)
                .consistent_read(true)
                .set_exclusive_start_key(from);
            let page = page.send().await.map_err(|error| read_error(error, &self.table))?;
            for item in page.items().iter().filter(|item| is_lease(item)) {
                match lease_from(item) {
                    Ok(lease) => leases.push(lease),
                    // One row that makes no sense must not stop the work on all others.
                    Err(error) => tracing::error!(table = self.table, %error, "a lease row is passed over"),
                }
            }
            from = page.last_evaluated_key().cloned();
            if from.is_none() {
                return Ok(leases);
            }
        }
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, ReadError> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        let got = get.key(LEASE_KEY, AttributeValue::S(key.to_string())).send().await;
        let item = got.map_err(|error| read_error(error, &self.table))?.item;
        item.as_ref().filter(|item| is_lease(item)).map(lease_from).transpose()
    }

    async fn create(&self, lease: &Lease) -> Result<Written<Lease>, WriteError> {
        let item = lease_attributes(lease).map_err(too_large)?;
        let item = item.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        let put = put
            .condition_expression("attribute_not_exists(#key)")
            .expression_attribute_names("#key", LEASE_KEY)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(Written::Applied(lease.clone())),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(lost)) => {
                    Ok(Written::Lost(found(lost.item())))
                }
                _ => Err(write_error(error, &self.table)),
            },
        }
    }

    async fn replace(&self, expected: &Lease, next: &Lease) -> Result<Written<Lease>, WriteError> {
        let before = lease_attributes(expected).map_err(too_large)?;
        let after = lease_attributes(next).map_err(too_large)?;
        let change = change(expected, next, &before, &after);
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(LEASE_KEY, AttributeValue::S(expected.key.to_string()))
            .update_expression(change.update)
            .condition_expression(change.condition)
            .set_expression_attribute_names(Some(change.names.into_iter().collect()))
            .set_expression_attribute_values(Some(change.values.into_iter().collect()))
            .return_values(ReturnValue::AllNew)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match update.send().await {
            Ok(written) => Ok(Written::Applied(found(written.attributes()).unwrap_or_else(|| next.clone()))),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(lost)) => {
                    Ok(Written::Lost(found(lost.item())))
                }
                _ => Err(write_error(error, &self.table)),
            },
        }
    }

    async fn delete(&self, expected: &Lease) -> Result<Written<()>, WriteError> {
        let mut condition = Change::default();
        add_condition(&mut condition, expected);
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(LEASE_KEY, AttributeValue::S(expected.key.to_string()))
            .condition_expression(condition.condition)
            .set_expression_attribute_names(Some(condition.names.into_iter().collect()))
            .set_expression_attribute_values(Some(condition.values.into_iter().collect()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        deleted(delete.send().await, &self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pending, WorkerId};
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};

    #[test]
    fn a_change_sets_only_what_differs_and_is_conditional_on_owner_and_counter() {
        let row = Lease::unowned(ShardId::new("s"), Position::TrimHorizon, LeaseState::starting(None));
        let next = row.taken_by(&WorkerId::new("me"));
        let change = change(&row, &next, &lease_attributes(&row).unwrap(), &lease_attributes(&next).unwrap());
        let set: Vec<&str> = change.names.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(
            set,
            [
                "leaseCounter",
                "leaseOwner",
                "ownerSwitchesSinceCheckpoint",
                "pendingCheckpoint",
                "pendingCheckpointSubSequenceNumber",
                "leaseOwner",
                "leaseCounter"
            ]
        );
        assert_eq!(change.condition, "#counter = :counter AND attribute_not_exists(#owner)");
        assert!(change.update.ends_with("REMOVE #a3, #a4"), "{}", change.update);
    }

    #[test]
    fn a_take_leaves_what_kcl_has_pending_and_the_first_state_of_ours_takes_its_place() {
        let pending = Pending::Foreign { bytes: bytes::Bytes::from_static(b"theirs") };
        let row = Lease::unowned(ShardId::new("s"), Position::TrimHorizon, LeaseState::starting(None));
        let row = Lease { pending, ..row };
        let update = |next: &Lease| {
            let change =
                change(&row, next, &lease_attributes(&row).unwrap(), &lease_attributes(next).unwrap());
            let of_pending = |(_, name): &(String, String)| name.starts_with("pending");
            (change.names.iter().filter(|name| of_pending(name)).count(), change.update.contains("REMOVE"))
        };
        assert_eq!(update(&row.taken_by(&WorkerId::new("me"))), (0, false));
        let announced = row.progressed(row.checkpoint.clone(), LeaseState::starting(None));
        assert_eq!(update(&announced), (3, true));
    }
}
