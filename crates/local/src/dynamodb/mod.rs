//! The embedded DynamoDB: a thin front over dynoxide's typed API.
//!
//! It finds the operation, asks the limits, decodes, calls, accounts, encodes. It knows nothing of items that dynoxide does not
//! know, and of tables only their warm throughput. Calls are synchronous under one lock inside the database, so on a multi-threaded runtime they run in
//! `block_in_place`; on a single-threaded one (simulation) they run inline, which keeps a run repeatable.
//!
//! ```text
//! http.rs       operation's name, faults -> perform -> answer
//!   write.rs, batch.rs   let in, carried out, accounted for
//!   read.rs              carried out, accounted for
//!   tables.rs            made, changed, described
//! gate.rs       the limits, behind a lock; what is known of tables
//!   admission.rs         whether a write fits now        pure
//! items.rs      units, partitions, bytes in items        pure
//! refusal.rs    the service's words
//! witness.rs    what was written, for the journal
//! ```
//!
//! What requests used is kept in a [`Ledger`], which `GET /ledger` shows. Units of secondary indexes count for their table.
//! Items are not expired by their TTL.

mod admission;
mod batch;
mod gate;
mod http;
mod items;
mod read;
mod refusal;
mod tables;
mod witness;
mod write;

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aws_json::Stamp;
use crate::clock::Clock;
use crate::config::LocalError;
use crate::faults::{Faults, Tampering};
use crate::journal::Journal;
use crate::ledger::{Ledger, TableUse};
use crate::limits::DynamoDbLimits;
use crate::time::Moment;
use gate::Gate;
pub use http::dynamodb_router;
use refusal::Refusal;
use tables::Raised;

/// Prefix of `x-amz-target`: the service's API version (AWS DynamoDB API reference, "low-level API").
const TARGET: &str = "DynamoDB_20120810";
/// DynamoDB speaks AWS JSON 1.0.
const CONTENT_TYPE: &str = "application/x-amz-json-1.0";
/// The database's file inside the data folder.
const FILE_NAME: &str = "dynamodb.sqlite";

/// A handle on one embedded DynamoDB; clones share it.
#[derive(Clone)]
pub struct DynamoDb {
    database: Database,
    clock: Arc<dyn Clock>,
    stamp: Arc<Stamp>,
    ledger: Arc<Ledger<TableUse>>,
    gate: Arc<Gate>,
    raised: Arc<Raised>,
    faults: Faults,
    journal: Option<Journal>,
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").finish_non_exhaustive()
    }
}

impl DynamoDb {
    /// An empty database in memory, all of whose times come from `clock`.
    ///
    /// # Errors
    /// SQLite could not be initialised.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, LocalError> {
        let database = Database::memory_with_clock(Arc::new(DatabaseClock(Arc::clone(&clock))))
            .map_err(|source| database_error(Path::new(":memory:"), source))?;
        Ok(Self::over(database, clock))
    }

    /// The database in `dir`, which is made if it is not there. Acknowledged writes survive the death of this process, also by
    /// SIGKILL; they do not survive the death of the machine, because nothing is synced to disk.
    ///
    /// Times inside the database are the machine's; `clock` dates the answers.
    ///
    /// # Errors
    /// The folder cannot be written to, or holds something that is no database.
    pub fn in_folder(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, LocalError> {
        prove_writable(dir)?;
        let path = dir.join(FILE_NAME);
        let open = || {
            let database = Database::new(&path.to_string_lossy())?;
            database.enable_bulk_loading()?; // synchronous = OFF: twice to five times as fast
            Ok(database)
        };
        let database = open().map_err(|source| database_error(&path, source))?;
        Ok(Self::over(database, clock))
    }

    fn over(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self {
            database,
            stamp: Arc::new(Stamp::new(Arc::clone(&clock), CONTENT_TYPE)),
            faults: Faults::none(Arc::clone(&clock)),
            clock,
            ledger: Arc::default(),
            gate: Arc::default(),
            raised: Arc::default(),
            journal: None,
        }
    }

    /// With faults that are shared with others; by itself a DynamoDB has faults of its own, of which there are none yet.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// With a journal of what is written.
    #[must_use]
    pub fn with_journal(self, journal: Option<Journal>) -> Self {
        Self { journal, ..self }
    }

    /// The faults that are injected into requests.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What requests used, by table.
    pub fn ledger(&self) -> &Ledger<TableUse> {
        &self.ledger
    }

    /// What tables are held to now.
    pub fn limits(&self) -> DynamoDbLimits {
        self.gate.limits()
    }

    /// Holds tables to something else from now on.
    pub fn set_limits(&self, limits: DynamoDbLimits) {
        self.gate.set_limits(limits, self.now_ms());
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Carries an operation out for a client of this name.
    fn perform(
        &self,
        operation: &str,
        body: &[u8],
        tampering: &Tampering,
        by: Option<&str>,
    ) -> Result<String, Refusal> {
        let db = &self.database;
        match operation {
            "PutItem" => self.put_item(body, tampering, by),
            "UpdateItem" => self.update_item(body, tampering, by),
            "DeleteItem" => self.delete_item(body, tampering, by),
            "BatchWriteItem" => self.batch_write_item(body, tampering),
            "TransactWriteItems" => self.transact_write_items(body, tampering),
            "GetItem" => self.get_item(body),
            "Query" => self.query(body),
            "Scan" => self.scan(body),
            "BatchGetItem" => self.batch_get_item(body),
            "TransactGetItems" => self.transact_get_items(body),
            "CreateTable" => self.create_table(body),
            "UpdateTable" => self.update_table(body),
            "DeleteTable" => self.delete_table(body),
            "DescribeTable" => self.describe_table(body),
            "ListTables" => run(body, |request| db.list_tables(request)),
            "UpdateTimeToLive" => run(body, |request| db.update_time_to_live(request)),
            "DescribeTimeToLive" => run(body, |request| db.describe_time_to_live(request)),
            "TagResource" => run(body, |request| db.tag_resource(request)),
            "UntagResource" => run(body, |request| db.untag_resource(request)),
            "ListTagsOfResource" => run(body, |request| db.list_tags_of_resource(request)),
            _ => Err(Refusal::UnknownOperation),
        }
    }
}

fn run<Request, Answer>(
    body: &[u8],
    call: impl FnOnce(Request) -> dynoxide::Result<Answer>,
) -> Result<String, Refusal>
where
    Request: DeserializeOwned,
    Answer: Serialize,
{
    Ok(encode(&call(decode(body)?)?)?)
}

fn decode<Request: DeserializeOwned>(body: &[u8]) -> dynoxide::Result<Request> {
    serde_json::from_slice(body).map_err(|error| DynoxideError::SerializationException(error.to_string()))
}

fn encode<Answer: Serialize>(answer: &Answer) -> dynoxide::Result<String> {
    serde_json::to_string(answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// Asks the database to tell what it used; says whether the client did not ask, and so is not to be told.
fn ask_for_capacity(asked: &mut Option<String>) -> bool {
    let hide = asked.as_deref().is_none_or(|asked| asked == "NONE");
    if hide {
        *asked = Some("TOTAL".to_owned());
    }
    hide
}

/// The name of a table that is given by its name or its ARN.
fn table_name(given: &str) -> String {
    given.rsplit_once(":table/").map_or(given, |(_, name)| name).to_owned()
}

fn prove_writable(dir: &Path) -> Result<(), LocalError> {
    let probe = dir.join(".writable");
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&probe, []))
        .and_then(|()| fs::remove_file(&probe))
        .map_err(|source| LocalError::FolderNotWritable { dir: dir.to_path_buf(), source })
}

fn database_error(path: &Path, source: DynoxideError) -> LocalError {
    LocalError::Database { path: path.to_path_buf(), source: Box::new(source) }
}

/// Our clock, as the database wants it.
struct DatabaseClock(Arc<dyn Clock>);

impl dynoxide::storage_backend::Clock for DatabaseClock {
    fn now_unix_secs(&self) -> u64 {
        self.0.now_ms() / 1000
    }

    fn now_unix_secs_f64(&self) -> f64 {
        Moment::from_ms(self.0.now_ms()).epoch_seconds()
    }
}
