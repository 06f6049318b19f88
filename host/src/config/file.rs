//! Reads a TOML file, with the places of its values and of its mistakes.

use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

use super::diagnostics::{ConfigFile, Diagnostics, Mistake, Span};
use super::secrets;
use crate::quantity::show_bytes;
use crate::text::printable_in_place;

/// More syntax mistakes are not reported.
const SYNTAX_MISTAKES_MAX: usize = 100;

/// What a file is, for messages.
pub struct FileKind {
    /// "the pipeline"
    pub the: &'static str,
    /// "a pipeline's file"
    pub a: &'static str,
    /// What to do where it cannot be read.
    pub advice: &'static str,
}

/// Reads the text of a file.
pub fn read(path: &Path, kind: &FileKind, bytes_max: u64) -> Result<String, Diagnostics> {
    let file = path.display().to_string();
    let refuse = |message: String, help: &str| {
        let origin = ConfigFile {
            file: file.clone(),
            text: "".into(),
        };
        let mut mistakes = Diagnostics::new(origin);
        mistakes.push(Mistake::new(message).help(help));
        mistakes
    };
    let FileKind { the, a, advice } = kind;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse(format!("cannot read {the} {file}: {error}"), advice))?;
    if bytes.len() as u64 > bytes_max {
        let size = show_bytes(bytes_max);
        let message = format!("{file} is larger than {size}: it cannot be {a}");
        return Err(refuse(message, advice));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = error.as_bytes()[..at].iter();
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        refuse(
            format!("{file} is not text: line {line} has bytes that are not UTF-8"),
            &format!("{a} is TOML in UTF-8: save it in that encoding"),
        )
    })
}

/// Parses the text of a file, or shows why it is not TOML. Mistakes of what it says are to be
/// added to those that are returned.
pub fn parse<'a>(
    file: &str,
    text: &'a str,
) -> Result<(Spanned<DeTable<'a>>, Diagnostics), Diagnostics> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let shown = secrets::masked(document.get_ref(), text, errors.is_empty());
    let mut mistakes = Diagnostics::new(ConfigFile {
        file: file.to_owned(),
        text: printable_in_place(&shown).into(),
    });
    for error in errors.into_iter().take(SYNTAX_MISTAKES_MAX) {
        mistakes.push_once_a_line(syntax_mistake(&error, text));
    }
    match mistakes.is_empty() {
        true => Ok((document, mistakes)),
        false => Err(mistakes.sorted()),
    }
}

fn syntax_mistake(error: &toml::de::Error, text: &str) -> Mistake {
    let span = error.span().unwrap_or(text.len()..text.len());
    let rest = text.get(span.start..).unwrap_or_default();
    let is_line_end = rest.is_empty() || rest.starts_with(['\n', '\r']);
    let message = error.message();
    if is_line_end && message.starts_with("string values must be quoted") {
        return Mistake::new("a value is missing").at(before(span.start), "after this");
    }
    let mistake = Mistake::new(format!("this is not TOML: {message}"));
    match is_line_end {
        true => mistake.at(before(span.start), ""),
        false => mistake.at(span, ""),
    }
}

/// The place before the end of a line, which cannot be underlined itself.
fn before(end: usize) -> Span {
    end.saturating_sub(1)..end
}
