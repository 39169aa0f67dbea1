//! Which events of rejected groups are at fault: what to ask next, given the answers so far. **Pure.**
//!
//! A group that the table rejects is halved, and each half halved again that is rejected by itself, breadth first:
//!
//! ```text
//! rejected -> without any event? --rejected--> the key itself is at fault: all events are
//!                  | accepted
//!                  v
//!             those of the rejected item? --rejected--> halved, and the others are left alone
//!                  | accepted, or not known
//!                  v
//!        +-> ask both halves --one or both rejected--> each of them: one event is an offender, more are halved
//!        |         | both accepted
//!        |         v
//!        |   ask the whole again --accepted--> it passed; --rejected--> only together: all of it is at fault
//!        +---------------------------------------------------------------+
//! ```
//! A question that is accepted costs what a write does, and one that is rejected costs nothing. So where it is known which
//! events the rejected item holds, only they are searched: another offender of the group is found when the group is written
//! without the first.
//!
//! Both halves are always asked, although one accepted half suggests that the other is at fault: what a table rejects
//! is its own matter, and nothing becomes an offender that was not rejected by itself. At most so many questions are
//! asked as were allowed; ranges that are rejected and not halved by then are offenders as a whole. Nothing that is asked
//! is ever stored.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// One question: would the table take this group with these events alone?
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Which group, by its index.
    pub group: usize,
    /// Index of the first event asked about.
    pub from: usize,
    /// Index behind the last one; equal to `from` asks for the group without any event.
    pub to: usize,
}

impl Probe {
    /// The events asked about.
    pub fn events(&self) -> Range<usize> {
        self.from..self.to
    }

    fn len(&self) -> usize {
        self.to - self.from
    }

    fn halves(&self) -> [Self; 2] {
        let middle = self.from + self.len() / 2;
        [Self { to: middle, ..*self }, Self { from: middle, ..*self }]
    }
}

/// Events that the table rejects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The smallest range that was asked about and rejected.
    pub events: Probe,
    /// The table's answer.
    pub why: String,
}

/// A group that the table rejects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// How many events it has, at least one.
    pub events: usize,
    /// Those that the rejected item should hold, if it holds not all.
    pub hint: Option<Range<usize>>,
    /// The table's answer.
    pub why: String,
}

/// Why a question was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// The group without events; it was rejected as a whole, with this answer.
    Empty { whole: Probe, hint: Option<Range<usize>>, why: String },
    /// The events of the rejected item; what was rejected as a whole, with this answer.
    Hint { whole: Probe, why: String },
    /// One half of this rejected range.
    Half { of: Probe },
    /// A rejected range whose halves were both accepted.
    Again,
}

/// A rejected range whose halves are asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Halved {
    why: String,
    unanswered: u8,
    rejected: bool,
}

/// A search over the rejected groups of one batch.
#[derive(Debug, Clone)]
pub struct Search {
    ready: VecDeque<Probe>,
    asked: BTreeMap<Probe, Asked>,
    halved: BTreeMap<Probe, Halved>,
    left: usize,
    found: Vec<Found>,
}

impl Search {
    /// Begins with groups that were rejected. At most `most` questions will be asked.
    pub fn new(rejected: impl IntoIterator<Item = Suspect>, most: usize) -> Self {
        let mut search = Self {
            ready: VecDeque::new(),
            asked: BTreeMap::new(),
            halved: BTreeMap::new(),
            left: most,
            found: Vec::new(),
        };
        for (group, Suspect { events, hint, why }) in rejected.into_iter().enumerate() {
            let whole = Probe { group, from: 0, to: events };
            if events < 2 || search.left == 0 {
                search.found.push(Found { events: whole, why });
            } else {
                let empty = Probe { to: 0, ..whole };
                let hint = hint.filter(|hint| !hint.is_empty() && hint.end <= events && hint.len() < events);
                search.ask(empty, Asked::Empty { whole, hint, why });
            }
        }
        search
    }

    /// The next question. Several may be under way at the same time.
    pub fn take(&mut self) -> Option<Probe> {
        self.ready.pop_front()
    }

    /// Takes an answer in: the table's reason if it rejects what was asked about.
    pub fn answer(&mut self, probe: &Probe, rejected: Option<String>) {
        match self.asked.remove(probe) {
            None => debug_assert!(false, "{probe:?} was not asked"),
            Some(Asked::Empty { whole, hint, why }) => match (rejected, hint) {
                (Some(why), _) => self.found.push(Found { events: whole, why }),
                (None, Some(hint)) if self.left > 0 => {
                    let hinted = Probe { from: hint.start, to: hint.end, ..whole };
                    self.ask(hinted, Asked::Hint { whole, why });
                }
                (None, _) => self.halve(whole, why),
            },
            Some(Asked::Hint { whole, why }) => match rejected {
                Some(why) => self.narrow(probe.clone(), why),
                None => self.halve(whole, why),
            },
            Some(Asked::Half { of }) => self.on_half(probe, of, rejected),
            Some(Asked::Again) => {
                let events = probe.clone();
                self.found.extend(rejected.map(|why| Found { events, why }));
            }
        }
    }

    /// What was found, in order. Empty if every question was answered with yes: then what was rejected has passed.
    pub fn finish(mut self) -> Vec<Found> {
        debug_assert!(self.asked.is_empty(), "{:?} are not answered", self.asked);
        self.found.sort();
        self.found
    }

    fn on_half(&mut self, probe: &Probe, of: Probe, rejected: Option<String>) {
        let Some(whole) = self.halved.get_mut(&of) else { return };
        whole.unanswered -= 1;
        whole.rejected |= rejected.is_some();
        if whole.unanswered == 0
            && let Some(Halved { why, rejected: false, .. }) = self.halved.remove(&of)
        {
            self.again(of, why);
        }
        match rejected {
            None => {}
            Some(why) => self.narrow(probe.clone(), why),
        }
    }

    /// A rejected range is an offender or is halved.
    fn narrow(&mut self, range: Probe, why: String) {
        if range.len() == 1 {
            self.found.push(Found { events: range, why });
        } else {
            self.halve(range, why);
        }
    }

    /// Asks about both halves of a rejected range, if so many questions are left.
    fn halve(&mut self, range: Probe, why: String) {
        if self.left < 2 {
            self.found.push(Found { events: range, why });
            return;
        }
        for half in range.halves() {
            self.ask(half, Asked::Half { of: range.clone() });
        }
        self.halved.insert(range, Halved { why, unanswered: 2, rejected: false });
    }

    fn again(&mut self, range: Probe, why: String) {
        if self.left == 0 {
            self.found.push(Found { events: range, why });
        } else {
            self.ask(range, Asked::Again);
        }
    }

    fn ask(&mut self, probe: Probe, asked: Asked) {
        self.left -= 1;
        self.asked.insert(probe.clone(), asked);
        self.ready.push_back(probe);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PLENTY: usize = 100_000;

    /// Asks the table of a test until nothing is left to ask, `at_once` questions at a time; returns what was found and
    /// how many questions it took.
    fn run(
        sizes: &[usize],
        most: usize,
        at_once: usize,
        rejects: impl Fn(&Probe) -> bool,
    ) -> (Vec<(usize, Range<usize>)>, usize) {
        let groups: Vec<_> = sizes.iter().map(|size| (*size, None)).collect();
        run_hinted(&groups, most, at_once, rejects)
    }

    fn run_hinted(
        groups: &[(usize, Option<Range<usize>>)],
        most: usize,
        at_once: usize,
        rejects: impl Fn(&Probe) -> bool,
    ) -> (Vec<(usize, Range<usize>)>, usize) {
        let suspect = |(events, hint): &(usize, _)| Suspect {
            events: *events,
            hint: Clone::clone(hint),
            why: "no".to_owned(),
        };
        let mut search = Search::new(groups.iter().map(suspect), most);
        let mut questions = 0;
        loop {
            let round: Vec<Probe> = std::iter::from_fn(|| search.take()).take(at_once).collect();
            if round.is_empty() {
                break;
            }
            questions += round.len();
            // The last answer may come first.
            for probe in round.iter().rev() {
                search.answer(probe, rejects(probe).then(|| "no".to_owned()));
            }
        }
        let found = search.finish();
        (found.into_iter().map(|found| (found.events.group, found.events.events())).collect(), questions)
    }

    fn holds(poison: &BTreeSet<(usize, usize)>, probe: &Probe) -> bool {
        probe.events().any(|event| poison.contains(&(probe.group, event)))
    }

    #[test]
    fn one_event_of_ten_thousand_is_found_with_29_questions() {
        let poison = BTreeSet::from([(0, 7_777)]);
        let (found, questions) = run(&[10_000], PLENTY, 2, |probe| holds(&poison, probe));
        assert_eq!(found, vec![(0, 7_777..7_778)]);
        assert!(questions <= 29, "{questions}");
    }

    #[test]
    fn a_group_of_one_event_needs_no_question() {
        assert_eq!(run(&[1, 1], PLENTY, 1, |_| unreachable!()), (vec![(0, 0..1), (1, 0..1)], 0));
    }

    #[test]
    fn a_key_that_can_never_be_written_takes_one_question() {
        assert_eq!(run(&[500], PLENTY, 1, |_| true), (vec![(0, 0..500)], 1));
    }

    #[test]
    fn events_that_are_rejected_only_together_are_found_together() {
        let both = |probe: &Probe| probe.events().contains(&2) && probe.events().contains(&5);
        assert_eq!(run(&[8], PLENTY, 2, both).0, vec![(0, 0..8)]);
        let close = |probe: &Probe| probe.events().contains(&4) && probe.events().contains(&5);
        assert_eq!(run(&[8], PLENTY, 2, close).0, vec![(0, 4..6)]);
    }

    #[test]
    fn what_is_taken_when_asked_again_is_no_offender() {
        assert_eq!(run(&[8], PLENTY, 2, |_| false), (vec![], 4));
    }

    #[test]
    fn where_the_rejected_item_is_known_its_events_alone_are_searched() {
        let asked = std::cell::RefCell::new(Vec::new());
        let poison = BTreeSet::from([(0, 7_777), (0, 100)]);
        let rejects = |probe: &Probe| {
            asked.borrow_mut().push(probe.events());
            holds(&poison, probe)
        };
        let (found, questions) = run_hinted(&[(10_000, Some(7_700..7_800))], PLENTY, 2, rejects);
        assert_eq!(found, vec![(0, 7_777..7_778)]);
        assert!(questions <= 2 + 2 * 7, "{questions}");
        assert!(
            asked
                .borrow()
                .iter()
                .all(|events| events.is_empty() || events.start >= 7_700 && events.end <= 7_800)
        );
        // A hint of one event needs no halves.
        let (found, questions) =
            run_hinted(&[(10_000, Some(100..101))], PLENTY, 2, |probe| holds(&poison, probe));
        assert_eq!((found, questions), (vec![(0, 100..101)], 2));
    }

    proptest! {
        /// Right or wrong, a hint makes nothing an offender that is none, and whoever it names is found; if it names nobody,
        /// everybody is.
        #[test]
        fn a_hint_may_be_wrong(
            size in 2usize..300,
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..6),
            ends in (any::<prop::sample::Index>(), 0usize..60),
        ) {
            let poison: BTreeSet<(usize, usize)> = picks.iter().map(|pick| (0, pick.index(size))).collect();
            let from = ends.0.index(size);
            let hint = from..from + ends.1;
            let usable = !hint.is_empty() && hint.end <= size && hint.len() < size;
            let (found, _) = run_hinted(&[(size, Some(hint.clone()))], PLENTY, 2, |probe| holds(&poison, probe));
            let all: Vec<_> = poison.iter().map(|(group, event)| (*group, *event..event + 1)).collect();
            let named: Vec<_> = all.iter().filter(|(_, event)| hint.contains(&event.start)).cloned().collect();
            prop_assert_eq!(found, if usable && !named.is_empty() { named } else { all });
        }

        /// For any set of poison events: exactly those, each by itself, with a bounded number of questions.
        #[test]
        fn exactly_the_offenders_are_found(
            sizes in proptest::collection::vec(1usize..200, 1..5),
            picks in proptest::collection::vec((0usize..5, any::<prop::sample::Index>()), 0..20),
            at_once in 1usize..6,
        ) {
            let pick = |(group, index): &(usize, prop::sample::Index)| {
                sizes.get(*group).map(|size| (*group, index.index(*size)))
            };
            let mut poison: BTreeSet<(usize, usize)> = picks.iter().filter_map(pick).collect();
            // A group is searched because it was rejected, so each has an offender.
            poison.extend((0..sizes.len()).filter(|group| !poison.iter().any(|(of, _)| of == group)).map(|group| (group, 0)).collect::<Vec<_>>());
            let (found, questions) = run(&sizes, PLENTY, at_once, |probe| holds(&poison, probe));
            let expected: Vec<_> = poison.iter().map(|(group, event)| (*group, *event..event + 1)).collect();
            prop_assert_eq!(found, expected);
            let depth = sizes.iter().map(|size| size.next_power_of_two().ilog2() as usize).max().unwrap_or(0);
            prop_assert!(questions <= sizes.len() + 2 * poison.len() * depth, "{} questions", questions);
        }

        /// With too few questions the offenders are covered all the same, and each range found holds one.
        #[test]
        fn the_number_of_questions_is_bounded_and_no_offender_escapes(
            sizes in proptest::collection::vec(1usize..200, 1..5),
            seeds in proptest::collection::vec(any::<prop::sample::Index>(), 5..60),
            most in 0usize..60,
        ) {
            let event = |(n, index): (usize, &prop::sample::Index)| {
                let group = n % sizes.len();
                (group, index.index(sizes[group]))
            };
            let poison: BTreeSet<(usize, usize)> = seeds.iter().enumerate().map(event).collect();
            let (found, questions) = run(&sizes, most, 3, |probe| holds(&poison, probe));
            prop_assert!(questions <= most);
            for (group, event) in &poison {
                prop_assert!(found.iter().any(|(of, range)| of == group && range.contains(event)));
            }
            for (group, range) in &found {
                prop_assert!(range.clone().any(|event| poison.contains(&(*group, event))));
            }
        }

        /// Whatever the table rejects, every question is asked once and the search ends.
        #[test]
        fn it_ends_whatever_is_answered(size in 1usize..300, answers in proptest::collection::vec(any::<bool>(), 1..40)) {
            let asked = std::cell::RefCell::new(Vec::new());
            let rejects = |probe: &Probe| {
                let mut asked = asked.borrow_mut();
                asked.push(probe.clone());
                answers[asked.len() % answers.len()]
            };
            let (_, questions) = run(&[size], 256, 2, rejects);
            prop_assert!(questions <= 256);
        }
    }
}
