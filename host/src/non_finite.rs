//! The words for numbers that text formats do not have, as in the JSON of Protocol
//! Buffers. Rust's parser reads them, and others that are not read here.

const NAN: &str = "NaN";
const INFINITY: &str = "Infinity";
const MINUS_INFINITY: &str = "-Infinity";

/// The word for a number that is not finite.
pub fn word(value: f64) -> Option<&'static str> {
    if value.is_finite() {
        None
    } else if value.is_nan() {
        Some(NAN)
    } else if value > 0.0 {
        Some(INFINITY)
    } else {
        Some(MINUS_INFINITY)
    }
}

pub fn is_word(text: &[u8]) -> bool {
    [NAN, INFINITY, MINUS_INFINITY]
        .iter()
        .any(|word| word.as_bytes() == text)
}
