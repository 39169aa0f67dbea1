//! How soon fleets use what a table gives again, and whether every worker gets its part: after starts, outages and changes of
//! capacity, for several sizes of the fleet, with a write budget, with one that follows the table, and with none.
//!
//! ```text
//! lift.rs          which configurations play, and how many at a time
//!   stage.rs       one configuration: its stream, tables, backlog and workers
//!   scenario.rs    what happens to it, and when
//!   verdict.rs     how soon, which share, how much refused      pure
//!   report.rs      a table, one JSON object, evidence
//! ```
//!
//! Each configuration has an embedded backend of its own. Tables are provisioned, so that their description tells their capacity; an outage is an override that the description does not tell.

pub mod report;
pub mod scenario;
pub mod stage;
pub mod verdict;

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::try_join_all;
use tokio::sync::Semaphore;

pub use self::report::Report;
pub use self::scenario::Scenario;
use self::stage::Stage;
use crate::harness::Backend;

/// Which configurations play, and what happens to them.
#[derive(Debug, Clone)]
pub struct LiftPlan {
    /// Sizes of fleets.
    pub workers: Vec<usize>,
    /// Write budgets.
    pub budgets: Vec<Budget>,
    /// What happens to each fleet, in the order of [`Scenario::ALL`].
    pub scenarios: Vec<Scenario>,
    /// What the table takes, in units a second.
    pub capacity: u32,
    /// Shards for each worker.
    pub shards_per_worker: usize,
    /// The workers' `failover_time`.
    pub failover_time: Duration,
    /// Workers that run at the same time, at most, unless one fleet alone is larger.
    pub at_once: usize,
}

/// What the workers are told of a write budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// As many units a second as the table takes.
    Number,
    /// What the table says that it takes.
    Auto,
    /// None.
    None,
}

impl Budget {
    /// All.
    pub const ALL: [Self; 3] = [Self::Number, Self::Auto, Self::None];

    /// As arguments and the report name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "budget",
            Self::Auto => "auto",
            Self::None => "none",
        }
    }

    /// The workers' `write_budget_wcu`.
    fn setting(self, capacity: u32) -> String {
        match self {
            Self::Number => capacity.to_string(),
            Self::Auto => "auto".to_owned(),
            Self::None => "0".to_owned(),
        }
    }
}

impl FromStr for Budget {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|budget| budget.name() == text);
        let Some(found) = found else { bail!("unknown budget `{text}`: expected budget, auto or none") };
        Ok(found)
    }
}

/// Lets every configuration play; `say` is told what happens.
///
/// # Errors
/// A fleet does not start, or the backend does not say what its tables took.
pub async fn run(plan: &LiftPlan, say: impl Fn(&str)) -> anyhow::Result<Report> {
    say(report::HEADINGS);
    let places = Semaphore::new(plan.at_once);
    let configurations = plan.budgets.iter().flat_map(|budget| {
        let mut sizes = plan.workers.clone();
        // The largest first: the small ones then find room beside it.
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.into_iter().map(|workers| (*budget, workers))
    });
    let play = async |(budget, workers): (Budget, usize)| {
        let needed = u32::try_from(workers.min(plan.at_once))?;
        let _place = places.acquire_many(needed).await?;
        // One each, and in a folder: the longer a database becomes, the more of the processor each write of it takes, until it
        // is the backend that is measured.
        let folder = tempfile::tempdir()?;
        let dir = folder.path().to_str().context("the folder's name is not UTF-8")?;
        let backend = Backend::process_with(&["--dir", dir]).await?;
        // One second of credit: a table that has more takes the old rate for a while after a cut.
        backend.set("/limits", "enforce = true\nburst_seconds = 1").await?;
        Stage { backend: &backend, plan, workers, budget, say: &say }.play().await
    };
    let outcomes = try_join_all(configurations.map(play)).await?;
    let mut outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    outcomes.sort_by_key(|outcome| (outcome.scenario, outcome.workers));
    Ok(Report { plan: plan.clone(), outcomes })
}
