//! From whom leases were taken, and to whom they were given (H1, H3), by the heartbeats and states that had landed. **Pure.**
//!
//! Nobody sees a row the moment it is written: whoever takes or gives has looked a moment before. So a law is broken only if its
//! contrary was to be seen for longer than a look and what follows it may take, and longer if the writer stood still meanwhile.

use std::collections::{BTreeMap, HashMap};

use sluicegate_lease::invariants::Broken;
use sluicegate_lease::{Lease, LeaseKey, WorkerId, WorkerRow, WorkerState};

use crate::measure::chaos::history::{Entry, History, Write};

/// A time in which somebody stood still, or was not heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disturbed {
    /// What its client calls itself.
    pub name: String,
    /// From when.
    pub from_ms: i64,
    /// To when.
    pub to_ms: i64,
}

/// How much time lies between what was seen and what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'d> {
    /// The fleet's `failover_time`, in milliseconds.
    pub failover_ms: i64,
    /// What a look and a take may take together.
    pub take_ms: i64,
    /// What a look and a hand-over may take together.
    pub give_ms: i64,
    /// In such a time nothing was seen, and what was under way landed when it was over.
    pub disturbed: &'d [Disturbed],
}

impl Frame<'_> {
    /// How old what the writer had seen may be.
    fn slack(&self, usual_ms: i64, name: &str, at_ms: i64) -> i64 {
        let near = |time: &&Disturbed| {
            time.name == name && time.from_ms <= at_ms && time.to_ms >= at_ms - usual_ms - self.failover_ms
        };
        let still = self.disturbed.iter().filter(near).map(|time| time.to_ms.min(at_ms) - time.from_ms);
        usual_ms + still.sum::<i64>()
    }
}

/// What came of looking at all changes of hands.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hands {
    /// Takes from another worker.
    pub taken: usize,
    /// Hand-overs to another worker.
    pub given: usize,
    /// The laws that one of them breaks.
    pub broken: Vec<Broken>,
}

/// What is known of a worker's row.
#[derive(Debug, Default)]
struct Known {
    name: Option<String>,
    beats: Vec<i64>,
    draining_since: Option<i64>,
    gone_since: Option<i64>,
}

impl Known {
    fn see(&mut self, write: &Write<WorkerRow>) {
        let Some(row) = &write.after else {
            self.gone_since = Some(write.at_ms);
            return;
        };
        self.name = self.name.take().or_else(|| write.by.clone());
        self.beats.push(write.at_ms);
        if row.state == WorkerState::Draining {
            self.draining_since.get_or_insert(write.at_ms);
        }
    }

    /// Since when everybody can see that it is to be given nothing.
    fn unfit_since(&self, at_ms: i64, failover_ms: i64) -> Option<i64> {
        let silent_since = self.beats.last().map(|beat| beat + failover_ms).filter(|since| *since <= at_ms);
        [self.draining_since, self.gone_since, silent_since].into_iter().flatten().min()
    }
}

/// Judges every change of hands from one worker to another.
pub fn hands(history: &History, frame: &Frame<'_>) -> Hands {
    let mut workers: HashMap<&WorkerId, Known> = HashMap::new();
    let mut written: BTreeMap<&LeaseKey, Vec<i64>> = BTreeMap::new();
    let mut hands = Hands::default();
    let owner = |row: &Option<Lease>| row.as_ref().and_then(|row| row.owner.clone());
    for entry in &history.entries {
        let write = match entry {
            Entry::Lease(write) => write,
            Entry::Worker(write) => {
                if let Some(row) = write.after.as_ref().or(write.before.as_ref()) {
                    workers.entry(&row.worker_id).or_default().see(write);
                }
                continue;
            }
            Entry::Items(_) => continue,
        };
        let Some(row) = &write.after else { continue };
        let (key, at_ms) = (&row.key, write.at_ms);
        let lease_written = written.entry(key).or_default();
        if let (Some(from), Some(to)) = (owner(&write.before), owner(&write.after))
            && from != to
        {
            let name = write.by.as_deref().unwrap_or_default();
            let named =
                |id: &WorkerId| workers.get(id).and_then(|worker| worker.name.as_deref()) == Some(name);
            let verdict = if named(&to) {
                hands.taken += 1;
                let slack_ms = frame.slack(frame.take_ms, name, at_ms);
                taken(workers.get(&from), lease_written, at_ms, (frame.failover_ms, slack_ms))
                    .map_err(|why| ("H3", format!("{to} took {key} at {at_ms} from {from}, {why}")))
            } else if named(&from) {
                hands.given += 1;
                let slack_ms = frame.slack(frame.give_ms, name, at_ms);
                given(workers.get(&to), at_ms, (frame.failover_ms, slack_ms))
                    .map_err(|why| ("H1", format!("{from} gave {key} at {at_ms} to {to}, {why}")))
            } else {
                Err(("H1", format!("{name} gave {key} at {at_ms} to {to}, and it was {from}'s")))
            };
            hands.broken.extend(verdict.err().map(|(law, why)| Broken { law, why }));
        }
        lease_written.push(at_ms);
    }
    hands
}

/// A lease is taken only from the silent and the gone: the owner's heartbeat had stood still for the failover time, or it had no
/// row and the lease had stood still for as long.
fn taken(
    owner: Option<&Known>,
    lease_written: &[i64],
    at_ms: i64,
    (failover_ms, slack_ms): (i64, i64),
) -> Result<(), &'static str> {
    let still = |writes: &[i64]| stood_still(writes, at_ms, failover_ms, slack_ms);
    match owner {
        Some(owner) if owner.gone_since.is_none() => {
            still(&owner.beats).then_some(()).ok_or("which was alive")
        }
        Some(_) | None => still(lease_written).then_some(()).ok_or("which had just gone"),
    }
}

/// Nobody silent, draining or gone is given a lease.
fn given(to: Option<&Known>, at_ms: i64, (failover_ms, slack_ms): (i64, i64)) -> Result<(), String> {
    let to = to.ok_or("of which nobody had heard")?;
    match to.unfit_since(at_ms, failover_ms).map(|since| at_ms - since) {
        Some(for_ms) if for_ms > slack_ms => Err(format!(
            "which was silent, draining or gone for {for_ms} ms, {slack_ms} of which may be missed"
        )),
        Some(_) | None => Ok(()),
    }
}

/// Whether nothing was written for the failover time, up to a moment that is at most `slack_ms` before `at_ms`.
fn stood_still(writes: &[i64], at_ms: i64, failover_ms: i64, slack_ms: i64) -> bool {
    let mut before: Vec<i64> = writes.iter().copied().filter(|write| *write <= at_ms).collect();
    before.push(at_ms);
    before.windows(2).any(|pair| pair[1] >= at_ms - slack_ms && pair[1] - pair[0] >= failover_ms)
        || before.len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};

    const FRAME: Frame<'static> = Frame { failover_ms: 3_000, take_ms: 500, give_ms: 800, disturbed: &[] };

    /// A worker's row as written at these times, in its last state from `drains_ms` on; no row from `gone_ms` on.
    fn worker(history: &mut History, id: &str, beats: &[i64], drains_ms: Option<i64>, gone_ms: Option<i64>) {
        let mut before = None;
        for (heartbeat, at_ms) in beats.iter().enumerate() {
            let drains = drains_ms.is_some_and(|since| since <= *at_ms);
            let state = if drains { WorkerState::Draining } else { WorkerState::Active };
            let heartbeat = u64::try_from(heartbeat).unwrap();
            let after = WorkerRow { heartbeat, state, ..WorkerRow::new(WorkerId::new(id)) };
            write(history, *at_ms, id, (before.replace(after.clone()), Some(after)));
        }
        if let Some(at_ms) = gone_ms {
            write(history, at_ms, id, (before, None));
        }
    }

    fn write(
        history: &mut History,
        at_ms: i64,
        id: &str,
        (before, after): (Option<WorkerRow>, Option<WorkerRow>),
    ) {
        let by = Some(format!("worker of {id}"));
        history.entries.push(Entry::Worker(Box::new(Write { at_ms, by, conditional: true, before, after })));
    }

    fn lease(owner: &str) -> Lease {
        let row = Lease::unowned(ShardId::new("s-0"), Position::TrimHorizon, LeaseState::starting(None));
        row.taken_by(&WorkerId::new(owner))
    }

    /// `by` writes at `at_ms` that b has what a had.
    fn to_b(history: &mut History, at_ms: i64, by: &str) {
        let (before, by) = (Some(lease("a")), Some(format!("worker of {by}")));
        let write = Write { at_ms, by, conditional: true, before, after: Some(lease("b")) };
        history.entries.push(Entry::Lease(Box::new(write)));
        let at = |entry: &Entry| match entry {
            Entry::Lease(write) => write.at_ms,
            Entry::Worker(write) => write.at_ms,
            Entry::Items(_) => 0,
        };
        history.entries.sort_by_key(at);
    }

    fn laws(history: &History, frame: &Frame<'_>) -> Vec<&'static str> {
        hands(history, frame).broken.into_iter().map(|broken| broken.law).collect()
    }

    #[test]
    fn a_lease_is_taken_from_the_silent_and_not_from_the_living() {
        // Beats each second; silent from 3 s on, and back at 7 s.
        let taken_at = |at_ms: i64| {
            let mut history = History::default();
            worker(&mut history, "a", &[1_000, 2_000, 3_000, 7_000, 8_000, 9_000], None, None);
            worker(&mut history, "b", &[1_000], None, None);
            to_b(&mut history, at_ms, "b");
            assert_eq!(hands(&history, &FRAME).taken, 1);
            laws(&history, &FRAME)
        };
        assert_eq!(taken_at(6_001), [] as [&str; 0]);
        assert_eq!(taken_at(5_900), ["H3"], "not silent for long enough");
        assert_eq!(taken_at(7_300), [] as [&str; 0], "its last look came before the beat");
        assert_eq!(taken_at(8_300), ["H3"]);
    }

    #[test]
    fn a_lease_is_taken_from_who_is_gone_once_it_has_stood_still() {
        let taken_after_ms = |still_ms: i64| {
            let mut history = History::default();
            worker(&mut history, "a", &[1_000, 2_000], None, Some(2_100));
            worker(&mut history, "b", &[1_000], None, None);
            let released =
                Write { at_ms: 2_050, by: None, conditional: true, before: None, after: Some(lease("a")) };
            history.entries.push(Entry::Lease(Box::new(released)));
            to_b(&mut history, 2_050 + still_ms, "b");
            laws(&history, &FRAME)
        };
        assert_eq!(taken_after_ms(3_001), [] as [&str; 0]);
        assert_eq!(taken_after_ms(2_000), ["H3"]);
    }

    #[test]
    fn a_lease_is_given_to_nobody_silent_draining_or_gone_for_longer_than_a_look() {
        type Row = (&'static [i64], Option<i64>, Option<i64>);
        let given_at = |at_ms: i64, (beats, drains_ms, gone_ms): Row, frame: &Frame<'_>| {
            let mut history = History::default();
            worker(&mut history, "a", &[100], None, None);
            worker(&mut history, "b", beats, drains_ms, gone_ms);
            to_b(&mut history, at_ms, "a");
            assert_eq!(hands(&history, frame).given, 1);
            laws(&history, frame)
        };
        let (draining, gone, silent): (Row, Row, Row) = (
            (&[1_000, 2_000, 3_000, 4_000], Some(2_000), None),
            (&[1_000], None, Some(2_000)),
            (&[1_000], None, None),
        );
        assert_eq!(given_at(1_500, draining, &FRAME), [] as [&str; 0]);
        assert_eq!(given_at(2_800, draining, &FRAME), [] as [&str; 0], "a look may be as old");
        for (at_ms, row) in [(2_801, draining), (2_801, gone), (4_801, silent), (500, silent)] {
            assert_eq!(given_at(at_ms, row, &FRAME), ["H1"], "{at_ms} {row:?}");
        }
        assert_eq!(given_at(4_800, silent, &FRAME), [] as [&str; 0], "its silence may have been missed");
        let still = |name: &str| Disturbed { name: name.to_owned(), from_ms: 1_900, to_ms: 3_400 };
        let (giver, receiver) = ([still("worker of a")], [still("worker of b")]);
        let disturbed = |disturbed| Frame { disturbed, ..FRAME };
        assert_eq!(
            given_at(3_500, gone, &disturbed(&giver)),
            [] as [&str; 0],
            "it looked before it stood still"
        );
        assert_eq!(given_at(4_400, gone, &disturbed(&giver)), ["H1"]);
        assert_eq!(given_at(3_500, gone, &disturbed(&receiver)), ["H1"]);
    }

    #[test]
    fn nobody_gives_away_what_is_not_his() {
        let mut history = History::default();
        for id in ["a", "b", "c"] {
            worker(&mut history, id, &[1_000], None, None);
        }
        to_b(&mut history, 1_500, "c");
        assert_eq!(laws(&history, &FRAME), ["H1"]);
    }
}
