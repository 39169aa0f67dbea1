//! Packing on tokio's blocking pool: never on the threads that read, announce and serve.

use async_trait::async_trait;
use sluicegate_sink::Offload;
use sluicegate_sink::offload::Work;
use tokio::sync::Semaphore;

/// The blocking pool, with a bound on pieces of work at a time: each holds a batch and its compressed form.
#[derive(Debug)]
pub struct BlockingPool {
    slots: Semaphore,
}

impl BlockingPool {
    /// So many pieces of work at a time.
    pub fn new(slots: usize) -> Self {
        Self { slots: Semaphore::new(slots.max(1)) }
    }
}

#[async_trait]
impl Offload for BlockingPool {
    #[expect(clippy::disallowed_methods, reason = "this is the blocking pool that the lint sends others to")]
    async fn run(&self, work: Work) {
        let Ok(_slot) = self.slots.acquire().await else { return };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error, "a piece of packing work failed");
        }
    }
}
