//! A fault script as people write it: TOML, read strictly. Pure.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::script::{Effect, Failure, Fault, FaultScript, Latency, Outage};
use crate::config::Service;

/// Why a document is no fault script. The message says where and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// It is no TOML, or has a field that there is not.
    #[error("the fault script cannot be read: {0}")]
    Unreadable(#[source] Box<toml::de::Error>),
    /// A fault makes no sense.
    #[error("fault {number} of the script: {what}")]
    Fault {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        what: String,
    },
}

impl FaultScript {
    /// Reads a script. `docs/local.md` in the repository describes the document.
    ///
    /// ```
    /// let script = sluicegate_local::FaultScript::parse(
    ///     r#"
    ///     seed = 7
    ///     [[fault]]
    ///     table = "flights-events"
    ///     from = "10s"
    ///     until = "70s"
    ///     outage = "refuse"
    ///     "#,
    /// )?;
    /// assert_eq!(script.faults.len(), 1);
    /// # Ok::<_, sluicegate_local::FaultError>(())
    /// ```
    ///
    /// # Errors
    /// It is not such a document.
    pub fn parse(document: &str) -> Result<Self, FaultError> {
        let read: Document =
            toml::from_str(document).map_err(|error| FaultError::Unreadable(Box::new(error)))?;
        let faults = read
            .fault
            .into_iter()
            .zip(1..)
            .map(|(fault, number)| fault.checked().map_err(|what| FaultError::Fault { number, what }));
        Ok(Self { seed: read.seed, faults: faults.collect::<Result<_, _>>()? })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    seed: Option<u64>,
    #[serde(default)]
    fault: Vec<Written>,
}

/// One fault as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    service: Option<String>,
    #[serde(default)]
    operations: Vec<String>,
    table: Option<String>,
    stream: Option<String>,
    from: Option<String>,
    until: Option<String>,
    latency: Option<WrittenLatency>,
    errors: Option<WrittenErrors>,
    outage: Option<String>,
    lost_answers: Option<f64>,
    unprocessed: Option<f64>,
    reject_items_with: Option<String>,
    reject_items_with_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields, expecting = "a latency is \"20ms\", { from, to } or { p50, p99 }")]
enum WrittenLatency {
    Fixed(String),
    Between { from: String, to: String },
    Quantiles { p50: String, p99: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenErrors {
    rate: f64,
    with: String,
}

impl Written {
    fn checked(self) -> Result<Fault, String> {
        let (service, resource) = whom(self.service.as_deref(), self.table.clone(), self.stream.clone())?;
        let from = self.from.as_deref().map_or(Ok(Duration::ZERO), |text| duration("from", text))?;
        let until = self.until.as_deref().map(|text| duration("until", text)).transpose()?;
        if until.is_some_and(|until| until <= from) {
            return Err("it ends before it begins: `until` must be later than `from`".to_owned());
        }
        let operations = self.operations.clone();
        let effect = self.effect()?;
        let of_dynamodb = matches!(effect, Effect::Unprocessed { .. } | Effect::RejectItems { .. });
        if of_dynamodb && service == Some(Service::Kinesis) {
            return Err("only DynamoDB has items: leave out `service` and `stream`".to_owned());
        }
        Ok(Fault { service, operations, resource, from, until, effect })
    }

    fn effect(self) -> Result<Effect, String> {
        let given = [
            ("latency", self.latency.map(latency)),
            ("errors", self.errors.as_ref().map(errors)),
            ("outage", self.outage.as_deref().map(outage)),
            ("lost_answers", self.lost_answers.map(|rate| Ok(Effect::LostAnswers { rate: share(rate)? }))),
            ("unprocessed", self.unprocessed.map(|rate| Ok(Effect::Unprocessed { rate: share(rate)? }))),
            ("reject_items_with", self.reject_items_with.map(|text| rejecting(text.into_bytes()))),
            ("reject_items_with_base64", self.reject_items_with_base64.as_deref().map(rejecting_base64)),
        ];
        let names = given.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let mut given: Vec<_> =
            given.into_iter().filter_map(|(name, effect)| Some((name, effect?))).collect();
        match (given.pop(), given.last()) {
            (Some((_, effect)), None) => effect,
            (Some((one, _)), Some((other, _))) => {
                Err(format!("it has both {other} and {one}: make a fault of its own for each"))
            }
            (None, _) => Err(format!("it does nothing: give one of {names}")),
        }
    }
}

/// The service and the resource that are meant.
fn whom(
    service: Option<&str>,
    table: Option<String>,
    stream: Option<String>,
) -> Result<(Option<Service>, Option<String>), String> {
    let service = match service {
        None => None,
        Some("dynamodb") => Some(Service::DynamoDb),
        Some("kinesis") => Some(Service::Kinesis),
        Some(other) => return Err(format!("there is no service {other:?}: write dynamodb or kinesis")),
    };
    let (implied, resource) = match (table, stream) {
        (None, None) => return Ok((service, None)),
        (Some(table), None) => (Service::DynamoDb, table),
        (None, Some(stream)) => (Service::Kinesis, stream),
        (Some(_), Some(_)) => return Err("it names a table and a stream: give one of them".to_owned()),
    };
    if service.is_some_and(|service| service != implied) {
        return Err(format!("`{resource}` is of {implied}: leave out `service`"));
    }
    Ok((Some(implied), Some(resource)))
}

fn latency(written: WrittenLatency) -> Result<Effect, String> {
    let latency = match written {
        WrittenLatency::Fixed(text) => Latency::Fixed(duration("latency", &text)?),
        WrittenLatency::Between { from, to } => {
            let (from, to) = (duration("latency.from", &from)?, duration("latency.to", &to)?);
            if to < from {
                return Err("latency.to is below latency.from".to_owned());
            }
            Latency::Between(from, to)
        }
        WrittenLatency::Quantiles { p50, p99 } => {
            let (p50, p99) = (duration("latency.p50", &p50)?, duration("latency.p99", &p99)?);
            if p50.is_zero() || p99 < p50 {
                return Err("latency.p50 must be above 0, and latency.p99 not below it".to_owned());
            }
            Latency::Quantiles { p50, p99 }
        }
    };
    Ok(Effect::Latency(latency))
}

fn errors(written: &WrittenErrors) -> Result<Effect, String> {
    let with = match written.with.as_str() {
        "internal" => Failure::Internal,
        "unavailable" => Failure::Unavailable,
        "throttle" => Failure::Throttle,
        other => {
            return Err(format!("errors.with is {other:?}: write internal, unavailable or throttle"));
        }
    };
    Ok(Effect::Errors { rate: share(written.rate)?, with })
}

fn outage(written: &str) -> Result<Effect, String> {
    match written {
        "refuse" => Ok(Effect::Outage(Outage::Refuse)),
        "silence" => Ok(Effect::Outage(Outage::Silence)),
        other => Err(format!("outage is {other:?}: write refuse (status 503) or silence (no answer)")),
    }
}

fn rejecting(holding: Vec<u8>) -> Result<Effect, String> {
    if holding.is_empty() {
        return Err("every item holds the empty text: give at least one byte".to_owned());
    }
    Ok(Effect::RejectItems { holding })
}

fn rejecting_base64(text: &str) -> Result<Effect, String> {
    let bytes = BASE64_STANDARD.decode(text);
    rejecting(bytes.map_err(|error| format!("reject_items_with_base64 is no base64: {error}"))?)
}

fn share(rate: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("{rate} is no share of requests: give a number from 0 to 1"))
    }
}

fn duration(field: &str, text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("{field} = {text:?} is no duration ({error}): write for instance 250ms or 10s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(document: &str) -> Vec<Fault> {
        FaultScript::parse(document).unwrap().faults
    }

    fn refused(document: &str) -> String {
        FaultScript::parse(document).unwrap_err().to_string()
    }

    #[test]
    fn every_effect_can_be_written() {
        let millis = Duration::from_millis;
        for (written, effect) in [
            ("latency = '20ms'", Effect::Latency(Latency::Fixed(millis(20)))),
            (
                "latency = { from = '5ms', to = '40ms' }",
                Effect::Latency(Latency::Between(millis(5), millis(40))),
            ),
            (
                "latency = { p50 = '8ms', p99 = '1s' }",
                Effect::Latency(Latency::Quantiles { p50: millis(8), p99: millis(1_000) }),
            ),
            (
                "errors = { rate = 0.02, with = 'internal' }",
                Effect::Errors { rate: 0.02, with: Failure::Internal },
            ),
            (
                "errors = { rate = 1.0, with = 'throttle' }",
                Effect::Errors { rate: 1.0, with: Failure::Throttle },
            ),
            ("outage = 'refuse'", Effect::Outage(Outage::Refuse)),
            ("outage = 'silence'", Effect::Outage(Outage::Silence)),
            ("lost_answers = 0.5", Effect::LostAnswers { rate: 0.5 }),
            ("unprocessed = 0.5", Effect::Unprocessed { rate: 0.5 }),
            ("reject_items_with = 'bad'", Effect::RejectItems { holding: b"bad".to_vec() }),
            ("reject_items_with_base64 = 'AP8='", Effect::RejectItems { holding: vec![0, 255] }),
        ] {
            assert_eq!(parsed(&format!("[[fault]]\n{written}"))[0].effect, effect);
        }
    }

    #[test]
    fn a_fault_says_whom_it_befalls_and_when() {
        let script = FaultScript::parse(
            "seed = 9\n[[fault]]\ntable = 't'\noperations = ['PutItem']\nfrom = '1m'\nuntil = '90s'\n\
             outage = 'refuse'\n[[fault]]\nservice = 'kinesis'\nlatency = '1ms'",
        );
        let script = script.unwrap();
        let (first, second) = (&script.faults[0], &script.faults[1]);
        assert_eq!(script.seed, Some(9));
        assert_eq!((first.service, first.resource.as_deref()), (Some(Service::DynamoDb), Some("t")));
        assert_eq!((first.from.as_secs(), first.until.unwrap().as_secs()), (60, 90));
        assert_eq!(first.operations, ["PutItem"]);
        assert_eq!((second.service, &second.resource), (Some(Service::Kinesis), &None));
        assert_eq!(FaultScript::parse("").unwrap(), FaultScript::default());
    }

    #[test]
    fn a_mistake_is_told_with_what_to_write() {
        for (written, told) in [
            ("", "it does nothing: give one of latency, errors"),
            ("outage = 'refuse'\nlost_answers = 1.0", "it has both outage and lost_answers"),
            ("outage = 'maybe'", "write refuse (status 503) or silence"),
            ("latency = '5'", "write for instance 250ms or 10s"),
            ("latency = { p50 = '5ms' }", "a latency is \"20ms\""),
            ("latency = { p50 = '5ms', p99 = '1ms' }", "latency.p99 not below it"),
            ("lost_answers = 2.0", "2 is no share"),
            ("errors = { rate = 0.1, with = 'mood' }", "write internal, unavailable or throttle"),
            ("table = 't'\nstream = 's'\noutage = 'refuse'", "it names a table and a stream"),
            ("service = 'kinesis'\ntable = 't'\noutage = 'refuse'", "leave out `service`"),
            ("stream = 's'\nunprocessed = 0.1", "only DynamoDB has items"),
            ("service = 's3'\noutage = 'refuse'", "write dynamodb or kinesis"),
            ("from = '2s'\nuntil = '1s'\noutage = 'refuse'", "it ends before it begins"),
            ("reject_items_with = ''", "give at least one byte"),
            ("reject_items_with_base64 = '?'", "is no base64"),
            ("colour = 'red'\noutage = 'refuse'", "unknown field `colour`"),
        ] {
            let refused = refused(&format!("[[fault]]\n{written}"));
            assert!(refused.contains(told), "{written:?}: {refused}");
        }
        assert!(refused("[[fault]]\noutage = 'refuse'\n[[fault]]\n").starts_with("fault 2 of the script"));
        assert!(refused("[[fault]\n").starts_with("the fault script cannot be read"));
    }
}
