//! Numbers as they are written: compared exactly, and added without rounding. **Pure.**
//!
//! Doubles would not do: their sums depend on the order of the events, and so on how records fell into batches. Here
//! adding is exact, so any grouping of the same events gives the same sum.

use std::cmp::Ordering;
use std::fmt;

use super::json;

/// A JSON number, of any size: `0.digits * 10^point`, digits without zeros at either end; zero has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    negative: bool,
    digits: String,
    point: i64,
}

impl Number {
    /// Reads a JSON number. Exponents beyond all reason (18 digits and more) count as the largest there is.
    pub fn parse(text: &str) -> Option<Self> {
        if !json::is_number(text) {
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

    fn magnitude(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
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

    use super::super::json::tests::any_number_text;
    use super::*;

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
