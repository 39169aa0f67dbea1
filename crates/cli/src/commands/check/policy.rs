//! The IAM policy that a worker needs on its stream and tables. **Pure.**
//!
//! deploy/policy compares it with the calls of real workers and with the CloudFormation template.

use serde_json::{Value, json};

/// Whose they are, as ARNs have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: &'static str,
    pub(super) region: String,
    pub(super) account: String,
}

impl Place {
    /// The partition follows from the region; an account that nobody named is any.
    pub(super) fn new(region: &str, account: Option<&str>) -> Self {
        let partition = match region.split('-').next() {
            Some("cn") => "aws-cn",
            _ if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        Self { partition, region: region.to_owned(), account: account.unwrap_or("*").to_owned() }
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{resource}", self.partition, self.region, self.account)
    }
}

/// What a worker works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) stream: String,
    pub(super) leases: String,
    pub(super) workers: String,
    pub(super) events: String,
    pub(super) letters: String,
}

/// Calls on the stream.
pub(super) const STREAM: &[&str] = &["DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards"];
/// Calls on the lease table.
pub(super) const LEASES: &[&str] =
    &["DeleteItem", "DescribeTable", "GetItem", "PutItem", "Scan", "UpdateItem"];
/// Calls on the worker table.
pub(super) const WORKERS: &[&str] = &["DeleteItem", "DescribeTable", "PutItem", "Query"];
/// Calls on the analytics table.
pub(super) const EVENTS: &[&str] = &["BatchWriteItem", "DescribeTable", "PutItem", "UpdateItem"];
/// Calls on the dead-letter table.
pub(super) const LETTERS: &[&str] = &["DescribeTable", "PutItem"];

/// The policy document.
pub(super) fn policy(place: &Place, names: &Names) -> Value {
    let stream = match names.stream.starts_with("arn:") {
        true => names.stream.clone(),
        false => place.arn("kinesis", &format!("stream/{}", names.stream)),
    };
    let statement = |sid: &str, service: &str, calls: &[&str], resource: String| {
        let actions: Vec<String> = calls.iter().map(|call| format!("{service}:{call}")).collect();
        json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource })
    };
    let table = |sid: &str, calls: &[&str], name: &str| {
        statement(sid, "dynamodb", calls, place.arn("dynamodb", &format!("table/{name}")))
    };
    json!({
        "Version": "2012-10-17",
        "Statement": [
            statement("ReadStream", "kinesis", STREAM, stream),
            table("Leases", LEASES, &names.leases),
            table("Workers", WORKERS, &names.workers),
            table("Analytics", EVENTS, &names.events),
            table("DeadLetters", LETTERS, &names.letters),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_and_the_stream_have_a_statement_of_their_own() {
        let names = Names {
            stream: "orders".into(),
            leases: "billing".into(),
            workers: "billing-workers".into(),
            events: "billing-events".into(),
            letters: "billing-dead-letters".into(),
        };
        let policy = policy(&Place::new("eu-west-1", Some("123456789012")), &names);
        let resources: Vec<&str> = policy["Statement"]
            .as_array()
            .unwrap()
            .iter()
            .map(|statement| statement["Resource"].as_str().unwrap())
            .collect();
        let table = |name: &str| format!("arn:aws:dynamodb:eu-west-1:123456789012:table/{name}");
        assert_eq!(resources[0], "arn:aws:kinesis:eu-west-1:123456789012:stream/orders");
        assert_eq!(resources[1], table("billing"));
        assert_eq!(resources[4], table("billing-dead-letters"));
        assert_eq!(policy["Statement"][4]["Action"], json!(["dynamodb:DescribeTable", "dynamodb:PutItem"]));
    }

    #[test]
    fn the_partition_follows_from_the_region_and_a_stream_may_be_an_arn() {
        assert_eq!(
            Place::new("cn-north-1", None).arn("dynamodb", "table/t"),
            "arn:aws-cn:dynamodb:cn-north-1:*:table/t"
        );
        assert_eq!(Place::new("us-gov-west-1", None).partition, "aws-us-gov");
        let arn = "arn:aws:kinesis:us-east-1:1:stream/s";
        let names = Names {
            stream: arn.into(),
            leases: "a".into(),
            workers: "b".into(),
            events: "c".into(),
            letters: "d".into(),
        };
        assert_eq!(policy(&Place::new("us-east-1", None), &names)["Statement"][0]["Resource"], arn);
    }
}
