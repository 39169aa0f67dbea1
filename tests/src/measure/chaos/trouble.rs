//! How the backend misbehaves, and the words for it. **Pure.**

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::harness::backend::STREAM;
use crate::harness::fleet::APPLICATION;

/// Whose requests go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// Those to the lease table.
    Leases,
    /// Those to the worker table.
    Workers,
    /// Those to the analytics table.
    Events,
    /// Those to the stream, the producers' too.
    Stream,
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Leases, Self::Workers, Self::Events, Self::Stream];

    /// What a fault of its requests says they are. Resharding is not among those of the stream: it is what the script
    /// itself does, once.
    fn requests(self) -> String {
        match self {
            Self::Leases => format!("table = \"{APPLICATION}\"\n"),
            Self::Workers => format!("table = \"{APPLICATION}-workers\"\n"),
            Self::Events => format!("table = \"{APPLICATION}-events\"\n"),
            Self::Stream => format!(
                "stream = \"{STREAM}\"\noperations = [\"GetRecords\", \"GetShardIterator\", \"ListShards\", \"PutRecords\"]\n"
            ),
        }
    }
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// The analytics table takes nothing: it refuses, or does not answer.
    Outage {
        /// Whether it does not answer.
        silent: bool,
    },
    /// Requests take long.
    Latency(Victim),
    /// Some requests are carried out and not answered.
    Lost(Victim),
    /// Some requests are throttled.
    Throttled(Victim),
    /// Some requests fail.
    Failed(Victim),
    /// Some items of batches come back.
    Unprocessed,
    /// The analytics table takes no more than so many write units a second.
    Limit(u32),
}

/// What the analytics table takes otherwise, in write units a second.
pub const CAPACITY_WCU: u32 = 4_000;

impl Trouble {
    /// Each kind for each of its victims, shuffled.
    pub(super) fn deck(rng: &mut SmallRng) -> Vec<Self> {
        let kinds: [fn(Victim) -> Self; 4] = [Self::Latency, Self::Lost, Self::Throttled, Self::Failed];
        let mut deck: Vec<Self> =
            Victim::ALL.iter().flat_map(|victim| kinds.map(|kind| kind(*victim))).collect();
        deck.extend([Self::Unprocessed, Self::Limit(rng.random_range(20..200))]);
        deck.shuffle(rng);
        deck
    }

    /// Whose requests go wrong.
    pub fn victim(self) -> Victim {
        match self {
            Self::Outage { .. } | Self::Unprocessed | Self::Limit(_) => Victim::Events,
            Self::Latency(victim) | Self::Lost(victim) | Self::Throttled(victim) | Self::Failed(victim) => {
                victim
            }
        }
    }

    /// The fault, as the backend wants it told; none of a limit.
    fn fault(self) -> Option<String> {
        let what = match self {
            Self::Outage { silent: false } => "outage = \"refuse\"",
            Self::Outage { silent: true } => "outage = \"silence\"",
            Self::Latency(_) => "latency = { p50 = \"20ms\", p99 = \"400ms\" }",
            Self::Lost(_) => "lost_answers = 0.1",
            Self::Throttled(_) => "errors = { rate = 0.3, with = \"throttle\" }",
            Self::Failed(_) => "errors = { rate = 0.3, with = \"internal\" }",
            Self::Unprocessed => "unprocessed = 0.3",
            Self::Limit(_) => return None,
        };
        Some(format!("[[fault]]\n{}{what}\n", self.victim().requests()))
    }
}

/// The documents for what goes wrong at once: faults, and limits.
pub fn documents(troubles: &[Trouble], seed: u64) -> (String, String) {
    let faults: String = troubles.iter().filter_map(|trouble| trouble.fault()).collect();
    let limit = |trouble: &Trouble| match trouble {
        Trouble::Limit(wcu) => Some(*wcu),
        Trouble::Outage { .. }
        | Trouble::Latency(_)
        | Trouble::Lost(_)
        | Trouble::Throttled(_)
        | Trouble::Failed(_)
        | Trouble::Unprocessed => None,
    };
    let wcu = troubles.iter().filter_map(limit).min().unwrap_or(CAPACITY_WCU);
    (format!("seed = {seed}\n{faults}"), format!("tables.{APPLICATION}-events.wcu = {wcu}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use sluicegate_local::FaultScript;

    #[test]
    fn the_backend_understands_every_trouble_and_all_at_once() {
        let mut troubles = Trouble::deck(&mut SmallRng::seed_from_u64(1));
        troubles.extend([Trouble::Outage { silent: true }, Trouble::Outage { silent: false }]);
        for trouble in &troubles {
            FaultScript::parse(&documents(&[*trouble], 7).0).unwrap();
        }
        let (faults, limits) = documents(&troubles, 7);
        let script = FaultScript::parse(&faults).unwrap();
        assert_eq!((script.faults.len(), script.seed), (troubles.len() - 1, Some(7)));
        assert!(!limits.contains("4000"), "{limits}");
        assert_eq!(documents(&[], 7).1, "tables.billing-events.wcu = 4000\n");
    }
}
