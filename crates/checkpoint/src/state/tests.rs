use proptest::prelude::*;

use super::*;
use crate::key_template::KeyTemplate;
use crate::position::tests::any_position;

fn seq(n: u128) -> SequenceNumber {
    SequenceNumber::parse(n.to_string()).unwrap()
}

fn any_parameters() -> impl Strategy<Value = PackingParameters> {
    let key = prop_oneof![
        Just(AggregateKey::PartitionKey),
        Just(AggregateKey::Template(KeyTemplate::parse("{/carrier}-{/month}").unwrap())),
    ];
    let codec = prop_oneof![Just(Codec::None), (1i32..20).prop_map(Codec::Zstd)];
    let range = proptest::option::of(
        (any::<u128>(), any::<u128>()).prop_map(|(start, end)| HashKeyRange { start, end }),
    );
    let transform = prop_oneof![
        2 => Just([None, None, None]),
        1 => Just([Some("/a == \"x y\" and not (exists /b or /c < -1.50)"), Some("/a \"/b c\""), None]),
        1 => Just([None, None, Some("/a per 5m by /t")]),
    ];
    let ttl = proptest::option::of(1u32..4_000);
    let range = (range, any::<bool>());
    (key, 4_096u32..409_600, 1u32..20, codec, ttl, range, transform).prop_map(
        |(
            aggregate_key,
            max_item_bytes,
            spread,
            codec,
            ttl_days,
            (hash_range, only_sent_again),
            [filter, fields, reduce],
        )| {
            let parameters = PackingParameters {
                aggregate_key,
                max_item_bytes,
                spread,
                codec,
                ttl_days,
                hash_range,
                only_sent_again,
                filter: filter.map(|text| text.parse().unwrap()),
                fields: fields.map(|text| text.parse().unwrap()),
                reduce: reduce.map(|text| text.parse().unwrap()),
                ..PackingParameters::default()
            };
            parameters.with_needed_decoding_version()
        },
    )
}

fn any_exclusion() -> impl Strategy<Value = Exclusion> {
    (any::<u64>(), 0u64..9, any::<u64>(), 0u64..9).prop_map(|(a, x, b, y)| Exclusion {
        from: (seq(a.into()), SubSequenceNumber(x)),
        to: (seq(b.into()), SubSequenceNumber(y)),
    })
}

fn any_cut() -> impl Strategy<Value = Cut> {
    (
        (any::<u128>(), any::<u128>(), proptest::option::of(0u64..9), 0u64..9, 1u64..100_000),
        any_parameters(),
        (0u32..4, 0u32..9, proptest::collection::vec(any_exclusion(), 0..3), any::<bool>()),
    )
        .prop_map(
            |(
                (first, last, behind, last_sub, records),
                parameters,
                (version, revision, exclusions, dropped),
            )| Cut {
                first: seq(first),
                last: seq(last),
                behind_sub: behind.map(SubSequenceNumber),
                last_sub: SubSequenceNumber(last_sub),
                records,
                parameters: Arc::new(parameters),
                packing_version: version,
                revision,
                exclusions,
                dropped,
            },
        )
}

fn any_state() -> impl Strategy<Value = LeaseState> {
    let time = || proptest::option::of(any::<i64>().prop_map(ArrivalMillis));
    (
        any::<u32>(),
        time(),
        proptest::option::of(any_position()),
        proptest::collection::vec(any_cut(), 0..5),
        time(),
        time(),
    )
        .prop_map(|(epoch, start, follows, cuts, checkpoint_arrival, caught_up)| LeaseState {
            epoch,
            start,
            follows,
            cuts,
            checkpoint_arrival,
            caught_up,
        })
}

fn tiling_cut(first: u128, last: u128) -> Cut {
    Cut {
        first: seq(first),
        last: seq(last),
        behind_sub: None,
        last_sub: SubSequenceNumber(0),
        records: 1,
        parameters: Arc::new(PackingParameters::default()),
        packing_version: 1,
        revision: 0,
        exclusions: Vec::new(),
        dropped: false,
    }
}

proptest! {
    #[test]
    fn what_is_encoded_reads_back(state in any_state()) {
        if let Ok(bytes) = state.encode() {
            prop_assert!(bytes.len() <= MAX_STATE_BYTES);
            prop_assert_eq!(LeaseState::decode(&bytes).unwrap(), state);
        }
    }

    #[test]
    fn any_bytes_give_an_answer_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), ours: bool) {
        let bytes = if ours { [MAGIC, &[STATE_VERSION], &bytes].concat() } else { bytes };
        let answer = LeaseState::decode(&bytes);
        if !bytes.starts_with(MAGIC) { prop_assert_eq!(answer, Err(DecodeStateError::Foreign)); }
    }
}

#[test]
fn equal_parameters_are_stored_once() {
    let mut state = LeaseState::starting(None);
    state.cuts = vec![tiling_cut(1, 2)];
    let one = state.encode().unwrap().len();
    state.cuts.push(tiling_cut(3, 4));
    let two = state.encode().unwrap().len();
    assert!(two - one < encoded_parameters_bytes(&PackingParameters::default()) + 12, "{one} {two}");
}

#[test]
fn a_state_above_4_kb_is_refused() {
    let mut state = LeaseState::starting(None);
    state.cuts = (0..500u128).map(|n| tiling_cut(10 * n + 1, 10 * n + 9)).collect();
    assert!(matches!(state.encode(), Err(StateTooLarge { bytes }) if bytes > MAX_STATE_BYTES));
}

#[test]
fn another_version_is_named_not_guessed() {
    let mut bytes = LeaseState::starting(None).encode().unwrap();
    bytes[MAGIC.len()] = 9;
    assert_eq!(LeaseState::decode(&bytes), Err(DecodeStateError::Version { found: 9 }));
}

#[test]
fn cuts_must_begin_at_the_checkpoint_and_ascend() {
    let checkpoint = Position::At(seq(10), SubSequenceNumber(0));
    let mut state = LeaseState::starting(None);
    state.follows = Some(checkpoint.clone());
    state.cuts = vec![tiling_cut(11, 20), tiling_cut(21, 30)];
    assert_eq!(state.check_cuts(&checkpoint), Ok(()));
    assert_eq!(state.announced_up_to(&checkpoint), Position::At(seq(30), SubSequenceNumber(0)));

    let moved = Position::At(seq(15), SubSequenceNumber(0));
    assert!(matches!(state.check_cuts(&moved), Err(BrokenCuts::Detached { .. })));

    state.cuts[1] = tiling_cut(20, 30);
    assert!(matches!(state.check_cuts(&checkpoint), Err(BrokenCuts::Unordered { .. })));
}

#[test]
fn a_cut_inside_an_aggregated_record_begins_at_that_record() {
    let checkpoint = Position::At(seq(10), SubSequenceNumber(4));
    let mut state = LeaseState::starting(None);
    state.follows = Some(checkpoint.clone());
    state.cuts = vec![Cut { behind_sub: Some(SubSequenceNumber(4)), ..tiling_cut(10, 20) }];
    assert_eq!(state.check_cuts(&checkpoint), Ok(()));
}

/// A state as a build wrote it that knew of no filters.
const BEFORE_FILTERS: &str = "534c55494345474154450108071080a0abfef9621a060a0231301004220e0a023130120232301804280138012a450a137b2f636172726965727d2d7b2f6d6f6e74687d1080e01818032006281e30013a10000000000000000000000000000000014210ffffffffffffffffffffffffffffffff3880a0abfef962";

#[test]
fn a_row_from_before_filters_reads_and_is_written_as_it_was() {
    let bytes: Vec<u8> = (0..BEFORE_FILTERS.len() / 2)
        .map(|at| u8::from_str_radix(&BEFORE_FILTERS[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let mut state = LeaseState::starting(Some(ArrivalMillis(1_700_000_000_000)));
    state.epoch = 7;
    state.follows = Some(Position::At(seq(10), SubSequenceNumber(4)));
    let parameters = PackingParameters {
        aggregate_key: AggregateKey::Template(KeyTemplate::parse("{/carrier}-{/month}").unwrap()),
        spread: 3,
        ttl_days: Some(30),
        hash_range: Some(HashKeyRange { start: 1, end: u128::MAX }),
        ..PackingParameters::default()
    };
    let parameters = Arc::new(parameters);
    state.cuts = vec![Cut { behind_sub: Some(SubSequenceNumber(4)), parameters, ..tiling_cut(10, 20) }];
    assert_eq!(LeaseState::decode(&bytes), Ok(state.clone()));
    assert_eq!(state.encode().unwrap(), bytes, "a build from before filters could not take it back");
}

#[test]
fn cuts_that_transform_say_so_and_those_of_a_later_build_are_refused() {
    let transforming = |version| {
        let parameters = PackingParameters {
            filter: Some("/a == 1".parse().unwrap()),
            decoding_version: version,
            ..PackingParameters::default()
        };
        let mut state = LeaseState::starting(None);
        state.cuts = vec![tiling_cut(1, 2), Cut { parameters: Arc::new(parameters), ..tiling_cut(3, 4) }];
        LeaseState::decode(&state.encode().unwrap()).map(|state| state.cuts[1].parameters.decoding_version)
    };
    assert_eq!((transforming(2), transforming(3)), (Ok(2), Ok(3)));
    assert_eq!(transforming(4), Err(DecodeStateError::DecodingVersion { found: 4 }));
    // A build that has version 1 alone refuses any other, as this one does 4; and nothing may hide behind 1.
    assert!(matches!(transforming(1), Err(DecodeStateError::Damaged { .. })));
}

#[test]
fn the_rule_of_user_records_that_are_sent_again_is_recorded_and_never_under_an_older_version() {
    let range = Some(HashKeyRange { start: 1, end: 9 });
    let judging =
        PackingParameters { hash_range: range, only_sent_again: true, ..PackingParameters::default() };
    let under = |decoding_version| {
        let parameters = Arc::new(PackingParameters { decoding_version, ..judging.clone() });
        let mut state = LeaseState::starting(None);
        state.cuts = vec![Cut { parameters, ..tiling_cut(1, 2) }];
        LeaseState::decode(&state.encode().unwrap()).map(|state| state.cuts[0].parameters.clone())
    };
    assert_eq!(judging.clone().with_needed_decoding_version().decoding_version, 3);
    assert_eq!(under(3), Ok(Arc::new(judging.clone().with_needed_decoding_version())));
    assert!(matches!(under(1), Err(DecodeStateError::Damaged { .. })));
    assert_eq!(
        judging.without_judgement(),
        PackingParameters::default(),
        "what needs no judgement stays at 1"
    );
}

#[test]
fn a_filter_that_this_build_cannot_read_is_damage_and_no_filter_is_guessed() {
    let parameters =
        PackingParameters { filter: Some("/a == 1".parse().unwrap()), ..PackingParameters::default() };
    let mut state = LeaseState::starting(None);
    let parameters = Arc::new(parameters.with_needed_decoding_version());
    state.cuts = vec![Cut { parameters, ..tiling_cut(1, 2) }];
    let mut bytes = state.encode().unwrap();
    let at = bytes.windows(7).position(|bytes| bytes == b"/a == 1").unwrap();
    bytes[at + 4] = b'~';
    assert!(
        matches!(LeaseState::decode(&bytes), Err(DecodeStateError::Damaged { why }) if why.contains("character"))
    );
}
