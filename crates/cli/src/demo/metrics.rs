//! Reads a worker's `/metrics`: the few samples that the demo shows.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Samples by name and labels, as Prometheus' text format writes them (`name{label="value"}`).
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads the text format; what is no sample is passed over.
    pub(super) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// A sample by its whole name; 0 if it is not there.
    pub(super) fn value(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// A counter as a whole number.
    pub(super) fn count(&self, name: &str) -> u64 {
        whole(self.value(name))
    }

    /// A sample in thousandths, as a whole number.
    pub(super) fn milli(&self, name: &str) -> u64 {
        whole((self.value(name) * 1_000.0).round())
    }

    /// The samples of a metric by the value of its one label.
    pub(super) fn by_label(&self, metric: &str) -> BTreeMap<String, f64> {
        let of = |(name, value): (&String, &f64)| {
            let labels = name.strip_prefix(metric)?.strip_prefix('{')?.strip_suffix('}')?;
            let (_, label) = labels.split_once("=\"")?;
            Some((label.trim_end_matches('"').to_owned(), *value))
        };
        self.0.iter().filter_map(of).collect()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is counted is small and not negative"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

/// Upper bounds of a histogram's buckets with their cumulative counts, ascending.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// The buckets of a metric, added to these.
    pub(super) fn add(&mut self, samples: &Samples, metric: &str) {
        let mut buckets: Vec<(f64, f64)> = samples
            .by_label(&format!("{metric}_bucket"))
            .into_iter()
            .map(|(bound, count)| {
                (if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap_or(f64::INFINITY) }, count)
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        if self.0.is_empty() {
            self.0 = buckets;
        } else {
            for (mine, theirs) in self.0.iter_mut().zip(buckets) {
                mine.1 += theirs.1;
            }
        }
    }

    /// The quantile in the histogram's unit: between the bounds of its bucket by the share of its rank.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let total = self.0.last().map_or(0.0, |bucket| bucket.1);
        let rank = total * quantile;
        let (mut low, mut below) = (0.0, 0.0);
        for &(high, count) in &self.0 {
            if count >= rank && count > below {
                let share = (rank - below) / (count - below);
                return if high.is_finite() { low + (high - low) * share } else { low };
            }
            (low, below) = (high, count);
        }
        low
    }
}

/// Longest one scrape takes.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The text at a URL.
pub(super) async fn http_get(url: &str) -> anyhow::Result<String> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let uri = url.parse().context("not a URL")?;
    let get =
        async { Ok::<_, anyhow::Error>(client.get(uri).await?.into_body().collect().await?.to_bytes()) };
    let body = tokio::time::timeout(TIMEOUT, get).await.context("no answer in time")??;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x y\nx_total 3\nbehind{shard=\"shardId-1\"} 250\n\
        lag_bucket{le=\"1\"} 50\nlag_bucket{le=\"2\"} 100\nlag_bucket{le=\"+Inf\"} 100\n";

    #[test]
    fn samples_are_read_by_name_and_label() {
        let samples = Samples::parse(TEXT);
        assert_eq!(samples.count("x_total"), 3);
        assert_eq!(samples.by_label("behind"), BTreeMap::from([("shardId-1".to_owned(), 250.0)]));
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut histogram = Histogram::default();
        histogram.add(&Samples::parse(TEXT), "lag");
        histogram.add(&Samples::parse(TEXT), "lag");
        assert!((histogram.quantile(0.5) - 1.0).abs() < 1e-9);
        assert!((histogram.quantile(0.75) - 1.5).abs() < 1e-9);
        assert!((histogram.quantile(1.0) - 2.0).abs() < 1e-9);
        assert!((Histogram::default().quantile(0.5)).abs() < 1e-9);
    }
}
