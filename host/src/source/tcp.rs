//! Reads rows that others send over TCP. The listener is one partition, of all
//! its connections; offsets count rows in the order in which they came.
//!
//! A connection's bytes are cut into rows as they come, whatever the packets
//! were. What has come is handed on when nothing more is there to be read at
//! once, so that a row never waits for a batch to fill.

use std::net::SocketAddr;
use std::time::Duration;

use arrow_buffer::Buffer;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::framing::{ROW_BYTES_MAX, TOO_LONG, excerpt, too_long};
use super::{BadInput, Chunk, SourceContext, SourceError, at_row, decode};
use crate::batch::Offsets;
use crate::checkpoint::snapshot::Position;
use crate::decode::Decoder;
use crate::plan::{Format, Framing, SourcePlan, TcpSourcePlan};

/// What is read from a connection at a time.
const READ_BYTES: usize = 64 << 10;

/// Pieces that connections have sent and nobody has taken: behind so many,
/// connections wait, and so do those who write to them.
const PIECES_MAX: usize = 64;

/// A block is handed on when it has so many bytes, even if rows are missing.
const BLOCK_BYTES_MAX: usize = 8 << 20;

pub(super) struct TcpInput {
    address: SocketAddr,
    partition: std::sync::Arc<str>,
    pieces: mpsc::Receiver<Piece>,
    /// Rows of a piece that did not fit into the last block.
    left: Option<Piece>,
    decoder: Decoder,
    /// How many rows have come.
    rows: u64,
    context: SourceContext,
    /// Dropped with the input, and all connections with it.
    _listener: JoinSet<()>,
}

/// Rows that came together on one connection.
#[derive(Debug, Default)]
struct Piece {
    data: Vec<u8>,
    spans: Vec<(u32, u32)>,
    /// Behind the rows: the next one, which is bad. Its offset is still to come.
    broken: Option<BadInput>,
}

impl TcpInput {
    pub async fn open(
        tcp: &TcpSourcePlan,
        plan: &SourcePlan,
        context: &SourceContext,
    ) -> Result<Self, SourceError> {
        let wrong = |message: String| SourceError::Open {
            node: context.node.to_string(),
            message,
        };
        if let Format::Csv(csv) = &tcp.format
            && csv.header
        {
            return Err(wrong(
                "rows over TCP have no header: set `csv = { header = false }` and send the \
                 fields in order"
                    .to_owned(),
            ));
        }
        let cannot_listen =
            |cause: std::io::Error| wrong(format!("cannot listen on {}: {cause}", tcp.listen));
        let listener = TcpListener::bind(&tcp.listen)
            .await
            .map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        tracing::info!(source = %context.node, %address, "listening");
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tcp.framing, tcp.connections, sender));
        Ok(TcpInput {
            address,
            partition: address.to_string().into(),
            pieces,
            left: None,
            decoder: Decoder::new(&tcp.format, &context.schema, &plan.timestamp_formats),
            // Rows that were sent are gone; their numbers are not used again.
            rows: context
                .restored(&address.to_string())
                .map_or(0, |found| found.position.offset),
            context: context.clone(),
            _listener: tasks,
        })
    }

    /// The name of the partition, and the number of its next row.
    pub fn partition(&self) -> (std::sync::Arc<str>, Position) {
        (self.partition.clone(), at_row(self.rows))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn next(&mut self) -> Option<Chunk> {
        let first = match self.left.take() {
            Some(piece) => piece,
            None => self.pieces.recv().await?,
        };
        let rows_max = self.context.batch_rows.max(1);
        let mut data = Vec::new();
        let mut spans = Vec::new();
        let mut offsets = Vec::new();
        let mut broken = Vec::new();
        let mut next = Some(first);
        while let Some(mut piece) = next {
            let room = rows_max - (spans.len() + broken.len()).min(rows_max);
            let taken = room.min(piece.spans.len());
            for (start, end) in piece.spans.drain(..taken) {
                let row = &piece.data[start as usize..end as usize];
                if row.len() > ROW_BYTES_MAX {
                    broken.push(too_long(self.rows, row));
                } else {
                    let at = data.len() as u32;
                    data.extend_from_slice(row);
                    spans.push((at, data.len() as u32));
                    offsets.push(self.rows);
                }
                self.rows += 1;
            }
            if !piece.spans.is_empty() {
                self.left = Some(piece);
                break;
            }
            if let Some(bad) = piece.broken {
                broken.push(BadInput {
                    offset: self.rows,
                    ..bad
                });
                self.rows += 1;
            }
            if spans.len() + broken.len() >= rows_max || data.len() >= BLOCK_BYTES_MAX {
                break;
            }
            next = self.pieces.try_recv().ok();
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
        Some(chunk)
    }
}

/// Takes connections, as many as are wanted, and waits until they are closed.
async fn accept(
    listener: TcpListener,
    framing: Framing,
    connections: Option<u64>,
    sender: mpsc::Sender<Piece>,
) {
    let mut open = JoinSet::new();
    let mut taken = 0;
    while connections.is_none_or(|connections| taken < connections) {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    taken += 1;
                    open.spawn(read(stream, framing, sender.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others have to close first.
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Reads a connection to its end.
async fn read(mut stream: TcpStream, framing: Framing, sender: mpsc::Sender<Piece>) {
    let mut frames = Frames::new(framing);
    loop {
        frames.buffer.reserve(READ_BYTES);
        let (piece, is_over) = match stream.read_buf(&mut frames.buffer).await {
            Ok(0) => (frames.end(None), true),
            Ok(_) => (frames.take(), frames.lost),
            Err(error) => (frames.end(Some(&error.to_string())), true),
        };
        if !piece.is_empty() && sender.send(piece).await.is_err() {
            return;
        }
        if is_over {
            return;
        }
    }
}

/// Cuts a connection's bytes into rows.
struct Frames {
    framing: Framing,
    /// Begins with a frame, unless one is being skipped.
    buffer: Vec<u8>,
    /// How much of the buffer is known to have no line end.
    searched: usize,
    /// In a line that was too long: the rest of it is still to come.
    skipping: bool,
    /// Where the next frame begins cannot be known any more.
    lost: bool,
}

impl Frames {
    fn new(framing: Framing) -> Self {
        Frames {
            framing,
            buffer: Vec::new(),
            searched: 0,
            skipping: false,
            lost: false,
        }
    }

    /// The frames that are there whole.
    fn take(&mut self) -> Piece {
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
                return self.give_up(TOO_LONG.to_owned());
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
                piece.broken = self.give_up(error).broken;
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

    /// What is left when the connection has ended: by being closed, or `broken`.
    fn end(&mut self, broken: Option<&str>) -> Piece {
        if self.skipping || self.buffer.is_empty() {
            return Piece::default();
        }
        match (self.framing, broken) {
            // The last line may do without a line end.
            (Framing::Newline, None) => {
                self.buffer.push(b'\n');
                self.take_lines()
            }
            (_, broken) => {
                let cause = broken.unwrap_or("it was closed");
                let length = self.buffer.len();
                self.give_up(format!(
                    "expected the rest of a frame, found {length} bytes of it and the end of \
                     the connection: {cause}"
                ))
            }
        }
    }

    /// The buffer's first bytes with rows in them; the rest stays.
    fn cut(&mut self, at: usize, spans: Vec<(u32, u32)>) -> Piece {
        let rest = self.buffer.split_off(at);
        Piece {
            data: std::mem::replace(&mut self.buffer, rest),
            spans,
            broken: None,
        }
    }

    /// The buffer is one bad row.
    fn give_up(&mut self, error: String) -> Piece {
        let payload = excerpt(&self.buffer);
        self.buffer.clear();
        self.searched = 0;
        Piece {
            broken: Some(BadInput {
                offset: 0,
                error,
                payload,
            }),
            ..Piece::default()
        }
    }
}

impl Piece {
    fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.broken.is_none()
    }
}
