//! The cases of law R6, and a search over random ones.

use proptest::prelude::*;

use super::*;

/// Law R6 from a moment on, at which the table gave something else: after ten seconds, in every ten that follow, this part of what the
/// table gives is used and each worker writes half of an equal part.
fn judge(fleet: &Fleet, (from, to): (f64, f64), gives: f64, used: f64) -> Result<(), String> {
    let workers = fleet.workers.len();
    let equal = gives / f64::from(u32::try_from(workers).unwrap());
    // A few items more or less are no matter of rates.
    let item = f64::from(fleet.item_units);
    let slack = 2.0 * item + 2.0 * (equal * 10.0 * item).sqrt();
    let mut at = from + 10.0;
    while at + 10.0 <= to {
        let written = fleet.written(at, at + 10.0);
        if written < used * gives * 10.0 - slack {
            return Err(format!("{written:.0} of {:.0} units in ten seconds from {at:.1}", gives * 10.0));
        }
        for me in 0..workers {
            let mine = fleet.written_by(me, at, at + 10.0);
            if mine < 0.5 * equal * 10.0 - slack {
                let part = equal * 10.0;
                return Err(format!("worker {me}: {mine:.0} of {part:.0} units in ten seconds from {at:.1}"));
            }
        }
        at += 1.0;
    }
    Ok(())
}

/// A fleet at a table that gives little for a while and then what it gave, or something else.
#[derive(Debug, Clone, Copy)]
struct Case {
    workers: usize,
    apart: f64,
    gives: f64,
    low: f64,
    lasts: f64,
    afterwards: f64,
    budget: Option<(f64, bool)>,
    seed: u64,
}

impl Case {
    /// Starts into the low time, or works for a while before it.
    fn judge(self, before: f64) -> Result<Fleet, String> {
        let lift = before + self.lasts;
        let gives = self.gives * self.afterwards;
        let course: Vec<(f64, f64)> = if before > 0.0 {
            vec![(0.0, self.gives), (before, self.low), (lift, gives)]
        } else {
            vec![(0.0, self.low), (lift, gives)]
        };
        let budget = match self.budget {
            None => Budget::None,
            Some((part, true)) => Budget::Firm(gives * part),
            Some((part, false)) => Budget::Soft(gives * part),
        };
        let equal = self.gives * self.afterwards.min(1.0) / f64::from(u32::try_from(self.workers).unwrap());
        // What a worker can have under way bounds it too: 25 items in each of four requests.
        let item_units = if equal > 500.0 { equal / 100.0 } else { (equal / 20.0).min(5.0) };
        let item_units = (item_units as u32).clamp(1, 400);
        let mut fleet =
            Fleet::new((self.workers, self.apart), budget, &course, self.seed).with_items_of(item_units);
        let started = self.apart * f64::from(u32::try_from(self.workers - 1).unwrap());
        let to = lift.max(started) + if self.lasts < 6.0 && before > 80.0 { 120.0 } else { 40.0 };
        fleet.run(to);
        let usable = match self.budget {
            Some((part, true)) => gives * part.min(1.0) * 0.985,
            Some(_) | None => gives,
        };
        // What it never gave before takes longer to find than what it did; the law asks for half.
        let used = if self.afterwards > 1.0 { 0.5 } else { 0.75 };
        judge(&fleet, (lift.max(started), to), usable, used)?;
        if before > started + 30.0 {
            judge(&fleet, (started, before), self.gives.min(usable), 0.75)?;
        }
        Ok(fleet)
    }
}

#[test]
fn a_worker_that_starts_into_refusals_is_no_slower_for_it() {
    for gives in [100.0, 1_500.0, 40_000.0] {
        let case = Case {
            workers: 1,
            apart: 0.0,
            gives,
            low: 1.0,
            lasts: 5.0,
            afterwards: 1.0,
            budget: None,
            seed: 1,
        };
        let fleet = case.judge(0.0).unwrap();
        let to_90 = fleet.seconds_to(0.9 * gives, 5.0, 45.0);
        assert!(to_90.is_some_and(|seconds| seconds <= 5.0), "{gives}: {to_90:?}");
    }
    // A table on demand that says it takes more than it does.
    let case = Case {
        workers: 1,
        apart: 0.0,
        gives: 1_500.0,
        low: 1.0,
        lasts: 5.0,
        afterwards: 1.0,
        budget: Some((4_000.0 / 1_500.0, false)),
        seed: 1,
    };
    let fleet = case.judge(0.0).unwrap();
    assert!(fleet.written(5.0, 15.0) >= 13_500.0, "{}", fleet.written(5.0, 15.0));
}

#[test]
fn a_worker_that_starts_a_moment_later_gets_its_part() {
    for workers in [2, 4, 16] {
        let case = Case {
            workers,
            apart: 0.15,
            gives: 1_500.0,
            low: 1_500.0,
            lasts: 0.0,
            afterwards: 1.0,
            budget: None,
            seed: 1,
        };
        case.judge(0.0).unwrap();
    }
}

/// What is aimed at: 90% of the former rate within 8 s of the lift, with and without a budget; and for five seconds at 5%, in a
/// run from a minute before to two minutes after, 2% refused.
#[test]
fn an_outage_costs_seconds_and_few_refusals() {
    for workers in [1, 4, 16] {
        for budget in [None, Some((1.0, true)), Some((1.0, false))] {
            for (low, lasts) in [(75.0, 5.0), (1.0, 5.0), (1.0, 30.0), (75.0, 300.0), (1.0, 300.0)] {
                // Five minutes of sixteen workers take long to play.
                if lasts > 60.0 && workers > 4 {
                    continue;
                }
                let case = Case {
                    workers,
                    apart: 0.15,
                    gives: 1_500.0,
                    low,
                    lasts,
                    afterwards: 1.0,
                    budget,
                    seed: 3,
                };
                let fleet = case.judge(90.0).unwrap_or_else(|error| panic!("{case:?}: {error}"));
                let (lift, before) = (90.0 + lasts, fleet.written(60.0, 90.0) / 30.0);
                let to_90 = fleet.seconds_to(0.9 * before, lift, lift + 40.0);
                assert!(to_90.is_some_and(|seconds| seconds <= 8.0), "{case:?}: {to_90:?}");
                if lasts < 6.0 {
                    let refused = fleet.refused_part(30.0, lift + 120.0);
                    assert!(refused <= 0.02, "{case:?}: {refused} refused");
                }
            }
        }
    }
}

/// On demand a table doubles what it takes while it throttles.
#[test]
fn a_table_that_doubles_again_and_again_is_followed() {
    for workers in [1, 4] {
        let course: Vec<(f64, f64)> =
            (0..5_i32).map(|n| (f64::from(n) * 20.0, 1_000.0 * 2_f64.powi(n))).collect();
        let mut fleet = Fleet::new((workers, 0.15), Budget::Soft(1_000.0), &course, 5).with_items_of(4);
        fleet.run(100.0);
        for (from, gives) in course {
            let written = fleet.written(from + 10.0, from + 20.0);
            assert!(written >= 0.75 * gives * 10.0, "{workers} workers: {written} at {gives} a second");
        }
    }
}

/// A rate that was learned in a moment in which the table took nothing says nothing.
#[test]
fn a_rate_of_one_that_others_tell_of_is_left_behind_within_seconds() {
    for gives in [100.0, 1_500.0, 40_000.0] {
        let mut fleet =
            Fleet::new((1, 0.0), Budget::None, &[(0.0, gives)], 5).with_items_of((gives / 100.0) as u32);
        let now = fleet.begun + seconds(0.06);
        fleet.workers[0].pace.begin_at(super::super::pace::Begin::Rate(1.0), now);
        fleet.run(30.0);
        assert!(fleet.written(10.0, 20.0) >= 0.5 * gives * 10.0, "{gives}: {}", fleet.written(10.0, 20.0));
    }
}

/// What waits says little of what there is to write where items are large and packed one after the other.
#[test]
fn who_has_one_large_item_waiting_at_a_time_gets_its_part() {
    for (workers, gives, item) in [(2, 170.0, 43), (4, 1_500.0, 400), (4, 800.0, 40)] {
        for seed in 0..5 {
            let course = [(0.0, gives), (40.0, gives * 0.05), (46.0, gives)];
            let mut fleet = Fleet::new((workers, 5.0), Budget::None, &course, seed)
                .with_items_of(item)
                .with_waiting(f64::from(item));
            fleet.run(90.0);
            judge(&fleet, (46.0, 90.0), gives, 0.75)
                .unwrap_or_else(|error| panic!("{workers} at {gives}, seed {seed}: {error}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever a table gave and refused, whoever starts when, with and without a budget.
    #[test]
    fn r6_holds(
        workers in prop::sample::select(vec![1_usize, 2, 4, 16]),
        apart in prop::sample::select(vec![0.0, 0.15, 1.0]),
        gives in (100.0_f64.ln()..40_000.0_f64.ln()).prop_map(f64::exp),
        low in prop::sample::select(vec![0.0, 0.05, 0.25, 0.5]),
        lasts in prop::sample::select(vec![0.0, 2.0, 5.0, 30.0]),
        afterwards in prop::sample::select(vec![0.25, 1.0, 2.0]),
        budget in prop::sample::select(vec![None, Some((1.0, true)), Some((1.0, false)), Some((2.0, false)), Some((0.5, false))]),
        before in prop::sample::select(vec![0.0, 40.0]),
        seed: u64,
    ) {
        let low = (gives * low).max(1.0);
        let case = Case { workers, apart, gives, low, lasts, afterwards, budget, seed };
        if let Err(error) = case.judge(before) {
            return Err(TestCaseError::fail(format!("{case:?} after {before} s: {error}")));
        }
    }
}
