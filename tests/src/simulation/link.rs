//! One worker's way to the services: latency, and the faults that a message can meet.
//!
//! A write that is on its way lands even if its worker is gone by then; a caller that hears nothing for a second
//! gives up without knowing whether it was applied. While the process stands still nothing of it goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use sluicegate_lease::{Clock, WorkerId};
use tokio::sync::oneshot;

use super::script::Service;
use super::world::{Inner, World};

/// How long a caller waits for an answer.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The time-out passed: applied, lost or still on its way.
    #[error("simulated: no answer in time")]
    Unknown,
    /// Refused for now.
    #[error("simulated: throttled")]
    Throttled,
    /// The service failed: applied or not.
    #[error("simulated: the service failed")]
    Failed,
}

/// A worker's connection to the world.
#[derive(Debug)]
pub struct Link {
    /// The world.
    pub world: Arc<World>,
    /// Whose connection.
    pub worker: WorkerId,
    /// The worker's clock.
    pub clock: Clock,
    cut_off: Mutex<BTreeMap<Service, Duration>>,
}

/// What becomes of one message.
enum Fate {
    Arrives { there: Duration, back: Duration },
    RequestLost,
    AnswerLost { there: Duration },
    Late { there: Duration },
    Throttled { there: Duration },
    Failed { there: Duration, applied: bool },
}

impl Link {
    /// A connection on which everything arrives that the world lets pass.
    pub fn new(world: Arc<World>, worker: WorkerId, clock: Clock) -> Arc<Self> {
        Arc::new(Self { world, worker, clock, cut_off: Mutex::default() })
    }

    /// Nothing reaches these services until then.
    pub fn cut_off(&self, services: &[Service], until: Duration) {
        let mut cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        cut_off.extend(services.iter().map(|service| (*service, until)));
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Sends a write, which lands whatever becomes of the caller.
    ///
    /// # Errors
    /// See [`Lost`].
    pub async fn write<T: Send + 'static>(
        &self,
        service: Service,
        act: impl FnOnce(&mut Inner, Duration) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        self.clock.wake().await;
        let outcome = match self.fate(service) {
            Fate::RequestLost => no_answer().await,
            Fate::Throttled { there } => {
                tokio::time::sleep(there).await;
                Err(Lost::Throttled)
            }
            Fate::AnswerLost { there } | Fate::Late { there } => {
                drop(self.send(there, act));
                no_answer().await
            }
            Fate::Failed { there, applied } => {
                if applied {
                    drop(self.send(there, act).await);
                } else {
                    tokio::time::sleep(there).await;
                }
                Err(Lost::Failed)
            }
            Fate::Arrives { there, back } => {
                let answer = self.send(there, act).await;
                tokio::time::sleep(back).await;
                answer.map_err(|_never| Lost::Unknown)
            }
        };
        self.clock.wake().await;
        outcome
    }

    /// Sends a read.
    ///
    /// # Errors
    /// See [`Lost`].
    pub async fn read<T>(
        &self,
        service: Service,
        act: impl FnOnce(&mut Inner, Duration) -> T,
    ) -> Result<T, Lost> {
        self.clock.wake().await;
        let outcome = match self.fate(service) {
            Fate::RequestLost | Fate::AnswerLost { .. } | Fate::Late { .. } => no_answer().await,
            Fate::Throttled { there } => {
                tokio::time::sleep(there).await;
                Err(Lost::Throttled)
            }
            Fate::Failed { there, .. } => {
                tokio::time::sleep(there).await;
                Err(Lost::Failed)
            }
            Fate::Arrives { there, back } => {
                tokio::time::sleep(there).await;
                let now = self.world.now();
                let answer = self.world.with(|world| act(world, now));
                tokio::time::sleep(back).await;
                Ok(answer)
            }
        };
        self.clock.wake().await;
        outcome
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a message on its way belongs to the network, not to its sender"
    )]
    fn send<T: Send + 'static>(
        &self,
        there: Duration,
        act: impl FnOnce(&mut Inner, Duration) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        let world = Arc::clone(&self.world);
        drop(tokio::spawn(async move {
            tokio::time::sleep(there).await;
            let now = world.now();
            let done = world.with(|world| act(world, now));
            // Nobody may be waiting any more.
            drop(answer.send(done));
        }));
        answered
    }

    fn fate(&self, service: Service) -> Fate {
        let now = self.world.now();
        let cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).get(&service).copied();
        self.world.with(|world| {
            if cut_off.is_some_and(|until| now < until) {
                world.fault("partition");
                return Fate::RequestLost;
            }
            let most = u64::try_from(world.latency.as_millis()).unwrap_or(u64::MAX).max(1);
            let mut way = || Duration::from_millis(world.rng.random_range(0..=most));
            let (there, back) = (way(), way());
            let rates = world.rates;
            let mut dice = world.rng.random_range(0..1_000u32);
            let mut hit = |rate: u32| {
                let hit = dice < rate;
                dice = dice.saturating_sub(rate);
                hit
            };
            if hit(rates.request_lost) {
                world.fault("request lost");
                Fate::RequestLost
            } else if hit(rates.answer_lost) {
                world.fault("answer lost");
                Fate::AnswerLost { there }
            } else if hit(rates.late) {
                world.fault("late request");
                Fate::Late { there: TIMEOUT + Duration::from_millis(world.rng.random_range(0..8_000)) }
            } else if hit(rates.throttled) {
                world.fault("throttled");
                Fate::Throttled { there }
            } else if hit(rates.failed) {
                world.fault("service failure");
                Fate::Failed { there, applied: world.rng.random_bool(0.5) }
            } else {
                Fate::Arrives { there, back }
            }
        })
    }
}

async fn no_answer<T>() -> Result<T, Lost> {
    tokio::time::sleep(TIMEOUT).await;
    Err(Lost::Unknown)
}
