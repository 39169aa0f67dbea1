//! What an equal part of what a fleet writes comes to. **Pure.**
//!
//! A table refuses whose request comes when it is full, so refusals alone leave those in possession who came first. Each
//! worker tells in its row what it writes and what it could write; from these everybody computes the same parts.

/// What one worker tells of its writing, in units per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Told {
    /// What it writes.
    pub used: f64,
    /// What it could write: what it writes, and what waits.
    pub demand: f64,
}

/// A worker presses if it could write so many times what it writes.
const PRESSES: f64 = 1.1;

impl Told {
    /// Whether it writes, or has something to write.
    pub fn writes(self) -> bool {
        self.used > 0.0 || self.demand > 0.0
    }

    /// Whether it would write more if it could. Nobody waits for the turn of one that would not: what it wrote of late may be all
    /// that it had, and then it never finds out whether the table gives more.
    pub fn presses(self) -> bool {
        self.demand > self.used * PRESSES
    }
}

/// What a worker should know of its part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Advice {
    /// Its equal part of what the fleet writes, in units per second; what it could write, if that is less.
    pub due: f64,
    /// How many others that [press](Told::presses) find out before it whether the table gives more than it did.
    pub before: u32,
}

/// What is due to a worker among others, of which so many come before it in some order that all agree on; nothing is to be
/// said to one that is alone.
pub fn advice(mine: Told, others: &[Told], before: u32) -> Option<Advice> {
    if others.is_empty() {
        return None;
    }
    let all = || others.iter().chain([&mine]);
    let written: f64 = all().map(|told| told.used).sum();
    // Who has written all it had frees what it wrote: the others take that over while the rows still tell of it.
    let level = level(written, all().map(|told| told.demand).collect());
    Some(Advice { due: level.min(mine.demand.max(mine.used)), before })
}

/// The level at which these demands are cut off, so that what is left of them sums to a total: none gets more than it asks
/// for, and those that ask for more than the level get the same.
fn level(total: f64, mut demands: Vec<f64>) -> f64 {
    demands.sort_by(f64::total_cmp);
    let (mut left, mut count) = (total, demands.len());
    for demand in demands {
        let equal = left / f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX));
        if demand >= equal {
            return equal;
        }
        left -= demand;
        count -= 1;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(used: f64, demand: f64) -> Told {
        Told { used, demand }
    }

    #[test]
    fn nobody_is_owed_anything_by_nobody() {
        assert_eq!(advice(told(10.0, 500.0), &[], 0), None);
    }

    #[test]
    fn who_came_late_is_due_an_equal_part() {
        let (first, second) = (told(1_490.0, 3_000.0), told(10.0, 800.0));
        let due = 750.0;
        assert_eq!(advice(second, &[first], 1), Some(Advice { due, before: 1 }));
        assert_eq!(advice(first, &[second], 0), Some(Advice { due, before: 0 }));
    }

    #[test]
    fn nobody_waits_for_one_that_has_written_all_it_had() {
        let (busy, done, idle) = (told(80.0, 900.0), told(80.0, 60.0), told(0.0, 0.0));
        assert!(busy.presses() && busy.writes());
        assert!(!done.presses() && done.writes());
        assert!(!idle.presses() && !idle.writes());
    }

    #[test]
    fn what_one_wrote_is_due_to_the_others_once_it_has_written_all() {
        let (slow, done) = (told(10.0, 900.0), told(160.0, 5.0));
        assert_eq!(advice(slow, &[done], 1), Some(Advice { due: 165.0, before: 1 }));
    }

    #[test]
    fn who_has_little_to_write_leaves_the_rest_to_the_others() {
        let idle = told(20.0, 20.0);
        let busy = told(740.0, 9_000.0);
        let advised = advice(busy, &[idle, busy], 0).unwrap();
        assert!((advised.due - 740.0).abs() < 1e-9, "{advised:?}");
    }

    proptest! {
        /// Whatever is told: all parts together are what is written, nobody's is above what it could write, and who could
        /// write more than its part gets as much as anybody.
        #[test]
        fn parts_are_equal_and_sum_to_what_is_written(
            fleet in proptest::collection::vec((0.0_f64..2_000.0, 0.0_f64..5_000.0), 2..12)
        ) {
            let fleet: Vec<Told> = fleet.into_iter().map(|(used, more)| told(used, used + more)).collect();
            let due: Vec<f64> = (0..fleet.len()).map(|me| {
                let others: Vec<Told> =
                    fleet.iter().enumerate().filter(|(other, _)| *other != me).map(|(_, told)| *told).collect();
                advice(fleet[me], &others, 0).unwrap().due
            }).collect();
            let written: f64 = fleet.iter().map(|told| told.used).sum();
            prop_assert!((due.iter().sum::<f64>() - written).abs() < 1e-6 * written.max(1.0));
            let most = due.iter().fold(0.0_f64, |most, due| most.max(*due));
            for (told, due) in fleet.iter().zip(&due) {
                prop_assert!(*due <= told.demand + 1e-9);
                prop_assert!(*due >= told.demand - 1e-9 || *due >= most - 1e-6, "{due} of {most}");
            }
        }
    }
}
