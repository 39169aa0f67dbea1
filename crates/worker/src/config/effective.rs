//! The settings in force, each with where it came from, for `sluicegate check`. Settings that cannot be used together are
//! told with the rest, not instead of it.

use std::path::Path;

use figment::value::Value;
use figment::{Figment, Source};

use super::layers::{from_environment, layers, one_line, variable};
use super::{Config, ConfigError, NO_TOKEN, RawConfig, SECRETS, SETTINGS};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// Nobody said anything.
    Default,
    /// This file.
    File(String),
    /// This variable of the environment.
    Variable(String),
    /// The command line.
    Flag,
}

impl std::fmt::Display for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file) => f.write_str(file),
            Self::Variable(name) => f.write_str(name),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Its name.
    pub name: &'static str,
    /// Its value, as a file would have it; a secret is not told.
    pub value: String,
    /// Where that came from.
    pub from: Provenance,
}

/// All settings, and whether they can be used.
#[derive(Debug)]
pub struct Explained {
    /// In the order of [`SETTINGS`].
    pub settings: Vec<Effective>,
    /// The configuration, or all that is wrong with it.
    pub config: Result<Config, Vec<ConfigError>>,
}

impl Config {
    /// What [`Config::load`] takes, and where each value came from.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`]; values that can be read and not used are in the answer.
    pub fn explain(
        file: Option<&Path>,
        overrides: &[(&'static str, String)],
    ) -> Result<Explained, ConfigError> {
        let figment = layers(file, overrides)?;
        let raw: RawConfig = figment.extract().map_err(|errors| ConfigError::Unreadable(one_line(errors)))?;
        // Written out again, so that a value looks the same wherever it came from.
        let told = Figment::from(figment::providers::Serialized::defaults(&raw));
        let settings = SETTINGS.iter().map(|setting| Effective {
            name: setting.name,
            value: match told.find_value(setting.name) {
                Ok(value) => told_of(setting.name, text(&value)),
                Err(_) => String::new(),
            },
            from: provenance(&figment, setting.name, overrides),
        });
        Ok(Explained { settings: settings.collect(), config: Self::checked(raw) })
    }
}

/// That there is no secret is none.
fn told_of(name: &str, value: String) -> String {
    if SECRETS.contains(&name) && !matches!(value.as_str(), "" | NO_TOKEN) {
        return "(not told)".to_owned();
    }
    value
}

fn provenance(figment: &Figment, name: &'static str, overrides: &[(&'static str, String)]) -> Provenance {
    if overrides.iter().any(|(given, _)| *given == name) {
        return Provenance::Flag;
    }
    let Some(metadata) = figment.find_metadata(name) else { return Provenance::Default };
    match &metadata.source {
        Some(Source::File(file)) => Provenance::File(file.display().to_string()),
        _ if from_environment(metadata) => Provenance::Variable(variable(name)),
        _ => Provenance::Default,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Bool(_, given) => given.to_string(),
        Value::Num(_, number) => number
            .to_u128()
            .map(|number| number.to_string())
            .or_else(|| number.to_i128().map(|number| number.to_string()))
            .or_else(|| number.to_f64().map(|number| number.to_string()))
            .unwrap_or_default(),
        Value::Char(..) | Value::Empty(..) | Value::Dict(..) | Value::Array(..) => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's own test harness")]
    fn each_value_says_where_it_came_from() {
        figment::Jail::expect_with(|jail| {
            jail.create_file("s.toml", "failover_time = \"3s\"\nmax_in_flight = 2\n")?;
            jail.set_env("SLUICEGATE_CFG_MAX_IN_FLIGHT", "7");
            jail.set_env("SLUICEGATE_CFG_ADMIN_TOKEN", "correct-horse-battery");
            let flags = [("initial_position", "LATEST".to_owned())];
            let explained = Config::explain(Some(Path::new("s.toml")), &flags).unwrap();
            assert!(explained.config.is_ok());
            assert_eq!(explained.settings.len(), SETTINGS.len());
            let of = |name| {
                let setting = explained.settings.iter().find(|setting| setting.name == name).unwrap();
                (setting.value.as_str(), setting.from.to_string())
            };
            assert_eq!(of("initial_position"), ("LATEST", "command line".to_owned()));
            assert_eq!(of("max_in_flight"), ("7", "SLUICEGATE_CFG_MAX_IN_FLIGHT".to_owned()));
            assert_eq!(of("commit_delay"), ("1s", "default".to_owned()));
            assert_eq!(of("buffer_bytes").1, "default");
            assert_eq!(of("admin_token").0, "(not told)");
            let (value, from) = of("failover_time");
            assert!(value == "3s" && from.ends_with("s.toml"), "{value} {from}");
            Ok(())
        });
    }

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's own test harness")]
    fn settings_that_contradict_each_other_are_told_with_the_rest() {
        // Alone with the environment, which other tests change.
        figment::Jail::expect_with(|_jail| {
            let flags = [("failover_time", "3s".to_owned()), ("safety_margin", "1s".to_owned())];
            let explained = Config::explain(None, &flags).unwrap();
            assert!(matches!(explained.config.unwrap_err()[..], [ConfigError::Contradiction { .. }]));
            assert_eq!(explained.settings.len(), SETTINGS.len());
            let token = explained.settings.iter().find(|setting| setting.name == "admin_token").unwrap();
            assert_eq!(token.value, "none", "that there is none is no secret");
            assert!(Config::explain(Some(Path::new("nowhere.toml")), &[]).is_err());
            Ok(())
        });
    }
}
