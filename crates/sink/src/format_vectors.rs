//! The test vectors of `docs/item-format.md`, made by the code: a document that says something else fails
//! here.

use std::fmt::Write;

use sluicegate_checkpoint::{ArrivalMillis, Batch, Codec, Exclusion, Record, SequenceNumber};

use crate::dead_letter::{Postmark, letters_of, redriven_items};
use crate::item::{Attributes, Item, StoredCodec, Value};
use crate::packing::unpack;
use crate::testing::{batch, items_of, with_parameters};

const DOCUMENT: &str = include_str!("../../../docs/item-format.md");

fn record(sequence: &str, sub: u64, arrival: i64, key: &str, data: &'static [u8]) -> Record {
    Record::new(SequenceNumber::parse(sequence).unwrap(), ArrivalMillis(arrival), key, data).at_sub(sub)
}

/// The batch that the document describes.
fn example(key: &str) -> Batch {
    let batch = batch(vec![
        record(
            "49590338271490256608559692538361571095921575989136588898",
            0,
            1_700_000_000_123,
            key,
            b"{\"n\":1}",
        ),
        record(
            "49590338271490256608559692540925702759324208523137515618",
            0,
            1_700_000_000_120,
            key,
            b"{\"n\":2}",
        ),
        record(
            "49590338271490256608559692540925702759324208523137515618",
            3,
            1_700_000_000_120,
            key,
            b"\xff\x00",
        ),
    ]);
    let mut batch = with_parameters(batch, |parameters| {
        parameters.codec = Codec::None;
        parameters.ttl_days = Some(30);
    });
    batch.id.shard = sluicegate_checkpoint::ShardId::new("shardId-000000000003");
    batch
}

fn vectors() -> Vec<(&'static str, Batch)> {
    let mut rows = example("job-7");
    rows.cut.packing_version = 2;
    let mut zstd = with_parameters(example("job-7"), |parameters| parameters.codec = Codec::Zstd(3));
    zstd.records[2] = zstd.records[2].with_data(vec![b'a'; 80]);
    let mut spread = with_parameters(example("a~b"), |parameters| parameters.spread = 4);
    spread.id.epoch = 1;
    let mut empty = example("job-7");
    empty.cut.revision = 2;
    let place = |record: &Record| (record.sequence_number().clone(), record.sub_sequence_number());
    let all = Exclusion { from: place(&empty.records[0]), to: place(&empty.records[2]) };
    empty.cut.exclusions.push(all);
    let mut reduced = with_parameters(example("job-7"), |parameters| {
        parameters.reduce = Some("/n per 1h".parse().unwrap());
        *parameters = parameters.clone().with_needed_decoding_version();
    });
    reduced.id.epoch = 2;
    vec![
        ("reduced", reduced),
        ("plain", example("job-7")),
        ("rows", rows),
        ("zstd", zstd),
        ("spread", spread),
        ("empty", empty),
    ]
}

/// The third event of the example, dead-lettered and redriven.
fn redriven() -> Item {
    let mut amended = example("job-7");
    let record = &amended.records[2];
    let place = (record.sequence_number().clone(), record.sub_sequence_number());
    amended.cut.exclusions.push(Exclusion { from: place.clone(), to: place });
    let postmark = Postmark { worker: "a worker".to_owned(), now: ArrivalMillis(0), ttl_days: None };
    let letter = letters_of(&amended, &[], &[], &postmark).next().unwrap();
    redriven_items(&letter).unwrap().remove(0)
}

fn items() -> Vec<(&'static str, Item)> {
    let one = |batch: &Batch| {
        let mut items = items_of(batch);
        assert_eq!(items.len(), 1);
        items.remove(0)
    };
    let batches = vectors();
    let mut items: Vec<(&str, Item)> = batches.iter().map(|(name, batch)| (*name, one(batch))).collect();
    items.push(("redriven", redriven()));
    items
}

/// An item as the document writes it: an attribute a line, keys first, the data and what it decompresses to
/// last.
fn written(item: &Item) -> String {
    let attributes: Attributes = item.to_attributes();
    let rank = |name: &str| match name {
        "pk" => 0,
        "sk" => 1,
        "d" => 3,
        _ => 2,
    };
    let mut lines: Vec<(u8, String)> = Vec::new();
    for (name, value) in attributes.iter() {
        let value = match value {
            Value::Number(number) => format!("N {number}"),
            Value::Text(text) => format!("S {text}"),
            Value::Bytes(bytes) => format!("B {}", hex(bytes)),
        };
        lines.push((rank(name), format!("{name} = {value}\n")));
    }
    if item.header.codec == StoredCodec::Zstd {
        let raw = zstd::decode_all(&item.data[..]).unwrap();
        lines.push((4, format!("decompressed = {}\n", hex(&raw))));
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn the_document_has_the_vectors_that_the_code_makes() {
    let mut missing = String::new();
    for (name, item) in items() {
        let block = format!("```text\nvector: {name}\n{}size = {}\n```\n", written(&item), item.bytes());
        if !DOCUMENT.contains(&block) {
            missing.push_str(&block);
        }
    }
    assert!(missing.is_empty(), "docs/item-format.md should have these vectors:\n{missing}");
}

#[test]
fn the_vectors_read_back() {
    for (name, item) in items() {
        item.check().unwrap();
        let events = unpack(&item.header, std::slice::from_ref(&item.data)).unwrap();
        let count = match name {
            "empty" => 0,
            "redriven" | "reduced" => 1,
            _ => 3,
        };
        assert_eq!(events.len(), count, "{name}");
        assert_eq!(Item::from_attributes(&item.to_attributes()).unwrap(), item);
    }
}
