//! Creates the lease and worker tables, or checks those that are there.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription,
    TableStatus, TimeToLiveSpecification,
};
use sluicegate_checkpoint::Retry;
use sluicegate_checkpoint::recurring::causes;
use thiserror::Error;

use super::error::{Class, class};
use super::rows::{EXPIRES, FLEET, LEASE_KEY, WORKER_ID};
use crate::clock::Clock;

/// Why a table cannot be used.
#[derive(Debug, Error)]
pub enum TableError {
    /// It is not there, and this worker may not or should not create it.
    #[error(
        "table `{table}` does not exist: create it with the infrastructure template, or start once with --create-tables and the right to create tables"
    )]
    Missing {
        /// Its name.
        table: String,
    },
    /// Its keys are not those of our tables.
    #[error(
        "table `{table}` has the keys {found:?}, wanted are {wanted:?}: it belongs to something else, choose another name"
    )]
    OtherKeys {
        /// Its name.
        table: String,
        /// Its keys.
        found: Vec<String>,
        /// The keys it should have.
        wanted: Vec<String>,
    },
    /// The service says no.
    #[error("{what}")]
    Refused {
        /// What is wrong and what to do.
        what: String,
    },
    /// Nobody is there to be asked.
    #[error(
        "table `{table}` could not be reached: are the region, the endpoint and the network right? {why}"
    )]
    Unreachable {
        /// Its name.
        table: String,
        /// What happened.
        why: String,
    },
    /// DynamoDB does not answer for now, or the table is not active yet.
    #[error("table `{table}` cannot be used yet: {why}")]
    NotNow {
        /// Its name.
        table: String,
        /// What happened.
        why: String,
    },
}

impl TableError {
    /// Whether it may be otherwise a moment later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotNow { .. } => Retry::Backoff,
            Self::Missing { .. }
            | Self::OtherKeys { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. } => Retry::Never,
        }
    }
}

/// The worker table that belongs to a lease table.
pub fn worker_table_name(lease_table: &str) -> String {
    format!("{lease_table}-workers")
}

/// Makes sure that both tables are there and have the right keys; creates them (on demand) if `create`.
///
/// *Repeating it*: safe, also by many workers at once.
///
/// # Errors
/// What is wrong with which table, and what to do about it.
pub async fn ensure_tables(
    client: &Client,
    clock: Clock,
    lease_table: &str,
    create: bool,
) -> Result<(), TableError> {
    ensure(client, &clock, lease_table, &[LEASE_KEY], create).await?;
    let workers = worker_table_name(lease_table);
    if ensure(client, &clock, &workers, &[FLEET, WORKER_ID], create).await? {
        expire_rows(client, &workers).await;
    }
    Ok(())
}

/// Waits between looks at a table that is being created (KCL polls every 10 s).
const CREATION_POLL: Duration = Duration::from_millis(200);
/// How often a table is looked at before its creation is called slow: 5 minutes.
const CREATION_POLLS: u32 = 1_500;
/// How long nobody answers where DynamoDB should be before that is a mistake, and no connection that was just lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns whether it created the table.
async fn ensure(
    client: &Client,
    clock: &Clock,
    table: &str,
    keys: &[&str],
    create: bool,
) -> Result<bool, TableError> {
    let (mut created, begun) = (false, clock.now());
    for _ in 0..CREATION_POLLS {
        match describe(client, table).await {
            Ok(Described::Table(description)) if description.table_status() == Some(&TableStatus::Active) => {
                return check_keys(table, keys, &description).map(|()| created);
            }
            Ok(Described::Table(_)) => {}
            Ok(Described::Missing) if create => created |= create_table(client, table, keys).await?,
            Ok(Described::Missing) => return Err(TableError::Missing { table: table.to_owned() }),
            Err(TableError::Unreachable { .. }) if clock.now() < begun + PATIENCE => {}
            // Nobody else gives the table that was created here its time to live.
            Err(error) if created && error.retry() != Retry::Never => {}
            Err(error) => return Err(error),
        }
        clock.sleep(CREATION_POLL).await;
    }
    let why = "it did not become active in five minutes".to_owned();
    Err(TableError::NotNow { table: table.to_owned(), why })
}

/// What DescribeTable told.
enum Described {
    Table(Box<TableDescription>),
    Missing,
}

async fn describe(client: &Client, table: &str) -> Result<Described, TableError> {
    let not_now = |why| TableError::NotNow { table: table.to_owned(), why };
    match client.describe_table().table_name(table).send().await {
        Ok(described) => match described.table {
            Some(table) => Ok(Described::Table(Box::new(table))),
            None => Err(not_now("it was not described".to_owned())),
        },
        Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(Described::Missing),
        Err(error) => Err(match class(&error, table) {
            Class::Refused(what) => TableError::Refused { what },
            Class::Unknown if nobody_there(&error) => {
                TableError::Unreachable { table: table.to_owned(), why: causes(&error) }
            }
            Class::Throttled | Class::Unknown => not_now(causes(&error)),
        }),
    }
}

/// Whether no connection could be made or kept: a name that does not resolve, a port on which nobody listens.
fn nobody_there<E, R>(error: &SdkError<E, R>) -> bool {
    matches!(error, SdkError::DispatchFailure(failure) if failure.is_io())
}

fn check_keys(table: &str, wanted: &[&str], description: &TableDescription) -> Result<(), TableError> {
    let found: Vec<String> =
        description.key_schema().iter().map(|key| key.attribute_name().to_owned()).collect();
    if found == wanted {
        return Ok(());
    }
    let wanted = wanted.iter().map(|key| (*key).to_owned()).collect();
    Err(TableError::OtherKeys { table: table.to_owned(), found, wanted })
}

/// Creates the table; `false` if somebody else is creating it.
async fn create_table(client: &Client, table: &str, keys: &[&str]) -> Result<bool, TableError> {
    let mut request = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
        let element = KeySchemaElement::builder().attribute_name(*name).key_type(kind).build();
        let definition = AttributeDefinition::builder()
            .attribute_name(*name)
            .attribute_type(ScalarAttributeType::S)
            .build();
        let refused =
            |error: aws_sdk_dynamodb::error::BuildError| TableError::Refused { what: error.to_string() };
        request =
            request.key_schema(element.map_err(refused)?).attribute_definitions(definition.map_err(refused)?);
    }
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(false),
        Err(error) if error.code() == Some("AccessDeniedException") => {
            Err(TableError::Missing { table: table.to_owned() })
        }
        Err(error) => match class(&error, table) {
            Class::Refused(what) => Err(TableError::Refused { what }),
            Class::Throttled | Class::Unknown => Ok(false),
        },
    }
}

/// Lets rows of dead workers vanish in the end. Without the right to, they stay: a nuisance, not a fault.
async fn expire_rows(client: &Client, table: &str) {
    let Ok(specification) = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES).build()
    else {
        return;
    };
    let update = client.update_time_to_live().table_name(table).time_to_live_specification(specification);
    if let Err(error) = update.send().await {
        tracing::warn!(table, error = causes(&error), "rows of dead workers will not expire");
    }
}
