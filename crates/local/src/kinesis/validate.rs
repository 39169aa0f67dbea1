//! Checks of single members, collected and worded as the service words them. Pure.

use std::ops::RangeInclusive;

use super::error::{ErrorKind, KinesisError};

/// What is wrong with one request; all of it is reported together.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<String>);

impl Violations {
    /// The member must be there.
    pub(crate) fn required<T>(&mut self, member: &str, value: Option<&T>) {
        if value.is_none() {
            self.add("null", member, "Member must not be null");
        }
    }

    /// The text, if given, must have a length (in characters) within `bounds`.
    pub(crate) fn length(&mut self, member: &str, text: Option<&str>, bounds: RangeInclusive<usize>) {
        let Some(text) = text else { return };
        let fits_without_counting = text.len() <= *bounds.end() && text.len() >= 4 * *bounds.start();
        if !fits_without_counting {
            self.size(member, text.chars().count(), bounds, || text.to_owned());
        }
    }

    /// A length must be within `bounds`; `shown` is only asked for when it is not.
    pub(crate) fn size(
        &mut self,
        member: &str,
        length: usize,
        bounds: RangeInclusive<usize>,
        shown: impl FnOnce() -> String,
    ) {
        let side = if length < *bounds.start() {
            format!("Member must have length greater than or equal to {}", bounds.start())
        } else if length > *bounds.end() {
            format!("Member must have length less than or equal to {}", bounds.end())
        } else {
            return;
        };
        self.add(&format!("'{}'", shown()), member, &side);
    }

    /// The number, if given, must lie within `bounds`.
    pub(crate) fn range(&mut self, member: &str, value: Option<i64>, bounds: RangeInclusive<i64>) {
        let Some(value) = value else { return };
        if value < *bounds.start() {
            let rule = format!("Member must have value greater than or equal to {}", bounds.start());
            self.add(&format!("'{value}'"), member, &rule);
        } else if value > *bounds.end() {
            let rule = format!("Member must have value less than or equal to {}", bounds.end());
            self.add(&format!("'{value}'"), member, &rule);
        }
    }

    /// The text, if given, must satisfy `holds`, which stands for the service's regular expression `pattern`.
    pub(crate) fn pattern(
        &mut self,
        member: &str,
        text: Option<&str>,
        pattern: &str,
        holds: fn(&str) -> bool,
    ) {
        if let Some(text) = text.filter(|text| !holds(text)) {
            let rule = format!("Member must satisfy regular expression pattern: {pattern}");
            self.add(&format!("'{text}'"), member, &rule);
        }
    }

    /// The text, if given, must be one of `values`.
    pub(crate) fn one_of(&mut self, member: &str, text: Option<&str>, values: &[&str]) {
        if let Some(text) = text.filter(|text| !values.contains(text)) {
            let rule = format!("Member must satisfy enum value set: [{}]", values.join(", "));
            self.add(&format!("'{text}'"), member, &rule);
        }
    }

    /// The name, if given, must be 1 to 128 characters of those a stream's name may have.
    pub(crate) fn stream_name(&mut self, name: Option<&str>) {
        self.length("streamName", name, 1..=128);
        self.pattern("streamName", name, "[a-zA-Z0-9_.-]+", is_name);
    }

    /// The shard id must be there, and be one by its characters.
    pub(crate) fn shard_id(&mut self, member: &str, id: Option<&String>) {
        self.required(member, id);
        let id = id.map(String::as_str);
        self.length(member, id, 1..=128);
        self.pattern(member, id, "[a-zA-Z0-9_.-]+", is_name);
    }

    /// One `ValidationException` for all that was found.
    pub(crate) fn finish(self) -> Result<(), KinesisError> {
        let count = self.0.len();
        if count == 0 {
            return Ok(());
        }
        let plural = if count == 1 { "error" } else { "errors" };
        let message = format!("{count} validation {plural} detected: {}", self.0.join("; "));
        Err(KinesisError::new(ErrorKind::Validation, message))
    }

    fn add(&mut self, shown: &str, member: &str, rule: &str) {
        self.0.push(format!("Value {shown} at '{member}' failed to satisfy constraint: {rule}"));
    }
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_are_told_at_once_in_the_service_s_words() {
        let mut violations = Violations::default();
        violations.required("shardIteratorType", None::<&String>);
        violations.stream_name(Some("a b"));
        violations.range("limit", Some(10_001), 1..=10_000);
        violations.length("partitionKey", Some(""), 1..=256);
        let message = violations.finish().unwrap_err().message;
        assert_eq!(
            message,
            "4 validation errors detected: \
             Value null at 'shardIteratorType' failed to satisfy constraint: Member must not be null; \
             Value 'a b' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; \
             Value '10001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000; \
             Value '' at 'partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1"
        );
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let mut violations = Violations::default();
        violations.length("partitionKey", Some(&"ü".repeat(256)), 1..=256);
        assert_eq!(violations.finish(), Ok(()));
        let mut violations = Violations::default();
        violations.length("partitionKey", Some(&"ü".repeat(257)), 1..=256);
        violations.finish().unwrap_err();
    }
}
