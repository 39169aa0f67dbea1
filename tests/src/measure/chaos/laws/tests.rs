use std::sync::Arc;

use sluicegate_checkpoint::{
    ArrivalMillis, Exclusion, LeaseState, PackingParameters, SequenceNumber, SubSequenceNumber,
};
use sluicegate_lease::{LeaseCounter, Pending};

use super::*;

fn number(at: u64) -> SequenceNumber {
    SequenceNumber::parse(at.to_string()).unwrap()
}

fn at(number_: u64) -> Position {
    Position::At(number(number_), SubSequenceNumber(0))
}

/// Records 1 to 6 of `s-0`, whose child is `s-1` with the records 11 and 12.
fn stream() -> History {
    let record = |at: u64| {
        Record::new(
            number(at),
            ArrivalMillis(1_000 + i64::try_from(at).unwrap()),
            format!("key-{}", at % 2),
            format!("event {at}"),
        )
    };
    let mut history = History::default();
    history.records.insert(ShardId::new("s-0"), (1..=6).map(record).collect());
    history.records.insert(ShardId::new("s-1"), (11..=12).map(record).collect());
    history
}

fn cut(first: u64, last: u64) -> Cut {
    Cut {
        first: number(first),
        last: number(last),
        behind_sub: None,
        last_sub: SubSequenceNumber(0),
        records: last - first + 1,
        parameters: Arc::new(PackingParameters::default()),
        packing_version: 2,
        revision: 0,
        exclusions: Vec::new(),
        dropped: false,
    }
}

/// A recorded history, made as workers make one.
struct Course {
    history: History,
    rows: BTreeMap<ShardId, Lease>,
    announced: Vec<(ShardId, Cut)>,
}

impl Course {
    fn new() -> Self {
        let mut course = Self { history: stream(), rows: BTreeMap::new(), announced: Vec::new() };
        for worker in ["a", "b"] {
            beat(&mut course.history, worker, 1_000, (None, Some(1)), true);
        }
        course
    }

    fn write(&mut self, after: Lease) {
        self.write_with(after, |_| {});
    }

    fn write_with(&mut self, after: Lease, spoil: impl FnOnce(&mut Write<Lease>)) {
        let before = self.rows.insert(after.key.clone(), after.clone());
        // Owners write, and whoever takes what nobody owns.
        let owner = before.as_ref().and_then(|row| row.owner.clone()).or_else(|| after.owner.clone());
        let by = owner.map(|owner| owner.to_string());
        let mut write = Write { at_ms: 5_000, by, conditional: true, before, after: Some(after) };
        spoil(&mut write);
        self.history.entries.push(Entry::Lease(Box::new(write)));
    }

    fn row(&self, shard: &str) -> Lease {
        self.rows[&ShardId::new(shard)].clone()
    }

    fn create(&mut self, shard: &str, parents: &[&str]) {
        let row = Lease::unowned(ShardId::new(shard), Position::TrimHorizon, LeaseState::starting(None));
        self.write(Lease { parents: parents.iter().map(|parent| ShardId::new(*parent)).collect(), ..row });
    }

    fn taken(&mut self, shard: &str, by: &str) {
        let row = self.row(shard).taken_by(&WorkerId::new(by));
        self.write(row);
    }

    /// Announces, and commits as many of the oldest cuts.
    fn progressed(&self, shard: &str, announced: Vec<Cut>, commits: usize) -> Lease {
        let row = self.row(shard);
        let mut state = row.pending.state().unwrap();
        let committed: Vec<Cut> = state.cuts.drain(..commits).collect();
        let checkpoint = committed.last().map_or_else(|| row.checkpoint.clone(), Cut::end);
        state.follows = Some(checkpoint.clone());
        state.cuts.extend(announced);
        row.progressed(checkpoint, state)
    }

    fn announce(&mut self, shard: &str, cut: Cut) {
        self.announced.push((ShardId::new(shard), cut.clone()));
        let row = self.progressed(shard, vec![cut], 0);
        self.write(row);
    }

    fn commit(&mut self, shard: &str) {
        let row = self.progressed(shard, Vec::new(), 1);
        self.write(row);
    }

    fn items(&self, shard: &ShardId, cut: &Cut) -> Vec<ItemKey> {
        let records = inside(&self.history.records[shard], cut).0.to_vec();
        let batch = Batch { id: cut.id(shard, 0), cut: cut.clone(), arrival: records[0].arrival(), records };
        pack(&batch).unwrap().items.iter().map(|item| item.header.key()).collect()
    }

    /// Stores the batch that was announced last.
    fn store(&mut self) {
        let (shard, cut) = self.announced.last().unwrap().clone();
        let items = self.items(&shard, &cut);
        self.history.entries.push(Entry::Items(items));
    }

    fn end(&mut self, shard: &str, children: &[&str]) {
        let children = children.iter().map(|child| ShardId::new(*child)).collect();
        let row = self.row(shard).with_children(children);
        self.write(row);
        let row = self.row(shard);
        let state = row.pending.state().unwrap();
        self.write(row.progressed(Position::ShardEnd, state));
    }

    /// `s-0` from its beginning to the middle.
    fn begun() -> Self {
        let mut course = Self::new();
        course.create("s-0", &[]);
        course.taken("s-0", "a");
        course.announce("s-0", cut(1, 3));
        course.store();
        course.commit("s-0");
        course
    }

    fn laws(&self) -> Vec<&'static str> {
        let mut laws: Vec<_> = judge(&self.history).into_iter().map(|broken| broken.law).collect();
        laws.dedup();
        laws
    }
}

#[test]
fn a_shard_that_is_read_to_its_end_by_two_workers_and_its_child_break_no_law() {
    let mut course = Course::begun();
    course.announce("s-0", cut(4, 6));
    course.taken("s-0", "b");
    course.store();
    course.store();
    course.commit("s-0");
    course.create("s-1", &["s-0"]);
    course.end("s-0", &["s-1"]);
    course.taken("s-1", "b");
    course.announce("s-1", cut(11, 12));
    course.store();
    let to = Some(WorkerId::new("a"));
    let state = LeaseState { follows: Some(at(12)), ..LeaseState::starting(None) };
    let row = course.row("s-1").committed_and_handed_over(at(12), state, to);
    course.write(row);
    assert_eq!(judge(&course.history), []);
}

#[test]
fn each_broken_law_is_named() {
    type Spoil = fn(&mut Course);
    let cases: [(&str, &str, Spoil); 18] = [
        ("L1", "another announces", |course| {
            let row = course.progressed("s-0", vec![cut(4, 6)], 0);
            course.write_with(row, |write| write.by = Some("b".to_owned()));
        }),
        ("L1", "somebody commits who does not say who he is", |course| {
            course.announce("s-0", cut(4, 6));
            course.store();
            let row = course.progressed("s-0", Vec::new(), 1);
            course.write_with(row, |write| write.by = None);
        }),
        ("L3", "no condition", |course| {
            let row = course.row("s-0").taken_by(&WorkerId::new("b"));
            course.write_with(row, |write| write.conditional = false);
        }),
        ("L3", "a counter that stays", |course| {
            let row = course.row("s-0");
            course.write(Lease { owner: None, ..row });
        }),
        ("L3", "a row that changed by itself", |course| {
            let row = course.row("s-0");
            course.rows.insert(row.key.clone(), Lease { counter: LeaseCounter(90), ..row });
            course.taken("s-0", "b");
        }),
        ("C1", "a checkpoint that goes back", |course| {
            let row = course.row("s-0");
            let state = row.pending.state().unwrap();
            course.write(row.progressed(at(2), state));
        }),
        ("C1", "an epoch that rises by itself", |course| {
            let row = course.row("s-0");
            let state = LeaseState { epoch: 1, ..row.pending.state().unwrap() };
            course.write(row.progressed(at(3), state));
        }),
        ("D5", "a record left out between two cuts", |course| course.announce("s-0", cut(5, 6))),
        ("D5", "a record in two cuts", |course| course.announce("s-0", cut(3, 6))),
        ("D5", "a cut that says too many records", |course| {
            course.announce("s-0", Cut { records: 9, ..cut(4, 6) });
        }),
        ("D5", "an announced cut that becomes another", |course| {
            course.announce("s-0", cut(4, 6));
            let row = course.row("s-0");
            let state = LeaseState { cuts: vec![cut(4, 5)], ..row.pending.state().unwrap() };
            course.write(row.progressed(at(3), state));
        }),
        ("D3", "other parameters under the same revision", |course| {
            course.announce("s-0", cut(4, 6));
            let row = course.row("s-0");
            let parameters = Arc::new(PackingParameters { spread: 7, ..PackingParameters::default() });
            let cuts = vec![Cut { parameters, ..cut(4, 6) }];
            course.write(row.progressed(at(3), LeaseState { cuts, ..row.pending.state().unwrap() }));
        }),
        ("D1", "an exclusion where nothing is poison", |course| {
            course.announce("s-0", cut(4, 6));
            let row = course.row("s-0");
            let end = (number(4), SubSequenceNumber(0));
            let exclusions = vec![Exclusion { from: end.clone(), to: end }];
            let cuts = vec![Cut { exclusions, revision: 1, ..cut(4, 6) }];
            course.write(row.progressed(at(3), LeaseState { cuts, ..row.pending.state().unwrap() }));
        }),
        ("C2", "a commit of what is not stored", |course| {
            course.announce("s-0", cut(4, 6));
            course.commit("s-0");
        }),
        ("D2", "an item of no announced cut", |course| {
            let items = course.items(&ShardId::new("s-0"), &cut(4, 5));
            course.history.entries.push(Entry::Items(items));
        }),
        ("S1", "a child before its parent's end", |course| {
            course.create("s-1", &["s-0"]);
            course.announce("s-1", cut(11, 12));
        }),
        ("D1", "an end before the last record", |course| {
            course.create("s-1", &["s-0"]);
            course.end("s-0", &["s-1"]);
        }),
        ("S2", "an end whose child has no row", |course| {
            course.announce("s-0", cut(4, 6));
            course.store();
            course.commit("s-0");
            course.end("s-0", &["s-1"]);
        }),
    ];
    for (law, what, spoil) in cases {
        let mut course = Course::begun();
        assert_eq!(course.laws(), [] as [&str; 0]);
        spoil(&mut course);
        assert!(course.laws().contains(&law), "{what}: {:?}", course.laws());
    }
}

#[test]
fn a_row_is_not_made_above_a_child_that_has_begun_and_none_is_deleted() {
    let mut course = Course::new();
    course.create("s-1", &["s-0"]);
    course.taken("s-1", "a");
    course.announce("s-1", cut(11, 12));
    course.create("s-0", &[]);
    assert_eq!(course.laws(), ["S1", "S3"]);

    let mut course = Course::begun();
    let row = course.row("s-0");
    let write = Write { at_ms: 6_000, by: None, conditional: true, before: Some(row), after: None };
    course.history.entries.push(Entry::Lease(Box::new(write)));
    assert_eq!(course.laws(), ["S4"]);
}

fn beat(
    history: &mut History,
    by: &str,
    at_ms: i64,
    (before, after): (Option<u64>, Option<u64>),
    conditional: bool,
) {
    let row = |heartbeat| WorkerRow { heartbeat, ..WorkerRow::new(WorkerId::new(by)) };
    let by = Some(by.to_owned());
    let write = Write { at_ms, by, conditional, before: before.map(row), after: after.map(row) };
    history.entries.push(Entry::Worker(Box::new(write)));
}

#[test]
fn a_heartbeat_rises_by_one_on_a_condition_and_a_row_does_not_come_back() {
    let laws = |writes: &[(Option<u64>, Option<u64>, bool)]| {
        let mut history = History::default();
        for (before, after, conditional) in writes {
            beat(&mut history, "a", 1, (*before, *after), *conditional);
        }
        judge(&history).len()
    };
    let (one, two) = (Some(1), Some(2));
    assert_eq!(laws(&[(None, one, true), (one, two, true), (two, None, true)]), 0);
    assert_eq!(laws(&[(None, one, true), (one, two, false)]), 1);
    assert_eq!(laws(&[(None, one, true), (one, Some(3), true)]), 1);
    assert_eq!(laws(&[(None, one, true), (two, Some(3), true)]), 1, "a write is missing in between");
    assert_eq!(laws(&[(None, one, true), (one, None, true), (None, two, true)]), 1);
}

#[test]
fn a_worker_writes_its_own_row_alone() {
    let mut history = History::default();
    beat(&mut history, "a", 1, (None, Some(1)), true);
    beat(&mut history, "a", 2, (Some(1), Some(2)), true);
    assert_eq!(judge(&history), []);
    let Some(Entry::Worker(write)) = history.entries.last_mut() else { panic!("it is there") };
    write.by = Some("b".to_owned());
    let laws: Vec<_> = judge(&history).into_iter().map(|broken| broken.law).collect();
    assert_eq!(laws, ["L1"]);
}

#[test]
fn a_state_that_cannot_be_read_is_named() {
    let mut course = Course::begun();
    let why = sluicegate_checkpoint::DecodeStateError::Version { found: 200 };
    let row = course.row("s-0").taken_by(&WorkerId::new("b"));
    course.write(Lease { pending: Pending::Unreadable { bytes: "x".into(), why }, ..row });
    assert_eq!(course.laws(), ["D5"]);
}
