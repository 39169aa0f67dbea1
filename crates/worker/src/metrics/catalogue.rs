//! Makes metrics and remembers how each is described: the table of `docs/metrics.md` is made of that.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// What our names begin with.
const PREFIX: &str = "sluicegate_";

/// How a metric is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its whole name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The labels whose values vary.
    pub labels: Vec<String>,
    /// What it is, and what to do about it.
    pub help: String,
}

/// A registry, and what is in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalogue {
    pub(super) registry: Registry,
    described: Arc<Mutex<Vec<Described>>>,
}

type Made<M> = prometheus::Result<M>;

impl Catalogue {
    /// All descriptions, by name.
    pub(super) fn described(&self) -> Vec<Described> {
        let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner).clone();
        described.sort_by(|a, b| a.name.cmp(&b.name));
        described
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Made<IntCounter> {
        self.added(IntCounter::with_opts(options(name, help)), "counter")
    }

    /// A counter of what comes in parts.
    pub(super) fn sum(&self, name: &str, help: &str) -> Made<Counter> {
        self.added(Counter::with_opts(options(name, help)), "counter")
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
        self.added(IntCounterVec::new(options(name, help), labels), "counter")
    }

    pub(super) fn count(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.added(IntGauge::with_opts(options(name, help)), "gauge")
    }

    pub(super) fn counts(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.added(IntGaugeVec::new(options(name, help), labels), "gauge")
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Made<Gauge> {
        self.added(Gauge::with_opts(options(name, help)), "gauge")
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<GaugeVec> {
        self.added(GaugeVec::new(options(name, help), labels), "gauge")
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Made<Histogram> {
        let options = HistogramOpts::from(options(name, help)).buckets(buckets);
        self.added(Histogram::with_opts(options), "histogram")
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
        labels: &[&str],
    ) -> Made<HistogramVec> {
        let options = HistogramOpts::from(options(name, help)).buckets(buckets);
        self.added(HistogramVec::new(options, labels), "histogram")
    }

    /// What the operating system tells of the process, where it does (Linux).
    pub(super) fn process(&self) -> Made<()> {
        #[cfg(target_os = "linux")]
        {
            let process = prometheus::process_collector::ProcessCollector::for_self();
            for about in process.desc() {
                let kind = if about.fq_name.ends_with("_total") { "counter" } else { "gauge" };
                self.describe(about, kind);
            }
            self.registry.register(Box::new(process))?;
        }
        Ok(())
    }

    fn added<M: Collector + Clone + 'static>(&self, metric: Made<M>, kind: &'static str) -> Made<M> {
        let metric = metric?;
        for about in metric.desc() {
            self.describe(about, kind);
        }
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn describe(&self, about: &prometheus::core::Desc, kind: &'static str) {
        let described = Described {
            name: about.fq_name.clone(),
            kind,
            labels: about.variable_labels.clone(),
            help: about.help.clone(),
        };
        self.described.lock().unwrap_or_else(PoisonError::into_inner).push(described);
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}{name}"), help)
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use crate::Metrics;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    const MARKS: [&str; 2] = ["<!-- metrics -->\n", "<!-- /metrics -->"];

    /// The table as it should be.
    fn table() -> String {
        let mut table = "| metric | kind | labels | what it is |\n| --- | --- | --- | --- |\n".to_owned();
        for metric in Metrics::new().unwrap().described() {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind, labels) = (metric.name, metric.kind, labels.join(", "));
            table.push_str(&format!(
                "| `{name}` | {kind} | {labels} | {} |\n",
                metric.help.replace('|', "\\|")
            ));
        }
        table
    }

    /// The page in three parts: before the table, the table, behind it.
    fn parts(page: &str) -> (&str, &str, &str) {
        let (before, rest) = page.split_once(MARKS[0]).unwrap();
        let (table, behind) = rest.split_once(MARKS[1]).unwrap();
        (before, table, behind)
    }

    #[test]
    fn the_page_lists_the_metrics_that_a_worker_exports() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        assert!(
            parts(&page).1 == table(),
            "docs/metrics.md differs from the code; write it anew: cargo test -p sluicegate-worker --lib write_the_metrics_page -- --ignored"
        );
    }

    #[test]
    #[ignore = "writes docs/metrics.md"]
    fn write_the_metrics_page() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (before, _, behind) = parts(&page);
        std::fs::write(PAGE, format!("{before}{}{}{}{behind}", MARKS[0], table(), MARKS[1])).unwrap();
    }

    #[test]
    fn every_help_says_something_and_names_follow_the_conventions() {
        for metric in Metrics::new().unwrap().described() {
            let ours = metric.name.starts_with("sluicegate_");
            assert!(ours || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.kind == "counter", metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.help.len() > 10 && metric.help.ends_with('.'), "{}: {}", metric.name, metric.help);
            for unit in ["millis", "_ms", "minutes", "_kb", "_mb"] {
                assert!(!metric.name.contains(unit), "{}", metric.name);
            }
        }
    }
}
