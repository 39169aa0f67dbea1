//! Milliseconds since the Unix epoch, turned into the forms of time that the AWS protocols carry. Pure.

/// The forms of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    ms: u64,
}

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const SECONDS_PER_DAY: u64 = 86_400;

impl Moment {
    pub(crate) fn from_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// As in an HTTP `Date` header (RFC 9110, 5.6.7): `Thu, 01 Jan 1970 00:00:00 GMT`.
    pub(crate) fn http_date(self) -> String {
        let (weekday, time) = (self.weekday(), self.time_of_day());
        let (year, month, day) = self.date();
        format!("{weekday}, {day:02} {month} {year:04} {time} GMT")
    }

    /// As Kinesis prints a time inside an error message: `Thu Jan 01 00:00:00 UTC 1970`.
    pub(crate) fn prose(self) -> String {
        let (weekday, time) = (self.weekday(), self.time_of_day());
        let (year, month, day) = self.date();
        format!("{weekday} {month} {day:02} {time} UTC {year:04}")
    }

    /// As a JSON timestamp of the AWS protocols: seconds with milliseconds as the fraction.
    pub(crate) fn epoch_seconds(self) -> f64 {
        let seconds = u32::try_from(self.ms / 1000).unwrap_or(u32::MAX);
        let fraction = u32::try_from(self.ms % 1000).unwrap_or_default();
        f64::from(seconds) + f64::from(fraction) / 1000.0
    }

    /// Reads a JSON timestamp, rounded to the nearest millisecond; what lies before the epoch counts as the epoch.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0 ..= 2^53, where every whole f64 is a u64"
    )]
    pub(crate) fn from_epoch_seconds(seconds: f64) -> Self {
        let ms = (seconds * 1000.0).round().clamp(0.0, 9_007_199_254_740_992.0);
        Self { ms: ms as u64 }
    }

    pub(crate) fn ms(self) -> u64 {
        self.ms
    }

    fn weekday(self) -> &'static str {
        let day = self.ms / 1000 / SECONDS_PER_DAY;
        usize::try_from(day % 7).ok().and_then(|index| WEEKDAYS.get(index)).copied().unwrap_or_default()
    }

    fn time_of_day(self) -> String {
        let second = self.ms / 1000 % SECONDS_PER_DAY;
        format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    }

    /// Year, month, day of the Gregorian calendar. Counts in years that begin on 1 March, so that the leap day comes last,
    /// from a year 0 that begins 719,468 days before the epoch; an era is 400 years, 146,097 days.
    fn date(self) -> (u64, &'static str, u64) {
        let days = self.ms / 1000 / SECONDS_PER_DAY + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month_index = (month_from_march + 2) % 12;
        let year = 400 * era + year_of_era + u64::from(month_index < 2);
        let month = usize::try_from(month_index).ok().and_then(|index| MONTHS.get(index)).copied();
        (year, month.unwrap_or_default(), day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_gregorian_calendar() {
        for (seconds, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (1_709_251_200, "Fri, 01 Mar 2024 00:00:00 GMT"),
            (4_102_444_800, "Fri, 01 Jan 2100 00:00:00 GMT"),
        ] {
            assert_eq!(Moment::from_ms(seconds * 1000).http_date(), date);
        }
        assert_eq!(Moment::from_ms(784_111_777_000).prose(), "Sun Nov 06 08:49:37 UTC 1994");
    }

    #[test]
    fn epoch_seconds_keep_the_millisecond() {
        for ms in [0, 1, 999, 1_700_000_000_123, 1_799_999_999_999] {
            assert_eq!(Moment::from_epoch_seconds(Moment::from_ms(ms).epoch_seconds()).ms(), ms);
        }
        assert_eq!(Moment::from_epoch_seconds(-5.0).ms(), 0);
        assert_eq!(Moment::from_epoch_seconds(f64::NAN).ms(), 0);
    }
}
