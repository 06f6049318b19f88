//! Decimal numbers, as amounts of money are: exact, with a fixed number of digits behind
//! the point.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Neg, Sub, SubAssign};
use std::str::FromStr;

/// A number with `SCALE` digits behind the point, of at most 38 digits in all.
///
/// A field of this type reads columns of `decimal(P,SCALE)` with any `P`, and is written as
/// `decimal(38,SCALE)`. Values are exact: `+`, `-` and `*` with an integer panic where a
/// result has more than 38 digits, so that the row becomes a dead letter; what is called
/// `checked_…` returns `None` instead.
///
/// ```
/// use sluicebox_sdk::Decimal;
///
/// let price: Decimal<2> = "19.99".parse()?;
/// assert_eq!(price * 3, Decimal::from_units(5_997));
/// assert_eq!((price - Decimal::from(20)).to_string(), "-0.01");
///
/// // A product or quotient is rounded, halves away from zero.
/// let tax: Decimal<3> = "0.175".parse()?;
/// assert_eq!(price.checked_mul(tax), "3.50".parse().ok());
/// assert_eq!(price.checked_div(4), "5.00".parse().ok());
/// # Ok::<(), sluicebox_sdk::NotDecimal>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal<const SCALE: u8>(i128);

/// The least number of units that is too large.
const LIMIT: i128 = 10_i128.pow(38);

const TOO_LARGE: &str = "a decimal has at most 38 digits";

impl<const SCALE: u8> Decimal<SCALE> {
    /// The largest one.
    pub const MAX: Self = Decimal(LIMIT - 1);
    /// The least one.
    pub const MIN: Self = Decimal(1 - LIMIT);
    /// 0
    pub const ZERO: Self = Decimal(0);

    /// How many units of the last digit are 1.
    const ONE: i128 = {
        assert!(
            SCALE <= 38,
            "a decimal has at most 38 digits behind the point"
        );
        10_i128.pow(SCALE as u32)
    };

    /// So many units of the last digit: cents, with a scale of 2.
    ///
    /// # Panics
    /// If they have more than 38 digits.
    pub const fn from_units(units: i128) -> Self {
        match Self::checked_from_units(units) {
            Some(decimal) => decimal,
            None => panic!("{}", TOO_LARGE),
        }
    }

    /// The same, or `None` if they have more than 38 digits.
    pub const fn checked_from_units(units: i128) -> Option<Self> {
        match -LIMIT < units && units < LIMIT {
            true => Some(Decimal(units)),
            false => None,
        }
    }

    /// How many units of the last digit it is.
    pub const fn units(self) -> i128 {
        self.0
    }

    /// The sum, unless it is too large.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        // The sum of two numbers of 38 digits is within 128 bits only if it is small.
        match self.0.checked_add(other.0) {
            Some(units) => Self::checked_from_units(units),
            None => None,
        }
    }

    /// The difference, unless it is too large.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        self.checked_add(Decimal(-other.0))
    }

    /// The product with a decimal of any scale, rounded to this scale, halves away from
    /// zero; `None` if it is too large, or has more than 38 digits before it is rounded.
    pub const fn checked_mul<const OTHER: u8>(self, other: Decimal<OTHER>) -> Option<Self> {
        match self.0.checked_mul(other.0) {
            Some(units) => match divided(units, Decimal::<OTHER>::ONE) {
                Some(units) => Self::checked_from_units(units),
                None => None,
            },
            None => None,
        }
    }

    /// The quotient, rounded to this scale, halves away from zero; `None` for 0.
    pub const fn checked_div(self, divisor: i64) -> Option<Self> {
        match divided(self.0, divisor as i128) {
            Some(units) => Some(Decimal(units)),
            None => None,
        }
    }

    /// The same number with another scale, rounded halves away from zero if that has fewer
    /// digits; `None` if it is too large.
    pub const fn rescaled<const OTHER: u8>(self) -> Option<Decimal<OTHER>> {
        let units = if OTHER >= SCALE {
            self.0.checked_mul(10_i128.pow((OTHER - SCALE) as u32))
        } else {
            divided(self.0, 10_i128.pow((SCALE - OTHER) as u32))
        };
        match units {
            Some(units) => Decimal::<OTHER>::checked_from_units(units),
            None => None,
        }
    }

    /// Without its sign.
    pub const fn abs(self) -> Self {
        Decimal(self.0.abs())
    }

    /// The nearest float.
    pub fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }
}

/// The quotient, rounded, halves away from zero; `None` for 0.
const fn divided(units: i128, by: i128) -> Option<i128> {
    if by == 0 {
        return None;
    }
    let (whole, rest) = (units / by, units % by);
    // `rest` and `by` are below 2^126, so that this does not overflow.
    Some(if rest.abs() >= by.abs() - rest.abs() {
        if (units < 0) == (by < 0) {
            whole + 1
        } else {
            whole - 1
        }
    } else {
        whole
    })
}

impl<const SCALE: u8> Add for Decimal<SCALE> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.checked_add(other).expect(TOO_LARGE)
    }
}

impl<const SCALE: u8> Sub for Decimal<SCALE> {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.checked_sub(other).expect(TOO_LARGE)
    }
}

impl<const SCALE: u8> Mul<i64> for Decimal<SCALE> {
    type Output = Self;

    fn mul(self, times: i64) -> Self {
        let units = self.0.checked_mul(times.into());
        Self::from_units(units.expect(TOO_LARGE))
    }
}

impl<const SCALE: u8> Neg for Decimal<SCALE> {
    type Output = Self;

    fn neg(self) -> Self {
        Decimal(-self.0)
    }
}

impl<const SCALE: u8> AddAssign for Decimal<SCALE> {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl<const SCALE: u8> SubAssign for Decimal<SCALE> {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl<const SCALE: u8> Sum for Decimal<SCALE> {
    fn sum<I: Iterator<Item = Self>>(decimals: I) -> Self {
        decimals.fold(Self::ZERO, Add::add)
    }
}

/// A whole number.
///
/// # Panics
/// If it has more than 38 digits, those behind the point included.
impl<const SCALE: u8> From<i64> for Decimal<SCALE> {
    fn from(whole: i64) -> Self {
        let units = i128::from(whole).checked_mul(Self::ONE);
        Self::from_units(units.expect(TOO_LARGE))
    }
}

/// With all digits of the scale: `12.30`.
impl<const SCALE: u8> fmt::Display for Decimal<SCALE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.0.unsigned_abs();
        let one = Self::ONE.unsigned_abs();
        let digits = match SCALE {
            0 => units.to_string(),
            scale => {
                let width = usize::from(scale);
                format!("{}.{:0width$}", units / one, units % one)
            }
        };
        f.pad_integral(self.0 >= 0, "", &digits)
    }
}

impl<const SCALE: u8> fmt::Debug for Decimal<SCALE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a decimal of a scale: not a number such as `-12.30`, one with more
/// digits behind the point, or a too large one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotDecimal(String);

impl fmt::Display for NotDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotDecimal {}

/// Reads `12.3`. Nothing is rounded.
impl<const SCALE: u8> FromStr for Decimal<SCALE> {
    type Err = NotDecimal;

    fn from_str(text: &str) -> Result<Self, NotDecimal> {
        let read = || {
            let (negative, number) = match text.strip_prefix('-') {
                Some(number) => (true, number),
                None => (false, text),
            };
            let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
            let are_digits =
                |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if !are_digits(whole) || !are_digits(fraction) {
                return None;
            }
            let fraction = fraction.trim_end_matches('0');
            let zeros = usize::from(SCALE).checked_sub(fraction.len())?;
            let digits = whole.bytes().chain(fraction.bytes());
            let digits = digits.chain(std::iter::repeat_n(b'0', zeros));
            let mut units = 0_i128;
            for digit in digits {
                let more = units.checked_mul(10)?;
                units = more.checked_add(i128::from(digit - b'0'))?;
            }
            Self::checked_from_units(if negative { -units } else { units })
        };
        read().ok_or_else(|| {
            NotDecimal(format!(
                "`{text}` is not a number of at most 38 digits, {SCALE} of them behind the point"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of<const SCALE: u8>(text: &str) -> Decimal<SCALE> {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn texts_are_read_exactly_or_not_at_all() {
        for text in ["12.3", "12.30", "12.3000", "0012.3"] {
            assert_eq!(of::<2>(text).units(), 1230, "{text}");
        }
        assert_eq!(of::<0>("-7").to_string(), "-7");
        assert_eq!(of::<2>("-0.05").to_string(), "-0.05");
        let nines = "9".repeat(38);
        assert_eq!(of::<0>(&nines), Decimal::MAX);
        assert_eq!(of::<38>(&format!("-0.{nines}")), Decimal::MIN);
        for text in ["", "-", "1.", ".5", "1.234", "+1", "1e2", " 1", "1,5"] {
            assert!(text.parse::<Decimal<2>>().is_err(), "{text}");
        }
        let error = format!("{nines}0").parse::<Decimal<0>>().unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("at most 38 digits, 0 of them behind the point")
        );
        assert_eq!(
            format!("{:>8}|{:<8}|", of::<2>("-1.5"), of::<2>("1.5")),
            "   -1.50|1.50    |"
        );
    }

    #[test]
    fn results_that_are_too_large_are_none() {
        type D = Decimal<2>;
        let least = D::from_units(1);
        assert_eq!(D::MAX.checked_add(least), None);
        assert_eq!(D::MAX.checked_add(D::MAX), None);
        assert_eq!(D::MIN.checked_sub(D::MAX), None);
        assert_eq!(D::MAX.checked_sub(least).map(D::units), Some(LIMIT - 2));
        assert_eq!(D::MAX.checked_mul(Decimal::<0>::from(2)), None);
        assert_eq!(D::MAX.rescaled::<3>(), None);
        assert_eq!(D::ZERO.checked_div(0), None);
        assert_eq!(D::MIN.checked_div(-1), Some(D::MAX));
    }

    #[test]
    #[should_panic(expected = "a decimal has at most 38 digits")]
    fn operators_panic_instead() {
        let _ = Decimal::<2>::MAX + Decimal::from(1);
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        for (text, rounded) in [
            ("1.25", "1.3"),
            ("-1.25", "-1.3"),
            ("1.24", "1.2"),
            ("-0.04", "0.0"),
        ] {
            assert_eq!(of::<2>(text).rescaled::<1>(), Some(of(rounded)), "{text}");
        }
        assert_eq!(of::<1>("1.5").rescaled::<3>(), Some(of("1.500")));
        assert_eq!(of::<2>("10.00").checked_div(3), Some(of("3.33")));
        assert_eq!(of::<2>("-0.05").checked_div(10), Some(of("-0.01")));
        assert_eq!(of::<2>("0.05").checked_div(-10), Some(of("-0.01")));
        assert_eq!(
            of::<2>("19.99").checked_mul(of::<4>("0.1900")),
            Some(of("3.80"))
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(units in 1 - LIMIT..LIMIT, shift in 0..38_u32) {
            let decimal = Decimal::<7>::from_units(units / 10_i128.pow(shift));
            prop_assert_eq!(decimal.to_string().parse(), Ok(decimal));
        }

        #[test]
        fn it_calculates_as_whole_numbers_do(a in any::<i64>(), b in any::<i64>(), n in any::<i32>()) {
            let [x, y] = [a, b].map(|units| Decimal::<2>::from_units(units.into()));
            let (a, b) = (i128::from(a), i128::from(b));
            prop_assert_eq!((x + y).units(), a + b);
            prop_assert_eq!((x - y).units(), a - b);
            prop_assert_eq!((x * n.into()).units(), a * i128::from(n));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            if let Some(quotient) = x.checked_div(n.into()) {
                let off = (quotient.units() * i128::from(n) - a).abs();
                prop_assert!(2 * off <= i128::from(n).abs());
            }
        }
    }
}
