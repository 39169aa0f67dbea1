//! Tries every call that a worker makes, on the real stream and tables, without changing anything: writes have a condition
//! that cannot hold, and what is deleted was never there.

use std::fmt;
use std::future::Future;

use aws_sdk_dynamodb::Client as DynamoDb;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use aws_sdk_kinesis::Client as Kinesis;
use aws_sdk_kinesis::types::ShardIteratorType;
use serde::Serialize;

use super::policy::Names;

/// A key that no worker and no event has.
const NOBODY: &str = "~sluicegate-preflight";

/// What came of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "why")]
pub(super) enum Verdict {
    /// It is allowed.
    Allowed,
    /// The role may not.
    Denied,
    /// The stream or table is not there (or hidden from the role).
    Absent,
    /// It needs the answer of this call, which there is not.
    NotTried(&'static str),
    /// Something else went wrong.
    Failed(String),
}

/// One call tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Tried {
    /// As IAM has it: `dynamodb:PutItem`.
    pub(super) action: String,
    /// Stream or table.
    pub(super) on: String,
    #[serde(flatten)]
    pub(super) verdict: Verdict,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, on, verdict } = self;
        match verdict {
            Verdict::Allowed => write!(f, "allowed {action} on {on}"),
            Verdict::Denied => write!(
                f,
                "MISSING {action} on {on}: allow it in the worker's role (`sluicegate check --policy`)"
            ),
            Verdict::Absent => write!(
                f,
                "ABSENT  {on} ({action}): create it (deploy/cloudformation), or check name and region"
            ),
            Verdict::NotTried(needs) => write!(f, "not tried: {action} on {on}: needs {needs}"),
            Verdict::Failed(why) => write!(f, "FAILED  {action} on {on}: {why}"),
        }
    }
}

/// What a call that came too often says: of Kinesis, of DynamoDB, of both.
const THROTTLED: &[&str] = &[
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
];

/// What an error says, by its code; a condition that did not hold, and how often calls came, were looked at after the
/// permission.
fn verdict(code: Option<&str>, message: impl FnOnce() -> String) -> Verdict {
    match code {
        Some("ConditionalCheckFailedException") => Verdict::Allowed,
        Some(code) if THROTTLED.contains(&code) => Verdict::Allowed,
        Some("AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation") => Verdict::Denied,
        Some("ResourceNotFoundException") => Verdict::Absent,
        Some(_) | None => Verdict::Failed(message()),
    }
}

async fn tried<T, E, R>(
    action: &str,
    on: &str,
    call: impl Future<Output = Result<T, SdkError<E, R>>>,
) -> (Tried, Option<T>)
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: fmt::Debug + Send + Sync + 'static,
{
    let (verdict, found) = match call.await {
        Ok(found) => (Verdict::Allowed, Some(found)),
        Err(error) => {
            let code = error.as_service_error().and_then(ProvideErrorMetadata::code).map(str::to_owned);
            let message = || crate::exit::one_line(&anyhow::Error::new(error));
            (verdict(code.as_deref(), message), None)
        }
    };
    (Tried { action: action.to_owned(), on: on.to_owned(), verdict }, found)
}

/// Every call of the policy, in its order.
pub(super) async fn preflight(kinesis: &Kinesis, dynamodb: &DynamoDb, names: &Names) -> Vec<Tried> {
    let mut all = stream(kinesis, &names.stream).await;
    let of = |table: &str| Table { client: dynamodb.clone(), name: table.to_owned() };
    let leases = (of(&names.leases), vec![("leaseKey", NOBODY)]);
    let workers = (of(&names.workers), vec![("fleet", NOBODY), ("workerId", NOBODY)]);
    let events = (of(&names.events), vec![("pk", NOBODY), ("sk", NOBODY)]);
    let letters = (of(&names.letters), vec![("pk", NOBODY), ("sk", NOBODY)]);
    let tables = [
        (leases, super::policy::LEASES),
        (workers, super::policy::WORKERS),
        (events, super::policy::EVENTS),
        (letters, super::policy::LETTERS),
    ];
    for ((table, key), calls) in tables {
        for call in calls {
            all.push(table.call(call, &key).await);
        }
    }
    all
}

const LIST: &str = "kinesis:ListShards";
const ITERATE: &str = "kinesis:GetShardIterator";
const READ: &str = "kinesis:GetRecords";

async fn stream(client: &Kinesis, stream: &str) -> Vec<Tried> {
    let (name, arn) = if stream.starts_with("arn:") { (None, Some(stream)) } else { (Some(stream), None) };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let not_tried = |action: &str, needs| Tried {
        action: action.to_owned(),
        on: stream.to_owned(),
        verdict: Verdict::NotTried(needs),
    };
    let described = client.describe_stream_summary().set_stream_name(owned(name)).set_stream_arn(owned(arn));
    let (described, _) = tried("kinesis:DescribeStreamSummary", stream, described.send()).await;
    let listed = client.list_shards().set_stream_name(owned(name)).set_stream_arn(owned(arn)).max_results(1);
    let (listed, shards) = tried(LIST, stream, listed.send()).await;
    let mut all = vec![described, listed];
    let shards = shards.map(|answer| answer.shards().to_vec()).unwrap_or_default();
    let Some(shard) = shards.first() else {
        all.extend([not_tried(ITERATE, LIST), not_tried(READ, LIST)]);
        return all;
    };
    let iterator = client
        .get_shard_iterator()
        .set_stream_name(owned(name))
        .set_stream_arn(owned(arn))
        .shard_id(shard.shard_id())
        .shard_iterator_type(ShardIteratorType::Latest);
    let (got, iterator) = tried(ITERATE, stream, iterator.send()).await;
    all.push(got);
    let Some(iterator) = iterator.and_then(|answer| answer.shard_iterator) else {
        all.push(not_tried(READ, ITERATE));
        return all;
    };
    let records = client.get_records().shard_iterator(iterator).limit(1).set_stream_arn(owned(arn));
    all.push(tried(READ, stream, records.send()).await.0);
    all
}

struct Table {
    client: DynamoDb,
    name: String,
}

/// A condition that holds for no item.
const NEVER: &str = "attribute_exists(#key) AND attribute_not_exists(#key)";

impl Table {
    async fn call(&self, call: &str, key: &[(&'static str, &str)]) -> Tried {
        let (client, table) = (&self.client, self.name.as_str());
        let hash = key.first().map_or("", |(name, _)| *name);
        let action = format!("dynamodb:{call}");
        let values =
            || key.iter().map(|(name, value)| ((*name).to_owned(), AttributeValue::S((*value).to_owned())));
        match call {
            "DescribeTable" => {
                tried(&action, table, client.describe_table().table_name(table).send()).await.0
            }
            "GetItem" => {
                let get = client.get_item().table_name(table).set_key(Some(values().collect()));
                tried(&action, table, get.send()).await.0
            }
            "Scan" => tried(&action, table, client.scan().table_name(table).limit(1).send()).await.0,
            "Query" => {
                let query = client
                    .query()
                    .table_name(table)
                    .limit(1)
                    .key_condition_expression("#key = :key")
                    .expression_attribute_names("#key", hash)
                    .expression_attribute_values(":key", AttributeValue::S(NOBODY.to_owned()));
                tried(&action, table, query.send()).await.0
            }
            "PutItem" => {
                let put = client.put_item().table_name(table).set_item(Some(values().collect()));
                let put = put.condition_expression(NEVER).expression_attribute_names("#key", hash);
                tried(&action, table, put.send()).await.0
            }
            "UpdateItem" => {
                let update = client
                    .update_item()
                    .table_name(table)
                    .set_key(Some(values().collect()))
                    .update_expression("SET #never = :never")
                    .condition_expression(NEVER)
                    .expression_attribute_names("#key", hash)
                    .expression_attribute_names("#never", "never")
                    .expression_attribute_values(":never", AttributeValue::Bool(true));
                tried(&action, table, update.send()).await.0
            }
            "DeleteItem" => {
                let delete = client.delete_item().table_name(table).set_key(Some(values().collect()));
                let delete = delete.condition_expression(NEVER).expression_attribute_names("#key", hash);
                tried(&action, table, delete.send()).await.0
            }
            "BatchWriteItem" => {
                let nobody = DeleteRequest::builder().set_key(Some(values().collect())).build();
                let Ok(nobody) = nobody else { return self.unknown(&action) };
                let request = WriteRequest::builder().delete_request(nobody).build();
                let batch = client.batch_write_item().request_items(table, vec![request]);
                tried(&action, table, batch.send()).await.0
            }
            _ => self.unknown(&action),
        }
    }

    /// A call of the policy that is not tried here: a test fails on it.
    fn unknown(&self, action: &str) -> Tried {
        let verdict = Verdict::Failed("not tried".to_owned());
        Tried { action: action.to_owned(), on: self.name.clone(), verdict }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whether_the_role_may() {
        let of = |code| verdict(code, || "why".to_owned());
        assert_eq!(of(Some("ConditionalCheckFailedException")), Verdict::Allowed);
        assert_eq!(of(Some("AccessDeniedException")), Verdict::Denied);
        assert_eq!(of(Some("ResourceNotFoundException")), Verdict::Absent);
        assert_eq!(of(Some("ThrottlingException")), Verdict::Allowed, "throttled after it was authorised");
        assert_eq!(of(Some("ProvisionedThroughputExceededException")), Verdict::Allowed);
        assert_eq!(of(Some("InternalFailure")), Verdict::Failed("why".to_owned()));
        assert_eq!(of(None), Verdict::Failed("why".to_owned()));
    }

    #[test]
    fn a_line_says_what_to_do() {
        let line =
            |verdict| Tried { action: "dynamodb:Scan".into(), on: "billing".into(), verdict }.to_string();
        assert!(line(Verdict::Denied).starts_with("MISSING dynamodb:Scan on billing: allow it"));
        assert!(line(Verdict::Absent).contains("create it"));
        assert_eq!(
            line(Verdict::NotTried("kinesis:ListShards")),
            "not tried: dynamodb:Scan on billing: needs kinesis:ListShards"
        );
    }

    #[tokio::test]
    async fn calls_that_need_the_answer_of_one_that_failed_are_told_too() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(aws_sdk_kinesis::config::BehaviorVersion::latest())
            .region(aws_sdk_kinesis::config::Region::new("eu-west-1"))
            .credentials_provider(aws_sdk_kinesis::config::Credentials::new("a", "b", None, None, "test"))
            .retry_config(aws_sdk_kinesis::config::retry::RetryConfig::disabled())
            .endpoint_url(nobody)
            .build();
        let tried = stream(&Kinesis::from_conf(config), "orders").await;
        let calls: Vec<&str> = tried.iter().map(|tried| tried.action.as_str()).collect();
        assert_eq!(calls.len(), super::super::policy::STREAM.len());
        assert_eq!(calls, ["kinesis:DescribeStreamSummary", LIST, ITERATE, READ]);
        assert!(matches!(tried[1].verdict, Verdict::Failed(_)), "{tried:?}");
        assert_eq!(
            (&tried[2].verdict, &tried[3].verdict),
            (&Verdict::NotTried(LIST), &Verdict::NotTried(LIST))
        );
    }
}
