//! A journal of what was accepted: each record of a stream, and each write of a table, as one line of JSON that is in the file
//! before the client has its answer. It tells what is true, whether or not the answer reached anybody.
//!
//! ```text
//! {"kind":"record", ...}   a record was stored                      its shard, sequence number, arrival, partition key, data
//! {"kind":"write", ...}    a single item was put, updated, deleted  the item before and after, whether there was a condition
//! {"kind":"items", ...}    items of a batch were written            their keys alone
//! ```
//!
//! Single writes are carried out under the journal's lock, so that their lines stand in the order in which they took effect. Lines
//! of batches and records are written right after they took effect: whatever a client did because of an answer stands behind them.
//! Transactions are not in it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dynoxide::types::AttributeValue;
use serde::Serialize;
use tracing::error;

use crate::config::LocalError;

/// See the module. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Mutex<File>>);

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Line<'a> {
    Record {
        stream: &'a str,
        shard: String,
        sequence_number: String,
        arrival_ms: u64,
        partition_key: &'a str,
        /// In base64.
        data: &'a str,
    },
    Write {
        table: &'a str,
        operation: &'a str,
        at_ms: u64,
        /// What the client calls itself.
        by: Option<&'a str>,
        conditional: bool,
        before: Option<Attributes<'a>>,
        after: Option<Attributes<'a>>,
    },
    Items {
        table: &'a str,
        at_ms: u64,
        keys: &'a [BTreeMap<String, AttributeValue>],
    },
}

/// The attributes of an item, by their names.
pub(crate) type Attributes<'a> = BTreeMap<&'a str, &'a AttributeValue>;

/// In an order that does not change from line to line.
pub(crate) fn in_order(item: &HashMap<String, AttributeValue>) -> Attributes<'_> {
    item.iter().map(|(name, value)| (name.as_str(), value)).collect()
}

impl Journal {
    /// An empty journal in this file; one that is there already is overwritten.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn create(path: &Path) -> Result<Self, LocalError> {
        let file =
            File::create(path).map_err(|source| LocalError::Journal { path: path.to_path_buf(), source })?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// Keeps others from writing lines until it is dropped.
    pub(crate) fn open(&self) -> Page<'_> {
        Page(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The journal, for one who writes to it.
#[derive(Debug)]
pub(crate) struct Page<'a>(MutexGuard<'a, File>);

impl Page<'_> {
    /// Writes a line. One that is lost for want of space is a line short at whoever compares.
    pub(crate) fn write(&mut self, line: &Line<'_>) {
        let written = serde_json::to_vec(line).map_err(std::io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            self.0.write_all(&text)
        });
        if let Err(error) = written {
            error!(%error, "a line of the journal is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_it_is_and_stands_in_the_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::create(&path).unwrap();
        let items = HashMap::from([
            ("b".to_owned(), AttributeValue::N("7".to_owned())),
            ("a".to_owned(), AttributeValue::S("x".to_owned())),
        ]);
        let after = Some(in_order(&items));
        let (table, operation) = ("leases", "PutItem");
        let line =
            Line::Write { table, operation, at_ms: 5, by: Some("a"), conditional: true, before: None, after };
        journal.open().write(&line);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"kind":"write","table":"leases","operation":"PutItem","at_ms":5,"by":"a","conditional":true,"before":null,"#,
                r#""after":{"a":{"S":"x"},"b":{"N":"7"}}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let error = Journal::create(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
