//! Faults that are injected into requests, from a script that can be replaced while the backend runs.
//!
//! ```text
//! document.rs  TOML -> script            pure
//! script.rs    script, request -> plan   pure
//! draw.rs      seed -> numbers           pure
//! mod.rs       the script that is installed, since when, and how often each fault was met
//! ```
//!
//! A request meets the faults in the order in which requests arrive, and each meeting has its number; so on one thread the
//! same script, seed and requests give the same faults.

mod document;
mod draw;
mod script;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::clock::Clock;
use crate::config::Service;
pub use document::FaultError;
use draw::Draws;
pub(crate) use script::{Asked, Outcome, Plan, Tampering};
pub use script::{Effect, Failure, Fault, FaultScript, Latency, Outage};

/// A handle on the faults of a backend; clones share them.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    /// Whether there is any fault: what requests look at first.
    any: AtomicBool,
    installed: Mutex<Installed>,
}

#[derive(Debug, Default)]
struct Installed {
    script: FaultScript,
    seed: u64,
    since_ms: u64,
    /// How many requests each fault has met.
    met: Vec<u64>,
}

/// What is installed, as it is told.
#[derive(Serialize)]
struct Told {
    seed: u64,
    elapsed_ms: u64,
    faults: Vec<ToldFault>,
}

#[derive(Serialize)]
struct ToldFault {
    fault: String,
    requests_met: u64,
}

impl Faults {
    /// No faults yet. The times of a script are counted on `clock`.
    pub fn none(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { clock, any: AtomicBool::new(false), installed: Mutex::default() }))
    }

    /// Installs a script in place of the one before; its time begins now. Its own seed counts, else the one installed last.
    pub fn install(&self, script: FaultScript) {
        let since_ms = self.0.clock.now_ms();
        let mut installed = self.installed();
        let seed = script.seed.unwrap_or(installed.seed);
        self.0.any.store(!script.faults.is_empty(), Ordering::Release);
        *installed = Installed { met: vec![0; script.faults.len()], script, seed, since_ms };
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.install(FaultScript::default());
    }

    /// What befalls a request; `resources` finds the tables or streams that it names.
    pub(crate) fn plan(
        &self,
        service: Service,
        operation: &str,
        resources: impl FnOnce() -> Vec<String>,
    ) -> Plan {
        if !self.0.any.load(Ordering::Acquire) {
            return Plan::default();
        }
        let now_ms = self.0.clock.now_ms();
        let mut installed = self.installed();
        let Installed { script, seed, since_ms, met } = &mut *installed;
        let resources = if script.asks_for_resources() { resources() } else { Vec::new() };
        let elapsed = Duration::from_millis(now_ms.saturating_sub(*since_ms));
        script.plan(&Asked { service, operation, resources }, elapsed, |fault| {
            let nth = met.get_mut(fault).map_or(0, |met| {
                *met += 1;
                *met
            });
            Draws::of(*seed, fault as u64, nth)
        })
    }

    /// What is installed, as JSON.
    pub(crate) fn to_json(&self) -> String {
        let now_ms = self.0.clock.now_ms();
        let installed = self.installed();
        let faults = installed.script.faults.iter().zip(&installed.met);
        let told = Told {
            seed: installed.seed,
            elapsed_ms: now_ms.saturating_sub(installed.since_ms),
            faults: faults
                .map(|(fault, met)| ToldFault { fault: format!("{fault:?}"), requests_met: *met })
                .collect(),
        };
        serde_json::to_string(&told).unwrap_or_default()
    }

    fn installed(&self) -> MutexGuard<'_, Installed> {
        self.0.installed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn outcomes(faults: &Faults) -> Vec<Outcome> {
        let plan = |_| faults.plan(Service::DynamoDb, "PutItem", || vec!["t".to_owned()]).outcome;
        (0..50).map(plan).collect()
    }

    #[test]
    fn a_script_counts_from_when_it_was_installed_and_repeats() {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let faults = Faults::none(clock.clone());
        assert!(outcomes(&faults).iter().all(|outcome| *outcome == Outcome::Answered));
        let script = "seed = 3\n[[fault]]\nfrom = '1s'\ntable = 't'\nlost_answers = 0.5";
        faults.install(FaultScript::parse(script).unwrap());
        assert!(outcomes(&faults).iter().all(|outcome| *outcome == Outcome::Answered));
        clock.advance(Duration::from_secs(1));
        let first = outcomes(&faults);
        assert!(first.contains(&Outcome::Answered) && first.contains(&Outcome::AnswerLost));
        assert!(faults.to_json().contains(r#""seed":3,"elapsed_ms":1000"#), "{}", faults.to_json());
        assert!(faults.to_json().contains(r#""requests_met":50"#));
        faults.install(FaultScript::parse(&script.replace("from = '1s'", "")).unwrap());
        assert_eq!(outcomes(&faults), first);
        faults.install(FaultScript {
            seed: Some(4),
            ..FaultScript::parse(&script.replace("from = '1s'", "")).unwrap()
        });
        assert_ne!(outcomes(&faults), first);
        faults.clear();
        assert!(outcomes(&faults).iter().all(|outcome| *outcome == Outcome::Answered));
    }
}
