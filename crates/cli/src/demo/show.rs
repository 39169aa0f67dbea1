//! Live progress: two bars and a line per shard on a terminal, a line a second elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::watch::Snapshot;
use crate::output;

/// What is shown.
pub(super) struct Show {
    screen: Option<Screen>,
    last_line: Option<Instant>,
}

struct Screen {
    all: MultiProgress,
    published: ProgressBar,
    stored: ProgressBar,
    shards: ProgressBar,
}

impl Show {
    pub(super) fn new() -> Self {
        let screen = std::io::stderr().is_terminal().then(Screen::new);
        Self { screen, last_line: None }
    }

    /// Shows a look at the fleet. `total` is known once everything is published.
    pub(super) fn update(&mut self, snapshot: &Snapshot, published: u64, total: u64, elapsed: Duration) {
        let stored = snapshot.events_stored.min(published);
        let rate = rate(stored, elapsed);
        match &self.screen {
            Some(screen) => screen.update(snapshot, published, stored, total, rate),
            None if self.last_line.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) => {
                self.last_line = Some(Instant::now());
                let shards = snapshot.shards.values();
                let owners: Vec<String> = shards.map(|shard| worker_text(shard.worker)).collect();
                output::note(&format!(
                    "{:>5.1} s  published {}  stored {}  {} events/s  owners [{}]",
                    elapsed.as_secs_f64(),
                    HumanCount(published),
                    HumanCount(stored),
                    HumanCount(rate),
                    owners.join(" ")
                ));
            }
            None => {}
        }
    }

    /// Something worth a line of its own.
    pub(super) fn note(&self, text: &str) {
        match &self.screen {
            Some(screen) => drop(screen.all.println(text)),
            None => output::note(text),
        }
    }

    /// Takes the bars away.
    pub(super) fn finish(&self) {
        if let Some(screen) = &self.screen {
            drop(screen.all.clear());
        }
    }
}

impl Screen {
    fn new() -> Self {
        let all = MultiProgress::new();
        let bar = |name: &str, colour: &str| {
            let template = format!("{name:<10}{{bar:40.{colour}}} {{msg}}");
            let style = ProgressStyle::with_template(&template)
                .unwrap_or_else(|_invalid| ProgressStyle::default_bar());
            all.add(ProgressBar::new(1).with_style(style))
        };
        let (published, stored) = (bar("published", "blue"), bar("stored", "green"));
        let text =
            ProgressStyle::with_template("{msg}").unwrap_or_else(|_invalid| ProgressStyle::default_bar());
        let shards = all.add(ProgressBar::new(1).with_style(text));
        Self { all, published, stored, shards }
    }

    fn update(&self, snapshot: &Snapshot, published: u64, stored: u64, total: u64, rate: u64) {
        for (bar, value) in [(&self.published, published), (&self.stored, stored)] {
            bar.set_length(total.max(1));
            bar.set_position(value);
            bar.set_message(HumanCount(value).to_string());
        }
        let mut lines = format!("{} events a second\n", HumanCount(rate));
        for (shard, look) in &snapshot.shards {
            let lag = look.behind_ms.map_or_else(|| "caught up".to_owned(), |ms| format!("{ms} ms behind"));
            let (worker, announced) = (worker_text(look.worker), look.announced);
            lines.push_str(&format!("  {shard}  {worker:<9}  {announced} announced  {lag}\n"));
        }
        self.shards.set_message(lines.trim_end().to_owned());
        self.shards.tick();
    }
}

fn worker_text(worker: Option<usize>) -> String {
    worker.map_or_else(|| "-".to_owned(), |number| format!("worker-{number}"))
}

fn rate(events: u64, elapsed: Duration) -> u64 {
    events * 1_000 / u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1)
}
