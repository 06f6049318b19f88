//! Why a row is bad: where in it, what was expected, what was found.

use std::fmt;

use crate::suggest;

/// What is wrong with a row. Boxed, to keep the results of decoding small.
pub(super) struct RowFault(Box<FaultText>);

struct FaultText {
    /// Outermost field first.
    path: Vec<PathStep>,
    message: String,
}

enum PathStep {
    Field(String),
    Element(usize),
}

impl RowFault {
    #[cold]
    pub fn new(message: impl Into<String>) -> Self {
        RowFault(Box::new(FaultText {
            path: Vec::new(),
            message: message.into(),
        }))
    }

    /// These bytes are no text.
    #[cold]
    pub fn not_utf8(bytes: &[u8]) -> Self {
        let at = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
        RowFault::new(format!("byte {at}: expected UTF-8 text, found other bytes"))
    }

    /// The schema has other fields, and not this one.
    #[cold]
    pub fn not_in_schema<'n>(name: &str, fields: impl IntoIterator<Item = &'n str>) -> Self {
        let help = suggest::help(name, "fields", fields);
        RowFault::new(format!("is missing in the schema; {help}")).within(name)
    }

    /// Adds to what is wrong.
    #[cold]
    pub fn because(mut self, why: &dyn fmt::Display) -> Self {
        self.0.message.push_str(&why.to_string());
        self
    }

    #[cold]
    pub fn within(mut self, field: &str) -> Self {
        self.0.path.insert(0, PathStep::Field(field.to_owned()));
        self
    }

    #[cold]
    pub fn at_element(mut self, index: usize) -> Self {
        self.0.path.insert(0, PathStep::Element(index));
        self
    }
}

/// ``field `lines[2].sku`: expected utf8, found 7``
impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            f.write_str("field `")?;
            for (i, step) in self.0.path.iter().enumerate() {
                match step {
                    PathStep::Field(name) if i == 0 => write!(f, "{name}")?,
                    PathStep::Field(name) => write!(f, ".{name}")?,
                    PathStep::Element(index) => write!(f, "[{index}]")?,
                }
            }
            let is_sentence = self.0.message.starts_with("is ");
            f.write_str(if is_sentence { "` " } else { "`: " })?;
        }
        f.write_str(&self.0.message)
    }
}

/// A text, if it is one.
#[inline]
pub(super) fn utf8(text: &[u8]) -> Result<&[u8], RowFault> {
    match simdutf8::basic::from_utf8(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(RowFault::not_utf8(text)),
    }
}

/// A row ends within a value.
#[cold]
pub(super) fn ends_within(what: &str, size: usize, left: usize) -> RowFault {
    RowFault::new(format!(
        "expected {what} of {size} bytes, found the end of the row after {left}"
    ))
}

/// What is left of a row begins with no number.
#[cold]
pub(super) fn no_number(left: usize) -> RowFault {
    RowFault::new(match left {
        0..10 => "expected a number, found the end of the row",
        _ => "expected a number of 64 bits, found a longer one",
    })
}

/// The text that was found, cut to fit into a message.
pub fn excerpt(text: &[u8]) -> String {
    const CHARS_MAX: usize = 40;
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.into_owned(),
    }
}
