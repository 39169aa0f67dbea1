//! Whether hash keys may be judged: who distributes the stream's records over its shards, asked when it matters.
//!
//! A stream whose `RecordDistributionStrategy` is `AUTO` puts records anywhere, and there a user record outside its
//! shard's hash keys is no sign of anything. That can change while a stream lives, so an answer counts only for records
//! that arrived before it. It is asked for when a batch is about to leave something out, once for all shards of a worker
//! and at most once in [`EVERY`]; while there is no answer the batch waits, and after [`PATIENCE`] without one its
//! records are kept. The decision itself is [`judge`], a function of values.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::ArrivalMillis;
use sluicegate_checkpoint::recurring::causes;
use sluicegate_lease::Clock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::stream::{Distributed, Distribution, StreamError, StreamReader};

/// Shortest time between two questions.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long no answer can be used before records are kept.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of user records whose hash key is not of their shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The stream goes by hash keys: they are left out.
    LeftOut,
    /// The stream distributes records by itself: they are kept.
    Auto,
    /// Nobody said for too long: they are kept, as a record that comes twice is better than one that is lost.
    Unknown,
}

/// Judges user records of which the last arrived at `arrived`, by the newest answer and by how long none could be used;
/// `None` if it must be asked.
pub fn judge(
    arrived: ArrivalMillis,
    answer: Option<Distributed>,
    unanswered_for: Option<Duration>,
) -> Option<Judgement> {
    match answer.filter(|answer| answer.as_of > arrived).map(|answer| answer.by) {
        Some(Distribution::UserPartitionKey) => Some(Judgement::LeftOut),
        Some(Distribution::Auto) => Some(Judgement::Auto),
        None => unanswered_for.filter(|time| *time >= PATIENCE).map(|_too_long| Judgement::Unknown),
    }
}

/// What a worker knows of its stream's distribution; shared by its sessions.
pub struct DistributionBook {
    stream: Arc<dyn StreamReader>,
    clock: Clock,
    /// Whoever holds it asks for all.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    answer: Option<Distributed>,
    /// When the last question was asked.
    asked: Option<Instant>,
    /// Since when every question failed.
    failing_since: Option<Instant>,
    /// Whether that was told.
    told: bool,
}

impl std::fmt::Debug for DistributionBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DistributionBook").field("known", &self.known).finish_non_exhaustive()
    }
}

impl DistributionBook {
    /// Nothing is known yet.
    pub fn new(stream: Arc<dyn StreamReader>, clock: Clock) -> Self {
        Self { stream, clock, known: Mutex::default() }
    }

    /// Judges user records of which the last arrived at `arrived`; asks the stream if nothing newer is known. Takes at
    /// most about [`PATIENCE`]. *Cancelling it* is safe.
    pub async fn judged(&self, arrived: ArrivalMillis) -> Judgement {
        let began = self.clock.now();
        loop {
            let mut known = self.known.lock().await;
            // A question that was asked since counts for all who waited for it.
            let asked = known.asked.is_some_and(|asked| asked >= began);
            let now = self.clock.now();
            let since = known.failing_since.map_or(began, |since| since.min(began));
            let unanswered_for = asked.then(|| now.saturating_duration_since(since));
            if let Some(judgement) = judge(arrived, known.answer, unanswered_for) {
                known.conclude(judgement);
                return judgement;
            }
            if let Some(asked) = known.asked {
                self.clock.sleep_until(asked + EVERY).await;
            }
            self.ask(&mut known).await;
        }
    }

    async fn ask(&self, known: &mut Known) {
        let asked = self.clock.now();
        known.asked = Some(asked);
        let answer = tokio::select! { biased;
            answer = self.stream.distribution() => answer,
            () = self.clock.sleep(PATIENCE) => Err(StreamError::Unavailable { source: "there is no answer".into() }),
        };
        match answer {
            Ok(answer) => {
                known.failing_since = None;
                if known.answer.is_none_or(|before| before.as_of < answer.as_of) {
                    known.answer = Some(answer);
                }
            }
            Err(error) => {
                known.failing_since.get_or_insert(asked);
                let error = causes(&error);
                tracing::debug!(error, "the stream did not say how it distributes records");
            }
        }
    }
}

impl Known {
    fn conclude(&mut self, judgement: Judgement) {
        match judgement {
            Judgement::LeftOut | Judgement::Auto => self.told = false,
            Judgement::Unknown if !self.told => {
                self.told = true;
                tracing::warn!(
                    "DescribeStreamSummary did not say for {} s how the stream distributes records; user records outside their shard's hash keys are stored, and may be stored twice",
                    PATIENCE.as_secs()
                );
            }
            Judgement::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use sluicegate_checkpoint::ShardId;

    use super::*;
    use crate::stream::{ReadFrom, ShardCursor, ShardListing};

    fn said(by: Distribution, as_of: i64) -> Option<Distributed> {
        Some(Distributed { by, as_of: ArrivalMillis(as_of) })
    }

    #[test]
    fn only_an_answer_from_after_the_arrival_counts_and_without_one_nothing_is_left_out() {
        use Distribution::{Auto, UserPartitionKey};
        let at = ArrivalMillis(5_000);
        let long = Some(PATIENCE);
        assert_eq!(judge(at, said(UserPartitionKey, 5_001), None), Some(Judgement::LeftOut));
        assert_eq!(judge(at, said(Auto, 5_001), None), Some(Judgement::Auto));
        for old in [None, said(UserPartitionKey, 5_000), said(UserPartitionKey, 1), said(Auto, 4_999)] {
            assert_eq!(judge(at, old, None), None);
            assert_eq!(judge(at, old, Some(PATIENCE / 2)), None);
            assert_eq!(judge(at, old, long), Some(Judgement::Unknown));
        }
        assert_eq!(judge(at, said(UserPartitionKey, 5_001), long), Some(Judgement::LeftOut));
    }

    /// Answers as told, and counts the questions.
    struct Answers {
        clock: Clock,
        begun: Instant,
        fails: bool,
        asked: StdMutex<Vec<Duration>>,
    }

    impl Answers {
        fn new(fails: bool) -> Arc<Self> {
            let clock = Clock::new();
            Arc::new(Self { begun: clock.now(), clock, fails, asked: StdMutex::default() })
        }
    }

    #[async_trait::async_trait]
    impl StreamReader for Answers {
        async fn shards(&self) -> Result<ShardListing, StreamError> {
            std::future::pending().await
        }

        async fn distribution(&self) -> Result<Distributed, StreamError> {
            let now = self.clock.now() - self.begun;
            self.asked.lock().unwrap().push(now);
            self.clock.sleep(Duration::from_millis(50)).await;
            if self.fails {
                return Err(StreamError::Unavailable { source: "no answer".into() });
            }
            let as_of = ArrivalMillis(i64::try_from(now.as_millis()).unwrap());
            Ok(Distributed { by: Distribution::UserPartitionKey, as_of })
        }

        fn open(&self, _: &ShardId, _: ReadFrom) -> Box<dyn ShardCursor> {
            unreachable!("nothing is read here")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_shards_ask_once_and_an_answer_is_used_for_what_arrived_before_it() {
        let answers = Answers::new(false);
        let book = DistributionBook::new(answers.clone(), answers.clock.clone());
        answers.clock.sleep(Duration::from_secs(5)).await;
        let all = (0..100).map(|n| book.judged(ArrivalMillis(n * 10)));
        let judged = futures::future::join_all(all).await;
        assert!(judged.iter().all(|judgement| *judgement == Judgement::LeftOut));
        assert_eq!(answers.asked.lock().unwrap().len(), 1);
        assert_eq!(book.judged(ArrivalMillis(4_999)).await, Judgement::LeftOut);
        assert_eq!(answers.asked.lock().unwrap().len(), 1, "what is known is not asked again");
        // Newer ones need a newer answer, and not two within a second.
        assert_eq!(book.judged(ArrivalMillis(5_500)).await, Judgement::LeftOut);
        let asked = answers.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 2);
        assert!(asked[1] - asked[0] >= EVERY, "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_answers_records_are_kept_after_a_while_however_many_shards_wait() {
        let answers = Answers::new(true);
        let book = DistributionBook::new(answers.clone(), answers.clock.clone());
        let all = (0..100).map(|n| book.judged(ArrivalMillis(n)));
        let judged = futures::future::join_all(all).await;
        assert!(judged.iter().all(|judgement| *judgement == Judgement::Unknown));
        let took = answers.clock.now() - answers.begun;
        assert!(took >= PATIENCE && took <= PATIENCE + EVERY * 2, "{took:?}");
        // While that goes on, one question more is enough for each.
        let before = answers.clock.now();
        assert_eq!(book.judged(ArrivalMillis(1)).await, Judgement::Unknown);
        assert!(answers.clock.now() - before <= EVERY * 2);
    }
}
