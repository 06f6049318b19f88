//! Cuts the bytes of a connection into rows, however packets divide them.

use toml::Spanned;

use crate::config::diagnostics::Diagnostics;
use crate::config::reader::Table;
use crate::source::pieces::{Piece, RowCutter};
use crate::source::row_ends::ROW_BYTES_MAX;

/// How a stream marks the end of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Newline,
    /// A big-endian u32 with the length of the row, then the row.
    LengthPrefixed,
    /// The length of the row as text and a blank, then the row (RFC 6587).
    OctetCounted,
}

impl Framing {
    /// Reads the key `framing`.
    pub fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Framing> {
        let framings = &[
            ("newline", Framing::Newline),
            ("length_prefixed", Framing::LengthPrefixed),
            ("octet_counted", Framing::OctetCounted),
        ];
        match table.optional("framing") {
            Some(value) => value.choice(framings, mistakes).map(Spanned::into_inner),
            None => Some(Framing::Newline),
        }
    }

    /// As descriptions call its rows.
    pub fn name(self) -> &'static str {
        match self {
            Framing::Newline => "lines",
            Framing::LengthPrefixed => "length-prefixed frames",
            Framing::OctetCounted => "octet-counted frames",
        }
    }
}

/// Cuts a connection's bytes into rows.
#[derive(Clone)]
pub struct Frames {
    framing: Framing,
    rows: RowCutter,
    /// Whether the next frame cannot be found any more.
    pub lost: bool,
    /// The last line has been given a line end.
    is_closed: bool,
}

impl Frames {
    pub fn new(framing: Framing, rows: RowCutter) -> Self {
        Frames {
            framing,
            rows,
            lost: false,
            is_closed: false,
        }
    }

    /// What was not taken yet.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.rows.text
    }

    /// Takes complete frames, up to one that is too long. An empty piece says
    /// that there is none.
    pub fn take(&mut self) -> Piece {
        match self.framing {
            Framing::Newline => self.rows.take(false),
            Framing::LengthPrefixed => self.take_frames(big_endian),
            Framing::OctetCounted => self.take_frames(octet_count),
        }
    }

    /// Takes frames behind their lengths, which `prefix` reads.
    fn take_frames(&mut self, prefix: fn(&[u8]) -> Prefix) -> Piece {
        let buffer = &self.rows.text;
        let mut spans = Vec::new();
        let mut at = 0;
        let wrong = loop {
            let (start, length) = match prefix(&buffer[at..]) {
                Prefix::Unfinished => break None,
                Prefix::Wrong(found) => break Some(found),
                Prefix::Frame { length, .. } if length > ROW_BYTES_MAX => {
                    break Some(format!("a length of {length} bytes"));
                }
                Prefix::Frame { bytes, length } => (at + bytes, length),
            };
            if buffer.len() - start < length {
                break None;
            }
            at = start + length;
            if length > 0 || self.rows.has_empty_rows {
                spans.push((start as u32, at as u32));
            }
        };
        let mut piece = self.rows.cut(at, spans);
        if let Some(found) = wrong {
            self.lost = true;
            let error = format!(
                "expected a frame of at most 16 MiB behind its length, found {found}; the \
                 connection was closed"
            );
            piece.broken = self.rows.take_bad(error).broken;
        }
        piece
    }

    /// Takes what is left when the connection has ended: by being closed, or by
    /// an error (`broken`). An empty piece says that there is nothing.
    pub fn end(&mut self, broken: Option<&str>) -> Piece {
        if self.framing == Framing::Newline && broken.is_none() {
            // The last line may have no line end.
            if !self.is_closed && !self.rows.text.is_empty() {
                self.rows.text.push(b'\n');
                self.is_closed = true;
            }
            let piece = self.rows.take(false);
            if !piece.is_empty() || !self.rows.is_in_row() {
                return piece;
            }
            self.rows.text.pop();
            let length = self.rows.text.len();
            return self.rows.take_bad(format!(
                "expected the closing quote of a field, found {length} bytes of its row and the \
                 end of the connection"
            ));
        }
        if !self.rows.is_in_row() {
            return Piece::default();
        }
        let cause = broken.unwrap_or("it was closed");
        let length = self.rows.text.len();
        self.rows.take_bad(format!(
            "expected the rest of a frame, found {length} bytes of it and the end of the \
             connection: {cause}"
        ))
    }

    /// Takes the unfinished row as a bad one, since all connections have more than
    /// `mib_max` of them; the connection is closed.
    pub fn give_up(&mut self, mib_max: usize) -> Piece {
        let length = self.rows.text.len();
        self.rows.take_bad(format!(
            "expected the end of a row, found {length} bytes without it while all connections \
             had more than {mib_max} MiB of unfinished rows; the connection was closed"
        ))
    }
}

/// What a text begins with where a frame should.
enum Prefix {
    Unfinished,
    /// How long the prefix is, and how long the row.
    Frame {
        bytes: usize,
        length: usize,
    },
    /// It is no length: what was found.
    Wrong(String),
}

fn big_endian(text: &[u8]) -> Prefix {
    match text.first_chunk::<4>() {
        None => Prefix::Unfinished,
        Some(prefix) => Prefix::Frame {
            bytes: 4,
            length: u32::from_be_bytes(*prefix) as usize,
        },
    }
}

/// More digits than any length has.
const DIGITS_MAX: usize = 10;

/// Reads `123 `.
fn octet_count(text: &[u8]) -> Prefix {
    let start = &text[..text.len().min(DIGITS_MAX)];
    let end = start.iter().position(|byte| !byte.is_ascii_digit());
    let (digits, rest) = start.split_at(end.unwrap_or(start.len()));
    let length = std::str::from_utf8(digits).ok();
    let length = length.and_then(|digits| digits.parse().ok());
    match (length, rest) {
        (_, []) if start.len() < DIGITS_MAX => Prefix::Unfinished,
        (Some(length), [b' ', ..]) => Prefix::Frame {
            bytes: digits.len() + 1,
            length,
        },
        _ => Prefix::Wrong(format!("`{}`", String::from_utf8_lossy(start))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::schema::{DataType, Field, Schema};

    #[test]
    fn counted_rows_are_found_however_they_are_divided() {
        let schema = Schema::new(vec![Field::new("line", DataType::Utf8, false)]);
        let text = b"5 a\nb c0 12 twelve bytes3 end";
        for size in 1..=text.len() {
            let rows = RowCutter::new(&Format::Raw, Some(1), &schema);
            let mut frames = Frames::new(Framing::OctetCounted, rows);
            let mut found = Vec::new();
            for packet in text.chunks(size) {
                frames.buffer().extend_from_slice(packet);
                let piece = frames.take();
                for (from, to) in piece.spans {
                    let row = &piece.data[from as usize..to as usize];
                    found.push(String::from_utf8_lossy(row).into_owned());
                }
            }
            assert_eq!(found, ["a\nb c", "", "twelve bytes", "end"], "{size}");
            assert!(frames.end(None).is_empty());
        }
    }

    #[test]
    fn what_is_no_count_ends_the_connection() {
        let schema = Schema::new(vec![Field::new("line", DataType::Utf8, false)]);
        for text in ["x", "<34>1 - - -", "5x", "12345678901 x", "99999999 x"] {
            let rows = RowCutter::new(&Format::Raw, Some(1), &schema);
            let mut frames = Frames::new(Framing::OctetCounted, rows);
            frames.buffer().extend_from_slice(b"1 a");
            frames.buffer().extend_from_slice(text.as_bytes());
            let piece = frames.take();
            assert_eq!(piece.spans.len(), 1, "{text}");
            let bad = piece.broken.expect(text);
            assert!(
                bad.error.contains("behind its length, found"),
                "{}",
                bad.error
            );
            assert!(frames.lost);
        }
    }
}
