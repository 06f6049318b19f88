//! Reads rows that clients send over TCP. The listener is the one partition,
//! for all connections; offsets count rows in the order in which they came.
//!
//! A connection's bytes are cut into rows as they come, however packets divide
//! them. Rows are handed on when no more can be read at once, so a row never
//! waits for a batch to fill.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_buffer::Buffer;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::frames::{Frames, Framing, Piece};
use crate::batch::Offsets;
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::decode::Decoder;
use crate::format::{Format, RowFormat};
use crate::source::chunk::{BadRow, Chunk, at_row, decode};
use crate::source::row_ends::{ROW_BYTES_MAX, too_long};
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput};

/// How many bytes are read from a connection at a time.
const READ_BYTES: usize = 64 << 10;

/// How many pieces may wait for the reader; beyond that, connections wait, and
/// so do the clients.
const PIECES_MAX: usize = 64;

/// A block ends at this size, even if it has fewer rows than a batch.
const BLOCK_BYTES_MAX: usize = 8 << 20;

/// How many connections are open at a time; others wait to be taken.
const CONNECTIONS_MAX: usize = 1_024;

/// How many bytes of rows that have come may wait for the reader.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// How many bytes of unfinished rows all connections have together.
const UNFINISHED_BYTES_MAX: usize = 64 << 20;

/// What a connection needs to know.
#[derive(Clone)]
struct Shared {
    framing: Framing,
    sender: mpsc::Sender<Waiting>,
    /// A permit for each KiB that may wait.
    room: Arc<Semaphore>,
    /// Bytes of the unfinished rows of all connections.
    unfinished: Arc<AtomicUsize>,
}

/// Rows that wait for the reader, and their room.
type Waiting = (Piece, OwnedSemaphorePermit);

pub struct TcpInput {
    address: SocketAddr,
    partition: Arc<str>,
    pieces: mpsc::Receiver<Waiting>,
    /// The rest of a piece that did not fit into the last block.
    left: Option<Piece>,
    decoder: Decoder,
    /// How many rows have come.
    rows: u64,
    context: SourceContext,
    /// Aborts all connections when the input is dropped.
    _listener: JoinSet<()>,
}

impl TcpInput {
    pub async fn open(
        listen: &str,
        framing: Framing,
        connections: Option<u64>,
        format: &RowFormat,
        context: &SourceContext,
    ) -> Result<Self, SourceError> {
        context.check_delimiter(&format.format)?;
        if let Format::Csv(csv) = &format.format
            && csv.header
        {
            return Err(context.refuse(
                "rows over TCP have no header: set `csv = { header = false }` and send the \
                 fields in order",
                Fault::CONFIG,
            ));
        }
        let cannot_listen = |cause: std::io::Error| {
            let message = format!("cannot listen on {listen}: {cause}");
            context.refuse(message, Fault::of_io(&cause))
        };
        let listener = TcpListener::bind(listen).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        tracing::info!(source = %context.node, %address, "listening");
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let mut tasks = JoinSet::new();
        let shared = Shared {
            framing,
            sender,
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX >> 10)),
            unfinished: Arc::default(),
        };
        tasks.spawn(accept(listener, connections, shared));
        Ok(TcpInput {
            address,
            partition: address.to_string().into(),
            pieces,
            left: None,
            decoder: Decoder::new(format, &context.schema),
            // Rows sent before the restart are gone, and their offsets are not
            // used again.
            rows: context
                .restored(&address.to_string())
                .map_or(0, |found| found.position.offset),
            context: context.clone(),
            _listener: tasks,
        })
    }

    async fn next_chunk(&mut self) -> Option<Chunk> {
        let first = match self.left.take() {
            Some(piece) => piece,
            None => self.pieces.recv().await?.0,
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
                broken.push(BadRow {
                    offset: self.rows,
                    ..bad
                });
                self.rows += 1;
            }
            if spans.len() + broken.len() >= rows_max || data.len() >= BLOCK_BYTES_MAX {
                break;
            }
            next = self.pieces.try_recv().ok().map(|(piece, _)| piece);
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

impl SourceInput for TcpInput {
    fn partitions(&self) -> usize {
        1
    }

    /// Its position is the number of its next row.
    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        (self.partition.clone(), at_row(self.rows))
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                Some(&partition) => Ok(Arrival::of(partition, self.next_chunk().await)),
                None => Ok(Arrival::Over),
            }
        })
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }
}

/// Accepts connections, up to the configured number, and waits until they are
/// closed.
async fn accept(listener: TcpListener, connections: Option<u64>, shared: Shared) {
    let mut open = JoinSet::new();
    let mut taken = 0;
    while connections.is_none_or(|connections| taken < connections) {
        tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    taken += 1;
                    open.spawn(read(stream, shared.clone()));
                }
                Err(error) => {
                    // Most likely the process has no more file descriptors:
                    // others have to be closed first.
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
    drop(listener);
    // The input ends when the last connection has been read.
    drop(shared);
    while open.join_next().await.is_some() {}
}

/// Reads a connection to its end.
async fn read(mut stream: TcpStream, shared: Shared) {
    let mut frames = Frames::new(shared.framing);
    let mut unfinished = Unfinished {
        of_all: shared.unfinished,
        bytes: 0,
    };
    loop {
        frames.buffer.reserve(READ_BYTES);
        let (mut piece, mut is_over) = match stream.read_buf(&mut frames.buffer).await {
            Ok(0) => (frames.end(None), true),
            Ok(_) => (frames.take(), frames.lost),
            Err(error) => (frames.end(Some(&error.to_string())), true),
        };
        let of_all = unfinished.set(frames.buffer.len());
        if of_all > UNFINISHED_BYTES_MAX && frames.buffer.len() > READ_BYTES {
            piece.broken = frames.give_up(UNFINISHED_BYTES_MAX >> 20).broken;
            is_over = true;
        }
        if !piece.is_empty() {
            let kib = piece.data.len().min(WAITING_BYTES_MAX).div_ceil(1 << 10);
            let room = shared.room.clone().acquire_many_owned(kib as u32).await;
            let Ok(room) = room else {
                return;
            };
            if shared.sender.send((piece, room)).await.is_err() {
                return;
            }
        }
        if is_over {
            return;
        }
    }
}

/// A connection's part of the bytes of unfinished rows.
struct Unfinished {
    of_all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Unfinished {
    /// Sets this connection's bytes, and returns those of all.
    fn set(&mut self, bytes: usize) -> usize {
        let before = std::mem::replace(&mut self.bytes, bytes);
        match bytes.checked_sub(before) {
            Some(more) => self.of_all.fetch_add(more, Ordering::Relaxed) + more,
            None => self.of_all.fetch_sub(before - bytes, Ordering::Relaxed) - (before - bytes),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.set(0);
    }
}
