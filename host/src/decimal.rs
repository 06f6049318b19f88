//! Decimals: numbers with a fixed number of digits after the point. A value is a whole
//! number of units of the last digit: `12.30` of `decimal(18,2)` is 1230.
//!
//! Nothing is rounded: a number with more digits than its type has is no value of the type.

use std::fmt;

/// The most digits that a decimal has: more do not fit into 128 bits.
pub const PRECISION_MAX: u8 = 38;

/// Why a text is not a decimal of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDecimal {
    /// It is not a number.
    Text,
    /// It is not the base64 of a whole number.
    Unscaled,
    /// It has other digits than 0 behind the last one of the type.
    Digits { scale: u8 },
    /// It has too many digits before the point.
    Large { whole: u8 },
}

/// As an addition to a message that says what was expected and found; empty where that says
/// it all.
impl fmt::Display for NotDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotDecimal::Text => Ok(()),
            NotDecimal::Unscaled => f.write_str(
                ", which is not base64, as Debezium writes decimals by default (`decimals = \
                 \"string\"` reads texts)",
            ),
            NotDecimal::Digits { scale: 0 } => {
                f.write_str(", which has digits after the point; it is not rounded")
            }
            NotDecimal::Digits { scale } => write!(
                f,
                ", which has more than {scale} digits after the point; it is not rounded"
            ),
            NotDecimal::Large { whole } => {
                write!(f, ", which has more than {whole} digits before the point")
            }
        }
    }
}

/// The least number with more digits than this.
pub const fn limit(precision: u8) -> i128 {
    10_i128.pow(precision as u32)
}

/// Whether a number of units has at most so many digits.
pub fn fits(units: i128, precision: u8) -> bool {
    units.unsigned_abs() < limit(precision).unsigned_abs()
}

/// Reads a number as JSON and CSV have it: `-12.3`, `1.23e1`. Zeros behind the last digit
/// of the type are none too many.
pub fn parse(text: &[u8], precision: u8, scale: u8) -> Result<i128, NotDecimal> {
    let number = Written::read(text).ok_or(NotDecimal::Text)?;
    let digits = number.digits();
    if digits == 0 {
        return Ok(0);
    }
    let last = number.exponent.saturating_add(i64::from(scale));
    if last < 0 {
        return Err(NotDecimal::Digits { scale });
    }
    let large = NotDecimal::Large {
        whole: precision - scale,
    };
    if last.saturating_add(digits as i64) > i64::from(precision) {
        return Err(large);
    }
    let mantissa = number.each().fold(0, |units: i128, digit| {
        units * 10 + i128::from(digit - b'0')
    });
    let units = mantissa * limit(last as u8);
    Ok(if number.is_negative { -units } else { units })
}

/// Units of a decimal that has `from` digits behind the point, as those of another.
pub fn rescale(units: i128, from: u8, precision: u8, scale: u8) -> Result<i128, NotDecimal> {
    shift(units, i64::from(from), precision, scale)
}

/// Units of a decimal from the bytes of a whole number, the highest first, of whose digits
/// `from` are behind the point.
pub fn from_unscaled(
    bytes: &[u8],
    from: i64,
    precision: u8,
    scale: u8,
) -> Result<i128, NotDecimal> {
    let sign = match bytes.first() {
        None => return Err(NotDecimal::Unscaled),
        Some(first) if first & 0x80 != 0 => 0xFF,
        Some(_) => 0,
    };
    let mut units = [sign; 16];
    let extra = bytes.len().saturating_sub(units.len());
    let (extra, bytes) = bytes.split_at(extra);
    let start = units.len() - bytes.len();
    units[start..].copy_from_slice(bytes);
    let is_whole = extra.iter().all(|&byte| byte == sign) && (units[0] ^ sign) & 0x80 == 0;
    let large = NotDecimal::Large {
        whole: precision - scale,
    };
    let units = Some(i128::from_be_bytes(units)).filter(|_| is_whole);
    shift(units.ok_or(large)?, from, precision, scale)
}

/// Units of a decimal that has `from` digits behind the point, as those of another.
fn shift(units: i128, from: i64, precision: u8, scale: u8) -> Result<i128, NotDecimal> {
    let large = NotDecimal::Large {
        whole: precision - scale,
    };
    let places = i64::from(scale).saturating_sub(from);
    let power = u8::try_from(places.unsigned_abs())
        .ok()
        .filter(|places| *places <= PRECISION_MAX)
        .map(limit);
    let units = match (units, power) {
        (0, _) => 0,
        (_, Some(power)) if places >= 0 => units.checked_mul(power).ok_or(large)?,
        (_, Some(power)) if units % power == 0 => units / power,
        (_, None) if places >= 0 => return Err(large),
        _ => return Err(NotDecimal::Digits { scale }),
    };
    fits(units, precision).then_some(units).ok_or(large)
}

/// Reads a whole number, however it is written: `5`, `5.0`, `5e3`.
pub fn whole(text: &[u8]) -> Result<i128, NotDecimal> {
    parse(text, PRECISION_MAX, 0)
}

/// Reads a number times a power of ten as a whole number, rounded down, and whether it is
/// one. `None` if it is no number, or too large for 64 bits.
pub fn floor(text: &[u8], power: i8) -> Option<(i64, bool)> {
    let number = Written::read(text)?;
    let last = number.exponent.saturating_add(i64::from(power));
    let digits = number.digits() as i64;
    if digits.saturating_add(last) > i64::from(PRECISION_MAX) && digits > 0 {
        return None;
    }
    let kept = digits.saturating_add(last.min(0)).max(0) as usize;
    let kept = number
        .each()
        .take(kept)
        .fold(0, |kept: i128, digit| kept * 10 + i128::from(digit - b'0'));
    // A number without digits is zero, whatever its exponent.
    let size = kept * limit(last.clamp(0, PRECISION_MAX.into()) as u8);
    let is_whole = digits == 0 || last >= 0;
    let value = match number.is_negative {
        true => -size - i128::from(!is_whole),
        false => size,
    };
    Some((i64::try_from(value).ok()?, is_whole))
}

/// A number in a text: its digits, without zeros at either end, times a power of ten.
struct Written<'t> {
    is_negative: bool,
    whole: &'t [u8],
    fraction: &'t [u8],
    /// The power of ten of the last digit.
    exponent: i64,
}

impl<'t> Written<'t> {
    fn read(text: &'t [u8]) -> Option<Self> {
        let (is_negative, rest) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            (b'+', rest) => (false, rest),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&rest[..at], exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (mut whole, mut fraction) = match mantissa.iter().position(|&byte| byte == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &mantissa[..0]),
        };
        let are_digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
        if whole.len() + fraction.len() == 0 || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        while let [b'0', rest @ ..] = whole {
            whole = rest;
        }
        while let [rest @ .., b'0'] = fraction {
            fraction = rest;
        }
        let mut exponent = exponent.saturating_sub(fraction.len() as i64);
        if whole.is_empty() {
            while let [b'0', rest @ ..] = fraction {
                fraction = rest;
            }
        }
        while let (true, [rest @ .., b'0']) = (fraction.is_empty(), whole) {
            whole = rest;
            exponent = exponent.saturating_add(1);
        }
        Some(Written {
            is_negative,
            whole,
            fraction,
            exponent,
        })
    }

    fn digits(&self) -> usize {
        self.whole.len() + self.fraction.len()
    }

    fn each(&self) -> impl Iterator<Item = u8> {
        self.whole.iter().chain(self.fraction).copied()
    }
}

/// An exponent of ten; one that is too large for any number stays so.
fn exponent(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0_i64, |size, digit| {
        size.saturating_mul(10)
            .saturating_add(i64::from(digit - b'0'))
    });
    Some(if is_negative { -size } else { size })
}

/// Writes all digits of a number: `12.30`.
pub fn write(out: &mut Vec<u8>, units: i128, scale: u8) {
    out.extend_from_slice(to_text(units, scale).as_bytes());
}

/// As [`write()`].
pub fn to_text(units: i128, scale: u8) -> String {
    let sign = if units < 0 { "-" } else { "" };
    let units = units.unsigned_abs();
    match scale {
        0 => format!("{sign}{units}"),
        _ => {
            let one = limit(scale).unsigned_abs();
            let width = usize::from(scale);
            format!("{sign}{}.{:0width$}", units / one, units % one)
        }
    }
}

/// The nearest float.
pub fn to_float(units: i128, scale: u8) -> f64 {
    // Above 2^53, the number of units is not exact, and dividing it would round twice.
    match units.unsigned_abs() < 1 << 53 && scale <= 22 {
        true => units as f64 / 10_f64.powi(scale.into()),
        false => to_text(units, scale).parse().unwrap_or(f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, precision: u8, scale: u8, expected: Result<i128, NotDecimal>) {
        assert_eq!(parse(text.as_bytes(), precision, scale), expected, "{text}");
    }

    #[test]
    fn numbers_are_read_as_they_are_written_anywhere() {
        for text in [
            "12.3",
            "12.30",
            "12.3000",
            "+12.3",
            "1.23e1",
            "0.00123E+4",
            "012.3",
            "1230e-2",
        ] {
            check(text, 18, 2, Ok(1230));
        }
        check("-12.3", 18, 2, Ok(-1230));
        check("1200", 4, 0, Ok(1200));
        check("1.2e3", 4, 0, Ok(1200));
        check(".5", 2, 2, Ok(50));
        check("5.", 3, 2, Ok(500));
        for zero in ["0", "-0", "0.000", "0e99999999999999999999", "00e-400"] {
            check(zero, 1, 0, Ok(0));
        }
        for text in [
            "", "-", ".", "1,5", "1.2.3", "1e", "e1", "1e+", "0x1", " 1", "NaN", "--1",
        ] {
            check(text, 18, 2, Err(NotDecimal::Text));
        }
    }

    #[test]
    fn nothing_is_rounded_or_cut() {
        check("12.345", 18, 2, Err(NotDecimal::Digits { scale: 2 }));
        check("1e-3", 18, 2, Err(NotDecimal::Digits { scale: 2 }));
        check(
            "1e-99999999999999999999",
            18,
            2,
            Err(NotDecimal::Digits { scale: 2 }),
        );
        check("999.99", 5, 2, Ok(99_999));
        check("1000", 5, 2, Err(NotDecimal::Large { whole: 3 }));
        check(
            "1e99999999999999999999",
            38,
            2,
            Err(NotDecimal::Large { whole: 36 }),
        );
        let most = "9".repeat(38);
        check(&most, 38, 0, Ok(limit(38) - 1));
        check(&format!("-0.{most}"), 38, 38, Ok(1 - limit(38)));
        check(
            &format!("{most}0"),
            38,
            0,
            Err(NotDecimal::Large { whole: 38 }),
        );
    }

    #[test]
    fn floats_are_the_nearest() {
        assert_eq!(to_float(1230, 2), 12.3);
        assert_eq!(to_float(-1, 38), -1e-38);
        assert_eq!(
            to_float(123_456_789_012_345_678_901, 10),
            12_345_678_901.234_567
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            units in -(limit(38) - 1)..limit(38),
            shift in 0..38_u32,
            scale in 0..=38_u8,
        ) {
            let units = units / 10_i128.pow(shift);
            let text = to_text(units, scale);
            prop_assert_eq!(parse(text.as_bytes(), 38, scale), Ok(units), "{}", text);
            let whole = text.trim_start_matches('-').split('.').next();
            prop_assert!(whole.is_some_and(|whole| !whole.is_empty()), "{}", text);
        }
    }
}
