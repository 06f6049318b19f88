//! The words for numbers that text formats do not have, as in the JSON of Protocol
//! Buffers.

const WORDS: [(&str, f64); 3] = [
    ("NaN", f64::NAN),
    ("Infinity", f64::INFINITY),
    ("-Infinity", f64::NEG_INFINITY),
];

/// The word for a number that is not finite.
pub fn word(value: f64) -> Option<&'static str> {
    let is_same = |other: f64| other == value || (other.is_nan() && value.is_nan());
    let mut words = WORDS.iter();
    words
        .find(|(_, other)| is_same(*other))
        .map(|(word, _)| *word)
}

/// The number of a word.
pub fn from_word(text: &[u8]) -> Option<f64> {
    let mut words = WORDS.iter();
    words
        .find(|(word, _)| word.as_bytes() == text)
        .map(|(_, value)| *value)
}
