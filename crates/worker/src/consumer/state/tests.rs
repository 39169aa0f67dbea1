use bytes::Bytes;
use proptest::prelude::*;
use sluicegate_checkpoint::{
    AggregateKey, Exclusion, HashKey, HashKeyRange, KeyTemplate, Record, SequenceNumber, SubSequenceNumber,
};
use sluicegate_sink::GroupSizes;

use super::*;
use crate::consumer::batcher::CutPolicy;
use crate::consumer::conservation::{Outcomes, Reasons};
use crate::consumer::judgement::ForeignUserRecords;
use crate::distribution::Judgement;
use crate::stream::RecordPage;

fn record(n: u64) -> Record {
    Record::new(
        SequenceNumber::parse(n.to_string()).unwrap(),
        ArrivalMillis(1_000 + i64::try_from(n).unwrap()),
        "k",
        Bytes::from(format!("event {n}")),
    )
}

/// The user records of the `n`th Kinesis record: one to three.
fn user_records(n: u64) -> impl Iterator<Item = Record> {
    (0..=n % 3).map(move |sub| {
        let plain = record(n).at_sub(sub);
        if n.is_multiple_of(3) {
            plain
        } else {
            plain.with_hash_key(HashKey { key: sub.into(), sent_again: n.is_multiple_of(2) })
        }
    })
}

/// A page as [`page`], of aggregated records.
fn aggregated_page(numbers: impl IntoIterator<Item = u64>, at_tip: bool) -> Event {
    let Event::Page(page) = page([], at_tip) else { unreachable!() };
    Event::Page(RecordPage { records: numbers.into_iter().flat_map(user_records).collect(), ..page })
}

fn at(n: u64, sub: u64) -> Position {
    Position::At(record(n).sequence_number().clone(), SubSequenceNumber(sub))
}

fn page(numbers: impl IntoIterator<Item = u64>, at_tip: bool) -> Event {
    let behind_latest = if at_tip { Duration::ZERO } else { Duration::from_secs(1) };
    let records = numbers.into_iter().map(record).collect();
    Event::Page(RecordPage { records, behind_latest, as_of: ArrivalMillis(5_000), ..RecordPage::default() })
}

fn policy() -> SessionPolicy {
    SessionPolicy {
        cut: CutPolicy {
            max_bytes: 1 << 20,
            max_weight: 8 << 20,
            max_records: 3,
            max_age: Duration::from_secs(5),
            max_span: Duration::from_secs(60),
        },
        max_in_flight: 2,
        commit_delay: Duration::from_secs(1),
        parameters: Arc::new(PackingParameters::default()),
        foreign_user_records: ForeignUserRecords::Auto,
        packing_versions: vec![1],
        accept_gap: false,
        retention: None,
        parents_covered: None,
    }
}

fn row() -> Lease {
    Lease::unowned(ShardId::new("s"), Position::TrimHorizon, LeaseState::starting(None))
}

fn session(row: &Lease, policy: SessionPolicy) -> ShardSession {
    ShardSession::new(row, row.pending.state().unwrap(), policy)
}

fn deliveries(commands: &[Command]) -> Vec<Arc<Batch>> {
    let delivery = |command: &Command| match command {
        Command::Deliver(batch) => Some(Arc::clone(batch)),
        Command::Read | Command::Write { .. } | Command::Judge { .. } | Command::Finish(_) => None,
    };
    commands.iter().filter_map(delivery).collect()
}

fn written(commands: &[Command]) -> Option<(Position, LeaseState)> {
    commands.iter().find_map(|command| match command {
        Command::Write { checkpoint, state } => Some((checkpoint.clone(), (**state).clone())),
        Command::Read | Command::Deliver(_) | Command::Judge { .. } | Command::Finish(_) => None,
    })
}

fn recorded() -> Event {
    Event::Written(Announced::Recorded)
}

fn delivered(batch: &Batch) -> Event {
    let outcomes = Outcomes {
        stored: batch.stored().count() as u64,
        filtered: batch.filtered(),
        foreign: batch.foreign(),
        dead_lettered: batch.excluded().count() as u64,
        unreadable: batch.unreadable().len() as u64,
    };
    let (id, revision) = (batch.id.clone(), batch.cut.revision);
    Event::Delivered { id, revision, groups: GroupSizes::default(), outcomes }
}

fn excluded(n: u64) -> Exclusion {
    let id = (record(n).sequence_number().clone(), SubSequenceNumber(0));
    Exclusion { from: id.clone(), to: id }
}

#[test]
fn poison_is_excluded_by_one_write_before_the_batch_is_delivered_again() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    session.on(page(1..=6, false), now);
    let batches = deliveries(&session.on(recorded(), now));
    let poisoned = Event::Poisoned { batch: batches[1].clone(), events: vec![excluded(5)] };
    let held = session.weight_bytes();
    let commands = session.on(poisoned, now);
    let (checkpoint, state) = written(&commands).unwrap();
    assert!(deliveries(&commands).is_empty(), "nothing under a revision before its amendment is confirmed");
    assert_eq!(session.weight_bytes(), held, "its memory is counted all the while");
    assert_eq!((checkpoint, state.cuts.len()), (Position::TrimHorizon, 2));
    assert_eq!((state.cuts[1].revision, &state.cuts[1].exclusions), (1, &vec![excluded(5)]));
    assert_eq!(state.cuts[0], batches[0].cut);
    // What is found while that write is under way goes into the next.
    let other = Event::Poisoned { batch: batches[0].clone(), events: vec![excluded(1), excluded(3)] };
    assert_eq!(session.on(other, now), vec![]);
    let commands = session.on(recorded(), now);
    let again = deliveries(&commands).remove(0);
    assert_eq!((again.cut.revision, again.records.len()), (1, 3));
    let (_, state) = written(&commands).unwrap();
    assert_eq!(state.cuts[0].exclusions, vec![excluded(1), excluded(3)]);
    let first = deliveries(&session.on(recorded(), now)).remove(0);
    session.on(delivered(&again), now);
    session.on(delivered(&first), now);
    let due = session.next_deadline().unwrap();
    let (checkpoint, state) = written(&session.on(Event::Tick, due)).unwrap();
    assert_eq!((checkpoint.to_string(), state.cuts.len()), ("6".to_owned(), 0));
    assert_eq!(session.unaccounted(), vec![]);
}

#[test]
fn exclusions_go_with_the_row_and_are_found_by_the_next_owner() {
    let now = Instant::now();
    let mut first = session(&row(), policy());
    let (checkpoint, state) = written(&first.on(page(1..=3, false), now)).unwrap();
    let announced = row().progressed(checkpoint.clone(), state);
    let batch = deliveries(&first.on(recorded(), now)).remove(0);
    let (_, state) = written(&first.on(Event::Poisoned { batch, events: vec![excluded(2)] }, now)).unwrap();
    let again = deliveries(&first.on(recorded(), now)).remove(0);
    let mut second = session(&announced.progressed(checkpoint, state), policy());
    let taken_over = deliveries(&second.on(page(1..=5, false), now)).remove(0);
    assert_eq!(taken_over, again, "the same batch under the same revision (D3)");
    assert_eq!(taken_over.excluded().count(), 1);
}

#[test]
fn past_the_drain_deadline_poison_goes_with_the_row_as_it_stands() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    session.on(page(1..=3, false), now);
    let batch = deliveries(&session.on(recorded(), now)).remove(0);
    let deadline = now + Duration::from_millis(500);
    session.on(Event::Drain { deadline }, now);
    let commands = session.on(Event::Poisoned { batch, events: vec![excluded(2)] }, deadline);
    assert_eq!(commands, vec![Command::Finish(Finish::HandOver { commit: None })]);
}

#[test]
fn a_record_that_does_not_come_out_is_found_at_the_commit() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    session.on(page(1..=3, false), now);
    let batch = deliveries(&session.on(recorded(), now)).remove(0);
    let Event::Delivered { id, revision, groups, .. } = delivered(&batch) else { unreachable!() };
    let outcomes = Outcomes { stored: 2, ..Outcomes::default() };
    session.on(Event::Delivered { id: id.clone(), revision, groups, outcomes }, now);
    assert_eq!(session.unaccounted(), vec![], "it is not committed yet");
    let due = session.next_deadline().unwrap();
    session.on(Event::Tick, due);
    let reasons = Reasons::default();
    assert_eq!(session.unaccounted(), vec![Unaccounted { id, fetched: 3, outcomes, reasons }]);
}

#[test]
fn a_batch_is_announced_before_it_is_delivered_and_committed_after() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    assert_eq!(session.on(Event::Tick, now), vec![Command::Read]);
    let commands = session.on(page(1..=3, false), now);
    let (checkpoint, state) = written(&commands).unwrap();
    assert_eq!((checkpoint, state.cuts.len()), (Position::TrimHorizon, 1));
    assert!(deliveries(&commands).is_empty(), "nothing is delivered before the announce is confirmed (D2)");
    let batch = deliveries(&session.on(recorded(), now)).remove(0);
    assert!(
        written(&session.on(delivered(&batch), now)).is_none(),
        "a lone commit waits for an announce to ride on"
    );
    let later = session.next_deadline().unwrap();
    assert_eq!(later, now + Duration::from_secs(1));
    let (checkpoint, state) = written(&session.on(Event::Tick, later)).unwrap();
    assert_eq!((checkpoint.to_string(), state.cuts.len()), ("3".to_owned(), 0));
    assert_eq!(state.checkpoint_arrival, Some(ArrivalMillis(1_003)));
    session.on(recorded(), later);
    assert_eq!(session.checkpoint().to_string(), "3");
}

#[test]
fn a_commit_rides_on_the_next_announce_and_never_passes_a_gap() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    session.on(page(1..=6, false), now);
    let batches = deliveries(&session.on(recorded(), now));
    assert_eq!(batches.len(), 2, "both closed batches were announced by one write");
    session.on(delivered(&batches[1]), now);
    let commands = session.on(page(7..=9, false), now);
    assert!(written(&commands).is_none(), "two are in flight, none committable");
    let (checkpoint, state) = written(&session.on(delivered(&batches[0]), now)).unwrap();
    assert_eq!(
        (checkpoint.to_string(), state.cuts.len()),
        ("6".to_owned(), 1),
        "commit and announce in one write"
    );
}

#[test]
fn a_shard_that_waits_for_memory_delivers_what_it_holds() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    assert!(written(&session.on(page(1..=2, false), now)).is_none(), "the batch is not full");
    assert_eq!(written(&session.on(Event::Starved, now)).unwrap().1.cuts.len(), 1);
}

#[test]
fn a_shard_that_waits_for_memory_lets_its_batch_grow_while_another_one_is_on_its_way() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    session.on(page(1..=4, false), now);
    let batch = deliveries(&session.on(recorded(), now)).remove(0);
    assert!(written(&session.on(Event::Starved, now)).is_none(), "what is on its way frees memory");
    let (_, state) = written(&session.on(delivered(&batch), now)).unwrap();
    assert_eq!((state.cuts.len(), state.cuts[0].first.as_str()), (1, "4"), "nothing else does now");
    let mut session = self::session(&row(), policy());
    session.on(page(1..=4, false), now);
    let batch = deliveries(&session.on(recorded(), now)).remove(0);
    session.on(Event::Starved, now);
    session.on(page(5..=5, false), now);
    assert!(written(&session.on(delivered(&batch), now)).is_none(), "it got its memory and goes on");
}

#[test]
fn a_batch_grows_old_while_it_could_not_be_announced() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    session.on(page(1..=7, false), now);
    let batches = deliveries(&session.on(recorded(), now));
    assert_eq!(batches.len(), 2, "as many as may be in flight");
    let late = now + Duration::from_secs(60);
    assert_eq!(session.next_deadline(), None);
    assert!(written(&session.on(Event::Tick, late)).is_none());
    let commands = session.on(page(8..=9, false), late);
    assert!(written(&commands).is_none(), "full, and there is no room for it");
    let (_, state) = written(&session.on(delivered(&batches[0]), late)).unwrap();
    assert_eq!(state.cuts[1].records, 3);
}

#[test]
fn what_was_stored_says_how_large_the_next_batch_should_be_and_is_counted_with_why_it_was_closed() {
    let now = Instant::now();
    let cut = CutPolicy { max_bytes: 576, max_records: 1_000, ..policy().cut };
    let mut session = session(&row(), SessionPolicy { cut, ..policy() });
    // Seven bytes each. The first batch is full at 36.
    session.on(page(1..=5, false), now);
    let later = now + Duration::from_secs(5);
    session.on(Event::Tick, later);
    let batch = deliveries(&session.on(recorded(), later)).remove(0);
    let item = u64::from(PackingParameters::DEFAULT_ITEM_BYTES);
    let groups = GroupSizes::new(vec![item / 2], 1);
    let outcomes = Outcomes { stored: 5, ..Outcomes::default() };
    session.on(Event::Delivered { id: batch.id.clone(), revision: 0, groups, outcomes }, later);
    let filled = Filled { closed_by: Some(ClosedBy::Age), stored_bytes: item / 2, room_bytes: item };
    assert_eq!(session.filled(), [filled]);
    assert_eq!(session.filled(), []);
    // 35 bytes filled half an item, so 70 would fill one, and 144 (a sample) begin a third. Now they have eight bytes each.
    let (_, state) = written(&session.on(page(10..=40, false), later)).unwrap();
    assert!((8..=9).contains(&state.cuts[0].records), "{:?}", state.cuts);
}

#[test]
fn a_session_that_begins_with_announced_cuts_samples_as_any_other() {
    let now = Instant::now();
    let cut = CutPolicy { max_bytes: 576, max_records: 1_000, ..policy().cut };
    let policy = SessionPolicy { cut, ..policy() };
    let mut before = session(&row(), policy.clone());
    before.on(page(1..=3, true), now);
    let (checkpoint, announced) = written(&before.on(Event::Tick, now + Duration::from_secs(5))).unwrap();
    assert_eq!(announced.cuts.len(), 1);
    let mut after = session(&row().progressed(checkpoint, announced), policy);
    // Seven bytes each: a first batch is full at 36, so six records fill it and not the 576 of the largest.
    let (_, state) = written(&after.on(page(1..=9, false), now)).unwrap();
    assert_eq!(state.cuts[1].records, 6, "{:?}", state.cuts);
}

#[test]
fn losing_the_row_ends_the_session_at_once() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    session.on(page(1..=3, false), now);
    assert_eq!(session.on(Event::Written(Announced::Lost), now), vec![Command::Finish(Finish::Lost)]);
    assert!(session.on(page(4..=6, false), now).is_empty());
}

#[test]
fn draining_cuts_what_is_open_delivers_commits_and_leaves_nothing_announced() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    session.on(page(1..=2, true), now);
    let commands = session.on(Event::Drain { deadline: now + Duration::from_secs(9) }, now);
    assert_eq!(written(&commands).unwrap().1.cuts.len(), 1);
    let batch = deliveries(&session.on(recorded(), now)).remove(0);
    let commands = session.on(delivered(&batch), now);
    let [Command::Finish(Finish::HandOver { commit: Some(commit) })] = &commands[..] else {
        panic!("commit and hand-over are one write: {commands:?}");
    };
    assert_eq!(commit.0.to_string(), "2");
    assert!(commit.1.cuts.is_empty(), "H2: nothing is left announced");
}

#[test]
fn past_the_drain_deadline_the_announced_cuts_go_with_the_row() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    session.on(page(1..=3, false), now);
    session.on(recorded(), now);
    let deadline = now + Duration::from_millis(500);
    assert!(session.on(Event::Drain { deadline }, now).is_empty());
    assert_eq!(session.next_deadline(), Some(deadline));
    assert_eq!(session.on(Event::Tick, deadline), vec![Command::Finish(Finish::HandOver { commit: None })]);
}

#[test]
fn a_takeover_delivers_the_announced_cuts_again_as_they_were() {
    let now = Instant::now();
    let mut first = session(&row(), policy());
    let (checkpoint, state) = written(&first.on(page(1..=3, false), now)).unwrap();
    let original = deliveries(&first.on(recorded(), now)).remove(0);
    let taken = row().progressed(checkpoint, state);
    let other = SessionPolicy {
        cut: CutPolicy { max_records: 100, ..policy().cut },
        parameters: Arc::new(PackingParameters { max_item_bytes: 5_000, ..PackingParameters::default() }),
        ..policy()
    };
    let mut second = session(&taken, other);
    assert_eq!(second.read_from(), ReadFrom::At(SequenceNumber::parse("1").unwrap()));
    assert_eq!(second.on(Event::Tick, now), vec![Command::Read]);
    let again = deliveries(&second.on(page(1..=5, false), now)).remove(0);
    assert_eq!(again, original, "the same batch, whatever today's configuration (D3)");
}

#[test]
fn an_announce_that_would_crowd_the_row_waits_until_older_cuts_are_committed() {
    let now = Instant::now();
    // Four configurations in turn, each with a key template that takes nearly all it may.
    let configured = |letter: &str| {
        let template = KeyTemplate::parse(&format!("{{/a}}{}", letter.repeat(900))).unwrap();
        let aggregate_key = AggregateKey::Template(template);
        let parameters = PackingParameters { aggregate_key, ..PackingParameters::default() };
        parameters.check().unwrap();
        SessionPolicy { max_in_flight: 12, parameters: Arc::new(parameters), ..policy() }
    };
    let mut taken = row();
    for (n, letter) in (1..=4).zip(["p", "q", "r", "s"]) {
        let (checkpoint, state) =
            written(&session(&taken, configured(letter)).on(page(1..=3 * n, false), now)).unwrap();
        assert_eq!((&checkpoint, state.cuts.len() as u64), (&Position::TrimHorizon, n));
        taken = taken.progressed(checkpoint, state);
        assert!(taken.pending.state().unwrap().encode().is_ok());
    }
    let mut fifth = session(&taken, configured("t"));
    let commands = fifth.on(page(1..=15, false), now);
    let announced = deliveries(&commands);
    assert_eq!(announced.len(), 4, "the cuts of earlier sessions");
    assert!(written(&commands).is_none(), "the fifth set does not fit");
    let (checkpoint, state) = written(&fifth.on(delivered(&announced[0]), now)).unwrap();
    assert_eq!(
        (checkpoint.to_string(), state.cuts.len()),
        ("3".to_owned(), 4),
        "it takes the room of the first"
    );
    assert!(state.encode().is_ok());
}

#[test]
fn a_packing_version_that_is_lacking_is_amended_before_anything_is_read() {
    let now = Instant::now();
    let mut first = session(&row(), policy());
    let (checkpoint, state) = written(&first.on(page(1..=3, false), now)).unwrap();
    let taken = row().progressed(checkpoint, state);
    let mut second = session(&taken, SessionPolicy { packing_versions: vec![2], ..policy() });
    let commands = second.on(Event::Tick, now);
    let (_, amended) = written(&commands).unwrap();
    assert_eq!((amended.cuts[0].packing_version, amended.cuts[0].revision), (2, 1));
    assert_eq!(commands.len(), 1, "no read before the amendment is confirmed");
    assert_eq!(second.on(recorded(), now), vec![Command::Read]);
    let batch = deliveries(&second.on(page(1..=3, false), now)).remove(0);
    assert_eq!((batch.cut.packing_version, batch.cut.revision), (2, 1));
}

#[test]
fn announced_records_that_are_gone_stop_the_shard_unless_the_gap_is_accepted() {
    let now = Instant::now();
    let mut first = session(&row(), policy());
    let (checkpoint, state) = written(&first.on(page(1..=3, false), now)).unwrap();
    let taken = row().progressed(checkpoint.clone(), state);
    let mut strict = session(&taken, policy());
    assert!(matches!(strict.on(page(2..=3, true), now)[..], [Command::Finish(Finish::RecordsLost(_))]));

    let mut lenient = session(&taken, SessionPolicy { accept_gap: true, ..policy() });
    let (_, dropped) = written(&lenient.on(page(2..=3, true), now)).unwrap();
    assert!(dropped.cuts[0].dropped && dropped.cuts[0].revision == 1);
    assert_eq!(lenient.accepted_gaps().len(), 1, "counted also if the answer to the write never comes");
    assert_eq!(lenient.on(recorded(), now), vec![Command::Finish(Finish::Restart)]);
    assert!(lenient.accepted_gaps().is_empty());
    let mut third =
        session(&taken.progressed(checkpoint, dropped), SessionPolicy { accept_gap: true, ..policy() });
    assert!(
        deliveries(&third.on(page(2..=4, true), now)).is_empty(),
        "a dropped cut never delivers a remainder"
    );
    let due = third.next_deadline().unwrap();
    assert_eq!(written(&third.on(Event::Tick, due)).unwrap().0.to_string(), "3", "it commits in its turn");
}

#[test]
fn the_end_of_the_shard_comes_after_everything_is_committed() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    let Event::Page(last) = page(1..=2, true) else { unreachable!() };
    let commands = session.on(Event::Page(RecordPage { end: Some(Vec::new()), ..last }), now);
    assert!(written(&commands).is_some(), "what is open is closed, whatever its size");
    let batch = deliveries(&session.on(recorded(), now)).remove(0);
    let commands = session.on(delivered(&batch), now);
    assert!(written(&commands).is_some() && !commands.contains(&Command::Read));
    let end = Finish::ShardEnd { children: Vec::new() };
    assert_eq!(session.on(recorded(), now), vec![Command::Finish(end)]);
}

#[test]
fn an_idle_shard_records_now_and_then_that_it_was_caught_up() {
    let now = Instant::now();
    let mut session = session(&row(), policy());
    let Event::Page(empty) = page([], true) else { unreachable!() };
    let late = RecordPage { as_of: ArrivalMillis(6 * 3_600_000 + 1), ..empty };
    let (_, state) = written(&session.on(Event::Page(late), now)).unwrap();
    assert_eq!(state.caught_up, Some(ArrivalMillis(6 * 3_600_000 + 1)));
}

/// A page of a shard whose records are kept for 2 s.
fn aged(numbers: impl IntoIterator<Item = u64>, at_tip: bool, as_of: i64) -> Event {
    let Event::Page(page) = page(numbers, at_tip) else { unreachable!() };
    Event::Page(RecordPage { as_of: ArrivalMillis(as_of), ..page })
}

fn keeps_two_seconds() -> SessionPolicy {
    SessionPolicy { retention: Some(Duration::from_secs(2)), ..policy() }
}

#[test]
fn an_idle_shard_records_it_every_quarter_of_a_short_retention() {
    let now = Instant::now();
    let born = LeaseState { caught_up: Some(ArrivalMillis(1_000)), ..LeaseState::starting(None) };
    let row = Lease { pending: sluicegate_lease::Pending::Ours(born), ..row() };
    let mut session = session(&row, keeps_two_seconds());
    assert_eq!(written(&session.on(aged([], true, 1_400), now)), None);
    let (_, state) = written(&session.on(aged([], true, 1_501), now)).unwrap();
    assert_eq!(state.caught_up, Some(ArrivalMillis(1_501)));
}

#[test]
fn a_position_that_retention_has_overtaken_ends_the_session_unless_gaps_are_accepted() {
    let now = Instant::now();
    let read = LeaseState { checkpoint_arrival: Some(ArrivalMillis(1_002)), ..LeaseState::starting(None) };
    let row = Lease { checkpoint: at(2, 0), ..row().progressed(at(2, 0), read) };
    let commands = session(&row, keeps_two_seconds()).on(aged([2, 3, 4], false, 9_000), now);
    assert!(written(&commands).is_none() && commands == [Command::Read], "its record is still there");
    let commands = session(&row, keeps_two_seconds()).on(aged([3, 4, 5], false, 9_000), now);
    let [Command::Finish(Finish::Overtaken(overtaken))] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((overtaken.read_to, overtaken.kept_from), (ArrivalMillis(1_002), ArrivalMillis(7_000)));
    let mut lenient = session(&row, SessionPolicy { accept_gap: true, ..keeps_two_seconds() });
    let commands = lenient.on(aged([3, 4, 5], false, 9_000), now);
    assert_eq!(lenient.accepted_gaps().len(), 1);
    let (_, state) = written(&commands).unwrap();
    assert_eq!((state.cuts.len(), state.caught_up), (1, Some(ArrivalMillis(7_000))));
    assert!(lenient.accepted_gaps().is_empty());
}

#[test]
fn what_retention_took_behind_a_dropped_batch_is_judged_too() {
    let now = Instant::now();
    let (checkpoint, mut state) = written(&session(&row(), policy()).on(page(1..=3, false), now)).unwrap();
    state.cuts[0].dropped = true;
    state.checkpoint_arrival = Some(ArrivalMillis(1_000));
    let row = row().progressed(checkpoint, state);
    let accepts = SessionPolicy { accept_gap: true, ..keeps_two_seconds() };
    let gaps = |found: Event| {
        let mut session = session(&row, accepts.clone());
        session.on(found, now);
        session.accepted_gaps().len()
    };
    assert_eq!(gaps(aged([5_000, 5_001], false, 8_000)), 1, "4 and those behind it");
    assert_eq!(gaps(aged([], true, 8_000)), 1, "also where nothing is found");
    assert_eq!(gaps(aged([3, 4, 5], false, 8_000)), 0, "the rest of the batch is there, and what follows it");
    let commands = session(&row, keeps_two_seconds()).on(aged([5_000], false, 8_000), now);
    assert!(matches!(commands[..], [Command::Finish(Finish::Overtaken(_))]), "{commands:?}");
}

#[test]
fn behind_a_dropped_batch_the_time_that_a_row_was_born_with_counts_no_more() {
    let now = Instant::now();
    let (checkpoint, mut state) = written(&session(&row(), policy()).on(page(1..=3, false), now)).unwrap();
    state.caught_up = Some(ArrivalMillis(7_000));
    let taken = row().progressed(checkpoint, state);
    let accepts = SessionPolicy { accept_gap: true, ..keeps_two_seconds() };
    let mut first = session(&taken, accepts.clone());
    let (checkpoint, dropped) = written(&first.on(aged([6_100], false, 8_000), now)).unwrap();
    assert_eq!((first.accepted_gaps().len(), dropped.caught_up), (1, Some(ArrivalMillis(5_999))));
    let row = taken.progressed(checkpoint, dropped);
    let gaps = |found: Event| {
        let mut session = session(&row, accepts.clone());
        session.on(found, now);
        session.accepted_gaps().len()
    };
    assert_eq!(gaps(aged([6_100], false, 8_001)), 1, "4 and those behind it may be gone as well");
    assert_eq!(gaps(aged([3, 4, 5], false, 8_001)), 0, "the rest of the batch is there, and what follows it");
}

#[test]
fn the_time_that_a_row_was_born_with_counts_only_until_its_first_records() {
    let now = Instant::now();
    let born = LeaseState { caught_up: Some(ArrivalMillis(5_000)), ..LeaseState::starting(None) };
    let row = Lease { pending: sluicegate_lease::Pending::Ours(born), ..row() };
    let mut session = session(&row, keeps_two_seconds());
    session.on(aged(2_500..=2_502, false, 5_100), now);
    let batch = deliveries(&session.on(recorded(), now)).remove(0);
    session.on(delivered(&batch), now);
    let due = session.next_deadline().unwrap();
    let (_, state) = written(&session.on(Event::Tick, due)).unwrap();
    assert_eq!(
        state.covered_to(),
        Some(ArrivalMillis(3_502)),
        "its last record's, not when the row was made"
    );
    session.on(recorded(), due);
    let commands = session.on(aged([2_990], false, 8_000), due);
    assert!(matches!(commands[..], [Command::Finish(Finish::Overtaken(_))]), "{commands:?}");
}

#[test]
fn a_child_is_judged_by_its_parents_and_its_own_time_whichever_is_later() {
    let now = Instant::now();
    let born = LeaseState { caught_up: Some(ArrivalMillis(1_000)), ..LeaseState::starting(None) };
    let row = Lease { pending: sluicegate_lease::Pending::Ours(born), ..row() };
    let ends = |parents: Option<i64>| {
        let policy = SessionPolicy { parents_covered: parents.map(ArrivalMillis), ..keeps_two_seconds() };
        let commands = session(&row, policy).on(aged([7], false, 4_000), now);
        matches!(commands[..], [Command::Finish(Finish::Overtaken(_))])
    };
    assert!(ends(None));
    assert!(!ends(Some(2_000)));
    assert!(ends(Some(1_999)));
}

#[test]
fn the_end_of_a_shard_does_not_move_the_time_its_children_are_judged_by() {
    let now = Instant::now();
    let mut session = session(&row(), keeps_two_seconds());
    session.on(aged([], true, 1_500), now);
    session.on(recorded(), now);
    let Event::Page(last) = aged([], true, 3_000) else { unreachable!() };
    session.on(Event::Page(RecordPage { end: Some(Vec::new()), ..last }), now);
    assert_eq!(session.caught_up, Some(ArrivalMillis(1_500)));
}

#[test]
fn a_kcl_position_inside_an_aggregated_record_is_followed_by_the_rest_of_it() {
    let now = Instant::now();
    let row = Lease { checkpoint: at(2, 0), ..row() };
    let mut first = session(&row, policy());
    assert_eq!(first.read_from(), ReadFrom::At(record(2).sequence_number().clone()));
    let commands = first.on(aggregated_page(2..=4, false), now);
    let (checkpoint, state) = written(&commands).unwrap();
    assert_eq!(checkpoint, at(2, 0), "nothing is finished yet");
    let cut = &state.cuts[0];
    assert_eq!(
        (cut.behind_sub, cut.last_sub, cut.records),
        (Some(SubSequenceNumber(0)), SubSequenceNumber(1), 3)
    );
    assert_eq!(state.check_cuts(&checkpoint), Ok(()));
    let batch = deliveries(&first.on(recorded(), now)).remove(0);
    let stored: Vec<Position> = batch.records.iter().map(Record::position).collect();
    assert_eq!(stored, [at(2, 1), at(2, 2), at(3, 0), at(4, 0), at(4, 1)]);

    let taken = row.progressed(checkpoint, state);
    let mut second = session(&taken, policy());
    let again = deliveries(&second.on(aggregated_page(2..=5, false), now)).remove(0);
    assert_eq!(again, batch, "whoever delivers it");
    second.on(delivered(&again), now);
    let commands = second.on(Event::Drain { deadline: now }, now);
    let [Command::Finish(Finish::HandOver { commit: Some(commit) })] = &commands[..] else {
        panic!("it commits: {commands:?}");
    };
    assert_eq!(
        (&commit.0, commit.1.cuts.len()),
        (&at(4, 1), 0),
        "the index of the last user record, for KCL"
    );
}

#[test]
fn what_a_kcl_position_covers_whole_is_not_read_again() {
    let now = Instant::now();
    for finished in [at(2, 2), at(2, 7)] {
        let row = Lease { checkpoint: finished.clone(), ..row() };
        let (_, state) = written(&session(&row, policy()).on(aggregated_page(2..=5, false), now)).unwrap();
        assert_eq!((&state.cuts[0].first, state.cuts[0].behind_sub), (record(3).sequence_number(), None));
        assert_eq!(state.check_cuts(&finished), Ok(()));
    }
}

#[test]
fn the_hash_keys_of_the_shard_are_recorded_with_its_cuts() {
    let now = Instant::now();
    let cut_of = |hash_range| {
        let row = Lease { hash_range, ..row() };
        written(&session(&row, policy()).on(page(1..=3, false), now)).unwrap().1.cuts.remove(0)
    };
    let half = HashKeyRange { start: 0, end: u128::MAX / 2 };
    for range in [Some(half), Some(HashKeyRange::ALL), None] {
        let parameters = cut_of(range).parameters;
        assert_eq!(*parameters, PackingParameters::default(), "nothing is foreign: {range:?}");
    }
}

/// A page of one aggregated record with a user record of the upper half that is sent again, and plain records.
fn page_with_foreign(numbers: impl IntoIterator<Item = u64>, foreign: u64) -> Event {
    let Event::Page(mut page) = page(numbers, false) else { unreachable!() };
    for record in page.records.iter_mut().filter(|record| **record == self::record(foreign)) {
        *record = record.with_hash_key(HashKey::sent_again(u128::MAX));
    }
    Event::Page(page)
}

#[test]
fn a_batch_with_something_foreign_waits_for_an_answer_and_records_what_it_says() {
    let now = Instant::now();
    let half = HashKeyRange { start: 0, end: u128::MAX / 2 };
    let row = Lease { hash_range: Some(half), ..row() };
    for (judgement, recorded_range, version, foreign) in [
        (Judgement::LeftOut, Some(half), 3, 1),
        (Judgement::Auto, None, 1, 0),
        (Judgement::Unknown, None, 1, 0),
    ] {
        let mut session = session(&row, policy());
        let commands = session.on(page_with_foreign(1..=3, 2), now);
        assert!(written(&commands).is_none(), "nothing is announced before the answer");
        let asked: Vec<_> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Judge { arrived } => Some(*arrived),
                Command::Read | Command::Write { .. } | Command::Deliver(_) | Command::Finish(_) => None,
            })
            .collect();
        assert_eq!(asked, [record(2).arrival()], "one question, for the newest of them");
        // Nor what follows it, and nothing is asked twice.
        let commands = session.on(page(4..=6, false), now);
        assert!(written(&commands).is_none());
        assert!(!commands.iter().any(|command| matches!(command, Command::Judge { .. })));
        let commands = session.on(Event::Judged { arrived: record(2).arrival(), judgement }, now);
        let (_, state) = written(&commands).unwrap();
        let [first, second] = &state.cuts[..] else { panic!("{:?}", state.cuts) };
        assert_eq!(
            (first.parameters.hash_range, first.parameters.decoding_version),
            (recorded_range, version)
        );
        assert_eq!(*second.parameters, PackingParameters::default());
        let batches = deliveries(&session.on(recorded(), now));
        assert_eq!(batches[0].foreign(), foreign);
        batches.iter().for_each(|batch| drop(session.on(delivered(batch), now)));
        session.on(Event::Tick, session.next_deadline().unwrap());
        assert_eq!(session.unaccounted(), vec![]);
    }
}

#[test]
fn an_answer_is_for_what_had_arrived_and_the_rest_is_asked_for() {
    let now = Instant::now();
    let row = Lease { hash_range: Some(HashKeyRange { start: 0, end: 9 }), ..row() };
    let mut session = session(&row, policy());
    session.on(page_with_foreign(1..=3, 2), now);
    session.on(page_with_foreign(4..=6, 5), now);
    let arrived = record(2).arrival();
    let commands = session.on(Event::Judged { arrived, judgement: Judgement::LeftOut }, now);
    assert_eq!(written(&commands).unwrap().1.cuts.len(), 1);
    let again = Command::Judge { arrived: record(5).arrival() };
    assert!(commands.contains(&again), "{commands:?}");
}

#[test]
fn an_outcome_without_its_reason_is_found_though_the_sum_is_right() {
    let now = Instant::now();
    let row = Lease { hash_range: Some(HashKeyRange { start: 0, end: 9 }), ..row() };
    let sums = [
        Outcomes { stored: 2, foreign: 1, ..Outcomes::default() },
        Outcomes { stored: 3, ..Outcomes::default() },
        Outcomes { stored: 2, filtered: 1, ..Outcomes::default() },
        Outcomes { stored: 1, foreign: 2, ..Outcomes::default() },
        Outcomes { stored: 1, foreign: 1, dead_lettered: 1, ..Outcomes::default() },
    ];
    for (outcomes, differs) in sums.into_iter().zip([0, 1, 2, 1, 1]) {
        let mut session = session(&row, policy());
        session.on(page_with_foreign(1..=3, 2), now);
        let arrived = record(2).arrival();
        session.on(Event::Judged { arrived, judgement: Judgement::LeftOut }, now);
        let batch = deliveries(&session.on(recorded(), now)).remove(0);
        let (id, groups) = (batch.id.clone(), GroupSizes::default());
        session.on(Event::Delivered { id, revision: 0, groups, outcomes }, now);
        session.on(Event::Tick, session.next_deadline().unwrap());
        let found: u64 = session.unaccounted().iter().map(Unaccounted::difference).sum();
        assert_eq!(found, differs, "{outcomes:?}");
    }
}

/// An aggregated record with keys and no user record in it.
fn empty_aggregate(n: u64) -> Record {
    let message = b"\x0a\x01a";
    let sum = <md5::Md5 as md5::Digest>::digest(message);
    let data = [&crate::deaggregate::MAGIC[..], message, &sum[..]].concat();
    record(n).with_data(data)
}

#[test]
fn an_aggregate_of_nothing_is_an_event_of_new_cuts_and_none_of_old_ones() {
    let now = Instant::now();
    let with_empty = |numbers: std::ops::RangeInclusive<u64>| {
        let Event::Page(mut page) = page(numbers, false) else { unreachable!() };
        page.records[1] = empty_aggregate(2);
        Event::Page(page)
    };
    let mut first = session(&row(), policy());
    let (checkpoint, state) = written(&first.on(with_empty(1..=3), now)).unwrap();
    assert_eq!((state.cuts[0].records, state.cuts[0].parameters.decoding_version), (3, 3));
    assert_eq!(deliveries(&first.on(recorded(), now))[0].stored().count(), 3);
    // Whoever takes over delivers the same.
    let mut second = session(&row().progressed(checkpoint.clone(), state.clone()), policy());
    let again = deliveries(&second.on(with_empty(1..=4), now));
    assert_eq!(again[0].records.len(), 3);
    // A build before it saw two records there.
    let mut old = state;
    old.cuts[0].records = 2;
    old.cuts[0].parameters = Arc::new(PackingParameters::default());
    let mut third = session(&row().progressed(checkpoint, old), policy());
    let again = deliveries(&third.on(with_empty(1..=4), now));
    assert_eq!(again[0].records, [record(1), record(3)]);
    assert_eq!(again[0].stored().count(), 2);
}

/// A world of one shard: sessions come and go, answers come in any order, and the oracle watches.
#[derive(Debug)]
struct World {
    row: Lease,
    tip: u64,
    now: Instant,
    session: Option<Run>,
    /// What the sink has, by batch and revision.
    stored: BTreeMap<(SequenceNumber, SequenceNumber), BTreeMap<u32, Vec<Record>>>,
    /// What is dead-lettered.
    letters: BTreeMap<Position, Record>,
    /// User records that were left out as foreign.
    foreign: std::collections::BTreeSet<Position>,
}

/// Whether the sink of the [`World`] never takes a record.
fn is_poison(record: &Record) -> bool {
    let n: u64 = record.sequence_number().as_str().parse().unwrap();
    n % 5 == 3 && record.sub_sequence_number().0 == 0
}

#[derive(Debug)]
struct Run {
    state: ShardSession,
    position: u64,
    reading: bool,
    write: Option<(Position, LeaseState)>,
    judge: Option<ArrivalMillis>,
    deliveries: Vec<Arc<Batch>>,
    acknowledged: Vec<BatchId>,
}

/// C1, C2 and D5 of one row write.
fn check_write(row: &Lease, acknowledged: &[BatchId], checkpoint: &Position, state: &LeaseState) {
    assert!(*checkpoint >= row.checkpoint, "C1");
    for cut in &row.pending.state().unwrap().cuts {
        let id = cut.id(&row.key, 0);
        let committed = state.cuts.iter().all(|kept| kept.first != cut.first);
        assert!(!committed || acknowledged.contains(&id), "C2: {id:?}");
    }
    assert_eq!(state.check_cuts(checkpoint), Ok(()), "D5");
}

fn range(record: &Record) -> Exclusion {
    let id = (record.sequence_number().clone(), record.sub_sequence_number());
    Exclusion { from: id.clone(), to: id }
}

impl World {
    fn take_over(&mut self) {
        self.row = self.row.handed_over(None);
        let state = session(&self.row, policy());
        let position = match state.read_from() {
            ReadFrom::At(number) => number.as_str().parse().unwrap(),
            ReadFrom::TrimHorizon | ReadFrom::AtTimestamp(_) | ReadFrom::After(_) => 1,
        };
        let run = Run {
            state,
            position,
            reading: false,
            write: None,
            judge: None,
            deliveries: vec![],
            acknowledged: vec![],
        };
        self.session = Some(run);
        self.step(Event::Tick);
    }

    fn step(&mut self, event: Event) {
        let now = self.now;
        let Some(run) = &mut self.session else { return };
        for command in run.state.on(event, now) {
            match command {
                Command::Read => run.reading = true,
                Command::Write { checkpoint, state } => {
                    assert!(run.write.is_none(), "one write at a time");
                    check_write(&self.row, &run.acknowledged, &checkpoint, &state);
                    run.write = Some((checkpoint, *state));
                }
                Command::Judge { arrived } => {
                    assert!(run.judge.is_none(), "one question at a time");
                    run.judge = Some(arrived);
                }
                Command::Deliver(batch) => {
                    let announced = self.row.pending.state().unwrap().cuts.contains(&batch.cut);
                    assert!(announced, "D2: {:?}", batch.id);
                    run.deliveries.push(batch);
                }
                Command::Finish(finish) => {
                    let Finish::HandOver { commit } = finish else {
                        panic!("nothing else ends a session here")
                    };
                    if let Some(commit) = commit {
                        check_write(&self.row, &run.acknowledged, &commit.0, &commit.1);
                        self.row = self.row.committed_and_handed_over(commit.0, commit.1, None);
                    }
                    self.session = None;
                    return;
                }
            }
        }
    }

    fn act(&mut self, choice: u8, amount: u64) {
        match choice {
            0 => self.tip += amount,
            1 | 2 => self.answer_read(amount),
            3 => {
                self.answer_write();
                self.answer_judge(amount);
            }
            4 | 5 => self.answer_delivery(usize::try_from(amount).unwrap()),
            6 => {
                self.now += Duration::from_millis(700 * amount);
                self.step(Event::Tick);
            }
            7 => {
                let deadline = self.now + Duration::from_millis(300 * amount);
                self.step(Event::Drain { deadline });
            }
            _ => self.take_over(),
        }
        if self.session.is_none() {
            self.take_over();
        }
    }

    fn answer_read(&mut self, amount: u64) {
        let Some(run) = self.session.as_mut().filter(|run| run.reading) else { return };
        run.reading = false;
        let to = (run.position + amount).min(self.tip + 1);
        let from = std::mem::replace(&mut run.position, to);
        self.step(aggregated_page(from..to, to == self.tip + 1));
    }

    fn answer_write(&mut self) {
        let Some((checkpoint, state)) = self.session.as_mut().and_then(|run| run.write.take()) else {
            return;
        };
        self.row = self.row.progressed(checkpoint, state);
        self.step(recorded());
    }

    fn answer_judge(&mut self, amount: u64) {
        let Some(arrived) = self.session.as_mut().and_then(|run| run.judge.take()) else { return };
        let judgement = match amount {
            1 => Judgement::Unknown,
            2 => Judgement::Auto,
            _ => Judgement::LeftOut,
        };
        self.step(Event::Judged { arrived, judgement });
    }

    fn answer_delivery(&mut self, which: usize) {
        let Some(run) = self.session.as_mut().filter(|run| !run.deliveries.is_empty()) else { return };
        let batch = run.deliveries.remove(which % run.deliveries.len());
        let poison: Vec<Exclusion> = batch.stored().filter(|record| is_poison(record)).map(range).collect();
        if !poison.is_empty() {
            // A pass may find some of it only.
            let events = poison[..1 + which % poison.len()].to_vec();
            return self.step(Event::Poisoned { batch, events });
        }
        run.acknowledged.push(batch.id.clone());
        let key = (batch.cut.first.clone(), batch.cut.last.clone());
        let stored: Vec<Record> = batch.stored().cloned().collect();
        let before = self.stored.entry(key).or_default().insert(batch.cut.revision, stored.clone());
        assert!(before.is_none_or(|before| before == stored), "D3");
        self.letters.extend(batch.excluded().map(|record| (record.position(), record.clone())));
        let foreign = batch.records.iter().filter(|record| batch.cut.is_foreign(record));
        self.foreign.extend(foreign.map(Record::position));
        self.step(delivered(&batch));
        let unaccounted = self.session.as_mut().map(|run| run.state.unaccounted());
        assert!(unaccounted.is_none_or(|unaccounted| unaccounted.is_empty()), "K1, K2");
    }
}

proptest! {
    /// Whatever comes in whatever order: the laws hold at each step, and once the faults stop, everything that
    /// was published is stored, foreign or dead-lettered exactly once, and nothing but poison is dead-lettered.
    #[test]
    fn every_record_is_stored_once(
        begun in (0u64..4, 0u64..3), steps in proptest::collection::vec((0u8..9, 1u64..6), 0..120),
    ) {
        let (tip, sub) = (begun.0, begun.1.min(begun.0 % 3));
        let checkpoint = if tip > 0 { at(tip, sub) } else { Position::TrimHorizon };
        let hash_range = Some(HashKeyRange { start: 0, end: 1 });
        let row = Lease { checkpoint: checkpoint.clone(), hash_range, ..row() };
        let mut world = World { row, tip, now: Instant::now(), session: None, stored: BTreeMap::new(), letters: BTreeMap::new(), foreign: std::collections::BTreeSet::new() };
        world.take_over();
        for (choice, amount) in steps { world.act(choice, amount); }
        world.take_over();
        for _ in 0..(4 * world.tip + 40) {
            for choice in [1, 3, 4, 6, 3] { world.act(choice, 5); }
        }
        let highest = world.stored.values().filter_map(|revisions| revisions.values().next_back()).flatten();
        prop_assert!(world.letters.values().all(is_poison));
        let mut stored: Vec<Position> = highest.chain(world.letters.values()).map(Record::position).collect();
        stored.extend(world.foreign.iter().cloned());
        stored.sort();
        let all = (1..=world.tip).flat_map(user_records).map(|record| record.position());
        let wanted: Vec<Position> = all.filter(|position| *position > checkpoint).collect();
        prop_assert_eq!(&world.row.checkpoint, wanted.last().unwrap_or(&checkpoint));
        prop_assert_eq!(stored, wanted);
    }
}
