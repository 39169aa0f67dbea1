//! Settings that can be used and that an operator may not want: said by `sluicegate check`, never an error. **Pure.**

use std::time::Duration;

use sluicegate_checkpoint::AggregateKey;
use sluicegate_lease::pace::{AtRest, at_rest};

use super::{Config, duration_text};
use crate::budget::resident_bytes;
use crate::consumer::judgement::ForeignUserRecords;
use crate::stream::Distribution;
use crate::write_flow::BudgetChoice;

/// The promise: an event is queryable so long after it was published.
const PROMISE: Duration = Duration::from_secs(300);
/// `terminationGracePeriodSeconds` of a pod that says nothing (Kubernetes, pod lifecycle).
const POD_GRACE: Duration = Duration::from_secs(30);
/// Write units a second of one partition key (DynamoDB developer guide, 1,000 for a partition).
const PARTITION_WCU: u64 = 1_000;
/// DynamoDB's list prices in us-east-1, in dollars: a million write and read units on demand, and a provisioned write unit a
/// second for a month of 730 hours (docs/sizing.md says from where).
const MILLION_WRITES: f64 = 0.625;
const MILLION_READS: f64 = 0.125;
const PROVISIONED_WRITE_UNIT: f64 = 0.4745;
const MILLION_SECONDS_A_MONTH: f64 = 730.0 * 3_600.0 / 1e6;

/// What a configuration comes to.
#[derive(Debug, Clone, PartialEq)]
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
    /// What the fleet takes of its lease and worker table while nothing happens.
    pub at_rest: AtRest,
    /// Lease writes a second while all shards carry events and batches are closed by age: an announce each, and a commit if
    /// that does not wait for the next.
    pub lease_writes_under_load: f64,
    /// What both cost in a month on demand, in dollars: at rest, and under load.
    pub lease_dollars: (f64, f64),
    /// What a table provisioned for the write budget costs in a month, in dollars.
    pub events_dollars: Option<f64>,
}

impl Config {
    /// What this configuration comes to for so many workers with so many shards each.
    pub fn outcome(&self, shards: usize, workers: u32) -> Outcome {
        let settings = &self.settings;
        let leases = u32::try_from(shards).unwrap_or(u32::MAX).saturating_mul(workers);
        let at_rest = at_rest(leases, workers, settings.failover_time, Some(settings.scan_budget));
        let writes_a_batch = if settings.commit_delay < settings.cut.max_age { 2.0 } else { 1.0 };
        let lease_writes_under_load = writes_a_batch * f64::from(leases) / settings.cut.max_age.as_secs_f64();
        let dollars =
            |writes: f64| MILLION_SECONDS_A_MONTH * (writes * MILLION_WRITES + at_rest.reads * MILLION_READS);
        let budget = settings.write_budget.fixed().map(|budget| budget.total_milli / 1_000);
        let budget = budget.map(|units| f64::from(u32::try_from(units).unwrap_or(u32::MAX)));
        let failover_within = settings.failover_time + Duration::from_secs(1);
        let beats =
            60_000 / u64::try_from((settings.failover_time / 3).as_millis()).unwrap_or(u64::MAX).max(1);
        Outcome {
            failover_within,
            durable_within: settings.cut.max_age * 2 + failover_within,
            resident_bytes: resident_bytes(settings.buffer_bytes, shards),
            stops_within: settings.drain_timeout,
            heartbeats_per_minute: beats,
            at_rest,
            lease_writes_under_load,
            lease_dollars: (dollars(at_rest.writes), dollars(at_rest.writes + lease_writes_under_load)),
            events_dollars: budget.map(|units| units * PROVISIONED_WRITE_UNIT),
        }
    }

    /// What an operator should know of it, on a stream whose records are distributed like this, if that is known.
    pub fn advice(&self, distribution: Option<Distribution>) -> Vec<String> {
        let settings = &self.settings;
        let outcome = self.outcome(1, 1);
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
            BudgetChoice::None => advice.push(
                "write_budget_wcu is 0: the fleet finds the table's rate by being throttled, and other writers with it; auto takes what the table says".to_owned(),
            ),
            BudgetChoice::Auto => {}
            BudgetChoice::Fixed(budget) => {
                let (units, spread) = (budget.total_milli / 1_000, u64::from(settings.parameters.spread));
                if units > spread * PARTITION_WCU {
                    advice.push(format!(
                        "spread is {spread}: one hot key is written at {} write units a second at most, and write_budget_wcu is {units}; spread = 0 chooses enough",
                        spread * PARTITION_WCU,
                    ));
                }
            }
        }
        if distribution == Some(Distribution::Auto) {
            if settings.parameters.aggregate_key == AggregateKey::PartitionKey {
                advice.push(
                    "the stream distributes records itself (RecordDistributionStrategy AUTO), and records may have no partition key: all of those are stored under one fallback key unless aggregate_key is a template over a field of the events".to_owned(),
                );
            }
            if settings.foreign_user_records == ForeignUserRecords::Drop {
                advice.push(
                    "foreign_user_records is drop, and the stream distributes records itself: hash keys are not judged on it, and all user records are stored".to_owned(),
                );
            }
        } else if settings.foreign_user_records == ForeignUserRecords::Drop {
            advice.push(
                "foreign_user_records is drop: what any library but the native KPL puts into one aggregate for several shards is left out, counted, and nowhere else".to_owned(),
            );
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
        let outcome = config(&[]).outcome(16, 2);
        assert_eq!(outcome.failover_within, Duration::from_secs(11));
        assert_eq!(outcome.durable_within, Duration::from_secs(51));
        assert_eq!((outcome.resident_bytes >> 20, outcome.heartbeats_per_minute), (385, 18));
        assert_eq!((outcome.lease_writes_under_load, outcome.events_dollars), (3.2, None));
    }

    /// The examples of docs/sizing.md.
    #[test]
    fn a_configuration_says_what_it_costs() {
        let budget = [("write_budget_wcu", "400")];
        for (shards, workers, at_rest) in [(5, 2, 2.4), (100, 10, 48.0), (500, 20, 181.0)] {
            let outcome = config(&budget).outcome(shards, workers);
            let (rest, load) = outcome.lease_dollars;
            assert!((rest / at_rest - 1.0).abs() < 0.15, "{rest} for {at_rest}");
            assert!(load > rest);
            assert!((outcome.events_dollars.unwrap() - 189.8).abs() < 0.1);
        }
    }

    #[test]
    fn on_a_stream_that_distributes_by_itself_keys_of_records_are_spoken_of() {
        let quiet = ("write_budget_wcu", "4000");
        let auto = |pairs: &[(&'static str, &str)]| config(pairs).advice(Some(Distribution::Auto));
        assert!(auto(&[quiet])[0].contains("one fallback key unless aggregate_key is a template"));
        let template = ("aggregate_key", "{/carrier}");
        assert_eq!(auto(&[quiet, template]), Vec::<String>::new());
        assert!(auto(&[quiet, template, ("foreign_user_records", "drop")])[0].contains("not judged"));
        assert_eq!(config(&[quiet]).advice(Some(Distribution::UserPartitionKey)), Vec::<String>::new());
    }

    #[test]
    fn advice_names_the_setting_and_what_to_do() {
        let one = |pairs: &[(&'static str, &str)], wanted: &str| {
            let advice = config(pairs).advice(None);
            assert!(advice.iter().any(|line| line.contains(wanted)), "{wanted}: {advice:?}");
        };
        let quiet = [("write_budget_wcu", "4000")];
        assert_eq!(config(&quiet).advice(None), Vec::<String>::new());
        one(&[("write_budget_wcu", "0")], "write_budget_wcu is 0");
        one(&[("write_budget_wcu", "4000"), ("spread", "2")], "spread is 2");
        one(&[("max_batch_age", "2m"), ("failover_time", "2m")], "lower max_batch_age (2m)");
        one(&[("drain_timeout", "40s")], "terminationGracePeriodSeconds");
        one(&[("accept_gap", "true")], "accept_gap is set");
        one(&[("foreign_user_records", "drop")], "foreign_user_records is drop");
        one(&[("failover_time", "2s")], "failover_time is 2s");
    }
}
