//! What happens to the fleet of one configuration, and when: its starts, the outages of its table, the changes of its capacity.

use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use super::super::budget::{now_seconds, seconds_of};
use super::Budget;
use super::report::Outcome;
use super::stage::{Stage, Troupe};
use super::verdict::{
    ENOUGH, WINDOW, WITHIN, between, longest_starved, mean, rates, refused_part, seconds_to_enough,
    worst_share,
};
use crate::harness::wait_for;

/// What happens to a fleet, in the order in which it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// All workers start while the table takes 1 unit a second, for 5 s from the first refusal.
    RefusedStart,
    /// The workers start one after the other, 150 ms apart.
    StaggeredStart,
    /// The table takes 5% for 5 s.
    Outage,
    /// The table takes 1 unit a second for 30 s.
    HalfMinute,
    /// The table takes 1 unit a second for five minutes.
    FiveMinutes,
    /// The table's capacity is doubled; to the budget, where that is a number.
    Doubling,
    /// The table's capacity is cut to a quarter.
    Quartering,
}

/// Seconds of use before a change, from which the former rate is taken.
const BEFORE: u64 = 20;
/// The same before the outage, whose refusals are counted from then on.
const BEFORE_OUTAGE: u64 = 60;
/// Seconds after a lift in which it is watched. They are the seconds before what comes next.
const AFTER: u64 = 30;
/// The same after the outage.
const AFTER_OUTAGE: u64 = 120;
/// Time between the starts of two workers.
const APART: Duration = Duration::from_millis(150);

impl Scenario {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::RefusedStart,
        Self::StaggeredStart,
        Self::Outage,
        Self::HalfMinute,
        Self::FiveMinutes,
        Self::Doubling,
        Self::Quartering,
    ];

    /// As arguments and the report name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RefusedStart => "refused-start",
            Self::StaggeredStart => "staggered-start",
            Self::Outage => "outage",
            Self::HalfMinute => "half-minute",
            Self::FiveMinutes => "five-minutes",
            Self::Doubling => "doubling",
            Self::Quartering => "quartering",
        }
    }
}

impl FromStr for Scenario {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|scenario| scenario.name() == text);
        let Some(found) = found else {
            let names = Self::ALL.map(Self::name).join(", ");
            bail!("unknown scenario `{text}`: expected one of {names}")
        };
        Ok(found)
    }
}

/// The seconds of a scenario that are judged.
struct Judged {
    scenario: Scenario,
    /// From when on refusals count.
    from: u64,
    /// When the table gave what it gives.
    lifted: u64,
    /// What it gives then, units a second.
    capacity: f64,
    /// What the fleet is to reach nine tenths of.
    rate: f64,
}

impl<'b> Stage<'b> {
    /// Everything that is planned, to one fleet that starts into refusals and to one that goes through the rest.
    pub(super) async fn act(&self) -> anyhow::Result<Vec<Outcome>> {
        let [refused, steady] = self.applications();
        let wanted = |scenario: &Scenario| self.plan.scenarios.contains(scenario);
        let mut outcomes = Vec::new();
        if wanted(&Scenario::RefusedStart) {
            let mut troupe = self.troupe(&refused).await?;
            outcomes.push(self.refused_start(&mut troupe).await?);
            troupe.kill().await?;
        }
        if Scenario::ALL[1..].iter().any(wanted) {
            let mut troupe = self.troupe(&steady).await?;
            let started = self.staggered_start(&mut troupe).await?;
            outcomes.extend(Some(started).filter(|_| wanted(&Scenario::StaggeredStart)));
            for scenario in Scenario::ALL[1..].iter().copied().filter(wanted) {
                outcomes.extend(self.happen(scenario, &mut troupe).await?);
            }
            troupe.kill().await?;
        }
        Ok(outcomes)
    }

    async fn happen(&self, scenario: Scenario, troupe: &mut Troupe<'b>) -> anyhow::Result<Option<Outcome>> {
        let capacity = self.plan.capacity;
        let outcome = match scenario {
            // These are the starts of a fleet.
            Scenario::RefusedStart | Scenario::StaggeredStart => return Ok(None),
            Scenario::Outage => self.outage(scenario, troupe, (capacity / 20).max(1), 5).await?,
            Scenario::HalfMinute => self.outage(scenario, troupe, 1, 30).await?,
            Scenario::FiveMinutes => self.outage(scenario, troupe, 1, 300).await?,
            Scenario::Doubling => {
                let doubled = match self.budget {
                    Budget::Number => capacity,
                    Budget::Auto | Budget::None => capacity * 2,
                };
                self.change(scenario, troupe, doubled / 2, doubled).await?
            }
            Scenario::Quartering => self.change(scenario, troupe, capacity, (capacity / 4).max(1)).await?,
        };
        Ok(Some(outcome))
    }

    async fn refused_start(&self, troupe: &mut Troupe<'b>) -> anyhow::Result<Outcome> {
        self.override_limit(&troupe.table, 1).await?;
        let from = now_seconds();
        for _ in 0..self.workers {
            self.start(troupe)?;
        }
        troupe.assembled(self.workers).await?;
        wait_for("a refusal", Duration::from_secs(60), async || {
            let seconds = seconds_of(self.backend, &troupe.table, from, now_seconds() + 1).await?;
            Ok(seconds.iter().any(|second| second.refused > 0.0).then_some(()))
        })
        .await?;
        troupe.watch(Instant::now() + Duration::from_secs(5)).await?;
        let lifted = self.lift(troupe).await?;
        let capacity = f64::from(self.plan.capacity);
        let judged = Judged { scenario: Scenario::RefusedStart, from, lifted, capacity, rate: capacity };
        self.judge(troupe, judged, AFTER).await
    }

    async fn staggered_start(&self, troupe: &mut Troupe<'b>) -> anyhow::Result<Outcome> {
        let from = now_seconds();
        for _ in 0..self.workers {
            self.start(troupe)?;
            tokio::time::sleep(APART).await;
        }
        let lifted = wait_for("the first write", Duration::from_secs(60), async || {
            troupe.fleet.check_alive()?;
            let seconds = seconds_of(self.backend, &troupe.table, from, now_seconds() + 1).await?;
            Ok(seconds.iter().find(|second| second.accepted > 0.0).map(|second| second.second))
        })
        .await?;
        troupe.steady_since = lifted;
        let capacity = f64::from(self.plan.capacity);
        let judged = Judged { scenario: Scenario::StaggeredStart, from, lifted, capacity, rate: capacity };
        self.judge(troupe, judged, AFTER).await
    }

    /// The table takes `wcu` for `lasts` seconds, and then what it did before.
    async fn outage(
        &self,
        scenario: Scenario,
        troupe: &mut Troupe<'b>,
        wcu: u32,
        lasts: u64,
    ) -> anyhow::Result<Outcome> {
        let (before, after) =
            if scenario == Scenario::Outage { (BEFORE_OUTAGE, AFTER_OUTAGE) } else { (BEFORE, AFTER) };
        troupe.steady_for(before).await?;
        let from = now_seconds() - before;
        let former =
            mean(&seconds_of(self.backend, &troupe.table, now_seconds() - BEFORE, now_seconds()).await?);
        self.override_limit(&troupe.table, wcu).await?;
        troupe.watch(Instant::now() + Duration::from_secs(lasts)).await?;
        let lifted = self.lift(troupe).await?;
        let capacity = f64::from(self.plan.capacity);
        // A fleet that has not recovered from what was before does not make this one easy.
        let rate = former.max(ENOUGH * capacity).min(capacity);
        self.judge(troupe, Judged { scenario, from, lifted, capacity, rate }, after).await
    }

    /// The table's capacity changes from one to another, and then to what it was.
    async fn change(
        &self,
        scenario: Scenario,
        troupe: &mut Troupe<'b>,
        before: u32,
        after: u32,
    ) -> anyhow::Result<Outcome> {
        if before != self.plan.capacity {
            self.change_capacity(troupe, before).await?;
        }
        troupe.steady_for(BEFORE).await?;
        self.change_capacity(troupe, after).await?;
        let (from, capacity) = (now_seconds(), f64::from(after));
        let judged = Judged { scenario, from, lifted: from, capacity, rate: capacity };
        let outcome = self.judge(troupe, judged, AFTER).await?;
        if after != self.plan.capacity {
            self.change_capacity(troupe, self.plan.capacity).await?;
        }
        Ok(outcome)
    }

    /// The table takes again what it says. Returns since when.
    async fn lift(&self, troupe: &mut Troupe<'b>) -> anyhow::Result<u64> {
        self.override_limit(&troupe.table, self.plan.capacity).await?;
        troupe.steady_since = now_seconds();
        Ok(troupe.steady_since)
    }

    /// Watches for so many seconds after the lift, and judges.
    async fn judge(&self, troupe: &mut Troupe<'b>, judged: Judged, after: u64) -> anyhow::Result<Outcome> {
        let ends = judged.lifted + after;
        troupe.watch(Instant::now() + Duration::from_secs(ends.saturating_sub(now_seconds()))).await?;
        let seconds = seconds_of(self.backend, &troupe.table, judged.from, ends).await?;
        let samples = troupe.samples();
        let lifted = f64::from(u32::try_from(judged.lifted)?);
        let equal_part = judged.capacity / f64::from(u32::try_from(self.workers)?);
        let windows = rates(&samples, lifted, f64::from(WINDOW)).into_iter().step_by(WINDOW as usize);
        let outcome = Outcome {
            workers: self.workers,
            budget: self.budget,
            scenario: judged.scenario,
            seconds_to_enough: seconds_to_enough(&seconds, judged.lifted, judged.rate),
            watched_seconds: after,
            used: mean(&between(&seconds, judged.lifted + u64::from(WITHIN), ends)) / judged.capacity,
            worst_share: worst_share(&samples, lifted + f64::from(WITHIN), equal_part),
            starved_seconds: longest_starved(&samples, lifted, equal_part),
            refused_part: refused_part(&seconds),
            windows: windows.map(|window| window.iter().map(|rate| rate.units).collect()).collect(),
        };
        (self.say)(&outcome.line());
        Ok(outcome)
    }
}
