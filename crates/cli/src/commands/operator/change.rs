//! Conditional changes of lease rows, row by row: decide, show the difference, write, decide again if the write lost.
//!
//! Each row stands for itself: one that is refused keeps nobody else from being changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::anyhow;
use serde::Serialize;
use sluicegate_lease::operator::{Around, Refusal, children};
use sluicegate_lease::{Lease, LeaseKey, WorkerId};
use tokio::time::Instant;

use super::fleet::{Look, Tables};
use super::owners;
use super::row::{Row, differences};
use crate::output;

/// How a change is made.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ChangeArgs {
    /// Show what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Change rows of live owners too: an owner loses its session on that shard at its next write or round, discards
    /// what it has read and not announced, and nothing it does after that counts
    #[arg(long)]
    pub(crate) force: bool,
    /// The fleet's failover_time: how long an owner's sign of life must stand still before it counts as gone. With
    /// --force nobody is waited for
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) failover_time: Duration,
    /// One JSON object per shard on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// A change that may be written.
pub(crate) struct Planned {
    pub(crate) next: Lease,
    /// One word for machines.
    pub(crate) kind: &'static str,
    /// What follows from it, for people.
    pub(crate) means: String,
    /// The live worker whose session it ends.
    pub(crate) ends_session_of: Option<WorkerId>,
}

/// Decides on a row: a change, nothing to do, or a refusal.
pub(crate) type Decide<'a> = dyn Fn(&Lease, &Around) -> Result<Option<Planned>, Refusal> + Sync + 'a;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Changed,
    WouldChange,
    Unchanged,
    Refused,
}

/// What is told of a row.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) shard: String,
    pub(crate) outcome: Outcome,
    /// What kind of change.
    kind: Option<&'static str>,
    /// What follows from it, or why nothing was done.
    why: String,
    ends_session_of: Option<String>,
    before: Option<Row>,
    after: Option<Row>,
}

/// How often a row is decided on anew after somebody else wrote it first.
const LOST_RACES: u32 = 8;
/// Between two looks at a row whose batches are waited for.
const PAUSE: Duration = Duration::from_millis(50);

/// Changes rows, or shows what would change.
pub(crate) struct Changes<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) args: &'a ChangeArgs,
    /// Rows to change, in this order.
    pub(crate) keys: Vec<LeaseKey>,
    /// How long announced batches are waited for.
    pub(crate) wait: Duration,
    pub(crate) decide: &'a Decide<'a>,
}

impl Changes<'_> {
    /// Owners of the rows and of their children that are known to be gone. With `--force` nobody is judged.
    pub(crate) async fn gone(&self, look: &Look) -> anyhow::Result<BTreeSet<WorkerId>> {
        if self.args.force {
            return Ok(BTreeSet::new());
        }
        let rows = self.keys.iter().filter_map(|key| look.leases.get(key));
        let near = rows.flat_map(|row| children(row, &look.leases)).chain(&self.keys);
        let owners: BTreeSet<WorkerId> = near.filter_map(|key| look.leases.get(key)?.owner.clone()).collect();
        Ok(owners::judged(self.tables, owners, self.args.failover_time).await?.gone())
    }

    /// What would change, as the rows are now. A child that would be moved back counts as moved for its parent.
    pub(crate) fn preview(&self, look: &Look, gone: &BTreeSet<WorkerId>) -> Vec<Report> {
        let mut rows = look.leases.clone();
        let mut reports = Vec::new();
        for key in &self.keys {
            let Some(row) = look.leases.get(key) else { continue };
            let around = Around { rows: rows.clone(), gone: gone.clone(), force: self.args.force };
            let decided = (self.decide)(row, &around);
            if let Ok(Some(planned)) = &decided {
                rows.insert(key.clone(), planned.next.clone());
            }
            reports.push(report(row, decided, Outcome::WouldChange));
        }
        reports
    }

    /// Changes the rows, one after the other, and tells of each as soon as it is done.
    pub(crate) async fn apply(
        &self,
        look: &Look,
        gone: &BTreeSet<WorkerId>,
        mut tell: impl FnMut(&Report) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Report>> {
        let deadline = self.tables.clock.now() + self.wait;
        let mut reports = Vec::new();
        for key in &self.keys {
            let report = self.apply_one(key, look, gone, deadline).await?;
            tell(&report)?;
            reports.push(report);
        }
        Ok(reports)
    }

    async fn apply_one(
        &self,
        key: &LeaseKey,
        look: &Look,
        gone: &BTreeSet<WorkerId>,
        deadline: Instant,
    ) -> anyhow::Result<Report> {
        let mut lost = 0;
        loop {
            let Some(row) = self.tables.lease(key).await? else { return Ok(vanished(key)) };
            let rows = self.near(&row, look).await?;
            let decided = (self.decide)(&row, &Around { rows, gone: gone.clone(), force: self.args.force });
            let waits = matches!(decided, Err(Refusal::CutsPending { .. }));
            if waits && self.tables.clock.now() < deadline {
                self.tables.clock.sleep(PAUSE).await;
                continue;
            }
            if let Ok(Some(planned)) = &decided
                && !self.tables.replace(&row, planned.next.clone()).await?
            {
                lost += 1;
                if lost >= LOST_RACES && self.tables.clock.now() >= deadline {
                    return Ok(contended(&row));
                }
                continue;
            }
            return Ok(report(&row, decided, Outcome::Changed));
        }
    }

    /// The rows of parents and children, read now.
    async fn near(&self, row: &Lease, look: &Look) -> anyhow::Result<BTreeMap<LeaseKey, Lease>> {
        let mut rows = BTreeMap::new();
        for key in children(row, &look.leases).into_iter().chain(&row.parents) {
            if let Some(row) = self.tables.lease(key).await? {
                rows.insert(key.clone(), row);
            }
        }
        Ok(rows)
    }
}

fn report(row: &Lease, decided: Result<Option<Planned>, Refusal>, done: Outcome) -> Report {
    let (outcome, kind, why, ends, after) = match decided {
        Ok(Some(planned)) => {
            let after = Row::of(&planned.next);
            (done, Some(planned.kind), planned.means, planned.ends_session_of, Some(after))
        }
        Ok(None) => (Outcome::Unchanged, None, "nothing to change".to_owned(), None, None),
        Err(refusal) => (Outcome::Refused, None, refusal.to_string(), None, None),
    };
    Report {
        shard: row.key.to_string(),
        outcome,
        kind,
        why,
        ends_session_of: ends.map(|worker| worker.to_string()),
        before: Some(Row::of(row)),
        after,
    }
}

fn refused(key: &LeaseKey, why: &str, before: Option<Row>) -> Report {
    Report {
        shard: key.to_string(),
        outcome: Outcome::Refused,
        kind: None,
        why: why.to_owned(),
        ends_session_of: None,
        before,
        after: None,
    }
}

fn vanished(key: &LeaseKey) -> Report {
    refused(key, "its row was deleted meanwhile", None)
}

fn contended(row: &Lease) -> Report {
    refused(&row.key, "its owner writes it faster than this command can: try again", Some(Row::of(row)))
}

impl Report {
    /// The row for people: what happens, and each attribute that differs.
    pub(crate) fn text(&self) -> String {
        let word = match self.outcome {
            Outcome::Changed => console::style("changed").green(),
            Outcome::WouldChange => console::style("would change").cyan(),
            Outcome::Unchanged => console::style("unchanged").dim(),
            Outcome::Refused => console::style("refused").red(),
        };
        let mut text = format!("{}  {word}: {}", self.shard, self.why);
        if let Some(worker) = &self.ends_session_of {
            text.push_str(&format!("; {worker} loses its session"));
        }
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            for (name, before, after) in differences(before, after) {
                text.push_str(&format!("\n  {name:<18} {before} -> {after}"));
            }
        }
        text
    }

    /// Prints it: a result, or beside the results if the row was refused. The refusal of the only row is left to
    /// the error that ends the command.
    pub(crate) fn print(&self, json: bool, only: bool) -> anyhow::Result<()> {
        match self.outcome {
            _ if json => return output::json(self),
            Outcome::Refused if only => {}
            Outcome::Refused => output::note(&self.text()),
            Outcome::Changed | Outcome::WouldChange | Outcome::Unchanged => output::line(&self.text()),
        }
        Ok(())
    }
}

/// The command's result: an error if a row was refused.
pub(crate) fn conclude(reports: &[Report]) -> anyhow::Result<()> {
    let refused: Vec<&Report> = reports.iter().filter(|report| report.outcome == Outcome::Refused).collect();
    match refused.as_slice() {
        [] => Ok(()),
        [one] if reports.len() == 1 => Err(anyhow!("{} was left as it is: {}", one.shard, one.why)),
        several => Err(anyhow!("{} of {} shards were left as they are", several.len(), reports.len())),
    }
}
