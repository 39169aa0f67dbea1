//! The worker table in DynamoDB: hash `fleet`, range `workerId`; the row `~start` holds the fixed start, a row
//! `~drain#<worker id>` asks that worker to leave, `~rate` keeps what throttling had taught the last one that left.

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};

use super::error::{deleted, read_error, write_error};
use super::rows::{
    Attributes, FLEET, FleetRow, HEARTBEAT, Item, WORKER_ID, fleet_row_from, learned_attributes, number,
    request_attributes, request_key, start_attributes, start_from, worker_attributes, worker_from,
};
use crate::fleet::WorkerRow;
use crate::model::WorkerId;
use crate::registry::{FleetRows, LearnedRate, RecordedStart, WorkerRegistry};
use crate::store::{ReadError, WriteError, Written};

/// The worker rows of one fleet.
#[derive(Debug, Clone)]
pub struct DynamoRegistry {
    client: Client,
    table: String,
    fleet: String,
}

impl DynamoRegistry {
    /// Works on a table through a client whose own retries are off. `fleet` is the application's name.
    pub fn new(client: Client, table: impl Into<String>, fleet: impl Into<String>) -> Self {
        Self { client, table: table.into(), fleet: fleet.into() }
    }
}

impl DynamoRegistry {
    /// Keeps what was learned, over what others had. Only a start is a little slower or faster without it, so a failure is
    /// no reason to stay.
    async fn keep(&self, learned: LearnedRate, expires: i64) {
        let item = owned(learned_attributes(&self.fleet, learned, expires));
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        if let Err(error) = put.send().await {
            let error = write_error(error, &self.table);
            tracing::warn!(%error, "the learned write rate was not kept for the next start");
        }
    }
}

fn owned(attributes: Attributes) -> Item {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn unreadable(error: ReadError) -> WriteError {
    WriteError::Refused { what: error.to_string(), source: Box::new(error) }
}

#[async_trait]
impl WorkerRegistry for DynamoRegistry {
    async fn fix_start(&self, start: &RecordedStart) -> Result<RecordedStart, WriteError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(owned(start_attributes(&self.fleet, start))))
            .condition_expression("attribute_not_exists(#id)")
            .expression_attribute_names("#id", WORKER_ID)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(start.clone()),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(fixed)) => fixed
                    .item()
                    .map_or_else(|| Ok(start.clone()), |item| start_from(item).map_err(unreadable)),
                _ => Err(write_error(error, &self.table)),
            },
        }
    }

    async fn fleet(&self) -> Result<FleetRows, ReadError> {
        let mut rows = FleetRows::default();
        let mut from = None;
        loop {
            let page = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("#fleet = :fleet")
                .expression_attribute_names("#fleet", FLEET)
                .expression_attribute_values(":fleet", AttributeValue::S(self.fleet.clone()))
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| read_error(error, &self.table))?;
            for item in page.items() {
                match fleet_row_from(item) {
                    Ok(FleetRow::Worker(row)) => rows.workers.push(row),
                    Ok(FleetRow::RequestToLeave(worker)) => {
                        rows.asked_to_leave.insert(worker);
                    }
                    Ok(FleetRow::Learned(learned)) => rows.learned = Some(learned),
                    Ok(FleetRow::Other) => {}
                    Err(error) => tracing::error!(table = self.table, %error, "a worker row is passed over"),
                }
            }
            from = page.last_evaluated_key().cloned();
            if from.is_none() {
                return Ok(rows);
            }
        }
    }

    async fn workers(&self) -> Result<Vec<WorkerRow>, ReadError> {
        Ok(self.fleet().await?.workers)
    }

    async fn heartbeat(
        &self,
        expected: Option<u64>,
        row: &WorkerRow,
    ) -> Result<Written<WorkerRow>, WriteError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(owned(worker_attributes(&self.fleet, row))))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .expression_attribute_names("#heartbeat", HEARTBEAT);
        let put = match expected {
            None => put.condition_expression("attribute_not_exists(#heartbeat)"),
            Some(heartbeat) => put
                .condition_expression("#heartbeat = :heartbeat")
                .expression_attribute_values(":heartbeat", number(heartbeat)),
        };
        match put.send().await {
            Ok(_) => Ok(Written::Applied(row.clone())),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(lost)) => {
                    lost.item().map(worker_from).transpose().map(Written::Lost).map_err(unreadable)
                }
                _ => Err(write_error(error, &self.table)),
            },
        }
    }

    async fn retire(&self, row: &WorkerRow) -> Result<Written<()>, WriteError> {
        if let Some(learned) = row.learned() {
            self.keep(learned, row.expires).await;
        }
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(FLEET, AttributeValue::S(self.fleet.clone()))
            .key(WORKER_ID, AttributeValue::S(row.worker_id.to_string()))
            .condition_expression("#heartbeat = :heartbeat")
            .expression_attribute_names("#heartbeat", HEARTBEAT)
            .expression_attribute_values(":heartbeat", number(row.heartbeat))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        deleted(delete.send().await, &self.table)
    }

    async fn ask_to_leave(&self, worker: &WorkerId, expires: i64) -> Result<(), WriteError> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(owned(request_attributes(
            &self.fleet,
            worker,
            expires,
        ))));
        put.send().await.map(drop).map_err(|error| write_error(error, &self.table))
    }

    async fn withdraw_request(&self, worker: &WorkerId) -> Result<(), WriteError> {
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(FLEET, AttributeValue::S(self.fleet.clone()))
            .key(WORKER_ID, request_key(worker));
        delete.send().await.map(drop).map_err(|error| write_error(error, &self.table))
    }
}
