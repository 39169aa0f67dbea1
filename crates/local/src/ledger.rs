//! What requests used, by table or stream and by second of the server's clock: an account from outside of the software under
//! test, that does not die with a killed worker.
//!
//! Something is entered for the second in which it was let in, whether or not a client asked what it consumed.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Seconds that are kept one by one, by table or stream: two hours.
const KEPT_SECONDS: u64 = 7_200;

/// What one table was used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TableUse {
    /// Write capacity units that were accepted. A write whose condition did not hold has used its units too.
    pub write_units: f64,
    /// Read capacity units.
    pub read_units: f64,
    /// Requests that wrote, or whose condition did not hold.
    pub writes: u64,
    /// Requests that read.
    pub reads: u64,
    /// Items of those requests that wrote.
    pub written_items: u64,
    /// Write capacity units that were refused for a limit, or for an injected fault that stands for one: what would have
    /// been written counts, not what it would have replaced.
    pub refused_units: f64,
    /// Requests that wrote nothing for that reason.
    pub refused_writes: u64,
    /// Items that were not written for that reason; in a batch some may be while others are.
    pub refused_items: u64,
}

impl AddAssign for TableUse {
    fn add_assign(&mut self, other: Self) {
        self.write_units += other.write_units;
        self.read_units += other.read_units;
        self.writes += other.writes;
        self.reads += other.reads;
        self.written_items += other.written_items;
        self.refused_units += other.refused_units;
        self.refused_writes += other.refused_writes;
        self.refused_items += other.refused_items;
    }
}

/// What one stream was used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StreamUse {
    /// Records that were stored.
    pub records: u64,
    /// Bytes of their data and partition keys.
    pub bytes: u64,
    /// Records that were refused for a limit.
    pub refused_records: u64,
    /// Bytes of their data and partition keys.
    pub refused_bytes: u64,
    /// GetRecords calls that were answered.
    pub reads: u64,
    /// Bytes of data and partition keys in the answers.
    pub read_bytes: u64,
    /// GetRecords calls that were refused for a limit.
    pub refused_reads: u64,
}

impl AddAssign for StreamUse {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.refused_records += other.refused_records;
        self.refused_bytes += other.refused_bytes;
        self.reads += other.reads;
        self.read_bytes += other.read_bytes;
        self.refused_reads += other.refused_reads;
    }
}

/// What one second of the server's clock saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Window<U> {
    /// Seconds since the Unix epoch.
    pub second: u64,
    /// What was used in it.
    #[serde(flatten)]
    pub used: U,
}

/// The use of all tables (by [`TableUse`]) or streams (by [`StreamUse`]) since the start.
#[derive(Debug, Default)]
pub struct Ledger<U>(Mutex<BTreeMap<String, Account<U>>>);

#[derive(Debug, Default)]
struct Account<U> {
    total: U,
    seconds: BTreeMap<u64, U>,
}

/// An account as it is told.
#[derive(Serialize)]
struct Told<U> {
    #[serde(flatten)]
    total: U,
    windows: Vec<Window<U>>,
}

impl<U: Copy + Default + AddAssign + Serialize> Ledger<U> {
    /// Enters a use that was let in at this time.
    pub(crate) fn enter(&self, name: &str, now_ms: u64, used: U) {
        let mut accounts = self.accounts();
        if !accounts.contains_key(name) {
            accounts.insert(name.to_owned(), Account::default());
        }
        if let Some(account) = accounts.get_mut(name) {
            account.enter(now_ms / 1000, used);
        }
    }

    /// The use of every table or stream since the start.
    pub fn totals(&self) -> BTreeMap<String, U> {
        self.accounts().iter().map(|(name, account)| (name.clone(), account.total)).collect()
    }

    /// The use of one table or stream in each of the last 7,200 seconds in which it was used at all, oldest first.
    pub fn windows(&self, name: &str) -> Vec<Window<U>> {
        self.accounts().get(name).map(|account| account.windows(0)).unwrap_or_default()
    }

    /// Everything as a JSON object, its windows from this second on.
    pub(crate) fn to_json(&self, since: u64) -> String {
        let told: BTreeMap<String, Told<U>> = self
            .accounts()
            .iter()
            .map(|(name, account)| {
                (name.clone(), Told { total: account.total, windows: account.windows(since) })
            })
            .collect();
        serde_json::to_string(&told).unwrap_or_default()
    }

    fn accounts(&self) -> MutexGuard<'_, BTreeMap<String, Account<U>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<U: Copy + Default + AddAssign> Account<U> {
    fn enter(&mut self, second: u64, used: U) {
        self.total += used;
        *self.seconds.entry(second).or_default() += used;
        let newest = self.seconds.last_key_value().map_or(0, |(second, _)| *second);
        while let Some(oldest) = self.seconds.first_entry()
            && *oldest.key() + KEPT_SECONDS <= newest
        {
            oldest.remove();
        }
    }

    fn windows(&self, since: u64) -> Vec<Window<U>> {
        self.seconds.range(since..).map(|(second, used)| Window { second: *second, used: *used }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writing(units: f64) -> TableUse {
        TableUse { write_units: units, writes: 1, written_items: 1, ..TableUse::default() }
    }

    #[test]
    fn uses_add_up_by_table_and_second() {
        let ledger = Ledger::<TableUse>::default();
        ledger.enter("a", 5_000, writing(2.0));
        ledger.enter("a", 5_999, writing(3.5));
        ledger.enter("a", 6_000, TableUse { read_units: 0.5, reads: 1, ..TableUse::default() });
        ledger.enter("b", 6_000, writing(1.0));
        let both = TableUse { write_units: 5.5, writes: 2, written_items: 2, ..TableUse::default() };
        assert_eq!(ledger.totals()["a"], TableUse { read_units: 0.5, reads: 1, ..both });
        assert_eq!(ledger.totals()["b"], writing(1.0));
        let seconds: Vec<_> = ledger.windows("a").iter().map(|window| window.second).collect();
        assert_eq!((seconds, ledger.windows("a")[0].used), (vec![5, 6], both));
        assert_eq!(ledger.windows("c"), []);
    }

    #[test]
    fn only_the_last_two_hours_are_kept_by_second_but_everything_in_the_total() {
        let ledger = Ledger::<TableUse>::default();
        for second in 0..KEPT_SECONDS + 10 {
            ledger.enter("a", second * 1000, writing(1.0));
        }
        let windows = ledger.windows("a");
        assert_eq!((windows.len() as u64, windows[0].second), (KEPT_SECONDS, 10));
        assert_eq!(ledger.totals()["a"].writes, KEPT_SECONDS + 10);
    }

    #[test]
    fn it_is_told_with_totals_beside_the_windows() {
        let ledger = Ledger::<StreamUse>::default();
        ledger.enter("s", 1_000, StreamUse { records: 2, bytes: 30, ..StreamUse::default() });
        ledger.enter("s", 9_000, StreamUse { refused_records: 1, ..StreamUse::default() });
        let told: serde_json::Value = serde_json::from_str(&ledger.to_json(2)).unwrap();
        assert_eq!(told["s"]["records"], 2);
        assert_eq!(told["s"]["windows"].as_array().unwrap().len(), 1);
        assert_eq!(told["s"]["windows"][0]["second"], 9);
        assert_eq!(told["s"]["windows"][0]["refused_records"], 1);
    }
}
