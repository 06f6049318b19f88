//! Shows mistakes in a pipeline's file: all at once, each with its place, what
//! was expected there, and what to do.

use std::borrow::Cow;
use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    SourceCode, SourceSpan, SpanContents,
};

use crate::credentials;
use crate::text::{printable, truncate};

/// The file that mistakes point into.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    pub file: String,
    /// Its text, without what may be secret or could control a terminal.
    pub text: Arc<str>,
}

/// A range of bytes in the pipeline's file.
pub type Span = Range<usize>;

/// The mistakes and warnings about one pipeline's file.
#[derive(Debug)]
pub struct Diagnostics {
    origin: ConfigFile,
    mistakes: Vec<Mistake>,
    pub(super) secrets: SecretAccess,
}

/// Whether secrets that the file only refers to are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretAccess {
    Read,
    /// Nothing outside is used, as in tests of a pipeline: settings with a secret are
    /// left out.
    LeftOut,
}

#[derive(Clone, Debug)]
pub struct Mistake {
    pub severity: Severity,
    pub message: String,
    /// Places with what to say about each; the first is the main one.
    pub labels: Vec<(Span, String)>,
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    /// The pipeline can run all the same.
    Warning,
}

/// How mistakes are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// With colours and line drawing, wrapped at `width`.
    Terminal { width: usize },
    /// In ASCII, one message a line: for files, pipes and tests.
    Plain,
}

/// More than these are only counted.
const SHOWN_MAX: usize = 50;

/// How many bytes of a name or value messages quote.
const NAME_BYTES_MAX: usize = 200;

/// How many bytes a message has at most.
const MESSAGE_BYTES_MAX: usize = 4_000;

/// Of a word, such as a path without blanks.
const WORD_BYTES_MAX: usize = 320;

/// Lines with more bytes are not quoted as a whole: all mistakes may be in one of them.
const QUOTED_BYTES_MAX: usize = 1_000;

/// How many bytes of such a line are quoted on each side of a place.
const AROUND_BYTES: usize = 100;

/// How many bytes of a line a place has at most.
const MARKED_BYTES_MAX: usize = 200;

impl Mistake {
    pub fn new(message: impl Into<String>) -> Self {
        Mistake {
            severity: Severity::Error,
            message: message.into(),
            labels: Vec::new(),
            help: None,
        }
    }

    pub fn warning(message: impl Into<String>) -> Self {
        Mistake {
            severity: Severity::Warning,
            ..Mistake::new(message)
        }
    }

    pub fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.labels.push((span, label.into()));
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn start(&self) -> usize {
        self.labels.first().map_or(0, |(span, _)| span.start)
    }
}

impl Diagnostics {
    pub fn new(origin: ConfigFile) -> Self {
        Diagnostics {
            origin,
            mistakes: Vec::new(),
            secrets: SecretAccess::Read,
        }
    }

    pub(super) fn origin(&self) -> &ConfigFile {
        &self.origin
    }

    /// Whether what is a secret is read; where only the plan's shape is wanted, it is not.
    pub fn reads_secrets(&self) -> bool {
        self.secrets == SecretAccess::Read
    }

    /// The folder that the file's paths are relative to.
    pub(super) fn folder(&self) -> &Path {
        Path::new(&self.origin.file)
            .parent()
            .unwrap_or(Path::new(""))
    }

    pub fn push(&mut self, mut mistake: Mistake) {
        let labels = mistake.labels.iter_mut().map(|(_, label)| label);
        for text in labels
            .chain([&mut mistake.message])
            .chain(&mut mistake.help)
        {
            // They quote names and values of the file, and of files that it names.
            let shown = credentials::hidden(text);
            let shown = printable(&shown);
            if shown != *text {
                *text = shown.into_owned();
            }
            shorten(text);
        }
        self.mistakes.push(mistake);
    }

    /// Adds a mistake unless its line has one already: after a first syntax
    /// mistake, a parser is mostly confused.
    pub(super) fn push_once_a_line(&mut self, mistake: Mistake) {
        let line = self.line_and_column(mistake.start()).0;
        let seen = |other: &Mistake| self.line_and_column(other.start()).0 == line;
        if !self.mistakes.iter().any(seen) {
            self.push(mistake);
        }
    }

    /// Sorts mistakes in the order of the file.
    pub fn sorted(mut self) -> Self {
        self.mistakes.sort_by_key(Mistake::start);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.mistakes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.mistakes.len()
    }

    /// Whether a help is still worth work that grows with the file: more mistakes than
    /// are shown are only counted.
    pub fn wants_help(&self) -> bool {
        self.mistakes.len() < SHOWN_MAX
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.mistakes.iter()
    }

    /// Line and column of a byte, both counted from 1, the column in
    /// characters.
    pub fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.origin.text[..self.origin.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.matches('\n').count();
        (line, 1 + before[line_start..].chars().count())
    }

    pub fn render(&self, look: Look) -> String {
        let handler = match look {
            Look::Terminal { width } => {
                GraphicalReportHandler::new_themed(GraphicalTheme::unicode()).with_width(width)
            }
            Look::Plain => GraphicalReportHandler::new_themed(GraphicalTheme::none())
                .with_width(usize::MAX)
                .with_wrap_lines(false),
        }
        .with_links(false)
        .with_context_lines(1);
        let source = Lines(&self.origin);
        let mut text = String::new();
        for mistake in self.mistakes.iter().take(SHOWN_MAX) {
            if !text.is_empty() {
                text.push('\n');
            }
            let report = Report {
                mistake,
                source: &source,
            };
            if handler.render_report(&mut text, &report).is_err() {
                text.push_str(&mistake.message);
                text.push('\n');
            }
        }
        if let Some(more @ 1..) = self.mistakes.len().checked_sub(SHOWN_MAX) {
            text.push_str(&format!("\n  and {more} more\n"));
        }
        text
    }
}

/// Shortens the names and values that a message quotes, and what is too long all the same,
/// such as a path: a file may have names of a megabyte.
pub fn shorten(text: &mut String) {
    if text.len() > NAME_BYTES_MAX {
        let mut parts = text.split('`');
        let first = parts.next().unwrap_or_default().to_owned();
        *text = parts.enumerate().fold(first, |mut short, (i, part)| {
            let is_quoted = i % 2 == 0;
            let end = part.floor_char_boundary(NAME_BYTES_MAX);
            short.push('`');
            match is_quoted && end < part.len() {
                true => short.extend([&part[..end], "…"]),
                false => short.push_str(part),
            }
            short
        });
    }
    if text.len() > WORD_BYTES_MAX {
        let words = text.split_inclusive(char::is_whitespace);
        *text = words.map(shorten_word).collect();
    }
    truncate(text, MESSAGE_BYTES_MAX);
}

/// Cuts a word in its middle: of a path, both ends tell something.
fn shorten_word(word: &str) -> Cow<'_, str> {
    if word.len() <= WORD_BYTES_MAX {
        return word.into();
    }
    let head = &word[..word.floor_char_boundary(WORD_BYTES_MAX / 2)];
    let tail = &word[word.ceil_char_boundary(word.len() - WORD_BYTES_MAX / 4)..];
    format!("{head}…{tail}").into()
}

impl Look {
    /// The look for what is written to stderr.
    pub fn for_stderr() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if no_colour || !std::io::stderr().is_terminal() {
            return Look::Plain;
        }
        let mut terminal = comfy_table::Table::new();
        let width = terminal.use_stderr().width().unwrap_or(100);
        Look::Terminal {
            width: width.into(),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Look::Plain).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

/// A mistake together with its file, as miette needs it.
struct Report<'a> {
    mistake: &'a Mistake,
    source: &'a Lines<'a>,
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistake.fmt(f)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mistake.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.mistake.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.mistake.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labels = self
            .mistake
            .labels
            .iter()
            .enumerate()
            .map(|(i, (span, label))| {
                let text = Some(label.clone()).filter(|label| !label.is_empty());
                let (start, length) = (span.start, self.source.marked(span).len());
                if i == 0 {
                    LabeledSpan::new_primary_with_span(text, (start, length))
                } else {
                    LabeledSpan::new(text, start, length)
                }
            });
        Some(Box::new(labels))
    }
}

/// Shows the whole lines that a place touches, and no others, so that places
/// far apart are shown apart. Of long lines, it shows what is around the place.
struct Lines<'a>(&'a ConfigFile);

impl Lines<'_> {
    /// The part of a place that there is room to show.
    fn marked(&self, place: &Span) -> Span {
        let text: &str = &self.0.text;
        let start = text.floor_char_boundary(place.start);
        let end = text.floor_char_boundary(place.end).max(start);
        let line_end = text[start..end]
            .find('\n')
            .map_or(end, |length| start + length);
        if line_end - start > MARKED_BYTES_MAX {
            start..text.floor_char_boundary(start + MARKED_BYTES_MAX)
        } else if end - start > QUOTED_BYTES_MAX {
            start..line_end
        } else {
            start..end
        }
    }
}

impl SourceCode for Lines<'_> {
    /// `before` is 0 when miette asks for line and column of a place, and more
    /// when it asks for the text to show.
    fn read_span<'b>(
        &'b self,
        span: &SourceSpan,
        before: usize,
        _after: usize,
    ) -> Result<Box<dyn SpanContents<'b> + 'b>, MietteError> {
        let text: &str = &self.0.text;
        let start = text.floor_char_boundary(span.offset());
        let end = text
            .floor_char_boundary(span.offset() + span.len())
            .max(start);
        if end - start > QUOTED_BYTES_MAX {
            // Several places together, which miette then shows apart.
            return Err(MietteError::OutOfBounds);
        }
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let newline = text[start..end]
            .strip_suffix('\n')
            .map_or(end, |rest| start + rest.len());
        let line_end = text[newline..]
            .find('\n')
            .map_or(text.len(), |length| newline + length);
        let (mut from, mut to) = (line_start, line_end);
        if line_end - line_start > QUOTED_BYTES_MAX {
            from = from.max(text.floor_char_boundary(start.saturating_sub(AROUND_BYTES)));
            to = to.min(text.ceil_char_boundary(end + AROUND_BYTES));
        }
        let shown = &text[from..to];
        let column = match before {
            0 => text[line_start..start].chars().count(),
            _ => 0,
        };
        Ok(Box::new(MietteSpanContents::new_named(
            printable(&credentials::hidden(&self.0.file)).into_owned(),
            shown.as_bytes(),
            (from, shown.len()).into(),
            text[..line_start].matches('\n').count(),
            column,
            1 + shown.matches('\n').count(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shortened(text: &str) -> String {
        let mut text = text.to_owned();
        shorten(&mut text);
        text
    }

    #[test]
    fn long_names_are_cut_and_what_is_said_of_them_is_not() {
        let name = "é".repeat(1 << 20);
        assert_eq!(
            shortened(&format!(
                "operator `{name}` reads `rows`, which is not there"
            )),
            format!(
                "operator `{}…` reads `rows`, which is not there",
                &name[..200]
            )
        );
        let sentence = format!("{}; did you mean `rows`?", "so it is ".repeat(100));
        assert_eq!(shortened(&sentence), sentence);
        let path = format!("there is no file {}rows.jsonl: make it", "d/".repeat(2_100));
        let shown = shortened(&path);
        assert!(shown.starts_with("there is no file d/d/d/"), "{shown}");
        assert!(
            shown.ends_with("…/d/d/d/rows.jsonl: make it")
                || shown.ends_with("d/rows.jsonl: make it"),
            "{shown}"
        );
        assert!(shown.contains('…') && shown.len() < 500, "{shown}");
    }

    proptest! {
        #[test]
        fn messages_are_never_long(text in "[a-zé`\"]{0,600}", times in 1..20usize) {
            prop_assert!(shortened(&text.repeat(times)).len() <= MESSAGE_BYTES_MAX + '…'.len_utf8());
        }
    }
}
