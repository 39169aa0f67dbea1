//! One budget of bytes per worker, from fetch to durable: when it is spent, reading stops and records wait in
//! Kinesis, which is what it is for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The budget that all shards of a worker share.
#[derive(Debug)]
pub struct ByteBudget {
    total: usize,
    used: AtomicUsize,
    freed: Notify,
    /// How many wait for room: whoever comes now comes after them.
    waiting: AtomicUsize,
    /// Held by the one session that may exceed the budget.
    overdraw: Arc<Semaphore>,
}

impl ByteBudget {
    /// A budget of so many bytes.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            used: AtomicUsize::new(0),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            overdraw: Arc::new(Semaphore::new(1)),
        })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// An account that holds nothing yet.
    pub fn account(self: &Arc<Self>) -> Account {
        Account { budget: Arc::clone(self), held: 0 }
    }
}

/// One that waits for room, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The permission to exceed the budget.
#[derive(Debug)]
pub struct Overdraw(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// What one shard holds of the budget; dropping it gives everything back.
#[derive(Debug)]
pub struct Account {
    budget: Arc<ByteBudget>,
    held: usize,
}

impl Account {
    /// Waits until `bytes` more fit and holds them. A request that exceeds what is left is granted when nothing
    /// else is held, so that a single page larger than the budget cannot stop a worker for ever.
    ///
    /// *Cancelling it* is safe: nothing is held then.
    pub async fn grow(&mut self, bytes: usize) {
        let budget = Arc::clone(&self.budget);
        let _waiting = Waiting::new(&budget.waiting);
        loop {
            let freed = budget.freed.notified();
            if self.take(bytes) {
                return;
            }
            freed.await;
        }
    }

    /// Holds `bytes` more if they fit now and nobody waits for room. A shard that frees its page and reads on at once
    /// would otherwise starve the ones that wait, for ever.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        self.budget.waiting.load(Ordering::Acquire) == 0 && self.take(bytes)
    }

    fn take(&mut self, bytes: usize) -> bool {
        let grown = self.budget.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            (used == 0 || used + bytes <= self.budget.total).then_some(used + bytes)
        });
        if grown.is_ok() {
            self.held += bytes;
        }
        grown.is_ok()
    }

    /// Like [`Account::grow`] for a session that reads announced batches again, half of which frees nothing: one
    /// such session at a time may exceed the budget, or several that wait for each other would wait for ever.
    /// Returns the permission, to be kept until its batch is complete, if that is how it was granted.
    ///
    /// *Cancelling it* is safe.
    pub async fn grow_or_overdraw(&mut self, bytes: usize) -> Option<Overdraw> {
        let overdraw = Arc::clone(&self.budget.overdraw).acquire_owned();
        let granted = tokio::select! { biased;
            () = self.grow(bytes) => return None,
            permit = overdraw => permit.ok().map(Overdraw),
        };
        self.settle(self.held + bytes);
        granted
    }

    /// Holds exactly `bytes` from now on. Holding more than was granted does not wait: the bytes are there already.
    pub fn settle(&mut self, bytes: usize) {
        if bytes >= self.held {
            self.budget.used.fetch_add(bytes - self.held, Ordering::AcqRel);
        } else {
            self.budget.used.fetch_sub(self.held - bytes, Ordering::AcqRel);
            self.budget.freed.notify_waiters();
        }
        self.held = bytes;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_waits_until_something_is_given_back() {
        let budget = ByteBudget::new(100);
        let (mut a, mut b) = (budget.account(), budget.account());
        a.grow(80).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), b.grow(30)).await.is_err());
        assert_eq!(budget.used(), 80, "a cancelled wait holds nothing");
        let (waited, ()) = tokio::join!(b.grow(30), async { a.settle(70) });
        let () = waited;
        assert_eq!(budget.used(), 100);
        drop(b);
        assert_eq!(budget.used(), 70);
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_at_a_time_may_exceed_the_budget_to_finish_what_was_announced() {
        let budget = ByteBudget::new(100);
        let (mut a, mut b) = (budget.account(), budget.account());
        a.grow(90).await;
        let granted = a.grow_or_overdraw(50).await;
        assert!(granted.is_some() && budget.used() == 140);
        assert!(tokio::time::timeout(Duration::from_secs(1), b.grow_or_overdraw(50)).await.is_err());
        drop(granted);
        assert!(b.grow_or_overdraw(50).await.is_some());
        a.settle(0);
        assert!(a.grow_or_overdraw(10).await.is_none(), "what fits needs no permission");
    }

    #[tokio::test]
    async fn one_page_larger_than_the_budget_still_goes_through() {
        let budget = ByteBudget::new(10);
        let mut account = budget.account();
        account.grow(50).await;
        account.settle(60);
        assert_eq!(budget.used(), 60);
    }

    #[tokio::test]
    async fn who_reads_on_at_once_comes_after_who_waits() {
        let budget = ByteBudget::new(100);
        let (mut a, mut b) = (budget.account(), budget.account());
        assert!(a.try_grow(100));
        let mut waiting = growing(&mut b);
        assert!(futures::poll!(&mut waiting).is_pending());
        a.settle(0);
        assert!(!a.try_grow(100), "the other one came first");
        waiting.await;
        assert_eq!(budget.used(), 100);
    }

    fn growing(account: &mut Account) -> futures::future::BoxFuture<'_, ()> {
        Box::pin(account.grow(100))
    }
}
