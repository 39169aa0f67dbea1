//! Which faults there are, and which of them befall a request. Pure.

use std::time::Duration;

use super::draw::Draws;
use crate::config::Service;

/// Deviations that lie between the median and the 99th percentile of a normal distribution.
const P99_DEVIATIONS: f64 = 2.326_347_874;
/// No answer is delayed for longer, whatever is drawn, and none is withheld for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Faults to inject, in order. [`FaultScript::parse`] reads one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultScript {
    /// What the random numbers follow from, unless another seed is given with the script.
    pub seed: Option<u64>,
    /// The faults. Delays of all that apply add up; of refusals and losses the first that applies counts.
    pub faults: Vec<Fault>,
}

/// One fault: whom it befalls, when, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The service, or both.
    pub service: Option<Service>,
    /// The operations, by their API names; all if empty.
    pub operations: Vec<String>,
    /// The table or stream, or any. A request that names several is befallen if one of them is this.
    pub resource: Option<String>,
    /// When it begins, after the script was installed.
    pub from: Duration,
    /// When it ends, after the script was installed; never if absent.
    pub until: Option<Duration>,
    /// What happens.
    pub effect: Effect,
}

/// What a fault does to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// It waits before it is carried out.
    Latency(Latency),
    /// This share of requests is refused and not carried out.
    Errors {
        /// From 0 to 1.
        rate: f64,
        /// With what.
        with: Failure,
    },
    /// No request is carried out.
    Outage(Outage),
    /// This share of requests is carried out, but the connection is closed instead of the answer being sent.
    LostAnswers {
        /// From 0 to 1.
        rate: f64,
    },
    /// This share of the items of each BatchWriteItem comes back as unprocessed.
    Unprocessed {
        /// From 0 to 1.
        rate: f64,
    },
    /// Puts of items that hold these bytes in a string or binary attribute, at any depth, are refused as invalid. They are
    /// also found inside a zstandard frame that an attribute begins with.
    RejectItems {
        /// The bytes.
        holding: Vec<u8>,
    },
}

/// How long a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// Always as long.
    Fixed(Duration),
    /// Anything between, equally likely.
    Between(Duration, Duration),
    /// Lognormal: half of the requests wait at most `p50`, 99 of 100 at most `p99`.
    Quantiles {
        /// The median.
        p50: Duration,
        /// The 99th percentile.
        p99: Duration,
    },
}

/// With what a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The service's internal error, status 500.
    Internal,
    /// Service unavailable, status 503.
    Unavailable,
    /// As if a limit were exceeded, status 400.
    Throttle,
}

/// How a service is out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Every request is answered with status 503.
    Refuse,
    /// No request is answered: each waits until the outage ends, five minutes at most, and then its connection is closed.
    Silence,
}

/// A request, as far as faults are concerned.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'a> {
    pub(crate) service: Service,
    pub(crate) operation: &'a str,
    /// Tables or streams.
    pub(crate) resources: Vec<String>,
}

/// What is to happen to a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) outcome: Outcome,
    pub(crate) tampering: Tampering,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    #[default]
    Answered,
    Refused(Failure),
    Silence(Duration),
    AnswerLost,
}

/// What happens to the items of a request that is carried out.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tampering {
    /// None of its writes fits a limit.
    pub(crate) throttled: bool,
    /// The share of items that come back as unprocessed, and what decides of each.
    pub(crate) unprocessed: Option<(f64, Draws)>,
    /// Items that hold one of these are refused.
    pub(crate) rejected: Vec<Vec<u8>>,
}

impl FaultScript {
    /// Whether any fault asks for the table or stream of a request.
    pub(crate) fn asks_for_resources(&self) -> bool {
        self.faults.iter().any(|fault| fault.resource.is_some())
    }

    /// What befalls a request that comes so long after the script was installed. `draws` gives the numbers for the fault of
    /// this index; it is asked once for each fault that the request meets.
    pub(crate) fn plan(
        &self,
        asked: &Asked<'_>,
        elapsed: Duration,
        mut draws: impl FnMut(usize) -> Draws,
    ) -> Plan {
        let mut plan = Plan::default();
        for (index, fault) in self.faults.iter().enumerate() {
            if fault.befalls(asked, elapsed) {
                plan.add(fault, elapsed, draws(index));
            }
        }
        plan
    }
}

impl Fault {
    fn befalls(&self, asked: &Asked<'_>, elapsed: Duration) -> bool {
        let service = self.service.is_none_or(|service| service == asked.service);
        let operation =
            self.operations.is_empty() || self.operations.iter().any(|name| name == asked.operation);
        let resource = self.resource.as_ref().is_none_or(|name| asked.resources.contains(name));
        let time = elapsed >= self.from && self.until.is_none_or(|until| elapsed < until);
        service && operation && resource && time
    }
}

impl Plan {
    fn add(&mut self, fault: &Fault, elapsed: Duration, mut draws: Draws) {
        match &fault.effect {
            Effect::Latency(latency) => {
                self.delay = self.delay.saturating_add(latency.draw(&mut draws)).min(LONGEST_WAIT);
            }
            Effect::Errors { rate, with } if draws.hits(*rate) => self.end(Outcome::Refused(*with)),
            Effect::LostAnswers { rate } if draws.hits(*rate) => self.end(Outcome::AnswerLost),
            Effect::Errors { .. } | Effect::LostAnswers { .. } => {}
            Effect::Outage(Outage::Refuse) => self.end(Outcome::Refused(Failure::Unavailable)),
            Effect::Outage(Outage::Silence) => {
                let rest = fault.until.map_or(LONGEST_WAIT, |until| until.saturating_sub(elapsed));
                self.end(Outcome::Silence(rest.min(LONGEST_WAIT)));
            }
            Effect::Unprocessed { rate } => self.tampering.unprocessed = Some((*rate, draws)),
            Effect::RejectItems { holding } => self.tampering.rejected.push(holding.clone()),
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if self.outcome == Outcome::Answered {
            self.outcome = outcome;
        }
    }
}

impl Latency {
    fn draw(self, draws: &mut Draws) -> Duration {
        match self {
            Self::Fixed(duration) => duration,
            Self::Between(from, to) => from + to.saturating_sub(from).mul_f64(draws.fraction()),
            Self::Quantiles { p50, p99 } => {
                let deviation = (p99.as_secs_f64() / p50.as_secs_f64()).ln() / P99_DEVIATIONS;
                let seconds = p50.as_secs_f64() * (deviation * draws.normal()).exp();
                Duration::try_from_secs_f64(seconds).map_or(LONGEST_WAIT, |wait| wait.min(LONGEST_WAIT))
            }
        }
    }
}

#[cfg(test)]
mod tests;
