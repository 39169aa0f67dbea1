//! `make simulate`: runs as many simulations as wanted, on all cores, and says what they found. Its last line is one
//! JSON object.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use sluicegate_tests::simulation::{Outcome, run};

/// What is wanted of this program.
const USAGE: &str = "usage: simulate SEEDS [FROM]   run so many seeds, from 0 or FROM on
       simulate --seed SEED     run one seed and print its history";

/// What all seeds came to.
#[derive(Default)]
struct Sum {
    failed: Vec<(u64, Vec<String>)>,
    first_report: Option<(u64, String)>,
    virtual_time: Duration,
    faults: BTreeMap<&'static str, u64>,
}

#[expect(clippy::print_stdout, reason = "the results of a program that a person started")]
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--seed", seed] => {
            let outcome = run(seed.parse().context(USAGE)?);
            println!("{}", outcome.report());
            if !outcome.broken.is_empty() {
                bail!("seed {seed} breaks {} laws", outcome.broken.len());
            }
            Ok(())
        }
        [seeds] => many(seeds.parse().context(USAGE)?, 0),
        [seeds, from] => many(seeds.parse().context(USAGE)?, from.parse().context(USAGE)?),
        _ => bail!(USAGE),
    }
}

#[expect(clippy::print_stdout, reason = "the results of a program that a person started")]
fn many(seeds: u64, from: u64) -> anyhow::Result<()> {
    let (next, sum) = (AtomicU64::new(from), Mutex::new(Sum::default()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&next, from + seeds, &sum));
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, report)) = &sum.first_report {
        println!("{report}");
    }
    for (seed, broken) in &sum.failed {
        println!("seed {seed}: {}", broken.join("; "));
    }
    let hours = sum.virtual_time.as_secs() / 3_600;
    println!(
        "{}",
        serde_json::json!({
            "seeds": seeds,
            "wire_seeds": 0,
            "failures": sum.failed.len(),
            "virtual_hours": hours,
            "faults": sum.faults,
        })
    );
    if !sum.failed.is_empty() {
        bail!("{} of {seeds} seeds break a law", sum.failed.len());
    }
    Ok(())
}

/// Takes seeds until there are none.
#[expect(clippy::print_stderr, reason = "progress of a long run")]
fn work(next: &AtomicU64, end: u64, sum: &Mutex<Sum>) {
    loop {
        let seed = next.fetch_add(1, Ordering::AcqRel);
        if seed >= end {
            return;
        }
        let outcome = run(seed);
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(&outcome);
        if seed % 1_000 == 999 {
            eprintln!("{} seeds, {} failures", seed + 1, sum.failed.len());
        }
    }
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.virtual_time += outcome.took;
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        if outcome.broken.is_empty() {
            return;
        }
        if self.first_report.as_ref().is_none_or(|(seed, _)| outcome.seed < *seed) {
            self.first_report = Some((outcome.seed, outcome.report()));
        }
        let broken = outcome.broken.iter().take(3).map(|broken| format!("{} {}", broken.law, broken.why));
        self.failed.push((outcome.seed, broken.collect()));
    }
}
