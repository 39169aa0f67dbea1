//! `sluicegate leases watch`: changes of ownership as they happen.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;

use console::{Term, style};
use serde::Serialize;
use sluicegate_lease::WorkerId;
use sluicegate_lease::operator::changes::{LeaseChange, lease_changes};
use sluicegate_lease::view::{Health, HealthChange, Observer};
use sluicegate_worker::telemetry::wall_millis;

use super::super::operator::fleet::{FleetArgs, Look, Tables};
use super::super::operator::row::time;
use super::list::Listing;
use crate::output::counted;
use crate::{output, stop};

/// Print changes of ownership as they happen, until ctrl-c
///
/// On a terminal the list stays on the screen, with the latest changes below it. Elsewhere each change is a line:
/// leases that are taken, released, handed over, finished, moved by an operator, created or deleted, and workers
/// that join, drain, leave, fall silent (their sign of life stands still for --failover-time) or come back.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    fleet: FleetArgs,
    /// End by itself after so long
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Time between two looks; each is a scan of the lease table
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// The fleet's failover_time: how long a sign of life stands still before its worker counts as silent
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    failover_time: Duration,
    /// One JSON object per change
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  sluicegate leases watch --application billing
  sluicegate leases watch --application billing --for 5m | tee rollout.log
  sluicegate leases watch --application billing --json | jq 'select(.event == \"silent\")'";

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let tables = Tables::open(&args.fleet).await?;
    let stop = stop::on_signal(false)?;
    let mut screen = (!args.json && std::io::stdout().is_terminal()).then(Screen::default);
    // It watches and is no worker: no row bears this name.
    let mut observer = Observer::new(WorkerId::new("~watch"), args.failover_time);
    let ends = args.lasts.map(|lasts| tables.clock.now() + lasts);
    let mut before = tables.look().await?;
    observer.see_workers(before.fleet.workers.clone(), tables.clock.now());
    let mut seen = vec![Seen::first(&before)];
    loop {
        for event in &seen {
            let told = match &mut screen {
                Some(screen) => {
                    screen.note(event);
                    true
                }
                None if args.json => output::line_if_read(&serde_json::to_string(event)?)?,
                None => output::line_if_read(&event.text())?,
            };
            if !told {
                return Ok(());
            }
        }
        if let Some(screen) = &screen {
            screen.draw(&before)?;
        }
        let next = tables.clock.now() + args.interval;
        let until = ends.map_or(next, |ends| ends.min(next));
        tokio::select! { biased;
            () = stop.cancelled() => return Ok(()),
            () = tables.clock.sleep_until(until) => {}
        }
        let after = tables.look().await?;
        let healths = observer.see_workers(after.fleet.workers.clone(), tables.clock.now());
        seen = workers_first(&healths, &before, &after);
        before = after;
        if ends.is_some_and(|ends| tables.clock.now() >= ends) && seen.is_empty() {
            return Ok(());
        }
    }
}

/// One change as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Seen {
    at: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// The same for people.
    text: String,
}

/// A worker's health explains what becomes of its leases, so it is told before.
fn workers_first(healths: &[HealthChange], before: &Look, after: &Look) -> Vec<Seen> {
    let asked = after.fleet.asked_to_leave.difference(&before.fleet.asked_to_leave);
    let asked = asked.map(|worker| of_worker("asked_to_leave", worker, "was asked to leave"));
    let healths = healths.iter().map(of_health);
    let leases = lease_changes(&before.leases, &after.leases);
    asked.chain(healths).chain(leases.iter().map(of_lease)).collect()
}

fn of_health((worker, before, after): &HealthChange) -> Seen {
    let (event, text) = match (before, after) {
        (_, None) => ("left", "left"),
        (None, Some(Health::Active)) => ("joined", "joined"),
        (_, Some(Health::Draining)) => ("draining", "hands its leases over"),
        (_, Some(Health::Silent)) => ("silent", "is silent"),
        (Some(_), Some(Health::Active)) => ("back", "is back"),
    };
    of_worker(event, worker, text)
}

fn of_worker(event: &'static str, worker: &WorkerId, text: &str) -> Seen {
    Seen { worker: Some(worker.to_string()), text: format!("{worker} {text}"), ..Seen::now(event) }
}

fn of_lease(change: &LeaseChange) -> Seen {
    let nobody = "nobody";
    let name = |worker: &Option<WorkerId>| worker.as_ref().map(ToString::to_string);
    match change {
        LeaseChange::Created { key, owner } => Seen {
            to: name(owner),
            text: format!("{key} has a row; owner {}", name(owner).as_deref().unwrap_or(nobody)),
            ..Seen::of_shard("created", key)
        },
        LeaseChange::Deleted { key } => {
            Seen { text: format!("{key} has no row any more"), ..Seen::of_shard("deleted", key) }
        }
        LeaseChange::Finished { key } => {
            Seen { text: format!("{key} is finished"), ..Seen::of_shard("finished", key) }
        }
        LeaseChange::Moved { key, from, to, epoch } => Seen {
            from: Some(from.to_string()),
            to: Some(to.to_string()),
            text: format!("{key} was moved from {from} to {to}; epoch {epoch}"),
            ..Seen::of_shard("moved", key)
        },
        LeaseChange::Owner { key, from, to } => {
            let (event, text) = match (from, to) {
                (None, Some(to)) => ("taken", format!("{key} taken by {to}")),
                (Some(from), None) => ("released", format!("{key} released by {from}")),
                (from, to) => {
                    let (from, to) = (name(from), name(to));
                    let (from, to) = (from.as_deref().unwrap_or(nobody), to.as_deref().unwrap_or(nobody));
                    ("passed", format!("{key} passed from {from} to {to}"))
                }
            };
            Seen { from: name(from), to: name(to), text, ..Seen::of_shard(event, key) }
        }
    }
}

impl Seen {
    fn now(event: &'static str) -> Self {
        Self {
            at: time(wall_millis()),
            event,
            shard: None,
            worker: None,
            from: None,
            to: None,
            text: String::new(),
        }
    }

    fn of_shard(event: &'static str, key: &sluicegate_lease::LeaseKey) -> Self {
        Self { shard: Some(key.to_string()), ..Self::now(event) }
    }

    /// That watching has begun, and what there is.
    fn first(look: &Look) -> Self {
        let owned = look.leases.values().filter(|row| row.owner.is_some()).count();
        let text = format!(
            "watching {}, {owned} owned, and {}",
            counted(look.leases.len(), "lease"),
            counted(look.fleet.workers.len(), "worker")
        );
        Self { text, ..Self::now("watching") }
    }

    fn text(&self) -> String {
        format!("{}  {}", self.at, self.text)
    }
}

/// Changes that stay on the screen.
const SHOWN: usize = 12;

/// The list, redrawn, with the latest changes below it.
#[derive(Debug, Default)]
struct Screen {
    latest: VecDeque<String>,
}

impl Screen {
    fn note(&mut self, event: &Seen) {
        if self.latest.len() == SHOWN {
            self.latest.pop_front();
        }
        self.latest.push_back(event.text());
    }

    fn draw(&self, look: &Look) -> anyhow::Result<()> {
        let term = Term::stdout();
        let latest: Vec<&str> = self.latest.iter().map(String::as_str).collect();
        let text = Listing::of(look, None).text(wall_millis());
        term.clear_screen()?;
        output::line(&format!("{text}\n\n{}\n{}", latest.join("\n"), style("ctrl-c ends").dim()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};
    use sluicegate_lease::Lease;

    #[test]
    fn changes_are_told_with_the_workers_first() {
        let row = Lease::unowned(ShardId::new("s"), Position::TrimHorizon, LeaseState::starting(None));
        let (me, mut before, mut after) = (WorkerId::new("w"), Look::default(), Look::default());
        before.leases.insert(row.key.clone(), row.clone());
        after.leases.insert(row.key.clone(), row.taken_by(&me));
        after.fleet.asked_to_leave.insert(me.clone());
        let health = [(me.clone(), None, Some(Health::Active))];
        let seen = workers_first(&health, &before, &after);
        let events: Vec<&str> = seen.iter().map(|seen| seen.event).collect();
        assert_eq!(events, ["asked_to_leave", "joined", "taken"]);
        assert_eq!((seen[2].from.as_deref(), seen[2].to.as_deref()), (None, Some("w")));
        assert_eq!(seen[2].text, "s taken by w");
        let back = workers_first(&[(me, Some(Health::Active), None)], &after, &before);
        assert_eq!(back.iter().map(|seen| seen.event).collect::<Vec<_>>(), ["left", "released"]);
    }
}
