//! Rows of a text that comes in pieces, from a connection or a pipe: where they
//! are, however the text is divided, and chunks of them. Offsets count rows in the
//! order in which they came, since the text cannot be read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_buffer::Buffer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::SourceContext;
use super::chunk::{BadRow, Chunk, at_row, decode};
use super::row_ends::{RowEnd, RowEnds, RowRest, Seen, Skipped, bad_row, too_long_before};
use crate::batch::Offsets;
use crate::checkpoint::snapshot::Position;
use crate::decode::Decoder;
use crate::format::Format;
use crate::schema::Schema;

/// A block ends at this size, even if it has fewer rows than a batch.
const BLOCK_BYTES_MAX: usize = 8 << 20;

/// How many bytes of rows that have come may wait for the reader.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Rows that came together.
#[derive(Debug, Default)]
pub struct Piece {
    pub data: Vec<u8>,
    pub spans: Vec<(u32, u32)>,
    /// The row after these, if it is bad. Its offset is set by [`PieceChunks`].
    pub broken: Option<BadRow>,
    /// How many bytes before the data were the rest of a row that was too long.
    pub skipped: usize,
}

impl Piece {
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// How many there are, good and bad.
    pub fn rows(&self) -> usize {
        self.spans.len() + usize::from(self.broken.is_some())
    }
}

/// Cuts a text into rows.
#[derive(Clone, Debug)]
pub struct RowCutter {
    ends: RowEnds,
    /// Whether an empty line is a row.
    pub has_empty_rows: bool,
    /// What was not taken yet. Starts with a row, unless one is being skipped.
    pub text: Vec<u8>,
    seen: Seen,
    /// A row was too long, and its rest is still to be skipped.
    skipping: Option<RowRest>,
}

impl RowCutter {
    /// `fields` is how many a row has, if that is known: formats with a header say it
    /// there.
    pub fn new(format: &Format, fields: Option<usize>, schema: &Schema) -> Self {
        let mut ends = RowEnds::of(format);
        if let Some(fields) = fields {
            ends.expect_fields(fields);
        }
        RowCutter {
            has_empty_rows: ends.has_empty_rows(format, schema),
            ends,
            text: Vec::new(),
            seen: Seen::default(),
            skipping: None,
        }
    }

    /// Goes on with the text that another one has left.
    pub fn after(self, other: RowCutter) -> Self {
        RowCutter {
            text: other.text,
            skipping: other.skipping,
            ..self
        }
    }

    /// Takes the first line that is not empty; an error if it is too long. `None` if
    /// there is none yet.
    pub fn take_header(&mut self, complete: bool) -> Option<Result<Vec<u8>, BadRow>> {
        while !self.text.is_empty() {
            match (self.ends).resume(&self.text, 0, complete, &mut self.seen) {
                RowEnd::Row { end, next } => {
                    let line = self.text[..end].to_vec();
                    self.text.drain(..next);
                    if !line.is_empty() {
                        return Some(Ok(line));
                    }
                }
                RowEnd::TooLong(_, rest) => return Some(Err(too_long_before(0, &self.text, rest))),
                RowEnd::Unfinished => break,
            }
        }
        None
    }

    /// Takes the rows that are complete, up to one that is too long; with
    /// `complete`, no text follows. An empty piece says that there is none.
    pub fn take(&mut self, complete: bool) -> Piece {
        let mut skipped = 0;
        while let Some(rest) = self.skipping {
            match self.ends.skip(&self.text, 0, rest, complete) {
                Skipped::Row(next) => {
                    self.text.drain(..next);
                    self.skipping = None;
                    skipped = next;
                }
                Skipped::Unfinished(from, rest) => {
                    self.text.drain(..from);
                    self.skipping = Some(rest);
                    return Piece::default();
                }
            }
        }
        let mut spans = Vec::new();
        let mut at = 0;
        while at < self.text.len() {
            match (self.ends).resume(&self.text, at, complete, &mut self.seen) {
                RowEnd::Row { end, next } => {
                    if end > at || self.has_empty_rows {
                        spans.push((at as u32, end as u32));
                    }
                    at = next;
                }
                RowEnd::TooLong(from, rest) => {
                    let broken = too_long_before(0, &self.text[at..], rest);
                    let piece = self.cut(at, spans);
                    self.text.drain(..from - at);
                    self.skipping = Some(rest);
                    return Piece {
                        broken: Some(broken),
                        skipped,
                        ..piece
                    };
                }
                RowEnd::Unfinished => break,
            }
        }
        Piece {
            skipped,
            ..self.cut(at, spans)
        }
    }

    /// The rest of a row that is being skipped: what was not taken yet begins with it.
    pub fn rest(&self) -> Option<RowRest> {
        self.skipping
    }

    /// Goes on in the rest of a row that is being skipped.
    pub fn skip(&mut self, rest: Option<RowRest>) {
        self.skipping = rest;
    }

    /// Whether the text, if it ended here, would end in a row.
    pub fn is_in_row(&self) -> bool {
        self.skipping.is_none() && !self.text.is_empty()
    }

    /// Takes the text's first bytes with the rows in them; the rest stays.
    pub fn cut(&mut self, at: usize, spans: Vec<(u32, u32)>) -> Piece {
        if at == 0 {
            return Piece::default();
        }
        let rest = self.text.split_off(at);
        Piece {
            data: std::mem::replace(&mut self.text, rest),
            spans,
            ..Piece::default()
        }
    }

    /// Takes the whole text as one bad row.
    pub fn take_bad(&mut self, error: String) -> Piece {
        let bad = bad_row(0, error, &self.text);
        self.text.clear();
        self.seen = Seen::default();
        Piece {
            broken: Some(bad),
            ..Piece::default()
        }
    }
}

/// Makes chunks of pieces, each of at most a batch.
pub struct PieceChunks {
    pub partition: Arc<str>,
    /// The rest of a piece that did not fit into the last chunk.
    left: Option<Piece>,
    pub decoder: Decoder,
    /// How many rows have come.
    rows: u64,
    context: SourceContext,
}

impl PieceChunks {
    /// Offsets go on where the restored ones end: the rows before them are gone.
    pub fn new(partition: Arc<str>, decoder: Decoder, context: &SourceContext) -> Self {
        PieceChunks {
            rows: context
                .restored(&partition)
                .map_or(0, |found| found.position.offset),
            partition,
            left: None,
            decoder,
            context: context.clone(),
        }
    }

    /// The number of the next row.
    pub fn position(&self) -> Position {
        at_row(self.rows)
    }

    /// The rows that did not fit into the last chunk.
    pub fn left(&mut self) -> Option<Piece> {
        self.left.take()
    }

    /// Makes a chunk of this piece and those that are there already.
    pub fn chunk(&mut self, first: Piece, mut more: impl FnMut() -> Option<Piece>) -> Chunk {
        let rows_max = self.context.rows_max();
        let mut data = Vec::new();
        let mut spans = Vec::new();
        let mut offsets = Vec::new();
        let mut broken = Vec::new();
        let mut next = Some(first);
        while let Some(mut piece) = next {
            let room = rows_max - (spans.len() + broken.len()).min(rows_max);
            let taken = room.min(piece.spans.len());
            for (start, end) in piece.spans.drain(..taken) {
                let at = data.len() as u32;
                data.extend_from_slice(&piece.data[start as usize..end as usize]);
                spans.push((at, data.len() as u32));
                offsets.push(self.rows);
                self.rows += 1;
            }
            if !piece.spans.is_empty() {
                self.left = Some(piece);
                break;
            }
            if let Some(bad) = piece.broken {
                broken.push(BadRow {
                    offset: self.rows,
                    ..bad
                });
                self.rows += 1;
            }
            if spans.len() + broken.len() >= rows_max || data.len() >= BLOCK_BYTES_MAX {
                break;
            }
            next = more();
        }
        let mut chunk = decode(
            &mut self.decoder,
            self.context.node.clone(),
            self.partition.clone(),
            Buffer::from_vec(data),
            spans,
            Offsets::Each(offsets),
            at_row(self.rows),
        );
        chunk.bad.extend(broken);
        chunk
    }
}

/// Has pieces wait for the reader, who makes chunks of them: `pieces_max` of them, and so many
/// bytes. Whoever sends more waits.
pub fn queue(pieces_max: usize, chunks: PieceChunks) -> (PieceSender, WaitingPieces) {
    let (sender, pieces) = mpsc::channel(pieces_max);
    let rows = Arc::new(AtomicUsize::new(0));
    let sender = PieceSender {
        sender,
        room: Arc::new(Semaphore::new(WAITING_BYTES_MAX >> 10)),
        rows: rows.clone(),
    };
    let waiting = WaitingPieces {
        pieces,
        chunks,
        rows,
    };
    (sender, waiting)
}

#[derive(Clone)]
pub struct PieceSender {
    sender: mpsc::Sender<(Piece, OwnedSemaphorePermit)>,
    /// A permit for each KiB that may wait.
    room: Arc<Semaphore>,
    rows: Arc<AtomicUsize>,
}

impl PieceSender {
    /// Waits for room. Returns whether anybody reads on.
    pub async fn send(&self, piece: Piece) -> bool {
        self.rows.fetch_add(piece.rows(), Ordering::Relaxed);
        let kib = piece.data.len().min(WAITING_BYTES_MAX).div_ceil(1 << 10);
        let Ok(room) = self.room.clone().acquire_many_owned(kib as u32).await else {
            return false;
        };
        self.sender.send((piece, room)).await.is_ok()
    }
}

/// Pieces that wait, and the chunks of them. The partition's position is the number of its
/// next row.
pub struct WaitingPieces {
    pieces: mpsc::Receiver<(Piece, OwnedSemaphorePermit)>,
    chunks: PieceChunks,
    rows: Arc<AtomicUsize>,
}

impl WaitingPieces {
    /// The next rows, or `None` when nobody sends any more. May be dropped while it waits.
    pub async fn next_chunk(&mut self) -> Option<Chunk> {
        let first = match self.chunks.left() {
            Some(piece) => piece,
            None => self.pieces.recv().await?.0,
        };
        let more = || self.pieces.try_recv().ok().map(|(piece, _)| piece);
        let chunk = self.chunks.chunk(first, more);
        let rows = chunk.rows + chunk.bad.len();
        self.rows.fetch_sub(rows, Ordering::Relaxed);
        Some(chunk)
    }

    /// The partition, and its position.
    pub fn partition(&self) -> (Arc<str>, Position) {
        (self.chunks.partition.clone(), self.chunks.position())
    }

    /// How many rows have come and were not read.
    pub fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }
}
