//! One budget of bytes per worker, from fetch to durable: when it is spent, reading stops and records wait in
//! Kinesis, which is what it is for.
//!
//! Who waits is served in the order of waiting. A shard that is read again and again gives its page back and wants the
//! next one in the same breath; if it got it, a shard that waits would never be read.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What a process takes before it has read anything, and for its requests: clients, TLS, the runtime, four requests to the
/// table of 2 MiB of items each, which take 5 MiB encoded.
const PROCESS_BYTES: u64 = 64 << 20;
/// What a shard takes beside its records: a session's tasks and buffers, part of the answer that is being read.
const SHARD_BYTES: u64 = 64 << 10;

/// Most memory, in bytes, that a worker with so many shards keeps resident: the number for a container's limit, with a tenth
/// to spare. `buffer_bytes` counts records from fetch to durable; what does not compress is there once more as packed items
/// until they are durable, and the allocator keeps a quarter of both (docs/batching.md has what was measured).
pub fn resident_bytes(buffer_bytes: usize, shards: usize) -> u64 {
    let wide = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    let buffered = wide(buffer_bytes).saturating_mul(5) / 2;
    PROCESS_BYTES.saturating_add(buffered).saturating_add(SHARD_BYTES.saturating_mul(wide(shards)))
}

/// The budget that all shards of a worker share.
#[derive(Debug)]
pub struct ByteBudget {
    total: usize,
    taken: Mutex<Taken>,
    /// Held by the one session that may exceed the budget.
    overdraw: Arc<Semaphore>,
}

/// When one that waits is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// What it holds is only given back once it got more: it comes before those that hold nothing.
    holds: Reverse<bool>,
    number: u64,
}

/// What is used, and who waits.
#[derive(Debug, Default)]
struct Taken {
    used: usize,
    /// Of these, what those hold who wait: it is given back only after more was granted to them.
    parked: usize,
    /// Those that wait: who holds something comes first, then who has waited longest. The first is the only one that is told
    /// of room.
    waiting: BTreeMap<Turn, Arc<Notify>>,
    next: u64,
}

impl Taken {
    fn tell_first(&self) {
        if let Some((_number, first)) = self.waiting.first_key_value() {
            first.notify_one();
        }
    }
}

impl ByteBudget {
    /// A budget of so many bytes.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, taken: Mutex::default(), overdraw: Arc::new(Semaphore::new(1)) })
    }

    /// Bytes that the budget allows.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.taken().used
    }

    /// Bytes that are left.
    pub fn free(&self) -> usize {
        self.total.saturating_sub(self.used())
    }

    /// An account that holds nothing yet.
    pub fn account(self: &Arc<Self>) -> Account {
        Account { budget: Arc::clone(self), held: 0 }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(&self, taken: &Taken, bytes: usize) -> bool {
        taken.used == 0 || taken.used + bytes <= self.total
    }

    /// Joins the queue, holding so much.
    fn wait(&self, parked: usize) -> Waiting<'_> {
        let mut taken = self.taken();
        let freed = Arc::default();
        let turn = Turn { holds: Reverse(parked > 0), number: taken.next };
        taken.next += 1;
        taken.waiting.insert(turn, Arc::clone(&freed));
        taken.parked += parked;
        taken.tell_first();
        Waiting { budget: self, turn, freed, parked }
    }
}

/// A place in the queue; dropping it leaves it.
#[derive(Debug)]
struct Waiting<'a> {
    budget: &'a ByteBudget,
    turn: Turn,
    freed: Arc<Notify>,
    parked: usize,
}

impl Waiting<'_> {
    /// Takes the bytes if they fit and nobody has waited longer.
    fn take(&self, bytes: usize) -> bool {
        let mut taken = self.budget.taken();
        let stuck = self.parked > 0 && taken.used == taken.parked;
        let granted =
            taken.waiting.keys().next() == Some(&self.turn) && (stuck || self.budget.fits(&taken, bytes));
        if granted {
            taken.used += bytes;
        }
        granted
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut taken = self.budget.taken();
        taken.waiting.remove(&self.turn);
        taken.parked -= self.parked;
        taken.tell_first();
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
    /// Bytes that the budget has left.
    pub fn free(&self) -> usize {
        self.budget.free()
    }

    /// Another account of the same budget, that holds nothing yet.
    pub fn another(&self) -> Self {
        self.budget.account()
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Waits until `bytes` more fit and holds them, after those that have waited longer; whoever holds something already comes
    /// before those that hold nothing. A request that exceeds what is left is granted when nothing else is held, so that a page
    /// larger than the budget cannot stop a worker for ever; to one that holds something, when nothing is held but by such as
    /// wait, so that neither can many that each wait with half of what they need.
    ///
    /// *Cancelling it* is safe: nothing is held then.
    pub async fn grow(&mut self, bytes: usize) {
        let budget = Arc::clone(&self.budget);
        let waiting = budget.wait(self.held);
        loop {
            if waiting.take(bytes) {
                self.held += bytes;
                return;
            }
            waiting.freed.notified().await;
        }
    }

    /// Holds `bytes` more if they fit now and nobody waits who comes before.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let mut taken = self.budget.taken();
        let first = taken.waiting.keys().next();
        let nobody = first.is_none_or(|turn| self.held > 0 && !turn.holds.0);
        let granted = nobody && self.budget.fits(&taken, bytes);
        if granted {
            taken.used += bytes;
            self.held += bytes;
        }
        granted
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
        let mut taken = self.budget.taken();
        taken.used = taken.used + bytes - self.held;
        if bytes < self.held {
            taken.tell_first();
        }
        drop(taken);
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

    #[test]
    fn a_worker_keeps_two_and_a_half_times_its_buffer_and_a_little_for_each_shard() {
        let mib = |bytes: u64| bytes >> 20;
        assert_eq!((mib(resident_bytes(128 << 20, 0)), mib(resident_bytes(64 << 20, 128))), (384, 232));
        assert_eq!(resident_bytes(usize::MAX, usize::MAX), u64::MAX);
    }

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
    async fn who_reads_again_and_again_waits_for_whoever_waited_before() {
        let budget = ByteBudget::new(100);
        let (mut busy, mut waits) = (budget.account(), budget.account());
        assert!(busy.try_grow(60));
        let polling = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                busy.settle(0);
                if !busy.try_grow(60) {
                    return busy.grow(60).await;
                }
            }
        };
        let waiting = async {
            waits.grow(60).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            waits.settle(0);
        };
        let begun = tokio::time::Instant::now();
        tokio::join!(waiting, polling);
        assert_eq!(begun.elapsed(), Duration::from_secs(2), "one turn each");
        assert_eq!(budget.used(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_stands_in_nobody_s_way() {
        let budget = ByteBudget::new(100);
        let (mut a, mut large, mut small) = (budget.account(), budget.account(), budget.account());
        a.grow(60).await;
        let gave_up = tokio::time::timeout(Duration::from_secs(1), large.grow(90));
        let (gave_up, ()) = tokio::join!(gave_up, small.grow(30));
        assert!(gave_up.is_err());
        assert_eq!(budget.used(), 90);
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_at_a_time_may_exceed_the_budget_to_finish_what_was_announced() {
        let budget = ByteBudget::new(100);
        let (mut records, mut a, mut b) = (budget.account(), budget.account(), budget.account());
        records.grow(90).await;
        let granted = a.grow_or_overdraw(50).await;
        assert!(granted.is_some() && budget.used() == 140);
        assert!(tokio::time::timeout(Duration::from_secs(1), b.grow_or_overdraw(50)).await.is_err());
        drop(granted);
        assert!(b.grow_or_overdraw(50).await.is_some());
        records.settle(0);
        a.settle(0);
        assert!(a.grow_or_overdraw(10).await.is_none(), "what fits needs no permission");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_hold_something_and_all_wait_for_more_go_on_one_after_the_other() {
        let budget = ByteBudget::new(100);
        let (mut a, mut b) = (budget.account(), budget.account());
        assert!(a.try_grow(50) && b.try_grow(50));
        let second = async {
            b.grow(40).await;
            assert!(budget.used() <= 140, "one at a time is beyond the budget");
            b.settle(0);
        };
        let first = async {
            a.grow(40).await;
            assert_eq!(budget.used(), 140);
            tokio::time::sleep(Duration::from_secs(1)).await;
            a.settle(0);
        };
        tokio::join!(first, second);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_something_comes_first_and_nobody_else_is_let_in_for_it() {
        let budget = ByteBudget::new(100);
        let (mut holds, mut records, mut new) = (budget.account(), budget.account(), budget.account());
        assert!(holds.try_grow(60) && records.try_grow(40));
        let order = std::cell::RefCell::new(Vec::new());
        let newcomer = async {
            new.grow(60).await;
            order.borrow_mut().push("new");
        };
        let holder = async {
            holds.grow(30).await;
            order.borrow_mut().push("holds");
            assert_eq!(budget.used(), 90, "only the records were given back");
            tokio::time::sleep(Duration::from_secs(1)).await;
            holds.settle(0);
        };
        let give_back = async { records.settle(0) };
        tokio::join!(newcomer, holder, give_back);
        assert_eq!(*order.borrow(), ["holds", "new"]);
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
