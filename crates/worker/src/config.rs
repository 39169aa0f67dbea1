//! Configuration: defaults, then a TOML file, then the environment; what is left cannot be wrong.
//!
//! The only place of the program that reads the environment. Each setting has one row in [`SETTINGS`], which is
//! what `sluicegate run --help` points to and what the README's table is checked against.

mod advice;
mod effective;
mod layers;
mod settings;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicegate_checkpoint::parameters::ParametersError;
use sluicegate_checkpoint::transform::SyntaxError;
use sluicegate_checkpoint::{AggregateKey, ArrivalMillis, Codec, PackingParameters, Unreadable};
use sluicegate_lease::{InitialPosition, ScanBudget, WriteBudget};
use thiserror::Error;

use crate::admin::AdminToken;
use crate::consumer::batcher::CutPolicy;
use crate::consumer::judgement::ForeignUserRecords;
use crate::consumer::pace::ReadPolicy;
use crate::telemetry::{LogFormat, is_filter};
use crate::worker::Settings;
use crate::write_flow::BudgetChoice;

use layers::{layers, one_line};

pub use advice::Outcome;
pub use effective::{Effective, Explained, Provenance};
pub use settings::{SETTINGS, Setting};

/// What environment variables of settings begin with: `SLUICEGATE_CFG_FAILOVER_TIME=5s`. Not plain `SLUICEGATE_`,
/// under which Kubernetes injects variables for a service of that name.
pub const ENV_PREFIX: &str = "SLUICEGATE_CFG_";

/// Settings whose values are not told.
const SECRETS: &[&str] = &["admin_token"];

/// The word for no admin token.
const NO_TOKEN: &str = "none";

/// The word for no filter, no projection and no reduction.
const NO_TRANSFORM: &str = "none";

/// A write budget as written: a number, or a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "give auto, a number of write units a second, or 0 for no budget")]
enum RawBudget {
    Units(u64),
    Word(BudgetWord),
}

/// The words for a write budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BudgetWord {
    /// What the table says of itself.
    Auto,
}

impl RawBudget {
    /// The number; none is 0.
    fn units(self) -> u64 {
        match self {
            Self::Units(units) => units,
            Self::Word(BudgetWord::Auto) => 0,
        }
    }

    fn choice(self) -> BudgetChoice {
        match self {
            Self::Units(0) => BudgetChoice::None,
            Self::Units(units) => BudgetChoice::Fixed(WriteBudget::of_units(units)),
            Self::Word(BudgetWord::Auto) => BudgetChoice::Auto,
        }
    }
}

/// What is done with events that cannot be read, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawUnreadable {
    /// Dead letters where fields or reduce would otherwise let a whole event through or lose it, else kept.
    Auto,
    Keep,
    DeadLetter,
}

impl RawUnreadable {
    fn of(self, parameters: &PackingParameters) -> Unreadable {
        let needs_reading = parameters.fields.is_some() || parameters.reduce.is_some();
        match self {
            Self::Auto if needs_reading => Unreadable::DeadLetter,
            Self::Auto | Self::Keep => Unreadable::Keep,
            Self::DeadLetter => Unreadable::DeadLetter,
        }
    }
}

/// The settings as written.
#[derive(Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    initial_position: String,
    #[serde(with = "humantime_serde")]
    failover_time: Duration,
    #[serde(with = "humantime_serde")]
    safety_margin: Duration,
    max_leases_per_worker: usize,
    weigh_by_throughput: bool,
    #[serde(with = "humantime_serde")]
    handoff_deadline: Duration,
    #[serde(with = "humantime_serde")]
    drain_timeout: Duration,
    #[serde(with = "humantime_serde")]
    min_read_interval: Duration,
    #[serde(with = "humantime_serde")]
    idle_read_interval: Duration,
    page_bytes: bytesize::ByteSize,
    max_batch_bytes: bytesize::ByteSize,
    max_batch_records: u64,
    #[serde(with = "humantime_serde")]
    max_batch_age: Duration,
    #[serde(with = "humantime_serde")]
    max_batch_span: Duration,
    max_in_flight: usize,
    #[serde(with = "humantime_serde")]
    commit_delay: Duration,
    aggregate_key: String,
    max_item_bytes: bytesize::ByteSize,
    spread: u32,
    zstd_level: i32,
    ttl_days: u32,
    foreign_user_records: ForeignUserRecords,
    filter: String,
    fields: String,
    reduce: String,
    unreadable: RawUnreadable,
    dead_letter_ttl_days: u32,
    buffer_bytes: bytesize::ByteSize,
    accept_gap: bool,
    write_budget_wcu: RawBudget,
    admin_token: String,
    log: String,
    log_format: LogFormat,
    seed: u64,
}

impl Default for RawConfig {
    fn default() -> Self {
        use bytesize::ByteSize;
        Self {
            initial_position: "TRIM_HORIZON".to_owned(),
            failover_time: Duration::from_secs(10),
            safety_margin: Duration::from_millis(500),
            max_leases_per_worker: 0,
            weigh_by_throughput: false,
            handoff_deadline: Duration::from_millis(500),
            drain_timeout: Duration::from_secs(25),
            min_read_interval: Duration::from_millis(200),
            idle_read_interval: Duration::from_secs(1),
            page_bytes: ByteSize::kib(512),
            max_batch_bytes: ByteSize::mib(16),
            max_batch_records: 100_000,
            max_batch_age: Duration::from_secs(20),
            max_batch_span: Duration::from_secs(60),
            max_in_flight: 4,
            commit_delay: Duration::from_secs(1),
            aggregate_key: AggregateKey::PARTITION_KEY.to_owned(),
            max_item_bytes: ByteSize::b(u64::from(PackingParameters::DEFAULT_ITEM_BYTES)),
            spread: 0,
            zstd_level: 3,
            ttl_days: 0,
            foreign_user_records: ForeignUserRecords::Auto,
            filter: NO_TRANSFORM.to_owned(),
            fields: NO_TRANSFORM.to_owned(),
            reduce: NO_TRANSFORM.to_owned(),
            unreadable: RawUnreadable::Auto,
            dead_letter_ttl_days: 0,
            buffer_bytes: ByteSize::mib(128),
            accept_gap: false,
            write_budget_wcu: RawBudget::Word(BudgetWord::Auto),
            admin_token: NO_TOKEN.to_owned(),
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
            seed: 0,
        }
    }
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the worker goes by.
    pub settings: Settings,
    /// What the admin server asks for; none lets everybody in.
    pub admin_token: Option<AdminToken>,
    /// What is logged.
    pub log: String,
    /// How logs look.
    pub log_format: LogFormat,
    /// Seeds all jitter; none takes one from the operating system.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        // The defaults pass their own check: `tests::defaults_are_valid`.
        Self::checked(RawConfig::default())
            .unwrap_or_else(|_never| unreachable!("defaults are checked by a test"))
    }
}

/// Why a configuration cannot be used. Each says which setting and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Not readable as settings: an unknown key, a value of the wrong form, no such file.
    #[error("configuration: {0}")]
    Unreadable(String),
    /// A value outside its range.
    #[error("{setting} is {given}: give {range}")]
    OutOfRange {
        /// Which.
        setting: &'static str,
        /// What was given.
        given: String,
        /// What is allowed.
        range: &'static str,
    },
    /// Two settings that contradict each other.
    #[error(
        "{small} is {small_value}, which must be less than {large_text} ({large_value}): change one of them"
    )]
    Contradiction {
        /// The one that is too large.
        small: &'static str,
        /// Its value.
        small_value: String,
        /// What it must be below, in words.
        large_text: &'static str,
        /// Its value.
        large_value: String,
    },
    /// The initial position is none.
    #[error("initial_position is `{0}`: give TRIM_HORIZON, LATEST or AT_TIMESTAMP:2026-01-31T12:00:00Z")]
    InitialPosition(String),
    /// The aggregate key is no template.
    #[error("aggregate_key: {0}")]
    AggregateKey(String),
    /// A filter, a list of fields or a reduction is none.
    #[error("{setting} is `{given}`; {error}")]
    Transform {
        /// Which of them.
        setting: &'static str,
        /// What was given.
        given: String,
        /// What is wrong, and where.
        error: SyntaxError,
    },
    /// The packing parameters do not fit.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// More than one of these.
    #[error("{}", joined(.0))]
    Several(Vec<Self>),
}

/// Errors on one line.
fn joined(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<Vec<Self>> for ConfigError {
    fn from(mut errors: Vec<Self>) -> Self {
        match errors.pop() {
            Some(only) if errors.is_empty() => only,
            last => Self::Several(errors.into_iter().chain(last).collect()),
        }
    }
}

/// What is wrong with a configuration, gathered.
#[derive(Debug, Default)]
struct Wrong(Vec<ConfigError>);

impl Wrong {
    /// The value, if it is one; its error is kept.
    fn kept<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }
}

impl Config {
    /// Reads the file, if one is named, over the defaults, the environment over that, and what was given as flags
    /// over all.
    ///
    /// # Errors
    /// See [`ConfigError`]; exit code 64 is for these.
    pub fn load(file: Option<&Path>, overrides: &[(&'static str, String)]) -> Result<Self, ConfigError> {
        let figment = layers(file, overrides)?;
        let raw: RawConfig = figment.extract().map_err(|errors| ConfigError::Unreadable(one_line(errors)))?;
        Self::checked(raw).map_err(ConfigError::from)
    }

    /// All that is wrong, not the first of it.
    fn checked(raw: RawConfig) -> Result<Self, Vec<ConfigError>> {
        let mut wrong = Wrong::default();
        check_durations(&raw, &mut wrong);
        check_sizes(&raw, &mut wrong);
        wrong.kept(check_log(&raw.log));
        let parts = (
            parameters(&raw, &mut wrong),
            wrong.kept(parse_initial_position(&raw.initial_position)),
            wrong.kept(admin_token(&raw.admin_token)),
        );
        match parts {
            (Some(parameters), Some(position), Some(token)) if wrong.0.is_empty() => {
                Ok(Self::of(raw, parameters, position, token))
            }
            _ => Err(wrong.0),
        }
    }

    fn of(
        raw: RawConfig,
        parameters: PackingParameters,
        initial_position: InitialPosition,
        admin_token: Option<AdminToken>,
    ) -> Self {
        let settings = Settings {
            initial_position,
            failover_time: raw.failover_time,
            safety_margin: raw.safety_margin,
            max_leases_per_worker: (raw.max_leases_per_worker > 0).then_some(raw.max_leases_per_worker),
            weigh_by_throughput: raw.weigh_by_throughput,
            scan_budget: ScanBudget::default(),
            handoff_deadline: raw.handoff_deadline,
            drain_timeout: raw.drain_timeout,
            read: ReadPolicy {
                min_interval: raw.min_read_interval,
                idle_interval: raw.idle_read_interval,
                page_bytes: bytes(raw.page_bytes),
            },
            cut: CutPolicy {
                max_bytes: bytes(raw.max_batch_bytes),
                // Two more can be read beside it.
                max_weight: bytes(raw.buffer_bytes) / 3,
                max_records: raw.max_batch_records,
                max_age: raw.max_batch_age,
                max_span: raw.max_batch_span,
            },
            max_in_flight: raw.max_in_flight,
            commit_delay: raw.commit_delay,
            parameters,
            foreign_user_records: raw.foreign_user_records,
            buffer_bytes: bytes(raw.buffer_bytes),
            accept_gap: raw.accept_gap,
            dead_letter_ttl_days: (raw.dead_letter_ttl_days > 0).then_some(raw.dead_letter_ttl_days),
            write_budget: raw.write_budget_wcu.choice(),
        };
        let seed = (raw.seed != 0).then_some(raw.seed);
        Self { settings, admin_token, log: raw.log, log_format: raw.log_format, seed }
    }
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

fn in_range<T: PartialOrd>(
    setting: &'static str,
    value: &T,
    (low, high): (&T, &T),
    text: impl Fn(&T) -> String,
    range: &'static str,
) -> Result<(), ConfigError> {
    if value >= low && value <= high {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange { setting, given: text(value), range })
    }
}

fn check_durations(raw: &RawConfig, wrong: &mut Wrong) {
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let rows = [
        ("failover_time", raw.failover_time, s(1), s(300), "1s to 5m"),
        ("handoff_deadline", raw.handoff_deadline, s(0), s(60), "0s to 1m"),
        ("drain_timeout", raw.drain_timeout, ms(100), s(3_600), "100ms to 1h"),
        ("min_read_interval", raw.min_read_interval, s(0), s(10), "0s to 10s"),
        ("idle_read_interval", raw.idle_read_interval, ms(1), s(60), "1ms to 1m"),
        ("max_batch_age", raw.max_batch_age, ms(10), s(120), "10ms to 2m"),
        ("max_batch_span", raw.max_batch_span, s(1), s(60), "1s to 60s"),
        ("commit_delay", raw.commit_delay, s(0), s(60), "0s to 60s"),
    ];
    for (setting, value, low, high, range) in rows {
        wrong.kept(in_range(setting, &value, (&low, &high), |value| duration_text(*value), range));
    }
    wrong.kept(below("safety_margin", raw.safety_margin, "a third of failover_time", raw.failover_time / 3));
    wrong.kept(below("handoff_deadline", raw.handoff_deadline, "drain_timeout", raw.drain_timeout));
}

fn below(
    small: &'static str,
    value: Duration,
    large_text: &'static str,
    large: Duration,
) -> Result<(), ConfigError> {
    if value < large {
        return Ok(());
    }
    let (small_value, large_value) = (duration_text(value), duration_text(to_millis(large)));
    Err(ConfigError::Contradiction { small, small_value, large_text, large_value })
}

/// A third of ten seconds is 3s 333ms to people.
fn to_millis(value: Duration) -> Duration {
    Duration::from_millis(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
}

fn duration_text(value: Duration) -> String {
    humantime_serde::re::humantime::format_duration(value).to_string()
}

fn check_sizes(raw: &RawConfig, wrong: &mut Wrong) {
    use bytesize::ByteSize;
    let (kib, mib) = (ByteSize::kib, ByteSize::mib);
    let rows = [
        ("page_bytes", raw.page_bytes, kib(64), mib(10), "64KiB to 10MiB"),
        ("max_batch_bytes", raw.max_batch_bytes, kib(64), mib(64), "64KiB to 64MiB"),
        ("max_item_bytes", raw.max_item_bytes, kib(4), kib(400), "4KiB to 400KiB"),
    ];
    for (setting, value, low, high, range) in rows {
        wrong.kept(in_range(setting, &value, (&low, &high), ToString::to_string, range));
    }
    wrong.kept(in_range(
        "max_batch_records",
        &raw.max_batch_records,
        (&1, &10_000_000),
        ToString::to_string,
        "1 to 10000000",
    ));
    wrong.kept(in_range(
        "dead_letter_ttl_days",
        &raw.dead_letter_ttl_days,
        (&0, &36_500),
        ToString::to_string,
        "0 to 36500",
    ));
    wrong.kept(in_range("max_in_flight", &raw.max_in_flight, (&1, &12), ToString::to_string, "1 to 12"));
    if raw.max_batch_bytes.as_u64().saturating_mul(2) > raw.buffer_bytes.as_u64() {
        wrong.0.push(ConfigError::Contradiction {
            small: "max_batch_bytes",
            small_value: raw.max_batch_bytes.to_string(),
            large_text: "half of buffer_bytes",
            large_value: ByteSize::b(raw.buffer_bytes.as_u64() / 2).to_string(),
        });
    }
}

/// A filter that logs nothing because of a slip would say nothing of errors either.
fn check_log(log: &str) -> Result<(), ConfigError> {
    if is_filter(log) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        setting: "log",
        given: format!("`{log}`"),
        range: "off, error, warn, info, debug or trace, or a filter such as sluicegate_lease=debug,info",
    })
}

/// Suffixes that keep each partition below its own limit even if one aggregate key takes the whole budget: one for every
/// 500 write units a second, half of what a partition takes (DynamoDB developer guide: 1,000).
fn spread_for(write_budget_wcu: u64) -> u32 {
    let wanted = write_budget_wcu.div_ceil(500).clamp(1, u64::from(PackingParameters::MAX_SPREAD));
    u32::try_from(wanted).unwrap_or(PackingParameters::MAX_SPREAD)
}

fn parameters(raw: &RawConfig, wrong: &mut Wrong) -> Option<PackingParameters> {
    let aggregate_key = AggregateKey::try_from(raw.aggregate_key.clone());
    let aggregate_key =
        wrong.kept(aggregate_key.map_err(|error| ConfigError::AggregateKey(error.to_string())));
    let filter = wrong.kept(transform("filter", &raw.filter));
    let fields = wrong.kept(transform("fields", &raw.fields));
    let reduce = wrong.kept(transform("reduce", &raw.reduce));
    let in_range = PackingParameters::MIN_ITEM_BYTES..=PackingParameters::MAX_ITEM_BYTES;
    let item_bytes = u32::try_from(raw.max_item_bytes.as_u64()).ok().filter(|bytes| in_range.contains(bytes));
    let parameters = PackingParameters {
        aggregate_key: aggregate_key.unwrap_or(AggregateKey::PartitionKey),
        // One outside its range has been told with the sizes.
        max_item_bytes: item_bytes.unwrap_or(PackingParameters::DEFAULT_ITEM_BYTES),
        spread: if raw.spread == 0 { spread_for(raw.write_budget_wcu.units()) } else { raw.spread },
        codec: if raw.zstd_level == 0 { Codec::None } else { Codec::Zstd(raw.zstd_level) },
        ttl_days: (raw.ttl_days > 0).then_some(raw.ttl_days),
        filter: filter.flatten(),
        fields: fields.flatten(),
        reduce: reduce.flatten(),
        ..PackingParameters::default()
    };
    let unreadable = raw.unreadable.of(&parameters);
    let parameters = PackingParameters { unreadable, ..parameters };
    let parameters = parameters.with_needed_decoding_version();
    let errors = parameters.errors();
    let fit = errors.is_empty();
    wrong.0.extend(errors.into_iter().map(ConfigError::from));
    fit.then_some(parameters)
}

/// Reads a filter, fields or a reduction; [`NO_TRANSFORM`] and an empty text set none.
fn transform<T>(setting: &'static str, given: &str) -> Result<Option<T>, ConfigError>
where
    T: FromStr<Err = SyntaxError>,
{
    if matches!(given.trim(), "" | NO_TRANSFORM) {
        return Ok(None);
    }
    let error = |error| ConfigError::Transform { setting, given: given.to_owned(), error };
    given.parse().map(Some).map_err(error)
}

/// Reads a token; it is not in the error.
fn admin_token(given: &str) -> Result<Option<AdminToken>, ConfigError> {
    if matches!(given, "" | NO_TOKEN) {
        return Ok(None);
    }
    let why = |_no_token| ConfigError::OutOfRange {
        setting: "admin_token",
        given: format!("a text of {} bytes", given.len()),
        range: "16 to 256 ASCII characters without spaces, or none",
    };
    AdminToken::new(given).map(Some).map_err(why)
}

/// Reads an initial position as people write it.
///
/// # Errors
/// Anything else.
pub fn parse_initial_position(text: &str) -> Result<InitialPosition, ConfigError> {
    let invalid = || ConfigError::InitialPosition(text.to_owned());
    match text.to_ascii_uppercase().replace('-', "_").as_str() {
        "TRIM_HORIZON" => return Ok(InitialPosition::TrimHorizon),
        "LATEST" => return Ok(InitialPosition::Latest),
        _ => {}
    }
    let (word, time) = text.split_once(':').ok_or_else(invalid)?;
    if !word.eq_ignore_ascii_case("AT_TIMESTAMP") {
        return Err(invalid());
    }
    let time = humantime_serde::re::humantime::parse_rfc3339_weak(time).map_err(|_no_time| invalid())?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_before_1970| invalid())?;
    let millis = i64::try_from(since.as_millis()).map_err(|_too_late| invalid())?;
    Ok(InitialPosition::AtTimestamp(ArrivalMillis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert!(Config::checked(RawConfig::default()).is_ok());
    }

    #[test]
    fn every_setting_is_described_with_its_default() {
        let raw = serde_json::to_value(RawConfig::default()).unwrap();
        let fields: Vec<&String> = raw.as_object().unwrap().keys().collect();
        let mut described: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        described.sort_unstable();
        assert_eq!(fields, described);
        for setting in SETTINGS {
            let given = Config::load(None, &[(setting.name, setting.default.to_owned())]);
            assert!(given.is_ok(), "{}: {given:?}", setting.name);
        }
    }

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's own test harness")]
    fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
        figment::Jail::expect_with(|jail| {
            jail.create_file("s.toml", "failover_time = \"3s\"\nmax_in_flight = 2\n")?;
            jail.set_env("SLUICEGATE_CFG_MAX_IN_FLIGHT", "7");
            let config = Config::load(Some(Path::new("s.toml")), &[]).unwrap();
            assert_eq!(config.settings.failover_time, Duration::from_secs(3));
            assert_eq!(config.settings.max_in_flight, 7);
            assert_eq!(config.settings.spread_for_test(), 1);
            Ok(())
        });
    }

    impl Settings {
        fn spread_for_test(&self) -> u32 {
            self.parameters.spread
        }
    }

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's own test harness")]
    fn an_unknown_key_is_refused_by_name_and_variables_of_a_service_are_not_ours() {
        figment::Jail::expect_with(|jail| {
            jail.set_env("SLUICEGATE_SERVICE_HOST", "10.0.0.1");
            assert!(Config::load(None, &[]).is_ok());
            jail.create_file("s.toml", "failover_tiem = \"3s\"\n")?;
            let error = Config::load(Some(Path::new("s.toml")), &[]).unwrap_err().to_string();
            assert!(error.contains("no setting `failover_tiem`") && !error.contains('\n'), "{error}");
            Ok(())
        });
    }

    #[test]
    fn contradictions_name_both_settings_with_their_values() {
        let with = |pairs: &[(&'static str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Config::load(None, &pairs).unwrap_err().to_string()
        };
        let margin = with(&[("failover_time", "3s"), ("safety_margin", "1s")]);
        assert_eq!(
            margin,
            "safety_margin is 1s, which must be less than a third of failover_time (1s): change one of them"
        );
        assert!(with(&[("max_batch_bytes", "15EiB")]).contains("give 64KiB to 64MiB"));
        assert!(with(&[("buffer_bytes", "1MiB")]).contains("max_batch_bytes is 16.0 MiB"));
        assert!(with(&[("failover_time", "10ms")]).contains("give 1s to 5m"));
        assert!(with(&[("initial_position", "EARLIEST")]).contains("TRIM_HORIZON"));
        assert!(with(&[("aggregate_key", "{carrier")]).starts_with("aggregate_key"));
        assert!(with(&[("zstd_level", "40")]).contains("1 to 19"));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let given = [
            ("failover_time", "10s"),
            ("safety_margin", "4s"),
            ("handoff_deadline", "50s"),
            ("max_item_bytes", "1KiB"),
            ("buffer_bytes", "1MiB"),
            ("log", "inof"),
            ("filter", "/a = 1"),
            ("spread", "5000"),
            ("initial_position", "YESTERDAY"),
            ("admin_token", "short"),
        ];
        let given = given.map(|(name, value)| (name, value.to_owned()));
        let errors = Config::explain(None, &given).unwrap().config.unwrap_err();
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let begins = [
            "safety_margin is 4s, which must be less than a third of failover_time (3s 333ms):",
            "handoff_deadline is 50s",
            "max_item_bytes is 1.0 KiB",
            "max_batch_bytes is 16.0 MiB",
            "log is `inof`: give off, error, warn, info, debug or trace",
            "filter is `/a = 1`",
            "spread is 5000",
            "initial_position is `YESTERDAY`",
            "admin_token is a text of 5 bytes",
        ];
        assert_eq!(lines.len(), begins.len(), "{lines:#?}");
        for (line, begin) in lines.iter().zip(begins) {
            assert!(line.starts_with(begin), "{line}");
        }
        assert_eq!(Config::load(None, &given).unwrap_err().to_string(), lines.join("; "));
    }

    #[test]
    fn transforms_are_read_and_a_bad_one_says_where() {
        let load = |pairs: &[(&'static str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Config::load(None, &pairs)
        };
        let parameters = load(&[]).unwrap().settings.parameters;
        assert_eq!((parameters.transforms(), parameters.decoding_version), (false, 1));
        let given = [("filter", r#"/carrier == "AA" and /dep_delay > 15"#), ("reduce", "/dep_delay per 1h")];
        let parameters = load(&given).unwrap().settings.parameters;
        assert_eq!(parameters.filter.unwrap().to_string(), given[0].1);
        assert_eq!(
            (parameters.reduce.unwrap().to_string(), parameters.decoding_version),
            (given[1].1.to_owned(), 3)
        );
        let unreadable = |pairs: &[(&'static str, &str)]| load(pairs).unwrap().settings.parameters.unreadable;
        assert_eq!(unreadable(&[("filter", "/a == 1")]), Unreadable::Keep);
        for (name, value) in [("fields", "/a"), ("reduce", "per 1h"), ("unreadable", "dead-letter")] {
            assert_eq!(unreadable(&[(name, value)]), Unreadable::DeadLetter, "{name}");
        }
        assert_eq!(unreadable(&[("fields", "/a"), ("unreadable", "keep")]), Unreadable::Keep);
        let error = |pairs| load(pairs).unwrap_err().to_string();
        assert_eq!(
            error(&[("filter", "/a = 1")]),
            "filter is `/a = 1`; at character 4: '=' has no meaning here: write == to compare"
        );
        assert!(error(&[("fields", "a")]).starts_with("fields is `a`; at character 1: "));
        assert!(error(&[("reduce", "per day")]).contains("at character 5: a length of time is wanted"));
        assert!(error(&[("reduce", "per 1d"), ("fields", "/a")]).contains("leave one of them out"));
        let long = format!("exists /{}", "x".repeat(1_100));
        assert!(error(&[("filter", long.as_str())]).contains("in the lease row, more than 1024"));
    }

    #[test]
    fn a_token_is_read_and_a_bad_one_is_refused_without_being_told() {
        let load = |token: &str| Config::load(None, &[("admin_token", token.to_owned())]);
        assert_eq!(load("none").unwrap().admin_token, None);
        let config = load("correct-horse-battery").unwrap();
        assert_eq!(config.admin_token, AdminToken::new("correct-horse-battery").ok());
        assert!(!format!("{config:?}").contains("horse"));
        let error = load("horse").unwrap_err().to_string();
        assert!(error.contains("admin_token is a text of 5 bytes") && !error.contains("horse"), "{error}");
    }

    #[test]
    fn a_write_budget_is_a_number_or_what_the_table_says() {
        let load = |given: &str| Config::load(None, &[("write_budget_wcu", given.to_owned())]);
        assert_eq!(Config::default().settings.write_budget, BudgetChoice::Auto);
        assert_eq!(load("auto").unwrap().settings.write_budget, BudgetChoice::Auto);
        assert_eq!(load("0").unwrap().settings.write_budget, BudgetChoice::None);
        let fixed = load("4000").unwrap().settings;
        assert_eq!(fixed.write_budget.fixed().map(WriteBudget::units), Some(4_000.0));
        assert_eq!((fixed.parameters.spread, load("auto").unwrap().settings.parameters.spread), (8, 1));
        for bad in ["none", "-1", "1.5", "Auto"] {
            let error = load(bad).unwrap_err().to_string();
            assert!(error.contains("write_budget_wcu") && error.contains("give auto"), "{bad}: {error}");
        }
    }

    #[test]
    fn positions_are_read_as_people_write_them() {
        assert_eq!(parse_initial_position("trim-horizon").unwrap(), InitialPosition::TrimHorizon);
        assert_eq!(parse_initial_position("LATEST").unwrap(), InitialPosition::Latest);
        let at = parse_initial_position("AT_TIMESTAMP:2026-01-31T12:00:00Z").unwrap();
        assert_eq!(at, InitialPosition::AtTimestamp(ArrivalMillis(1_769_860_800_000)));
    }
}
