//! Whom a refusal slows down: the table's rate, or that of some keys. **Pure.** Law R7: a refusal by key range slows the keys
//! that it names and nobody else.
//!
//! An answer that refuses a whole request may say why. One that leaves items over does not: of those a key that is known to be
//! hot is to blame, else the table if it is known to be at its limit. Where neither is known nothing is concluded. What was
//! left over is tried again key by key, and then the answer says why.

use std::time::Duration;

use tokio::time::Instant;

use super::keys::Keys;
use crate::store::ThrottledBy;

/// For so long after an answer named it, what is left over is put down to the table.
const TABLE_KNOWN_FOR: Duration = Duration::from_secs(10);

/// What a request that was refused, in whole or in part, says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal<'a> {
    /// What was refused, by partition key: of a whole request, all of it.
    pub units: &'a [(String, f64)],
    /// What the answer says; none if it left items over, which says nothing.
    pub by: Option<ThrottledBy>,
}

/// Who is slowed down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Blame {
    /// The table's rate.
    pub table: bool,
    /// These keys, and whether the answer named their range.
    pub keys: Vec<(String, bool)>,
}

/// Until when the table is known to refuse by its own limit.
#[derive(Debug, Default)]
pub(super) struct TableLimit {
    known_until: Option<Instant>,
}

impl TableLimit {
    /// Says who is to blame for a refusal.
    pub(super) fn blame(&mut self, refusal: Refusal<'_>, keys: &mut Keys, now: Instant) -> Blame {
        let mut hot = || -> Vec<(String, bool)> {
            let names = refusal.units.iter().map(|(key, _)| key);
            names.filter(|key| keys.is_hot(key, now)).map(|key| (key.clone(), false)).collect()
        };
        match refusal.by {
            Some(ThrottledBy::KeyRange) => {
                let keys = refusal.units.iter().map(|(key, _)| (key.clone(), true)).collect();
                Blame { table: false, keys }
            }
            Some(ThrottledBy::Table) => {
                self.known_until = Some(now + TABLE_KNOWN_FOR);
                Blame { table: true, keys: Vec::new() }
            }
            Some(ThrottledBy::Both) => {
                self.known_until = Some(now + TABLE_KNOWN_FOR);
                Blame { table: true, keys: hot() }
            }
            Some(ThrottledBy::Unknown) => {
                let keys = hot();
                let table = keys.is_empty();
                if table {
                    self.known_until = Some(now + TABLE_KNOWN_FOR);
                }
                Blame { table, keys }
            }
            None => {
                let keys = hot();
                let others = refusal.units.len() > keys.len();
                let table = others && self.known_until.is_some_and(|until| now < until);
                Blame { table, keys }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::PaceOptions;
    use super::*;

    fn units(keys: &[&str]) -> Vec<(String, f64)> {
        keys.iter().map(|key| ((*key).to_owned(), 1.0)).collect()
    }

    fn named(keys: &[&str], named: bool) -> Vec<(String, bool)> {
        keys.iter().map(|key| ((*key).to_owned(), named)).collect()
    }

    #[test]
    fn a_key_range_is_the_keys_affair_and_what_is_left_over_of_them_later() {
        let (now, mut keys, mut table) =
            (Instant::now(), Keys::new(PaceOptions::default()), TableLimit::default());
        let hot = units(&["hot"]);
        keys.charge(&hot, now);
        let said = Refusal { units: &hot, by: Some(ThrottledBy::KeyRange) };
        let blame = table.blame(said, &mut keys, now);
        assert_eq!(blame, Blame { table: false, keys: named(&["hot"], true) });
        keys.refused(("hot", 1.0), true, now, now);
        let left = units(&["cold", "hot"]);
        keys.charge(&left, now);
        let left_over = Refusal { units: &left, by: None };
        let blame = table.blame(left_over, &mut keys, now);
        assert_eq!(blame, Blame { table: false, keys: named(&["hot"], false) }, "nothing is known of cold");
    }

    #[test]
    fn what_is_left_over_is_the_table_s_affair_where_that_is_known_to_be_at_its_limit() {
        let (now, mut keys, mut table) =
            (Instant::now(), Keys::new(PaceOptions::default()), TableLimit::default());
        let left = units(&["a", "b"]);
        keys.charge(&left, now);
        assert_eq!(table.blame(Refusal { units: &left, by: None }, &mut keys, now), Blame::default());
        for by in [ThrottledBy::Table, ThrottledBy::Both, ThrottledBy::Unknown] {
            let blame = table.blame(Refusal { units: &left, by: Some(by) }, &mut keys, now);
            assert_eq!(blame, Blame { table: true, keys: Vec::new() }, "{by:?}");
        }
        let blame = table.blame(Refusal { units: &left, by: None }, &mut keys, now);
        assert!(blame.table);
        let later = now + TABLE_KNOWN_FOR;
        assert_eq!(table.blame(Refusal { units: &left, by: None }, &mut keys, later), Blame::default());
    }

    #[test]
    fn an_answer_without_a_reason_is_put_down_to_a_key_that_is_written_to_at_about_its_limit() {
        let (now, mut keys, mut table) =
            (Instant::now(), Keys::new(PaceOptions::default()), TableLimit::default());
        let busy = vec![("busy".to_owned(), 900.0)];
        keys.charge(&busy, now);
        keys.consumed(&busy, now);
        let refusal = Refusal { units: &busy, by: Some(ThrottledBy::Unknown) };
        let blame = table.blame(refusal, &mut keys, now);
        assert_eq!(blame, Blame { table: false, keys: named(&["busy"], false) });
    }
}
