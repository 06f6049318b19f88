/// What is left of a value after some time, if half of it is lost in `half_life_ms`.
///
/// The result is the same on every machine, to the last bit: it is made of additions and
/// multiplications alone.
///
/// ```
/// use sluicebox_sdk::decayed;
///
/// let day = 86_400_000;
/// assert_eq!(decayed(8.0, 3 * day, Some(day)), 1.0);
/// assert_eq!(decayed(8.0, 3 * day, None), 8.0);
/// ```
pub fn decayed(value: f64, elapsed_ms: i64, half_life_ms: Option<i64>) -> f64 {
    let Some(half_life_ms) = half_life_ms.filter(|_| elapsed_ms > 0) else {
        return value;
    };
    let half_lives = elapsed_ms as f64 / half_life_ms.max(1) as f64;
    let whole = half_lives.floor();
    if whole >= MOST_HALF_LIVES {
        return 0.0;
    }
    // 2 to the power of minus the whole part, by its exponent.
    let by_whole = f64::from_bits((EXPONENT_BIAS - whole as u64) << (f64::MANTISSA_DIGITS - 1));
    value * by_whole * exp(-(half_lives - whole) * std::f64::consts::LN_2)
}

/// Beyond them, nothing is left that counts.
const MOST_HALF_LIVES: f64 = 1_000.0;

/// The exponent of 1, as it is stored.
const EXPONENT_BIAS: u64 = 1_023;

/// The exponential of a number between −ln 2 and 0, by its series.
fn exp(x: f64) -> f64 {
    const TERMS: u32 = 18;
    (1..=TERMS)
        .rev()
        .fold(1.0, |sum, term| 1.0 + x / f64::from(term) * sum)
}

#[cfg(test)]
mod tests {
    use super::decayed;

    #[test]
    fn it_is_the_power_of_two() {
        for step in 0..2_000 {
            let elapsed_ms = step * 7_919;
            let found = decayed(3.0, elapsed_ms, Some(1_000_000));
            let expected = 3.0 * (-(elapsed_ms as f64) / 1e6).exp2();
            assert!((found - expected).abs() <= 1e-14 * expected, "{elapsed_ms}");
        }
    }

    #[test]
    fn extremes_are_no_trouble() {
        assert_eq!(decayed(1.0, i64::MAX, Some(1)), 0.0);
        assert_eq!(decayed(1.0, i64::MIN, Some(1)), 1.0);
        assert_eq!(decayed(1.0, 5, Some(0)), 1.0 / 32.0);
        assert_eq!(decayed(1.0, 0, Some(i64::MAX)), 1.0);
    }
}
