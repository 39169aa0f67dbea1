use proptest::prelude::*;
use serde_json::Value as Json;

use super::super::tests::{any_json, any_number_text};
use super::*;

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn keeps(filter: &Filter, event: &str) -> bool {
    filter.keeps(&Event::parse(event.as_bytes()).unwrap())
}

const EVENT: &str = r#"{"carrier":"AA","dep_delay":15.50,"tail":null,"ok":true,"legs":[{"km":7},"x"],"a b":1,"big":9007199254740993,"":0}"#;

#[test]
fn events_are_judged_by_their_fields() {
    let cases = [
        (r#"/carrier == "AA""#, true),
        (r#"/carrier == "UA""#, false),
        (r#"/carrier != "UA""#, true),
        (r#"/carrier < "AB" and /carrier > "A""#, true),
        ("/dep_delay > 15", true),
        ("/dep_delay == 1.55e1", true),
        ("/dep_delay <= 15.5 and /dep_delay >= 15.5", true),
        ("/dep_delay < 15.5 or /dep_delay > 15.5", false),
        ("/big > 9007199254740992", true),
        (r#"/dep_delay == "15.50""#, false),
        (r#"/dep_delay != "15.50""#, true),
        ("exists /tail", true),
        ("exists /none", false),
        ("/tail == null", true),
        ("/none == null", false),
        ("/none != 1", true),
        ("/none < 1 or /none >= 1", false),
        ("/ok == true and not /ok == false", true),
        ("/legs/0/km==7", true),
        (r#"/legs/1 == "x" and not exists /legs/2 and not exists /legs/00"#, true),
        ("/legs == 7", false),
        (r#""/a b" == 1"#, true),
        (r#"/ == 0"#, true),
        (r#"/carrier == "UA" or /ok == true and /dep_delay > 100"#, false),
        (r#"(/carrier == "UA" or /ok == true) and /dep_delay < 100"#, true),
        ("not not exists /ok", true),
        (r#"/carrier in ("UA", "AA")"#, true),
        (r#"/carrier in ("UA")"#, false),
        (r#"/dep_delay in (1, 15.5, "x") and /tail in (null) and /ok in (false, true)"#, true),
        ("/none in (null)", false),
        ("/legs in (1)", false),
        (r#"/carrier starts_with "A" and not /carrier starts_with "B""#, true),
        (r#"/carrier starts_with """#, true),
        (r#"/dep_delay starts_with "1" or /none starts_with """#, false),
        (r#"/carrier contains "AA" and not /carrier contains "a""#, true),
        (r#"/legs contains "x" and not /legs contains "y""#, true),
        ("/legs contains 7 or /carrier contains 1 or /legs/0 contains 7", false),
    ];
    for (text, kept) in cases {
        assert_eq!(keeps(&filter(text), EVENT), kept, "{text}");
    }
}

#[test]
fn a_value_without_fields_has_none() {
    assert!(!keeps(&filter("exists /a"), "3"));
    assert!(keeps(&filter("/a != 1"), "\"text\""));
}

#[test]
fn an_escaped_half_surrogate_is_the_replacement_character() {
    let event = r#"{"te\ud83dxt":"cut \ud83d"}"#;
    for text in ["\"/te\u{FFFD}xt\" == \"cut \u{FFFD}\"", r#""/te\ud83dxt" == "cut \ud83d""#] {
        assert!(keeps(&filter(text), event), "{text}");
    }
}

#[test]
fn a_malformed_filter_says_where_and_what_to_do() {
    let cases = [
        ("", 1, "something is missing here"),
        ("carrier == 1", 1, "`carrier` is no field"),
        ("/a", 3, "a comparison of /a is missing"),
        ("/a = 1", 4, "write =="),
        ("/a == AA", 7, "or a string as \"AA\""),
        ("/a ==", 6, "a value is missing"),
        ("/a == /b", 7, "a value is missing"),
        ("/a == 01", 7, "`01` is no value"),
        ("/ä == \"b", 7, "never closed"),
        ("/a == \"\\q\"", 7, "an escape that JSON does not know"),
        ("/a < true", 6, "< compares numbers and strings only"),
        ("(/a == 1", 9, "the ( at character 1 is not closed"),
        ("/a == 1)", 8, "closes nothing"),
        ("/a == 1 /b == 2", 9, "join what follows"),
        ("/a == 1 && /b == 2", 9, "write and"),
        ("/a == 1 and", 12, "something is missing here"),
        ("/a~2 == 1", 1, "escapes nothing"),
        ("\"a\" == 1", 1, "is no JSON pointer"),
        ("exists 3", 8, "`3` is no field"),
        ("/a == 'x'", 7, "double quotes"),
        ("/a in 1", 7, "write ( here"),
        ("/a in ()", 8, "a value is missing"),
        ("/a in (1 2)", 10, "write ) or ,"),
        ("/a in (1,", 10, "a value is missing"),
        ("/a starts_with 1", 16, "a string is missing"),
        ("/a contains", 12, "a value is missing"),
    ];
    for (text, at, why) in cases {
        let error = Filter::parse(text).unwrap_err();
        assert!(error.at == at && error.why.contains(why) && !error.why.contains('\n'), "{text}: {error}");
    }
    assert!(Filter::parse(&("not ".repeat(40) + "exists /a")).unwrap_err().why.contains("nested"));
    assert!(Filter::parse(&"(".repeat(100_000)).is_err());
}

#[test]
fn equal_filters_are_recorded_in_the_same_words() {
    assert_eq!(
        filter("( /a==1 )and(not exists/b  or /c!=\"x\")").to_string(),
        "/a == 1 and (not exists /b or /c != \"x\")"
    );
    assert_eq!(
        filter("/a in(1,\"x\" ,null)and(/b contains 2 or/c starts_with\"y\")").to_string(),
        "/a in (1, \"x\", null) and (/b contains 2 or /c starts_with \"y\")"
    );
}

fn any_pointer() -> impl Strategy<Value = Pointer> {
    prop_oneof![4 => "(/[abc01]){1,3}", 1 => "/[ab (\"=~\n]{0,2}"]
        .prop_filter_map("an escape of nothing", |text| Pointer::parse(&text).ok())
}

fn any_literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Bool),
        any_number_text().prop_map(|text| Literal::Number(text.clone(), Number::parse(&text).unwrap())),
        (-20i64..20).prop_map(|n| Literal::Number(n.to_string(), Number::parse(&n.to_string()).unwrap())),
        "[xyä\"\\\\/\n]{0,3}".prop_map(Literal::String),
    ]
}

fn any_expression() -> impl Strategy<Value = Expression> {
    let compare = (any_pointer(), 0usize..6, any_literal()).prop_map(|(pointer, compare, literal)| {
        let ordered = matches!(literal, Literal::Number(..) | Literal::String(_));
        Expression::Compare(pointer, Compare::ALL[if ordered { compare } else { compare % 2 }], literal)
    });
    let one_of = (any_pointer(), prop::collection::vec(any_literal(), 1..4))
        .prop_map(|(pointer, literals)| Expression::In(pointer, literals));
    let starts = (any_pointer(), "[xyä\"\\\\/\n]{0,2}")
        .prop_map(|(pointer, start)| Expression::StartsWith(pointer, start));
    let contains =
        (any_pointer(), any_literal()).prop_map(|(pointer, literal)| Expression::Contains(pointer, literal));
    let exists = any_pointer().prop_map(Expression::Exists);
    let leaf = prop_oneof![3 => compare, 1 => exists, 1 => one_of, 1 => starts, 1 => contains];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::Any),
            inner.prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    })
}

/// The meaning once more, over `serde_json`, for numbers that doubles hold exactly.
fn means(expression: &Expression, event: &Json) -> bool {
    match expression {
        Expression::All(parts) => !parts.iter().any(|part| !means(part, event)),
        Expression::Any(parts) => parts.iter().any(|part| means(part, event)),
        Expression::Not(part) => !means(part, event),
        Expression::Exists(pointer) => event.pointer(pointer.as_str()).is_some(),
        Expression::In(pointer, literals) => literals.iter().any(|literal| {
            means(&Expression::Compare(pointer.clone(), Compare::Equal, literal.clone()), event)
        }),
        Expression::StartsWith(pointer, start) => event
            .pointer(pointer.as_str())
            .and_then(Json::as_str)
            .is_some_and(|found| found.starts_with(start.as_str())),
        Expression::Contains(pointer, literal) => match (event.pointer(pointer.as_str()), literal) {
            (Some(Json::String(found)), Literal::String(part)) => found.contains(part.as_str()),
            (Some(Json::Array(elements)), _) => (0..elements.len()).any(|at| {
                let element = Pointer::parse(&format!("{pointer}/{at}")).unwrap();
                means(&Expression::Compare(element, Compare::Equal, literal.clone()), event)
            }),
            _ => false,
        },
        Expression::Compare(pointer, compare, literal) => {
            let found = event.pointer(pointer.as_str()).unwrap_or(&Json::Bool(true));
            let there = event.pointer(pointer.as_str()).is_some();
            let order = match literal {
                Literal::Null => found.is_null().then_some(Ordering::Equal),
                Literal::Bool(wanted) => (found == &Json::Bool(*wanted)).then_some(Ordering::Equal),
                Literal::Number(text, _) => {
                    found.as_f64().and_then(|found| found.partial_cmp(&text.parse().unwrap()))
                }
                Literal::String(wanted) => found.as_str().map(|found| found.cmp(wanted)),
            };
            let order = order.filter(|_| there);
            match compare {
                Compare::Equal => order == Some(Ordering::Equal),
                Compare::Unequal => order != Some(Ordering::Equal),
                Compare::Less => order == Some(Ordering::Less),
                Compare::AtMost => order.is_some_and(Ordering::is_le),
                Compare::Greater => order == Some(Ordering::Greater),
                Compare::AtLeast => order.is_some_and(Ordering::is_ge),
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_displayed_parses_to_the_same(expression in any_expression()) {
        let filter = Filter(expression);
        prop_assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter);
    }

    #[test]
    fn a_filter_means_what_it_says(expression in any_expression(), event in any_json()) {
        let wanted = means(&expression, &event);
        prop_assert_eq!(keeps(&Filter(expression), &event.to_string()), wanted);
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "(and|or|not|exists|in|starts_with|contains|,|/a|\"|[()=!<>é \\\\~0-9-]|null){0,16}|\\PC{0,20}") {
        if let Ok(filter) = Filter::parse(&text) {
            prop_assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter);
        }
    }
}
