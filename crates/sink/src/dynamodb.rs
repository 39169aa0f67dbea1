//! The DynamoDB adapter: the analytics table behind the ports of [`store`](crate::store).
//!
//! Types of the SDK stay in here. The client is handed in with the SDK's own retries off: every attempt is
//! asked for by [`PackingSink`] or [`Reader`](crate::Reader), which count and pace them.
//! Each write asks for the capacity it consumed.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, ReturnConsumedCapacity, WriteRequest};

use crate::governor::units_of;
use crate::item::{Header, Item, ItemKey, RESERVED_PARTITION, SPREAD_ROW, names};
use crate::offload::Offload;
use crate::packing_sink::{PackingSink, PackingSinkOptions};
use crate::store::{HeaderPage, ItemSource, ItemWriter, Page, Query, StoreError, Written};

mod attributes;
mod dead_letters;
mod error;
mod table;

use attributes::{from_sdk, to_sdk};
pub use dead_letters::DynamoDbDeadLetters;
pub use error::TableError;
pub use table::{ensure_letters_table, ensure_table};

/// Name of the attribute that holds the spread count, in the row of that name.
const SPREAD_COUNT: &str = "n";

/// The items of one DynamoDB table.
#[derive(Debug, Clone)]
pub struct DynamoDbItems {
    client: Client,
    table: String,
}

impl DynamoDbItems {
    /// Makes the adapter for a table; nothing is asked of it yet.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    fn keys(pk: &str, sk: &str) -> HashMap<String, AttributeValue> {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        HashMap::from([(names::PARTITION.to_owned(), text(pk)), (names::SORT.to_owned(), text(sk))])
    }
}

/// The sink that packs batches into a DynamoDB table.
pub fn dynamodb_sink(
    client: Client,
    table: impl Into<String>,
    options: PackingSinkOptions,
    offload: Arc<dyn Offload>,
    seed: u64,
) -> PackingSink {
    PackingSink::new(Arc::new(DynamoDbItems::new(client, table)), options, offload, seed)
}

#[async_trait]
impl ItemWriter for DynamoDbItems {
    async fn write(&self, items: &[Arc<Item>]) -> Result<Written, StoreError> {
        let put = |item: &Arc<Item>| {
            let put = PutRequest::builder().set_item(Some(to_sdk(item.to_attributes()))).build();
            put.map(|put| WriteRequest::builder().put_request(put).build())
        };
        let requests = items.iter().map(put).collect::<Result<Vec<_>, _>>().map_err(error::unbuildable)?;
        let call = self.client.batch_write_item().request_items(&self.table, requests);
        let answer = call
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| error::batch_error(error, &self.table))?;
        let consumed = answer.consumed_capacity().iter().filter_map(|capacity| capacity.capacity_units());
        let write_units = consumed.sum();
        // One table was asked for, so whatever name the answer gives it, this is it.
        let unprocessed = answer.unprocessed_items.unwrap_or_default().into_values().flatten();
        let keys: Vec<ItemKey> =
            unprocessed.filter_map(|request| sdk_key(request.put_request()?.item())).collect();
        let again = |item: &Arc<Item>| keys.contains(&item.header.key());
        let unprocessed = if keys.is_empty() {
            Vec::new()
        } else {
            (0..).zip(items).filter(|(_, item)| again(item)).map(|(index, _)| index).collect()
        };
        Ok(Written { unprocessed, write_units })
    }

    /// A put whose condition never holds: DynamoDB validates the item first, so that only what it would store comes as
    /// far as the condition. The answer does not tell what that consumed; it counts as the put would have, because a condition
    /// that does not hold consumes by the size of the item, the stored or the new one (DynamoDB developer guide, "Read and
    /// write operations").
    async fn probe(&self, item: &Item) -> Result<f64, StoreError> {
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(to_sdk(item.to_attributes())))
            .condition_expression("attribute_exists(#pk) AND attribute_not_exists(#pk)")
            .expression_attribute_names("#pk", names::PARTITION);
        match call.send().await {
            Err(error) if error::is_failed_condition(&error) => Ok(units_of(item.bytes())),
            Err(error) => Err(error::put_error(error, &self.table)),
            Ok(_) => Err(StoreError::Refused {
                what: format!("table `{}` takes puts whose condition does not hold", self.table),
                source: "a put under an impossible condition was accepted".into(),
            }),
        }
    }

    async fn raise_spread(&self, count: u32) -> Result<(), StoreError> {
        let call = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(Self::keys(RESERVED_PARTITION, SPREAD_ROW)))
            .update_expression("SET #n = :n")
            .condition_expression("attribute_not_exists(#n) OR #n < :n")
            .expression_attribute_names("#n", SPREAD_COUNT)
            .expression_attribute_values(":n", AttributeValue::N(count.to_string()));
        match call.send().await {
            Ok(_) => Ok(()),
            // The table holds as much or more already.
            Err(error) if error::is_failed_condition(&error) => Ok(()),
            Err(error) => Err(error::store_error(error, &self.table)),
        }
    }
}

#[async_trait]
impl ItemSource for DynamoDbItems {
    async fn query(&self, query: &Query) -> Result<Page, StoreError> {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let start = query.behind.as_ref().map(|sk| Self::keys(&query.pk, sk));
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
            .expression_attribute_values(":pk", text(&query.pk))
            .expression_attribute_values(":from", text(&query.from))
            .expression_attribute_values(":to", text(&query.to))
            .set_exclusive_start_key(start)
            .limit(i32::try_from(query.limit).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(|error| error::store_error(error, &self.table))?;
        let next = answer.last_evaluated_key.as_ref().and_then(sdk_key).map(|key| key.sk);
        let items = answer.items.unwrap_or_default().into_iter();
        let items = items.map(|item| Item::from_attributes(&from_sdk(item))).collect::<Result<_, _>>()?;
        Ok(Page { items, next })
    }

    async fn spread(&self) -> Result<u32, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .consistent_read(true)
            .set_key(Some(Self::keys(RESERVED_PARTITION, SPREAD_ROW)))
            .send()
            .await
            .map_err(|error| error::store_error(error, &self.table))?;
        let count = answer.item().and_then(|item| item.get(SPREAD_COUNT)?.as_n().ok()?.parse().ok());
        Ok(count.unwrap_or(1))
    }

    async fn scan(&self, behind: Option<&ItemKey>) -> Result<HeaderPage, StoreError> {
        let (expression, aliases) = projection(&names::HEADER);
        let answer = self
            .client
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .projection_expression(expression)
            .set_expression_attribute_names(Some(aliases))
            .set_exclusive_start_key(behind.map(|key| Self::keys(&key.pk, &key.sk)))
            .send()
            .await
            .map_err(|error| error::store_error(error, &self.table))?;
        let next = answer.last_evaluated_key.as_ref().and_then(sdk_key);
        let items = answer.items.unwrap_or_default().into_iter().map(from_sdk);
        let events = items.filter(|item| item.text(names::PARTITION) != Some(RESERVED_PARTITION));
        let headers = events.map(|item| Header::from_attributes(&item)).collect::<Result<_, _>>()?;
        Ok(HeaderPage { headers, next })
    }
}

/// A projection of these attributes, and what its placeholders stand for: DynamoDB reserves words, and may come to reserve more.
fn projection(names: &[&str]) -> (String, HashMap<String, String>) {
    let placeholders = names.iter().map(|name| format!("#{name}"));
    let expression = placeholders.clone().collect::<Vec<_>>().join(", ");
    (expression, placeholders.zip(names.iter().map(|name| (*name).to_owned())).collect())
}

/// The keys among attributes.
fn sdk_key(key: &HashMap<String, AttributeValue>) -> Option<ItemKey> {
    let text = |name: &str| key.get(name).and_then(|value| value.as_s().ok()).cloned();
    Some(ItemKey { pk: text(names::PARTITION)?, sk: text(names::SORT)? })
}
