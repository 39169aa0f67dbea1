//! `sluicegate dead-letters`: events that the table rejected, and bringing them home.

mod list;
mod purge;
mod redrive;
mod show;

use std::sync::Arc;

use clap::Subcommand;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Serialize;
use sluicegate_checkpoint::{ArrivalMillis, RetryPolicy};
use sluicegate_sink::dead_letter::{DeadLetters, LetterCause, LetterHeader, LetterId};
use sluicegate_sink::item::ItemKey;
use sluicegate_sink::store::StoreError;

use crate::app;
use crate::aws::{Aws, AwsArgs};
use crate::aws_names;
use crate::exit::bad_config;

/// See the events that can never be stored with their batch, and store them again
///
/// An event that the table rejects for good does not stop its shard: it goes to the dead letters, whole, and the shard
/// goes on. So does one that cannot be read, where unreadable = dead-letter is set. Once the cause is mended, `redrive` stores it after all; readers then find it in its place.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  sluicegate dead-letters list    --application billing
  sluicegate dead-letters show    --application billing shardId-000000000003:49590338271490256608559692538361571095
  sluicegate dead-letters redrive --application billing --all --dry-run
  sluicegate dead-letters redrive --application billing --all
  sluicegate dead-letters purge   --application billing --cause unreadable --until 2026-01-31T00:00:00Z --dry-run";

#[derive(Debug, Subcommand)]
enum Command {
    /// Print all letters
    List(list::Args),
    /// Print one letter with its payload
    Show(show::Args),
    /// Store events again, and mark their letters
    Redrive(redrive::Args),
    /// Delete letters
    Purge(purge::Args),
}

/// Runs a subcommand.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List(args) => list::run(args).await,
        Command::Show(args) => show::run(args).await,
        Command::Redrive(args) => redrive::run(args).await,
        Command::Purge(args) => purge::run(args).await,
    }
}

/// Which table, and how it is reached.
#[derive(Debug, clap::Args)]
struct LettersArgs {
    /// Application whose letters they are
    #[arg(long, required_unless_present = "dead_letters", value_parser = aws_names::application)]
    application: Option<String>,
    /// Dead-letter table [default: the application's name and `-dead-letters`]
    #[arg(long, value_name = "TABLE", value_parser = aws_names::table)]
    dead_letters: Option<String>,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Which of the letters.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only those of this cause: rejected (by the table) or unreadable
    #[arg(long)]
    cause: Option<LetterCause>,
    /// Only those that were put at this time or later, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<ArrivalMillis>,
    /// Only those that were put before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<ArrivalMillis>,
}

impl Which {
    /// Whether a letter is one of them.
    fn takes(&self, letter: &LetterHeader) -> bool {
        self.cause.is_none_or(|cause| letter.cause == cause)
            && self.since.is_none_or(|since| letter.put_at >= since)
            && self.until.is_none_or(|until| letter.put_at < until)
    }
}

/// A time as people write it.
fn time(text: &str) -> Result<ArrivalMillis, String> {
    let why = || format!("`{text}` is not a time: write one such as 2026-01-31T12:00:00Z");
    let time = humantime::parse_rfc3339_weak(text).map_err(|_no_time| why())?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_before_1970| why())?;
    i64::try_from(since.as_millis()).map(ArrivalMillis).map_err(|_too_late| why())
}

/// The table of letters, as a command asks it.
struct Letters {
    aws: Aws,
    table: Arc<dyn DeadLetters>,
    name: String,
}

/// Attempts at one call before a command gives up.
const ATTEMPTS: u32 = 8;

/// Letters as they are named on the command line.
fn named(letters: &[String]) -> anyhow::Result<Vec<LetterId>> {
    letters.iter().map(|name| name.parse().map_err(bad_config)).collect()
}

impl Letters {
    /// Those that are wanted, in order.
    async fn that(&self, wanted: impl Fn(&LetterHeader) -> bool) -> anyhow::Result<Vec<LetterId>> {
        let mut letters = self.all().await?;
        letters.retain(wanted);
        Ok(letters.into_iter().map(|letter| letter.id).collect())
    }

    async fn open(args: &LettersArgs) -> anyhow::Result<Self> {
        let aws = Aws::load(&args.aws).await?;
        let of_application = args.application.as_deref().map(app::default_dead_letters);
        let name = args.dead_letters.clone().or(of_application).unwrap_or_default();
        Ok(Self { table: app::dead_letters(&aws, &name), aws, name })
    }

    /// Asks the table, again while it throttles or does not answer.
    async fn ask<T>(
        &self,
        mut attempt: impl AsyncFnMut(&dyn DeadLetters) -> Result<T, StoreError>,
    ) -> anyhow::Result<T> {
        let (mut delays, mut rng) = (RetryPolicy::AWS.delays(), SmallRng::from_os_rng());
        let mut attempts = 1;
        loop {
            let error = match attempt(self.table.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match delays.after(error.retry(), &mut rng).filter(|_| attempts < ATTEMPTS) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(anyhow::Error::new(error).context(format!("table `{}`", self.name))),
            }
            attempts += 1;
        }
    }

    /// The headers of all letters, in the order of shards and of each shard.
    async fn all(&self) -> anyhow::Result<Vec<LetterHeader>> {
        let (mut all, mut behind): (Vec<LetterHeader>, Option<ItemKey>) = (Vec::new(), None);
        loop {
            let page = self.ask(async |table| table.list(behind.as_ref()).await).await?;
            all.extend(page.letters);
            behind = page.next;
            if behind.is_none() {
                break;
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }
}

/// A letter as machines get it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    letter: String,
    shard: &'a str,
    sequence_number: &'a str,
    sub_sequence_number: u64,
    /// `open` or `redriven`.
    state: &'static str,
    /// `rejected` or `unreadable`.
    cause: &'static str,
    why: &'a str,
    key: &'a str,
    partition_key: &'a str,
    bytes: u64,
    arrived_ms: i64,
    epoch: u32,
    batch_first: &'a str,
    batch_last: &'a str,
    worker: &'a str,
    put_at_ms: i64,
    redriven_at_ms: Option<i64>,
    expires_s: Option<i64>,
}

impl<'a> Shown<'a> {
    fn of(header: &'a LetterHeader) -> Self {
        Self {
            letter: header.id.to_string(),
            shard: header.id.shard.as_str(),
            sequence_number: header.id.sequence_number.as_str(),
            sub_sequence_number: header.id.sub_sequence_number.0,
            state: if header.redriven_at.is_some() { "redriven" } else { "open" },
            cause: header.cause.name(),
            why: &header.why,
            key: &header.aggregate_key,
            partition_key: &header.partition_key,
            bytes: header.data_bytes,
            arrived_ms: header.arrival.0,
            epoch: header.epoch,
            batch_first: header.batch_first.as_str(),
            batch_last: header.batch_last.as_str(),
            worker: &header.worker,
            put_at_ms: header.put_at.0,
            redriven_at_ms: header.redriven_at.map(|at| at.0),
            expires_s: header.expires,
        }
    }
}
