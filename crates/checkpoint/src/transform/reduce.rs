//! The reduction: what is counted and summed of the events of a key, and over which windows of time. **Pure.**
//!
//! ```text
//! reduce = { pointer } "per" length [ "by" pointer [ "as" unit ] [ "in" zone ] ]
//! length = number and s, m, h or d          unit = seconds, milliseconds, microseconds or nanoseconds
//! zone   = a name of the IANA database, such as Europe/Berlin
//! ```
//! `/dep_delay per 1d by /time_hour`: of all events of a key and day, how many there are, and of the field
//! `/dep_delay` count, sum, least and greatest. A window begins at a multiple of its length since
//! 1970-01-01T00:00:00Z. Without `by`, the arrival of an event decides; with it, a field that holds a time: a string as
//! RFC 3339 writes it, or a number. An event without a time that can be read is *untimed*: counted apart, without window.
//!
//! Without `as`, a bare number is milliseconds since 1970; one that comes out before 1990 is of another unit, and untimed.
//! With `as`, a string that holds a number counts as that number. With `in`, a time may lack its offset.

use std::fmt;
use std::str::FromStr;

use sluicegate_event::{Decimal, Event, Pointer, Value};

use super::SyntaxError;
use super::time::{self, Unit, Zone};
use super::words::{What, Words, Written};
use crate::parameters::EVENT_DECODING_VERSION;
use crate::reading_before_3;
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
    by: Option<By>,
}

/// The field whose time decides.
#[derive(Debug, Clone, PartialEq, Eq)]
struct By {
    field: Pointer,
    unit: Option<Unit>,
    zone: Option<Zone>,
}

/// The window that an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// When it begins, in milliseconds since 1970.
    Begins(i64),
    /// The event has no time that can be read, or one outside the years 1000 to 9999.
    Untimed {
        /// The unit in which the number that stands there would be a time of our days.
        unit: Option<Unit>,
    },
    /// The event itself cannot be read.
    Unreadable,
}

impl Window {
    /// When it begins, if it does.
    pub fn begins(self) -> Option<i64> {
        match self {
            Self::Begins(at) => Some(at),
            Self::Untimed { .. } | Self::Unreadable => None,
        }
    }
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
        let by = if words.take("by") { Some(By::parse(&mut words)?) } else { None };
        if words.is_at_end() {
            return Ok(Self { of, seconds, by });
        }
        let why = if by.is_some() {
            "the reduction could end here: only `as` and a unit, then `in` and a time zone may follow, as in by /time as seconds in UTC"
        } else {
            "the reduction could end here: only `by` and a field that holds a time may follow, as in by /time"
        };
        Err(SyntaxError::new(words.at(), why))
    }

    /// The fields that are counted and summed.
    pub fn of(&self) -> &[Pointer] {
        &self.of
    }

    /// The window that an event belongs to, as it is read under a decoding version. `None` is an event that cannot be
    /// read; it has its arrival alone.
    pub fn window(&self, arrival: ArrivalMillis, event: Option<&Event<'_>>, decoding_version: u32) -> Window {
        let moment = match (&self.by, event) {
            (None, _) => Ok(arrival.0),
            (Some(_), None) => return Window::Unreadable,
            (Some(by), Some(event)) => {
                let field = event.find(&by.field);
                if decoding_version < EVENT_DECODING_VERSION {
                    field.and_then(reading_before_3::moment).ok_or(None)
                } else {
                    field.ok_or(None).and_then(|field| by.moment(field))
                }
            }
        };
        let length = i64::from(self.seconds) * 1_000;
        let begins = |at: i64| {
            let start = at.div_euclid(length) * length;
            (time::RANGE.contains(&at) && time::RANGE.contains(&start)).then_some(start).ok_or(None)
        };
        match moment.and_then(begins) {
            Ok(start) => Window::Begins(start),
            Err(unit) => Window::Untimed { unit },
        }
    }
}

impl By {
    fn parse(words: &mut Words) -> Result<Self, SyntaxError> {
        let field = words.pointer("")?;
        let mut by = Self { field, unit: None, zone: None };
        if words.take("as") {
            let at = words.at();
            let unit = Unit::ALL.into_iter().find(|unit| words.take(unit.name()));
            let why = "a unit is wanted here: seconds, milliseconds, microseconds or nanoseconds";
            by.unit = Some(unit.ok_or_else(|| SyntaxError::new(at, why))?);
        }
        if words.take("in") {
            let at = words.at();
            let name = words.zone();
            let zone = name.as_deref().and_then(Zone::parse);
            let why = || match name {
                Some(name) => format!(
                    "`{name}` is not a time zone: write one of the IANA database, such as Europe/Berlin or UTC"
                ),
                None => "a time zone is wanted here, such as Europe/Berlin or UTC".to_owned(),
            };
            by.zone = Some(zone.ok_or_else(|| SyntaxError::new(at, why()))?);
        }
        Ok(by)
    }

    /// The time that a field holds; where none can be read, the unit in which its number would make sense.
    fn moment(&self, field: Value<'_>) -> Result<i64, Option<Unit>> {
        let number = match (field.string(), field.number()) {
            (Some(text), _) => match (time::parse_any(&text, self.zone.as_ref()), self.unit) {
                (Some(ms), _) => return Ok(ms),
                (None, Some(_)) => Decimal::of_event(&text),
                (None, None) => None,
            },
            (None, number) => number.and_then(Decimal::of_event),
        };
        let number = number.ok_or(None)?;
        let plausible = |ms: &i64| self.unit.is_some() || *ms >= time::EARLIEST_BARE;
        let ms = self.unit.unwrap_or(Unit::Milliseconds).milliseconds(number).filter(plausible);
        ms.ok_or_else(|| Unit::of(number))
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
        let Some(By { field, unit, zone }) = &self.by else { return Ok(()) };
        write!(f, " by {}", Written(field))?;
        unit.iter().try_for_each(|unit| write!(f, " as {}", unit.name()))?;
        zone.iter().try_for_each(|zone| write!(f, " in {zone}"))
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
            ("per 1h by /t as seconds", "per 1h by /t as seconds"),
            ("per 1h by /t in europe/berlin", "per 1h by /t in Europe/Berlin"),
            ("per 1h by /t in \"UTC\"", "per 1h by /t in UTC"),
            (
                "per 1h by /t as nanoseconds in America/Argentina/Buenos_Aires",
                "per 1h by /t as nanoseconds in America/Argentina/Buenos_Aires",
            ),
            ("per 1h by /t in Etc/GMT+5", "per 1h by /t in Etc/GMT+5"),
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
            ("/a per 1h by /t as hours", 20, "a unit is wanted"),
            ("/a per 1h by /t as", 19, "a unit is wanted"),
            ("/a per 1h by /t in Mars/Base", 20, "`Mars/Base` is not a time zone"),
            ("/a per 1h by /t in", 19, "a time zone is wanted"),
            ("/a per 1h by /t in Europe /Berlin", 20, "`Europe` is not a time zone"),
            ("/a per 1h by /t in UTC as seconds", 24, "only `as` and a unit"),
        ];
        for (text, at, why) in cases {
            let error = Reduce::parse(text).unwrap_err();
            assert!(error.at == at && error.why.contains(why), "{text}: {error}");
        }
    }

    fn window_of(reduce: &str, arrival: i64, event: &str, decoding_version: u32) -> Window {
        let event = Event::parse(event.as_bytes()).ok();
        Reduce::parse(reduce).unwrap().window(ArrivalMillis(arrival), event.as_ref(), decoding_version)
    }

    #[test]
    fn an_event_belongs_to_the_window_of_its_time() {
        for version in [2, 3] {
            let window =
                |reduce: &str, arrival: i64, event: &str| window_of(reduce, arrival, event, version).begins();
            assert_eq!(window("per 1h", 3_600_000, "no json"), Some(3_600_000));
            assert_eq!(window("per 1h", 3_599_999, "{}"), Some(0));
            assert_eq!(window("per 1h", -1, "{}"), Some(-3_600_000));
            let by = "per 1d by /t";
            assert_eq!(window(by, 7, r#"{"t":"2013-01-01T10:00:00Z"}"#), Some(1_356_998_400_000));
            assert_eq!(window(by, 7, r#"{"t":1357034400000}"#), Some(1_356_998_400_000));
            assert_eq!(window(by, 7, r#"{"t":1.3570344e12}"#), Some(1_356_998_400_000));
            for event in
                ["no json", "{}", r#"{"t":"today"}"#, r#"{"t":null}"#, r#"{"t":1e18}"#, r#"{"t":1e60}"#]
            {
                assert_eq!(window(by, 7, event), None, "{event}");
            }
            let earliest = *time::RANGE.start();
            assert_eq!(window("per 7d", earliest, "{}"), None, "its window begins before the year 1000");
        }
        let before_1970 = |version| window_of("per 1d by /t", 7, r#"{"t":-0.5}"#, version).begins();
        assert_eq!((before_1970(2), before_1970(3)), (Some(-86_400_000), None));
    }

    #[test]
    fn what_has_no_time_is_untimed_and_names_the_unit_that_would_make_sense() {
        let untimed = |unit| Window::Untimed { unit };
        let hour = Window::Begins(1_357_034_400_000);
        let by = "per 1h by /t";
        let as_unit = |unit: &str| format!("{by} as {unit}");
        for (reduce, time, window) in [
            (by.to_owned(), "1357034400", untimed(Some(Unit::Seconds))),
            (by.to_owned(), "1357034400.25", untimed(Some(Unit::Seconds))),
            (by.to_owned(), "1357034400000000", untimed(Some(Unit::Microseconds))),
            (by.to_owned(), "1357034400000000000", untimed(Some(Unit::Nanoseconds))),
            (by.to_owned(), r#""1357034400000""#, untimed(None)),
            (by.to_owned(), r#""2013-01-01T10:00:00""#, untimed(None)),
            (by.to_owned(), "null", untimed(None)),
            (by.to_owned(), r#""2013-01-01T10:00:00+0000""#, hour),
            (by.to_owned(), r#""2013-01-01T10:00Z""#, hour),
            (as_unit("seconds"), "1357034400", hour),
            (as_unit("seconds"), "1357034400.25", hour),
            (as_unit("seconds"), r#""1357034400""#, hour),
            (as_unit("seconds"), r#""2013-01-01T10:00:00Z""#, hour),
            (as_unit("seconds"), "1357034400000", untimed(Some(Unit::Milliseconds))),
            (as_unit("seconds"), "0", Window::Begins(0)),
            (as_unit("milliseconds"), r#""1357034400000""#, hour),
            (as_unit("microseconds"), "1357034400000000", hour),
            (as_unit("nanoseconds"), "1357034400000000000", hour),
            (format!("{by} in Europe/Berlin"), r#""2013-01-01T11:00:00""#, hour),
            (format!("{by} in UTC"), r#""2013-01-01 10:00:00.000""#, hour),
        ] {
            assert_eq!(window_of(&reduce, 7, &format!("{{\"t\":{time}}}"), 3), window, "{reduce}: {time}");
        }
        assert_eq!(window_of(by, 7, "no json", 3), Window::Unreadable);
        assert_eq!(
            window_of(by, 7, r#"{"t":1357034400}"#, 2),
            Window::Begins(1_357_034_400_000 / 1_000 / 3_600_000 * 3_600_000)
        );
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(text in "(/a |/b/c |\"/ \" ){0,1}per [1-9][0-9]{0,2}[smhd]( by /t( as (seconds|nanoseconds))?( in (UTC|Europe/Berlin|Asia/Tokyo))?)?") {
            if let Ok(reduce) = Reduce::parse(&text) {
                prop_assert_eq!(Reduce::parse(&reduce.to_string()).unwrap(), reduce);
            }
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "(per|by|as|in|seconds|UTC|Europe|/a|[0-9smhd \",é-]){0,12}") {
            drop(Reduce::parse(&text));
        }
    }
}
