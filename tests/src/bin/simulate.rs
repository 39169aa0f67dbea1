//! `make simulate`: runs as many simulations of both tiers as wanted, on all cores, and says what they found. Its last
//! line is one JSON object.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use clap::Parser;
use sluicegate_tests::simulation::rates::Judged;
use sluicegate_tests::simulation::wire::run_wire;
use sluicegate_tests::simulation::{Outcome, run};

/// Runs simulations of whole fleets.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds of the first tier, over ports in memory
    #[arg(default_value_t = 1_000)]
    seeds: u64,
    /// Seeds of the second tier, with the real SDK and adapters; default: one for fifty of the first
    #[arg(long)]
    wire_seeds: Option<u64>,
    /// First seed of both
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed of the first tier alone, and print its history
    #[arg(long)]
    seed: Option<u64>,
    /// Run this seed of the second tier alone, and print its history
    #[arg(long, conflicts_with = "seed")]
    wire_seed: Option<u64>,
}

/// The two tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Memory,
    Wire,
}

impl Tier {
    fn run(self, seed: u64) -> Outcome {
        match self {
            Self::Memory => run(seed),
            Self::Wire => run_wire(seed),
        }
    }
}

/// What all seeds came to.
#[derive(Default)]
struct Sum {
    done: u64,
    /// Laws broken, by tier and seed.
    failed: BTreeMap<(Tier, u64), Vec<String>>,
    first_report: Option<((Tier, u64), String)>,
    virtual_time: Duration,
    faults: BTreeMap<&'static str, u64>,
    judged: Judged,
}

#[expect(clippy::print_stdout, reason = "the results of a program that a person started")]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let one = match (args.seed, args.wire_seed) {
        (Some(seed), _) => Some(run(seed)),
        (None, Some(seed)) => Some(run_wire(seed)),
        (None, None) => None,
    };
    let Some(outcome) = one else { return many(&args) };
    println!("{}", outcome.report());
    if !outcome.broken.is_empty() {
        bail!("seed {} breaks {} laws", outcome.seed, outcome.broken.len());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the results of a program that a person started")]
fn many(args: &Args) -> anyhow::Result<()> {
    let wire_seeds = args.wire_seeds.unwrap_or(args.seeds / 50);
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Sum::default()));
    let total = wire_seeds + args.seeds;
    // The long ones first, so that no core waits for one in the end.
    let job = |number: u64| match number.checked_sub(wire_seeds) {
        None => (Tier::Wire, args.from + number),
        Some(number) => (Tier::Memory, args.from + number),
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::AcqRel);
                    if number >= total {
                        return;
                    }
                    let (tier, seed) = job(number);
                    let outcome = tier.run(seed);
                    sum.lock().unwrap_or_else(PoisonError::into_inner).add(tier, &outcome, total);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, report)) = &sum.first_report {
        println!("{report}");
    }
    for ((tier, seed), broken) in &sum.failed {
        println!("{tier:?} seed {seed}: {}", broken.join("; "));
    }
    let hours = (sum.virtual_time.as_secs_f64() / 360.0).round() / 10.0;
    println!(
        "{}",
        serde_json::json!({
            "seeds": args.seeds,
            "wire_seeds": wire_seeds,
            "failures": sum.failed.len(),
            "virtual_hours": hours,
            "faults": sum.faults,
            "judged": {
                "table_means": sum.judged.table,
                "worker_means": sum.judged.workers,
                "waits": sum.judged.waits,
            },
        })
    );
    if !sum.failed.is_empty() {
        bail!("{} of {total} histories break a law", sum.failed.len());
    }
    Ok(())
}

impl Sum {
    #[expect(clippy::print_stderr, reason = "progress of a long run")]
    fn add(&mut self, tier: Tier, outcome: &Outcome, total: u64) {
        self.done += 1;
        self.virtual_time += outcome.took;
        self.judged.add(outcome.judged);
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        if !outcome.broken.is_empty() {
            let name = (tier, outcome.seed);
            if self.first_report.as_ref().is_none_or(|(first, _)| name < *first) {
                self.first_report = Some((name, outcome.report()));
            }
            let broken = outcome.broken.iter().take(3).map(|broken| format!("{} {}", broken.law, broken.why));
            self.failed.insert(name, broken.collect());
        }
        if self.done.is_multiple_of(if tier == Tier::Wire { 100 } else { 1_000 }) {
            eprintln!("{} of {total} histories, {} failures", self.done, self.failed.len());
        }
    }
}
