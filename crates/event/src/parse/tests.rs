use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::{Event, Kind, Value};

/// A JSON value with members `a`, `b` and `c`.
pub(crate) fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-20i64..20).prop_map(Json::from),
        "[xyä\"\\\\/\n]{0,3}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn built(value: Value<'_>) -> Json {
    match value.kind() {
        Kind::Null => Json::Null,
        Kind::Bool(truth) => Json::from(truth),
        Kind::Number => serde_json::from_str(value.text()).unwrap(),
        Kind::String => Json::from(value.string().unwrap().as_ref()),
        Kind::Array => value.elements().map(built).collect(),
        Kind::Object => {
            value.members().map(|(name, value)| (name.string().unwrap().into_owned(), built(value))).collect()
        }
    }
}

#[test]
fn texts_stay_as_they_were_written() {
    let event = Event::parse(br#" {"a" : 1.50, "\u0062":[ 1e2 ,"\n", {}] } "#).unwrap();
    assert_eq!(event.root().text(), r#"{"a" : 1.50, "\u0062":[ 1e2 ,"\n", {}] }"#);
    assert_eq!(event.root().member("a").unwrap().number(), Some("1.50"));
    let list: Vec<Value<'_>> = event.root().member("b").unwrap().elements().collect();
    assert_eq!(list.iter().map(Value::text).collect::<Vec<_>>(), ["1e2", r#""\n""#, "{}"]);
    assert_eq!(list[1].string().as_deref(), Some("\n"));
    assert!(!event.has_half_surrogates());
}

#[test]
fn what_is_not_one_json_value_says_where_and_why() {
    let cases = [
        ("", 0, Fault::Ends),
        (" ", 1, Fault::Ends),
        ("01", 1, Fault::Trailing),
        ("-", 1, Fault::Ends),
        ("-x", 1, Fault::Digit),
        ("1.", 2, Fault::Ends),
        (".5", 0, Fault::Value),
        ("1e", 2, Fault::Ends),
        ("+1", 0, Fault::Value),
        ("nul", 0, Fault::Value),
        ("truex", 4, Fault::Trailing),
        ("[1,]", 3, Fault::Value),
        ("[,1]", 1, Fault::Value),
        ("{\"a\":}", 5, Fault::Value),
        ("{a:1}", 1, Fault::Name),
        ("{\"a\":1,}", 7, Fault::Name),
        ("\"a", 2, Fault::Ends),
        ("\"\t\"", 1, Fault::Control),
        ("\"\\x\"", 1, Fault::Escape),
        ("\"\\u12\"", 1, Fault::Escape),
        ("\"\\", 1, Fault::Escape),
        ("1 2", 2, Fault::Trailing),
        ("[1}", 2, Fault::CommaOrBracket),
        ("{\"a\":1]", 6, Fault::CommaOrBrace),
        ("{\"a\" 1}", 5, Fault::Colon),
        ("{", 1, Fault::Ends),
        ("\u{feff}{}", 0, Fault::Value),
    ];
    for (text, at, fault) in cases {
        assert_eq!(Event::parse(text.as_bytes()), Err(ParseError { at, fault }), "{text}");
        assert!(serde_json::from_str::<Json>(text).is_err(), "{text}");
    }
    assert_eq!(Event::parse(b"\"\xff\""), Err(ParseError { at: 1, fault: Fault::Utf8 }));
    assert_eq!(Event::parse(b"1e999").unwrap().root().number(), Some("1e999"));
    assert!(Event::parse(json!({"": [{}, [], false]}).to_string().as_bytes()).is_ok());
}

#[test]
fn nesting_has_one_bound_and_takes_no_stack() {
    let nested = |depth: usize, open: &str, close: &str| open.repeat(depth) + "1" + &close.repeat(depth);
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        assert!(Event::parse(nested(MAX_DEPTH, open, close).as_bytes()).is_ok());
        let error = Event::parse(nested(MAX_DEPTH + 1, open, close).as_bytes()).unwrap_err();
        assert_eq!(error.fault, Fault::Depth);
    }
    let deep = "[".repeat(1 << 20);
    assert_eq!(Event::parse(deep.as_bytes()), Err(ParseError { at: MAX_DEPTH, fault: Fault::Depth }));
}

#[test]
fn half_a_surrogate_pair_is_read_as_the_replacement_character() {
    let event = Event::parse(br#"{"te\ud83dxt":"cut \ud83d","whole":"\ud83d\ude00"}"#).unwrap();
    assert!(event.has_half_surrogates());
    assert_eq!(event.root().member("te\u{FFFD}xt").unwrap().string().as_deref(), Some("cut \u{FFFD}"));
    assert_eq!(event.root().member("whole").unwrap().string().as_deref(), Some("😀"));
}

proptest! {
    #[test]
    fn it_reads_what_serde_json_reads(json in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
        prop_assert_eq!(built(Event::parse(text.unwrap().as_bytes()).unwrap().root()), json);
    }

    /// The list of nodes never grows while a long text is read.
    #[test]
    fn no_text_has_more_nodes_than_were_counted(json in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
        let text = text.unwrap();
        prop_assert!(parse(text.as_bytes()).unwrap().nodes.len() <= most_nodes(text.as_bytes()));
    }

    #[test]
    fn it_refuses_what_serde_json_refuses(text in "[\\[\\]{}:,\"\\\\u0d8e1.\\- tn]{0,12}|(\\[|\\{|\\]|\\}|,|:|\"a\"|1|-1\\.5e3|true|null| ){0,9}|\"(\\\\ud83d|\\\\ude00|\\\\u00e4|x){0,3}\"") {
        let theirs = serde_json::from_str::<Json>(&text);
        match (Event::parse(text.as_bytes()), theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(built(ours.root()), theirs),
            (Err(_), Err(_)) => {}
            // A number that no double holds is one all the same, and half a surrogate pair may stand in a string.
            (Ok(ours), Err(error)) => {
                prop_assert!(ours.has_half_surrogates() || error.to_string().contains("number out of range"));
            }
            (Err(_), Ok(theirs)) => prop_assert!(false, "{text:?} is {theirs}"),
        }
        // Where serde_json builds nothing it has neither bound.
        prop_assert_eq!(
            Event::parse(text.as_bytes()).is_ok(),
            serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok()
        );
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(event) = Event::parse(&bytes) {
            prop_assert_eq!(event.root().text(), std::str::from_utf8(&bytes).unwrap().trim_matches([' ', '\t', '\n', '\r']));
        }
    }
}
