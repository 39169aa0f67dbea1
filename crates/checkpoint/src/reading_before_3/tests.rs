use proptest::prelude::*;

use super::tree::{self, Kind};
use super::*;

/// What the tree of version 2 says, in words.
fn of_tree(node: &tree::Node<'_>) -> String {
    match &node.kind {
        Kind::Null | Kind::Bool(_) | Kind::Number => node.text.to_owned(),
        Kind::String(text) => format!("{text:?}"),
        Kind::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(of_tree).collect();
            format!("{}[{}]", node.text, elements.join(","))
        }
        Kind::Object(members) => {
            let member = |member: &tree::Member<'_>| {
                format!("{}{:?}:{}", member.name_text, member.name, of_tree(&member.value))
            };
            let members: Vec<String> = members.iter().map(member).collect();
            format!("{}{{{}}}", node.text, members.join(","))
        }
    }
}

/// The same of a parsed event.
fn of_event(value: sluicegate_event::Value<'_>) -> String {
    use sluicegate_event::Kind;
    match value.kind() {
        Kind::Null | Kind::Bool(_) | Kind::Number => value.text().to_owned(),
        Kind::String => format!("{:?}", value.string().unwrap()),
        Kind::Array => {
            let elements: Vec<String> = value.elements().map(of_event).collect();
            format!("{}[{}]", value.text(), elements.join(","))
        }
        Kind::Object => {
            let members: Vec<String> = value
                .members()
                .map(|(name, value)| {
                    format!("{}{:?}:{}", name.text(), name.string().unwrap(), of_event(value))
                })
                .collect();
            format!("{}{{{}}}", value.text(), members.join(","))
        }
    }
}

fn same(text: &[u8]) -> bool {
    let (theirs, ours) = (tree::parse(text), event(text));
    theirs.as_ref().map(of_tree) == ours.as_ref().map(|event| of_event(event.root()))
}

#[test]
fn keys_are_what_doubles_make_of_numbers() {
    let template = KeyTemplate::parse("{/a}").unwrap();
    for (event, shown) in [
        (r#"{"a":92838584930183242888}"#, "9.283858493018325e+19"),
        (r#"{"a":92838584930183242889}"#, "9.283858493018325e+19"),
        (r#"{"a":9007199254740993}"#, "9007199254740993"),
        (r#"{"a":1e2}"#, "100.0"),
        (r#"{"a":1.50}"#, "1.5"),
        (r#"{"a":-0}"#, "-0.0"),
        (r#"{"a":1,"b":1e999}"#, "1"),
        (r#"{"a":1,"b":"\ud83d"}"#, "1"),
        (r#"{"a":"\ud83d"}"#, "~no-key"),
        (r#"{"a":1e999}"#, "~no-key"),
        (r#"{"a":{"b":1},"a":"x"}"#, "x"),
        ("text", "~no-key"),
    ] {
        assert_eq!(key(&template, event.as_bytes()).text(), shown, "{event}");
    }
    let deep = format!("{{\"a\":7,\"b\":{}{}}}", "[".repeat(500), "]".repeat(500));
    assert_eq!(key(&template, deep.as_bytes()).text(), "7");
}

#[test]
fn what_held_half_a_surrogate_pair_was_unreadable() {
    for text in [r#"["\ud83d"]"#, r#"{"\ude00":1}"#, r#"["\ud83d\u0041"]"#] {
        assert!(event(text.as_bytes()).is_none() && same(text.as_bytes()), "{text}");
    }
    assert!(event(br#"["\ud83d\ude00"]"#).is_some());
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(same(nested(127).as_bytes()) && same(nested(128).as_bytes()));
}

proptest! {
    #[test]
    fn it_reads_what_the_tree_read(text in "[\\[\\]{}:,\"\\\\u0d8e1.\\- tné]{0,12}|(\\[|\\{|\\]|\\}|,|:|\"a\"|1|-1\\.5e3|true|null| ){0,9}|\\[\"(\\\\ud83d|\\\\ude00|\\\\u00e4|x){0,3}\"(,\"\\\\n\")?\\]") {
        prop_assert!(same(text.as_bytes()));
    }

    #[test]
    fn it_reads_what_the_tree_read_of_any_json(json in crate::transform::tests::any_json()) {
        prop_assert!(same(json.to_string().as_bytes()));
    }
}
