//! Numbers as they are written: compared exactly, added without rounding, and one text for each in keys. **Pure.**
//!
//! Doubles would not do: their sums depend on the order of the events, and so on how records fell into batches. Here
//! adding is exact, so any grouping of the same events gives the same sum.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use crate::parse::is_number;

/// A JSON number, of any size: `0.digits * 10^point`, digits without zeros at either end; zero has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    negative: bool,
    digits: String,
    point: i64,
}

impl Number {
    /// Most digits, on both sides of the point together, with which [`Number::canonical`] writes a number out: as many
    /// as a key has characters. An exponent of nine digits must not become a text of a gigabyte.
    pub const MAX_PLAIN_DIGITS: i64 = 256;

    /// Reads a JSON number. Exponents beyond all reason (18 digits and more) count as the largest there is.
    pub fn parse(text: &str) -> Option<Self> {
        if !is_number(text) {
            return None;
        }
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, 0), |(m, e)| (m, exponent(e)));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let significant = all.trim_start_matches('0');
        let digits = significant.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, point: 0 });
        }
        let leading = length(&all) - length(significant);
        let point = exponent.saturating_add(length(whole) - leading);
        Some(Self { negative, digits, point })
    }

    /// The one text of a number: the same for two numbers exactly if they are equal.
    ///
    /// | written | canonical |
    /// |---|---|
    /// | `92838584930183242888` | `92838584930183242888`: an integer is its digits |
    /// | `1e2`, `100`, `100.0` | `100` |
    /// | `1.50`, `15e-1` | `1.5` |
    /// | `-0`, `0.0` | `0` |
    /// | `1e-7` | `0.0000001` |
    /// | `12e300`, which has more than [`Number::MAX_PLAIN_DIGITS`] digits | `1.2e301` |
    /// | `1e-300`, likewise | `1e-300` |
    pub fn canonical(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let digits = &self.digits;
        let (count, point) = (length(digits), self.point);
        if count == 0 {
            return "0".to_owned();
        }
        let plain_digits = point.max(1).saturating_add(count.saturating_sub(point).max(0));
        if plain_digits > Self::MAX_PLAIN_DIGITS {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            return format!("{sign}{first}{dot}{rest}e{}", point.saturating_sub(1));
        }
        // Both are below MAX_PLAIN_DIGITS here.
        let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
        if point <= 0 {
            return format!("{sign}0.{}{digits}", zeros(-point));
        }
        match usize::try_from(point).ok().and_then(|point| digits.split_at_checked(point)) {
            Some((whole, "")) => format!("{sign}{whole}"),
            Some((whole, fraction)) => format!("{sign}{whole}.{fraction}"),
            None => format!("{sign}{digits}{}", zeros(point - count)),
        }
    }

    fn magnitude(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

/// [`Number::canonical`] of a JSON number; `None` of another text. Most integers are their own canonical form.
pub fn canonical(text: &str) -> Option<Cow<'_, str>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain && digits != "0" && is_number(text) && length(digits) <= Number::MAX_PLAIN_DIGITS {
        return Some(Cow::Borrowed(text));
    }
    Number::parse(text).map(|number| Cow::Owned(number.canonical()))
}

fn length(digits: &str) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

fn exponent(text: &str) -> i64 {
    const LARGEST: i64 = 1_000_000_000_000_000_000;
    let digits = text.trim_start_matches(['+', '-']);
    let size = digits.parse().unwrap_or(LARGEST).min(LARGEST);
    if text.starts_with('-') { -size } else { size }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.magnitude(other),
            (true, true) => other.magnitude(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A decimal that can be added: `whole + fraction / 10^24`, where the fraction is never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Decimal {
    whole: i128,
    fraction: i128,
}

/// 10^24.
const ONE: i128 = 1_000_000_000_000_000_000_000_000;

impl Decimal {
    /// Digits that an event's number may have on either side of the decimal point to be added. With this bound no sum
    /// of fewer than 10^14 numbers overflows.
    pub const DIGITS: i64 = 24;

    /// The number of an event, if it has at most [`Decimal::DIGITS`] digits before the decimal point and as many
    /// behind it. It is never rounded.
    pub fn of_event(text: &str) -> Option<Self> {
        let number = Number::parse(text)?;
        if number.point > Self::DIGITS { None } else { Self::of(&number) }
    }

    /// A sum as it was displayed.
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(&Number::parse(text)?)
    }

    fn of(number: &Number) -> Option<Self> {
        // 10^38 is what an i128 holds; no negative exponent below its place can have digits above it.
        let fraction_digits = length(&number.digits) - number.point;
        if number.point > 38 || fraction_digits > Self::DIGITS {
            return None;
        }
        let (mut whole, mut fraction) = (0i128, 0i128);
        let mut digits = number.digits.bytes().map(|digit| i128::from(digit - b'0'));
        for _ in 0..number.point {
            whole = whole.checked_mul(10)?.checked_add(digits.next().unwrap_or(0))?;
        }
        // A point below zero stands for zeros in front of the digits.
        let places = (1..=Self::DIGITS)
            .map(|place| if place <= -number.point { 0 } else { digits.next().unwrap_or(0) });
        for digit in places {
            fraction = fraction * 10 + digit;
        }
        let (whole, fraction) = match (number.negative, fraction) {
            (false, _) => (whole, fraction),
            (true, 0) => (-whole, 0),
            (true, _) => (-whole - 1, ONE - fraction),
        };
        Some(Self { whole, fraction })
    }

    /// The greatest whole number that is not greater.
    pub fn whole(self) -> i128 {
        self.whole
    }

    /// [`Decimal::whole`] of a thousand times the number; `None` where that is more than an `i128` holds.
    pub fn whole_of_thousandfold(self) -> Option<i128> {
        self.whole.checked_mul(1_000)?.checked_add(self.fraction * 1_000 / ONE)
    }

    /// The sum; `None` where it needs more than 38 digits before the point.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let fraction = self.fraction + other.fraction;
        let carry = fraction / ONE;
        let whole = self.whole.checked_add(other.whole)?.checked_add(carry)?;
        Some(Self { whole, fraction: fraction % ONE })
    }
}

impl fmt::Display for Decimal {
    /// A JSON number without exponent, as short as it can be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fraction == 0 {
            return write!(f, "{}", self.whole);
        }
        let negative = self.whole < 0;
        let (whole, fraction) =
            if negative { (-(self.whole + 1), ONE - self.fraction) } else { (self.whole, self.fraction) };
        let digits = format!("{fraction:024}");
        write!(f, "{}{whole}.{}", if negative { "-" } else { "" }, digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A number in one of the many ways that JSON has for it.
    fn any_number_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
            any::<i64>().prop_map(|n| n.to_string()),
            (-1e9f64..1e9).prop_map(|n| n.to_string()),
        ]
    }

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn one_value_in_many_ways_is_one_number() {
        for texts in [
            ["1", "1.0", "10e-1", "0.01E+2"],
            ["0", "-0", "0.000", "0e99"],
            ["-120", "-1.2e2", "-120.00", "-12e1"],
        ] {
            for text in texts {
                assert_eq!(number(text), number(texts[0]), "{text}");
            }
        }
        for text in ["", "1.", "01", "abc", "1e", " 1", "--1", "1d"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_number_has_one_canonical_text() {
        let long = "7".repeat(256);
        for (text, shown) in [
            ("92838584930183242888", "92838584930183242888"),
            ("-92838584930183242889", "-92838584930183242889"),
            ("1e2", "100"),
            ("100", "100"),
            ("100.0", "100"),
            ("1.50", "1.5"),
            ("-0", "0"),
            ("0", "0"),
            ("0.0e7", "0"),
            ("-15e-1", "-1.5"),
            ("1e-7", "0.0000001"),
            ("12345.678e-2", "123.45678"),
            (long.as_str(), long.as_str()),
            ("1e255", format!("1{}", "0".repeat(255)).as_str()),
            ("1e256", "1e256"),
            ("12e300", "1.2e301"),
            ("-1e-255", format!("-0.{}1", "0".repeat(254)).as_str()),
            ("1e-256", "1e-256"),
            ("1.5e-300", "1.5e-300"),
            ("1e999999999", "1e999999999"),
            ("1e-999999999", "1e-999999999"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(shown), "{text}");
            assert_eq!(number(text).canonical(), shown, "{text}");
        }
        let longer = format!("7{long}");
        let scientific = format!("7.{long}e256");
        assert_eq!(canonical(&longer).as_deref(), Some(scientific.as_str()));
        assert_eq!(["", "-", "1.", "01", "x", "--1", "+1"].map(canonical), [const { None }; 7]);
    }

    #[test]
    fn numbers_stand_in_order_whatever_their_size() {
        let ascending = [
            "-1e99999999999999999999",
            "-1e400",
            "-9007199254740993",
            "-9007199254740992",
            "-1",
            "-1e-400",
            "0",
            "1e-99999999999999999999",
            "1e-400",
            "0.1",
            "0.10000000000000000001",
            "2",
            "10",
            "1e400",
        ];
        for pair in ascending.windows(2) {
            assert!(number(pair[0]) < number(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn decimals_are_taken_exactly_or_not_at_all() {
        for (text, shown) in [
            ("1.50", "1.5"),
            ("-0.25", "-0.25"),
            ("-3", "-3"),
            ("1e3", "1000"),
            ("1.5e-7", "0.00000015"),
            ("0", "0"),
            ("-0.000000000000000000000001", "-0.000000000000000000000001"),
            ("999999999999999999999999.5", "999999999999999999999999.5"),
            ("-1e-24", "-0.000000000000000000000001"),
        ] {
            assert_eq!(Decimal::of_event(text).map(|d| d.to_string()).as_deref(), Some(shown), "{text}");
        }
        for text in [
            "1e24",
            "1e-25",
            "0.1000000000000000000000001",
            "1e999999999999999999999",
            "1e-99999999999999999999",
            "x",
        ] {
            assert_eq!(Decimal::of_event(text), None, "{text}");
        }
        let large = Decimal::parse("99999999999999999999999999999999999999").unwrap();
        assert_eq!(large.plus(large), None);
        assert_eq!(Decimal::parse("1e39"), None);
    }

    proptest! {
        #[test]
        fn canonical_texts_are_equal_exactly_if_the_numbers_are(
            a in any_number_text(),
            b in prop_oneof![any_number_text(), "[1-9]0{0,3}(\\.0{1,3})?(e-?[0-3])?"],
            shift in 0usize..300,
        ) {
            let shown = canonical(&a).unwrap();
            prop_assert_eq!(number(&shown), number(&a));
            prop_assert_eq!(shown == canonical(&b).unwrap(), number(&a) == number(&b));
            if !a.contains(['.', 'e', 'E']) && number(&a) != number("0") {
                let same = format!("{a}{}.00e-{shift}", "0".repeat(shift));
                prop_assert_eq!(canonical(&same), canonical(&a));
            }
        }

        #[test]
        fn order_is_that_of_the_doubles_where_those_differ(a in any_number_text(), b in any_number_text()) {
            let (x, y): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
            if x != y {
                prop_assert_eq!(number(&a).cmp(&number(&b)), x.partial_cmp(&y).unwrap(), "{} {}", a, b);
            }
        }

        #[test]
        fn sums_do_not_depend_on_order_or_grouping(texts in prop::collection::vec("-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?", 1..20), split in 0usize..20) {
            let values: Vec<Decimal> = texts.iter().map(|text| Decimal::of_event(text).unwrap()).collect();
            let sum = |values: &[Decimal]| values.iter().try_fold(Decimal::default(), |sum, value| sum.plus(*value)).unwrap();
            let (left, right) = values.split_at(split.min(values.len()));
            prop_assert_eq!(sum(left).plus(sum(right)).unwrap(), sum(&values));
            let mut reversed = values.clone();
            reversed.reverse();
            prop_assert_eq!(sum(&reversed), sum(&values));
        }

        #[test]
        fn sums_are_those_of_integers_in_units_of_the_last_place(units in prop::collection::vec(-1_000_000_000_000i64..1_000_000_000_000, 1..20), places in 0u32..9) {
            let scaled = |units: i128| format!("{units}e-{places}");
            let parts: Vec<Decimal> = units.iter().map(|n| Decimal::of_event(&scaled(i128::from(*n))).unwrap()).collect();
            let sum = parts.iter().try_fold(Decimal::default(), |sum, value| sum.plus(*value)).unwrap();
            let exact: i128 = units.iter().map(|n| i128::from(*n)).sum();
            prop_assert_eq!(sum, Decimal::parse(&scaled(exact)).unwrap());
            prop_assert_eq!(Decimal::parse(&sum.to_string()), Some(sum));
        }

        #[test]
        fn decimals_and_numbers_stand_in_the_same_order(a in any_number_text(), b in any_number_text()) {
            if let (Some(x), Some(y)) = (Decimal::of_event(&a), Decimal::of_event(&b)) {
                prop_assert_eq!(x.cmp(&y), number(&a).cmp(&number(&b)));
            }
        }
    }
}
