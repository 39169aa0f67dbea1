//! The dead-letter table in DynamoDB.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use sluicegate_checkpoint::ArrivalMillis;

use super::attributes::{from_sdk, to_sdk};
use super::{error, projection, sdk_key};
use crate::dead_letter::{DeadLetters, Letter, LetterHeader, LetterId, LetterPage, names};
use crate::item::{Attributes, ItemKey};
use crate::store::StoreError;

/// The letters of one DynamoDB table.
#[derive(Debug, Clone)]
pub struct DynamoDbDeadLetters {
    client: Client,
    table: String,
}

impl DynamoDbDeadLetters {
    /// Makes the adapter for a table; nothing is asked of it yet.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    fn key(key: ItemKey) -> HashMap<String, AttributeValue> {
        let ItemKey { pk, sk } = key;
        HashMap::from([
            (names::PARTITION.to_owned(), AttributeValue::S(pk)),
            (names::SORT.to_owned(), AttributeValue::S(sk)),
        ])
    }

    /// The items of a letter, in order: of each what the expression names (`#pk`, `#sk`), or all of it.
    async fn items_of(
        &self,
        id: &LetterId,
        projection: Option<&str>,
    ) -> Result<Vec<HashMap<String, AttributeValue>>, StoreError> {
        let (mut items, mut start) = (Vec::new(), None);
        loop {
            let answer = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .set_projection_expression(projection.map(ToOwned::to_owned))
                .key_condition_expression("#pk = :pk AND begins_with(#sk, :sk)")
                .expression_attribute_names("#pk", names::PARTITION)
                .expression_attribute_names("#sk", names::SORT)
                .expression_attribute_values(":pk", AttributeValue::S(id.shard.to_string()))
                .expression_attribute_values(":sk", AttributeValue::S(id.sort_prefix()))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| error::store_error(error, &self.table))?;
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// Stores an item unless there is one under its key; returns whether it is new.
    async fn put_if_absent(&self, item: Attributes) -> Result<bool, StoreError> {
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(to_sdk(item)))
            .condition_expression("attribute_not_exists(#pk)")
            .expression_attribute_names("#pk", names::PARTITION);
        match call.send().await {
            Ok(_) => Ok(true),
            Err(error) if error::is_failed_condition(&error) => Ok(false),
            Err(error) => Err(error::store_error(error, &self.table)),
        }
    }
}

#[async_trait]
impl DeadLetters for DynamoDbDeadLetters {
    /// The first item last: where it is, the others are.
    async fn put(&self, letter: &Letter) -> Result<bool, StoreError> {
        let mut new = false;
        for item in letter.to_items().into_iter().rev() {
            new = self.put_if_absent(item).await?;
        }
        Ok(new)
    }

    /// Only first items have a number of parts; the others are examined, and not sent.
    async fn list(&self, behind: Option<&ItemKey>) -> Result<LetterPage, StoreError> {
        let (expression, aliases) = projection(&names::HEADER);
        let answer = self
            .client
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .projection_expression(expression)
            .filter_expression("attribute_exists(#parts)")
            .set_expression_attribute_names(Some(aliases))
            .set_exclusive_start_key(behind.cloned().map(Self::key))
            .send()
            .await
            .map_err(|error| error::store_error(error, &self.table))?;
        let letters = answer.items.unwrap_or_default().into_iter().map(from_sdk);
        let letters = letters.map(|item| LetterHeader::from_attributes(&item)).collect::<Result<_, _>>()?;
        let next = answer.last_evaluated_key.as_ref().and_then(sdk_key);
        Ok(LetterPage { letters, next })
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<Letter>, StoreError> {
        let items: Vec<Attributes> = self.items_of(id, None).await?.into_iter().map(from_sdk).collect();
        // Without its first item a letter is still being put.
        let is_head = |item: &Attributes| item.text(names::SORT) == Some(&id.sort_key(1));
        if !items.first().is_some_and(is_head) {
            return Ok(None);
        }
        Ok(Some(Letter::from_items(&items)?))
    }

    /// The first item last: until then the letter is listed, so that a purge that was interrupted finds it again.
    async fn delete(&self, id: &LetterId) -> Result<bool, StoreError> {
        let items = self.items_of(id, Some("#pk, #sk")).await?;
        let keys: Vec<ItemKey> = items.iter().filter_map(sdk_key).collect();
        let head = id.head_key();
        let is_there = keys.first() == Some(&head);
        for key in keys.into_iter().rev() {
            let call = self.client.delete_item().table_name(&self.table).set_key(Some(Self::key(key)));
            call.send().await.map_err(|error| error::store_error(error, &self.table))?;
        }
        Ok(is_there)
    }

    async fn mark_redriven(&self, id: &LetterId, at: ArrivalMillis) -> Result<bool, StoreError> {
        let call = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(Self::key(id.head_key())))
            .update_expression("SET #at = :at")
            .condition_expression("attribute_exists(#pk) AND attribute_not_exists(#at)")
            .expression_attribute_names("#pk", names::PARTITION)
            .expression_attribute_names("#at", names::REDRIVEN_AT)
            .expression_attribute_values(":at", AttributeValue::N(at.0.to_string()));
        match call.send().await {
            Ok(_) => Ok(true),
            Err(error) if error::is_failed_condition(&error) => Ok(false),
            Err(error) => Err(error::store_error(error, &self.table)),
        }
    }
}
