//! Decides where a row ends and the next one begins.

use super::chunk::BadRow;
use crate::decode::{quoted_length, quoted_length_from};
use crate::format::Format;
use crate::schema::Schema;

/// Longer rows are bad, so that a file without line ends need not fit into
/// memory.
pub const ROW_BYTES_MAX: usize = 16 << 20;

/// How much of a row that is too long goes into its dead letter.
const EXCERPT_BYTES: usize = 64 << 10;

/// What is wrong with a row that is too long.
pub const TOO_LONG: &str =
    "expected a row of at most 16 MiB, found a longer one; its first 64 KiB are kept";

/// The same where a quote is open after 16 MiB: it may be a stray one, which
/// takes the rows after it with it.
const TOO_LONG_QUOTED: &str = "expected a row of at most 16 MiB, found a longer one, in which a \
     quoted field goes on: the row is skipped up to the closing quote and its line end, or to the \
     end of the file; its first 64 KiB are kept";

/// A bad row, whose dead letter has the beginning of it.
pub fn bad_row(offset: u64, error: impl Into<String>, row: &[u8]) -> BadRow {
    BadRow {
        offset,
        error: error.into(),
        payload: row[..row.len().min(EXCERPT_BYTES)].to_vec(),
        envelope: None,
    }
}

/// The bad row for one that is too long; `row` is at least its beginning.
pub fn too_long(offset: u64, row: &[u8]) -> BadRow {
    bad_row(offset, TOO_LONG, row)
}

/// The same for a row whose rest is still to be skipped.
pub fn too_long_before(offset: u64, row: &[u8], rest: RowRest) -> BadRow {
    let error = match rest {
        RowRest::Unquoted => TOO_LONG,
        RowRest::Quoted => TOO_LONG_QUOTED,
    };
    bad_row(offset, error, row)
}

/// Finds rows in text. A line is a row, but a quoted CSV field may contain line
/// ends. Whoever takes the rows skips empty lines, unless
/// [`RowEnds::has_empty_rows`].
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
#[derive(Clone, Copy, Debug)]
pub enum RowEnd {
    /// A row of at most [`ROW_BYTES_MAX`], possibly empty, and where the next
    /// one begins.
    Row { end: usize, next: usize },
    /// The row is longer than that: it is bad, and its rest from this place on
    /// has to be skipped with [`RowEnds::skip`].
    TooLong(usize, RowRest),
    /// The text ends before the row does.
    Unfinished,
}

/// Where in a row that is being skipped a text begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowRest {
    Unquoted,
    /// In a quoted field of CSV, between two characters of its value.
    Quoted,
}

/// How far an unfinished row was searched, so that the search goes on there when
/// more of it is known. All lengths are from the row's start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// These bytes have no line end.
    unended: usize,
    /// The field that is not known to its end begins here.
    field: usize,
    /// How many delimiters are before that.
    delimiters: usize,
    /// These bytes of the field have nothing that ends it.
    of_field: usize,
    /// A quoted field has a line end.
    has_line_end: bool,
}

/// What was found while a row was skipped.
pub enum Skipped {
    /// The row ends: here the next one begins.
    Row(usize),
    /// The text ends before the row does: from here it is skipped on, when more
    /// of it is known.
    Unfinished(usize, RowRest),
}

impl RowEnds {
    pub fn of(format: &Format) -> Self {
        match format {
            // Messages come one by one: there are no ends to look for.
            Format::Json
            | Format::Raw
            | Format::Syslog(_)
            | Format::Debezium(_)
            | Format::Message(_) => RowEnds::Lines,
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

    /// Whether an empty line is a row: in raw text, where it is an empty value, and
    /// in CSV with a single field, which is null.
    pub fn has_empty_rows(&self, format: &Format, schema: &Schema) -> bool {
        match (format, self) {
            (Format::Raw, _) => true,
            (
                _,
                RowEnds::Csv {
                    fields: Some(1), ..
                },
            ) => matches!(schema.fields.as_slice(), [field] if field.nullable),
            _ => false,
        }
    }

    /// Finds the end of the row at `start`. `complete` says that no text
    /// follows `data`. What is found depends on the row's first
    /// [`ROW_BYTES_MAX`] bytes alone, however many more are in `data`.
    #[inline]
    pub fn next(&self, data: &[u8], start: usize, complete: bool) -> RowEnd {
        let line = line(data, start, 0, complete);
        match self {
            RowEnds::Lines => line,
            RowEnds::Csv { delimiter, fields } => {
                if let RowEnd::Row { end, .. } = line
                    && memchr::memchr(b'"', &data[start..end]).is_none()
                {
                    return line;
                }
                let seen = &mut Seen::default();
                csv_row(data, start, complete, *delimiter, *fields, line, seen)
            }
        }
    }

    /// The same where the row may have been unfinished before, and more of it is
    /// known now: `seen` is how far it was searched until then.
    pub fn resume(&self, data: &[u8], start: usize, complete: bool, seen: &mut Seen) -> RowEnd {
        let found = memchr::memchr(b'\n', &data[start + seen.unended..]);
        seen.unended = found.map_or(data.len() - start, |length| seen.unended + length);
        let line = line(data, start, seen.unended, complete);
        let end = match (self, line) {
            (RowEnds::Lines, _) | (_, RowEnd::Unfinished) => line,
            (RowEnds::Csv { .. }, RowEnd::Row { end, .. })
                if (seen.field, seen.of_field) == (0, 0)
                    && memchr::memchr(b'"', &data[start..end]).is_none() =>
            {
                line
            }
            (RowEnds::Csv { delimiter, fields }, _) => {
                csv_row(data, start, complete, *delimiter, *fields, line, seen)
            }
        };
        if !matches!(end, RowEnd::Unfinished) {
            *seen = Seen::default();
        }
        end
    }

    /// Skips the rest of a row that was too long, from `start` on.
    pub fn skip(&self, data: &[u8], start: usize, rest: RowRest, complete: bool) -> Skipped {
        let found = match self {
            RowEnds::Lines => match memchr::memchr(b'\n', &data[start..]) {
                Some(length) => Skipped::Row(start + length + 1),
                None => Skipped::Unfinished(data.len(), RowRest::Unquoted),
            },
            RowEnds::Csv { delimiter, .. } => skip_csv(data, start, rest, *delimiter),
        };
        match found {
            Skipped::Unfinished(..) if complete => Skipped::Row(data.len()),
            found => found,
        }
    }
}

/// How much of a text decides where a row ends, if the row is not too long: with
/// its line end, `\r\n`.
const WINDOW_BYTES: usize = ROW_BYTES_MAX + 2;

/// Finds the next line end; the first `unended` bytes have none.
#[inline]
fn line(data: &[u8], start: usize, unended: usize, complete: bool) -> RowEnd {
    let rest = data.get(start..).unwrap_or_default();
    let found = memchr::memchr(b'\n', rest.get(unended..).unwrap_or_default());
    let (length, next) = match found.map(|length| unended + length) {
        Some(length) => (length, start + length + 1),
        None if complete => (rest.len(), data.len()),
        None if rest.len() < WINDOW_BYTES => return RowEnd::Unfinished,
        None => (rest.len(), data.len()),
    };
    let has_return = length > 0 && rest[length - 1] == b'\r';
    let length = length - usize::from(has_return);
    if length > ROW_BYTES_MAX {
        return RowEnd::TooLong(start + ROW_BYTES_MAX, RowRest::Unquoted);
    }
    RowEnd::Row {
        end: start + length,
        next,
    }
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
    seen: &mut Seen,
) -> RowEnd {
    let data = &data[..data.len().min(start + WINDOW_BYTES)];
    let is_full = data.len() - start == WINDOW_BYTES;
    let complete = complete && !is_full;
    let mut at = start + seen.field;
    let mut given = seen.delimiters + 1;
    let mut of_field = seen.of_field;
    let mut has_line_end = seen.has_line_end;
    loop {
        let rest = &data[at..];
        let is_quoted = rest.first() == Some(&b'"');
        let length = match is_quoted {
            true => quoted_length_from(&rest[1..], of_field.saturating_sub(1))
                .map(|length| 1 + length + 1),
            false => {
                let length = memchr::memchr2(delimiter, b'\n', &rest[of_field..]);
                Some(length.map_or(rest.len(), |length| of_field + length))
            }
        };
        let field = &rest[..length.unwrap_or(rest.len())];
        has_line_end = has_line_end || is_quoted && memchr::memchr(b'\n', field).is_some();
        *seen = Seen {
            unended: seen.unended,
            field: at - start,
            delimiters: given - 1,
            // A quote at the end may be the first of a doubled one.
            of_field: field.len() - usize::from(is_quoted && length.is_some()),
            has_line_end,
        };
        // Where the row is skipped from, if it is too long: a quote at the end
        // may be the first of a doubled one.
        let too_long = match (is_quoted, length) {
            (true, None) => RowEnd::TooLong(data.len(), RowRest::Quoted),
            (true, Some(length)) => RowEnd::TooLong(at + length - 1, RowRest::Quoted),
            (false, _) if at == data.len() && at > start => {
                RowEnd::TooLong(at - 1, RowRest::Unquoted)
            }
            (false, _) => RowEnd::TooLong(at + field.len(), RowRest::Unquoted),
        };
        let unfinished = match is_full {
            true if has_line_end && fields.is_some_and(|fields| fields < given) => line,
            true => too_long,
            false => RowEnd::Unfinished,
        };
        let Some(length) = length else {
            return if complete { line } else { unfinished };
        };
        let behind = at + length;
        let (end, next) = match &data[behind..] {
            [byte, ..] if *byte == delimiter => {
                at = behind + 1;
                given += 1;
                of_field = 0;
                continue;
            }
            // The quote may be the first of a doubled one.
            [] | [b'\r'] if !complete => return unfinished,
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
        let end = end - usize::from(has_return);
        if end - start > ROW_BYTES_MAX {
            return too_long;
        }
        return RowEnd::Row { end, next };
    }
}

/// Skips the rest of a row of CSV, with the line ends in its quoted fields.
fn skip_csv(data: &[u8], start: usize, rest: RowRest, delimiter: u8) -> Skipped {
    let mut at = start;
    let mut inside = rest;
    loop {
        match inside {
            RowRest::Quoted => match quoted_length(&data[at..]) {
                // The quote may be the first of a doubled one.
                Some(length) if at + length + 1 == data.len() => {
                    return Skipped::Unfinished(at + length, RowRest::Quoted);
                }
                Some(length) => {
                    at += length + 1;
                    inside = RowRest::Unquoted;
                }
                None => return Skipped::Unfinished(data.len(), RowRest::Quoted),
            },
            RowRest::Unquoted => {
                let Some(length) = memchr::memchr2(delimiter, b'\n', &data[at..]) else {
                    return Skipped::Unfinished(data.len(), RowRest::Unquoted);
                };
                at += length;
                match &data[at..] {
                    [b'\n', ..] => return Skipped::Row(at + 1),
                    [_, b'"', ..] => {
                        at += 2;
                        inside = RowRest::Quoted;
                    }
                    [_] => return Skipped::Unfinished(at, RowRest::Unquoted),
                    _ => at += 1,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where the row that is skipped from here ends, if the text is known in
    /// pieces of this size.
    fn skipped(text: &[u8], piece: usize, mut rest: RowRest) -> usize {
        let ends = RowEnds::Csv {
            delimiter: b',',
            fields: None,
        };
        let mut start = 0;
        let mut known = 0;
        loop {
            known = text.len().min(known + piece);
            match ends.skip(&text[..known], start, rest, known == text.len()) {
                Skipped::Row(next) => return next,
                Skipped::Unfinished(from, then) => (start, rest) = (from, then),
            }
        }
    }

    proptest! {
        /// What was seen of a row changes nothing but how long the search takes.
        #[test]
        fn a_search_that_goes_on_finds_what_a_new_one_finds(
            text in prop::collection::vec(
                prop_oneof![Just(b'"'), Just(b'\n'), Just(b','), Just(b'\r'), Just(b'x')],
                0..30,
            ),
            piece in 1usize..5,
            fields in prop::option::of(1usize..4),
        ) {
            let ends = RowEnds::Csv { delimiter: b',', fields };
            let mut start = 0;
            let mut known = 0;
            let mut seen = Seen::default();
            while known < text.len() {
                known = text.len().min(known + piece);
                let complete = known == text.len();
                while start < known {
                    let resumed = ends.resume(&text[..known], start, complete, &mut seen);
                    let new = ends.next(&text[..known], start, complete);
                    prop_assert_eq!(format!("{resumed:?}"), format!("{new:?}"));
                    let RowEnd::Row { next, .. } = resumed else {
                        break;
                    };
                    start = next;
                }
            }
            prop_assert_eq!(start, text.len());
        }

        #[test]
        fn a_row_is_skipped_to_the_same_place_in_pieces(
            text in prop::collection::vec(
                prop_oneof![Just(b'"'), Just(b'\n'), Just(b','), Just(b'\r'), Just(b'x')],
                0..30,
            ),
            piece in 1usize..5,
            is_quoted in any::<bool>(),
        ) {
            let rest = if is_quoted { RowRest::Quoted } else { RowRest::Unquoted };
            prop_assert_eq!(skipped(&text, piece, rest), skipped(&text, 100, rest));
        }
    }

    #[test]
    fn the_rest_of_a_row_ends_where_no_quote_is_open() {
        fn ends(text: &str, rest: RowRest) -> &str {
            &text[..skipped(text.as_bytes(), 100, rest)]
        }
        assert_eq!(ends("x\ny", RowRest::Unquoted), "x\n");
        assert_eq!(
            ends("x\ny\",\"\nz\"\n1", RowRest::Quoted),
            "x\ny\",\"\nz\"\n"
        );
        assert_eq!(ends("\"\"\"\r\n1", RowRest::Quoted), "\"\"\"\r\n");
        assert_eq!(ends("x\ny", RowRest::Quoted), "x\ny");
        assert_eq!(ends(",\"\n\",\n1", RowRest::Unquoted), ",\"\n\",\n");
    }
}
