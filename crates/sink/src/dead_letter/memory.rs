//! Letters in memory, as the attributes that they are stored as.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sluicegate_checkpoint::ArrivalMillis;

use super::{DeadLetters, Letter, LetterError, LetterHeader, LetterId, LetterPage, names};
use crate::item::{Attributes, ItemKey, Value};
use crate::store::{Cause, StoreError};

/// Letters that one page of a list holds.
const PAGE: usize = 50;

/// A dead-letter table in memory.
#[derive(Debug, Default)]
pub struct MemoryDeadLetters {
    letters: Mutex<BTreeMap<LetterId, Vec<Attributes>>>,
}

impl MemoryDeadLetters {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<LetterId, Vec<Attributes>>> {
        // Each change is one insert, so a panic elsewhere leaves nothing half done.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All letters, by name.
    ///
    /// # Errors
    /// A letter that is not what was written.
    pub fn all(&self) -> Result<Vec<Letter>, LetterError> {
        self.locked().values().map(|items| Letter::from_items(items)).collect()
    }
}

impl From<LetterError> for StoreError {
    fn from(error: LetterError) -> Self {
        let what = error.to_string();
        Self::Refused { what, source: Cause::from(error) }
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn put(&self, letter: &Letter) -> Result<bool, StoreError> {
        let mut letters = self.locked();
        let new = !letters.contains_key(&letter.header.id);
        letters.entry(letter.header.id.clone()).or_insert_with(|| letter.to_items());
        Ok(new)
    }

    async fn list(&self, behind: Option<&ItemKey>) -> Result<LetterPage, StoreError> {
        let letters = self.locked();
        let behind = behind.and_then(LetterId::of_key);
        let mut rest = letters.iter().filter(|(id, _)| behind.as_ref().is_none_or(|behind| *id > behind));
        let mut page = LetterPage::default();
        for (id, items) in rest.by_ref().take(PAGE) {
            page.letters.push(LetterHeader::of_items(items)?);
            page.next = Some(id.head_key());
        }
        if rest.next().is_none() {
            page.next = None;
        }
        Ok(page)
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<Letter>, StoreError> {
        Ok(self.locked().get(id).map(|items| Letter::from_items(items)).transpose()?)
    }

    async fn mark_redriven(&self, id: &LetterId, at: ArrivalMillis) -> Result<bool, StoreError> {
        let mut letters = self.locked();
        let Some(head) = letters.get_mut(id).and_then(|items| items.first_mut()) else { return Ok(false) };
        if head.number(names::REDRIVEN_AT).is_some() {
            return Ok(false);
        }
        head.set(names::REDRIVEN_AT, Value::Number(at.0));
        Ok(true)
    }

    async fn delete(&self, id: &LetterId) -> Result<bool, StoreError> {
        Ok(self.locked().remove(id).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn letters_in_memory_pass_the_contract() {
        super::super::contract::run_all(&MemoryDeadLetters::default()).await;
    }
}
