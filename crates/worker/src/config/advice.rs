//! Settings that can be used and that an operator may not want: said by `sluicegate check`, never an error. **Pure.**

use std::time::Duration;

use super::{Config, duration_text};
use crate::budget::resident_bytes;

/// The promise: an event is queryable so long after it was published.
const PROMISE: Duration = Duration::from_secs(300);
/// `terminationGracePeriodSeconds` of a pod that says nothing (Kubernetes, pod lifecycle).
const POD_GRACE: Duration = Duration::from_secs(30);
/// Write units a second of one partition key (DynamoDB developer guide, 1,000 for a partition).
const PARTITION_WCU: u64 = 1_000;

/// What a configuration comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Longest time from a worker's death until its shards are taken, while reads of the worker table answer.
    pub failover_within: Duration,
    /// Longest time until an event is durable if its worker dies just before, and the table keeps up.
    pub durable_within: Duration,
    /// Most memory a worker with so many shards keeps resident.
    pub resident_bytes: u64,
    /// What a stop takes at most; a pod's grace period must be longer.
    pub stops_within: Duration,
    /// Heartbeats of one worker in a minute.
    pub heartbeats_per_minute: u64,
}

impl Config {
    /// What this configuration comes to for a worker with so many shards.
    pub fn outcome(&self, shards: usize) -> Outcome {
        let settings = &self.settings;
        let failover_within = settings.failover_time + Duration::from_secs(1);
        let beats =
            60_000 / u64::try_from((settings.failover_time / 3).as_millis()).unwrap_or(u64::MAX).max(1);
        Outcome {
            failover_within,
            durable_within: settings.cut.max_age * 2 + failover_within,
            resident_bytes: resident_bytes(settings.buffer_bytes, shards),
            stops_within: settings.drain_timeout,
            heartbeats_per_minute: beats,
        }
    }

    /// What an operator should know of it.
    pub fn advice(&self) -> Vec<String> {
        let settings = &self.settings;
        let outcome = self.outcome(1);
        let mut advice = Vec::new();
        if outcome.durable_within > PROMISE {
            advice.push(format!(
                "an event whose worker dies may take {} until it is queryable, more than five minutes: lower max_batch_age ({}) or failover_time ({})",
                duration_text(outcome.durable_within),
                duration_text(settings.cut.max_age),
                duration_text(settings.failover_time),
            ));
        }
        if settings.drain_timeout >= POD_GRACE {
            advice.push(format!(
                "drain_timeout is {}: a pod is killed after 30s unless terminationGracePeriodSeconds is longer",
                duration_text(settings.drain_timeout),
            ));
        }
        match settings.write_budget {
            None => advice.push(
                "write_budget_wcu is 0: the fleet finds the table's rate by being throttled, and other writers with it; give the table's capacity".to_owned(),
            ),
            Some(budget) => {
                let (units, spread) = (budget.total_milli / 1_000, u64::from(settings.parameters.spread));
                if units > spread * PARTITION_WCU {
                    advice.push(format!(
                        "spread is {spread}: one hot key is written at {} write units a second at most, and write_budget_wcu is {units}; spread = 0 chooses enough",
                        spread * PARTITION_WCU,
                    ));
                }
            }
        }
        if settings.accept_gap {
            advice.push(
                "accept_gap is set: what retention takes is given up and counted, and no shard stops for it"
                    .to_owned(),
            );
        }
        if settings.failover_time < Duration::from_secs(3) {
            advice.push(format!(
                "failover_time is {}: a worker that stands still for longer, for one slow disk or a busy node, loses its shards",
                duration_text(settings.failover_time),
            ));
        }
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&'static str, &str)]) -> Config {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Config::load(None, &pairs).unwrap()
    }

    #[test]
    fn a_configuration_says_what_it_comes_to() {
        let outcome = config(&[]).outcome(16);
        assert_eq!(outcome.failover_within, Duration::from_secs(11));
        assert_eq!(outcome.durable_within, Duration::from_secs(51));
        assert_eq!((outcome.resident_bytes >> 20, outcome.heartbeats_per_minute), (385, 18));
    }

    #[test]
    fn advice_names_the_setting_and_what_to_do() {
        let one = |pairs: &[(&'static str, &str)], wanted: &str| {
            let advice = config(pairs).advice();
            assert!(advice.iter().any(|line| line.contains(wanted)), "{wanted}: {advice:?}");
        };
        let quiet = [("write_budget_wcu", "4000")];
        assert_eq!(config(&quiet).advice(), Vec::<String>::new());
        one(&[], "write_budget_wcu is 0");
        one(&[("write_budget_wcu", "4000"), ("spread", "2")], "spread is 2");
        one(&[("max_batch_age", "2m"), ("failover_time", "2m")], "lower max_batch_age (2m)");
        one(&[("drain_timeout", "40s")], "terminationGracePeriodSeconds");
        one(&[("accept_gap", "true")], "accept_gap is set");
        one(&[("failover_time", "2s")], "failover_time is 2s");
    }
}
