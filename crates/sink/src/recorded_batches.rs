//! Batches that older builds recorded: whoever delivers them makes the items that those builds made, byte for byte.
//!
//! The states of lease rows and the items in `recorded_batches/` were written by the last build that knew of decoding
//! versions 1 and 2 alone, from the events below.

use std::fmt::Write;

use sluicegate_checkpoint::{LeaseState, ShardId};

use crate::item::{Attributes, Value};
use crate::packing::pack;
use crate::testing::{batch, event};

/// Events that the versions read differently: long integers, floats, half surrogates, and what is hardly JSON.
const EVENTS: &[&str] = &[
    r#"{"id":92838584930183242888,"n":1,"at":"2013-01-01T10:00:00Z"}"#,
    r#"{"id":92838584930183242889,"n":2,"at":1357034400000}"#,
    r#"{"id":9007199254740993,"n":3,"at":1357034400}"#,
    r#"{"id":1e2,"n":4}"#,
    r#"{"id":100,"n":5}"#,
    r#"{"id":100.0,"n":6}"#,
    r#"{"id":1.50,"n":7,"at":1357034400.25}"#,
    r#"{"id":-0,"n":8,"at":"2013-01-01T10:00:00+0000"}"#,
    r#"{"id":1e999,"n":9}"#,
    r#"{"id":"cut \ud83d","n":10,"secret":1}"#,
    r#"{"id":"j","n":11,"text":"cut \ud83d","secret":2}"#,
    r#"{"id":"\ud83d\ude00","n":12,"secret":3}"#,
    r#"{"id":"x","id":"y","n":0,"n":13}"#,
    r#"{"id":null,"n":14}"#,
    r#"{"id":true,"n":"15"}"#,
    r#"[{"id":1},"n"]"#,
    r#""secret""#,
    "17",
    "no json",
    "",
];

const RECORDED: [(&str, &str, &str); 3] = [
    (
        "version 1, a template",
        include_str!("recorded_batches/template.state"),
        include_str!("recorded_batches/template.items"),
    ),
    (
        "version 2, filter and fields",
        include_str!("recorded_batches/fields.state"),
        include_str!("recorded_batches/fields.items"),
    ),
    (
        "version 2, a reduction",
        include_str!("recorded_batches/reduce.state"),
        include_str!("recorded_batches/reduce.items"),
    ),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let text = text.trim();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// The items of the events under a recorded cut, an attribute a line.
fn items_of(state: &LeaseState) -> String {
    let deep = format!("{{\"id\":\"deep\",\"n\":{}1{}}}", "[".repeat(127), "]".repeat(127));
    let events = EVENTS.iter().map(|data| (*data).to_owned()).chain([deep]);
    let records = (1..).zip(events).map(|(n, data)| event(n, "p", data)).collect();
    let mut batch = batch(records);
    let cut = state.cuts.first().unwrap();
    assert_eq!((&batch.cut.first, &batch.cut.last), (&cut.first, &cut.last));
    batch.cut = cut.clone();
    batch.id = cut.id(&ShardId::new("shardId-000000000000"), state.epoch);
    let mut written = String::new();
    for item in pack(&batch).unwrap().items {
        let attributes: Attributes = item.to_attributes();
        for (name, value) in attributes.iter() {
            match value {
                Value::Number(number) => writeln!(written, "{name} = N {number}").unwrap(),
                Value::Text(text) => writeln!(written, "{name} = S {text}").unwrap(),
                Value::Bytes(bytes) => writeln!(written, "{name} = B {}", hex(bytes)).unwrap(),
            }
        }
        written.push('\n');
    }
    written
}

#[test]
fn batches_of_older_decoding_versions_make_the_items_that_older_builds_made() {
    for (name, state, items) in RECORDED {
        let bytes = unhex(state);
        let state = LeaseState::decode(&bytes).unwrap();
        assert_eq!(items_of(&state), items, "{name}");
        assert_eq!(state.encode().unwrap(), bytes, "{name}: an older build could not take it back");
    }
}
