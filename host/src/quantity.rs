//! Durations and sizes as people write them: `"1h 30m"`, `"64MiB"`.

/// The longest duration in a pipeline, so that sums with event times do not overflow.
const YEARS_100_MS: u128 = 100 * 365 * 86_400_000;

/// Reads a duration in whole milliseconds. The error says what is wrong with `text`.
pub(super) fn duration_ms(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err("a duration cannot be negative".into());
    }
    // `5M` nearly always means `5m`, and months and years vary in length.
    let unsteady = ["M", "month", "months", "y", "year", "years", "yr", "yrs"];
    let mut units = text.split(|c: char| !c.is_alphabetic());
    if let Some(unit) = units.find(|unit| unsteady.contains(unit)) {
        return Err(format!(
            "`{unit}` does not have one fixed length; minutes are `m`"
        ));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a duration needs a unit".into());
    }
    let duration = humantime::parse_duration(text).map_err(|error| match error {
        humantime::DurationError::UnknownUnit { unit, .. } if unit.is_empty() => {
            "a number in it has no unit".to_owned()
        }
        humantime::DurationError::UnknownUnit { unit, .. } => {
            format!("`{unit}` is not a unit of time")
        }
        humantime::DurationError::NumberExpected(_) => "a number is missing".to_owned(),
        humantime::DurationError::Empty => "it is empty".to_owned(),
        error => error.to_string(),
    })?;
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err("it must be a whole number of milliseconds".into());
    }
    if duration.as_millis() > YEARS_100_MS {
        return Err("it is longer than 100 years".into());
    }
    Ok(duration.as_millis() as i64)
}

/// Reads a number of bytes. The error says what is wrong with `text`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "" => return Err("a size needs a unit".into()),
        unit => return Err(format!("`{unit}` is not a unit of size")),
    };
    if number.is_empty() {
        return Err("a size starts with a whole number".into());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(scale))
        .ok_or_else(|| "it is too large".into())
}

/// The duration as [`duration_ms`] reads it: `1h 30m`, `500ms`.
pub(crate) fn show_ms(ms: i64) -> String {
    let ms = u64::try_from(ms).unwrap_or(0);
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}

/// The size as [`bytes`] reads it, in the largest unit that divides it.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = units
        .iter()
        .find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size));
    match fits {
        Some((size, unit)) => format!("{}{unit}", bytes / size),
        None => format!("{bytes}B"),
    }
}

/// About how many bytes, rounded up, for messages: `17 MiB`.
pub(crate) struct ShownBytes(pub usize);

impl std::fmt::Display for ShownBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 20 => write!(f, "{} MiB", bytes.div_ceil(1 << 20)),
            bytes if bytes >= 1 << 10 => write!(f, "{} KiB", bytes.div_ceil(1 << 10)),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

/// A duration in a sentence: `1 h 30 m`.
pub(crate) fn spoken_ms(ms: i64) -> String {
    let shown = show_ms(ms);
    let mut spoken = String::with_capacity(shown.len() + 2);
    let mut was_digit = false;
    for character in shown.chars() {
        if was_digit && character.is_alphabetic() {
            spoken.push(' ');
        }
        was_digit = character.is_ascii_digit();
        spoken.push(character);
    }
    spoken
}
