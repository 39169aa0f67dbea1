//! The routers of the local backend, called as a function: a request in, its answer out, nothing awaited.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use sluicegate_checkpoint::{HashKeyRange, SequenceNumber, ShardId};
use sluicegate_lease::Shard;
use sluicegate_lease::dynamodb::worker_table_name;
use sluicegate_local::{DynamoDb, Kinesis, KinesisConfig, TokioClock, dynamodb_router, kinesis_router};
use sluicegate_sink::item::names;
use tower::ServiceExt;

use super::super::fleet::APPLICATION;
use super::super::script::{BEGIN_MS, Service};
use super::super::stream::SimStream;

/// The stream's name.
pub const STREAM: &str = "events";

/// The worker table's name.
pub(super) fn workers_table() -> String {
    worker_table_name(APPLICATION)
}

/// The analytics table's name.
pub(super) fn items_table() -> String {
    format!("{APPLICATION}-events")
}

/// The dead-letter table's name.
pub(super) fn letters_table() -> String {
    format!("{APPLICATION}-dead-letters")
}

/// A request to one of the services.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// What is asked.
    pub(super) service: Service,
    /// Name of the operation.
    pub(super) operation: String,
    /// As the client set them.
    pub(super) headers: HeaderMap,
    /// As JSON.
    pub(super) body: Value,
}

/// Kinesis and DynamoDB with the tables and the stream of a simulation.
#[derive(Debug)]
pub struct Backend {
    kinesis: axum::Router,
    dynamodb: axum::Router,
}

impl Backend {
    /// An empty stream of so many shards and empty tables, at the beginning of time.
    pub(super) fn start(shards: u32, iterator_lifetime: Duration) -> Self {
        let begin = u64::try_from(BEGIN_MS).unwrap_or_default();
        let clock: Arc<TokioClock> = Arc::new(TokioClock::starting_at(begin));
        let config = KinesisConfig { token_lifetime: iterator_lifetime, ..KinesisConfig::default() };
        let Ok(dynamodb) = DynamoDb::in_memory(Arc::clone(&clock) as _) else {
            unreachable!("a database in memory can be made")
        };
        let backend = Self {
            kinesis: kinesis_router(Kinesis::new(config, clock)),
            dynamodb: dynamodb_router(dynamodb),
        };
        backend.ask("CreateStream", json!({ "StreamName": STREAM, "ShardCount": shards }));
        backend.create_table(APPLICATION, &["leaseKey"]);
        backend.create_table(&workers_table(), &["fleet", "workerId"]);
        for table in [items_table(), letters_table()] {
            backend.create_table(&table, &[names::PARTITION, names::SORT]);
        }
        backend
    }

    /// Carries a request out.
    pub(super) fn call(&self, call: &Call) -> Response<Bytes> {
        let router = match call.service {
            Service::Stream => self.kinesis.clone(),
            Service::Leases | Service::Workers | Service::Items => self.dynamodb.clone(),
        };
        let mut request = Request::post("/").body(Full::new(Bytes::from(call.body.to_string())));
        if let Ok(request) = &mut request {
            request.headers_mut().clone_from(&call.headers);
        }
        let Ok(request) = request else { unreachable!("a POST to the root is a request") };
        at_once(router, request)
    }

    /// Limits the analytics table to so many write units a second, with one second of depth.
    pub(super) fn limit(&self, units: f64) {
        let table = items_table();
        let document = format!("burst_seconds = 1\n[tables.{table}]\nwcu = {}\n", units.round().max(1.0));
        let request = Request::post("/limits").body(Full::new(Bytes::from(document)));
        let answer = request.ok().map(|request| at_once(self.dynamodb.clone(), request));
        let taken = answer.is_some_and(|answer| answer.status().is_success());
        assert!(taken, "the local backend takes limits");
    }

    /// Puts a Kinesis record; tells where it went.
    pub(super) fn put(&self, key: &str, data: &[u8]) -> (ShardId, SequenceNumber) {
        let data = aws_smithy_types::base64::encode(data);
        let put = json!({ "StreamName": STREAM, "PartitionKey": key, "Data": data });
        let answer = self.ask("PutRecord", put);
        let number = SequenceNumber::parse(text(&answer["SequenceNumber"]));
        let Ok(number) = number else { unreachable!("the answer names the number: {answer}") };
        (ShardId::new(text(&answer["ShardId"])), number)
    }

    /// Splits an open shard in the middle, if it is wide enough.
    pub(super) fn split(&self, stream: &mut SimStream, id: &ShardId) {
        let Some(shard) = stream.shards().get(id).filter(|shard| !shard.listed.closed) else { return };
        let range = shard.listed.hash_range;
        if range.end - range.start < 2 {
            return;
        }
        let middle = range.start + (range.end - range.start) / 2;
        let (shard, at) = (id.as_str(), (middle + 1).to_string());
        let split = json!({ "StreamName": STREAM, "ShardToSplit": shard, "NewStartingHashKey": at });
        self.ask("SplitShard", split);
        self.list(stream);
    }

    /// Merges an open shard with its right neighbour, if it has one.
    pub(super) fn merge(&self, stream: &mut SimStream, id: &ShardId) {
        let open = stream.open();
        let Some(at) = open.iter().position(|open| open == id) else { return };
        let Some(right) = open.get(at + 1) else { return };
        let (left, right) = (id.as_str(), right.as_str());
        let merge = json!({ "StreamName": STREAM, "ShardToMerge": left, "AdjacentShardToMerge": right });
        self.ask("MergeShards", merge);
        self.list(stream);
    }

    /// The stream as it is: its shards, without records.
    pub(super) fn stream(&self) -> SimStream {
        let mut stream = SimStream::default();
        self.list(&mut stream);
        stream
    }

    /// Notes all shards in `stream`.
    fn list(&self, stream: &mut SimStream) {
        let answer = self.ask("ListShards", json!({ "StreamName": STREAM }));
        let shards = answer["Shards"].as_array().into_iter().flatten();
        shards.for_each(|shard| stream.listed(listed(shard)));
    }

    fn create_table(&self, table: &str, keys: &[&str]) {
        let kinds = ["HASH", "RANGE"];
        let schema: Vec<Value> = keys
            .iter()
            .zip(kinds)
            .map(|(key, kind)| json!({ "AttributeName": key, "KeyType": kind }))
            .collect();
        let attributes: Vec<Value> =
            keys.iter().map(|key| json!({ "AttributeName": key, "AttributeType": "S" })).collect();
        let body = json!({
            "TableName": table,
            "KeySchema": schema,
            "AttributeDefinitions": attributes,
            "BillingMode": "PAY_PER_REQUEST",
        });
        self.succeed(&Call::of(Service::Items, "CreateTable", body));
    }

    /// Asks Kinesis for what it cannot refuse.
    fn ask(&self, operation: &str, body: Value) -> Value {
        self.succeed(&Call::of(Service::Stream, operation, body))
    }

    fn succeed(&self, call: &Call) -> Value {
        let answer = self.call(call);
        let body = String::from_utf8_lossy(answer.body());
        assert!(answer.status().is_success(), "{}: {body}", call.operation);
        serde_json::from_str(&body).unwrap_or_default()
    }
}

/// The routers wait for nothing, so that what they did and what was noted of it are one step.
fn at_once(router: axum::Router, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let answering = async move {
        let (parts, body) = router.oneshot(request).await.ok()?.into_parts();
        Some(Response::from_parts(parts, body.collect().await.ok()?.to_bytes()))
    };
    match pin!(answering).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(answer)) => answer,
        Poll::Ready(None) | Poll::Pending => unreachable!("the local backend answers at once"),
    }
}

impl Call {
    /// A call that no client made.
    pub(super) fn of(service: Service, operation: &str, body: Value) -> Self {
        let api = match service {
            Service::Stream => "Kinesis_20131202",
            Service::Leases | Service::Workers | Service::Items => "DynamoDB_20120810",
        };
        let mut headers = HeaderMap::new();
        if let Ok(target) = format!("{api}.{operation}").parse() {
            headers.insert("x-amz-target", target);
        }
        Self { service, operation: operation.to_owned(), headers, body }
    }

    /// Whether it changes anything.
    pub(super) fn writes(&self) -> bool {
        matches!(self.operation.as_str(), "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem")
    }
}

/// One entry of ListShards.
fn listed(shard: &Value) -> Shard {
    let parents = ["ParentShardId", "AdjacentParentShardId"].map(|name| shard[name].as_str());
    let key = |name: &str| text(&shard["HashKeyRange"][name]).parse().unwrap_or_default();
    Shard {
        id: ShardId::new(text(&shard["ShardId"])),
        parents: parents.into_iter().flatten().map(ShardId::new).collect(),
        hash_range: HashKeyRange { start: key("StartingHashKey"), end: key("EndingHashKey") },
        closed: shard["SequenceNumberRange"]["EndingSequenceNumber"].is_string(),
    }
}

/// A text; empty if it is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
