//! Times as RFC 3339, in milliseconds since 1970-01-01T00:00:00Z. **Pure.**

/// Earliest and latest time with a year of four digits and no leading zero: 1000-01-01 to 9999-12-31.
pub const RANGE: std::ops::RangeInclusive<i64> = -30_610_224_000_000..=253_402_300_799_999;

const DAY_MS: i64 = 86_400_000;

/// Reads a time such as `2013-01-31T12:00:00Z` or `2013-01-31 12:00:00.25-05:00`; digits beyond milliseconds are
/// dropped. A leap second counts as the first of the next minute.
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        digits.iter().all(u8::is_ascii_digit).then_some(())?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let (millis, zone) = fraction(text.get(19..)?)?;
    let ms = days(year, month, day) * DAY_MS + (hour * 3_600 + minute * 60 + second) * 1_000 + millis
        - offset(zone)?;
    RANGE.contains(&ms).then_some(ms)
}

fn fraction(rest: &str) -> Option<(i64, &str)> {
    let Some(digits) = rest.strip_prefix('.') else { return Some((0, rest)) };
    let zone = digits.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = &digits[..digits.len() - zone.len()];
    (!digits.is_empty()).then_some(())?;
    let first: String = digits.chars().chain("00".chars()).take(3).collect();
    Some((first.parse().ok()?, zone))
}

fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
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

    proptest! {
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
            if let Some(ms) = parse(&text) {
                prop_assert!(RANGE.contains(&ms));
            }
        }
    }
}
