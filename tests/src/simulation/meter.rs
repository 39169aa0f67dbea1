//! What is recorded of writing: what waits at each worker, what the table took and refused, and which shares of the write
//! budget were in use. The judges are [`rates`](super::rates) and [`shares`](super::shares).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_checkpoint::{Batch, Record, Right};
use sluicegate_lease::WorkerId;
use sluicegate_sink::governor::units_of;
use sluicegate_sink::item::{Item, ItemKey};
use sluicegate_sink::{DeliverError, Delivered, Sink};

use super::capacity::{Limited, Over};
use super::link::Link;
use super::rates::{Course, STEP, Seen, Step, Wait};
use super::referee::CutName;
use super::script::{Rates, Script};
use super::shares::Shares;
use super::stream::SimStream;
use super::world::Inner;

/// A batch that is being delivered.
#[derive(Debug)]
struct Delivery {
    worker: WorkerId,
    begun: Duration,
    /// What is not durable: units, and whether it lies in the range that gives less.
    left: BTreeMap<ItemKey, (f64, bool)>,
}

/// Everything that was recorded so far.
#[derive(Debug, Default)]
pub struct Meter {
    /// What the table gives, if it is limited.
    pub table: Option<Limited>,
    /// What the fleet may write, if it has a budget.
    pub budget: Option<f64>,
    /// For the judges.
    pub course: Course,
    /// Shares in use.
    pub shares: Shares,
    deliveries: BTreeMap<u64, Delivery>,
    begun: u64,
    /// Taken and refused since the last step.
    counts: BTreeMap<WorkerId, Seen>,
    /// Until when what was last done to the fleet lasts.
    disturbed_until: Duration,
}

impl Meter {
    /// At the beginning of a script.
    #[expect(clippy::cast_precision_loss, reason = "budgets are small")]
    pub fn of(script: &Script) -> Self {
        Self {
            table: script.capacity.map(Limited::new),
            budget: script.budget.map(|budget| budget as f64),
            ..Self::default()
        }
    }

    /// Whether there is anything to record.
    pub fn is_on(&self) -> bool {
        self.table.is_some() || self.budget.is_some()
    }

    /// Something is done to the fleet, and lasts until then.
    pub fn disturb(&mut self, until: Duration) {
        self.disturbed_until = self.disturbed_until.max(until);
    }

    /// Whether the table has room for an item; takes what it costs, and returns that.
    ///
    /// # Errors
    /// What has nothing left.
    pub fn admit(&mut self, worker: &WorkerId, item: &Item, now: Duration) -> Result<f64, Over> {
        let units = units_of(item.bytes());
        let Some(table) = &mut self.table else { return Ok(units) };
        let cost = table.cost(units);
        let taken = table.take(&item.header.key().pk, cost, now);
        self.count(worker, cost, taken.is_ok());
        taken.map(|()| cost)
    }

    /// The table took or refused so many units.
    pub fn count(&mut self, worker: &WorkerId, units: f64, taken: bool) {
        let counts = self.counts.entry(worker.clone()).or_default();
        *(if taken { &mut counts.taken } else { &mut counts.refused }) += units;
        self.course.largest = self.course.largest.max(units);
    }

    /// An item that this worker wrote is durable.
    pub fn stored(&mut self, worker: &WorkerId, key: &ItemKey, now: Duration) {
        for delivery in self.deliveries.values_mut().filter(|delivery| delivery.worker == *worker) {
            if let Some((_, false)) = delivery.left.remove(key)
                && self.table.as_ref().is_some_and(Limited::has_hot_range)
            {
                self.course.waits.push(delivery.waited(now, self.disturbed_until));
            }
        }
    }

    /// Ends a delivery, whatever came of it.
    fn ends(&mut self, number: u64, now: Duration) {
        let Some(delivery) = self.deliveries.remove(&number) else { return };
        let left = delivery.left.values().any(|(_, hot)| !hot);
        if left && self.table.as_ref().is_some_and(Limited::has_hot_range) {
            self.course.waits.push(delivery.waited(now, self.disturbed_until));
        }
    }

    /// Closes a step.
    fn step(&mut self, alive: &[WorkerId], quiet: bool, now: Duration) {
        let Some(table) = &self.table else { return };
        let gives = self.budget.unwrap_or(f64::INFINITY).min(table.gives());
        let counts = std::mem::take(&mut self.counts);
        let seen = |worker: &WorkerId| {
            let of_worker = self.deliveries.values().filter(|delivery| delivery.worker == *worker);
            let left = of_worker.flat_map(|delivery| delivery.left.values());
            let waiting = left.filter(|(_, hot)| !hot).map(|(units, _)| units).sum();
            (worker.clone(), Seen { waiting, ..counts.get(worker).copied().unwrap_or_default() })
        };
        let workers = alive.iter().map(seen).collect();
        self.course.steps.push(Step { at: now, gives, quiet, workers });
    }
}

impl Delivery {
    fn waited(&self, until: Duration, quiet_since: Duration) -> Wait {
        Wait { worker: self.worker.clone(), begun: self.begun, until, quiet_since }
    }
}

impl Inner {
    /// Closes a step of the recording, and looks at the shares in use (F1).
    pub fn meter_step(&mut self, alive: &[WorkerId], now: Duration) {
        if self.rates != Rates::default() || now < self.sink_out_until {
            self.meter.disturb(now);
        }
        let quiet = now >= self.meter.disturbed_until + STEP;
        self.meter.step(alive, quiet, now);
        let Some(budget) = self.meter.budget else { return };
        let rows = self.workers.keys();
        let shown = rows.map(|worker| (worker.clone(), self.referee.lifecycle.share(worker))).collect();
        if let Some(sum) = self.meter.shares.overdrawn(&shown, budget, now) {
            let why = format!("shares of {sum} units a second are in use at {now:?}, of {budget}: {shown:?}");
            self.referee.broke("F1", why);
        }
    }

    fn delivery_begins(&mut self, worker: &WorkerId, name: &CutName, now: Duration) -> u64 {
        let table = self.meter.table.as_ref();
        let left = self.referee.announced_items(name).map(|(key, item)| {
            let units = Item::from_attributes(item).map_or(1.0, |item| units_of(item.bytes()));
            let cost = table.map_or(units, |table| table.cost(units));
            (key.clone(), (cost, table.is_some_and(|table| table.is_hot(&key.pk))))
        });
        let delivery = Delivery { worker: worker.clone(), begun: now, left: left.collect() };
        self.meter.begun += 1;
        self.meter.deliveries.insert(self.meter.begun, delivery);
        self.meter.begun
    }
}

/// Records deliveries.
pub struct MeteredSink {
    /// The sink of the worker.
    pub inner: Arc<dyn Sink>,
    /// Whose.
    pub link: Arc<Link>,
}

/// A delivery that is recorded. Dropping it is its end.
struct Recorded<'a> {
    link: &'a Link,
    number: u64,
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        let now = self.link.world.now();
        self.link.world.with(|world| world.meter.ends(self.number, now));
    }
}

/// K2, judged by what the stream knows of itself: what of a delivered batch came to an outcome that it must not come to.
fn outcome_without_reason(stream: &SimStream, batch: &Batch, delivered: &Delivered) -> Option<String> {
    if batch.cut.dropped {
        return None;
    }
    let range = stream.shards().get(&batch.id.shard)?.listed.hash_range;
    let elsewhere = |record: &&Record| {
        record.hash_key().is_some_and(|at| at.sent_again && (at.key < range.start || at.key > range.end))
    };
    let may_be_foreign: Vec<&Record> = batch.records.iter().filter(elsewhere).collect();
    let leaves_out = batch.cut.parameters.hash_range.is_some();
    if leaves_out && let Some(record) = may_be_foreign.iter().find(|one| stream.was_auto_since(one.arrival()))
    {
        let number = record.sequence_number();
        return Some(format!(
            "{number} is left out, and the stream has never gone by hash keys since it came"
        ));
    }
    let foreign = if leaves_out { u64::try_from(may_be_foreign.len()).unwrap_or(u64::MAX) } else { 0 };
    if delivered.foreign != foreign {
        return Some(format!("{foreign} events are foreign, and {} are counted as that", delivered.foreign));
    }
    let excluded = u64::try_from(batch.excluded().count()).unwrap_or(u64::MAX);
    let outcomes = delivered.events + delivered.filtered + foreign + excluded;
    let records = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
    (outcomes != records).then(|| format!("of {records} events {outcomes} came to an outcome"))
}

#[async_trait]
impl Sink for MeteredSink {
    async fn deliver(&self, batch: Arc<Batch>, right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        let Link { world, worker, .. } = &*self.link;
        let name = (batch.id.shard.clone(), batch.id.epoch, batch.id.first.clone(), batch.cut.revision);
        let now = world.now();
        let number = world.with(|world| world.delivery_begins(worker, &name, now));
        let _recorded = Recorded { link: &self.link, number };
        let delivered = self.inner.deliver(Arc::clone(&batch), right).await;
        if let Ok(delivered) = &delivered {
            world.with(|world| {
                if let Some(why) = outcome_without_reason(&world.stream, &batch, delivered) {
                    world.referee.broke("K2", format!("{worker}: {:?}: {why}", batch.id));
                }
            });
        }
        delivered
    }

    fn packing_versions(&self) -> &[u32] {
        self.inner.packing_versions()
    }
}
