//! Chaos with real processes: a seeded script kills, freezes, cuts off and dismisses workers, reshards the stream and has the
//! backend misbehave, while producers go on. In the end what the backend's own journal says was published must be what is stored, byte
//! for byte, and the recorded writes must keep the laws.
//!
//! ```text
//! script, trouble   seed -> what is done when; how the backend is told       pure
//! producer          events that are known by their number
//! prometheus        a real one that scrapes the fleet, if there is one: the alerts that fire
//! course, scrape    carries it out; asks the workers meanwhile
//! history           the journal, read
//! laws, gaps        what the recorded writes break; how long shards stood    pure
//! report            one JSON object, and evidence
//! ```

pub mod course;
pub mod gaps;
pub mod history;
pub mod laws;
pub mod producer;
pub mod prometheus;
pub mod report;
pub mod scrape;
pub mod script;
pub mod trouble;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use sluicegate_checkpoint::Position;
use sluicegate_lease::{Lease, LeaseKey, WorkerId, WriteBudget};
use sluicegate_worker::telemetry::wall_millis;
use tokio_util::sync::CancellationToken;

pub use report::Report;

use self::course::{Course, Done, nobody_ended, shards};
use self::gaps::Gap;
use self::history::History;
use self::laws::hands::{Disturbed, Frame as Looks, hands};
use self::laws::shares::{Share, overdrawn};
use self::producer::{Events, Producer, Sent};
use self::prometheus::Prometheus;
use self::scrape::unaccounted;
use self::script::{Frame, Script};
use super::journal::Journal;
use crate::harness::backend::kinesis_at;
use crate::harness::fleet::{APPLICATION, cuts, name_of};
use crate::harness::{Backend, Fleet, LONG, Multiset, binary, wait_for};

/// What is done, and to what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChaosPlan {
    /// For how long.
    pub lasts: Duration,
    /// What everything is drawn from.
    pub seed: u64,
    /// Workers.
    pub workers: usize,
    /// Shards.
    pub shards: usize,
    /// The workers' `failover_time`.
    pub failover_time: Duration,
    /// Events a second, of all producers together.
    pub rate: u32,
}

impl ChaosPlan {
    /// What does the same again.
    fn command(&self) -> String {
        let Self { seed, workers, shards, rate, .. } = self;
        let (minutes, failover_time) =
            (self.lasts.as_secs_f64() / 60.0, humantime::format_duration(self.failover_time));
        format!(
            "sluicegate-measure chaos --minutes {minutes} --seed {seed} --workers {workers} --shards {shards} --failover-time {failover_time} --rate {rate}"
        )
    }
}

/// Producers.
const PRODUCERS: u64 = 3;
/// How long everything may take that has no faults any more.
const DRAIN: Duration = Duration::from_secs(300);
/// What a worker's last look before a take, and the take, may take together: busy processors, and the latency of a trouble.
const LOOK_TO_TAKE_MS: i64 = 2_500;
/// The same for a hand-over, before which what is open is finished, for as long as `handoff_deadline` allows.
const LOOK_TO_GIVE_MS: i64 = LOOK_TO_TAKE_MS + 500;

/// A run that has come to its end.
struct Ran {
    done: Done,
    sent: Vec<Sent>,
    unaccounted: scrape::Unaccounted,
    began_ms: i64,
    log: Journal,
    /// The alerts that fired, if somebody watched.
    fired: Option<BTreeSet<String>>,
}

/// Carries the script of a seed out; `say` is told of each act. Logs and the journal are left in
/// `target/tmp/sluicegate-tests/<name>`. `watch` is a Prometheus to scrape the fleet with.
///
/// # Errors
/// The fleet does not come together, a worker ends by itself, or it does not drain; seed and folder are told.
pub async fn run(
    plan: ChaosPlan,
    name: &str,
    watch: Option<&Path>,
    say: impl Fn(&str),
) -> anyhow::Result<Report> {
    let folder = emptied(name)?;
    let kept = format!("seed {}; the journal and the workers' logs are in {}", plan.seed, folder.display());
    try_run(plan, name, (&folder, watch), &say).await.context(kept)
}

/// The folder for what a run leaves, without what an earlier one left.
fn emptied(name: &str) -> anyhow::Result<PathBuf> {
    std::fs::remove_dir_all(binary::scratch(name)?)?;
    binary::scratch(name)
}

async fn try_run(
    plan: ChaosPlan,
    name: &str,
    (folder, watch): (&Path, Option<&Path>),
    say: &impl Fn(&str),
) -> anyhow::Result<Report> {
    let journal = folder.join("journal.jsonl");
    let backend = Backend::process_with(&["--journal", journal.to_str().context("no text")?]).await?;
    backend.create_stream(plan.shards).await?;
    let mut fleet = Fleet::with_defaults(&backend, name)?.linked();
    for (setting, value) in [
        ("failover_time", format!("{}ms", plan.failover_time.as_millis())),
        ("log_format", "json".to_owned()),
        // They tell their shares of the write budget.
        ("log", "info,sluicegate_worker::write_flow=debug".to_owned()),
        // So that batches are many and a short run is full of announces and commits.
        ("max_batch_age", "2s".to_owned()),
        ("write_budget_wcu", trouble::CAPACITY_WCU.to_string()),
    ] {
        fleet = fleet.set(setting, &value);
    }
    let watch = match watch {
        Some(program) => Some(Prometheus::start(program, folder).await?),
        None => None,
    };
    let ran = endure(&plan, &backend, &mut fleet, (&journal, watch.as_ref()), say).await?;
    let (published, stored, history) = compared(&backend, &journal).await?;
    say("what was published and what is stored is read");
    judged(&plan, ran, &history, &published, &stored, folder)
}

/// From the first worker to the last.
async fn endure(
    plan: &ChaosPlan,
    backend: &Backend,
    fleet: &mut Fleet<'_>,
    (journal, watch): (&Path, Option<&Prometheus>),
    say: &impl Fn(&str),
) -> anyhow::Result<Ran> {
    let (produced, scraped) = (CancellationToken::new(), CancellationToken::new());
    let events = Events { seed: plan.seed };
    let producers: Vec<Producer> = (0..PRODUCERS)
        .map(|at| Producer {
            client: kinesis_at(&backend.endpoints().kinesis),
            events,
            place: (at, PRODUCERS),
            rate: f64::from(plan.rate) / 3.0,
        })
        .collect();
    let course = async {
        let _end_with_us = (produced.clone().drop_guard(), scraped.clone().drop_guard());
        let (done, began_ms) = acted(plan, backend, fleet, say).await?;
        produced.cancel();
        say("the producers end, and the fleet drains");
        drained(backend, fleet, journal).await?;
        scraped.cancel();
        anyhow::Ok((done, began_ms))
    };
    let producing = futures::future::join_all(producers.iter().map(|producer| producer.run(&produced)));
    let watching = async {
        let Some(prometheus) = watch else { return Ok(None) };
        prometheus.follow(backend, &scraped).await?;
        prometheus.fired().await.map(Some)
    };
    let (course, sent, unaccounted, fired) =
        tokio::join!(course, producing, unaccounted(backend, &scraped), watching);
    let ((done, began_ms), fired) = (course?, fired?);
    for number in fleet.numbers() {
        fleet.leave(number).await?;
    }
    let mut log = Journal::default();
    log.read(fleet)?;
    let sent = sent.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(Ran { done, sent, unaccounted, began_ms, log, fired })
}

/// Starts the fleet and does to it what the script says. Returns when that began, in epoch milliseconds.
async fn acted(
    plan: &ChaosPlan,
    backend: &Backend,
    fleet: &mut Fleet<'_>,
    say: &impl Fn(&str),
) -> anyhow::Result<(Done, i64)> {
    for _ in 0..plan.workers {
        fleet.start(&[])?;
    }
    wait_for("an owner for every shard", LONG, async || {
        fleet.check_alive()?;
        let rows = fleet.leases().await?;
        Ok((rows.len() == plan.shards && rows.iter().all(|row| row.owner.is_some())).then_some(()))
    })
    .await?;
    let ChaosPlan { lasts, seed, workers, shards, failover_time, .. } = *plan;
    let script = Script::of(seed, &Frame { lasts, workers, shards, failover_time });
    say(&format!("{} acts in {lasts:.0?}", script.0.len()));
    let began_ms = wall_millis().0;
    let done = Course::new(fleet, backend, seed).run(&script, lasts, say).await?;
    Ok((done, began_ms))
}

/// Waits until every shard is committed to its end, closed ones are finished, and leases are balanced (B1).
async fn drained(backend: &Backend, fleet: &mut Fleet<'_>, journal: &Path) -> anyhow::Result<()> {
    // Producers may still be told of their last records.
    let listed = shards(backend).await?;
    wait_for("every shard to be committed to its end, and balance", DRAIN, async || {
        nobody_ended(fleet)?;
        let rows: BTreeMap<LeaseKey, _> =
            fleet.leases().await?.into_iter().map(|row| (row.key.clone(), row)).collect();
        let no_cuts = rows.values().all(|row| cuts(row).is_empty());
        let ended = listed
            .iter()
            .all(|shard| rows.get(&shard.id).is_some_and(|row| row.is_finished() || !shard.closed));
        if !(no_cuts && ended && balanced(rows.values(), fleet.numbers().len())) {
            return Ok(None);
        }
        let ends = History::read(journal)?.ends();
        let done = ends.iter().all(|(shard, end)| match rows.get(shard).map(|row| &row.checkpoint) {
            Some(Position::At(number, _)) => number >= end,
            Some(Position::ShardEnd) => true,
            Some(Position::AtTimestamp | Position::TrimHorizon | Position::Latest) | None => false,
        });
        Ok(done.then_some(()))
    })
    .await
}

/// Whether all unfinished leases have owners, so many as there are workers, whose counts are within one of each other.
fn balanced<'r>(rows: impl Iterator<Item = &'r Lease>, workers: usize) -> bool {
    let mut counts: BTreeMap<Option<&WorkerId>, usize> = BTreeMap::new();
    for row in rows.filter(|row| !row.is_finished()) {
        *counts.entry(row.owner.as_ref()).or_default() += 1;
    }
    let (least, most) = (counts.values().min(), counts.values().max());
    let spread = most.zip(least).is_none_or(|(most, least)| most - least <= 1);
    let leases: usize = counts.values().sum();
    !counts.contains_key(&None) && counts.len() == workers.min(leases) && spread
}

/// What was published by the journal, what the reader finds, and the whole journal.
async fn compared(backend: &Backend, journal: &Path) -> anyhow::Result<(Multiset, Multiset, History)> {
    let history = History::read(journal)?;
    let data = history.records.values().flatten().map(|record| record.data().to_vec());
    let published: Multiset = data.collect();
    let (table, mut stored) = (backend.table(APPLICATION), Multiset::default());
    for key in Events::keys() {
        let see = |data: &[u8]| stored.add(data);
        table.for_each_event(&key, see).await.with_context(|| format!("the events of {key}"))?;
    }
    Ok((published, stored, history))
}

fn judged(
    plan: &ChaosPlan,
    ran: Ran,
    history: &History,
    published: &Multiset,
    stored: &Multiset,
    folder: &Path,
) -> anyhow::Result<Report> {
    let Ran { done, sent, unaccounted, began_ms, log, fired } = ran;
    let confirmed: u64 = sent.iter().map(|sent| sent.confirmed).sum();
    let numbers = numbers(plan.seed, history)?;
    ensure!(
        numbers.len() as u64 == confirmed,
        "producers were told that {confirmed} events are stored, the journal has {}",
        numbers.len()
    );
    let failover_ms = i64::try_from(plan.failover_time.as_millis())?;
    let disturbed = disturbed(&done);
    let looks =
        Looks { failover_ms, take_ms: LOOK_TO_TAKE_MS, give_ms: LOOK_TO_GIVE_MS, disturbed: &disturbed };
    let (hands, shares) = (hands(history, &looks), shares(&log));
    ensure!(!shares.is_empty(), "no worker told its share of the write budget");
    let mut broken = laws::judge(history);
    broken.extend(hands.broken);
    let budget = WriteBudget::of_units(trouble::CAPACITY_WCU.into());
    broken.extend(overdrawn(history, &shares, budget.total_milli, failover_ms));
    let failovers = done.kills.iter().filter_map(|(victim, at_ms)| {
        let owned = gaps::owned(history.lease_writes(), log.id_of(*victim)?, *at_ms);
        gaps::failover(&log, (*victim, *at_ms), &owned)
    });
    let records = history.records.values().flatten();
    let arrived_ms: HashMap<_, _> =
        records.map(|record| (record.sequence_number(), record.arrival().0)).collect();
    Ok(Report {
        plan: *plan,
        began_ms,
        published: published.len(),
        stored: stored.len(),
        lost: published.missing_in(stored),
        duplicated: stored.missing_in(published),
        producer_duplicates: published.len() - confirmed,
        unknown_outcomes: sent.iter().map(|sent| sent.unknown).sum(),
        unaccounted: unaccounted.values().sum(),
        asked: unaccounted.len(),
        lease_writes: history.lease_writes().count(),
        taken: hands.taken,
        given: hands.given,
        shares: shares.len(),
        broken,
        failovers: failovers.collect(),
        handoffs: gaps::handoffs(&log, |first| arrived_ms.get(first).copied()),
        fired,
        done,
        folder: folder.to_owned(),
    })
}

/// The numbers of all events that are in the stream, however often.
///
/// # Errors
/// There is something else in it.
fn numbers(seed: u64, history: &History) -> anyhow::Result<BTreeSet<u64>> {
    let events = Events { seed };
    let number = |data: &[u8]| events.number(data).context("the stream holds what nobody published");
    history.records.values().flatten().map(|record| number(record.data())).collect()
}

/// Who stood still when, or did not reach DynamoDB.
fn disturbed(done: &Done) -> Vec<Disturbed> {
    let times = done.freezes.iter().chain(&done.partitions);
    times
        .map(|(number, from_ms, to_ms)| Disturbed {
            name: name_of(*number),
            from_ms: *from_ms,
            to_ms: *to_ms,
        })
        .collect()
}

/// What the workers said of their shares of the write budget.
fn shares(log: &Journal) -> Vec<Share> {
    let share = |shared: &super::journal::Shared| {
        let worker = WorkerId::new(log.id_of(shared.worker)?);
        Some(Share { worker, at_ms: shared.at_ms, milli: shared.milli })
    };
    log.shares.iter().filter_map(share).collect()
}

fn lengths(gaps: &[Gap]) -> super::Distribution {
    super::Distribution::new(gaps.iter().map(|gap| gap.lasted_ms).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::LeaseState;

    #[test]
    fn leases_are_balanced_when_everybody_has_the_same_number_give_or_take_one() {
        let spread = |owners: &[Option<&str>], workers| {
            let row = |owner: &Option<&str>| {
                let row =
                    Lease::unowned(LeaseKey::new("s"), Position::TrimHorizon, LeaseState::starting(None));
                Lease { owner: owner.map(WorkerId::new), ..row }
            };
            let mut rows: Vec<Lease> = owners.iter().map(row).collect();
            rows.push(Lease { checkpoint: Position::ShardEnd, ..row(&None) });
            balanced(rows.iter(), workers)
        };
        let (a, b) = (Some("a"), Some("b"));
        assert!(spread(&[a, b, a], 2) && spread(&[a], 2) && spread(&[], 2));
        assert!(!spread(&[a, b, a, a], 2) && !spread(&[a, a], 2) && !spread(&[a, b, None], 2));
    }
}
