//! Cuts the bytes of a connection into rows, however packets divide them.

use crate::source::chunk::BadRow;
use crate::source::row_ends::{ROW_BYTES_MAX, TOO_LONG, bad_row};

/// How a stream marks the end of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Newline,
    /// A big-endian u32 with the length of the row, then the row.
    LengthPrefixed,
}

/// Rows that one connection sent together.
#[derive(Debug, Default)]
pub struct Piece {
    pub data: Vec<u8>,
    pub spans: Vec<(u32, u32)>,
    /// The row after these, if it is bad. Its offset is set by the reader.
    pub broken: Option<BadRow>,
}

/// Cuts a connection's bytes into rows.
pub struct Frames {
    framing: Framing,
    /// Starts with a frame, unless one is being skipped.
    pub buffer: Vec<u8>,
    /// How many bytes of the buffer are known to have no line end.
    searched: usize,
    /// A line was too long, and its rest is still to be skipped.
    skipping: bool,
    /// Whether the next frame cannot be found any more.
    pub lost: bool,
}

impl Frames {
    pub fn new(framing: Framing) -> Self {
        Frames {
            framing,
            buffer: Vec::new(),
            searched: 0,
            skipping: false,
            lost: false,
        }
    }

    /// Takes all complete frames.
    pub fn take(&mut self) -> Piece {
        match self.framing {
            Framing::Newline => self.take_lines(),
            Framing::LengthPrefixed => self.take_prefixed(),
        }
    }

    fn take_lines(&mut self) -> Piece {
        let last = memchr::memrchr(b'\n', &self.buffer[self.searched..]);
        let Some(last) = last.map(|last| self.searched + last) else {
            if self.skipping {
                self.buffer.clear();
            } else if self.buffer.len() > ROW_BYTES_MAX {
                self.skipping = true;
                return self.take_bad(TOO_LONG.to_owned());
            }
            self.searched = self.buffer.len();
            return Piece::default();
        };
        let mut spans = Vec::new();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &self.buffer[..=last]) {
            let line = &self.buffer[start..end];
            let length = line.strip_suffix(b"\r").unwrap_or(line).len();
            if length > 0 && !self.skipping {
                spans.push((start as u32, (start + length) as u32));
            }
            self.skipping = false;
            start = end + 1;
        }
        self.searched = self.buffer.len() - start;
        self.cut(start, spans)
    }

    fn take_prefixed(&mut self) -> Piece {
        let mut spans = Vec::new();
        let mut at = 0;
        while let Some((prefix, rest)) = self.buffer[at..].split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            if length > ROW_BYTES_MAX {
                self.lost = true;
                let mut piece = self.cut(at, spans);
                let error = format!(
                    "expected a frame of at most 16 MiB behind its length, found a length of \
                     {length} bytes; the connection was closed"
                );
                piece.broken = self.take_bad(error).broken;
                return piece;
            }
            if rest.len() < length {
                break;
            }
            let start = at + 4;
            at = start + length;
            if length > 0 {
                spans.push((start as u32, at as u32));
            }
        }
        self.cut(at, spans)
    }

    /// Takes what is left when the connection has ended: by being closed, or by
    /// an error (`broken`).
    pub fn end(&mut self, broken: Option<&str>) -> Piece {
        if self.skipping || self.buffer.is_empty() {
            return Piece::default();
        }
        match (self.framing, broken) {
            // The last line may have no line end.
            (Framing::Newline, None) => {
                self.buffer.push(b'\n');
                self.take_lines()
            }
            (_, broken) => {
                let cause = broken.unwrap_or("it was closed");
                let length = self.buffer.len();
                self.take_bad(format!(
                    "expected the rest of a frame, found {length} bytes of it and the end of \
                     the connection: {cause}"
                ))
            }
        }
    }

    /// Takes the unfinished row as a bad one, since all connections have more than
    /// `mib_max` of them; the connection is closed.
    pub fn give_up(&mut self, mib_max: usize) -> Piece {
        let length = self.buffer.len();
        self.take_bad(format!(
            "expected the end of a row, found {length} bytes without it while all connections \
             had more than {mib_max} MiB of unfinished rows; the connection was closed"
        ))
    }

    /// Takes the buffer's first bytes with the rows in them; the rest stays.
    fn cut(&mut self, at: usize, spans: Vec<(u32, u32)>) -> Piece {
        let rest = self.buffer.split_off(at);
        Piece {
            data: std::mem::replace(&mut self.buffer, rest),
            spans,
            broken: None,
        }
    }

    /// Takes the whole buffer as one bad row.
    fn take_bad(&mut self, error: String) -> Piece {
        let bad = bad_row(0, error, &self.buffer);
        self.buffer.clear();
        self.searched = 0;
        Piece {
            broken: Some(bad),
            ..Piece::default()
        }
    }
}

impl Piece {
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.broken.is_none()
    }
}
