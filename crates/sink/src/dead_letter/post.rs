//! Puts the letters of a batch, with retries: none is committed past before it is durable.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use sluicegate_checkpoint::{RetryPolicy, Right};
use thiserror::Error;
use tokio::time::Instant;

use super::{DeadLetters, Letter};
use crate::packing_sink::{refused_or_unavailable, unavailable};
use crate::sink::DeliverError;
use crate::store::StoreError;

/// Letters on their way at the same time. Merged ranges may hold thousands of events: one by one, at 5 ms each, these
/// would hold their shard for minutes. It also bounds the rate of letters of unreadable events: the shard waits for them.
const AT_ONCE: usize = 8;
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A letter that is not durable after this long is given up for now; its batch is delivered again.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// No answer within the time of one attempt.
#[derive(Debug, Error)]
#[error("no answer within {ATTEMPT_TIMEOUT:?}")]
struct TimedOut;

/// What became of a batch's letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Posted {
    /// Letters that are durable, whoever put them.
    pub letters: u64,
    /// Letters that were not there before.
    pub new: u64,
}

/// Makes all these letters durable, a few at a time; no more than those are made of the iterator. The right is asked before
/// each attempt.
///
/// *Repeating it*: harmless. *Cancelling it*: some may be stored.
///
/// # Errors
/// As a delivery.
pub async fn post(
    table: &dyn DeadLetters,
    letters: impl Iterator<Item = Letter> + Send,
    right: &dyn Right,
    rng: &mut SmallRng,
) -> Result<Posted, DeliverError> {
    let mut left = letters;
    let mut under_way = FuturesUnordered::new();
    let mut posted = Posted::default();
    loop {
        while under_way.len() < AT_ONCE
            && let Some(letter) = left.next()
        {
            under_way.push(put_until_durable(table, letter, right, rng.next_u64()));
        }
        let Some(put) = under_way.next().await else { return Ok(posted) };
        posted.letters += 1;
        posted.new += u64::from(put?);
    }
}

async fn put_until_durable(
    table: &dyn DeadLetters,
    letter: Letter,
    right: &dyn Right,
    seed: u64,
) -> Result<bool, DeliverError> {
    let (mut delays, mut rng) = (RetryPolicy::AWS.delays(), SmallRng::seed_from_u64(seed));
    let begun = Instant::now();
    loop {
        if !right.holds() {
            return Err(DeliverError::RightEnded);
        }
        let error = match tokio::time::timeout(ATTEMPT_TIMEOUT, table.put(&letter)).await {
            Ok(Ok(new)) => return Ok(new),
            Ok(Err(error)) => error,
            Err(_elapsed) => StoreError::Unavailable(Box::new(TimedOut)),
        };
        let subject = format!("letter {}", letter.header.id);
        match delays.after(error.retry(), &mut rng) {
            None => return Err(refused_or_unavailable(&subject, error)),
            Some(_) if begun.elapsed() >= GIVE_UP_AFTER => {
                return Err(unavailable(format!("{subject} was not stored for {GIVE_UP_AFTER:?}"), error));
            }
            Some(delay) => tokio::time::sleep(delay).await,
        }
    }
}
