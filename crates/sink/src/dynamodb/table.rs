//! Whether the analytics and the dead-letter table are there and fit, and creating them where that is allowed.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription,
    TableStatus, TimeToLiveSpecification,
};
use sluicegate_checkpoint::Retry;
use tokio::time::Instant;
use tracing::{info, warn};

use super::DynamoDbItems;
use super::error::{TableError, is_in_use, is_missing, store_error, unbuildable};
use crate::item::names;
use crate::store::{CapacityKind, CapacitySource, StoreError, TableCapacity};

/// Time between two looks at a table that is being created.
const POLL: Duration = Duration::from_millis(500);
/// On-demand tables become active within seconds; a minute means that something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for a table that was created here.
const CREATION_PATIENCE: Duration = Duration::from_secs(300);

/// Makes sure that the table exists, is active and has the keys of the item format. With `create`, a missing
/// one is created, billed on demand. Needs no CreateTable right if the table exists.
///
/// # Errors
/// See [`TableError`].
pub async fn ensure_table(client: &Client, table: &str, create: bool) -> Result<(), TableError> {
    let created = ensure(client, table, create).await?;
    if created {
        expire_items(client, table).await;
    }
    Ok(())
}

/// The same for the dead-letter table, which has keys of the same names and types. Letters expire where
/// they say so.
///
/// # Errors
/// See [`TableError`].
pub async fn ensure_letters_table(client: &Client, table: &str, create: bool) -> Result<(), TableError> {
    ensure_table(client, table, create).await
}

/// Returns whether the table is new.
async fn ensure(client: &Client, table: &str, create: bool) -> Result<bool, TableError> {
    let failed =
        |action: &'static str| move |source| TableError::Failed { table: table.to_owned(), action, source };
    let mut created = false;
    let begun = Instant::now();
    let mut found = describe(client, table).await.map_err(failed("described"))?;
    if found.is_none() {
        if !create {
            return Err(TableError::Missing { table: table.to_owned() });
        }
        create_table(client, table).await.map_err(failed("created"))?;
        info!(table, "table created");
        created = true;
    }
    loop {
        if let Some(description) = &found {
            check_keys(table, description)?;
            if usable(description) {
                return Ok(created);
            }
        }
        if begun.elapsed() >= if created { CREATION_PATIENCE } else { PATIENCE } {
            return Err(TableError::NotActive { table: table.to_owned(), status: status(found.as_ref()) });
        }
        tokio::time::sleep(POLL).await;
        match describe(client, table).await {
            Ok(now) => found = now,
            // Nobody else gives the table that was created here its time to live.
            Err(error) if created && error.retry() != Retry::Never => {}
            Err(error) => return Err(failed("described")(error)),
        }
    }
}

async fn describe(client: &Client, table: &str) -> Result<Option<TableDescription>, StoreError> {
    match client.describe_table().table_name(table).send().await {
        Ok(answer) => Ok(answer.table),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(store_error(error, table)),
    }
}

async fn create_table(client: &Client, table: &str) -> Result<(), StoreError> {
    let mut call = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [(names::PARTITION, KeyType::Hash), (names::SORT, KeyType::Range)] {
        let attribute =
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        let key = KeySchemaElement::builder().attribute_name(name).key_type(kind);
        call = call
            .attribute_definitions(attribute.build().map_err(unbuildable)?)
            .key_schema(key.build().map_err(unbuildable)?);
    }
    match call.send().await {
        Ok(_) => Ok(()),
        // Another worker was quicker.
        Err(error) if is_in_use(&error) => Ok(()),
        Err(error) => Err(store_error(error, table)),
    }
}

/// Lets items with an expiry vanish. Without the right to, they stay.
async fn expire_items(client: &Client, table: &str) {
    let specification =
        TimeToLiveSpecification::builder().enabled(true).attribute_name(names::EXPIRES).build();
    let Ok(specification) = specification else { return };
    let update = client.update_time_to_live().table_name(table).time_to_live_specification(specification);
    if let Err(error) = update.send().await {
        warn!(table, %error, "items will not expire: enable time to live on the attribute `t`");
    }
}

/// What a description says of the capacity for writes: provisioned, the maximum set on demand, or what is warm.
pub(super) fn capacity(description: &TableDescription) -> Option<TableCapacity> {
    let units =
        |units: Option<i64>| units.and_then(|units| u64::try_from(units).ok()).filter(|units| *units > 0);
    let of = |kind| move |units| TableCapacity { units, kind };
    let provisioned = description.provisioned_throughput().and_then(|given| given.write_capacity_units());
    // -1 stands for no maximum.
    let maximum = description.on_demand_throughput().and_then(|given| given.max_write_request_units());
    let warm = description.warm_throughput().and_then(|given| given.write_units_per_second());
    units(provisioned)
        .map(of(CapacityKind::Provisioned))
        .or_else(|| units(maximum).map(of(CapacityKind::OnDemandMaximum)))
        .or_else(|| units(warm).map(of(CapacityKind::WarmThroughput)))
}

#[async_trait]
impl CapacitySource for DynamoDbItems {
    async fn capacity(&self) -> Result<Option<TableCapacity>, StoreError> {
        Ok(describe(&self.client, &self.table).await?.as_ref().and_then(capacity))
    }
}

/// Updating a table does not stop reads and writes.
fn usable(description: &TableDescription) -> bool {
    matches!(description.table_status(), Some(TableStatus::Active | TableStatus::Updating))
}

fn status(description: Option<&TableDescription>) -> String {
    description.and_then(TableDescription::table_status).map_or("absent", TableStatus::as_str).to_owned()
}

fn check_keys(table: &str, description: &TableDescription) -> Result<(), TableError> {
    let type_of = |name: &str| {
        let attribute = description.attribute_definitions().iter().find(|a| a.attribute_name() == name);
        attribute.map_or("?", |attribute| attribute.attribute_type().as_str())
    };
    let key = |element: &KeySchemaElement| {
        let name = element.attribute_name();
        format!("{name} ({}, {})", type_of(name), element.key_type().as_str().to_lowercase())
    };
    let keys: Vec<String> = description.key_schema().iter().map(key).collect();
    if keys == ["pk (S, hash)", "sk (S, range)"] {
        return Ok(());
    }
    Err(TableError::KeySchema { table: table.to_owned(), found: keys.join(", ") })
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{
        OnDemandThroughput, ProvisionedThroughputDescription, TableWarmThroughputDescription,
    };

    use super::*;

    #[test]
    fn a_description_says_what_a_table_gives() {
        let provisioned =
            |units| ProvisionedThroughputDescription::builder().write_capacity_units(units).build();
        let warm = TableWarmThroughputDescription::builder().write_units_per_second(4_000).build();
        let maximum = |units| OnDemandThroughput::builder().max_write_request_units(units).build();
        let described = TableDescription::builder().warm_throughput(warm);
        let told = |units, kind| Some(TableCapacity { units, kind });
        assert_eq!(capacity(&TableDescription::builder().build()), None);
        // On demand the provisioned units are 0.
        let on_demand = described.clone().provisioned_throughput(provisioned(0));
        assert_eq!(capacity(&on_demand.clone().build()), told(4_000, CapacityKind::WarmThroughput));
        let unbounded = on_demand.clone().on_demand_throughput(maximum(-1));
        assert_eq!(capacity(&unbounded.build()), told(4_000, CapacityKind::WarmThroughput));
        let bounded = on_demand.on_demand_throughput(maximum(700));
        assert_eq!(capacity(&bounded.build()), told(700, CapacityKind::OnDemandMaximum));
        let bought = described.provisioned_throughput(provisioned(1_500));
        assert_eq!(capacity(&bought.build()), told(1_500, CapacityKind::Provisioned));
    }
}
