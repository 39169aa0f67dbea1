//! `sluicegate read`: the events of a key, in order, or an error that names what is damaged.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use aws_sdk_dynamodb::types::AttributeValue;
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::fleet::APPLICATION;
use sluicegate_tests::harness::{Backend, Finished, Fleet, flights, sluicegate};

async fn read(backend: &Backend, arguments: &[&str]) -> anyhow::Result<Finished> {
    let all = [&["read", "--embedded", "--application", APPLICATION], arguments].concat();
    sluicegate(&backend.environment(), &all).await
}

/// A time as people write it.
fn rfc3339(millis: i64) -> anyhow::Result<String> {
    let since = Duration::from_millis(u64::try_from(millis)?);
    Ok(humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_key_are_printed_in_order_and_filtered_by_arrival() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let lines = flights(5, 600);
    for step in lines.chunks(200) {
        backend.publish(step, None).await?;
    }
    let mut fleet = Fleet::new(&backend, "read-order")?;
    fleet.start(&[])?;
    fleet.drained(lines.len()).await?;
    fleet.stop().await?;

    let of_key: Vec<&str> =
        lines.iter().map(String::as_str).filter(|line| line.contains(r#""customer":"c-07""#)).collect();
    assert!(of_key.len() > 10);
    let all = read(&backend, &["--key", "c-07"]).await?.successful()?;
    assert_eq!(all.stdout.lines().collect::<Vec<_>>(), of_key);
    assert_eq!(all.stderr, "");

    // A partition key is in one shard, so its events are in the order of publishing; arrivals may repeat.
    let events = backend.table(APPLICATION).events("c-07").await?;
    let middle = events[events.len() / 2].arrival;
    let split = events.iter().position(|event| event.arrival == middle).context("no middle")?;
    let time = rfc3339(middle.0)?;
    let from = read(&backend, &["--key", "c-07", "--from", &time]).await?.successful()?;
    assert_eq!(from.stdout.lines().collect::<Vec<_>>(), of_key[split..]);
    let to = read(&backend, &["--key", "c-07", "--to", &time]).await?.successful()?;
    assert_eq!(to.stdout.lines().collect::<Vec<_>>(), of_key[..split]);
    let neither = read(&backend, &["--key", "c-07", "--from", &time, "--to", &time]).await?.successful()?;
    assert_eq!(neither.stdout, "");
    let nobody = read(&backend, &["--key", "nobody"]).await?.successful()?;
    assert_eq!(nobody.stdout, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_part_and_a_damaged_item_are_errors_that_name_them() -> anyhow::Result<()> {
    let backend = Backend::with_stream(1).await?;
    backend.publish(&flights(6, 900), None).await?;
    // Items of 4 KiB and no compression: every key's group takes several.
    let fleet = Fleet::new(&backend, "read-damage")?;
    let mut fleet = fleet.set("max_item_bytes", "4KiB").set("zstd_level", "0");
    fleet.start(&[])?;
    fleet.drained(900).await?;
    fleet.stop().await?;

    let table = backend.table(APPLICATION);
    let headers = table.headers().await?;
    let of_key = |key: &str| {
        let mut found = headers.iter().filter(|header| header.partition.aggregate_key == key);
        found.find(|header| header.parts >= 2 && header.sort.part == 2).cloned()
    };
    let missing = of_key("c-01").context("no group of several parts")?;
    let delete = backend.dynamodb().delete_item().table_name(table.name());
    let keys = missing.key();
    delete.key("pk", AttributeValue::S(keys.pk)).key("sk", AttributeValue::S(keys.sk.clone())).send().await?;
    let failed = read(&backend, &["--key", "c-01"]).await?;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let says = format!("error: part 2 of {} is missing: pk `c-01`, sk `{}`\n", missing.parts, keys.sk);
    assert_eq!(failed.stderr, says);

    let damaged = of_key("c-02").context("no group of several parts")?;
    let keys = damaged.key();
    let get = backend.dynamodb().get_item().table_name(table.name());
    let key = |name: &str| AttributeValue::S(if name == "pk" { keys.pk.clone() } else { keys.sk.clone() });
    let mut item = get.key("pk", key("pk")).key("sk", key("sk")).send().await?.item.context("no item")?;
    let Some(AttributeValue::B(data)) = item.get("d") else { anyhow::bail!("no data") };
    let mut bytes = data.as_ref().to_vec();
    bytes[17] ^= 1;
    item.insert("d".to_owned(), AttributeValue::B(bytes.into()));
    backend.dynamodb().put_item().table_name(table.name()).set_item(Some(item)).send().await?;
    let failed = read(&backend, &["--key", "c-02"]).await?;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let begins = format!("error: item pk `c-02`, sk `{}` is not readable: the checksum", keys.sk);
    assert!(failed.stderr.starts_with(&begins) && failed.stderr.lines().count() == 1, "{failed:?}");

    read(&backend, &["--key", "c-03"]).await?.successful()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_above_one_mebibyte_is_published_stored_in_parts_and_read_back() -> anyhow::Result<()> {
    use sluicegate_tests::harness::sluicegate_with;
    let backend = Backend::start().await?;
    let create = backend.kinesis().create_stream().stream_name(STREAM).shard_count(1);
    create.max_record_size_in_kib(10 * 1024).send().await?;
    // Words in no order: 3 MiB that compression leaves larger than an item.
    let filler = flights(8, 5_000).concat().replace('"', "'");
    let large =
        format!(r#"{{"customer":"large","filler":"{}"}}"#, &filler[..filler.floor_char_boundary(3 << 20)]);
    let input = format!("{}\n{large}\n", r#"{"customer":"large","small":1}"#);
    let produce = ["produce", "--embedded", "--stream", STREAM, "--key", "{/customer}", "--json"];
    let done = sluicegate_with(&backend.environment(), &produce, input.as_bytes()).await?.successful()?;
    assert_eq!(done.last_json()?["records"], 2);

    let mut fleet = Fleet::new(&backend, "large-record")?;
    fleet.start(&[])?;
    fleet.drained(2).await?;
    fleet.stop().await?;
    let headers = backend.table(APPLICATION).headers().await?;
    assert!(headers.iter().any(|header| header.parts > 1), "it fits into one item");
    let back = read(&backend, &["--key", "large"]).await?.successful()?;
    assert!(back.stdout == input, "{} bytes are read, {} were published", back.stdout.len(), input.len());
    Ok(())
}
