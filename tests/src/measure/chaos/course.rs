//! Carries a script out: signals to processes, requests to the stream, faults at the backend.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sluicegate_lease::Shard;
use sluicegate_worker::StreamReader;
use sluicegate_worker::telemetry::wall_millis;
use tokio::time::Instant;

use super::script::{Act, Script, choose, troubles_at};
use super::trouble::documents;
use crate::harness::backend::STREAM;
use crate::harness::fleet::Worker;
use crate::harness::process::Signal;
use crate::harness::{Backend, Fleet, wait_for};

/// How long a worker may take to leave, and a reshard to be accepted: longer than any `drain_timeout` and outage.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at what is under way.
const LOOK: Duration = Duration::from_millis(100);

/// What was done to whom, for those who look at the consequences.
#[derive(Debug, Default)]
pub struct Done {
    /// Numbers of killed workers, and when they died, in epoch milliseconds.
    pub kills: Vec<(usize, i64)>,
    /// Numbers of frozen workers, and from when to when.
    pub freezes: Vec<(usize, i64, i64)>,
    /// Numbers of workers that did not reach DynamoDB, and from when to when.
    pub partitions: Vec<(usize, i64, i64)>,
    /// Workers that were told to leave.
    pub leaves: usize,
    /// Workers that came later than the first.
    pub joins: usize,
    /// Splits and merges.
    pub reshards: usize,
    /// Troubles, the outage among them.
    pub troubles: usize,
    /// When the outage of the table was, in epoch milliseconds.
    pub outage: Option<(i64, i64)>,
}

/// A script that is being carried out.
pub struct Course<'f, 'b> {
    fleet: &'f mut Fleet<'b>,
    backend: &'f Backend,
    seed: u64,
    /// Numbers of those that stand still, since when, and until when.
    frozen: Vec<(usize, i64, Instant)>,
    /// The same of those that do not reach DynamoDB.
    cut: Vec<(usize, i64, Instant)>,
    leaving: Vec<(Worker, Instant)>,
    done: Done,
}

impl<'f, 'b> Course<'f, 'b> {
    /// Nothing is done yet.
    pub fn new(fleet: &'f mut Fleet<'b>, backend: &'f Backend, seed: u64) -> Self {
        let (frozen, cut, leaving) = (Vec::new(), Vec::new(), Vec::new());
        Self { fleet, backend, seed, frozen, cut, leaving, done: Done::default() }
    }

    /// Carries the script out to its end, and waits until those that were told to leave have left; `say` is told of each
    /// act. Nobody is frozen then, and the backend behaves.
    ///
    /// # Errors
    /// A worker that had begun ended by itself, or not as it should when told to leave; a reshard is not accepted.
    pub async fn run(
        mut self,
        script: &Script,
        lasts: Duration,
        say: &impl Fn(&str),
    ) -> anyhow::Result<Done> {
        let begun = Instant::now();
        let mut active = Vec::new();
        let mut acts = script.0.iter().peekable();
        while begun.elapsed() < lasts || !self.leaving.is_empty() || acts.peek().is_some() {
            let now = begun.elapsed();
            self.look()?;
            let troubles = troubles_at(script, now);
            if troubles != active {
                self.install(&troubles).await?;
                active = troubles;
            }
            if let Some((at, act)) = acts.next_if(|(at, _)| *at <= now) {
                self.carry_out(*act, say).await.with_context(|| format!("{act:?} at {at:?}"))?;
                continue;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.install(&[]).await?;
        ensure!(self.frozen.is_empty() && self.cut.is_empty(), "somebody is still frozen or cut off");
        Ok(self.done)
    }

    async fn install(&mut self, troubles: &[super::trouble::Trouble]) -> anyhow::Result<()> {
        self.seed = self.seed.wrapping_add(1);
        let (faults, limits) = documents(troubles, self.seed >> 1);
        // It may be busy, and both can be said twice.
        for (path, document) in [("/faults", faults), ("/limits", limits)] {
            wait_for("the backend to be told", PATIENCE, async || {
                Ok(self.backend.set(path, &document).await.ok())
            })
            .await?;
        }
        Ok(())
    }

    /// Lets those go on whose time has come, and sees whether anybody has ended.
    fn look(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        for (number, since, until) in std::mem::take(&mut self.frozen) {
            if until <= now {
                self.fleet.signal(number, Signal::CONT)?;
                self.done.freezes.push((number, since, wall_millis().0));
            } else {
                self.frozen.push((number, since, until));
            }
        }
        for (number, since, until) in std::mem::take(&mut self.cut) {
            if until <= now {
                self.mend(number);
                self.done.partitions.push((number, since, wall_millis().0));
            } else {
                self.cut.push((number, since, until));
            }
        }
        nobody_ended(self.fleet)?;
        for (mut worker, since) in std::mem::take(&mut self.leaving) {
            match worker.has_ended()? {
                Some(status) => left(&worker, status)?,
                None if since.elapsed() > PATIENCE => {
                    bail!("worker {} does not leave: {}", worker.number(), worker.log()?)
                }
                None => self.leaving.push((worker, since)),
            }
        }
        Ok(())
    }

    /// A worker that leaves is cut off as well as one that stays.
    fn mend(&self, number: usize) {
        self.fleet.cut(number, false);
        for (worker, _) in self.leaving.iter().filter(|(worker, _)| worker.number() == number) {
            worker.cut(false);
        }
    }

    fn running(&self) -> Vec<usize> {
        let disturbed =
            |number: &usize| self.frozen.iter().chain(&self.cut).any(|(other, ..)| other == number);
        self.fleet.numbers().into_iter().filter(|number| !disturbed(number)).collect()
    }

    async fn carry_out(&mut self, act: Act, say: &impl Fn(&str)) -> anyhow::Result<()> {
        let running = self.running();
        let chosen = |number: u32| choose(&running, number).copied().context("no worker runs");
        match act {
            Act::Kill(number) => {
                let victim = chosen(number)?;
                self.done.kills.push((victim, wall_millis().0));
                self.fleet.kill(victim).await?;
                say(&format!("worker {victim} is killed"));
            }
            Act::Freeze(number, lasts) => {
                let victim = chosen(number)?;
                self.fleet.signal(victim, Signal::STOP)?;
                self.frozen.push((victim, wall_millis().0, Instant::now() + lasts));
                say(&format!("worker {victim} stands still for {lasts:.1?}"));
            }
            Act::Partition(number, lasts) => {
                let victim = chosen(number)?;
                self.fleet.cut(victim, true);
                self.cut.push((victim, wall_millis().0, Instant::now() + lasts));
                say(&format!("worker {victim} does not reach DynamoDB for {lasts:.1?}"));
            }
            Act::Leave(number) => {
                let victim = chosen(number)?;
                let worker = self.fleet.part(victim)?;
                worker.signal(Signal::TERM)?;
                self.leaving.push((worker, Instant::now()));
                self.done.leaves += 1;
                say(&format!("worker {victim} is told to leave"));
            }
            Act::Join => {
                self.fleet.start(&[])?;
                self.done.joins += 1;
                say(&format!("worker {} starts", self.fleet.started()));
            }
            Act::Split(number) | Act::Merge(number) => {
                let told = reshard(self.backend, matches!(act, Act::Split(_)), number).await?;
                self.done.reshards += 1;
                say(&told);
            }
            Act::Trouble(trouble, lasts) => {
                self.done.troubles += 1;
                if matches!(trouble, super::trouble::Trouble::Outage { .. }) {
                    let now = wall_millis().0;
                    self.done.outage = Some((now, now + i64::try_from(lasts.as_millis())?));
                }
                say(&format!("{trouble:?} for {lasts:.1?}"));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Course<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Course").field("done", &self.done).finish_non_exhaustive()
    }
}

/// Workers end when they are told to, and never by themselves: one whose tables do not answer when it starts waits for them.
///
/// # Errors
/// One has.
pub fn nobody_ended(fleet: &mut Fleet<'_>) -> anyhow::Result<()> {
    let Some(index) = fleet.ended()? else { return Ok(()) };
    let worker = fleet.worker(index);
    bail!("worker {} ended by itself: {}", worker.number(), worker.log()?)
}

fn has_begun(worker: &Worker) -> anyhow::Result<bool> {
    Ok(worker.log()?.contains("\"message\":\"worker starts\""))
}

fn left(worker: &Worker, status: ExitStatus) -> anyhow::Result<()> {
    if !has_begun(worker)? {
        return Ok(());
    }
    ensure!(status.success(), "worker {} did not drain ({status}): {}", worker.number(), worker.log()?);
    Ok(())
}

/// The shards of the stream, however often that must be asked.
///
/// # Errors
/// They are not told.
pub async fn shards(backend: &Backend) -> anyhow::Result<Vec<Shard>> {
    let stream = backend.stream(STREAM);
    let listed = wait_for("the stream's shards", PATIENCE, async || Ok(stream.shards().await.ok())).await?;
    Ok(listed.shards)
}

async fn open(backend: &Backend) -> anyhow::Result<Vec<Shard>> {
    let mut shards = shards(backend).await?;
    shards.retain(|shard| !shard.closed);
    shards.sort_by_key(|shard| shard.hash_range.start);
    Ok(shards)
}

/// Splits an open shard, or merges it with its neighbour. A request that fails may have been carried out: the shards tell.
async fn reshard(backend: &Backend, split: bool, number: u32) -> anyhow::Result<String> {
    let open = open(backend).await?;
    let (shard, neighbour) = if split {
        (choose(&open, number).context("no shard")?, None)
    } else {
        let left = choose(&open[..open.len() - 1], number).context("one shard")?;
        let at = open.iter().position(|shard| shard.id == left.id).context("no shard")?;
        (left, open.get(at + 1))
    };
    let kinesis = backend.kinesis();
    wait_for("a reshard", PATIENCE, async || {
        match neighbour {
            None => {
                let range = shard.hash_range;
                let middle = range.start + (range.end - range.start) / 2 + 1;
                let split = kinesis.split_shard().stream_name(STREAM).shard_to_split(shard.id.as_str());
                drop(split.new_starting_hash_key(middle.to_string()).send().await);
            }
            Some(right) => {
                let merge = kinesis.merge_shards().stream_name(STREAM).shard_to_merge(shard.id.as_str());
                drop(merge.adjacent_shard_to_merge(right.id.as_str()).send().await);
            }
        }
        let closed = |listed: &Shard| listed.id == shard.id && listed.closed;
        Ok(shards(backend).await?.iter().any(closed).then_some(()))
    })
    .await?;
    Ok(match neighbour {
        None => format!("{} is split", shard.id),
        Some(right) => format!("{} and {} are merged", shard.id, right.id),
    })
}
