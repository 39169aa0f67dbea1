//! Whether the analytics and the dead-letter table are there and fit, and creating them where that is allowed.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription,
    TableStatus, TimeToLiveSpecification,
};
use sluicegate_checkpoint::Retry;
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::{TableError, is_in_use, is_missing, store_error, unbuildable};
use crate::item::names;
use crate::store::StoreError;

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

/// The same for the dead-letter table, which has keys of the same names and types. Letters never expire.
///
/// # Errors
/// See [`TableError`].
pub async fn ensure_letters_table(client: &Client, table: &str, create: bool) -> Result<(), TableError> {
    ensure(client, table, create).await.map(drop)
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
