//! The reduction: what is counted and summed of the events of a key, and over which windows of time. **Pure.**
//!
//! ```text
//! reduce = { pointer } "per" length [ "by" pointer ]          length = number and s, m, h or d
//! ```
//! `/dep_delay per 1d by /time_hour`: of all events of a key and day, how many there are, and of the field
//! `/dep_delay` count, sum, least and greatest. A window begins at a multiple of its length since
//! 1970-01-01T00:00:00Z. Without `by`, the arrival of an event decides; with it, a field that holds a time: a string as
//! RFC 3339 writes it, or a number of milliseconds since 1970. What has no such field is counted apart, without window.

use std::fmt;
use std::str::FromStr;

use sluicegate_event::{Decimal, Event, Pointer, Value};

use super::words::{What, Words, Written};
use super::{SyntaxError, time};
use crate::record::ArrivalMillis;

/// Most fields of one reduction.
pub const MAX_FIELDS: usize = 32;
/// Longest window: 366 days, in seconds.
pub const MAX_SECONDS: u32 = 366 * 86_400;

/// A parsed reduction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduce {
    of: Vec<Pointer>,
    seconds: u32,
    by: Option<Pointer>,
}

const UNITS: [(&str, u32); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl Reduce {
    /// Reads a reduction.
    ///
    /// # Errors
    /// Where the text stops making sense, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut words = Words::of(text)?;
        let mut of: Vec<Pointer> = Vec::new();
        while words.is_pointer() {
            let at = words.at();
            let pointer = words.pointer("")?;
            if of.contains(&pointer) {
                return Err(SyntaxError::new(
                    at,
                    format!("{} stands here twice: remove one", Written(&pointer)),
                ));
            }
            if of.len() == MAX_FIELDS {
                return Err(SyntaxError::new(
                    at,
                    format!("these are more than {MAX_FIELDS} fields: remove some"),
                ));
            }
            of.push(pointer);
            words.take(",");
        }
        if !words.take("per") {
            let why = "fields and then `per` and a length of time are wanted, as in /dep_delay per 1h";
            return Err(SyntaxError::new(words.at(), why));
        }
        let seconds = seconds(&mut words)?;
        let by = if words.take("by") { Some(words.pointer("")?) } else { None };
        if words.is_at_end() {
            return Ok(Self { of, seconds, by });
        }
        let why = "the reduction could end here: only `by` and a field that holds a time may follow, as in by /time";
        Err(SyntaxError::new(words.at(), why))
    }

    /// The fields that are counted and summed.
    pub fn of(&self) -> &[Pointer] {
        &self.of
    }

    /// The window that an event belongs to: when it begins, in milliseconds since 1970. `None` if it has no time, or
    /// one outside the years 1000 to 9999. An event that is no JSON is `None` here and has its arrival alone.
    pub fn window(&self, arrival: ArrivalMillis, event: Option<&Event<'_>>) -> Option<i64> {
        let at = match &self.by {
            None => arrival.0,
            Some(by) => moment(event?.find(by)?)?,
        };
        let length = i64::from(self.seconds) * 1_000;
        let start = at.div_euclid(length) * length;
        (time::RANGE.contains(&at) && time::RANGE.contains(&start)).then_some(start)
    }
}

/// The time that a field holds.
fn moment(field: Value<'_>) -> Option<i64> {
    match (field.string(), field.number()) {
        (Some(text), _) => time::parse(&text),
        (None, Some(text)) => {
            // Whole milliseconds, however they are written: 1.7e12 as well.
            i64::try_from(Decimal::of_event(text)?.whole()).ok()
        }
        (None, None) => None,
    }
}

fn seconds(words: &mut Words) -> Result<u32, SyntaxError> {
    let at = words.at();
    let wanted =
        || SyntaxError::new(at, "a length of time is wanted here: 1s to 366d, such as 30s, 5m, 1h or 1d");
    let Some(What::Bare(text)) = words.next() else { return Err(wanted()) };
    let unit = UNITS.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (digits, unit) = unit.ok_or_else(wanted)?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wanted());
    }
    let seconds = digits.parse::<u32>().ok().and_then(|count| count.checked_mul(unit));
    seconds.filter(|seconds| (1..=MAX_SECONDS).contains(seconds)).ok_or_else(wanted)
}

impl fmt::Display for Reduce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pointer in &self.of {
            write!(f, "{} ", Written(pointer))?;
        }
        let unit = UNITS.into_iter().find(|(_, seconds)| self.seconds.is_multiple_of(*seconds));
        let (unit, length) = unit.unwrap_or(("s", 1));
        write!(f, "per {}{unit}", self.seconds / length)?;
        self.by.iter().try_for_each(|by| write!(f, " by {}", Written(by)))
    }
}

impl FromStr for Reduce {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reduction_is_recorded_in_the_same_words() {
        let cases = [
            ("per 1h", "per 1h"),
            ("/a , /b per 60m by /t", "/a /b per 1h by /t"),
            ("/a per 86400s", "/a per 1d"),
            ("\"/a b\" per 90s", "\"/a b\" per 90s"),
        ];
        for (text, shown) in cases {
            let reduce = Reduce::parse(text).unwrap();
            assert_eq!(reduce.to_string(), shown);
            assert_eq!(Reduce::parse(shown).unwrap(), reduce);
        }
    }

    #[test]
    fn a_malformed_reduction_says_where_and_what_to_do() {
        let cases = [
            ("", 1, "per"),
            ("/a", 3, "per"),
            ("sum /a per 1h", 1, "per"),
            ("/a per", 7, "1s to 366d"),
            ("/a per hour", 8, "1s to 366d"),
            ("/a per 0s", 8, "1s to 366d"),
            ("/a per 367d", 8, "1s to 366d"),
            ("/a per 1.5h", 8, "1s to 366d"),
            ("/a per 99999999999d", 8, "1s to 366d"),
            ("/a /a per 1h", 4, "twice"),
            ("/a per 1h by", 13, "something is missing"),
            ("/a per 1h of /t", 11, "only `by`"),
        ];
        for (text, at, why) in cases {
            let error = Reduce::parse(text).unwrap_err();
            assert!(error.at == at && error.why.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_event_belongs_to_the_window_of_its_time() {
        let window = |reduce: &str, arrival: i64, event: &str| {
            let event = Event::parse(event.as_bytes()).ok();
            Reduce::parse(reduce).unwrap().window(ArrivalMillis(arrival), event.as_ref())
        };
        assert_eq!(window("per 1h", 3_600_000, "no json"), Some(3_600_000));
        assert_eq!(window("per 1h", 3_599_999, "{}"), Some(0));
        assert_eq!(window("per 1h", -1, "{}"), Some(-3_600_000));
        let by = "per 1d by /t";
        assert_eq!(window(by, 7, r#"{"t":"2013-01-01T10:00:00Z"}"#), Some(1_356_998_400_000));
        assert_eq!(window(by, 7, r#"{"t":1357034400000}"#), Some(1_356_998_400_000));
        assert_eq!(window(by, 7, r#"{"t":1.3570344e12}"#), Some(1_356_998_400_000));
        assert_eq!(window(by, 7, r#"{"t":-0.5}"#), Some(-86_400_000));
        for event in ["no json", "{}", r#"{"t":"today"}"#, r#"{"t":null}"#, r#"{"t":1e18}"#, r#"{"t":1e60}"#]
        {
            assert_eq!(window(by, 7, event), None, "{event}");
        }
        let earliest = *time::RANGE.start();
        assert_eq!(window("per 7d", earliest, "{}"), None, "its window begins before the year 1000");
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(text in "(/a |/b/c |\"/ \" ){0,1}per [1-9][0-9]{0,2}[smhd]( by /t)?") {
            if let Ok(reduce) = Reduce::parse(&text) {
                prop_assert_eq!(Reduce::parse(&reduce.to_string()).unwrap(), reduce);
            }
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "(per|by|/a|[0-9smhd \",é-]){0,12}") {
            drop(Reduce::parse(&text));
        }
    }
}
