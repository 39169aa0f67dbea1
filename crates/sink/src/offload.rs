//! The Offload port: where processor-heavy work (packing) runs, so that it never delays a heartbeat or a
//! read.

use std::sync::Arc;

use async_trait::async_trait;

/// A piece of pure work.
pub type Work = Box<dyn FnOnce() + Send>;

/// Runs pure work off the event loop: a blocking pool in production, inline in simulation.
#[async_trait]
pub trait Offload: Send + Sync + 'static {
    /// Runs the work and returns when it is done.
    ///
    /// *Cancelling it*: the work may still run to its end; its result is dropped.
    async fn run(&self, work: Work);
}

/// Runs the work where it stands: for simulation and small tools.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inline;

#[async_trait]
impl Offload for Inline {
    async fn run(&self, work: Work) {
        work();
    }
}

/// Runs work that gives a value. `None` means that the pool dropped it (it panicked, or the process is
/// ending).
pub async fn offload<T: Send + 'static>(
    pool: &Arc<dyn Offload>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    pool.run(Box::new(move || drop(done.send(work())))).await;
    result.await.ok()
}
