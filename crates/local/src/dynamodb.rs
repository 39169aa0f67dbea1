//! The embedded DynamoDB: a thin front over dynoxide's typed API.
//!
//! Decides nothing about tables and items; it finds the operation, decodes, calls, encodes. Calls are synchronous under one
//! lock inside the database, so on a multi-threaded runtime they run in `block_in_place`; on a single-threaded one (simulation)
//! they run inline, which keeps a run repeatable.
//!
//! What requests consumed is kept in a [`Ledger`], which `GET /ledger` shows: an account from outside of the software
//! under test, that does not die with a killed worker.
//!
//! To come, each in [`DynamoDb::perform`], between the operation's name and the call: throttling per table and key,
//! `UnprocessedItems`. Items are not expired by their TTL.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE as CONTENT_TYPE_HEADER;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use axum::routing::get;
use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::aws_json::{self, BODY_LIMIT_BYTES, Stamp};
use crate::clock::Clock;
use crate::config::LocalError;
use crate::ledger::Ledger;
use crate::time::Moment;

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
    stamp: Arc<Stamp>,
    ledger: Arc<Ledger>,
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
        Self { database, stamp: Arc::new(Stamp::new(clock, CONTENT_TYPE)), ledger: Arc::default() }
    }

    /// What requests that asked for it consumed, by table.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn perform(&self, operation: &str, body: &[u8]) -> Result<String, Refusal> {
        let db = &self.database;
        match operation {
            "CreateTable" => run(body, |request| db.create_table(request)),
            "DescribeTable" => run(body, |request| db.describe_table(request)),
            "UpdateTable" => run(body, |request| db.update_table(request)),
            "DeleteTable" => run(body, |request| db.delete_table(request)),
            "ListTables" => run(body, |request| db.list_tables(request)),
            "PutItem" => run(body, |request| db.put_item(request)),
            "GetItem" => run(body, |request| db.get_item(request)),
            "UpdateItem" => run(body, |request| db.update_item(request)),
            "DeleteItem" => run(body, |request| db.delete_item(request)),
            "Query" => run(body, |request| db.query(request)),
            "Scan" => run(body, |request| db.scan(request)),
            "BatchGetItem" => run(body, |request| db.batch_get_item(request)),
            "BatchWriteItem" => run(body, |request| db.batch_write_item(request)),
            "TransactGetItems" => run(body, |request| db.transact_get_items(request)),
            "TransactWriteItems" => run(body, |request| db.transact_write_items(request)),
            "UpdateTimeToLive" => run(body, |request| db.update_time_to_live(request)),
            "DescribeTimeToLive" => run(body, |request| db.describe_time_to_live(request)),
            "TagResource" => run(body, |request| db.tag_resource(request)),
            "UntagResource" => run(body, |request| db.untag_resource(request)),
            "ListTagsOfResource" => run(body, |request| db.list_tags_of_resource(request)),
            _ => Err(Refusal::UnknownOperation),
        }
    }
}

/// The embedded DynamoDB as a router: every path, `POST`, the operation in `x-amz-target`.
pub fn dynamodb_router(dynamodb: DynamoDb) -> Router {
    Router::new()
        .route("/ledger", get(ledger))
        .fallback(answer)
        .with_state(dynamodb)
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
}

async fn ledger(State(db): State<DynamoDb>) -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE_HEADER, "application/json")], db.ledger.to_json())
}

type Answered = std::future::Ready<Response>;

#[expect(clippy::needless_pass_by_value, reason = "axum hands extractors over by value")]
fn answer(State(db): State<DynamoDb>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Answered {
    let (status, text) = match &body {
        Ok(body) => match aws_json::operation(&headers, TARGET) {
            Some(operation) => {
                let outcome = without_starving_others(|| db.perform(operation, body));
                if let Ok(text) = &outcome {
                    db.ledger.note(operation, text);
                }
                reply(outcome)
            }
            None => reply(Err(Refusal::UnknownOperation)),
        },
        Err(rejection) => aws_json::unreadable_body(rejection),
    };
    std::future::ready(db.stamp.answer(status, text))
}

/// Why an operation gave no result.
enum Refusal {
    UnknownOperation,
    Refused(Box<DynoxideError>),
}

fn reply(outcome: Result<String, Refusal>) -> (StatusCode, String) {
    match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(Refusal::UnknownOperation) => {
            let body = aws_json::error_body("com.amazon.coral.service#UnknownOperationException", "");
            (StatusCode::BAD_REQUEST, body)
        }
        Err(Refusal::Refused(error)) => {
            let status = StatusCode::from_u16(error.status_code());
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error.to_json())
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
    let decode = |error: serde_json::Error| DynoxideError::SerializationException(error.to_string());
    let encode = |error: serde_json::Error| DynoxideError::InternalServerError(error.to_string());
    serde_json::from_slice(body)
        .map_err(decode)
        .and_then(call)
        .and_then(|answer| serde_json::to_string(&answer).map_err(encode))
        .map_err(|error| Refusal::Refused(Box::new(error)))
}

/// Lets the runtime move other tasks off this thread while the database works, where the runtime can do so.
fn without_starving_others<T>(work: impl FnOnce() -> T) -> T {
    let many_threads = Handle::try_current()
        .is_ok_and(|handle| matches!(handle.runtime_flavor(), RuntimeFlavor::MultiThread));
    if many_threads { tokio::task::block_in_place(work) } else { work() }
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
