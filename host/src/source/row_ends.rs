//! Decides where a row ends and the next one begins.

use super::chunk::BadRow;
use crate::decode::quoted_length;
use crate::format::Format;

/// Longer rows are bad, so that a file without line ends need not fit into
/// memory.
pub const ROW_BYTES_MAX: usize = 16 << 20;

/// How much of a row that is too long goes into its dead letter.
const EXCERPT_BYTES: usize = 64 << 10;

pub const TOO_LONG: &str =
    "expected a row of at most 16 MiB, found a longer one; its first 64 KiB are kept";

/// The bad row for one that is too long; `row` is at least its beginning.
pub fn too_long(offset: u64, row: &[u8]) -> BadRow {
    BadRow {
        offset,
        error: TOO_LONG.to_owned(),
        payload: payload_excerpt(row),
        envelope: None,
    }
}

/// The part of a bad row that a dead letter keeps.
pub fn payload_excerpt(row: &[u8]) -> Vec<u8> {
    row[..row.len().min(EXCERPT_BYTES)].to_vec()
}

/// Finds rows in text. A line is a row, but a quoted CSV field may contain line
/// ends. Empty lines are skipped.
#[derive(Clone, Debug)]
pub enum RowEnds {
    Lines,
    Csv {
        delimiter: u8,
        /// How many fields a row has; `None` until known.
        fields: Option<usize>,
    },
}

/// What was found at some place in a text.
pub enum RowEnd {
    /// A row, possibly empty, and where the next one begins.
    Row { end: usize, next: usize },
    /// The text ends before the row does.
    Unfinished,
}

impl RowEnds {
    pub fn of(format: &Format) -> Self {
        match format {
            Format::Json | Format::Raw => RowEnds::Lines,
            Format::Csv(csv) => RowEnds::Csv {
                delimiter: csv.delimiter,
                fields: None,
            },
        }
    }

    /// Sets how many fields a row has, for formats that count them.
    pub fn expect_fields(&mut self, count: usize) {
        if let RowEnds::Csv { fields, .. } = self {
            *fields = Some(count);
        }
    }

    /// Whether rows have a single field, which is an empty line where it is null.
    pub fn has_one_field(&self) -> bool {
        matches!(
            self,
            RowEnds::Csv {
                fields: Some(1),
                ..
            }
        )
    }

    /// Finds the end of the row at `start`. `complete` says that no text
    /// follows `data`.
    #[inline]
    pub fn next(&self, data: &[u8], start: usize, complete: bool) -> RowEnd {
        let line = line(data, start, complete);
        match self {
            RowEnds::Lines => line,
            RowEnds::Csv { delimiter, fields } => {
                if let RowEnd::Row { end, .. } = line
                    && memchr::memchr(b'"', &data[start..end]).is_none()
                {
                    return line;
                }
                csv_row(data, start, complete, *delimiter, *fields, line)
            }
        }
    }
}

/// Finds the next line end.
#[inline]
fn line(data: &[u8], start: usize, complete: bool) -> RowEnd {
    let rest = data.get(start..).unwrap_or_default();
    let (length, next) = match memchr::memchr(b'\n', rest) {
        Some(length) => (length, start + length + 1),
        None if complete => (rest.len(), data.len()),
        None => return RowEnd::Unfinished,
    };
    let has_return = length > 0 && rest[length - 1] == b'\r';
    let end = start + length - usize::from(has_return);
    RowEnd::Row { end, next }
}

/// Finds the end of a row with quotes; `line` is its first line. If the quotes
/// do not pair up, that line alone is the row: it is bad, and the rows below it
/// are unaffected.
fn csv_row(
    data: &[u8],
    start: usize,
    complete: bool,
    delimiter: u8,
    fields: Option<usize>,
    line: RowEnd,
) -> RowEnd {
    let complete = complete || data.len() - start > ROW_BYTES_MAX;
    let mut at = start;
    let mut given = 1;
    let mut has_line_end = false;
    loop {
        let rest = &data[at..];
        let behind = if rest.first() == Some(&b'"') {
            let Some(length) = quoted_length(&rest[1..]) else {
                return if complete { line } else { RowEnd::Unfinished };
            };
            has_line_end |= memchr::memchr(b'\n', &rest[..length]).is_some();
            at + 1 + length + 1
        } else {
            at + memchr::memchr2(delimiter, b'\n', rest).unwrap_or(rest.len())
        };
        let (end, next) = match &data[behind..] {
            [byte, ..] if *byte == delimiter => {
                at = behind + 1;
                given += 1;
                continue;
            }
            // The quote may be the first of a doubled one.
            [] | [b'\r'] if !complete => return RowEnd::Unfinished,
            [] => (behind, behind),
            [b'\r'] => (behind, behind + 1),
            [b'\n', ..] => (behind, behind + 1),
            [b'\r', b'\n', ..] => (behind, behind + 2),
            _ => return line,
        };
        if has_line_end && fields.is_some_and(|fields| fields != given) {
            return line;
        }
        let has_return = end > start && data[end - 1] == b'\r';
        return RowEnd::Row {
            end: end - usize::from(has_return),
            next,
        };
    }
}
