//! `sluicegate checkpoint set` and `reset`: positions moved, by the same conditional write that owners make.

use std::io::IsTerminal;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::bail;
use console::Term;
use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber, SubSequenceNumber};
use sluicegate_lease::operator::{Around, Direction, MoveTo, Refusal, children_first, reposition};
use sluicegate_lease::registry::tip;
use sluicegate_lease::{Lease, LeaseKey};
use sluicegate_worker::telemetry::wall_millis;

use super::super::operator::change::{ChangeArgs, Changes, Outcome, Planned, Report, conclude};
use super::super::operator::fleet::{FleetArgs, Look, Tables};
use super::super::operator::names;
use super::super::operator::row::time;
use crate::app;
use crate::exit::bad_config;
use crate::output;

/// What both commands have in common.
#[derive(Debug, clap::Args)]
struct MoveArgs {
    /// All shards, each by itself, children before their parents
    #[arg(long)]
    all: bool,
    /// Keep trying for so long while batches are announced: on a shard that is not busy they are committed within
    /// a second or two
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Do not ask before changing (nobody is asked unless this runs on a terminal)
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    fleet: FleetArgs,
}

/// Count a record, and all before it, as finished
#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true, after_help = RULES)]
pub(crate) struct SetArgs {
    /// Shard, by id or number
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    shard: Option<String>,
    /// Sequence number of a record of that shard, such as `checkpoint get` or an item of the table shows; with :N,
    /// its user records up to the Nth (from 0) of an aggregated record
    #[arg(value_name = "SEQUENCE_NUMBER[:SUB]")]
    at: String,
    #[command(flatten)]
    common: MoveArgs,
}

/// Start again at the oldest record, the tip or a time
#[derive(Debug, clap::Args)]
#[command(after_help = RULES)]
pub(crate) struct ResetArgs {
    /// Shard, by id or number
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    shard: Option<String>,
    /// trim-horizon (the oldest record), latest (needs --stream), or a time: 2026-01-31T12:00:00Z, or epoch seconds
    /// or milliseconds
    #[arg(long, value_name = "WHERE")]
    to: String,
    /// The stream, for --to latest: its own time, less a second, is what is recorded
    #[arg(long)]
    stream: Option<String>,
    #[command(flatten)]
    common: MoveArgs,
}

const RULES: &str = "\
What happens: the row gets the new position, belongs to nobody, and the fleet takes it again from there within
failover_time / 2. Safest is a stopped fleet (sluicegate drain, or scale to 0).
  going forward   what lies between is never delivered
  going back      what lies between is delivered again under the next epoch: it stands in the table twice, and
                  `sluicegate read` yields it twice. Delete the range first if that is not wanted
Refused: while batches are announced (late writes of theirs could replace newer items), for a shard whose child has
begun, a sequence number for a shard whose parent is not finished, and a live owner's row without --force.

Examples:
  sluicegate checkpoint reset --application billing 3 --to trim-horizon --dry-run
  sluicegate checkpoint reset --application billing --all --to latest --stream orders --yes
  sluicegate checkpoint reset --application billing 3 --to 2026-01-31T12:00:00Z --force --wait 30s

Exit codes: 0 all moved or there already, 1 some were left as they are, 64 bad arguments.";

/// Runs `set`.
pub(crate) async fn set(args: SetArgs) -> anyhow::Result<()> {
    let to = record(&args.at)?;
    let tables = Tables::open(&args.common.fleet).await?;
    move_rows(&tables, args.shard.as_deref(), &args.common, &to).await
}

/// Runs `reset`.
pub(crate) async fn reset(args: ResetArgs) -> anyhow::Result<()> {
    let wanted = Wanted::parse(&args.to, wall_millis())?;
    if wanted == Wanted::Latest && args.stream.is_none() {
        return Err(bad_config("--to latest needs --stream: the stream's own time is what is recorded"));
    }
    let tables = Tables::open(&args.common.fleet).await?;
    let to = match (wanted, &args.stream) {
        (Wanted::TrimHorizon, _) => MoveTo::TrimHorizon,
        (Wanted::Time(time), _) => MoveTo::Time(time),
        (Wanted::Latest, stream) => {
            let now = app::stream_time(&tables.aws, stream.as_deref().unwrap_or_default()).await?;
            MoveTo::Tip(tip(now))
        }
    };
    move_rows(&tables, args.shard.as_deref(), &args.common, &to).await
}

async fn move_rows(tables: &Tables, shard: Option<&str>, args: &MoveArgs, to: &MoveTo) -> anyhow::Result<()> {
    let look = tables.look().await?;
    let keys = match shard {
        Some(shard) => vec![names::shard(shard, &look)?],
        None => all(&look)?,
    };
    let decide = |row: &Lease, around: &Around| planned(row, to, around, args.all);
    let changes = Changes { tables, args: &args.change, keys, wait: args.wait, decide: &decide };
    let gone = changes.gone(&look).await?;
    let only = !args.all;
    if args.change.dry_run {
        let reports = changes.preview(&look, &gone);
        reports.iter().try_for_each(|report| report.print(args.change.json, only))?;
        return conclude(&reports);
    }
    if !args.yes && std::io::stdin().is_terminal() {
        confirm(&changes.preview(&look, &gone), args.wait)?;
    }
    let tell = |report: &Report| report.print(args.change.json, only);
    conclude(&changes.apply(&look, &gone, tell).await?)
}

fn all(look: &Look) -> anyhow::Result<Vec<LeaseKey>> {
    if look.leases.is_empty() {
        bail!("there are no lease rows: the application has not started yet");
    }
    Ok(children_first(&look.leases))
}

/// Shows what would change on standard error, and asks.
fn confirm(reports: &[Report], wait: Duration) -> anyhow::Result<()> {
    for report in reports {
        output::note(&report.text());
    }
    let count = reports.iter().filter(|report| report.outcome == Outcome::WouldChange).count();
    let count = if wait.is_zero() { count } else { reports.len() };
    if count == 0 {
        return Ok(());
    }
    let noun = if count == 1 { "shard" } else { "shards" };
    let term = Term::stderr();
    term.write_str(&format!("Move {count} {noun}? [y/N] "))?;
    match term.read_line()?.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was changed"),
    }
}

/// With `--all`, a finished shard is no obstacle on the way to the tip: there is nothing to move.
fn planned(row: &Lease, to: &MoveTo, around: &Around, all: bool) -> Result<Option<Planned>, Refusal> {
    let moved = match reposition(row, to, around) {
        Err(Refusal::Finished) if all => return Ok(None),
        moved => moved?,
    };
    Ok(moved.map(|moved| {
        let epoch = moved.next.pending.state().map_or(0, |state| state.epoch);
        Planned {
            kind: kind(moved.direction),
            means: meaning(moved.direction, row, to, epoch),
            next: moved.next,
            ends_session_of: moved.ends_session_of,
        }
    }))
}

fn kind(direction: Direction) -> &'static str {
    match direction {
        Direction::Start => "start",
        Direction::Forward => "forward",
        Direction::Back => "back",
        Direction::Unknown => "unknown",
    }
}

fn meaning(direction: Direction, row: &Lease, to: &MoveTo, epoch: u32) -> String {
    let target = match to {
        MoveTo::TrimHorizon => "the oldest record".to_owned(),
        MoveTo::Time(at) | MoveTo::Tip(at) => format!("records that arrived at {} or later", time(*at)),
        MoveTo::Behind(sequence_number, _) => format!("what follows {sequence_number}"),
    };
    match direction {
        Direction::Start => format!("nothing of it was finished; reading starts at {target}"),
        Direction::Forward => {
            format!(
                "goes forward to {target}; what lies behind {} is skipped and never delivered",
                row.checkpoint
            )
        }
        Direction::Back => format!(
            "goes back to {target}; up to {} it is delivered again under epoch {epoch}, so it may be stored twice",
            row.checkpoint
        ),
        Direction::Unknown => format!(
            "goes to {target}, under epoch {epoch}; the row does not tell when {} arrived: what lies between is stored twice if it was later, and skipped if it was earlier",
            row.checkpoint
        ),
    }
}

fn record(text: &str) -> anyhow::Result<MoveTo> {
    let (number, sub) = text.split_once(':').unwrap_or((text, "0"));
    let sequence_number = SequenceNumber::parse(number).map_err(|error| {
        bad_config(format!("{error}; for a start use `checkpoint reset --to trim-horizon|latest|TIME`"))
    })?;
    let sub = sub.parse().map_err(|_no_number| {
        bad_config(format!("`{sub}` behind the colon is no number of a user record"))
    })?;
    Ok(MoveTo::Behind(sequence_number, SubSequenceNumber(sub)))
}

/// What `--to` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    TrimHorizon,
    Latest,
    Time(ArrivalMillis),
}

/// Epoch numbers from here on are milliseconds: as seconds, this would be the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;
/// How far a time may lie ahead of this machine's clock: Kinesis refuses to read from the future, so the shard would
/// stand still until then.
const AHEAD_MS: i64 = 60_000;

impl Wanted {
    fn parse(text: &str, now: ArrivalMillis) -> anyhow::Result<Self> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "trim-horizon" => return Ok(Self::TrimHorizon),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        let Some(at) = epoch(text).or_else(|| rfc3339(text)) else {
            return Err(bad_config(format!(
                "--to is `{text}`: give trim-horizon, latest, a time such as 2026-01-31T12:00:00Z, or epoch seconds"
            )));
        };
        if at.0 > now.0.saturating_add(AHEAD_MS) {
            return Err(bad_config(format!("--to is {}: that is still to come", time(at))));
        }
        Ok(Self::Time(at))
    }
}

fn epoch(text: &str) -> Option<ArrivalMillis> {
    let number: i64 = text.parse().ok().filter(|number| *number >= 0)?;
    Some(ArrivalMillis(if number >= MILLISECONDS_FROM { number } else { number * 1_000 }))
}

fn rfc3339(text: &str) -> Option<ArrivalMillis> {
    let at = humantime::parse_rfc3339_weak(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(ArrivalMillis(i64::try_from(at.as_millis()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position, ShardId};

    const NOW: ArrivalMillis = ArrivalMillis(1_800_000_000_000);

    #[test]
    fn a_start_is_a_word_a_time_or_an_epoch_in_either_unit() {
        let at = |text| Wanted::parse(text, NOW).unwrap();
        assert_eq!((at("trim-horizon"), at("TRIM_HORIZON")), (Wanted::TrimHorizon, Wanted::TrimHorizon));
        assert_eq!(at("latest"), Wanted::Latest);
        let expected = Wanted::Time(ArrivalMillis(1_700_000_000_000));
        for text in ["1700000000", "1700000000000", "2023-11-14T22:13:20Z", "2023-11-14 22:13:20"] {
            assert_eq!(at(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_start_or_still_to_come_is_refused() {
        for text in ["yesterday", "", "-5", "LATEST ", "1900000000", "2031-01-01T00:00:00Z"] {
            assert!(Wanted::parse(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn a_record_is_a_sequence_number_with_or_without_a_user_record() {
        let number = SequenceNumber::parse("42").unwrap();
        assert_eq!(record("42").unwrap(), MoveTo::Behind(number.clone(), SubSequenceNumber(0)));
        assert_eq!(record("42:7").unwrap(), MoveTo::Behind(number, SubSequenceNumber(7)));
        for text in ["TRIM_HORIZON", "42:", "42:x", ":1"] {
            assert!(record(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_direction_says_what_it_means() {
        let at = |n: &str| Position::At(SequenceNumber::parse(n).unwrap(), SubSequenceNumber(0));
        let row = Lease::unowned(ShardId::new("s"), at("50"), LeaseState::starting(None));
        let means = |to: &MoveTo| planned(&row, to, &Around::default(), false).unwrap().unwrap().means;
        assert!(means(&record("60").unwrap()).contains("never delivered"));
        let back = means(&MoveTo::TrimHorizon);
        assert!(back.contains("epoch 1") && back.contains("stored twice"), "{back}");
        assert!(means(&MoveTo::Time(NOW)).contains("does not tell when 50 arrived"));
        let ended = Lease { checkpoint: Position::ShardEnd, ..row };
        let tip = MoveTo::Tip(NOW);
        assert!(planned(&ended, &tip, &Around::default(), true).unwrap().is_none());
        assert!(planned(&ended, &tip, &Around::default(), false).is_err());
    }
}
