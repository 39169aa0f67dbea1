//! Defaults, file, environment and flags put over one another, and what is told of one that cannot be read.

use std::path::Path;

use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{ConfigError, ENV_PREFIX, RawConfig, SECRETS, SETTINGS};

/// Settings that are texts. Variables of these are taken as they are, but for white space around them (a secret in a file
/// often ends in a line break): a token of digits is no number.
const TEXTS: &[&str] =
    &["initial_position", "aggregate_key", "filter", "fields", "reduce", "admin_token", "log"];

/// The defaults, the file over them, the environment over that, and flags over all.
pub(super) fn layers(
    file: Option<&Path>,
    overrides: &[(&'static str, String)],
) -> Result<Figment, ConfigError> {
    let mut figment = Figment::from(Serialized::defaults(RawConfig::default()));
    if let Some(file) = file {
        if let Some(why) = no_file(file) {
            return Err(ConfigError::Unreadable(format!("{} {why}: check --config", file.display())));
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    figment = figment.merge(Env::prefixed(ENV_PREFIX).ignore(TEXTS));
    figment = figment.merge(TextVariables(Env::prefixed(ENV_PREFIX).only(TEXTS)));
    for (name, given) in overrides {
        // Read as an environment variable would be.
        figment = figment.merge((*name, value(name, given)));
    }
    Ok(figment)
}

/// Why a file cannot be read, if that can be seen.
fn no_file(file: &Path) -> Option<&'static str> {
    match file {
        file if file.is_dir() => Some("is a folder, not a file"),
        file if file.exists() => None,
        _ => Some("is not there"),
    }
}

/// What a variable or a flag comes to: a text is a text, and of the rest `7` is a number and `7s` is not.
fn value(name: &str, given: &str) -> Value {
    if TEXTS.contains(&name) {
        return Value::from(given.trim());
    }
    let Ok(value) = given.parse();
    value
}

/// Variables of the environment that are taken as they are.
struct TextVariables(Env);

impl Provider for TextVariables {
    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let variables = self.0.iter().map(|(name, text)| (name.to_string(), value(name.as_str(), &text)));
        Ok(Profile::Default.collect(variables.collect::<Dict>()))
    }
}

/// The variable of a setting.
pub(super) fn variable(setting: &str) -> String {
    format!("{ENV_PREFIX}{}", setting.to_uppercase())
}

/// Whether a value came from the environment.
pub(super) fn from_environment(metadata: &Metadata) -> bool {
    metadata.name.contains("environment")
}

/// All of figment's complaints on one line, each with the setting and where it came from.
pub(super) fn one_line(errors: figment::Error) -> String {
    errors.into_iter().map(|error| complaint(&error)).collect::<Vec<_>>().join("; ")
}

fn complaint(error: &figment::Error) -> String {
    let path = error.path.join(".");
    match (&error.kind, error.path.first()) {
        (_, Some(name)) if SECRETS.contains(&name.as_str()) => {
            format!("{name} is not a text: write it in quotes{}", place(error, name))
        }
        (Kind::UnknownField(field, _), _) => {
            let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
            let place = place(error, field);
            format!("there is no setting `{field}`{place}; the settings are {}", names.join(", "))
        }
        (Kind::Message(text), None) => format!("{}{}", without_lines_of_the_file(text), place(error, "")),
        (kind, _) => {
            let setting = if path.is_empty() { String::new() } else { format!("{path}: ") };
            format!("{setting}{kind}{}{}", such_as(&path), place(error, &path))
        }
    }
}

/// Where a value came from: a variable, or a file.
fn place(error: &figment::Error, setting: &str) -> String {
    let Some(metadata) = &error.metadata else { return String::new() };
    if from_environment(metadata) && !setting.is_empty() {
        return format!(" (in {})", variable(setting));
    }
    let file = metadata.source.as_ref().and_then(|source| source.file_path());
    let named = file.map_or_else(|| metadata.name.to_string(), |file| file.display().to_string());
    format!(" (in {named})")
}

/// A value that can be read: the default.
fn such_as(name: &str) -> String {
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    setting.map(|setting| format!(", such as {}", setting.default)).unwrap_or_default()
}

/// A TOML error shows the line it is about, in which a secret may stand: its number is enough.
fn without_lines_of_the_file(text: &str) -> String {
    let shown =
        |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    text.lines().filter(|line| !shown(line)).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
#[expect(clippy::result_large_err, reason = "figment's own test harness")]
mod tests {
    use super::*;
    use crate::Config;
    use crate::admin::AdminToken;

    fn refused(file: Option<&str>) -> String {
        Config::load(file.map(Path::new), &[]).unwrap_err().to_string()
    }

    #[test]
    fn the_texts_are_the_settings_that_take_any_text() {
        let raw = serde_json::to_value(RawConfig::default()).unwrap();
        for setting in SETTINGS {
            let mut raw = raw.clone();
            raw[setting.name] = "~".into();
            let takes_any = serde_json::from_value::<RawConfig>(raw).is_ok();
            assert_eq!(takes_any, TEXTS.contains(&setting.name), "{}", setting.name);
        }
    }

    #[test]
    fn a_token_in_the_environment_is_taken_as_it_is() {
        let tokens =
            ["1234567890123456", "[correct-horse-battery", "{correct-horse-battery", "true-horse-battery"];
        let quoted = ["\"correct-horse-battery\"", "'correct-horse-battery'", "[1,2,3,4,5,6,7,8,9]"];
        for token in tokens.into_iter().chain(quoted) {
            figment::Jail::expect_with(|jail| {
                jail.set_env("SLUICEGATE_CFG_ADMIN_TOKEN", token);
                let config = Config::load(None, &[]).unwrap();
                assert_eq!(config.admin_token, AdminToken::new(token).ok(), "{token}");
                assert!(config.admin_token.is_some());
                Ok(())
            });
        }
    }

    #[test]
    fn white_space_around_a_token_in_the_environment_does_not_count() {
        figment::Jail::expect_with(|jail| {
            jail.set_env("SLUICEGATE_CFG_ADMIN_TOKEN", " 1234567890123456\n");
            let config = Config::load(None, &[]).unwrap();
            assert_eq!(config.admin_token, AdminToken::new("1234567890123456").ok());
            Ok(())
        });
    }

    #[test]
    fn a_token_of_a_file_that_is_no_text_is_refused_and_not_told() {
        let digits = "1234567890123456";
        let wrong =
            ["1234567890123456", "[1234567890123456]", "{ a = 1234567890123456 }", "-1234567890123456"];
        for value in wrong {
            figment::Jail::expect_with(|jail| {
                jail.create_file("s.toml", &format!("admin_token = {value}\n"))?;
                let error = refused(Some("s.toml"));
                assert!(error.contains("admin_token is not a text: write it in quotes"), "{error}");
                assert!(error.contains("s.toml") && !error.contains(digits), "{error}");
                Ok(())
            });
        }
        for value in [
            "correct-horse",
            "\"correct-horse",
            "'correct-horse",
            "\"\"\"\ncorrect-horse\n",
            "[correct-horse",
        ] {
            figment::Jail::expect_with(|jail| {
                jail.create_file("s.toml", &format!("seed = 1\nadmin_token = {value}\n"))?;
                let error = refused(Some("s.toml"));
                assert!(error.contains("line ") && error.contains("s.toml"), "{error}");
                assert!(!error.contains("horse") && !error.contains('\n'), "{error}");
                Ok(())
            });
        }
    }

    #[test]
    fn a_filter_that_looks_like_another_kind_is_judged_as_a_filter() {
        figment::Jail::expect_with(|jail| {
            jail.set_env("SLUICEGATE_CFG_FILTER", "true");
            let error = refused(None);
            assert!(error.starts_with("filter is `true`; at character "), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_value_of_another_kind_is_told_with_its_variable_and_an_example() {
        figment::Jail::expect_with(|jail| {
            jail.set_env("SLUICEGATE_CFG_FAILOVER_TIME", "10");
            let error = refused(None);
            assert!(error.ends_with(", such as 10s (in SLUICEGATE_CFG_FAILOVER_TIME)"), "{error}");
            jail.set_env("SLUICEGATE_CFG_FAILOVER_TIME", "10s");
            jail.set_env("SLUICEGATE_CFG_FAILOVER_TIEM", "10s");
            let error = refused(None);
            assert!(
                error.contains("no setting `failover_tiem` (in SLUICEGATE_CFG_FAILOVER_TIEM)"),
                "{error}"
            );
            Ok(())
        });
    }

    #[test]
    fn a_folder_is_not_said_to_be_missing() {
        figment::Jail::expect_with(|jail| {
            jail.create_dir("folder")?;
            assert_eq!(
                refused(Some("folder")),
                "configuration: folder is a folder, not a file: check --config"
            );
            assert_eq!(refused(Some("nowhere")), "configuration: nowhere is not there: check --config");
            Ok(())
        });
    }
}
