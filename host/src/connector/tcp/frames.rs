//! Cuts the bytes of a connection into rows, however packets divide them.

use crate::source::pieces::{Piece, RowCutter};
use crate::source::row_ends::ROW_BYTES_MAX;

/// How a stream marks the end of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Newline,
    /// A big-endian u32 with the length of the row, then the row.
    LengthPrefixed,
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
            Framing::LengthPrefixed => self.take_prefixed(),
        }
    }

    fn take_prefixed(&mut self) -> Piece {
        let buffer = &self.rows.text;
        let mut spans = Vec::new();
        let mut at = 0;
        while let Some((prefix, rest)) = buffer[at..].split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            if length > ROW_BYTES_MAX {
                self.lost = true;
                let mut piece = self.rows.cut(at, spans);
                let error = format!(
                    "expected a frame of at most 16 MiB behind its length, found a length of \
                     {length} bytes; the connection was closed"
                );
                piece.broken = self.rows.take_bad(error).broken;
                return piece;
            }
            if rest.len() < length {
                break;
            }
            let start = at + 4;
            at = start + length;
            if length > 0 || self.rows.has_empty_rows {
                spans.push((start as u32, at as u32));
            }
        }
        self.rows.cut(at, spans)
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
