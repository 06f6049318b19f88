//! A file that is open and grows: finds the rows in it, and notices when what was read of it
//! is not there any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow_buffer::Buffer;

use super::super::digest::{self, digest_of, read_at_most};
use super::super::input::{drop_byte_order_mark, long_header, looks_wrong};
use super::super::mark::Head;
use super::super::opened::Compression;
use crate::batch::Offsets;
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::decode::Decoder;
use crate::format::{Format, RowFormat};
use crate::source::chunk::{BadRow, Chunk, decode};
use crate::source::pieces::{Piece, RowCutter};
use crate::source::row_ends::RowRest;
use crate::source::{SourceContext, SourceError};

/// How much is looked at and kept of what was read, at its beginning and its end.
const KEPT_BYTES: usize = digest::BYTES as usize;

/// The size of a block is estimated from the rows of a batch, within these bounds.
const BLOCK_BYTES_MIN: usize = 8 << 10;
const BLOCK_BYTES_MAX: usize = 8 << 20;

/// A file that is open, at some place in it.
pub(super) struct GrowingFile {
    /// As messages show it.
    name: String,
    partition: Arc<str>,
    file: File,
    /// What was read and is no row yet.
    cutter: RowCutter,
    /// Where the next read begins.
    read_at: u64,
    /// Rows that were cut, and not handed out yet.
    left: Option<CutRows>,
    decoder: Decoder,
    /// Whether the beginning was looked at, and the header read.
    is_begun: bool,
    /// The first bytes that were read.
    first: Vec<u8>,
    /// The last bytes before the rows that were not handed out yet.
    last: Vec<u8>,
    /// After the rows that were handed out.
    position: Position,
    /// Whether it is settled what is behind the last of these, if that had no line end.
    is_settled: bool,
    row_bytes: usize,
}

/// Rows that lie one behind the other.
struct CutRows {
    data: Buffer,
    spans: Vec<(u32, u32)>,
    /// How many of these were handed out.
    given: usize,
    /// Where the data begins in the file.
    base: u64,
    /// The row after these, if it was too long.
    broken: Option<BadRow>,
    /// The position after them, but for the number of rows.
    end: Position,
}

/// What came of reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    More,
    /// Nothing is there that was not read.
    AtEnd,
    /// What was read is not there any more: the file was cut, or is written anew.
    Cut,
}

/// How the rows of a source are written.
pub(super) struct Rows<'a> {
    pub format: &'a RowFormat,
    /// Whether a file that looks like another format is refused.
    pub must_be_text: bool,
    pub context: &'a SourceContext,
}

impl GrowingFile {
    /// Goes on in a file at a position of which it is known that the file has what was read.
    pub fn open(
        file: File,
        name: String,
        partition: Arc<str>,
        position: Position,
        rows: &Rows<'_>,
    ) -> io::Result<Result<Self, SourceError>> {
        let format = &rows.format.format;
        let mut growing = GrowingFile {
            name,
            partition,
            file,
            cutter: RowCutter::new(format, None, &rows.context.schema),
            read_at: 0,
            left: None,
            decoder: Decoder::new(rows.format, &rows.context.schema),
            is_begun: false,
            first: Vec::new(),
            last: Vec::new(),
            position,
            is_settled: false,
            row_bytes: 128,
        };
        if position.offset == 0 {
            return Ok(Ok(growing));
        }
        growing.first = growing.bytes_before(position.offset.min(KEPT_BYTES as u64))?;
        // The header says which field is which.
        while !growing.is_begun {
            let is_whole = match growing.fill(BLOCK_BYTES_MIN)? {
                Read::Cut => return Err(io::ErrorKind::UnexpectedEof.into()),
                Read::More => false,
                Read::AtEnd => true,
            };
            if let Err(error) = growing.begin(is_whole, rows) {
                return Ok(Err(error));
            }
            growing.is_begun |= is_whole;
        }
        growing.cutter.text.clear();
        growing
            .cutter
            .skip(match (position.is_in_row, position.is_in_quotes) {
                (false, _) => None,
                (true, false) => Some(RowRest::Unquoted),
                (true, true) => Some(RowRest::Quoted),
            });
        growing.read_at = position.offset;
        growing.last = growing.bytes_before(position.offset)?;
        Ok(Ok(growing))
    }

    /// After the rows that were handed out.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How much of the file was read.
    pub fn read_at(&self) -> u64 {
        self.read_at
    }

    /// How many bytes are in memory that are no rows yet.
    pub fn unfinished(&self) -> usize {
        self.cutter.text.len()
    }

    pub fn has_rows(&self) -> bool {
        self.left.is_some()
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// By which a later run knows it again.
    pub fn marks(&self) -> (String, Head) {
        (digest_of(&self.last), Head::of(&self.first))
    }

    /// Whether another file begins like this one, as far as either goes.
    pub fn begins_as(&self, other: &[u8]) -> bool {
        begin_alike(&self.first, other)
    }

    /// Reads on, unless rows are there to be handed out.
    pub fn read(&mut self, context: &SourceContext) -> io::Result<Read> {
        let rows_max = context.rows_max();
        let bytes = rows_max.saturating_mul(self.row_bytes + self.row_bytes / 16 + 1);
        self.fill(bytes.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX))
    }

    fn fill(&mut self, bytes: usize) -> io::Result<Read> {
        let length = self.cutter.text.len();
        self.cutter.text.resize(length + bytes, 0);
        let read = read_at_most(&self.file, &mut self.cutter.text[length..], self.read_at);
        self.cutter
            .text
            .truncate(length + read.as_ref().map_or(0, |read| *read));
        let read = read?;
        // Only now: until what was read before is found to be there still, it may be of
        // what took its place.
        if !self.is_as_read(length)? {
            self.cutter.text.truncate(length);
            return Ok(Read::Cut);
        }
        let missing = KEPT_BYTES.saturating_sub(self.first.len()).min(read);
        if self.first.len() as u64 == self.read_at {
            self.first
                .extend_from_slice(&self.cutter.text[length..length + missing]);
        }
        self.read_at += read as u64;
        Ok(match read {
            0 => Read::AtEnd,
            _ => Read::More,
        })
    }

    /// Whether the file still has what was read of it: its beginning, what is before the
    /// rows that were not handed out, and the end of the `unfinished` bytes.
    fn is_as_read(&self, unfinished: usize) -> io::Result<bool> {
        if self.file.metadata()?.len() < self.read_at {
            return Ok(false);
        }
        let tail = &self.cutter.text[unfinished.saturating_sub(KEPT_BYTES)..unfinished];
        let places = [
            (0, self.first.as_slice()),
            (self.position.offset - self.last.len() as u64, &self.last),
            (self.read_at - tail.len() as u64, tail),
        ];
        let mut there = Vec::new();
        for (at, known) in places {
            there.resize(known.len(), 0);
            match self.file.read_exact_at(&mut there, at) {
                Ok(()) if there == known => {}
                Ok(()) => return Ok(false),
                Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(cause) => return Err(cause),
            }
        }
        Ok(true)
    }

    /// Whether what was read of the file is still there.
    pub fn is_there(&self) -> io::Result<bool> {
        self.is_as_read(self.cutter.text.len())
    }

    fn bytes_before(&self, offset: u64) -> io::Result<Vec<u8>> {
        let length = offset.min(KEPT_BYTES as u64);
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, offset - length)?;
        Ok(bytes)
    }

    /// Looks at the beginning, and reads the header, if enough of it is there.
    fn begin(&mut self, complete: bool, rows: &Rows<'_>) -> Result<(), SourceError> {
        let text = &mut self.cutter.text;
        let is_enough = text.len() >= KEPT_BYTES || memchr::memchr(b'\n', text).is_some();
        if !is_enough && !complete {
            return Ok(());
        }
        let context = rows.context;
        let refuse = |message: String| context.refuse(message, Fault::OUTSIDE_LASTING);
        if rows.must_be_text
            && let Some(message) = looks_wrong(&self.name, true, text, Compression::None)
        {
            return Err(refuse(message));
        }
        drop_byte_order_mark(text);
        let format = &rows.format.format;
        let mut fields = context.schema.fields.len();
        if matches!(format, Format::Csv(csv) if csv.header) {
            let header = match self.cutter.take_header(complete) {
                None => return Ok(()),
                Some(Ok(header)) => header,
                Some(Err(long)) => {
                    return Err(refuse(long_header(&self.name, format, &long.payload)));
                }
            };
            let header = self.decoder.read_header(&header);
            fields = header
                .map_err(|error| refuse(format!("{}: {error}", self.name)))?
                .fields;
        }
        let cutter = RowCutter::new(format, Some(fields), &context.schema);
        let read = std::mem::replace(&mut self.cutter, cutter.clone());
        self.cutter = cutter.after(read);
        self.is_begun = true;
        Ok(())
    }

    /// Takes the next rows of what was read, at most a batch. With `complete`, nothing more
    /// is expected, and what is there of a last line is a row.
    pub fn take(&mut self, complete: bool, rows: &Rows<'_>) -> Result<Option<Chunk>, SourceError> {
        if self.left.is_none() && !self.cut(complete, rows)? {
            return Ok(None);
        }
        let context = rows.context;
        let rows_max = context.rows_max();
        let Some(left) = &mut self.left else {
            return Ok(None);
        };
        let from = left.given;
        let to = left.spans.len().min(from + rows_max);
        let mut spans = left.spans[from..to].to_vec();
        left.given = to;
        let mut given = spans.len();
        let mut broken = None;
        if to == left.spans.len() && given < rows_max {
            broken = left.broken.take();
            given += usize::from(broken.is_some());
        }
        let is_over = to == left.spans.len() && left.broken.is_none();
        let start = match left.spans.get(from) {
            _ if from == 0 => 0,
            Some(first) => first.0 as usize,
            None => left.data.len(),
        };
        let end = match left.spans.get(to) {
            Some(next) => next.0 as usize,
            None => left.data.len(),
        };
        for span in &mut spans {
            *span = (span.0 - start as u32, span.1 - start as u32);
        }
        let (data, base) = (left.data.slice_with_length(start, end - start), left.base);
        let mut position = match is_over {
            true => left.end,
            false => Position {
                offset: base + end as u64,
                ..Position::default()
            },
        };
        position.rows = Some(self.position.rows.unwrap_or_default() + given as u64);
        if is_over {
            self.left = None;
        }
        self.go_on(position, base + start as u64, &data);
        let mut chunk = decode(
            &mut self.decoder,
            context.node.clone(),
            self.partition.clone(),
            data,
            spans,
            Offsets::Bytes(base + start as u64),
            position,
        );
        chunk.bad.extend(broken);
        Ok(Some(chunk))
    }

    /// Cuts rows out of what was read. Returns whether there are some.
    fn cut(&mut self, complete: bool, rows: &Rows<'_>) -> Result<bool, SourceError> {
        if !self.is_begun {
            self.begin(complete, rows)?;
        }
        if !self.is_begun || !self.ends_last_row(complete, rows) {
            return Ok(false);
        }
        let text_at = self.read_at - self.cutter.text.len() as u64;
        let Piece {
            data,
            spans,
            broken,
            skipped,
        } = self.cutter.take(complete);
        let count = spans.len() + usize::from(broken.is_some());
        if count == 0 {
            return Ok(false);
        }
        self.row_bytes = data.len().div_ceil(count).max(1);
        let base = text_at + skipped as u64;
        let rest = self.cutter.rest();
        self.left = Some(CutRows {
            broken: broken.map(|bad| BadRow {
                offset: base + data.len() as u64,
                ..bad
            }),
            data: Buffer::from_vec(data),
            spans,
            given: 0,
            base,
            end: Position {
                offset: self.read_at - self.cutter.text.len() as u64,
                is_in_row: rest.is_some(),
                is_in_quotes: rest == Some(RowRest::Quoted),
                ..Position::default()
            },
        });
        Ok(true)
    }

    /// Where the last row was handed out before its line end came, skips that. Returns
    /// whether it is known if it comes.
    fn ends_last_row(&mut self, complete: bool, rows: &Rows<'_>) -> bool {
        let text = &mut self.cutter.text;
        let at = self.position.offset;
        let is_open = self.last.last().is_some_and(|last| *last != b'\n');
        if self.is_settled || !is_open || self.position.is_in_row || text.is_empty() {
            return true;
        }
        let ended = match text.as_slice() {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [b'\r'] if !complete => return false,
            _ => 0,
        };
        if ended == 0 {
            tracing::warn!(
                "source `{}`: {} goes on within its last row, which had no line end after it was \
                 rotated away: what comes from byte {at} on is taken for another row",
                rows.context.node,
                self.name
            );
        }
        text.drain(..ended);
        self.is_settled = true;
        true
    }

    /// Goes on behind rows that were handed out: these bytes, from this place on.
    fn go_on(&mut self, position: Position, from: u64, bytes: &[u8]) {
        if self.position.offset != from {
            self.last.clear();
        }
        self.last.extend_from_slice(bytes);
        let more = self.last.len().saturating_sub(KEPT_BYTES);
        self.last.drain(..more);
        let wanted = position.offset.min(KEPT_BYTES as u64);
        if from + bytes.len() as u64 != position.offset || (self.last.len() as u64) < wanted {
            // If it has just been cut, the next read finds that out.
            self.last = self.bytes_before(position.offset).unwrap_or_default();
        }
        self.position = position;
        self.is_settled = false;
    }
}

/// Whether two texts are the same, as far as either goes.
pub(super) fn begin_alike(one: &[u8], other: &[u8]) -> bool {
    let length = one.len().min(other.len());
    length > 0 && one[..length] == other[..length]
}
