//! Tables that a KCL application left behind: taken over at the exact position, also inside an aggregated record, and
//! left so that KCL goes on behind what is stored.
//!
//! KCL's rows are written out by hand from its schema (KCL 3.5, `DynamoDBLeaseSerializer`, and 2.x, which lacks the newer
//! attributes). Aggregated records are vectors of other encoders: `crates/worker/testdata/kpl`.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use sluicegate_checkpoint::{LeaseState, SequenceNumber, ShardId};
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::fleet::APPLICATION;
use sluicegate_tests::harness::{Backend, Fleet, Multiset};
use sluicegate_worker::{ReadFrom, StreamReader};

mod live;

type Row = HashMap<String, AttributeValue>;

const PARENT: &str = "shardId-000000000000";
const LOWER: &str = "shardId-000000000001";
const UPPER: &str = "shardId-000000000002";
const MIDDLE: u128 = 1 << 127;

/// An aggregated record and the payloads of its user records.
struct Aggregate {
    data: Vec<u8>,
    events: Vec<Vec<u8>>,
}

fn aggregate(name: &str) -> anyhow::Result<Aggregate> {
    let vectors = include_str!("../../crates/worker/testdata/kpl/vectors.json");
    let vectors: Vec<serde_json::Value> = serde_json::from_str(vectors)?;
    let vector = vectors.iter().find(|vector| vector["name"] == name).context("no such vector")?;
    let bytes = |value: &serde_json::Value| {
        let text = value.as_str().context("no text")?;
        let digits = (0..text.len()).step_by(2);
        digits.map(|at| Ok(u8::from_str_radix(&text[at..at + 2], 16)?)).collect::<anyhow::Result<Vec<u8>>>()
    };
    let records = vector["records"].as_array().context("no records")?;
    Ok(Aggregate {
        data: bytes(&vector["aggregated"]["data"])?,
        events: records.iter().map(|record| bytes(&record["data"])).collect::<Result<_, _>>()?,
    })
}

/// Puts a record into the shard that holds this hash key; returns its sequence number.
async fn put(backend: &Backend, hash_key: u128, data: &[u8]) -> anyhow::Result<String> {
    let put = backend.kinesis().put_record().stream_name(STREAM).partition_key("a");
    let put = put.explicit_hash_key(hash_key.to_string()).data(Blob::new(data));
    Ok(put.send().await?.sequence_number)
}

fn s(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn n(value: impl ToString + Copy) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn ss(values: &[&str]) -> AttributeValue {
    AttributeValue::Ss(values.iter().map(ToString::to_string).collect())
}

fn row<const N: usize>(attributes: [(&str, AttributeValue); N]) -> Row {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The lease table as KCL makes it, with these rows.
async fn kcl_table(backend: &Backend, rows: impl IntoIterator<Item = Row>) -> anyhow::Result<()> {
    let key = AttributeDefinition::builder().attribute_name("leaseKey");
    let table = backend.dynamodb().create_table().table_name(APPLICATION);
    table
        .attribute_definitions(key.attribute_type(ScalarAttributeType::S).build()?)
        .key_schema(KeySchemaElement::builder().attribute_name("leaseKey").key_type(KeyType::Hash).build()?)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await?;
    for row in rows {
        put_row(backend, row).await?;
    }
    Ok(())
}

async fn put_row(backend: &Backend, row: Row) -> anyhow::Result<()> {
    backend.dynamodb().put_item().table_name(APPLICATION).set_item(Some(row)).send().await?;
    Ok(())
}

/// All rows of the lease table as they are stored, by key.
async fn raw_rows(backend: &Backend) -> anyhow::Result<BTreeMap<String, Row>> {
    let scan = backend.dynamodb().scan().table_name(APPLICATION).consistent_read(true).send().await?;
    let key = |row: &Row| row.get("leaseKey").and_then(|key| key.as_s().ok().cloned()).context("no key");
    scan.items().iter().map(|row| Ok((key(row)?, row.clone()))).collect()
}

/// Rows of the other kinds that a KCL 3.5 table holds.
fn other_kinds() -> [Row; 5] {
    let metrics = AttributeValue::L(vec![n("12.5"), n("-1")]);
    [
        row([
            ("leaseKey", s("kcl-worker-1")),
            ("entityType", s("WORKER_METRIC_STATS")),
            ("lut", n(1_700_000_000)),
            ("sts", AttributeValue::M(row([("C", metrics)]))),
            ("opr", AttributeValue::M(row([("C", AttributeValue::L(vec![n(80)]))]))),
        ]),
        row([
            ("leaseKey", s("Leader")),
            ("entityType", s("LEADER")),
            ("ownerName", s("kcl-worker-1")),
            ("leaseDuration", s("120000")),
            ("recordVersionNumber", s("4a4c7e5e-5f2d-4c0b-9a54-8f4f4a2f9f10")),
        ]),
        row([
            ("leaseKey", s("000000000000:flights:1")),
            ("entityType", s("STREAM")),
            ("streamId", s("flights")),
        ]),
        row([
            ("leaseKey", s("Migration3.0")),
            ("entityType", s("CLIENT_VERSION_MIGRATION")),
            ("cv", s("CLIENT_VERSION_3X")),
            ("mts", n(1_700_000_000_000_u64)),
        ]),
        row([
            ("leaseKey", s("TableMigration3.5")),
            ("entityType", s("TABLE_MIGRATION")),
            ("tm", s("COMPLETE")),
        ]),
    ]
}

/// Every attribute of KCL's lease rows, and the type it has there.
const SCHEMA: [(&str, &str); 18] = [
    ("leaseKey", "S"),
    ("entityType", "S"),
    ("leaseOwner", "S"),
    ("leaseCounter", "N"),
    ("ownerSwitchesSinceCheckpoint", "N"),
    ("checkpoint", "S"),
    ("checkpointSubSequenceNumber", "N"),
    ("pendingCheckpoint", "S"),
    ("pendingCheckpointSubSequenceNumber", "N"),
    ("pendingCheckpointState", "B"),
    ("parentShardId", "SS"),
    ("childShardIds", "SS"),
    ("startingHashKey", "S"),
    ("endingHashKey", "S"),
    ("throughputKBps", "N"),
    ("checkpointOwner", "S"),
    ("streamName", "S"),
    ("shardId", "S"),
];

/// That KCL can read a row and resume from it at this position: its attributes and types, no owner, nothing pending.
#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's enums are open")]
fn left_for_kcl(row: &Row, checkpoint: &str, sub: usize) -> anyhow::Result<()> {
    let sorted: BTreeMap<&String, &AttributeValue> = row.iter().collect();
    for (name, value) in sorted {
        let kind = match value {
            AttributeValue::S(_) => "S",
            AttributeValue::N(_) => "N",
            AttributeValue::B(_) => "B",
            AttributeValue::Ss(_) => "SS",
            other => anyhow::bail!("{name} is {other:?}"),
        };
        ensure!(SCHEMA.contains(&(name.as_str(), kind)), "{name} has type {kind}");
    }
    for required in ["leaseCounter", "ownerSwitchesSinceCheckpoint"] {
        ensure!(row.contains_key(required), "{required} is missing");
    }
    for gone in ["leaseOwner", "checkpointOwner", "pendingCheckpoint", "pendingCheckpointSubSequenceNumber"] {
        ensure!(!row.contains_key(gone), "{gone} is still there: {row:?}");
    }
    let state = row.get("pendingCheckpointState").and_then(|state| state.as_b().ok()).context("no state")?;
    ensure!(LeaseState::decode(state.as_ref())?.cuts.is_empty(), "batches are still announced");
    let found = (row.get("checkpoint"), row.get("checkpointSubSequenceNumber"));
    ensure!(found == (Some(&s(checkpoint)), Some(&n(sub))), "{found:?}, and not {checkpoint}.{sub}");
    Ok(())
}

/// What KCL delivers when it resumes from a row: it reads AT the checkpoint, takes aggregates apart, and drops what is
/// not behind (sequence number, sub-sequence number).
async fn kcl_delivers(
    backend: &Backend,
    row: &Row,
    aggregates: &[&Aggregate],
) -> anyhow::Result<Vec<Vec<u8>>> {
    let text = |name: &str| match row.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => Ok(text.clone()),
        other => anyhow::bail!("{name} is {other:?}"),
    };
    let finished = SequenceNumber::parse(text("checkpoint")?)?;
    let sub: usize = text("checkpointSubSequenceNumber")?.parse()?;
    let shard = ShardId::new(text("leaseKey")?);
    let mut cursor = backend.stream(STREAM).open(&shard, ReadFrom::At(finished.clone()));
    let mut delivered = Vec::new();
    loop {
        let page = cursor.next_page(10_000).await?;
        for record in page.records {
            let aggregate = aggregates.iter().find(|aggregate| aggregate.data == record.data());
            let events = aggregate.map_or_else(|| vec![record.data().to_vec()], |found| found.events.clone());
            let is_behind = |index: &usize| (record.sequence_number(), *index) > (&finished, sub);
            delivered
                .extend(events.into_iter().enumerate().filter(|(index, _)| is_behind(index)).map(|(_, e)| e));
        }
        if page.behind_latest.is_zero() {
            return Ok(delivered);
        }
    }
}

async fn stored_exactly(backend: &Backend, events: &[Vec<u8>]) -> anyhow::Result<()> {
    let table = backend.table(APPLICATION);
    events.iter().cloned().collect::<Multiset>().equals(&table.everything().await?)?;
    let overlaps = table.overlaps().await?;
    ensure!(overlaps.is_empty(), "ranges overlap: {overlaps:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_kcl_left_is_taken_over_at_its_positions_and_left_for_kcl() -> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    let (lower, upper, both) =
        (aggregate("lower half")?, aggregate("upper half")?, aggregate("both halves")?);
    put(&backend, 0, b"of the parent").await?;
    let split = backend.kinesis().split_shard().stream_name(STREAM).shard_to_split(PARENT);
    split.new_starting_hash_key(MIDDLE.to_string()).send().await?;
    put(&backend, 0, b"finished").await?;
    let inside = put(&backend, 0, &lower.data).await?;
    let last_lower = put(&backend, 0, b"behind the aggregate").await?;
    let finished = put(&backend, MIDDLE, b"finished too").await?;
    let pending = put(&backend, MIDDLE, &upper.data).await?;
    let last_upper = put(&backend, MIDDLE, &both.data).await?;

    let parent = row([
        ("leaseKey", s(PARENT)),
        ("entityType", s("LEASE")),
        ("leaseOwner", s("kcl-worker-1")),
        ("leaseCounter", n(120)),
        ("ownerSwitchesSinceCheckpoint", n(0)),
        ("checkpoint", s("SHARD_END")),
        ("checkpointSubSequenceNumber", n(0)),
        ("childShardIds", ss(&[LOWER, UPPER])),
        ("startingHashKey", s("0")),
        ("endingHashKey", s(&u128::MAX.to_string())),
        ("throughputKBps", n("0.25")),
    ]);
    // As KCL 2.x leaves it, inside an aggregated record: user records 0 to 2 are done.
    let kcl_2 = row([
        ("leaseKey", s(LOWER)),
        ("leaseOwner", s("kcl-worker-1")),
        ("leaseCounter", n(17)),
        ("ownerSwitchesSinceCheckpoint", n(1)),
        ("checkpoint", s(&inside)),
        ("checkpointSubSequenceNumber", n(2)),
        ("parentShardId", ss(&[PARENT])),
    ]);
    // As KCL 3.x leaves it in the middle of a hand-off and of a two-phase checkpoint.
    let kcl_3 = row([
        ("leaseKey", s(UPPER)),
        ("entityType", s("LEASE")),
        ("leaseOwner", s("kcl-worker-2")),
        ("checkpointOwner", s("kcl-worker-1")),
        ("leaseCounter", n(23)),
        ("ownerSwitchesSinceCheckpoint", n(0)),
        ("checkpoint", s(&finished)),
        ("checkpointSubSequenceNumber", n(0)),
        ("pendingCheckpoint", s(&pending)),
        ("pendingCheckpointSubSequenceNumber", n(1)),
        ("pendingCheckpointState", AttributeValue::B(Blob::new(b"what the application prepared".to_vec()))),
        ("parentShardId", ss(&[PARENT])),
        ("startingHashKey", s(&MIDDLE.to_string())),
        ("endingHashKey", s(&u128::MAX.to_string())),
        ("throughputKBps", n("12.345678")),
    ]);
    kcl_table(&backend, other_kinds().into_iter().chain([parent, kcl_2, kcl_3.clone()])).await?;
    let before = raw_rows(&backend).await?;

    // Of the aggregate of both halves, the upper shard stores what is its own.
    let mut wanted = lower.events[3..].to_vec();
    wanted.push(b"behind the aggregate".to_vec());
    wanted.extend(upper.events.iter().cloned());
    wanted.extend([both.events[1].clone(), both.events[3].clone()]);
    let mut fleet = Fleet::new(&backend, "kcl-takeover")?;
    fleet.start(&[])?;
    fleet.drained(wanted.len()).await?;
    fleet.stop().await?;
    stored_exactly(&backend, &wanted).await?;

    let after = raw_rows(&backend).await?;
    left_for_kcl(&after[LOWER], &last_lower, 0)?;
    left_for_kcl(&after[UPPER], &last_upper, both.events.len() - 1)?;
    for name in ["parentShardId", "startingHashKey", "endingHashKey", "entityType", "throughputKBps"] {
        assert_eq!(after[UPPER].get(name), kcl_3.get(name), "{name}");
    }
    for (key, row) in before.iter().filter(|(key, _)| ![LOWER, UPPER].contains(&key.as_str())) {
        assert_eq!(after.get(key), Some(row), "{key} is nothing to write to");
    }
    assert_eq!(kcl_delivers(&backend, &after[LOWER], &[&lower]).await?, Vec::<Vec<u8>>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcl_goes_on_behind_what_is_stored_and_the_next_worker_behind_what_kcl_finished() -> anyhow::Result<()>
{
    let backend = Backend::with_stream(1).await?;
    let (ours, theirs) = (aggregate("shared keys")?, aggregate("many")?);
    put(&backend, 0, b"plain").await?;
    let last = put(&backend, 0, &ours.data).await?;
    let mut wanted = vec![b"plain".to_vec()];
    wanted.extend(ours.events.iter().cloned());
    let mut fleet = Fleet::new(&backend, "kcl-before")?;
    fleet.start(&[])?;
    fleet.drained(wanted.len()).await?;
    fleet.stop().await?;
    stored_exactly(&backend, &wanted).await?;
    let row = raw_rows(&backend).await?.remove(PARENT).context("no row")?;
    left_for_kcl(&row, &last, ours.events.len() - 1)?;

    let inside = put(&backend, 0, &theirs.data).await?;
    let tail = put(&backend, 0, b"tail").await?;
    let mut unread = theirs.events.clone();
    unread.push(b"tail".to_vec());
    assert_eq!(
        kcl_delivers(&backend, &row, &[&ours, &theirs]).await?,
        unread,
        "no more and no less than is unread"
    );

    // KCL finishes 25 of these and checkpoints, which writes what is pending away, as it does each time.
    let counter: u64 = row["leaseCounter"].as_n().ok().context("no number")?.parse()?;
    let mut by_kcl = row;
    by_kcl.retain(|name, _| !name.starts_with("pendingCheckpoint"));
    by_kcl.extend([
        ("leaseOwner".to_owned(), s("kcl-worker-3")),
        ("leaseCounter".to_owned(), n(counter + 9)),
        ("checkpoint".to_owned(), s(&inside)),
        ("checkpointSubSequenceNumber".to_owned(), n(24)),
    ]);
    put_row(&backend, by_kcl).await?;
    wanted.extend(unread.split_off(25));
    let mut next = Fleet::new(&backend, "kcl-after")?;
    next.start(&[])?;
    next.drained(wanted.len()).await?;
    next.stop().await?;
    stored_exactly(&backend, &wanted).await?;
    left_for_kcl(&raw_rows(&backend).await?[PARENT], &tail, 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_ended_here_is_finished_for_kcl_and_its_children_are_known() -> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    put(&backend, 0, b"of the parent").await?;
    let split = backend.kinesis().split_shard().stream_name(STREAM).shard_to_split(PARENT);
    split.new_starting_hash_key(MIDDLE.to_string()).send().await?;
    let lower = put(&backend, 0, b"lower").await?;
    let upper = put(&backend, MIDDLE, b"upper").await?;
    let mut fleet = Fleet::new(&backend, "kcl-split")?;
    fleet.start(&[])?;
    fleet.drained(3).await?;
    fleet.stop().await?;
    stored_exactly(&backend, &["of the parent", "lower", "upper"].map(|text| text.as_bytes().to_vec()))
        .await?;

    let rows = raw_rows(&backend).await?;
    assert_eq!(rows.keys().collect::<Vec<_>>(), [PARENT, LOWER, UPPER]);
    left_for_kcl(&rows[PARENT], "SHARD_END", 0)?;
    assert_eq!(rows[PARENT].get("childShardIds"), Some(&ss(&[LOWER, UPPER])));
    assert_eq!(rows[PARENT].get("parentShardId"), None, "a set is never empty");
    for (key, last, start, end) in [(LOWER, &lower, 0, MIDDLE - 1), (UPPER, &upper, MIDDLE, u128::MAX)] {
        left_for_kcl(&rows[key], last, 0)?;
        assert_eq!(rows[key].get("parentShardId"), Some(&ss(&[PARENT])));
        let range = (rows[key].get("startingHashKey"), rows[key].get("endingHashKey"));
        assert_eq!(range, (Some(&s(&start.to_string())), Some(&s(&end.to_string()))));
    }
    Ok(())
}
